"""The two files of a run, read without the library: what they show, and that each finding can be shown."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.clock import ManualClock
from execkit.exchanges.paper import PaperExchange
from execkit.model.market import Quote
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.testing.documents import (
    Execution,
    Ledger,
    Placed,
    check_files,
    read_ledger,
    unjournalled,
)
from execkit.testing.kill import Twice, settled

AT = datetime(2024, 1, 1, tzinfo=UTC)
BUY = ("A/B", "buy", "limit")
SELL = ("A/B", "sell", "stop")


def placed(key, *, terms=BUY, quantity=1, filled=0, began=0, ended=None, group=""):
    end = None if ended is None else AT + timedelta(seconds=ended)
    start = AT + timedelta(seconds=began)
    return Placed(key, terms, Decimal(quantity), Decimal(filled), start, end, group)


def intent(key, *, terms=BUY, role="entry", parent="s1", quantity="1"):
    request = dict(zip(("symbol", "side", "type"), terms, strict=True))
    request |= {"client_order_id": key, "quantity": quantity}
    record = {"kind": "intent", "request": request}
    return {"seq": 1, "record": record | {"role": role, "parent": parent}}


def fill(trade_id):
    return {"record": {"kind": "fill", "fill": {"trade_id": trade_id}}}


def found(tmp_path, rows, orders, executions=()):
    journal = tmp_path / "orders.db"
    journal.write_text('{"head":{}}\n' + "".join(json.dumps(row) + "\n" for row in rows) + '{"to')
    return [
        each.partition(":")[0]
        for each in check_files(journal, Ledger(tuple(orders), tuple(executions), ()))
    ]


def test_files_that_agree_show_nothing(tmp_path):
    """An entry that was executed, its stop, and a foreign order."""
    rows = [intent("xk1"), fill("1"), intent("xk2", terms=SELL, role="stop", parent="p"), fill("2")]
    orders = [placed("xk1", filled=1, ended=1), placed("xk2", terms=SELL, began=2), placed("web")]
    executions = [
        Execution("1", "xk1", "A/B", Decimal(1)),
        Execution("2", "xk2", "A/B", Decimal(-1)),
        Execution("9", "web", "C/B", Decimal(1)),
    ]
    assert found(tmp_path, rows, orders, executions) == []


@pytest.mark.parametrize(
    ("rows", "orders", "executions", "wrong"),
    [
        ([], [placed("xk1")], [], ["I3"]),
        ([intent("xk1", terms=SELL)], [placed("xk1")], [], ["I3"]),
        ([intent("xk1"), intent("xk2")], [placed("xk1"), placed("xk2", began=1)], [], ["I1"]),
        (
            [intent("xk1"), intent("xk2")],
            [placed("xk1", filled=1, ended=1), placed("xk2", filled=1, began=2, ended=3)],
            [],
            ["I2"],
        ),
        ([intent("xk1"), fill("1"), fill("1")], [], [("1", "xk1", 1)], ["I5"]),
        ([intent("xk1")], [], [("1", "xk1", 1)], ["I5"]),
        (
            [intent("xk1"), intent("xk2", role="stop"), fill("1"), fill("2")],
            [],
            [("1", "xk1", 1), ("2", "xk2", -2)],
            ["I13"],
        ),
    ],
    ids=["no intent", "other", "both live", "too much", "double", "missing", "turned"],
)
def test_each_fault_is_shown(tmp_path, rows, orders, executions, wrong):
    """Every check can fail, and names its invariant."""
    made = [Execution(a, b, "A/B", Decimal(c)) for a, b, c in executions]
    assert found(tmp_path, rows, orders, made) == wrong


def sell(key, **details):
    return placed(key, terms=SELL, **details)


@pytest.mark.parametrize(
    ("orders", "wrong"),
    [
        ([sell("xk2", began=1)], []),
        ([sell("xk2", began=1, quantity=2)], ["I13"]),
        ([sell("xk2", began=1), sell("xk3", began=2)], ["I13"]),
        ([sell("xk2", began=1, ended=2), sell("xk3", began=2)], []),
        ([sell("xk2", began=1, ended=3), sell("xk3", began=2)], ["I13"]),
        ([sell("xk2", began=1, group="l"), sell("xk3", began=1, group="l")], []),
        ([sell("xk2", began=1, group="l"), sell("xk3", began=1, group="m")], ["I13"]),
        ([sell("xk2", began=1, ended=9), sell("xk2b", began=2)], []),
        ([sell("xk2", began=1, ended=999), sell("xk2b", began=2)], ["I13"]),
        ([sell("xk3", began=6)], ["I13"]),
        ([sell("xk2", began=4, quantity="0.4"), sell("xk3", began=7, quantity="0.6")], []),
        ([sell("xk2", began=5, quantity=1)], []),
        ([placed("xk2", began=1, quantity="0.1")], ["I13"]),
    ],
    ids=[
        "a stop",
        "too large",
        "two",
        "gone",
        "still there",
        "a list",
        "two lists",
        "replaced",
        "not replaced",
        "after a part was closed",
        "a part of it was closed by itself",
        "in the moment of the part",
        "on the other side",
    ],
)
def test_what_rests_closes_no_more_than_is_held(tmp_path, orders, wrong):
    """I13: stop, target and exit together, at each moment in which one arrives."""
    quantities = {"xk1": "1", "xk2": "2", "xk2b": "1", "xk3": "1"}
    roles = {"xk1": "entry", "xk2": "stop", "xk2b": "stop", "xk3": "target"}
    rows = [
        intent(key, role=roles[key], quantity=quantities[key], parent="s1" if key == "xk1" else "p")
        for key in roles
    ]
    for row, order in ((row, order) for row in rows for order in orders):
        if row["record"]["request"]["client_order_id"] == order.client_order_id:
            terms = zip(("symbol", "side", "type"), order.terms, strict=True)
            row["record"]["request"] |= dict(terms)
    done = [
        Execution("1", "xk1", "A/B", Decimal(1), AT + timedelta(seconds=1)),
        Execution("2", "xk2", "A/B", Decimal("-0.4"), AT + timedelta(seconds=5)),
    ]
    rows += [fill("1"), fill("2")]
    entry = placed("xk1", filled=1, ended=1)
    assert found(tmp_path, rows, [entry, *orders], done) == wrong


def test_a_request_without_a_record_is_shown(tmp_path):
    """At a death, everything that the venue has received is in the journal."""
    journal = tmp_path / "orders.db"
    journal.write_text(json.dumps(intent("xk1")) + "\n" + json.dumps(intent("xk2")))  # torn
    found_early = unjournalled(journal, Ledger((), (), ("xk1", "xk2")))
    assert found_early == ["I3: xk2 came before its intent"]


def test_an_id_that_is_accepted_twice_is_counted(tmp_path):
    """A venue that takes an id again once its order has ended, as Binance spot does, shows both."""
    path = tmp_path / "orders.db.paper"

    async def main():
        exchange = PaperExchange(
            balances={"USDT": Decimal(1_000)}, clock=ManualClock(AT), storage=path, name="kills"
        )
        exchange.core.ids_unique_for_ever = False
        async with exchange:
            exchange.feed_quote(Quote("BTC/USDT", Decimal(99), Decimal(100), AT))
            request = OrderRequest(
                client_order_id="xk1",
                symbol="BTC/USDT",
                side=Side.BUY,
                type=OrderType.MARKET,
                quantity=Decimal(1),
            )
            await exchange.place_order(request)
            await exchange.place_order(request)

    asyncio.run(main())
    life = read_ledger(path)
    assert life.placed == ("xk1", "xk1")
    end = settled(tmp_path)
    assert [order.filled for order in end.orders] == [1, 1]
    assert Twice.found([life], end) == Twice(accepted=1, sent=1)
    assert Twice.found([life, end], end).sent == 1

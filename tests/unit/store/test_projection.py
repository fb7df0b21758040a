"""The projection: records become rows."""

from datetime import timedelta
from decimal import Decimal as D

import pytest
from sqlalchemy import create_engine, text

from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Side
from execkit.model.records import (
    Alarm,
    BalancesSeen,
    BarClosed,
    CommandSent,
    Decision,
    ExternalChange,
    PlanChanged,
    SignalResult,
    Source,
    StopMoved,
    TradingState,
    TradingStateChanged,
)
from execkit.model.result import Outcome
from execkit.store import schema
from execkit.store.projection import Projection, StaleStoreError
from execkit.store.queries import StoreReader


@pytest.fixture
def store(memory, url):
    """Project everything told so far, and return a reader."""
    readers = []

    def projected():
        with Projection(url) as projection:
            projection.apply(memory.journal.entries)
        readers.append(StoreReader(url))
        return readers[-1]

    yield projected
    for reader in readers:
        reader.close()


def query(url, statement):
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(statement))]
    engine.dispose()
    return rows


def test_the_life_of_an_order_is_there(memory, store):
    """Row, events with the state after each, fills, and the position they make."""
    memory.intend("a", "2")
    memory.happen("a", "submit", attempt=1)
    memory.happen("a", "accept", venue_order_id="v-a", venue_at=memory.now)
    memory.fill("a", "0.5", "100", fee=D("0.05"), fee_asset="USDT")
    memory.fill("a", "1.5", "102")
    reader = store()
    (order,) = reader.orders()
    assert order["state"] == "filled"
    assert (order["side"], order["type"], order["role"]) == ("buy", "limit", "entry")
    assert (order["quantity"], order["filled"]) == (D(2), D(2))
    assert order["average_price"] == D("101.5")
    assert order["limit_price"] == D("100.5")
    assert (order["signal_id"], order["venue_order_id"]) == ("signal-a", "v-a")
    assert order["attempts"] == 1
    assert order["errors"] == []
    assert order["created_at"] == memory.now - timedelta(seconds=4)
    assert order["closed_at"] == order["updated_at"] == memory.now
    events = [(e["event"], e["state"], e["price"]) for e in reader.order_events("a")]
    assert events == [
        ("intent", "new", None),
        ("submit", "submitted", None),
        ("accept", "accepted", None),
        ("fill", "partially_filled", D(100)),
        ("fill", "filled", D(102)),
    ]
    assert [(f["trade_id"], f["quantity"], f["fee"]) for f in reader.fills()] == [
        ("t1", D("0.5"), D("0.05")),
        ("t2", D("1.5"), D(0)),
    ]
    (position,) = reader.positions()
    assert position["position_id"] == "BTC/USDT#1"
    assert (position["state"], position["quantity"]) == ("open", D(2))
    assert position["average_price"] == D("101.5")
    assert position["realised_pnl"] == D("-0.05")
    assert position["fees"] == {"USDT": "0.05"}
    assert position["stop_loss"] == D(95)


def test_positions_are_what_the_fills_add_up_to(memory, store):
    """A base-asset fee makes the buy smaller; realised P&L is after fees; a second life is a second row."""
    memory.intend("a", "1")
    memory.fill("a", "1", "100", fee=D("0.001"), fee_asset="BTC")
    memory.intend("b", "0.999", side=Side.SELL)
    memory.fill("b", "0.999", "110", side=Side.SELL, fee=D("0.1"), fee_asset="USDT")
    memory.order("c", "3", "50", side=Side.SELL)
    first, second = store().positions()
    assert (first["state"], first["quantity"], first["peak_quantity"]) == (
        "closed",
        D(0),
        D("0.999"),
    )
    # (110 - 100) x 0.999 - 0.001 x 100 - 0.1
    assert first["realised_pnl"] == D("9.79")
    assert first["closed_at"] is not None
    assert (second["number"], second["quantity"], second["average_price"]) == (2, D(-3), D(50))


def test_numbers_and_times_can_be_used_in_sql(memory, store, url):
    """Text without exponent, times that sort."""
    memory.order("a", "1E-7", "1E+5")
    store()
    assert query(url, "SELECT quantity, CAST(price AS REAL), at FROM fills") == [
        ("0.0000001", 100000.0, "2024-01-01T00:00:03.000000+00:00")
    ]


def test_giving_everything_again_changes_nothing(memory, url):
    """The store continues where it stands, in the same process or in the next."""
    memory.order("a")
    with Projection(url) as projection:
        projection.apply(memory.journal.entries)
        projection.apply(memory.journal.entries)
        before = dump(url)
        memory.order("b", "1", "90", side=Side.SELL)
        projection.apply(memory.journal.entries)
        both = dump(url)
    assert both != before
    with Projection(url) as projection:
        assert projection.last_seq == memory.journal.last_seq
        projection.apply(memory.journal.entries)
        assert dump(url) == both
        memory.order("c")
        projection.apply(memory.journal.entries)
    assert [row[0] for row in query(url, "SELECT realised_pnl FROM positions")] == ["-10", "0"]


def dump(url):
    return {
        name: query(url, f'SELECT * FROM "{name}" ORDER BY 1, 2') for name in schema.metadata.tables
    }


def test_a_corrected_fill_counts_once(memory, store):
    """The correction takes the place of the first; both stay on record."""
    memory.intend("a", "10")
    memory.fill("a", "6", "100")
    memory.fill("a", "4", "101", replaces="t1")
    reader = store()
    assert [(f["trade_id"], f["quantity"]) for f in reader.fills()] == [("t2", D(4))]
    assert reader.orders()[0]["filled"] == D(4)
    (position,) = reader.positions()
    assert (position["quantity"], position["average_price"]) == (D(4), D(101))


def test_a_busted_fill_undoes_its_position(memory, store, url):
    """A position that never was has no row."""
    memory.order("a")
    memory.order("b", side=Side.SELL)
    memory.order("other", symbol="ETH/USDT")
    memory.order("out", symbol="ETH/USDT", side=Side.SELL)
    assert len(store().positions(symbol="BTC/USDT")) == 1
    memory.order("c")
    assert len(store().positions(symbol="BTC/USDT")) == 2
    memory.fill("c", "0", "100", replaces="t5")
    reader = store()
    assert [p["position_id"] for p in reader.positions()] == ["BTC/USDT#1", "ETH/USDT#1"]
    assert [f["trade_id"] for f in reader.fills()] == ["t1", "t2", "t3", "t4"]
    assert query(url, "SELECT trade_id, counts FROM fills ORDER BY seq")[4:] == [
        ("t5", 0),
        ("t6", 0),
    ]
    memory.fill("a", "0", "100", replaces="t1")
    memory.fill("b", "0", "100", side=Side.SELL, replaces="t2")
    assert [p["symbol"] for p in store().positions()] == ["ETH/USDT"]


def test_a_fill_told_twice_is_one_row(memory, store):
    """A repetition in the journal changes nothing."""
    memory.intend("a", "10")
    fill = memory.fill("a", "6", "100")
    memory.fill("a", "6", "100", trade_id=fill.trade_id)
    assert len(store().fills()) == 1


def test_fills_of_unknown_orders_are_there(memory, store):
    """What is not ours still makes a position."""
    memory.fill("", "2", "100", venue_order_id="foreign")
    reader = store()
    assert reader.orders() == []
    assert reader.fills()[0]["venue_order_id"] == "foreign"
    assert reader.positions()[0]["quantity"] == D(2)


def test_changes_from_outside_and_moved_stops_show_in_positions(memory, store):
    """Positions follow everything that changes them."""
    memory.order("a")
    memory.tell(
        ExternalChange(symbol="BTC/USDT", quantity=D("-0.4"), price=D(90), reason="manual"),
        StopMoved(symbol="BTC/USDT", position_id="BTC/USDT#1", stop_loss=D(97)),
    )
    (position,) = store().positions()
    assert (position["quantity"], position["stop_loss"]) == (D("0.6"), D(97))
    assert position["realised_pnl"] == D(-4)


def test_refusals_come_with_code_values_and_verdicts(memory, store):
    """Why a signal was refused is a query."""
    common = {"signal_digest": "d", "symbol": "BTC/USDT", "side": Side.BUY}
    memory.tell(
        SignalResult(signal_id="s1", outcome=Outcome.FILLED, client_order_ids=("a",), **common),
        SignalResult(
            signal_id="s2",
            outcome=Outcome.DENIED,
            denial=Denial.of(DenialCode.NOTIONAL_TOO_LARGE, notional=D(600), limit=D(500)),
            verdicts=(("Validation", "passed", ""), ("Risk", "denied", "too large")),
            **common,
        ),
    )
    reader = store()
    (denial,) = reader.denials()
    assert denial["signal_id"] == "s2"
    assert denial["denial_code"] == "NOTIONAL_TOO_LARGE"
    assert denial["denial_context"] == {"notional": "600", "limit": "500"}
    assert denial["verdicts"] == [
        {"handler": "Validation", "verdict": "passed", "reason": ""},
        {"handler": "Risk", "verdict": "denied", "reason": "too large"},
    ]
    assert [row["client_order_ids"] for row in reader.results()] == [["a"], []]


def test_every_record_is_in_some_table(memory, store, url):
    """Evaluations, commands, alarms, plans and states have tables; the rest is JSON by kind."""
    close = memory.now
    memory.tell(
        BarClosed(
            symbol="BTC/USDT",
            timeframe="1h",
            close_time=close,
            high=D(3),
            low=D(1),
            close=D(2),
            decisions=(
                Decision("p", "close_above", "enter_long", D("0.7"), "because"),
                Decision("p", "close_below", "none", D(0), skipped=True),
            ),
        ),
        Alarm(code="c", text="t", symbol="BTC/USDT"),
        PlanChanged(plan="p", status="completed"),
        TradingStateChanged(state=TradingState.HALTED, cause="loss", actor="risk"),
        BalancesSeen(totals={"USDT": D("10.5")}, source=Source.RECONCILE),
    )
    memory.intend("a")
    memory.tell(CommandSent(client_order_id="a", command="cancel", reason="old"))
    memory.happen("unknown", "cancel")
    reader = store()
    rows = reader.evaluations(function="close_above")
    assert [(r["close_time"], r["close"], r["confidence"]) for r in rows] == [
        (close, D(2), D("0.7"))
    ]
    assert [r["skipped"] for r in reader.evaluations(action="none")] == [True]
    assert [r["code"] for r in reader.alarms(symbol="BTC/USDT")] == ["c"]
    assert query(url, "SELECT plan, status FROM plan_changes") == [("p", "completed")]
    assert query(url, "SELECT state, cause, actor FROM trading_states") == [
        ("halted", "loss", "risk")
    ]
    assert query(url, "SELECT kind, json_extract(body, '$.totals.USDT') FROM other_records") == [
        ("balances", "10.5")
    ]
    assert [(e["event"], e["reason"]) for e in reader.order_events("a")] == [
        ("intent", ""),
        ("send_cancel", "old"),
    ]
    assert reader.order_events("unknown")[0]["state"] is None


def evaluated(memory, at):
    memory.now = at
    memory.tell(
        BarClosed(
            symbol="BTC/USDT",
            timeframe="1h",
            close_time=at,
            high=D(3),
            low=D(1),
            close=D(2),
            decisions=(
                Decision("p", "f", "exit", D(1), parameters="{}", duration_us=7, signal_id="s"),
            ),
        )
    )


@pytest.mark.parametrize("batch", [1, 100])
def test_evaluations_are_kept_for_thirty_days(memory, url, store, batch):
    """F retention: by the journal's own time, so a rebuilt store holds the same; orders and the like stay."""
    first = memory.now
    memory.intend("a")
    for days in (0, 1, 29, 31):
        evaluated(memory, first + timedelta(days=days))
    with Projection(url) as projection:
        for number, entry in enumerate(memory.journal.entries, 1):
            projection.fold(entry)
            if number % batch == 0:
                projection.flush()
    reader = store()
    rows = reader.evaluations()
    assert [row["close_time"] - first for row in rows] == [timedelta(days=n) for n in (1, 29, 31)]
    assert (rows[0]["parameters"], rows[0]["duration_us"], rows[0]["signal_id"]) == ("{}", 7, "s")
    assert len(reader.orders()) == 1


def test_evaluations_may_be_kept_for_good(memory, url, store):
    """For those who analyse in SQL."""
    first = memory.now
    for days in (0, 100):
        evaluated(memory, first + timedelta(days=days))
    with Projection(url, keep=None) as projection:
        projection.apply(memory.journal.entries)
    assert len(store().evaluations()) == 2


def test_a_store_of_another_version_is_stale(memory, url, monkeypatch):
    """Tables of another version are not written to."""
    Projection(url).close()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(StaleStoreError, match="its tables have version 2, not 3"):
        Projection(url)


def test_the_file_is_private(path, url):
    """Only its owner can read the store."""
    Projection(url).close()
    assert path.with_name("orders.db.sqlite").stat().st_mode & 0o777 == 0o600


def test_other_databases_get_no_sqlite_settings(monkeypatch):
    """The address decides what is opened."""
    from execkit.store import projection

    opened = []
    monkeypatch.setattr(projection, "create_engine", opened.append)
    projection.open_engine("postgresql://localhost/execkit")
    assert [str(url) for url in opened] == ["postgresql://localhost/execkit"]


def test_a_store_in_memory_needs_no_file(memory):
    """For tests and try-outs."""
    memory.order("a")
    with Projection("sqlite://") as projection:
        projection.apply(memory.journal.entries)
        assert projection.last_seq == memory.journal.last_seq

"""Positions and their profit, against numbers worked out by hand."""

from decimal import Decimal

import msgspec
import pytest
from tests.support.orders import AT, BTC, fill, later

from execkit.model.order import Side
from execkit.model.position import PositionState, Target
from execkit.model.records import StopMoved
from execkit.orders import positions as module
from execkit.orders.executions import Origin, net_effect, split_symbol
from execkit.orders.position_state import PositionExport
from execkit.orders.positions import PositionBook

D = Decimal
BUY, SELL = Side.BUY, Side.SELL


def book_of(*fills):
    book = PositionBook()
    for each in fills:
        book.apply(each, Origin())
    return book


def set_levels(book, position_id, stop, target=None, *, at=AT, **details):
    book.set_levels(
        StopMoved(
            symbol=position_id.partition("#")[0],
            position_id=position_id,
            stop_loss=D(stop),
            take_profit=None if target is None else D(target),
            **details,
        ),
        at,
    )


def trades(*rows):
    """Return fills one second apart from rows of (side, quantity, price, fee, asset)."""
    return [
        fill(
            f"t{n:04}",
            side=side,
            quantity=quantity,
            price=price,
            fee=fee,
            fee_asset=asset,
            at=later(n),
        )
        for n, (side, quantity, price, fee, asset) in enumerate(rows)
    ]


def plain(side, quantity, price):
    return (side, quantity, price, "0", "")


@pytest.mark.parametrize(
    ("symbol", "parts"),
    [
        ("BTC/USDT", ("BTC", "USDT")),
        ("BTC/USDT:USDT", ("BTC", "USDT")),
        ("AAPL", ("AAPL", "USD")),
    ],
)
def test_split_symbol(symbol, parts):
    """A symbol names what is held and what it is paid in; an equity is paid in dollars."""
    assert split_symbol(symbol) == parts


@pytest.mark.parametrize(
    ("side", "asset", "effect"),
    [
        (BUY, "BTC", ("1.99", "1.00")),
        (SELL, "BTC", ("-2.01", "1.00")),
        (BUY, "USDT", ("2", "0.01")),
        (SELL, "", ("-2", "0.01")),
        (BUY, "BNB", ("2", "0")),
    ],
)
def test_net_effect(side, asset, effect):
    """A fee in base changes what is owned and costs its worth; one in quote costs itself; a third asset neither."""
    done = fill(side=side, quantity="2", price="100", fee="0.01", fee_asset=asset)
    assert net_effect(done) == tuple(map(D, effect))


@pytest.mark.parametrize(
    ("rows", "quantity", "average", "realised", "fees"),
    [
        # bought twice: (1 x 100 + 3 x 120) / 4 = 115
        ([plain(BUY, "1", "100"), plain(BUY, "3", "120")], "4", "115", "0", {}),
        # 1 of 4 sold at 130: 130 - 115 = 15; the rest keeps its average
        (
            [plain(BUY, "1", "100"), plain(BUY, "3", "120"), plain(SELL, "1", "130")],
            "3",
            "115",
            "15",
            {},
        ),
        # short 2 at 100, 1 bought back at 90: 10
        ([plain(SELL, "2", "100"), plain(BUY, "1", "90")], "-1", "100", "10", {}),
        # short grows: (1 x 100 + 1 x 110) / 2
        ([plain(SELL, "1", "100"), plain(SELL, "1", "110")], "-2", "105", "0", {}),
        # fee in quote: 2 in, 3 out; half closed at +10: 1 x 10 - 5
        (
            [(BUY, "2", "100", "2", "USDT"), (SELL, "1", "110", "3", "USDT")],
            "1",
            "100",
            "5",
            {"USDT": "5"},
        ),
        # fee in base: 1 bought, 0.999 owned, 0.001 x 100 = 0.1 lost
        ([(BUY, "1", "100", "0.001", "BTC")], "0.999", "100", "-0.1", {"BTC": "0.001"}),
        # fee in a third asset: noted, not part of the profit
        ([(BUY, "1", "100", "0.02", "BNB")], "1", "100", "0", {"BNB": "0.02"}),
        # a rebate is a gain
        ([(BUY, "1", "100", "-0.5", "USDT")], "1", "100", "0.5", {"USDT": "-0.5"}),
    ],
)
def test_open_position(rows, quantity, average, realised, fees):
    """Average cost, realised profit after fees, and fees by asset."""
    position = book_of(*trades(*rows)).open[BTC]
    assert position.quantity == D(quantity)
    assert position.average_price == D(average)
    assert position.realised_pnl == D(realised)
    assert position.fees == {asset: D(fee) for asset, fee in fees.items()}
    assert position.state is PositionState.OPEN
    assert position.position_id == f"{BTC}#1"


def test_flat_position_is_closed_and_the_next_one_is_another():
    """From flat to flat is one position, with its own profit, fees and largest size."""
    book = book_of(
        *trades(
            (BUY, "2", "100", "1", "USDT"),
            plain(SELL, "1", "110"),
            (SELL, "1", "120", "2", "USDT"),
            plain(BUY, "1", "130"),
        )
    )
    (closed,) = book.closed
    assert closed.position_id == f"{BTC}#1"
    assert closed.state is PositionState.CLOSED
    assert (closed.opened_at, closed.closed_at) == (AT, later(2))
    assert closed.realised_pnl == D(-1 + 10 + 20 - 2)
    assert closed.fees == {"USDT": D(3)}
    assert (closed.quantity, closed.peak_quantity) == (0, 2)
    assert book.open[BTC].position_id == f"{BTC}#2"
    assert book.open[BTC].realised_pnl == 0
    assert book.quantity(BTC) == 1
    assert book.quantity("ETH/USDT") == 0


def test_through_zero_closes_one_and_opens_the_other():
    """The fee is shared by quantity: 1 of 4 closes at +20 - 1, 3 open with 3 of the fee."""
    book = book_of(*trades(plain(BUY, "1", "100"), (SELL, "4", "120", "4", "USDT")))
    (closed,) = book.closed
    assert (closed.realised_pnl, closed.fees) == (D(19), {"USDT": D(1)})
    position = book.open[BTC]
    assert (position.quantity, position.average_price) == (D(-3), D(120))
    assert (position.realised_pnl, position.fees) == (D(-3), {"USDT": D(3)})
    assert position.opened_at == later(1)


def test_no_part_of_a_fee_is_lost_through_zero():
    """A share that has no end in decimals is rounded once; the other share is the exact rest."""
    book = book_of(*trades(plain(BUY, "1", "100"), (SELL, "3", "120", "1", "USDT")))
    closed, position = book.closed[0], book.open[BTC]
    assert closed.fees["USDT"] + position.fees["USDT"] == 1
    assert closed.realised_pnl + position.realised_pnl == D(20) - 1


def test_a_fill_that_is_eaten_by_its_fee_changes_nothing_but_the_fee():
    """Bought 0.001 more and paid 0.001 base for it: the quantity stands, the fee costs its worth."""
    book = book_of(*trades(plain(BUY, "1", "100"), (BUY, "0.001", "200", "0.001", "BTC")))
    position = book.open[BTC]
    assert (position.quantity, position.average_price) == (D(1), D(100))
    assert position.realised_pnl == D("-0.2")


def test_a_first_fill_that_is_eaten_by_its_fee_opens_nothing():
    """There is nothing to show."""
    book = book_of(*trades((BUY, "1", "100", "1", "BTC")))
    assert (book.open, book.closed, book.quantity(BTC)) == ({}, [], 0)
    book.apply(fill("later", at=later(9)), Origin())
    assert (book.quantity(BTC), book.open[BTC].realised_pnl) == (1, 0)


def test_a_position_tells_where_it_came_from():
    """Signal, strength and protective prices are those of the order that opened it."""
    origin = Origin("s1", D(80), D(95), D(110))
    book = PositionBook()
    book.apply(fill("a", at=AT), origin)
    book.apply(fill("b", at=later(1)), Origin("s2", D(10), D(1), D(2)))
    position = book.open[BTC]
    shown = (position.signal_id, position.strength, position.stop_loss, position.take_profit)
    assert shown == ("s1", D(80), D(95), D(110))


def test_levels_are_set_by_hand_and_belong_to_one_position():
    """A moved stop holds for the position it was moved for, not for the next one."""
    book = PositionBook()
    book.apply(fill("a", at=AT), Origin(stop_loss=D(90), take_profit=D(120)))
    set_levels(book, f"{BTC}#1", 95)
    assert (book.open[BTC].stop_loss, book.open[BTC].take_profit) == (D(95), D(120))
    book.apply(fill("b", side=SELL, at=later(1)), Origin())
    book.apply(fill("c", at=later(2)), Origin(stop_loss=D(80)))
    assert book.open[BTC].stop_loss == D(80)
    set_levels(book, "ETH/USDT#1", 1, 2)
    assert "ETH/USDT" not in book.open


def test_a_level_holds_from_when_it_was_set():
    """What is repeated unchanged was set before; the stop of before is known with its own beginning."""
    book = PositionBook()
    book.apply(fill("a", at=AT), Origin(stop_loss=D(90), take_profit=D(120)))

    def shown():
        each = book.open[BTC]
        return (each.stop_since, each.earlier_stop, each.earlier_stop_since, each.target_since)

    assert shown() == (None, None, None, None)
    set_levels(book, f"{BTC}#1", 95, 120, at=later(10))
    assert shown() == (later(10), D(90), None, None)
    set_levels(book, f"{BTC}#1", 95, 130, at=later(20))
    assert shown() == (later(10), D(90), None, later(20))
    set_levels(book, f"{BTC}#1", 97, 130, at=later(30))
    assert shown() == (later(30), D(95), later(10), later(20))
    again = PositionBook()
    again.restore(msgspec.json.decode(msgspec.json.encode(book.export()), type=PositionExport))
    assert again.open == book.open
    book.apply(fill("b", side=SELL, at=later(40)), Origin())
    book.apply(fill("c", at=later(41)), Origin(stop_loss=D(80)))
    assert shown() == (None, None, None, None)
    set_levels(book, f"{BTC}#1", 99, at=later(42))
    assert shown() == (None, None, None, None), "of the position before"


def test_a_limit_exit_is_for_all_until_another_target_is_set():
    """Whoever moves the stop keeps it; it takes the place of exits in parts, at whatever price it is."""
    book = PositionBook()
    parts = (Target(D(110), D("0.5")), Target(D(120), D("0.5")))
    origin = Origin(stop_loss=D(90), take_profit=D(120), targets=parts)
    book.apply(fill("a", at=AT), origin)
    set_levels(book, f"{BTC}#1", 90, 120, at=later(1))
    assert (book.open[BTC].limit_exit, book.open[BTC].targets) == (False, parts)
    set_levels(book, f"{BTC}#1", 90, 120, at=later(2), limit_exit=True)
    assert (book.open[BTC].limit_exit, book.open[BTC].targets) == (True, ())
    assert book.open[BTC].target_since == later(2)
    set_levels(book, f"{BTC}#1", 95, 120, at=later(3))
    assert (book.open[BTC].limit_exit, book.open[BTC].target_since) == (True, later(2))
    set_levels(book, f"{BTC}#1", 95, 121, at=later(4))
    assert (book.open[BTC].limit_exit, book.open[BTC].targets) == (False, ())


LONG = Origin(stop_loss=D(95))


def of_two():
    """Return a book whose first position, the first half of A, is stopped out; B is open, its stop moved to 105."""
    book = PositionBook()
    book.apply(fill("a1", at=AT), LONG)
    book.apply(fill("stop", side=SELL, price="95", at=later(20)), Origin())
    book.apply(fill("b", price="110", at=later(30)), Origin(stop_loss=D(100)))
    set_levels(book, f"{BTC}#2", 105, at=later(40))
    assert (book.open[BTC].position_id, book.open[BTC].stop_loss) == (f"{BTC}#2", 105)
    return book


def test_a_late_fill_that_makes_two_positions_one_leaves_the_stop():
    """What was set last holds for what is open, whatever its number is; the next position has its own levels."""
    book = of_two()
    book.apply(fill("a2", at=later(10)), LONG)
    position = book.open[BTC]
    assert (position.position_id, position.quantity, position.stop_loss) == (f"{BTC}#1", 2, 105)
    set_levels(book, f"{BTC}#2", 106, at=later(50))  # by whoever has still seen the old number
    assert book.open[BTC].stop_loss == 106
    book.apply(fill("out", "o9", "2", side=SELL, at=later(60)), Origin())
    assert book.closed[-1].stop_loss == 106
    book.apply(fill("c", price="200", at=later(70)), Origin(stop_loss=D(195)))
    assert (book.open[BTC].position_id, book.open[BTC].stop_loss) == (f"{BTC}#2", 195)
    set_levels(book, f"{BTC}#1", 90, at=later(80))
    assert book.open[BTC].stop_loss == 195, "of one that has ended nothing is set"


def test_a_bust_that_takes_a_position_away_leaves_nothing_to_the_next():
    """The first position never was; the numbers move down, the levels stay with what they were set for."""
    book = of_two()
    for n, trade in enumerate(("a1", "stop")):
        side = SELL if trade == "stop" else BUY
        book.apply(fill(f"x{n}", side=side, quantity="0", replaces=trade, at=later(50)), Origin())
    assert (book.open[BTC].position_id, book.open[BTC].stop_loss) == (f"{BTC}#1", 105)
    book.apply(fill("y", quantity="0", replaces="b", at=later(55)), Origin())
    assert BTC not in book.open
    book.apply(fill("c", price="200", at=later(60)), Origin(stop_loss=D(195)))
    assert (book.open[BTC].position_id, book.open[BTC].stop_loss) == (f"{BTC}#1", 195)


def test_a_late_close_leaves_the_stop_with_what_was_bought_after():
    """One position was two: the stop that was moved after the second purchase is the second one's."""
    book = PositionBook()
    book.apply(fill("a", at=AT), LONG)
    set_levels(book, f"{BTC}#1", 96, at=later(5))
    book.apply(fill("b", price="110", at=later(30)), Origin(stop_loss=D(100)))
    set_levels(book, f"{BTC}#1", 105, at=later(40))
    book.apply(fill("late", side=SELL, at=later(20)), Origin())
    assert (book.open[BTC].position_id, book.open[BTC].stop_loss) == (f"{BTC}#2", 105)
    assert [(p.position_id, p.stop_loss) for p in book.closed] == [(f"{BTC}#1", 96)]


def test_levels_stay_when_the_opening_execution_is_corrected():
    """B12: the correction may be dated later, and is the opening one then."""
    book = PositionBook()
    book.apply(fill("a", at=AT), LONG)
    set_levels(book, f"{BTC}#1", 97, at=later(5))
    corrected = fill("a2", price="101", at=later(9), replaces="a")
    book.apply(corrected, LONG, fill("a", at=AT))
    assert (book.open[BTC].average_price, book.open[BTC].stop_loss) == (101, 97)


def test_levels_are_set_when_the_recent_executions_were_all_busted(monkeypatch):
    """What is older than the window stands, and so does what is set for it."""
    monkeypatch.setattr(module, "WINDOW", 1)
    book = PositionBook()
    book.apply(fill("a", at=AT), LONG)
    book.apply(fill("b", at=later(1)), Origin())
    book.apply(fill("x", quantity="0", replaces="b", at=later(2)), Origin())
    set_levels(book, f"{BTC}#1", 97, at=later(3))
    assert (book.quantity(BTC), book.open[BTC].stop_loss) == (1, 97)


@pytest.mark.parametrize("quantity", ["1", "2"])
def test_only_the_last_change_from_outside_is_taken_back(quantity):
    """Of its own size; else it is a change like any other, and nothing of before is restored."""
    book = PositionBook()
    book.adjust(BTC, D(1), D(100), AT, AT, restores=True)
    assert book.quantity(BTC) == 1
    book.apply(fill("a", at=later(1)), LONG)
    book.adjust(BTC, D(-2), D(100), later(2), later(2), restores=True)
    assert BTC not in book.open
    book.adjust(BTC, D(quantity), D(100), later(3), later(3), restores=True)
    assert book.quantity(BTC) == D(quantity)
    assert [p.position_id for p in book.closed] == ([f"{BTC}#1"] if quantity == "1" else [])
    assert book.open[BTC].position_id == (f"{BTC}#2" if quantity == "1" else f"{BTC}#1")


def test_levels_by_number_of_an_older_version_hold_on():
    """A snapshot that kept them by the number of the position: of the open one they count."""
    book = of_two()
    old = msgspec.to_builtins(book.export())
    del old["levels_by_symbol"]
    old["levels"] = {f"{BTC}#1": {"stop_loss": "96"}, f"{BTC}#2": {"stop_loss": "105"}}
    for life in (*old["lives"].values(), *old["settled"].values()):
        del life["opened_by"]
    old["seen"][BTC] = ["a1", "stop", "b"]
    again = PositionBook()
    again.restore(msgspec.convert(old, PositionExport, strict=False))
    assert (again.open[BTC].stop_loss, again.open[BTC].position_id) == (105, f"{BTC}#2")
    assert again.knows(BTC, "b", BUY)
    assert again.knows(BTC, "b", SELL)
    again.apply(fill("out", side=SELL, at=later(60)), Origin())
    again.apply(fill("c", price="200", at=later(70)), Origin(stop_loss=D(195)))
    assert again.open[BTC].stop_loss == 195


def test_the_two_sides_of_a_trade_with_oneself_both_count():
    """A venue gives both executions one id and one time; so the order in which they come does not matter."""
    both = [fill("t", side=BUY, price="100"), fill("t", side=SELL, price="100")]
    books = [PositionBook(), PositionBook()]
    for book, rows in zip(books, (both, both[::-1]), strict=True):
        book.apply(fill("first", quantity="2", at=later(-1)), LONG)
        for each in rows:
            assert not book.knows(BTC, "t", each.side)
            book.apply(each, Origin())
            assert book.knows(BTC, "t", each.side)
        assert book.quantity(BTC) == 2
    assert state(books[0]) == state(books[1])
    books[0].apply(fill("x", side=SELL, quantity="0", replaces="t", at=later(1)), Origin(), both[1])
    assert books[0].quantity(BTC) == 3, "the other side stands"


def test_best_price_is_the_most_favourable_seen():
    """The high for a long, the low for a short; nothing for a symbol without a position."""
    book = book_of(fill("a"), fill("b", symbol="ETH/USDT", side=SELL))
    for high, low in ((105, 95), (104, 90), (110, 99)):
        for symbol in (BTC, "ETH/USDT", "XRP/USDT"):
            book.see_bar(symbol, D(high), D(low))
    assert book.open[BTC].best_price == 110
    assert book.open["ETH/USDT"].best_price == 90


def test_an_outside_change_counts_like_a_fill_without_a_fee():
    """What came from outside changes quantity, average and profit, and is nobody's signal."""
    book = PositionBook()
    book.adjust(BTC, D(2), D(100), AT)
    book.adjust(BTC, D(-1), D(130), later(1))
    position = book.open[BTC]
    assert (position.quantity, position.average_price, position.realised_pnl) == (1, 100, 30)
    assert (position.signal_id, position.fees) == ("", {})


# -- late, corrected, busted ---------------------------------------------------------------------------


def state(book):
    """Return everything the book knows, as plain values, without the order in which ids became known."""
    data = msgspec.to_builtins(book.export())
    del data["seen"]
    return data, msgspec.to_builtins(book.open)


def test_a_late_fill_is_sorted_in_by_the_venues_time():
    """Buy, sell, buy learned as buy, buy, sell end the same, closed positions included."""
    rows = trades(plain(BUY, "1", "100"), plain(SELL, "1", "110"), plain(BUY, "1", "120"))
    inorder, late = book_of(*rows), book_of(rows[0], rows[2], rows[1])
    assert late.open[BTC].average_price == 120
    assert [p.realised_pnl for p in late.closed] == [10]
    assert state(late) == state(inorder)


def test_closed_positions_stand_by_the_venues_time():
    """Also across symbols, and when an old fill makes a symbol's history be added up again."""
    first = [fill("a", at=AT), fill("b", side=SELL, at=later(10))]
    other = [
        fill("c", symbol="ETH/USDT", at=later(1)),
        fill("d", symbol="ETH/USDT", side=SELL, at=later(5)),
    ]
    one, two = book_of(*first, *other), book_of(first[1], *reversed(other), first[0])
    assert [p.symbol for p in one.closed] == ["ETH/USDT", BTC]
    assert state(one) == state(two)


@pytest.mark.parametrize(
    "order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)]
)
def test_a_correction_counts_whenever_it_is_learned(order):
    """The corrected execution is known by its id, so it does no harm when it comes after its correction."""
    told = [
        fill("a", quantity="1", price="100", at=AT),
        fill("b", quantity="1", price="110", at=later(1)),
        fill("b2", quantity="0.5", price="112", at=later(1), replaces="b"),
    ]
    book = PositionBook()
    for n in (*order, *order):
        each = told[n]
        if not book.knows(BTC, each.trade_id, each.side):
            book.apply(each, Origin())
    position = book.open[BTC]
    assert (position.quantity, position.average_price) == (D("1.5"), D(104))


def test_a_bust_takes_the_execution_away():
    """Nothing is left of it but the memory of its id."""
    book = book_of(fill("a", at=AT), fill("b", price="110", at=later(1)))
    book.apply(fill("c", quantity="0", replaces="b", at=later(2)), Origin())
    assert (book.quantity(BTC), book.open[BTC].average_price) == (1, 100)
    assert book.knows(BTC, "b", BUY)
    assert book.knows(BTC, "c", BUY)
    assert not book.knows(BTC, "d", BUY)
    assert not book.knows("ETH/USDT", "b", BUY)
    book.apply(fill("e", quantity="0", replaces="a", at=later(3)), Origin())
    assert BTC not in book.open
    assert book.closed == []


# -- the window ----------------------------------------------------------------------------------------


def test_the_window_settles_without_changing_a_number():
    """More fills than the window holds add up to the same as in one sum."""
    rows = [
        plain(BUY if n % 3 else SELL, "2" if n % 3 else "3", str(100 + n % 7))
        for n in range(module.WINDOW + 150)
    ]
    book = book_of(*trades(*rows))
    assert len(list(book.executions(BTC))) == module.WINDOW
    again = book_of(*trades(*rows))
    again._again(BTC)
    assert state(again) == state(book)
    bought = sum(D(q) for side, q, *_ in rows if side is BUY)
    sold = sum(D(q) for side, q, *_ in rows if side is SELL)
    assert book.quantity(BTC) == bought - sold
    cash = sum(D(q) * D(p) * (-1 if side is BUY else 1) for side, q, p, *_ in rows)
    position = book.open[BTC]
    gained = sum(p.realised_pnl for p in book.closed) + position.realised_pnl
    held = position.quantity * position.average_price
    assert gained - held == pytest.approx(cash, rel=D("1e-20"))


def test_the_correction_of_a_settled_fill_is_balanced():
    """It cannot be taken out of the settled sums, so its opposite is added: quantity and cost come out right."""
    rows = trades(*[plain(BUY, "1", "100")] * (module.WINDOW + 5))
    book = book_of(*rows)
    assert all(e.fill.trade_id != "t0000" for e in book.executions(BTC))
    corrected = fill("fix", quantity="0.4", price="100", at=later(9000), replaces="t0000")
    book.apply(corrected, Origin(), replaced=rows[0])
    assert book.quantity(BTC) == module.WINDOW + 5 - 1 + D("0.4")
    assert book.open[BTC].average_price == 100
    book.apply(fill("gone", quantity="0", at=later(9001), replaces="t0001"), Origin(), rows[1])
    assert book.quantity(BTC) == module.WINDOW + 5 - 2 + D("0.4")


def test_ids_closed_positions_and_levels_are_bounded(monkeypatch):
    """What nobody can see any more is forgotten."""
    monkeypatch.setattr(module, "WINDOW", 3)
    monkeypatch.setattr(module, "KEEP_CLOSED", 3)
    monkeypatch.setattr(module, "KEEP_IDS", 4)
    book = PositionBook()
    for n in range(6):
        book.apply(fill(f"in{n}", at=later(2 * n)), Origin())
        set_levels(book, f"{BTC}#{n + 1}", 90)
        book.apply(fill(f"out{n}", side=SELL, at=later(2 * n + 1)), Origin())
    assert [p.position_id for p in book.closed] == [f"{BTC}#{n}" for n in (4, 5, 6)]
    # Two positions began in the window of three executions.
    assert [row.after[1] for row in book.export().levels_by_symbol[BTC]] == ["in3", "in4", "in5"]
    assert not book.knows(BTC, "in0", BUY)
    shown = [(f"{way}{n}", side) for n in (3, 4, 5) for way, side in (("in", BUY), ("out", SELL))]
    assert [book.knows(BTC, *each) for each in shown] == [False, False, True, True, True, True]


def test_export_and_restore_go_on_alike():
    """A restored book shows the same positions and answers the next fills the same way."""
    rows = trades(*[plain(BUY, "1", "100"), plain(SELL, "3", "101")] * 150)
    book = book_of(*rows[:250])
    set_levels(book, book.open[BTC].position_id, 1, 2)
    again = PositionBook()
    again.restore(msgspec.json.decode(msgspec.json.encode(book.export()), type=PositionExport))
    assert state(again) == state(book)
    for each in rows[250:]:
        book.apply(each, Origin())
        again.apply(each, Origin())
    assert state(again) == state(book)

"""D5: where positions begin and end when the venue takes its fee in kind, against numbers worked out by hand."""

from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.support.orders import BTC, fill, later

from execkit.model.order import Side
from execkit.model.position import Dust
from execkit.orders.executions import Origin
from execkit.orders.positions import PositionBook

D = Decimal
BUY, SELL = Side.BUY, Side.SELL
LOT = D("0.01")


def origin(signal, stop="90", lot=LOT):
    return Origin(signal_id=signal, stop_loss=D(stop), lot_size=lot)


def done(second, side, quantity, price, fee="0", asset="BTC", **changes):
    return fill(
        f"t{second}",
        side=side,
        quantity=quantity,
        price=price,
        fee=fee,
        fee_asset=asset,
        at=later(second),
        **changes,
    )


FIRST = [
    (done(0, BUY, "1", "100", "0.001"), origin("first")),
    (done(1, SELL, "0.99", "110", "1.089", "USDT"), Origin(lot_size=LOT)),
]
"""0.999 bought at 100, 0.99 of it sold at 110: 0.009 are left."""
SECOND = [
    (done(2, BUY, "1", "200", "0.001"), origin("second", "180")),
    (done(3, SELL, "1", "220", "2.2", "USDT"), Origin(lot_size=LOT)),
]
"""With the rest 1.008 are held, 1.00 of which is sold: 0.008 are left."""


def book_of(*rows):
    book = PositionBook()
    for each, its_origin in rows:
        book.apply(each, its_origin)
    return book


def test_what_an_exit_leaves_below_a_lot_ends_the_position():
    """The gain is that of what was sold, less both fees; the dust has cost what it has cost."""
    book = book_of(*FIRST)
    assert book.open == {}
    (closed,) = book.closed
    # 0.99 x 10 gained; fees of 0.001 at 100, and of 1.089.
    assert closed.realised_pnl == D("9.9") - D("0.1") - D("1.089")
    assert (closed.quantity, closed.dust) == (0, D("0.009"))
    assert closed.fees == {"BTC": D("0.001"), "USDT": D("1.089")}
    assert closed.closed_at == later(1)
    assert book.dust == {BTC: Dust(BTC, D("0.009"), D(100))}
    assert book.quantity(BTC) == D("0.009")
    assert book.quantities() == {BTC: D("0.009")}
    assert book.average_price(BTC) == 100


def test_the_next_position_begins_with_the_dust():
    """Signal and stop are its own; it is larger by the dust, whose cost is in its average."""
    book = book_of(*FIRST, SECOND[0])
    position = book.open[BTC]
    assert (position.position_id, position.signal_id) == (f"{BTC}#2", "second")
    assert (position.stop_loss, position.initial_stop) == (180, 180)
    assert position.quantity == position.peak_quantity == D("1.008")
    assert position.average_price == (D("0.009") * 100 + D("0.999") * 200) / D("1.008")
    assert position.realised_pnl == D("-0.2")
    assert position.fees == {"BTC": D("0.001")}
    assert position.opened_at == later(2)
    assert book.dust == {}


def test_dust_does_not_add_up():
    """The second exit sells what the first could not: 1 of 0.009 + 0.999."""
    book = book_of(*FIRST, *SECOND)
    assert [p.dust for p in book.closed] == [D("0.009"), D("0.008")]
    assert book.quantity(BTC) == D("0.008")


def test_a_fill_of_less_than_a_lot_opens_nothing_until_more_comes():
    """An entry whose first part is eaten to below a lot by its fee is a position from its second part on."""
    whole = origin("first")
    book = book_of((done(0, BUY, "0.01", "100", "0.00001"), whole))
    assert (book.open, book.closed) == ({}, [])
    assert book.dust[BTC] == Dust(BTC, D("0.00999"), D(100), D("-0.001"), {"BTC": D("0.00001")})
    book.apply(done(1, BUY, "0.01", "102", "0.00001"), whole)
    position = book.open[BTC]
    assert (position.position_id, position.opened_at) == (f"{BTC}#1", later(1))
    assert position.quantity == position.peak_quantity == D("0.01998")
    assert position.average_price == 101
    assert position.realised_pnl == D("-0.001") - D("0.00102")
    assert position.fees == {"BTC": D("0.00002")}


def test_dust_that_is_sold_counts_in_the_next_position():
    """Somebody turns dust into another coin; its gain is not lost, and what is no more is not held."""
    sold = done(2, SELL, "0.009", "120"), Origin()
    book = book_of(*FIRST, sold)
    assert book.quantities() == {}
    assert book.average_price(BTC) is None
    assert book.dust == {BTC: Dust(BTC, D("0.000"), D(100), D("0.18"))}
    book.apply(done(3, BUY, "1", "200"), origin("second"))
    assert book.open[BTC].realised_pnl == D("0.18")
    assert book.open[BTC].average_price == 200
    assert len(book.closed) == 1


def test_a_sale_of_more_than_the_dust_opens_the_other_side():
    """A short begins with what was long and less than a lot: its gain is the new position's."""
    book = book_of(*FIRST, (done(2, SELL, "1", "120"), origin("short", "130")))
    position = book.open[BTC]
    assert (position.position_id, position.signal_id) == (f"{BTC}#2", "short")
    assert position.quantity == D("-0.991")
    assert position.average_price == 120
    assert position.realised_pnl == D("0.009") * 20


def test_a_turn_by_less_than_a_lot_is_no_position():
    """More was sold than was held, by dust: the long has ended and no short has begun."""
    book = book_of(
        (done(0, BUY, "1", "100"), origin("first")), (done(1, SELL, "1.004", "110"), Origin())
    )
    assert (book.open, len(book.closed)) == ({}, 1)
    assert book.closed[0].realised_pnl == 10
    assert book.dust[BTC] == Dust(BTC, D("-0.004"), D(110))


def test_an_exit_in_parts_ends_with_its_last():
    """What is left is a lot or more until the last lot is sold."""
    book = book_of(FIRST[0], (done(1, SELL, "0.98", "110"), Origin(lot_size=LOT)))
    assert book.open[BTC].quantity == D("0.019")
    book.apply(done(2, SELL, "0.01", "110"), Origin(lot_size=LOT))
    assert (book.open, book.closed[0].closed_at) == ({}, later(2))


def test_a_late_fill_of_an_ended_position_is_its_own():
    """Told after the end, and executed before it: the first position was larger, and did not end."""
    late = done(0.5, BUY, "1", "100", "0.001"), origin("first")
    book = book_of(*FIRST, late)
    assert (book.closed, book.dust) == ([], {})
    assert book.open[BTC].quantity == D("1.008")
    assert book.open[BTC].signal_id == "first"


def test_a_late_fill_does_not_move_what_came_after():
    """Executed and told late, the sale of a lot that was left ends the first position, and the second is its own."""
    rows = [FIRST[0], (done(1, SELL, "0.9", "110"), Origin(lot_size=LOT)), *SECOND[:1]]
    book = book_of(*rows)
    assert book.open[BTC].signal_id == "first"
    book.apply(done(1.5, SELL, "0.09", "110"), Origin(lot_size=LOT))
    assert [p.signal_id for p in book.closed] == ["first"]
    assert (book.closed[0].closed_at, book.closed[0].dust) == (later(1.5), D("0.009"))
    assert (book.open[BTC].signal_id, book.open[BTC].stop_loss) == ("second", 180)


@pytest.mark.parametrize("quantity", ["0", "0.5"])
def test_a_correction_after_the_end_gives_the_position_back(quantity):
    """A busted or smaller exit was never the end; the same once the next entry has come."""
    book = book_of(*FIRST)
    fixed = replace(FIRST[1][0], trade_id="fixed", replaces="t1", quantity=D(quantity), fee=D(0))
    book.apply(fixed, Origin(lot_size=LOT), FIRST[1][0])
    assert (book.closed, book.dust) == ([], {})
    assert book.open[BTC].quantity == D("0.999") - D(quantity)
    assert (book.open[BTC].position_id, book.open[BTC].signal_id) == (f"{BTC}#1", "first")
    book.apply(*SECOND[0])
    assert book.open[BTC].signal_id == "first"


def test_dust_survives_the_window(monkeypatch):
    """What is settled has its dust too."""
    rows = [
        row
        for n in range(8)
        for row in (
            (done(2 * n, BUY, "1", "100", "0.001"), origin(f"s{n}")),
            (done(2 * n + 1, SELL, "1" if n else "0.99", "100"), origin("out")),
        )
    ]
    whole = book_of(*rows)
    monkeypatch.setattr("execkit.orders.positions.WINDOW", 3)
    short = book_of(*rows)
    assert short.closed == whole.closed
    assert [p.signal_id for p in short.closed] == [f"s{n}" for n in range(8)]
    assert short.dust == whole.dust == {BTC: Dust(BTC, D("0.002"), D(100))}
    short.apply(done(14.5, SELL, "0.01", "101"), Origin(lot_size=LOT))
    assert (len(short.closed), short.dust[BTC].quantity) == (8, D("-0.008"))
    assert short.closed[-1].realised_pnl == D("-0.1") + D("0.01")
    again = PositionBook()
    again.restore(short.export())
    assert (again.dust, again.open) == (short.dust, short.open)


def test_without_a_known_lot_only_nothing_is_flat():
    """A journal of an older version says no lots; its positions stay as they were."""
    rows = [(each, replace(its, lot_size=D(0))) for each, its in FIRST]
    book = book_of(*rows)
    assert book.open[BTC].quantity == D("0.009")
    assert book.without_lot() == [BTC]
    book.apply(done(2, SELL, "0.009", "110"), Origin())
    assert (book.open, book.dust, len(book.closed)) == ({}, {}, 1)


def test_a_lot_that_becomes_known_ends_what_is_less():
    """Told by the next order: what was left before it is dust, and the order's position another one."""
    rows = [(each, replace(its, lot_size=D(0))) for each, its in FIRST]
    book = book_of(*rows, SECOND[0])
    assert [p.signal_id for p in book.closed] == ["first"]
    assert book.closed[0].dust == D("0.009")
    assert book.open[BTC].signal_id == "second"
    assert book.open[BTC].quantity == D("1.008")


@pytest.mark.parametrize("side", Side)
def test_a_lot_that_is_looked_up_ends_what_is_less(side):
    """Told by a change of nothing; a position of a lot or more goes on, also after a late fill."""
    small = book_of((done(0, side, "0.009", "100"), Origin(signal_id="first")))
    small.adjust(BTC, D(0), D(100), later(9), lot_size=LOT)
    assert (small.open, small.closed[0].dust) == ({}, D("0.009") * side.sign)
    small.apply(done(1, side, "0.0001", "100"), Origin())
    assert (small.open, small.dust[BTC].quantity) == ({}, D("0.0091") * side.sign)
    large = book_of((done(0, side, "1", "100"), Origin(signal_id="first")))
    large.adjust(BTC, D(0), D(100), later(9), lot_size=LOT)
    assert (large.open[BTC].signal_id, large.closed, large.without_lot()) == ("first", [], [])

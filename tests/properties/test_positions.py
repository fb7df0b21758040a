"""Positions agree with a second computation, in whatever order the fills become known."""

from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import BTC, fill, later
from tests.support.pnl import Account

from execkit.model.order import Side
from execkit.model.records import StopMoved
from execkit.numbers import ZERO
from execkit.orders.executions import Origin
from execkit.orders.positions import PositionBook

quantities = st.integers(1, 10**7).map(lambda n: Decimal(n).scaleb(-4))
prices = st.integers(1, 10**8).map(lambda n: Decimal(n).scaleb(-2))
fees = st.tuples(
    st.integers(-50, 1000).map(lambda n: Decimal(n).scaleb(-6)),
    st.sampled_from(["BTC", "USDT", "BNB", ""]),
)
lots = st.sampled_from([Decimal(0), Decimal("0.0005"), Decimal("0.1"), Decimal(20)])
rows = st.lists(st.tuples(st.sampled_from(Side), quantities, prices, fees), min_size=1, max_size=25)

CLOSE = Fraction(1, 10**15)


def to_fills(table):
    """Return fills whose fees are a share: of the quantity in base, else of the notional."""
    found = []
    for n, (side, quantity, price, (rate, asset)) in enumerate(table):
        fee = rate * (quantity if asset == "BTC" else quantity * price)
        found.append(
            fill(
                f"t{n:03}",
                side=side,
                quantity=quantity,
                price=price,
                fee=fee,
                fee_asset=asset,
                at=later(n),
            )
        )
    return found


def near(value, exact):
    return abs(Fraction(value) - exact) <= CLOSE * max(1, abs(exact))


@given(rows, lots)
def test_average_cost_and_profit_agree_with_fractions(table, lot):
    """Quantity is exact; average, profit and fees of positions and of dust agree with exact fractions."""
    book, account = PositionBook(), Account("BTC", "USDT", lot)
    for each in to_fills(table):
        book.apply(each, Origin(lot_size=lot))
        account.add(each.side.value, each.quantity, each.price, each.fee, each.fee_asset)
        assert Fraction(book.quantity(BTC)) == account.held
        assert (BTC in book.open) == account.is_open
        position = book.open.get(BTC) or book.dust.get(BTC)
        if account.held:
            assert near(position.average_price, account.mean)
            assert near(position.realised_pnl, account.realised)
            assert set(position.fees) == set(account.fees)
            assert all(near(fee, account.fees[asset]) for asset, fee in position.fees.items())
    assert all(abs(dust.quantity) < lot for dust in book.dust.values())
    assert len(book.closed) == len(account.ended)
    for closed, (realised, paid) in zip(book.closed, account.ended, strict=True):
        assert near(closed.realised_pnl, realised)
        assert all(near(fee, paid[asset]) for asset, fee in closed.fees.items())


@given(rows, prices, lots)
def test_all_profit_is_cash_flow_and_what_is_held(table, mark, lot):
    """All gains, realised or not, are what was received less what was paid, plus the holding, dust included."""
    book, account = PositionBook(), Account("BTC", "USDT", lot)
    for each in to_fills(table):
        book.apply(each, Origin(lot_size=lot))
        account.add(each.side.value, each.quantity, each.price, each.fee, each.fee_asset)
    assert near(gained(book, mark), account.worth(mark))


def gained(book, mark):
    """Return what all positions, and the dust, have brought at a price."""
    total = sum((p.realised_pnl for p in book.closed), ZERO)
    for held in (*book.open.values(), *book.dust.values()):
        total += held.realised_pnl + (mark - held.average_price) * held.quantity
    return total


@given(rows.filter(lambda table: len(table) > 1), lots, st.data())
def test_any_order_and_any_repetition_ends_the_same(table, lot, data):
    """Fills are sorted by the venue's time, and each counts once."""
    told = to_fills(table)
    shuffled = data.draw(st.permutations(told + data.draw(st.lists(st.sampled_from(told)))))
    straight, mixed = PositionBook(), PositionBook()
    for each in told:
        straight.apply(each, Origin(lot_size=lot))
    for each in shuffled:
        if not mixed.knows(BTC, each.trade_id, each.side):
            mixed.apply(each, Origin(lot_size=lot))
    first, second = (msgspec.to_builtins(book.export()) for book in (straight, mixed))
    del first["seen"], second["seen"]
    assert first == second
    assert straight.open == mixed.open
    assert straight.dust == mixed.dust


@given(rows, lots, st.data())
def test_a_stop_that_was_set_holds_for_the_position_it_was_set_for(table, lot, data):
    """However late a fill becomes known, and whatever number the position has by then; see `levels`."""
    told = to_fills(table)
    arrivals = data.draw(st.permutations(told))
    book, when_set = PositionBook(), []
    for count, each in enumerate(arrivals, start=1):
        book.apply(each, Origin(stop_loss=Decimal(told.index(each) + 1), lot_size=lot))
        position = book.open.get(BTC)
        if position is not None and data.draw(st.booleans()):
            price = Decimal(1000 + count)
            name = position.position_id
            book.set_levels(StopMoved(symbol=BTC, position_id=name, stop_loss=price), later(count))
            assert book.open[BTC].stop_loss == price
            when_set.append((max(told.index(known) for known in arrivals[:count]), price))
    ended = book.open.get(BTC)
    if ended is not None:
        began = next(n for n, each in enumerate(told) if each.at == ended.opened_at)
        expected = [price for after, price in when_set if after >= began]
        assert ended.stop_loss == (expected[-1] if expected else began + 1)

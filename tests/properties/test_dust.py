"""D5: what a fee in kind leaves is less than a lot and no position; each trade is its own life, no money is lost."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.orders import BTC, changed, fill, intent, later
from tests.support.pnl import Account

from execkit.journal.fold import fold
from execkit.model.order import OrderRole, Side
from execkit.model.records import BalancesSeen, Entry, Filled, Source
from execkit.numbers import ZERO, round_down
from execkit.orders.book import Book

CLOSE = Fraction(1, 10**15)
CASH = Decimal(10**12)


@st.composite
def trades(draw):
    """Return a lot, and the records of purchases and sales of all that a venue takes, with what each cycle is about.

    Purchases pay their fee in base, sales in quote; both come in parts of whole lots, as at a venue.
    """
    lot = Decimal(1).scaleb(draw(st.integers(-5, 0)))
    rate = Decimal(draw(st.integers(1, 100_000))).scaleb(-6)
    records = [BalancesSeen(totals={"USDT": CASH}, source=Source.RECOVERY)]
    held = ZERO
    cycles = []
    for number in range(draw(st.integers(1, 6))):
        bought = lot * draw(st.integers(1, 400))
        price = Decimal(draw(st.integers(100, 99_999))).scaleb(-1)
        signal = f"s{number}"
        records += _order(draw, f"buy{number}", Side.BUY, bought, price, lot, rate, signal)
        held += bought * (1 - rate)
        sold = round_down(held, lot)
        if sold:
            price = Decimal(draw(st.integers(100, 99_999))).scaleb(-1)
            records += _order(draw, f"sell{number}", Side.SELL, sold, price, lot, rate, signal)
            held -= sold
            cycles.append(signal)
    return lot, records, cycles


def _order(draw, key, side, quantity, price, lot, rate, signal):
    role = OrderRole.ENTRY if side is Side.BUY else OrderRole.EXIT
    yield intent(
        key,
        side=side,
        quantity=quantity,
        role=role,
        parent=signal if side is Side.BUY else f"{signal} out",
        signal_id=signal if side is Side.BUY else f"{signal} out",
        signal_digest="",
        stop_loss=price / 2 if side is Side.BUY else None,
        lot_size=lot,
    )
    yield changed("submit", key)
    first = draw(st.integers(0, int(quantity / lot) - 1)) * lot
    for number, part in enumerate(filter(None, (first, quantity - first))):
        fee = part * rate * (1 if side is Side.BUY else price)
        yield Filled(
            fill=fill(
                f"{key} {number}",
                key,
                part,
                price,
                side=side,
                fee=fee,
                fee_asset="BTC" if side is Side.BUY else "USDT",
            ),
            source=Source.STREAM,
        )


def entries_of(records):
    """Return the journal of records, with the fills at the venue's times, one second apart."""
    made = []
    for number, record in enumerate(records, 1):
        at = later(number)
        is_fill = isinstance(record, Filled)
        dated = replace(record, fill=replace(record.fill, at=at)) if is_fill else record
        made.append(Entry(number, at, dated))
    return made


def near(value, exact):
    return abs(Fraction(value) - exact) <= CLOSE * max(1, abs(exact))


@given(trades())
def test_each_cycle_is_a_life_of_its_own(story):
    """Signal and stop are those of the cycle; nothing is open after it, and what is left is less than a lot."""
    lot, records, cycles = story
    book = fold(entries_of(records))
    positions = book.positions
    assert [p.signal_id for p in positions.closed] == cycles
    assert [p.position_id for p in positions.closed] == [
        f"{BTC}#{n}" for n in range(1, len(cycles) + 1)
    ]
    entries = {o.signal_id: o for o in book.orders.values() if o.role is OrderRole.ENTRY}
    for closed in positions.closed:
        assert closed.stop_loss == entries[closed.signal_id].intent.stop_loss
        assert closed.quantity == ZERO
        assert abs(closed.dust) < lot
    assert book.position(BTC) is None
    assert book.open_positions() == {}
    assert abs(positions.quantity(BTC)) < lot


@given(trades())
def test_quantities_are_the_venues_and_no_money_is_lost(story):
    """After every record what is held is what was bought, less fees and sales, and all gains are the cash flow."""
    lot, records, _ = story
    book, account = Book(), Account("BTC", "USDT", lot)
    for entry in entries_of(records):
        book.apply(entry.record, entry.at)
        if not isinstance(entry.record, Filled):
            continue
        done = entry.record.fill
        account.add(done.side.value, done.quantity, done.price, done.fee, done.fee_asset)
        held = book.positions.quantity(BTC)
        assert Fraction(held) == account.held == account.cash["BTC"]
        assert book.cash["BTC"] == held
        assert Fraction(book.cash["USDT"]) == Fraction(CASH) + account.cash["USDT"]
        assert book.positions.quantities() == ({BTC: held} if held else {})
        assert (BTC in book.positions.open) == (abs(held) >= lot)
        gained = sum((p.realised_pnl for p in book.positions.closed), ZERO)
        for each in (*book.positions.open.values(), *book.positions.dust.values()):
            gained += each.realised_pnl + (done.price - each.average_price) * each.quantity
        assert near(gained, account.worth(done.price))


@given(trades())
def test_a_restart_between_any_two_records_changes_nothing(story):
    """I16: from the journal, and from a snapshot and the rest of it, comes the same book, without asking a venue."""
    _, records, _ = story
    entries = entries_of(records)
    book = Book()
    for cut, entry in enumerate(entries, 1):
        book.apply(entry.record, entry.at)
        again = Book.restore(book.snapshot())
        assert again.state_hash() == book.state_hash() == fold(entries[:cut]).state_hash()
        assert again.positions.open == book.positions.open
        assert again.positions.dust == book.positions.dust
        rest = fold(entries[cut:], book.snapshot())
        assert rest.state_hash() == fold(entries).state_hash()


@given(trades(), st.randoms(use_true_random=False))
def test_fills_that_become_known_late_give_the_same_lives(story, chance):
    """I21: whatever the order in which executions are told, also after the end of their position."""
    _, records, _ = story
    entries = entries_of(records)
    fills = [each for each in entries if isinstance(each.record, Filled)]
    others = [each for each in entries if not isinstance(each.record, Filled)]
    straight = fold([*others, *fills]).positions
    chance.shuffle(fills)
    late = fold([*others, *fills]).positions
    assert late.closed == straight.closed
    assert (late.open, late.dust) == (straight.open, straight.dust)

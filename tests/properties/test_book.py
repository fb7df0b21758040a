"""The book is the fold of its records: from the start, from any snapshot, and in any order the venue tells."""

from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.support.histories import histories
from tests.support.orders import changed, fill, intent, later

from execkit.errors import InvalidTransitionError
from execkit.journal.fold import fold
from execkit.model.order import Side
from execkit.model.records import BalancesSeen, Filled, Source
from execkit.orders.book import Book


@given(histories())
def test_every_prefix_replays_and_gives_what_memory_had(entries):
    """After each record the fold of the journal so far has the hash that memory had."""
    book = Book()
    for n, entry in enumerate(entries, 1):
        book.apply(entry.record, entry.at)
        if n % 5 == 0 or n == len(entries):
            again = fold(entries[:n])
            assert again.state_hash() == book.state_hash()
            assert again.snapshot() == book.snapshot()


@given(histories(), st.data())
def test_a_snapshot_stands_for_all_before_it(entries, data):
    """Restored anywhere, the book goes on with the same states, the same order of things and the same hashes."""
    cut = data.draw(st.integers(0, len(entries)))
    book = fold(entries[:cut])
    again = Book.restore(book.snapshot())
    assert again.state_hash() == book.state_hash()
    assert list(again.signals) == list(book.signals)
    assert list(again.queued) == list(book.queued)
    assert list(again.owed) == list(book.owed)
    assert list(again.orders.active) == list(book.orders.active)
    for parent in {order.parent for order in book.orders.values()}:
        ids = [[o.client_order_id for o in b.orders.revisions(parent)] for b in (book, again)]
        assert ids[0] == ids[1]
    rest = entries[cut:]
    assert fold(rest, book.snapshot()).state_hash() == fold(entries).state_hash()
    assert {s: p.quantity for s, p in again.positions.open.items()} == {
        s: p.quantity for s, p in book.positions.open.items()
    }


@given(histories())
def test_a_fill_twice_is_a_fill_once(entries):
    """Each execution changes orders, positions and cash once, however often it is told."""
    twice = Book()
    for entry in entries:
        twice.apply(entry.record, entry.at)
        if isinstance(entry.record, Filled):
            twice.apply(entry.record, entry.at)
    assert twice.state_hash() == fold(entries).state_hash()


@given(histories())
def test_cash_is_conserved(entries):
    """Each asset holds what was last seen, plus all executions since, less all fees: counted in fractions."""
    book = Book()
    cash = {}
    standing = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, Filled) and not book.knows_fill(record.fill):
            for done, sign in ((standing.pop(record.fill.replaces, None), -1), (record.fill, 1)):
                if done is not None:
                    _flow(cash, done, sign)
            standing[record.fill.trade_id] = record.fill
        elif isinstance(record, BalancesSeen):
            cash = {asset: Fraction(total) for asset, total in record.totals.items()}
        book.apply(record, entry.at)
    assert {a: Fraction(v) for a, v in book.cash.items() if v} == {
        a: v for a, v in cash.items() if v
    }


def _flow(cash, done, sign):
    base, quote = done.symbol.split("/")
    direction = sign if done.side is Side.BUY else -sign
    for asset, amount in (
        (base, direction * Fraction(done.quantity)),
        (quote, -direction * Fraction(done.quantity) * Fraction(done.price)),
        (done.fee_asset or quote, -sign * Fraction(done.fee)),
    ):
        cash[asset] = cash.get(asset, 0) + amount


# -- I21 -----------------------------------------------------------------------------------------------


@st.composite
def venue_stories(draw):
    """Return intents, and what the venue tells of them: acknowledgements, fills with corrections, ends."""
    intents, told = [], []
    for n in range(draw(st.integers(1, 4))):
        order_id, venue_id = f"o{n}", f"v{n}"
        symbol, side = draw(st.sampled_from(["BTC/USDT", "ETH/USDT"])), draw(st.sampled_from(Side))
        parts = draw(st.lists(st.integers(1, 50), max_size=4))
        ends = draw(st.sampled_from([None, "cancel", "expire"]))
        total = sum(parts) + (draw(st.integers(1, 50)) if ends or not parts else 0)
        intents.append(
            intent(order_id, parent=f"s{n}", symbol=symbol, side=side, quantity=total, limit="100")
        )
        told.append(changed("accept", order_id, venue_order_id=venue_id))
        for place, part in enumerate(parts):
            done = fill(
                f"{order_id}-{place}",
                order_id,
                part,
                100 + place,
                side=side,
                symbol=symbol,
                fee="0.01",
                fee_asset=draw(st.sampled_from(["USDT", "BNB"])),
                at=later(draw(st.integers(0, 30))),
                venue_id=venue_id,
            )
            told.append(Filled(fill=done, source=Source.STREAM))
        if parts and draw(st.booleans()):
            # A corrected price: quantities of closed orders are corrected too, but may end them differently.
            told.append(
                Filled(
                    fill=msgspec.structs.replace(
                        done, trade_id=f"{order_id}-fix", price=Decimal(90), replaces=done.trade_id
                    ),
                    source=Source.STREAM,
                )
            )
        if ends:
            told.append(changed(ends, order_id, venue_order_id=venue_id))
    return intents, told


def listen(intents, told):
    """Return the state after hearing a story; what cannot be any more is passed over, as the recorder does."""
    book = Book()
    for number, record in enumerate(intents):
        book.apply(record, later(number))
        book.apply(changed("submit", record.request.client_order_id), later(number))
    for record in told:
        try:
            book.apply(record, later(1000))
        except InvalidTransitionError:
            continue
    orders = {
        key: (order.state, order.filled, order.filled_notional, order.venue_order_id, order.fills)
        for key, order in book.orders.items()
    }
    positions = msgspec.to_builtins(book.positions.export())
    del positions["seen"]
    return orders, positions, {asset: held for asset, held in book.cash.items() if held}


@given(venue_stories(), st.data())
def test_any_order_and_any_repetition_of_news_ends_the_same(story, data):
    """I21: orders, positions and cash depend on what happened, not on how it became known."""
    intents, told = story
    repeated = told + data.draw(st.lists(st.sampled_from(told), max_size=8))
    assert listen(intents, data.draw(st.permutations(repeated))) == listen(intents, told)

"""Day trades of one symbol: FINRA's examples (notice 21-13), what is held overnight, shorts, what always holds."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import BTC, fill

from execkit.model.order import Side
from execkit.orders import positions
from execkit.orders.day_trades import KEEP_DAYS, DayTrades
from execkit.orders.executions import Origin
from execkit.orders.position_state import PositionExport
from execkit.orders.positions import WINDOW, PositionBook

D = Decimal
MORNING = datetime(2024, 3, 6, 14, 30, tzinfo=UTC)
"""09:30 in New York."""
DAY = timedelta(days=1)


def counted(changes, *, after=None):
    """Return the count of executions a minute apart, from the morning on."""
    each = DayTrades() if after is None else after
    for n, change in enumerate(changes):
        each.add(D(change), MORNING + timedelta(minutes=n))
    return each


def overnight(quantity):
    each = DayTrades()
    each.add(D(quantity), MORNING - DAY)
    return each


def total(each):
    return sum(count for _, count in each.counts)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((250, 250, -500), 1),
        ((100, -100, 100, -100), 2),
        ((500, -100, -100, -300), 1),
        ((250, 300, 100, -150, -175), 1),
        ((199, 142, -1, 45, -100, -200), 2),
        ((200, -100), 1),
    ],
    ids="ABCDEF",
)
def test_the_notices_examples(changes, expected):
    """Of F only the first security; the other one is the same once more."""
    assert total(counted(changes)) == expected
    assert total(counted([-change for change in changes])) == expected, "the same of shorts"


@pytest.mark.parametrize(
    ("held", "changes", "expected"),
    [
        (100, (-100,), 0),
        (100, (-40, -60), 0),
        (100, (-100, 100), 0),
        (100, (-100, 100, -50), 1),
        (100, (50, -50), 1),
        (100, (50, -150), 1),
        (100, (-50, 50, -100), 1),
        (100, (-150,), 0),
        (100, (-150, 50), 1),
        (-100, (100,), 0),
        (-100, (100, -30, 30), 1),
        (-100, (50, -50, 50), 1),
        (0, (100, -200, 100), 2),
        (0, (100,), 0),
        (0, (), 0),
    ],
)
def test_what_was_held_overnight_is_no_day_trade_until_something_is_added(held, changes, expected):
    """Sold before a new purchase it is none; opened again, or added to, it is."""
    assert total(counted(changes, after=overnight(held) if held else None)) == expected


def test_a_day_ends_at_midnight_in_new_york():
    """Seven in the evening is still the same day, though another one in UTC; one in the morning is not."""
    for hours, expected in ((10.5, 1), (14.4, 1), (14.6, 0)):
        each = DayTrades()
        each.add(D(1), MORNING)
        each.add(D(-1), MORNING + timedelta(hours=hours))
        assert total(each) == expected, hours


def test_the_count_is_kept_by_day():
    """Only the last days are remembered, and they are asked for from a day on."""
    each = DayTrades()
    for n in range(1, KEEP_DAYS + 4):
        for minute in range(n):
            each.add(D(1), MORNING + n * DAY + timedelta(minutes=2 * minute))
            each.add(D(-1), MORNING + n * DAY + timedelta(minutes=2 * minute + 1))
    days = [day for day, _ in each.counts]
    assert [count for _, count in each.counts] == list(range(4, KEEP_DAYS + 4))
    assert each.since(days[-2]) == KEEP_DAYS + 2 + KEEP_DAYS + 3
    assert each.since(days[-1] + DAY) == 0


@pytest.mark.parametrize(
    ("held", "changes", "later", "expected"),
    [
        (0, (100,), 0, True),
        (0, (100,), 1, False),
        (0, (-100,), 0, True),
        (100, (), 0, False),
        (100, (-50,), 0, False),
        (100, (50,), 0, True),
        (0, (100, -50), 0, False),
        (0, (100, -50, 10), 0, True),
        (0, (100, -100), 0, False),
        (-100, (40,), 0, False),
    ],
)
def test_closing_the_rest_is_one_more_or_goes_on_with_the_last(held, changes, later, expected):
    """The forecast is what really comes of it."""
    each = counted(changes, after=overnight(held) if held else None)
    at = MORNING + timedelta(hours=1) + later * DAY
    before = total(each)
    assert each.would_close(at) is expected
    each.add(-each.held, at)
    assert total(each) == before + expected


SOME = st.lists(
    st.tuples(st.integers(-4, 4).filter(bool), st.integers(0, 2)), min_size=1, max_size=14
)


def played(steps, *, parts=False, sign=1):
    """Return the count of (change, days later) steps, in units where *parts* is set."""
    each, at = DayTrades(), MORNING
    for change, days in steps:
        at += days * DAY + timedelta(seconds=30)
        for unit in [sign * (1 if change > 0 else -1)] * abs(change) if parts else [sign * change]:
            each.add(D(unit), at)
    return each


def by_units(steps):
    """Count by units, the last that came being the first to go: one per row of executions in a direction."""
    held, day, last, is_counted, found = [], 0, 0, False, 0
    for change, days in steps:
        sign = 1 if change > 0 else -1
        if days or sign != last:
            is_counted = False
        day, last = day + days, sign
        for _ in range(abs(change)):
            if held and held[-1][0] != sign:
                if held.pop()[1] == day and not is_counted:
                    found, is_counted = found + 1, True
            else:
                held.append((sign, day))
    return found


@given(SOME)
def test_the_count_is_that_of_single_units(steps):
    """However an order is executed in parts, and seen from the other side of the market too."""
    expected = by_units(steps)
    assert total(played(steps)) == expected
    assert total(played(steps, parts=True)) == expected
    assert total(played(steps, sign=-1)) == expected


@given(SOME)
def test_the_forecast_is_the_truth(steps):
    """Closing all that is held changes the count by what was foretold."""
    each = played(steps)
    at = MORNING + sum(days for _, days in steps) * DAY + timedelta(hours=1)
    expected = each.would_close(at)
    before = total(each)
    each.add(-each.held, at)
    assert total(each) - before == expected


# -- in the books ------------------------------------------------------------------------------------------


def booked(book, number, side, *, minutes, quantity=1, **changes):
    book.apply(
        fill(
            f"t{number}",
            side=side,
            quantity=quantity,
            at=MORNING + timedelta(minutes=minutes),
            **changes,
        ),
        Origin(),
    )


def again(book):
    """Return the book that a restart from its snapshot gives."""
    copy = PositionBook()
    copy.restore(msgspec.json.decode(msgspec.json.encode(book.export()), type=PositionExport))
    return copy


def test_the_count_survives_a_restart_and_more_fills_than_are_kept():
    """A hundred and fifty round trips in the window's past and its present."""
    book = PositionBook()
    for n in range(150):
        booked(book, 2 * n, Side.BUY, minutes=2 * n)
        booked(book, 2 * n + 1, Side.SELL, minutes=2 * n + 1)
        if n % 40 == 0:
            book = again(book)
    assert WINDOW < 300
    assert list(book.traded) == [BTC]
    assert total(book.day_trades(BTC)) == 150
    assert total(again(book).day_trades(BTC)) == 150
    assert total(book.day_trades(BTC)) == 150, "asking changes nothing"
    assert total(book.day_trades("never")) == 0


def test_a_fill_that_comes_late_counts_where_it_belongs():
    """Buy, sell, buy, sell are two, in whatever order they become known."""
    book = PositionBook()
    for n, side in ((0, Side.BUY), (3, Side.SELL), (2, Side.BUY), (1, Side.SELL)):
        booked(book, n, side, minutes=n)
    assert total(book.day_trades(BTC)) == 2


def test_an_old_fill_that_is_taken_back_is_no_trade():
    """A correction of what is out of the window puts its opposite in: what is held changes, nothing was traded."""
    book = PositionBook()
    first = fill("t0", side=Side.BUY, quantity=2, at=MORNING)
    book.apply(first, Origin())
    for n in range(1, WINDOW + 2):
        booked(book, n, Side.BUY, minutes=n)
    corrected = fill("t0b", quantity=1, at=MORNING + timedelta(hours=5), replaces="t0")
    book.apply(corrected, Origin(), first)
    each = book.day_trades(BTC)
    assert (total(each), each.held) == (0, book.quantity(BTC))


def downgraded(book):
    """Return the book that a snapshot without the count of day trades gives."""
    data = msgspec.to_builtins(book.export())
    del data["day_trades"]
    copy = PositionBook()
    copy.restore(msgspec.convert(data, PositionExport, strict=False))
    return copy


@pytest.mark.parametrize(("sign", "expected"), [(1, 1), (-1, 1)])
def test_an_old_snapshot_knows_what_is_held(monkeypatch, sign, expected):
    """A hundred from weeks ago are sold; the next day a hundred bought and sold are one day trade, not none."""
    monkeypatch.setattr(positions, "WINDOW", 1)
    book = PositionBook()
    side = Side.BUY if sign > 0 else Side.SELL
    booked(book, 0, side, minutes=0, quantity=100)
    booked(book, 1, side.opposite, minutes=20 * 1440, quantity=100)
    old = downgraded(book)
    assert old.day_trades(BTC).held == 0
    for each in (book, old):
        booked(each, 2, side, minutes=21 * 1440, quantity=100)
        booked(each, 3, side.opposite, minutes=21 * 1440 + 5, quantity=100)
        assert (total(each.day_trades(BTC)), each.day_trades(BTC).held) == (expected, 0)


@pytest.mark.parametrize("day", [0, 1])
def test_an_old_snapshot_knows_of_what_was_opened_on_the_day(monkeypatch, day):
    """What is sold on the day on which its position was opened is a day trade, on the next day it is none."""
    monkeypatch.setattr(positions, "WINDOW", 1)
    book = PositionBook()
    booked(book, 0, Side.BUY, minutes=0, quantity=60)
    booked(book, 1, Side.BUY, minutes=1, quantity=40)
    old = downgraded(book)
    for each in (book, old):
        booked(each, 2, Side.SELL, minutes=day * 1440 + 60, quantity=100)
        assert total(each.day_trades(BTC)) == 1 - day


@pytest.mark.parametrize("held", ["0", "0.002"])
def test_what_no_position_was_made_of_was_not_opened_on_a_day(held):
    """Nothing, or less than a lot from the start: the count begins with the quantity alone."""
    assert DayTrades.holding(D(held), None) == DayTrades(D(held))
    assert DayTrades.holding(D(0), MORNING) == DayTrades()


@given(SOME, SOME, st.integers(1, 3), st.integers(0, 3))
def test_an_old_snapshot_counts_on_like_the_whole_journal(before, after, window, late):
    """From the first day on that is wholly in it; whatever was held, and when an execution becomes known late."""
    told, at = [], MORNING
    for n, (change, days) in enumerate([*before, (1, 20), *after]):
        at += days * DAY + timedelta(seconds=30)
        side = Side.BUY if change > 0 else Side.SELL
        told.append(fill(f"t{n:02}", side=side, quantity=abs(change), at=at))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "WINDOW", window)
        book = PositionBook()
        for each in told[: len(before)]:
            book.apply(each, Origin())
        old = downgraded(book)
        rest = told[len(before) :]
        for each in (book, old):
            for one in (*rest[late:], *rest[:late]):
                each.apply(one, Origin())
        first = told[len(before)].at.date()
        assert old.quantity(BTC) == book.quantity(BTC) == old.day_trades(BTC).held
        assert old.day_trades(BTC).since(first) == book.day_trades(BTC).since(first)

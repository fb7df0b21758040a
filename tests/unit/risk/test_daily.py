"""The day's loss: against the session's open and against 24 hours ago."""

from collections import deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.orders.book_state import EquityMark, rebased
from execkit.risk.daily import DayWatch, day_baseline

D = Decimal
NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)


def mark(hours_ago, equity, *, opens_session=False):
    return EquityMark(NOON - timedelta(hours=hours_ago), D(equity), opens_session)


@pytest.mark.parametrize(
    ("marks", "opening", "day_ago"),
    [
        ([mark(1, 100)], 100, 100),
        ([mark(30, 90), mark(24, 95), mark(23, 97)], 90, 95),
        ([mark(30, 90), mark(13, 95, opens_session=True), mark(1, 97)], 95, 90),
        ([mark(12, 90, opens_session=True), mark(2, 95, opens_session=True), mark(1, 97)], 95, 90),
        ([mark(40, 90, opens_session=True), mark(1, 97)], 90, 90),
    ],
)
def test_baseline(marks, opening, day_ago):
    """The last session's open, and the newest mark that is 24 hours old; the oldest where there is none."""
    baseline = day_baseline(NOON, deque(marks))
    assert (baseline.opening, baseline.day_ago) == (opening, day_ago)


def test_loss_is_the_larger_of_the_two():
    """A gain is negative."""
    baseline = day_baseline(NOON, [mark(30, 110), mark(5, 100, opens_session=True)])
    assert baseline.loss(D(95)) == 15
    assert baseline.loss(D(120)) == -10


def test_no_marks_no_baseline():
    """Before the first mark nothing can be lost."""
    assert day_baseline(NOON, []) is None
    assert DayWatch().baseline(NOON, []) is None


def test_the_watch_agrees_with_the_function_at_every_minute():
    """It reads the marks again exactly when that changes the answer."""
    watch, marks = DayWatch(), deque()
    for minute in range(0, 60 * 60, 7):
        now = NOON + timedelta(minutes=minute)
        if minute % 35 == 0:
            marks.append(EquityMark(now, D(minute * 31 % 1009), minute % 1470 == 0))
        while now - marks[0].at > timedelta(hours=25):
            marks.popleft()
        assert watch.baseline(now, marks) == day_baseline(now, marks)


def test_the_watch_does_not_read_all_marks_per_order():
    """Between two marks the answer is kept."""
    watch, marks = DayWatch(), [mark(30, 110), mark(5, 100)]
    first = watch.baseline(NOON, marks)
    assert watch.baseline(NOON + timedelta(hours=1), marks) is first
    assert watch.baseline(NOON + timedelta(hours=19), marks) is not first


AMOUNTS = st.decimals(-10_000, 10_000, places=2)


@given(
    st.lists(st.tuples(st.integers(0, 40), AMOUNTS, st.booleans()), min_size=1, max_size=8),
    st.lists(AMOUNTS, max_size=4),
    AMOUNTS,
)
def test_what_is_paid_in_or_out_changes_no_loss(made, transfers, equity):
    """In any number of parts, with any marks: the loss after it is the loss before it."""
    marks = deque(
        mark(hours, value, opens_session=opens)
        for hours, value, opens in sorted(made, key=lambda each: -each[0])
    )
    before = day_baseline(NOON, marks).loss(equity)
    watch = DayWatch()
    watch.baseline(NOON, marks)
    for amount in transfers:
        marks = rebased(marks, amount)
        equity += amount
        assert watch.baseline(NOON, marks).loss(equity) == before

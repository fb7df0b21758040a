"""Longer bars are what a second computation makes of the same minutes, and never look ahead."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.bars.aggregate import BarAggregator, is_aligned, window_open
from execkit.errors import ConfigurationError
from execkit.model.market import Timeframe

LONGER = [frame for frame in Timeframe if frame is not Timeframe.M1]
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def key_of(bar, frame):
    """Which window a minute belongs to, by calendar arithmetic instead of seconds."""
    opened = bar.open_time
    midnight = opened.replace(hour=0, minute=0, second=0, microsecond=0)
    if frame is Timeframe.W1:
        return midnight - timedelta(days=opened.weekday())
    if frame is Timeframe.D1:
        return midnight
    length = int(frame.duration.total_seconds() // 60)
    minute = opened.hour * 60 + opened.minute
    return midnight + timedelta(minutes=minute - minute % length)


def recompute(bars, frame):
    """All windows that are over, from all minutes at once."""
    groups = {}
    for each in bars:
        groups.setdefault(key_of(each, frame), []).append(each)
    made = []
    for start, group in groups.items():
        end = start + frame.duration
        over = bars[-1].close_time >= end
        begun = start >= bars[0].open_time or start != key_of(bars[0], frame)
        if over and begun:
            made.append(
                (
                    end,
                    group[0].open,
                    max(b.high for b in group),
                    min(b.low for b in group),
                    group[-1].close,
                    sum(b.volume for b in group),
                )
            )
    return made


@st.composite
def minutes(draw):
    """A start anywhere in a fortnight, and minutes with holes of every size after it."""
    at = draw(st.integers(0, 14 * 1440))
    rows = []
    for _ in range(draw(st.integers(1, 40))):
        at += draw(st.sampled_from([1, 1, 1, 1, 2, 7, 61, 241, 1441, 10_081]))
        prices = sorted(draw(st.lists(st.integers(1, 1000), min_size=4, max_size=4)))
        first, last = draw(st.permutations(prices[1:3]))
        rows.append((at, first, prices[3], prices[0], last, draw(st.integers(0, 9))))
    return rows


@given(minutes())
def test_equals_an_independent_recomputation(bar, rows):
    """For any minutes, with holes, each longer bar is that of the calendar, given out once and in order."""
    bars = [
        type(bar(1))(
            "BTC/USDT",
            Timeframe.M1,
            MONDAY + timedelta(minutes=at),
            *(type(bar(1).close)(n) for n in numbers),
        )
        for at, *numbers in rows
    ]
    aggregator = BarAggregator(Timeframe.M1, LONGER)
    seen = {frame: [] for frame in LONGER}
    for each in bars:
        made = aggregator.add(each)
        assert [b.close_time for b in made] == sorted(b.close_time for b in made)
        for b in made:
            assert b.close_time <= each.close_time, "nothing of the future"
            seen[b.timeframe].append((b.close_time, b.open, b.high, b.low, b.close, b.volume))
    for frame in LONGER:
        assert seen[frame] == recompute(bars, frame)


@given(st.integers(2, 600), st.integers(1, 1000))
def test_no_look_ahead(bar, count, changed):
    """What was given out before a minute does not depend on that minute or on any later one."""
    cut = changed % count

    def run(rows):
        aggregator = BarAggregator(Timeframe.M1, [Timeframe.M5, Timeframe.H1])
        return [aggregator.add(each) for each in rows]

    rows = [bar(n, 100 + n % 7) for n in range(1, count + 1)]
    other = rows[:cut] + [bar(n, 5_000 + n) for n in range(cut + 1, count + 1)]
    assert run(rows)[:cut] == run(other)[:cut]


def test_one_hour_by_hand(bar):
    """Open of the first minute, extremes, close of the last, sum of volumes, at the end of the hour."""
    aggregator = BarAggregator(Timeframe.M1, [Timeframe.H1])
    made = []
    for n in range(1, 61):
        high = 150 if n == 17 else None
        low = 50 if n == 42 else None
        made += aggregator.add(bar(n, 100 + n, high=high, low=low, volume="0.1"))
    (hour,) = made
    assert hour.close_time == MONDAY + timedelta(hours=1)
    assert (hour.open, hour.high, hour.low, hour.close) == (101, 160, 50, 160)
    assert str(hour.volume) == "6.0"


def test_an_unseen_beginning_is_never_given_out(bar):
    """The first hour, begun at its half, is no hour."""
    aggregator = BarAggregator(Timeframe.M1, [Timeframe.H1])
    made = [each for n in range(31, 121) for each in aggregator.add(bar(n))]
    assert [each.close_time for each in made] == [MONDAY + timedelta(hours=2)]


def test_old_bars_change_nothing(bar):
    """K2, K3: a duplicate and a late minute are not counted again."""
    aggregator = BarAggregator(Timeframe.M1, [Timeframe.M5])
    for n in (1, 2, 2, 1, 3, 4):
        assert aggregator.add(bar(n, volume=1)) == []
    (five,) = aggregator.add(bar(5, volume=1))
    assert five.volume == 5
    assert aggregator.add(bar(5, volume=1)) == []


def test_weeks_begin_on_monday():
    """A week is open from Monday 00:00 UTC to the next."""
    sunday = datetime(2024, 1, 7, 23, 59, tzinfo=UTC)
    assert window_open(sunday, Timeframe.W1) == MONDAY
    assert is_aligned(datetime(2024, 1, 8, tzinfo=UTC), Timeframe.W1)
    assert not is_aligned(datetime(2024, 1, 4, tzinfo=UTC), Timeframe.W1)


@pytest.mark.parametrize(
    ("base", "wanted"), [(Timeframe.H1, Timeframe.M5), (Timeframe.D1, Timeframe.H4)]
)
def test_refuses_what_cannot_be_built(base, wanted):
    """A longer bar cannot become a shorter one."""
    with pytest.raises(ConfigurationError, match=f"{wanted} cannot be built from {base}"):
        BarAggregator(base, [wanted])


def test_refuses_bars_off_the_grid(bar):
    """K14: a close that is no boundary is refused, also one of a fraction of a second."""
    aggregator = BarAggregator(Timeframe.M1, [])
    for shift in (timedelta(seconds=1), timedelta(microseconds=1)):
        off = bar(1)
        off = type(off)(off.symbol, off.timeframe, off.close_time + shift, *([off.close] * 5))
        with pytest.raises(ConfigurationError, match="no boundary of 1m bars"):
            aggregator.add(off)
    with pytest.raises(ConfigurationError, match="expected 1m bars, got 5m"):
        aggregator.add(bar(5, timeframe=Timeframe.M5))

"""Trades, corrections, sessions and the clock: whatever comes in whatever order, bars equal a second computation."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from execkit.bars.aggregate import BarAggregator
from execkit.bars.builder import TradeBars
from execkit.bars.sessions import ListedHours, Session
from execkit.model.market import BarData, Timeframe, Trade

START = datetime(2024, 1, 1, 9, 30, tzinfo=UTC)
HOURS = ListedHours(
    Session(
        day,
        datetime(2024, 1, day.day, 9, 30, tzinfo=UTC),
        datetime(2024, 1, day.day, 13 if day.day == 3 else 16, tzinfo=UTC),
    )
    for day in [date(2024, 1, n) for n in range(1, 13)]
)
FRAMES = [Timeframe.M5, Timeframe.M30, Timeframe.H1, Timeframe.H4, Timeframe.D1]


def minute(at, price, volume=1):
    price = Decimal(price)
    return BarData("S", Timeframe.M1, at, price, price + 2, price - 1, price + 1, Decimal(volume))


@st.composite
def session_minutes(draw):
    """Minutes of three sessions, with holes of every size."""
    rows = []
    at = START
    while len(rows) < 60 and at < datetime(2024, 1, 4, tzinfo=UTC):
        at += timedelta(minutes=draw(st.sampled_from([1, 1, 1, 2, 30, 61, 200])))
        if HOURS.is_close(Timeframe.M1, at):
            rows.append(minute(at, draw(st.integers(10, 99)), draw(st.integers(1, 9))))
    return rows


def recomputed(bars, frame, until):
    """All windows over at *until*, from all minutes at once."""
    groups = {}
    for bar in bars:
        window = HOURS.window(frame, bar.open_time)
        groups.setdefault(window, []).append(bar)
    return {
        end: (
            group[0].open,
            max(b.high for b in group),
            min(b.low for b in group),
            group[-1].close,
            sum(b.volume for b in group),
        )
        for (_, end), group in groups.items()
        if end <= until
    }


def values(bar):
    return (bar.open, bar.high, bar.low, bar.close, bar.volume)


@given(session_minutes(), st.data())
def test_longer_bars_in_sessions_with_a_clock_and_corrections(bars, data):
    """Closed by parts or by the clock, over half days, with late corrections: each bar is that of its session."""
    aggregator = BarAggregator(Timeframe.M1, FRAMES, HOURS)
    aggregator.advance(START)
    seen = {frame: {} for frame in FRAMES}
    kept = []
    told = []
    for bar in bars:
        if data.draw(st.booleans()):
            # The clock tells of the minute before, in which nothing was traded.
            told += aggregator.advance(bar.close_time - timedelta(minutes=1))
        told += aggregator.add(bar)
        kept.append(bar)
        if data.draw(st.integers(0, 4)) == 0:
            place = len(kept) - 1 - data.draw(st.integers(0, min(2, len(kept) - 1)))
            old = kept[place]
            if old.close_time > bar.close_time - timedelta(minutes=4):
                corrected = msgspec.structs.replace(old, high=old.high + 5, volume=old.volume + 1)
                kept[place] = corrected
                told += aggregator.correct(corrected)
    end = bars[-1].close_time if bars else START
    told += aggregator.advance(end + timedelta(days=2))
    for bar in told:
        seen[bar.timeframe][bar.close_time] = values(bar)
    for frame in FRAMES:
        assert seen[frame] == recomputed(kept, frame, end + timedelta(days=2))


@given(session_minutes(), st.integers(0, 59))
def test_a_bar_of_the_future_makes_no_difference(bars, cut):
    """What was told up to a moment is the same whatever comes later: no look-ahead."""
    cut = min(cut, len(bars))

    def run(rows):
        aggregator = BarAggregator(Timeframe.M1, FRAMES, HOURS)
        return [aggregator.add(row) for row in rows]

    other = bars[:cut] + [minute(bar.close_time, 5_000, 77) for bar in bars[cut:]]
    assert run(bars)[:cut] == run(other)[:cut]


@st.composite
def trades(draw):
    """Trades of ten minutes in the order in which they come: nearly that of their times."""
    rows, at = [], 0
    for _ in range(draw(st.integers(1, 60))):
        at += draw(st.integers(0, 20_000))
        shift = draw(st.sampled_from([0, 0, 0, -5, -900]))
        moment = START + timedelta(milliseconds=max(0, at + shift))
        rows.append(
            Trade(
                "S", Decimal(draw(st.integers(90, 110))), Decimal(draw(st.integers(1, 5))), moment
            )
        )
    return rows


@given(trades())
def test_trades_into_minutes_equal_a_sort_by_time(rows):
    """Each trade counts in the minute of its own time; open and close are the first and last of them, as they came."""
    builder = TradeBars("S", max_move_pct=Decimal(100))
    made = {}
    clock = START
    for row in rows:
        clock = max(clock, row.at)
        # A minute is closed a second after its end, when all its trades have come.
        for end in builder.due(clock - timedelta(seconds=1)):
            bar = builder.close(end)
            made[end] = values(bar)
        corrected = builder.add(row)
        assert corrected is None
    for end in builder.due(clock + timedelta(days=1)):
        made[end] = values(builder.close(end))
    wanted = {}
    for row in sorted(rows, key=lambda each: each.at):
        end = row.at.replace(second=0, microsecond=0) + timedelta(minutes=1)
        wanted.setdefault(end, []).append(row)
    assert made == {
        end: (
            group[0].price,
            max(t.price for t in group),
            min(t.price for t in group),
            group[-1].price,
            sum(t.quantity for t in group),
        )
        for end, group in wanted.items()
    }

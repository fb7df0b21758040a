"""Where bars end: in sessions and round the clock, over breaks, half days and days that clocks are set."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.bars.sessions import AlwaysOpen, ListedHours, Session, heed, is_aligned
from execkit.errors import ConfigurationError
from execkit.model.market import Timeframe

NEW_YORK = ZoneInfo("America/New_York")
ZONES = [
    "America/New_York",
    "America/Chicago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Europe/London",
    "Europe/Berlin",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
]
INTRADAY = [t for t in Timeframe if t not in (Timeframe.D1, Timeframe.W1)]


def utc(day, clock, zone=NEW_YORK):
    hour, minute = map(int, clock.split(":"))
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(UTC)


def session(day, opens="09:30", closes="16:00", breaks=(), zone=NEW_YORK):
    return Session(
        day,
        utc(day, opens, zone),
        utc(day, closes, zone),
        tuple((utc(day, a, zone), utc(day, b, zone)) for a, b in breaks),
    )


WEEK = [date(2024, 7, n) for n in (1, 2, 3, 5)]
"""A short week of New York: a half day on the 3rd, a holiday on the 4th."""


HALVES = [f"{9 + n // 2}:{n % 2 * 30:02}" for n in range(2, 15)]


@pytest.fixture
def hours():
    days = [date(2024, 6, 28), *WEEK, date(2024, 7, 8)]
    return ListedHours(
        session(d, closes="13:00" if d == date(2024, 7, 3) else "16:00") for d in days
    )


def closes_of(hours, timeframe, day, zone=NEW_YORK):
    """All closes of one local day, as local times."""
    start = utc(day, "00:00", zone)
    return [
        at.astimezone(zone).strftime("%H:%M")
        for at in hours.closes(timeframe, start, start + timedelta(days=1))
    ]


@pytest.mark.parametrize(
    ("timeframe", "full", "half"),
    [
        ("1h", ["10:30", "11:30", "12:30", "13:30", "14:30", "15:30", "16:00"], ["10:30", "11:30", "12:30", "13:00"]),
        ("4h", ["13:30", "16:00"], ["13:00"]),
        ("1d", ["16:00"], ["13:00"]),
        ("30m", HALVES, HALVES[:7]),
    ],
)  # fmt: skip
def test_bars_are_counted_from_the_open_and_end_with_the_session(hours, timeframe, full, half):
    """K7, K8: on 09:30-16:00 and on a half day, written out by hand."""
    frame = Timeframe.parse(timeframe)
    assert closes_of(hours, frame, date(2024, 7, 2)) == full
    assert closes_of(hours, frame, date(2024, 7, 3)) == half
    assert closes_of(hours, frame, date(2024, 7, 4)) == []


def test_a_week_closes_with_its_last_session(hours):
    """On Friday here; the holiday in the middle changes nothing."""
    friday = utc(date(2024, 7, 5), "16:00")
    assert hours.next_close(Timeframe.W1, utc(date(2024, 7, 1), "00:00")) == friday
    assert hours.window(Timeframe.W1, utc(date(2024, 7, 3), "10:00")) == (
        utc(date(2024, 7, 1), "09:30"),
        friday,
    )
    assert hours.previous_close(Timeframe.W1, utc(date(2024, 7, 5), "15:59")) == utc(
        date(2024, 6, 28), "16:00"
    )


def test_a_bar_never_spans_a_break():
    """Tokyo: counted anew from 12:30; nothing is open at noon."""
    tokyo = ZoneInfo("Asia/Tokyo")
    days = [date(2024, 7, n) for n in (1, 2)]
    hours = ListedHours(session(d, "09:00", "15:00", [("11:30", "12:30")], tokyo) for d in days)
    assert closes_of(hours, Timeframe.H1, days[0], tokyo) == [
        "10:00", "11:00", "11:30", "13:30", "14:30", "15:00",
    ]  # fmt: skip
    assert closes_of(hours, Timeframe.H4, days[0], tokyo) == ["11:30", "15:00"]
    noon = utc(days[0], "12:00", tokyo)
    assert not hours.is_open(noon)
    assert hours.window(Timeframe.M1, noon) is None
    assert hours.next_open(noon) == utc(days[0], "12:30", tokyo)
    assert hours.next_open(utc(days[0], "14:00", tokyo)) == utc(days[1], "09:00", tokyo)


@pytest.mark.parametrize("zone", ZONES)
def test_days_on_which_clocks_are_set(zone):
    """K7, H3: in twelve zones each local day of two years closes at the local midnight, whatever its length."""
    hours = AlwaysOpen(ZoneInfo(zone))
    at, lengths = datetime(2023, 1, 1, tzinfo=UTC), set()
    at = hours.next_close(Timeframe.D1, at)
    for _ in range(730):
        following = hours.next_close(Timeframe.D1, at)
        lengths.add(following - at)
        one_after = (at.astimezone(ZoneInfo(zone)) + timedelta(hours=30)).date()
        local = following.astimezone(ZoneInfo(zone))
        # Where clocks go forward at midnight, the day begins at one o'clock.
        assert local.date() == one_after
        assert (following - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date() < one_after
        inner = list(hours.closes(Timeframe.H4, at, following))
        assert inner[-1] == following
        assert all(b - a == timedelta(hours=4) for a, b in pairwise([at, *inner][:-1]))
        assert hours.previous_close(Timeframe.D1, following - timedelta(seconds=1)) == at
        at = following
    sets_clocks = zone not in ("Asia/Kolkata", "Asia/Tokyo", "America/Sao_Paulo")
    assert len(lengths) == (3 if sets_clocks else 1), lengths


@given(
    st.datetimes(datetime(2023, 1, 1), datetime(2026, 1, 1)),
    st.sampled_from(list(Timeframe)),
    st.sampled_from([UTC, *map(ZoneInfo, ZONES)]),
)
def test_windows_closes_and_alignment_agree(at, timeframe, zone):
    """For any moment: the window holds it, ends at the next close, begins at the last one, and all is on the grid."""
    hours, at = AlwaysOpen(zone), at.replace(tzinfo=UTC)
    start, end = hours.window(timeframe, at)
    assert start <= at < end == hours.next_close(timeframe, at)
    assert hours.previous_close(timeframe, at) == start
    assert hours.previous_close(timeframe, end) == end
    assert hours.is_close(timeframe, end)
    assert end - start <= timeframe.duration or timeframe in (Timeframe.D1, Timeframe.W1)
    if zone is UTC:
        assert is_aligned(end, timeframe)
        assert end - start == timeframe.duration


@given(st.datetimes(datetime(2024, 7, 1, 14), datetime(2024, 7, 5, 19)), st.sampled_from(INTRADAY))
def test_windows_in_sessions_tile_the_session(at, timeframe):
    """Inside a session windows follow each other without a hole; outside there are none."""
    days = [date(2024, 6, 28), *WEEK, date(2024, 7, 8)]
    hours = ListedHours(map(session, days))
    at = at.replace(tzinfo=UTC)
    window = hours.window(timeframe, at)
    assert (window is not None) == hours.is_open(at)
    if window is not None:
        assert window[1] == hours.next_close(timeframe, at)
        assert window[0] == max(hours.previous_close(timeframe, at), hours.session_after(at).open)


def test_a_session_is_in_order():
    """A close before the open, a naive time and overlapping sessions are refused."""
    day = date(2024, 7, 1)
    with pytest.raises(ConfigurationError, match="not one after the other"):
        session(day, "16:00", "09:30")
    with pytest.raises(ConfigurationError, match="no time zone"):
        Session(day, datetime(2024, 7, 1, 9), datetime(2024, 7, 1, 16))
    other = Session(date(2024, 7, 2), utc(day, "15:00"), utc(day, "17:00"))
    with pytest.raises(ConfigurationError, match="overlap"):
        ListedHours([session(day), other])
    with pytest.raises(ConfigurationError, match="none is known after"):
        ListedHours([session(day)]).session_after(utc(day, "16:00"))


# -- the venue's own clock -----------------------------------------------------------------------------

TUESDAY = date(2024, 7, 2)


def test_the_venue_holds_no_session(hours):
    """K9: closed at the open: the day is taken off, and the next close is the day after."""
    changed = heed(hours, utc(TUESDAY, "09:30"), is_open=False, next_close=None)
    assert changed == "no session on 2024-07-02"
    assert hours.next_close(Timeframe.D1, utc(TUESDAY, "09:30")) == utc(date(2024, 7, 3), "13:00")


def test_the_venue_breaks_a_session_off(hours):
    """What began ends with the last full minute."""
    now = utc(TUESDAY, "14:10") + timedelta(seconds=20)
    assert "ended at 2024-07-02T18:10" in heed(hours, now, is_open=False, next_close=None)
    assert hours.session_until(now).close == utc(TUESDAY, "14:10")
    assert heed(hours, now, is_open=False, next_close=None) is None


def test_the_venue_closes_earlier_or_later(hours):
    """Its close counts."""
    assert (
        heed(hours, utc(TUESDAY, "12:00"), is_open=True, next_close=utc(TUESDAY, "16:00")) is None
    )
    assert heed(hours, utc(TUESDAY, "12:00"), is_open=True, next_close=utc(TUESDAY, "13:00"))
    assert closes_of(hours, Timeframe.H4, TUESDAY) == ["13:00"]


def test_the_venue_trades_on_a_holiday(hours):
    """A session that no list knows begins when it is seen."""
    day = date(2024, 7, 4)
    assert "no calendar knows" in heed(
        hours, utc(day, "10:00"), is_open=True, next_close=utc(day, "12:00")
    )
    assert closes_of(hours, Timeframe.H1, day) == ["11:00", "12:00"]
    assert heed(hours, utc(day, "12:30"), is_open=False, next_close=None) is None

"""Clocks: wall time is aware and in UTC, or it does not enter."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from execkit.clock import Clock, ManualClock, SystemClock, require_utc
from execkit.errors import ConfigurationError

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)


def test_system_clock_is_aware():
    """It tells the machine's time in UTC."""
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC
    assert isinstance(SystemClock(), Clock)
    assert repr(SystemClock()) == "SystemClock()"


def test_manual_clock_moves_when_told():
    """Forward, back and to a moment."""
    clock = ManualClock(AT)
    assert clock.now() == AT
    clock.advance(timedelta(hours=1))
    clock.advance(timedelta(minutes=-30))
    assert clock.now() == AT + timedelta(minutes=30)
    clock.set(AT)
    assert clock.now() == AT
    assert repr(clock) == "ManualClock(2024-03-01T12:00:00+00:00)"
    assert ManualClock().now() == datetime(2024, 1, 1, tzinfo=UTC)


def test_other_zones_become_utc():
    """The moment stays the same."""
    tokyo = datetime(2024, 3, 1, 21, tzinfo=timezone(timedelta(hours=9)))
    assert require_utc("at", tokyo) == AT
    assert require_utc("at", tokyo).tzinfo is UTC
    assert require_utc("at", AT) is AT


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (datetime(2024, 3, 1), "2024-03-01T00:00:00 has no time zone"),
        ("2024-03-01", "expected a timezone-aware datetime, got '2024-03-01'"),
        (None, "expected a timezone-aware datetime, got None"),
        (1709294400, "expected a timezone-aware datetime"),
    ],
)
@pytest.mark.parametrize("door", [lambda v: require_utc("at", v), lambda v: ManualClock().set(v)])
def test_naive_times_are_refused(door, value, says):
    """A naive time would shift silently (H7)."""
    with pytest.raises(ConfigurationError, match="at: ") as caught:
        door(value)
    assert says in str(caught.value)

"""Since when TWS has forgotten nothing: its executions and completed orders are those since its own midnight."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_QUARTER: Final = timedelta(minutes=15)
_FARTHEST: Final = timedelta(hours=14)


def offset_of(greeting: bytes, now: datetime) -> timedelta | None:
    """Return how far the time of TWS is ahead of UTC, from its answer to the handshake; None where it does not say.

    That states a version and a time such as `20260102 10:00:00 EST`. The name of the zone is ambiguous, so the hours
    are compared with ours, to the nearest quarter of an hour.
    """
    fields = greeting[4:].decode(errors="replace").split("\0")
    try:
        stated = datetime.strptime(fields[1][:17], "%Y%m%d %H:%M:%S").replace(tzinfo=UTC)
    except (IndexError, ValueError):
        return None
    offset = round((stated - now) / _QUARTER) * _QUARTER
    return offset if abs(offset) <= _FARTHEST else None


def since_midnight(offset: timedelta | None, now: datetime) -> timedelta:
    """Return how long ago the day of TWS began; zero, so that nothing is proven, where its time is not known."""
    if offset is None:
        return timedelta(0)
    local = now.astimezone(UTC) + offset
    return local - local.replace(hour=0, minute=0, second=0, microsecond=0)

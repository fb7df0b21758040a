"""Wall-clock time. Durations come from the running loop, never from here."""

from __future__ import annotations

import time
from asyncio import _get_running_loop as _running_loop
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

from execkit.errors import ConfigurationError, VirtualTimeError


@runtime_checkable
class Clock(Protocol):
    """Tells the wall-clock time, always timezone-aware UTC."""

    def now(self) -> datetime:
        """Return the current time."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """Return the current time.

        Raises `VirtualTimeError` in a loop whose time is virtual: the two would drift apart unseen.
        """
        if getattr(_running_loop(), "is_virtual", False):
            raise VirtualTimeError(
                "the machine's clock was read under virtual time; pass clock= to whatever made a SystemClock"
            )
        return datetime.fromtimestamp(time.time(), UTC)

    def __repr__(self) -> str:
        return "SystemClock()"


class ManualClock:
    """A clock that moves only when told to."""

    __slots__ = ("_now",)

    def __init__(self, start: datetime | None = None) -> None:
        self._now = require_utc("start", start or datetime(2024, 1, 1, tzinfo=UTC))

    def now(self) -> datetime:
        """Return the current time."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock by a duration; a negative one steps it back."""
        self._now += by

    def set(self, at: datetime) -> None:
        """Put the clock to a moment."""
        self._now = require_utc("at", at)

    def __repr__(self) -> str:
        return f"ManualClock({self._now.isoformat()})"


def require_utc(field: str, value: object) -> datetime:
    """Return *value* in UTC, or raise `ConfigurationError` when it is not an aware datetime."""
    if not isinstance(value, datetime):
        msg = f"{field}: expected a timezone-aware datetime, got {value!r}"
        raise ConfigurationError(msg)
    if value.tzinfo is None or value.utcoffset() is None:
        msg = f"{field}: {value.isoformat()} has no time zone; add one, e.g. tzinfo=datetime.UTC"
        raise ConfigurationError(msg)
    return value if value.tzinfo is UTC else value.astimezone(UTC)

"""What a detector of bar closes hands out, what it asks for, and what it measures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Protocol

import msgspec

from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe

_LEAST_AGE: Final = timedelta(minutes=1)
_MOST_AGE: Final = timedelta(hours=1)
_SHARE_OF_AGE: Final = 12
_KEPT: Final = 20_000
"""Closes that the percentiles are taken from: the last ones."""


class NotYet(Enum):
    """The type of `NOT_YET`."""

    NOT_YET = "not yet"


NOT_YET: Final = NotYet.NOT_YET
"""A source's answer while it still waits for a bar."""


class BarCloseEvent(msgspec.Struct, frozen=True, gc=False):
    """A bar has closed. *close_time* is when, in UTC; *lateness* how long ago that was at this call.

    *bar* is None when nothing was traded in it, and always when the detector has no source of bars.
    """

    symbol: str
    timeframe: Timeframe
    close_time: datetime
    bar: BarData | None
    lateness: timedelta

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was traded."""
        return self.bar is None


class BarSkip(msgspec.Struct, frozen=True):
    """Closes of one stream that fire nothing, from *first* to *last*, and why."""

    symbol: str
    timeframe: Timeframe
    first: datetime
    last: datetime
    reason: str


class AgeLimits:
    """How old a close may be when it is told.

    What is stated holds for all timeframes; else the limit follows the timeframe: a twelfth of it, but a minute at
    least and an hour at most. A minute's close is no news any more when the next minute is over, while a day's decision
    is still that of the day five minutes later.
    """

    def __init__(self, stated: timedelta | None = None) -> None:
        if stated is not None and stated < timedelta(0):
            raise ConfigurationError(f"max_age: {stated} must not be negative")
        self._stated = stated
        self.least = _LEAST_AGE if stated is None else stated
        """What every close may be."""
        self.most = _MOST_AGE if stated is None else stated
        """What no close may be older than."""

    def of(self, timeframe: Timeframe) -> timedelta:
        """Return the limit of a timeframe."""
        if self._stated is not None:
            return self._stated
        return min(max(timeframe.duration / _SHARE_OF_AGE, self.least), self.most)

    def at(self, timeframe: Timeframe, close: datetime) -> timedelta:
        """Return the limit of one close; others than this class may know what else closes with it."""
        return self.of(timeframe)


class BarSource(Protocol):
    """Where a detector gets the bars that it hands out; `BarFeed` is one."""

    def take(
        self, symbol: str, timeframe: Timeframe, close_time: datetime, *, final: bool
    ) -> BarData | NotYet | None:
        """Return the bar that has just closed, None when nothing was traded, or `NOT_YET`.

        With *final* the time to wait is over: `NOT_YET` then means that nobody knows, and the close is skipped.
        """
        ...


class LatenessStats(msgspec.Struct, frozen=True):
    """How late closes were handed over; the percentiles are of the last 20,000, the rest of all."""

    count: int = 0
    p50: timedelta = timedelta(0)
    p99: timedelta = timedelta(0)
    max: timedelta = timedelta(0)
    late: int = 0
    """Later than the detector's *accuracy*."""
    skipped: int = 0
    """Streams' closes, or runs of them, that fired nothing."""
    failures: int = 0
    """Calls that raised or took too long."""
    steps: int = 0
    """Times the clock jumped: it was set, or the machine was suspended."""
    blocked: int = 0
    """Times the event loop came back later than *accuracy*."""
    longest_block: timedelta = timedelta(0)


class Lateness:
    """Measures it. *accuracy* is how late is late."""

    def __init__(self, accuracy: timedelta) -> None:
        self.accuracy = accuracy
        self.count = self.late = self.skipped = self.failures = self.steps = self.blocked = 0
        self.max = self.longest_block = timedelta(0)
        self._recent: deque[timedelta] = deque(maxlen=_KEPT)

    @contextmanager
    def batch(self, measured: list[timedelta]) -> Iterator[None]:
        """Count the closes of a batch when it ends, however it ends."""
        try:
            yield
        finally:
            self._add(measured)

    def _add(self, measured: list[timedelta]) -> None:
        if measured:
            self.count += len(measured)
            self._recent.extend(measured)
            self.max = max(self.max, *measured)
            self.late += sum(1 for lateness in measured if lateness > self.accuracy)

    def stats(self) -> LatenessStats:
        """Return what was measured so far."""
        ordered = sorted(self._recent)
        last = len(ordered) - 1
        return LatenessStats(
            count=self.count,
            p50=ordered[last // 2] if ordered else timedelta(0),
            p99=ordered[last * 99 // 100] if ordered else timedelta(0),
            max=self.max,
            late=self.late,
            skipped=self.skipped,
            failures=self.failures,
            steps=self.steps,
            blocked=self.blocked,
            longest_block=self.longest_block,
        )

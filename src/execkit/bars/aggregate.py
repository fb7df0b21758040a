"""Short bars into longer ones, each timeframe from the one below it: one minute, five of those, three of those."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from execkit.bars.sessions import AlwaysOpen, Hours, Window, is_aligned, window_open
from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe
from execkit.numbers import MONEY

__all__ = ["BarAggregator", "is_aligned", "window_open"]

_INSTANT: Final = timedelta(microseconds=1)
_ADD: Final = MONEY.add
_PARTS: Final = 60
"""Parts of one bar at most, so that little is kept and a correction is quick."""


class _Level:
    """The growing bar of one timeframe, and the parts that it and the one before it are made of."""

    __slots__ = (
        "high",
        "is_wanted",
        "last",
        "last_parts",
        "low",
        "parts",
        "timeframe",
        "volume",
        "window",
    )

    def __init__(self, timeframe: Timeframe, *, is_wanted: bool) -> None:
        self.timeframe = timeframe
        self.is_wanted = is_wanted
        self.window: Window | None = None
        self.parts: list[BarData] = []
        self.last: Window | None = None
        self.last_parts: list[BarData] = []
        self.high = self.low = self.volume = Decimal(0)

    def take(self, part: BarData, hours: Hours) -> None:
        """Grow by one part."""
        if self.window is None:
            self.window = hours.window(self.timeframe, part.close_time - _INSTANT)
            self.parts = [part]
            self.high, self.low, self.volume = part.high, part.low, part.volume
            return
        self.parts.append(part)
        # Not max() and min(), which take three times as long: thousands of bars grow at one boundary.
        if part.high > self.high:  # noqa: PLR1730
            self.high = part.high
        if part.low < self.low:  # noqa: PLR1730
            self.low = part.low
        self.volume = _ADD(self.volume, part.volume)

    def finish(self, window: Window) -> BarData:
        """Return the bar as it is, and make room for the next."""
        parts = self.parts
        self.last, self.last_parts = window, parts
        self.window = None
        return self._bar(window, parts)

    def correct(self, part: BarData) -> tuple[BarData, datetime] | None:
        """Put a corrected or late part in its place; return the finished bar that it changes, and when that began."""
        if _holds(self.window, part):
            self.parts = _with(part, self.parts)
            self._sum(self.parts)
        elif _holds(self.last, part):
            window, growing = self.last, (self.high, self.low, self.volume)
            assert window is not None, "it holds the part"
            self.last_parts = _with(part, self.last_parts)
            self._sum(self.last_parts)
            corrected = self._bar(window, self.last_parts)
            self.high, self.low, self.volume = growing
            return corrected, window[0]
        return None

    def _sum(self, parts: list[BarData]) -> None:
        self.high = max(part.high for part in parts)
        self.low = min(part.low for part in parts)
        self.volume = parts[0].volume
        for part in parts[1:]:
            self.volume = _ADD(self.volume, part.volume)

    def _bar(self, window: Window, parts: list[BarData]) -> BarData:
        first = parts[0]
        return BarData(
            first.symbol,
            self.timeframe,
            window[1],
            first.open,
            self.high,
            self.low,
            parts[-1].close,
            self.volume,
        )


def _holds(window: Window | None, part: BarData) -> bool:
    return window is not None and window[0] < part.close_time <= window[1]


def _with(part: BarData, parts: list[BarData]) -> list[BarData]:
    kept = [each for each in parts if each.close_time != part.close_time]
    insort(kept, part, key=lambda each: each.close_time)
    return kept


def _ladder(base: Timeframe, wanted: Iterable[Timeframe]) -> list[Timeframe]:
    """Return the timeframes to build: those wanted, and some between so that none has very many parts."""
    ladder: list[Timeframe] = []
    below = base
    for timeframe in wanted:
        while timeframe.seconds > _PARTS * below.seconds:
            below = max(
                (each for each in Timeframe if each.seconds <= _PARTS * below.seconds),
                key=lambda each: each.seconds,
            )
            ladder.append(below)
        ladder.append(timeframe)
        below = timeframe
    return ladder


class BarAggregator:
    """Builds bars of several timeframes from the bars of one market in a shorter one.

    A bar is given out once, when its last part has come, or, when that part is missing, with the first bar after it
    or when `advance` says that its time is over. Parts missing inside are taken for minutes without trades. A first
    bar whose beginning was not seen is never given out. *hours* are those of the market; by default it never closes.
    """

    def __init__(
        self, base: Timeframe, timeframes: Iterable[Timeframe], hours: Hours | None = None
    ) -> None:
        self.base = base
        self.timeframes = tuple(sorted(set(timeframes) - {base}, key=lambda t: t.seconds))
        for timeframe in self.timeframes:
            if timeframe.seconds < base.seconds:
                raise ConfigurationError(
                    f"timeframe: {timeframe} cannot be built from {base} bars; use a multiple of {base}"
                )
        self.hours = AlwaysOpen() if hours is None else hours
        self._levels = [
            _Level(timeframe, is_wanted=timeframe in self.timeframes)
            for timeframe in _ladder(base, self.timeframes)
        ]
        self._first: datetime | None = None
        self.last: datetime | None = None
        """Up to when everything is in: the close of the last bar, or the last `advance`."""

    def add(self, bar: BarData) -> list[BarData]:
        """Take the next short bar and return the longer ones that it finishes, in the order of their closes.

        A bar that is not newer than the last one changes nothing. Raises `ConfigurationError` for a bar of another
        timeframe and for one that the market's hours do not know.
        """
        closed = bar.close_time
        if bar.timeframe is not self.base:
            raise ConfigurationError(f"timeframe: expected {self.base} bars, got {bar.timeframe}")
        window = self.hours.window(self.base, closed - _INSTANT)
        if window is None or window[1] != closed:
            raise ConfigurationError(
                f"close_time: {closed.isoformat()} is no boundary of {self.base} bars; "
                "check time zone, label and the market's hours"
            )
        if self.last is not None and closed <= self.last:
            return []
        if self._first is None:
            self._first = window[0]
        finished: list[BarData] = []
        if self._levels:
            if window[0] != self.last:
                self._finish(window[0], finished)
            self._levels[0].take(bar, self.hours)
            self._finish(closed, finished)
        self.last = closed
        if len(finished) > 1 and finished[0].close_time != closed:
            finished.sort(key=lambda done: done.close_time)
        return finished

    def advance(self, to: datetime) -> list[BarData]:
        """Return the longer bars whose time is over at *to*, though nothing was traded in their last part."""
        if self.last is not None and to <= self.last:
            return []
        if self._first is None:
            self._first = to
        finished: list[BarData] = []
        self._finish(to, finished)
        self.last = to
        finished.sort(key=lambda done: done.close_time)
        return finished

    def correct(self, bar: BarData) -> list[BarData]:
        """Take in a short bar that comes again or late, and return the finished longer bars as they are with it.

        It reaches the bars that still grow and the last finished one of each timeframe; older ones stand.
        """
        changed = []
        part = bar
        for level in self._levels:
            corrected = level.correct(part)
            if corrected is None:
                break
            part, began = corrected
            if level.is_wanted and self._first is not None and began >= self._first:
                changed.append(part)
        return changed

    def _finish(self, limit: datetime, finished: list[BarData]) -> None:
        """Finish what ends at or before *limit*, from the shortest up, each a part of the next."""
        # What came before the very first bar is unknown; later, a hole is known to be one.
        first = self._first or limit
        below: BarData | None = None
        for level in self._levels:
            if below is not None:
                level.take(below, self.hours)
                below = None
            window = level.window
            if window is None:
                continue
            if window[1] > limit:
                break  # all longer ones end later still
            below = level.finish(window)
            if level.is_wanted and window[0] >= first:
                finished.append(below)

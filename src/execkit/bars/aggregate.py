"""Short bars into longer ones, on UTC boundaries; weeks begin on Monday."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe
from execkit.numbers import MONEY

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_MONDAY: Final = 4 * 86_400
"""1970-01-05, the first Monday, in seconds of the epoch."""


def window_open(at: datetime, timeframe: Timeframe) -> datetime:
    """Return the start of the window of *timeframe* that holds the moment *at*."""
    return _EPOCH + timedelta(seconds=_Grid(timeframe).floor(_seconds(at)))


def is_aligned(close_time: datetime, timeframe: Timeframe) -> bool:
    """Tell whether a bar of *timeframe* can close at this moment."""
    return window_open(close_time, timeframe) == close_time


def _seconds(at: datetime) -> int:
    return (at - _EPOCH) // _SECOND


class _Grid:
    """The boundaries of a timeframe, in seconds of the epoch."""

    __slots__ = ("offset", "step", "timeframe")

    def __init__(self, timeframe: Timeframe) -> None:
        self.timeframe = timeframe
        self.step = timeframe.seconds
        self.offset = _MONDAY if timeframe is Timeframe.W1 else 0

    def floor(self, seconds: int) -> int:
        """Return the last boundary at or before a moment."""
        return (seconds - self.offset) // self.step * self.step + self.offset


class _Window:
    """One longer bar as it grows. *whole* is False when its beginning was not seen."""

    __slots__ = ("close", "closes_at", "high", "low", "open", "volume", "whole")

    def __init__(self, closes_at: int, bar: BarData, *, whole: bool) -> None:
        self.closes_at = closes_at
        self.whole = whole
        self.open = bar.open
        self.high = bar.high
        self.low = bar.low
        self.close = bar.close
        self.volume: Decimal = bar.volume

    def add(self, bar: BarData) -> None:
        self.high = max(self.high, bar.high)
        self.low = min(self.low, bar.low)
        self.close = bar.close
        self.volume = MONEY.add(self.volume, bar.volume)

    def finish(self, timeframe: Timeframe, symbol: str, finished: list[BarData]) -> None:
        if self.whole:
            closes_at = _EPOCH + timedelta(seconds=self.closes_at)
            ohlc = (self.open, self.high, self.low, self.close)
            finished.append(BarData(symbol, timeframe, closes_at, *ohlc, self.volume))


class BarAggregator:
    """Builds bars of several timeframes from the bars of one market in a shorter one.

    A bar is given out once, when its last part has come, or, when that part is missing, with the first bar after it.
    Parts missing inside are taken for minutes without trades. A first bar whose beginning was not seen is never given
    out.
    """

    def __init__(self, base: Timeframe, timeframes: Iterable[Timeframe]) -> None:
        self.base = base
        self.timeframes = tuple(sorted(set(timeframes) - {base}, key=lambda t: t.seconds))
        for timeframe in self.timeframes:
            if timeframe.seconds < base.seconds or timeframe.seconds % base.seconds:
                raise ConfigurationError(
                    f"timeframe: {timeframe} cannot be built from {base} bars; use a multiple of {base}"
                )
        self._grid = _Grid(base)
        self._grids = [_Grid(timeframe) for timeframe in self.timeframes]
        self._windows: list[_Window | None] = [None] * len(self.timeframes)
        self._last: int | None = None

    def add(self, bar: BarData) -> list[BarData]:
        """Take the next short bar and return the longer ones that it finishes, in the order of their closes.

        A bar that is not newer than the last one changes nothing. Raises `ConfigurationError` for a bar of another
        timeframe or one that closes off the grid.
        """
        closed = _seconds(bar.close_time)
        if bar.timeframe is not self.base:
            raise ConfigurationError(f"timeframe: expected {self.base} bars, got {bar.timeframe}")
        if self._grid.floor(closed) != closed or bar.close_time.microsecond:
            raise ConfigurationError(
                f"close_time: {bar.close_time.isoformat()} is no boundary of {self.base} bars; "
                "check time zone and label"
            )
        if self._last is not None and closed <= self._last:
            return []
        opened = closed - self._grid.step
        finished: list[BarData] = []
        for place, grid in enumerate(self._grids):
            window = self._windows[place]
            if window is not None and opened >= window.closes_at:
                window.finish(grid.timeframe, bar.symbol, finished)
                window = None
            if window is None:
                start = grid.floor(opened)
                # What came before the very first bar is unknown; later, a hole is known to be one.
                whole = start == opened or self._last is not None
                window = _Window(start + grid.step, bar, whole=whole)
            else:
                window.add(bar)
            if window.closes_at == closed:
                window.finish(grid.timeframe, bar.symbol, finished)
                window = None
            self._windows[place] = window
        self._last = closed
        if len(finished) > 1:
            finished.sort(key=lambda done: done.close_time)
        return finished

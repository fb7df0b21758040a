"""The last bars of each market and timeframe, and read-only views of them that cost nothing to make."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, overload

import msgspec

from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe

KEEP: Final = 1000
"""Bars kept for each symbol and timeframe."""


class BarHistory(Sequence[BarData]):
    """Finished bars, oldest first, read-only: a window on a list that only ever grows at its end."""

    __slots__ = ("_bars", "_start", "_stop")

    def __init__(
        self, bars: Sequence[BarData] = (), start: int = 0, stop: int | None = None
    ) -> None:
        self._bars = bars
        self._start = start
        self._stop = len(bars) if stop is None else stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> BarData: ...
    @overload
    def __getitem__(self, index: slice) -> BarHistory: ...
    def __getitem__(self, index: int | slice) -> BarData | BarHistory:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return BarHistory(tuple(self)[index])
            return BarHistory(self._bars, self._start + start, self._start + max(start, stop))
        length = self._stop - self._start
        if not -length <= index < length:
            raise IndexError(f"bar {index} of {length}")
        return self._bars[(self._stop if index < 0 else self._start) + index]

    def __iter__(self) -> Iterator[BarData]:
        return iter(self._bars[self._start : self._stop])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BarHistory) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        last = f", last {self[-1].close_time.isoformat()}" if self else ""
        return f"BarHistory({len(self)} bars{last})"


class MarketData(msgspec.Struct, frozen=True):
    """What is known of one market in one timeframe."""

    symbol: str
    timeframe: Timeframe
    bars: BarHistory

    @property
    def last(self) -> BarData | None:
        """The newest finished bar."""
        return self.bars[-1] if self.bars else None


class MarketDataCache:
    """The last bars of every symbol and timeframe, *keep* of each.

    Its memory is bounded: a series holds at most a quarter more than *keep* before it is cut, and `drop_stale` forgets
    symbols of which nothing comes any more.
    """

    def __init__(self, keep: int = KEEP) -> None:
        if keep < 1:
            raise ConfigurationError(f"keep: {keep} bars are none; keep at least 1")
        self.keep = keep
        self._room = keep + max(1, keep // 4)
        self._bars: dict[str, dict[Timeframe, list[BarData]]] = {}
        # Views share these lists, so one only ever grows at its end; any other change puts a new list in its place.

    def append(self, bar: BarData) -> bool:
        """Keep a bar; return whether it is newer than all before.

        A bar with a known close replaces the one it corrects; other old bars are ignored. Views that were handed
        out before never change.
        """
        series = self._bars.get(bar.symbol)
        if series is None:
            series = self._bars[bar.symbol] = {}
        bars = series.get(bar.timeframe)
        if bars is None:
            series[bar.timeframe] = [bar]
            return True
        if bar.close_time <= bars[-1].close_time:
            if bar is not bars[-1]:
                fresh = [bar if old.close_time == bar.close_time else old for old in bars]
                series[bar.timeframe] = fresh
            return False
        if len(bars) >= self._room:
            bars = series[bar.timeframe] = bars[1 - self.keep :] if self.keep > 1 else []
        bars.append(bar)
        return True

    def at(self, symbol: str, timeframe: Timeframe, close_time: datetime) -> BarData | None:
        """Return the bar that closed then, if it is kept."""
        bars = self._series(symbol, timeframe)
        if bars and (last := bars[-1]).close_time == close_time:
            return last
        place = bisect_left(bars, close_time, key=_close_time)
        if place < len(bars) and bars[place].close_time == close_time:
            return bars[place]
        return None

    def history(
        self, symbol: str, timeframe: Timeframe, until: datetime | None = None
    ) -> BarHistory:
        """Return the bars that are kept of one market, oldest first; with *until* none that closed after it."""
        series = self._bars.get(symbol)
        bars: Sequence[BarData] = () if series is None else series.get(timeframe, ())
        stop = len(bars)
        if until is not None and stop and bars[-1].close_time > until:
            stop = bisect_right(bars, until, key=_close_time)
        return BarHistory(bars, stop - self.keep if stop > self.keep else 0, stop)

    def view(self, symbol: str, timeframe: Timeframe) -> MarketData:
        """Return everything that is known of one market in one timeframe."""
        return MarketData(symbol, timeframe, self.history(symbol, timeframe))

    def drop_stale(self, before: datetime) -> list[str]:
        """Forget every symbol whose newest bar, in whatever timeframe, closed before a moment; return their names."""
        stale = [
            symbol
            for symbol, series in self._bars.items()
            if max(bars[-1].close_time for bars in series.values()) < before
        ]
        for symbol in stale:
            del self._bars[symbol]
        return stale

    def _series(self, symbol: str, timeframe: Timeframe) -> Sequence[BarData]:
        series = self._bars.get(symbol)
        return () if series is None else series.get(timeframe, ())

    def __len__(self) -> int:
        return sum(min(len(bars), self.keep) for bars in self._all())

    def _all(self) -> Iterator[list[BarData]]:
        for series in self._bars.values():
            yield from series.values()

    def __repr__(self) -> str:
        return f"MarketDataCache({sum(1 for _ in self._all())} series, {len(self)} bars)"


def _close_time(bar: BarData) -> datetime:
    return bar.close_time

"""The last bars of each market and timeframe, and read-only views of them that cost nothing to make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """The last bars of every symbol and timeframe, *keep* of each."""

    def __init__(self, keep: int = KEEP) -> None:
        if keep < 1:
            raise ConfigurationError(f"keep: {keep} bars are none; keep at least 1")
        self.keep = keep
        self._bars: dict[tuple[str, Timeframe], list[BarData]] = {}
        # Views share these lists, so one only ever grows at its end; any other change puts a new list in its place.

    def append(self, bar: BarData) -> bool:
        """Keep a bar; return whether it is newer than all before.

        A bar with a known close replaces the one it corrects; other old bars are ignored. Views that were handed
        out before never change.
        """
        key = (bar.symbol, bar.timeframe)
        bars = self._bars.get(key)
        if bars is None:
            self._bars[key] = [bar]
            return True
        if bar.close_time <= bars[-1].close_time:
            self._bars[key] = [bar if old.close_time == bar.close_time else old for old in bars]
            return False
        if len(bars) >= 2 * self.keep:
            bars = self._bars[key] = bars[-self.keep :]
        bars.append(bar)
        return True

    def history(self, symbol: str, timeframe: Timeframe) -> BarHistory:
        """Return the bars that are kept of one market, oldest first."""
        bars = self._bars.get((symbol, timeframe), [])
        length = len(bars)
        return BarHistory(bars, max(0, length - self.keep), length)

    def view(self, symbol: str, timeframe: Timeframe) -> MarketData:
        """Return everything that is known of one market in one timeframe."""
        return MarketData(symbol, timeframe, self.history(symbol, timeframe))

    def __len__(self) -> int:
        return sum(min(len(bars), self.keep) for bars in self._bars.values())

    def __repr__(self) -> str:
        return f"MarketDataCache({len(self._bars)} series, {len(self)} bars)"

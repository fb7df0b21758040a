"""Bars of a simulated market: a history, and the one that is forming, in every timeframe."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import attrs

from execkit.bars.aggregate import window_open
from execkit.model.market import BarData, Timeframe
from execkit.numbers import MONEY, ZERO


class Kline(NamedTuple):
    """A bar, finished or not."""

    bar: BarData
    is_closed: bool


@attrs.define
class _Forming:
    opened_at: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO


class Klines:
    """The bars of all symbols of a venue."""

    def __init__(self) -> None:
        self._history: dict[tuple[str, Timeframe], list[BarData]] = {}
        self._forming: dict[tuple[str, Timeframe], _Forming] = {}

    def load(self, bars: Iterable[BarData]) -> None:
        """Add finished bars to the history, oldest first; one of the same close is replaced."""
        for bar in bars:
            line = self._history.setdefault((bar.symbol, bar.timeframe), [])
            if line and line[-1].close_time >= bar.close_time:
                line[:] = sorted(
                    [each for each in line if each.close_time != bar.close_time] + [bar],
                    key=lambda each: each.close_time,
                )
            else:
                line.append(bar)

    def trade(self, symbol: str, price: Decimal, quantity: Decimal, at: datetime) -> list[Kline]:
        """Take a trade; return the bars that it ends and changes, in every timeframe."""
        out = []
        for timeframe in Timeframe:
            out += self._close(symbol, timeframe, at)
            key = (symbol, timeframe)
            forming = self._forming.get(key)
            if forming is None:
                start = window_open(at, timeframe)
                forming = self._forming[key] = _Forming(start, price, price, price, price)
            forming.high, forming.low = max(forming.high, price), min(forming.low, price)
            forming.close = price
            forming.volume = MONEY.add(forming.volume, quantity)
            out.append(Kline(_bar(symbol, timeframe, forming), is_closed=False))
        return out

    def close_due(self, at: datetime) -> list[Kline]:
        """Let time pass: return the bars that have ended."""
        return [
            kline
            for symbol, timeframe in list(self._forming)
            for kline in self._close(symbol, timeframe, at)
        ]

    def _close(self, symbol: str, timeframe: Timeframe, at: datetime) -> list[Kline]:
        """End the bars whose time is over; those in which nothing traded repeat the last price."""
        out: list[Kline] = []
        key = (symbol, timeframe)
        forming = self._forming.get(key)
        while forming is not None and at >= forming.opened_at + timeframe.duration:
            bar = _bar(symbol, timeframe, forming)
            self.load([bar])
            out.append(Kline(bar, is_closed=True))
            last = bar.close
            if at - bar.close_time > 500 * timeframe.duration:
                # Nobody looked for so long that its story is not told.
                del self._forming[key]
                return out
            forming = self._forming[key] = _Forming(bar.close_time, last, last, last, last)
        return out

    def show(
        self,
        symbol: str,
        timeframe: Timeframe,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 500,
    ) -> list[Kline]:
        """Return bars by their opening, oldest first, and at the end the one that is forming."""
        klines = [Kline(bar, is_closed=True) for bar in self._history.get((symbol, timeframe), ())]
        forming = self._forming.get((symbol, timeframe))
        if forming is not None:
            klines.append(Kline(_bar(symbol, timeframe, forming), is_closed=False))
        klines = [
            kline
            for kline in klines
            if (since is None or kline.bar.open_time >= since)
            and (until is None or kline.bar.open_time <= until)
        ]
        return klines[-limit:] if since is None else klines[:limit]


def _bar(symbol: str, timeframe: Timeframe, forming: _Forming) -> BarData:
    closes_at = forming.opened_at + timeframe.duration
    ohlc = (forming.open, forming.high, forming.low, forming.close)
    return BarData(symbol, timeframe, closes_at, *ohlc, forming.volume)

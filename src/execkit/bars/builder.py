"""Trades into bars of one short timeframe. A trade belongs to the bar of its own time, whenever it comes."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

from execkit.bars.quality import MAX_MOVE_PCT, BarFinding, BarIssue, PriceBand
from execkit.bars.sessions import AlwaysOpen, Hours, Window
from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe, Trade
from execkit.numbers import MONEY, ZERO

_ADD: Final = MONEY.add
_OPEN_AT_ONCE: Final = 3
"""The bar that grows, the one after it, whose trades come while it waits for its last, and one to spare."""


class _Growing:
    """One bar between its first and its last trade."""

    __slots__ = (
        "ceiling",
        "close",
        "end",
        "first_at",
        "floor",
        "high",
        "last_at",
        "low",
        "open",
        "start",
        "volume",
    )

    def __init__(self, window: Window, trade: Trade, band: tuple[Decimal, Decimal]) -> None:
        self.start, self.end = window
        self.floor, self.ceiling = band
        self.open = self.high = self.low = self.close = trade.price
        self.volume: Decimal = trade.quantity
        self.first_at = self.last_at = trade.at

    def add(self, trade: Trade) -> None:
        self.high = max(self.high, trade.price)
        self.low = min(self.low, trade.price)
        if trade.at >= self.last_at:
            self.close = trade.price
            self.last_at = trade.at
        elif trade.at < self.first_at:
            self.open = trade.price
            self.first_at = trade.at
        self.volume = _ADD(self.volume, trade.quantity)

    def to_bar(self, symbol: str, timeframe: Timeframe) -> BarData:
        return BarData(
            symbol, timeframe, self.end, self.open, self.high, self.low, self.close, self.volume
        )


class TradeBars:
    """Builds the bars of one market from its trades.

    A trade for a bar that has closed is a late correction: it changes the last closed bar and fires nothing. One far
    from the last close is held until the next confirms its level. Each such thing is a finding.
    """

    def __init__(
        self,
        symbol: str,
        timeframe: Timeframe = Timeframe.M1,
        hours: Hours | None = None,
        *,
        max_move_pct: Decimal = MAX_MOVE_PCT,
    ) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self._hours = AlwaysOpen() if hours is None else hours
        self._band = PriceBand(max_move_pct)
        self._growing: dict[datetime, _Growing] = {}
        self._current: _Growing | None = None
        self._closed: _Growing | None = None
        self._held: Trade | None = None
        self._closed_until: datetime | None = None

    def add(self, trade: Trade) -> BarData | BarFinding | None:
        """Take in one trade.

        Returns None when it went into a bar that still grows, the corrected bar when that had closed, and a finding
        when it is not used.
        """
        growing, price, at = self._current, trade.price, trade.at
        if (
            growing is None
            or not growing.last_at <= at < growing.end
            or not growing.floor <= price <= growing.ceiling
            or trade.quantity <= ZERO
            or self._held is not None
        ):
            return self._place(trade)
        # The usual trade, the next one of the bar that grows, is taken in without any further call.
        if price > growing.high:
            growing.high = price
        elif price < growing.low:
            growing.low = price
        growing.close = price
        growing.last_at = at
        growing.volume = _ADD(growing.volume, trade.quantity)
        return None

    def close(self, close_time: datetime) -> BarData | None:
        """End the bar that closes then and return it; None when nothing was traded in it."""
        if self._closed_until is None or close_time > self._closed_until:
            self._closed_until = close_time
        growing = self._growing.pop(close_time, None)
        if growing is None:
            return None
        self._closed = growing
        if self._current is growing:
            self._current = None
        self._band.center(growing.close)
        return growing.to_bar(self.symbol, self.timeframe)

    def rewind(self, to: datetime) -> None:
        """Take trades from *to* on again: a wrong clock has ended their bars."""
        if self._closed_until is not None:
            self._closed_until = min(self._closed_until, to)

    def due(self, now: datetime) -> list[datetime]:
        """Return the closes of the bars whose time is over, oldest first."""
        return sorted(end for end in self._growing if end <= now)

    def believe(self, close: Decimal) -> None:
        """Measure prices from a close that is known from elsewhere, e.g. from the venue's own bars."""
        self._band.center(close)

    def _place(self, trade: Trade) -> BarData | BarFinding | None:
        """Take in a trade that is not simply the next one of the bar that grows."""
        try:
            trade.checked()
        except ConfigurationError as error:
            return self._found(BarIssue.IMPOSSIBLE, trade, str(error))
        if not self._band.allows(trade.price, trade.price, trade.price):
            dropped, self._held = self._held, trade
            text = (
                f"price {trade.price} is far from the last close; held until the next confirms it"
            )
            if dropped is not None:
                text += f"; {dropped.price} was not confirmed"
            return self._found(BarIssue.ABSURD_PRICE, trade, text)
        held, self._held = self._held, None
        if held is not None and self._band.contains(held.price):
            self._put(held)
        return self._put(trade)

    def _put(self, trade: Trade) -> BarData | BarFinding | None:
        window = self._hours.window(self.timeframe, trade.at)
        if window is None:
            return self._found(BarIssue.OUTSIDE_SESSION, trade, "the market is closed then")
        end = window[1]
        growing = self._growing.get(end)
        if growing is not None:
            growing.add(trade)
            growing.floor, growing.ceiling = self._band.limits
            self._current = growing
            return None
        closed = self._closed
        if closed is not None and closed.end == end:
            closed.add(trade)
            return closed.to_bar(self.symbol, self.timeframe)
        if self._closed_until is not None and end <= self._closed_until:
            return self._found(BarIssue.LATE_TRADE, trade, f"its bar closed at {end.isoformat()}")
        if len(self._growing) >= _OPEN_AT_ONCE:
            return self._found(BarIssue.FUTURE, trade, "too far ahead of the bars that still grow")
        self._current = self._growing[end] = _Growing(window, trade, self._band.limits)
        return None

    def _found(self, issue: BarIssue, trade: Trade, text: str) -> BarFinding:
        return BarFinding(issue, self.symbol, self.timeframe, trade.at, text)

"""Bars from a venue's history, so many questions at a time, and only those that end where ours do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from execkit.bars.quality import BarFinding, BarIssue
from execkit.bars.sessions import AlwaysOpen, Hours
from execkit.clock import Clock
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.market import BarData, Timeframe
from execkit.redaction import shown

_QUERY_SECONDS: Final = 30.0
_AT_ONCE: Final = 8
_SPREAD: Final = 6
"""How much longer sessions take than the bars in them: 6.5 hours of 24, five days of seven, holidays."""


class BarPast:
    """Asks a venue for bars of the past. A question that fails is a finding."""

    def __init__(
        self,
        adapter: ExchangeAdapter,
        clock: Clock,
        find: Callable[[BarFinding], object],
    ) -> None:
        self._adapter = adapter
        self._clock = clock
        self._find = find
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def since(
        self, symbol: str, timeframe: Timeframe, since: datetime
    ) -> list[BarData] | None:
        """Return the finished bars that close after *since*, oldest first; None when the venue could not say."""
        if not self._adapter.capabilities.bar_history:
            return None
        try:
            async with self._gate, asyncio.timeout(_QUERY_SECONDS):
                bars = await self._adapter.bars(symbol, timeframe, since=since)
        except Exception as error:  # noqa: BLE001 - the stream goes on without it
            self._find(BarFinding(BarIssue.UNAVAILABLE, symbol, timeframe, since, shown(error)))
            return None
        now = self._clock.now()
        return [bar for bar in bars if since < bar.close_time <= now]

    async def before(
        self, symbol: str, timeframe: Timeframe, until: datetime, count: int, hours: Hours
    ) -> list[BarData]:
        """Return about *count* bars that close up to *until*; the venue's own that end elsewhere are left out."""
        spread = 1 if isinstance(hours, AlwaysOpen) else _SPREAD
        began = until - count * timeframe.duration * spread
        found = await self.since(symbol, timeframe, began) or []
        bars = [bar for bar in found if bar.close_time <= until]
        wrong = [bar for bar in bars if not hours.is_close(timeframe, bar.close_time)]
        if wrong:
            text = f"{len(wrong)} bars of the venue's history end elsewhere; left out"
            at = wrong[0].close_time
            self._find(BarFinding(BarIssue.OFF_GRID, symbol, timeframe, at, text))
        return [bar for bar in bars if bar not in wrong][-count:]

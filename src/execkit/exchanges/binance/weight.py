"""Binance's request weight, which all of an address share: near its limit questions wait, orders do not.

Binance refuses everything when the weight of a minute is used up (429), and bans who goes on (418). What others behind
the same address use is only seen in the headers of the answers, so it is these that count.
Source: Binance's documents of the spot and USD-M futures APIs, sections on limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import structlog

log = structlog.get_logger("execkit")

HEADER: Final = "x-mbx-used-weight-1m"
_SHARE: Final = Decimal("0.8")
"""What questions may use of the limit; the rest is kept for orders, and for others behind the address."""
_WINDOW: Final = 60.0


class Weight:
    """How much of the minute's weight is used, as of the last answer."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """Weight per minute; None: Binance has not said."""
        self._until = 0.0
        """By the loop's time."""

    def note_limits(self, limits: object) -> None:
        """Read the limit from the rules of the venue."""
        for row in limits if isinstance(limits, Iterable) else ():
            if isinstance(row, Mapping) and _is_per_minute(row):
                most = row.get("limit")
                self.limit = most if isinstance(most, int) and most > 0 else None

    def note(self, used: int, at: datetime) -> None:
        """Take in what a header says was used in the minute of *at*, by the venue's clock."""
        if self.limit is None or used < self.limit * _SHARE:
            self._until = 0.0
            return
        now = asyncio.get_running_loop().time()
        if self._until <= now:
            left = _WINDOW - at.second - at.microsecond / 1_000_000
            self._until = now + left
            log.warning("weight.low", used=used, limit=self.limit, seconds=round(left, 1))

    def left(self) -> float:
        """Return the seconds for which questions have to wait; zero: none."""
        return max(self._until - asyncio.get_running_loop().time(), 0.0)

    async def turn(self) -> None:
        """Wait until a question may be asked."""
        while (left := self.left()) > 0:  # noqa: ASYNC110 - others may use the next minute up as well
            await asyncio.sleep(left)


def _is_per_minute(row: Mapping[str, Any]) -> bool:
    kind = (row.get("rateLimitType"), row.get("interval"), row.get("intervalNum"))
    return kind == ("REQUEST_WEIGHT", "MINUTE", 1)

"""What is left of a venue's allowance of requests: near its end questions wait, orders do not.

Who uses up the allowance is refused everything for the rest of the window, cancels and stops too. Others may share it,
so it is the venue's own count, from the heads of its answers, that decides.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

import structlog

log = structlog.get_logger("execkit")

_SHARE: Final = Decimal("0.8")
"""What questions may use of the allowance; the rest is kept for orders, and for others who share it."""


class Headroom:
    """How much of the window's allowance is used, as of the last answer."""

    def __init__(self) -> None:
        self._until = 0.0
        """By the loop's time."""

    def note_used(self, used: int, limit: int, ends_in: float) -> None:
        """Take in what the venue counts in a window that ends in so many seconds."""
        if used < limit * _SHARE:
            self._until = 0.0
            return
        now = asyncio.get_running_loop().time()
        if self._until <= now:
            self._until = now + ends_in
            log.warning("requests.low", used=used, limit=limit, seconds=round(ends_in, 1))

    def left(self) -> float:
        """Return the seconds for which questions have to wait; zero: none."""
        return max(self._until - asyncio.get_running_loop().time(), 0.0)

    async def turn(self) -> None:
        """Wait until a question may be asked."""
        while (left := self.left()) > 0:  # noqa: ASYNC110 - others may use the next window up as well
            await asyncio.sleep(left)

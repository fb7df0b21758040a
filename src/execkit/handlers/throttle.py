"""Lets no more entries through than a pace allows; the others wait their turn instead of being dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta
from typing import ClassVar

from execkit.errors import ConfigurationError
from execkit.handlers.desk import Desk
from execkit.handlers.waited import after_wait
from execkit.model.denial import Denial, DenialCode
from execkit.model.result import ExecutionResult
from execkit.model.ticket import OrderTicket
from execkit.pipeline import Next


class RateLimitHandler:
    """Let at most *count* entries pass in any window of *per*; later ones wait in line, first come first served.

    Where it stands decides what is counted: before the risk handler everything that was *tried*, after it only what
    would be *sent*. One that would wait longer than *max_wait* (None: any time) is denied at once. Reductions pass
    without waiting. A ticket that waited gets a new quote and is judged by it; slippage still counts from its arrival.
    """

    place: ClassVar = "before"
    deadline: ClassVar = None

    def __init__(
        self,
        count: int,
        per: timedelta = timedelta(seconds=1),
        *,
        max_wait: timedelta | None = timedelta(seconds=30),
    ) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigurationError(f"count: {count!r} must be a whole number from 1")
        if per <= timedelta(0):
            raise ConfigurationError(f"per: {per!r} must be above zero")
        if max_wait is not None and max_wait < timedelta(0):
            raise ConfigurationError(f"max_wait: {max_wait!r} must not be negative")
        self.count = count
        self.per = per.total_seconds()
        self.max_wait = None if max_wait is None else max_wait.total_seconds()
        self._turns: deque[float] = deque(maxlen=count)
        """When the last *count* entries passed or will pass."""
        self._desk: Desk | None = None

    def bind(self, desk: Desk) -> None:
        """Take the engine's services, for new quotes."""
        self._desk = desk

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Pass the ticket on when its turn has come."""
        if ticket.is_reduction:
            return await call_next(ticket)
        loop = asyncio.get_running_loop()
        now = loop.time()
        turn = now
        if len(self._turns) == self.count:
            turn = max(now, self._turns[0] + self.per)
        if self.max_wait is not None and turn - now > self.max_wait:
            return ticket.deny(
                DenialCode.THROTTLED,
                wait_seconds=round(turn - now, 3),
                limit_seconds=self.max_wait,
                pace=f"{self.count} in {self.per:g} s",
            )
        # The turn is taken before waiting, so that those who come meanwhile stand behind.
        self._turns.append(turn)
        if turn > now:
            await asyncio.sleep(turn - now)
            judged = await after_wait(ticket, self._desk)
            if isinstance(judged, Denial):
                return ticket.deny_with(judged)
            ticket = judged.note(f"waited {turn - now:.3g} s for its turn")
        return await call_next(ticket)

"""Stops sending after failures in a row, so that a broken venue is not hammered with orders nobody knows the end of."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import ClassVar

import structlog

from execkit.handlers.desk import Desk
from execkit.model.denial import DenialCode
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.ticket import OrderTicket
from execkit.pipeline import Next
from execkit.risk.breaker import CircuitBreaker

log = structlog.get_logger("execkit")

_FAILURES = (Outcome.REJECTED, Outcome.IN_DOUBT)
_SUCCESSES = (
    Outcome.FILLED,
    Outcome.PARTIALLY_FILLED,
    Outcome.WORKING,
    Outcome.CANCELLED,
    Outcome.EXPIRED,
)


class CircuitBreakerHandler:
    """Deny entries for *open_for* after *failures* orders in a row that failed, then try one.

    A failure is an order that the venue rejected, one in doubt, one that could not be sent, and a chain that raised. A
    denial for any other reason says nothing of the venue, nor does an order that begins to be worked in slices: the
    slices count. Reductions always pass, and count neither way. Put it before the executor; it is the same breaker for
    all symbols of one engine.
    """

    place: ClassVar = "before"

    def __init__(self, *, failures: int = 5, open_for: timedelta = timedelta(seconds=30)) -> None:
        self.breaker = CircuitBreaker(failures, open_for.total_seconds())
        self._desk: Desk | None = None

    def bind(self, desk: Desk) -> None:
        """Take the engine's services, to alarm through."""
        self._desk = desk

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Pass the ticket on and learn from what comes of it, or deny it."""
        if ticket.is_reduction:
            return await call_next(ticket)
        now = asyncio.get_running_loop().time
        breaker = self.breaker
        if not breaker.admit(now()):
            return ticket.deny(
                DenialCode.CIRCUIT_OPEN,
                failures=breaker.in_a_row,
                limit=breaker.failures,
                retry_after_seconds=round(breaker.left(now()), 3),
            )
        try:
            result = await call_next(ticket)
        except BaseException:
            self._failed(now(), "the chain raised")
            raise
        denied_by_venue = (
            result.denial is not None and result.denial.code is DenialCode.VENUE_UNAVAILABLE
        )
        if result.outcome in _FAILURES or denied_by_venue:
            self._failed(now(), result.reason)
        elif result.outcome in _SUCCESSES and result.client_order_ids:
            breaker.succeed()
        else:
            # Nothing came to the venue: denied here, queued, or worked in slices, which come through here themselves.
            breaker.abandon()
        return result

    def _failed(self, now: float, reason: str) -> None:
        if self.breaker.fail(now):
            text = f"{self.breaker.in_a_row} orders in a row failed, the last one: {reason}"
            log.error("breaker.opened", failures=self.breaker.in_a_row, reason=reason)
            if self._desk is not None:
                self._desk.recorder.alarm("CIRCUIT_OPEN", text)

    def __repr__(self) -> str:
        return f"CircuitBreakerHandler({self.breaker.state.value})"

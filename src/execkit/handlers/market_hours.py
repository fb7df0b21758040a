"""Lets entries through while their market is open; before and after, they wait for the next opening."""

from __future__ import annotations

from typing import ClassVar

from execkit.errors import PipelineError
from execkit.exchanges.base import MarketPhase, MarketStatus
from execkit.handlers.desk import Desk
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import OrderType, TimeInForce
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.ticket import OrderTicket
from execkit.pipeline import Next


class MarketHoursHandler:
    """Queue entries while their market is closed or halted, and let none rest beyond the close.

    Args:
        trade_premarket: Whether entries may also go out before the regular session; they must be limit orders.
        trade_afterhours: The same after it.
        queue_when_closed: Whether an entry waits for the next opening; else it is denied, and one that the venue itself
            refuses because the market is closed stays refused.
        cancel_at_close: Whether what rests of an entry is cancelled when the session ends; protective orders stay.

    A slice never waits: queued, all would leave at once at the opening; those that come later make up for it.
    Reductions always pass: a venue that does not take them says so itself. It also decides where nobody can tell
    the market's state.
    """

    place: ClassVar = "before"

    def __init__(
        self,
        *,
        trade_premarket: bool = False,
        trade_afterhours: bool = False,
        queue_when_closed: bool = True,
        cancel_at_close: bool = True,
    ) -> None:
        self._extended = {
            MarketPhase.PRE: trade_premarket,
            MarketPhase.AFTER: trade_afterhours,
        }
        self.queue_when_closed = queue_when_closed
        self.cancel_at_close = cancel_at_close
        self._desk: Desk | None = None

    def bind(self, desk: Desk) -> None:
        """Take the engine's services."""
        self._desk = desk

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Pass the ticket on, queue it or deny it."""
        desk = self._desk
        if desk is None:
            raise PipelineError("MarketHoursHandler is not bound to an engine")
        if ticket.is_reduction:
            return await call_next(ticket)
        if not self.queue_when_closed:
            # The venue may know of a closure that nobody told us of: then it is not queued either.
            ticket = ticket.evolve(queue_when_closed=False)
        status = await desk.market.status(ticket.symbol)
        if status is None:
            return await call_next(ticket.note("the market's state is not known"))
        if status.is_open:
            return await call_next(self._until_close(ticket, status))
        if self._extended.get(status.phase or MarketPhase.CLOSED, False):
            return await self._in_extended_hours(ticket, call_next)
        return self._wait(ticket, status, desk)

    def _until_close(self, ticket: OrderTicket, status: MarketStatus) -> OrderTicket:
        close = status.next_close
        if not self.cancel_at_close or close is None or ticket.extended_hours:
            return ticket
        return ticket.evolve(
            cancel_at=close if ticket.cancel_at is None else min(close, ticket.cancel_at)
        )

    @staticmethod
    async def _in_extended_hours(ticket: OrderTicket, call_next: Next) -> ExecutionResult:
        if ticket.type is not OrderType.LIMIT or ticket.time_in_force not in (
            TimeInForce.DAY,
            TimeInForce.GTC,
        ):
            return ticket.deny(
                DenialCode.ORDER_TYPE_UNSUPPORTED,
                type=ticket.type,
                time_in_force=ticket.time_in_force,
                reason="outside the regular session only day and gtc limit orders are taken",
            )
        return await call_next(ticket.evolve(extended_hours=True))

    def _wait(self, ticket: OrderTicket, status: MarketStatus, desk: Desk) -> ExecutionResult:
        opens = "unknown" if status.next_open is None else status.next_open.isoformat()
        denial = Denial.of(
            DenialCode.MARKET_CLOSED, phase=status.phase, reason=status.reason, next_open=opens
        )
        if desk.queue(ticket):
            return ticket.result(Outcome.QUEUED, reason=str(denial))
        return ticket.deny_with(denial)

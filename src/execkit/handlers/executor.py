"""OrderExecutorHandler: gets one correct order out, once.

It sends through the gateway and reads what came back. Known refusals that may pass later are tried again with
exponential backoff and jitter; a refusal that asks for less is answered with less; a closed market queues the signal.
An unknown outcome is never answered with a send: the venue is asked first, and only a proof of absence lets the same
order, byte for byte, go out again - never a marketable one where that proof can be overtaken.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import ClassVar

import msgspec
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from execkit.errors import (
    ConfigurationError,
    ExchangeError,
    MarketClosedError,
    MarketOrderRefusedError,
    NotSentError,
    RateLimitError,
)
from execkit.handlers.adjusting import TOO_MUCH, marketable_limit, shrunk, within_largest
from execkit.handlers.desk import Desk
from execkit.handlers.exiting import follow_entries, send_rest, stop_entering
from execkit.handlers.holding import hold_as_target, refuse_iceberg
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import OrderRole, OrderState, OrderType, TimeInForce
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.ticket import OrderTicket
from execkit.numbers import non_negative
from execkit.orders.commands import Entry, Reduction, Sent
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.orders.outcomes import outcome_of
from execkit.orders.waiting import Use
from execkit.pipeline import Next
from execkit.redaction import shown, words_of

log = structlog.get_logger("execkit")

_MAX_SHRINKS = 3
_AT_ONCE = (TimeInForce.IOC, TimeInForce.FOK)
_EXECUTES_WITHIN = 2.0
"""Seconds that a position goes without its stop at most for an entry that should execute at once."""


class _TryAgain(Exception):  # noqa: N818 - a signal to tenacity, not an error
    """A known refusal that may pass later."""

    def __init__(self, sent: Sent) -> None:
        super().__init__(str(sent.error))
        self.sent = sent


class OrderExecutorHandler:
    """Send the order and see it acknowledged.

    Args:
        max_retries: How often a retryable refusal is tried again; 3 means 4 sends at most.
        base_delay: Seconds before the first retry.
        backoff_factor: Each further wait is this many times longer.
        max_delay: Seconds that no wait exceeds, jitter included. A longer Retry-After ends the tries.
        jitter: Share by which a wait varies to either side, 0.25 = ±25 %.
        doubt_timeout: Seconds to wait for proof after an unknown outcome before the order is left in doubt.
        order_timeout: An entry without an explicit time in force is cancelled when it rests this long; None: never.
    """

    place: ClassVar = "executor"

    def __init__(
        self,
        max_retries: int = 3,
        base_delay: float = 1.0,
        backoff_factor: float = 2.0,
        max_delay: float = 30.0,
        jitter: float = 0.25,
        doubt_timeout: float = 10.0,
        order_timeout: timedelta | None = timedelta(seconds=60),
    ) -> None:
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise ConfigurationError(f"max_retries: {max_retries!r} must be a whole number from 0")
        for name, value in (
            ("base_delay", base_delay),
            ("max_delay", max_delay),
            ("jitter", jitter),
            ("doubt_timeout", doubt_timeout),
        ):
            non_negative(name, str(value))
        if backoff_factor < 1:
            raise ConfigurationError(f"backoff_factor: {backoff_factor} must be 1 or more")
        if jitter >= 1:
            raise ConfigurationError(f"jitter: {jitter} must be below 1; 0.25 means ±25 %")
        self.max_retries = max_retries
        self.base_delay = base_delay
        self.backoff_factor = backoff_factor
        self.max_delay = max_delay
        self.jitter = jitter
        self.doubt_timeout = doubt_timeout
        self.order_timeout = order_timeout
        self._desk: Desk | None = None

    def bind(self, desk: Desk) -> None:
        """Take the engine's services."""
        self._desk = desk

    @property
    def desk(self) -> Desk:
        """The engine's services."""
        if self._desk is None:
            raise ConfigurationError(
                "OrderExecutorHandler: give the pipeline to an ExecutionEngine"
            )
        return self._desk

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Send the ticket's order; go on with it, or say why there is none."""
        if ticket.signal.slicing is not None:
            refused = refuse_iceberg(self.desk, ticket)
            if refused is not None:
                return refused
            if ticket.is_reduction:
                await stop_entering(self.desk, ticket)
            return await self.desk.slicer.begin(ticket)
        entering: tuple[ManagedOrder, ...] = ()
        if ticket.is_reduction:
            held = hold_as_target(self.desk, ticket)
            if held is not None:
                return held
            entering = await stop_entering(self.desk, ticket)
        try:
            ticket, sent, cause = await self._execute(ticket)
        except Exception as error:
            found = self._after_failure(ticket, error)
            if found is None:
                raise
            return found
        order = sent.order
        if sent.denial is not None:
            return ticket.deny_with(sent.denial)
        if order is None:
            return ticket.deny(DenialCode.VENUE_UNAVAILABLE, error=sent.error)
        if isinstance(sent.error, MarketClosedError) and self.desk.queue(ticket):
            return ticket.with_order(order).result(Outcome.QUEUED, reason=str(sent.error))
        if order.state is OrderState.FAILED:
            return ticket.deny(DenialCode.VENUE_UNAVAILABLE, error=sent.error or order.reason)
        if order.state is OrderState.REJECTED and not order.filled:
            return ticket.with_order(order).result(Outcome.REJECTED, reason=order.reason)
        ticket, missing = ticket.with_order(order), ""
        if cause is not None and ticket.requested is not None:
            ticket, missing = await send_rest(self.desk, ticket, cause, self._execute)
        late = follow_entries(self.desk, ticket, entering)
        result = await call_next(ticket)
        for text in filter(None, (missing, late)):
            result = result.with_alert(text)
        return result

    def _after_failure(self, ticket: OrderTicket, error: Exception) -> ExecutionResult | None:
        """Something unforeseen failed here; an order that may be out must not be denied away."""
        orders = self.desk.book.orders.revisions(ticket.signal_id)
        if not orders or orders[-1].state is OrderState.FAILED:
            return None
        log.error("executor.failed", signal_id=ticket.signal_id, error=shown(error))
        order = orders[-1]
        result = ticket.with_order(order).result(outcome_of(order), reason=order.reason)
        return result.with_alert(f"OrderExecutorHandler raised {words_of(error)}")

    # -- tries -----------------------------------------------------------------------------------------

    async def _execute(self, ticket: OrderTicket) -> tuple[OrderTicket, Sent, ExchangeError | None]:
        """Get the order out, adjusting it where the venue asks for that; the error says why it was made smaller."""
        shrinks = 0
        ticket, cause = within_largest(ticket)
        while True:
            sent = await self._with_retries(ticket)
            if sent.order is not None and not _was_refused(sent.order):
                return ticket, sent, cause
            if isinstance(sent.error, TOO_MUCH) and shrinks < _MAX_SHRINKS:
                smaller = await shrunk(ticket, sent.error, self.desk)
                shrinks, cause = shrinks + 1, sent.error
            elif (
                isinstance(sent.error, MarketOrderRefusedError) and ticket.type is OrderType.MARKET
            ):
                smaller = marketable_limit(ticket)
            else:
                return ticket, sent, cause
            if smaller is None:
                return ticket, sent, cause
            if sent.order is not None:
                smaller = msgspec.structs.replace(
                    smaller, orders=(*ticket.orders, sent.order.client_order_id)
                )
            ticket = smaller

    async def _with_retries(self, ticket: OrderTicket) -> Sent:
        """Send; tenacity comes in only after the first failure, because most sends do not fail."""
        sent = await self._try(ticket, None)
        if not self._may_pass_later(sent):
            return sent
        waiting: list[Sent] = [sent]

        async def attempt() -> Sent:
            if waiting:
                raise _TryAgain(waiting.pop())
            again = await self._try(ticket, last.sent.order)
            if self._may_pass_later(again):
                raise _TryAgain(again)
            return again

        last = _TryAgain(sent)
        try:
            async for state in AsyncRetrying(
                stop=stop_after_attempt(self.max_retries + 1),
                wait=self._wait,
                retry=retry_if_exception_type(_TryAgain),
                reraise=True,
            ):
                with state:
                    try:
                        sent = await attempt()
                    except _TryAgain as failed:
                        last = failed
                        raise
        except _TryAgain as failed:
            sent = failed.sent
        finally:
            # However it ended, denied or cancelled meanwhile too: what is provably unsent is not left open.
            order = last.sent.order
            if order is not None and order.state is OrderState.NEW:
                self.desk.gateway.give_up(
                    order, f"gave up after {order.attempts} sends: {last.sent.error}"
                )
        return sent

    def _wait(self, state: RetryCallState) -> float:
        """Return the seconds before the next try: exponential, jittered, capped, never before Retry-After."""
        delay = min(
            self.base_delay * self.backoff_factor ** (state.attempt_number - 1), self.max_delay
        )
        delay *= 1 + self.jitter * (2 * self.desk.rng.random() - 1)
        delay = min(delay, self.max_delay)
        failed = state.outcome.exception() if state.outcome is not None else None
        error = failed.sent.error if isinstance(failed, _TryAgain) else None
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            delay = max(delay, error.retry_after.total_seconds())
        return delay

    def _may_pass_later(self, sent: Sent) -> bool:
        error = sent.error
        if error is None or sent.denial is not None:
            return False
        if sent.order is not None:
            if sent.order.state is OrderState.PRESUMED_ABSENT:
                return self._may_resend(sent.order)
            if _took_effect(sent.order):
                return False  # whatever the answer was, the stream knew better
        if not error.retryable or not error.outcome_known:
            return False
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            return error.retry_after.total_seconds() <= self.max_delay
        return isinstance(error, (NotSentError, RateLimitError)) or error.retryable

    def _may_resend(self, order: ManagedOrder) -> bool:
        return self.desk.adapter.capabilities.may_resend(order.request)

    async def _try(self, ticket: OrderTicket, earlier: ManagedOrder | None) -> Sent:
        """Send once: an earlier, provably absent order again, or a new one."""
        gateway = self.desk.gateway
        command = await self._command(ticket)
        if isinstance(command, Denial):
            return Sent(denial=command)
        if isinstance(command, Entry):
            kept = self._earlier(ticket, earlier)
            if kept is not None and _took_effect(kept):
                return await self._after_doubt(Sent(kept))
            if kept is not None and not kept.state.is_closed:
                if gateway.same_payload(kept, command):
                    if kept.state is OrderState.PRESUMED_ABSENT and not self._may_resend(kept):
                        return Sent(kept)
                    return await self._after_doubt(await self._send_entry(command, kept))
                if kept.state is OrderState.NEW:
                    gateway.give_up(kept, "superseded by a changed order")
                elif self.desk.adapter.capabilities.absence_window != timedelta(0):
                    return Sent(
                        kept
                    )  # another order beside it, should it show up late, is one too many
            return await self._after_doubt(await self._send_entry(command, None))
        if earlier is not None and _took_effect(earlier):
            return await self._after_doubt(Sent(earlier))
        # The stop steps aside for the moment of the send only: between two tries the position is protected again.
        async with self.desk.keeper.exiting(
            command.instrument.symbol, command.quantity, command.side
        ):
            if earlier is not None and earlier.state in (
                OrderState.NEW,
                OrderState.PRESUMED_ABSENT,
            ):
                sent = await gateway.resend(earlier, command)
            else:
                sent = await gateway.send(command)
        return await self._after_doubt(sent)

    async def _send_entry(self, command: Entry, again: ManagedOrder | None) -> Sent:
        """Send an entry; where the venue takes none beside a stop, the stop steps aside while it executes."""
        gateway, ticket = self.desk.gateway, command.ticket
        executes = ticket.type is OrderType.MARKET or ticket.time_in_force in _AT_ONCE
        if (
            self.desk.adapter.capabilities.opposite_orders
            or not executes
            or self.desk.book.position(ticket.symbol) is None
        ):
            return await _send(gateway, command, again)
        # Whatever keeps it waiting or from leaving comes before the stop goes.
        denial = await gateway.admit(command, again)
        while denial is None and (wait := gateway.throttle.wait(Use.ENTRY)) > 0:
            await asyncio.sleep(wait)
            denial = await gateway.admit(command, again)
        if denial is not None:
            return Sent(denial=denial)
        async with self.desk.keeper.stepping_aside(ticket.symbol):
            sent = await _send(gateway, command, again)
            if sent.order is not None:
                await gateway.changes.until(sent.order, lambda o: o.is_closed, _EXECUTES_WITHIN)
            return sent

    def _earlier(self, ticket: OrderTicket, earlier: ManagedOrder | None) -> ManagedOrder | None:
        """Return the newest order of this signal, also one from before a restart."""
        if earlier is not None:
            return earlier
        known = self.desk.book.orders.revisions(ticket.signal_id)
        return known[-1] if known else None

    async def _after_doubt(self, sent: Sent) -> Sent:
        """Wait a while for proof when the outcome is unknown."""
        order = sent.order
        if order is not None and order.state is OrderState.IN_DOUBT:
            await self.desk.resolver.settled(order, self.doubt_timeout)
            if order.state is OrderState.IN_DOUBT or order.state.may_be_live or order.filled:
                return Sent(order)
        return sent

    async def _command(self, ticket: OrderTicket) -> Entry | Reduction | Denial:
        if not ticket.is_reduction:
            return Entry(ticket, self._timeout_at(ticket), self.desk.unchecked)
        position = self.desk.book.position(ticket.symbol)
        if position is None or ticket.quantity is None:
            return Denial.of(DenialCode.NO_POSITION_TO_REDUCE, symbol=ticket.symbol)
        return Reduction(
            instrument=ticket.instrument,
            side=ticket.side,
            quantity=ticket.quantity,
            role=OrderRole.EXIT,
            parent=ticket.signal_id,
            position_id=position.position_id,
            type=ticket.type,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
            time_in_force=ticket.time_in_force,
            signal_id=ticket.signal_id,
            signal_digest=ticket.signal.digest,
            expected_price=ticket.arrival_mid,
            slice_of=ticket.signal.slice_of,
            part_of=ticket.requested,
        )

    def _timeout_at(self, ticket: OrderTicket) -> datetime | None:
        explicit = ticket.signal.time_in_force is not None
        if self.order_timeout is None or explicit or ticket.type is OrderType.MARKET:
            return ticket.cancel_at
        rested = self.desk.clock.now() + self.order_timeout
        return rested if ticket.cancel_at is None else min(rested, ticket.cancel_at)


async def _send(gateway: OrderGateway, command: Entry, again: ManagedOrder | None) -> Sent:
    return await (gateway.send(command) if again is None else gateway.resend(again, command))


def _took_effect(order: ManagedOrder) -> bool:
    """Tell whether an order was executed, may be, or has had its life at the venue: then there is no other try."""
    return bool(order.filled) or order.state not in (
        OrderState.NEW,
        OrderState.PRESUMED_ABSENT,
        OrderState.REJECTED,
        OrderState.FAILED,
    )


def _was_refused(order: ManagedOrder) -> bool:
    return order.state is OrderState.REJECTED and not order.filled

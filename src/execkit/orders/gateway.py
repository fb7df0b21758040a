"""The one door to a venue: nobody else places, cancels or amends.

For each command: prove that it may leave, journal the intent and wait until it is durable, send once under a time
limit, and read the answer. Only definite evidence makes an order accepted or rejected. Everything else - a time-out,
a cancelled task, a lost or malformed answer, an exception nobody knows - leaves it in doubt, and the resolver asks the
venue until there is proof. Nothing is sent a second time from here: `resend` is a decision of the executor, and only
after proof of absence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import structlog

from execkit.errors import (
    AuthenticationError,
    ExchangeError,
    JournalCommitError,
    JournalError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.base import ExchangeAdapter
from execkit.ids import content_digest
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import (
    OrderEvent,
    OrderReport,
    OrderRequest,
    OrderState,
)
from execkit.model.records import (
    CommandSent,
    Intent,
    OrderChanged,
    Source,
    TradingState,
    TradingStateChanged,
)
from execkit.numbers import plain
from execkit.orders.commands import Entry, Reduction, Sent
from execkit.orders.intake import Intake
from execkit.orders.manager import ManagedOrder
from execkit.orders.proofs import deny_entry, entry_intent, fit_reduction, reduction_intent
from execkit.orders.reconcile import problem_with
from execkit.orders.recorder import Recorder
from execkit.orders.waiting import Changes

log = structlog.get_logger("execkit")

_DEFINITE = (OrderRejectedError, RateLimitError, AuthenticationError)
_REFUSED_SEND = "the send was not allowed any more when its intent was durable"


class OrderGateway:
    """Sends what may be sent and keeps the truth about it. *send_timeout* bounds every call to the venue."""

    def __init__(
        self,
        adapter: ExchangeAdapter,
        recorder: Recorder,
        *,
        send_timeout: timedelta = timedelta(seconds=15),
        longest_pause: timedelta = timedelta(seconds=30),
    ) -> None:
        self.adapter = adapter
        self.recorder = recorder
        self.book = recorder.book
        self.changes = Changes()
        self.send_timeout = send_timeout.total_seconds()
        self._longest_pause = longest_pause.total_seconds()
        self._pause_until = 0.0
        self.doubt_hook: Callable[[ManagedOrder], None] = lambda _order: None
        """Called when an order becomes in doubt, or a cancel's outcome does; starts the resolver."""
        self.intake = Intake(recorder)
        self.absorb = self.intake.absorb
        recorder.listen(self.changes.on_record)

    # -- placing ---------------------------------------------------------------------------------------

    async def send(self, command: Entry | Reduction) -> Sent:
        """Send a new order, or say why not. See `Sent`."""
        pause = self._pause_until - asyncio.get_running_loop().time()
        if pause > 0:
            if pause > self._longest_pause and isinstance(command, Entry):
                return Sent(
                    denial=Denial.of(DenialCode.VENUE_UNAVAILABLE, retry_after_seconds=round(pause))
                )
            await asyncio.sleep(pause)
        denial = self._refuse(command)
        if denial is not None:
            return Sent(denial=denial)
        account = self.recorder.journal.account
        if isinstance(command, Entry):
            intent = entry_intent(command, account, self.book)
        else:
            fitted = fit_reduction(command, self.book)
            if isinstance(fitted, Denial):
                return Sent(denial=fitted)
            intent = reduction_intent(fitted, account, self.book)
            absent = self._absent_twin(intent)
            if absent is not None:
                return await self._commit_and_send(absent, command)
        self.recorder.record(intent)
        order = self.book.orders[intent.request.client_order_id]
        order.done_hook = self.changes.closed
        return await self._commit_and_send(order, command)

    def _absent_twin(self, intent: Intent) -> ManagedOrder | None:
        """Return the same order, byte for byte, that a kill has kept from arriving; it keeps its id."""
        known = [o for o in self.book.orders.revisions(intent.parent) if o.role is intent.role]
        if not known or known[-1].state is not OrderState.PRESUMED_ABSENT:
            return None
        request = known[-1].request
        repeats = _terms(request) == _terms(intent.request)
        return known[-1] if repeats and self.adapter.capabilities.may_resend(request) else None

    async def resend(self, order: ManagedOrder, command: Entry | Reduction) -> Sent:
        """Send an order again, byte for byte, after proof that the venue does not have it.

        The order must be NEW (provably unsent) or PRESUMED_ABSENT.
        """
        if order.state not in (OrderState.NEW, OrderState.PRESUMED_ABSENT):
            raise OrderStatusUnknownError(f"{order!r} may be live: it is not sent again")
        denial = self._refuse(command)
        if denial is not None:
            return Sent(order=order, denial=denial)
        return await self._commit_and_send(order, command)

    def same_payload(self, order: ManagedOrder, command: Entry) -> bool:
        """Tell whether a command would send exactly what *order* was."""
        new = entry_intent(command, self.recorder.journal.account, self.book).request
        return _terms(new) == _terms(order.request)

    def give_up(self, order: ManagedOrder, reason: str) -> None:
        """Close an order that provably was never sent."""
        self._change(order, OrderEvent.FAIL, Source.CHAIN, reason)

    def _refuse(self, command: Entry | Reduction) -> Denial | None:
        journal = self.recorder.journal
        if not journal.is_current:
            return Denial.of(
                DenialCode.JOURNAL_UNAVAILABLE, reason="another process has taken over this account"
            )
        if isinstance(command, Reduction):
            return None
        if not journal.is_healthy:
            return Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason="the journal cannot commit")
        return deny_entry(command, self.book, self.adapter.capabilities)

    async def _commit_and_send(self, order: ManagedOrder, command: Entry | Reduction) -> Sent:
        recorder = self.recorder
        try:
            await recorder.settle()
        except JournalCommitError as error:
            if isinstance(command, Entry):
                self._unsend(order, str(error))
                return Sent(
                    order=order,
                    denial=Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason=str(error)),
                )
            try:
                recorder.journal.emergency(order.intent, recorder.clock.now())
            except JournalError as worse:
                self._unsend(order, str(worse))
                return Sent(
                    order=order,
                    denial=Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason=str(worse)),
                )
        except BaseException:
            # Cancelled while the disk was busy: nothing was sent, and nothing will be.
            self._unsend(order, "the caller gave up before the intent was durable")
            raise
        denial = self._refuse(command)
        if denial is not None:
            self._unsend(order, _REFUSED_SEND)
            return Sent(order=order, denial=denial)
        return await self._send_once(order)

    def _unsend(self, order: ManagedOrder, reason: str) -> None:
        if order.state is OrderState.NEW:
            self.give_up(order, reason)

    async def _send_once(self, order: ManagedOrder) -> Sent:
        """Send, and read the answer. Whatever is not definite leaves the order in doubt."""
        request = order.request
        self.recorder.record(
            OrderChanged(
                client_order_id=request.client_order_id,
                event=OrderEvent.SUBMIT,
                source=Source.CHAIN,
                attempt=order.attempts + 1,
            )
        )
        try:
            async with asyncio.timeout(self.send_timeout):
                report = await self.adapter.place_order(request)
        except NotSentError as error:
            self._change(order, OrderEvent.UNSENT, Source.ACK, str(error), error.code)
            return Sent(order, error)
        except _DEFINITE as error:
            if error.outcome_known:
                self._refused(order, error)
                return Sent(order, error)
            return self._lost(order, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, bytes may have left
            return self._lost(order, error)
        except BaseException as error:
            self._lost(order, error)
            raise
        problem = problem_with(order, report) if isinstance(report, OrderReport) else "is no report"
        if problem is not None:
            self._distrust(order, problem)
            return self._lost(order, OrderStatusUnknownError(f"the venue's answer {problem}"))
        await self.absorb(report, Source.ACK)
        return Sent(order)

    def _refused(self, order: ManagedOrder, error: ExchangeError) -> None:
        self._change(order, OrderEvent.REJECT, Source.ACK, str(error), error.code)
        if isinstance(error, RateLimitError):
            self._pause(error)
        elif isinstance(error, AuthenticationError):
            self.halt(f"the venue refused our key: {error}", actor="gateway")

    def _pause(self, error: RateLimitError) -> None:
        """Send nothing before the venue's Retry-After ends."""
        if error.retry_after is not None:
            until = asyncio.get_running_loop().time() + error.retry_after.total_seconds()
            self._pause_until = max(self._pause_until, until)

    def _lost(self, order: ManagedOrder, error: BaseException) -> Sent:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if order.state is OrderState.SUBMITTED:
            # The stream may have told us meanwhile; then there is no doubt.
            self._change(order, OrderEvent.LOSE, Source.ACK, text, getattr(error, "code", None))
            log.warning("order.in_doubt", client_order_id=order.client_order_id, reason=text)
            self.doubt_hook(order)
        return Sent(
            order, error if isinstance(error, ExchangeError) else OrderStatusUnknownError(text)
        )

    def _distrust(self, order: ManagedOrder, problem: str) -> None:
        """The venue answered about something else: stop adding exposure until a person has looked."""
        text = f"the answer to {order.client_order_id} {problem}"
        self.recorder.alarm(
            "ANSWER_NOT_OURS", text, symbol=order.symbol, client_order_id=order.client_order_id
        )
        if "names" in problem:
            self.halt(text, actor="gateway")

    def halt(self, cause: str, *, actor: str) -> None:
        """Stop everything that adds exposure until a person resets it."""
        if self.book.trading_state is not TradingState.HALTED:
            log.error("trading.halted", cause=cause, actor=actor)
            self.recorder.record(
                TradingStateChanged(state=TradingState.HALTED, cause=cause, actor=actor)
            )

    # -- cancelling and amending -----------------------------------------------------------------------

    async def cancel(self, order: ManagedOrder, reason: str) -> ManagedOrder:
        """Ask the venue to cancel an order. On return it is closed, or its cancel is still to be proven."""
        if order.is_closed or order.state is OrderState.PRESUMED_ABSENT:
            return order
        if order.state is OrderState.NEW:
            return order  # its send follows at once; cancel what comes of it
        await self._announce_command(order, "cancel", reason, OrderEvent.ASK_CANCEL)
        if order.is_closed:
            return order
        try:
            async with asyncio.timeout(self.send_timeout):
                report = await self.adapter.cancel_order(
                    order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=order.venue_order_id,
                )
        except RateLimitError as error:
            self._pause(error)
            self._change(order, OrderEvent.REFUSE_CANCEL, Source.ACK, str(error), error.code)
        except NotSentError as error:
            self._change(order, OrderEvent.REFUSE_CANCEL, Source.ACK, str(error), error.code)
        except OrderNotFoundError:
            # It may have been filled, or never have arrived. A "no" to a cancel proves neither.
            self.doubt_hook(order)
        except Exception as error:  # noqa: BLE001 - unknown: prove it
            log.warning(
                "order.cancel_unknown", client_order_id=order.client_order_id, error=repr(error)
            )
            self.doubt_hook(order)
        except BaseException:
            self.doubt_hook(order)
            raise
        else:
            await self.absorb(report, Source.ACK)
            if not order.is_closed:
                self.doubt_hook(order)
        return order

    async def amend(
        self,
        order: ManagedOrder,
        *,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
        reason: str = "",
    ) -> bool:
        """Change a resting order in place; return whether the venue has confirmed it.

        A larger quantity is refused: it would need an approval of its own.
        """
        if quantity is not None and quantity > order.quantity and not order.role.is_reduction:
            raise OrderRejectedError(
                f"quantity {plain(quantity)} is above {plain(order.quantity)}: send a new signal instead"
            )
        if order.state not in (OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED):
            return False
        await self._announce_command(order, "amend", reason, OrderEvent.ASK_AMEND)
        try:
            async with asyncio.timeout(self.send_timeout):
                report = await self.adapter.amend_order(
                    order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=order.venue_order_id,
                    quantity=quantity,
                    limit_price=limit_price,
                    stop_price=stop_price,
                )
        except (OrderRejectedError, NotSentError, RateLimitError) as error:
            if isinstance(error, RateLimitError):
                self._pause(error)
            self._change(order, OrderEvent.REFUSE_AMEND, Source.ACK, str(error), error.code)
            return False
        except Exception as error:  # noqa: BLE001 - which of the two orders is live is unknown
            self._change(order, OrderEvent.LOSE, Source.ACK, repr(error))
            self.doubt_hook(order)
            return False
        except BaseException:
            self.doubt_hook(order)
            raise
        return await self.absorb(report, Source.ACK) is order and not _is_pending(order)

    async def _announce_command(
        self, order: ManagedOrder, command: str, reason: str, event: OrderEvent
    ) -> None:
        record = CommandSent(
            client_order_id=order.client_order_id,
            command=command,
            reason=reason,
            command_hash=content_digest(command, order.client_order_id, order.venue_order_id),
        )
        self.recorder.record(record)
        self._change(order, event, Source.CHAIN, reason)
        try:
            await self.recorder.settle()
        except JournalCommitError:
            self.recorder.journal.emergency(record, self.recorder.clock.now())

    def _change(
        self,
        order: ManagedOrder,
        event: OrderEvent,
        source: Source,
        reason: str = "",
        code: str | None = None,
    ) -> bool:
        return self.recorder.record(
            OrderChanged(
                client_order_id=order.client_order_id,
                event=event,
                source=source,
                reason=reason,
                code=code,
            )
        )


def _is_pending(order: ManagedOrder) -> bool:
    return order.state is OrderState.PENDING_AMEND


def _terms(request: OrderRequest) -> tuple[object, ...]:
    return (
        request.symbol,
        request.side,
        request.type,
        request.quantity,
        request.limit_price,
        request.stop_price,
        request.time_in_force,
        request.post_only,
    )

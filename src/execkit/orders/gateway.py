"""The one door to a venue: nobody else places, cancels or amends.

For each command: prove that it may leave, journal the intent and wait until it is durable, send once under a time
limit, and read the answer. Only definite evidence makes an order accepted or rejected. Everything else - a time-out,
a cancelled task, a lost or malformed answer, an exception nobody knows - leaves it in doubt, and the resolver asks the
venue until there is proof. Nothing is sent a second time from here: `resend` is a decision of the executor, and only
after proof of absence.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog
from msgspec.structs import replace

from execkit.errors import (
    AuthenticationError,
    ExchangeError,
    JournalCommitError,
    NotSentError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import (
    OrderEvent,
    OrderState,
)
from execkit.model.records import (
    Intent,
    OrderChanged,
    Source,
    TradingState,
    TradingStateChanged,
)
from execkit.orders.changing import OrderChanger
from execkit.orders.commands import Entry, Reduction, Sent, terms
from execkit.orders.intake import Intake
from execkit.orders.manager import ManagedOrder
from execkit.orders.proofs import (
    deny_entry,
    deny_reduction,
    entry_intent,
    fit_reduction,
    reduction_intent,
)
from execkit.orders.reconcile import problem_with
from execkit.orders.recorder import Recorder
from execkit.orders.shape import malformed_report
from execkit.orders.waiting import Changes, Pace, Throttle

log = structlog.get_logger("execkit")

_DEFINITE = (OrderRejectedError, RateLimitError, AuthenticationError)
_SENDABLE = (OrderState.NEW, OrderState.PRESUMED_ABSENT)


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
        self.send_timeout = send_timeout.total_seconds()
        self._longest_pause = longest_pause.total_seconds()
        self.pace = Pace()
        self.throttle = Throttle(adapter.capabilities.order_rate)
        self.halt_file: Path | None = None
        """No entry leaves while this file exists."""
        self.doubt_hook: Callable[[ManagedOrder], None] = lambda _order: None
        """Called when an order becomes in doubt, or a cancel's outcome does; starts the resolver."""
        lag = adapter.capabilities.absence_window or timedelta(0)
        self.intake = Intake(recorder, answers_lag=lag)
        self.absorb = self.intake.absorb
        self.changes = Changes()
        recorder.listen(self.changes.on_record)
        changer = OrderChanger(
            adapter,
            self.intake,
            self.pace,
            timeout=self.send_timeout,
            turn=self._turn_to_change,
            doubt=self._doubt,
            halt=self._halt,
        )
        self._told_of_pause = -1.0
        self.cancel = changer.cancel
        self.cancel_closed = changer.cancel_closed
        self.amend = changer.amend

    # -- placing ---------------------------------------------------------------------------------------

    async def send(self, command: Entry | Reduction) -> Sent:
        """Send a new order, or say why not. See `Sent`."""
        denial = await self._admit(command)
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
        key = intent.request.client_order_id
        if key in self.book.orders:
            # Only when so much came between that the revisions of this signal are forgotten.
            return Sent(denial=Denial.of(DenialCode.DUPLICATE_SIGNAL, order=key))
        intent = replace(intent, reserved=self.adapter.reserve(intent.request))
        self.recorder.record(intent)
        order = self.book.orders[key]
        order.done_hook = self.changes.closed
        return await self._commit_and_send(order, command)

    def _absent_twin(self, intent: Intent) -> ManagedOrder | None:
        """Return the same order, byte for byte, that a kill has kept from arriving; it keeps its id."""
        known = [o for o in self.book.orders.revisions(intent.parent) if o.role is intent.role]
        if not known or known[-1].state is not OrderState.PRESUMED_ABSENT:
            return None
        request = known[-1].request
        repeats = terms(request) == terms(intent.request)
        return known[-1] if repeats and self.adapter.capabilities.may_resend(request) else None

    async def resend(self, order: ManagedOrder, command: Entry | Reduction) -> Sent:
        """Send an order again, byte for byte, after proof that the venue does not have it.

        The order must be NEW (provably unsent) or PRESUMED_ABSENT.
        """
        if order.state not in _SENDABLE:
            raise OrderStatusUnknownError(f"{order!r} may be live: it is not sent again")
        return await self._commit_and_send(order, command)

    def same_payload(self, order: ManagedOrder, command: Entry) -> bool:
        """Tell whether a command would send exactly what *order* was."""
        new = entry_intent(command, self.recorder.journal.account, self.book).request
        return terms(new) == terms(order.request)

    def give_up(self, order: ManagedOrder, reason: str) -> None:
        """Close an order that provably was never sent."""
        self.recorder.record(order.record_of(OrderEvent.FAIL, Source.CHAIN, reason))

    async def _admit(
        self, command: Entry | Reduction, order: ManagedOrder | None = None
    ) -> Denial | None:
        """Wait until the venue's pause is over; return why the command may not leave then, or None."""
        denial = self._refuse(command, order)
        while denial is None and self.pace.left() > 0:
            await self._turn(_symbol_of(command))
            denial = self._refuse(command, order)
        return denial

    async def _turn(self, symbol: str) -> None:
        """Wait until something may leave; a person is told when that keeps a command for longer than it should."""
        while (left := self.pace.left()) > 0:
            began, ends = self.pace.span
            if ends - began > self._longest_pause and self._told_of_pause != began:
                self._told_of_pause = began
                self.recorder.alarm(
                    "VENUE_PAUSE",
                    f"the venue takes no commands for {ends - began:.0f} s; one for {symbol} waits",
                    symbol=symbol,
                )
            await asyncio.sleep(left)

    async def _leave(self, symbol: str, *, reduces: bool) -> None:
        """Wait until neither a pause nor the venue's pace keeps a command, and take a turn for it."""
        while True:
            await self._turn(symbol)
            await self.throttle.turn(reduces=reduces)
            if self.pace.left() <= 0:
                return
            self.throttle.give_back()

    async def _turn_to_change(self, symbol: str, command: str) -> None:
        """Wait for the turn of a cancel or an amendment; neither adds exposure."""
        if command == "cancel" and not self.adapter.capabilities.rate_counts_cancels:
            await self._turn(symbol)
        else:
            await self._leave(symbol, reduces=True)

    async def _turn_to_send(self, command: Entry | Reduction, order: ManagedOrder) -> Denial | None:
        """Wait for the turn of an order; return why it may not leave then, or None: it is to be sent at once."""
        denial = await self._admit(command, order)
        if denial is not None:
            return denial
        reduces = isinstance(command, Reduction)
        try:
            async with asyncio.timeout(None if reduces else self._longest_pause):
                await self._leave(_symbol_of(command), reduces=reduces)
        except TimeoutError:
            return Denial.of(DenialCode.THROTTLED, waited_seconds=self._longest_pause)
        denial = self._refuse(command, order)
        if denial is not None:
            self.throttle.give_back()
        return denial

    def _refuse(self, command: Entry | Reduction, order: ManagedOrder | None) -> Denial | None:
        journal = self.recorder.journal
        if not journal.is_current:
            return Denial.of(
                DenialCode.JOURNAL_UNAVAILABLE, reason="another process has taken over this account"
            )
        if isinstance(command, Reduction):
            return None if order is None else deny_reduction(command, order, self.book)
        if self.is_switched_off:
            return Denial.of(DenialCode.TRADING_HALTED, cause=f"the file {self.halt_file} exists")
        if not journal.is_healthy:
            return Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason="the journal cannot commit")
        pause = self.pace.left()
        if pause > self._longest_pause:
            return Denial.of(DenialCode.VENUE_UNAVAILABLE, retry_after_seconds=round(pause))
        return deny_entry(command, self.book, self.adapter.capabilities, sending=order)

    async def _commit_and_send(self, order: ManagedOrder, command: Entry | Reduction) -> Sent:
        try:
            denial = await self._commit(order, command)
            denial = denial or await self._turn_to_send(command, order)
        except BaseException:
            # Cancelled while the disk or the venue kept us waiting: nothing was sent, and nothing will be.
            self._unsend(order, "the caller gave up before it was sent")
            raise
        if denial is not None and order.state in (*_SENDABLE, OrderState.FAILED):
            self._unsend(order, f"not sent: {denial}")
            return Sent(order=order, denial=denial)
        if order.state not in _SENDABLE:
            return Sent(order)  # the venue has shown it meanwhile: one is enough
        return await self._send_once(order)

    async def _commit(self, order: ManagedOrder, command: Entry | Reduction) -> Denial | None:
        """Make the intent durable: in the journal, or for a reduction at least beside it."""
        try:
            await self.recorder.settle()
        except JournalCommitError as error:
            if isinstance(command, Entry) or not self.recorder.keep_apart(order.intent):
                return Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason=str(error))
        return None

    def _unsend(self, order: ManagedOrder, reason: str) -> None:
        if order.state is OrderState.NEW:
            self.give_up(order, reason)

    async def _send_once(self, order: ManagedOrder) -> Sent:
        """Send, and read the answer. Whatever is not definite leaves the order in doubt."""
        request = order.request
        self.adapter.reserve(request, order.intent.reserved)
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
        except (NotSentError, *_DEFINITE) as error:
            return self._refused(order, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, bytes may have left
            return self._lost(order, error)
        except BaseException as error:
            self._lost(order, error)
            raise
        problem = malformed_report(report) or problem_with(order, report)
        if problem is not None:
            self._distrust(order, problem)
            return self._lost(order, OrderStatusUnknownError(f"the venue's answer {problem}"))
        await self.absorb(report, Source.ACK)
        return Sent(order)

    def _refused(self, order: ManagedOrder, error: ExchangeError) -> Sent:
        """The venue said no, or nothing left; unless the order has been seen there meanwhile."""
        if isinstance(error, RateLimitError):
            self.pace.note(error)
        elif isinstance(error, AuthenticationError):
            self._halt(f"the venue refused our key: {error}")
        if not error.outcome_known:
            return self._lost(order, error)
        if order.state is not OrderState.SUBMITTED:
            self.recorder.anomaly_hook(order.symbol, order.client_order_id)
            return self._lost(order, error)
        event = OrderEvent.UNSENT if isinstance(error, NotSentError) else OrderEvent.REJECT
        self.recorder.record(order.record_of(event, Source.ACK, str(error), error.code))
        return Sent(order, error)

    def _lost(self, order: ManagedOrder, error: BaseException) -> Sent:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if order.state is OrderState.SUBMITTED:
            # The stream may have told us meanwhile; then there is no doubt.
            code = getattr(error, "code", None)
            self.recorder.record(order.record_of(OrderEvent.LOSE, Source.ACK, text, code))
            log.warning("order.in_doubt", client_order_id=order.client_order_id, reason=text)
            self.doubt_hook(order)
        if isinstance(error, ExchangeError) and not error.outcome_known:
            return Sent(order, error)
        return Sent(order, OrderStatusUnknownError(text))

    def _distrust(self, order: ManagedOrder, problem: str) -> None:
        """The venue answered about something else: stop adding exposure until a person has looked."""
        text = f"the answer to {order.client_order_id} {problem}"
        self.recorder.alarm(
            "ANSWER_NOT_OURS", text, symbol=order.symbol, client_order_id=order.client_order_id
        )
        if "names" in problem:
            self._halt(text)

    def _doubt(self, order: ManagedOrder) -> None:
        self.doubt_hook(order)

    @property
    def is_switched_off(self) -> bool:
        """Tell whether the file that halts is there."""
        return self.halt_file is not None and os.path.lexists(self.halt_file)

    def _halt(self, cause: str) -> None:
        self.halt(cause, actor="gateway")

    def halt(self, cause: str, *, actor: str) -> None:
        """Stop everything that adds exposure until a person resets it."""
        if self.book.trading_state is not TradingState.HALTED:
            log.error("trading.halted", cause=cause, actor=actor)
            self.recorder.record(
                TradingStateChanged(state=TradingState.HALTED, cause=cause, actor=actor)
            )


def _symbol_of(command: Entry | Reduction) -> str:
    return command.ticket.symbol if isinstance(command, Entry) else command.instrument.symbol

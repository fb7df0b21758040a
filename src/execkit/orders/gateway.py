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
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import structlog
from msgspec.structs import replace

from execkit.errors import JournalCommitError, OrderStatusUnknownError
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import (
    ListKind,
    OrderEvent,
    OrderList,
    OrderReport,
    OrderState,
)
from execkit.model.records import (
    Intent,
    OrderChanged,
    Source,
    TradingState,
    TradingStateChanged,
)
from execkit.orders.answers import Answers
from execkit.orders.changing import OrderChanger
from execkit.orders.commands import Entry, Reduction, Sent, terms
from execkit.orders.intake import Intake
from execkit.orders.manager import ManagedOrder
from execkit.orders.proofs import (
    deny_entry,
    deny_exposure,
    deny_reduction,
    entry_intent,
    fit_reduction,
    list_intents,
    reduction_intent,
)
from execkit.orders.recorder import Recorder
from execkit.orders.waiting import Changes, Judge, Pace, Throttle, Use
from execkit.redaction import redacted
from execkit.risk.checks import check_age

log = structlog.get_logger("execkit")

Legs = tuple[tuple[ManagedOrder, Entry | Reduction], ...]
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
        self.judge = Judge()
        """Asked before an entry leaves: it may have waited so long that its price is no longer what was judged."""
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
        self._answers = Answers(self.intake, self.pace, doubt=self._doubt, halt=self._halt)
        self._told_of_pause = -1.0
        self.cancel = changer.cancel
        self.cancel_closed = changer.cancel_closed
        self.amend = changer.amend

    # -- placing ---------------------------------------------------------------------------------------

    async def send(self, command: Entry | Reduction) -> Sent:
        """Send a new order, or say why not. See `Sent`."""
        denial = await self.admit(command)
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
                return await self._send_one(absent, command)
        key = intent.request.client_order_id
        if key in self.book.orders:
            # Only when so much came between that the revisions of this signal are forgotten.
            return Sent(denial=Denial.of(DenialCode.DUPLICATE_SIGNAL, order=key))
        return await self._send_one(self._intend(intent), command)

    async def send_oco(self, stop: Reduction, target: Reduction) -> tuple[Sent, Sent]:
        """Send a stop and a target as one list, of which the execution of one ends the other; see `Sent`.

        Both get the stop's quantity, as far as the position allows, and may take the place of the same orders.
        """
        denial = await self.admit(stop)
        fitted = denial or fit_reduction(stop, self.book)
        if isinstance(fitted, Denial):
            return Sent(denial=fitted), Sent(denial=fitted)
        legs = (fitted, replace(target, quantity=fitted.quantity, replaces=fitted.replaces))
        intents = list_intents(legs, self.recorder.journal.account, self.book)
        first, second = await self._commit_and_send(tuple(map(self._intend, intents)), legs)
        return first, second

    def _intend(self, intent: Intent) -> ManagedOrder:
        """Record an intent and return the order that it makes."""
        self.recorder.record(replace(intent, reserved=self.adapter.reserve(intent.request)))
        order = self.book.orders[intent.request.client_order_id]
        order.done_hook = self.changes.closed
        return order

    def _absent_twin(self, intent: Intent) -> ManagedOrder | None:
        """Return the same order, byte for byte, that a kill has kept from arriving; it keeps its id."""
        known = [o for o in self.book.orders.revisions(intent.parent) if o.role is intent.role]
        if not known or known[-1].state is not OrderState.PRESUMED_ABSENT:
            return None
        if known[-1].intent.list_id is not None or known[-1].cancel_asked:
            return None  # it was not to go out alone, or it was taken back: who wants the same now wants another one
        request = known[-1].request
        repeats = terms(request) == terms(intent.request)
        return known[-1] if repeats and self.adapter.capabilities.may_resend(request) else None

    async def resend(self, order: ManagedOrder, command: Entry | Reduction) -> Sent:
        """Send an order again, byte for byte, after proof that the venue does not have it.

        The order must be NEW (provably unsent) or PRESUMED_ABSENT.
        """
        if order.state not in _SENDABLE:
            raise OrderStatusUnknownError(f"{order!r} may be live: it is not sent again")
        return await self._send_one(order, command)

    def same_payload(self, order: ManagedOrder, command: Entry) -> bool:
        """Tell whether a command would send exactly what *order* was."""
        new = entry_intent(command, self.recorder.journal.account, self.book).request
        return terms(new) == terms(order.request)

    def give_up(self, order: ManagedOrder, reason: str) -> None:
        """Close an order that provably was never sent."""
        self.recorder.record(order.record_of(OrderEvent.FAIL, Source.CHAIN, reason))

    async def admit(
        self, command: Entry | Reduction, order: ManagedOrder | None = None
    ) -> Denial | None:
        """Wait until the venue's pause is over; return why a command may not leave then, or None."""
        while True:
            if isinstance(command, Entry):
                await self.judge.look(command.ticket)
            denial = self._refuse(command, order)
            if denial is not None or self.pace.left() <= 0:
                return denial
            await self._turn(_symbol_of(command))

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

    async def _leave(self, symbol: str, use: Use, count: int = 1) -> None:
        """Wait until neither a pause nor the venue's pace keeps commands that leave together; take a turn for them."""
        while True:
            await self._turn(symbol)
            await self.throttle.turn(use, count)
            if self.pace.left() <= 0:
                return
            self.throttle.give_back(count)

    async def _turn_to_change(self, order: ManagedOrder, command: str) -> None:
        """Wait for the turn of a cancel or an amendment; neither adds exposure."""
        if command == "cancel" and not self.adapter.capabilities.rate_counts_cancels:
            await self._turn(order.symbol)
        else:
            # A stop that makes way for an exit must not wait behind a hundred cancels of entries.
            await self._leave(
                order.symbol, Use.REDUCTION if order.role.is_reduction else Use.CHANGE
            )

    async def _turn_to_send(self, legs: Legs) -> Denial | None:
        """Wait for the turn of orders; return why they may not leave then, or None: they are to be sent at once."""
        for order, command in legs:
            denial = await self.admit(command, order)
            if denial is not None:
                return denial
        use = Use.REDUCTION if isinstance(legs[0][1], Reduction) else Use.ENTRY
        if len(legs) == 1 and self.pace.left() <= 0 and self.throttle.take_now(use):
            return None  # nothing else has run since it was admitted
        try:
            async with asyncio.timeout(None if use is Use.REDUCTION else self._longest_pause):
                await self._leave(order.symbol, use, len(legs))
                while isinstance(command, Entry) and self.judge.is_blind(command.ticket):
                    self.throttle.give_back()  # a turn is for what leaves at once
                    if not await self.judge.look(command.ticket):
                        return self.judge.deny(command.ticket)
                    await self._leave(order.symbol, use)
        except TimeoutError:
            return Denial.of(DenialCode.THROTTLED, waited_seconds=self._longest_pause)
        denials = (self._refuse(command, order) for order, command in legs)
        denial = next(filter(None, denials), None)
        if denial is not None:
            self.throttle.give_back(len(legs))
        return denial

    def _refuse(self, command: Entry | Reduction, order: ManagedOrder | None) -> Denial | None:
        journal = self.recorder.journal
        if not journal.is_current:
            return Denial.of(
                DenialCode.JOURNAL_UNAVAILABLE, reason="another process has taken over this account"
            )
        if isinstance(command, Reduction):
            return None if order is None else deny_reduction(command, order, self.book)
        shut = self.shut()
        if shut is not None:
            return shut
        # It may have waited for its turn, for a person, or for a machine that slept.
        return (
            check_age(command.ticket, self.recorder.clock.now())
            or self.judge.deny(command.ticket)
            or deny_entry(command, self.book, self.adapter.capabilities, sending=order)
        )

    def shut(self) -> Denial | None:
        """Return why no entry at all may leave, or None."""
        if self.is_switched_off:
            return Denial.of(DenialCode.TRADING_HALTED, cause=f"the file {self.halt_file} exists")
        if not self.recorder.journal.is_healthy:
            return Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason="the journal cannot commit")
        pause = self.pace.left()
        if pause > self._longest_pause:
            return Denial.of(DenialCode.VENUE_UNAVAILABLE, retry_after_seconds=round(pause))
        return None

    def refuse_exposure(self, order: ManagedOrder) -> Denial | None:
        """Return why an entry may not be changed now to one that is executed sooner, or None."""
        return self.shut() or deny_exposure(self.book, order.symbol, order.parent)

    async def _send_one(self, order: ManagedOrder, command: Entry | Reduction) -> Sent:
        (sent,) = await self._commit_and_send((order,), (command,))
        return sent

    async def _commit_and_send(
        self, orders: tuple[ManagedOrder, ...], commands: tuple[Entry | Reduction, ...]
    ) -> tuple[Sent, ...]:
        legs = tuple(zip(orders, commands, strict=True))
        try:
            denial = await self._commit(legs)
            denial = denial or await self._turn_to_send(legs)
        except BaseException:
            # Cancelled while the disk or the venue kept us waiting: nothing was sent, and nothing will be.
            self._unsend(orders, "the caller gave up before it was sent")
            raise
        if denial is not None and all(o.state in (*_SENDABLE, OrderState.FAILED) for o in orders):
            self._unsend(orders, f"not sent: {denial}")
            return tuple(Sent(order=order, denial=denial) for order in orders)
        if any(order.state not in _SENDABLE for order in orders):
            return tuple(map(Sent, orders))  # the venue has shown it meanwhile: one is enough
        return await self._send_once(legs)

    async def _commit(self, legs: Legs) -> Denial | None:
        """Make the intents durable: in the journal, or of reductions at least beside it."""
        try:
            await self.recorder.settle()
        except JournalCommitError as error:
            for order, command in legs:
                if isinstance(command, Entry) or not self.recorder.keep_apart(order.intent):
                    return Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason=str(error))
        return None

    def _unsend(self, orders: tuple[ManagedOrder, ...], reason: str) -> None:
        for order in orders:
            if order.state is OrderState.NEW:
                self.give_up(order, reason)

    async def _send_once(self, legs: Legs) -> tuple[Sent, ...]:
        """Send, and read the answer. Whatever is not definite leaves the orders in doubt."""
        orders = tuple(order for order, _ in legs)
        is_repeated = any(order.state is OrderState.PRESUMED_ABSENT for order in orders)
        for order in orders:
            self.adapter.reserve(order.request, order.intent.reserved)
            self.recorder.record(
                OrderChanged(
                    client_order_id=order.client_order_id,
                    event=OrderEvent.SUBMIT,
                    source=Source.CHAIN,
                    attempt=order.attempts + 1,
                )
            )
        answers = self._answers
        try:
            denial = await self._settled_again(legs) if is_repeated else None
            if any(order.state is not OrderState.SUBMITTED for order in orders):
                return tuple(map(Sent, orders))  # the venue has shown it meanwhile
            if denial is not None:
                for order in orders:
                    answers.lost(order, OrderStatusUnknownError(f"not sent again: {denial}"))
                return tuple(Sent(order=order, denial=denial) for order in orders)
            async with asyncio.timeout(self.send_timeout):
                reports = await self._place(orders)
        except Exception as error:  # noqa: BLE001 - whatever it is, bytes may have left
            return tuple(answers.failed(order, error) for order in orders)
        except BaseException as error:
            for order in orders:
                answers.lost(order, error)
            raise
        return tuple([await answers.take(o, r) for o, r in zip(orders, reports, strict=True)])

    async def _settled_again(self, legs: Legs) -> Denial | None:
        """Make it durable that orders which were proven absent leave once more; return why they may not, or None.

        A crash would bring the proof back, and what is proven absent may be sent.
        """
        try:
            await self.recorder.settle()
        except JournalCommitError as error:
            if any(isinstance(command, Entry) for _, command in legs):
                return Denial.of(DenialCode.JOURNAL_UNAVAILABLE, reason=str(error))
        denials = (self._refuse(command, order) for order, command in legs)
        return next(filter(None, denials), None)

    async def _place(self, orders: tuple[ManagedOrder, ...]) -> Sequence[OrderReport]:
        list_id = orders[0].intent.list_id
        if list_id is None:
            return (await self.adapter.place_order(orders[0].request),)
        requests = tuple(order.request for order in orders)
        wanted = OrderList(list_id=list_id, kind=ListKind.OCO, orders=requests)
        reports = await self.adapter.place_list(wanted)
        if len(reports) != len(orders):
            raise OrderStatusUnknownError(f"the venue's answer tells of {len(reports)} orders")
        return reports

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
            cause = redacted(cause)
            log.error("trading.halted", cause=cause, actor=actor)
            self.recorder.record(
                TradingStateChanged(state=TradingState.HALTED, cause=cause, actor=actor)
            )


def _symbol_of(command: Entry | Reduction) -> str:
    return command.ticket.symbol if isinstance(command, Entry) else command.instrument.symbol

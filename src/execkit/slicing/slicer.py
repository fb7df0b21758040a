"""The slicer: sends the parts of large orders through the whole chain, each at its time, also after a restart.

Every part is a signal of its own with an id made of its parent's, so it is one order whatever happens. That all parts
together never exceed the parent is checked by the gateway, against its own count. An order belongs to one position:
when that is closed, whoever has closed it, no more of it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import attrs
import msgspec
import structlog
from msgspec.structs import replace

from execkit.clock import Clock
from execkit.errors import JournalCommitError
from execkit.model.denial import DenialCode
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRole, TimeInForce
from execkit.model.records import ExternalChange, Filled, ParentEnded, ParentOrder, Record
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Iceberg, Slice
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO, plain
from execkit.orders.manager import ManagedOrder
from execkit.orders.parents import OUTLIVED, Parent, hold_of
from execkit.orders.recorder import Recorder
from execkit.redaction import shown
from execkit.risk.ledger import RiskLedger
from execkit.slicing.schedule import due, schedule

log = structlog.get_logger("execkit")

_T = TypeVar("_T")

_LOOK_AGAIN: Final = 1.0
"""Seconds after which the wall clock is looked at again."""

_TAKES_OUT: Final = frozenset({OrderRole.STOP, OrderRole.TARGET, OrderRole.FLATTEN})
"""Roles of which the first execution says that a position is on its way out."""


def _is_over(slices: tuple[Slice, ...], now: datetime) -> bool:
    """Tell whether the time of an order is over: nothing of it is sent later than its parts lie apart."""
    if not slices:
        return False
    step = slices[-1].at - slices[-2].at if len(slices) > 1 else timedelta(minutes=1)
    return now > slices[-1].at + step


class Slicer:
    """Works parent orders, one task each.

    *submit* is the engine's, *instrument_of* fetches a symbol's rules, *cancel* ends what rests of an outlived order.
    """

    def __init__(
        self,
        recorder: Recorder,
        ledger: RiskLedger,
        clock: Clock,
        submit: Callable[[TradingSignal], Awaitable[ExecutionResult]],
        instrument_of: Callable[[str], Awaitable[Instrument]],
        cancel: Callable[[ManagedOrder, str], Awaitable[ManagedOrder]],
    ) -> None:
        self._recorder = recorder
        self._book = recorder.book
        self._ledger = ledger
        self._clock = clock
        self._submit = submit
        self._instrument_of = instrument_of
        self._cancel = cancel
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Future[Any]] = set()
        """Parts on their way through the chain, and cancels; they outlive the task of their order."""
        recorder.listen(self._on_record)

    async def begin(self, ticket: OrderTicket) -> ExecutionResult:
        """Take an approved ticket apart, journal how, and work it from now on; the result says until when."""
        slicing, quantity = ticket.signal.slicing, ticket.quantity
        assert slicing is not None and quantity is not None, "the executor has looked"  # noqa: PT018
        now = self._clock.now()
        position = self._book.positions.open.get(ticket.symbol)
        position_id = "" if position is None else position.position_id
        if ticket.is_reduction and not (
            ticket.position and ticket.position.position_id == position_id
        ):
            reason = "the position that it was to leave is closed"
            return ticket.deny(DenialCode.NO_POSITION_TO_REDUCE, reason=reason)
        record = ParentOrder(
            parent_id=ticket.signal_id,
            symbol=ticket.symbol,
            side=ticket.side,
            quantity=quantity,
            slices=schedule(slicing, quantity, ticket.instrument, ticket.reference_price, now),
            signal=msgspec.json.encode(ticket.signal).decode(),
            stop_loss=ticket.stop_loss,
            take_profit=ticket.take_profit,
            targets=ticket.targets,
            is_reduction=ticket.is_reduction,
            price=ticket.quote.mid,
            worst_price=ZERO if ticket.stamp is None else ticket.stamp.worst_price,
            fee_rate=ticket.instrument.fee_in_quote,
            position_id=position_id,
        )
        self._recorder.record(record)
        try:
            await self._recorder.settle()
        except JournalCommitError as error:
            self._recorder.record(ParentEnded(parent_id=record.parent_id, reason=str(error)))
            return ticket.deny(DenialCode.JOURNAL_UNAVAILABLE, reason=error)
        parent = self._book.parents.get(record.parent_id)
        assert parent is not None, "it was recorded just now"
        self._start(parent)
        if record.slices:
            last = record.slices[-1].at.isoformat(timespec="seconds")
            text = f"worked in {len(record.slices)} slices until {last}"
        else:
            text = "worked as an iceberg"
        return ticket.result(Outcome.WORKING, reason=text)

    def resume(self) -> None:
        """Go on with what a restart has interrupted; what is over by now is ended, not sent late."""
        now = self._clock.now()
        for queued in list(self._book.queued.values()):
            if msgspec.json.decode(queued.signal, type=TradingSignal).slice_of is not None:
                # By a version that let slices wait for the opening of their market, to leave all at once.
                self._recorder.record(replace(queued, queued=False))
        for parent in self._book.parents.live:
            told = self._book.signals.get(parent.record.parent_id)
            if not parent.children and (told is None or not told.told):
                # Perhaps the caller was even told that it is not worked; asked again, it begins anew.
                self._end(parent, "nobody was told that it is worked")
            elif parent.is_outlived(self._book.positions.open.get(parent.record.symbol)):
                self._outlive(parent, OUTLIVED)
            elif _is_over(parent.record.slices, now):
                self._end(parent, "its time was over when the process started again")
            else:
                self._start(parent)

    def end_all(self, symbol: str | None, reason: str) -> None:
        """Send no more slices, of one symbol or of any."""
        for ending in self._book.parents.endings(symbol, reason):
            self._recorder.record(ending)

    def pause(self) -> None:
        """Begin no more parts, and let those under way come to their end; all goes on after the next start."""
        for task in self._tasks.values():
            task.cancel()

    async def stop(self) -> None:
        """End all tasks; the parents go on after the next start."""
        tasks = [*self._tasks.values(), *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- their end -------------------------------------------------------------------------------------

    def _on_record(self, record: Record, order: ManagedOrder | None) -> None:
        if isinstance(record, ParentEnded):
            self._ended(record.parent_id)
        elif self._tasks and isinstance(record, (Filled, ExternalChange)):
            symbol = record.fill.symbol if isinstance(record, Filled) else record.symbol
            self._follow_position(symbol, out=order is not None and order.role in _TAKES_OUT)

    def _follow_position(self, symbol: str, *, out: bool) -> None:
        """End what works on a position that is closed, and what builds one that is on its way *out*."""
        position = self._book.positions.open.get(symbol)
        for parent in self._book.parents.live:
            if parent.record.symbol != symbol or not parent.left:
                continue
            if parent.is_outlived(position):
                self._outlive(parent, OUTLIVED)
            elif out and not parent.record.is_reduction:
                self._outlive(parent, "its position is being closed")

    def _outlive(self, parent: Parent, reason: str) -> None:
        """End an order, and what rests of it."""
        self._end(parent, reason)
        for key, (_, live) in parent.children.items():
            order = self._book.orders.get(key)
            if live and order is not None and not order.is_closed:
                self._call(self._cancel(order, reason))

    def _ended(self, parent_id: str) -> None:
        self._ledger.release(hold_of(parent_id))
        task = self._tasks.get(parent_id)
        self._tell(parent_id, begun=task is not None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _tell(self, parent_id: str, *, begun: bool) -> None:
        """Tell a person of an order that ended before it was executed whole, unless nobody was told that it began."""
        parent = self._book.parents.get(parent_id)
        if parent is None or not parent.left:
            return
        told = self._book.signals.get(parent_id)
        if begun or parent.children or (told is not None and told.told):
            record = parent.record
            amount = f"{plain(parent.filled)} of {plain(record.quantity)} {record.symbol}"
            self._recorder.alarm(
                "SLICING_UNFINISHED",
                f"{parent_id}: {record.side} {amount} executed; {parent.ended}",
                symbol=record.symbol,
            )

    def _end(self, parent: Parent, reason: str) -> None:
        if parent.ended is None:
            self._recorder.record(parent.ending(reason))

    def _call(self, work: Awaitable[_T]) -> asyncio.Future[_T]:
        """Start what is not to be cut short together with the task of an order."""
        call = asyncio.ensure_future(work)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    # -- one parent ------------------------------------------------------------------------------------

    def _start(self, parent: Parent) -> None:
        record = parent.record
        hold = hold_of(record.parent_id)
        if not record.is_reduction and parent.left:
            # In one step with the end of the chain's own reservation, so nothing slips in between.
            self._ledger.reserve(
                hold,
                record.symbol,
                record.side,
                # What the ledger has seen executed of it draws on this too: parts that lived when the process began.
                parent.left + self._ledger.executed(hold),
                record.worst_price,
                price=record.price,
                fee_rate=record.fee_rate,
            )
        task = asyncio.get_running_loop().create_task(self._work(parent))
        self._tasks[record.parent_id] = task
        task.add_done_callback(lambda done: self._done(parent, done))

    def _done(self, parent: Parent, task: asyncio.Task[None]) -> None:
        if self._tasks.get(parent.record.parent_id) is task:
            del self._tasks[parent.record.parent_id]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._recorder.alarm(
                "SLICING_FAILED",
                f"{parent.record.parent_id}: {error!r}; no more of it is sent",
                symbol=parent.record.symbol,
            )
            self._end(parent, f"failed: {shown(error)}")

    async def _work(self, parent: Parent) -> None:
        signal = msgspec.json.decode(parent.record.signal, type=TradingSignal)
        instrument = await self._instrument_of(parent.record.symbol)
        if isinstance(signal.slicing, Iceberg):
            reason = await self._refill(parent, signal, instrument, signal.slicing)
        else:
            reason = await self._follow(parent, signal, instrument)
        self._end(parent, reason)
        await self._recorder.try_settle()

    async def _follow(self, parent: Parent, signal: TradingSignal, instrument: Instrument) -> str:
        """Send each part at its time; what an earlier one has left is sent with a later one."""
        slices = parent.record.slices
        for place, part in enumerate(slices):
            await self._until(part.at)
            now = self._clock.now()
            if _is_over(slices, now):
                return "its time was over"
            if place + 1 < len(slices) and slices[place + 1].at <= now:
                continue  # a later one is due too, and takes its place
            quantity = due(slices, place, parent.committed(), instrument)
            if quantity > ZERO:
                await self._send(parent, signal, quantity)
        return "all slices were sent"

    async def _until(self, at: datetime) -> None:
        """Wait for a moment of the wall clock, which may be stepped and stands still in no suspend."""
        while (wait := (at - self._clock.now()).total_seconds()) > 0:  # noqa: ASYNC110 - see above
            await asyncio.sleep(min(wait, _LOOK_AGAIN))

    async def _refill(
        self, parent: Parent, signal: TradingSignal, instrument: Instrument, slicing: Iceberg
    ) -> str:
        """Let one part rest at a time."""
        while True:
            left = parent.record.quantity - parent.committed()
            quantity = instrument.round_quantity(min(slicing.display, left))
            live = [key for key, (_, rest) in parent.children.items() if rest]
            if live:
                order = self._book.orders.get(live[0])
                if order is not None:
                    await order.done()
                    if order.filled < order.quantity:
                        return f"a slice was ended: {order.reason or order.state}"
                    continue
            if quantity <= ZERO:
                return "all slices were sent"
            result = await self._send(parent, signal, quantity)
            order = self._book.orders.get((result.client_order_ids or ("",))[-1])
            if order is None or (order.is_closed and not order.filled):
                return f"a slice did not rest: {result.reason}"
            await order.done()
            if order.filled < order.quantity:
                return f"a slice was ended: {order.reason or order.state}"

    async def _send(
        self, parent: Parent, signal: TradingSignal, quantity: Decimal
    ) -> ExecutionResult:
        record, number = parent.record, len(parent.children)
        # A part that was denied, or cut short by a restart, has used up its number: what comes next is another one.
        while f"{record.parent_id}/{number}" in self._book.signals:
            number += 1
        limit = signal.limit_price
        rests = isinstance(signal.slicing, Iceberg)
        child = attrs.evolve(
            signal,
            signal_id=f"{record.parent_id}/{number}",
            quantity=quantity,
            slicing=None,
            slice_of=record.parent_id,
            confluence=None,
            max_age=None,
            confirmation_required=False,
            stop_loss=record.stop_loss,
            take_profit=record.take_profit,
            reduce_only=record.is_reduction,
            entry_only=not record.is_reduction,
            # A part that does not execute at once comes again with the next one, so it must not rest meanwhile.
            time_in_force=(
                TimeInForce.GTC if rests else None if limit is None else TimeInForce.IOC
            ),
        )
        # A part that is being sent must not be torn from its answer when its order ends or the process stops.
        result = await asyncio.shield(self._call(self._submit(child)))
        if result.outcome is Outcome.DENIED:
            log.warning("slice.denied", parent=record.parent_id, slice=number, reason=result.reason)
        return result

"""The slicer: sends the parts of large orders through the whole chain, each at its time, also after a restart.

Every part is a signal of its own with an id made of its parent's, so it is one order whatever happens. That all parts
together never exceed the parent is checked by the gateway, against its own count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import attrs
import msgspec
import structlog

from execkit.clock import Clock
from execkit.errors import JournalCommitError
from execkit.model.denial import DenialCode
from execkit.model.instrument import Instrument
from execkit.model.order import TimeInForce
from execkit.model.records import ParentEnded, ParentOrder
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Iceberg, Slice
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO, plain
from execkit.orders.parents import Parent, hold_of
from execkit.orders.recorder import Recorder
from execkit.risk.ledger import RiskLedger
from execkit.slicing.schedule import due, schedule

log = structlog.get_logger("execkit")


_LOOK_AGAIN: Final = 1.0
"""Seconds after which the wall clock is looked at again."""


def _is_over(slices: tuple[Slice, ...], now: datetime) -> bool:
    """Tell whether the time of an order is over: nothing of it is sent later than its parts lie apart."""
    if not slices:
        return False
    step = slices[-1].at - slices[-2].at if len(slices) > 1 else timedelta(minutes=1)
    return now > slices[-1].at + step


class Slicer:
    """Works parent orders, one task each. *submit* is the engine's, *instrument_of* fetches a symbol's rules."""

    def __init__(
        self,
        recorder: Recorder,
        ledger: RiskLedger,
        clock: Clock,
        submit: Callable[[TradingSignal], Awaitable[ExecutionResult]],
        instrument_of: Callable[[str], Awaitable[Instrument]],
    ) -> None:
        self._recorder = recorder
        self._book = recorder.book
        self._ledger = ledger
        self._clock = clock
        self._submit = submit
        self._instrument_of = instrument_of
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, ticket: OrderTicket) -> ExecutionResult:
        """Take an approved ticket apart, journal how, and work it from now on; the result says until when."""
        slicing, quantity = ticket.signal.slicing, ticket.quantity
        assert slicing is not None and quantity is not None, "the executor has looked"  # noqa: PT018
        now = self._clock.now()
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
        for parent in self._book.parents.live:
            told = self._book.signals.get(parent.record.parent_id)
            if told is None or not told.told:
                # Perhaps the caller was even told that it is not worked; asked again, it begins anew.
                self._end(parent, "nobody was told that it is worked")
            elif _is_over(parent.record.slices, now):
                self._end(parent, "its time was over when the process started again")
            else:
                self._start(parent)

    def end_all(self, symbol: str | None, reason: str) -> None:
        """Send no more slices, of one symbol or of any."""
        for parent in self._book.parents.live:
            if symbol in (None, parent.record.symbol):
                self._end(parent, reason)

    async def stop(self) -> None:
        """End all tasks; the parents go on after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one parent ------------------------------------------------------------------------------------

    def _start(self, parent: Parent) -> None:
        record = parent.record
        left = record.quantity - parent.committed()
        if not record.is_reduction and left > ZERO:
            # In one step with the end of the chain's own reservation, so nothing slips in between.
            self._ledger.reserve(
                hold_of(record.parent_id),
                record.symbol,
                record.side,
                left,
                record.worst_price,
                price=record.price,
                fee_rate=record.fee_rate,
            )
        task = asyncio.get_running_loop().create_task(self._work(parent))
        self._tasks[record.parent_id] = task
        task.add_done_callback(lambda done: self._done(parent, done))

    def _done(self, parent: Parent, task: asyncio.Task[None]) -> None:
        self._tasks.pop(parent.record.parent_id, None)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            self._recorder.alarm(
                "SLICING_FAILED",
                f"{parent.record.parent_id}: {error!r}; no more of it is sent",
                symbol=parent.record.symbol,
            )
            self._end(parent, f"failed: {error!r}")

    def _end(self, parent: Parent, reason: str) -> None:
        record = parent.record
        self._ledger.release(hold_of(record.parent_id))
        if parent.ended is None:
            left = record.quantity - parent.filled
            text = f"{reason}; {plain(left)} not executed" if left > ZERO else reason
            self._recorder.record(ParentEnded(parent_id=record.parent_id, reason=text))
        task = self._tasks.get(record.parent_id)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

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
            # A part that does not execute at once comes again with the next one, so it must not rest meanwhile.
            time_in_force=(
                TimeInForce.GTC if rests else None if limit is None else TimeInForce.IOC
            ),
        )
        result = await self._submit(child)
        if result.outcome is Outcome.DENIED:
            log.warning("slice.denied", parent=record.parent_id, slice=number, reason=result.reason)
        return result

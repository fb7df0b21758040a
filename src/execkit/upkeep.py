"""The engine's long-running tasks: the order stream, the period, time-outs and the queue for the open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog

from execkit.errors import JournalCommitError, UnsupportedFeatureError
from execkit.handlers.desk import Desk
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRole,
    OrderState,
    OrderUpdate,
    StreamGap,
)
from execkit.model.records import EquityMarked, Record, SignalQueued, Source
from execkit.orders.manager import ManagedOrder
from execkit.orders.teller import Teller
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_MARK_EVERY: Final = timedelta(minutes=15)

_NOT_AT_THE_VENUE: Final = frozenset(
    {OrderState.NEW, OrderState.SUBMITTED, OrderState.IN_DOUBT, OrderState.PRESUMED_ABSENT}
)
"""As far as we know: the time-out of an entry that may never have arrived begins to run out when it shows."""

_POLL_EVERY: Final = 5.0
"""Seconds between two comparisons while orders are open and no stream tells of them."""


class Watcher(Protocol):
    """Something else that works while the engine runs."""

    def start(self, spawn: Callable[[Awaitable[Any], str], None]) -> None:
        """Begin; tasks go through *spawn*, which ends them with the engine."""

    async def stop(self) -> None:
        """End what is no task."""


class Upkeep:
    """Runs and stops the tasks. *reconcile_every* is the period of the comparison with the venue.

    *look* is called whenever prices have moved and no quote has told so.
    """

    def __init__(
        self,
        desk: Desk,
        currency: str,
        *,
        reconcile_every: timedelta = timedelta(seconds=60),
        resubmit: Callable[[SignalQueued], Awaitable[object]],
        watchers: Sequence[Watcher] = (),
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.desk = desk
        self.currency = currency
        self._reconcile_every = reconcile_every.total_seconds()
        self._resubmit = resubmit
        self._watchers = watchers
        self._look = look
        self._teller = Teller(desk.recorder)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._has_stopped = False
        desk.recorder.listen(self._on_record)

    async def start(self) -> None:
        """Open the stream, bring the book up to the venue's state, and start the tasks."""
        desk = self.desk
        self._teller.start(self.spawn)
        updates = None
        if desk.adapter.capabilities.order_stream:
            updates = desk.adapter.order_updates()
            desk.reconciler.stream_is_open = True
        await desk.reconciler.start()
        for symbol in list(desk.book.positions.open):
            await desk.quotes.get(symbol)  # without a price the equity would be that of the entry
        self.mark_equity()
        for order in list(desk.book.orders.active.values()):
            self._arm(order)
        if updates is not None:
            self.spawn(self._follow_orders(updates), "order stream")
        self.spawn(self._periodically(), "period")
        if desk.adapter.capabilities.quote_stream:
            self.spawn(desk.quotes.follow(), "quotes")
        for watcher in self._watchers:
            watcher.start(self.spawn)

    def spawn(self, work: Awaitable[Any], name: str) -> None:
        """Run a task until `stop`, none after it; one that fails is reported, not lost."""
        task = asyncio.ensure_future(work)
        if self._has_stopped:
            task.cancel()  # new work does not even begin
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, name))

    def _ended(self, task: asyncio.Task[Any], name: str) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.desk.recorder.alarm("TASK_FAILED", f"{name}: {task.exception()!r}")

    async def stop(self) -> None:
        """End every task, and let no answer that comes later begin one: nothing acts on an engine that has ended."""
        self._has_stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in self._watchers), return_exceptions=True)

    # -- the stream ------------------------------------------------------------------------------------

    async def _follow_orders(self, updates: Any) -> None:
        reconciler = self.desk.reconciler
        wait = 0.1
        while True:
            try:
                if updates is None:
                    updates = self.desk.adapter.order_updates()
                    # What happened while nobody listened is fetched; only then does the stream count again.
                    await reconciler.try_run()
                    reconciler.stream_is_open = True
                async for update in updates:
                    wait = 0.1
                    await self._take(update)
                log.warning("stream.ended")
            except UnsupportedFeatureError:
                reconciler.stream_is_open = False
                return
            except Exception as error:  # noqa: BLE001 - open it again
                log.warning("stream.broken", error=shown(error))
            reconciler.stream_is_open = False
            updates = None
            await asyncio.sleep(wait)
            wait = min(wait * 2, 30.0)

    async def _take(self, update: OrderUpdate) -> None:
        """Take in one update; one that cannot be handled must not silence the rest."""
        desk = self.desk
        try:
            if isinstance(update, Fill):
                desk.gateway.intake.take_fill(update, Source.STREAM)
            elif isinstance(update, OrderReport):
                await desk.gateway.absorb(update, Source.STREAM)
            elif isinstance(update, StreamGap):
                log.warning("stream.gap", reason=update.reason)
                await desk.reconciler.try_run()
            await desk.recorder.settle()
        except JournalCommitError as error:
            log.warning("journal.unavailable", error=str(error))
        except Exception as error:  # noqa: BLE001 - the stream goes on
            log.error("stream.update_failed", update=repr(update), error=shown(error))  # noqa: TRY400
            desk.reconciler.verify_soon(getattr(update, "symbol", ""))

    # -- the period ------------------------------------------------------------------------------------

    async def _periodically(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._reconcile_every
        told = ""
        while True:
            await asyncio.sleep(min(self._reconcile_every, _POLL_EVERY))
            is_due = loop.time() >= due
            try:
                if is_due or (self.desk.book.orders.active and not self._is_told):
                    await self.desk.reconciler.try_run()
                if is_due:
                    due = loop.time() + self._reconcile_every
                    self.mark_equity()
                    await self._drain_queue()
                    told = ""
            except Exception as error:  # noqa: BLE001 - whatever one pass raises, the next one comes
                log.error("period.failed", error=shown(error))  # noqa: TRY400 - as everywhere here
                if told != repr(error):
                    told = repr(error)
                    self.desk.recorder.alarm("TASK_FAILED", f"period: {told}")

    @property
    def _is_told(self) -> bool:
        """Tell whether a stream says what becomes of orders; while no pass succeeds, asking more often is no help."""
        return self.desk.reconciler.stream_is_open or self.desk.reconciler.is_blind

    def mark_equity(self) -> None:
        """Look at the equity, and note it at the start of each UTC day and every quarter of an hour."""
        book, now = self.desk.book, self.desk.clock.now()
        marks = book.equity_marks
        opens = not marks or marks[-1].at.date() < now.date()
        if opens or now - marks[-1].at >= _MARK_EVERY:
            self.desk.recorder.record(
                EquityMarked(equity=book.equity(self.currency), opens_session=opens)
            )
        self._look()

    async def _drain_queue(self) -> None:
        """Send queued signals whose market has opened."""
        for queued in list(self.desk.book.queued.values()):
            status = await self.desk.market.status(queued.symbol)
            if status is not None and status.is_open:
                # In a task of its own: a chain may take long, and the period must not wait for it.
                self.spawn(self._resubmit(queued), "queued signal")

    # -- the clock -------------------------------------------------------------------------------------

    async def on_jump(self, jump: timedelta, *, tell: bool = True) -> None:
        """Catch up after the wall clock was set or the machine slept.

        Nothing is entered until the venue was asked what happened meanwhile, and time-outs come at their times again.
        """
        desk = self.desk
        desk.reconciler.is_blind = True
        if tell:
            text = f"the clock jumped by {jump.total_seconds():.0f} s: set, or the machine slept"
            desk.recorder.alarm("CLOCK_JUMPED", text)
        for key, timer in list(self._timers.items()):
            timer.cancel()
            del self._timers[key]
        for order in list(desk.book.orders.active.values()):
            if order.role is OrderRole.ENTRY:
                self._arm(order)
        await desk.reconciler.try_run()

    # -- time-outs -------------------------------------------------------------------------------------

    def _on_record(self, record: Record, order: ManagedOrder | None) -> None:
        if order is None or order.role is not OrderRole.ENTRY:
            return
        if order.is_closed:
            timer = self._timers.pop(order.client_order_id, None)
            if timer is not None:
                timer.cancel()
        elif order.state not in _NOT_AT_THE_VENUE:
            # Whatever has shown that it lives: an answer, a fill that came before one, a look-up, a late sight.
            self._arm(order)

    def _arm(self, order: ManagedOrder) -> None:
        """Have an entry cancelled at its time; one that is to be cancelled already is followed by the resolver."""
        timeout_at = order.intent.timeout_at
        if timeout_at is None or order.cancel_asked or order.client_order_id in self._timers:
            return
        if self._has_stopped:
            return
        delay = max((timeout_at - self.desk.clock.now()).total_seconds(), 0.0)
        self._timers[order.client_order_id] = asyncio.get_running_loop().call_later(
            delay, self._time_out, order
        )

    def _time_out(self, order: ManagedOrder) -> None:
        self._timers.pop(order.client_order_id, None)
        if not order.is_closed:
            self.spawn(
                self.desk.gateway.cancel(order, "it rested longer than its time-out"), "time-out"
            )

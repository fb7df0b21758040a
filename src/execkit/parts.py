"""What an engine was asked to be, and the parts it is made of while it runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import msgspec
import structlog

from execkit.audit.anchor import Anchor, keep_anchored, write_anchor
from execkit.bars.live import LiveBars, LiveOptions
from execkit.bars.runner import BarRunner
from execkit.clock import Clock
from execkit.connecting import close_venue
from execkit.control.server import ControlServer
from execkit.errors import ConfigurationError, JournalCommitError, JournalError
from execkit.events import EventBus
from execkit.exchanges.base import ExchangeAdapter
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.handlers.desk import Desk
from execkit.journal.base import Journal
from execkit.journal.file import FileJournal
from execkit.market import Calendar
from execkit.model.market import BarData
from execkit.model.records import SignalQueued
from execkit.model.result import ExecutionResult
from execkit.model.signal import TradingSignal
from execkit.operations import unprotected
from execkit.orders.recorder import Recorder
from execkit.pipeline import ExecutionPipeline
from execkit.plans import TradePlan
from execkit.protection.policy import ProtectionPolicy
from execkit.upkeep import Upkeep
from execkit.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from execkit.store.feed import StoreFeed

log = structlog.get_logger("execkit")


@attrs.frozen(kw_only=True)
class Settings:
    """What an engine was asked to be; see `ExecutionEngine`."""

    exchange: ExchangeAdapter
    journal: str | Path | Journal | None
    durability: str = "power"
    pipeline: ExecutionPipeline | None = None
    functions: ExecutionFunctionRegistry | None = None
    plans: tuple[TradePlan, ...] = ()
    currency: str | None = None
    clock: Clock | None = None
    rng: random.Random | None = None
    reconcile_every: timedelta = timedelta(seconds=60)
    store: bool = True
    control: bool = True
    anchors: str | Path | None = None
    anchor_every: timedelta = timedelta(hours=1)
    calendar: Calendar | None = None
    live: LiveOptions | None = None
    protection: ProtectionPolicy = attrs.field(factory=ProtectionPolicy)
    halt_file: str | Path | None = None
    halt_on_signal: bool = False
    dead_man: timedelta | None = None
    notify: Callable[[EventBus], AbstractAsyncContextManager[object]] | None = None


@attrs.define(kw_only=True, eq=False)
class Parts:
    """The parts of a running engine."""

    adapter: ExchangeAdapter
    journal: Journal
    recorder: Recorder
    pipeline: ExecutionPipeline
    desk: Desk
    upkeep: Upkeep
    currency: str
    runner: BarRunner | None
    store: StoreFeed | None
    unaudit: Callable[[], None]
    """Ends the audit of the registry."""
    anchors: str | Path | None = None
    anchor_every: timedelta = timedelta(hours=1)
    live: LiveBars | None = None
    """Follows the venue's bars for the plans."""
    control: ControlServer | None = None
    """Takes commands from other processes."""

    async def on_bar(self, bar: BarData) -> None:
        """Use a finished bar: its price range for targets, its close for the plans' functions and the equity."""
        desk = self.desk
        desk.book.marks[bar.symbol] = bar.close
        await desk.keeper.on_price(bar.symbol, bar.low, bar.high, bar.close, since=bar.open_time)
        if self.runner is not None:
            await self.runner.on_bar(bar)
        self.upkeep.mark_equity()
        await desk.recorder.settle()

    async def settle_owed(self) -> None:
        """Hand over the signals that the last process had decided on and not brought to an end."""
        if self.runner is not None:
            await self.runner.settle()

    @staticmethod
    def decode_signal(queued: SignalQueued) -> TradingSignal:
        """Return the signal that was queued."""
        return msgspec.json.decode(queued.signal, type=TradingSignal)

    async def drain(self, under_way: list[asyncio.Future[ExecutionResult]], seconds: float) -> None:
        """Give signals under way, and then what protects their fills, time to end; no slice is begun any more."""
        self.desk.slicer.pause()
        if under_way:
            await asyncio.wait(under_way, timeout=seconds)
        try:
            async with asyncio.timeout(seconds):
                await self.desk.keeper.idle()
        except TimeoutError:
            for symbol in unprotected(self.desk.book):
                self.recorder.alarm(
                    "STOPPED_UNPROTECTED", f"{symbol} has no stop while nothing runs", symbol=symbol
                )

    def open_control(self) -> None:
        """Take commands from other processes; where that cannot be, trading goes on and a person is told."""
        if self.control is not None:
            try:
                self.control.start()
            except JournalError as error:
                self.recorder.alarm("CONTROL_UNAVAILABLE", str(error))

    def keep_anchored(self) -> None:
        """Note from now on how far the journal has come, where the settings want it."""
        if self.anchors is not None and isinstance(self.journal, FileJournal):
            work = keep_anchored(
                self.journal,
                self.anchors,
                self.desk.clock,
                every=self.anchor_every,
                alarm=lambda text: self.recorder.alarm("ANCHOR_FAILED", text),
            )
            self.upkeep.spawn(work, "anchors")

    def _anchor_end(self) -> None:
        journal = self.journal
        if self.anchors is None or not isinstance(journal, FileJournal):
            return
        end = Anchor(self.desk.clock.now(), journal.account, journal.last_seq, journal.head)
        try:
            write_anchor(self.anchors, end)
        except ConfigurationError as error:
            log.warning("anchor.failed", path=str(self.anchors), error=str(error))

    async def close(self) -> None:
        """End the tasks, make the journal durable, and close venue and store also where it cannot be.

        Raises `JournalCommitError` then, when all is closed.
        """
        self.desk.slicer.pause()
        if self.control is not None:
            self.control.stop()
        if self.live is not None:
            await self.live.stop()
        self.unaudit()
        await self.desk.slicer.stop()
        await self.upkeep.stop()
        await self.desk.reconciler.stop()
        await self.desk.keeper.stop()
        await self.desk.resolver.stop()
        try:
            await self.recorder.settle()
        except JournalCommitError as error:
            log.warning("journal.unavailable", error=str(error))
        try:
            await self.journal.close()
            self._anchor_end()
        finally:
            await close_venue(self.adapter)
            await self._stop_store()

    async def _stop_store(self) -> None:
        if self.store is None:
            return
        if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            self.store.stop()
        else:
            await asyncio.to_thread(self.store.stop)

"""Assembly: builds an engine's parts in the order in which they need each other, and takes them down again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
import structlog

from execkit.bars.cache import MarketDataCache
from execkit.bars.live import LiveBars, LiveOptions
from execkit.bars.runner import BarRunner
from execkit.bars.sessions import HoursOf
from execkit.clock import Clock, SystemClock
from execkit.clockwatch import ClockWatch
from execkit.config import Config
from execkit.connecting import close_venue, connected
from execkit.control.commands import obey
from execkit.control.server import ControlServer
from execkit.dead_man import DeadMan
from execkit.events import EventBus
from execkit.exchanges.factory import ExchangeFactory
from execkit.functions.builtin import register_builtins
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.group_check import GroupCheck
from execkit.guarded import GuardedAsk
from execkit.handlers.desk import Desk
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.handlers.waited import PriceJudge
from execkit.journal.base import Journal, MemoryJournal
from execkit.journal.file import FileJournal
from execkit.journal.fold import fold
from execkit.kill_switch import KillSwitch
from execkit.loss_watch import LossWatch
from execkit.market import Calendar, MarketHours, told_by
from execkit.model.instrument import Instrument
from execkit.model.market import Quote, Timeframe
from execkit.model.records import (
    RegistryChanged,
    SignalQueued,
)
from execkit.model.result import ExecutionResult
from execkit.model.signal import TradingSignal
from execkit.model.ticket import OrderTicket
from execkit.orders.book import Book
from execkit.orders.gateway import OrderGateway
from execkit.orders.recorder import Recorder
from execkit.orders.recovery import Reconciler
from execkit.orders.resolver import Resolver
from execkit.parts import Parts, Settings
from execkit.pipeline import ExecutionPipeline
from execkit.plans import calendars_of, chain_of
from execkit.protection.keeper import ProtectionKeeper
from execkit.quotes import QuoteBook
from execkit.risk.ledger import RiskLedger
from execkit.slicing.slicer import Slicer
from execkit.upkeep import Upkeep, Watcher
from execkit.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from execkit.store.feed import StoreFeed

log = structlog.get_logger("execkit")

_PACKAGE = "execkit"
"""Who registers the built-in functions."""


def options_of(config: Config | str | Path, exchanges: ExchangeFactory) -> dict[str, Any]:
    """Return the arguments of the engine that a configuration, or its file, describes."""
    if not isinstance(config, Config):
        config = Config.load(config)
    secrets = {name: value.get_secret_value() for name, value in config.secrets.items()}
    functions = config.registry()
    return {
        "exchange": exchanges.create(config.exchange.name, **config.exchange.options, **secrets),
        "journal": config.journal_path,
        "durability": config.journal.durability,
        "pipeline": config.pipeline(),
        "functions": functions,
        "plans": config.load_plans(functions),
        "currency": config.currency,
        "reconcile_every": config.reconcile_every,
        "store": config.store,
        "anchors": config.anchors_path,
        "anchor_every": config.journal.anchor_every,
        "control": config.control,
        "halt_file": config.halt_path,
        "halt_on_signal": config.halt_on_signal,
        "notify": None if config.notify is None else config.notify.build(),
        "dead_man": config.dead_man,
        "protection": config.protection.build(),
    }


def standard_pipeline() -> ExecutionPipeline:
    """Return the chain of an engine that was given none: the four handlers with their defaults."""
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(),
            OrderExecutorHandler(),
            ReconciliationHandler(),
        ]
    )


async def assemble(
    settings: Settings,
    bus: EventBus,
    instrument_of: Callable[[str], Awaitable[Instrument]],
    submit: Callable[[TradingSignal], Awaitable[ExecutionResult]],
    resubmit: Callable[[SignalQueued], Awaitable[object]],
) -> Parts:
    """Open the journal, fold it, connect the venue and wire everything."""
    adapter = settings.exchange
    clock = settings.clock or SystemClock()
    journal = open_journal(settings, clock)
    try:
        if isinstance(settings.journal, (str, Path)):
            adapter.use_storage(Path(f"{settings.journal}.paper"))
        snapshot, entries = journal.recovered()
        book = fold(entries, snapshot)
        currency = await connected(adapter, settings.currency)
        return _wire(
            settings,
            clock,
            journal,
            book,
            bus,
            instrument_of,
            submit,
            resubmit,
            currency,
        )
    except BaseException:
        try:
            await close_venue(adapter)
        finally:
            await journal.close()
        raise


def open_journal(settings: Settings, clock: Clock) -> Journal:
    """Open the journal that an engine was given; raises `JournalError` when it is in use or cannot be used."""
    if settings.journal is None:
        return MemoryJournal(settings.exchange.account)
    if not isinstance(settings.journal, (str, Path)):
        return settings.journal
    return FileJournal.open(
        settings.journal,
        account=settings.exchange.account,
        durability=cast("Literal['power', 'process']", settings.durability),
        clock=clock,
    )


def _wire(
    settings: Settings,
    clock: Clock,
    journal: Journal,
    book: Book,
    bus: EventBus,
    instrument_of: Callable[[str], Awaitable[Instrument]],
    submit: Callable[[TradingSignal], Awaitable[ExecutionResult]],
    resubmit: Callable[[SignalQueued], Awaitable[object]],
    currency: str,
) -> Parts:
    adapter = settings.exchange
    if isinstance(journal, FileJournal):
        journal.set_snapshot(book.snapshot)
    recorder = Recorder(journal, book, clock, bus)
    ledger = RiskLedger()
    for order in book.orders.active.values():
        ledger.on_order(order)
    recorder.listen(ledger.on_record)
    gateway = OrderGateway(adapter, recorder)
    resolver = Resolver(gateway)
    reconciler: Reconciler  # made below, of what is made here
    guarded = partial(
        GuardedAsk,
        ask=gateway.pace.ask,
        is_held=lambda symbol: symbol in book.positions.open,
        alarm=recorder.alarm,
        passes=lambda: reconciler.passes,
    )
    reads = guarded("reads")
    hours = _hours(settings)
    market = MarketHours(
        adapter,
        clock,
        _calendar(settings, hours),
        ask=guarded("market states"),
        alarm=recorder.alarm,
    )
    keeper = ProtectionKeeper(gateway, instrument_of, policy=settings.protection, market=market)
    reconciler = Reconciler(
        gateway,
        resolver,
        protect=keeper.check,
        on_sight=keeper.wake,
        on_foreign=lambda: ledger.set_foreign(book.foreign.values(), book.marks),
        worth=partial(book.worth, currency=currency),
    )
    pipeline = settings.pipeline or chain_of(settings.plans) or standard_pipeline()
    rng = settings.rng or random.Random()  # noqa: S311 - ids and jitter, no secrets
    quotes = QuoteBook(adapter, book, clock, ask=guarded("prices"), rng=rng)
    for symbol in {*book.positions.open, *(plan.symbol for plan in settings.plans)}:
        quotes.want(symbol)
    desk = Desk(
        reads=reads,
        adapter=adapter,
        clock=clock,
        rng=rng,
        recorder=recorder,
        book=book,
        ledger=ledger,
        quotes=quotes,
        bars=MarketDataCache(),
        market=market,
        gateway=gateway,
        resolver=resolver,
        keeper=keeper,
        policy=settings.protection,
        reconciler=reconciler,
        slicer=Slicer(recorder, ledger, clock, submit, instrument_of, gateway.cancel),
        queue=lambda ticket: _queue(recorder, ticket),
        spawn=lambda work, name: upkeep.spawn(work, name),  # noqa: PLW0108 - there is none yet
        links=pipeline.handlers,
        unchecked=pipeline.unchecked,
    )
    keeper.watcher.bars_of = desk.bars.history
    pipeline.bind(desk)
    gateway.judge = PriceJudge(desk)
    loss = LossWatch(desk, currency, pipeline.handlers)

    def on_quote(quote: Quote) -> None:
        keeper.on_quote(quote)
        loss.on_quote(quote)

    quotes.on_quote = on_quote
    watchers: list[Watcher] = [loss, GroupCheck(desk, pipeline.handlers)]
    upkeep = Upkeep(
        desk,
        currency,
        reconcile_every=settings.reconcile_every,
        resubmit=resubmit,
        watchers=watchers,
        look=loss.look,
    )
    # Live bars tell of a jump themselves.
    watchers.append(ClockWatch(clock, partial(upkeep.on_jump, tell=settings.live is None)))
    watchers += _switches(settings, desk, journal)
    control = None
    if settings.control and isinstance(journal, FileJournal) and not _is_virtual():
        control = ControlServer(journal.path, lambda request: obey(desk, request), clock)
    runner = _runner(settings, desk, currency, submit, hours)
    live = None
    if settings.live is not None and runner is not None:

        async def after_closes() -> None:
            upkeep.mark_equity()
            await recorder.settle()

        live = LiveBars(runner, desk, spawn=upkeep.spawn, after=after_closes, options=settings.live)
    return Parts(
        adapter=adapter,
        journal=journal,
        recorder=recorder,
        pipeline=pipeline,
        desk=desk,
        upkeep=upkeep,
        currency=currency,
        runner=runner,
        anchors=settings.anchors,
        anchor_every=settings.anchor_every,
        live=live,
        store=_store(settings, journal),
        unaudit=_audit(settings.functions, recorder),
        control=control,
    )


def _hours(settings: Settings) -> HoursOf:
    """Return the hours of each symbol: its plan's, else those of the venue; bars that are given have no venue's."""
    live = settings.live or LiveOptions()
    always_open = settings.live is None or settings.exchange.capabilities.always_open
    return live.hours(calendars_of(settings.plans), always_open=always_open)


def _calendar(settings: Settings, hours: HoursOf) -> Calendar | None:
    """Return what a market's hours are while the venue does not tell: stated, or those that its bars go by."""
    if settings.calendar is None and settings.live is not None:
        return told_by(hours)
    return settings.calendar


def _switches(settings: Settings, desk: Desk, journal: Journal) -> list[Watcher]:
    """Return what stops the engine from outside."""
    if settings.halt_file is not None:
        desk.gateway.halt_file = Path(settings.halt_file)
    elif isinstance(journal, FileJournal):
        desk.gateway.halt_file = Path(f"{journal.path}.halt")
    found: list[Watcher] = [
        KillSwitch(desk.gateway, on_signal=settings.halt_on_signal, polls=not _is_virtual())
    ]
    if settings.dead_man is not None:
        found.append(DeadMan(desk, settings.dead_man))
    return found


def _is_virtual() -> bool:
    return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


def _queue(recorder: Recorder, ticket: OrderTicket) -> bool:
    signal = ticket.signal
    if not ticket.queue_when_closed or signal.slice_of is not None:
        # What works the order of a slice makes up for it; queued, all slices would leave at once at the opening.
        return False
    recorder.record(
        SignalQueued(
            signal_id=ticket.signal_id,
            signal_digest=signal.digest,
            symbol=ticket.symbol,
            signal=msgspec.json.encode(signal).decode(),
            role=ticket.role,
            position_id=ticket.position.position_id
            if ticket.is_reduction and ticket.position
            else None,
        )
    )
    return True


def _runner(
    settings: Settings,
    desk: Desk,
    currency: str,
    submit: Callable[[TradingSignal], Awaitable[ExecutionResult]],
    hours: HoursOf,
) -> BarRunner | None:
    if not settings.plans:
        return None
    registry = settings.functions
    if registry is None:
        registry = ExecutionFunctionRegistry(clock=desk.clock)
    stated = [plan.bars.timeframe for plan in settings.plans if plan.bars is not None]
    base = min(stated, key=lambda each: each.seconds, default=Timeframe.M1)
    used = {rule.function for plan in settings.plans for rule in (*plan.entry, *plan.exit)}
    if any(name not in registry for name in used):
        register_builtins(registry)
    return BarRunner(
        registry=registry,
        plans=settings.plans,
        cache=desk.bars,
        book=desk.book,
        submit=submit,
        record=desk.recorder.record,
        account=lambda: desk.book.account(currency, desk.ledger.reserved_cash),
        clock=desk.clock,
        hours=hours,
        base=base,
    )


def _audit(registry: ExecutionFunctionRegistry | None, recorder: Recorder) -> Callable[[], None]:
    """Journal what the application does to its registry; what comes with the package is no news."""
    if registry is None:
        return lambda: None

    def note(change: RegistryChanged) -> None:
        if change.actor != _PACKAGE:
            recorder.record(change)

    registry.attach(note)
    return lambda: registry.detach(note)


def _store(settings: Settings, journal: Journal) -> StoreFeed | None:
    """Let the store follow the journal file in a thread of its own; under virtual time it catches up at the end."""
    if not settings.store or not isinstance(journal, FileJournal):
        return None
    # SQLAlchemy takes longer to import than everything else together; a process without a store does without.
    from execkit.store.feed import StoreFeed  # noqa: PLC0415

    store = StoreFeed(journal.path)
    if not _is_virtual():
        store.start()
    return store

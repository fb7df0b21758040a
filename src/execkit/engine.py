"""The engine: takes signals, runs them through the chain, and keeps the books of one account in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import structlog

from execkit.assembly import assemble, options_of
from execkit.bars.live import LiveOptions
from execkit.by_hand import ByHand
from execkit.clock import Clock
from execkit.config import Config
from execkit.errors import (
    ConfigurationError,
    ExchangeError,
    ExecKitError,
    JournalCommitError,
    OrderRejectedError,
    SignalConflictError,
)
from execkit.events import EventBus
from execkit.exchanges.base import ExchangeAdapter
from execkit.exchanges.factory import ExchangeFactory
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.handlers.exiting import tell_rest
from execkit.ids import random_id
from execkit.journal.base import Journal
from execkit.market import Calendar, MarketHours
from execkit.model.account import AccountView
from execkit.model.denial import Denial, DenialCode
from execkit.model.events import SignalDenied, TradingSignalGenerated
from execkit.model.instrument import Instrument
from execkit.model.market import BarData
from execkit.model.order import OrderRole, OrderState
from execkit.model.position import Position
from execkit.model.records import SignalQueued, TradingState
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.signal import TradingSignal
from execkit.orders.book import Book
from execkit.parts import Parts, Settings
from execkit.pipeline import ExecutionPipeline
from execkit.plans import TradePlan
from execkit.protection.policy import ProtectionPolicy
from execkit.rules import RULES_SECONDS, RuleBook
from execkit.signals import (
    denied,
    first_ticket,
    from_orders,
    from_record,
    from_slices,
    to_record,
)

log = structlog.get_logger("execkit")

_DOUBT_SECONDS: Final = 10.0
"""How long a signal from before a restart waits for proof of what became of its order."""


class ExecutionEngine(ByHand):
    """Turns signals into orders on one exchange account.

    Args:
        exchange: The adapter; the engine connects it, and closes it when it stops.
        journal: Path of the journal; a `Journal`; or None to keep everything in memory, for tests.
        durability: `power` (default) survives a power loss, `process` survives kill -9.
        pipeline: The chain; None: the standard one, under the risk that the *plans* state. With a chain of your own
            only that chain's limits count.
        functions: Registry of candle-close functions, for *plans*.
        plans: Trade plans to run, on the bars given to `on_bar` or on live ones.
        live: How to follow the venue's own bars for the plans; None: bars come by `on_bar`.
        currency: Asset in which limits are counted; by default USDT, USD, USDC or EUR, the first that is held.
        clock, rng: Injected time and chance; one seed and one clock repeat a run exactly.
        protection: How positions are protected and taken out; see `ProtectionPolicy`.
        reconcile_every: Period of the comparison with the venue.
        store: Whether to keep the SQLite projection beside the journal.
        anchors: File in which it is noted *anchor_every* so often how far the journal has come; see `verify_audit`.
        calendar: What a market's hours are while the venue does not tell; see `MarketHours`.
        halt_file: No entry leaves while this file exists; by default the journal's path with `.halt` added.
        halt_on_signal: Whether SIGUSR1 halts; main thread on Unix only.
        dead_man: How long after the last word of the engine the venue cancels all orders, stops too; see `DeadMan`.
        notify: Makes what tells a person of events while the engine runs, of its bus, e.g. `Notifier`; it is entered
            at each start.
        control: Whether to take commands from other processes, e.g. `execkit halt`, by a socket beside the journal.

    Use it as an async context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        exchange: ExchangeAdapter,
        *,
        journal: str | Path | Journal | None,
        durability: str = "power",
        pipeline: ExecutionPipeline | None = None,
        functions: ExecutionFunctionRegistry | None = None,
        plans: Iterable[TradePlan] = (),
        currency: str | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        reconcile_every: timedelta = timedelta(seconds=60),
        store: bool = True,
        control: bool = True,
        anchors: str | Path | None = None,
        anchor_every: timedelta = timedelta(hours=1),
        calendar: Calendar | None = None,
        live: LiveOptions | None = None,
        protection: ProtectionPolicy | None = None,
        halt_file: str | Path | None = None,
        halt_on_signal: bool = False,
        dead_man: timedelta | None = None,
        notify: Callable[[EventBus], AbstractAsyncContextManager[object]] | None = None,
    ) -> None:
        if not isinstance(exchange, ExchangeAdapter):
            raise ConfigurationError(f"exchange: {exchange!r} is not an ExchangeAdapter")
        self.settings = Settings(
            exchange=exchange,
            journal=journal,
            durability=durability,
            pipeline=pipeline,
            functions=functions,
            plans=tuple(plans),
            currency=currency,
            clock=clock,
            rng=rng,
            reconcile_every=reconcile_every,
            store=store,
            control=control,
            anchors=anchors,
            anchor_every=anchor_every,
            calendar=calendar,
            live=live,
            protection=protection or ProtectionPolicy(),
            halt_file=halt_file,
            halt_on_signal=halt_on_signal,
            dead_man=dead_man,
            notify=notify,
        )
        self.events = EventBus()
        """Subscribe here: `engine.events.subscribe(OrderFilled, callback)`."""
        self.notifier = nullcontext() if notify is None else notify(self.events)
        """Tells a person of events while it is entered, as it is from the start to the end of the engine's run."""
        self._rules = RuleBook(exchange)
        self._in_flight: dict[str, tuple[str, asyncio.Future[ExecutionResult]]] = {}
        self._running = False
        self._stopping = False

    @classmethod
    def from_config(
        cls, config: Config | str | Path, *, exchanges: ExchangeFactory | None = None
    ) -> Self:
        """Return an engine built from a configuration, or from its file; nothing is opened yet.

        *exchanges* finds the exchange by its name. Raises `ConfigurationError` naming file, line, key and fix.
        """
        return cls(**options_of(config, exchanges or ExchangeFactory()))

    # -- life ------------------------------------------------------------------------------------------

    async def start(self, *, prepare: Callable[[Parts], None] | None = None) -> None:
        """Open the journal, bring the books up to the venue's state, and take signals from then on.

        *prepare* is called when journal and venue are open and before anything is compared or sent; there past bars
        are let into the history. Who gives it calls `parts.settle_owed` too, when the time has come. Raises
        `JournalError` when the journal cannot be used and what the venue's client raises when it cannot be read.
        """
        if self._running:
            return
        await self.notifier.__aenter__()
        try:
            await self._start(prepare)
        except BaseException:
            await self.notifier.__aexit__(None, None, None)
            raise

    async def _start(self, prepare: Callable[[Parts], None] | None) -> None:
        self.parts = await assemble(
            self.settings, self.events, self.instrument, self.submit, self._resubmit
        )
        self.desk = self.parts.desk
        self._stopping = False
        try:
            if prepare is not None:
                prepare(self.parts)
            await self.parts.upkeep.start()
            await self.parts.recorder.settle()
            self._running = True
            self.desk.slicer.resume()
            if prepare is None:
                await self.parts.settle_owed()
            self.parts.keep_anchored()
            if self.parts.live is not None:
                await self.parts.live.start()
            self.parts.open_control()
        except BaseException:
            self._running = False
            await self.parts.close()
            raise

    async def stop(self, *, drain: float = 10.0) -> None:
        """Take no more signals, give those under way, then protection and observers, *drain* seconds, and close."""
        if not self._running:
            return
        self._stopping = True
        await self.parts.drain([future for _, future in self._in_flight.values()], drain)
        self._running = False
        try:
            await self.parts.close()
        finally:
            await self.events.close(drain)
            await self.notifier.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    # -- signals ---------------------------------------------------------------------------------------

    async def submit(self, signal: TradingSignal) -> ExecutionResult:
        """Run a signal through the chain and return what came of it.

        The same signal twice is one order: the second call gets the first one's result, also after a restart.
        Raises `SignalConflictError` when the id came before with other content.
        """
        if not isinstance(signal, TradingSignal):
            raise ConfigurationError(f"signal: {signal!r} is not a TradingSignal")
        if not self._running or self._stopping:
            raise ExecKitError("the engine is not running; use `async with engine:` or start()")
        if signal.signal_id is None:
            # Fixed at the first submit, so that the same object submitted again is the same signal.
            name = f"s{self.parts.journal.epoch}-{random_id(self.desk.rng)}"
            object.__setattr__(signal, "signal_id", name)
        signal_id = signal.signal_id or ""
        digest = signal.digest
        flying = self._in_flight.get(signal_id)
        known = self.book.signals.get(signal_id)
        if digest != (flying[0] if flying else known.digest if known else digest):
            raise SignalConflictError(
                f"signal_id: {signal_id!r} came before with other content; a new signal needs a new id"
            )
        if flying is not None:
            return await asyncio.shield(flying[1])
        if known is not None and known.told:
            if known.result is not None:
                return from_record(known.result, self.book, self.desk.clock.now())
            return self._denied(signal, DenialCode.DUPLICATE_SIGNAL, signal_id=signal_id)
        return await self._run(signal, signal_id, digest)

    async def follow(self, signals: AsyncIterable[TradingSignal]) -> None:
        """Submit each signal of a stream as it comes, without waiting for the one before; one that fails is alarmed."""
        async for signal in signals:
            self.parts.upkeep.spawn(self.submit(signal), "signal")

    async def _run(
        self, signal: TradingSignal, signal_id: str, digest: str, *, queued: bool = False
    ) -> ExecutionResult:
        future: asyncio.Future[ExecutionResult] = asyncio.get_running_loop().create_future()
        self._in_flight[signal_id] = (digest, future)
        try:
            self.desk.recorder.announce(
                TradingSignalGenerated(at=self.desk.clock.now(), signal_id=signal_id, signal=signal)
            )
            result = None if queued else await self._from_orders(signal, signal_id)
            if result is None:
                result = await self._through_chain(signal, signal_id)
            result = await self._tell(result, digest)
        except BaseException as error:
            if not future.done():
                # Those who wait for the same signal ask again; nobody waiting is no reason to complain.
                future.set_exception(
                    ExecKitError(f"signal {signal_id} was interrupted: {type(error).__name__}")
                )
                future.exception()
            raise
        else:
            future.set_result(result)
            return result
        finally:
            del self._in_flight[signal_id]

    async def _from_orders(self, signal: TradingSignal, signal_id: str) -> ExecutionResult | None:
        """Return what became of a signal whose process ended before its caller was told; None: send it."""
        worked = from_slices(signal, signal_id, self.book, self.desk.clock.now())
        if worked is not None:
            return worked
        orders = self.orders.revisions(signal_id)
        roles = (OrderRole.ENTRY, OrderRole.EXIT)
        if not orders and any(self.book.next_revision(signal_id, role) for role in roles):
            # It had an order that is no longer in memory.
            return self._denied(signal, DenialCode.DUPLICATE_SIGNAL, signal_id=signal_id)
        if orders and orders[-1].state is OrderState.IN_DOUBT:
            await self.desk.resolver.settled(orders[-1], _DOUBT_SECONDS)
        if not orders or (
            orders[-1].state in (OrderState.FAILED, OrderState.PRESUMED_ABSENT)
            and not any(order.filled or order.state.may_be_live for order in orders)
        ):
            return None
        return tell_rest(self.desk, from_orders(signal, signal_id, orders), orders)

    async def _through_chain(self, signal: TradingSignal, signal_id: str) -> ExecutionResult:
        instrument = self._rules.known(signal.symbol)
        if instrument is None:
            try:
                instrument = await self.instrument(signal.symbol)
            except OrderRejectedError as error:
                return self._denied(
                    signal, DenialCode.SYMBOL_UNKNOWN, symbol=signal.symbol, reason=error
                )
            except (ExchangeError, TimeoutError, OSError) as error:
                return self._denied(signal, DenialCode.VENUE_UNAVAILABLE, reason=error)
        ticket = await first_ticket(self.desk, signal, signal_id, instrument, lambda: self.account)
        if isinstance(ticket, Denial):
            return denied(signal, signal_id, ticket, self.desk.clock.now())
        return await self.parts.pipeline(ticket)

    async def _tell(self, result: ExecutionResult, digest: str) -> ExecutionResult:
        """Journal the result before the caller hears of it."""
        recorder = self.desk.recorder
        recorder.record(to_record(result, digest))
        if result.outcome is Outcome.DENIED:
            recorder.announce(
                SignalDenied(
                    at=self.desk.clock.now(),
                    signal_id=result.signal_id,
                    symbol=result.symbol,
                    reason=result.reason,
                )
            )
        try:
            await recorder.settle()
        except JournalCommitError as error:
            return result.with_alert(f"this result is not durable: {error}")
        return result

    def _denied(self, signal: TradingSignal, code: DenialCode, **why: object) -> ExecutionResult:
        now = self.desk.clock.now()
        return denied(signal, signal.signal_id or "", Denial.of(code, **why), now)

    async def _resubmit(self, queued: SignalQueued) -> None:
        """Run a signal that waited for its market."""
        if queued.signal_id in self._in_flight:
            return  # the chain that put it in the queue has not ended yet
        # It leaves the queue with its new intent or its result, so nothing between can lose it.
        signal = self.parts.decode_signal(queued)
        await self._run(signal, queued.signal_id, queued.signal_digest, queued=True)

    # -- bars ------------------------------------------------------------------------------------------

    async def on_bar(self, bar: BarData) -> None:
        """Give a finished one-minute bar to the plans' functions and to the targets of open positions."""
        await self.parts.on_bar(bar)

    # -- reading ---------------------------------------------------------------------------------------

    @property
    def book(self) -> Book:
        """All state: the fold of the journal."""
        return self.desk.book

    @property
    def positions(self) -> Mapping[str, Position]:
        """Open positions by symbol, and those whose entry waits for its first fill."""
        return self.book.open_positions()

    @property
    def account(self) -> AccountView:
        """The account at the last known prices."""
        return self.book.account(self.parts.currency, self.desk.ledger.reserved_cash)

    @property
    def trading_state(self) -> TradingState:
        """What may be sent at all: active, reducing or halted."""
        return self.book.trading_state

    @property
    def market(self) -> MarketHours:
        """Market states by symbol: `await engine.market.next_open("AAPL")`."""
        return self.desk.market

    async def instrument(self, symbol: str) -> Instrument:
        """Return a symbol's rules; they are fetched once, and again when they changed or the market was closed."""
        found = self._rules.known(symbol)
        if found is None:
            found = await self.desk.reads(self._rules.fetch, RULES_SECONDS, symbol)
            self.desk.quotes.want(symbol)
        return found

    def __repr__(self) -> str:
        return f"ExecutionEngine({self.settings.exchange!r}, {'running' if self._running else 'stopped'})"

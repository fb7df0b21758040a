"""Runs trade plans on bars: builds the longer bars, asks the functions at each close, hands their signals over.

A close fires once, in order, never late, also across a restart: the journal's `BarClosed` record says that it was
used, and what it owes is in the same record, so nothing is lost between the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

import msgspec
import structlog

from execkit.bars.aggregate import BarAggregator
from execkit.bars.answers import problem_of, shown, stop_moved
from execkit.bars.cache import MarketDataCache
from execkit.bars.closes import AgeLimits, BarSkip
from execkit.bars.evaluation import FunctionUse, Watchdog
from execkit.bars.plan_run import Plan, PlanRun
from execkit.bars.rounds import Moment, Round
from execkit.bars.sessions import Hours, HoursOf, hours_by_symbol
from execkit.clock import Clock
from execkit.errors import ConfigurationError, ExecKitError, SignalConflictError
from execkit.functions.base import ExecutionContext, to_trading_signal
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.model.account import AccountView
from execkit.model.market import BarData, Timeframe
from execkit.model.plan import TradePlanStatus
from execkit.model.position import Position, PositionState
from execkit.model.records import Alarm, BarSkipped, Record
from execkit.model.result import ExecutionResult
from execkit.model.signal import TradingSignal
from execkit.orders.book import Book

log = structlog.get_logger("execkit")

BUDGET: Final = timedelta(milliseconds=100)
_INSTANT: Final = timedelta(microseconds=1)


class _Market:
    """One symbol: the plans on it, and how far its bars have come."""

    def __init__(self, base: Timeframe, runs: list[PlanRun], hours: Hours) -> None:
        self.runs = runs
        self.hours = hours
        self.used = {use.timeframe for run in runs for use in run.uses}
        self.aggregator = BarAggregator(base, self.used, hours)
        self.last: datetime | None = None
        self.lock = asyncio.Lock()


class BarRunner:
    """Drives plans with finished bars of one short timeframe.

    Args:
        registry: Where the plans' functions are found.
        plans: What to run; several may watch one symbol.
        cache: Keeps the bars that the functions see.
        book: Positions, and what was fired and owed before.
        submit: Takes a signal, e.g. `engine.submit`.
        record: Journals a record, e.g. `Recorder.record`.
        account: Returns the account as it stands.
        clock: Wall time, for the age of a bar.
        base: Timeframe of the bars that come in.
        budget: Time that one evaluation may take.
        max_age: A close older than this when its bar arrives is recorded and fires nothing; None: what `AgeLimits`
            says of its timeframe. A signal is not sent later than that either; time in which the market is closed
            does not count.
        hours: When the markets trade, all of them or each; by default always.

    Raises `ConfigurationError` or `RegistrationError` naming plan and rule when a function cannot be made.
    """

    def __init__(
        self,
        *,
        registry: ExecutionFunctionRegistry,
        plans: Iterable[Plan],
        cache: MarketDataCache,
        book: Book,
        submit: Callable[[TradingSignal], Awaitable[ExecutionResult]],
        record: Callable[[Record], object],
        account: Callable[[], AccountView],
        clock: Clock,
        base: Timeframe = Timeframe.M1,
        budget: timedelta = BUDGET,
        max_age: timedelta | None = None,
        hours: Hours | HoursOf | None = None,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._book = book
        self._submit = submit
        self._record = record
        self._account = account
        self._clock = clock
        self._budget = budget.total_seconds()
        self.ages = AgeLimits(max_age)
        self._spawn: Callable[[Coroutine[Any, Any, None]], object] | None = None
        self._under_way: set[str] = set()
        self.base = base
        self.hours_of = hours_by_symbol(hours)
        self._runs: dict[str, PlanRun] = {}
        for plan in plans:
            if plan.name in self._runs:
                raise ConfigurationError(f"plans: two are named {plan.name!r}; rename one")
            self._runs[plan.name] = PlanRun(plan, registry, book, record)
        by_symbol: dict[str, list[PlanRun]] = {}
        for run in self._runs.values():
            by_symbol.setdefault(run.plan.symbol, []).append(run)
        self._markets = {
            symbol: _Market(base, runs, self.hours_of(symbol)) for symbol, runs in by_symbol.items()
        }

    def go_live(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Hand signals over beside everything else, by *spawn*, so that no market waits for another's order.

        A plan whose signal is under way is not asked meanwhile. Without this they are waited for, as in a replay.
        """
        self._spawn = spawn

    # -- bars ------------------------------------------------------------------------------------------

    async def on_bar(self, bar: BarData) -> None:
        """Use the next finished bar; returns when its signals were handed over.

        Bars of one symbol are worked off one after the other. One that is not newer than the last changes the cached
        data at most; an impossible one is refused and logged.
        """
        market = self._markets.get(bar.symbol)
        if market is None:
            return
        async with market.lock:
            last = market.last
            taken = self._take(market, bar)
            if taken and last is not None:
                self._note_gap(market.hours, last, bar)
            for close_time, bars in groupby(taken, key=_close_time):
                await self._close(market, close_time, list(bars))

    def correct(self, bar: BarData) -> None:
        """Take in a bar that came late or again: it changes data, also of longer bars, and nobody is asked."""
        market = self._markets.get(bar.symbol)
        if market is not None:
            for each in [bar, *market.aggregator.correct(bar)]:
                self._cache.append(each)

    async def on_empty(self, symbol: str, close_time: datetime) -> None:
        """Know that nothing was traded up to a close: longer bars that end with it are final."""
        market = self._markets.get(symbol)
        if market is None or (market.last is not None and close_time <= market.last):
            return
        async with market.lock:
            if self.base in market.used:
                self._record_skip(symbol, self.base, close_time, close_time, "nothing was traded")
            market.last = close_time
            for at, bars in groupby(market.aggregator.advance(close_time), key=_close_time):
                await self._close(market, at, list(bars))

    def clock_stepped(self) -> None:
        """Forget empty closes of a time that is still to come: a clock that ran ahead has told them."""
        now = self._clock.now()
        for symbol, market in self._markets.items():
            known = self._cache.history(symbol, self.base)
            proven = known[-1].close_time if known else None
            if market.last is not None and market.last > now and market.last != proven:
                market.last = None
                market.aggregator = BarAggregator(self.base, market.used, market.hours)
                self.warm_up(known)

    def on_skip(self, skip: BarSkip) -> None:
        """Record for each timeframe in use that closes fire nothing."""
        market = self._markets.get(skip.symbol)
        if market is None:
            return
        for timeframe in sorted(market.used, key=lambda each: each.seconds):
            fired = self._book.fired.get((skip.symbol, str(timeframe)))
            after = max(filter(None, (fired, skip.first - _INSTANT)))
            first = market.hours.next_close(timeframe, after)
            if first <= skip.last:
                last = market.hours.previous_close(timeframe, skip.last)
                self._record_skip(skip.symbol, timeframe, first, last, skip.reason)

    def _record_skip(
        self, symbol: str, timeframe: Timeframe, first: datetime, last: datetime, reason: str
    ) -> None:
        self._record(
            BarSkipped(
                symbol=symbol, timeframe=str(timeframe), first=first, last=last, reason=reason
            )
        )

    @property
    def timeframes(self) -> set[Timeframe]:
        """Everything that the plans use."""
        return {timeframe for market in self._markets.values() for timeframe in market.used}

    @property
    def symbols(self) -> list[str]:
        """Everything that the plans trade."""
        return list(self._markets)

    def last_bar(self, symbol: str) -> datetime | None:
        """Return up to when the bars of a symbol are in."""
        market = self._markets.get(symbol)
        return None if market is None else market.last

    def warm_up(self, bars: Iterable[BarData]) -> None:
        """Let bars of the past build history and longer bars, without asking anybody.

        Longer bars among them, of before the first short one, are history as they are.
        """
        for bar in bars:
            market = self._markets.get(bar.symbol)
            if market is not None and bar.timeframe is not self.base:
                self._cache.append(bar)
            elif market is not None:
                for each in self._take(market, bar):
                    self._cache.append(each)

    async def settle(self) -> None:
        """Hand over the signals that are still owed; once, after a restart and before the next bar."""
        for text in list(self._book.owed.values()):
            await self._send(msgspec.json.decode(text, type=TradingSignal))

    def _note_gap(self, hours: Hours, last: datetime, bar: BarData) -> None:
        expected = hours.next_close(bar.timeframe, last)
        if bar.close_time <= expected:
            return
        missing = sum(1 for _ in hours.closes(bar.timeframe, last, bar.open_time))
        text = f"{missing} {bar.timeframe} bars are missing before {bar.open_time.isoformat()}"
        log.warning("bars.missing", symbol=bar.symbol, text=text)
        self._record(
            Alarm(code="BARS_MISSING", text=f"{text}; nothing was asked", symbol=bar.symbol)
        )

    def _take(self, market: _Market, bar: BarData) -> list[BarData]:
        """Return the bar and the longer ones that are final with it, in the order of their closes."""
        if market.last is not None and bar.close_time <= market.last:
            self.correct(bar)
            log.info("bar.not_newer", symbol=bar.symbol, close_time=bar.close_time.isoformat())
            return []
        try:
            longer = market.aggregator.add(bar.checked())
        except ConfigurationError as error:
            log.warning("bar.refused", symbol=bar.symbol, error=str(error))
            return []
        market.last = bar.close_time
        return sorted([bar, *longer], key=_close_time)

    async def _close(self, market: _Market, close_time: datetime, bars: list[BarData]) -> None:
        """Ask everybody about the bars that closed at one moment; journal it; then send."""
        rounds = []
        for bar in bars:
            self._cache.append(bar)
            last = self._book.fired.get((bar.symbol, str(bar.timeframe)))
            if bar.timeframe in market.used and (last is None or close_time > last):
                rounds.append(Round(bar))
        if not rounds:
            return
        position = self._book.position(rounds[0].bar.symbol)
        if position is not None:
            position = shown(position, bars)
        asked = [(run, run.asked(position)) for run in market.runs]
        at = self._clock.now()
        age = at - close_time
        acted: set[PlanRun] = set()
        with Watchdog(self._budget) as watchdog:
            moment = Moment(position, self._account(), at, watchdog)
            for now in rounds:
                limit = self.ages.of(now.bar.timeframe)
                late = f"closed {age} ago, more than {limit}" if age > limit else ""
                for run, uses in asked:
                    for use in uses:
                        if use.timeframe is not now.bar.timeframe:
                            continue
                        reason = late or self._obstacle(use, now, position)
                        if not reason and run in acted:
                            reason = "the plan acts on this close already"
                        if reason:
                            now.skip(use, reason)
                        elif await self._ask(run, use, now, moment):
                            acted.add(run)
        for now in rounds:
            self._record(now.to_record(position, moment.account))
        for now in rounds:
            for move in now.moves:
                self._record(move)
            for signal in now.signals:
                if self._spawn is None:
                    await self._send(signal)
                else:
                    self._under_way.add(signal.source)
                    self._spawn(self._send(signal))

    # -- functions -------------------------------------------------------------------------------------

    def _obstacle(self, use: FunctionUse, now: Round, position: Position | None) -> str:
        """Return why a function is not asked now, or nothing."""
        if not all(map(self._registry.is_enabled, use.names)):
            return "disabled"
        if position is not None and position.state is PositionState.PENDING_EXIT:
            return "an exit is under way"
        if f"plan:{use.plan}" in self._under_way:
            return "the signal of an earlier close is still under way"
        if use.is_resting(asyncio.get_running_loop().time()):
            return f"left alone after {use.failures_in_a_row} failures: {use.last_error}"
        bars = len(self._cache.history(now.bar.symbol, use.timeframe))
        if bars < use.lookback:
            return f"has {bars} of {use.lookback} bars"
        return ""

    async def _ask(self, run: PlanRun, use: FunctionUse, now: Round, moment: Moment) -> bool:
        """Ask one function, and return whether its answer is an order."""
        bar = now.bar
        history, hours = self._cache.history(bar.symbol, bar.timeframe), self.hours_of(bar.symbol)
        context = ExecutionContext(
            plan=run.plan.name,
            symbol=bar.symbol,
            timeframe=bar.timeframe,
            bar=bar,
            history=history,
            parameters=use.function.params,
            position=moment.position,
            account=moment.account,
            timestamp=moment.at,
        )
        answer = await use.ask(context, moment.watchdog)
        problem = use.last_error if answer is None else problem_of(answer, context)
        signal = None
        if answer is not None and not problem and answer.action.is_order:
            try:
                stop, target = run.plan.levels(answer.action, bar.close)
                signal = to_trading_signal(
                    answer,
                    context,
                    use.name,
                    stop_loss=stop if answer.stop_loss is None else answer.stop_loss,
                    take_profit=target if answer.take_profit is None else answer.take_profit,
                    exchange=run.plan.exchange,
                    max_age=self.ages.of(bar.timeframe) + hours.closed_for(moment.at),
                )
                now.signals.append(signal)
            except (ConfigurationError, ArithmeticError) as error:
                problem = f"makes no signal: {error}"  # e.g. its stop-loss would be at zero
        elif answer is not None and not problem and answer.new_stop is not None:
            now.moves.append(stop_moved(answer, context, use.name))
        now.add(use, answer, problem, bars=len(history), signal=signal)
        return signal is not None

    async def _send(self, signal: TradingSignal) -> None:
        try:
            await self._submit(signal)
        except SignalConflictError as error:
            run = self._runs.get(signal.source.removeprefix("plan:"))
            if run is not None:
                run.set_status(TradePlanStatus.ERROR, str(error))
        except ExecKitError as error:
            # E.g. the engine is stopping. The signal stays owed.
            log.warning("plan.signal_not_taken", signal_id=signal.signal_id, error=str(error))
        finally:
            self._under_way.discard(signal.source)

    # -- reading ---------------------------------------------------------------------------------------

    def status(self, plan: str) -> TradePlanStatus:
        """Return where a plan stands."""
        return self._run(plan).status

    def set_status(self, plan: str, status: TradePlanStatus, reason: str) -> None:
        """Put a plan into a status, e.g. CANCELLED, or AWAITING_ENTRY to arm it again; it is journalled."""
        self._run(plan).set_status(status, reason)

    def _run(self, plan: str) -> PlanRun:
        if plan not in self._runs:
            raise ConfigurationError(
                f"plan: {plan!r} is unknown; there are: {', '.join(self._runs) or 'none'}"
            )
        return self._runs[plan]

    @property
    def health(self) -> list[FunctionUse]:
        """Every function at work, with its counts, last evaluation and last error."""
        return [use for run in self._runs.values() for use in run.uses]

    def last_evaluated(self, function: str) -> datetime | None:
        """Return when a function was last asked, in whatever plan."""
        times = [use.last_evaluated for use in self.health if use.name == function]
        return max((at for at in times if at is not None), default=None)


def _close_time(bar: BarData) -> datetime:
    return bar.close_time

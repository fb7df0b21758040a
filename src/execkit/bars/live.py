"""Trade plans on live market data: the feed brings bars, the detector says when they close, the runner asks functions.

What it does at a close is what a replay does at the same bar, so the same plan decides the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import attrs
import structlog

from execkit.bars.cache import MarketDataCache
from execkit.bars.closes import AgeLimits, BarCloseEvent, LatenessStats
from execkit.bars.detector import BarCloseDetector
from execkit.bars.feed import FORGOTTEN, BarFeed, Source
from execkit.bars.quality import MAX_MOVE_PCT, BarFinding, BarIssue
from execkit.bars.runner import BarRunner
from execkit.bars.sessions import Hours, HoursOf, ListedHours, Session, agrees, heed
from execkit.calendars import ALWAYS, DEFAULT_CALENDAR, DEFAULT_TIMEZONE, market_hours
from execkit.exchanges.base import MarketPhase
from execkit.handlers.desk import Desk
from execkit.model.market import BarData, Timeframe
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_KEPT: Final = 240
"""Bars that the feed keeps for itself; the plans' functions have the runner's own."""
_ALARMING: Final = frozenset(
    {
        BarIssue.STALE,
        BarIssue.ABSURD_PRICE,
        BarIssue.IMPOSSIBLE,
        BarIssue.OFF_GRID,
        BarIssue.FUTURE,
        BarIssue.UNAVAILABLE,
    }
)
_ALARM_AGAIN: Final = timedelta(hours=1)
_STATUS_SECONDS: Final = 10.0


@attrs.frozen(kw_only=True)
class LiveOptions:
    """How live market data is used; see `BarCloseDetector` and `BarFeed` for the fields that they share."""

    calendar: str | None = None
    """Exchange whose sessions count, `24/7` for none; None: 24/7 in UTC where the venue never closes, else New York's.

    A plan that states a calendar has that one."""
    timezone: str = DEFAULT_TIMEZONE
    market_hours_only: bool = True
    source: Source = "auto"
    accuracy: timedelta = timedelta(milliseconds=500)
    schedule_advance: timedelta = timedelta(milliseconds=100)
    grace: timedelta = timedelta(milliseconds=100)
    """Only bars that are built here from trades wait so long for the last of them."""
    patience: timedelta = timedelta(seconds=2)
    max_age: timedelta | None = None
    """None: as old as `AgeLimits` says; by it a day's close is told after a minute without the process, too."""
    backfill: int = 100
    corrections: Mapping[str, Mapping[date, Session | None]] = attrs.field(factory=dict)
    """Days of a calendar that are not as it says, by the calendar's name; None: the exchange is closed all day."""
    max_move_pct: Decimal = MAX_MOVE_PCT
    status_every: timedelta = timedelta(seconds=30)
    """How often a session market's own clock is compared with the calendar.

    It wins when it says the same of all markets, twice; what is said of some of them only changes nobody's hours.
    """

    def hours(
        self, calendars: Mapping[str, str] | None = None, *, always_open: bool = True
    ) -> HoursOf:
        """Return the hours of each symbol, for the runner too.

        *calendars* are those that symbols have of their own, *always_open* is as the venue's capabilities say.
        """
        usual = self.calendar or (ALWAYS if always_open else DEFAULT_CALENDAR)
        stated, made = dict(calendars or {}), dict[str, Hours]()
        for name in {usual, *stated.values()}:
            hours = made[name] = market_hours(
                name, timezone=self.timezone, market_hours_only=self.market_hours_only
            )
            if isinstance(hours, ListedHours):
                for day, session in self.corrections.get(name, {}).items():
                    hours.amend(day, session)
        return lambda symbol: made[stated.get(symbol, usual)]


class _Ages(AgeLimits):
    """The limit of a short bar's close is that of the longest bar that a plan uses and that closes with it."""

    def __init__(self, runner: BarRunner, stated: timedelta | None) -> None:
        super().__init__(stated)
        self._timeframes = runner.timeframes
        self._hours = {runner.hours_of(symbol) for symbol in runner.symbols}

    def at(self, timeframe: Timeframe, close: datetime) -> timedelta:
        """Return the limit of one close."""
        ends = {
            longer
            for longer in self._timeframes
            for hours in self._hours
            if hours.is_close(longer, close)
        }
        return max(map(self.of, {timeframe, *ends}))


class LiveBars:
    """Runs a `BarRunner` on the live bars of the engine's venue.

    Args:
        runner: The plans at work; its hours are those of the market.
        desk: The engine's parts.
        spawn: Runs a coroutine as one of the engine's tasks, e.g. `Upkeep.spawn`.
        after: Called after the closes of one moment, once for all of them: makes durable what they recorded.
        options: See `LiveOptions`.
    """

    def __init__(
        self,
        runner: BarRunner,
        desk: Desk,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
        after: Callable[[], Awaitable[object]] | None = None,
        options: LiveOptions | None = None,
    ) -> None:
        options = options or LiveOptions()
        self._runner = runner
        self._desk = desk
        self._spawn = spawn
        self._after = after or desk.recorder.settle
        self._options = options
        self._ages = _Ages(runner, options.max_age)
        self._settling = False
        self._alarmed: dict[tuple[str, str], datetime] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.feed = BarFeed(
            desk.adapter,
            runner.symbols,
            timeframes=runner.timeframes,
            base=runner.base,
            hours=runner.hours_of,
            clock=desk.clock,
            source=options.source,
            cache=MarketDataCache(_KEPT),
            backfill=options.backfill,
            max_move_pct=options.max_move_pct,
            rng=desk.rng,
            on_history=self._warm_up,
            on_correction=self._correct,
            on_finding=self._find,
        )
        self.detector = BarCloseDetector(
            self.feed,
            clock=desk.clock,
            accuracy=options.accuracy,
            schedule_advance=options.schedule_advance,
            grace=options.grace if self.feed.uses_trades else timedelta(0),
            patience=options.patience,
            max_age=self._ages,
            budget=None,  # each evaluation has its own
            fired=self._fired,
            on_skip=runner.on_skip,
            on_step=self._stepped,
        )
        self.feed.on_data = self.detector.deliver
        self._symbols: dict[Hours, list[str]] = {}
        for symbol in runner.symbols:
            self._symbols.setdefault(runner.hours_of(symbol), []).append(symbol)
        for hours, symbols in self._symbols.items():
            self.detector.watch(symbols, runner.base, self._on_close, hours=hours)

    @property
    def stats(self) -> LatenessStats:
        """How late closes were told."""
        return self.detector.stats

    async def start(self) -> None:
        """Fetch the past, and ask the plans at each close from now on."""
        self._runner.go_live(lambda work: self._spawn(work, "signal"))
        await self.feed.start()
        await self.detector.start()
        loop = asyncio.get_running_loop()
        for hours in self._symbols:
            if isinstance(hours, ListedHours):
                self._tasks.append(loop.create_task(self._compare_hours(hours)))

    async def stop(self) -> None:
        """Ask nobody any more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.detector.stop()
        await self.feed.stop()

    # -- closes ----------------------------------------------------------------------------------------

    def _fired(self, symbol: str, _base: Timeframe) -> datetime | None:
        """Return the last close that fired in any timeframe; the runner knows of each by itself."""
        fired = self._desk.book.fired
        times = [fired.get((symbol, str(timeframe))) for timeframe in self._runner.timeframes]
        return max((at for at in times if at is not None), default=None)

    def _warm_up(self, bars: Sequence[BarData]) -> None:
        """Give the past to the runner, up to the first close that is young enough to fire."""
        now, first = self._desk.clock.now(), datetime.max.replace(tzinfo=UTC)
        for bar in bars:
            close = bar.close_time
            if bar.timeframe is self._runner.base and now - close <= self._ages.at(
                bar.timeframe, close
            ):
                first = min(first, close)
        self._runner.warm_up(bar for bar in bars if bar.close_time < first)

    async def _on_close(self, event: BarCloseEvent) -> None:
        runner, desk, symbol = self._runner, self._desk, event.symbol
        last = runner.last_bar(symbol)
        if last is None or last + runner.base.duration != event.close_time:
            # Bars that fired nothing, of before the start or of a while without a stream, are data all the same.
            before = self.feed.cache.history(symbol, runner.base, until=event.close_time)
            runner.warm_up(
                bar
                for bar in before
                if bar.close_time < event.close_time and (last is None or bar.close_time > last)
            )
        if event.bar is None:
            await runner.on_empty(symbol, event.close_time)
        else:
            desk.book.marks[symbol] = event.bar.close
            desk.keeper.on_bar(event.bar)
            await asyncio.sleep(
                0
            )  # an exit that begins now is known before the functions are asked
            await runner.on_bar(event.bar)
        if not self._settling:
            self._settling = True
            self._spawn(self._settle(), "bars")

    async def _settle(self) -> None:
        self._settling = False
        self._desk.bars.drop_stale(self._desk.clock.now() - FORGOTTEN)
        await self._after()

    def _correct(self, bar: BarData) -> None:
        last = self._runner.last_bar(bar.symbol)
        if last is not None and bar.close_time <= last:
            self._runner.correct(bar)  # a newer one reaches the runner at its close, corrected

    # -- trouble ---------------------------------------------------------------------------------------

    def _find(self, finding: BarFinding) -> None:
        if finding.issue not in _ALARMING:
            return
        key, now = (finding.symbol, finding.issue.value), self._desk.clock.now()
        last = self._alarmed.get(key)
        if last is None or not timedelta(0) <= now - last < _ALARM_AGAIN:
            self._alarmed[key] = now
            text = f"{finding.timeframe} bar at {finding.at.isoformat()}: {finding.issue}: {finding.text}"
            self._desk.recorder.alarm("BAR_DATA", text, symbol=finding.symbol)

    def _stepped(self, jump: timedelta) -> None:
        """The clock was set or the machine slept: what happened meanwhile is fetched."""
        text = f"the clock jumped by {jump.total_seconds():.0f} s: set, or the machine slept"
        self._desk.recorder.alarm("CLOCK_JUMPED", text)
        self.feed.clock_stepped()
        self._runner.clock_stepped()
        self._spawn(self.feed.resync(), "bars after a jump of the clock")
        self._spawn(self._desk.reconciler.try_run(), "orders after a jump of the clock")

    async def _compare_hours(self, hours: ListedHours) -> None:
        """Compare the calendar with what the venue says of its markets; the venue wins when it says it twice."""
        said = None
        while True:
            await asyncio.sleep(self._options.status_every.total_seconds())
            try:
                again, said = said, await self._objection(hours)
                if said is not None and said == again:
                    self._heed(hours, *said)
            except Exception as error:  # noqa: BLE001 - asked again
                log.warning("market.status_failed", error=shown(error))

    async def _objection(self, hours: ListedHours) -> tuple[bool, datetime | None] | None:
        """Return what the venue says otherwise than the calendar: only what is so in every market is of the hours."""
        told = set()
        for symbol in self._symbols[hours]:
            desk = self._desk
            status = await desk.gateway.pace.ask(
                desk.adapter.market_status, _STATUS_SECONDS, symbol
            )
            if status.phase is MarketPhase.HALTED:
                continue
            now, is_open, next_close = self._desk.clock.now(), status.is_open, status.next_close
            if agrees(hours, now, is_open=is_open, next_close=next_close):
                return None
            told.add((is_open, next_close))
        return told.pop() if len(told) == 1 else None

    def _heed(self, hours: ListedHours, is_open: bool, next_close: datetime | None) -> None:
        changed = heed(hours, self._desk.clock.now(), is_open=is_open, next_close=next_close)
        if changed is not None:
            self._desk.recorder.alarm("MARKET_HOURS", f"the venue's clock wins: {changed}")
            self.detector.reschedule()

    def __repr__(self) -> str:
        return f"LiveBars({self.feed!r}, {self.detector!r})"

"""Tells when bars close: on time, once, in order, never early; and says of every close how late it was told.

One timer stands for the next boundary, however many streams close there, and all of them are handed over in one batch
by one task. The wall clock decides what has closed, and is read anew at least each second, because the loop's timers
know nothing of a clock that was set or a machine that slept. What that has made too old is skipped, with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from execkit.bars.closes import AgeLimits, BarSkip, BarSource, Lateness, LatenessStats
from execkit.bars.handover import Callback, Handover, Stream
from execkit.bars.sessions import Hours
from execkit.calendars import DEFAULT_TIMEZONE, market_hours
from execkit.clock import Clock, SystemClock
from execkit.errors import ConfigurationError
from execkit.model.instrument import check_symbol
from execkit.model.market import Timeframe
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_HEARTBEAT: Final = 1.0
"""Seconds after which the wall clock is looked at again, at the latest."""
_STEP: Final = timedelta(seconds=1)
"""A difference between wall clock and loop from which it is a jump, not drift."""
_INSTANT: Final = timedelta(microseconds=1)
_NEVER: Final = datetime(9000, 1, 1, tzinfo=UTC)
_LONGEST_PATIENCE: Final = timedelta(seconds=50)


class _Group:
    """All streams that close at the same moments. *after* is up to when closes are dealt with, *next* the next one."""

    __slots__ = ("after", "hours", "next", "streams", "timeframe")

    def __init__(self, hours: Hours, timeframe: Timeframe) -> None:
        self.hours = hours
        self.timeframe = timeframe
        self.streams: list[Stream] = []

    def begin(self, after: datetime) -> None:
        self.after = after
        try:
            self.next = self.hours.next_close(self.timeframe, after)
        except ConfigurationError as error:
            # Nobody knows when it closes next: the others go on.
            log.error("bars.no_next_close", timeframe=str(self.timeframe), error=str(error))  # noqa: TRY400
            self.next = _NEVER

    def last_close(self, at: datetime) -> datetime:
        try:
            return self.hours.previous_close(self.timeframe, at)
        except ConfigurationError:
            return at  # the calendar has ended: nobody knows a better one


class _Skips:
    """Closes that are too old, told as one for each run of them."""

    def __init__(self, reason: str, handover: Handover) -> None:
        self._reason = f"too old: {reason}"
        self._handover = handover
        self._run: tuple[datetime, datetime] | None = None

    def add(self, first: datetime, last: datetime) -> None:
        self._run = (first if self._run is None else self._run[0], last)

    def tell(self, streams: Iterable[Stream]) -> None:
        """Tell these streams of the run, if there is one."""
        run, self._run = self._run, None
        if run is not None:
            for stream in streams:
                self._handover.skip(stream, *run, self._reason)


class BarCloseDetector:
    """Calls back at the close of bars, for any number of symbols and timeframes.

    Args:
        source: Where the bars come from; None: the detector is a clock, and its events carry no bars.
        calendar: Exchange whose sessions count, e.g. `XNYS`; None: 24/7 in UTC, as for crypto.
        timezone: Zone in which days begin on a session market, without *market_hours_only*.
        market_hours_only: Whether bars on a session market are those of its regular sessions.
        hours: Hours made otherwise, in place of the three before.
        clock: Wall time.
        accuracy: Lateness from which a close counts as late.
        schedule_advance: How long before a close the clock is read for the last time and the exact timer set.
        grace: How long a close waits for the last trades to come in. The lateness counts from the true close.
        patience: How long after its close a bar is waited for that the source says is still to come.
        max_age: Closes older than this, after a suspend or a blocked loop, fire nothing; None: what `AgeLimits` says.
        budget: Time after which an async callback that still waits is cancelled, at twice of it at the latest; None:
            never.
        fired: Tells the last close that fired before a restart, e.g. from the journal.
        on_skip: Called with each close that fires nothing.
        on_step: Called with the size of each jump of the wall clock.

    Callbacks are plain or async; they are awaited one after the other, without a task for each. One that fails is
    logged and counted, and the others go on.
    """

    def __init__(
        self,
        source: BarSource | None = None,
        *,
        calendar: str | None = None,
        timezone: str = DEFAULT_TIMEZONE,
        market_hours_only: bool = True,
        hours: Hours | None = None,
        clock: Clock | None = None,
        accuracy: timedelta = timedelta(milliseconds=500),
        schedule_advance: timedelta = timedelta(milliseconds=100),
        grace: timedelta = timedelta(0),
        patience: timedelta = timedelta(seconds=2),
        max_age: timedelta | AgeLimits | None = None,
        budget: timedelta | None = timedelta(seconds=1),
        fired: Callable[[str, Timeframe], datetime | None] = lambda _symbol, _timeframe: None,
        on_skip: Callable[[BarSkip], object] | None = None,
        on_step: Callable[[timedelta], object] | None = None,
    ) -> None:
        self._ages = max_age if isinstance(max_age, AgeLimits) else AgeLimits(max_age)
        named = {
            "accuracy": accuracy,
            "schedule_advance": schedule_advance,
            "grace": grace,
            "patience": patience,
        }
        for name, value in named.items():
            if value < timedelta(0):
                raise ConfigurationError(f"{name}: {value} must not be negative")
        longest = min(_LONGEST_PATIENCE, self._ages.least)
        if not grace <= patience <= longest:
            raise ConfigurationError(
                f"patience: {patience} must lie between grace, {grace}, and {longest}"
            )
        self.hours = hours or market_hours(
            calendar, timezone=timezone, market_hours_only=market_hours_only
        )
        self._clock: Clock = clock or SystemClock()
        self._advance = schedule_advance.total_seconds()
        self._grace = grace
        self._fired = fired
        self._on_step = on_step
        self._lateness = Lateness(accuracy)
        self._handover = Handover(
            source,
            self._clock,
            self._lateness,
            patience=patience,
            ages=self._ages,
            budget=budget,
            on_skip=on_skip,
        )
        self._groups: dict[tuple[Hours, Timeframe], _Group] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._merged: dict[tuple[_Group, ...], list[Stream]] = {}
        self._running = False

    # -- what is watched -------------------------------------------------------------------------------

    def watch(
        self,
        symbols: str | Iterable[str],
        timeframes: str | Timeframe | Iterable[str | Timeframe],
        callback: Callback,
        *,
        hours: Hours | None = None,
    ) -> Callable[[], None]:
        """Call back at each close of these symbols in these timeframes; return a function that ends it.

        *hours* are those of other markets than the detector's own.
        """
        names = [symbols] if isinstance(symbols, str) else list(symbols)
        frames = [timeframes] if isinstance(timeframes, (str, Timeframe)) else list(timeframes)
        added = []
        for frame in dict.fromkeys(map(Timeframe.parse, frames)):
            key = (hours or self.hours, frame)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(*key)
                if self._running:
                    group.begin(self._clock.now() - self._grace)
            for symbol in names:
                stream = Stream(check_symbol("symbol", symbol), frame, callback)
                group.streams.append(stream)
                added.append((group, stream))
                if self._running:
                    self._catch_up(group, stream)
        self._merged.clear()
        self._arm()

        def unwatch() -> None:
            self._merged.clear()
            for group, stream in added:
                if stream in group.streams:
                    group.streams = [each for each in group.streams if each is not stream]

        return unwatch

    def __len__(self) -> int:
        return sum(len(group.streams) for group in self._groups.values())

    @property
    def stats(self) -> LatenessStats:
        """How late closes were told, and what went wrong."""
        return self._lateness.stats()

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin. Closes that a restart has passed over fire now if they are young enough, and are skipped if not."""
        if self._running:
            return
        self._running = True
        self._loop = asyncio.get_running_loop()
        self._wall, self._mono = self._clock.now(), self._loop.time()
        self._handover.start()
        for group in self._groups.values():
            group.begin(self._wall - self._grace)
            for stream in group.streams:
                self._catch_up(group, stream)
        self._arm()

    async def stop(self) -> None:
        """End; a batch under way is cut off."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        await self._handover.stop()

    def _catch_up(self, group: _Group, stream: Stream) -> None:
        """Deal with what closed between the last close that fired, before a restart, and now."""
        stream.last = stream.proven = self._fired(stream.symbol, stream.timeframe)
        if stream.last is None or group.next == _NEVER:
            return
        skips = _Skips("it closed while nobody was watching", self._handover)
        oldest = group.after - self._ages.most
        first = group.hours.next_close(stream.timeframe, stream.last)
        resumed = group.hours.next_close(stream.timeframe, max(stream.last, oldest))
        if first < min(resumed, group.after):
            last = group.hours.previous_close(stream.timeframe, resumed - _INSTANT)
            skips.add(first, last)
        for close in group.hours.closes(stream.timeframe, max(stream.last, oldest), group.after):
            if self._is_too_old(group, close, group.after):
                skips.add(close, close)
            else:
                skips.tell([stream])
                self._handover.put(close, [stream])
        skips.tell([stream])

    def _is_too_old(self, group: _Group, close: datetime, at: datetime) -> bool:
        age = at - close
        return age > self._ages.least and age > self._ages.at(group.timeframe, close)

    # -- time ------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Set the one timer: for the exact close when it is near, else for a look at the clock before it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._running:
            return
        delay = _HEARTBEAT
        if self._groups:
            due = min(group.next for group in self._groups.values())
            left = max((due + self._grace - self._clock.now()).total_seconds(), 0.0)
            delay = left if left <= self._advance else min(left - self._advance, _HEARTBEAT)
            if left <= self._advance:
                # Made ready now, so that there is nothing left to do at the close but to tell it.
                self._together([group for group in self._groups.values() if group.next == due])
        self._planned = self._loop.time() + delay
        self._timer = self._loop.call_at(self._planned, self._wake)

    def _wake(self) -> None:
        self._timer = None
        wall, mono = self._clock.now(), self._loop.time()
        jump = wall - self._wall - timedelta(seconds=mono - self._mono)
        late = timedelta(seconds=mono - self._planned)
        self._wall, self._mono = wall, mono
        reason = "the clock jumped ahead" if jump > _STEP else "the event loop was blocked"
        if abs(jump) > _STEP:
            self._step(jump, wall)
        elif late > self._lateness.accuracy:
            self._lateness.blocked += 1
            self._lateness.longest_block = max(self._lateness.longest_block, late)
            log.warning("bars.loop_blocked", seconds=late.total_seconds())
        try:
            due: dict[datetime, list[_Group]] = {}
            for group in self._groups.values():
                # A timer may come early by a fraction of a millisecond: then nothing is due, and it is set again.
                if group.next + self._grace <= wall:
                    for close in self._due(group, wall, reason):
                        due.setdefault(close, []).append(group)
            for close in sorted(due):
                self._handover.put(close, self._together(due[close]))
        finally:
            self._arm()

    def _step(self, jump: timedelta, wall: datetime) -> None:
        self._lateness.steps += 1
        log.warning("bars.clock_jumped", seconds=jump.total_seconds())
        if jump < timedelta(0):
            # What fired already does not fire again: each stream knows its last close.
            for group in self._groups.values():
                group.begin(wall - self._grace)
                self._handover.rewind(group.streams, wall)
        if self._on_step is not None:
            try:
                self._on_step(jump)
            except Exception as error:  # noqa: BLE001 - an observer never stops the clock
                log.error("bars.observer_failed", error=shown(error))  # noqa: TRY400

    def reschedule(self) -> None:
        """Look at the hours anew, after a session was taken off or changed."""
        for group in self._groups.values():
            group.begin(group.after)
        self._arm()

    def _due(self, group: _Group, wall: datetime, reason: str) -> list[datetime]:
        """Return what has closed; skip what is too old."""
        skips = _Skips(reason, self._handover)
        oldest = wall - self._ages.most
        if group.next < oldest:
            first = group.next
            group.begin(oldest - _INSTANT)
            skips.add(first, group.last_close(min(group.next - _INSTANT, oldest)))
        closes = []
        while group.next + self._grace <= wall:
            if self._is_too_old(group, group.next, wall):
                skips.add(group.next, group.next)
            else:
                skips.tell(group.streams)
                closes.append(group.next)
            group.begin(group.next)
        skips.tell(group.streams)
        return closes

    def _together(self, groups: list[_Group]) -> list[Stream]:
        """Return the streams of groups that close together, symbol by symbol, the short bars before the long."""
        if len(groups) == 1:
            return groups[0].streams
        key = tuple(groups)
        found = self._merged.get(key)
        if found is None:
            by_symbol: dict[str, list[Stream]] = {}
            for group in sorted(groups, key=lambda each: each.timeframe.seconds):
                for stream in group.streams:
                    by_symbol.setdefault(stream.symbol, []).append(stream)
            found = [stream for streams in by_symbol.values() for stream in streams]
            self._merged[key] = found
        return found

    def deliver(self, symbol: str) -> None:
        """Hand over the closes of a symbol that were waited for; a source calls this when a bar has come."""
        self._handover.deliver(symbol)

    def __repr__(self) -> str:
        return f"BarCloseDetector({len(self)} streams, {self.hours!r})"

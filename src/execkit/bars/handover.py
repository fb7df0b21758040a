"""Hands bar closes over to callbacks: in one batch, in order, on final bars, and whatever one callback does."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from types import CoroutineType, TracebackType
from typing import Any, Final, Self

import structlog

from execkit.bars.closes import AgeLimits, BarCloseEvent, BarSkip, BarSource, Lateness, NotYet
from execkit.clock import Clock
from execkit.model.market import Timeframe
from execkit.redaction import shown

log = structlog.get_logger("execkit")

Callback = Callable[[BarCloseEvent], Awaitable[object] | object]

_SLICE: Final = timedelta(milliseconds=8)
"""How long closes are handed over before others may have the loop for a moment."""


class Stream:
    """One symbol and timeframe with the callback that is told."""

    __slots__ = ("callback", "last", "proven", "symbol", "timeframe")

    def __init__(self, symbol: str, timeframe: Timeframe, callback: Callback) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.callback = callback
        self.last: datetime | None = None
        """The last close that fired."""
        self.proven: datetime | None = None
        """The last one that fired with a bar."""


class Handover:
    """One task that tells callbacks of closes; see `BarCloseDetector` for the arguments."""

    def __init__(
        self,
        source: BarSource | None,
        clock: Clock,
        lateness: Lateness,
        *,
        patience: timedelta,
        ages: AgeLimits,
        budget: timedelta | None,
        on_skip: Callable[[BarSkip], object] | None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._lateness = lateness
        self._patience = patience
        self._ages = ages
        self._budget = None if budget is None else budget.total_seconds()
        self._on_skip = on_skip
        self._queue: deque[tuple[datetime, Sequence[Stream], bool]] = deque()
        self._pending: dict[str, list[tuple[datetime, Stream]]] = {}
        self._deadlines: dict[datetime, asyncio.TimerHandle] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to hand over."""
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """End; a batch under way is cut off."""
        task, self._task = self._task, None
        for timer in self._deadlines.values():
            timer.cancel()
        self._deadlines.clear()
        self._pending.clear()
        self._queue.clear()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def put(self, close: datetime, streams: Sequence[Stream], *, final: bool = False) -> None:
        """Hand a close over to these streams, as soon as what came before it is done."""
        self._queue.append((close, streams, final))
        self._work.set()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            # Batches that are due together go in the order of their closes, the short bars before the long.
            due = sorted(self._queue, key=_order)
            self._queue.clear()
            for close, streams, final in due:
                await self._hand_over(close, streams, final=final)

    async def _hand_over(self, close: datetime, streams: Sequence[Stream], *, final: bool) -> None:
        take = None if self._source is None else self._source.take
        pause_at = self._clock.now() - close + _SLICE
        now, ages, measured = self._clock.now, self._ages, list[timedelta]()
        young = ages.least
        with _Watch(self._loop, self._budget) as watch, self._lateness.batch(measured):
            for count, stream in enumerate(streams, 1):
                if stream.last is not None and close <= stream.last:
                    continue
                symbol, timeframe = stream.symbol, stream.timeframe
                try:
                    bar = None if take is None else take(symbol, timeframe, close, final=final)
                    if isinstance(bar, NotYet):
                        self._wait(close, stream, final=final)
                        continue
                    late = now() - close
                    if late > pause_at:
                        await asyncio.sleep(0)
                        late = now() - close
                        pause_at = late + _SLICE
                    if late > young and late > ages.at(timeframe, close):
                        self.skip(stream, close, close, f"told {late} after it closed")
                        continue
                    stream.last = close
                    if bar is not None:
                        stream.proven = close
                    measured.append(late)
                    answer = stream.callback(BarCloseEvent(symbol, timeframe, close, bar, late))
                    if type(answer) is CoroutineType or inspect.isawaitable(answer):
                        watch.waits_for = count
                        await answer
                        watch.waits_for = 0
                except asyncio.CancelledError:
                    if not watch.forgives():
                        raise
                    self._failed(stream, close, f"cancelled, or no end within {self._budget} s")
                except Exception as error:  # noqa: BLE001 - the others must hear of their closes
                    self._failed(stream, close, shown(error))

    def _failed(self, stream: Stream, close: datetime, error: str) -> None:
        self._lateness.failures += 1
        log.error(
            "bars.callback_failed",
            symbol=stream.symbol,
            timeframe=str(stream.timeframe),
            close_time=close.isoformat(),
            error=error,
        )

    def skip(self, stream: Stream, first: datetime, last: datetime, reason: str) -> None:
        """Note that the closes from *first* to *last* fire nothing."""
        self._lateness.skipped += 1
        skip = BarSkip(stream.symbol, stream.timeframe, first, last, reason)
        log.info("bars.skipped", symbol=skip.symbol, timeframe=str(skip.timeframe), reason=reason)
        if self._on_skip is not None:
            try:
                self._on_skip(skip)
            except Exception as error:  # noqa: BLE001 - an observer never stops the clock
                log.error("bars.observer_failed", error=shown(error))  # noqa: TRY400

    # -- bars that are still to come -------------------------------------------------------------------

    def deliver(self, symbol: str) -> None:
        """Hand over the closes of a symbol that were waited for."""
        for close, stream in self._pending.pop(symbol, ()):
            self.put(close, [stream])

    def rewind(self, streams: Sequence[Stream], now: datetime) -> None:
        """Forget empty closes of a time that is still to come: a clock that ran ahead has told them, or waits."""
        for stream in streams:
            if self._source is not None and stream.last is not None and stream.last > now:
                stream.last = stream.proven
            waiting = self._pending.pop(stream.symbol, ())
            kept = [each for each in waiting if each[0] <= now]
            if kept:
                self._pending[stream.symbol] = kept

    def _wait(self, close: datetime, stream: Stream, *, final: bool) -> None:
        left = (close + self._patience - self._clock.now()).total_seconds()
        if final or left <= 0:
            self.skip(stream, close, close, f"no bar came within {self._patience}")
            return
        self._pending.setdefault(stream.symbol, []).append((close, stream))
        if close not in self._deadlines:
            self._deadlines[close] = self._loop.call_later(left, self._give_up, close)

    def _give_up(self, close: datetime) -> None:
        """Let the source say what it knows of the bars of this close that have not come."""
        del self._deadlines[close]
        missing = []
        for symbol, waiting in list(self._pending.items()):
            missing += [stream for at, stream in waiting if at == close]
            kept = [each for each in waiting if each[0] != close]
            if kept:
                self._pending[symbol] = kept
            else:
                del self._pending[symbol]
        if missing:
            missing.sort(key=lambda stream: stream.timeframe.seconds)
            self.put(close, missing, final=True)


def _order(batch: tuple[datetime, Sequence[Stream], bool]) -> tuple[datetime, int]:
    close, streams, _ = batch
    return close, streams[0].timeframe.seconds if streams else 0


class _Watch:
    """Cancels an await that outlasts its budget, with one timer for the whole batch."""

    def __init__(self, loop: asyncio.AbstractEventLoop, budget: float | None) -> None:
        self._loop = loop
        self._budget = budget
        self.waits_for = 0
        """Number of the call that is awaited now."""
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None, "batches run in a task"
        self._task = task
        self._cancels = 0
        self._look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._budget is None:
            return
        if self.waits_for and self.waits_for == self._seen:
            self._cancels += 1
            self._task.cancel()
        self._seen = self.waits_for
        self._timer = self._loop.call_later(self._budget, self._look)

    def forgives(self) -> bool:
        """Tell whether nobody but this watch, or the callback itself, has cancelled; and take back what it did."""
        self.waits_for = 0
        while self._cancels:
            self._cancels -= 1
            self._task.uncancel()
        return self._task.cancelling() == 0

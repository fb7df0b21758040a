"""Several engines as one: an account each, signals routed by exchange, emergencies for all of them at once.

Nothing is shared between the engines but the process: one whose venue is down, hangs or fails disturbs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Final, Self

import structlog

from execkit import at_rest, emergency
from execkit.clock import SystemClock
from execkit.emergency import Remains
from execkit.engine import ExecutionEngine
from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
    ExchangeError,
    ExecKitError,
)
from execkit.model.events import SystemError  # noqa: A004 - promised name
from execkit.model.position import Position
from execkit.model.result import ExecutionResult
from execkit.model.signal import TradingSignal
from execkit.parts import Parts
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_LONGEST_WAIT: Final = 60.0
_WITHIN: Final = timedelta(seconds=30)
Wish = Callable[[ExecutionEngine], Awaitable[None]]

_DOWN: Final = (ExchangeError, OSError, TimeoutError)


class EngineGroup(Mapping[str, ExecutionEngine]):
    """Engines by the names of their exchanges.

    Use it as an async context manager. A venue that cannot be reached at the start is tried again until it can be,
    while the others trade; everything else that is wrong at the start ends it, as a wrong key does. What is wrong only
    when a venue answers at last is told to that engine's observers (`START_FAILED`) and tried again too, but for a key.
    Raises `ConfigurationError` for two exchanges of one name.
    """

    def __init__(self, engines: Iterable[ExecutionEngine]) -> None:
        self._engines: dict[str, ExecutionEngine] = {}
        for engine in engines:
            name = engine.settings.exchange.name
            if name in self._engines:
                raise ConfigurationError(
                    f"engines: two trade on {name!r}; give one exchange another name"
                )
            self._engines[name] = engine
        if not self._engines:
            raise ConfigurationError("engines: there are none; give at least one")
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._journals = {name: asyncio.Lock() for name in self._engines}
        """Held while the journal of an engine is written that does not run: each its own, as each takes its time."""
        self._halts: dict[str, tuple[str, str]] = {}
        """Cause and actor of the halts with which engines are to start."""
        self._told: dict[str, str] = {}
        """Why engines could not be started, as it was told last."""
        self._wishes: dict[str, list[Wish]] = {}
        """What is to be done once a venue answers."""

    def __getitem__(self, name: str) -> ExecutionEngine:
        return self._engines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)

    async def __aenter__(self) -> Self:
        answers = await asyncio.gather(
            *(engine.start() for engine in self._engines.values()), return_exceptions=True
        )
        wrong = [error for error in answers if error is not None and not _is_outage(error)]
        if wrong:
            await self.stop()
            raise wrong[0]
        loop = asyncio.get_running_loop()
        for (name, engine), error in zip(self._engines.items(), answers, strict=True):
            if error is not None:
                log.error("group.venue_down", venue=name, error=shown(error))
                self._starting[name] = loop.create_task(self._start_later(name, engine))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop every engine; one that fails to does not keep the others from it."""
        tasks, self._starting = list(self._starting.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        answers = await asyncio.gather(
            *(engine.stop() for engine in self._engines.values()), return_exceptions=True
        )
        for name, error in zip(self._engines, answers, strict=True):
            if error is not None:
                log.error("group.stop_failed", venue=name, error=shown(error))

    async def _start_later(self, name: str, engine: ExecutionEngine) -> None:
        wait = 1.0
        while True:
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
            try:
                await engine.start(prepare=lambda parts: self._prepare(name, parts))
            except Exception as error:  # noqa: BLE001 - nobody waits for this task: what it meets is told
                if _is_outage(error):
                    log.warning("group.venue_down", venue=name, error=shown(error))
                    continue
                if repr(error) != self._told.get(name):
                    self._told[name] = repr(error)
                    await _tell_failed_start(name, engine, error)
                if isinstance(error, AuthenticationError):
                    return
            else:
                break
        log.info("group.venue_up", venue=name)
        del self._starting[name]
        self._halts.pop(name, None)  # not before: a start that fails may have kept the halt nowhere
        wishes = self._wishes.pop(name, [])
        await engine.parts.settle_owed()
        for wish in wishes:
            engine.parts.upkeep.spawn(wish(engine), "emergency")

    def _prepare(self, name: str, parts: Parts) -> None:
        """Halt an engine before anything is sent, where a person has asked for it meanwhile."""
        if name in self._halts:
            cause, actor = self._halts[name]
            parts.desk.gateway.halt(cause, actor=actor)

    async def submit(self, signal: TradingSignal) -> ExecutionResult:
        """Run a signal through the chain of the exchange that it names.

        Raises `ConfigurationError` when it names none of several, or one that is not here.
        """
        name = signal.exchange
        if name is None and len(self._engines) == 1:
            name = next(iter(self._engines))
        if name not in self._engines:
            raise ConfigurationError(
                f"exchange: the signal names {signal.exchange!r}; here are {', '.join(self._engines)}"
            )
        return await self._engines[name].submit(signal)

    @property
    def positions(self) -> dict[tuple[str, str], Position]:
        """Open positions of all engines that run, by exchange and symbol."""
        return {
            (name, symbol): position
            for name, engine in self._running()
            for symbol, position in engine.positions.items()
        }

    def _running(self) -> list[tuple[str, ExecutionEngine]]:
        return [(name, each) for name, each in self._engines.items() if name not in self._starting]

    async def cancel_all(
        self, *, within: timedelta = _WITHIN, actor: str = "emergency"
    ) -> dict[str, Remains]:
        """Halt every engine, cancel its open orders, and return what is left, by exchange; see `execkit.emergency`.

        A venue that could not be reached since the start is told as left, and it is done there once that answers.
        """

        async def later(engine: ExecutionEngine) -> None:
            await engine.cancel_all(actor=actor)

        return await self._everywhere(
            lambda running: emergency.cancel_all(running, within=within, actor=actor), later, actor
        )

    async def flatten(
        self, *, within: timedelta = _WITHIN, actor: str = "emergency"
    ) -> dict[str, Remains]:
        """Halt every engine, close all its positions, and return what is left, by exchange; see `execkit.emergency`.

        A venue that could not be reached since the start is told as left, and it is done there once that answers.
        """

        async def later(engine: ExecutionEngine) -> None:
            await engine.flatten(actor=actor)

        return await self._everywhere(
            lambda running: emergency.flatten(running, within=within, actor=actor), later, actor
        )

    async def _everywhere(
        self,
        act: Callable[[Iterable[ExecutionEngine]], Awaitable[list[Remains]]],
        later: Wish,
        actor: str,
    ) -> dict[str, Remains]:
        running, starting = dict(self._running()), list(self._starting)

        async def of_running() -> dict[str, Remains]:
            return dict(zip(running, await act(running.values()), strict=True))

        async def of_starting(name: str) -> Remains:
            async with self._kept_down(name) as is_down:
                if is_down:
                    self._wishes.setdefault(name, []).append(later)
                    return await self._halt_down(name, f"everything is taken out by {actor}", actor)
            return (await act([self[name]]))[0]  # it has come up at this moment

        async with asyncio.TaskGroup() as both:
            first = both.create_task(of_running())
            others = {name: both.create_task(of_starting(name)) for name in starting}
        found = first.result() | {name: task.result() for name, task in others.items()}
        return {name: found[name] for name in self}

    async def _halt_down(self, name: str, cause: str, actor: str) -> Remains:
        """Halt an engine that could not start yet: in its journal, and for the start; return what its journal knows."""
        settings = self[name].settings
        self._halts[name] = cause, actor
        error = f"{name} could not be reached since the start: it is done when that answers"
        try:
            book = await at_rest.halt(settings, cause, actor=actor)
        except (ExecKitError, OSError) as problem:
            return Remains(
                account=settings.exchange.account,
                error=f"{error}; until then a restart would forget it: {problem}",
            )
        return Remains(
            account=settings.exchange.account,
            orders=tuple(book.orders.active),
            positions={symbol: each.quantity for symbol, each in book.positions.open.items()},
            error=error,
        )

    @contextlib.asynccontextmanager
    async def _kept_down(self, name: str) -> AsyncIterator[bool]:
        """Keep an engine from being started, so that its journal is free; yield False when it runs already."""
        async with self._journals[name]:
            task = self._starting.get(name)
            if task is None:
                yield False
                return
            task.cancel()
            await asyncio.wait([task])
            is_down = name in self._starting
            try:
                yield is_down
            finally:
                if is_down and name in self._starting:  # else the group has been stopped
                    loop = asyncio.get_running_loop()
                    self._starting[name] = loop.create_task(self._start_later(name, self[name]))

    async def halt(self, cause: str, *, actor: str = "operator") -> None:
        """Let nothing leave that adds exposure, anywhere; it survives a restart, also where a venue is down.

        Raises `ExecKitError` with the names of those where that cannot be made durable, after all are halted.
        """

        async def of_one(name: str) -> None:
            async with self._kept_down(name) as is_down:
                if is_down:
                    self._halts[name] = cause, actor
                    await at_rest.halt(self[name].settings, cause, actor=actor)
                    return
            await self[name].halt(cause, actor=actor)

        await self._at_all(of_one)

    async def resume(self, *, actor: str = "operator") -> None:
        """Release every halt; what waited for a venue that is down is not done there any more.

        Raises `ExecKitError` with the names of those that cannot be released, after all others are.
        """

        async def of_one(name: str) -> None:
            async with self._kept_down(name) as is_down:
                if is_down:
                    await at_rest.resume(self[name].settings, actor=actor)
                    self._halts.pop(name, None)
                    self._wishes.pop(name, None)
                    return
            await self[name].resume(actor=actor)

        await self._at_all(of_one)

    async def _at_all(self, work: Callable[[str], Awaitable[None]]) -> None:
        answers = await asyncio.gather(*map(work, self), return_exceptions=True)
        failed = [
            f"{name}: {error}"
            for name, error in zip(self, answers, strict=True)
            if error is not None
        ]
        if failed:
            raise ExecKitError("; ".join(failed))

    def __repr__(self) -> str:
        return f"EngineGroup({', '.join(self._engines)})"


def _is_outage(error: BaseException) -> bool:
    """Tell whether a start may succeed later; a key that is wrong stays wrong, and asking on may lock the account."""
    return isinstance(error, _DOWN) and not isinstance(error, AuthenticationError)


async def _tell_failed_start(name: str, engine: ExecutionEngine, error: Exception) -> None:
    log.error("group.start_failed", venue=name, error=shown(error))
    clock = engine.settings.clock or SystemClock()
    text = f"{name} is not traded, it could not be started: {shown(error)}"
    try:
        async with engine.notifier:  # an engine that could not start has left it
            engine.events.publish(SystemError(at=clock.now(), code="START_FAILED", text=text))
    except Exception as problem:  # noqa: BLE001 - it is foreign code, and the start is tried on
        log.error("group.not_told", venue=name, error=shown(problem))  # noqa: TRY400 - as everywhere here

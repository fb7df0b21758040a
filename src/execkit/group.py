"""Several engines as one: an account each, signals routed by exchange, emergencies for all of them at once.

Nothing is shared between the engines but the process: one whose venue is down, hangs or fails disturbs no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Final, Self

import structlog

from execkit import emergency
from execkit.emergency import Remains
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError, ExchangeError
from execkit.model.position import Position
from execkit.model.result import ExecutionResult
from execkit.model.signal import TradingSignal

log = structlog.get_logger("execkit")

_LONGEST_WAIT: Final = 60.0
_WITHIN: Final = timedelta(seconds=30)
_DOWN: Final = (ExchangeError, OSError, TimeoutError)


class EngineGroup(Mapping[str, ExecutionEngine]):
    """Engines by the names of their exchanges.

    Use it as an async context manager. A venue that cannot be reached at the start is tried again until it can be,
    while the others trade; everything else that is wrong at the start ends it. Raises
    `ConfigurationError` for two exchanges of one name.
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
        wrong = [error for error in answers if error is not None and not isinstance(error, _DOWN)]
        if wrong:
            await self.stop()
            raise wrong[0]
        loop = asyncio.get_running_loop()
        for (name, engine), error in zip(self._engines.items(), answers, strict=True):
            if error is not None:
                log.error("group.venue_down", venue=name, error=repr(error))
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
                log.error("group.stop_failed", venue=name, error=repr(error))

    async def _start_later(self, name: str, engine: ExecutionEngine) -> None:
        wait = 1.0
        while True:
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
            try:
                await engine.start()
            except _DOWN as error:
                log.warning("group.venue_down", venue=name, error=repr(error))
            else:
                log.info("group.venue_up", venue=name)
                del self._starting[name]
                return

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

    async def cancel_all(self, *, within: timedelta = _WITHIN) -> dict[str, Remains]:
        """Halt every engine, cancel its open orders, and return what is left, by exchange; see `execkit.emergency`."""
        running = dict(self._running())
        left = await emergency.cancel_all(running.values(), within=within)
        return dict(zip(running, left, strict=True))

    async def flatten(self, *, within: timedelta = _WITHIN) -> dict[str, Remains]:
        """Halt every engine, close all its positions, and return what is left, by exchange; see `execkit.emergency`."""
        running = dict(self._running())
        left = await emergency.flatten(running.values(), within=within)
        return dict(zip(running, left, strict=True))

    async def halt(self, cause: str, *, actor: str = "operator") -> None:
        """Let nothing leave that adds exposure, anywhere."""
        await asyncio.gather(*(each.halt(cause, actor=actor) for _, each in self._running()))

    async def resume(self, *, actor: str = "operator") -> None:
        """Release every halt."""
        await asyncio.gather(*(each.resume(actor=actor) for _, each in self._running()))

    def __repr__(self) -> str:
        return f"EngineGroup({', '.join(self._engines)})"

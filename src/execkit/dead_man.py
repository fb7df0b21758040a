"""Keeps a venue's own dead man's switch from firing for as long as the engine lives, where the venue has one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import structlog

from execkit.errors import ConfigurationError
from execkit.handlers.desk import Desk
from execkit.model.records import Record
from execkit.orders.manager import ManagedOrder
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_TURNS: Final = 4
"""How often a countdown is started anew before it would end: three tries may fail."""

_STOP_WITHIN: Final = 10.0
"""Seconds that a stop of the engine takes at most to end the countdowns."""


class DeadMan:
    """Has the venue cancel the orders of each symbol that has some, unless it hears of the engine *within* so long.

    The venue cancels everything there, protective orders and those of others too. A stop of the engine ends all
    countdowns, so what rests then stays.
    """

    def __init__(self, desk: Desk, within: timedelta) -> None:
        if not desk.adapter.capabilities.dead_man:
            raise ConfigurationError(
                f"dead_man: {desk.adapter.name} has no dead man's switch; leave it None"
            )
        if within < timedelta(seconds=1):
            raise ConfigurationError(f"dead_man: {within} must be at least a second")
        self._desk = desk
        self._within = within
        self._armed: set[str] = set()
        self._is_failing = False
        self._spawn: Callable[[Awaitable[Any], str], None] | None = None
        desk.recorder.listen(self._on_record)

    def start(self, spawn: Callable[[Awaitable[Any], str], None]) -> None:
        """Renew from now on; what a process that died has left running where nothing rests any more is ended."""
        self._spawn = spawn
        since = self._desk.clock.now() - self._within
        self._armed.update(
            order.symbol
            for order in self._desk.book.orders.values()
            if order.closed_at is not None and order.closed_at >= since
        )
        spawn(self._keep_on(), "dead man's switch")

    def _on_record(self, _record: Record, order: ManagedOrder | None) -> None:
        """Start the countdown of a symbol with its first order: the process may die before the next turn."""
        if self._spawn is None or order is None or order.is_closed or order.symbol in self._armed:
            return
        self._armed.add(order.symbol)
        self._spawn(self._set(order.symbol, self._within), "dead man's switch")

    async def stop(self) -> None:
        """End all countdowns, again until it succeeds; what stays armed after ten seconds is told."""
        self._spawn = None
        try:
            async with asyncio.timeout(min(self._within.total_seconds(), _STOP_WITHIN)):
                await asyncio.gather(*map(self._end, sorted(self._armed)))
        except TimeoutError:
            left = ", ".join(sorted(self._armed))
            self._desk.recorder.alarm(
                "DEAD_MAN_ARMED",
                f"the countdown of {left} could not be ended: the venue cancels all orders there, stops too, within "
                f"{self._within.total_seconds():g} s, unless an engine runs again",
            )

    async def _end(self, symbol: str) -> None:
        wait = 0.25
        while not await self._set(symbol, None):
            await asyncio.sleep(wait)
            wait *= 2

    async def renew(self) -> None:
        """Start the countdown of each symbol with orders of ours anew, and end those that are not needed."""
        wanted = self._wanted()
        ends = [self._end_unneeded(symbol) for symbol in sorted(self._armed - wanted)]
        starts = [self._set(symbol, self._within) for symbol in sorted(wanted)]
        done = await asyncio.gather(*ends, *starts)
        if all(done):
            self._is_failing = False
        elif not self._is_failing:
            self._is_failing = True
            self._desk.recorder.alarm(
                "DEAD_MAN_FAILED",
                "the countdown could not be started anew; unless that succeeds soon the venue cancels all orders",
            )

    def _wanted(self) -> set[str]:
        return {order.symbol for order in self._desk.book.orders.active.values()}

    async def _end_unneeded(self, symbol: str) -> bool:
        """End a countdown; an order that came while the venue was asked has it started anew."""
        done = await self._set(symbol, None)
        if symbol in self._wanted():  # also after a time-out: the end may have arrived
            return await self._set(symbol, self._within)
        return done

    async def _keep_on(self) -> None:
        while True:
            await self.renew()
            await asyncio.sleep(self._within.total_seconds() / _TURNS)

    async def _set(self, symbol: str, within: timedelta | None) -> bool:
        limit = self._within.total_seconds() / _TURNS
        if within is not None:
            self._armed.add(symbol)  # before it is asked: it may arrive though no answer comes
        try:
            await self._desk.gateway.pace.ask(self._desk.adapter.dead_man, limit, symbol, within)
        except Exception as error:  # noqa: BLE001 - an adapter is foreign code, and the next turn must come
            log.warning("dead_man.failed", symbol=symbol, error=shown(error))
            return False
        if within is None:
            self._armed.discard(symbol)
        return True

"""Notices that the wall clock was set, or that the machine slept: timers of the loop know of neither."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from execkit.clock import Clock
from execkit.virtual_time import VirtualClock

log = structlog.get_logger("execkit")

_LOOK_EVERY: Final = 1.0
_JUMP: Final = timedelta(seconds=1)
"""Differences below this are the ordinary drift of a clock that is kept right by slewing."""


class ClockWatch:
    """Compares the wall clock with the loop's, once a second, and tells *on_jump* by how much the former jumped.

    The loop's clock stands still while the machine sleeps, so a sleep is a jump ahead.
    """

    def __init__(self, clock: Clock, on_jump: Callable[[timedelta], Awaitable[object]]) -> None:
        self._clock = clock
        self._on_jump = on_jump

    def start(self, spawn: Callable[[Awaitable[Any], str], None]) -> None:
        """Watch from now on; a virtual clock is the loop's own and cannot jump."""
        if not isinstance(self._clock, VirtualClock):
            spawn(self._watch(self._origin()), "clock")

    async def stop(self) -> None:
        """Nothing is left: the task ends with the others."""

    def _origin(self) -> datetime:
        """Return what the wall clock says of the moment at which the loop's clock began."""
        return self._clock.now() - timedelta(seconds=asyncio.get_running_loop().time())

    async def _watch(self, known: datetime) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            jump = self._origin() - known
            if abs(jump) >= _JUMP:
                known += jump
                log.warning("clock.jumped", seconds=jump.total_seconds())
                await self._on_jump(jump)

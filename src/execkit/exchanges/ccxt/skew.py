"""How far this machine's clock is from a venue's: the quickest of a few answers tells it best.

A venue's time is as old as half of the way there and back, if both halves take equally long; nobody knows whether they
do, so an answer is worth no more than its round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import attrs

from execkit.clock import Clock

_QUICK: Final = timedelta(milliseconds=500)
_TRIES: Final = 3


@attrs.frozen
class Skew:
    """A measurement: how far our clock is ahead, and how long the question took."""

    ahead: timedelta
    took: timedelta

    @property
    def is_sure(self) -> bool:
        """Tell whether the answer came quickly enough to set a clock by it."""
        return self.took <= _QUICK

    @property
    def at_least(self) -> timedelta:
        """Return by how much the clocks differ for certain, whichever half of the way took how long."""
        return max(abs(self.ahead) - self.took / 2, timedelta(0))


async def measure(ask: Callable[[], Awaitable[datetime | None]], clock: Clock) -> Skew | None:
    """Return the quickest of up to three measurements, the first that is quick; None where the venue tells no time."""
    loop = asyncio.get_running_loop()
    best: Skew | None = None
    for _ in range(_TRIES):
        began, before = loop.time(), clock.now()
        server = await ask()
        if server is None:
            return None
        took = timedelta(seconds=loop.time() - began)
        found = Skew(before + (clock.now() - before) / 2 - server, took)
        if best is None or found.took < best.took:
            best = found
        if best.is_sure:
            break
    return best

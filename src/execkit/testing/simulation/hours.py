"""When the market of a simulated venue is closed."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from execkit.exchanges.base import MarketStatus

_TIMES: Final = 4


class Hours:
    """A market that closes a few times in a run. *now* is the true time, *loop_time* counts from the run's begin."""

    def __init__(
        self, rng: random.Random, now: Callable[[], datetime], loop_time: Callable[[], float]
    ) -> None:
        self._now = now
        self._time = loop_time
        self._closures: list[tuple[float, float]] = []
        end = 0.0
        for _ in range(_TIMES):
            begin = end + rng.uniform(60, 300)
            end = begin + rng.uniform(80, 200)
            self._closures.append((begin, end))

    def closed_for(self) -> float:
        """Return for how many seconds it has been closed; zero: it is open."""
        at = self._time()
        return next((at - begin for begin, end in self._closures if begin <= at < end), 0.0)

    def status(self) -> MarketStatus:
        """Return what the venue says of it."""
        at, now = self._time(), self._now()
        for begin, end in self._closures:
            if at < begin:
                close = now + timedelta(seconds=begin - at)
                return MarketStatus(is_open=True, next_close=close)
            if at < end:
                opens = now + timedelta(seconds=end - at)
                return MarketStatus(is_open=False, next_open=opens, reason="closed")
        return MarketStatus(is_open=True)

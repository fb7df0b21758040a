"""How long to wait before a broken stream is opened again."""

from __future__ import annotations

import random
from typing import Final

FIRST: Final = 0.5
LONGEST: Final = 30.0
STEADY: Final = 30.0
JITTER: Final = 0.25


class Pauses:
    """Pauses that double from *first* to *longest* seconds, each up to a quarter shorter or longer by chance.

    They begin anew after a stream that held for *steady* seconds. News alone proves nothing: a venue that tells one
    price and hangs up would be dialled twice a second for ever, and those who dial too often are banned. No pause is
    longer than *longest*, and by chance no two of several streams that broke together come back together.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        first: float = FIRST,
        longest: float = LONGEST,
        steady: float = STEADY,
    ) -> None:
        self._rng = rng
        self._first = self._next = first
        self._longest = longest
        self._steady = steady
        self._opened = 0.0

    def opened(self, at: float) -> None:
        """Note that the stream was opened, or tried to be, at this time of the loop, in seconds."""
        self._opened = at

    def after_break(self, at: float) -> float:
        """Return the seconds to wait, now that it has broken at this time of the loop."""
        if at - self._opened >= self._steady:
            self._next = self._first
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return min(pause * self._rng.uniform(1 - JITTER, 1 + JITTER), self._longest)

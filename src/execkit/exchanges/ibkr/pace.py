"""Keeps messages below what TWS takes (50 a second, then error 100 and in the end a disconnect).

ib_async has a queue for this too, but an order can wait in it unseen, and is dropped silently with the connection.
Here an order waits a bounded time for its turn and is then refused, provably unsent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from execkit.errors import NotSentError

WINDOW: Final = 1.2
"""Seconds over which messages are counted: more than TWS's one, because messages that leave a second apart may
arrive closer together."""


class Pace:
    """At most *limit* messages in any window; queries leave the last *reserve* of them to orders and cancels."""

    def __init__(self, limit: int = 45, *, reserve: int = 10) -> None:
        self.limit = limit
        self.reserve = reserve
        self._sent: deque[float] = deque()

    def count(self) -> None:
        """Count a message that does not wait, because it only ends what another one began."""
        self._sent.append(asyncio.get_running_loop().time())

    async def turn(self, patience: float, *, is_order: bool) -> None:
        """Wait until one more message may leave; raise `NotSentError` when that is not within *patience* seconds.

        The caller sends right afterwards, without letting go of the loop.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        limit = self.limit if is_order else self.limit - self.reserve
        while True:
            now = loop.time()
            while self._sent and now - self._sent[0] >= WINDOW:
                self._sent.popleft()
            if len(self._sent) < limit:
                self._sent.append(now)
                return
            free_at = self._sent[len(self._sent) - limit] + WINDOW
            if free_at > deadline:
                raise NotSentError(
                    f"{limit} messages have just left and TWS takes no more; it did not get its turn "
                    f"within {patience:g} s",
                    venue="ibkr",
                )
            await asyncio.sleep(free_at - now)

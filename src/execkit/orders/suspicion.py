"""Suspicion: whatever does not fit makes a pass of comparison soon, and one pass serves all that asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from execkit.model.order import OrderEvent
from execkit.model.records import Intent, OrderChanged, Record

_LONGEST_WAIT: Final = 15.0
"""Seconds between two passes of which each gives reason for the next."""


_MOVES_NOTHING: Final = frozenset(
    {OrderEvent.SUBMIT, OrderEvent.REJECT, OrderEvent.UNSENT, OrderEvent.FAIL}
)


def may_move(record: Record) -> bool:
    """Tell whether what a record says of an order may have changed the venue's books.

    Of an order that the venue has not taken nothing does. While one is under way its symbol is not compared either, but
    tries that are refused, one after the other, must not keep it from that for ever.
    """
    if isinstance(record, OrderChanged):
        return record.event not in _MOVES_NOTHING
    return not isinstance(record, Intent)


class Suspicion:
    """Has *look* called after *at_first*, which lets a venue's books catch up with its fills."""

    def __init__(
        self,
        look: Callable[[], Awaitable[bool]],
        stream_is_live: Callable[[], bool],
        *,
        at_first: timedelta,
    ) -> None:
        self._look = look
        self._stream_is_live = stream_is_live
        self._at_first = at_first.total_seconds() + 0.1
        self._suspects: set[str] = set()
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def raise_(self, symbol: str) -> None:
        """Have a look taken shortly; all that ask meanwhile share it."""
        if self._stopped:
            return
        self._suspects.add(symbol)
        self._count += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._verify())

    async def _verify(self) -> None:
        wait = self._at_first
        while self._suspects:
            self._suspects.clear()
            await asyncio.sleep(wait)
            before = self._count
            await self._look()
            # Without a stream nobody else would tell of a stop that is gone, so there the pace stays.
            is_renewed = self._stream_is_live() and self._count != before
            wait = min(wait * 2, _LONGEST_WAIT) if is_renewed else self._at_first

    async def stop(self) -> None:
        """End a look under way."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

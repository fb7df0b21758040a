"""Turns: one at a time acts on a symbol's protection, an exit only until the venue has taken it; and pauses."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

from execkit.model.order import OrderState, OrderType
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder
from execkit.protection.plan import is_protective

LONGEST_WAIT: Final = 4.0
"""Seconds between two tries to close a position that the venue does not let us close; less than a stop may take."""

AFTER_FAILURES: Final = 30.0
"""The same after an exception, of which each is told."""

_TAKEN: Final = frozenset(
    {
        OrderState.ACCEPTED,
        OrderState.HELD,
        OrderState.PARTIALLY_FILLED,
        OrderState.FILLED,
        OrderState.CANCELLED,
        OrderState.EXPIRED,
    }
)
_UNSENT: Final = frozenset({OrderState.NEW, OrderState.PRESUMED_ABSENT})


def wait_after(refusals: int, at_most: float) -> float:
    """Return the seconds to the next try after so many refusals in a row: 1, 2, 4, ..."""
    return min(2.0 ** min(refusals - 1, 10), at_most)  # of thousands there is no power


@attrs.frozen(eq=False)
class _Turn:
    lock: asyncio.Lock
    before: frozenset[str]
    """Reductions that were out when it began: news of them say nothing of the exit that is being sent."""


class Turns:
    """One lock for each symbol."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._exits: dict[str, _Turn] = {}

    def of(self, symbol: str) -> asyncio.Lock:
        """Return the lock of a symbol."""
        return self._locks[symbol]

    @asynccontextmanager
    async def exiting(self, symbol: str) -> AsyncIterator[None]:
        """Have the turn until the venue has taken an exit at the market, at the longest until the block ends.

        What the exit leaves open has no stop meanwhile, and its sender may wait on: for an answer that is lost although
        the stream has told of the order, or for the executions that the answer counts.
        """
        lock = self._locks[symbol]
        await lock.acquire()
        reductions = self._book.orders.open_reductions(symbol)
        out = frozenset(o.client_order_id for o in reductions if o.state not in _UNSENT)
        turn = self._exits[symbol] = _Turn(lock, out)
        try:
            yield
        finally:
            self._end(symbol, turn)

    def on_order(self, order: ManagedOrder) -> bool:
        """End the turn of the exit that an order is, if the venue has taken it; return whether a turn has ended."""
        turn = self._exits.get(order.symbol)
        if (
            turn is None
            or order.state not in _TAKEN
            or order.type is not OrderType.MARKET
            or not order.role.is_reduction
            or is_protective(order)
            or order.client_order_id in turn.before
        ):
            return False
        self._end(order.symbol, turn)
        return True

    def _end(self, symbol: str, turn: _Turn) -> None:
        if self._exits.get(symbol) is turn:
            del self._exits[symbol]
            turn.lock.release()

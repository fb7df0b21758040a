"""Room for orders that stand against what protects a position: the keeper leaves the symbol alone meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

from execkit.model.order import Side
from execkit.protection.closing import Closer
from execkit.protection.plan import is_protective
from execkit.protection.turns import Turns


class Room:
    """Takes protection away for as long as something else needs its place, and has it brought back.

    *turns* are those of all who act on a symbol, *check* has its protection brought in line.
    """

    def __init__(
        self,
        closer: Closer,
        *,
        turns: Turns,
        check: Callable[[str], None],
    ) -> None:
        self._closer = closer
        self._turns = turns
        self._check = check

    @asynccontextmanager
    async def exiting(self, symbol: str, quantity: Decimal, side: Side) -> AsyncIterator[None]:
        """Make room for an exit: while this is held the keeper leaves the symbol alone.

        A stop that stands in the way is cancelled and proven gone first, so that the two can never both execute.
        """
        try:
            async with self._turns.exiting(symbol):
                await self._closer.make_room(symbol, quantity, side)
                yield
        finally:
            self._check(symbol)

    @asynccontextmanager
    async def stepping_aside(self, symbol: str) -> AsyncIterator[None]:
        """Take away what protects a position while an entry executes that the venue would not take beside it.

        While this is held the keeper leaves the symbol alone; then it protects what there is.
        """
        try:
            async with self._turns.of(symbol):
                reductions = self._closer.book.orders.open_reductions(symbol)
                resting = tuple(filter(is_protective, reductions))
                await self._closer.cancel_each(resting, "it makes way for an entry")
                yield
        finally:
            self._check(symbol)

"""Taking a position out at its targets: what the venue refuses waits, and costs no stop meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.instrument import Instrument
from execkit.model.order import OrderRole
from execkit.model.position import Position
from execkit.numbers import plain
from execkit.protection.closing import Closer
from execkit.protection.policy import due_exit, due_price
from execkit.protection.prices import Range

_FIRST_PAUSE: Final = 5.0
"""Seconds between a refused target and the next try; each further refusal doubles them."""

_LONGEST_PAUSE: Final = 300.0


class _Refusal(msgspec.Struct):
    """How often in a row the target of a position was refused, and until when nothing is tried, by the loop's time."""

    position_id: str
    count: int = 0
    until: float = 0.0


class TargetTaker:
    """Closes what targets ask for.

    *turn_of* gives the turn of an exit from a symbol, *check* has its protection brought in line.

    Each try takes the stop away for a moment. So what the venue is known not to take is not tried, and after a refusal
    there is a pause: a target is a wish.
    """

    def __init__(
        self,
        closer: Closer,
        *,
        turn_of: Callable[[str], AbstractAsyncContextManager[None]],
        check: Callable[[str], None],
    ) -> None:
        self._closer = closer
        self._book = closer.book
        self._recorder = closer.gateway.recorder
        self._capabilities = closer.gateway.adapter.capabilities
        self._turn_of = turn_of
        self._check = check
        self._refused: dict[str, _Refusal] = {}

    def due(self, position: Position, prices: Range, rules: Instrument) -> Decimal | None:
        """Return how much is to be closed at these prices; None: nothing, or later."""
        refusal = self._refused.get(position.symbol)
        if (
            refusal is not None
            and refusal.position_id == position.position_id
            and asyncio.get_running_loop().time() < refusal.until
        ):
            return None
        best = self._best(position, prices)
        return due_exit(position, best, best, rules, any_value=self._capabilities.reduce_only)

    @staticmethod
    def _best(position: Position, prices: Range) -> Decimal:
        # At its limit an exit is executed only if the price is there still.
        return prices.last if position.limit_exit else prices.best(position)

    async def take(self, symbol: str, prices: Range, rules: Instrument) -> None:
        """Close what is due, unless the position is being closed already."""
        if self._is_leaving(symbol):
            return
        async with self._turn_of(symbol):
            position = self._book.position(symbol)
            quantity = None if position is None else self.due(position, prices, rules)
            if position is not None and quantity is not None and not self._is_leaving(symbol):
                if await self._closer.close(
                    symbol,
                    rules,
                    position,
                    OrderRole.TARGET,
                    quantity,
                    limit_price=position.take_profit if position.limit_exit else None,
                    expected_price=due_price(position, self._best(position, prices), quantity),
                ):
                    self._refused.pop(symbol, None)
                else:
                    self._put_off(position, quantity)
        self._check(symbol)

    def _is_leaving(self, symbol: str) -> bool:
        reductions = self._book.orders.open_reductions(symbol)
        return any(order.role is not OrderRole.STOP for order in reductions)

    def _put_off(self, position: Position, quantity: Decimal) -> None:
        symbol, name = position.symbol, position.position_id
        refusal = self._refused.get(symbol)
        if refusal is None or refusal.position_id != name:
            refusal = self._refused[symbol] = _Refusal(name)
            tried = [o for o in self._book.orders.revisions(name) if o.role is OrderRole.TARGET]
            why = "its stop is not proven gone"
            if tried:
                why = tried[-1].reason or "nobody took it at its limit"
            self._recorder.alarm(
                "TARGET_REFUSED",
                f"{symbol}: the target for {plain(quantity)} could not be taken ({why}); the stop rests again, and it "
                "is tried later",
                symbol=symbol,
            )
        pause = min(_FIRST_PAUSE * 2**refusal.count, _LONGEST_PAUSE)
        refusal.count += 1
        refusal.until = asyncio.get_running_loop().time() + pause

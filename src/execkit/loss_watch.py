"""Notices that the day's loss limit is reached when that happens, not only when the next entry is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from execkit.handlers.desk import Desk
from execkit.handlers.loss import LossLimit
from execkit.handlers.risk import RiskManagementHandler
from execkit.model.market import Quote
from execkit.model.records import BalancesSeen, Filled, Record, TradingState, TradingStateChanged
from execkit.orders.manager import ManagedOrder

_NEWS = (Filled, BalancesSeen, TradingStateChanged)
"""Records that may change what the equity is, or what may still be sent."""


class LossWatch:
    """Looks at the equity after each fill, each change of the balances and each price of something that is held.

    *chain* are the handlers; the limits are those of its risk handler, and without one there are none.
    """

    def __init__(self, desk: Desk, currency: str, chain: Iterable[object]) -> None:
        self._desk = desk
        self._currency = currency
        self._limits: list[LossLimit] = [
            link.loss for link in chain if isinstance(link, RiskManagementHandler)
        ]
        self._handle: asyncio.Handle | None = None
        self._is_on = False
        desk.recorder.listen(self._on_record)

    def start(self, _spawn: Callable[[Awaitable[Any], str], None]) -> None:
        """Look from now on."""
        self._is_on = True
        self.look()

    async def stop(self) -> None:
        """Look no more."""
        self._is_on = False
        if self._handle is not None:
            self._handle.cancel()

    def on_quote(self, quote: Quote) -> None:
        """Look soon, if the price is of something that is held."""
        if quote.symbol in self._desk.book.positions.open:
            self._look_soon()

    def _on_record(self, record: Record, _order: ManagedOrder | None) -> None:
        if isinstance(record, _NEWS):
            self._look_soon()

    def _look_soon(self) -> None:
        """Look when what runs now has ended: what comes together is one look."""
        if self._is_on and self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._look_now)

    def _look_now(self) -> None:
        self._handle = None
        self.look()

    def look(self) -> None:
        """Compare the equity with the limits; what is reached is recorded, and so durable and told at once."""
        book = self._desk.book
        if not self._is_on or book.trading_state is not TradingState.ACTIVE:
            return
        if any(book.mark(symbol) is None for symbol in book.positions.open):
            return  # at the price that it was bought for, a gain of days would look like today's loss
        equity = book.equity(self._currency)
        for limit in self._limits:
            limit.check(self._desk, equity)

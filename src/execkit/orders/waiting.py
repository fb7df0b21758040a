"""Waiting for an order to change, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from execkit.model.records import Record
from execkit.orders.manager import ManagedOrder


class Changes:
    """Wakes those who wait for an order, whenever a record has changed it."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def on_record(self, _record: Record, order: ManagedOrder | None) -> None:
        """Wake the waiters of an order; the recorder calls this."""
        if order is not None and self._waiters:
            for waiter in self._waiters.pop(order.client_order_id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def until(
        self,
        order: ManagedOrder,
        condition: Callable[[ManagedOrder], bool],
        timeout: float | None = None,
    ) -> bool:
        """Wait until *condition* holds for the order; return False when *timeout* seconds pass first."""
        if condition(order):
            return True
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not condition(order):
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.setdefault(order.client_order_id, []).append(waiter)
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait([waiter], timeout=left)
        return True

    async def closed(self, order: ManagedOrder) -> None:
        """Wait until an order is closed."""
        await self.until(order, lambda o: o.is_closed)

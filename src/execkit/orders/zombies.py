"""Zombies: orders that are closed in our books, on the venue's own word, and open at the venue all the same.

A closed order never opens again (its late fills count). What the venue still has is therefore counted like an order
of somebody else, a person is told, and it is cancelled until the venue does not show it any more.
"""

from __future__ import annotations

from collections.abc import Callable

from execkit.model.order import OrderReport
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder


class Zombies:
    """Cancels them, one try in each pass of comparison. *verify* has a pass made soon."""

    def __init__(self, gateway: OrderGateway, verify: Callable[[str], None]) -> None:
        self._gateway = gateway
        self._verify = verify
        self._open: dict[str, str] = {}
        """Venue order ids by client order id."""
        self._told: set[str] = set()
        gateway.intake.zombie_hook = self.seen

    def seen(self, order: ManagedOrder, report: OrderReport) -> None:
        """Take in the sight of one."""
        key = order.client_order_id
        self._open[key] = report.venue_order_id
        self._gateway.book.foreign[report.venue_order_id] = report
        self._gateway.intake.foreign_hook()
        if key not in self._told:
            known = self._gateway.book.orders
            self._told = {each for each in self._told if each in known} | {key}
            self._gateway.recorder.alarm(
                "ZOMBIE_ORDER",
                f"{order!r} is open at the venue as {report.venue_order_id}; cancelling it",
                symbol=order.symbol,
                client_order_id=key,
            )
        self._verify(order.symbol)

    async def lay_to_rest(self) -> None:
        """Ask for the cancel of each; one that still shows afterwards is seen again."""
        for key, venue_order_id in list(self._open.items()):
            order = self._gateway.book.orders.get(key)
            if order is None or await self._gateway.cancel_closed(order, venue_order_id):
                del self._open[key]

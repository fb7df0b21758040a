"""Who looks at the requests of a simulated process from outside."""

from __future__ import annotations

from typing import Protocol

from execkit.exchanges.base import ExchangeAdapter
from execkit.model.order import OrderRequest


class Witness(Protocol):
    """Who looks at what leaves a process."""

    def leaves(
        self, link: ExchangeAdapter, kind: str, client_order_id: str, request: OrderRequest | None
    ) -> None:
        """Called before a request leaves."""

    def answered(self, client_order_id: str, answer: str) -> None:
        """Called with what the process is told of a place request."""

    def lied(self, client_order_id: str) -> None:
        """Called when the venue breaks its own promise about an order."""

    def fails(self, link: ExchangeAdapter, symbol: str) -> None:
        """Called when a command leaves that will not be carried out as it was meant."""

    def failed(self, link: ExchangeAdapter, symbol: str) -> None:
        """Called when the process knows of it."""

    def shaken(self, symbol: str) -> None:
        """Called when the venue moves a position in a way that nobody could foresee."""

    async def call_point(self, link: ExchangeAdapter) -> None:
        """Called where the process may die."""

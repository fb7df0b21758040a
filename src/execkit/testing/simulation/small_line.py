"""The way of one process to the mock venue, with a named instant at each step of a request."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol, TypeVar

from execkit.exchanges.base import ExchangeAdapter
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderRequest, OrderUpdate
from execkit.testing.mock import MockExchange

T = TypeVar("T")

AT_VENUE: contextvars.ContextVar[bool] = contextvars.ContextVar("at_venue", default=False)
"""True in what the venue does; its timers outlive a process."""


class Surroundings(Protocol):
    """What is around a process."""

    venue: MockExchange

    async def instant(self, name: str, line: Line) -> None:
        """Pass a named instant, or die there."""

    def leaves(
        self, line: Line, kind: str, client_order_id: str, request: OrderRequest | None = None
    ) -> None:
        """See a request leave."""

    def arrived(self) -> None:
        """See that one has arrived."""

    def name_of(self, client_order_id: str) -> str:
        """Return what placing an order is called."""
        ...


class Line(ExchangeAdapter):
    """The way of one process to the mock venue."""

    name = "mock"

    def __init__(self, world: Surroundings) -> None:
        self._world = world
        self._venue = world.venue

    @property
    def capabilities(self) -> Capabilities:
        """The venue's."""
        return self._venue.capabilities

    @property
    def account(self) -> str:
        """The venue's."""
        return self._venue.account

    async def connect(self) -> None:
        """Begin."""
        await self._venue.connect()

    async def close(self) -> None:
        """End nothing: the venue outlives the process."""

    async def _call(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Travel, have the venue do something, and travel back, with an instant at each step."""
        world = self._world
        await world.instant(f"{name} leaves", self)
        await asyncio.sleep(0.01)
        token = AT_VENUE.set(True)
        try:
            return await work()
        finally:
            AT_VENUE.reset(token)
            world.arrived()
            await world.instant(f"{name} arrived", self)
            await asyncio.sleep(0.01)
            await world.instant(f"{name} answered", self)

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Place one order."""
        key = request.client_order_id
        self._world.leaves(self, "place", key, request)
        return await self._call(self._world.name_of(key), lambda: self._venue.place_order(request))

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Cancel one order."""
        self._world.leaves(self, "cancel", client_order_id)
        return await self._call(
            "cancel",
            lambda: self._venue.cancel_order(
                symbol, client_order_id=client_order_id, venue_order_id=venue_order_id
            ),
        )

    async def amend_order(
        self,
        symbol: str,
        *,
        client_order_id: str,
        venue_order_id: str | None = None,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
    ) -> OrderReport:
        """Change one order."""
        self._world.leaves(self, "amend", client_order_id)
        return await self._call(
            "amend",
            lambda: self._venue.amend_order(
                symbol,
                client_order_id=client_order_id,
                venue_order_id=venue_order_id,
                quantity=quantity,
                limit_price=limit_price,
                stop_price=stop_price,
            ),
        )

    async def instrument(self, symbol: str) -> Instrument:
        """Return a symbol's rules."""
        return await self._venue.instrument(symbol)

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order."""
        return await self._call(
            "look-up",
            lambda: self._venue.get_order(
                symbol, client_order_id=client_order_id, venue_order_id=venue_order_id
            ),
        )

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return the open orders."""
        return await self._call("open orders", lambda: self._venue.open_orders(symbol))

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return executions."""
        return await self._call("fills", lambda: self._venue.fills_since(since, symbol))

    async def balances(self) -> dict[str, Balance]:
        """Return holdings."""
        return await self._call("balances", self._venue.balances)

    async def positions(self) -> Sequence[VenuePosition]:
        """Return positions."""
        return await self._call("positions", self._venue.positions)

    async def ticker(self, symbol: str) -> Quote:
        """Return the quote."""
        return await self._venue.ticker(symbol)

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Open the stream."""
        return self._venue.order_updates()

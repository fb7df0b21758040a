"""The adapter of a simulated run: the unreliable way between one process and the venue."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

from execkit.errors import (
    ExchangeUnavailableError,
    InvalidOrderError,
    NotSentError,
    OrderNotFoundError,
)
from execkit.exchanges.base import MarketStatus
from execkit.model.account import Balance, VenuePosition
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderUpdate
from execkit.testing.simulation.chaos import Chaos, Kind
from execkit.testing.simulation.sending import SendingLink
from execkit.testing.simulation.venue import SimVenue
from execkit.testing.simulation.wire import Wire
from execkit.testing.simulation.witness import Witness

T = TypeVar("T")

_HANG: Final = 100.0
"""Seconds after which a hanging call would answer; every caller's limit is shorter."""


class SimLink(SendingLink):
    """One process's connection: see `SendingLink`, with changes, queries and the stream."""

    name = "simulated"

    def __init__(self, venue: SimVenue, chaos: Chaos, rng: random.Random, witness: Witness) -> None:
        super().__init__(venue, chaos, rng, witness)
        self._stream: Wire | None = None

    # -- cancelling and amending -----------------------------------------------------------------------

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Ask for a cancel, or fail in one of many ways."""
        await self._gate()
        self._witness.leaves(self, "cancel", client_order_id, None)
        fault = self.chaos.pick("cancel")
        if self.is_down():
            fault = self._rng.choice((Kind.CANCEL_LOST, Kind.CANCEL_UNSENT))
        if fault is None:
            return await self._cancel(symbol, client_order_id, venue_order_id, None)
        self._witness.fails(self, symbol)
        try:
            return await self._cancel(symbol, client_order_id, venue_order_id, fault)
        finally:
            if not self.is_dead:
                self._witness.failed(self, symbol)

    async def _cancel(
        self, symbol: str, client_order_id: str, venue_order_id: str | None, fault: Kind | None
    ) -> OrderReport:
        if fault is Kind.CANCEL_UNSENT:
            raise NotSentError("no route to the venue")
        await self._witness.call_point(self)
        await self._travel()
        if fault is Kind.CANCEL_LOST:
            await self._broken()
        self._check_ban()
        if fault is Kind.CANCEL_LIMITED:
            self._limit(self._rng.choice((None, 0.5, 3.0)))
        if fault is Kind.CANCEL_UNKNOWN:
            raise OrderNotFoundError("unknown order sent")
        if fault is Kind.CANCEL_IGNORED:
            report = self.venue.order(client_order_id, venue_order_id)
        else:
            report = self.venue.cancel(symbol, client_order_id, venue_order_id)
        if fault is Kind.CANCEL_LATE_FILL:
            self._later(self._rng.uniform(0, 5), self._late_fill, client_order_id)
        await self._travel()
        if fault is Kind.CANCEL_ANSWER_LOST:
            await self._broken()
        return report

    def _late_fill(self, client_order_id: str) -> None:
        order = self.venue.core.by_client[client_order_id]
        if order.is_open or order.remaining <= 0:
            return
        instrument = self.venue.core.instruments[order.request.symbol]
        quantity = instrument.round_quantity(
            order.remaining * Decimal(self._rng.randint(1, 10)) / 10
        )
        if order.request.side.value == "sell" or order.request.reduce_only:
            # A venue does not sell what the account does not have.
            room = self.venue.core.account.closable(order.request.symbol, order.request.side)
            quantity = min(quantity, instrument.round_quantity(room))
        if quantity > 0:
            self._witness.shaken(order.request.symbol)
            price = self.venue.core.quote(order.request.symbol).mid
            self.venue.execute(order, quantity, instrument.round_price(price))

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
        """Ask for a change, or fail in one of many ways."""
        await self._gate()
        self._witness.leaves(self, "amend", client_order_id, None)
        fault = self.chaos.pick("amend")
        if fault is not None:
            self._witness.fails(self, symbol)
        try:
            return await self._amend(
                symbol, client_order_id, quantity, limit_price, stop_price, fault
            )
        finally:
            if fault is not None and not self.is_dead:
                self._witness.failed(self, symbol)

    async def _amend(
        self,
        symbol: str,
        client_order_id: str,
        quantity: Decimal | None,
        limit_price: Decimal | None,
        stop_price: Decimal | None,
        fault: Kind | None,
    ) -> OrderReport:
        if self.is_down() or fault is Kind.AMEND_LOST:
            await self._broken()
        await self._travel()
        self._check_ban()
        if fault is Kind.AMEND_REFUSED:
            raise InvalidOrderError("cannot be changed now")
        report = self.venue.amend(symbol, client_order_id, quantity, limit_price, stop_price)
        await self._travel()
        if fault is Kind.AMEND_ANSWER_LOST:
            await self._broken()
        return report

    # -- queries ---------------------------------------------------------------------------------------

    async def _read(self, answer: Callable[[], T]) -> T:
        await self._gate()
        self._witness.leaves(self, "read", "", None)
        fault = self.chaos.pick("read")
        if self.is_down():
            fault = Kind.READ_ERROR
        await self._travel()
        if fault is Kind.READ_ERROR:
            raise ExchangeUnavailableError("502")
        self._check_ban()
        if fault is Kind.READ_HANGS:
            await asyncio.sleep(_HANG)
        if fault is Kind.READ_GARBAGE:
            return None  # type: ignore[return-value]
        if fault is Kind.READ_STALE:
            return await self._stale(answer)
        return answer()

    async def _stale(self, answer: Callable[[], T]) -> T:
        """Answer as of now, and let the answer travel for a while."""
        found = answer()
        await asyncio.sleep(self._rng.uniform(0.5, 8))
        await self._gate()
        return found

    async def instrument(self, symbol: str) -> Instrument:
        """Return a symbol's rules."""
        await self._gate()
        return self.venue.core.instrument(symbol)

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order."""
        return await self._read(lambda: self.venue.order(client_order_id, venue_order_id))

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return the open orders."""
        return await self._read(lambda: self.venue.open_orders(symbol))

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return executions."""
        return await self._read(lambda: self.venue.fills_since(since, symbol))

    async def balances(self) -> dict[str, Balance]:
        """Return holdings."""
        return await self._read(self.venue.balances)

    async def positions(self) -> Sequence[VenuePosition]:
        """Return positions."""
        return await self._read(self.venue.positions)

    async def ticker(self, symbol: str) -> Quote:
        """Return the quote, dated by the venue."""
        return await self._read(lambda: self.venue.core.quote(symbol, self.venue.now()))

    async def market_status(self, symbol: str) -> MarketStatus:
        """Return whether the market is open."""
        hours = self.venue.hours
        if hours is None:
            return await super().market_status(symbol)
        return await self._read(hours.status)

    # -- the stream ------------------------------------------------------------------------------------

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Open the stream."""
        if not self.venue.rules.order_stream:
            return super().order_updates()
        if self.is_dead or self.is_down():
            raise ConnectionError("no route to the venue")
        self._stream = Wire(self.chaos, self._rng)
        return self._stream.subscriber

    def hear(self, updates: list[OrderUpdate]) -> None:
        """Take updates from the venue towards the process."""
        if self._stream is not None and not self.is_down():
            self._stream.carry(updates)

    async def close(self) -> None:
        """End the stream."""
        if self._stream is not None:
            self._stream.subscriber.end()
            self._stream = None

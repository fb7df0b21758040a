"""What a conformance test can make a venue do; each venue can some of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec

from execkit.errors import ConfigurationError
from execkit.exchanges.simulated import SimulatedExchange
from execkit.model.market import Quote
from execkit.model.order import OrderRequest, Side
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation
from execkit.testing.mock import MockExchange


class VenueControl:
    """What a test can make the venue do. Override what your venue can; cases that need the rest are skipped.

    *secrets* are texts that must never show in a message or repr, such as the API key in use.
    """

    secrets: Sequence[str] = ()

    async def move_price(self, symbol: str, price: Decimal) -> None:
        """Trade the market at *price*."""
        raise NotImplementedError

    async def fill(self, client_order_id: str, quantity: Decimal) -> None:
        """Execute a quantity of a resting order at its limit."""
        raise NotImplementedError

    async def foreign_order(self, request: OrderRequest) -> None:
        """Let somebody else place an order in the same account."""
        raise NotImplementedError

    async def close_market(self, symbol: str) -> None:
        """Close the market until the adapter is closed."""
        raise NotImplementedError

    async def drop_answer(self) -> None:
        """Let the venue take the next place request and lose its answer."""
        raise NotImplementedError

    async def drop_request(self) -> None:
        """Lose the next place request before the venue gets it."""
        raise NotImplementedError

    async def garble_answer(self) -> None:
        """Let the venue take the next place request and answer it with something unreadable."""
        raise NotImplementedError

    async def swap_answer(self) -> None:
        """Let the venue take the next place request and answer it with another order."""
        raise NotImplementedError

    async def unknown_status(self) -> None:
        """Answer the next look-up of an order with a status that nobody knows."""
        raise NotImplementedError

    async def fail_read(self) -> None:
        """Answer the next read, whichever it is, with a server error."""
        raise NotImplementedError

    async def rate_limit(self, retry_after: timedelta) -> None:
        """Refuse the next place request for its pace."""
        raise NotImplementedError

    async def cut_stream(self) -> None:
        """Break the order stream, at the latest when the next update is due, which is lost."""
        raise NotImplementedError

    async def sends(self, client_order_id: str) -> int:
        """Return how many place requests with this id have reached the venue."""
        raise NotImplementedError

    def can(self, what: str) -> bool:
        """Tell whether a part is there."""
        if what == "secrets":
            return bool(self.secrets)
        return getattr(type(self), what) is not getattr(VenueControl, what)


class SimulatedControl(VenueControl):
    """What can be done with a venue that lives in this process."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self.exchange = exchange

    async def move_price(self, symbol: str, price: Decimal) -> None:
        """Quote the price on both sides."""
        now = self.exchange.clock.now()
        self.exchange.feed_quote(Quote(symbol, price, price, now, last=price))

    async def fill(self, client_order_id: str, quantity: Decimal) -> None:
        """Quote so much at the order's limit, then what was quoted before."""
        exchange = self.exchange
        order = exchange.core.order(client_order_id)
        limit = order.limit_price
        if limit is None:
            raise ConfigurationError(f"fill: {client_order_id} is no limit order")
        before = exchange.core.quote(order.symbol)
        tick = exchange.core.instrument(order.symbol).tick_size
        now = exchange.clock.now()
        if order.side is Side.BUY:
            crossing = Quote(order.symbol, limit - tick, limit, now, ask_size=quantity)
        else:
            crossing = Quote(order.symbol, limit, limit + tick, now, bid_size=quantity)
        exchange.feed_quote(crossing)
        exchange.feed_quote(msgspec.structs.replace(before, at=now))

    async def foreign_order(self, request: OrderRequest) -> None:
        """Place it; that its id is not ours makes it foreign."""
        await self.exchange.place_order(request)

    async def close_market(self, symbol: str) -> None:
        """Halt the symbol."""
        self.exchange.core.set_halted(symbol, halted=True)


class MockControl(SimulatedControl):
    """What can be done with the scripted mock: everything. Each call replaces the script."""

    exchange: MockExchange

    def __init__(self, exchange: MockExchange) -> None:
        super().__init__(exchange)

    def _next(self, on: Operation, kind: FaultKind, **details: Any) -> None:
        self.exchange.connection.script = FaultScript([Fault(on=on, kind=kind, nth=1, **details)])

    async def drop_answer(self) -> None:
        """Time out after the venue got the request."""
        self._next(Operation.PLACE, FaultKind.TIMEOUT, reached=True)

    async def drop_request(self) -> None:
        """Lose the connection before the venue got the request."""
        self._next(Operation.PLACE, FaultKind.LOST)

    async def garble_answer(self) -> None:
        """Answer without an id."""
        self._next(Operation.PLACE, FaultKind.MALFORMED, spoil="no_id")

    async def swap_answer(self) -> None:
        """Answer with another client order id."""
        self._next(Operation.PLACE, FaultKind.MALFORMED, spoil="other_client_id")

    async def unknown_status(self) -> None:
        """Answer with a status that nobody knows."""
        self._next(Operation.GET, FaultKind.MALFORMED, spoil="unknown_status")

    async def fail_read(self) -> None:
        """Fail each read once."""
        reads = (
            Operation.GET,
            Operation.OPEN,
            Operation.FILLS,
            Operation.BALANCES,
            Operation.POSITIONS,
            Operation.TICKER,
        )
        self.exchange.connection.script = FaultScript(
            Fault(on=each, kind=FaultKind.SERVER_ERROR, nth=1) for each in reads
        )

    async def rate_limit(self, retry_after: timedelta) -> None:
        """Refuse the next order."""
        self._next(Operation.PLACE, FaultKind.RATE_LIMIT, retry_after=retry_after)

    async def cut_stream(self) -> None:
        """Break at the next update."""
        self._next(Operation.STREAM, FaultKind.BREAK)

    async def sends(self, client_order_id: str) -> int:
        """Count in the mock's own book."""
        return self.exchange.sends(client_order_id)

"""A venue that answers at once: what remains of an order's time is ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from execkit.exchanges.base import ExchangeAdapter
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderRequest, OrderState, OrderType, OrderUpdate

PRICE = Decimal("50000.0")


class StubExchange(ExchangeAdapter):
    """Accepts and fills every limit order after one turn of the loop; stops and far limits rest."""

    name = "stub"

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        """`perf_counter_ns` at the adapter's door by client order id."""
        self.count = 0
        self.resting = False
        self._capabilities = Capabilities(
            order_stream=False, short_selling=True, reduce_only=True, amend=False
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def instrument(self, symbol: str) -> Instrument:
        return Instrument.default(symbol, tick_size=Decimal("0.1"), lot_size=Decimal("0.001"))

    async def place_order(self, request: OrderRequest) -> OrderReport:
        self.seen[request.client_order_id] = time.perf_counter_ns()
        await asyncio.sleep(0)  # stands for the venue's round trip
        self.count += 1
        rests = self.resting or request.type in (OrderType.STOP, OrderType.STOP_LIMIT)
        fills: tuple[Fill, ...] = ()
        if not rests:
            fills = (
                Fill(
                    trade_id=str(self.count),
                    client_order_id=request.client_order_id,
                    venue_order_id=str(self.count),
                    symbol=request.symbol,
                    side=request.side,
                    quantity=request.quantity,
                    price=PRICE,
                    at=datetime.now(UTC),
                ),
            )
        return OrderReport(
            client_order_id=request.client_order_id,
            venue_order_id=str(self.count),
            symbol=request.symbol,
            side=request.side,
            type=request.type,
            quantity=request.quantity,
            status=OrderState.ACCEPTED if rests else OrderState.FILLED,
            filled=Decimal(0) if rests else request.quantity,
            fills=fills,
        )

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        raise NotImplementedError

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        raise NotImplementedError

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        return []

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        return []

    async def balances(self) -> dict[str, Balance]:
        cash = Decimal(100_000_000)
        return {"USDT": Balance("USDT", cash, cash)}

    async def positions(self) -> Sequence[VenuePosition]:
        return []

    async def ticker(self, symbol: str) -> Quote:
        return Quote(symbol, PRICE - Decimal("0.5"), PRICE + Decimal("0.5"), datetime.now(UTC))

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        raise NotImplementedError

"""Binance on the wire with the adapter that speaks to it, for one test."""

import contextlib
from datetime import timedelta
from decimal import Decimal

from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.testing.venues.binance import KEY, SECRET, BinanceVenue


def adapter_of(venue, **options):
    settings = {"absence_window": timedelta(seconds=0.15), "market": venue.market}
    settings |= {"api_key": KEY, "secret": SECRET}
    settings |= {"rest_url": venue.rest_url, "stream_url": venue.stream_url}
    return BinanceAdapter(**(settings | options))


@contextlib.asynccontextmanager
async def on_the_wire(*, venue_options=None, **options):
    """Yield a venue and a connected adapter."""
    async with BinanceVenue(**(venue_options or {})) as venue:
        adapter = adapter_of(venue, **options)
        try:
            await adapter.connect()
            yield venue, adapter
        finally:
            await adapter.close()


def order(number=1, **changes):
    """Return a legal order of a numbered id."""
    values = {
        "client_order_id": f"xk{number:024d}",
        "symbol": "BTC/USDT",
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "quantity": Decimal("0.01"),
        "limit_price": Decimal(40_000),
    }
    return OrderRequest(**(values | changes))

"""An Interactive Brokers adapter and the wire-level TWS that it speaks to."""

import contextlib
import random
from datetime import timedelta
from decimal import Decimal

from execkit.exchanges.ibkr.adapter import IBKRAdapter
from execkit.ids import client_order_id
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.testing.venues.tws.server import WireTws

AAPL = "AAPL"


def adapter_of(venue, **options):
    """Return an adapter with short limits, not yet connected."""
    quick = {
        "port": venue.port,
        "read_timeout": timedelta(seconds=0.5),
        "order_timeout": timedelta(seconds=0.3),
        "heartbeat": timedelta(seconds=0.2),
        "fee_wait": timedelta(seconds=0.05),
        "hours_max_age": timedelta(0),
        "rng": random.Random(1),
    }
    return IBKRAdapter(**(quick | options))


@contextlib.asynccontextmanager
async def on_the_wire(*, venue_options=None, **options):
    """Yield a running venue and a connected adapter."""
    balances = {"USD": Decimal(10_000_000)}
    async with WireTws(**({"balances": balances} | (venue_options or {}))) as venue:
        adapter = adapter_of(venue, **options)
        try:
            await adapter.connect()
            yield venue, adapter
        finally:
            await adapter.close()


def order(name="1", **changes):
    """Return a buy of ten shares that rests below the market."""
    values = {
        "client_order_id": client_order_id("test", name, "entry"),
        "symbol": AAPL,
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "quantity": Decimal(10),
        "limit_price": Decimal(180),
    }
    values |= changes
    if values["type"] not in (OrderType.LIMIT, OrderType.STOP_LIMIT):
        values.pop("limit_price")
    return OrderRequest(**values)


class Updates:
    """What the order stream says from now on."""

    def __init__(self, adapter):
        self._updates = adapter.order_updates()
        self.seen = []

    async def until(self, condition):
        """Read on until an update fulfils the condition, and return it."""
        async for update in self._updates:
            self.seen.append(update)
            if condition(update):
                return update
        raise AssertionError(f"the stream ended: {self.seen}")

    def waiting(self):
        """Return what has come and was not read yet."""
        return list(self._updates._items)

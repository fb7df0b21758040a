"""The whole adapter contract against Binance on the wire, through the real ccxt client and real sockets."""

from decimal import Decimal

import pytest

from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.testing.contract import AdapterContract
from execkit.testing.venues.binance import KEY, SECRET, BinanceVenue


class OnTheWire(BinanceAdapter):
    """The adapter with the venue that it speaks to: started before it connects, closed after it."""

    def __init__(self, venue, **options):
        super().__init__(
            KEY, SECRET, rest_url=venue.rest_url, stream_url=venue.stream_url, **options
        )
        self.venue = venue

    async def close(self):
        await super().close()
        await self.venue.close()


class WireContract(AdapterContract):
    market = "spot"

    async def make_adapter(self):
        venue = BinanceVenue(market=self.market, prices={self.symbol: Decimal(42_000)})
        await venue.start()
        return OnTheWire(venue, market=self.market)

    def make_control(self, adapter):
        return adapter.venue.control()


class TestSpot(WireContract):
    """Spot."""


class TestFutures(WireContract):
    """USD-M futures."""

    market = "usdm"
    symbol = "BTC/USDT:USDT"


del AdapterContract, WireContract


@pytest.fixture(autouse=True)
def _no_real_keys(monkeypatch):
    monkeypatch.delenv("BINANCE_API_KEY", raising=False)
    monkeypatch.delenv("BINANCE_API_SECRET", raising=False)

"""The whole adapter contract against Alpaca on the wire, for stocks and for crypto, over real sockets."""

from datetime import timedelta

import pytest
from tests.support.alpaca import TradingClock

from execkit.exchanges.alpaca.adapter import AlpacaAdapter
from execkit.testing.contract import AdapterContract
from execkit.testing.venues.alpaca import KEY, SECRET, AlpacaVenue


class OnTheWire(AlpacaAdapter):
    """The adapter with the venue that it speaks to: started before it connects, closed after it."""

    def __init__(self, venue, **options):
        super().__init__(
            api_key=KEY,
            secret=SECRET,
            rest_url=venue.rest_url,
            stream_url=venue.stream_url,
            clock=venue.clock,
            **options,
        )
        self.venue = venue

    async def close(self):
        await super().close()
        await self.venue.close()


class WireContract(AdapterContract):
    clock = TradingClock()
    fractional = False

    async def make_adapter(self):
        venue = AlpacaVenue(clock=self.clock)
        await venue.start()
        return OnTheWire(venue, fractional=self.fractional, absence_window=timedelta(seconds=0.2))

    def make_control(self, adapter):
        return adapter.venue.control()


class TestStocks(WireContract):
    """Stocks, in whole shares."""

    symbol = "AAPL"


class TestCrypto(WireContract):
    """Crypto."""

    symbol = "BTC/USD"


del AdapterContract, WireContract


@pytest.fixture(autouse=True)
def _no_real_keys(monkeypatch):
    monkeypatch.delenv("ALPACA_API_KEY", raising=False)
    monkeypatch.delenv("ALPACA_API_SECRET", raising=False)

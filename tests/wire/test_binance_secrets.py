"""No secret shows anywhere, on any error path, in any spelling."""

import random
from decimal import Decimal

from tests.support.binance import adapter_of

from execkit.testing.canary import run_under_canary
from execkit.testing.contract import AdapterContract
from execkit.testing.venues.binance import KEY, SECRET, BinanceVenue


class Planted(AdapterContract):
    """The contract with made-up keys on both sides."""

    __test__ = False
    market = "spot"

    async def make_adapter(self):
        key = (self.secrets.get("api_key", KEY) * 4)[:64] if self.secrets else KEY
        secret = self.secrets.get("api_secret", SECRET) if self.secrets else SECRET
        venue = BinanceVenue(
            market=self.market, key=key, secret=secret, prices={self.symbol: Decimal(42_000)}
        )
        await venue.start()
        adapter = adapter_of(venue, api_key=key, secret=secret)
        close = adapter.close

        async def close_both():
            await close()
            await venue.close()

        adapter.close = close_both
        adapter.venue = venue
        return adapter

    def make_control(self, adapter):
        return adapter.venue.control()


def test_no_secret_is_written():
    """The whole contract with planted keys: logs, reprs, errors with their causes, and what ccxt logs."""
    canary = run_under_canary(Planted(), random.Random(7))
    canary.check()
    assert canary.bytes_scanned > 100_000

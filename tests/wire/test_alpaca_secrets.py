"""No secret of an Alpaca account shows anywhere, on any error path, in any spelling."""

import random
from datetime import timedelta

from tests.support.alpaca import TradingClock, adapter_of

from execkit.testing.canary import run_under_canary
from execkit.testing.contract import AdapterContract
from execkit.testing.venues.alpaca import KEY, SECRET, AlpacaVenue


class Planted(AdapterContract):
    """The contract with made-up keys on both sides."""

    __test__ = False
    symbol = "AAPL"
    clock = TradingClock()

    async def make_adapter(self):
        key = self.secrets.get("api_key", KEY)
        secret = self.secrets.get("api_secret", SECRET)
        venue = AlpacaVenue(clock=self.clock, key=key, secret=secret)
        await venue.start()
        adapter = adapter_of(venue, api_key=key, secret=secret, timeout=timedelta(seconds=2))
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
    """The whole contract with planted keys: logs, reprs, answers, streams, and errors with their causes."""
    canary = run_under_canary(Planted(), random.Random(7))
    canary.check()
    assert canary.bytes_scanned > 100_000

"""The Interactive Brokers adapter keeps the contract, over a real socket and with the unmodified client."""

import random
from datetime import timedelta
from decimal import Decimal

from execkit.exchanges.ibkr.adapter import IBKRAdapter
from execkit.testing.contract import AdapterContract
from execkit.testing.venues.tws.control import TwsControl
from execkit.testing.venues.tws.server import WireTws


class TestIBKR(AdapterContract):
    """Stocks on a paper account."""

    symbol = "AAPL"
    version = 178

    async def make_adapter(self):
        self.venue = await WireTws(
            version=self.version, balances={"USD": Decimal(10_000_000)}
        ).__aenter__()
        return IBKRAdapter(
            port=self.venue.port,
            read_timeout=timedelta(seconds=0.5),
            order_timeout=timedelta(seconds=0.3),
            fee_wait=timedelta(seconds=0.05),
            hours_max_age=timedelta(0),
            rng=random.Random(1),
        )

    def make_control(self, adapter):
        return TwsControl(self.venue, adapter)

    async def _run(self, case):
        try:
            await super()._run(case)
        finally:
            await self.venue.__aexit__()


class TestFutures(TestIBKR):
    """Futures: one contract is fifty units."""

    symbol = "ESZ6:CME"


class TestForex(TestIBKR):
    """Forex, over the oldest protocol that ib_async speaks."""

    symbol = "EUR/USD"
    version = 157


del AdapterContract

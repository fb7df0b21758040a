"""The venues inside this process keep the contract that every adapter keeps."""

from decimal import Decimal

from execkit.exchanges.paper import PaperExchange
from execkit.model.instrument import Instrument
from execkit.testing.contract import AdapterContract
from execkit.testing.mock import MockExchange

RULES = Instrument.default(
    "BTC/USDT",
    min_quantity=Decimal("0.0001"),
    min_notional=Decimal(10),
    maker_fee=Decimal("0.001"),
    taker_fee=Decimal("0.001"),
)
PRICES = {"BTC/USDT": Decimal(42_000)}
BALANCES = {"USDT": Decimal(100_000)}


class TestMockExchange(AdapterContract):
    """The scripted mock; its control can do everything, so nothing but secrets and closed markets is skipped."""

    virtual_time = True

    async def make_adapter(self):
        return MockExchange(balances=BALANCES, prices=PRICES, instruments=[RULES], clock=self.clock)


class TestMockWithFeesInBase(TestMockExchange):
    """A buyer pays the fee in what is bought, as on Binance."""

    async def make_adapter(self):
        rules = Instrument.default("BTC/USDT", taker_fee=Decimal("0.001"), fee_in_base=True)
        return MockExchange(balances=BALANCES, prices=PRICES, instruments=[rules], clock=self.clock)


class TestMarginMock(TestMockExchange):
    """An account that may go short."""

    async def make_adapter(self):
        return MockExchange(
            balances=BALANCES,
            prices=PRICES,
            instruments=[RULES],
            clock=self.clock,
            allow_short=True,
        )


class TestPaperExchange(AdapterContract):
    """Paper trading, on the real clock."""

    async def make_adapter(self):
        return PaperExchange(balances=BALANCES, prices=PRICES, instruments=[RULES])

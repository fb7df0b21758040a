"""A large order and an engine that works it in slices, in virtual time."""

from datetime import timedelta
from decimal import Decimal

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.exchanges.base import MarketStatus
from execkit.handlers.risk import RiskManagementHandler
from execkit.journal.base import MemoryJournal
from execkit.model.market import Quote
from execkit.model.order import OrderRole, Side
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Twap
from execkit.risk.limits import RiskLimits
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal
HOUR = timedelta(hours=1)
TWAP = Twap(duration=HOUR, slices=4)


class Sessions(MockExchange):
    """A venue that says whether its market is open."""

    is_open = True

    async def market_status(self, symbol):
        return MarketStatus(is_open=self.is_open)


def large(**changes):
    return TradingSignal(
        **{
            "symbol": BTC,
            "side": Side.BUY,
            "confluence": 4,
            "quantity": D("0.2"),
            "signal_id": "big",
            "slicing": TWAP,
            **changes,
        }
    )


def venue_for(clock):
    return MockExchange(clock=clock, prices={BTC: D(42_000)}, balances={"USDT": D(100_000)})


def pipeline():
    limits = RiskLimits(max_size_pct=D(20), max_position_pct=D(20))
    return standard_pipeline().replace("RiskManagementHandler", RiskManagementHandler(limits))


def engine_on(venue, clock, journal=None):
    return ExecutionEngine(venue, journal=journal, clock=clock, pipeline=pipeline())


def play(body):
    async def main(clock):
        venue = venue_for(clock)
        async with engine_on(venue, clock) as engine:
            await body(engine, venue, clock)

    run_virtual(main)


async def wait(clock, **delta):
    await clock.sleep_until(clock.now() + timedelta(**delta))


def entries(engine):
    return [order for order in engine.orders.values() if order.role is OrderRole.ENTRY]


def reopened(journal):
    """Return a journal as a new process finds it."""
    again = MemoryJournal()
    for entry in journal.entries:
        again.append(entry.record, entry.at)
    return again


def trade_at(venue, clock, price):
    """Let the market trade at a price."""
    venue.feed_quote(Quote(BTC, price - 1, price, clock.now(), last=price))

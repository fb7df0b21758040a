"""Paper trading on live data: the public streams of a wire-level venue, fills on the paper exchange, no key."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.bars.live import LiveOptions
from execkit.clock import Clock
from execkit.engine import ExecutionEngine
from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.exchanges.paper import PaperExchange
from execkit.model.events import PositionOpened
from execkit.model.market import BarData, Timeframe
from execkit.plans import TradePlan
from execkit.testing.venues.binance import BinanceVenue

BTC = "BTC/USDT"
D = Decimal
PLAN = TradePlan(
    name="breakout",
    symbol=BTC,
    entry=[
        {
            "function": "close_above",
            "timeframe": "1m",
            "parameters": {"threshold_price": Decimal(42_500)},
        }
    ],
    exit=[
        {
            "function": "close_below",
            "timeframe": "1m",
            "parameters": {"threshold_price": Decimal(41_000)},
        }
    ],
)


class NearMidnight(Clock):
    """The real clock, set so that a minute ends in a moment."""

    def __init__(self) -> None:
        self.set(timedelta(minutes=1))

    def set(self, before: timedelta) -> None:
        self.offset = datetime(2024, 1, 2, tzinfo=UTC) - before - datetime.now(UTC)

    def now(self):
        return datetime.now(UTC) + self.offset


@pytest.fixture
def no_keys(monkeypatch):
    for name in ("BINANCE_API_KEY", "BINANCE_API_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_keys")
async def test_a_plan_trades_on_the_venues_bars_and_prices():
    """A closed kline fires the plan; the fill is on paper at the venue's ask, which sees no order."""
    clock = NearMidnight()
    async with BinanceVenue(clock=clock) as venue:
        feed = BinanceAdapter(
            sandbox=True, rest_url=venue.rest_url, stream_url=venue.stream_url, clock=clock
        )
        paper = PaperExchange(balances={"USDT": D(10_000)}, feed=feed, clock=clock)
        engine = ExecutionEngine(paper, journal=None, plans=[PLAN], live=LiveOptions(), clock=clock)
        opened = asyncio.Event()
        engine.events.subscribe(PositionOpened, lambda _event: opened.set())
        await (
            feed.connect_data()
        )  # what takes time is done before the last second of the day begins
        clock.set(timedelta(seconds=2))
        async with engine:
            await venue.control().move_price(BTC, D(42_600))
            price = D(42_600)
            close = datetime(2024, 1, 2, tzinfo=UTC)
            while clock.now() < close:
                await asyncio.sleep(0.01)
            await venue.bar(BarData(BTC, Timeframe.M1, close, price, price, price, price, D(3)))
            async with asyncio.timeout(10):
                await opened.wait()
            await engine.desk.keeper.idle()
            position = engine.positions[BTC]
            assert position.average_price == (await paper.ticker(BTC)).ask
            # Fees are paid in bitcoin here, so what is held is no whole number of lots.
            owned = (await paper.instrument(BTC)).round_quantity(position.quantity)
            assert engine.book.working_stop(BTC).remaining == owned > 0
            assert engine.book.fired == {(BTC, "1m"): close}
        assert [r.path for r in venue.requests if r.method != "GET"] == []

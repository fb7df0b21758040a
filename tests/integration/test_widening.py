"""A stop is widened when the range of the bars has doubled since the entry: once, at the venue, also over a restart."""

import asyncio
from decimal import Decimal

from execkit.engine import ExecutionEngine
from execkit.journal.base import MemoryJournal
from execkit.model.market import BarData, Timeframe
from execkit.model.order import Side
from execkit.model.records import StopMoved
from execkit.model.signal import TradingSignal
from execkit.protection.policy import ProtectionPolicy
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal
POLICY = ProtectionPolicy(widen_on_atr="1m", widest_stop_pct=D(2))


class Minutes:
    """An engine whose history gets bars of a range, one a minute."""

    def __init__(self, clock, policy):
        self.clock, self.policy = clock, policy
        self.venue = MockExchange(
            clock=clock, prices={BTC: D(40_000)}, balances={"USDT": D(100_000)}
        )
        self.journal = MemoryJournal("mock")
        self.bars = []

    async def start(self):
        self.engine = ExecutionEngine(
            self.venue, journal=self.journal, clock=self.clock, protection=self.policy
        )
        await self.engine.start()
        for bar in self.bars:
            self.engine.desk.bars.append(bar)

    async def restart(self):
        await self.engine.stop()
        again = MemoryJournal("mock")
        for kept in self.journal.entries:
            again.append(kept.record, kept.at)
        self.journal = again
        await self.start()

    async def pass_minutes(self, count, of_range):
        for _ in range(count):
            await asyncio.sleep(60)
            half, price = D(of_range) / 2, D(40_000)
            bar = BarData(
                BTC, Timeframe.M1, self.clock.now(), price, price + half, price - half, price, D(1)
            )
            self.bars.append(bar)
            self.engine.desk.bars.append(bar)

    async def enter(self, **changes):
        values = {"stop_loss": D(39_600), "quantity": D("0.1"), "confluence": 4} | changes
        assert (await self.engine.submit(TradingSignal(symbol=BTC, side=Side.BUY, **values))).filled
        await self.engine.desk.keeper.idle()

    async def tick(self, price=40_000):
        self.venue.set_price(BTC, D(price))
        await asyncio.sleep(1)
        await self.engine.desk.keeper.idle()

    @property
    def stop(self):
        return self.engine.book.working_stop(BTC)

    @property
    def reasons(self):
        records = [kept.record for kept in self.journal.entries]
        return [record.reason for record in records if isinstance(record, StopMoved)]


def play(body, policy=POLICY):
    async def main(clock):
        minutes = Minutes(clock, policy)
        await minutes.start()
        try:
            await body(minutes)
        finally:
            await minutes.engine.stop()

    run_virtual(main)


def test_the_stop_at_the_venue_is_widened_once_and_never_again():
    """400 below the entry becomes 800, and stays there in the next process too."""

    async def body(minutes):
        await minutes.pass_minutes(15, 200)
        await minutes.enter()
        await minutes.pass_minutes(13, 400)
        await minutes.tick()
        assert minutes.stop.stop_price == 39_600, "13 of 14 bars: not twice yet"
        await minutes.pass_minutes(1, 400)
        await minutes.tick()
        assert (minutes.stop.stop_price, minutes.stop.remaining) == (39_200, D("0.1"))
        assert minutes.reasons == ["the ATR is twice that at the entry"]
        await minutes.restart()
        await minutes.pass_minutes(14, 1_600)
        await minutes.tick()
        assert minutes.stop.stop_price == 39_200
        assert minutes.reasons == ["the ATR is twice that at the entry"]

    play(body)


def test_a_restart_widens_what_the_last_process_has_not():
    """The bars of before the entry are what it needs."""

    async def body(minutes):
        await minutes.pass_minutes(15, 200)
        await minutes.enter()
        await minutes.pass_minutes(14, 400)
        await minutes.restart()
        await minutes.tick()
        assert minutes.stop.stop_price == 39_200

    play(body)


def test_the_limit_cuts_it():
    """500 below would become 1,000: 2 % of 40,000 is 800."""

    async def body(minutes):
        await minutes.pass_minutes(15, 200)
        await minutes.enter(stop_loss=D(39_500))
        await minutes.pass_minutes(14, 500)
        await minutes.tick()
        assert minutes.stop.stop_price == 39_200

    play(body)


def test_without_bars_from_before_the_entry_it_stays():
    """Nobody knows then what the range was."""

    async def body(minutes):
        await minutes.enter()
        await minutes.pass_minutes(30, 900)
        await minutes.tick()
        assert minutes.stop.stop_price == 39_600

    play(body)


def test_it_is_off_unless_asked_for():
    """A stop never goes away from the price by default."""

    async def body(minutes):
        await minutes.pass_minutes(15, 200)
        await minutes.enter()
        await minutes.pass_minutes(14, 900)
        await minutes.tick()
        assert minutes.stop.stop_price == 39_600

    play(body, ProtectionPolicy())


def test_a_stop_that_follows_the_price_is_not_widened():
    """It has moved already."""

    async def body(minutes):
        await minutes.pass_minutes(15, 200)
        await minutes.enter(take_profit=D(42_000))
        await minutes.tick(40_300)
        assert minutes.stop.stop_price > 39_600
        moved = minutes.stop.stop_price
        await minutes.pass_minutes(14, 900)
        await minutes.tick(40_300)
        assert minutes.stop.stop_price == moved

    play(body, ProtectionPolicy(widen_on_atr="1m", trailing_pct=D(1)))

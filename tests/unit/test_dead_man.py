"""The venue's own dead man's switch: kept from firing while the engine lives, by symbol."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.dead_man import DeadMan
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError, ExchangeUnavailableError, UnsupportedFeatureError
from execkit.journal.base import MemoryJournal
from execkit.model.events import SystemError  # noqa: A004 - promised name
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
D = Decimal
WITHIN = timedelta(seconds=40)


class Switched(MockExchange):
    """A venue with the switch; it only notes what it is told."""

    def __init__(self, clock):
        super().__init__(prices={BTC: D(42_000), ETH: D(2_500)}, clock=clock)
        self.told = []
        self.fails = 0
        """How many calls fail from now on."""
        self.error = ExchangeUnavailableError("down")
        self.hangs = False

    @property
    def capabilities(self):
        return attrs.evolve(super().capabilities, dead_man=True)

    async def dead_man(self, symbol, within):
        if self.fails:
            self.fails -= 1
            raise self.error
        seconds = None if within is None else within.total_seconds()
        self.told.append((asyncio.get_running_loop().time(), symbol, seconds))
        if self.hangs and within is not None:
            await asyncio.sleep(3600)


def rest(symbol=BTC, price=41_000):
    values = {"confluence": 4, "quantity": D("0.02"), "stop_loss": D(price) * D("0.99")}
    return TradingSignal(symbol=symbol, side=Side.BUY, limit_price=D(price), **values)


def lived(life):
    """Run *life* with an engine that has the switch on."""

    async def main(clock):
        venue = Switched(clock)
        async with ExecutionEngine(venue, journal=None, clock=clock) as engine:
            switch = DeadMan(engine.desk, WITHIN)
            await life(engine, venue, switch)

    run_virtual(main)


def test_each_symbol_with_orders_is_renewed_four_times_a_countdown():
    """Nothing is asked for a symbol without orders, and a countdown that is no longer needed is ended."""

    async def life(engine, venue, switch):
        await engine.submit(rest())
        venue.began = asyncio.get_running_loop().time()
        switch.start(engine.parts.upkeep.spawn)
        await asyncio.sleep(25)
        told = [(at - venue.began, *what) for at, *what in venue.told]
        assert told == [(seconds, BTC, 40.0) for seconds in (0.0, 10.0, 20.0)]
        venue.told.clear()
        await engine.cancel_all()
        await asyncio.sleep(25)
        assert [what for _, *what in venue.told] == [[BTC, None]]

    lived(life)


def test_the_first_order_of_a_symbol_starts_its_countdown_at_once():
    """Should the process die before the next turn, the venue cancels it all the same."""

    async def life(engine, venue, switch):
        switch.start(engine.parts.upkeep.spawn)
        await asyncio.sleep(1)
        assert venue.told == []
        venue.began = asyncio.get_running_loop().time()
        await engine.submit(rest())
        await asyncio.sleep(0.1)
        assert [(at - venue.began, *what) for at, *what in venue.told] == [(0.0, BTC, 40.0)]
        await engine.submit(rest(ETH, 2_400))
        await asyncio.sleep(0.1)
        assert [what for _, *what in venue.told] == [[BTC, 40.0], [ETH, 40.0]]

    lived(life)


def test_a_halt_keeps_it_going():
    """Halted, the engine lives: the stops that rest are to stay."""

    async def life(engine, venue, switch):
        await engine.submit(rest())
        switch.start(engine.parts.upkeep.spawn)
        await engine.halt("test")
        await asyncio.sleep(35)
        assert [what for _, *what in venue.told] == [[BTC, 40.0]] * 4

    lived(life)


@pytest.mark.parametrize("order", ["rests", "was cancelled just before", "was cancelled long ago"])
def test_after_a_crash_the_countdowns_of_the_last_process_are_taken_over(order):
    """Renewed for what rests; ended where nothing is left, so that it does not fall on the next order."""

    async def main(clock):
        venue, journal = Switched(clock), MemoryJournal("mock")
        first = ExecutionEngine(venue, journal=journal, clock=clock, dead_man=WITHIN)
        await first.start()
        result = await first.submit(rest())
        if order != "rests":
            await first.cancel(first.orders[result.client_order_ids[0]])
        if order.endswith("long ago"):
            await asyncio.sleep(41)
        again = MemoryJournal("mock")
        for kept in journal.entries:
            again.append(kept.record, kept.at)
        for task in first.parts.upkeep._tasks:
            task.cancel()
        venue.told.clear()
        async with ExecutionEngine(venue, journal=again, clock=clock, dead_man=WITHIN):
            await asyncio.sleep(0.1)
            expected = {"rests": [[BTC, 40.0]], "was cancelled just before": [[BTC, None]]}
            assert [what for _, *what in venue.told] == expected.get(order, [])

    run_virtual(main)


def test_a_clean_stop_ends_every_countdown():
    """What rests at a stop of the engine is to rest on."""

    async def life(engine, venue, switch):
        await engine.submit(rest())
        await engine.submit(rest(ETH, 2_400))
        await switch.renew()
        await switch.stop()
        assert sorted(symbol for _, symbol, within in venue.told if within is None) == [BTC, ETH]

    lived(life)


def test_an_order_of_the_moment_in_which_a_countdown_ends_has_one_of_its_own():
    """The end was asked for before it came, and must not leave it without the switch until the next turn."""

    async def life(engine, venue, switch):
        switch.start(engine.parts.upkeep.spawn)
        await engine.submit(rest())
        await engine.cancel_all(halt=False)
        await asyncio.sleep(0.1)
        real = venue.dead_man

        async def slow(symbol, within):
            if within is None:
                await asyncio.sleep(1)
            await real(symbol, within)

        venue.dead_man = slow
        turn = asyncio.ensure_future(switch.renew())
        await asyncio.sleep(0.5)
        await engine.submit(rest())
        await turn
        assert [what for _, *what in venue.told][-2:] == [[BTC, None], [BTC, 40.0]]
        venue.told.clear()
        await switch.stop()
        assert [what for _, *what in venue.told] == [[BTC, None]]

    lived(life)


def test_a_countdown_that_cannot_be_renewed_is_told_once():
    """A person has to know that the venue is about to cancel everything; it may have arrived, so it is ended too."""

    async def life(engine, venue, switch):
        await engine.submit(rest())
        venue.fails = 3
        for _ in range(3):
            await switch.renew()
        assert [alarm.code for alarm in engine.book.alarms] == ["DEAD_MAN_FAILED"]
        await switch.renew()
        await switch.stop()
        assert venue.told[-1][1:] == (BTC, None)

    lived(life)


def test_an_exception_that_nobody_knows_ends_no_renewing():
    """An adapter is foreign code: whatever it raises, the next turn comes."""

    async def life(engine, venue, switch):
        await engine.submit(rest())
        venue.fails, venue.error = 1, ValueError("no JSON")
        switch.start(engine.parts.upkeep.spawn)
        await asyncio.sleep(11)
        assert [alarm.code for alarm in engine.book.alarms] == ["DEAD_MAN_FAILED"]
        assert venue.told[-1][1:] == (BTC, 40.0)

    lived(life)


@pytest.mark.parametrize("error", [ExchangeUnavailableError("down"), KeyError("data")])
def test_a_stop_asks_again_until_the_countdown_has_ended(error):
    """What rests at the stop shall rest on, also where the venue fails twice."""

    async def life(engine, venue, switch):
        await engine.submit(rest())
        await switch.renew()
        venue.fails, venue.error = 2, error
        await switch.stop()
        assert venue.fails == 0
        assert venue.told[-1][1:] == (BTC, None)
        assert not engine.book.alarms

    lived(life)


def test_what_stays_armed_is_told():
    """After ten seconds a person hears which orders the venue is about to cancel; the stop goes on."""

    async def main(clock):
        venue, told = Switched(clock), []
        engine = ExecutionEngine(venue, journal=None, clock=clock, dead_man=WITHIN)
        engine.events.subscribe(SystemError, lambda event: told.append((event.code, event.text)))
        async with engine:
            await engine.submit(rest())
            await engine.submit(rest(ETH, 2_400))
            await asyncio.sleep(11)
            venue.fails = 10**6
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began <= 11
        ((code, text),) = told
        assert code == "DEAD_MAN_ARMED"
        assert "BTC/USDT, ETH/USDT" in text
        assert "40 s" in text

    run_virtual(main)


def test_a_first_countdown_that_a_stop_cuts_off_is_ended():
    """Its answer never came, and it may have arrived all the same."""

    async def main(clock):
        venue = Switched(clock)
        async with ExecutionEngine(venue, journal=None, clock=clock, dead_man=WITHIN) as engine:
            venue.hangs = True
            await engine.submit(rest())
            await asyncio.sleep(1)
            assert [what for _, *what in venue.told] == [[BTC, 40.0]]
        assert venue.told[-1][1:] == (BTC, None)

    run_virtual(main)


def test_a_venue_without_the_switch_is_named():
    """The option is refused at the start, and the method says that there is none."""

    async def life(engine, venue, switch):
        clock = engine.desk.clock
        plain = MockExchange(prices={BTC: D(42_000)}, clock=clock)
        async with ExecutionEngine(plain, journal=None, clock=clock) as other:
            with pytest.raises(ConfigurationError, match=r"dead_man: .* leave it None"):
                DeadMan(other.desk, WITHIN)
        with pytest.raises(UnsupportedFeatureError):
            await plain.dead_man(BTC, WITHIN)
        with pytest.raises(ConfigurationError, match="at least a second"):
            DeadMan(engine.desk, timedelta(milliseconds=10))

    lived(life)


def test_the_engine_keeps_it_and_ends_it():
    """The option is all it takes: renewed while the engine runs, ended with it."""

    async def main(clock):
        venue = Switched(clock)
        async with ExecutionEngine(venue, journal=None, clock=clock, dead_man=WITHIN) as engine:
            await engine.submit(rest())
            await asyncio.sleep(11)
            assert venue.told[-1][1:] == (BTC, 40.0)
        assert venue.told[-1][1:] == (BTC, None)

    run_virtual(main)

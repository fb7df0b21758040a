"""By which answer the clocks are compared: a slow one proves little."""

import asyncio
from datetime import timedelta

import pytest

from execkit.errors import ConfigurationError
from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.exchanges.ccxt.skew import measure
from execkit.virtual_time import run_virtual

AHEAD = timedelta(milliseconds=250)


class Venue:
    """Tells a time that is behind ours; each answer takes a while, all of it on the way there."""

    def __init__(self, clock, *delays, ahead=AHEAD):
        self.clock = clock
        self.ahead = ahead
        self.delays = list(delays)

    async def time(self):
        await asyncio.sleep(self.delays.pop(0))
        return self.clock.now() - self.ahead


def test_a_quick_answer_is_enough():
    """One question is asked, and half of its way counted."""

    async def main(clock):
        venue = Venue(clock, 0.02, 9)
        skew = await measure(venue.time, clock)
        assert skew.is_sure
        assert skew.ahead == AHEAD - timedelta(milliseconds=10)
        assert venue.delays == [9]

    run_virtual(main)


def test_the_quickest_of_three_counts():
    """A slow answer is not believed while a quicker one can be had."""

    async def main(clock):
        skew = await measure(Venue(clock, 3, 0.6, 0.04).time, clock)
        assert skew.took == timedelta(milliseconds=40)
        skew = await measure(Venue(clock, 3, 0.6, 2).time, clock)
        assert skew.took == timedelta(milliseconds=600)
        assert not skew.is_sure

    run_virtual(main)


def test_a_venue_without_a_time():
    """Nothing is measured."""

    async def main(clock):
        async def none():
            return None

        assert await measure(none, clock) is None

    run_virtual(main)


def test_requests_are_not_stamped_by_slow_answers():
    """After a refusal for the clock, the old difference stays unless a better one is known."""

    async def main(clock):
        adapter = BinanceAdapter("k", "s", clock=clock)
        adapter._stamp_by(timedelta(milliseconds=7))
        adapter._server_time = Venue(clock, 1.5, 1.5, 1.5).time
        await adapter._resync()
        assert adapter._client.options["timeDifference"] == 7
        adapter._server_time = Venue(clock, 0.02).time
        await adapter._resync()
        assert adapter._client.options["timeDifference"] == 240

    run_virtual(main)


def test_a_start_is_refused_only_for_what_is_sure():
    """An answer is wrong by half of its round trip at most: a slow one does not make a good clock a bad one."""

    async def main(clock):
        adapter = BinanceAdapter("k", "s", clock=clock)
        adapter._server_time = Venue(clock, 3, 3, 3).time
        await adapter._compare_clocks()
        assert adapter._client.options["timeDifference"] == 0
        for delay, ahead in ((3, 5), (0.04, 1.2), (0.04, -1.2)):
            off = timedelta(seconds=ahead)
            adapter._server_time = Venue(clock, delay, delay, delay, ahead=off).time
            with pytest.raises(ConfigurationError, match="clock: this machine's clock is"):
                await adapter._compare_clocks()

    run_virtual(main)

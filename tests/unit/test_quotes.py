"""The quote book: how far a price has come lately, and what is left of it when the stream breaks."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from execkit.clock import ManualClock
from execkit.model.market import Quote
from execkit.orders.book import Book
from execkit.quotes import QuoteBook
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
ETH = "ETH/USDT"
D = Decimal


@pytest.fixture
def see():
    clock = ManualClock()
    start = clock.now()
    quotes = QuoteBook(None, Book(), clock)

    def feed(*path):
        for seconds, price in path:
            at = start + timedelta(seconds=seconds)
            assert quotes.see(Quote(BTC, D(price), D(price), at))
        return quotes

    return feed


def test_a_move_is_measured_against_where_the_price_was_farthest_off(see):
    """Up and half back: 110 is 10 % above where it was within the minute; what is older does not count."""
    quotes = see((0, 50), (30, 100), (60, 120), (89, 110))
    assert quotes.moved_pct(BTC, timedelta(seconds=60)) == 10
    assert quotes.moved_pct(BTC, timedelta(seconds=30)) == D(10) / 120 * 100
    assert quotes.moved_pct(BTC, timedelta(seconds=89)) == 120


def test_one_quote_a_second_is_remembered(see):
    """Ten minutes of them, however many come."""
    quotes = see(*((n / 10, 100 + n) for n in range(100)))
    assert len(quotes._path[BTC]) == 10
    see(*((10 + n, 100) for n in range(700)))
    assert len(quotes._path[BTC]) == 600


def test_without_a_quote_nothing_has_moved(see):
    """An unknown symbol, and one that has just come."""
    assert see().moved_pct(BTC, timedelta(seconds=60)) == 0
    assert see((0, 100)).moved_pct(BTC, timedelta(seconds=60)) == 0


class Streaming:
    """A venue whose quote stream is told what to do, and whose ticker answers from *prices*."""

    name = "streaming"

    def __init__(self, clock):
        self.clock = clock
        self.prices = {BTC: D(100), ETH: D(10)}
        self.asked = []
        self.opened = []
        self.stream = None

    def quote(self, symbol):
        price = self.prices[symbol]
        return Quote(symbol, price, price, self.clock.now())

    async def ticker(self, symbol):
        self.asked.append(symbol)
        return self.quote(symbol)

    async def watch_quotes(self, symbols):
        self.opened.append((asyncio.get_running_loop().time(), tuple(symbols)))
        stream = self.stream = asyncio.Queue()
        while (item := await stream.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def tell(self, item):
        self.stream.put_nowait(item)
        await asyncio.sleep(0.001)


def following(story):
    """Run a story on a followed quote book."""

    async def main(clock):
        venue = Streaming(clock)
        quotes = QuoteBook(venue, Book(), clock, rng=random.Random(3))
        quotes.want(BTC)
        task = asyncio.ensure_future(quotes.follow())
        await asyncio.sleep(0.001)
        try:
            await story(venue, quotes)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run_virtual(main)


@pytest.mark.parametrize("ends_with", [ConnectionError("gone"), None])
def test_a_quote_of_a_broken_stream_prices_nothing(ends_with):
    """However young: what happened since nobody has seen. One is fetched for who asks, and the next news counts."""

    async def story(venue, quotes):
        await venue.tell(venue.quote(BTC))
        assert (await quotes.get(BTC)).bid == 100
        assert venue.asked == []
        await venue.tell(ends_with)
        venue.prices[BTC] = D(90)
        assert quotes.fresh(BTC) is None
        assert quotes.last(BTC).bid == 100  # for those who must go on with what there is
        assert (await quotes.get(BTC)).bid == 90
        assert venue.asked == [BTC]
        assert quotes.fresh(BTC).bid == 90  # it was asked for after the break
        await asyncio.sleep(1)
        await venue.tell(venue.quote(BTC))
        assert quotes.fresh(BTC) is not None
        assert len(venue.asked) == 1

    following(story)


def test_without_an_answer_a_broken_stream_leaves_no_quote():
    """An older price than the lost one does not take its place either."""

    async def story(venue, quotes):
        await venue.tell(venue.quote(BTC))
        old = Quote(BTC, D(99), D(99), venue.clock.now() - timedelta(seconds=1))
        await venue.tell(ConnectionError("gone"))
        assert not quotes.see(old)

        async def fails(_symbol):
            raise ConnectionError("no answer")

        venue.ticker = fails
        assert await quotes.get(BTC) is None

    following(story)


def test_following_more_symbols_asks_anew_for_those_that_were_followed():
    """Between two subscriptions nobody listens."""

    async def story(venue, quotes):
        await venue.tell(venue.quote(BTC))
        quotes.want(ETH)
        await asyncio.sleep(0.001)
        assert quotes.fresh(BTC) is None
        await venue.tell(venue.quote(BTC))
        assert quotes.fresh(BTC) is not None
        assert [symbols for _, symbols in venue.opened] == [(BTC,), (BTC, ETH)]

    following(story)


def test_a_stream_that_breaks_after_each_quote_is_opened_with_growing_pauses():
    """A price and a hang-up, again and again, is no success: in five minutes it is dialled some fifteen times."""

    async def story(venue, quotes):
        loop = asyncio.get_running_loop()
        while loop.time() < venue.opened[0][0] + 300:
            known = len(venue.opened)
            await venue.tell(venue.quote(BTC))
            await venue.tell(ConnectionError("gone"))
            while len(venue.opened) == known:
                await asyncio.sleep(0.1)
        at = [moment for moment, _ in venue.opened]
        pauses = [later - earlier for earlier, later in pairwise(at)]
        assert pauses[0] < 0.7
        assert pauses[3] > 2.9
        assert max(pauses) <= 30.2
        assert 12 <= len(at) <= 18

    following(story)

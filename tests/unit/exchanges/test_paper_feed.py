"""Paper trading on live prices: rules, quotes, bars and hours of another venue, orders and money of our own."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.engine import ExecutionEngine
from execkit.errors import (
    ConfigurationError,
    InvalidOrderError,
    NotSentError,
    UnsupportedFeatureError,
)
from execkit.exchanges.base import MarketStatus
from execkit.exchanges.paper import PaperExchange
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.model.signal import TradingSignal
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


class Live(MockExchange):
    """A real venue as the paper exchange sees it: nothing but public data may be used."""

    connected_for_data = 0
    closed = 0
    asked = 0

    def __init__(self, clock, **options):
        super().__init__(
            clock=clock,
            prices={},
            instruments=[Instrument(symbol=BTC, base="BTC", quote="USDT", tick_size=D("0.5"))],
            **options,
        )
        self.venue_clock = clock
        self.core.set_price(BTC, D(40_000))

    async def connect(self):
        raise AssertionError("no key is there")

    async def connect_data(self):
        self.connected_for_data += 1

    async def close(self):
        self.closed += 1
        await super().close()

    async def ticker(self, symbol):
        self.asked += 1
        return await super().ticker(symbol)

    async def place_order(self, request):
        raise AssertionError("nothing is ordered at the venue of the feed")

    async def market_status(self, symbol):
        return MarketStatus(is_open=False, reason="holiday")

    async def bars(self, symbol, timeframe, *, since, until=None):
        price = D(40_000)
        return [BarData(symbol, timeframe, since, price, price, price, price, D(1))]

    def move(self, price):
        self.feed_quote(
            Quote(BTC, D(price) - 1, D(price) + 1, self.venue_clock.now(), last=D(price))
        )


def paper(clock, live, **options):
    return PaperExchange(balances={"USDT": D(100_000)}, clock=clock, feed=live, **options)


def market(key="xk1", quantity="0.1"):
    return OrderRequest(
        client_order_id=key, symbol=BTC, side=Side.BUY, type=OrderType.MARKET, quantity=D(quantity)
    )


@pytest.mark.parametrize("has_stream", [True, False])
def test_orders_execute_at_the_prices_of_the_feed(has_stream):
    """By stream, and by asking where there is none; a resting order is executed when the feed's price crosses it."""

    async def main(clock):
        live = Live(clock)
        live._capabilities = attrs.evolve(live._capabilities, quote_stream=has_stream)
        async with paper(clock, live) as venue:
            live.move(41_000)
            report = await venue.place_order(market())
            assert (report.average_price, report.filled) == (D(41_001), D("0.1"))
            resting = OrderRequest(
                client_order_id="xk2",
                symbol=BTC,
                side=Side.BUY,
                type=OrderType.LIMIT,
                quantity=D("0.1"),
                limit_price=D(39_000),
            )
            assert not (await venue.place_order(resting)).filled
            await clock.sleep_until(clock.now() + timedelta(seconds=2))
            live.move(38_000)
            await clock.sleep_until(clock.now() + timedelta(seconds=2))
            done = await venue.get_order(BTC, client_order_id="xk2")
            assert (done.filled, done.average_price) == (D("0.1"), D(39_000))
        assert (live.connected_for_data, live.closed) == (1, 1)

    run_virtual(main)


def test_rules_are_those_of_the_feed_and_its_silence_on_fees_is_not_free_trading():
    """Tick and lot come from the venue; fees it does not tell are the paper exchange's own."""

    async def main(clock):
        async with paper(clock, Live(clock), taker_fee=D("0.002"), maker_fee=D("0.001")) as venue:
            rules = await venue.instrument(BTC)
            assert (rules.tick_size, rules.taker_fee, rules.maker_fee) == (
                D("0.5"),
                D("0.002"),
                D("0.001"),
            )
            report = await venue.place_order(market())
            assert report.fills[0].fee == report.fills[0].notional * D("0.002")

    run_virtual(main)


def test_two_symbols_at_once_make_one_stream():
    """And closing leaves none behind."""

    async def main(clock):
        live = Live(clock)
        live.core.add_instrument(Instrument(symbol="ETH/USDT", base="ETH", quote="USDT"))
        live.core.set_price("ETH/USDT", D(2_500))
        running = []
        watch = live.watch_quotes

        async def counted(symbols):
            running.append(symbols)
            try:
                async for quote in watch(symbols):
                    yield quote
            finally:
                running.remove(symbols)

        live.watch_quotes = counted
        venue = paper(clock, live)
        async with venue:
            await asyncio.gather(venue.instrument(BTC), venue.instrument("ETH/USDT"))
            await clock.sleep_until(clock.now() + timedelta(seconds=2))
            assert running == [[BTC, "ETH/USDT"]]
        await asyncio.sleep(0)
        assert running == []

    run_virtual(main)


def test_a_symbol_that_fails_keeps_none_from_the_others():
    """Where prices are asked for one after the other."""

    async def main(clock):
        live = Live(clock)
        live.core.add_instrument(Instrument(symbol="ADA/USDT", base="ADA", quote="USDT"))
        live.core.set_price("ADA/USDT", D(1))
        live._capabilities = attrs.evolve(live._capabilities, quote_stream=False)
        async with paper(clock, live) as venue:
            await venue.instrument(BTC)
            await venue.instrument("ADA/USDT")
            real = live.ticker

            async def fail(symbol):
                if symbol == "ADA/USDT":
                    raise ConnectionError("no route")
                return await real(symbol)

            live.ticker = fail
            live.move(38_000)
            await clock.sleep_until(clock.now() + timedelta(seconds=3))
            assert venue.core.quote(BTC).last == 38_000

    run_virtual(main)


def test_an_old_price_executes_nothing():
    """It is fetched anew first; when that fails, the order was provably not sent."""

    async def main(clock):
        live = Live(clock)
        async with paper(clock, live) as venue:
            await venue.instrument(BTC)
            asked = live.asked
            await venue.place_order(market("xk1"))
            assert live.asked == asked, "the price was seconds old"
            await clock.sleep_until(clock.now() + timedelta(seconds=6))
            await venue.place_order(market("xk2"))
            assert live.asked == asked + 1

            async def fail(_symbol):
                raise ConnectionError("no route")

            live.ticker = fail
            await clock.sleep_until(clock.now() + timedelta(seconds=6))
            with pytest.raises(NotSentError, match="no live price"):
                await venue.place_order(market("xk3"))

    run_virtual(main)


def test_a_price_of_a_broken_stream_executes_nothing():
    """However young: it is asked for anew, and an older one than is known does not count."""

    async def main(clock):
        live = Live(clock)
        broken = asyncio.Event()
        watch = live.watch_quotes

        async def breaking(symbols):
            stream = aiter(watch(symbols))
            while not broken.is_set():
                news = asyncio.ensure_future(anext(stream))
                over = asyncio.ensure_future(broken.wait())
                await asyncio.wait((news, over), return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
                if not news.done():
                    news.cancel()
                    break
                yield news.result()
            raise ConnectionError("the stream broke")

        live.watch_quotes = breaking
        async with paper(clock, live) as venue:
            await venue.instrument(BTC)
            await asyncio.sleep(0.01)
            live.move(41_000)
            await asyncio.sleep(0.01)
            asked = live.asked
            assert (await venue.ticker(BTC)).last == 41_000
            assert live.asked == asked
            broken.set()
            await asyncio.sleep(0.01)
            live.core.set_price(BTC, D(35_000))
            live.move(35_000)
            report = await venue.place_order(market())
            assert report.average_price == 35_001
            assert live.asked == asked + 1

    run_virtual(main)


def test_rules_that_change_at_the_venue_change_here():
    """At once when its adapter has found that out; else after an hour at the latest; those who keep them are told."""

    async def main(clock):
        live = Live(clock)
        rules = live.core.instruments[BTC]
        async with paper(clock, live) as venue:
            assert (await venue.instrument(BTC)).lot_size == D("0.00001")
            seen = venue.rules_version
            live.core.add_instrument(attrs.evolve(rules, lot_size=D("0.1")))
            live.rules_version += 1
            assert venue.rules_version != seen
            with pytest.raises(InvalidOrderError, match="LOT_SIZE"):
                await venue.place_order(market(quantity="0.15"))
            assert (await venue.instrument(BTC)).lot_size == D("0.1")
            live.core.add_instrument(attrs.evolve(rules, lot_size=D("0.01")))
            assert (await venue.instrument(BTC)).lot_size == D("0.1")
            await clock.sleep_until(clock.now() + timedelta(hours=1))
            seen = venue.rules_version
            assert (await venue.place_order(market("xk2", "0.15"))).filled == D("0.15")
            assert venue.rules_version != seen

    run_virtual(main)


def test_known_rules_stand_while_the_venue_cannot_be_asked():
    """An hour later its adapter fails: orders are judged by what is known."""

    async def main(clock):
        live = Live(clock)
        async with paper(clock, live) as venue:
            await venue.instrument(BTC)
            await clock.sleep_until(clock.now() + timedelta(hours=1))

            async def fails(_symbol):
                raise ConnectionError("no answer")

            live.market_status = live.instrument = fails
            assert (await venue.place_order(market())).filled == D("0.1")

    run_virtual(main)


def test_a_market_that_was_closed_at_the_start_opens():
    """Its rules said that it does not trade; they are asked for again until they do not."""

    async def main(clock):
        live = Live(clock)
        rules = live.core.instruments[BTC]

        async def status(_symbol):
            return MarketStatus(is_open=live.core.instruments[BTC].tradeable)

        live.market_status = status
        live.core.add_instrument(attrs.evolve(rules, tradeable=False))
        async with paper(clock, live) as venue:
            assert not (await venue.instrument(BTC)).tradeable
            assert not (await venue.market_status(BTC)).is_open
            live.core.add_instrument(rules)
            assert (await venue.market_status(BTC)).is_open
            assert (await venue.place_order(market())).filled == D("0.1")

    run_virtual(main)


def test_the_ticker_has_the_feeds_own_age():
    """A price from before is not dated now, so that the engine sees how old it is."""

    async def main(clock):
        live = Live(clock)
        async with paper(clock, live) as venue:
            await venue.instrument(BTC)
            first = await venue.ticker(BTC)
            await clock.sleep_until(clock.now() + timedelta(seconds=3))
            assert (await venue.ticker(BTC)).at == first.at

    run_virtual(main)


def test_hours_and_bars_are_those_of_the_feed():
    """Without a feed there are no bars to ask for."""

    async def main(clock):
        live = Live(clock)
        async with paper(clock, live) as venue:
            await venue.instrument(BTC)
            status = await venue.market_status(BTC)
            assert (status.is_open, status.reason) == (False, "holiday")
            (bar,) = await venue.bars(BTC, Timeframe.M1, since=clock.now())
            assert bar.close == 40_000
        alone = PaperExchange(balances={"USDT": D(1)}, clock=clock)
        with pytest.raises(UnsupportedFeatureError, match="give it a feed"):
            await alone.bars(BTC, Timeframe.M1, since=clock.now())

    run_virtual(main)


def test_a_position_is_followed_again_after_a_restart(tmp_path):
    """Its stop must see the market although nobody asks for the symbol."""

    async def main(clock):
        live = Live(clock)
        async with paper(clock, live, storage=tmp_path / "paper") as venue:
            await venue.place_order(market())
        live = Live(clock)
        async with paper(clock, live, storage=tmp_path / "paper") as venue:
            live.move(30_000)
            await clock.sleep_until(clock.now() + timedelta(seconds=1))
            assert venue.core.quote(BTC).last == 30_000

    run_virtual(main)


def test_an_engine_trades_on_it():
    """Signal to fill and stop with nothing but a feed."""

    async def main(clock):
        live = Live(clock)

        async def always_open(_symbol):
            return MarketStatus(is_open=True)

        live.market_status = always_open
        async with ExecutionEngine(paper(clock, live), journal=None, clock=clock) as engine:
            result = await engine.submit(
                TradingSignal(symbol=BTC, side=Side.BUY, confluence=4, quantity=D("0.05"))
            )
            assert result.filled == D("0.05"), str(result)
            await engine.desk.keeper.idle()
            assert engine.book.working_stop(BTC).quantity == D("0.05")

    run_virtual(main)


def test_a_feed_by_name_comes_from_the_factory():
    """As a configuration file needs it; options without a name and other things are refused."""
    venue = PaperExchange(
        balances={"USDT": D(1)}, feed="paper", feed_options={"balances": {"USDT": D(1)}}
    )
    assert isinstance(venue._feed.source, PaperExchange)
    with pytest.raises(ConfigurationError, match="feed_options"):
        PaperExchange(balances={"USDT": D(1)}, feed_options={"a": 1})
    with pytest.raises(ConfigurationError, match="feed: 7"):
        PaperExchange(balances={"USDT": D(1)}, feed=7)

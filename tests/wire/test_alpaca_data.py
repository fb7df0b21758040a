"""Prices and hours at Alpaca: quotes, trades, bars by stream and from history, and whether a market is open."""

import asyncio
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from tests.support.alpaca import TradingClock, on_the_wire

from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
    ExchangeUnavailableError,
    UnsupportedFeatureError,
)
from execkit.exchanges.base import MarketPhase
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.testing.venues.alpaca import Asset, TradingHours
from execkit.testing.venues.alpaca.rows import bar_row
from execkit.testing.venues.faults import Mishap

D = Decimal
NINE = datetime(2024, 3, 12, 14, 0, tzinfo=UTC)


def bar(close_time, symbol="AAPL", timeframe=Timeframe.M1, price="150", volume="100"):
    value = D(price)
    return BarData(symbol, timeframe, close_time, value, value, value, value, D(volume))


async def first(stream, count):
    """Return the first items of a stream."""
    async with asyncio.timeout(5):
        return [await anext(stream) for _ in range(count)]


# -- streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD"])
async def test_bars_by_stream_name_their_end_and_are_corrected(symbol):
    """Alpaca labels a bar by its beginning; late trades send it once more, as a correction."""
    async with on_the_wire() as (venue, adapter):
        stream = adapter.watch_bars([symbol], Timeframe.M1)
        await venue.until(lambda: any(f"u:{symbol}" in s.topics for s in venue.sockets))
        made = bar(NINE, symbol)
        late = bar(NINE, symbol, volume="120")
        venue.show_bar(made)
        venue.show_bar(bar(NINE, "MSFT"))
        venue.show_bar(late, late=True)
        assert await first(stream, 2) == [made, late]
        await stream.aclose()
        await venue.until(lambda: len(venue.sockets) == 1)


async def test_quotes_and_trades_share_one_connection():
    """Alpaca allows one connection to each data stream: what readers want is added up."""
    async with on_the_wire() as (venue, adapter):
        quotes = adapter.watch_quotes(["AAPL"])
        trades = adapter.watch_trades(["AAPL"])
        await venue.until(lambda: any("t:AAPL" in s.topics for s in venue.sockets))
        more = adapter.watch_trades(["MSFT"])
        await venue.until(lambda: any("t:MSFT" in s.topics for s in venue.sockets))
        assert len(venue.sockets) == 2
        [quote] = await first(quotes, 1)
        assert (quote.symbol, quote.bid, quote.ask) == ("AAPL", D(150), D("150.01"))
        trade = Trade("AAPL", D("150.02"), D(3), NINE)
        venue.show_trade(trade)
        other = Trade("MSFT", D("300.02"), D(1), NINE)
        venue.show_trade(other)
        assert await first(trades, 1) == [trade]
        assert await first(more, 1) == [other]


async def test_a_broken_data_stream_ends_its_readers_and_opens_anew():
    """Whoever reads gets an error; whoever asks again gets a new connection."""
    async with on_the_wire() as (venue, adapter):
        quotes = adapter.watch_quotes(["AAPL"])
        await first(quotes, 1)
        venue.cut_streams()
        with pytest.raises(ExchangeUnavailableError):
            await first(quotes, 1)
        again = adapter.watch_quotes(["AAPL"])
        [quote] = await first(again, 1)
        assert quote.symbol == "AAPL"


async def test_a_row_that_nobody_can_read_is_left_out():
    """The next quote is not far; an impossible one is never handed on."""
    async with on_the_wire() as (venue, adapter):
        trades = adapter.watch_trades(["AAPL"])
        await venue.until(lambda: any("t:AAPL" in s.topics for s in venue.sockets))
        [socket] = [s for s in venue.sockets if s.topics]
        good = {"T": "t", "S": "AAPL", "t": "2024-03-12T14:00:00.123456789Z", "s": 1}
        socket.push("not json")
        for price in (-1, 0, "NaN", None, 10**20):
            socket.push([good | {"p": price}])
        socket.push([good | {"p": 1.5e-05}, good | {"p": 150.25}])
        found = await first(trades, 2)
        assert [t.price for t in found] == [D("0.000015"), D("150.25")]
        assert found[0].at == datetime(2024, 3, 12, 14, 0, 0, 123456, UTC)


async def test_a_data_stream_that_refuses_the_key():
    """The reader is told what to check."""
    async with on_the_wire() as (venue, adapter):
        venue.key = "another"
        quotes = adapter.watch_quotes(["AAPL"])
        with pytest.raises(AuthenticationError, match="data plan"):
            await first(quotes, 1)


async def test_stocks_and_crypto_are_watched_apart():
    """They come over two streams; so do bars of other lengths, not at all."""
    async with on_the_wire() as (_venue, adapter):
        with pytest.raises(ConfigurationError, match="apart"):
            adapter.watch_quotes(["AAPL", "BTC/USD"])
        with pytest.raises(UnsupportedFeatureError, match="one minute"):
            adapter.watch_bars(["AAPL"], Timeframe.M5)


# -- quotes and history --------------------------------------------------------------------------------------


async def test_a_quote_of_one_side_is_no_quote():
    """As outside the session: an error, never a price of zero."""
    async with on_the_wire() as (venue, adapter):
        changes = {"latestQuote": {"t": "2024-03-12T14:00:00Z", "bp": 0, "bs": 0, "ap": 1, "as": 1}}
        venue.fail_next("ticker", Mishap.CHANGE, changes=changes)
        with pytest.raises(ExchangeUnavailableError, match="one side"):
            await adapter.ticker("AAPL")
        quote = await adapter.ticker("BTC/USD")
        assert (quote.bid, quote.ask, quote.last) == (D(60000), D("60000.01"), D(60000))


async def test_the_history_of_bars():
    """Exact prices, by their end, only finished ones, page by page."""
    async with on_the_wire() as (venue, adapter):
        made = [bar(NINE + timedelta(minutes=n), price=f"150.{n:02d}") for n in range(1, 40)]
        venue.bars["AAPL", "1Min"] = [bar_row(each) for each in made]
        found = await adapter.bars("AAPL", Timeframe.M1, since=made[9].close_time)
        assert found == made[10:]
        found = await adapter.bars("AAPL", Timeframe.M1, since=NINE, until=made[4].close_time)
        assert found == made[:5]
        venue.clock.set(made[20].close_time + timedelta(seconds=1))
        assert (await adapter.bars("AAPL", Timeframe.M1, since=NINE))[-1] == made[20]
        with pytest.raises(UnsupportedFeatureError):
            await adapter.bars("AAPL", Timeframe.W1, since=NINE)
        venue.fail_next("bars", Mishap.ERROR, status=500)
        with pytest.raises(ExchangeUnavailableError):
            await adapter.bars("AAPL", Timeframe.M1, since=NINE)


async def test_daily_bars_of_stocks_end_with_the_session():
    """At 16:00 in New York, at 13:00 on a half day, whatever the clocks do that week; those of crypto at midnight."""
    hours = TradingHours(early={date(2024, 3, 8): time(13)})
    async with on_the_wire(hours=hours) as (venue, adapter):
        rows = []
        for day, offset in ((7, 5), (8, 5), (11, 4)):  # summer time began on the 10th
            begins = datetime(2024, 3, day, offset, tzinfo=UTC)
            made = bar(begins + timedelta(days=1), timeframe=Timeframe.D1)
            rows.append(bar_row(made))
        venue.bars["AAPL", "1Day"] = rows
        since = datetime(2024, 3, 6, tzinfo=UTC)
        found = await adapter.bars("AAPL", Timeframe.D1, since=since)
        assert [each.close_time for each in found] == [
            datetime(2024, 3, 7, 21, tzinfo=UTC),
            datetime(2024, 3, 8, 18, tzinfo=UTC),
            datetime(2024, 3, 11, 20, tzinfo=UTC),
        ]
        coin = bar(datetime(2024, 3, 8, tzinfo=UTC), "BTC/USD", Timeframe.D1)
        venue.bars["BTC/USD", "1Day"] = [bar_row(coin)]
        assert await adapter.bars("BTC/USD", Timeframe.D1, since=since) == [coin]


# -- instruments and hours -----------------------------------------------------------------------------------


async def test_the_price_step_follows_the_price():
    """A cent from 1 USD on, a hundredth of it below; without a price a cent, which is always right."""
    assets = [Asset.stock("AAPL"), Asset.stock("PENNY"), Asset.stock("NEW")]
    prices = {"AAPL": D(150), "PENNY": D("0.42")}
    async with on_the_wire(assets=assets, prices=prices) as (_venue, adapter):
        steps = {s: (await adapter.instrument(s)).tick_size for s in ("AAPL", "PENNY", "NEW")}
        assert steps == {"AAPL": D("0.01"), "PENNY": D("0.0001"), "NEW": D("0.01")}


async def test_the_rules_of_crypto_are_the_assets():
    """Steps and minimum are what the asset says; each asset is asked for once."""
    async with on_the_wire() as (venue, adapter):
        rules = await adapter.instrument("BTC/USD")
        assert (rules.base, rules.quote) == ("BTC", "USD")
        assert (rules.tick_size, rules.lot_size) == (D("0.01"), D("1e-9"))
        assert rules.min_quantity == D("0.0001")
        await adapter.instrument("BTC/USD")
        assert len(venue.calls("asset")) == 1


TUESDAY = datetime(2024, 3, 12, tzinfo=UTC)
HALF_DAY = datetime(2024, 7, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "phase", "next_open", "next_close"),
    [
        (TUESDAY.replace(hour=15), MarketPhase.REGULAR, "2024-03-13T13:30", "2024-03-12T20:00"),
        (TUESDAY.replace(hour=9), MarketPhase.PRE, "2024-03-12T13:30", "2024-03-12T20:00"),
        (TUESDAY.replace(hour=21), MarketPhase.AFTER, "2024-03-13T13:30", "2024-03-13T20:00"),
        (TUESDAY.replace(hour=5), MarketPhase.CLOSED, "2024-03-12T13:30", "2024-03-12T20:00"),
        (TUESDAY.replace(day=16, hour=15), MarketPhase.CLOSED, "2024-03-18T13:30", None),
        (HALF_DAY.replace(hour=16), MarketPhase.REGULAR, "2024-07-05T13:30", "2024-07-03T17:00"),
        (HALF_DAY.replace(hour=18), MarketPhase.AFTER, "2024-07-05T13:30", "2024-07-05T20:00"),
    ],
)
async def test_the_state_of_the_stock_market(at, phase, next_open, next_close):
    """By clock and calendar: before, in and after the session, weekends, holidays and half days."""
    hours = TradingHours(holidays=[date(2024, 7, 4)], early={date(2024, 7, 3): time(13)})
    async with on_the_wire(hours=hours, clock=TradingClock(at)) as (_venue, adapter):
        status = await adapter.market_status("AAPL")
        assert (status.phase, status.is_open) == (phase, phase is MarketPhase.REGULAR)
        assert f"{status.next_open:%Y-%m-%dT%H:%M}" == next_open
        if next_close is not None:
            assert f"{status.next_close:%Y-%m-%dT%H:%M}" == next_close
        assert (await adapter.market_status("BTC/USD")).is_open


async def test_the_venues_clock_wins_over_its_calendar():
    """A day on which it does not open although the calendar says so is not open."""
    async with on_the_wire() as (venue, adapter):
        venue.hours.is_shut = True
        assert not (await adapter.market_status("AAPL")).is_open


async def test_an_asset_that_is_halted():
    """Not tradable: halted, with the reason; the clock is asked once for all symbols."""
    async with on_the_wire() as (venue, adapter):
        venue.halt("AAPL")
        status = await adapter.market_status("AAPL")
        assert (status.phase, status.is_open) == (MarketPhase.HALTED, False)
        assert "AAPL" in status.reason
        assert (await adapter.market_status("MSFT")).is_open
        assert len(venue.calls("clock")) == 1
        venue.halt("AAPL", halted=False)
        assert (await adapter.market_status("AAPL")).is_open


async def test_a_quote_in_the_session_is_matched():
    """The venue's prices are those that it executes at."""
    async with on_the_wire() as (venue, adapter):
        now = venue.clock.now()
        await venue.quote(Quote("AAPL", D("151.5"), D("151.6"), now, last=D("151.55")))
        quote = await adapter.ticker("AAPL")
        assert (quote.bid, quote.ask, quote.last) == (D("151.5"), D("151.6"), D("151.55"))

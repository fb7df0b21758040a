"""Prices, bars, hours and the account at TWS."""

import gc
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.ibkr import AAPL, on_the_wire, order

from execkit.clock import ManualClock
from execkit.errors import ExchangeUnavailableError, UnsupportedFeatureError
from execkit.exchanges.base import MarketPhase
from execkit.model.market import BarData, Timeframe
from execkit.model.order import OrderType, Side
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.wire import frame

NINE = datetime(2026, 1, 5, 9, tzinfo=UTC)


def bar(close_at, price, timeframe=Timeframe.M1):
    value = Decimal(price)
    return BarData(AAPL, timeframe, close_at, value, value + 1, value - 1, value, Decimal(100))


async def test_quote_needs_bid_and_ask():
    """A price of -1, or one without a size, is none; without both sides there is no quote, and the error says why."""
    async with on_the_wire() as (venue, adapter):
        venue.answers._ticks = lambda key, _listing: [
            frame(1, 6, key, 1, -1, 0, 0),
            frame(1, 6, key, 2, 201, 5, 0),
        ]
        with pytest.raises(ExchangeUnavailableError, match="subscribed"):
            await adapter.ticker(AAPL)
        await venue.until(lambda: venue.sessions[0].quotes == {})  # it was ended all the same


@pytest.mark.parametrize("code", [354, 10089, 10168, 10197])
async def test_missing_market_data(code):
    """The codes for data that is missing or not subscribed to fail the question with the venue's words."""
    async with on_the_wire() as (venue, adapter):
        venue.fault(
            "quote", Mishap.ERROR, code=code, text="Requested market data is not subscribed"
        )
        with pytest.raises(ExchangeUnavailableError, match="not subscribed"):
            await adapter.ticker(AAPL)


async def test_delayed_prices():
    """Delayed ticks (66 to 68) are prices too, where delayed data was asked for."""
    async with on_the_wire(delayed_data=True) as (venue, adapter):
        venue.answers._ticks = lambda key, _listing: [
            frame(1, 6, key, 66, 199, 5, 0),
            frame(1, 6, key, 67, 201, 5, 0),
        ]
        quote = await adapter.ticker(AAPL)
        assert (quote.bid, quote.ask) == (199, 201)
        assert venue.messages[59] == 1


async def test_streams_survive_a_reconnection():
    """Quotes and trades go on after the connection was made anew."""
    async with on_the_wire() as (venue, adapter):
        quotes, trades = adapter.watch_quotes([AAPL]), adapter.watch_trades([AAPL])
        assert (await anext(quotes)).bid == 200
        venue.cut()
        await venue.until(
            lambda: venue.connects == 2 and sum(len(s.quotes) for s in venue.sessions) == 2
        )
        venue.move_price(AAPL, Decimal(210))
        while (await anext(quotes)).bid != 210:
            pass
        assert (await anext(trades)).price == 210


async def test_stream_of_an_unknown_symbol_ends():
    """A stream that cannot be raises instead of staying silent."""
    async with on_the_wire() as (_venue, adapter):
        with pytest.raises(Exception, match="not listed"):
            await anext(adapter.watch_quotes(["NOSUCH"]))


async def test_reader_that_left_costs_nothing():
    """A stream that nobody holds any more is ended at the venue too: data lines are few."""
    async with on_the_wire() as (venue, adapter):
        quotes = adapter.watch_quotes([AAPL])
        await anext(quotes)
        del quotes
        gc.collect()
        await venue.until(lambda: venue.messages[2] == 1)


async def test_history():
    """History gives the finished bars between two times, oldest first, each with the end of its interval."""
    clock = ManualClock(NINE + timedelta(hours=1))
    async with on_the_wire(clock=clock) as (venue, adapter):
        venue.answers.klines.load([bar(NINE + timedelta(minutes=n), 100 + n) for n in range(1, 70)])
        bars = await adapter.bars(
            AAPL,
            Timeframe.M1,
            since=NINE + timedelta(minutes=10),
            until=NINE + timedelta(minutes=13),
        )
        assert [b.close for b in bars] == [111, 112, 113]
        assert bars[0].close_time == NINE + timedelta(minutes=11)
        latest = await adapter.bars(AAPL, Timeframe.M1, since=NINE + timedelta(minutes=58))
        assert [b.close for b in latest] == [159, 160]  # the one that is forming is left out
        with pytest.raises(UnsupportedFeatureError):
            await adapter.bars(AAPL, Timeframe.W1, since=NINE)


async def test_live_bars_are_final():
    """A bar is told once it is finished, by a newer one; what came before the subscription is not told."""
    clock = ManualClock(NINE + timedelta(minutes=5, seconds=30))
    async with on_the_wire(clock=clock) as (venue, adapter):
        venue.answers.klines.load([bar(NINE + timedelta(minutes=n), 100 + n) for n in range(1, 7)])
        bars = adapter.watch_bars([AAPL], Timeframe.M1)
        await venue.until(lambda: any(s.bars for s in venue.sessions))
        venue.answers.publish_bar(bar(NINE + timedelta(minutes=6), 200))
        venue.answers.publish_bar(bar(NINE + timedelta(minutes=6), 201))
        venue.answers.publish_bar(bar(NINE + timedelta(minutes=7), 300))
        told = await anext(bars)
        assert (told.close_time, told.close) == (NINE + timedelta(minutes=6), 201)


async def test_bars_form_from_prices():
    """The venue's own prices make its bars, told when the next one begins."""
    clock = ManualClock(NINE)
    async with on_the_wire(clock=clock, venue_options={"clock": clock}) as (venue, adapter):
        bars = adapter.watch_bars([AAPL], Timeframe.M1)
        await venue.until(lambda: any(s.bars for s in venue.sessions))
        for price in (200, 205, 198, 201):
            venue.move_price(AAPL, Decimal(price))
        clock.advance(timedelta(minutes=1))
        venue.move_price(AAPL, Decimal(202))
        told = await anext(bars)
        assert (told.open, told.high, told.low, told.close) == (200, 205, 198, 201)
        assert told.close_time == NINE + timedelta(minutes=1)
        assert await adapter.bars(AAPL, Timeframe.M1, since=NINE) == [told]


async def test_bars_of_a_gap_are_told():
    """Bars that were finished while the connection was down come with the history of the new one."""
    clock = ManualClock(NINE + timedelta(minutes=5, seconds=30))
    async with on_the_wire(clock=clock) as (venue, adapter):
        venue.answers.klines.load([bar(NINE + timedelta(minutes=n), 100 + n) for n in range(1, 6)])
        bars = adapter.watch_bars([AAPL], Timeframe.M1)
        await venue.until(lambda: any(s.bars for s in venue.sessions))
        venue.answers.klines.load([bar(NINE + timedelta(minutes=n), 100 + n) for n in range(1, 10)])
        venue.cut()
        assert [(await anext(bars)).close for _ in range(3)] == [106, 107, 108]


async def test_hours():
    """Phases follow from the contract's hours in its own zone, summer time included."""
    clock = ManualClock(datetime(2026, 7, 6, 13, tzinfo=UTC))  # 9:00 in New York
    async with on_the_wire(clock=clock) as (venue, adapter):
        listing = venue.listings[AAPL]
        listing.time_zone = "US/Eastern"
        listing.liquid_hours = "20260706:0930-20260706:1600;20260707:0930-20260707:1600"
        listing.trading_hours = "20260706:0400-20260706:2000;20260707:0400-20260707:2000"
        opens = datetime(2026, 7, 6, 13, 30, tzinfo=UTC)
        seen = {}
        for hour in (13, 14, 21, 25):
            clock.set(datetime(2026, 7, 6, tzinfo=UTC) + timedelta(hours=hour))
            status = await adapter.market_status(AAPL)
            seen[hour] = (status.phase, status.is_open, status.next_open)
        assert seen == {
            13: (MarketPhase.PRE, False, opens),
            14: (MarketPhase.REGULAR, True, None),
            21: (MarketPhase.AFTER, False, opens + timedelta(days=1)),
            25: (MarketPhase.CLOSED, False, opens + timedelta(days=1)),
        }
        listing.time_zone = "Middle of Nowhere"
        assert (await adapter.market_status(AAPL)).is_open  # nobody knows, so TWS decides


async def test_positions_and_balances():
    """Positions are in base units with the average price per unit; balances are cash and holdings, none of it twice."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order("1", type=OrderType.MARKET))
        request = order(
            "2", symbol="ESZ6:CME", type=OrderType.MARKET, quantity=Decimal(50), side=Side.SELL
        )
        await adapter.place_order(request)
        held = {p.symbol: (p.quantity, p.average_price) for p in await adapter.positions()}
        assert held == {AAPL: (10, 200), "ESZ6:CME": (-50, 6000)}
        assert venue.received[1].sent.quantity == 1
        balances = await adapter.balances()
        assert {each: balances[each].total for each in balances if each != "USD"} == {
            AAPL: 10,
            "ESZ6:CME": -50,
        }
        assert balances["USD"].total == venue.core.balances()["USD"].total


async def test_positions_met_before_their_symbols():
    """A position in a stock whose short name means several is named with its exchange, as an order for it would be."""
    async with on_the_wire() as (venue, adapter):
        symbol = "SAP/EUR:IBIS"
        venue.core.deposit("EUR", Decimal(100_000))
        await adapter.place_order(order("1", symbol=symbol, type=OrderType.MARKET))
        adapter._contracts._names.clear()
        held = [p.symbol for p in await adapter.positions()]
        assert [each for each in held if each.startswith("SAP")] == [symbol]


async def test_no_subscription_is_left_behind():
    """Each question ends what it subscribed to, because TWS has few slots."""
    async with on_the_wire() as (venue, adapter):
        for _ in range(3):
            await adapter.positions()
            await adapter.balances()
            await adapter.ticker(AAPL)
        await venue.until(lambda: venue.messages[2] == 3)
        await venue.until(lambda: venue.messages[75] == 3)
        assert venue.messages[6] == 6

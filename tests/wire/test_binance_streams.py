"""Streams of Binance: nothing is merged, a loss is told, the line is renewed, and bars come when they are closed."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.binance import on_the_wire, order

from execkit.clock import ManualClock
from execkit.errors import ExchangeUnavailableError
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import OrderReport, OrderType, StreamGap

BTC = "BTC/USDT"
SWAP = "BTC/USDT:USDT"
FUTURES = {"venue_options": {"market": "usdm", "prices": {SWAP: Decimal(42_000)}}, "market": "usdm"}


async def read(stream, count, limit=5.0):
    found = []
    async with asyncio.timeout(limit):
        async for item in stream:
            found.append(item)
            if len(found) == count:
                return found
    return found


@contextlib.asynccontextmanager
async def collected(stream):
    """Yield the list into which a task reads everything."""
    found = []

    async def follow():
        async for item in stream:
            found.append(item)  # noqa: PERF401 - one by one, as they come

    task = asyncio.create_task(follow())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition, limit=5.0):
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.01)


async def test_no_event_is_merged_with_the_next():
    """Twenty orders at once give all their events, one by one."""
    async with on_the_wire() as (_venue, adapter), collected(adapter.order_updates()) as seen:
        requests = [order(n, type=OrderType.MARKET, limit_price=None) for n in range(20)]
        await asyncio.gather(*(adapter.place_order(each) for each in requests))

        def fills():
            reports = [u for u in seen if isinstance(u, OrderReport)]
            return [fill for report in reports for fill in report.fills]

        await until(lambda: len(fills()) == 20)
        assert len({fill.trade_id for fill in fills()}) == 20
        assert sum(isinstance(u, OrderReport) for u in seen) == 40


@pytest.mark.parametrize("options", [{}, FUTURES], ids=["spot", "usdm"])
async def test_a_cut_is_told_and_the_line_comes_back(options):
    """After a cut the stream is open again by itself; what was lost is told as a gap."""
    async with (
        on_the_wire(**options) as (venue, adapter),
        collected(adapter.order_updates()) as seen,
    ):
        for times in (1, 2):
            venue.cut_streams()
            await until(lambda: adapter._orders.reconnects == times)  # noqa: B023
        await until(lambda: sum(isinstance(u, StreamGap) for u in seen) == 2)
        symbol = SWAP if options else BTC
        await adapter.place_order(order(symbol=symbol))
        await until(lambda: any(isinstance(u, OrderReport) for u in seen))


async def test_readers_get_an_error_while_the_venue_is_gone():
    """Who reads while nothing comes is told, and a new subscription works once the venue is back."""
    async with on_the_wire() as (venue, adapter):
        stream = adapter.order_updates()
        venue.go_dark()
        with pytest.raises(ExchangeUnavailableError):
            await read(stream, 1)
        with pytest.raises(ExchangeUnavailableError):
            await read(adapter.order_updates(), 1)
        venue.heal()
        await until(lambda: adapter._orders._session is not None)
        async with collected(adapter.order_updates()) as seen:
            await adapter.place_order(order())
            await until(lambda: any(isinstance(u, OrderReport) for u in seen))


async def test_a_frame_that_cannot_be_read_is_a_gap():
    """An unreadable event is asked for; an unreadable frame ends the connection, which is opened anew."""
    async with on_the_wire() as (venue, adapter), collected(adapter.order_updates()) as seen:
        event = {"e": "executionReport", "s": "BTCUSDT", "c": "x", "i": None}
        venue.listeners()[0].push({"subscriptionId": 0, "event": event})
        await until(lambda: any(isinstance(u, StreamGap) for u in seen))
        assert adapter._orders.reconnects == 0
        venue.listeners()[0].push('{"event": {"e": "executionReport", "e": 1}}')
        await until(lambda: adapter._orders.reconnects == 1)


async def test_foreign_markets_are_no_news():
    """An event of a market that is not traded here changes nothing."""
    async with on_the_wire() as (venue, adapter), collected(adapter.order_updates()) as seen:
        event = {"e": "executionReport", "s": "OTHER", "c": "x", "i": 1, "o": "LIMIT", "X": "NEW"}
        event |= {
            "x": "NEW",
            "q": "1",
            "z": "0",
            "S": "BUY",
            "T": 1700000000000,
            "p": "1",
            "P": "0",
        }
        venue.listeners()[0].push({"subscriptionId": 0, "event": event})
        await adapter.place_order(order())
        await until(lambda: bool(seen))
        assert {u.symbol for u in seen} == {BTC}


async def test_the_listen_key_is_renewed():
    """A futures listen key is renewed on a period; when that fails the subscription is made anew."""
    async with (
        on_the_wire(**FUTURES) as (venue, adapter),
        collected(adapter.order_updates()) as seen,
    ):
        adapter._user._keep_alive = 0.02
        venue.cut_streams()
        await until(lambda: adapter._orders.reconnects == 1)
        renewals = [c for c in venue.requests if c.path.endswith("listenKey") and c.method == "PUT"]
        await venue.until(lambda: len(_renewals(venue)) >= len(renewals) + 3)
        assert adapter._orders.reconnects == 1
        assert all(isinstance(u, StreamGap) for u in seen)


def _renewals(venue):
    return [c for c in venue.requests if c.path.endswith("listenKey") and c.method == "PUT"]


async def test_the_connection_is_changed_before_a_day_is_over():
    """A planned change is told as a gap too."""
    async with on_the_wire() as (venue, adapter), collected(adapter.order_updates()) as seen:
        await adapter._orders.stop()
        adapter._orders._rotate_after = 0.05
        await adapter._orders.start()
        async with collected(adapter.order_updates()) as again:
            await until(lambda: adapter._orders.reconnects >= 2)
            assert any("planned" in u.reason for u in again if isinstance(u, StreamGap))
        assert len(venue.listeners()) <= 2
        assert seen == []


@pytest.mark.parametrize("options", [{}, FUTURES], ids=["spot", "usdm"])
async def test_quotes_trades_and_bars(options):
    """Each stream brings what it is asked for; an unfinished bar is never shown."""
    symbol = SWAP if options else BTC
    clock = ManualClock(datetime(2024, 1, 1, 12, 0, 30, tzinfo=UTC))
    settings = options.get("venue_options", {}) | {"clock": clock}
    async with on_the_wire(**(options | {"venue_options": settings, "clock": clock})) as wire:
        venue, adapter = wire
        now = clock.now().replace(second=0)
        values = [Decimal(v) for v in ("1", "3", "1", "2", "5")]
        open_bar = BarData(symbol, Timeframe.M1, now + timedelta(minutes=1), *values)
        closed = BarData(symbol, Timeframe.M1, now, *values)
        quotes = asyncio.create_task(read(adapter.watch_quotes([symbol]), 1))
        trades = asyncio.create_task(read(adapter.watch_trades([symbol]), 1))
        bars = asyncio.create_task(read(adapter.watch_bars([symbol], Timeframe.M1), 1))
        await venue.until(lambda: sum(len(s.topics) for s in venue.sockets) == 3)
        await venue.quote(Quote(symbol, Decimal(41_000), Decimal(41_001), venue.clock.now()))
        await venue.trade(Trade(symbol, Decimal(41_000), Decimal("0.5"), venue.clock.now()))
        await venue.bar(open_bar, is_closed=False)
        await venue.bar(closed)
        assert (await quotes)[0].bid in (Decimal(42_000), Decimal(41_000))
        assert (await trades)[0].quantity == Decimal("0.5")
        assert await bars == [closed]
        history = await adapter.bars(symbol, Timeframe.M1, since=now - timedelta(minutes=1))
        assert history[:1] == [closed]


async def test_public_data_needs_no_key(monkeypatch):
    """Paper trading reads prices without a key."""
    monkeypatch.delenv("BINANCE_API_KEY", raising=False)
    async with on_the_wire() as (venue, other):
        from tests.support.binance import adapter_of

        adapter = adapter_of(venue, api_key=None, secret=None)
        await adapter.connect_data()
        assert (await adapter.ticker(BTC)).bid == (await other.ticker(BTC)).bid
        await adapter.close()


async def test_a_market_stream_that_breaks_raises():
    """Readers of prices are told, so that they can ask instead."""
    async with on_the_wire() as (venue, adapter):
        stream = asyncio.create_task(read(adapter.watch_quotes([BTC]), 1000))
        await venue.until(lambda: any(s.topics for s in venue.sockets))
        venue.cut_streams()
        with pytest.raises(ExchangeUnavailableError):
            await stream
        await until(lambda: not any("/ws/" in url for url in adapter._client.clients))


@pytest.mark.parametrize("reason", ["ban", "too many"])
async def test_no_stream_is_opened_where_that_could_get_us_banned(reason):
    """Under a ban, and after many connections in a short time, nothing is dialled; the reader is told why."""
    async with on_the_wire() as (venue, adapter):
        client, now = adapter._client, asyncio.get_running_loop().time()
        if reason == "ban":
            client.banned_until = now + 60
        else:
            client.dials.extend([now] * 150)
        before = venue.listeners()
        with pytest.raises(ExchangeUnavailableError, match="ban"):
            await anext(adapter.watch_quotes(["BTC/USDT"]))
        assert venue.listeners() == before
        if reason == "too many":
            # What is long ago does not count.
            client.dials.clear()
            client.dials.extend([now - 301] * 150)
            quotes = adapter.watch_quotes(["BTC/USDT"])
            first = asyncio.ensure_future(anext(quotes))
            while not first.done():
                await venue.move_price("BTC/USDT", venue.core.quote("BTC/USDT").ask)
                await asyncio.sleep(0)
            await quotes.aclose()
            assert len(client.dials) == 1

"""The paper exchange as an adapter."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.clock import ManualClock
from execkit.errors import (
    ConfigurationError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    OrderNotFoundError,
)
from execkit.exchanges.paper import PaperExchange
from execkit.model.instrument import Instrument
from execkit.model.market import Timeframe, Trade
from execkit.model.order import Fill, OrderReport, OrderState, Side, StreamGap, TimeInForce
from execkit.testing.factories import START, SYMBOL, make_bar, make_quote, make_request


def paper(**options):
    defaults = {"balances": {"USDT": 10_000}, "prices": {SYMBOL: 100}, "clock": ManualClock(START)}
    return PaperExchange(**(defaults | options))


async def test_market_order_is_executed_at_the_first_price():
    """The price of the constructor is a market: 1 at 100 with a fee of 0.1 %."""
    async with paper() as exchange:
        report = await exchange.place_order(make_request())
        assert (report.status, report.average_price) == (OrderState.FILLED, 100)
        (fill,) = report.fills
        assert (fill.fee, fill.fee_asset, fill.at) == (Decimal("0.1"), "USDT", START)
        balances = await exchange.balances()
        assert {a: b.total for a, b in balances.items()} == {"USDT": Decimal("9899.9"), "BTC": 1}
        (position,) = await exchange.positions()
        assert (position.symbol, position.quantity, position.average_price) == (SYMBOL, 1, 100)
        assert await exchange.fills_since(START) == [fill]
        assert await exchange.get_order(SYMBOL, client_order_id="order-1") == report


async def test_symbols_without_rules_get_the_default_with_the_fees_given():
    """A symbol in *prices* needs no instrument, nor does one that is fed; others do."""
    exchange = paper(maker_fee=Decimal(0), taker_fee=Decimal("0.002"))
    assert (await exchange.instrument(SYMBOL)).taker_fee == Decimal("0.002")
    exchange.feed_bar(make_bar(0, 10, 10, 10, 10, symbol="ETH/USDT"))
    assert (await exchange.instrument("ETH/USDT")).base == "ETH"
    with pytest.raises(InvalidOrderError):
        await exchange.instrument("XRP/USDT")


async def test_instruments_keep_their_own_fees():
    """Fees of the constructor are for symbols without rules only."""
    rules = Instrument.default(SYMBOL, taker_fee=Decimal("0.0004"))
    assert await paper(instruments=[rules]).instrument(SYMBOL) == rules


async def test_ticker_stands_until_the_next_price():
    """The quote is dated now, because nothing newer exists."""
    clock = ManualClock(START)
    exchange = paper(clock=clock, spread_bps=20)
    clock.advance(timedelta(hours=1))
    quote = await exchange.ticker(SYMBOL)
    assert (quote.bid, quote.ask, quote.at) == (Decimal("99.90"), Decimal("100.10"), clock.now())
    exchange.feed_bar(make_bar(0, 10, 10, 10, 10, symbol="ETH/USDT"))
    assert (await exchange.ticker("ETH/USDT")).last == 10
    empty = paper(prices=None, instruments=[Instrument.default(SYMBOL)])
    with pytest.raises(ExchangeUnavailableError):
        await empty.ticker(SYMBOL)


async def test_stream_begins_with_the_call():
    """What happens between the subscription and the first read is not lost; what was before is not told."""
    async with paper() as exchange:
        await exchange.place_order(make_request("before"))
        updates = exchange.order_updates()
        await exchange.place_order(make_request("after"))
        seen = [await anext(updates) for _ in range(3)]
        assert [type(update) for update in seen] == [OrderReport, Fill, OrderReport]
        assert {update.client_order_id for update in seen} == {"after"}
        assert [s.status for s in seen[::2]] == [OrderState.ACCEPTED, OrderState.FILLED]


async def test_close_ends_the_streams_after_what_is_left():
    """Readers get the rest and then the end; what is known can still be asked for."""
    exchange = paper()
    await exchange.connect()
    updates, quotes = exchange.order_updates(), exchange.watch_quotes([SYMBOL])
    await exchange.place_order(make_request(limit=90, time_in_force=TimeInForce.DAY))
    await exchange.close()
    await exchange.close()
    assert [update.status async for update in updates] == [OrderState.ACCEPTED]
    assert [quote.last async for quote in quotes] == [100]
    exchange.clock.advance(timedelta(days=2))
    assert (await exchange.open_orders())[0].client_order_id == "order-1"


async def test_quotes_begin_with_what_is_known():
    """A watcher gets the present quote and then each change, of its own symbols only."""
    exchange = paper()
    quotes = exchange.watch_quotes([SYMBOL, "ETH/USDT"])
    exchange.feed_quote(make_quote(99, 101))
    exchange.feed_trade(Trade("XRP/USDT", Decimal(1), Decimal(1), START))
    exchange.feed_bar(make_bar(0, 100, 120, 90, 110))
    await exchange.close()
    assert [(q.bid, q.ask) async for q in quotes] == [(100, 100), (99, 101), (110, 110)]


async def test_orders_are_cancelled_amended_and_listed():
    """The adapter's calls reach the core."""
    exchange = paper()
    await exchange.place_order(make_request("a", limit=90))
    await exchange.place_order(make_request("b", limit=80))
    report = await exchange.amend_order(SYMBOL, client_order_id="a", limit_price=Decimal(91))
    assert (report.limit_price, report.status) == (91, OrderState.ACCEPTED)
    report = await exchange.cancel_order(SYMBOL, client_order_id="b")
    assert report.status is OrderState.CANCELLED
    assert [o.client_order_id for o in await exchange.open_orders()] == ["a"]
    with pytest.raises(OrderNotFoundError):
        await exchange.cancel_order(SYMBOL, client_order_id="b")


async def test_orders_end_by_the_clock():
    """A DAY order is gone at midnight, whoever asks first, and the stream tells it."""
    exchange = paper()
    await exchange.place_order(make_request(limit=90, time_in_force=TimeInForce.DAY))
    updates = exchange.order_updates()
    exchange.clock.advance(timedelta(days=1))
    assert await exchange.open_orders() == []
    assert (await anext(updates)).status is OrderState.EXPIRED


async def test_market_status_follows_the_core():
    """Open unless halted or delisted; an unknown symbol is an error."""
    exchange = paper(instruments=[Instrument.default("OLD/USDT", tradeable=False)])
    assert not (await exchange.market_status("OLD/USDT")).is_open
    with pytest.raises(InvalidOrderError):
        await exchange.market_status("XRP/USDT")
    assert (await exchange.market_status(SYMBOL)).is_open
    exchange.core.set_halted(SYMBOL, halted=True)
    assert not (await exchange.market_status(SYMBOL)).is_open


def test_capabilities_say_what_it_can():
    """Everything but native OCO; its word on an order is final at once."""
    can = paper(allow_short=True).capabilities
    assert (can.short_selling, can.reduce_only, can.amend, can.native_oco) == (
        True,
        True,
        True,
        False,
    )
    assert (can.order_stream, can.quote_stream, can.absence_window) == (True, True, timedelta(0))
    assert can.unsupported(make_request(time_in_force=TimeInForce.GTD)) is None
    assert not paper().capabilities.short_selling


def test_account_is_the_name_unless_given():
    """Client order ids and ledgers are bound to it."""
    assert paper().account == "paper"
    assert paper(account="mine").account == "mine"
    assert paper(name="demo").account == "demo"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"balances": {"USDT": 1.5}}, "balances"),
        ({"balances": {"USDT": -1}}, "balances"),
        ({"prices": {SYMBOL: 0}}, "prices"),
        ({"prices": {SYMBOL: "NaN"}}, "prices"),
        ({"prices": {"BTC USDT": 1}}, "symbol"),
        ({"spread_bps": -1}, "spread_bps"),
        ({"taker_fee": 0.1}, "taker_fee"),
        ({"durability": "maybe"}, "durability"),
    ],
)
def test_bad_options_are_named(options, field):
    """The message says which value is wrong."""
    with pytest.raises(ConfigurationError, match=field):
        paper(**options)


@pytest.mark.parametrize(
    "feed",
    [
        lambda e: e.feed_bar(make_bar(0, 100, 90, 110, 100)),
        lambda e: e.feed_bar(make_bar(0, "NaN", 100, 100, 100)),
        lambda e: e.feed_quote(make_quote(101, 99)),
        lambda e: e.feed_quote(make_quote("NaN", 99)),
        lambda e: e.feed_quote(make_quote(99, 101, ask_size=-1)),
        lambda e: e.feed_quote(make_quote(99, 101, last=0)),
        lambda e: e.feed_trade(Trade(SYMBOL, Decimal(-1), Decimal(1), START)),
        lambda e: e.feed_trade(Trade(SYMBOL, Decimal(1), Decimal(1), START.replace(tzinfo=None))),
    ],
)
def test_impossible_prices_are_refused(feed):
    """They change nothing, least of all orders."""
    exchange = paper()
    with pytest.raises(ConfigurationError):
        feed(exchange)
    assert exchange.core.quote(SYMBOL).last == 100


def test_bar_is_consumed_once():
    """The answer tells whether it was new, and the last one can be asked for."""
    exchange = paper()
    assert exchange.last_bar(SYMBOL, Timeframe.M1) is None
    assert exchange.feed_bar(make_bar(0, 1, 1, 1, 1))
    assert not exchange.feed_bar(make_bar(0, 2, 2, 2, 2))
    assert exchange.last_bar(SYMBOL, Timeframe.M1) == make_bar(0, 1, 1, 1, 1)


async def test_slow_reader_is_told_of_its_loss():
    """A reader who leaves too much unread finds a gap marker instead, and then what is new."""
    exchange = paper()
    exchange._updates._limit = 4
    updates = exchange.order_updates()
    for number in range(5):
        await exchange.place_order(make_request(f"o{number}", limit=90))
    assert isinstance(await anext(updates), StreamGap)
    assert (await anext(updates)).client_order_id == "o4"


async def test_waiting_reader_is_woken():
    """A reader that waits gets the next update; one that was closed gets the end."""
    exchange = paper()
    first, second = exchange.order_updates(), exchange.order_updates()
    waiting = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    await exchange.place_order(make_request(limit=90))
    assert (await waiting).status is OrderState.ACCEPTED
    await second.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(second)


async def test_sell_needs_something_to_sell():
    """Short selling is off by default, and on when asked for."""

    with pytest.raises(InsufficientBalanceError):
        await paper().place_order(make_request(side=Side.SELL))
    report = await paper(allow_short=True).place_order(make_request(side=Side.SELL))
    assert report.status is OrderState.FILLED

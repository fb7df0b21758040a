"""Alpaca's own client as the oracle: it works against the venue unchanged, and says what a request body looks like."""

import asyncio
import json
from decimal import Decimal
from enum import Enum

import pytest
from tests.support.alpaca import on_the_wire, venue_on_the_wire
from tests.support.alpaca_py import (
    APIError,
    OrderClass,
    OrderSide,
    OrderStatus,
    QueryOrderStatus,
    TimeInForce,
    TradingClient,
    TradingStream,
)
from tests.support.alpaca_py import requests as theirs

from execkit.exchanges.alpaca.chains import ListRecord
from execkit.exchanges.alpaca.requests import list_body, order_body
from execkit.model.instrument import Instrument
from execkit.model.order import ListKind, OrderList, OrderRequest, OrderType, Side
from execkit.model.order import TimeInForce as Time
from execkit.testing.venues.alpaca import KEY, SECRET
from execkit.testing.venues.faults import Mishap

AAPL = Instrument(symbol="AAPL", base="AAPL", quote="USD", lot_size=Decimal(1))
PARTS = Instrument(symbol="AAPL", base="AAPL", quote="USD", lot_size=Decimal("1e-9"))
COIN = Instrument(
    symbol="BTC/USD", base="BTC", quote="USD", tick_size=Decimal("0.01"), lot_size=Decimal("1e-9")
)


def ours(**changes):
    values = {
        "client_order_id": "xk1",
        "symbol": "AAPL",
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "quantity": Decimal(10),
    }
    return OrderRequest(**(values | changes))


COMMON = {
    "symbol": "AAPL",
    "qty": 10,
    "side": OrderSide.BUY,
    "time_in_force": TimeInForce.GTC,
    "client_order_id": "xk1",
}
D = Decimal
ORDERS = {
    "market": (ours(), theirs.MarketOrderRequest(**COMMON)),
    "market for the day": (
        ours(time_in_force=Time.DAY),
        theirs.MarketOrderRequest(**COMMON | {"time_in_force": TimeInForce.DAY}),
    ),
    "limit": (
        ours(type=OrderType.LIMIT, limit_price=D("150.05")),
        theirs.LimitOrderRequest(**COMMON, limit_price=150.05),
    ),
    "limit below a dollar": (
        ours(type=OrderType.LIMIT, limit_price=D("0.1234")),
        theirs.LimitOrderRequest(**COMMON, limit_price=0.1234),
    ),
    "ioc": (
        ours(type=OrderType.LIMIT, limit_price=D(150), time_in_force=Time.IOC),
        theirs.LimitOrderRequest(**COMMON | {"time_in_force": TimeInForce.IOC}, limit_price=150),
    ),
    "fok": (
        ours(type=OrderType.LIMIT, limit_price=D(150), time_in_force=Time.FOK),
        theirs.LimitOrderRequest(**COMMON | {"time_in_force": TimeInForce.FOK}, limit_price=150),
    ),
    "extended hours": (
        ours(
            type=OrderType.LIMIT,
            limit_price=D(150),
            time_in_force=Time.DAY,
            extended_hours=True,
        ),
        theirs.LimitOrderRequest(
            **COMMON | {"time_in_force": TimeInForce.DAY}, limit_price=150, extended_hours=True
        ),
    ),
    "stop": (
        ours(type=OrderType.STOP, side=Side.SELL, stop_price=D("140.5")),
        theirs.StopOrderRequest(**COMMON | {"side": OrderSide.SELL}, stop_price=140.5),
    ),
    "stop-limit": (
        ours(type=OrderType.STOP_LIMIT, side=Side.SELL, stop_price=D(140), limit_price=D("139.5")),
        theirs.StopLimitOrderRequest(
            **COMMON | {"side": OrderSide.SELL}, stop_price=140, limit_price=139.5
        ),
    ),
    "trailing by an amount": (
        ours(type=OrderType.TRAILING_STOP, side=Side.SELL, trail_amount=D("1.5")),
        theirs.TrailingStopOrderRequest(**COMMON | {"side": OrderSide.SELL}, trail_price=1.5),
    ),
    "trailing by per cent": (
        ours(type=OrderType.TRAILING_STOP, side=Side.SELL, trail_percent=D("0.5")),
        theirs.TrailingStopOrderRequest(**COMMON | {"side": OrderSide.SELL}, trail_percent=0.5),
    ),
    "a fraction": (
        ours(quantity=D("0.123456789"), time_in_force=Time.DAY),
        theirs.MarketOrderRequest(
            **COMMON | {"qty": 0.123456789, "time_in_force": TimeInForce.DAY}
        ),
    ),
    "crypto": (
        ours(symbol="BTC/USD", quantity=D("0.25"), type=OrderType.LIMIT, limit_price=D(60000)),
        theirs.LimitOrderRequest(**COMMON | {"symbol": "BTC/USD", "qty": 0.25}, limit_price=60000),
    ),
}


def plain(value):
    """Return a body with numbers as exact decimals, whether they came as text or as a float."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return value
    try:
        return Decimal(str(value)).normalize()
    except ArithmeticError:
        return value


@pytest.mark.parametrize("name", ORDERS)
def test_a_body_equals_that_of_the_client(name):
    """For every kind of order, field for field; but numbers are plain text here, never a float."""
    request, oracle = ORDERS[name]
    rules = COIN if request.symbol == "BTC/USD" else PARTS if name == "a fraction" else AAPL
    body = order_body(request, rules)
    assert plain(body) == plain(oracle.to_request_fields())
    assert all(not isinstance(value, (float, int)) or value is True for value in body.values())
    assert "e" not in body["qty"].lower()


ENTRY = ours(type=OrderType.LIMIT, limit_price=D(150))
STOP = ours(client_order_id="xk2", side=Side.SELL, type=OrderType.STOP, stop_price=D(140))
STOP_LIMIT = ours(
    client_order_id="xk2",
    side=Side.SELL,
    type=OrderType.STOP_LIMIT,
    stop_price=D(140),
    limit_price=D("139.5"),
)
TARGET = ours(client_order_id="xk3", side=Side.SELL, type=OrderType.LIMIT, limit_price=D(170))
PROFIT, LOSS = (
    theirs.TakeProfitRequest(limit_price=170),
    theirs.StopLossRequest(stop_price=140, limit_price=139.5),
)
LISTS = {
    "bracket": (
        (ListKind.BRACKET, (ENTRY, STOP_LIMIT, TARGET)),
        theirs.LimitOrderRequest(
            **COMMON,
            limit_price=150,
            order_class=OrderClass.BRACKET,
            take_profit=PROFIT,
            stop_loss=LOSS,
        ),
        "xk1-sxk2-txk3",
    ),
    "oto with a stop": (
        (ListKind.OTO, (ENTRY, STOP)),
        theirs.LimitOrderRequest(
            **COMMON,
            limit_price=150,
            order_class=OrderClass.OTO,
            stop_loss=theirs.StopLossRequest(stop_price=140),
        ),
        "xk1-sxk2",
    ),
    "oto with a target": (
        (ListKind.OTO, (ENTRY, TARGET)),
        theirs.LimitOrderRequest(
            **COMMON, limit_price=150, order_class=OrderClass.OTO, take_profit=PROFIT
        ),
        "xk1-txk3",
    ),
    "oco": (
        (ListKind.OCO, (STOP_LIMIT, TARGET)),
        theirs.LimitOrderRequest(
            **COMMON | {"side": OrderSide.SELL, "client_order_id": "xk3"},
            order_class=OrderClass.OCO,
            take_profit=PROFIT,
            stop_loss=LOSS,
        ),
        "xk3-sxk2",
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_equals_that_of_the_client(name):
    """A bracket, OCO or OTO is one order with legs, under a name that holds those of all its orders."""
    (kind, orders), oracle, ids = LISTS[name]
    body, found = list_body(OrderList(list_id="xk9", kind=kind, orders=orders), AAPL)
    assert plain(body) == plain(oracle.to_request_fields() | {"client_order_id": ids})
    assert found.ids == ListRecord.of(ids).ids if kind is not ListKind.OCO else ("xk3", "xk2")


async def test_the_adapter_sends_that_body():
    """What reaches the venue is that body, and a replacement is the client's too."""
    async with on_the_wire() as (venue, adapter):
        request = ENTRY
        placed = await adapter.place_order(request)
        assert plain(json.loads(venue.posts("/v2/orders")[0].payload)) == plain(
            ORDERS["limit"][1].to_request_fields() | {"limit_price": 150}
        )
        await adapter.amend_order(
            "AAPL",
            client_order_id="xk1",
            venue_order_id=placed.venue_order_id,
            quantity=D(8),
            limit_price=D(149),
        )
        oracle = theirs.ReplaceOrderRequest(qty=8, limit_price=149, client_order_id="xk1-r1")
        assert plain(venue.calls("amend")[0].body) == plain(oracle.to_request_fields())


# -- the client against the venue ----------------------------------------------------------------------


def client_of(venue):
    return TradingClient(KEY, SECRET, paper=True, url_override=venue.rest_url)


async def test_the_client_works_unchanged():
    """alpaca-py's TradingClient reads every answer of the venue: account, clock, assets, orders, positions."""

    def story(client):
        account = client.get_account()
        assert (account.cash, account.status.value) == ("100000", "ACTIVE")
        clock, days = client.get_clock(), client.get_calendar()
        assert clock.is_open
        assert days[0].open < days[0].close
        assert {asset.symbol for asset in client.get_all_assets()} == {"AAPL", "MSFT", "BTC/USD"}
        assert client.get_asset("AAPL").fractionable
        made = client.submit_order(theirs.MarketOrderRequest(**COMMON))
        assert made.status in (OrderStatus.PENDING_NEW, OrderStatus.ACCEPTED)
        filled = client.get_order_by_client_id("xk1")
        assert (filled.status, filled.filled_qty) == (OrderStatus.FILLED, "10")
        position = client.get_open_position("AAPL")
        assert (position.qty, position.avg_entry_price) == ("10", "150.01")
        rests = client.submit_order(
            theirs.LimitOrderRequest(**COMMON | {"client_order_id": "mine"}, limit_price=140)
        )
        new = client.replace_order_by_id(rests.id, theirs.ReplaceOrderRequest(limit_price=141))
        assert new.replaces == rests.id
        assert client.get_order_by_id(rests.id).replaced_by == new.id
        listed = client.get_orders(theirs.GetOrdersRequest(status=QueryOrderStatus.OPEN))
        assert [order.id for order in listed] == [new.id]
        client.cancel_order_by_id(new.id)
        assert client.get_order_by_id(new.id).status is OrderStatus.CANCELED
        with pytest.raises(APIError) as refused:
            client.submit_order(theirs.MarketOrderRequest(**COMMON))
        assert (refused.value.code, refused.value.status_code) == (40010001, 422)
        notional = theirs.MarketOrderRequest(
            symbol="AAPL", notional=75, side=OrderSide.BUY, time_in_force=TimeInForce.DAY
        )
        assert client.submit_order(notional).notional == "75"
        closing = client.close_position("AAPL")
        assert closing.side is OrderSide.SELL
        assert client.get_all_positions() == []
        assert client.cancel_orders() == []
        fills = client.get("/account/activities/FILL")
        assert [row["side"] for row in fills] == ["sell", "buy", "buy"]

    async with venue_on_the_wire() as venue:
        await asyncio.to_thread(story, client_of(venue))


async def test_the_client_places_a_bracket():
    """The legs of a bracket wait as held until their parent is executed whole; then one ends the other."""

    def place(client):
        request = theirs.LimitOrderRequest(
            **COMMON,
            limit_price=149,
            order_class=OrderClass.BRACKET,
            take_profit=PROFIT,
            stop_loss=theirs.StopLossRequest(stop_price=140),
        )
        made = client.submit_order(request)
        assert [leg.status for leg in made.legs] == [OrderStatus.HELD, OrderStatus.HELD]
        return made

    async with venue_on_the_wire() as venue:
        client = client_of(venue)
        made = await asyncio.to_thread(place, client)
        await venue.fill("xk1", D(4))
        legs = (await asyncio.to_thread(client.get_order_by_id, made.id)).legs
        assert {leg.status for leg in legs} == {OrderStatus.HELD}
        await venue.fill("xk1", D(6))
        legs = (await asyncio.to_thread(client.get_order_by_id, made.id)).legs
        assert [leg.status for leg in legs] == [OrderStatus.NEW, OrderStatus.HELD]
        await venue.move_price("AAPL", D(139))
        legs = (await asyncio.to_thread(client.get_order_by_id, made.id)).legs
        assert [leg.status for leg in legs] == [OrderStatus.CANCELED, OrderStatus.FILLED]
        assert venue.state.position("AAPL") == 0


async def test_the_clients_hidden_retries_make_two_orders():
    """What the adapter avoids: on a 504 the client sends its order again, and a live one is reported as refused."""
    async with venue_on_the_wire() as venue:
        client = client_of(venue)
        client._retry_wait = 0
        venue.fail_next("place", Mishap.ERROR, status=504, reached=True)
        with pytest.raises(APIError) as refused:
            await asyncio.to_thread(client.submit_order, theirs.MarketOrderRequest(**COMMON))
        assert refused.value.code == 40010001
        assert venue.sends("xk1") == 2
        assert venue.accepted("xk1") == 1


async def test_the_clients_stream_works_unchanged():
    """alpaca-py's TradingStream authenticates, listens and reads every event of an order's life."""
    async with venue_on_the_wire() as venue:
        stream = TradingStream(KEY, SECRET, paper=True, url_override=f"{venue.stream_url}/stream")
        seen = []
        done = asyncio.Event()

        async def on_update(update):
            seen.append(
                (str(getattr(update.event, "value", update.event)), update.order.client_order_id)
            )
            if update.event == "fill":
                done.set()

        stream.subscribe_trade_updates(on_update)
        running = asyncio.create_task(stream._run_forever())
        await venue.until(lambda: bool(venue.listeners()))
        await asyncio.to_thread(client_of(venue).submit_order, theirs.MarketOrderRequest(**COMMON))
        async with asyncio.timeout(5):
            await done.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await stream.close()
        assert seen == [("new", "xk1"), ("fill", "xk1")]

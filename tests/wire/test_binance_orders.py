"""What Binance has beyond a plain order: lists, conditional orders on futures, changes, fees, and the account."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.binance import on_the_wire, order

from execkit.errors import (
    ExchangeUnavailableError,
    InvalidOrderError,
    OrderNotFoundError,
    OrderStatusUnknownError,
    UnsupportedFeatureError,
)
from execkit.model.order import ListKind, OrderList, OrderReport, OrderState, OrderType, Side
from execkit.testing.venues.faults import Mishap

BTC = "BTC/USDT"
SWAP = "BTC/USDT:USDT"
FUTURES = {"venue_options": {"market": "usdm", "prices": {SWAP: Decimal(42_000)}}, "market": "usdm"}
RICH = {"venue_options": {"balances": {"USDT": Decimal(100_000), "BTC": Decimal(1)}}}

STOP = order(2, side=Side.SELL, type=OrderType.STOP, limit_price=None, stop_price=Decimal(41_000))
TARGET = order(3, side=Side.SELL, limit_price=Decimal(44_000))
ENTRY = order(1, limit_price=Decimal(41_500))


def listed(kind, *orders):
    return OrderList(list_id="xklist1", kind=kind, orders=orders)


async def state(adapter, request):
    report = await adapter.get_order(request.symbol, client_order_id=request.client_order_id)
    return report.status


async def reach(adapter, request, wanted):
    async with asyncio.timeout(5):
        while await state(adapter, request) is not wanted:
            await asyncio.sleep(0.01)


async def test_oco():
    """One POST places both legs; the execution of one ends the other."""
    async with on_the_wire(**RICH) as (venue, adapter):
        reports = await adapter.place_list(listed(ListKind.OCO, STOP, TARGET))
        assert [r.client_order_id for r in reports] == [
            STOP.client_order_id,
            TARGET.client_order_id,
        ]
        assert [r.type for r in reports] == [OrderType.STOP, OrderType.LIMIT]
        assert len(venue.posts()) == 1
        await venue.fill(TARGET.client_order_id)
        await reach(adapter, TARGET, OrderState.FILLED)
        assert (await state(adapter, STOP)).is_closed


async def test_oto_and_bracket():
    """The reductions go live when the entry is executed whole."""
    async with on_the_wire() as (venue, adapter):
        leg = order(2, side=Side.SELL, limit_price=Decimal(44_000), quantity=Decimal("0.009"))
        reports = await adapter.place_list(listed(ListKind.OTO, ENTRY, leg))
        assert [r.status for r in reports] == [OrderState.ACCEPTED, OrderState.HELD]
        await venue.fill(ENTRY.client_order_id)
        await reach(adapter, leg, OrderState.ACCEPTED)
    async with on_the_wire() as (venue, adapter):
        small = {"quantity": Decimal("0.009")}
        stop = order(
            2,
            side=Side.SELL,
            type=OrderType.STOP,
            limit_price=None,
            stop_price=Decimal(41_000),
            **small,
        )
        target = order(3, side=Side.SELL, limit_price=Decimal(44_000), **small)
        reports = await adapter.place_list(listed(ListKind.BRACKET, ENTRY, stop, target))
        assert [r.status for r in reports] == [
            OrderState.ACCEPTED,
            OrderState.HELD,
            OrderState.HELD,
        ]
        await venue.fill(ENTRY.client_order_id)
        await reach(adapter, target, OrderState.ACCEPTED)
        await adapter.cancel_order(BTC, client_order_id=target.client_order_id)
        assert (await state(adapter, stop)).is_closed


async def test_a_list_of_which_the_answer_shows_a_part():
    """A leg that the answer does not show is in doubt; an answer that shows none is unknown."""
    async with on_the_wire(**RICH) as (venue, adapter):
        venue.fail_next("place_list", Mishap.CHANGE, changes={"clientOrderId": "another"})
        reports = await adapter.place_list(listed(ListKind.OCO, STOP, TARGET))
        assert sorted(r.status is OrderState.IN_DOUBT for r in reports) == [False, True]
    for kind in (Mishap.DROP_ANSWER, Mishap.EMPTY, Mishap.LIST):
        async with on_the_wire(**RICH) as (venue, adapter):
            venue.fail_next("place_list", kind)
            with pytest.raises(OrderStatusUnknownError):
                await adapter.place_list(listed(ListKind.OCO, STOP, TARGET))
            assert len(venue.posts()) == 1


async def test_a_list_that_binance_has_not():
    """A market entry in a list is refused, and nothing is sent; futures have no lists at all."""
    entry = order(1, type=OrderType.MARKET, limit_price=None)
    async with on_the_wire(**RICH) as (venue, adapter):
        with pytest.raises(InvalidOrderError, match="is a limit order"):
            await adapter.place_list(listed(ListKind.OTO, entry, TARGET))
        assert venue.posts() == []
    async with on_the_wire(**FUTURES) as (venue, adapter):
        with pytest.raises(InvalidOrderError, match="no lists"):
            await adapter.place_list(listed(ListKind.OCO, STOP, TARGET))


def swap_stop(**changes):
    values = {"side": Side.SELL, "type": OrderType.STOP, "limit_price": None}
    values |= {"stop_price": Decimal(41_000), "symbol": SWAP, "reduce_only": True}
    return order(2, **(values | changes))


async def bought(adapter):
    request = order(1, symbol=SWAP, type=OrderType.MARKET, limit_price=None)
    await adapter.place_order(request)
    await reach(adapter, request, OrderState.FILLED)


async def test_conditional_orders_have_an_endpoint_of_their_own():
    """On futures a stop goes to the algo endpoint, is found there by both ids, and is cancelled there."""
    async with on_the_wire(**FUTURES) as (venue, adapter):
        await bought(adapter)
        stop = swap_stop()
        report = await adapter.place_order(stop)
        assert report.venue_order_id.startswith("A")
        assert venue.calls(path="/fapi/v1/algoOrder")
        adapter._conditionals.__init__()
        assert await state(adapter, stop) is OrderState.ACCEPTED
        assert [o.client_order_id for o in await adapter.open_orders(SWAP)] == [
            stop.client_order_id
        ]
        await adapter.cancel_order(SWAP, client_order_id=stop.client_order_id)
        await reach(adapter, stop, OrderState.CANCELLED)
        with pytest.raises(OrderNotFoundError):
            await adapter.get_order(SWAP, client_order_id="xknone")


@pytest.mark.parametrize("forgets", [False, True], ids=["known", "after a restart"])
async def test_a_conditional_order_that_triggers(forgets):
    """Its executions count for it, under the venue id that it had from the start, also in a new process."""
    async with on_the_wire(**FUTURES) as (venue, adapter):
        await bought(adapter)
        stop = swap_stop()
        report = await adapter.place_order(stop)
        if forgets:
            adapter._conditionals.__init__()
            adapter._client_ids.clear()
        await venue.move_price(SWAP, Decimal(40_999))
        await reach(adapter, stop, OrderState.FILLED)
        seen = await adapter.get_order(SWAP, client_order_id=stop.client_order_id)
        assert (seen.venue_order_id, seen.filled) == (report.venue_order_id, stop.quantity)
        since = venue.clock.now() - timedelta(minutes=1)
        fills = [f for f in await adapter.fills_since(since, SWAP) if f.side is Side.SELL]
        assert {f.venue_order_id for f in fills} == {report.venue_order_id}
        assert {f.client_order_id for f in fills} == {stop.client_order_id}
        assert await adapter.positions() == []


CLOSE_ALL = {
    "algoType": "CONDITIONAL",
    "symbol": "BTCUSDT",
    "side": "SELL",
    "type": "STOP_MARKET",
    "triggerPrice": "30000",
    "closePosition": "true",
}


async def test_an_order_of_somebody_else_that_closes_the_position():
    """It has no quantity of its own; ours are seen beside it, in lists and on the stream."""
    async with on_the_wire(**FUTURES) as (_venue, adapter):
        await bought(adapter)
        await adapter.place_order(swap_stop())
        stream = adapter.order_updates()
        await adapter._client.request("algoOrder", ["fapiPrivate"], "POST", CLOSE_ALL)
        reports = await adapter.open_orders()
        assert [report.quantity for report in reports] == [swap_stop().quantity, 0]
        async with asyncio.timeout(5):
            while (update := await anext(stream)).quantity:
                assert isinstance(update, OrderReport)


@pytest.mark.parametrize("is_ours", [False, True], ids=["foreign", "ours"])
async def test_an_order_in_a_list_that_cannot_be_read(is_ours, monkeypatch):
    """One of somebody else is left out; one of ours makes the answer useless."""
    async with on_the_wire() as (_venue, adapter):
        await adapter.place_order(order())
        ask = adapter._api.private

        async def private(*args, **kwargs):
            found = await ask(*args, **kwargs)
            strange = found[0] | {"type": "NEW_KIND", "orderId": 99}
            return [*found, strange if is_ours else strange | {"clientOrderId": "web_1"}]

        monkeypatch.setattr(adapter._api, "private", private)
        if is_ours:
            with pytest.raises(ExchangeUnavailableError):
                await adapter.open_orders()
        else:
            (report,) = await adapter.open_orders()
            assert report.client_order_id == order().client_order_id


async def test_executions_of_a_conditional_order_whose_name_is_not_known():
    """It is asked for; where the conditional order is not there any more, the order that it became names it."""
    async with on_the_wire(**FUTURES) as (venue, adapter):
        await bought(adapter)
        stop = swap_stop()
        await adapter.place_order(stop)
        await venue.move_price(SWAP, Decimal(40_999))
        await reach(adapter, stop, OrderState.FILLED)
        since = venue.clock.now() - timedelta(minutes=1)
        for known in (True, False):
            adapter._client_ids.clear()
            if not known:
                venue.state.algos.clear()
            fills = [f for f in await adapter.fills_since(since, SWAP) if f.side is Side.SELL]
            assert {f.client_order_id for f in fills} == {stop.client_order_id}


async def test_executions_are_named_over_many_pages(monkeypatch):
    """However many orders lie between, each execution has the id of its order."""
    monkeypatch.setattr("execkit.exchanges.binance.orders._PAGE", 3)
    async with on_the_wire() as (venue, adapter):
        market = {"type": OrderType.MARKET, "limit_price": None}
        for number in range(1, 9):
            await adapter.place_order(order(number, **(market if number in (1, 8) else {})))
        adapter._client_ids.clear()
        fills = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1), BTC)
        wanted = {order(number).client_order_id for number in (1, 8)}
        assert {fill.client_order_id for fill in fills} == wanted


async def test_spot_makes_a_quantity_smaller_in_place():
    """Nothing else can be changed on spot, so `amend` is off; what can be done keeps the place in the queue."""
    async with on_the_wire() as (venue, adapter):
        assert adapter.capabilities.amend is False
        request = order()
        report = await adapter.place_order(request)
        ids = {"client_order_id": request.client_order_id, "venue_order_id": report.venue_order_id}
        amended = await adapter.amend_order(BTC, **ids, quantity=Decimal("0.005"))
        assert (amended.quantity, amended.venue_order_id) == (
            Decimal("0.005"),
            report.venue_order_id,
        )
        assert (await adapter.get_order(BTC, **ids)).client_order_id == request.client_order_id
        before = len(venue.requests)
        with pytest.raises(UnsupportedFeatureError):
            await adapter.amend_order(BTC, **ids, limit_price=Decimal(39_000))
        assert len(venue.requests) == before


async def test_the_same_id_again_after_a_fill_is_a_second_order():
    """Why no marketable order is ever sent twice: Binance takes the id of an order that has ended."""
    async with on_the_wire() as (venue, adapter):
        request = order(type=OrderType.MARKET, limit_price=None)
        assert not adapter.capabilities.may_resend(request)
        assert adapter.capabilities.may_resend(order())
        await adapter.place_order(request)
        await adapter.place_order(request)
        assert venue.accepted(request.client_order_id) == 2


@pytest.mark.parametrize(
    ("options", "asset"),
    [
        ({}, "BTC"),
        (
            {"bnb_price": Decimal(500), "balances": {"USDT": Decimal(100_000), "BNB": Decimal(5)}},
            "BNB",
        ),
    ],
)
async def test_fees(options, asset):
    """Fees are told in the asset that they were paid in: the base on a buy, or BNB."""
    async with on_the_wire(venue_options=options) as (_venue, adapter):
        report = await adapter.place_order(order(type=OrderType.MARKET, limit_price=None))
        assert {fill.fee_asset for fill in report.fills} == {asset}
        assert all(fill.fee > 0 for fill in report.fills)


@pytest.mark.parametrize(
    ("symbols", "shown"), [((), BTC), (("BTC/USDC",), "BTC/USDC")], ids=["usual", "configured"]
)
async def test_a_holding_keeps_its_name(symbols, shown):
    """The settings decide in which market a held coin is shown, never what was looked up or ordered before."""
    venue_options = {"prices": {BTC: Decimal(42_000), "BTC/USDC": Decimal(42_000)}}
    async with on_the_wire(venue_options=venue_options, symbols=symbols) as (_venue, adapter):
        await adapter.ticker("BTC/USDC")
        await adapter.place_order(order(type=OrderType.MARKET, limit_price=None))
        (held,) = await adapter.positions()
        assert held.symbol == shown
        assert adapter.capabilities.positions_are_holdings


async def test_futures_money_is_counted_as_if_positions_were_paid():
    """Cash and position add up to the equity, as execkit's books count; opening one changes nothing but the fee."""
    async with on_the_wire(**FUTURES) as (venue, adapter):
        before = (await adapter.balances())["USDT"].total
        await bought(adapter)
        (position,) = await adapter.positions()
        fills = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1), SWAP)
        paid = sum(fill.fee for fill in fills)
        after = (await adapter.balances())["USDT"].total
        assert after + position.quantity * position.average_price == before - paid


async def test_reduce_only_is_the_venues_own_promise():
    """A reduce-only order without a position is refused by Binance."""
    async with on_the_wire(**FUTURES) as (_venue, adapter):
        request = order(
            symbol=SWAP, type=OrderType.MARKET, limit_price=None, reduce_only=True, side=Side.SELL
        )
        with pytest.raises(InvalidOrderError) as raised:
            await adapter.place_order(request)
        assert raised.value.code == "-2022"


@pytest.mark.parametrize("options", [RICH, FUTURES], ids=["spot", "usdm"])
async def test_a_trailing_stop_follows_the_price(options):
    """It rests, rises with the price, and is executed when that has turned by its percentage."""
    symbol = SWAP if "market" in options else BTC
    async with on_the_wire(**options) as (venue, adapter):
        if symbol == SWAP:
            await bought(adapter)
        trail = order(
            2,
            symbol=symbol,
            side=Side.SELL,
            type=OrderType.TRAILING_STOP,
            limit_price=None,
            trail_percent=Decimal(1),
        )
        report = await adapter.place_order(trail)
        assert report.type is OrderType.TRAILING_STOP
        await venue.move_price(symbol, Decimal(43_000))
        await venue.move_price(symbol, Decimal(42_700))
        assert await state(adapter, trail) is OrderState.ACCEPTED
        await venue.move_price(symbol, Decimal(42_500))
        await reach(adapter, trail, OrderState.FILLED)


@pytest.mark.parametrize(
    ("options", "percent", "bounds"),
    [
        (RICH, "1.255", "at least 0.1 and at most 20, in steps of 0.01"),
        (RICH, "0.09", "at least 0.1"),
        (RICH, "20.01", "at most 20"),
        (FUTURES, "0.09", "at least 0.1 and at most 10 for"),
        (FUTURES, "10.1", "at most 10"),
    ],
)
async def test_a_distance_that_binance_does_not_take_is_told_before_it_is_sent(
    options, percent, bounds
):
    """It names the field, the value and what is allowed."""
    async with on_the_wire(**options) as (venue, adapter):
        symbol = SWAP if "market" in options else BTC
        trail = order(
            symbol=symbol,
            side=Side.SELL,
            type=OrderType.TRAILING_STOP,
            limit_price=None,
            trail_percent=Decimal(percent),
        )
        with pytest.raises(InvalidOrderError) as raised:
            await adapter.place_order(trail)
        assert f"trail_percent: {percent} must be" in str(raised.value)
        assert bounds in str(raised.value)
        assert venue.calls("place") == []

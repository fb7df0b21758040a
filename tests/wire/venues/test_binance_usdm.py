"""USD-M futures as an unmodified ccxt trades them: orders, conditional orders, positions, the listen key."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import aiohttp
import ccxt.async_support as errors
import pytest
from tests.support.ccxt_wire import client_of

from execkit.clock import ManualClock
from execkit.testing.venues.binance import BinanceVenue

SYMBOL = "BTC/USDT:USDT"


async def position(perp):
    found = await perp.fetch_positions([SYMBOL])
    return [(p["side"], p["contracts"], p["entryPrice"]) for p in found]


async def test_long_and_short(usdm, perp):
    """A sell beyond the long opens a short; the wallet moves by profit and fees only."""
    await perp.create_order(SYMBOL, "market", "buy", "0.01")
    assert await position(perp) == [("long", 0.01, 42_000.1)]
    await usdm.move_price(SYMBOL, Decimal(43_000))
    await perp.create_order(SYMBOL, "market", "sell", "0.03")
    assert await position(perp) == [("short", 0.02, 43_000)]
    fees = Decimal("0.01") * Decimal("42000.1") * Decimal("0.0005") + 1290 * Decimal("0.0005")
    wallet = (await perp.fetch_balance())["info"]["totalWalletBalance"]
    assert Decimal(wallet) == 100_000 + Decimal("9.999") - fees


async def test_limit_order_is_changed_in_place(usdm, perp):
    """Quantity and price of an open order change, its id does not."""
    order = await perp.create_order(
        SYMBOL, "limit", "buy", "0.01", 41_000, {"clientOrderId": "mine"}
    )
    changed = await perp.edit_order(order["id"], SYMBOL, "limit", "buy", "0.02", 41_100)
    assert (changed["id"], changed["amount"], changed["price"]) == (order["id"], 0.02, 41_100)
    assert changed["clientOrderId"] == "mine"
    with pytest.raises(errors.BaseError, match="-5027"):
        await perp.edit_order(order["id"], SYMBOL, "limit", "buy", "0.02", 41_100)
    assert (await perp.cancel_order(order["id"], SYMBOL))["status"] == "canceled"


async def test_reduce_only(usdm, perp):
    """It never turns a position around, and is refused where there is none."""
    with pytest.raises(errors.ExchangeError, match="-2022"):
        await perp.create_order(SYMBOL, "market", "sell", "0.01", None, {"reduceOnly": True})
    await perp.create_order(SYMBOL, "market", "buy", "0.01")
    order = await perp.create_order(
        SYMBOL, "market", "sell", "0.03", None, {"reduceOnly": True, "newOrderRespType": "RESULT"}
    )
    assert (order["info"]["status"], order["filled"]) == ("EXPIRED", 0.01)
    assert await position(perp) == []


async def test_conditional_order_becomes_an_order(usdm, perp):
    """It is listed apart, and when its price trades it is executed under an order id of its own."""
    await perp.create_order(SYMBOL, "market", "buy", "0.01")
    params = {"stopLossPrice": 41_000, "reduceOnly": True, "clientAlgoId": "stop"}
    stop = await perp.create_order(SYMBOL, "market", "sell", "0.01", None, params)
    assert await perp.fetch_open_orders(SYMBOL) == []
    (listed,) = await perp.fetch_open_orders(SYMBOL, params={"trigger": True})
    assert (listed["id"], listed["clientOrderId"], listed["status"]) == (stop["id"], "stop", "open")
    await usdm.move_price(SYMBOL, Decimal(41_000))
    seen = await perp.fetch_order(stop["id"], SYMBOL, {"trigger": True})
    assert (seen["info"]["algoStatus"], seen["info"]["actualOrderId"]) == ("FINISHED", "2")
    assert (await perp.fetch_order("2", SYMBOL))["clientOrderId"] == "stop"
    assert (await position(perp), usdm.accepted("stop")) == ([], 1)


async def test_conditional_order_is_cancelled(usdm, perp):
    """At its own endpoint; the other one does not know it."""
    stop = await perp.create_order(SYMBOL, "market", "buy", "0.01", None, {"triggerPrice": 43_000})
    with pytest.raises(errors.OrderNotFound):
        await perp.fetch_order(stop["id"], SYMBOL)
    await perp.cancel_order(stop["id"], SYMBOL, {"trigger": True})
    await usdm.move_price(SYMBOL, Decimal(43_500))
    assert await position(perp) == []


async def test_conditional_order_may_fail_when_it_triggers(usdm, perp):
    """Margin and position are looked at only then."""
    params = {"stopLossPrice": 41_000, "reduceOnly": True}
    stop = await perp.create_order(SYMBOL, "market", "sell", "0.01", None, params)
    await usdm.move_price(SYMBOL, Decimal(40_000))
    seen = await perp.fetch_order(stop["id"], SYMBOL, {"trigger": True})
    assert seen["info"]["algoStatus"] == "REJECTED"


async def test_trailing_stop(usdm, perp):
    """One per cent below the best price, from its activation on."""
    await perp.create_order(SYMBOL, "market", "buy", "0.01")
    params = {"trailingPercent": 1, "trailingTriggerPrice": 43_000, "reduceOnly": True}
    await perp.create_order(SYMBOL, "market", "sell", "0.01", None, params)
    for price, held in ((41_500, 1), (44_000, 1), (43_560.1, 1), (43_560, 0)):
        await usdm.move_price(SYMBOL, Decimal(str(price)))
        assert len(await position(perp)) == held


LIMIT = {"type": "LIMIT", "side": "BUY", "timeInForce": "GTC", "quantity": "0.01", "price": "41000"}
MARKET = {"type": "MARKET", "side": "BUY", "quantity": "0.01"}
ALGO = {"algoType": "CONDITIONAL", "type": "STOP_MARKET", "side": "BUY", "quantity": "0.01"}


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (LIMIT | {"quantity": "0.001"}, -4164),
        (LIMIT | {"quantity": "0.0001"}, -1111),
        (LIMIT | {"price": "41000.05"}, -1111),
        (LIMIT | {"quantity": "0"}, -4003),
        (LIMIT | {"quantity": "2000"}, -4005),
        (LIMIT | {"quantity": "5"}, -2019),
        (LIMIT | {"price": "45000"}, -4016),
        (LIMIT | {"side": "SELL", "price": "39000"}, -4024),
        (LIMIT | {"timeInForce": "GTX", "price": "42100"}, -5022),
        (LIMIT | {"timeInForce": "FOK"}, -5021),
        (LIMIT | {"newClientOrderId": "live"}, -4116),
        (LIMIT | {"positionSide": "LONG"}, -4061),
        (LIMIT | {"price": ""}, -1102),
        (MARKET | {"side": "SELL", "reduceOnly": "true"}, -2022),
        (MARKET | {"symbol": "NOSUCH"}, -1121),
        ({**MARKET, "type": "STOP_MARKET"}, -4120),
        (ALGO | {"triggerPrice": "41000"}, -2021),
        (ALGO | {"type": "TRAILING_STOP_MARKET", "callbackRate": "20"}, -2007),
        (ALGO, -1102),
    ],
)
async def test_what_futures_refuse(usdm, perp, order, code):
    """Each with the venue's code, and nothing more is taken."""
    await perp.create_order(SYMBOL, "limit", "buy", "0.01", 40_500, {"clientOrderId": "live"})
    send = perp.fapiprivate_post_algoorder if "algoType" in order else perp.fapiprivate_post_order
    with pytest.raises(errors.BaseError, match=str(code)):
        await send({"symbol": "BTCUSDT"} | order)
    assert usdm.accepts == ["live"]


async def test_settings(usdm, perp):
    """Leverage is kept and shown; one-way mode is the only one that is on."""
    await perp.set_leverage(5, SYMBOL)
    assert (await perp.fetch_position_mode())["hedged"] is False
    with pytest.raises(errors.BaseError, match="-4059"):
        await perp.set_position_mode(False)
    (row,) = await perp.fapiprivatev2_get_positionrisk({"symbol": "BTCUSDT"})
    assert row["leverage"] == "5"


# -- the stream --------------------------------------------------------------------------------------


async def test_ccxt_follows_its_orders(usdm, perp):
    """By a listen key, on the private path."""
    watching = asyncio.create_task(perp.watch_orders())
    await usdm.until(lambda: bool(usdm.listeners()))
    assert usdm.listeners()[0].path == "/private/ws"
    await perp.create_order(SYMBOL, "limit", "buy", "0.02", 41_000, {"clientOrderId": "mine"})
    (order,) = await watching
    assert (order["clientOrderId"], order["status"]) == ("mine", "open")


async def test_profit_is_told_once_it_is_made():
    """Closing half of a short tells half of its profit."""
    async with BinanceVenue(market="usdm") as venue, client_of(venue) as perp:
        seen = []
        venue.deliver = seen.append
        await perp.create_order(SYMBOL, "market", "sell", "0.02")
        await venue.move_price(SYMBOL, Decimal(41_000))
        await perp.create_order(SYMBOL, "market", "buy", "0.01")
        profits = [
            e["o"]["rp"] for e in seen if e["e"] == "ORDER_TRADE_UPDATE" and e["o"]["x"] == "TRADE"
        ]
        assert profits == ["0", "9.999"]
        updates = [e["a"]["P"][0] for e in seen if e["e"] == "ACCOUNT_UPDATE"]
        assert [p["pa"] for p in updates] == ["-0.02", "-0.01"]


async def test_conditional_order_is_told():
    """New, triggering, triggered, finished."""
    async with BinanceVenue(market="usdm") as venue, client_of(venue) as perp:
        seen = []
        venue.deliver = seen.append
        await perp.create_order(SYMBOL, "market", "buy", "0.01", None, {"triggerPrice": 43_000})
        await venue.move_price(SYMBOL, Decimal(43_000))
        told = [(e["o"]["X"], e["o"]["ai"]) for e in seen if e["e"] == "ALGO_UPDATE"]
        assert told == [("NEW", ""), ("TRIGGERING", ""), ("TRIGGERED", "1"), ("FINISHED", "1")]


async def test_listen_key_ends_without_renewal():
    """After an hour; a renewal keeps it, and an end is told to who listens."""
    clock = ManualClock()
    async with BinanceVenue(market="usdm", clock=clock) as venue, client_of(venue) as perp:
        perp.nonce = lambda: int(clock.now().timestamp() * 1000)
        key = (await perp.fapiprivate_post_listenkey())["listenKey"]
        async with aiohttp.ClientSession() as session:
            url = f"{venue.stream_url}/private/ws?listenKey={key}"
            async with session.ws_connect(url) as socket:
                await venue.until(lambda: bool(venue.listeners()))
                clock.advance(timedelta(minutes=50))
                await perp.fapiprivate_put_listenkey()
                clock.advance(timedelta(minutes=50))
                await perp.create_order(SYMBOL, "limit", "buy", "0.01", 41_000)
                assert (await socket.receive_json())["e"] == "ORDER_TRADE_UPDATE"
                clock.advance(timedelta(minutes=11))
                await perp.create_order(SYMBOL, "limit", "buy", "0.01", 41_000)
                assert (await socket.receive_json())["e"] == "listenKeyExpired"
        with pytest.raises(errors.BaseError, match="-1125"):
            await perp.fapiprivate_put_listenkey()

"""Spot orders, look-ups and lists, as an unmodified ccxt sends them."""

import asyncio
from decimal import Decimal

import ccxt.async_support as errors
import pytest
from tests.support.ccxt_wire import client_of

from execkit.testing.venues.binance import BinanceVenue

SYMBOL = "BTC/USDT"


async def limit(ccxt, price=40_000, side="buy", amount="0.001", **params):
    return await ccxt.create_order(SYMBOL, "limit", side, amount, price, params)


async def test_market_order_is_executed_with_its_fee(venue, ccxt):
    """The answer has the executions; a buyer pays the fee in what was bought."""
    order = await ccxt.create_order(
        SYMBOL, "market", "buy", "0.001", None, {"newOrderRespType": "FULL"}
    )
    assert (order["status"], order["filled"]) == ("closed", 0.001)
    fill = order["info"]["fills"][0]
    assert (fill["price"], fill["commission"], fill["commissionAsset"]) == (
        "42000.01000000",
        "0.00000100",
        "BTC",
    )
    assert (await ccxt.fetch_balance())["BTC"]["free"] == 0.000999


async def test_limit_order_from_placing_to_cancel(venue, ccxt):
    """It rests, is found by either id, holds money, and its cancel has an id of its own."""
    order = await limit(ccxt, newClientOrderId="mine-1")
    for found in (
        await ccxt.fetch_order(order["id"], SYMBOL),
        await ccxt.fetch_order(None, SYMBOL, {"origClientOrderId": "mine-1"}),
        *await ccxt.fetch_open_orders(SYMBOL),
    ):
        assert (found["id"], found["clientOrderId"], found["status"]) == ("1", "mine-1", "open")
    assert (await ccxt.fetch_balance())["USDT"]["used"] == 40
    done = await ccxt.cancel_order(order["id"], SYMBOL)
    assert done["status"] == "canceled"
    assert done["info"]["origClientOrderId"] == "mine-1" != done["info"]["clientOrderId"]
    assert (await ccxt.fetch_balance())["USDT"]["used"] == 0


async def test_client_id_is_free_again_once_its_order_has_ended(venue, ccxt):
    """A live id is a duplicate; that of a filled order makes a second one."""
    await limit(ccxt, newClientOrderId="again")
    with pytest.raises(errors.InvalidOrder, match="Duplicate order sent"):
        await limit(ccxt, newClientOrderId="again")
    await venue.fill("again")
    await limit(ccxt, newClientOrderId="again")
    assert (venue.accepted("again"), venue.sends("again")) == (2, 3)


async def test_partial_fill_and_history(venue, ccxt):
    """Half an order shows as such; executions and orders are listed."""
    order = await limit(ccxt, newClientOrderId="half")
    await venue.fill("half", Decimal("0.0004"))
    seen = await ccxt.fetch_order(order["id"], SYMBOL)
    assert (seen["info"]["status"], seen["filled"]) == ("PARTIALLY_FILLED", 0.0004)
    (trade,) = await ccxt.fetch_my_trades(SYMBOL)
    assert (trade["order"], trade["amount"], trade["takerOrMaker"]) == ("1", 0.0004, "maker")
    assert [o["id"] for o in await ccxt.fetch_orders(SYMBOL)] == ["1"]


async def test_stop_waits_for_its_price(venue, ccxt):
    """A stop is executed when its price has traded, a take-profit on the other side."""
    await ccxt.create_order(SYMBOL, "market", "buy", "0.002")
    stop = await ccxt.create_order(
        SYMBOL, "market", "sell", "0.001", None, {"stopLossPrice": 41_000}
    )
    target = await ccxt.create_order(
        SYMBOL, "market", "sell", "0.0009", None, {"takeProfitPrice": 43_000}
    )
    await venue.move_price(SYMBOL, Decimal(43_000))
    assert [(await ccxt.fetch_order(o["id"], SYMBOL))["status"] for o in (stop, target)] == [
        "open",
        "closed",
    ]
    await venue.move_price(SYMBOL, Decimal(40_999))
    assert (await ccxt.fetch_order(stop["id"], SYMBOL))["status"] == "closed"


async def test_trailing_stop_by_delta(venue, ccxt):
    """100 basis points below the best price."""
    await ccxt.create_order(SYMBOL, "market", "buy", "0.002")
    order = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS", "quantity": "0.001"}
    await ccxt.private_post_order({**order, "trailingDelta": "100", "newClientOrderId": "trail"})
    for price, status in ((44_000, "NEW"), (43_600, "NEW"), (43_560, "FILLED")):
        await venue.move_price(SYMBOL, Decimal(price))
        seen = await ccxt.private_get_order({"symbol": "BTCUSDT", "origClientOrderId": "trail"})
        assert (seen["status"], seen["trailingDelta"]) == (status, 100)


async def test_quote_quantity(venue, ccxt):
    """A market buy may state what it spends; it gets whole lots for that."""
    order = await ccxt.create_market_buy_order_with_cost(SYMBOL, 100)
    assert order["filled"] == 0.00238


async def test_cancel_replace(venue, ccxt):
    """Both steps succeed; one of them may fail without the other; or none is done."""
    order = await limit(ccxt)
    changed = await ccxt.edit_order(order["id"], SYMBOL, "limit", "buy", "0.002", 40_100)
    assert (changed["amount"], changed["price"]) == (0.002, 40_100)
    request = {
        "symbol": "BTCUSDT",
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "0.001",
        "price": "40000",
        "cancelOrderId": changed["id"],
    }
    # What it is replaced by is too small: the old order is gone, and nothing is there instead.
    with pytest.raises(errors.BaseError, match="-2021"):
        await ccxt.private_post_order_cancelreplace(
            {**request, "quantity": "0.0001", "cancelReplaceMode": "STOP_ON_FAILURE"}
        )
    assert await ccxt.fetch_open_orders(SYMBOL) == []
    # The old order is gone already, and the new one is placed all the same.
    with pytest.raises(errors.BaseError, match="-2021"):
        await ccxt.private_post_order_cancelreplace(
            {**request, "cancelReplaceMode": "ALLOW_FAILURE"}
        )
    assert len(await ccxt.fetch_open_orders(SYMBOL)) == 1
    with pytest.raises(errors.BaseError, match="-2022"):
        await ccxt.private_post_order_cancelreplace(
            {**request, "cancelReplaceMode": "STOP_ON_FAILURE"}
        )


async def test_amend_makes_an_order_smaller(venue, ccxt):
    """It keeps its venue id, and gets another client id unless told its own."""
    order = await limit(ccxt, amount="0.002", newClientOrderId="amended")
    request = {"symbol": "BTCUSDT", "orderId": order["id"]}
    path = ("order/amend/keepPriority", ["private"], "PUT")
    done = await ccxt.request(*path, {**request, "newQty": "0.001", "newClientOrderId": "amended"})
    assert done["amendedOrder"]["qty"] == "0.00100000"
    assert (await ccxt.fetch_order(None, SYMBOL, {"origClientOrderId": "amended"}))[
        "amount"
    ] == 0.001
    with pytest.raises(errors.ExchangeError, match="-2038"):
        await ccxt.request(*path, {**request, "newQty": "0.003"})


async def test_cancel_all_takes_everybody_s_orders(venue, ccxt):
    """Whoever placed them; with none open it is an error."""
    await asyncio.gather(limit(ccxt), limit(ccxt, 41_000))
    assert len(await ccxt.cancel_all_orders(SYMBOL)) == 2
    with pytest.raises(errors.OrderNotFound):
        await ccxt.cancel_all_orders(SYMBOL)


async def test_fee_in_bnb():
    """With a price of BNB and some of it, fees come off it at a discount."""
    balances = {"USDT": Decimal(1_000), "BNB": Decimal(1)}
    async with (
        BinanceVenue(balances=balances, bnb_price=Decimal(500)) as venue,
        client_of(venue) as ccxt,
    ):
        await ccxt.create_order(SYMBOL, "market", "buy", "0.01")
        (trade,) = await ccxt.fetch_my_trades(SYMBOL)
        assert trade["fee"]["currency"] == "BNB"
        assert trade["info"]["commission"] == "0.00063000"
        balance = await ccxt.fetch_balance()
        assert (balance["BTC"]["free"], balance["BNB"]["free"]) == (0.01, 0.99937)


# -- lists -------------------------------------------------------------------------------------------

OCO = {
    "symbol": "BTCUSDT",
    "side": "SELL",
    "quantity": "0.001",
    "aboveType": "LIMIT_MAKER",
    "abovePrice": "43000",
    "aboveClientOrderId": "target",
    "belowType": "STOP_LOSS",
    "belowStopPrice": "41000",
    "belowClientOrderId": "stop",
}
OTOCO = {
    "symbol": "BTCUSDT",
    "workingType": "LIMIT",
    "workingSide": "BUY",
    "workingPrice": "41000",
    "workingQuantity": "0.002",
    "workingTimeInForce": "GTC",
    "workingClientOrderId": "entry",
    "pendingSide": "SELL",
    "pendingQuantity": "0.001",
    "pendingAboveType": "LIMIT_MAKER",
    "pendingAbovePrice": "43000",
    "pendingAboveClientOrderId": "target",
    "pendingBelowType": "STOP_LOSS_LIMIT",
    "pendingBelowPrice": "39900",
    "pendingBelowStopPrice": "40000",
    "pendingBelowTimeInForce": "GTC",
    "pendingBelowClientOrderId": "stop",
}


async def statuses(ccxt, *names):
    return [
        (await ccxt.private_get_order({"symbol": "BTCUSDT", "origClientOrderId": name}))["status"]
        for name in names
    ]


async def test_oco_ends_the_other_leg(venue, ccxt):
    """One coin serves both; the execution of one expires the other, and the list is done."""
    await ccxt.create_order(SYMBOL, "market", "buy", "0.00101")
    made = await ccxt.private_post_orderlist_oco(OCO)
    assert {o["clientOrderId"] for o in made["orderReports"]} == {"target", "stop"}
    assert (made["listOrderStatus"], venue.accepted("stop"), venue.accepted("target")) == (
        "EXECUTING",
        1,
        1,
    )
    await venue.move_price(SYMBOL, Decimal(43_001))
    assert await statuses(ccxt, "target", "stop") == ["FILLED", "EXPIRED"]
    seen = await ccxt.private_get_orderlist({"orderListId": made["orderListId"]})
    assert seen["listOrderStatus"] == "ALL_DONE"


async def test_cancel_of_one_leg_cancels_the_list(venue, ccxt):
    """By either of its legs, or by the list itself."""
    await ccxt.create_order(SYMBOL, "market", "buy", "0.00101")
    await ccxt.private_post_orderlist_oco(OCO)
    await ccxt.private_delete_order({"symbol": "BTCUSDT", "origClientOrderId": "stop"})
    assert await statuses(ccxt, "target", "stop") == ["CANCELED", "CANCELED"]
    made = await ccxt.private_post_orderlist_oco(OCO)
    await ccxt.private_delete_orderlist({"symbol": "BTCUSDT", "orderListId": made["orderListId"]})
    assert await statuses(ccxt, "target", "stop") == ["CANCELED", "CANCELED"]


async def test_otoco_goes_live_with_its_entry(venue, ccxt):
    """Stop and target are pending until the entry is executed whole."""
    await ccxt.private_post_orderlist_otoco(OTOCO)
    assert await statuses(ccxt, "entry", "target", "stop") == ["NEW", "PENDING_NEW", "PENDING_NEW"]
    await venue.fill("entry", Decimal("0.001"))
    assert await statuses(ccxt, "target", "stop") == ["PENDING_NEW", "PENDING_NEW"]
    await venue.fill("entry")
    assert await statuses(ccxt, "entry", "target", "stop") == ["FILLED", "NEW", "NEW"]
    await venue.move_price(SYMBOL, Decimal(39_950))
    assert await statuses(ccxt, "target", "stop") == ["EXPIRED", "FILLED"]


async def test_oto_ends_with_its_entry(venue, ccxt):
    """The pending order of an entry that is cancelled is cancelled too."""
    names = {name: value for name, value in OTOCO.items() if "Above" not in name}
    await ccxt.request(
        "orderList/oto",
        ["private"],
        "POST",
        {name.replace("Below", ""): value for name, value in names.items()},
    )
    await ccxt.private_delete_order({"symbol": "BTCUSDT", "origClientOrderId": "entry"})
    assert await statuses(ccxt, "entry", "stop") == ["CANCELED", "CANCELED"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"abovePrice": "41500"}, "relationship of the prices"),
        (
            {"aboveType": "STOP_LOSS", "aboveStopPrice": "43000", "abovePrice": ""},
            "not supported in OCO",
        ),
        ({"listClientOrderId": "!"}, "-1100"),
        ({"aboveClientOrderId": "stop", "belowStopPrice": ""}, "-1102"),
    ],
)
async def test_wrong_lists_are_refused_whole(venue, ccxt, changes, text):
    """Nothing of them is taken."""
    await ccxt.create_order(SYMBOL, "market", "buy", "0.00101")
    with pytest.raises(errors.ExchangeError, match=text):
        await ccxt.private_post_orderlist_oco(OCO | changes)
    assert await ccxt.fetch_open_orders(SYMBOL) == []

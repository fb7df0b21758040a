"""Bybit's spot market as an unmodified ccxt trades it."""

import asyncio
from decimal import Decimal

import ccxt.async_support as errors
import pytest
from tests.support.ccxt_wire import client_of

SYMBOL = "BTC/USDT"


async def one(client, order_id, **params):
    for fetch in (client.fetch_open_orders, client.fetch_canceled_and_closed_orders):
        found = await fetch(SYMBOL, None, None, {"orderId": order_id, **params})
        if found:
            return found[0]
    raise AssertionError("no such order")


async def test_life_of_an_order(bybit, byccxt):
    """Placed, changed, executed in parts, cancelled; the answer to a new order has its ids only."""
    order = await byccxt.create_order(
        SYMBOL, "limit", "buy", 0.01, 40_000, {"clientOrderId": "mine"}
    )
    assert (order["id"], order["clientOrderId"], order["status"]) == ("1", "mine", None)
    await byccxt.edit_order("1", SYMBOL, "limit", "buy", 0.02, 40_100)
    await bybit.fill("mine", Decimal("0.005"))
    seen = await one(byccxt, "1")
    assert (seen["amount"], seen["price"], seen["filled"], seen["status"]) == (
        0.02,
        40_100,
        0.005,
        "open",
    )
    await byccxt.cancel_order("1", SYMBOL)
    assert (await one(byccxt, "1"))["info"]["orderStatus"] == "PartiallyFilledCanceled"
    (trade,) = await byccxt.fetch_my_trades(SYMBOL)
    assert (trade["amount"], trade["takerOrMaker"], trade["fee"]["currency"]) == (
        0.005,
        "maker",
        "BTC",
    )
    assert (await byccxt.fetch_balance())["BTC"]["total"] == 0.004995


async def test_stop(bybit, byccxt):
    """It is listed under a filter of its own until it triggers."""
    order = await byccxt.create_order(SYMBOL, "market", "buy", 0.01, None, {"triggerPrice": 43_000})
    assert await byccxt.fetch_open_orders(SYMBOL) == []
    assert (await one(byccxt, order["id"], trigger=True))["info"]["orderStatus"] == "Untriggered"
    await bybit.move_price(SYMBOL, Decimal(43_000))
    assert (await one(byccxt, order["id"], trigger=True))["status"] == "closed"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("limit", "buy", 0.01, 41_000, {"clientOrderId": "live"}), errors.ExchangeError),
        (("limit", "buy", 100, 41_000), errors.InsufficientFunds),
        (("limit", "buy", 0.000001, 41_000), errors.InvalidOrder),
    ],
)
async def test_refusals(bybit, byccxt, arguments, kind):
    """A duplicate, no money, too little; nothing more is taken."""
    await byccxt.create_order(SYMBOL, "limit", "buy", 0.01, 41_000, {"clientOrderId": "live"})
    with pytest.raises(kind):
        await byccxt.create_order(SYMBOL, *arguments)
    assert bybit.accepts == ["live"]


async def test_wrong_credentials(bybit):
    """An unknown key and a wrong secret are refused."""
    for changes, code in (({"key": "other"}, "10003"), ({"secret": "wrong"}, "10004")):
        async with client_of(bybit, **changes) as client:
            with pytest.raises(errors.AuthenticationError, match=code):
                await client.fetch_balance()


async def test_streams(bybit, byccxt):
    """Orders and executions of the account, tops of books of the market."""
    watching = [
        asyncio.create_task(byccxt.watch_orders()),
        asyncio.create_task(byccxt.watch_my_trades()),
    ]
    await bybit.until(lambda: any({"order", "execution"} <= s.topics for s in bybit.sockets))
    await byccxt.create_order(SYMBOL, "market", "buy", 0.01)
    orders, trades = await asyncio.gather(*watching)
    assert (orders[-1]["filled"], trades[-1]["amount"]) == (0.01, 0.01)
    assert (await byccxt.watch_bids_asks([SYMBOL]))[SYMBOL]["bid"] == 42_000


@pytest.mark.parametrize(
    ("kind", "taken"), [("drop_request", 0), ("drop_answer", 1), ("no_id", 1), ("other_order", 1)]
)
async def test_faults(bybit, byccxt, kind, taken):
    """The same faults as at Binance, on this venue's words."""
    bybit.fail_next("place", kind)
    try:
        order = await byccxt.create_order(
            SYMBOL, "limit", "buy", 0.01, 40_000, {"clientOrderId": "mine"}
        )
        assert order["id"] is None or order["clientOrderId"] != "mine"
    except errors.ExchangeNotAvailable:
        assert kind in ("drop_request", "drop_answer")
    assert (bybit.sends("mine"), bybit.accepted("mine")) == (1, taken)

"""What is written to Binance: plain numbers, and exactly the parameters that each kind of order has."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.binance import order

from execkit.errors import InvalidOrderError
from execkit.exchanges.binance import requests
from execkit.exchanges.binance.markets import check, markets_of
from execkit.model.order import ListKind, OrderList, OrderType, Side, TimeInForce

SELL = {"side": Side.SELL}
STOP = {"type": OrderType.STOP, "limit_price": None, "stop_price": Decimal(41_000)}

STOP_LIMIT = STOP | {"type": OrderType.STOP_LIMIT, "limit_price": Decimal(1)}
TRAIL = {"type": OrderType.TRAILING_STOP, "limit_price": None, "trail_percent": Decimal("1.5")}


@given(st.decimals("1e-8", "1e9", places=8), st.decimals("1e-8", "1e9", places=8))
def test_numbers_are_plain(quantity, price):
    """No exponent, no sign, no artefact: the number that was asked for, digit by digit."""
    params = requests.order(order(quantity=quantity, limit_price=price), "BTCUSDT", "spot")
    for name, value in (("quantity", quantity), ("price", price)):
        assert Decimal(params[name]) == value
        assert set(params[name]) <= set("0123456789.")


CASES = [
    ("spot", {}, {"type": "LIMIT", "timeInForce": "GTC", "price": "40000"}),
    ("spot", {"post_only": True}, {"type": "LIMIT_MAKER", "price": "40000"}),
    ("spot", {"time_in_force": TimeInForce.IOC}, {"timeInForce": "IOC"}),
    ("spot", {"type": OrderType.MARKET, "limit_price": None}, {"type": "MARKET"}),
    ("spot", STOP, {"type": "STOP_LOSS", "stopPrice": "41000"}),
    (
        "spot",
        STOP | {"type": OrderType.STOP_LIMIT, "limit_price": Decimal(1)},
        {"type": "STOP_LOSS_LIMIT", "price": "1"},
    ),
    (
        "spot",
        {"type": OrderType.TRAILING_STOP, "limit_price": None, "trail_percent": Decimal("1.5")},
        {"trailingDelta": "150"},
    ),
    ("usdm", {"post_only": True}, {"type": "LIMIT", "timeInForce": "GTX"}),
    ("usdm", {"reduce_only": True}, {"reduceOnly": "true"}),
    ("usdm", STOP, {"algoType": "CONDITIONAL", "type": "STOP_MARKET", "triggerPrice": "41000"}),
    (
        "usdm",
        STOP | {"type": OrderType.STOP_LIMIT, "limit_price": Decimal(1)},
        {"type": "STOP", "timeInForce": "GTC"},
    ),
    (
        "usdm",
        {"type": OrderType.TRAILING_STOP, "limit_price": None, "trail_percent": Decimal("1.5")},
        {"callbackRate": "1.5"},
    ),
]


@pytest.mark.parametrize(("kind", "changes", "wanted"), CASES)
def test_parameters(kind, changes, wanted):
    """A market order has no price and no time in force; a conditional one on futures goes to the algo endpoint."""
    request = order(**changes)
    params = requests.order(request, "BTCUSDT", kind)
    assert wanted.items() <= params.items()
    assert request.client_order_id in params.values()
    if request.type is OrderType.MARKET:
        assert not {"price", "timeInForce", "stopPrice"} & params.keys()


def test_a_buys_stop_is_the_leg_above():
    """The legs of a list are named by where they stand."""
    stop = order(2, **STOP | {"side": Side.BUY, "stop_price": Decimal(44_000)})
    target = order(3, limit_price=Decimal(40_000))
    orders = OrderList(list_id="l", kind=ListKind.OCO, orders=(stop, target))
    path, params = requests.order_list(orders, "BTCUSDT")
    assert path == "orderList/oco"
    assert (params["aboveType"], params["belowType"]) == ("STOP_LOSS", "LIMIT_MAKER")
    assert (params["aboveStopPrice"], params["belowPrice"]) == ("44000", "40000")


def test_legs_of_different_size():
    """Binance knows one quantity for both legs."""
    legs = (order(2, **STOP | SELL), order(3, **SELL, quantity=Decimal("0.02")))
    with pytest.raises(InvalidOrderError, match="one quantity"):
        requests.order_list(OrderList(list_id="l", kind=ListKind.OCO, orders=legs), "BTCUSDT")


def futures_market():
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.1", "maxPrice": "1000000", "tickSize": "0.1"},
        {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
        {"filterType": "MARKET_LOT_SIZE", "minQty": "0.01", "maxQty": "120", "stepSize": "0.01"},
        {"filterType": "MIN_NOTIONAL", "notional": "100"},
        {"filterType": "PERCENT_PRICE", "multiplierUp": "1.05", "multiplierDown": "0.95"},
    ]
    row = {
        "symbol": "BTCUSDT",
        "status": "TRADING",
        "contractType": "PERPETUAL",
        "filters": filters,
    }
    row |= {"baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT"}
    quarterly = row | {"contractType": "CURRENT_QUARTER", "symbol": "BTCUSDT_261225"}
    (market,) = markets_of({"symbols": [row, quarterly]}, "usdm")
    return market


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"limit_price": Decimal(45_000)}, "outside"),
        ({"limit_price": Decimal(30_000)}, None),
        ({"limit_price": Decimal(30_000), **SELL}, "outside"),
        ({"limit_price": Decimal(45_000), **SELL}, None),
        ({"limit_price": Decimal("0.05")}, "tick size"),
        ({"limit_price": Decimal(2_000_000)}, "at most 1000000"),
        ({"quantity": Decimal("0.002")}, "NOTIONAL|the least"),
        ({"quantity": Decimal("0.002"), "reduce_only": True}, None),
        (
            {"quantity": Decimal("0.015"), "type": OrderType.MARKET, "limit_price": None},
            "lot size 0.01",
        ),
        ({"quantity": Decimal(130), "type": OrderType.MARKET, "limit_price": None}, "above 120"),
        ({"quantity": Decimal(130)}, None),
    ],
)
def test_filters(changes, words):
    """Each filter of a futures market, on the side that it bounds."""
    request = order(symbol="BTC/USDT:USDT", **changes)
    if words is None:
        check(futures_market(), request, Decimal(42_000))
        return
    with pytest.raises(InvalidOrderError, match=words):
        check(futures_market(), request, Decimal(42_000))

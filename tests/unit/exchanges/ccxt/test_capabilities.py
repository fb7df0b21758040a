"""What is read from ccxt's tables is what the adapter can do with it."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from execkit.exchanges.ccxt.capabilities import buys_by_cost, read_capabilities
from execkit.exchanges.ccxt.dialect import DIALECTS, Dialect
from execkit.model.order import OrderType

STOPS = {OrderType.STOP, OrderType.STOP_LIMIT}
COST = "createMarketBuyOrderRequiresPrice"


def client(name="x", options=None, **features):
    return SimpleNamespace(id=name, has={}, options=options or {}, features={"spot": features})


@pytest.mark.parametrize(
    ("dialect", "look_up", "has_stops"),
    [
        (Dialect(), {}, True),
        (Dialect(), {"trigger": False}, True),
        (Dialect(), {"trigger": True}, False),
        (DIALECTS["bybit"], {"trigger": True}, True),
    ],
)
def test_a_stop_that_cannot_be_looked_up_is_not_offered(dialect, look_up, has_stops):
    """Where ccxt has to be told that it is a stop, it is only offered where we know how."""
    found = read_capabilities(
        client(createOrder={"triggerPrice": True}, fetchOrder=look_up),
        "spot",
        dialect,
        timedelta(seconds=1),
    )
    assert found.order_types & STOPS == (STOPS if has_stops else set())


@pytest.mark.parametrize(
    ("name", "options", "by_cost"),
    [
        ("x", {}, False),
        ("x", {COST: True}, True),
        ("x", {COST: False}, False),
        ("x", {COST: True, "createOrder": {COST: False}}, False),
        ("x", {"createOrder": {COST: True}}, True),
        ("x", {"createOrder": "odd"}, False),
        ("cryptocom", {}, True),
        ("cryptocom", {COST: False}, False),
    ],
)
def test_who_wants_a_cost_instead_of_a_quantity(name, options, by_cost):
    """On spot only; what ccxt calls a feature is not asked."""
    assert buys_by_cost(client(name, options), "spot") is by_cost
    assert not buys_by_cost(client(name, options), "linear")


def test_who_refuses_every_order_without_a_price():
    """No market order is offered there."""
    for name, offered in (("x", True), ("derive", False)):
        found = read_capabilities(client(name), "spot", Dialect(), timedelta(seconds=1))
        assert (OrderType.MARKET in found.order_types) is offered

"""What a venue can do, read from ccxt's own tables: `has` for methods, `features` for kinds of orders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from execkit.exchanges.ccxt.dialect import Dialect
from execkit.model.capabilities import Capabilities
from execkit.model.order import OrderType, TimeInForce

_COST: Final = "createMarketBuyOrderRequiresPrice"
_ASKS_ANYWAY: Final = frozenset({"btse", "coincheck", "cryptocom", "indodax", "mercado", "toobit"})
"""Clients that refuse a market buy without a price or a cost although they state no option."""
_ALWAYS_PRICED: Final = frozenset({"derive"})
"""Clients that refuse every order without a price."""


def features_of(client: Any, market: str, method: str = "createOrder") -> Mapping[str, Any]:
    """Return ccxt's features of a method, by default of placing orders; empty where it states none."""
    features = getattr(client, "features", None)
    if not isinstance(features, Mapping):
        return {}
    found = features.get("spot")
    if market != "spot":
        swap = features.get("swap")
        found = swap.get("linear") if isinstance(swap, Mapping) else None
    stated = found.get(method) if isinstance(found, Mapping) else None
    return stated if isinstance(stated, Mapping) else {}


def read_capabilities(
    client: Any, market: str, dialect: Dialect, absence_window: timedelta
) -> Capabilities:
    """Return what ccxt says that a venue can do; what ccxt only emulates counts as missing."""
    has, create = client.has, features_of(client, market)
    types = set()
    if has.get("createMarketOrder") is not False and client.id not in _ALWAYS_PRICED:
        types.add(OrderType.MARKET)
    if has.get("createLimitOrder") is not False:
        types.add(OrderType.LIMIT)
    if create.get("triggerPrice") and _stops_are_found(client, market, dialect):
        types |= {OrderType.STOP, OrderType.STOP_LIMIT}
    stated = create.get("timeInForce")
    times = {TimeInForce.GTC}
    if isinstance(stated, Mapping):
        times |= {each for each in (TimeInForce.IOC, TimeInForce.FOK) if stated.get(each.upper())}
    return Capabilities(
        order_types=frozenset(types),
        times_in_force=frozenset(times),
        short_selling=market != "spot",
        reduce_only=market != "spot",
        amend=has.get("editOrder") is True,
        positions_are_holdings=market == "spot",
        lookup_by_client_id=dialect.client_id_param is not None,
        order_stream=has.get("watchOrders") is True,
        quote_stream=has.get("watchBidsAsks") is True or has.get("watchTickers") is True,
        trade_stream=has.get("watchTradesForSymbols") is True,
        bar_stream=has.get("watchOHLCVForSymbols") is True,
        bar_history=has.get("fetchOHLCV") is True,
        absence_window=absence_window,
    )


def _stops_are_found(client: Any, market: str, dialect: Dialect) -> bool:
    """Tell whether a resting stop can be looked up as other orders are.

    Some venues keep stops apart, and ccxt finds one by its id only when it is told that it is a stop. One that cannot
    be looked up may be there twice or not at all, so it is not sent.
    """
    return dialect.client_id_param is not None or not features_of(client, market, "fetchOrder").get(
        "trigger"
    )


def buys_by_cost(client: Any, market: str) -> bool:
    """Tell whether a market buy states what it may cost instead of a quantity, which our orders do not have."""
    of_orders = client.options.get("createOrder")
    nested = of_orders.get(_COST) if isinstance(of_orders, Mapping) else None
    stated = client.options.get(_COST) if nested is None else nested
    # Not by ccxt's `features`: several of them say it of venues whose client asks for no price.
    return market == "spot" and (client.id in _ASKS_ANYWAY if stated is None else bool(stated))


def can_post_only(client: Any, market: str) -> bool:
    """Tell whether ccxt states that orders may be marked to make only."""
    stated = features_of(client, market).get("timeInForce")
    return isinstance(stated, Mapping) and bool(stated.get("PO"))

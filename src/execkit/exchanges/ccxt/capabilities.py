"""What a venue can do, read from ccxt's own tables: `has` for methods, `features` for kinds of orders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from execkit.exchanges.ccxt.dialect import Dialect
from execkit.model.capabilities import Capabilities
from execkit.model.order import OrderType, TimeInForce


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
    if has.get("createMarketOrder") is not False:
        types.add(OrderType.MARKET)
    if has.get("createLimitOrder") is not False:
        types.add(OrderType.LIMIT)
    if create.get("triggerPrice"):
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


def can_post_only(client: Any, market: str) -> bool:
    """Tell whether ccxt states that orders may be marked to make only."""
    stated = features_of(client, market).get("timeInForce")
    return isinstance(stated, Mapping) and bool(stated.get("PO"))

"""From our orders to Binance's parameters. Numbers are written plainly, with the digits they have."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from execkit.errors import InvalidOrderError
from execkit.model.order import (
    ListKind,
    OrderList,
    OrderRequest,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.numbers import ZERO, plain

Params = dict[str, str]

_TIMES: Final = {TimeInForce.GTC: "GTC", TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}
_SPOT_TYPES: Final = {
    OrderType.MARKET: "MARKET",
    OrderType.LIMIT: "LIMIT",
    OrderType.STOP: "STOP_LOSS",
    OrderType.STOP_LIMIT: "STOP_LOSS_LIMIT",
    OrderType.TRAILING_STOP: "STOP_LOSS",
}
_USDM_TYPES: Final = {
    OrderType.MARKET: "MARKET",
    OrderType.LIMIT: "LIMIT",
    OrderType.STOP: "STOP_MARKET",
    OrderType.STOP_LIMIT: "STOP",
    OrderType.TRAILING_STOP: "TRAILING_STOP_MARKET",
}
CONDITIONAL: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP})


def order(request: OrderRequest, market_id: str, kind: str) -> Params:
    """Return the parameters of a new order; a conditional one on futures is for the algo endpoint."""
    if kind == "spot":
        return _spot(request, market_id)
    return _algo(request, market_id) if request.type in CONDITIONAL else _usdm(request, market_id)


def _spot(request: OrderRequest, market_id: str) -> Params:
    params = {
        "symbol": market_id,
        "side": request.side.upper(),
        "type": _SPOT_TYPES[request.type],
        "quantity": plain(request.quantity),
        "newClientOrderId": request.client_order_id,
        "newOrderRespType": "FULL",
    }
    if request.post_only:
        params["type"] = "LIMIT_MAKER"
    _add_prices(params, request, stop="stopPrice")
    if request.type is OrderType.TRAILING_STOP:
        params["trailingDelta"] = plain(_percent(request) * 100)
    if params["type"] in ("LIMIT", "STOP_LOSS_LIMIT"):
        params["timeInForce"] = _TIMES[request.time_in_force]
    return params


def _usdm(request: OrderRequest, market_id: str) -> Params:
    params = {
        "symbol": market_id,
        "side": request.side.upper(),
        "type": _USDM_TYPES[request.type],
        "quantity": plain(request.quantity),
        "newClientOrderId": request.client_order_id,
        "newOrderRespType": "RESULT",
    }
    _add_prices(params, request, stop="stopPrice")
    if request.type is OrderType.LIMIT:
        params["timeInForce"] = "GTX" if request.post_only else _TIMES[request.time_in_force]
    if request.reduce_only:
        params["reduceOnly"] = "true"
    return params


def _algo(request: OrderRequest, market_id: str) -> Params:
    params = {
        "algoType": "CONDITIONAL",
        "symbol": market_id,
        "side": request.side.upper(),
        "type": _USDM_TYPES[request.type],
        "quantity": plain(request.quantity),
        "clientAlgoId": request.client_order_id,
        "workingType": "CONTRACT_PRICE",
    }
    _add_prices(params, request, stop="triggerPrice")
    if request.type is OrderType.STOP_LIMIT:
        params["timeInForce"] = _TIMES[request.time_in_force]
    if request.type is OrderType.TRAILING_STOP:
        params["callbackRate"] = plain(_percent(request))
    if request.reduce_only:
        params["reduceOnly"] = "true"
    return params


def _add_prices(params: Params, request: OrderRequest, *, stop: str) -> None:
    if request.type in (OrderType.LIMIT, OrderType.STOP_LIMIT):
        params["price"] = plain(_required("limit_price", request.limit_price))
    if request.type in (OrderType.STOP, OrderType.STOP_LIMIT):
        params[stop] = plain(_required("stop_price", request.stop_price))


def _required(field: str, value: Decimal | None) -> Decimal:
    if value is None or value <= ZERO:
        raise InvalidOrderError(f"{field}: {value} must be a price above zero for this order type")
    return value


def _percent(request: OrderRequest) -> Decimal:
    if request.trail_percent is None:
        raise InvalidOrderError("trail_amount: Binance trails by per cent only; pass trail_percent")
    return request.trail_percent


# -- lists ---------------------------------------------------------------------------------------------


def order_list(orders: OrderList, market_id: str) -> tuple[str, Params]:
    """Return the path and the parameters of a list; Binance's entries of lists are limit orders."""
    params = {
        "symbol": market_id,
        "listClientOrderId": orders.list_id,
        "newOrderRespType": "FULL",
    }
    if orders.kind is ListKind.OCO:
        stop, target = orders.orders
        params |= {"side": stop.side.upper(), "quantity": plain(_same_quantity(stop, target))}
        return "orderList/oco", params | _pair(stop, target, "")
    entry = orders.orders[0]
    if entry.type is not OrderType.LIMIT:
        raise InvalidOrderError(
            f"type: the entry of a list at Binance is a limit order, not {entry.type}; "
            "place the entry alone and protect it afterwards"
        )
    params |= {
        "workingType": "LIMIT_MAKER" if entry.post_only else "LIMIT",
        "workingSide": entry.side.upper(),
        "workingClientOrderId": entry.client_order_id,
        "workingPrice": plain(_required("limit_price", entry.limit_price)),
        "workingQuantity": plain(entry.quantity),
    }
    if not entry.post_only:
        params["workingTimeInForce"] = _TIMES[entry.time_in_force]
    if orders.kind is ListKind.OTO:
        leg = orders.orders[1]
        params |= {"pendingSide": leg.side.upper(), "pendingQuantity": plain(leg.quantity)}
        return "orderList/oto", params | _leg(leg, "pending")
    _entry, stop, target = orders.orders
    params |= {
        "pendingSide": stop.side.upper(),
        "pendingQuantity": plain(_same_quantity(stop, target)),
    }
    return "orderList/otoco", params | _pair(stop, target, "pending")


def _same_quantity(stop: OrderRequest, target: OrderRequest) -> Decimal:
    if stop.quantity != target.quantity or stop.side is not target.side:
        raise InvalidOrderError(
            "orders: the stop and the target of a list have one side and one quantity at Binance"
        )
    return stop.quantity


def _pair(stop: OrderRequest, target: OrderRequest, prefix: str) -> Params:
    """A sell's stop is the leg below and its target the one above; a buy's the other way round."""
    above, below = (target, stop) if stop.side is Side.SELL else (stop, target)
    first, second = (f"{prefix}Above", f"{prefix}Below") if prefix else ("above", "below")
    return _leg(above, first) | _leg(below, second)


def _leg(leg: OrderRequest, prefix: str) -> Params:
    params = {f"{prefix}ClientOrderId": leg.client_order_id}
    if leg.type is OrderType.LIMIT:
        # A target rests on the far side of the market, so it always makes.
        params[f"{prefix}Type"] = "LIMIT_MAKER"
    elif leg.type in (OrderType.STOP, OrderType.STOP_LIMIT):
        params[f"{prefix}Type"] = _SPOT_TYPES[leg.type]
        params[f"{prefix}StopPrice"] = plain(_required("stop_price", leg.stop_price))
    else:
        raise InvalidOrderError(
            f"type: a leg of a list at Binance is a limit or a stop, not {leg.type}"
        )
    if leg.type is not OrderType.STOP:
        params[f"{prefix}Price"] = plain(_required("limit_price", leg.limit_price))
    if leg.type is OrderType.STOP_LIMIT:
        params[f"{prefix}TimeInForce"] = _TIMES[leg.time_in_force]
    return params


def by_id(client_order_id: str, venue_order_id: str | None) -> Mapping[str, str]:
    """Return how an order is named: by Binance's id where it is known, because ours may name a newer order."""
    if venue_order_id:
        return {"orderId": venue_order_id}
    return {"origClientOrderId": client_order_id}

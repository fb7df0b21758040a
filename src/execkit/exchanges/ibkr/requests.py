"""Orders as TWS wants them: numbers as plain text, and account, time in force and orderRef always stated."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import Any, Final

from ib_async.order import Order

from execkit.errors import InvalidOrderError
from execkit.exchanges.ibkr.contracts import Listed
from execkit.exchanges.ibkr.orders import TYPES
from execkit.exchanges.ibkr.raw import exact, maybe
from execkit.model.order import OrderRequest, OrderType, Side, TimeInForce
from execkit.numbers import MONEY, ZERO, plain

REDUCE_WITH_BLOCK: Final = 2
"""OCA type: an execution of one order makes the others smaller, so that what is left stays protected."""

_COPIED: Final = (
    *("action", "orderType", "tif", "account", "orderRef", "outsideRth", "goodTillDate"),
    *("ocaGroup", "ocaType"),
)
_PRICES: Final = {
    "MKT": (),
    "LMT": ("lmtPrice",),
    "STP": ("auxPrice",),
    "STP LMT": ("lmtPrice", "auxPrice"),
    "TRAIL": ("auxPrice", "trailStopPrice", "trailingPercent"),
}
_LIMIT_FIELDS: Final = {"LMT": "lmtPrice", "STP LMT": "lmtPrice"}
_STOP_FIELDS: Final = {"STP": "auxPrice", "STP LMT": "auxPrice", "TRAIL": "trailStopPrice"}
"""Where a stop price is; the auxPrice of a trailing stop is the amount by which it trails."""

_TIMES: Final = {
    TimeInForce.GTC: "GTC",
    TimeInForce.DAY: "DAY",
    TimeInForce.IOC: "IOC",
    TimeInForce.FOK: "FOK",
    TimeInForce.GTD: "GTD",
}


def order_of(
    request: OrderRequest,
    listed: Listed,
    *,
    account: str,
    order_id: int,
    transmit: bool = True,
    parent_id: int = 0,
    oca_group: str = "",
) -> Any:
    """Return ib_async's order for a request; raise `InvalidOrderError` for what TWS has no word for.

    Decimals are handed over as text: ib_async writes a Decimal as `str` does, and TWS does not read `1E+2`.
    """
    order = Order(
        orderId=order_id,
        action="BUY" if request.side is Side.BUY else "SELL",
        totalQuantity=_quantity(request.quantity, listed),
        orderType=TYPES[request.type],
        tif=_TIMES[request.time_in_force],
        account=account,
        orderRef=request.client_order_id,
        outsideRth=request.extended_hours,
        transmit=transmit,
        parentId=parent_id,
    )
    if request.post_only:
        raise InvalidOrderError(
            f"{listed.symbol}: Interactive Brokers has no post-only orders", venue="ibkr"
        )
    if request.time_in_force is TimeInForce.GTD:
        if request.expire_at is None:
            raise InvalidOrderError("a GTD order needs expire_at", venue="ibkr")
        order.goodTillDate = request.expire_at.astimezone(UTC).strftime("%Y%m%d-%H:%M:%S")
    if oca_group:
        order.ocaGroup, order.ocaType = oca_group, REDUCE_WITH_BLOCK
    if request.type in (OrderType.LIMIT, OrderType.STOP_LIMIT):
        order.lmtPrice = _price("limit_price", request.limit_price, listed)
    if request.type in (OrderType.STOP, OrderType.STOP_LIMIT):
        order.auxPrice = _price("stop_price", request.stop_price, listed)
    if request.type is OrderType.TRAILING_STOP:
        if request.trail_percent is not None:
            order.trailingPercent = _number("trail_percent", request.trail_percent)
        else:
            order.auxPrice = _number("trail_amount", request.trail_amount)
        if request.stop_price is not None:
            order.trailStopPrice = _number("stop_price", request.stop_price)
    return order


def changed(
    order: Any,
    listed: Listed,
    *,
    quantity: Decimal | None,
    limit_price: Decimal | None,
    stop_price: Decimal | None,
) -> Any:
    """Return a copy of a live order with other values; sending it under the same id changes the order.

    Copied are the terms that `order_of` states. What else TWS shows of an order, it does not take back. The parent is
    left out: one that is gone answers 135, and one that is not needs no repetition. Raises `InvalidOrderError` for a
    price that orders of its type do not have, and for a type that execkit does not place.
    """
    kind = order.orderType
    if kind not in _PRICES:
        raise InvalidOrderError(
            f"order {order.orderRef} is of type {kind}, which is changed where it was placed",
            venue="ibkr",
        )
    new = Order(**{name: getattr(order, name) for name in _COPIED})
    new.totalQuantity = plain(exact(order.totalQuantity))
    for name in _PRICES[kind]:
        value = maybe(getattr(order, name))
        setattr(new, name, "" if value is None else plain(value))
    if kind == "TRAIL" and new.trailingPercent:
        new.auxPrice = ""  # it trails by the one or the other
    if quantity is not None:
        new.totalQuantity = _quantity(quantity, listed)
    for name, price, fields in (
        ("limit_price", limit_price, _LIMIT_FIELDS),
        ("stop_price", stop_price, _STOP_FIELDS),
    ):
        if price is None:
            continue
        if kind not in fields:
            raise InvalidOrderError(
                f"{name}: an order of type {kind} has none; leave it out", venue="ibkr"
            )
        setattr(new, fields[kind], _price(name, price, listed))
    return new


def _quantity(quantity: Decimal, listed: Listed) -> str:
    """Return how many contracts a quantity in base units is."""
    _number("quantity", quantity)
    if MONEY.remainder(quantity, listed.lot):
        raise InvalidOrderError(
            f"quantity {plain(quantity)} of {listed.symbol} is no multiple of {plain(listed.lot)}, and TWS takes no "
            "fractions; use instrument.round_quantity()",
            venue="ibkr",
            code="10243",
        )
    if quantity < listed.minimum:
        raise InvalidOrderError(
            f"quantity {plain(quantity)} of {listed.symbol} is below the minimum {plain(listed.minimum)}",
            venue="ibkr",
        )
    return plain(MONEY.divide(quantity, listed.units))


def _price(name: str, value: Decimal | None, listed: Listed) -> str:
    """Return a price as text; one between two ticks never leaves, because TWS answers it late and tersely (110)."""
    text = _number(name, value)
    assert value is not None, "_number has refused it otherwise"
    tick = listed.increment_at(value)
    if MONEY.remainder(value, tick):
        raise InvalidOrderError(
            f"{name} {text} of {listed.symbol} is no multiple of {plain(tick)}, its tick at that price; round it",
            venue="ibkr",
            code="110",
        )
    return text


def _number(name: str, value: Decimal | None) -> str:
    if value is None or not value.is_finite() or value <= ZERO:
        raise InvalidOrderError(f"{name} {value} is not a number above zero", venue="ibkr")
    return plain(value)

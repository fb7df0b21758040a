"""From our orders to Alpaca's request bodies, and what can be refused here with a clearer word than the venue's.

Numbers go out as plain decimal strings. Bodies equal those of Alpaca's own client, field for field.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, NoReturn

from execkit.errors import InvalidOrderError
from execkit.exchanges.alpaca.chains import ListRecord
from execkit.exchanges.alpaca.codes import VENUE
from execkit.model.instrument import Instrument
from execkit.model.order import (
    ListKind,
    OrderList,
    OrderRequest,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.numbers import ONE, ZERO, is_multiple, plain

CENT: Final = Decimal("0.01")
SUB_CENT: Final = Decimal("0.0001")
SHARE: Final = ONE
NINE_PLACES: Final = Decimal("1e-9")

_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)
_LIMITS: Final = (OrderType.LIMIT, OrderType.STOP_LIMIT)
_RESTING: Final = (TimeInForce.DAY, TimeInForce.GTC)
_CRYPTO_TIMES: Final = (TimeInForce.GTC, TimeInForce.IOC)


def is_crypto(symbol: str) -> bool:
    """Tell whether a symbol is a pair of crypto currencies: only those have a slash."""
    return "/" in symbol


def tick_of(price: Decimal) -> Decimal:
    """Return the price step of a stock: 0.01 from 1 USD on, 0.0001 below (SEC rule 612)."""
    return CENT if price >= ONE else SUB_CENT


def refuse(text: str) -> NoReturn:
    """Refuse an order before it is sent."""
    raise InvalidOrderError(f"{VENUE}: {text}", venue=VENUE)


def order_body(request: OrderRequest, instrument: Instrument) -> dict[str, Any]:
    """Return the body of one order; raise `InvalidOrderError` for one that Alpaca is known not to take."""
    time_in_force = check(request, instrument)
    body: dict[str, Any] = {
        "symbol": instrument.venue_symbol or instrument.symbol,
        "qty": plain(request.quantity),
        "side": request.side.value,
        "type": request.type.value,
        "time_in_force": time_in_force.value,
        "client_order_id": request.client_order_id,
    }
    if request.limit_price is not None:
        body["limit_price"] = plain(request.limit_price)
    if request.stop_price is not None:
        body["stop_price"] = plain(request.stop_price)
    if request.trail_amount is not None:
        body["trail_price"] = plain(request.trail_amount)
    if request.trail_percent is not None:
        body["trail_percent"] = plain(request.trail_percent)
    if request.extended_hours:
        body["extended_hours"] = True
    return body


def check(request: OrderRequest, instrument: Instrument) -> TimeInForce:
    """Refuse what Alpaca is known not to take; return the time in force to send."""
    if not request.quantity.is_finite() or request.quantity <= ZERO:
        refuse(f"quantity: {request.quantity} must be a number above zero")
    if request.post_only:
        refuse("post_only: there are no post-only orders here; leave it out")
    _check_prices(request)
    if is_crypto(request.symbol):
        _check_crypto(request, instrument)
        return request.time_in_force
    return _check_stock(request, instrument)


def _check_prices(request: OrderRequest) -> None:
    kind = request.type
    for name, value, wanted in (
        ("limit_price", request.limit_price, kind in _LIMITS),
        ("stop_price", request.stop_price, kind in (OrderType.STOP, OrderType.STOP_LIMIT)),
    ):
        if (value is not None) is not wanted:
            refuse(f"{name}: a {kind} order {'needs one' if wanted else 'takes none'}")
        if value is not None and not (value.is_finite() and value > ZERO):
            refuse(f"{name}: {value} must be a number above zero")
    trails = [t for t in (request.trail_amount, request.trail_percent) if t is not None]
    if len(trails) != (1 if kind is OrderType.TRAILING_STOP else 0):
        refuse(
            "trail_amount, trail_percent: a trailing stop needs exactly one of them, other orders none"
        )
    if any(not (t.is_finite() and t > ZERO) for t in trails):
        refuse(f"trail: {trails[0]} must be a number above zero")


def _check_crypto(request: OrderRequest, instrument: Instrument) -> None:
    if request.type is OrderType.TRAILING_STOP:
        refuse("type: crypto takes market, limit and stop-limit orders, no trailing stops")
    if request.type is OrderType.STOP:
        refuse("type: crypto takes no plain stops; send a stop-limit order with a limit_price")
    if request.time_in_force not in _CRYPTO_TIMES:
        refuse(f"time_in_force: {request.time_in_force} is not for crypto; use gtc or ioc")
    if request.extended_hours:
        refuse("extended_hours: crypto trades around the clock; leave it out")
    if request.quantity < instrument.min_quantity:
        refuse(
            f"quantity: {plain(request.quantity)} is below the minimum {plain(instrument.min_quantity)}"
        )
    if not instrument.on_lot(request.quantity):
        refuse(
            f"quantity: {plain(request.quantity)} is no multiple of {plain(instrument.lot_size)}"
        )
    for name in ("limit_price", "stop_price"):
        value = getattr(request, name)
        if value is not None and not instrument.on_tick(value):
            refuse(f"{name}: {plain(value)} is no multiple of {plain(instrument.tick_size)}")


def _check_stock(request: OrderRequest, instrument: Instrument) -> TimeInForce:
    time_in_force = request.time_in_force
    if time_in_force is TimeInForce.GTD:
        refuse("time_in_force: there is no gtd here; use gtc or day")
    if request.type in _STOPS and time_in_force not in _RESTING:
        refuse(f"time_in_force: a {request.type} order waits, so it takes day or gtc")
    if request.extended_hours and (
        request.type is not OrderType.LIMIT or time_in_force not in _RESTING
    ):
        refuse(
            "extended_hours: only limit orders with time in force day or gtc trade outside the regular session"
        )
    for name in ("limit_price", "stop_price"):
        value = getattr(request, name)
        if value is not None and not is_multiple(value, tick_of(value)):
            refuse(
                f"{name}: {plain(value)} is a sub-penny price; "
                f"use multiples of {plain(tick_of(value))} ({plain(CENT)} from 1 USD on)"
            )
    if is_multiple(request.quantity, SHARE):
        return time_in_force
    return _check_fraction(request, instrument)


def _check_fraction(request: OrderRequest, instrument: Instrument) -> TimeInForce:
    if not instrument.on_lot(request.quantity):
        if instrument.lot_size == SHARE:
            refuse(
                f"quantity: {plain(request.quantity)} of {request.symbol} is no whole number of shares; round it, or "
                "make the adapter with fractional=True where the asset is fractionable"
            )
        refuse(f"quantity: {plain(request.quantity)} has more than nine decimals; round it down")
    if request.type is OrderType.TRAILING_STOP:
        refuse("quantity: a trailing stop takes whole shares only")
    if request.time_in_force is TimeInForce.DAY:
        return TimeInForce.DAY
    if request.time_in_force is TimeInForce.GTC and (
        request.reduce_only or request.type is OrderType.MARKET
    ):
        # What protects a fraction of a share can only be had for the day, and is renewed when it has expired; an order
        # at the market needs no longer.
        return TimeInForce.DAY
    refuse(
        f"time_in_force: a fraction of a share is taken for the day only; use day instead of {request.time_in_force}"
    )


def notional_body(
    instrument: Instrument, side: Side, amount: Decimal, client_order_id: str
) -> dict[str, Any]:
    """Return the body of a market order over an amount of money."""
    if not amount.is_finite() or amount <= ZERO:
        refuse(f"amount: {amount} must be a number above zero")
    if not is_multiple(amount, CENT):
        refuse(f"amount: {plain(amount)} has more than two decimals; round it down")
    if amount < instrument.min_notional:
        refuse(f"amount: {plain(amount)} is below the least, {plain(instrument.min_notional)}")
    tif = TimeInForce.GTC if is_crypto(instrument.symbol) else TimeInForce.DAY
    return {
        "symbol": instrument.symbol,
        "notional": plain(amount),
        "side": side.value,
        "type": OrderType.MARKET.value,
        "time_in_force": tif.value,
        "client_order_id": client_order_id,
    }


# -- lists ---------------------------------------------------------------------------------------------


def list_body(orders: OrderList, instrument: Instrument) -> tuple[dict[str, Any], ListRecord]:
    """Return the body of a list, and which orders it is made of.

    One order of the list goes out by itself, with the others as its legs: the entry, or the target of an OCO.
    """
    legs = orders.orders
    if any(each.symbol != instrument.symbol for each in legs):
        refuse("orders: all orders of a list are of one symbol")
    if is_crypto(instrument.symbol):
        refuse("orders: crypto takes no lists of orders")
    times = [check(each, instrument) for each in legs]
    if len(set(times)) != 1 or times[0] not in _RESTING:
        refuse("time_in_force: the orders of a list share one time in force, day or gtc")
    if any(not is_multiple(each.quantity, SHARE) for each in legs):
        refuse("quantity: a list takes whole shares only")
    if len({each.quantity for each in legs}) != 1:
        refuse("quantity: the orders of a list have one quantity")
    make = _oco_body if orders.kind is ListKind.OCO else _entry_body
    body, record = make(orders, instrument)
    body["client_order_id"] = record.wire_id
    return body, record


def _oco_body(orders: OrderList, instrument: Instrument) -> tuple[dict[str, Any], ListRecord]:
    if len(orders.orders) != 2:
        refuse("orders: an OCO has two, stop first and target second")
    stop, target = orders.orders
    if target.type is not OrderType.LIMIT or target.side is not stop.side:
        refuse("orders: the target of an OCO is a limit order on the side of its stop")
    body = order_body(target, instrument)
    del body["limit_price"]
    body["order_class"] = ListKind.OCO.value
    body |= _target_of(target) | _stop_of(stop)
    return body, ListRecord(target.client_order_id, stop.client_order_id, target.client_order_id)


def _entry_body(orders: OrderList, instrument: Instrument) -> tuple[dict[str, Any], ListRecord]:
    entry, *exits = orders.orders
    if any(each.side is entry.side for each in exits):
        refuse("orders: the exits of a list are on the other side of its entry")
    if len(exits) != (2 if orders.kind is ListKind.BRACKET else 1):
        refuse(f"orders: {len(orders.orders)} orders are no {orders.kind}")
    body = order_body(entry, instrument) | {"order_class": orders.kind.value}
    stop = target = None
    for each in exits:
        if each.type is OrderType.LIMIT:
            target = each
            body |= _target_of(each)
        else:
            stop = each
            body |= _stop_of(each)
    if orders.kind is ListKind.BRACKET and (stop is None or target is None):
        refuse("orders: a bracket has a stop and a target")
    return body, ListRecord(
        entry.client_order_id,
        None if stop is None else stop.client_order_id,
        None if target is None else target.client_order_id,
    )


def _target_of(order: OrderRequest) -> dict[str, Any]:
    return {"take_profit": {"limit_price": plain(order.limit_price or ZERO)}}


def _stop_of(order: OrderRequest) -> dict[str, Any]:
    if order.type not in (OrderType.STOP, OrderType.STOP_LIMIT):
        refuse(f"orders: the stop of a list is a stop or stop-limit order, no {order.type}")
    part = {"stop_price": plain(order.stop_price or ZERO)}
    if order.limit_price is not None:
        part["limit_price"] = plain(order.limit_price)
    return {"stop_loss": part}

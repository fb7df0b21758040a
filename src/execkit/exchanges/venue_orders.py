"""One order inside a simulated venue, and the filters it has to pass to get in."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Final, NoReturn

import msgspec

from execkit.errors import InvalidOrderError
from execkit.model.instrument import Instrument
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.numbers import HUNDRED, ZERO, plain, round_down, round_up

IMMEDIATE: Final = (TimeInForce.IOC, TimeInForce.FOK)
_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT)
_CONDITIONAL: Final = (*_STOPS, OrderType.TRAILING_STOP)
_LIMITS: Final = (OrderType.LIMIT, OrderType.STOP_LIMIT)
_AVERAGE: Final = Context(prec=28)


class VenueOrder(msgspec.Struct, kw_only=True):
    """An order as the venue keeps it, with amendments applied to *request*."""

    request: OrderRequest
    venue_order_id: str
    since: datetime
    """From when it can be executed at its present price: placed, or last amended."""
    updated_at: datetime
    expires_at: datetime | None = None
    status: OrderState = OrderState.ACCEPTED
    reason: str = ""
    filled: Decimal = ZERO
    notional: Decimal = ZERO
    """Quantity times price, summed over its fills."""
    triggered: bool = False
    """The stop price has traded."""
    trail: Decimal | None = None
    """Present level of a trailing stop."""
    stop_above: bool | None = None
    """Whether it triggers at or above its stop; None: a buy above, a sell below."""
    group: str = ""
    """Names the orders of which the execution of one ends the others; they hold money for one only."""
    waits_for: str = ""
    """Venue id of the order whose complete execution lets this one in."""
    rested: bool = False
    """It has stood in the book, so whoever meets it now is the taker."""
    lock_asset: str = ""
    unit_lock: Decimal = ZERO
    """What one unit of quantity holds of *lock_asset*."""
    locked: Decimal = ZERO
    """What the order holds of *lock_asset* altogether."""

    @property
    def remaining(self) -> Decimal:
        """What may still be executed."""
        return self.request.quantity - self.filled

    @property
    def is_open(self) -> bool:
        """Tell whether it can still be executed."""
        return not self.status.is_closed

    @property
    def is_working(self) -> bool:
        """Tell whether a price may execute or trigger it now."""
        return self.is_open and self.status is not OrderState.HELD

    @property
    def waits_for_stop(self) -> bool:
        """Tell whether its stop price has not traded yet."""
        return not self.triggered and self.request.type in _CONDITIONAL

    @property
    def stop(self) -> Decimal | None:
        """Price that triggers it; None for a trailing stop that has seen no price yet."""
        is_trailing = self.request.type is OrderType.TRAILING_STOP
        return self.trail if is_trailing else self.request.stop_price

    @property
    def triggers_above(self) -> bool:
        """Tell on which side of its stop it triggers."""
        return self.is_buy if self.stop_above is None else self.stop_above

    def follow(self, price: Decimal, tick_size: Decimal) -> None:
        """Let a trailing stop keep its distance from the best price; other orders do not move.

        The level is rounded away from the price, so that rounding never triggers it early.
        """
        request = self.request
        if request.type is not OrderType.TRAILING_STOP or self.triggered:
            return
        distance = request.trail_amount or price * (request.trail_percent or ZERO) / HUNDRED
        if self.is_buy:
            level = round_up(price + distance, tick_size)
            self.trail = level if self.trail is None else min(level, self.trail)
        else:
            level = round_down(price - distance, tick_size)
            self.trail = level if self.trail is None else max(level, self.trail)

    @property
    def limit(self) -> Decimal | None:
        """Worst price it accepts now; None for a market order and a triggered stop."""
        return self.request.limit_price if self.request.type in _LIMITS else None

    @property
    def is_buy(self) -> bool:
        """Tell whether it buys."""
        return self.request.side is Side.BUY

    @property
    def is_immediate(self) -> bool:
        """Tell whether it executes at the first opportunity or ends."""
        return self.request.time_in_force in IMMEDIATE

    def report(self, fills: tuple[Fill, ...] = ()) -> OrderReport:
        """Return what the venue says of it now."""
        request = self.request
        return OrderReport(
            client_order_id=request.client_order_id,
            venue_order_id=self.venue_order_id,
            symbol=request.symbol,
            side=request.side,
            type=request.type,
            quantity=request.quantity,
            status=self.status,
            filled=self.filled,
            average_price=_AVERAGE.divide(self.notional, self.filled) if self.filled else None,
            limit_price=request.limit_price,
            stop_price=request.stop_price,
            fills=fills,
            updated_at=self.updated_at,
            reason=self.reason,
            raw_status=self.status.value,
        )


def expiry_of(request: OrderRequest, at: datetime) -> datetime | None:
    """Return when the order ends by itself: DAY at the next midnight UTC, GTD at its own time."""
    if request.time_in_force is TimeInForce.DAY:
        return at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return request.expire_at if request.time_in_force is TimeInForce.GTD else None


def check_request(
    request: OrderRequest, instrument: Instrument, price: Decimal | None, at: datetime
) -> None:
    """Raise `InvalidOrderError` whose code is the filter that the order does not pass.

    *price* values the order for the notional filters; None skips them.
    """
    if not request.client_order_id:
        refuse("CLIENT_ORDER_ID", "a client order id is needed")
    _check_shape(request, at)
    _check_quantity(request, instrument)
    for name, value in (("limit_price", request.limit_price), ("stop_price", request.stop_price)):
        if value is not None and not instrument.on_tick(value):
            refuse(
                "TICK_SIZE",
                f"{name} {plain(value)} is no multiple of {plain(instrument.tick_size)}",
            )
    if price is None:
        return
    notional = request.quantity * price
    # A reduction may always be made, however little is left of the position.
    if notional < instrument.min_notional and not request.reduce_only:
        refuse(
            "MIN_NOTIONAL",
            f"{plain(notional)} is below the minimum {plain(instrument.min_notional)}",
        )
    if instrument.max_notional is not None and notional > instrument.max_notional:
        refuse(
            "MAX_NOTIONAL",
            f"{plain(notional)} is above the maximum {plain(instrument.max_notional)}",
        )


def _check_shape(request: OrderRequest, at: datetime) -> None:
    for name, value, needed in (
        ("quantity", request.quantity, True),
        ("limit_price", request.limit_price, request.type in _LIMITS),
        ("stop_price", request.stop_price, request.type in _STOPS),
    ):
        if (value is not None) is not needed:
            refuse(
                "PARAMETERS", f"a {request.type} order {'needs a' if needed else 'takes no'} {name}"
            )
        if value is not None and not (value.is_finite() and value > ZERO):
            refuse("PARAMETERS", f"{name} {value} is not a number above zero")
    trails = (request.trail_amount, request.trail_percent)
    given = [value for value in trails if value is not None]
    if len(given) is not int(request.type is OrderType.TRAILING_STOP):
        refuse(
            "PARAMETERS",
            "a trailing stop, and no other order, has one trail_amount or trail_percent",
        )
    if not all(value.is_finite() and value > ZERO for value in given):
        refuse("PARAMETERS", f"the distance {given[0]} is not a number above zero")
    if request.post_only and (
        request.type is not OrderType.LIMIT or request.time_in_force in IMMEDIATE
    ):
        refuse("POST_ONLY", "only a resting limit order can be post-only")
    if request.time_in_force is TimeInForce.GTD and (
        request.expire_at is None or request.expire_at <= at
    ):
        refuse("EXPIRY", "a GTD order needs an expire_at in the future")


def _check_quantity(request: OrderRequest, instrument: Instrument) -> None:
    quantity = request.quantity
    if not instrument.on_lot(quantity):
        refuse("LOT_SIZE", f"{plain(quantity)} is no multiple of {plain(instrument.lot_size)}")
    if quantity < instrument.min_quantity:
        refuse(
            "MIN_QUANTITY",
            f"{plain(quantity)} is below the minimum {plain(instrument.min_quantity)}",
        )
    if instrument.max_quantity is not None and quantity > instrument.max_quantity:
        refuse(
            "MAX_QUANTITY",
            f"{plain(quantity)} is above the maximum {plain(instrument.max_quantity)}",
        )
    most = instrument.market_max_quantity
    if most is not None and request.type not in _LIMITS and quantity > most:
        refuse(
            "MARKET_MAX_QUANTITY",
            f"{plain(quantity)} is above the maximum {plain(most)} of a market order",
        )


def refuse(code: str, text: str) -> NoReturn:
    """Raise `InvalidOrderError` for the named filter."""
    raise InvalidOrderError(f"{code}: {text}", code=code)

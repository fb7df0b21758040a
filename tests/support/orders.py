"""Records, orders, fills and reports as the tests of the order rooms need them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from execkit.model.order import (
    Fill,
    OrderEvent,
    OrderReport,
    OrderRequest,
    OrderRole,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.model.records import CommandSent, Filled, Intent, OrderChanged, Source
from execkit.orders.manager import ManagedOrder

AT = datetime(2024, 1, 1, tzinfo=UTC)
BTC = "BTC/USDT"


def later(seconds):
    """Return the moment so many seconds after `AT`."""
    return AT + timedelta(seconds=seconds)


def amount(value):
    return None if value is None else Decimal(value)


def intent(
    order_id="o1",
    *,
    symbol=BTC,
    side=Side.BUY,
    quantity="1",
    type=OrderType.MARKET,
    limit=None,
    stop=None,
    role=OrderRole.ENTRY,
    parent="s1",
    revision=0,
    time_in_force=TimeInForce.GTC,
    **details,
):
    """Return the intent of an order; by default a market buy of 1 BTC."""
    if limit is not None and type is OrderType.MARKET:
        type = OrderType.LIMIT
    if stop is not None and type is OrderType.MARKET:
        type = OrderType.STOP
    request = OrderRequest(
        client_order_id=order_id,
        symbol=symbol,
        side=side,
        type=type,
        quantity=Decimal(quantity),
        limit_price=amount(limit),
        stop_price=amount(stop),
        time_in_force=time_in_force,
        reduce_only=role.is_reduction,
    )
    return Intent(
        request=request,
        payload_hash=request.payload_hash,
        role=role,
        parent=parent,
        revision=revision,
        **details,
    )


def changed(event, order_id="o1", **details):
    """Return the record of an event of an order's life."""
    return OrderChanged(
        client_order_id=order_id,
        event=event if isinstance(event, OrderEvent) else OrderEvent(event),
        source=details.pop("source", Source.STREAM),
        **details,
    )


def ask(order, **wanted):
    """Ask for a change of an order, as the gateway does."""
    values = {name: Decimal(value) for name, value in wanted.items()}
    key = order.client_order_id
    order.change(CommandSent(client_order_id=key, command="amend", **values), AT)
    order.change(changed("ask_amend", key), AT)


def fill(
    trade_id="t1",
    order_id="o1",
    quantity="1",
    price="100",
    *,
    side=Side.BUY,
    symbol=BTC,
    fee="0",
    fee_asset="",
    at=AT,
    venue_id="",
    replaces=None,
):
    """Return one execution."""
    return Fill(
        trade_id=trade_id,
        client_order_id=order_id,
        venue_order_id=venue_id,
        symbol=symbol,
        side=side,
        quantity=Decimal(quantity),
        price=Decimal(price),
        at=at,
        fee=Decimal(fee),
        fee_asset=fee_asset,
        replaces=replaces,
    )


def filled(*args, source=Source.STREAM, **details):
    """Return the record of one execution; takes what `fill` takes."""
    return Filled(fill=fill(*args, **details), source=source)


def order(*events, **details):
    """Return an order after some events; a fill is given as a `Fill`."""
    made = ManagedOrder.of(intent(**details), AT)
    for event in events:
        if isinstance(event, Fill):
            made.execute(event, AT)
        elif isinstance(event, OrderChanged):
            made.change(event, AT)
        else:
            made.change(changed(event, made.client_order_id), AT)
    return made


def report(of=None, status=OrderState.ACCEPTED, **details):
    """Return what a venue truthfully says of an order (by default of `order()`); *details* make it lie."""
    of = of or order()
    request = of.request
    told = {
        "client_order_id": request.client_order_id,
        "venue_order_id": of.venue_order_id or f"v-{request.client_order_id}",
        "symbol": request.symbol,
        "side": request.side,
        "type": request.type,
        "quantity": of.quantity,
        "limit_price": of.limit_price,
        "stop_price": of.stop_price,
        "filled": of.filled,
        "raw_status": status.value,
    }
    return OrderReport(status=status, **(told | details))


PATHS = {
    OrderState.NEW: (),
    OrderState.SUBMITTED: ("submit",),
    OrderState.IN_DOUBT: ("submit", "lose"),
    OrderState.PRESUMED_ABSENT: ("submit", "lose", "absent"),
    OrderState.HELD: ("submit", "hold"),
    OrderState.ACCEPTED: ("submit", "accept"),
    OrderState.PARTIALLY_FILLED: ("submit", "accept", "fill_part"),
    OrderState.PENDING_CANCEL: ("submit", "accept", "ask_cancel"),
    OrderState.PENDING_AMEND: ("submit", "accept", "ask_amend"),
    OrderState.FILLED: ("submit", "accept", "fill"),
    OrderState.CANCELLED: ("submit", "accept", "cancel"),
    OrderState.REJECTED: ("submit", "reject"),
    OrderState.EXPIRED: ("submit", "accept", "expire"),
    OrderState.FAILED: ("fail",),
}
"""A way into each state, as events."""


def records_into(state, **details):
    """Return the records that bring an order into *state*, its intent first."""
    first = intent(**details)
    request = first.request
    found = [first]
    for event in PATHS[state]:
        if event in ("fill", "fill_part"):
            part = request.quantity if event == "fill" else request.quantity / 4
            found.append(
                filled(
                    f"t-{request.client_order_id}",
                    request.client_order_id,
                    part,
                    side=request.side,
                    symbol=request.symbol,
                )
            )
        elif event == "accept":
            venue_id = f"v-{request.client_order_id}"
            found.append(changed(event, request.client_order_id, venue_order_id=venue_id))
        else:
            found.append(changed(event, request.client_order_id))
    return found

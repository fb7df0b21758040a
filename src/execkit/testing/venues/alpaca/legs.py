"""The legs of brackets, OCOs and OTOs: what they are asked to be, and how they end each other."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from execkit.model.order import OrderRequest, OrderType
from execkit.testing.venues.alpaca.reading import Wanted
from execkit.testing.venues.alpaca.state import WireOrder


def leg_requests(wanted: Wanted, new_id: Callable[[], str]) -> list[OrderRequest]:
    """Return the orders that depend on the one that was asked for; Alpaca itself names them."""
    if not wanted.has_legs:
        return []
    parent, is_oco = wanted.request, wanted.order_class == "oco"

    def leg(kind: OrderType, limit: Decimal | None, stop: Decimal | None) -> OrderRequest:
        return OrderRequest(
            client_order_id=new_id(),
            symbol=parent.symbol,
            side=parent.side if is_oco else parent.side.opposite,
            type=kind,
            quantity=parent.quantity,
            limit_price=limit,
            stop_price=stop,
            time_in_force=parent.time_in_force,
        )

    legs = []
    if wanted.target is not None and not is_oco:
        legs.append(leg(OrderType.LIMIT, wanted.target, None))
    if wanted.stop is not None:
        kind = OrderType.STOP if wanted.stop_limit is None else OrderType.STOP_LIMIT
        legs.append(leg(kind, wanted.stop_limit, wanted.stop))
    return legs


def join(orders: list[WireOrder]) -> None:
    """Let the execution of one order end the others."""
    for order in orders:
        order.group = [other.id for other in orders if other is not order]

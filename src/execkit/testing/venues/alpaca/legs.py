"""The legs of brackets, OCOs and OTOs: what they are asked to be, and how they end each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from execkit.model.order import OrderRequest, OrderType
from execkit.testing.venues.alpaca.reading import Wanted
from execkit.testing.venues.alpaca.state import WireOrder


def names_in(client_order_id: str) -> list[str]:
    """Return the names that a client order id is made of, so that tests may call the orders of a list by them.

    A client that wants to know the legs of a list again writes their names behind that of the list.
    """
    return re.split(r"-[st](?=xk)", client_order_id)


def leg_requests(
    wanted: Wanted, client_order_id: str, new_id: Callable[[], str]
) -> list[OrderRequest]:
    """Return the orders that depend on the one that was asked for."""
    if not wanted.has_legs:
        return []
    parent, is_oco = wanted.request, wanted.order_class == "oco"
    names = dict(re.findall(r"-([st])(xk[0-9a-z]+)", client_order_id))

    def leg(kind: OrderType, limit: Decimal | None, stop: Decimal | None) -> OrderRequest:
        return OrderRequest(
            client_order_id=names.get("s" if stop is not None else "t") or new_id(),
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

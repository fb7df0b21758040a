"""What the gateway is asked to send: an entry with its approval, or a reduction that proves itself."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from execkit.errors import ExchangeError
from execkit.model.denial import Denial
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest, OrderRole, OrderType, Side, TimeInForce
from execkit.model.ticket import OrderTicket
from execkit.orders.manager import ManagedOrder


class Entry(msgspec.Struct, frozen=True):
    """An order that adds exposure: a ticket that a risk handler has stamped."""

    ticket: OrderTicket
    timeout_at: datetime | None = None
    unchecked: bool = False
    """The pipeline was built without a risk handler on purpose."""


class Reduction(msgspec.Struct, frozen=True, kw_only=True):
    """An order that makes a position smaller. It needs no approval, because the gateway proves it.

    *replaces* are client order ids of live reductions whose place it takes where the venue enforces reduce-only.
    """

    instrument: Instrument
    side: Side
    quantity: Decimal
    role: OrderRole
    parent: str
    position_id: str
    type: OrderType = OrderType.MARKET
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    signal_id: str | None = None
    signal_digest: str | None = None
    expected_price: Decimal | None = None
    replaces: tuple[str, ...] = ()
    slice_of: str | None = None
    part_of: Decimal | None = None


class Sent(msgspec.Struct, frozen=True):
    """What came of a send: the order as it stands, and the error if there was one; or a denial before it."""

    order: ManagedOrder | None = None
    error: ExchangeError | None = None
    denial: Denial | None = None


def terms(request: OrderRequest) -> tuple[object, ...]:
    """Return what a venue is asked for, without the id: equal terms are the same order."""
    return (
        request.symbol,
        request.side,
        request.type,
        request.quantity,
        request.limit_price,
        request.stop_price,
        request.time_in_force,
        request.post_only,
        request.extended_hours,
    )

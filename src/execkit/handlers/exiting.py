"""An exit that the venue takes in smaller orders only: the rest follows, or a person is told of what stays open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Final

import structlog
from msgspec.structs import replace

from execkit.errors import ExchangeError, QuantityTooLargeError
from execkit.handlers.desk import Desk
from execkit.model.order import OrderRole, OrderState
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO, plain
from execkit.orders.commands import Sent
from execkit.orders.manager import ManagedOrder

log = structlog.get_logger("execkit")

Execute = Callable[[OrderTicket], Awaitable[tuple[OrderTicket, Sent, ExchangeError | None]]]

_MOST_PARTS: Final = 100
"""Orders that one exit is taken apart into at most."""


async def send_rest(
    desk: Desk, ticket: OrderTicket, cause: ExchangeError, execute: Execute
) -> tuple[OrderTicket, str]:
    """Return the ticket of an exit that was made smaller with all its orders, and a remark on what could not be sent.

    Only where one order may not be so large there are more of them, none larger than the one that the venue took; the
    gateway proves each to be within what is left of the position. Where the venue has less than was to be sold, asking
    again would not help.
    """
    first, wanted = ticket.order, ticket.requested
    assert first is not None and wanted is not None, "its first part is out"  # noqa: PT018
    left, why = wanted - first.quantity, str(cause)
    while isinstance(cause, QuantityTooLargeError) and len(ticket.parts) < _MOST_PARTS:
        part = ticket.instrument.round_quantity(min(left, first.quantity))
        if part < max(ticket.instrument.min_quantity, ticket.instrument.lot_size):
            break
        try:
            _, sent, less = await execute(replace(ticket, quantity=part))
        except Exception as error:  # noqa: BLE001 - what is out must not be hidden by what is not
            log.error("exit.failed", signal_id=ticket.signal_id, error=repr(error))  # noqa: TRY400
            why = repr(error)
            break
        order = sent.order
        if sent.denial is not None or order is None or is_refused(order):
            why = str(sent.denial or sent.error or why)
            break
        ticket = replace(ticket, parts=(*ticket.parts, ticket.order)).with_order(order)
        left -= order.quantity
        cause = cause if less is None else less
    stays = min(left, _not_leaving(ticket, desk))
    if ticket.instrument.round_quantity(stays) <= ZERO:
        return ticket, ""
    text = f"{plain(stays)} of {plain(wanted)} stay open: {why}"
    desk.recorder.alarm("CLOSED_IN_PART", f"{ticket.symbol}: {text}", symbol=ticket.symbol)
    return ticket, text


def is_refused(order: ManagedOrder) -> bool:
    """Tell whether nothing came of an order and nothing will: it was refused, or provably never sent."""
    return order.state in (OrderState.REJECTED, OrderState.FAILED) and not order.filled


def _not_leaving(ticket: OrderTicket, desk: Desk) -> Decimal:
    """Return how much of the position no exit that is out will close: its stop or another order may have taken some."""
    leaving = sum(
        (
            order.remaining_at_most
            for order in desk.book.orders.open_reductions(ticket.symbol)
            if order.role in (OrderRole.EXIT, OrderRole.FLATTEN) and order.side is ticket.side
        ),
        ZERO,
    )
    held = desk.book.positions.quantity(ticket.symbol) * -ticket.side.sign
    return max(held - leaving, ZERO)

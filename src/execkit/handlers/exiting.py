"""What stands in the way of an exit: entries that may still fill, and a venue that takes it in smaller orders only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Final

import structlog
from msgspec.structs import replace

from execkit.errors import ExchangeError, QuantityTooLargeError
from execkit.handlers.desk import Desk
from execkit.handlers.way_out import WayOut
from execkit.model.order import OrderRole, OrderState, OrderType, Side
from execkit.model.result import ExecutionResult
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO, plain
from execkit.orders.commands import Sent
from execkit.orders.manager import ManagedOrder
from execkit.redaction import redacted, shown

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
            log.error("exit.failed", signal_id=ticket.signal_id, error=shown(error))  # noqa: TRY400
            why = shown(error)
            break
        order = sent.order
        if sent.denial is not None or order is None or is_refused(order):
            why = str(sent.denial or sent.error or why)
            break
        ticket = replace(ticket, parts=(*ticket.parts, ticket.order)).with_order(order)
        left -= order.quantity
        cause = cause if less is None else less
    stays = min(left, _not_leaving(desk, ticket.symbol, ticket.side))
    if ticket.instrument.round_quantity(stays) <= ZERO:
        return ticket, ""
    return ticket, _tell_open(desk, ticket.symbol, stays, wanted, why)


def tell_rest(
    desk: Desk, result: ExecutionResult, orders: Sequence[ManagedOrder]
) -> ExecutionResult:
    """Return what the orders of an exit came to before a restart; what stays open of one in parts is told.

    The rest is not sent: nobody knows any more whether it should be.
    """
    last = orders[-1]
    wanted, position = last.intent.part_of, desk.book.positions.open.get(last.symbol)
    if wanted is None or position is None or position.position_id != last.position_id:
        return result
    out = sum((order.filled + order.exposure_quantity for order in orders), ZERO)
    stays = min(wanted - out, _not_leaving(desk, last.symbol, last.side))
    if stays <= ZERO or stays < (last.intent.lot_size or ZERO):
        return result
    text = _tell_open(desk, last.symbol, stays, wanted, "the process ended meanwhile")
    return result.with_alert(text)


def _tell_open(desk: Desk, symbol: str, stays: Decimal, wanted: Decimal, why: str) -> str:
    text = redacted(f"{plain(stays)} of {plain(wanted)} stay open: {why}")
    desk.recorder.alarm("CLOSED_IN_PART", f"{symbol}: {text}", symbol=symbol)
    return text


async def stop_entering(desk: Desk, ticket: OrderTicket) -> tuple[ManagedOrder, ...]:
    """Cancel what would open again the position that is being closed whole; return what is not proven gone by then."""
    held = abs(desk.book.positions.quantity(ticket.symbol))
    if (ticket.quantity or ZERO) < ticket.instrument.round_quantity(held):
        return ()
    closer, reason = desk.keeper.closer, "the position is being closed"
    closer.end_slicing(ticket.symbol, reason)
    return await closer.stop_entering(ticket.symbol, reason)


def follow_entries(desk: Desk, ticket: OrderTicket, entries: tuple[ManagedOrder, ...]) -> str:
    """See to entries that may still be executed after an exit of the whole; return what the caller has to know of them.

    The exit does not wait for them. What they fill has its stop at once, as all that fills has; where the exit was one
    at the market, it is closed as soon as they are proven gone, and a person is told where the venue refuses that.
    """
    if not entries:
        return ""
    names = ", ".join(entry.client_order_id for entry in entries)
    if ticket.type is not OrderType.MARKET:
        return f"not proven gone: {names}; what they still fill is protected"
    way = WayOut(desk, ticket.symbol, entries, "an entry was filled after the exit")
    desk.spawn(way.follow(), f"closing {ticket.symbol}")
    return f"not proven gone: {names}; what they still fill is closed"


def is_refused(order: ManagedOrder) -> bool:
    """Tell whether nothing came of an order and nothing will: it was refused, or provably never sent."""
    return order.state in (OrderState.REJECTED, OrderState.FAILED) and not order.filled


def _not_leaving(desk: Desk, symbol: str, side: Side) -> Decimal:
    """Return how much of the position no exit that is out will close: its stop or another order may have taken some."""
    leaving = sum(
        (
            order.remaining_at_most
            for order in desk.book.orders.open_reductions(symbol)
            if order.role in (OrderRole.EXIT, OrderRole.FLATTEN) and order.side is side
        ),
        ZERO,
    )
    held = desk.book.positions.quantity(symbol) * -side.sign
    return max(held - leaving, ZERO)

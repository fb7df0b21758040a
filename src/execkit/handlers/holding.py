"""A limit exit that would rest: a stop and a limit cannot both rest, so the limit is held as the position's target."""

from __future__ import annotations

from execkit.handlers.desk import Desk
from execkit.model.denial import DenialCode
from execkit.model.order import OrderType, Side, TimeInForce
from execkit.model.records import StopMoved
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.slicing import Iceberg
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO, plain


def hold_as_target(desk: Desk, ticket: OrderTicket) -> ExecutionResult | None:
    """Return the result of an exit that is held instead of sent, or None for one that is to be sent.

    At the venue it would take the stop's place and leave the position naked while it rests. Held, the keeper sends it
    when the price touches it, at its limit. An exit of a part cannot be held that way and is denied.
    """
    position = desk.book.position(ticket.symbol)
    if position is None or position.stop_loss is None or ticket.type is not OrderType.LIMIT:
        return None
    limit, quote = ticket.limit_price, ticket.quote
    if limit is None or ticket.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
        return None
    if limit <= quote.bid if ticket.side is Side.SELL else limit >= quote.ask:
        return None
    whole = ticket.instrument.round_quantity(abs(position.quantity))
    if (ticket.quantity or ZERO) < whole:
        return ticket.deny(
            DenialCode.ORDER_TYPE_UNSUPPORTED,
            limit_price=limit,
            quantity=ticket.quantity,
            reason="a resting exit of a part leaves that part without a stop; use a market exit",
        )
    desk.recorder.record(
        StopMoved(
            symbol=ticket.symbol,
            position_id=position.position_id,
            stop_loss=position.stop_loss,
            take_profit=limit,
            reason=f"limit exit {ticket.signal_id}",
            limit_exit=True,
        )
    )
    return ticket.result(
        Outcome.WORKING, reason=f"held as the target at {plain(limit)}; the stop goes on resting"
    )


def refuse_iceberg(desk: Desk, ticket: OrderTicket) -> ExecutionResult | None:
    """Deny an iceberg that leaves a position with a stop, or return None: none of its parts could rest beside that."""
    position = desk.book.position(ticket.symbol)
    if not (ticket.is_reduction and isinstance(ticket.signal.slicing, Iceberg)):
        return None
    if position is None or position.stop_loss is None:
        return None
    return ticket.deny(
        DenialCode.ORDER_TYPE_UNSUPPORTED,
        slicing="iceberg",
        reason="a part that rests leaves that part of the position without a stop; use a Twap or a limit for the whole",
    )

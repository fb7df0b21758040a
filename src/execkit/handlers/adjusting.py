"""What the executor changes of an order that the venue refused as it was: less of it, or a limit instead."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from execkit.errors import ExchangeError, InsufficientBalanceError, QuantityTooLargeError
from execkit.handlers.desk import Desk
from execkit.model.order import OrderType, Side, TimeInForce
from execkit.model.ticket import OrderTicket
from execkit.numbers import ONE, ZERO, plain
from execkit.redaction import redacted
from execkit.risk.checks import largest_quantity

TOO_MUCH: Final = (InsufficientBalanceError, QuantityTooLargeError)
"""Refusals that less of the same may get past."""

_THROUGH_TOUCH: Final = Decimal("0.002")
"""How far through the touch a refused market order becomes a limit order."""


def within_largest(ticket: OrderTicket) -> tuple[OrderTicket, ExchangeError | None]:
    """Return an exit as large as the venue takes one order, and the refusal that this spares, if it is larger."""
    most = largest_quantity(ticket.instrument, ticket.type) if ticket.is_reduction else None
    if most is None or (ticket.quantity or ZERO) <= most:
        return ticket, None
    error = QuantityTooLargeError(f"one order is at most {plain(most)}", allowed=most)
    return _smaller(ticket, ticket.instrument.round_quantity(most)), error


async def shrunk(
    ticket: OrderTicket, error: InsufficientBalanceError | QuantityTooLargeError, desk: Desk
) -> OrderTicket | None:
    """Return the ticket with what the venue allows, or None when that is below its minimum."""
    assert ticket.quantity is not None, "it was sent"
    price = ticket.reference_price
    allowed = error.allowed if isinstance(error, QuantityTooLargeError) else error.available
    if allowed is None and isinstance(error, QuantityTooLargeError):
        # The venue does not say what would pass: three tries come down to an eighth.
        allowed = ticket.quantity / 2
    if allowed is None:
        allowed = await _affordable(ticket, price, desk)
    quantity = ticket.instrument.round_quantity(
        min(allowed, ticket.quantity - ticket.instrument.lot_size)
    )
    if quantity < ticket.instrument.smallest_quantity(price):
        return None
    return _smaller(ticket, quantity).note(
        f"shrunk {plain(ticket.quantity)} -> {plain(quantity)}: {redacted(str(error))}"
    )


def _smaller(ticket: OrderTicket, quantity: Decimal) -> OrderTicket:
    """Return a ticket for less; that of an exit keeps what it was for at first, so that the rest is not forgotten."""
    if not ticket.is_reduction:
        return ticket.evolve(quantity=quantity)
    wanted = ticket.quantity if ticket.requested is None else ticket.requested
    return ticket.evolve(quantity=quantity, requested=wanted)


async def _affordable(ticket: OrderTicket, price: Decimal, desk: Desk) -> Decimal:
    """Return the quantity that the venue's free balance pays for, fee included."""
    instrument = ticket.instrument
    try:
        balances = await desk.gateway.pace.ask(desk.adapter.balances, desk.gateway.send_timeout)
    except (ExchangeError, TimeoutError):
        return (ticket.quantity or ZERO) / 2
    asset = instrument.quote if ticket.side is Side.BUY else instrument.base
    free = balances[asset].free if asset in balances else ZERO
    if ticket.side is Side.SELL:
        return free
    return free / (price * (ONE + max(instrument.taker_fee, ZERO)))


def marketable_limit(ticket: OrderTicket) -> OrderTicket:
    """Return the ticket as a limit order 0.2 % through the touch, immediate or cancel."""
    instrument, quote = ticket.instrument, ticket.quote
    if ticket.side is Side.BUY:
        price = instrument.round_price_down(quote.ask * (ONE + _THROUGH_TOUCH))
    else:
        price = instrument.round_price_up(quote.bid * (ONE - _THROUGH_TOUCH))
    return ticket.evolve(
        type=OrderType.LIMIT, limit_price=price, time_in_force=TimeInForce.IOC
    ).note(f"the venue refused a market order; limit {plain(price)} IOC instead")

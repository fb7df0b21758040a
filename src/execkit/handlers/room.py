"""What the limits leave for one entry, beside everything that is open and on its way."""

from __future__ import annotations

from decimal import Decimal

from execkit.handlers.desk import Desk
from execkit.model.account import AccountView
from execkit.model.instrument import Instrument
from execkit.model.order import Side
from execkit.model.ticket import OrderTicket
from execkit.numbers import HUNDRED, MONEY, ZERO
from execkit.risk.checks import unit_cost
from execkit.risk.groups import group_room
from execkit.risk.limits import RiskLimits
from execkit.risk.sizing import Room


def room_for(ticket: OrderTicket, desk: Desk, mid: Decimal, limits: RiskLimits) -> Room:
    """Return the room for an entry, valued at *mid*."""
    return room_of(
        ticket.signal_id,
        ticket.side,
        ticket.reference_price,
        instrument=ticket.instrument,
        account=ticket.account,
        desk=desk,
        mid=mid,
        limits=limits,
    )


def room_of(
    claim: str,
    side: Side,
    price: Decimal,
    *,
    instrument: Instrument,
    account: AccountView,
    desk: Desk,
    mid: Decimal,
    limits: RiskLimits,
) -> Room:
    """Return the room for an entry at *price* beside everything but its own *claim*, valued at *mid*."""
    symbol, book, ledger = instrument.symbol, desk.book, desk.ledger
    held = total = ZERO
    for name, position in book.positions.open.items():
        if name == symbol:
            notional = held = abs(position.quantity) * mid
        else:
            notional = abs(position.quantity) * (book.mark(name) or position.average_price)
        total += notional
    cost = None
    if side is Side.BUY:
        cost = unit_cost(price, instrument)
    equity = max(account.equity, ZERO)
    # An order that the same signal has already, found at a restart, is not counted twice.
    own_notional, own_cash = ledger.claimed(claim)
    cash = book.cash.get(account.currency, ZERO)

    def share(pct: Decimal) -> Decimal:
        return MONEY.multiply(equity, pct / HUNDRED)

    def notional_of(name: str) -> Decimal:
        position = book.positions.open.get(name)
        value = ledger.reserved_notional_of(name)
        if name == symbol:
            return held + value - own_notional
        if position is not None:
            value += abs(position.quantity) * (book.mark(name) or position.average_price)
        return value

    return Room(
        price=mid,
        size_limit=share(limits.max_size_pct),
        position=held + ledger.reserved_notional_of(symbol) - own_notional,
        position_limit=share(limits.max_position_pct),
        exposure=total + ledger.exposure - own_notional,
        exposure_limit=share(limits.max_exposure_pct),
        groups=group_room(symbol, limits, equity, notional_of),
        cost=cost,
        cash=cash - ledger.reserved_cash + own_cash,
    )

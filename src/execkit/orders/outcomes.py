"""What orders, as they stand, mean to the caller of a signal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.order import Fill, OrderState
from execkit.model.result import Outcome
from execkit.model.ticket import OrderHandle
from execkit.numbers import MONEY, ZERO

_OUTCOMES: Final = {
    OrderState.NEW: Outcome.IN_DOUBT,
    OrderState.SUBMITTED: Outcome.IN_DOUBT,
    OrderState.IN_DOUBT: Outcome.IN_DOUBT,
    OrderState.PRESUMED_ABSENT: Outcome.IN_DOUBT,
    OrderState.HELD: Outcome.WORKING,
    OrderState.ACCEPTED: Outcome.WORKING,
    OrderState.PARTIALLY_FILLED: Outcome.PARTIALLY_FILLED,
    OrderState.PENDING_CANCEL: Outcome.WORKING,
    OrderState.PENDING_AMEND: Outcome.WORKING,
    OrderState.FILLED: Outcome.FILLED,
    OrderState.CANCELLED: Outcome.CANCELLED,
    OrderState.REJECTED: Outcome.REJECTED,
    OrderState.EXPIRED: Outcome.EXPIRED,
    OrderState.FAILED: Outcome.REJECTED,
}


def outcome_of(order: OrderHandle) -> Outcome:
    """Return what an order's state means to the caller; a part that was executed always counts."""
    return _outcome((order,), order.quantity)


def _outcome(orders: Sequence[OrderHandle], requested: Decimal) -> Outcome:
    if any(order.state is OrderState.IN_DOUBT for order in orders):
        return Outcome.IN_DOUBT
    filled = sum((order.filled for order in orders), ZERO)
    if filled:
        return Outcome.FILLED if filled >= requested else Outcome.PARTIALLY_FILLED
    open_ = [order for order in orders if not order.state.is_closed]
    return _OUTCOMES[(open_ or orders)[-1].state]


class Executed(msgspec.Struct, frozen=True):
    """What orders of one signal amount to together, against the *requested* quantity."""

    requested: Decimal
    outcome: Outcome
    filled: Decimal
    average_price: Decimal | None
    fills: tuple[Fill, ...]

    @classmethod
    def of(cls, orders: Sequence[OrderHandle], requested: Decimal | None = None) -> Executed:
        """Return the sum of at least one order; without *requested* against what the last one was for."""
        last = orders[-1]
        requested = last.quantity if requested is None else requested
        outcome = _outcome(orders, requested)
        if len(orders) == 1:
            return cls(requested, outcome, last.filled, last.average_price, last.fills)
        filled, cost = ZERO, ZERO
        for order in orders:
            if order.average_price is not None:
                filled = MONEY.add(filled, order.filled)
                cost = MONEY.add(cost, MONEY.multiply(order.filled, order.average_price))
        average = MONEY.divide(cost, filled) if filled else None
        fills = tuple(fill for order in orders for fill in order.fills)
        return cls(requested, outcome, filled, average, fills)

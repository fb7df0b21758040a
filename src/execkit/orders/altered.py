"""Terms of an order that the venue shows and nobody asked for: changed by hand there, by a preset, by the venue.

The venue's word is the truth about what rests there, unless it may be old: an answer can be from before a change that
we have seen confirmed. Old answers show terms that the order has had before, so terms that it never had are news;
those that it had are news only when the report is dated later than what is known, or when the last change is so long
ago that no answer can be from before it.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.order import OrderReport, OrderState, OrderType
from execkit.numbers import ZERO, plain
from execkit.orders.manager import ManagedOrder
from execkit.orders.terms import Terms

_SHOWN_IN: Final = frozenset(
    {OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED, OrderState.PENDING_CANCEL}
)
_LIMITS: Final = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_STOPS: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
"""A trailing stop moves by itself."""

_SAME_WITHIN: Final = Decimal("0.0001")
"""Part of a price by which a venue may state it otherwise, because it rounds, before that counts as a change."""


class Altered(msgspec.Struct, frozen=True):
    """What the venue shows otherwise than it is known; None: as it was. Prices in quote units."""

    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None

    def __bool__(self) -> bool:
        return self != _UNALTERED

    def is_larger_than(self, order: ManagedOrder) -> bool:
        """Tell whether more can be executed than anybody has asked for."""
        return self.quantity is not None and self.quantity > order.quantity_at_most

    def text(self, order: ManagedOrder) -> str:
        """Say what differs from what is known of *order*."""
        rows = (
            ("quantity", self.quantity, order.quantity),
            ("limit price", self.limit_price, order.limit_price),
            ("stop price", self.stop_price, order.stop_price),
        )
        return ", ".join(
            f"{name} {plain(shown)} instead of {'none' if known is None else plain(known)}"
            for name, shown, known in rows
            if shown is not None
        )


_UNALTERED: Final = Altered()


def altered(order: ManagedOrder, report: OrderReport, *, settled: datetime) -> Altered:
    """Return which terms the venue shows that nobody asked for; empty when there are none, or the report may be old.

    Before *settled* whatever was changed shows in every answer. While a change of ours is not answered nothing follows:
    what the venue shows may be from before it.
    """
    if report.status is OrderState.FILLED:
        # Executed whole, so that is how large it was at the end.
        is_whole = ZERO < report.filled == report.quantity
        return Altered(quantity=_other(report.quantity, order.quantity)) if is_whole else _UNALTERED
    if report.status not in _SHOWN_IN or order.asked is not None or _may_be_old(order, report):
        return _UNALTERED
    known = Terms(order.quantity, order.limit_price, order.stop_price)
    found = _difference(report, known)
    first = Terms(order.request.quantity, order.request.limit_price, order.request.stop_price)
    was_so = any(not _difference(report, terms) for terms in (first, *order.former_terms))
    if not found or (was_so and not _is_surely_now(order, report, settled)):
        return _UNALTERED
    return found


def is_older(order: ManagedOrder, report: OrderReport) -> bool:
    """Tell whether a report is from before something that is known already."""
    if order.venue_at is None or report.updated_at is None:
        return False
    return report.updated_at < order.venue_at


def _may_be_old(order: ManagedOrder, report: OrderReport) -> bool:
    return is_older(order, report) or report.filled < order.filled


def _is_surely_now(order: ManagedOrder, report: OrderReport, settled: datetime) -> bool:
    known, shown = order.venue_at, report.updated_at
    if known is not None and shown is not None:
        return shown > known
    return order.updated_at < settled


def _difference(report: OrderReport, terms: Terms) -> Altered:
    kind = report.type
    return Altered(
        quantity=_other(report.quantity, terms.quantity),
        limit_price=_moved(report.limit_price, terms.limit_price) if kind in _LIMITS else None,
        stop_price=_moved(report.stop_price, terms.stop_price) if kind in _STOPS else None,
    )


def _other(shown: Decimal, known: Decimal) -> Decimal | None:
    return None if shown == known else shown


def _moved(shown: Decimal | None, known: Decimal | None) -> Decimal | None:
    """Return a price that is another one; what is not stated, or was not known, is none."""
    if not shown or known is None or abs(shown - known) <= abs(known) * _SAME_WITHIN:
        return None
    return shown

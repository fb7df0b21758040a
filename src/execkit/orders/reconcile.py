"""Reading a venue's words: what a report adds to what we know. Pure; the caller records and fetches."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.order import Fill, OrderEvent, OrderReport, OrderState
from execkit.model.records import Filled, OrderChanged, Source
from execkit.numbers import ZERO
from execkit.orders.altered import Altered, altered, is_older
from execkit.orders.manager import ManagedOrder

_ENDS: Final = {
    OrderState.CANCELLED: OrderEvent.CANCEL,
    OrderState.EXPIRED: OrderEvent.EXPIRE,
    OrderState.REJECTED: OrderEvent.REJECT,
}
_NOT_ADOPTED: Final = frozenset(
    {
        OrderState.NEW,
        OrderState.SUBMITTED,
        OrderState.IN_DOUBT,
        OrderState.PRESUMED_ABSENT,
        OrderState.HELD,
    }
)
_MAY_BE_HELD: Final = _NOT_ADOPTED - {OrderState.HELD} | {OrderState.ACCEPTED}
_RESTING: Final = frozenset(
    {OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED, OrderState.PENDING_CANCEL, OrderState.FILLED}
)
_NEVER_THERE: Final = frozenset({OrderState.REJECTED, OrderState.FAILED})
_REFUTABLE: Final = _NEVER_THERE | {OrderState.CANCELLED, OrderState.EXPIRED}


class Reading(msgspec.Struct, frozen=True):
    """What a report adds: records to write, in order."""

    before: tuple[OrderChanged, ...] = ()
    """To write before any fill: the order exists, and how it was changed."""
    fills: tuple[Filled, ...] = ()
    after: tuple[OrderChanged, ...] = ()
    """To write after all fills: how it ended."""
    altered: Altered = Altered()
    """Terms that the venue shows and nobody asked for; *before* has their record."""
    fills_missing: bool = False
    """The venue executed more than the fills that are known: fetch them before *after* is written."""


def problem_with(order: ManagedOrder, report: OrderReport) -> str | None:
    """Return why a report cannot be about this order or cannot be true, or None.

    Such an answer is never taken for success or refusal: the outcome is unknown.
    """
    request = order.request
    if report.client_order_id != request.client_order_id and (
        report.client_order_id or not order.venue_order_id
    ):
        # Only an order whose venue id we know may be told of without ours.
        return f"names client order id {report.client_order_id!r}"
    if not report.venue_order_id and report.status is not OrderState.REJECTED:
        return "has no venue order id"
    if order.venue_order_id and report.venue_order_id != order.venue_order_id:
        return f"names venue order id {report.venue_order_id!r}, known is {order.venue_order_id!r}"
    if report.symbol != request.symbol:
        return f"names symbol {report.symbol!r}"
    if report.side is not request.side:
        return f"names side {report.side!r}"
    if report.type is not request.type and not order.venue_order_id:
        # Later a venue may call a triggered stop what it has become.
        return f"names type {report.type!r}"
    if report.status is OrderState.IN_DOUBT:
        return f"has the unknown status {report.raw_status!r}"
    if not _is_amount(report.quantity) or not _is_amount(report.filled):
        return f"has quantity {report.quantity} and filled {report.filled}"
    if report.quantity != request.quantity and order.state is OrderState.SUBMITTED:
        # An answer to what was just sent repeats it. Once it is doubted, a look-up has to show the same.
        return f"has quantity {report.quantity} instead of {request.quantity}"
    if not report.quantity and not report.status.is_closed:
        return "is open and has quantity 0"
    for price in (report.limit_price, report.stop_price):
        if price is not None and not price.is_finite():
            return f"has the price {price}"
    if report.filled > report.quantity:
        return f"has filled {report.filled} of {report.quantity}"
    return _problem_with_fills(report)


def _problem_with_fills(report: OrderReport) -> str | None:
    for fill in report.fills:
        if not is_plausible(fill) or fill.symbol != report.symbol or fill.side is not report.side:
            return f"carries the impossible fill {fill.trade_id!r}"
    return None


def is_plausible(fill: Fill) -> bool:
    """Tell whether a fill can be true: an id, a finite quantity and price, a finite fee."""
    return (
        bool(fill.trade_id)
        and _is_amount(fill.quantity)
        and (fill.quantity > ZERO or fill.replaces is not None)
        and fill.price.is_finite()
        and fill.price > ZERO
        and fill.fee.is_finite()
        and fill.at.tzinfo is not None
    )


def _is_amount(value: Decimal) -> bool:
    return value.is_finite() and value >= ZERO


def read_report(
    order: ManagedOrder, report: OrderReport, source: Source, *, settled: datetime
) -> Reading:
    """Return what a plausible report (see `problem_with`) adds to what is known of the order.

    Before *settled* whatever happened shows in every answer.
    News that is older than what is known, or that would open a closed order again, adds nothing; fills always count.
    """
    new = {fill.trade_id: fill for fill in report.fills if fill.trade_id not in order.trades}
    fills = tuple(Filled(fill=fill, source=source) for fill in new.values())
    status = report.status
    if order.state.is_closed:
        return Reading(fills=fills, fills_missing=_executed(order, fills) < report.filled)
    before: tuple[OrderChanged, ...] = ()
    after: tuple[OrderChanged, ...] = ()
    if status is OrderState.HELD:
        if order.state in _MAY_BE_HELD and not is_older(order, report):
            before = (_change(order, OrderEvent.HOLD, report, source),)
    elif order.state in _NOT_ADOPTED and (status in _RESTING or (fills and status in _ENDS)):
        before = (_change(order, OrderEvent.ACCEPT, report, source),)
    is_changed = status in _RESTING and _shows_change(order, report) and not is_older(order, report)
    found = Altered() if is_changed else altered(order, report, settled=settled)
    if is_changed or found:
        terms = report if is_changed else found
        before = (*before, _change(order, OrderEvent.AMEND, report, source, terms))
    if status in _ENDS:
        after = (_change(order, _ENDS[status], report, source),)
    elif status is OrderState.FILLED and order.asked is not None and not is_changed and not found:
        # Executed whole as it was: the change that was asked for came too late.
        after = (_change(order, OrderEvent.REFUSE_AMEND, report, source),)
    return Reading(
        before=before,
        fills=fills,
        after=after,
        altered=found,
        fills_missing=_executed(order, fills) < report.filled,
    )


def is_zombie(
    order: ManagedOrder, report: OrderReport, source: Source, *, ended_before: datetime
) -> bool:
    """Tell whether a report proves that an order lives which was refused, or had ended, by the venue's own word.

    One that was refused, or of which a client said that it never left, must not exist at all. Of one that had ended a
    list of open orders may be older than its end, so it must have ended before *ended_before*, or be dated later.
    """
    if report.status.is_closed or order.state not in _REFUTABLE:
        return False
    if order.state in _NEVER_THERE and order.accepted_at is None and order.venue_at is None:
        return True
    if source is not Source.RECONCILE:
        return False
    known, shown = order.venue_at, report.updated_at
    is_later = known is not None and shown is not None and shown > known
    return is_later or (order.closed_at is not None and order.closed_at < ended_before)


def _shows_change(order: ManagedOrder, report: OrderReport) -> bool:
    """Tell whether the change that was asked for has been made; a report from before it does not refuse it."""
    asked = order.asked
    return asked is not None and all(
        wanted is None or wanted == shown
        for wanted, shown in (
            (asked.quantity, report.quantity),
            (asked.limit_price, report.limit_price),
            (asked.stop_price, report.stop_price),
        )
    )


def _executed(order: ManagedOrder, new: tuple[Filled, ...]) -> Decimal:
    return order.filled + sum((record.fill.quantity for record in new), ZERO)


def _change(
    order: ManagedOrder,
    event: OrderEvent,
    report: OrderReport,
    source: Source,
    terms: OrderReport | Altered | None = None,
) -> OrderChanged:
    return OrderChanged(
        client_order_id=order.client_order_id,
        event=event,
        source=source,
        venue_order_id=report.venue_order_id or None,
        venue_at=report.updated_at,
        reason=report.reason,
        code=report.code,
        quantity=None if terms is None else terms.quantity,
        limit_price=None if terms is None else terms.limit_price,
        stop_price=None if terms is None else terms.stop_price,
    )

"""The shape of what an adapter hands in: an adapter is foreign code, and Python checks none of its types.

One wrong type in a record would make a journal that cannot be read again, so nothing passes this door unchecked.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from types import NoneType
from typing import Final

from execkit.errors import ExchangeError
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side
from execkit.numbers import MAX_MAGNITUDE

_MOST_DIGITS: Final = 40
"""Digits a number from a venue may have: more than any computes, few enough for exact sums."""

_STATUSES: Final = frozenset(
    {
        OrderState.ACCEPTED,
        OrderState.HELD,
        OrderState.PARTIALLY_FILLED,
        OrderState.PENDING_CANCEL,
        OrderState.FILLED,
        OrderState.CANCELLED,
        OrderState.REJECTED,
        OrderState.EXPIRED,
        OrderState.IN_DOUBT,
    }
)
"""What a venue can say of an order; the other states are our own."""

_Kinds = tuple[tuple[str, type | tuple[type, ...]], ...]
_REPORT: Final[_Kinds] = (
    ("client_order_id", str),
    ("venue_order_id", str),
    ("symbol", str),
    ("side", Side),
    ("type", OrderType),
    ("quantity", Decimal),
    ("status", OrderState),
    ("filled", Decimal),
    ("average_price", (Decimal, NoneType)),
    ("limit_price", (Decimal, NoneType)),
    ("stop_price", (Decimal, NoneType)),
    ("fills", tuple),
    ("updated_at", (datetime, NoneType)),
    ("reason", str),
    ("code", (str, NoneType)),
    ("raw_status", str),
)
_FILL: Final[_Kinds] = (
    ("trade_id", str),
    ("client_order_id", str),
    ("venue_order_id", str),
    ("symbol", str),
    ("side", Side),
    ("quantity", Decimal),
    ("price", Decimal),
    ("at", datetime),
    ("fee", Decimal),
    ("fee_asset", str),
    ("maker", (bool, NoneType)),
    ("replaces", (str, NoneType)),
)
_PLAIN: Final = frozenset({str, Side, OrderType, OrderState, tuple})
"""Types of which every value is well-formed."""


def malformed_report(value: object) -> str | None:
    """Return why a value is no well-formed report, or None. It says nothing of whether the report is true."""
    if not isinstance(value, OrderReport):
        return f"is {type(value).__name__}, no OrderReport"
    problem = _problem(value, _REPORT)
    if problem is not None:
        return problem
    if value.status not in _STATUSES:
        return f"has the status {value.status}, which is ours and no venue's"
    return next(filter(None, map(malformed_fill, value.fills)), None) if value.fills else None


def malformed_fill(value: object) -> str | None:
    """Return why a value is no well-formed fill, or None."""
    if not isinstance(value, Fill):
        return f"has {type(value).__name__} in the place of a Fill"
    return _problem(value, _FILL)


def _problem(value: OrderReport | Fill, kinds: _Kinds) -> str | None:
    for name, kind in kinds:
        part = getattr(value, name)
        if type(part) is kind and kind in _PLAIN:
            continue
        if not isinstance(part, kind):
            return f"has the {name} {_short(part)} of type {type(part).__name__}"
        if isinstance(part, Decimal):
            if not part.is_finite() or abs(part) >= MAX_MAGNITUDE:
                return f"has the {name} {part}"
            if len(part.as_tuple().digits) > _MOST_DIGITS or (
                part and part.adjusted() < -_MOST_DIGITS
            ):
                return f"has the {name} {part:.3e} with more than {_MOST_DIGITS} digits"
        elif isinstance(part, datetime) and part.utcoffset() is None:
            return f"has the {name} {part.isoformat()} without a time zone"
    return None


def require_number(what: str, value: object) -> None:
    """Raise `ExchangeError` when a venue's number is none: then its whole answer says nothing."""
    if not isinstance(value, Decimal) or not value.is_finite():
        raise ExchangeError(f"the venue says that {what} is {value!r}, not a finite Decimal")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Reading what Alpaca wrote: times, ids and numbers, on top of the strict readers that all venues share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

from execkit.exchanges.ccxt.values import BadAnswerError, clean, exact
from execkit.numbers import MAX_MAGNITUDE, ZERO

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_ID: Final = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_CLIENT_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_EXPONENT: Final = re.compile(r"\d{1,20}(\.\d{1,20})?[eE][+-]?\d{1,2}", re.ASCII)
_EARLIEST, _LATEST = 1990, 2100


def moment(row: Mapping[str, Any], name: str) -> datetime:
    """Return a time in RFC 3339, in UTC; what is finer than a microsecond is cut off."""
    value = row.get(name)
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise BadAnswerError(f"{name} is no time")
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        found = datetime.fromisoformat(f"{match[1]}{(match[2] or '')[:7]}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadAnswerError(f"{name} is no time") from None
    if not _EARLIEST <= found.year < _LATEST:
        raise BadAnswerError(f"{name} is far from now")
    return found


def maybe_moment(row: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time that may be missing."""
    return None if row.get(name) is None else moment(row, name)


def day(row: Mapping[str, Any], name: str) -> date:
    """Return a date."""
    try:
        return date.fromisoformat(str(row.get(name)))
    except ValueError:
        raise BadAnswerError(f"{name} is no date") from None


def order_id(row: Mapping[str, Any], name: str) -> str:
    """Return one of Alpaca's own ids; it travels into addresses, so only plain characters pass."""
    value = row.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise BadAnswerError(f"{name} is no id")
    return value


def maybe_id(row: Mapping[str, Any], name: str) -> str | None:
    """Return an id that may be missing."""
    return None if row.get(name) is None else order_id(row, name)


def client_id(row: Mapping[str, Any], name: str = "client_order_id") -> str:
    """Return a client order id: printable, at most 128 characters."""
    value = row.get(name)
    if not isinstance(value, str) or not _CLIENT_ID.fullmatch(value):
        raise BadAnswerError(f"{name} is no client order id")
    return value


def flag(row: Mapping[str, Any], name: str) -> bool:
    """Return a truth value that is there."""
    value = row.get(name)
    if not isinstance(value, bool):
        raise BadAnswerError(f"{name} is neither true nor false")
    return value


def figure(row: Mapping[str, Any], name: str) -> Decimal:
    """Return a number of market data, which is JSON's own and may have an exponent, of zero or more."""
    value = row.get(name)
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        found = Decimal(value)
        if found and not -18 <= found.adjusted() < MAX_MAGNITUDE.adjusted():
            raise BadAnswerError(f"{name} is too small or too large")
        return found
    found = exact(value, name)
    if found < ZERO:
        raise BadAnswerError(f"{name} is negative")
    return found


def in_path(text: str) -> str:
    """Return a text as one part of an address."""
    return quote(text, safe="")


__all__ = [
    "BadAnswerError",
    "clean",
    "client_id",
    "day",
    "figure",
    "flag",
    "in_path",
    "maybe_id",
    "maybe_moment",
    "moment",
    "order_id",
]

"""Reading what a venue wrote: JSON without surprises, and numbers that are exactly what stands there.

A value that is not what was promised raises `BadAnswerError`; what that means depends on the request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from execkit.numbers import MAX_MAGNITUDE, ZERO

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 4_102_444_800_000
"""The year 2100 in milliseconds: what lies behind is no time."""
_MOST_DIGITS: Final = 40
_PLAIN: Final = re.compile(r"-?\d{1,40}(\.\d{1,40})?", re.ASCII)
_CONTROL: Final = re.compile(r"[^\x20-\x7e]+")


class BadAnswerError(Exception):
    """A part of an answer is missing or is not what it should be."""


class OtherOrderError(BadAnswerError):
    """A whole answer, about another order: whoever answers mixes things up."""


def parse_json(raw: bytes | str) -> Any:
    """Return the value of a JSON text; numbers with a fraction stay strings, so that none is a float.

    Raises `BadAnswerError` for everything that only some parsers take: a name twice, NaN, bytes that are no UTF-8.
    """
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        return json.loads(
            text, parse_float=str, parse_constant=_refuse, object_pairs_hook=_unique_names
        )
    except (ValueError, RecursionError) as error:
        raise BadAnswerError(f"no JSON ({type(error).__name__})") from None


def _refuse(_constant: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def mapping(value: object, what: str = "the answer") -> Mapping[str, Any]:
    """Return *value* when it is an object."""
    if not isinstance(value, Mapping):
        raise BadAnswerError(f"{what} is {_kind(value)}, no object")
    return value


def rows(value: object, what: str = "the answer") -> list[Mapping[str, Any]]:
    """Return *value* when it is a list of objects."""
    if not isinstance(value, list):
        raise BadAnswerError(f"{what} is {_kind(value)}, no list")
    return [mapping(row, f"a row of {what}") for row in value]


def text(row: Mapping[str, Any], name: str) -> str:
    """Return a text that is there and not empty."""
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise BadAnswerError(f"{name} is {_kind(value)}, no text")
    return value


def identifier(row: Mapping[str, Any], name: str) -> str:
    """Return an id as text; venues write it as a whole number or as a text."""
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if isinstance(value, str) and value and len(value) <= 64 and value.isascii():
        return value
    raise BadAnswerError(f"{name} is {_kind(value)}, no id")


def number(row: Mapping[str, Any], name: str) -> Decimal:
    """Return a number that is there: finite, plain, and of a size that money can have."""
    return exact(row.get(name), name)


def amount(row: Mapping[str, Any], name: str) -> Decimal:
    """Return a number of zero or more."""
    value = number(row, name)
    if value < ZERO:
        raise BadAnswerError(f"{name} is negative")
    return value


def price(row: Mapping[str, Any], name: str) -> Decimal | None:
    """Return a price, or None where the venue writes nothing or zero for none."""
    if row.get(name) in (None, ""):
        return None
    return amount(row, name) or None


def exact(value: object, what: str) -> Decimal:
    """Return a number as it is written, or raise `BadAnswerError`."""
    if isinstance(value, str):
        if not _PLAIN.fullmatch(value):
            raise BadAnswerError(f"{what} is no plain number")
        found = Decimal(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= MAX_MAGNITUDE:
            raise BadAnswerError(f"{what} is too large")
        return Decimal(value)
    else:
        raise BadAnswerError(f"{what} is {_kind(value)}, no number")
    if abs(found) >= MAX_MAGNITUDE or len(found.as_tuple().digits) > _MOST_DIGITS:
        raise BadAnswerError(f"{what} is too large")
    return found


def moment(row: Mapping[str, Any], name: str) -> datetime:
    """Return a time that is given in milliseconds since 1970."""
    value = row.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 13:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LATEST:
        raise BadAnswerError(f"{name} is {_kind(value)}, no time")
    return EPOCH + timedelta(milliseconds=value)


def milliseconds(at: datetime) -> int:
    """Return a time in milliseconds since 1970."""
    return (at - EPOCH) // timedelta(milliseconds=1)


def clean(words: object, limit: int = 200) -> str:
    """Return a venue's words on one line, printable and short: they are data, not a message of ours."""
    line = _CONTROL.sub(" ", str(words)).strip()
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _kind(value: object) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"

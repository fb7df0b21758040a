"""Exact decimals: the one door through which numbers enter, and rounding to venue steps.

Money, price and quantity are `Decimal`. A binary float is refused because 0.1 is none of the values it
can hold; NaN and infinity are refused because every comparison with them silently passes a limit.
"""

from __future__ import annotations

import re
from decimal import (
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
)
from typing import Final

from execkit.errors import ConfigurationError

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
HUNDRED: Final = Decimal(100)

MAX_DIGITS: Final = 17
"""Significant digits a number from outside may have; no venue quotes more."""

MAX_MAGNITUDE: Final = Decimal(10) ** 15
"""Absolute value from which a number from outside is taken for an error."""

MONEY: Final = Context(prec=60, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Context for products and sums of money: 60 digits, so that adding never rounds."""

# ASCII only: Decimal() itself also takes full-width digits, underscores and spaces.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def to_decimal(field: str, value: object) -> Decimal:
    """Return *value* as an exact, finite `Decimal`.

    Takes `Decimal`, `int` and plain ASCII strings; anything else, NaN, infinity, more than 17
    significant digits or a magnitude of 1e15 and above raises `ConfigurationError` naming *field*.
    """
    if type(value) is Decimal:
        number = value
    elif isinstance(value, bool):
        raise ConfigurationError(f"{field}: {value!r} is not a number; pass a Decimal")
    elif isinstance(value, (int, Decimal)):
        number = Decimal(value)
    elif isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise ConfigurationError(f"{field}: {value!r} is not a plain decimal number")
        number = Decimal(value)
    elif isinstance(value, float):
        raise ConfigurationError(
            f"{field}: float {value!r} is not exact; pass Decimal({str(value)!r}) instead"
        )
    else:
        raise ConfigurationError(f"{field}: {value!r} is not a number; pass a Decimal")
    if not number.is_finite():
        raise ConfigurationError(f"{field}: {number} is not a finite number")
    if len(number.as_tuple().digits) > MAX_DIGITS:
        number = _shorten(field, number)
    if number and number.adjusted() >= 15:
        raise ConfigurationError(f"{field}: {number} is too large; the limit is 1e15")
    if number and number.adjusted() < -18:
        raise ConfigurationError(f"{field}: {number} is too small; the limit is 1e-18")
    return number


def _shorten(field: str, number: Decimal) -> Decimal:
    """Drop trailing zeros, which are no precision; refuse what is still too long."""
    stripped = number.normalize(MONEY)
    digits = len(stripped.as_tuple().digits)
    if digits > MAX_DIGITS:
        raise ConfigurationError(
            f"{field}: {number} has {digits} significant digits; round it to {MAX_DIGITS} or fewer"
        )
    return stripped


def positive(field: str, value: object) -> Decimal:
    """Return *value* as a `Decimal` above zero."""
    number = to_decimal(field, value)
    if number <= ZERO:
        raise ConfigurationError(f"{field}: {number} must be above zero")
    return number


def non_negative(field: str, value: object) -> Decimal:
    """Return *value* as a `Decimal` of zero or more."""
    number = to_decimal(field, value)
    if number < ZERO:
        raise ConfigurationError(f"{field}: {number} must not be negative")
    return number


def percent(field: str, value: object) -> Decimal:
    """Return *value* as a percentage above 0 and up to 100: 2 means 2 %."""
    number = positive(field, value)
    if number > HUNDRED:
        raise ConfigurationError(f"{field}: {number} is above 100; 2 means 2 %")
    return number


def score(field: str, value: object) -> Decimal:
    """Return a score (not money) as a finite `Decimal`; here a float is read by its shortest repr."""
    return to_decimal(field, str(value) if isinstance(value, float) else value)


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """Round towards minus infinity to a multiple of *step*."""
    # whole steps -> multiply: right for steps such as 0.05, where quantize() is not.
    rounded = MONEY.multiply(MONEY.divide_int(value, step), step)
    return rounded if rounded <= value else MONEY.subtract(rounded, step)


def round_up(value: Decimal, step: Decimal) -> Decimal:
    """Round towards plus infinity to a multiple of *step*."""
    rounded = MONEY.multiply(MONEY.divide_int(value, step), step)
    return rounded if rounded >= value else MONEY.add(rounded, step)


def round_nearest(value: Decimal, step: Decimal) -> Decimal:
    """Round to the nearest multiple of *step*, ties to even."""
    count = MONEY.divide(value, step).to_integral_value(rounding=ROUND_HALF_EVEN)
    return MONEY.multiply(count, step)


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Tell whether *value* is a whole number of *step*."""
    return MONEY.remainder(value, step) == ZERO


def plain(value: Decimal) -> str:
    """Format without exponent and without trailing zeros, the form every venue takes."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text

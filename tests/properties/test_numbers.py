"""Rounding to steps, and the door through which numbers enter."""

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.errors import ConfigurationError
from execkit.numbers import (
    is_multiple,
    plain,
    round_down,
    round_nearest,
    round_up,
    to_decimal,
)

VALUES = st.decimals("-1e12", "1e12", allow_nan=False, allow_infinity=False)
STEPS = st.sampled_from(
    [Decimal(s) for s in ("1", "0.05", "0.1", "0.001", "0.00025", "1e-8", "5", "1e2", "0.3")]
)


@given(VALUES, STEPS)
def test_rounding_to_a_step(value, step):
    """Down is the greatest multiple not above, up the least not below, nearest the closer of the two."""
    low, high, near = round_down(value, step), round_up(value, step), round_nearest(value, step)
    assert is_multiple(low, step)
    assert is_multiple(high, step)
    assert low <= value <= high
    assert Fraction(high) - Fraction(low) in (0, Fraction(step))
    assert (low == high) is is_multiple(value, step)
    assert near in (low, high)
    away = abs(Fraction(value) - Fraction(near))
    assert away <= abs(Fraction(value) - Fraction(low))
    assert away <= abs(Fraction(value) - Fraction(high))


@given(VALUES, STEPS)
def test_rounding_twice_changes_nothing(value, step):
    """What is on a step stays where it is."""
    for rounded in (round_down(value, step), round_up(value, step), round_nearest(value, step)):
        for again in (round_down, round_up, round_nearest):
            assert again(rounded, step) == rounded


@given(st.decimals("-1e14", "1e14", places=3, allow_nan=False, allow_infinity=False))
def test_plain_text_is_the_same_number(value):
    """No exponent, no trailing zero, nothing lost."""
    text = plain(value)
    assert Decimal(text) == value
    assert "e" not in text.lower()
    assert "." not in text or not text.endswith(("0", "."))
    assert to_decimal("n", text) == value


@given(st.floats())
def test_no_float_enters(value):
    """Whatever it holds, a float is refused and the message says what to write instead."""
    with pytest.raises(ConfigurationError, match=r"^price: float "):
        to_decimal("price", value)


LOOKALIKES = st.from_regex(r"[+-]?\d{1,6}([._,]\d{0,5})?([eE]-?\d)?\s?", fullmatch=True)


@given(st.text(max_size=12) | LOOKALIKES)
def test_text_is_a_plain_number_or_refused(text):
    """Only ASCII digits, one point, one sign and an exponent pass; no foreign digits, spaces or underscores."""
    plain_number = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text)
    if plain_number is None:
        with pytest.raises(ConfigurationError, match=r"^price: "):
            to_decimal("price", text)
        return
    try:
        assert to_decimal("price", text) == Decimal(text)
    except ConfigurationError:
        assert not Decimal("1e-18") <= abs(Decimal(text)) < Decimal("1e15")

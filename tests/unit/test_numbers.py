"""The one door for numbers: what is not exact, finite and sensible is refused with the field's name."""

from decimal import Decimal

import pytest

from execkit.errors import ConfigurationError
from execkit.numbers import (
    is_multiple,
    non_negative,
    percent,
    plain,
    positive,
    round_down,
    round_nearest,
    round_up,
    score,
    to_decimal,
)

D = Decimal


class Money(Decimal):
    """A subclass, as some libraries make them."""


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (D("1.5"), "1.5"),
        (7, "7"),
        (-3, "-3"),
        ("0.1", "0.1"),
        ("+.5", "0.5"),
        ("5.", "5"),
        ("1e-7", "0.0000001"),
        ("1E3", "1000"),
        (Money("2.5"), "2.5"),
        (D("123456789012345.67"), "123456789012345.67"),
        (D("1.50000000000000000000000"), "1.5"),
        (D("999999999999999.99"), "999999999999999.99"),
        (D("1e-18"), "0.000000000000000001"),
        (D(0), "0"),
    ],
)
def test_exact_numbers_enter(value, number):
    """Decimals, integers and plain ASCII text; trailing zeros are no precision."""
    result = to_decimal("price", value)
    assert result == D(number)
    assert type(result) is Decimal


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0.1, "float 0.1 is not exact; pass Decimal('0.1') instead"),
        (True, "True is not a number; pass a Decimal"),
        (None, "None is not a number; pass a Decimal"),
        (b"1", "b'1' is not a number; pass a Decimal"),
        (D("NaN"), "NaN is not a finite number"),
        (D("sNaN"), "sNaN is not a finite number"),
        (D("-Infinity"), "-Infinity is not a finite number"),
        ("nan", "'nan' is not a plain decimal number"),
        ("inf", "'inf' is not a plain decimal number"),
        ("", "'' is not a plain decimal number"),
        (" 1", "' 1' is not a plain decimal number"),
        ("1_000", "'1_000' is not a plain decimal number"),
        ("1,5", "'1,5' is not a plain decimal number"),
        ("\uff11\uff12", "is not a plain decimal number"),
        ("1\n", "is not a plain decimal number"),
        ("1e9999", "is not a plain decimal number"),
        (D("1.23456789012345678"), "has 18 significant digits; round it to 17 or fewer"),
        (D("1e15"), "1E+15 is too large; the limit is 1e15"),
        (10**30, "is too large"),
        ("1e400", "is too large"),
        (D("1e-19"), "1E-19 is too small; the limit is 1e-18"),
    ],
)
def test_everything_else_is_refused(value, says):
    """The message names the field, the value and the fix (N1-N9, N17)."""
    with pytest.raises(ConfigurationError) as caught:
        to_decimal("price", value)
    assert str(caught.value).startswith("price: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("door", "value"),
    [
        (positive, 0),
        (positive, -1),
        (non_negative, D("-0.01")),
        (percent, 0),
        (percent, D("100.01")),
    ],
)
def test_signs_and_percentages(door, value):
    """Each door has its own range."""
    with pytest.raises(ConfigurationError, match=r"^size: "):
        door("size", value)
    assert door("size", 100) == 100


def test_zero_is_not_negative():
    """Nor is minus zero."""
    assert non_negative("fee", 0) == 0
    assert non_negative("fee", D("-0")) == 0


def test_a_score_may_be_a_float():
    """It is no money; the float is read by its shortest form."""
    assert score("strength", 0.1) == D("0.1")
    assert score("strength", "70") == 70
    with pytest.raises(ConfigurationError, match=r"^strength: 'nan'"):
        score("strength", float("nan"))


@pytest.mark.parametrize(
    ("value", "step", "down", "up", "nearest"),
    [
        ("1.23", "0.05", "1.20", "1.25", "1.25"),
        ("1.25", "0.05", "1.25", "1.25", "1.25"),
        ("-1.23", "0.05", "-1.25", "-1.20", "-1.25"),
        ("0.125", "0.05", "0.10", "0.15", "0.10"),
        ("0.175", "0.05", "0.15", "0.20", "0.20"),
        ("149", "100", "100", "200", "100"),
        ("0.00000001", "0.00000003", "0", "0.00000003", "0"),
        ("0", "0.1", "0", "0", "0"),
        ("-0.01", "0.1", "-0.1", "0", "0"),
    ],
)
def test_rounding(value, step, down, up, nearest):
    """To multiples of the step, whatever digits it has; ties go to the even multiple (N10)."""
    number, step = D(value), D(step)
    assert round_down(number, step) == D(down)
    assert round_up(number, step) == D(up)
    assert round_nearest(number, step) == D(nearest)
    assert is_multiple(number, step) is (D(down) == D(up))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1E-7", "0.0000001"),
        ("1E+3", "1000"),
        ("1.500", "1.5"),
        ("100", "100"),
        ("100.00", "100"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("-1.10", "-1.1"),
    ],
)
def test_plain_text(number, text):
    """No exponent and no trailing zeros, which every venue takes (N7)."""
    assert plain(D(number)) == text

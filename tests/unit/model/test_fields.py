"""Settings are exact, strict and frozen, and say in our words what is wrong with them."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from execkit.errors import ConfigurationError
from execkit.model.fields import (
    Count,
    Duration,
    Frame,
    Name,
    NonNegative,
    Positive,
    Section,
    SymbolName,
    checked,
    path_text,
)
from execkit.model.market import Timeframe


class Inner(Section):
    price: Positive
    fee: Decimal | None = None


class Outer(Section):
    items: Annotated[tuple[Inner, ...], Field(strict=False)] = ()
    balances: dict[str, NonNegative] = Field(default_factory=dict)
    wait: Duration = timedelta(0)
    frame: Frame = Timeframe.M1
    name: Name = "x"
    symbol: SymbolName = "X"
    count: Count = 0
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    text: str = ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10s", timedelta(seconds=10)),
        ("500ms", timedelta(milliseconds=500)),
        ("1.5s", timedelta(milliseconds=1500)),
        ("2m", timedelta(minutes=2)),
        ("1h", timedelta(hours=1)),
        ("1d", timedelta(days=1)),
        (timedelta(seconds=3), timedelta(seconds=3)),
    ],
)
def test_durations_have_units(text, value):
    """A duration is a number and a unit, or a `timedelta` in code."""
    assert Outer(wait=text).wait == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wait": 10}, "wait: 10 is not a duration; write a number and a unit, e.g. 10s, 500ms"),
        ({"wait": "10"}, "wait: '10' is not a duration"),
        (
            {"wait": timedelta(-1)},
            "wait: datetime.timedelta(days=-1) is wrong; it should be greater",
        ),
        ({"frame": "7h"}, "frame: timeframe: '7h' is unknown; use one of 1m, 5m"),
        ({"name": "a|b"}, "name: 'a|b' is not a name; use 1 to 60 letters"),
        ({"symbol": "a b"}, "symbol: 'a b' has characters outside"),
        ({"count": True}, "count: True is wrong; it should be a whole number"),
        ({"count": "1"}, "count: '1' is wrong; it should be a whole number"),
        ({"count": -1}, "count: -1 is wrong; it should be greater than or equal to 0"),
        ({"flag": "ON"}, "flag: 'ON' is wrong; it should be true or false"),
        ({"flag": 1}, "flag: 1 is wrong; it should be true or false"),
        ({"kind": "c"}, "kind: 'c' is wrong; it should be 'a' or 'b'"),
        ({"text": 5}, "text: 5 is wrong; it should be text"),
        ({"items": 5}, "items: 5 is wrong; it should be a list"),
        ({"items": [5]}, "items[0]: 5 is not a mapping; write indented `key: value` lines"),
        ({"items": [{}]}, "items[0].price: is missing; add it"),
        ({"items": [{"price": 0}]}, "items[0].price: 0 is wrong; it should be greater than 0"),
        ({"items": [{"price": "01"}]}, "items[0].price: '01' is text, not a number"),
        (
            {"items": [{"price": 1.5}]},
            "items[0].price: float 1.5 is not exact; pass Decimal('1.5')",
        ),
        ({"items": [{"price": 1, "fee": 0.1}]}, "items[0].fee: float 0.1 is not exact"),
        ({"items": [{"price": 1, "fees": 1}]}, "items[0].fees: unknown key; did you mean 'fee'?"),
        ({"balances": {"USDT": 1.5}}, "balances.USDT: float 1.5 is not exact"),
        ({"balances": {"USDT": -1}}, "balances.USDT: -1 is wrong"),
        ({"balances": []}, "balances: [] is not a mapping"),
        ({"zzz": 1}, "zzz: unknown key. Known here: balances, count, flag, frame, items"),
        ({"text": ["x" * 90]}, f"text: ['{'x' * 55}... is wrong"),
    ],
)
def test_wrong_values_are_explained(values, message):
    """The message names path, value and fix, for values from a file and for those in code."""
    for build in (lambda: Outer(**values), lambda: checked(Outer, values)):
        with pytest.raises(ConfigurationError) as caught:
            build()
        assert str(caught.value).startswith(message)


def test_every_wrong_value_has_a_line_of_its_own():
    """All that is wrong is said at once, each with its place."""
    with pytest.raises(ConfigurationError) as caught:
        checked(Outer, {"count": "x", "flag": 2}, where=lambda path: f"file:{path[0]}: ")
    assert [line.partition(" is ")[0] for line in str(caught.value).splitlines()] == [
        "file:count: count: 'x'",
        "file:flag: flag: 2",
    ]


@given(st.one_of(st.floats(), st.text(), st.booleans(), st.binary(), st.none()))
def test_only_exact_numbers_become_numbers(value):
    """I35: nothing but `Decimal` and `int` passes for a number, whatever it looks like."""
    with pytest.raises(ConfigurationError):
        Inner(price=value)


@given(st.decimals())
def test_numbers_stay_as_they_are(value):
    """What passes is the same number; what does not fit our limits is refused, never changed."""
    try:
        made = Inner(price=Decimal(1), fee=value)
    except ConfigurationError as error:
        assert str(error).startswith("fee: ")  # noqa: PT017 - either way is right
    else:
        assert made.fee == value


def test_settings_are_frozen_and_whole_numbers_become_decimals():
    """A setting cannot change under a running engine."""
    made = Outer(items=[Inner(price=2)], balances={"USDT": 5}, frame="1hour")
    assert type(made.items[0].price) is type(made.balances["USDT"]) is Decimal
    assert made.frame is Timeframe.H1
    with pytest.raises(ValueError, match="frozen"):
        made.count = 3


def test_paths_read_like_people_write_them():
    """Lists in brackets, keys with dots, and a name for the top."""
    assert path_text(("entry", 0, "parameters", "x")) == "entry[0].parameters.x"
    assert path_text((1, "x")) == "[1].x"
    assert path_text(()) == "(top)"

"""The door for signals: bad numbers are refused with the field's name, and content has one digest."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.errors import ConfigurationError
from execkit.model.order import OrderType, Side, TimeInForce
from execkit.model.signal import TradingSignal

D = Decimal
PRICES = ("quantity", "limit_price", "stop_price", "stop_loss", "take_profit")


def make_signal(**fields):
    return TradingSignal(**({"symbol": "BTC/USDT", "side": Side.BUY} | fields))


@pytest.mark.parametrize("field", PRICES)
@pytest.mark.parametrize(
    "value",
    [
        D("NaN"),
        D("sNaN"),
        D("Infinity"),
        D("-Infinity"),
        D(-1),
        D(0),
        D("1.23456789012345678"),
        D("1e15"),
        D("1e400"),
        D("1e-19"),
        1.5,
        float("nan"),
        True,
        b"1",
        "1e400",
        "NaN",
        "1_000",
        "abc",
    ],
)
def test_prices_and_quantity_are_exact_and_above_zero(field, value):
    """NaN, infinite, negative, zero, 18 digits, float, bool, text that is no number: refused (I23, N1-N9)."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        make_signal(**{field: value})


@pytest.mark.parametrize("field", PRICES)
@pytest.mark.parametrize(
    ("value", "number"), [(D("1.5"), "1.5"), (2, "2"), ("0.25", "0.25"), ("1e-8", "0.00000001")]
)
def test_exact_numbers_become_decimals(field, value, number):
    """Integers and plain text are exact as well."""
    result = getattr(make_signal(**{field: value}), field)
    assert result == D(number)
    assert type(result) is Decimal


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strength", -1),
        ("strength", D("100.1")),
        ("strength", float("nan")),
        ("strength", float("inf")),
        ("strength", True),
        ("strength", None),
        ("confluence", -1),
        ("confluence", D("NaN")),
        ("confluence", "many"),
        ("side", "up"),
        ("side", "buy"),
        ("symbol", ""),
        ("symbol", "BTC USDT"),
        ("symbol", "BTC/USDT\n"),
        ("symbol", "\uff22\uff34\uff23"),
        ("symbol", "x" * 41),
        ("symbol", None),
        ("created_at", datetime(2024, 1, 1)),
        ("created_at", "2024-01-01"),
        ("signal_id", ""),
        ("signal_id", "x" * 201),
        ("signal_id", 5),
        ("post_only", True),
        ("post_only", 1),
        ("reduce_only", "no"),
        ("max_age", 5),
        ("max_age", timedelta(0)),
    ],
)
def test_other_fields_are_checked(field, value):
    """The message begins with the field."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        make_signal(**{field: value})


def test_an_unknown_time_in_force_is_refused():
    """Only the words that are known."""
    assert make_signal(time_in_force="ioc").time_in_force is TimeInForce.IOC
    with pytest.raises(
        ConfigurationError, match="time_in_force: 'forever' is unknown; use one of gtc"
    ):
        make_signal(time_in_force="forever")


def test_scores_may_be_floats():
    """Strength and confluence are no money."""
    signal = make_signal(strength=72.5, confluence=3.1)
    assert (signal.strength, signal.confluence) == (D("72.5"), D("3.1"))


def test_defaults():
    """Full strength, no score, everything else open."""
    signal = make_signal()
    assert signal.strength == 100
    assert signal.confluence is None
    assert signal.reduce_only is False
    assert signal.signal_id is None
    assert signal.max_age is None


@pytest.mark.parametrize(
    ("prices", "order_type"),
    [
        ({}, OrderType.MARKET),
        ({"limit_price": D(1)}, OrderType.LIMIT),
        ({"stop_price": D(1)}, OrderType.STOP),
        ({"stop_price": D(1), "limit_price": D(1)}, OrderType.STOP_LIMIT),
    ],
)
def test_the_prices_imply_the_type(prices, order_type):
    """Nobody states it twice."""
    assert make_signal(**prices).order_type is order_type


def test_a_signal_is_frozen():
    """Whoever holds one can rely on it."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        make_signal().quantity = D(1)


CHANGES = {
    "symbol": "ETH/USDT",
    "side": Side.SELL,
    "strength": 50,
    "confluence": 4,
    "quantity": D(2),
    "limit_price": D(2),
    "stop_price": D(2),
    "stop_loss": D(2),
    "take_profit": D(2),
    "time_in_force": TimeInForce.IOC,
    "reduce_only": True,
    "exchange": "paper",
}


@pytest.mark.parametrize("field", CHANGES)
def test_other_content_has_another_digest(field):
    """The same id with another wish is a conflict (I20)."""
    assert make_signal(**{field: CHANGES[field]}).digest != make_signal().digest


def test_equal_content_has_an_equal_digest():
    """Who made it, when, under which id, and the way a number is written are no content."""
    now = datetime(2024, 1, 1, tzinfo=UTC)
    signal = make_signal(quantity=D("1.50"), limit_price="100.0")
    same = make_signal(
        quantity=D("1.5"),
        limit_price=100,
        signal_id="x",
        source="me",
        created_at=now,
        max_age=timedelta(seconds=1),
    )
    assert signal.digest == same.digest


def test_post_only_is_content():
    """It changes what is sent."""
    limit = {"limit_price": D(1)}
    assert make_signal(post_only=True, **limit).digest != make_signal(**limit).digest


def test_a_signal_that_only_opens_is_another_than_one_that_may_close():
    """Their digests differ; one that says nothing of it keeps the digest that it had; both at once are refused."""
    assert make_signal(entry_only=True).digest != make_signal().digest
    assert make_signal(entry_only=False).digest == make_signal().digest
    with pytest.raises(ConfigurationError, match="reduce_only, entry_only"):
        make_signal(reduce_only=True, entry_only=True)
    with pytest.raises(ConfigurationError, match=r"^entry_only: 1 "):
        make_signal(entry_only=1)

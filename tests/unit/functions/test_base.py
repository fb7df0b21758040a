"""What a function may answer, what it is given, and what becomes of its answer."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError
from execkit.functions.base import (
    ConfidenceLevel,
    ExecutionAction,
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
    to_trading_signal,
)
from execkit.model.account import AccountView
from execkit.model.market import BarData, Timeframe
from execkit.model.order import Side
from execkit.model.position import Position

AT = datetime(2024, 1, 1, 1, tzinfo=UTC)
ONE = Decimal(1)


def context(quantity=None):
    bar = BarData("BTC/USDT", Timeframe.H1, AT, *([Decimal(100)] * 4), ONE)
    position = None
    if quantity is not None:
        position = Position(
            position_id="p",
            symbol="BTC/USDT",
            quantity=Decimal(quantity),
            average_price=Decimal(90),
            opened_at=AT,
        )
    return ExecutionContext(
        plan="breakout",
        symbol="BTC/USDT",
        timeframe=Timeframe.H1,
        bar=bar,
        history=BarHistory([bar]),
        parameters=FunctionParams(),
        position=position,
        account=AccountView("USDT", ONE, ONE, ONE),
        timestamp=AT,
    )


def signal(action, confidence="0.8", **values):
    return ExecutionSignal(action=action, confidence=confidence, **values)


@pytest.mark.parametrize(
    ("confidence", "level"),
    [
        ("0", "low"),
        ("0.39999", "low"),
        ("0.4", "medium"),
        ("0.69999", "medium"),
        ("0.7", "high"),
        ("1", "high"),
    ],
)
def test_levels(confidence, level):
    """LOW < 0.4 <= MEDIUM < 0.7 <= HIGH."""
    assert signal("exit", confidence).level is ConfidenceLevel(level)


def test_a_float_confidence_is_read_by_its_spelling():
    """0.7 as a float is 0.7, not the binary number next to it."""
    assert signal("exit", 0.7).confidence == Decimal("0.7")


@given(st.floats())
def test_no_float_makes_a_confidence_outside_0_to_1(value):
    """NaN, infinities and anything outside are refused at the door, naming the field."""
    try:
        made = signal("enter_long", value)
    except ConfigurationError as error:
        assert str(error).startswith("confidence: ")  # noqa: PT017 - either way is right
    else:
        assert 0 <= made.confidence <= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"action": "buy"}, "action: 'buy' is unknown; use one of none, enter_long"),
        (
            {"action": "exit", "confidence": "NaN"},
            "confidence: 'NaN' is not a plain decimal number",
        ),
        (
            {"action": "exit", "confidence": Decimal("NaN")},
            "confidence: NaN is not a finite number",
        ),
        ({"action": "exit", "confidence": None}, "confidence: None is not a number"),
        ({"action": "exit", "confidence": "1.1"}, "confidence: 1.1 is outside 0 to 1"),
        ({"action": "enter_long", "stop_loss": 41000.5}, "stop_loss: float 41000.5 is not exact"),
        (
            {"action": "enter_long", "take_profit": Decimal(-1)},
            "take_profit: -1 must be above zero",
        ),
        ({"action": "adjust_stop"}, "new_stop: give it with ADJUST_STOP, and only then"),
        ({"action": "exit", "new_stop": ONE}, "new_stop: give it with ADJUST_STOP, and only then"),
        ({"action": "exit", "stop_loss": ONE}, "stop_loss, take_profit: they belong to an entry"),
    ],
)
def test_bad_answers_cannot_be_built(values, message):
    """Each names its field."""
    with pytest.raises(ConfigurationError) as caught:
        ExecutionSignal(**({"confidence": "0.5"} | values))
    assert str(caught.value).startswith(message)


def test_answers_are_frozen():
    """An answer and its metadata cannot be changed afterwards, not through the caller's dict either."""
    metadata = {"atr": 5}
    answer = signal("exit", metadata=metadata)
    metadata["atr"] = 6
    assert answer.metadata == {"atr": 5}
    with pytest.raises(TypeError):
        answer.metadata["atr"] = 7
    with pytest.raises(AttributeError):
        answer.confidence = ONE
    assert hash(answer) == hash(signal("exit", metadata={"atr": 8}))


def test_none():
    """The answer that nothing is to be done keeps its reason."""
    answer = ExecutionSignal.none("too quiet")
    assert (answer.action, answer.confidence, answer.reasoning) == (
        ExecutionAction.NONE,
        0,
        "too quiet",
    )


@pytest.mark.parametrize("name", ["bar", "position", "history", "timestamp"])
def test_the_context_is_frozen(name):
    """P5: a function cannot change what others see."""
    with pytest.raises(AttributeError):
        setattr(context(1), name, None)


@pytest.mark.parametrize(
    ("action", "quantity", "side", "reduces"),
    [
        ("enter_long", None, Side.BUY, False),
        ("enter_short", None, Side.SELL, False),
        ("exit", "2", Side.SELL, True),
        ("exit", "-2", Side.BUY, True),
    ],
)
def test_what_an_action_means_for_the_chain(action, quantity, side, reduces):
    """Entries buy or sell; an exit is a reduction of the open position, whichever way it is."""
    made = to_trading_signal(signal(action), context(quantity), "close_above")
    assert (made.side, made.reduce_only) == (side, reduces)
    assert (made.strength, made.confluence) == (80, None)
    assert made.signal_id == "breakout|close_above|BTC/USDT|1h|2024-01-01T01:00:00Z"
    assert (made.source, made.created_at) == ("plan:breakout", AT)


def test_levels_travel_with_an_entry():
    """Stop-loss and target of the answer become the signal's; details say more or something else."""
    answer = signal("enter_long", stop_loss=Decimal(95), take_profit=Decimal(120))
    made = to_trading_signal(answer, context(), "f", exchange="paper")
    assert (made.stop_loss, made.take_profit, made.exchange) == (95, 120, "paper")
    assert to_trading_signal(answer, context(), "f", stop_loss=Decimal(96)).stop_loss == 96


@pytest.mark.parametrize(
    ("answer", "quantity"),
    [
        (ExecutionSignal.none(), None),
        (signal("exit"), None),
        (signal("exit"), "0"),
        (signal("adjust_stop", new_stop=ONE), "1"),
    ],
)
def test_what_makes_no_order(answer, quantity):
    """NONE, a stop to move and an exit of nothing are no orders."""
    with pytest.raises(ConfigurationError, match="makes no order"):
        to_trading_signal(answer, context(quantity), "f")


class Params(FunctionParams):
    level: Decimal


def test_the_parameters_model_is_the_type_argument():
    """A class says once what it takes; a subclass inherits it, an explicit one wins."""

    class Plain(ExecutionFunctionBase[Params]):
        async def evaluate(self, context):
            return ExecutionSignal.none()

    class Sub(Plain):
        pass

    class Other(FunctionParams):
        pass

    class Explicit(ExecutionFunctionBase[Params]):
        params_model: ClassVar = Other

    assert Plain.params_model is Sub.params_model is Params
    assert Explicit.params_model is Other
    assert repr(Plain(Params(level=ONE))) == "Plain(level=Decimal('1'))"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "level: is missing; add it"),
        ({"level": 1.5}, "level: float 1.5 is not exact"),
        ({"level": "1"}, "level: '1' is text, not a number"),
        ({"level": True}, "level: True is not a number"),
        ({"level": 1, "leveL": 2}, "leveL: unknown key; did you mean 'level'?"),
    ],
)
def test_parameters_are_strict(values, message):
    """No float, no text, no bool and no unknown name passes for a parameter."""
    with pytest.raises(ConfigurationError) as caught:
        Params(**values)
    assert message in str(caught.value)

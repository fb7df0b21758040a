"""The contract of execution functions: what they are given at a bar close, and what they may answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar, get_args, get_origin

import attrs
import msgspec
from pydantic import Field

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError
from execkit.model.account import AccountView
from execkit.model.fields import Name, Section
from execkit.model.fields import Path as KeyPath
from execkit.model.market import BarData, Timeframe
from execkit.model.order import Side
from execkit.model.position import Position
from execkit.model.signal import TradingSignal
from execkit.numbers import HUNDRED, ONE, ZERO, positive, score

_MEDIUM_FROM: Final = Decimal("0.4")
_HIGH_FROM: Final = Decimal("0.7")
SEPARATOR: Final = "|"
"""Between the parts of a signal id; no plan name holds it."""


class ExecutionAction(StrEnum):
    """What a function wants done."""

    NONE = "none"
    ENTER_LONG = "enter_long"
    ENTER_SHORT = "enter_short"
    EXIT = "exit"
    ADJUST_STOP = "adjust_stop"
    """Move the protective stop of the open position to *new_stop*."""

    @property
    def is_entry(self) -> bool:
        """Tell whether it opens a position."""
        return self in (ExecutionAction.ENTER_LONG, ExecutionAction.ENTER_SHORT)

    @property
    def is_order(self) -> bool:
        """Tell whether it asks for an order."""
        return self.is_entry or self is ExecutionAction.EXIT


class ConfidenceLevel(StrEnum):
    """A confidence in words: LOW < 0.4 <= MEDIUM < 0.7 <= HIGH."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @classmethod
    def of(cls, confidence: Decimal) -> ConfidenceLevel:
        """Return the level of a confidence of 0 to 1."""
        if confidence < _MEDIUM_FROM:
            return cls.LOW
        return cls.MEDIUM if confidence < _HIGH_FROM else cls.HIGH


def _action(value: ExecutionAction | str) -> ExecutionAction:
    try:
        return ExecutionAction(value)
    except ValueError:
        known = ", ".join(action.value for action in ExecutionAction)
        raise ConfigurationError(f"action: {value!r} is unknown; use one of {known}") from None


def _confidence(value: Decimal | float | str) -> Decimal:
    number = score("confidence", value)
    if not ZERO <= number <= ONE:
        raise ConfigurationError(f"confidence: {number} is outside 0 to 1")
    return number


def _read_only(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class ExecutionSignal:
    """A function's answer at one bar close.

    *confidence* is 0 to 1; it is no money, so a float is read by its shortest spelling. *stop_loss* and *take_profit*
    go with an entry, *new_stop* with ADJUST_STOP. With *symbol* a function that serves several markets has the answer
    checked against the market that was asked about. Raises `ConfigurationError` naming the field.
    """

    action: ExecutionAction = attrs.field(converter=_action)
    confidence: Decimal = attrs.field(converter=_confidence)
    reasoning: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=_read_only, hash=False)
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    new_stop: Decimal | None = None
    symbol: str | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("stop_loss", "take_profit", "new_stop"):
            value = getattr(self, name)
            if value is not None:
                positive(name, value)
        if (self.new_stop is not None) != (self.action is ExecutionAction.ADJUST_STOP):
            raise ConfigurationError("new_stop: give it with ADJUST_STOP, and only then")
        if not self.action.is_entry and (self.stop_loss, self.take_profit) != (None, None):
            raise ConfigurationError(
                f"stop_loss, take_profit: they belong to an entry, not to {self.action}"
            )

    @classmethod
    def none(cls, reason: str = "") -> ExecutionSignal:
        """Return the answer that nothing is to be done."""
        return cls(action=ExecutionAction.NONE, confidence=ZERO, reasoning=reason)

    @property
    def level(self) -> ConfidenceLevel:
        """The confidence in words."""
        return ConfidenceLevel.of(self.confidence)


class ExecutionContext(msgspec.Struct, frozen=True, kw_only=True):
    """All that a function may look at. *history* ends with *bar*; everything in it is final."""

    plan: str
    symbol: str
    timeframe: Timeframe
    bar: BarData
    history: BarHistory
    parameters: Any
    """The function's own `FunctionParams`."""
    position: Position | None
    """The open position of the symbol, or None when flat."""
    account: AccountView
    timestamp: datetime
    """Wall time of the evaluation, UTC."""


class FunctionParams(Section):
    """Base of a function's parameters; by itself it takes none.

    >>> class BreakoutParams(FunctionParams):
    ...     level: Decimal
    """


class Part(Section):
    """A function and its parameters, inside those of a function that asks it."""

    function: Name
    parameters: dict[str, Any] = Field(default_factory=dict)


P = TypeVar("P", bound=FunctionParams)


class ExecutionFunctionBase(ABC, Generic[P]):
    """A decision at a bar close.

    `class Breakout(ExecutionFunctionBase[BreakoutParams])` takes its parameters as `BreakoutParams`. One instance
    serves one rule of one plan and may keep state between bars; after a restart that state starts anew. A class
    whose answers follow from the context alone sets `shared = True`.
    """

    params_model: ClassVar[type[FunctionParams]] = FunctionParams
    shared: ClassVar[bool] = False
    """Whether it keeps nothing between bars; one instance then serves all rules with equal parameters."""
    required_lookback: int = 1
    """Bars of history without which it is not asked."""

    def __init__(self, params: P) -> None:
        self.params = params

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            if get_origin(base) is ExecutionFunctionBase and "params_model" not in cls.__dict__:
                (model,) = get_args(base)
                if isinstance(model, type):
                    cls.params_model = model

    @classmethod
    def parts_of(cls, params: P) -> Iterable[tuple[KeyPath, Part]]:  # noqa: ARG003 - a contract
        """Return the functions that it asks in turn, each with its place in *params*; most ask none."""
        return ()

    @classmethod
    def build(cls, params: P, parts: Sequence[ExecutionFunctionBase[Any]]) -> Self:  # noqa: ARG003
        """Return an instance; *parts* are instances of what `parts_of` names, in its order."""
        return cls(params)

    @abstractmethod
    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Decide. What it raises, or an answer that comes too late, counts as NONE."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params})"


def signal_prefix(plan: str) -> str:
    """Return what every signal id of a plan starts with; how a position is known to be the plan's."""
    return f"{plan}{SEPARATOR}"


def to_trading_signal(
    signal: ExecutionSignal,
    context: ExecutionContext,
    function: str,
    **details: Any,
) -> TradingSignal:
    """Turn an entry or exit into what the chain takes.

    Strength is 100 x confidence, and confluence is unknown, so unchecked. EXIT reduces the open position, and an entry
    never does, whatever was opened meanwhile by another plan or by hand. The signal
    id is made of plan, function, symbol, timeframe and close, so the same bar never counts twice. *details* are
    further fields of `TradingSignal`. Raises `ConfigurationError` for an action that is no order.
    """
    position = context.position
    if signal.action is ExecutionAction.ENTER_LONG:
        side = Side.BUY
    elif signal.action is ExecutionAction.ENTER_SHORT:
        side = Side.SELL
    elif signal.action is ExecutionAction.EXIT and position is not None and not position.is_flat:
        side = Side.SELL if position.is_long else Side.BUY
    else:
        raise ConfigurationError(
            f"action: {signal.action} makes no order"
            + (" while nothing is open" if signal.action is ExecutionAction.EXIT else "")
        )
    close = context.bar.close_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    parts = (context.plan, function, context.symbol, str(context.timeframe), close)
    values: dict[str, Any] = {
        "symbol": context.symbol,
        "side": side,
        "strength": signal.confidence * HUNDRED,
        "stop_loss": signal.stop_loss,
        "take_profit": signal.take_profit,
        "reduce_only": signal.action is ExecutionAction.EXIT,
        "entry_only": signal.action.is_entry,
        "signal_id": SEPARATOR.join(parts),
        "created_at": context.timestamp,
        "source": f"plan:{context.plan}",
    }
    return TradingSignal(**(values | details))

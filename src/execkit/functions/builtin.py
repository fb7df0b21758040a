"""`close_above`, `close_below` and `trailing_stop`, and the registry of all that comes with the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from execkit.clock import Clock
from execkit.functions.base import (
    ExecutionAction,
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
)
from execkit.functions.combine import register_combinators
from execkit.functions.library import register_library
from execkit.functions.measures import best_price, breakout_confidence
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.model.fields import NonNegative, Number, Positive
from execkit.model.position import Position
from execkit.numbers import HUNDRED, MONEY, ONE, ZERO, plain


class CloseParams(FunctionParams):
    """Parameters of `close_above` and `close_below`."""

    threshold_price: Positive
    """The price beyond which a close counts."""
    min_volume: NonNegative = ZERO
    """Volume of the bar, in base units, below which it is ignored."""
    action: Literal["enter_long", "enter_short", "exit"] | None = None
    """What a close beyond the threshold means; None: the function's own reading."""


class _CloseBeyond(ExecutionFunctionBase[CloseParams]):
    """What `close_above` and `close_below` share."""

    params_model = CloseParams
    shared = True
    word: ClassVar[str]
    sign: ClassVar[int]
    entry: ClassVar[ExecutionAction]

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Compare the close with the threshold."""
        bar, params = context.bar, self.params
        level = plain(params.threshold_price)
        distance = self.sign * (bar.close - params.threshold_price)
        if distance <= ZERO:
            return ExecutionSignal.none(f"close {plain(bar.close)} is not {self.word} {level}")
        if bar.volume < params.min_volume:
            return ExecutionSignal.none(
                f"volume {plain(bar.volume)} is below {plain(params.min_volume)}"
            )
        action = self._action(context.position)
        if action is ExecutionAction.NONE:
            return ExecutionSignal.none(
                f"close is {self.word} {level}, but the position is as wanted"
            )
        return ExecutionSignal(
            action=action,
            confidence=breakout_confidence(context.history, distance),
            reasoning=f"close {plain(bar.close)} is {self.word} {level}",
        )

    def _action(self, position: Position | None) -> ExecutionAction:
        wanted = self.params.action
        if position is None:
            if wanted is None:
                return self.entry
            return ExecutionAction.NONE if wanted == "exit" else ExecutionAction(wanted)
        against = position.is_long is (self.entry is ExecutionAction.ENTER_SHORT)
        if wanted == "exit" or (wanted is None and against):
            return ExecutionAction.EXIT
        return ExecutionAction.NONE


class CloseAbove(_CloseBeyond):
    """Fire when a bar closes above `threshold_price` on at least `min_volume`.

    Flat, it enters long; with a short open, it exits. With *action* it does only that: an entry when flat, an exit of
    any position.
    """

    word = "above"
    sign = 1
    entry = ExecutionAction.ENTER_LONG


class CloseBelow(_CloseBeyond):
    """Fire when a bar closes below `threshold_price` on at least `min_volume`.

    Flat, it enters short; with a long open, it exits. With *action* it does only that: an entry when flat, an exit of
    any position.
    """

    word = "below"
    sign = -1
    entry = ExecutionAction.ENTER_SHORT


class TrailingStopParams(FunctionParams):
    """Parameters of `trailing_stop`."""

    trail_percentage: Annotated[Number, Field(gt=0, lt=100)]
    """Distance from the best price, in percent."""
    activation_price: Positive | None = None
    """Best price from which on it trails; None: from the entry on."""


class TrailingStop(ExecutionFunctionBase[TrailingStopParams]):
    """Exit when the close has come back by `trail_percentage` from the best price since entry.

    A long exits at close <= best * (1 - trail / 100), a short at close >= best * (1 + trail / 100). The best price is
    the position's own (kept from the bars since it was opened), the entry price, or an extreme of a bar in the
    history that began after the entry, whichever is best. The confidence is always 1.
    """

    shared = True

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Compare the close with the stop that follows the best price."""
        position, close = context.position, context.bar.close
        if position is None:
            return ExecutionSignal.none("no position is open")
        best = best_price(position, context.history)
        start = self.params.activation_price
        if start is not None and (best < start if position.is_long else best > start):
            return ExecutionSignal.none(f"best {plain(best)} has not reached {plain(start)}")
        trail = self.params.trail_percentage
        share = HUNDRED - trail if position.is_long else HUNDRED + trail
        stop = MONEY.divide(MONEY.multiply(best, share), HUNDRED)
        if close > stop if position.is_long else close < stop:
            return ExecutionSignal.none(f"close {plain(close)} has not reached {plain(stop)}")
        return ExecutionSignal(
            action=ExecutionAction.EXIT,
            confidence=ONE,
            reasoning=f"close {plain(close)} is {plain(trail)} % or more from the best price {plain(best)}",
        )


MAX_INSTANCES: Final[Mapping[str, int]] = {"close_above": 10, "close_below": 10, "trailing_stop": 5}
"""Instances of each that may live at once, unless the registry's own limits say otherwise."""


def register_builtins(registry: ExecutionFunctionRegistry) -> ExecutionFunctionRegistry:
    """Register all that comes with the package in *registry*, where it is not in it yet, and return it."""
    for name, function in (
        ("close_above", CloseAbove),
        ("close_below", CloseBelow),
        ("trailing_stop", TrailingStop),
    ):
        if name not in registry:
            registry.register(name, max_instances=MAX_INSTANCES[name], actor="execkit")(function)
    register_library(registry)
    register_combinators(registry)
    return registry


def standard_registry(
    *, clock: Clock | None = None, max_instances: Mapping[str, int] | None = None
) -> ExecutionFunctionRegistry:
    """Return a new registry that holds the built-in functions."""
    return register_builtins(ExecutionFunctionRegistry(clock=clock, max_instances=max_instances))

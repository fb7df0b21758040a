"""Further functions that strategies are made of: breakout, moving-average cross, ATR stop and time exit."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from execkit.functions.base import (
    ExecutionAction,
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
)
from execkit.functions.measures import (
    ATR_BARS,
    average_true_range,
    best_price,
    breakout_confidence,
    mean_close,
    since,
)
from execkit.functions.registry import ExecutionFunctionRegistry, FunctionClass
from execkit.model.fields import Duration, Positive
from execkit.model.position import Position
from execkit.numbers import MONEY, ONE, ZERO, plain

Bars = Annotated[int, Field(ge=1, le=900)]
Direction = Literal["long", "short", "both"]


def _wish(sign: int, direction: Direction, position: Position | None) -> ExecutionAction:
    """Return what a move up (sign 1) or down (-1) means: flat an entry, against a position its exit."""
    if position is not None:
        against = position.is_long is (sign < 0)
        return ExecutionAction.EXIT if against else ExecutionAction.NONE
    if direction not in ("both", "long" if sign > 0 else "short"):
        return ExecutionAction.NONE
    return ExecutionAction.ENTER_LONG if sign > 0 else ExecutionAction.ENTER_SHORT


class BreakoutParams(FunctionParams):
    """Parameters of `breakout`."""

    bars: Bars
    """How many bars before the last one make the range."""
    direction: Direction = "both"
    """Which entries it may make; against a position it always exits."""


class Breakout(ExecutionFunctionBase[BreakoutParams]):
    """Fire when a bar closes above the highest high, or below the lowest low, of the *bars* bars before it.

    Flat, it enters in the direction of the move; against an open position it exits. Confidence as in `close_above`,
    with the extreme as the threshold.
    """

    shared = True

    def __init__(self, params: BreakoutParams) -> None:
        super().__init__(params)
        self.required_lookback = params.bars + 1

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Compare the close with the range before it."""
        close, bars = context.bar.close, self.params.bars
        before = context.history[-bars - 1 : -1]
        high, low = max(bar.high for bar in before), min(bar.low for bar in before)
        if low <= close <= high:
            return ExecutionSignal.none(
                f"close {plain(close)} is within {plain(low)} to {plain(high)}"
            )
        sign = 1 if close > high else -1
        move = f"close {plain(close)} is " + (
            f"above the high {plain(high)} of {bars} bars"
            if sign > 0
            else f"below the low {plain(low)} of {bars} bars"
        )
        action = _wish(sign, self.params.direction, context.position)
        if action is ExecutionAction.NONE:
            return ExecutionSignal.none(f"{move}, which changes nothing")
        distance = close - high if sign > 0 else low - close
        return ExecutionSignal(
            action=action,
            confidence=breakout_confidence(context.history, distance),
            reasoning=move,
        )


class MaCrossParams(FunctionParams):
    """Parameters of `ma_cross`."""

    fast: Bars
    """Bars of the shorter mean."""
    slow: Bars
    """Bars of the longer mean."""
    direction: Direction = "both"
    """Which entries it may make; against a position it always exits."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.fast >= self.slow:
            raise ValueError(f"fast: {self.fast} bars must be fewer than slow, {self.slow}")
        return self


class MaCross(ExecutionFunctionBase[MaCrossParams]):
    """Fire when the mean close of the *fast* last bars crosses that of the *slow* last bars.

    With D = mean of fast - mean of slow: up at D > 0 after D <= 0 one bar ago, down at D < 0 after D >= 0. Flat, it
    enters in that direction; against an open position it exits. Confidence as in `close_above`, with |D| as the
    distance.
    """

    shared = True

    def __init__(self, params: MaCrossParams) -> None:
        super().__init__(params)
        self.required_lookback = params.slow + 1

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Compare the two means now and one bar ago."""
        params, history = self.params, context.history
        now, before = (
            mean_close(history, params.fast, before=ago)
            - mean_close(history, params.slow, before=ago)
            for ago in (0, 1)
        )
        shown = f"mean of {params.fast} less mean of {params.slow} is {_short(now)} after {_short(before)}"
        if now > ZERO >= before:
            sign = 1
        elif now < ZERO <= before:
            sign = -1
        else:
            return ExecutionSignal.none(f"{shown}: no cross")
        action = _wish(sign, params.direction, context.position)
        if action is ExecutionAction.NONE:
            return ExecutionSignal.none(f"{shown}, which changes nothing")
        return ExecutionSignal(
            action=action,
            confidence=breakout_confidence(history, abs(now)),
            reasoning=shown,
        )


def _short(value: Decimal) -> str:
    return plain(round(value, 8))


class AtrStopParams(FunctionParams):
    """Parameters of `atr_stop`."""

    multiple: Positive = Decimal("1.5")
    """Distance from the best price, in ATR."""
    bars: Bars = ATR_BARS
    """Bars of the ATR."""
    move_stop: bool = False
    """Move the protective stop at the venue along, where that makes it tighter."""


class AtrStop(ExecutionFunctionBase[AtrStopParams]):
    """Exit when the close has come back by *multiple* x ATR(*bars*) from the best price since entry.

    A long exits at close <= best - multiple x ATR, a short at close >= best + multiple x ATR, with confidence 1. The
    best price is that of `trailing_stop`. While the ATR is zero it waits. With *move_stop* the position's stop
    follows that level.
    """

    shared = True

    def __init__(self, params: AtrStopParams) -> None:
        super().__init__(params)
        self.required_lookback = params.bars + 1

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Compare the close with the stop that follows the best price."""
        position, close, params = context.position, context.bar.close, self.params
        if position is None:
            return ExecutionSignal.none("no position is open")
        best = best_price(position, context.history)
        atr = average_true_range(context.history, params.bars)
        if not atr:
            return ExecutionSignal.none("the bars have no range")
        sign = 1 if position.is_long else -1
        level = best - sign * MONEY.multiply(atr, params.multiple)
        shown = f"{plain(params.multiple)} ATR of {_short(atr)} from the best price {plain(best)}"
        if (close - level) * sign <= ZERO:
            return ExecutionSignal(
                action=ExecutionAction.EXIT,
                confidence=ONE,
                reasoning=f"close {plain(close)} has come back {shown}",
            )
        stop = position.stop_loss
        if params.move_stop and level > ZERO and (stop is None or (level - stop) * sign > ZERO):
            return ExecutionSignal(
                action=ExecutionAction.ADJUST_STOP,
                confidence=ONE,
                reasoning=f"the stop follows at {shown}",
                new_stop=level,
            )
        return ExecutionSignal.none(f"close {plain(close)} has not come back {shown}")


class TimeExitParams(FunctionParams):
    """Parameters of `time_exit`; state one of the two."""

    after: Duration | None = None
    """Age of the position."""
    bars: Bars | None = None
    """Whole bars since the entry; a bar without a trade is none."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.after is None) is (self.bars is None):
            raise ValueError("after, bars: state one of the two, e.g. after: 4h")
        return self


class TimeExit(ExecutionFunctionBase[TimeExitParams]):
    """Exit at the first close at which the position is *after* old, or *bars* whole bars have passed since the entry.

    The confidence is 1.
    """

    shared = True

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Compare the age of the position with the limit."""
        position = context.position
        if position is None:
            return ExecutionSignal.none("no position is open")
        if self.params.after is not None:
            age = context.bar.close_time - position.opened_at
            is_due, shown = age >= self.params.after, f"open for {age} of {self.params.after}"
        else:
            limit = self.params.bars or 0
            count = sum(1 for _ in islice(since(context.history, position.opened_at), limit))
            is_due, shown = count >= limit, f"open for {count} of {limit} bars"
        if not is_due:
            return ExecutionSignal.none(shown)
        return ExecutionSignal(action=ExecutionAction.EXIT, confidence=ONE, reasoning=shown)


LIBRARY: Final[dict[str, FunctionClass]] = {
    "breakout": Breakout,
    "ma_cross": MaCross,
    "atr_stop": AtrStop,
    "time_exit": TimeExit,
}


def register_library(registry: ExecutionFunctionRegistry) -> None:
    """Register all of them in *registry*, where they are not in it yet."""
    for name, function in LIBRARY.items():
        if name not in registry:
            registry.register(name, actor="execkit")(function)

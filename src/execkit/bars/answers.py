"""Whether a function's answer can be followed, and what functions see of the position."""

from __future__ import annotations

import msgspec

from execkit.functions.base import ExecutionAction, ExecutionContext, ExecutionSignal
from execkit.model.market import BarData
from execkit.model.position import Position
from execkit.model.records import StopMoved
from execkit.numbers import ZERO


def shown(position: Position, bars: list[BarData]) -> Position:
    """Return the position as functions see it: the best price counts these bars, and its dict is a copy."""
    since = [bar for bar in bars if bar.open_time >= position.opened_at]
    prices = [bar.high if position.is_long else bar.low for bar in since]
    if position.best_price is not None:
        prices.append(position.best_price)
    best = (max if position.is_long else min)(prices, default=None)
    return msgspec.structs.replace(position, best_price=best, fees=dict(position.fees))


def problem_of(answer: ExecutionSignal, context: ExecutionContext) -> str:
    """Return why an answer cannot be followed as things stand, or nothing."""
    position, action = context.position, answer.action
    if action is ExecutionAction.NONE:
        return ""
    if position is None:
        return "" if action.is_entry else f"{action} from an entry rule: nothing is open"
    if action.is_entry:
        return f"{action} from an exit rule: a position is open"
    if answer.new_stop is None:
        return ""
    sign = 1 if position.is_long else -1
    if (context.bar.close - answer.new_stop) * sign <= ZERO:
        return f"stop {answer.new_stop} is beyond the close {context.bar.close}"
    if position.stop_loss is not None and (answer.new_stop - position.stop_loss) * sign <= ZERO:
        return f"stop {answer.new_stop} is not tighter than {position.stop_loss}"
    return ""


def stop_moved(answer: ExecutionSignal, context: ExecutionContext, function: str) -> StopMoved:
    """Return the record of a stop that a function moves."""
    position = context.position
    assert position is not None, "checked before"
    return StopMoved(
        symbol=context.symbol,
        position_id=position.position_id,
        stop_loss=answer.new_stop,
        take_profit=position.take_profit,
        reason=f"{function}: {answer.reasoning}",
    )

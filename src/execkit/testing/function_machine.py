"""A state machine for execution functions."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from execkit.bars.cache import BarHistory
from execkit.functions.base import (
    ExecutionAction,
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
)
from execkit.model.account import AccountView
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Timeframe
from execkit.numbers import ZERO
from execkit.testing import strategies as xk
from execkit.testing.machine import Machine


class FunctionMachine(Machine):
    """Feeds bars to an execution function. It must answer each one within *budget* and never raise.

    An entry's levels must be on the right sides of the close. In the end the same bars are given to a new
    instance, this time with the later bars already in memory: other answers mean that the function looks ahead, or
    depends on chance or the clock.
    """

    instrument = Instrument.default("BTC/USDT")
    timeframe = Timeframe.H1
    budget = timedelta(seconds=1)

    def make_function(self) -> ExecutionFunctionBase[Any]:
        """Return a new instance of the function to test."""
        raise NotImplementedError(f"{type(self).__name__} needs make_function()")

    def __init__(self) -> None:
        super().__init__()
        self.function = self.make_function()
        self.bars: list[BarData] = []
        self.answers: list[ExecutionSignal] = []

    @rule(data=st.data(), gap=st.integers(0, 3))
    def close_a_bar(self, data: st.DataObject, gap: int) -> None:
        """Close the next bar, at times after a gap, and ask for an answer."""
        number, last = 0, None
        if self.bars:
            since = self.bars[-1].close_time - xk.START
            number, last = int(since / self.timeframe.duration) + gap, self.bars[-1].close
        bar = data.draw(xk.bars(self.instrument, self.timeframe, number=number, open=last))
        self.bars.append(bar)
        answer = self.ask(self.function, len(self.bars))
        self.answers.append(answer)
        _check_answer(answer, bar)
        self.on_answer(answer, bar)

    def on_answer(self, answer: ExecutionSignal, bar: BarData) -> None:
        """Override for checks of your own on an answer."""

    def ask(self, function: ExecutionFunctionBase[Any], count: int) -> ExecutionSignal:
        """Ask a function at the close of the *count*-th bar."""
        if count < function.required_lookback:
            return ExecutionSignal.none("too few bars")
        bar = self.bars[count - 1]
        context = ExecutionContext(
            plan="test",
            symbol=bar.symbol,
            timeframe=bar.timeframe,
            bar=bar,
            history=BarHistory(self.bars, 0, count),
            parameters=function.params,
            position=None,
            account=AccountView("USDT", Decimal(10_000), Decimal(10_000), ZERO),
            timestamp=bar.close_time,
        )
        began = self.time.loop.time()
        answer = self.wait(function.evaluate(context))
        took = self.time.loop.time() - began
        assert took <= self.budget.total_seconds(), f"the answer took {took} s"
        return answer

    def at_the_end(self) -> None:
        """Ask a new instance the same questions."""
        again = self.make_function()
        for count, before in enumerate(self.answers, start=1):
            after = self.ask(again, count)
            assert after == before, (
                f"bar {count} of {len(self.bars)} was answered {before} at first and {after} with later bars in memory"
            )


def _check_answer(answer: object, bar: BarData) -> None:
    assert isinstance(answer, ExecutionSignal), f"{answer!r} is no ExecutionSignal"
    if not answer.action.is_entry:
        return
    sign = 1 if answer.action is ExecutionAction.ENTER_LONG else -1
    for name, level, side in (
        ("stop_loss", answer.stop_loss, -1),
        ("take_profit", answer.take_profit, 1),
    ):
        wrong = level is not None and (level - bar.close) * sign * side <= ZERO
        assert not wrong, f"{answer.action} at {bar.close} with {name} {level} on the wrong side"

"""Asking one execution function safely: whatever it does, the answer is a signal or NONE, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import attrs
import structlog

from execkit.errors import ConfigurationError
from execkit.functions.base import ExecutionContext, ExecutionFunctionBase, ExecutionSignal
from execkit.model.market import Timeframe
from execkit.redaction import redacted

T = TypeVar("T")

log = structlog.get_logger("execkit")

FAILURES_TO_OPEN: Final = 5
"""Failures in a row after which a function is left alone for a while."""
OPEN_SECONDS: Final = 30.0


class BudgetExceededError(Exception):
    """An evaluation took longer than its budget and was cut off; for use inside this room."""


class Watchdog:
    """Cancels an evaluation that overruns its budget. One timer serves a whole batch.

    `asyncio.wait_for` would cost a task for each of thousands of evaluations, nearly all of which never wait.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None, "evaluations run in a task"
        self._task = task
        self._cancelling = task.cancelling()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._barked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def run(self, work: Awaitable[T]) -> T:
        """Await *work*; raise `BudgetExceededError` when it took too long, whatever it made of the cancel."""
        self._deadline = self._loop.time() + self.budget
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._bark)
        try:
            return await work
        finally:
            if self._barked:
                self._barked = False
                # Above the count at the start, somebody else wants the task cancelled too, and is obeyed.
                if self._task.uncancel() <= self._cancelling:
                    raise BudgetExceededError

    def _bark(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline:
            # Earlier evaluations were quick, so the timer is still that of the first one.
            self._timer = self._loop.call_at(self._deadline, self._bark)
        else:
            self._barked = True
            self._task.cancel()

    @property
    def is_cancelled_from_outside(self) -> bool:
        """Tell whether somebody else has asked the task to end."""
        return self._task.cancelling() > self._cancelling


@attrs.define(eq=False)
class FunctionUse:
    """One function at work for one rule of a plan, with its health and its own breaker."""

    plan: str
    name: str
    timeframe: Timeframe
    function: ExecutionFunctionBase[Any]
    evaluations: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    last_evaluated: datetime | None = None
    last_error: str = ""
    names: frozenset[str] = frozenset()
    """Its name and those of the functions that it asks in turn."""
    last_duration: float = attrs.field(default=0.0, init=False)
    """Seconds that the last evaluation took."""
    lookback: int = attrs.field(init=False)
    """Bars without which it is not asked."""
    parameters: str = attrs.field(init=False)
    """Its parameters as JSON, for the audit."""
    _resting_until: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.parameters = self.function.params.model_dump_json(exclude_none=True)
        self.lookback = self.function.required_lookback
        if type(self.lookback) is not int or self.lookback < 1:
            raise ConfigurationError(
                f"{self.name}: required_lookback is {self.lookback!r}; use a whole number from 1"
            )

    def is_resting(self, loop_time: float) -> bool:
        """Tell whether its breaker is open: it failed too often, and its next trial is not due."""
        return self.failures_in_a_row >= FAILURES_TO_OPEN and loop_time < self._resting_until

    async def ask(self, context: ExecutionContext, watchdog: Watchdog) -> ExecutionSignal | None:
        """Return the function's answer, or None when it gave none that counts; `last_error` says why."""
        self.evaluations += 1
        self.last_evaluated = context.timestamp
        answer: object = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await watchdog.run(self.function.evaluate(context))
            problem = _problem(answer, context)
            if loop.time() - began > watchdog.budget:
                # It never gave the loop a chance to cut it off.
                problem = f"blocked the loop for {(loop.time() - began) * 1000:.0f} ms"
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BudgetExceededError:
            problem = f"no answer within {watchdog.budget * 1000:g} ms"
        except asyncio.CancelledError:
            if watchdog.is_cancelled_from_outside:
                raise
            problem = "raised CancelledError"
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like are contained as well
            problem = _text_of(error)
        self.last_duration = loop.time() - began
        if not problem and type(answer) is ExecutionSignal:
            self.failures_in_a_row = 0
            return answer
        self.failures += 1
        self.failures_in_a_row += 1
        self.last_error = problem
        self._resting_until = loop.time() + OPEN_SECONDS
        log.warning(
            "function.failed",
            plan=self.plan,
            function=self.name,
            symbol=context.symbol,
            timeframe=str(context.timeframe),
            error=problem,
            failures_in_a_row=self.failures_in_a_row,
        )
        return None


def _problem(answer: object, context: ExecutionContext) -> str:
    if type(answer) is not ExecutionSignal:
        return f"returned {type(answer).__name__}, not an ExecutionSignal"
    if answer.symbol is not None and answer.symbol != context.symbol:
        return f"answered for {answer.symbol}, was asked about {context.symbol}"
    return ""


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the text of a foreign error is foreign code too
        text = "(no text)"
    return f"raised {type(error).__name__}: {redacted(text)[:200]}"

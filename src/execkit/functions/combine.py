"""Functions made of functions: agreement, absence, pauses, sessions and confirmation, in a plan file or in code.

Each part is asked at every close, in order, so that parts which keep something between bars see all of them. A part
that fails makes the whole fail: its silence never counts as an answer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec.structs import replace
from pydantic import Field, field_validator, model_validator

from execkit.functions.base import (
    ExecutionAction,
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
    Part,
)
from execkit.functions.registry import ExecutionFunctionRegistry, FunctionClass
from execkit.model.fields import Path as KeyPath
from execkit.numbers import ONE

_INSTANT: Final = timedelta(microseconds=1)
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Bars = Annotated[int, Field(ge=1, le=1000)]


class OfParams(FunctionParams):
    """Parameters of `all_of` and `any_of`."""

    of: Annotated[tuple[Part, ...], Field(strict=False, min_length=1)]
    """The functions that are asked."""


class KOfNParams(OfParams):
    """Parameters of `k_of_n`."""

    k: Annotated[int, Field(ge=1)]
    """How many have to agree."""

    @model_validator(mode="after")
    def _check_k(self) -> Self:
        if self.k > len(self.of):
            raise ValueError(f"k: {self.k} cannot agree where {len(self.of)} are asked")
        return self


class OneParams(FunctionParams):
    """Parameters of a function that changes the answers of one other."""

    of: Part
    """The function that is asked."""


class NotParams(OneParams):
    """Parameters of `not_`."""

    action: Literal["enter_long", "enter_short", "exit"]
    """What its silence means."""


class BarsParams(OneParams):
    """Parameters of `cooldown` and `confirm`."""

    bars: Bars
    """Length of the pause, or closes in a row."""


class SessionParams(OneParams):
    """Parameters of `only_in_session`. Times are `HH:MM` in *timezone*; an *end* before *start* is on the next day."""

    start: str
    """Time of day after which closes count."""
    end: str
    """Time of day up to and with which they count."""
    timezone: str
    """IANA name of the zone of both, e.g. `America/New_York`."""
    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...],
        Field(strict=False, min_length=1),
    ] = _DAYS
    """Days on which the session starts."""

    @field_validator("start", "end")
    @classmethod
    def _check_time(cls, value: str) -> str:
        try:
            datetime.strptime(value, "%H:%M")  # noqa: DTZ007 - a time of day
        except ValueError:
            raise ValueError(f"{value!r} is not a time of day; write HH:MM, e.g. 09:30") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"{value!r} is not a time zone; use an IANA name, e.g. America/New_York"
            ) from None
        return value

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.start == self.end:
            raise ValueError(f"end: {self.end} is the start; a session has a length")
        return self


P = TypeVar("P", bound=FunctionParams)
M = TypeVar("M", bound=OfParams)
W = TypeVar("W", bound=OneParams)


class _Combinator(ExecutionFunctionBase[P]):
    """A function that asks others; it needs as many bars as the one of them that needs most."""

    def __init__(self, params: P, parts: Sequence[ExecutionFunctionBase[Any]]) -> None:
        super().__init__(params)
        self.parts = tuple(parts)
        self.required_lookback = max(part.required_lookback for part in self.parts)

    @classmethod
    def build(cls, params: P, parts: Sequence[ExecutionFunctionBase[Any]]) -> Self:
        """Return an instance that asks *parts*."""
        return cls(params, parts)

    async def _ask(self, context: ExecutionContext) -> list[ExecutionSignal]:
        answers = []
        for part in self.parts:
            answer = await part.evaluate(replace(context, parameters=part.params))
            if type(answer) is not ExecutionSignal:
                raise TypeError(
                    f"{part!r} returned {type(answer).__name__}, not an ExecutionSignal"
                )
            if answer.symbol not in (None, context.symbol):
                raise ValueError(f"{part!r} answered for {answer.symbol}, not {context.symbol}")
            answers.append(answer)
        return answers


class _Vote(_Combinator[M]):
    """Acts where enough parts want the same."""

    @classmethod
    def parts_of(cls, params: M) -> Iterable[tuple[KeyPath, Part]]:
        """Return the voters."""
        return [(("of", place), part) for place, part in enumerate(params.of)]

    @property
    @abstractmethod
    def needed(self) -> int:
        """How many have to agree."""

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Ask every part and count."""
        answers = await self._ask(context)
        votes: dict[ExecutionAction, list[ExecutionSignal]] = {}
        for answer in answers:
            if answer.action is not ExecutionAction.NONE:
                votes.setdefault(answer.action, []).append(answer)
        most = max(map(len, votes.values()), default=0)
        leaders = [action for action, voters in votes.items() if len(voters) == most]
        names = [part.function for part in self.params.of]
        said = "; ".join(
            f"{name}: {answer.reasoning or answer.action}"
            for name, answer in zip(names, answers, strict=True)
        )
        if most < self.needed:
            return ExecutionSignal.none(
                f"{most} of {len(names)} agree, {self.needed} needed: {said}"
            )
        if len(leaders) > 1:
            return ExecutionSignal.none(f"as many want {' as '.join(leaders)}: {said}")
        agreeing = votes[leaders[0]]
        return ExecutionSignal(
            action=leaders[0],
            confidence=sorted((a.confidence for a in agreeing), reverse=True)[self.needed - 1],
            reasoning=f"{most} of {len(names)} agree: {said}",
            stop_loss=next((a.stop_loss for a in agreeing if a.stop_loss is not None), None),
            take_profit=next((a.take_profit for a in agreeing if a.take_profit is not None), None),
            new_stop=agreeing[0].new_stop,
        )


class AllOf(_Vote[OfParams]):
    """Act when all parts want the same; the confidence is the lowest of theirs.

    The levels of an entry are those of the first part that states one.
    """

    params_model = OfParams

    @property
    def needed(self) -> int:
        """All."""
        return len(self.parts)


class AnyOf(_Vote[OfParams]):
    """Act when at least one part wants something; the confidence is the highest of those that want it.

    Of different wishes the one of most parts counts; with as many on both sides it does nothing.
    """

    params_model = OfParams

    @property
    def needed(self) -> int:
        """One."""
        return 1


class KOfN(_Vote[KOfNParams]):
    """Act when at least *k* parts want the same; the confidence is the *k*-th highest of theirs.

    Of different wishes the one of most parts counts; with as many on both sides it does nothing.
    """

    params_model = KOfNParams

    @property
    def needed(self) -> int:
        """As many as the plan says."""
        return self.params.k


class _Wrapper(_Combinator[W]):
    """Changes the answers of one part."""

    @classmethod
    def parts_of(cls, params: W) -> Iterable[tuple[KeyPath, Part]]:
        """Return the one part."""
        return [(("of",), params.of)]


class Not(_Wrapper[NotParams]):
    """Answer *action*, with confidence 1, when the part wants nothing, and nothing when it wants anything.

    Inside `all_of` it is a veto: the others decide the confidence.
    """

    params_model = NotParams

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Turn the part's answer around."""
        (answer,) = await self._ask(context)
        name = self.params.of.function
        if answer.action is not ExecutionAction.NONE:
            return ExecutionSignal.none(f"{name} wants {answer.action}: {answer.reasoning}")
        return ExecutionSignal(
            action=ExecutionAction(self.params.action),
            confidence=ONE,
            reasoning=f"{name} wants nothing: {answer.reasoning}",
        )


class Cooldown(_Wrapper[BarsParams]):
    """Pass the part's answer on, and after it wanted something nothing at the next *bars* closes.

    Bars count, asked or not, so hours without trading are no part of the pause. A restart ends it early.
    """

    params_model = BarsParams

    def __init__(self, params: BarsParams, parts: Sequence[ExecutionFunctionBase[Any]]) -> None:
        super().__init__(params, parts)
        self._wished_at: datetime | None = None
        """Close at which the last wish was passed on."""

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Pass the answer on unless it comes during a pause."""
        (answer,) = await self._ask(context)
        if answer.action is ExecutionAction.NONE:
            return answer
        since, bars = self._wished_at, self.params.bars
        if since is not None and self._is_within(context, since, bars):
            return ExecutionSignal.none(
                f"pauses for {bars} bars since {since.isoformat()}, wanted {answer.action}: {answer.reasoning}"
            )
        self._wished_at = context.bar.close_time
        return answer

    @staticmethod
    def _is_within(context: ExecutionContext, since: datetime, bars: int) -> bool:
        """Tell whether no more than *bars* bars have closed since; by time where history does not reach back."""
        history = context.history
        if history[0].close_time > since:
            return context.bar.close_time <= since + context.timeframe.duration * bars
        return len(history) <= bars or history[-bars - 1].close_time <= since


class Confirm(_Wrapper[BarsParams]):
    """Pass the part's answer on once it has wanted the same at *bars* closes in a row, this one included.

    A close at which it was not asked, or a restart, begins the count anew.
    """

    params_model = BarsParams

    def __init__(self, params: BarsParams, parts: Sequence[ExecutionFunctionBase[Any]]) -> None:
        super().__init__(params, parts)
        self._last: datetime | None = None
        self._action = ExecutionAction.NONE
        self._count = 0

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Count how often the part has said the same."""
        before = context.history[-2].close_time if len(context.history) > 1 else None
        follows = self._last is not None and self._last == before
        self._last = context.bar.close_time
        # The count starts anew unless all goes well: a part that fails is one that did not say it.
        count, self._count = self._count, 0
        (answer,) = await self._ask(context)
        self._count = count + 1 if follows and answer.action is self._action else 1
        self._action = answer.action
        bars = self.params.bars
        if answer.action is ExecutionAction.NONE or self._count >= bars:
            return answer
        return ExecutionSignal.none(
            f"{answer.action} at {self._count} of {bars} closes: {answer.reasoning}"
        )


class OnlyInSession(_Wrapper[SessionParams]):
    """Pass the part's answer on at closes after *start* up to and with *end*, on *days*, and nothing at others."""

    params_model = SessionParams

    def __init__(self, params: SessionParams, parts: Sequence[ExecutionFunctionBase[Any]]) -> None:
        super().__init__(params, parts)
        self._zone = ZoneInfo(params.timezone)
        self._start, self._end = time.fromisoformat(params.start), time.fromisoformat(params.end)

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        """Pass the answer on inside the session."""
        (answer,) = await self._ask(context)
        if answer.action is ExecutionAction.NONE or self._is_open(context.bar.close_time):
            return answer
        return ExecutionSignal.none(
            f"outside {self.params.start}-{self.params.end} {self.params.timezone}, "
            f"wanted {answer.action}: {answer.reasoning}"
        )

    def _is_open(self, close: datetime) -> bool:
        # The last instant of the bar: a close at the end belongs to the session, one at the start does not.
        local = (close - _INSTANT).astimezone(self._zone)
        now, day = local.time(), local.weekday()
        if self._start < self._end:
            is_open = self._start <= now < self._end
        else:
            is_open = now >= self._start or now < self._end
            day -= now < self._end
        return is_open and _DAYS[day % 7] in self.params.days


COMBINATORS: Final[dict[str, FunctionClass]] = {
    "all_of": AllOf,
    "any_of": AnyOf,
    "k_of_n": KOfN,
    "not_": Not,
    "cooldown": Cooldown,
    "confirm": Confirm,
    "only_in_session": OnlyInSession,
}


def register_combinators(registry: ExecutionFunctionRegistry) -> None:
    """Register all of them in *registry*, where they are not in it yet."""
    for name, function in COMBINATORS.items():
        if name not in registry:
            registry.register(name, actor="execkit")(function)

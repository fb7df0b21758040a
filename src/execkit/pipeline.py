"""The chain of handlers: a flat ordered list, wrapped from the inside out for every ticket."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from typing import Final, Protocol, runtime_checkable

import structlog
from msgspec.structs import replace

from execkit.errors import ConfigurationError, PipelineError
from execkit.model.denial import DenialCode
from execkit.model.result import ExecutionResult, HandlerTrace, Outcome
from execkit.model.ticket import OrderTicket
from execkit.orders.outcomes import Executed
from execkit.redaction import shown, words_of

Next = Callable[[OrderTicket], Awaitable[ExecutionResult]]
"""The rest of the chain. It works once: a second call raises before anything is sent."""

log = structlog.get_logger("execkit")


@runtime_checkable
class ExecutionHandler(Protocol):
    """One link of the chain.

    Return `ticket.deny(...)` to stop, `await call_next(ticket)` to go on, perhaps with a changed ticket. A
    handler keeps no per-order state on itself, because many tickets pass at once. A handler that defines
    `bind(desk)` is given the engine's services when the engine is built. One that waits on purpose, and bounds that
    itself, sets `deadline = None`; another `timedelta` replaces the pipeline's deadline.
    """

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Judge a ticket."""
        ...


HandlerFunction = Callable[[OrderTicket, Next], Awaitable[ExecutionResult]]

DEADLINE: Final = timedelta(seconds=30)
"""How long a handler before the executor may take for itself."""


def handler(function: HandlerFunction) -> HandlerFunction:
    """Mark an async function `(ticket, call_next) -> ExecutionResult` as a handler.

    Raises `PipelineError` when the function has another shape.
    """
    if not inspect.iscoroutinefunction(function):
        raise PipelineError(f"{_name_of(function)}: a handler must be an `async def` function")
    if len(inspect.signature(function).parameters) != 2:
        raise PipelineError(f"{_name_of(function)}: a handler takes (ticket, call_next)")
    return function


def _name_of(link: object) -> str:
    return getattr(link, "__name__", None) or type(link).__name__


class ExecutionPipeline:
    """An ordered chain of handlers, checked when it is built.

    `insert`, `replace`, `remove` and `move` return a new pipeline. A chain needs exactly one executor; handlers
    that need a sent order come after it, and those that judge the request come before. A chain without a risk
    handler sends nothing, unless *unchecked* says that this is meant.

    A handler before the executor that takes longer than *deadline* for itself denies the ticket. What comes further in
    does not count: an order that is being sent is never cut off.
    """

    def __init__(
        self,
        handlers: Iterable[HandlerFunction],
        *,
        unchecked: bool = False,
        deadline: timedelta = DEADLINE,
    ) -> None:
        self.handlers: tuple[HandlerFunction, ...] = tuple(handlers)
        self.unchecked = unchecked
        if deadline <= timedelta(0):
            raise ConfigurationError(f"deadline: {deadline!r} must be above zero")
        self.deadline = deadline
        self._check()
        executor = [getattr(link, "place", None) for link in self.handlers].index("executor")
        self._limits = tuple(_seconds(link, deadline) for link in self.handlers[:executor])

    def _check(self) -> None:
        seen_executor = False
        stamps = False
        for link in self.handlers:
            name = _name_of(link)
            if inspect.isclass(link):
                raise PipelineError(f"{name}: pass an instance, {name}(), not the class")
            if not callable(link):
                raise PipelineError(f"{link!r} is not a handler: it cannot be called")
            place = getattr(link, "place", None)
            if place == "executor":
                if seen_executor:
                    raise PipelineError(f"{name}: a chain has exactly one executor")
                if not stamps and not self.unchecked:
                    raise PipelineError(
                        f"{name}: no risk handler comes before it, so it would send nothing; add "
                        "RiskManagementHandler() or pass unchecked=True"
                    )
                seen_executor = True
            elif place == "before" and seen_executor:
                raise PipelineError(f"{name} must come before the executor")
            elif place == "after" and not seen_executor:
                raise PipelineError(f"{name} must come after the executor")
            stamps = stamps or bool(getattr(link, "stamps_risk", False))
        if not seen_executor:
            raise PipelineError("the chain has no executor; add OrderExecutorHandler()")

    def bind(self, desk: object) -> None:
        """Give the engine's services to the handlers that ask for them."""
        for link in self.handlers:
            bind = getattr(link, "bind", None)
            if bind is not None:
                bind(desk)

    async def __call__(self, ticket: OrderTicket) -> ExecutionResult:
        """Send a ticket through the chain; the result carries one trace entry per handler reached."""
        run = _Run(self.handlers, self._limits, asyncio.get_running_loop().time)
        result = await run.link(0, ticket)
        return result.with_trace(run.finished())

    def index(self, which: type | str | HandlerFunction) -> int:
        """Return the place of a handler, found by type, name or identity."""
        for place, link in enumerate(self.handlers):
            if (
                link is which
                or _name_of(link) == which
                or (isinstance(which, type) and isinstance(link, which))
            ):
                return place
        names = ", ".join(_name_of(link) for link in self.handlers)
        raise PipelineError(
            f"no handler {_name_of(which) if not isinstance(which, str) else which!r} in: {names}"
        )

    def insert(
        self,
        new: HandlerFunction,
        *,
        before: type | str | HandlerFunction | None = None,
        after: type | str | HandlerFunction | None = None,
    ) -> ExecutionPipeline:
        """Return a pipeline with *new* before or after another handler."""
        if (before is None) == (after is None):
            raise PipelineError("insert() needs exactly one of before= and after=")
        place = self.index(before) if before is not None else self.index(after) + 1  # type: ignore[arg-type]
        links = list(self.handlers)
        links.insert(place, new)
        return self._with(links)

    def replace(
        self, which: type | str | HandlerFunction, new: HandlerFunction
    ) -> ExecutionPipeline:
        """Return a pipeline with *new* in the place of another handler."""
        links = list(self.handlers)
        links[self.index(which)] = new
        return self._with(links)

    def remove(self, which: type | str | HandlerFunction) -> ExecutionPipeline:
        """Return a pipeline without a handler."""
        place = self.index(which)
        return self._with([link for at, link in enumerate(self.handlers) if at != place])

    def move(self, which: type | str | HandlerFunction, to: int) -> ExecutionPipeline:
        """Return a pipeline with a handler moved to the place *to*, counted from zero."""
        links = list(self.handlers)
        links.insert(to, links.pop(self.index(which)))
        return self._with(links)

    def _with(self, links: list[HandlerFunction]) -> ExecutionPipeline:
        return ExecutionPipeline(links, unchecked=self.unchecked, deadline=self.deadline)

    def __iter__(self) -> Iterator[HandlerFunction]:
        return iter(self.handlers)

    def __len__(self) -> int:
        return len(self.handlers)

    def __repr__(self) -> str:
        lines = ["ExecutionPipeline"]
        lines += [f"{'  ' * depth}└─ {_name_of(link)}" for depth, link in enumerate(self.handlers)]
        lines.append(f"{'  ' * len(self.handlers)}└─ (result)")
        return "\n".join(lines)


def _seconds(link: object, deadline: timedelta) -> float | None:
    own: timedelta | None = getattr(link, "deadline", deadline)
    return None if own is None else own.total_seconds()


class _Run:
    """One ticket's way through the chain. *limits* are those of the handlers before the executor, in seconds."""

    __slots__ = ("_clock", "_entries", "_handlers", "_limits")

    def __init__(
        self,
        handlers: tuple[HandlerFunction, ...],
        limits: tuple[float | None, ...],
        clock: Callable[[], float],
    ) -> None:
        self._handlers = handlers
        self._limits = limits
        self._clock = clock
        self._entries: list[HandlerTrace | None] = []

    async def link(self, place: int, ticket: OrderTicket) -> ExecutionResult:
        if place == len(self._handlers):
            return finish(ticket)
        link = self._handlers[place]
        self._entries.append(None)
        passed: OrderTicket | None = None
        inner_result: ExecutionResult | None = None
        ended: asyncio.Future[None] | None = None
        inner_seconds, is_inside, is_over = 0.0, False, False

        async def call_next(changed: OrderTicket) -> ExecutionResult:
            nonlocal passed, inner_result, inner_seconds, is_inside
            if passed is not None or is_over:
                problem = "twice; a ticket travels once" if passed is not None else "after its end"
                raise PipelineError(f"{_name_of(link)} called call_next {problem}")
            passed = changed
            inner_start = self._clock()
            if limit is not None:
                limit.reschedule(None)
            is_inside = True
            try:
                inner_result = await self.link(place + 1, changed)
                return inner_result
            finally:
                is_inside = False
                inner_seconds = self._clock() - inner_start
                if ended is not None:
                    ended.set_result(None)
                elif limit is not None:
                    limit.reschedule(end + inner_seconds)

        start = self._clock()
        seconds = self._limits[place] if place < len(self._limits) else None
        end = start + (seconds or 0.0)
        limit = None if seconds is None else asyncio.timeout_at(end)
        try:
            if limit is None:
                result = await link(ticket, call_next)
            else:
                result = await _within(limit, link, ticket, call_next)
            if not isinstance(result, ExecutionResult):
                raise PipelineError(f"{_name_of(link)} returned {result!r}, not an ExecutionResult")  # noqa: TRY301
            if is_inside:
                raise PipelineError(f"{_name_of(link)} did not wait for call_next")  # noqa: TRY301
            if inner_result is not None and inner_result.order is not None and result.order is None:
                raise PipelineError(  # noqa: TRY301
                    f"{_name_of(link)} hid a sent order; return what call_next gave, or a copy of it"
                )
        except Exception as error:  # noqa: BLE001 - whatever a handler raises ends here
            if is_inside:
                await (ended := asyncio.get_running_loop().create_future())
            result = _after_failure(link, ticket, inner_result, error)
            log.error(  # noqa: TRY400 - rendering a traceback takes longer than an order
                "handler.failed",
                handler=_name_of(link),
                signal_id=ticket.signal_id,
                error=shown(error),
            )
            self._put(place, link, "raised", words_of(error), start, inner_seconds)
            return result
        finally:
            is_over = True
        if passed is None:
            verdict = "denied" if result.outcome is Outcome.DENIED else result.outcome.value
            self._put(place, link, verdict, result.reason, start, 0.0)
        else:
            changes = _changes(ticket, passed)
            self._put(
                place,
                link,
                "changed" if changes else "passed",
                _remarks(ticket, passed, changes),
                start,
                inner_seconds,
            )
        return result

    def _put(
        self, place: int, link: object, verdict: str, reason: str, start: float, inner: float
    ) -> None:
        seconds = self._clock() - start - inner
        self._entries[place] = HandlerTrace(_name_of(link), verdict, reason, seconds)

    def finished(self) -> list[HandlerTrace]:
        return [entry for entry in self._entries if entry is not None]


def _after_failure(
    link: HandlerFunction, ticket: OrderTicket, inner: ExecutionResult | None, error: Exception
) -> ExecutionResult:
    """Return what came of a ticket although a handler failed."""
    if inner is not None:
        # What was done further in is done: a failure on the way back must not hide an order.
        result = inner
    elif ticket.order is not None:
        result = finish(ticket)
    else:
        result = ticket.deny(
            DenialCode.HANDLER_FAILED,
            handler=_name_of(link),
            error=words_of(error),
        )
    return result.with_alert(f"{_name_of(link)} raised {words_of(error)}")


async def _within(
    limit: asyncio.Timeout, link: HandlerFunction, ticket: OrderTicket, call_next: Next
) -> ExecutionResult:
    try:
        async with limit:
            return await link(ticket, call_next)
    except TimeoutError:
        if not limit.expired():
            raise
        raise PipelineError(f"{_name_of(link)} took too long") from None


_WATCHED = (
    "quantity",
    "limit_price",
    "stop_price",
    "stop_loss",
    "take_profit",
    "type",
    "time_in_force",
)


def _changes(before: OrderTicket, after: OrderTicket) -> str:
    if before is after:
        return ""
    texts = []
    for name in _WATCHED:
        old, new = getattr(before, name), getattr(after, name)
        if old is not new and old != new:
            texts.append(f"{name} {'unset' if old is None else old} -> {new}")
    return ", ".join(texts)


def _remarks(before: OrderTicket, after: OrderTicket, changes: str) -> str:
    new_notes = after.notes[len(before.notes) :]
    if not new_notes:
        return changes
    return "; ".join(([changes] if changes else []) + list(new_notes))


def finish(ticket: OrderTicket) -> ExecutionResult:
    """Turn a ticket's orders, as they stand now, into the result; the innermost link of each chain."""
    order = ticket.order
    if order is None:
        raise PipelineError("the chain ended without an executor having sent the order")
    done = Executed.of((*ticket.parts, order), ticket.requested)
    return replace(
        ticket.result(done.outcome, reason=order.reason),
        requested=done.requested,
        filled=done.filled,
        average_price=done.average_price,
        fills=done.fills,
    )

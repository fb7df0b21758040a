"""The guards of a simulated chain, each between two probes: what goes in, what gets through, and what came of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from execkit.handlers.breaker import CircuitBreakerHandler
from execkit.handlers.confirmation import ConfirmationHandler
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.handlers.throttle import RateLimitHandler
from execkit.model.denial import DenialCode
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.ticket import OrderTicket
from execkit.pipeline import ExecutionPipeline, HandlerFunction, Next
from execkit.testing.simulation.features import Feature
from execkit.testing.simulation.hours import Hours
from execkit.testing.simulation.judges import Need

_FAILURES: Final = 2
_OPEN_FOR: Final = timedelta(seconds=60)
_COUNT: Final = 2
_PER: Final = timedelta(seconds=15)
_QUOTED: Final = 5.0
"""Seconds that a new quote may take after the turn of an entry has come."""
_ASKED_FOR: Final = timedelta(seconds=10)
_BELIEVED: Final = 50.0
"""Seconds for which an old word about the market may be believed: 15, longer when the clock is set back meanwhile."""


class Fence:
    """Watches one guard from both sides: a reduction that comes gets through at the same moment."""

    def __init__(self, name: str, need: Need, reached: Counter[str]) -> None:
        self.name = name
        self.need = need
        self.reached = reached
        self._inside: dict[str, float] = {}

    def around(self, guard: HandlerFunction) -> list[HandlerFunction]:
        """Return the guard between its probes."""
        return [self._before, guard, self._after]

    @staticmethod
    def now() -> float:
        """Return the moment on the loop."""
        return asyncio.get_running_loop().time()

    async def _before(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        if not ticket.is_reduction:
            result = await call_next(ticket)
            self.answered(ticket, result)
            return result
        self._inside[ticket.signal_id] = self.now()
        try:
            return await call_next(ticket)
        finally:
            held = self._inside.pop(ticket.signal_id, None)
            self.need("I15", held is None, f"{self.name} held up {ticket.signal_id}, a reduction")

    async def _after(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        if ticket.is_reduction:
            came = self._inside.pop(ticket.signal_id, None)
            at_once = came is not None and came == self.now()
            self.need("I15", at_once, f"{self.name} let {ticket.signal_id}, a reduction, wait")
            self.reached[f"{self.name}:reduction"] += 1
            return await call_next(ticket)
        self.passed(ticket)
        try:
            result = await call_next(ticket)
        except BaseException:
            self.failed(ticket)
            raise
        self.came(ticket, result)
        return result

    def passed(self, ticket: OrderTicket) -> None:
        """See an entry that got through."""

    def came(self, ticket: OrderTicket, result: ExecutionResult) -> None:
        """See what came of it."""

    def failed(self, ticket: OrderTicket) -> None:
        """See that the chain raised."""

    def answered(self, ticket: OrderTicket, result: ExecutionResult) -> None:
        """See what an entry was told from here on."""

    def _denied(self, result: ExecutionResult, code: DenialCode) -> bool:
        return result.denial is not None and result.denial.code is code


class RateFence(Fence):
    """No more entries get through in a window than were asked for."""

    def __init__(self, name: str, need: Need, reached: Counter[str]) -> None:
        super().__init__(name, need, reached)
        self._passed: deque[float] = deque(maxlen=_COUNT)

    def passed(self, ticket: OrderTicket) -> None:
        """Count it."""
        now = self.now()
        if len(self._passed) == _COUNT:
            apart = now - self._passed[0]
            room = apart >= _PER.total_seconds() - _QUOTED - 1e-6
            self.need("I10", room, f"{ticket.signal_id}: {_COUNT + 1} entries within {apart:.2f} s")
        self._passed.append(now)
        self.reached["rate_limit:waited"] += any("for its turn" in note for note in ticket.notes)


class BreakerFence(Fence):
    """After so many failures in a row no entry gets through for a while."""

    def __init__(self, name: str, need: Need, reached: Counter[str]) -> None:
        super().__init__(name, need, reached)
        self._in_a_row = 0
        self._failed_at = 0.0

    def passed(self, ticket: OrderTicket) -> None:
        """See whether it should have."""
        is_open = self._in_a_row >= _FAILURES
        since = self.now() - self._failed_at
        over = since >= _OPEN_FOR.total_seconds() - 1e-6
        text = f"{ticket.signal_id} passed {since:.1f} s after {self._in_a_row} failures in a row"
        self.need("I29", not is_open or over, text)
        self.reached["breaker:trial"] += is_open and over

    def failed(self, ticket: OrderTicket) -> None:
        """Count a failure; one that comes while it is open prolongs nothing that was promised."""
        self._in_a_row += 1
        self._failed_at = self.now()

    def came(self, ticket: OrderTicket, result: ExecutionResult) -> None:
        """Count what came of it."""
        outcome = result.outcome
        bad = outcome in (Outcome.REJECTED, Outcome.IN_DOUBT)
        if bad or self._denied(result, DenialCode.VENUE_UNAVAILABLE):
            self.failed(ticket)
        elif outcome not in (Outcome.DENIED, Outcome.QUEUED):
            self._in_a_row = 0

    def answered(self, ticket: OrderTicket, result: ExecutionResult) -> None:
        """Count denials."""
        self.reached["breaker:denied"] += self._denied(result, DenialCode.CIRCUIT_OPEN)


class HoursFence(Fence):
    """No entry gets through while the market is known to be closed."""

    def __init__(self, name: str, need: Need, reached: Counter[str], hours: Hours) -> None:
        super().__init__(name, need, reached)
        self._hours = hours

    def passed(self, ticket: OrderTicket) -> None:
        """See whether the market is open."""
        if any("is not known" in note for note in ticket.notes):
            self.reached["market_hours:unknown"] += 1
            return
        closed_for = self._hours.closed_for()
        text = f"{ticket.signal_id} passed {closed_for:.0f} s after the market has closed"
        self.need("I15", closed_for < _BELIEVED, text)

    def answered(self, ticket: OrderTicket, result: ExecutionResult) -> None:
        """Count what waits for the opening."""
        closed = self._hours.closed_for() > 0
        self.reached["market_hours:queued"] += closed and result.outcome is Outcome.QUEUED


class ConfirmationFence(Fence):
    """No entry gets through without a yes; *confirmed* is what people have said last, by signal."""

    def __init__(
        self, name: str, need: Need, reached: Counter[str], confirmed: dict[str, bool]
    ) -> None:
        super().__init__(name, need, reached)
        self._confirmed = confirmed

    def passed(self, ticket: OrderTicket) -> None:
        """See whether somebody has said yes; of slices the parent was asked about."""
        key = ticket.signal.slice_of or ticket.signal_id
        yes = self._confirmed.get(key, False)
        self.need("I15", yes, f"{ticket.signal_id} passed, and nobody has said yes")
        self.reached["confirmation:yes"] += 1

    def answered(self, ticket: OrderTicket, result: ExecutionResult) -> None:
        """Count denials."""
        self.reached["confirmation:no"] += self._denied(result, DenialCode.NOT_CONFIRMED)


def person(
    rng: random.Random, confirmed: dict[str, bool]
) -> Callable[[OrderTicket], Awaitable[bool]]:
    """Return somebody who answers soon, late or never; what is said after the time-out counts for nothing."""

    async def ask(ticket: OrderTicket) -> bool:
        confirmed[ticket.signal_id] = False
        await asyncio.sleep(rng.choice((0.1, 0.5, 2.0, 60.0)))
        answer = rng.random() < 0.8
        confirmed[ticket.signal_id] = answer
        return answer

    return ask


def guarded(
    pipeline: ExecutionPipeline,
    features: frozenset[Feature],
    hours: Hours | None,
    need: Need,
    reached: Counter[str],
    rng: random.Random,
    confirmed: dict[str, bool],
) -> ExecutionPipeline:
    """Return the pipeline with the guards that the features ask for, right before the executor."""
    added: list[HandlerFunction] = []
    if Feature.RATE_LIMIT in features:
        rate = RateLimitHandler(_COUNT, _PER)
        added += RateFence("rate_limit", need, reached).around(rate)
    if hours is not None:
        fence = HoursFence("market_hours", need, reached, hours)
        added += fence.around(MarketHoursHandler())
    if Feature.CONFIRMATION in features:
        asking = ConfirmationHandler(person(rng, confirmed), timeout=_ASKED_FOR)
        added += ConfirmationFence("confirmation", need, reached, confirmed).around(asking)
    if Feature.BREAKER in features:
        breaker = CircuitBreakerHandler(failures=_FAILURES, open_for=_OPEN_FOR)
        added += BreakerFence("breaker", need, reached).around(breaker)
    (executor,) = (link for link in pipeline if getattr(link, "place", None) == "executor")
    for each in added:
        pipeline = pipeline.insert(each, before=executor)
    return pipeline

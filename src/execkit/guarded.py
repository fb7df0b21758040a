"""Breakers around what is asked of a venue for entries: one for reads, one for market data, beside that for orders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import structlog

from execkit.errors import (
    ExchangeUnavailableError,
    OrderNotFoundError,
    OrderRejectedError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.redaction import shown
from execkit.risk.breaker import CircuitBreaker

log = structlog.get_logger("execkit")

T = TypeVar("T")

_ANSWERS: Final = (OrderRejectedError, OrderNotFoundError)
"""Refusals of a venue that works: they say something of a symbol."""
_NEITHER: Final = (RateLimitError, UnsupportedFeatureError)
"""What may be said here without asking the venue: during its pause, or of what its adapter cannot do."""


class Ask(Protocol):
    """Makes a query, bounded by a number of seconds, about one symbol."""

    async def __call__(
        self, query: Callable[[str], Awaitable[T]], timeout: float, symbol: str, /
    ) -> T:
        """Return what the query returns; raise what it raises."""


class GuardedAsk:
    """Asks nothing of *what* for half a minute after five failures in a row, and then tries once.

    What concerns something that is held (*is_held*) is asked all the same, and counts too: protection and exits never
    wait for a breaker. A venue that is asked for an unknown symbol has answered; a pause of it says nothing. *alarm* is
    told of the first opening until it works again, by code and text. *passes* counts the comparisons with the venue:
    after one that came after the last failure it is tried at once.
    """

    def __init__(
        self,
        what: str,
        ask: Ask,
        *,
        is_held: Callable[[str], bool],
        alarm: Callable[[str, str], object],
        passes: Callable[[], int] = lambda: 0,
    ) -> None:
        self.breaker = CircuitBreaker()
        self._what = what
        self._ask = ask
        self._is_held = is_held
        self._alarm = alarm
        self._passes = passes
        self._failed_after = 0

    async def __call__(
        self, query: Callable[[str], Awaitable[T]], timeout: float, symbol: str, /
    ) -> T:
        """Ask, bounded by *timeout* seconds; raises `ExchangeUnavailableError` while nothing is asked."""
        now, breaker = asyncio.get_running_loop().time, self.breaker
        is_trial = not self._is_held(symbol)
        if self._passes() > self._failed_after:
            breaker.hurry()
        if is_trial and not breaker.admit(now()):
            raise ExchangeUnavailableError(
                f"no {self._what} are asked for {breaker.left(now()):.0f} s: {breaker.in_a_row} failures in a row"
            )
        try:
            answer = await self._ask(query, timeout, symbol)
        except _ANSWERS:
            breaker.succeed()
            raise
        except _NEITHER:
            if is_trial:
                breaker.abandon()
            raise
        except Exception as error:
            self._failed(now(), error)
            raise
        except BaseException:
            if is_trial:
                breaker.abandon()
            raise
        breaker.succeed()
        return answer

    def _failed(self, now: float, error: Exception) -> None:
        breaker, self._failed_after = self.breaker, self._passes()
        if breaker.fail(now) and breaker.in_a_row == breaker.failures:
            log.error("breaker.opened", what=self._what, error=shown(error))
            text = f"{breaker.in_a_row} {self._what} in a row failed, the last one: {error!r}; entries wait"
            self._alarm("CIRCUIT_OPEN", text)

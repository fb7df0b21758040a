"""Waiting: for an order to change, without polling; for a venue that asked for a pause; for the next turn to send."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import Enum
from typing import ParamSpec, TypeVar

from execkit.errors import RateLimitError
from execkit.model.denial import Denial
from execkit.model.records import Record
from execkit.model.ticket import OrderTicket
from execkit.orders.manager import ManagedOrder

P = ParamSpec("P")
T = TypeVar("T")


class Use(Enum):
    """What a command is for, and which share of the venue's rate is kept from it for more urgent ones."""

    ENTRY = 0.2
    CHANGE = 0.1
    """Cancels and amendments of entries."""
    REDUCTION = 0.0
    """Stops and everything else that makes a position smaller, with their cancels and amendments."""


class Pace:
    """Keeps everything from leaving before the venue's Retry-After has ended: asking on prolongs a ban."""

    def __init__(self) -> None:
        self._until = 0.0
        self._began = 0.0

    @property
    def span(self) -> tuple[float, float]:
        """Begin and end of the last pause, by the loop's time; one that was prolonged counts as one."""
        return self._began, self._until

    def note(self, error: RateLimitError) -> None:
        """Take in for how long the venue wants to be left alone."""
        if error.retry_after is not None:
            now = asyncio.get_running_loop().time()
            if self._until <= now:
                self._began = now
            self._until = max(self._until, now + error.retry_after.total_seconds())

    def left(self) -> float:
        """Return the seconds until something may leave; zero or less: now."""
        return self._until - asyncio.get_running_loop().time()

    async def turn(self) -> None:
        """Wait until something may leave."""
        while (left := self.left()) > 0:  # noqa: ASYNC110 - it may be prolonged meanwhile
            await asyncio.sleep(left)

    async def ask(
        self, query: Callable[P, Awaitable[T]], timeout: float, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make a query, bounded by *timeout* seconds; raises what it raises.

        A pause longer than that is a `RateLimitError`, and nothing is asked.
        """
        left = self.left()
        if left > timeout:
            raise RateLimitError("the venue asked for a pause", retry_after=timedelta(seconds=left))
        await self.turn()
        try:
            async with asyncio.timeout(timeout):
                return await query(*args, **kwargs)
        except RateLimitError as error:
            self.note(error)
            raise


class Throttle:
    """Lets no more commands leave than the venue takes: *rate* is a count in any window of a duration; None: all.

    Commands wait in line instead of being dropped. Each use has a line of its own and leaves a part of the window to
    the more urgent ones, so that entries never keep a cancel waiting, nor many cancels a stop.
    """

    def __init__(self, rate: tuple[int, timedelta] | None) -> None:
        self.rate = rate
        self._sent: deque[float] = deque()
        """When the commands left that the present window counts."""
        self._lines = {use: asyncio.Lock() for use in Use}
        self._waiting = dict.fromkeys(Use, 0)

    def limit(self, use: Use) -> int:
        """Return how many commands of all kinds may have left in a window for one more of this use to leave."""
        count = 0 if self.rate is None else self.rate[0]
        return max(count - round(count * use.value), 1)

    def wait(self, use: Use, count: int = 1) -> float:
        """Return the seconds until so many commands may leave together, if nothing else does before; zero: now."""
        if self.rate is None:
            return 0.0
        now, window = asyncio.get_running_loop().time(), self.rate[1].total_seconds()
        while self._sent and self._sent[0] + window <= now:
            self._sent.popleft()
        limit = self.limit(use)
        over = len(self._sent) + min(count, limit) - 1 - limit
        return 0.0 if over < 0 else self._sent[over] + window - now

    def take_now(self, use: Use, count: int = 1) -> bool:
        """Take a turn if that needs no wait and nobody is in line before; return whether it was taken."""
        if self.rate is None:
            return True
        if self._waiting[use] or self.wait(use, count) > 0:
            return False
        self._take(count)
        return True

    async def turn(self, use: Use, count: int = 1) -> None:
        """Wait for a turn for so many commands and take it. The caller sends them at once, or gives it back.

        Those of a list leave together, so their turn is one: taken one by one, the first would be of an older window.
        """
        if self.take_now(use, count):
            return
        self._waiting[use] += 1
        try:
            async with self._lines[use]:
                while (wait := self.wait(use, count)) > 0:  # noqa: ASYNC110 - others take turns
                    await asyncio.sleep(wait)
                self._take(count)
        finally:
            self._waiting[use] -= 1

    def _take(self, count: int) -> None:
        self._sent.extend([asyncio.get_running_loop().time()] * count)

    def give_back(self, count: int = 1) -> None:
        """Take back the turn that was just taken: nothing has left."""
        for _ in range(min(count, len(self._sent))):
            self._sent.pop()


class Judge:
    """Judges an entry once more that has waited until the quote it was judged by is old; this one approves of all."""

    async def look(self, _ticket: OrderTicket) -> bool:
        """See to a fresh quote where the ticket's own has grown old; return whether there is one."""
        return True

    def is_blind(self, _ticket: OrderTicket) -> bool:
        """Tell whether the ticket's quote has grown old, and there is no other."""
        return False

    def deny(self, _ticket: OrderTicket) -> Denial | None:
        """Return why an entry may not leave at the price of now, or None."""
        return None


class Changes:
    """Wakes those who wait for an order, whenever a record has changed it."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def on_record(self, _record: Record, order: ManagedOrder | None) -> None:
        """Wake the waiters of an order; the recorder calls this."""
        if order is not None and self._waiters:
            for waiter in self._waiters.pop(order.client_order_id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def until(
        self,
        order: ManagedOrder,
        condition: Callable[[ManagedOrder], bool],
        timeout: float | None = None,
    ) -> bool:
        """Wait until *condition* holds for the order; return False when *timeout* seconds pass first."""
        if condition(order):
            return True
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not condition(order):
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.setdefault(order.client_order_id, []).append(waiter)
            try:
                await asyncio.wait([waiter], timeout=left)
            finally:
                self._forget(order.client_order_id, waiter)
        return True

    def _forget(self, key: str, waiter: asyncio.Future[None]) -> None:
        """Drop a waiter that was not woken: an order may be waited for very often."""
        waiters = self._waiters.get(key, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[key]

    async def closed(self, order: ManagedOrder) -> None:
        """Wait until an order is closed."""
        await self.until(order, lambda o: o.is_closed)

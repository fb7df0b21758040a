"""The event bus: typed subscriptions for observers.

Publishing never waits and never fails. Plain callbacks are called in a task of their own subscription, so one
that raises or is slow delays nobody else and never the money path. Each subscription has a bounded queue; when
it overflows, the oldest events are dropped and the next delivery is preceded by a warning.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from execkit.model.events import Event
from execkit.redaction import shown

E = TypeVar("E", bound=Event)
Callback = Callable[[E], Awaitable[None] | None]

log = structlog.get_logger("execkit")


class Subscription:
    """One observer's place in line; `cancel` ends it."""

    def __init__(
        self,
        bus: EventBus,
        kinds: tuple[type[Event], ...],
        callback: Callable[[Any], Any],
        limit: int,
    ) -> None:
        self.kinds = kinds
        self.dropped = 0
        self.failures = 0
        self._bus = bus
        self._callback = callback
        self._queue: deque[Event] = deque()
        self._limit = limit
        self._task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Deliver nothing more."""
        self._bus._subscriptions.discard(self)  # noqa: SLF001 - the two are one mechanism
        self._queue.clear()

    def offer(self, event: Event) -> None:
        """Take an event in line and make sure that somebody works it off."""
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        reported = 0
        while self._queue:
            if self.dropped > reported:
                reported = self.dropped
                log.warning("events.dropped", subscriber=repr(self._callback), dropped=self.dropped)
            event = self._queue.popleft()
            try:
                answer = self._callback(event)
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:  # noqa: BLE001 - no traceback: rendering one takes longer than an order
                self.failures += 1
                log.warning(
                    "events.subscriber_failed", subscriber=repr(self._callback), error=shown(error)
                )

    async def cut(self) -> None:
        """End a delivery that does not end by itself; what is in line is dropped."""
        self._queue.clear()
        if self._task is not None and not self._task.done():
            log.warning("events.subscriber_cut_off", subscriber=repr(self._callback))
            self._task.cancel()
            await asyncio.wait([self._task])

    async def idle(self) -> None:
        """Wait until everything in line was delivered."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])


class EventBus:
    """Hands events to observers by type; a subscription to a base class gets its kinds too."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._by_type: dict[type[Event], list[Subscription]] = {}

    def subscribe(
        self, kind: type[E] | tuple[type[Event], ...], callback: Callback[E], *, limit: int = 10_000
    ) -> Subscription:
        """Call *callback*, plain or async, with every event of *kind* from now on."""
        kinds = kind if isinstance(kind, tuple) else (kind,)
        subscription = Subscription(self, kinds, callback, limit)
        self._subscriptions.add(subscription)
        self._by_type.clear()
        return subscription

    @property
    def is_used(self) -> bool:
        """Tell whether anybody listens at all, so that no event is built for nobody."""
        return bool(self._subscriptions)

    def publish(self, event: Event) -> None:
        """Hand an event to all who asked for its type."""
        if self._subscriptions:
            for subscription in self._listeners(type(event)):
                if subscription in self._subscriptions:
                    subscription.offer(event)

    def _listeners(self, kind: type[Event]) -> list[Subscription]:
        found = self._by_type.get(kind)
        if found is None:
            found = [s for s in self._subscriptions if issubclass(kind, s.kinds)]
            self._by_type[kind] = found
        return found

    async def idle(self) -> None:
        """Wait until every subscription has worked off its queue."""
        for subscription in list(self._subscriptions):
            await subscription.idle()

    async def close(self, seconds: float) -> None:
        """Give the observers some time to work off their queues; an observer that hangs is cut off."""
        try:
            async with asyncio.timeout(seconds):
                await self.idle()
        except TimeoutError:
            for subscription in list(self._subscriptions):
                await subscription.cut()

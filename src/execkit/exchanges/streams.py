"""Streams of a venue inside this process: each subscriber gets everything from the moment it asked."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")

LIMIT: Final = 100_000
"""Items a subscriber may leave unread; then all of them give way to one that marks the gap."""


class Subscriber(Generic[T]):
    """One reader's end of a stream: an async iterator that ends when the venue closes."""

    def __init__(
        self, wanted: Callable[[T], bool], gap: Callable[[], T] | None, limit: int
    ) -> None:
        self._wanted = wanted
        self._gap = gap
        self._limit = limit
        self._items: deque[T] = deque()
        self._error: Exception | None = None
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Take an item, if the reader wants such."""
        if self._is_closed or not self._wanted(item):
            return
        if len(self._items) >= self._limit:
            self._items.clear()
            if self._gap is not None:
                self._items.append(self._gap())
        self._items.append(item)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Let the reader finish what it has, then end, with *error* where there is one."""
        if not self._is_closed:
            self._is_closed, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._is_closed:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    async def aclose(self) -> None:
        """Read no more."""
        self._items.clear()
        self.end()


class Stream(Generic[T]):
    """Hands each item to all subscribers. *gap* makes the item that tells a slow reader of its loss."""

    def __init__(self, gap: Callable[[], T] | None = None, *, limit: int = LIMIT) -> None:
        self._gap = gap
        self._limit = limit
        # Weak, so that a reader that just went away costs nothing; a list, so that the order is repeatable.
        self._subscribers: list[weakref.ref[Subscriber[T]]] = []

    def subscribe(self, wanted: Callable[[T], bool] = lambda _item: True) -> Subscriber[T]:
        """Return a new reader of every wanted item from now on."""
        subscriber = Subscriber(wanted, self._gap, self._limit)
        self._subscribers = [ref for ref in self._subscribers if ref() is not None]
        self._subscribers.append(weakref.ref(subscriber))
        return subscriber

    @property
    def is_read(self) -> bool:
        """Tell whether anybody subscribed, so that an item need not be built for nobody."""
        return bool(self._subscribers)

    def publish(self, item: T) -> None:
        """Hand an item to all readers."""
        for ref in self._subscribers:
            subscriber = ref()
            if subscriber is not None:
                subscriber.put(item)

    def end(self, error: Exception | None = None) -> None:
        """End all subscriptions; later ones are not affected."""
        for ref in self._subscribers:
            subscriber = ref()
            if subscriber is not None:
                subscriber.end(error)
        self._subscribers = []

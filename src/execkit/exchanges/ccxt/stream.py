"""Keeps the stream of an account's orders open, for as long as the adapter lives.

It is open before the first order leaves, so nobody who subscribes misses what happens from then on. When it breaks it
is opened again at once; what happened in between is lost, so each new beginning is told as a `StreamGap`. One that
breaks again soon is opened after growing pauses, as is one that cannot be opened, because a venue bans who dials too
often; meanwhile readers get an error and have to ask the venue.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import structlog

from execkit.errors import ExchangeUnavailableError
from execkit.exchanges.streams import Stream, Subscriber
from execkit.model.order import OrderUpdate, StreamGap

log = structlog.get_logger("execkit")

ROTATE_AFTER: Final = timedelta(hours=23)
"""Venues cut a connection after 24 hours; a planned change happens before."""

_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 30.0
_UNTOLD: Final = 1.0
"""Seconds that a stream may be away before its readers have to ask the venue."""
_STEADY: Final = 30.0
"""Seconds after which an open stream counts as good, so that its next loss is the first again."""


class Session:
    """One life of a subscription: *lost* ends, or raises, when it is over."""

    def __init__(self, lost: asyncio.Task[object], close: Callable[[], Awaitable[None]]) -> None:
        self.lost = lost
        self._close = close

    async def end(self) -> None:
        """Close it; safe to call when it is over."""
        self.lost.cancel()
        await asyncio.gather(self.lost, return_exceptions=True)
        await self._close()


class OrderStream:
    """Hands what happens to the account's orders to all who subscribe.

    *opened* opens a session, and returns it when the venue has confirmed the subscription.
    """

    def __init__(
        self,
        opened: Callable[[], Awaitable[Session]],
        *,
        venue: str,
        rng: random.Random,
        pause: Callable[[], float] = lambda: 0.0,
        rotate_after: timedelta = ROTATE_AFTER,
    ) -> None:
        self._opened = opened
        self._venue = venue
        self._rng = rng
        self._pause = pause
        self._rotate_after = rotate_after.total_seconds()
        self._updates: Stream[OrderUpdate] = Stream(lambda: StreamGap("read too slowly"))
        self._session: Session | None = None
        self._wait = 0.0
        self._task: asyncio.Task[None] | None = None
        self.publish = self._updates.publish
        self.reconnects = 0

    async def start(self) -> None:
        """Open the stream; raises what keeps it from opening."""
        self._session = await self._opened()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Close the stream and end all subscriptions."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._end_session()
        self._updates.end()

    def subscribe(self) -> Subscriber[OrderUpdate]:
        """Return a reader of everything from now on; an error is its first item while the stream is broken."""
        reader = self._updates.subscribe()
        if self._session is None:
            reader.end(self._broken())
        return reader

    def _broken(self) -> ExchangeUnavailableError:
        return ExchangeUnavailableError(
            f"{self._venue}: the order stream is broken and is being opened again",
            venue=self._venue,
        )

    async def _keep(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            reason = await self._until_lost()
            if asyncio.get_running_loop().time() - began >= _STEADY:
                self._wait = 0.0
            log.warning("stream.lost", venue=self._venue, reason=reason)
            await self._end_session()
            await self._reopen()
            self.reconnects += 1
            self._updates.publish(StreamGap(reason))

    async def _until_lost(self) -> str:
        if self._session is None:
            return "it was not open"
        done, _ = await asyncio.wait([self._session.lost], timeout=self._rotate_after)
        if not done:
            return "a planned change of the connection"
        if self._session.lost.cancelled():
            return "the subscription ended"
        error = self._session.lost.exception()
        return "the subscription ended" if error is None else type(error).__name__

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await session.end()
            except Exception as error:  # noqa: BLE001 - it was broken anyway
                log.info("stream.close_failed", venue=self._venue, error=type(error).__name__)

    async def _reopen(self) -> None:
        while True:
            wait = max(self._pause(), self._wait * self._rng.uniform(0.75, 1.25))
            self._wait = min(max(self._wait * 2, _FIRST_WAIT), _LONGEST_WAIT)
            if wait > 0:
                if wait > _UNTOLD:
                    self._updates.end(self._broken())
                await asyncio.sleep(wait)
            try:
                self._session = await self._opened()
            except Exception as error:  # noqa: BLE001 - tried again, with growing pauses
                log.warning("stream.reopen_failed", venue=self._venue, error=type(error).__name__)
                self._updates.end(self._broken())
            else:
                return

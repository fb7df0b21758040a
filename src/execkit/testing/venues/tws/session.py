"""One client's connection to the wire-level TWS: handshake, reading, writing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import attrs

from execkit.testing.venues.tws.listing import Listing
from execkit.testing.venues.tws.wire import NEWEST, OLDEST, frame, read_frame, split


@attrs.define(eq=False)
class TwsSession:
    """A connection; frames go out in the order in which they were sent here."""

    reader: asyncio.StreamReader = attrs.field(repr=False)
    writer: asyncio.StreamWriter = attrs.field(repr=False)
    version: int = 0
    client_id: int = -1
    is_ready: bool = False
    is_mute: bool = False
    """The link is half open: nothing that is sent arrives any more."""
    greeting: list[bytes] = attrs.field(factory=list, repr=False)
    """What it is told unasked, before its first question is answered."""
    quotes: dict[int, Listing] = attrs.field(factory=dict, repr=False)
    """Market data subscriptions by request id."""
    bars: dict[int, tuple[Listing, str]] = attrs.field(factory=dict, repr=False)
    """Subscriptions of live bars by request id: contract and bar size."""

    _recent: deque[float] = attrs.field(factory=deque, repr=False)

    def is_too_fast(self, pace: int) -> bool:
        """Count a message; tell whether it is one too many within a second."""
        now = asyncio.get_running_loop().time()
        self._recent.append(now)
        while now - self._recent[0] >= 1.0:
            self._recent.popleft()
        return len(self._recent) > pace

    async def shake_hands(self, newest: int, at: str) -> None:
        """Agree on a version."""
        await self.reader.readexactly(4)  # "API\0"
        offer = (await read_frame(self.reader)).decode()
        low, _, high = offer.split(" ")[0].removeprefix("v").partition("..")
        self.version = min(int(high or low), newest, NEWEST)
        if self.version < max(int(low), OLDEST):
            raise ConnectionError(f"no common version with {offer}")
        self.send(frame(self.version, at))

    async def listen(self, on_message: Callable[[list[str]], None]) -> None:
        """Hand on each message until the connection ends."""
        while True:
            fields = split(await read_frame(self.reader))
            if not self.is_mute:
                frames, self.greeting = self.greeting, []
                self.send(*frames)
                on_message(fields)

    def send(self, *frames: bytes) -> None:
        """Send messages, unless the link is half open."""
        if not self.is_mute and not self.writer.is_closing():
            self.writer.write(b"".join(frames))

    def cut(self) -> None:
        """Break the connection."""
        self.writer.transport.abort()

    def hang_up(self) -> None:
        """Close after what was sent has left."""
        self.writer.close()

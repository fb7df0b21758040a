"""One WebSocket of a venue's client, as the server sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web


class Socket:
    """An open WebSocket: what is pushed is sent in order, without waiting for the reader."""

    def __init__(self, connection: web.WebSocketResponse, path: str, query: dict[str, str]) -> None:
        self.connection = connection
        self.path = path
        self.query = query
        self.topics: set[str] = set()
        """What the client subscribed to."""
        self.is_private = False
        """It gets the events of the account."""
        self.transport: asyncio.WriteTransport | None = None
        """The connection below."""
        self.session: dict[str, Any] = {}
        """What the venue remembers of it."""
        self._items: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._writer = asyncio.get_running_loop().create_task(self._write())

    def push(self, payload: Any) -> None:
        """Send JSON, or text and bytes as they are."""
        is_raw = isinstance(payload, (str, bytes))
        self._items.put_nowait(payload if is_raw else json.dumps(payload, separators=(",", ":")))

    async def _write(self) -> None:
        while True:
            item = await self._items.get()
            try:
                if isinstance(item, bytes):
                    await self.connection.send_bytes(item)
                else:
                    await self.connection.send_str(item)
            except (ConnectionError, RuntimeError):
                return

    def cut(self) -> None:
        """Break the connection without the closing handshake."""
        if self.transport is not None:
            self.transport.abort()

    async def stop(self) -> None:
        """Send nothing more."""
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)

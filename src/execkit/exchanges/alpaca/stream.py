"""The `trade_updates` stream: authenticate, listen, and hand on what happens to the account's orders.

It has no snapshot and no numbers, so what was missed cannot be told from it: each new beginning is a `StreamGap`. A
frame that nobody can read is one too, and the stream goes on; only a line that is dead ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import structlog

from execkit.errors import AuthenticationError, ExchangeUnavailableError
from execkit.exchanges.alpaca.chains import Chains, named
from execkit.exchanges.alpaca.codes import VENUE
from execkit.exchanges.alpaca.decode import Update, is_tradeable_here, read_update
from execkit.exchanges.alpaca.values import BadAnswerError, clean
from execkit.exchanges.alpaca.wire import Wire
from execkit.exchanges.ccxt.stream import Session
from execkit.exchanges.ccxt.values import mapping, parse_json
from execkit.model.order import OrderUpdate, StreamGap

log = structlog.get_logger("execkit")

_DATA: Final = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


class TradeUpdates:
    """Opens the stream, again and again, and reads its frames."""

    def __init__(
        self,
        wire: Wire,
        url: str,
        chains: Chains,
        publish: Callable[[OrderUpdate], None],
    ) -> None:
        self._wire = wire
        self._url = url
        self._chains = chains
        self._publish = publish

    async def open(self) -> Session:
        """Return a session whose subscription the venue has confirmed.

        Raises `AuthenticationError` for keys that it does not take, `ExchangeUnavailableError` for everything else.
        """
        socket = await self._wire.connect(self._url)
        try:
            async with asyncio.timeout(self._wire.limit):
                await self._begin(socket)
        except BaseException as error:
            await socket.close()
            if isinstance(error, (TimeoutError, aiohttp.ClientError, OSError, BadAnswerError)):
                failure = ExchangeUnavailableError(
                    f"{VENUE}: the order stream was not confirmed ({type(error).__name__})",
                    venue=VENUE,
                )
            else:
                raise
        else:
            reading = asyncio.get_running_loop().create_task(self._read(socket))

            async def close() -> None:
                await socket.close()

            return Session(reading, close)
        raise failure

    async def _begin(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._wire.authenticate(socket, "trading")
        answer = await _next(socket)
        if answer.get("stream") != "authorization":
            raise BadAnswerError("the stream does not say who we are")
        status = mapping(answer.get("data"), "the authorization").get("status")
        if status != "authorized":
            raise AuthenticationError(
                f"{VENUE}: the order stream refuses the key ({clean(status, 40)}); "
                "check api_key and secret; keys of paper and live differ",
                venue=VENUE,
            )
        await socket.send_json({"action": "listen", "data": {"streams": ["trade_updates"]}})
        while True:
            answer = await _next(socket)
            if answer.get("stream") == "listening":
                break
            self.on_message(answer)
        streams = mapping(answer.get("data"), "the subscription").get("streams")
        if not isinstance(streams, list) or "trade_updates" not in streams:
            raise BadAnswerError("the stream does not listen to trade_updates")

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> object:
        async for frame in socket:
            if frame.type in _DATA:
                self.on_frame(frame.data)
        raise ExchangeUnavailableError(f"{VENUE}: the order stream has ended", venue=VENUE)

    def on_frame(self, data: bytes | str) -> None:
        """Hand on what a frame tells; one that cannot be read tells that something was missed."""
        try:
            self.on_message(mapping(parse_json(data), "a frame"))
        except BadAnswerError as error:
            log.warning("stream.unreadable", venue=VENUE, error=clean(error))
            self._publish(StreamGap(f"an unreadable frame ({clean(error, 80)})"))

    def on_message(self, message: Any) -> None:
        """Hand on what a message tells."""
        if message.get("stream") != "trade_updates":
            _check_still_open(message)
            return
        body = mapping(message.get("data"), "the update")
        order = body.get("order")
        if isinstance(order, dict) and not is_tradeable_here(order):
            return
        for update in self.updates_of(read_update(body)):
            self._publish(update)

    def updates_of(self, update: Update) -> list[OrderUpdate]:
        """Return what an update tells of the order as it is known here."""
        row = update.order
        name = self._chains.name_of(row)
        if name is None:
            return [StreamGap("a change of an order whose beginning was not seen")]
        report = self._chains.take(row, name)
        told: list[OrderUpdate] = []
        if update.fill is not None:
            told.append(named(update.fill, name))
        if report is not None:
            told.append(report)
        if row.is_refused_change:
            told.append(StreamGap("the venue has refused a change of an order after all"))
        if update.undone:
            told.append(StreamGap(f"the venue corrects an execution ({clean(update.undone, 40)})"))
        return told


def _check_still_open(message: Any) -> None:
    """Raise for a message by which the venue ends the subscription, or of which nobody knows what it says."""
    kind = message.get("stream")
    data = mapping(message.get("data"), "a message")
    is_over = kind == "authorization" and data.get("status") != "authorized"
    if kind == "listening":
        streams = data.get("streams")
        is_over = not isinstance(streams, list) or "trade_updates" not in streams
    if is_over:
        raise ExchangeUnavailableError(f"{VENUE}: the order stream was ended", venue=VENUE)
    if not isinstance(kind, str):
        raise BadAnswerError("a message of no stream")


async def _next(socket: aiohttp.ClientWebSocketResponse) -> Any:
    while True:
        frame = await socket.receive()
        if frame.type in _DATA:
            return mapping(parse_json(frame.data), "a frame")
        if frame.type is not aiohttp.WSMsgType.PING:
            raise BadAnswerError("the stream ended before it began")

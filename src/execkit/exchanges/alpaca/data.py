"""Alpaca's market data: snapshots, the history of bars, and one data stream for stocks and one for crypto.

Alpaca allows one connection to each data stream, so all readers share it; what they want is added up. When the line
breaks every reader ends with an error and asks again, which opens it anew.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Self, TypeVar

import aiohttp
import structlog

from execkit.errors import AuthenticationError, ExchangeUnavailableError
from execkit.exchanges.alpaca.codes import VENUE
from execkit.exchanges.alpaca.hours import NEW_YORK, TradingDay
from execkit.exchanges.alpaca.market import WORDS, of_symbol, read_bar
from execkit.exchanges.alpaca.requests import is_crypto
from execkit.exchanges.alpaca.values import BadAnswerError, clean, in_path, moment
from execkit.exchanges.alpaca.wire import Wire
from execkit.exchanges.ccxt.values import mapping, parse_json, rows
from execkit.exchanges.streams import Stream, Subscriber
from execkit.model.market import BarData, Timeframe

log = structlog.get_logger("execkit")

T = TypeVar("T")

Ask = Callable[[str, dict[str, str] | None], Awaitable[Any]]
"""Reads from a path of the data host."""

_PAGE: Final = 10_000
_MOST_PAGES: Final = 200
_CHANNELS: Final = {"q": "quotes", "t": "trades", "b": "bars", "u": "updatedBars"}


async def snapshot(ask: Ask, symbol: str, feed: str) -> Any:
    """Return the snapshot of a symbol as Alpaca writes it."""
    if is_crypto(symbol):
        body = await ask("/v1beta3/crypto/us/snapshots", {"symbols": symbol})
        return of_symbol(body, "snapshots", symbol)
    return await ask(f"/v2/stocks/{in_path(symbol)}/snapshot", {"feed": feed})


async def bars(
    ask: Ask,
    symbol: str,
    timeframe: Timeframe,
    *,
    since: datetime,
    until: datetime,
    feed: str,
    days: Sequence[TradingDay] = (),
) -> list[BarData]:
    """Return the bars that close after *since* and not after *until*; *days* end the daily bars of stocks."""
    params = {
        "symbols": symbol,
        "timeframe": WORDS[timeframe],
        # Alpaca names the beginning of a bar; the one that closes after *since* has begun before.
        "start": _stamp(since - timeframe.duration - timedelta(hours=1)),
        "end": _stamp(until),
        "limit": str(_PAGE),
        "sort": "asc",
    }
    path = "/v1beta3/crypto/us/bars"
    if not is_crypto(symbol):
        path = "/v2/stocks/bars"
        params |= {"feed": feed, "adjustment": "raw"}
    closes = {each.day: each.closes for each in days}
    found: dict[datetime, BarData] = {}
    for _ in range(_MOST_PAGES):
        body = mapping(await ask(path, params))
        listed = mapping(body.get("bars") or {}, "bars").get(symbol)
        for row in rows(listed or [], "bars"):
            length = None
            if timeframe is Timeframe.D1 and not is_crypto(symbol):
                begins = moment(row, "t")
                close = closes.get(begins.astimezone(NEW_YORK).date())
                if close is None:
                    raise BadAnswerError("a daily bar of a day that is not in the calendar")
                length = close - begins
            bar = read_bar(row, symbol, timeframe, length)
            if since < bar.close_time <= until:
                found[bar.close_time] = bar
        token = body.get("next_page_token")
        if token is None:
            return [found[at] for at in sorted(found)]
        if not isinstance(token, str) or len(token) > 500:
            raise BadAnswerError("the token of the next page is no text")
        params["page_token"] = token
    raise BadAnswerError("the history has no end")


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class DataStream:
    """One data stream, shared by all who read from it; open while somebody does."""

    def __init__(self, wire: Wire, url: str) -> None:
        self._wire = wire
        self._url = url
        self._rows: Stream[dict[str, Any]] = Stream()
        self._wanted: dict[str, set[str]] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._readers: weakref.WeakSet[Reader[Any]] = weakref.WeakSet()
        self._is_listed = False

    def follow(
        self, kinds: Iterable[str], symbols: Sequence[str], read: Callable[[Any], T]
    ) -> Reader[T]:
        """Return a reader of what *read* makes of the rows of these kinds (`q`, `t`, `b`, `u`)."""
        wanted, named = frozenset(kinds), frozenset(symbols)
        source = self._rows.subscribe(lambda row: row.get("T") in wanted and row.get("S") in named)
        new = {kind: named - self._wanted.get(kind, set()) for kind in wanted}
        for kind in wanted:
            self._wanted.setdefault(kind, set()).update(named)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif self._is_listed and self._socket is not None and any(new.values()):
            self._asking = asyncio.get_running_loop().create_task(self._ask_for(self._socket, new))
        reader = Reader(source, read, self._left)
        self._readers.add(reader)
        return reader

    async def _left(self, reader: Reader[Any]) -> None:
        self._readers.discard(reader)
        if not self._readers:
            await self.close()

    async def close(self) -> None:
        """End the stream and all readers."""
        tasks = [task for task in (self._task, self._asking) if task is not None]
        self._task = self._asking = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end(None)

    async def _run(self) -> None:
        error: Exception
        try:
            await self._follow()
            error = ExchangeUnavailableError(f"{VENUE}: the data stream has ended", venue=VENUE)
        except AuthenticationError as refused:
            error = refused
        except Exception as broken:  # noqa: BLE001 - told to all readers
            log.warning("stream.lost", venue=VENUE, reason=type(broken).__name__)
            error = ExchangeUnavailableError(
                f"{VENUE}: the data stream is broken ({clean(broken, 120)})", venue=VENUE
            )
        self._task = None
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        """Forget the line and all who read from it, in one step: whoever asks from now on opens a new one."""
        self._socket, self._is_listed = None, False
        self._wanted.clear()
        self._readers.clear()
        self._rows.end(error)

    async def _follow(self) -> None:
        socket = await self._wire.connect(self._url)
        self._socket = socket
        try:
            async with asyncio.timeout(self._wire.limit):
                await self._expect(socket, "connected")
                await self._wire.authenticate(socket, "data")
                await self._expect(socket, "authenticated")
                await self._ask_for(socket, self._wanted)
            self._is_listed = True
            async for frame in socket:
                if frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._take(frame.data)
        finally:
            await socket.close()

    async def _ask_for(
        self, socket: aiohttp.ClientWebSocketResponse, wanted: dict[str, Any]
    ) -> None:
        channels = {_CHANNELS[kind]: sorted(names) for kind, names in wanted.items() if names}
        await socket.send_json({"action": "subscribe", **channels})

    async def _expect(self, socket: aiohttp.ClientWebSocketResponse, word: str) -> None:
        frame = await socket.receive()
        if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise BadAnswerError("the stream ended before it began")
        for row in rows(parse_json(frame.data), "a frame"):
            if row.get("T") == "success" and row.get("msg") == word:
                return
            self._refused(row)
        raise BadAnswerError(f"the stream does not say that it is {word}")

    @staticmethod
    def _refused(row: Any) -> None:
        if row.get("T") == "error":
            text = f"{VENUE}: the data stream refuses: {clean(row.get('msg'), 80)} (code {clean(row.get('code'), 10)})"
            if row.get("code") in (401, 402, 409):
                raise AuthenticationError(f"{text}; check the key and its data plan", venue=VENUE)
            raise ExchangeUnavailableError(text, venue=VENUE)

    def _take(self, data: bytes | str) -> None:
        """Hand on the rows of a frame; one that cannot be read is left out, the next quote is not far."""
        try:
            listed = rows(parse_json(data), "a frame")
        except BadAnswerError as error:
            log.warning("stream.unreadable", venue=VENUE, error=clean(error))
            return
        for row in listed:
            self._refused(row)
            self._rows.publish(dict(row))


class Reader(Generic[T]):
    """One reader's end of a data stream; rows that cannot be read are left out."""

    def __init__(
        self,
        source: Subscriber[dict[str, Any]],
        read: Callable[[Any], T],
        left: Callable[[Reader[Any]], Awaitable[None]],
    ) -> None:
        self._source = source
        self._read = read
        self._left = left

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            row = await anext(self._source)
            try:
                return self._read(row)
            except BadAnswerError as error:
                log.debug("stream.unreadable", venue=VENUE, error=clean(error))

    async def aclose(self) -> None:
        """Read no more."""
        await self._source.aclose()
        await self._left(self)

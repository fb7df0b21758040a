"""Binance's public market data: quotes, trades and bars, each stream on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from execkit.clock import Clock
from execkit.errors import ConfigurationError, ExchangeUnavailableError
from execkit.exchanges.ccxt.dialect import RefusedError, UnansweredError, UnsentError
from execkit.exchanges.ccxt.values import (
    EPOCH,
    BadAnswerError,
    amount,
    exact,
    mapping,
    milliseconds,
    moment,
    price,
    text,
)
from execkit.exchanges.streams import Stream
from execkit.model.market import BarData, Quote, Timeframe, Trade

T = TypeVar("T")

SymbolOf = Callable[[str], str]

_LOST: Final = "execkit:lost"


class MarketFeeds:
    """Follows public streams through ccxt's sockets; ccxt's own reading of them is left out."""

    def __init__(self, client: Any, kind: str, *, clock: Clock, limit: float) -> None:
        self._client = client
        self._kind = kind
        self._clock = clock
        self._limit = limit
        self._count = 0
        self._handlers: dict[str, Callable[[Any], None]] = {}

    def take(self, url: str, message: Any) -> bool:
        """Deal with a frame of one of our connections; return False for another's."""
        handler = self._handlers.get(url)
        if handler is None:
            return False
        handler(message)
        return True

    async def follow(
        self, names: Sequence[str], category: str, read: Callable[[Mapping[str, Any]], T | None]
    ) -> AsyncIterator[T]:
        """Yield what *read* makes of the frames; ends with `ExchangeUnavailableError` when the line breaks."""
        self._count += 1
        wire = "spot" if self._kind == "spot" else "linear"
        url = f"{self._client.get_ws_url(wire, category)}/{self._count}"
        items: Stream[T] = Stream()
        reader = items.subscribe()

        def take(message: Any) -> None:
            row = mapping(message, "a frame")
            if row.get("error") is not None or "code" in row:
                raise UnansweredError("the subscription was refused")
            if "result" in row or ("id" in row and "e" not in row and "b" not in row):
                return
            item = read(row)
            if item is not None:
                items.publish(item)

        def broken(_lost: asyncio.Future[Any]) -> None:
            if not _lost.cancelled():
                _lost.exception()
            reader.end(
                ExchangeUnavailableError("binance: the market stream is broken", venue="binance")
            )

        self._handlers[url] = take
        try:
            request = {"method": "SUBSCRIBE", "params": list(names), "id": self._count}
            try:
                lost = self._client.watch_multiple(url, [_LOST], request, [_LOST])
            except (RefusedError, UnsentError) as error:
                raise ExchangeUnavailableError(f"binance: {error}", venue="binance") from None
            lost.add_done_callback(broken)
            async for item in reader:
                yield item
        finally:
            del self._handlers[url]
            socket = self._client.clients.pop(url, None)
            if socket is not None:
                await socket.close()

    # -- what the streams say ----------------------------------------------------------------------------

    def quotes(self, ids: Sequence[str], symbol_of: SymbolOf) -> AsyncIterator[Quote]:
        """Yield best bids and asks."""

        def read(row: Mapping[str, Any]) -> Quote | None:
            return read_ticker(row, symbol_of, self._clock.now(), short=True)

        return self.follow([f"{each.lower()}@bookTicker" for each in ids], "public", read)

    def trades(self, ids: Sequence[str], symbol_of: SymbolOf) -> AsyncIterator[Trade]:
        """Yield public trades; on futures those of one order at one price come as one."""
        name = "trade" if self._kind == "spot" else "aggTrade"

        def read(row: Mapping[str, Any]) -> Trade | None:
            symbol = symbol_of(text(row, "s"))
            found = Trade(symbol, amount(row, "p"), amount(row, "q"), moment(row, "T"))
            return found if found.price and found.quantity else None

        return self.follow([f"{each.lower()}@{name}" for each in ids], "market", read)

    def bars(
        self, ids: Sequence[str], timeframe: Timeframe, symbol_of: SymbolOf
    ) -> AsyncIterator[BarData]:
        """Yield bars that Binance calls closed."""

        def read(row: Mapping[str, Any]) -> BarData | None:
            candle = mapping(row.get("k"), "k")
            if candle.get("x") is not True or candle.get("i") != timeframe.value:
                return None
            return _bar(
                symbol_of(text(candle, "s")),
                timeframe,
                moment(candle, "t"),
                [candle.get(name) for name in "ohlcv"],
            )

        return self.follow(
            [f"{each.lower()}@kline_{timeframe.value}" for each in ids], "market", read
        )


def read_ticker(
    row: Mapping[str, Any], symbol_of: SymbolOf, now: datetime, *, short: bool = False
) -> Quote | None:
    """Return the quote of a book ticker, or None where one side of the book is empty."""
    names = (
        ("s", "b", "a", "B", "A")
        if short
        else ("symbol", "bidPrice", "askPrice", "bidQty", "askQty")
    )
    bid, ask = price(row, names[1]), price(row, names[2])
    if bid is None or ask is None:
        return None
    if bid > ask:
        raise BadAnswerError("the bid is above the ask")
    at = next((moment(row, name) for name in ("T", "E", "time") if row.get(name)), now)
    sizes = (amount(row, names[3]), amount(row, names[4]))
    return Quote(symbol_of(text(row, names[0])), bid, ask, at, bid_size=sizes[0], ask_size=sizes[1])


def read_bar(row: Any, symbol: str, timeframe: Timeframe) -> BarData:
    """Return a bar of the history, which is a list of columns."""
    if not isinstance(row, list) or len(row) < 6:
        raise BadAnswerError("a bar is no row of columns")
    return _bar(symbol, timeframe, moment({"t": row[0]}, "t"), row[1:6])


def _bar(symbol: str, timeframe: Timeframe, opened: datetime, columns: Sequence[Any]) -> BarData:
    values = [exact(value, name) for value, name in zip(columns, "ohlcv", strict=True)]
    try:
        return BarData(symbol, timeframe, opened + timeframe.duration, *values).checked()
    except ConfigurationError as error:
        raise BadAnswerError(f"an impossible bar: {error}") from None


def first_open(since: datetime, timeframe: Timeframe) -> int:
    """Return the open time, in milliseconds, of the first bar that closes after *since*."""
    elapsed = milliseconds(since) // 1000
    return max(elapsed - timeframe.seconds, 0) * 1000 if since > EPOCH else 0

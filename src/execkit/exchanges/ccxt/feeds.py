"""Public market data through ccxt's unified streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from execkit.clock import Clock
from execkit.errors import ConfigurationError, ExchangeUnavailableError, UnsupportedFeatureError
from execkit.exchanges.ccxt.unified import read_quote
from execkit.exchanges.ccxt.values import BadAnswerError, exact, mapping, moment, text
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.numbers import MONEY


class PublicFeeds:
    """Follows quotes, trades and bars; each stream ends with `ExchangeUnavailableError` when it breaks."""

    def __init__(
        self, client: Any, venue: str, clock: Clock, size_of: Callable[[str], Decimal]
    ) -> None:
        self._client = client
        self._venue = venue
        self._clock = clock
        self._size_of = size_of

    async def quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield best bids and asks, or tickers where the venue streams no books' tops."""
        has = self._client.has
        if has.get("watchBidsAsks") is True:
            watch = self._client.watch_bids_asks
        elif has.get("watchTickers") is True:
            watch = self._client.watch_tickers
        else:
            raise UnsupportedFeatureError(f"{self._venue} streams no quotes of several symbols")
        wanted = set(symbols)
        while True:
            tickers = mapping(await self._next(watch, list(symbols)), "the tickers")
            for symbol, row in tickers.items():
                quote = read_quote(row, self._clock.now()) if symbol in wanted else None
                if quote is not None:
                    yield quote

    async def trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield public trades."""
        watch = self._client.watch_trades_for_symbols
        while True:
            for row in await self._next(watch, list(symbols)):
                symbol = text(row, "symbol")
                quantity = MONEY.multiply(exact(row.get("amount"), "amount"), self._size_of(symbol))
                yield Trade(
                    symbol, exact(row.get("price"), "price"), quantity, moment(row, "timestamp")
                ).checked()

    async def bars(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield each bar once a later one is seen: ccxt does not tell whether a bar is finished."""
        watch = self._client.watch_ohlcv_for_symbols
        latest: dict[str, BarData] = {}
        while True:
            found = await self._next(watch, [[symbol, timeframe.value] for symbol in symbols])
            for symbol, by_timeframe in mapping(found, "the bars").items():
                for row in mapping(by_timeframe, "the bars").get(timeframe.value, []):
                    bar = read_bar(row, symbol, timeframe)
                    before = latest.get(symbol)
                    if before is not None and bar.close_time > before.close_time:
                        yield before
                    if before is None or bar.close_time >= before.close_time:
                        latest[symbol] = bar

    async def _next(self, watch: Callable[[Any], Any], what: Any) -> Any:
        try:
            return await watch(what)
        except Exception as error:  # noqa: BLE001 - its text may hold an address
            name = type(error).__name__
        raise ExchangeUnavailableError(
            f"{self._venue}: the market stream is broken ({name})", venue=self._venue
        )


def read_bar(row: Any, symbol: str, timeframe: Timeframe) -> BarData:
    """Return a bar of ccxt: open time in milliseconds, open, high, low, close, volume."""
    if not isinstance(row, (list, tuple)) or len(row) < 6:
        raise BadAnswerError("a bar is no row of columns")
    opened = moment({"t": row[0]}, "t")
    values = [exact(str(value), name) for value, name in zip(row[1:6], "ohlcv", strict=True)]
    length = timedelta(seconds=timeframe.seconds)
    try:
        return BarData(symbol, timeframe, opened + length, *values).checked()
    except ConfigurationError as error:
        raise BadAnswerError(f"an impossible bar: {error}") from None

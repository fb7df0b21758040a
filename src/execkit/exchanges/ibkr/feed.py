"""Prices and bars: one quote, streams that survive a reconnection, and history."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import structlog

from execkit.clock import Clock
from execkit.errors import (
    ExchangeError,
    ExchangeUnavailableError,
)
from execkit.exchanges.ibkr.bars import Finisher, bar_of, size_of, span_of, what_of
from execkit.exchanges.ibkr.contracts import Contracts, Listed
from execkit.exchanges.ibkr.line import Line
from execkit.exchanges.streams import Subscriber
from execkit.model.market import BarData, Quote, Timeframe, Trade

log = structlog.get_logger("execkit")

T = TypeVar("T")

_BID, _ASK, _LAST = (1, 66), (2, 67), (4, 68)
"""Tick types of live and of delayed prices."""


class _Prices:
    """The ticks of one symbol, added up."""

    def __init__(self, symbol: str, clock: Clock) -> None:
        self._symbol = symbol
        self._clock = clock
        self._seen: dict[int, tuple[Decimal, Decimal | None]] = {}

    def take(self, row: Any) -> None:
        """Take in a tick; a price of -1, or one without a size, means that there is none."""
        kind, price, size = row
        side = kind - 65 if kind in (66, 67) else 4 if kind == 68 else kind
        if side not in (1, 2, 4):
            return
        if price is None or price <= 0 or (side != 4 and not size):
            self._seen.pop(side, None)
        else:
            self._seen[side] = (price, size)

    def quote(self) -> Quote | None:
        """Return the quote when both sides are known and sane."""
        bid, ask, last = (self._seen.get(side) for side in (1, 2, 4))
        if bid is None or ask is None or bid[0] > ask[0]:
            return None
        return Quote(
            self._symbol,
            bid[0],
            ask[0],
            self._clock.now(),
            last=None if last is None else last[0],
            bid_size=bid[1],
            ask_size=ask[1],
        )

    def trade(self, row: Any) -> Trade | None:
        """Return a trade when a tick tells of one."""
        kind, price, size = row
        if kind not in _LAST or not price or price <= 0 or not size:
            return None
        return Trade(self._symbol, price, size, self._clock.now())


class Feed:
    """Public data over the one connection; each stream asks again after a reconnection and after 1101."""

    def __init__(
        self, line: Line, contracts: Contracts, clock: Clock, *, read_timeout: float
    ) -> None:
        self._line = line
        self._contracts = contracts
        self._clock = clock
        self._read_timeout = read_timeout
        self._tasks: set[asyncio.Task[None]] = set()
        self._again = asyncio.Event()

    async def close(self) -> None:
        """End all streams."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def renew(self) -> None:
        """Subscribe anew: TWS has forgotten what it was asked for, and its prices stand still."""
        again, self._again = self._again, asyncio.Event()
        again.set()

    # -- one quote -------------------------------------------------------------------------------------

    async def quote(self, symbol: str) -> Quote:
        """Return the current quote; raise when there is none in time.

        A subscription, ended at once, and not a snapshot: of that TWS says only after eleven seconds that it is
        complete, when one of its values is missing.
        """
        listed = await self._contracts.find(symbol)
        prices = _Prices(symbol, self._clock)
        arrived: asyncio.Future[Quote] = asyncio.get_running_loop().create_future()

        def on_row(row: Any) -> None:
            if arrived.done():
                return
            if isinstance(row, Exception):
                arrived.set_exception(row)
                return
            prices.take(row)
            quote = prices.quote()
            if quote is not None:
                arrived.set_result(quote)

        link = self._line.link
        request = await link.subscribe(_market_data(listed), on_row)
        try:
            async with asyncio.timeout(self._read_timeout):
                return await arrived
        except TimeoutError:
            text = f"TWS gives no bid and ask of {symbol}; is the market open, and the data subscribed to?"
            raise ExchangeUnavailableError(text, venue="ibkr") from None
        finally:
            link.unsubscribe(request, _end_market_data)

    # -- streams ---------------------------------------------------------------------------------------

    def quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield quotes as they change."""
        subscriber, put = _subscriber()

        def start(listed: Listed) -> Callable[[Any], None]:
            prices = _Prices(listed.symbol, self._clock)

            def on_row(row: Any) -> None:
                prices.take(row)
                quote = prices.quote()
                if quote is not None:
                    put(quote)

            return on_row

        for symbol in symbols:
            self._run(self._follow(symbol, start, _market_data, _end_market_data), subscriber)
        return subscriber

    def trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield trades as TWS shows them: it joins those of a moment into one."""
        subscriber, put = _subscriber()

        def start(listed: Listed) -> Callable[[Any], None]:
            prices = _Prices(listed.symbol, self._clock)
            first = True

            def on_row(row: Any) -> None:
                nonlocal first
                trade = prices.trade(row)
                if trade is not None and not first:
                    put(trade)
                first = first and trade is None  # the first one is from before we asked

            return on_row

        for symbol in symbols:
            self._run(self._follow(symbol, start, _market_data, _end_market_data), subscriber)
        return subscriber

    def bars_of(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield finished bars, those of a gap included once the connection is back."""
        size = size_of(timeframe)
        subscriber, put = _subscriber()
        began = self._clock.now()
        for symbol in symbols:
            finisher = Finisher(put, self._clock, began)

            def start(listed: Listed, finisher: Finisher = finisher) -> Callable[[Any], None]:
                return lambda row: finisher.take(bar_of(listed.symbol, timeframe, row))

            def ask(listed: Listed) -> Callable[[Any, int], None]:
                # A day's history comes first: it fills the gap after a reconnection, and an empty beginning would
                # be worse, because TWS then may send no updates at all.
                span = "2 D" if timeframe.seconds >= 86400 else "1 D"
                return lambda client, key: client.reqHistoricalData(
                    *(key, listed.contract, "", span, size, what_of(listed), True, 2, True, [])
                )

            self._run(self._follow(symbol, start, ask, _end_history), subscriber)
            self._run(finisher.run(timeframe), subscriber)
        return subscriber

    async def _follow(
        self,
        symbol: str,
        start: Callable[[Listed], Callable[[Any], None]],
        ask: Callable[[Listed], Callable[[Any, int], None]],
        end: Callable[[Any, int], None],
    ) -> None:
        """Keep a subscription alive; raise what makes it impossible."""
        while True:
            again = self._again
            try:
                link = self._line.link
                listed = await self._contracts.find(symbol)
                failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                on_row = start(listed)

                def take(
                    row: Any,
                    failed: asyncio.Future[None] = failed,
                    on_row: Callable[[Any], None] = on_row,
                ) -> None:
                    if not isinstance(row, Exception):
                        on_row(row)
                    elif not failed.done():
                        failed.set_exception(row)

                request = await link.subscribe(ask(listed), take)
            except ExchangeUnavailableError:
                await asyncio.sleep(self._read_timeout)  # the line is being made anew
                continue
            waits: list[asyncio.Future[Any]] = [
                asyncio.ensure_future(link.over()),
                asyncio.ensure_future(again.wait()),
                failed,
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
            finally:
                for each in waits:
                    each.cancel()
                link.unsubscribe(request, end)

    def _run(self, work: Awaitable[None], subscriber: Subscriber[Any]) -> None:
        """Do the work of a stream until it fails, its reader is gone, or everything is closed."""
        reader = weakref.ref(subscriber)

        def end(error: Exception | None = None) -> None:
            subscriber = reader()
            if subscriber is not None:
                subscriber.end(error)

        async def run() -> None:
            try:
                await work
            except ExchangeError as error:
                end(error)
            finally:
                end()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        weakref.finalize(subscriber, task.cancel).atexit = False

    # -- history ---------------------------------------------------------------------------------------

    async def history(
        self, symbol: str, timeframe: Timeframe, since: datetime, until: datetime | None
    ) -> list[BarData]:
        """Return the finished bars that close after *since* and not after *until*."""
        size, now = size_of(timeframe), self._clock.now()
        end = min(until or now, now)
        listed = await self._contracts.find(symbol)
        text = "" if until is None else end.astimezone(UTC).strftime("%Y%m%d-%H:%M:%S")
        span = span_of(end - since + timeframe.duration)
        rows = await self._line.link.ask(
            lambda client, key: client.reqHistoricalData(
                *(key, listed.contract, text, span, size, what_of(listed), True, 2, False, [])
            )
        )
        bars = [bar_of(symbol, timeframe, row) for row in rows]
        wanted = {bar.close_time: bar for bar in bars if since < bar.close_time <= end}
        return [wanted[at] for at in sorted(wanted)]


def _subscriber() -> tuple[Subscriber[Any], Callable[[Any], None]]:
    """Return a reader, and what hands items to it without keeping it alive."""
    subscriber: Subscriber[Any] = Subscriber(lambda _item: True, None, 10_000)
    reader = weakref.ref(subscriber)

    def put(item: Any) -> None:
        subscriber = reader()
        if subscriber is not None:
            subscriber.put(item)

    return subscriber, put


def _market_data(listed: Listed) -> Callable[[Any, int], None]:
    return lambda client, key: client.reqMktData(key, listed.contract, "", False, False, [])


def _end_market_data(client: Any, key: int) -> None:
    client.cancelMktData(key)


def _end_history(client: Any, key: int) -> None:
    client.cancelHistoricalData(key)

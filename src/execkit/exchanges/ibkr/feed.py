"""Prices and bars: one quote, streams that survive a reconnection, and history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import structlog

from execkit.clock import Clock
from execkit.errors import (
    ConfigurationError,
    ExchangeError,
    ExchangeUnavailableError,
    UnsupportedFeatureError,
)
from execkit.exchanges.ibkr.contracts import Contracts, Listed
from execkit.exchanges.ibkr.line import Line
from execkit.exchanges.ibkr.raw import BarSeen, moment
from execkit.exchanges.streams import Subscriber
from execkit.model.market import BarData, Quote, Timeframe, Trade

log = structlog.get_logger("execkit")

T = TypeVar("T")

_SIZES: Final = {
    Timeframe.M1: "1 min",
    Timeframe.M5: "5 mins",
    Timeframe.M15: "15 mins",
    Timeframe.M30: "30 mins",
    Timeframe.H1: "1 hour",
    Timeframe.H4: "4 hours",
    Timeframe.D1: "1 day",
}
_GRACE: Final = 2.0
"""Seconds after its end at which a bar counts as finished although nothing newer has come."""

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
        subscriber: Subscriber[Quote] = _subscriber()

        def start(listed: Listed) -> Callable[[Any], None]:
            prices = _Prices(listed.symbol, self._clock)

            def on_row(row: Any) -> None:
                prices.take(row)
                quote = prices.quote()
                if quote is not None:
                    subscriber.put(quote)

            return on_row

        for symbol in symbols:
            self._run(self._follow(symbol, start, _market_data, _end_market_data), subscriber)
        return subscriber

    def trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield trades as TWS shows them: it joins those of a moment into one."""
        subscriber: Subscriber[Trade] = _subscriber()

        def start(listed: Listed) -> Callable[[Any], None]:
            prices = _Prices(listed.symbol, self._clock)
            first = True

            def on_row(row: Any) -> None:
                nonlocal first
                trade = prices.trade(row)
                if trade is not None and not first:
                    subscriber.put(trade)
                first = first and trade is None  # the first one is from before we asked

            return on_row

        for symbol in symbols:
            self._run(self._follow(symbol, start, _market_data, _end_market_data), subscriber)
        return subscriber

    def bars_of(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield finished bars, those of a gap included once the connection is back."""
        size = _size(timeframe)
        subscriber: Subscriber[BarData] = _subscriber()
        began = self._clock.now()
        for symbol in symbols:
            finisher = _Finisher(subscriber.put, self._clock, began)

            def start(listed: Listed, finisher: _Finisher = finisher) -> Callable[[Any], None]:
                return lambda row: finisher.take(_bar(listed.symbol, timeframe, row))

            def ask(listed: Listed) -> Callable[[Any, int], None]:
                # A day's history comes first: it fills the gap after a reconnection, and an empty beginning would
                # be worse, because TWS then may send no updates at all.
                span = "2 D" if timeframe.seconds >= 86400 else "1 D"
                return lambda client, key: client.reqHistoricalData(
                    *(key, listed.contract, "", span, size, _what(listed), True, 2, True, [])
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
        """Do the work of a stream until it fails, its reader leaves, or everything is closed."""

        async def run() -> None:
            try:
                await work
            except ExchangeError as error:
                subscriber.end(error)
            finally:
                subscriber.end()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- history ---------------------------------------------------------------------------------------

    async def history(
        self, symbol: str, timeframe: Timeframe, since: datetime, until: datetime | None
    ) -> list[BarData]:
        """Return the finished bars that close after *since* and not after *until*."""
        size, now = _size(timeframe), self._clock.now()
        end = min(until or now, now)
        listed = await self._contracts.find(symbol)
        text = "" if until is None else end.astimezone(UTC).strftime("%Y%m%d-%H:%M:%S")
        span = _span(end - since + timeframe.duration)
        rows = await self._line.link.ask(
            lambda client, key: client.reqHistoricalData(
                *(key, listed.contract, text, span, size, _what(listed), True, 2, False, [])
            )
        )
        bars = [_bar(symbol, timeframe, row) for row in rows]
        wanted = {bar.close_time: bar for bar in bars if since < bar.close_time <= end}
        return [wanted[at] for at in sorted(wanted)]


class _Finisher:
    """Turns the updates of a bar that grows into finished bars."""

    def __init__(self, put: Callable[[BarData], None], clock: Clock, began: datetime) -> None:
        self._put = put
        self._clock = clock
        self._told: dict[datetime, BarData] = {}
        self._open: dict[datetime, BarData] = {}
        self._after = began

    def take(self, bar: BarData) -> None:
        """Take in a bar as it is now; a newer one finishes all before."""
        if bar.close_time <= self._after and bar.close_time not in self._told:
            return
        if bar.close_time in self._told:
            if self._told[bar.close_time] != bar:
                self._tell(bar)  # a late correction
            return
        self._open[bar.close_time] = bar
        self._finish(bar.close_time)

    def _finish(self, before: datetime) -> None:
        for at in sorted(at for at in self._open if at < before):
            self._tell(self._open.pop(at))
            self._after = max(self._after, at)

    def _tell(self, bar: BarData) -> None:
        self._told[bar.close_time] = bar
        while len(self._told) > 10:
            del self._told[next(iter(self._told))]
        self._put(bar)

    async def run(self, timeframe: Timeframe) -> None:
        """Finish bars by the clock too, because nothing newer comes while nobody trades."""
        while True:
            now = self._clock.now()
            left = timeframe.seconds - now.timestamp() % timeframe.seconds
            await asyncio.sleep(left + _GRACE)
            self._finish(self._clock.now())


def _subscriber() -> Subscriber[Any]:
    return Subscriber(lambda _item: True, None, 10_000)


def _market_data(listed: Listed) -> Callable[[Any, int], None]:
    return lambda client, key: client.reqMktData(key, listed.contract, "", False, False, [])


def _end_market_data(client: Any, key: int) -> None:
    client.cancelMktData(key)


def _end_history(client: Any, key: int) -> None:
    client.cancelHistoricalData(key)


def _size(timeframe: Timeframe) -> str:
    try:
        return _SIZES[timeframe]
    except KeyError:
        raise UnsupportedFeatureError(
            f"Interactive Brokers: no bars of {timeframe}", venue="ibkr"
        ) from None


def _what(listed: Listed) -> str:
    kind = listed.contract.secType
    return "MIDPOINT" if kind == "CASH" else "AGGTRADES" if kind == "CRYPTO" else "TRADES"


def _span(length: timedelta) -> str:
    """Return a duration as TWS wants it; beyond a day it takes only whole days, beyond a year whole years."""
    seconds = max(30, int(length.total_seconds()) + 1)
    if seconds <= 86400:
        return f"{seconds} S"
    days = -(-seconds // 86400)
    return f"{days} D" if days <= 365 else f"{-(-days // 365)} Y"


def _bar(symbol: str, timeframe: Timeframe, seen: BarSeen) -> BarData:
    begins = moment(seen.date, None)
    if begins is None:
        raise ExchangeUnavailableError(f"a bar of {symbol} begins at {seen.date!r}", venue="ibkr")
    # The first bar of a session may be a short one: it ends where the next begins.
    since = begins.timestamp() // timeframe.seconds * timeframe.seconds
    try:
        return BarData(
            symbol,
            timeframe,
            datetime.fromtimestamp(since + timeframe.seconds, UTC),
            seen.open,
            seen.high,
            seen.low,
            seen.close,
            seen.volume,
        ).checked()
    except ConfigurationError as error:
        raise ExchangeUnavailableError(
            f"an impossible bar of {symbol}: {error}", venue="ibkr"
        ) from None

"""Any exchange that ccxt knows, by its id."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from execkit.clock import Clock
from execkit.errors import ExchangeUnavailableError
from execkit.exchanges.base import MarketStatus
from execkit.exchanges.ccxt.capabilities import read_capabilities
from execkit.exchanges.ccxt.dialect import DIALECTS, Dialect, with_refusals
from execkit.exchanges.ccxt.feeds import PublicFeeds, read_bar
from execkit.exchanges.ccxt.orders import CCXTOrders
from execkit.exchanges.ccxt.stream import Session
from execkit.exchanges.ccxt.unified import (
    market_of,
    read_balances,
    read_market,
    read_position,
    read_quote,
)
from execkit.exchanges.ccxt.values import BadAnswerError, mapping, milliseconds, moment, rows
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.numbers import MONEY, ZERO

_QUOTES: Final = ("USDT", "USDC", "USD", "EUR", "BTC")
_CASH: Final = frozenset({"USDT", "USDC", "USD", "EUR", "GBP", "DAI", "FDUSD", "TUSD"})
_NOTHING: Final = (None, "", "0", "0.0")
_STATUS_LASTS: Final = 10.0
_READY_WITHIN: Final = 2.0
"""Seconds that a subscription may take to be confirmed, where nobody knows how the venue confirms it."""


class CCXTAdapter(CCXTOrders):
    """One account at any exchange that ccxt knows.

    What works is read from ccxt's own tables (`capabilities`). A refusal is believed only where its code is on a list
    of ours (so far: bybit) or in *refusals*; any other one counts as unknown and is looked up.

    Args:
        exchange_id: The exchange's id in ccxt, e.g. `bybit`; for Binance use `BinanceAdapter`.
        api_key: Key; by default `<EXCHANGE_ID>_API_KEY` of the environment.
        secret: Its secret; by default `<EXCHANGE_ID>_API_SECRET`.
        password: Passphrase, where the exchange has one; by default `<EXCHANGE_ID>_API_PASSWORD`.
        market: `spot`, or `linear` for perpetual futures.
        sandbox: `testnet`, `demo`, or True for the testnet; the default unless *live* is set.
        live: Real money; has to be spelled out.
        data_only: For prices only: no key is read or kept, nothing can be ordered, and where no sandbox is named
            the prices are the live venue's.
        rest_url: Another server; scheme and host only. Plain http is taken for this machine only.
        stream_url: The same for the WebSockets.
        own_proxy: Both addresses are a proxy of yours that leads to the sandbox; this machine's need no word.
        timeout: Limit of one request.
        absence_window: How long after a send the exchange may not show an order that it has.
        max_clock_skew: Difference of the clocks from which `connect` refuses.
        clock, rng: Injected time and chance.
        account: Name of the account, where the journal is to outlive a change of keys.
        options: Options of ccxt.
        refusals: Error codes that you vouch for, e.g. `{"51008": "insufficient_balance"}`.
    """

    def __init__(
        self,
        exchange_id: str,
        *,
        api_key: str | None = None,
        secret: str | None = None,
        password: str | None = None,
        market: str = "spot",
        sandbox: bool | str | None = None,
        live: bool = False,
        data_only: bool = False,
        rest_url: str | None = None,
        stream_url: str | None = None,
        own_proxy: bool = False,
        timeout: timedelta = timedelta(seconds=10),
        absence_window: timedelta = timedelta(seconds=120),
        max_clock_skew: timedelta = timedelta(seconds=1),
        clock: Clock | None = None,
        rng: random.Random | None = None,
        account: str | None = None,
        options: Mapping[str, Any] | None = None,
        refusals: Mapping[str, str] | None = None,
    ) -> None:
        kind = "spot" if market == "spot" else "linear"
        super().__init__(
            exchange_id,
            api_key=api_key,
            secret=secret,
            password=password,
            market=market,
            sandbox=sandbox,
            live=live,
            data_only=data_only,
            rest_url=rest_url,
            stream_url=stream_url,
            own_proxy=own_proxy,
            timeout=timeout,
            clock=clock,
            rng=rng,
            account=account,
            max_clock_skew=max_clock_skew,
            options={
                "defaultType": "spot" if market == "spot" else "swap",
                "defaultSubType": "linear",
                "fetchMarkets": {"types": [kind]},
                "fetchMargins": False,
                **(options or {}),
            },
            dialect=with_refusals(DIALECTS.get(exchange_id, Dialect()), refusals),
        )
        self._client.has = {**self._client.has, "fetchCurrencies": False}
        self._limit = timeout.total_seconds()
        self._sizes: dict[str, Decimal] = {}
        self._used: dict[str, None] = {}
        self._loaded_at: float | None = None
        self._confirmed = asyncio.Event()
        self._feeds = PublicFeeds(self._client, exchange_id, self.clock, self._size_of)
        self._capabilities = read_capabilities(self._client, market, self._dialect, absence_window)

    @property
    def capabilities(self) -> Capabilities:
        """What ccxt's tables say of the exchange."""
        return self._capabilities

    async def _load_markets(self) -> None:
        async def load() -> None:
            markets = await self._client.load_markets(self._loaded_at is not None)
            for row in mapping(markets, "the markets").values():
                found = read_market(row, self.market, self._client.precisionMode)
                if found is not None:
                    self._list(found[0])
                    self._sizes[found[0].symbol] = found[1]

        await self._ask(load())
        self._loaded_at = asyncio.get_running_loop().time()

    async def _check_account(self) -> None:
        """Compare clocks, and look at the key's rights where the venue tells them, before the first order."""
        await self._compare_clocks()
        path = self._dialect.key_path
        if path is not None:
            self._dialect.check_key(await self._ask(self._client.request(path, ["private"])))
        await self.balances()

    async def _server_time(self) -> datetime | None:
        if self._client.has.get("fetchTime") is not True:
            return None
        return moment({"time": await self._client.fetch_time()}, "time")

    # -- the stream of orders ----------------------------------------------------------------------------

    def _on_raw(self, _socket: Any, message: Any) -> bool:
        is_subscribed = self._dialect.is_subscribed
        if is_subscribed is None or is_subscribed(message):
            self._confirmed.set()
        return False

    async def _open_orders_stream(self) -> Session:
        before = set(self._client.clients)
        watched = [asyncio.create_task(self._follow(self._client.watch_orders, self._read))]
        try:
            await self._until_confirmed(watched[0])
            if self._client.has.get("watchMyTrades") is True:
                watched.append(
                    asyncio.create_task(self._follow(self._client.watch_my_trades, self._read_fill))
                )
                await self._until_confirmed(watched[1])
        except BaseException:
            await _end(watched)
            await self._hang_up(before)
            raise

        async def until_lost() -> None:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            await next(iter(done))

        async def close() -> None:
            await _end(watched)
            await self._hang_up(before)

        return Session(asyncio.create_task(until_lost()), close)

    async def _until_confirmed(self, task: asyncio.Task[None]) -> None:
        self._confirmed.clear()
        waiting = asyncio.create_task(self._confirmed.wait())
        knows = self._dialect.is_subscribed is not None
        done, _ = await asyncio.wait(
            [task, waiting],
            timeout=self._limit if knows else _READY_WITHIN,
            return_when=asyncio.FIRST_COMPLETED,
        )
        waiting.cancel()
        if task in done:
            await task
        if not done and knows:
            raise ExchangeUnavailableError(
                f"{self.name}: the order stream was not confirmed", venue=self.name
            )

    async def _follow(self, watch: Any, read: Any) -> None:
        while True:
            for row in await watch():
                for known in self._outside.listed([row], self._sizes, "event"):
                    self._orders.publish(read(known))

    async def _hang_up(self, before: set[str]) -> None:
        for url in set(self._client.clients) - before:
            await self._client.clients.pop(url).close()

    # -- the account -------------------------------------------------------------------------------------

    async def balances(self) -> dict[str, Balance]:
        """Return all holdings; on futures as if open positions had been paid for, as `BinanceAdapter` does."""

        async def load() -> dict[str, Balance]:
            found = read_balances(await self._client.fetch_balance())
            if self.market != "spot":
                for position in await self._positions():
                    _pay(found, position)
            return found

        return await self._ask(load())

    async def positions(self) -> Sequence[VenuePosition]:
        """Return net positions; on spot each held asset that is no money, in one of its markets."""
        if self.market != "spot":
            return await self._ask(self._positions())
        found = []
        for asset, balance in (await self.balances()).items():
            symbol = market_of(asset, self._sizes, _QUOTES)
            if symbol is not None and asset not in _CASH:
                found.append(VenuePosition(symbol, balance.total))
        return found

    async def _positions(self) -> list[VenuePosition]:
        body = rows(await self._client.fetch_positions())
        held = [row for row in body if row.get("contracts") not in _NOTHING]
        listed = self._outside.listed(held, self._sizes, "position")
        found = [read_position(row, self._size_of) for row in listed]
        return [position for position in found if position is not None]

    # -- the market --------------------------------------------------------------------------------------

    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote."""
        self._use(symbol)

        async def load() -> Quote | None:
            return read_quote(await self._client.fetch_ticker(symbol), self.clock.now())

        quote = await self._ask(load())
        if quote is None:
            raise ExchangeUnavailableError(
                f"{self.name}: {symbol} has no bid or no ask now", venue=self.name
            )
        return quote

    async def market_status(self, symbol: str) -> MarketStatus:
        """Tell whether a symbol is open for trading; the markets are loaded anew after ten seconds."""
        self._use(symbol)
        now = asyncio.get_running_loop().time()
        if self._status_at is None or now - self._status_at > _STATUS_LASTS:
            await self._load_markets()
            self._status_at = now
        is_open = self._instruments[symbol].tradeable
        return MarketStatus(is_open=is_open, reason="" if is_open else f"{symbol} is halted")

    _status_at: float | None = None

    def watch_quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield quotes as they change."""
        return self._feeds.quotes(self._listed(symbols))

    def watch_trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield public trades."""
        return self._feeds.trades(self._listed(symbols))

    def watch_bars(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield bars when the next one has begun."""
        return self._feeds.bars(self._listed(symbols), timeframe)

    def _listed(self, symbols: Sequence[str]) -> list[str]:
        for symbol in symbols:
            self._use(symbol)
        return list(symbols)

    async def bars(
        self, symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime | None = None
    ) -> Sequence[BarData]:
        """Return finished bars, a page at a time."""
        self._use(symbol)
        end = min(self.clock.now() if until is None else until, self.clock.now())

        async def load() -> list[BarData]:
            found: dict[datetime, BarData] = {}
            start = since - timeframe.duration
            while start <= end:
                page = await self._client.fetch_ohlcv(symbol, timeframe.value, milliseconds(start))
                if not isinstance(page, list):
                    raise BadAnswerError("the bars are no list")
                bars = [read_bar(row, symbol, timeframe) for row in page]
                news = {bar.close_time: bar for bar in bars if bar.close_time not in found}
                found |= news
                if not news:
                    break
                start = max(news)
            return [found[key] for key in sorted(found) if since < key <= end]

        return await self._ask(load())


def _pay(balances: dict[str, Balance], position: VenuePosition) -> None:
    """Take from the cash what a position cost; see `futures_balances` of Binance for why."""
    asset = position.symbol.partition(":")[2]
    paid = MONEY.multiply(position.quantity, position.average_price)
    held = balances.get(asset) or Balance(asset, ZERO, ZERO)
    total = MONEY.subtract(held.total, paid)
    balances[asset] = Balance(asset, total, min(held.free, total))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

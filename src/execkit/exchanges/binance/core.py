"""A Binance account before its first order: settings, markets, clock, the key's rights, the stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from string import ascii_letters, digits
from typing import Any, Final, TypeVar

import structlog

from execkit.clock import Clock
from execkit.errors import AuthenticationError, ExchangeError
from execkit.exchanges.binance import account
from execkit.exchanges.binance.codes import SPOT, USDM
from execkit.exchanges.binance.data import MarketFeeds
from execkit.exchanges.binance.markets import Market, markets_of, with_fees
from execkit.exchanges.binance.rest import Endpoints
from execkit.exchanges.binance.user_stream import Conditionals, UnknownMarketError, UserStream
from execkit.exchanges.binance.weight import HEADER, Weight
from execkit.exchanges.ccxt.base import CCXTBase
from execkit.exchanges.ccxt.stream import Session
from execkit.exchanges.ccxt.unified import market_of
from execkit.exchanges.ccxt.values import mapping, moment, rows
from execkit.model.account import Balance
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import ListKind, OrderType, TimeInForce

log = structlog.get_logger("execkit")

T = TypeVar("T")

_QUOTES: Final = ("USDT", "USDC", "FDUSD", "USD", "EUR", "BTC")
NO_ZEROS: Final = {"omitZeroBalances": "true"}


class BinanceCore(CCXTBase):
    """Settings, markets and the checks at the start; see `BinanceAdapter` for the arguments."""

    markets = ("spot", "usdm")

    def __init__(
        self,
        api_key: str | None = None,
        secret: str | None = None,
        *,
        market: str = "spot",
        sandbox: bool | str | None = None,
        live: bool = False,
        data_only: bool = False,
        rest_url: str | None = None,
        stream_url: str | None = None,
        own_proxy: bool = False,
        symbols: Sequence[str] = (),
        timeout: timedelta = timedelta(seconds=10),
        absence_window: timedelta = timedelta(seconds=120),
        max_clock_skew: timedelta = timedelta(seconds=1),
        clock: Clock | None = None,
        rng: random.Random | None = None,
        account: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            "binance",
            api_key=api_key,
            secret=secret,
            password=None,
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
            options={"disableFuturesSandboxWarning": True, **(options or {})},
            dialect=SPOT if market == "spot" else USDM,
            default_sandbox="testnet" if market == "spot" else "demo",
        )
        self._spot = market == "spot"
        self._kind = market
        limit = timeout.total_seconds()
        self._api = Endpoints(self._client, market)
        self._book: dict[str, Market] = {}
        self._symbols: dict[str, str] = {}
        self._used: dict[str, None] = dict.fromkeys(symbols)
        self._preferred = tuple(symbols)
        self._held: dict[str, Balance] = {}
        self._quotes: dict[str, Quote] = {}
        self._status: dict[str, tuple[float, bool]] = {}
        self._conditionals = Conditionals()
        self._feeds = MarketFeeds(self._client, market, clock=self.clock, limit=limit)
        self._user = UserStream(
            self._client,
            market,
            symbol_of=self._symbol_of,
            publish=self._orders.publish,
            conditionals=self._conditionals,
            remember=self._remember,
            limit=limit,
        )
        self._weight = Weight()
        self.used_weight: dict[str, int] = {}
        """Binance's count of what this address has used, by the names of its headers, as of the last answer."""
        self._capabilities = _capabilities(market, absence_window)

    @property
    def capabilities(self) -> Capabilities:
        """What Binance offers on this market, and what of it this adapter uses."""
        return self._capabilities

    # -- start -------------------------------------------------------------------------------------------

    async def _load_markets(self) -> None:
        async def load() -> None:
            body = mapping(await self._api.public("exchangeInfo"))
            self._weight.note_limits(body.get("rateLimits"))
            for market in markets_of(body, self._kind):
                self._keep(market)

        await self._ask(load())

    def _keep(self, market: Market) -> None:
        symbol = market.instrument.symbol
        known = self._instruments.get(symbol)
        if known is not None:
            market = with_fees(market, known.maker_fee, known.taker_fee)
        self._book[symbol] = market
        self._symbols[market.id] = symbol
        self._list(market.instrument)

    async def _renew(self, market_id: str) -> None:
        """Ask for the rules and the state of a market anew."""

        async def load() -> None:
            # Futures are told all at once, and reading hundreds of them would hold up orders.
            params = {"symbol": market_id} if self._spot else {}
            body = mapping(await self._api.public("exchangeInfo", params))
            listed = [
                row
                for row in rows(body.get("symbols"), "symbols")
                if row.get("symbol") == market_id
            ]
            is_open = any(row.get("status") == "TRADING" for row in listed)
            for market in markets_of({"symbols": listed}, self._kind):
                self._keep(market)
            self._status[market_id] = (asyncio.get_running_loop().time(), is_open)

        # A part of placing an order, so it does not wait for the weight.
        await self._call(load(), write=False)

    async def _check_account(self) -> None:
        """Compare clocks; refuse a key that may withdraw or may not trade, and an account in hedge mode."""
        await self._compare_clocks()
        restrictions = await self._restrictions()
        if restrictions is not None:
            account.check_rights(restrictions, self._kind)
            if not account.has_fixed_address(restrictions):
                log.warning(
                    "key.any_address", venue=self.name, advice="restrict the key to your IP address"
                )
        if self._spot:
            body = await self._named_key(self._api.private("account", NO_ZEROS))
            account.check_can_trade(body)
            fees = account.spot_fees(body)
            if fees is not None:
                for symbol, market in self._book.items():
                    self._book[symbol] = with_fees(market, *fees)
                    self._instruments[symbol] = self._book[symbol].instrument
            self._hold(account.spot_balances(body))
        else:
            account.check_can_trade(
                await self._named_key(self._api.private("account", version="3"))
            )
            account.check_one_way(await self._offered(self._api.private("positionSide/dual")) or {})

    async def _restrictions(self) -> Any:
        """Return the key's rights, or None in a sandbox, which does not tell them."""
        if not self._api.has_wallet:
            return None
        reading = self._named_key(self._api.wallet("account/apiRestrictions"))
        return await (reading if self.environment == "live" else self._offered(reading))

    async def _named_key(self, work: Any) -> Any:
        try:
            return await self._ask(work)
        except AuthenticationError as error:
            other = "the live venue" if self.environment != "live" else "the testnet or the demo"
            raise AuthenticationError(
                f"api_key: Binance ({self.environment}, {self.market}) refuses this key: {error.raw or error}; "
                f"check key, secret and IP list; a key of {other} does not work here",
                venue=self.name,
                code=error.code,
            ) from None

    async def _offered(self, work: Any) -> Any:
        """Return an answer, or None where the environment has no such page."""
        try:
            return await self._ask(work)
        except ExchangeError as error:
            if isinstance(error, AuthenticationError) or error.code is not None:
                raise
            if "HTTP 404" in str(error):
                return None
            raise

    async def _server_time(self) -> datetime:
        return moment(mapping(await self._api.public("time")), "serverTime")

    def _note_headers(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            lower = name.lower()
            if lower.startswith(("x-mbx-used-weight", "x-mbx-order-count")) and value.isdigit():
                self.used_weight[lower] = int(value)
                if lower == HEADER:
                    ahead = timedelta(milliseconds=self._client.options.get("timeDifference", 0))
                    self._weight.note(int(value), self.clock.now() - ahead)

    async def _ask(self, work: Awaitable[T]) -> T:
        """Make a request that changes nothing, unless the weight that is left is needed for orders."""
        try:
            await self._weight.turn()
        except asyncio.CancelledError:
            if asyncio.iscoroutine(work):
                work.close()
            raise
        return await super()._ask(work)

    # -- names -------------------------------------------------------------------------------------------

    def _market(self, symbol: str) -> Market:
        self._rules(symbol)
        self._used[symbol] = None
        return self._book[symbol]

    def _symbol_of(self, market_id: str) -> str:
        found = self._symbols.get(market_id)
        if found is None:
            self._outside.tell(market_id, "event")
            raise UnknownMarketError("a market that is not traded here")
        return found

    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol, with the account's own fees on spot."""
        self._market(symbol)
        return await super().instrument(symbol)

    def _hold(self, balances: dict[str, Balance]) -> None:
        self._held = balances

    def _symbols_held(self) -> list[str]:
        """Return one market for each held asset, the same whatever was looked at before."""
        if not self._spot:
            return []
        assets = self._held.keys() - account.CASH
        found = (market_of(asset, self._book, _QUOTES, self._preferred) for asset in assets)
        return sorted(symbol for symbol in found if symbol is not None)

    # -- the stream --------------------------------------------------------------------------------------

    async def _open_orders_stream(self) -> Session:
        return await self._user.open()

    def _on_raw(self, socket: Any, message: Any) -> bool:
        return self._feeds.take(socket.url, message) or self._user.take(message)


def _capabilities(market: str, absence_window: timedelta) -> Capabilities:
    spot = market == "spot"
    return Capabilities(
        order_types=frozenset(OrderType),
        times_in_force=frozenset({TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK}),
        short_selling=not spot,
        reduce_only=not spot,
        amend=not spot,
        positions_are_holdings=spot,
        lists=frozenset(ListKind) if spot else frozenset(),
        lookup_lasts=timedelta(days=90 if spot else 3),
        quote_stream=True,
        trade_stream=True,
        bar_stream=True,
        bar_history=True,
        absence_window=absence_window,
        client_id_length=36,
        client_id_alphabet=ascii_letters + digits + "-_.:/",
        order_rate=(50 if spot else 300, timedelta(seconds=10)),
        rate_counts_cancels=False,
        dead_man=not spot,
    )

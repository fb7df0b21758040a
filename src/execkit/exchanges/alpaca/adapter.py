"""The Alpaca adapter: orders and account over REST, their news over `trade_updates`, prices over the data streams."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b

from execkit.clock import Clock, SystemClock
from execkit.errors import ConfigurationError, UnsupportedFeatureError
from execkit.exchanges.alpaca import data, hosts
from execkit.exchanges.alpaca.account import (
    balances_of,
    check_rights,
    read_account,
    read_positions,
)
from execkit.exchanges.alpaca.chains import Chains
from execkit.exchanges.alpaca.codes import VENUE
from execkit.exchanges.alpaca.market import read_bar, read_quote, read_trade
from execkit.exchanges.alpaca.markets import Markets
from execkit.exchanges.alpaca.orders import OrderReads
from execkit.exchanges.alpaca.requests import is_crypto
from execkit.exchanges.alpaca.rest import Rest, understand, understood
from execkit.exchanges.alpaca.stream import TradeUpdates
from execkit.exchanges.alpaca.trading import Trading
from execkit.exchanges.alpaca.wire import Wire
from execkit.exchanges.base import ExchangeAdapter, MarketStatus
from execkit.exchanges.ccxt.stream import OrderStream
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import (
    Fill,
    ListKind,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderType,
    OrderUpdate,
    Side,
    TimeInForce,
)
from execkit.numbers import ZERO
from execkit.redaction import keep_secret


class AlpacaAdapter(ExchangeAdapter):
    """One account at Alpaca: stocks (`AAPL`) and crypto (`BTC/USD`), paper by default.

    Args:
        api_key: Key id; by default ALPACA_API_KEY.
        secret: Its secret; by default ALPACA_API_SECRET.
        paper: Paper trading. False alone is not enough for live trading.
        live: True trades with real money.
        rest_url: Another address for orders; with *stream_url*. Plain http and ws are taken for this machine only.
        stream_url: Another address for the news of orders.
        data_url: Another address for prices.
        data_stream_url: Another address for the streams of prices.
        feed: Where stock prices come from: `iex` (free), `sip` or `delayed_sip`.
        fractional: Stocks are traded in fractions of a share, where the asset allows it; False: whole shares.
        timeout: Limit for each request.
        heartbeat: Pause between two pings of a stream; a line that does not answer within half of it is dead.
        absence_window: How long Alpaca may still not show an order that it took.
        clock: Wall clock.
        rng: Jitter of reconnects.
        account: Names the account in journals; by default a digest of the key.
    """

    name = VENUE

    def __init__(
        self,
        *,
        api_key: str | None = None,
        secret: str | None = None,
        paper: bool = True,
        live: bool = False,
        rest_url: str | None = None,
        stream_url: str | None = None,
        data_url: str | None = None,
        data_stream_url: str | None = None,
        feed: str = "iex",
        fractional: bool = False,
        timeout: timedelta = timedelta(seconds=8),
        heartbeat: timedelta = timedelta(seconds=20),
        absence_window: timedelta = timedelta(seconds=30),
        clock: Clock | None = None,
        rng: random.Random | None = None,
        account: str | None = None,
    ) -> None:
        if feed not in hosts.FEEDS:
            raise ConfigurationError(
                f"feed: {feed!r} is unknown; use one of {', '.join(hosts.FEEDS)}"
            )
        if min(timeout, heartbeat) <= timedelta(0):
            raise ConfigurationError("timeout, heartbeat: both must be above zero")
        self._urls = hosts.addresses(
            paper=paper,
            live=live,
            rest_url=rest_url,
            stream_url=stream_url,
            data_url=data_url,
            data_stream_url=data_stream_url,
        )
        self.environment = self._urls.environment
        self.clock: Clock = clock or SystemClock()
        self.fractional = fractional
        api_key = api_key or os.environ.get("ALPACA_API_KEY")
        secret = secret or os.environ.get("ALPACA_API_SECRET")
        keep_secret(api_key, secret)
        digest = blake2b((api_key or "").encode(), digest_size=4).hexdigest()
        self._account = f"{VENUE}-{self.environment}-{account or digest}"
        self._wire = Wire(
            api_key=api_key,
            secret=secret,
            hosts=self._urls.hosts,
            limit=timeout.total_seconds(),
            heartbeat=heartbeat.total_seconds(),
            clock=self.clock,
        )
        self._absence_window = absence_window
        self._can_short = True
        self._rest = Rest(self._wire, self._urls, self.clock)
        self._markets = Markets(
            self._rest,
            clock=self.clock,
            feed=feed,
            fractional=fractional,
            changed=self._rules_changed,
        )
        self._reads = OrderReads(self._rest.get, Chains())
        self._trading = Trading(self._rest, self._markets, self._reads)
        self._orders = OrderStream(
            lambda: self._updates.open(),  # noqa: PLW0108 - made below, it needs what this one publishes
            venue=VENUE,
            rng=rng or random.Random(),  # noqa: S311 - jitter, no secrets
        )
        self._updates = TradeUpdates(
            self._wire, f"{self._urls.stream}/stream", self._reads.chains, self._orders.publish
        )
        self._stocks = data.DataStream(self._wire, f"{self._urls.data_stream}/v2/{feed}")
        self._crypto = data.DataStream(self._wire, f"{self._urls.data_stream}/v1beta3/crypto/us")

    # -- life --------------------------------------------------------------------------------------------

    @property
    def account(self) -> str:
        """Venue, environment, and a digest of the key or the name given; no secret."""
        return self._account

    @property
    def capabilities(self) -> Capabilities:
        """What Alpaca can do; whether it sells short is known of the account after `connect`."""
        return Capabilities(
            order_types=frozenset(OrderType),
            times_in_force=frozenset(
                {TimeInForce.GTC, TimeInForce.DAY, TimeInForce.IOC, TimeInForce.FOK}
            ),
            short_selling=self._can_short,
            amend=True,
            opposite_orders=False,  # "potential wash trade detected"
            positions_are_holdings=True,
            lists=frozenset(ListKind),
            extended_hours=True,
            quote_stream=True,
            trade_stream=True,
            bar_stream=True,
            bar_history=True,
            always_open=False,
            absence_window=self._absence_window,
            client_id_length=128,
            fractional=self.fractional,
            order_rate=(200, timedelta(minutes=1)),
        )

    async def connect(self) -> None:
        """Open the connection, check key and account, and open the order stream.

        Raises `ConfigurationError` or `AuthenticationError` naming what is wrong with the settings.
        """
        await self.connect_data()
        try:
            account = await self._rest.get("/v2/account")
            understand(account, check_rights)
            self._can_short = understand(account, read_account).short_selling
            await self._orders.start()
        except BaseException:
            await self.close()
            raise

    async def connect_data(self) -> None:
        """Open what market data needs; at Alpaca that is a key too."""
        if not self._wire.has_key:
            raise ConfigurationError(
                "api_key: no key for alpaca; pass api_key= and secret=, or set ALPACA_API_KEY and ALPACA_API_SECRET"
            )
        self._wire.open()

    async def close(self) -> None:
        """End the streams and close all connections."""
        await self._orders.stop()
        await self._stocks.close()
        await self._crypto.close()
        await self._wire.close()

    # -- orders ------------------------------------------------------------------------------------------

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Send one order, once."""
        return await self._trading.place(request)

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Send a bracket, OCO or OTO as one order with legs; one report each, in their order."""
        return await self._trading.place_list(orders)

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Ask to cancel one order, in its newest version."""
        return await self._trading.cancel(symbol, client_order_id, venue_order_id)

    async def amend_order(
        self,
        symbol: str,
        *,
        client_order_id: str,
        venue_order_id: str | None = None,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
    ) -> OrderReport:
        """Replace a resting order by one with other terms; it keeps its name here. See `Trading.amend`."""
        return await self._trading.amend(
            symbol,
            client_order_id=client_order_id,
            venue_order_id=venue_order_id,
            quantity=quantity,
            limit_price=limit_price,
            stop_price=stop_price,
        )

    async def place_notional(
        self, symbol: str, side: Side, amount: Decimal, *, client_order_id: str
    ) -> OrderReport:
        """Buy or sell for an amount of money by Alpaca's own means: for use by hand. See `Trading.place_notional`."""
        return await self._trading.place_notional(symbol, side, amount, client_order_id)

    async def close_position(self, symbol: str, quantity: Decimal | None = None) -> OrderReport:
        """Close a position by Alpaca's own means: for use by hand. See `Trading.close_position`."""
        return await self._trading.close_position(symbol, quantity)

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order, open or closed, in its newest version."""
        await self._rest.headroom.turn()
        return await understood(self._reads.get(symbol, client_order_id, venue_order_id))

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return every open order of the account in stocks and crypto."""
        await self._rest.headroom.turn()
        return await understood(self._reads.open_orders(symbol))

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return the executions at or after *since*, oldest first."""
        await self._rest.headroom.turn()
        return await understood(self._reads.fills_since(since, symbol))

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Yield what happens to orders; it is open from `connect` on."""
        return self._orders.subscribe()

    # -- money -------------------------------------------------------------------------------------------

    async def balances(self) -> dict[str, Balance]:
        """Return the cash, of which only what needs no borrowing is free, and what is held of each asset."""
        await self._rest.headroom.turn()
        account = understand(await self._rest.get("/v2/account"), read_account)
        held = understand(await self._rest.get("/v2/positions"), read_positions)
        return balances_of(account, held)

    async def positions(self) -> Sequence[VenuePosition]:
        """Return all net positions in stocks and crypto."""
        await self._rest.headroom.turn()
        held = understand(await self._rest.get("/v2/positions"), read_positions)
        return [each.position for each in held if each.position.quantity != ZERO]

    # -- instruments and prices ----------------------------------------------------------------------------

    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol, which are asked for once."""
        return await self._markets.instrument(symbol)

    def _rules_changed(self) -> None:
        self.rules_version += 1

    async def market_status(self, symbol: str) -> MarketStatus:
        """Tell whether the market of a symbol takes orders now, by the venue's clock, calendar and asset."""
        return await self._markets.status(symbol)

    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote; `ExchangeUnavailableError` while there is none of two sides."""
        return await self._markets.ticker(symbol)

    async def bars(
        self, symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime | None = None
    ) -> Sequence[BarData]:
        """Return finished bars; the daily ones of stocks end with the session, on half days earlier."""
        return await self._markets.bars(symbol, timeframe, since, until)

    def watch_quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield quotes of the symbols, all of stocks or all of crypto."""
        return self._data_of(symbols).follow("q", symbols, lambda row: read_quote(row, row["S"]))

    def watch_trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield public trades of the symbols, all of stocks or all of crypto."""
        return self._data_of(symbols).follow("t", symbols, lambda row: read_trade(row, row["S"]))

    def watch_bars(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield finished bars of one minute, and once more those that late trades have changed."""
        if timeframe is not Timeframe.M1:
            raise UnsupportedFeatureError(
                f"{VENUE}: its stream has bars of one minute only; build {timeframe} from them"
            )
        return self._data_of(symbols).follow(
            ("b", "u"), symbols, lambda row: read_bar(row, row["S"], timeframe)
        )

    def _data_of(self, symbols: Sequence[str]) -> data.DataStream:
        kinds = {is_crypto(symbol) for symbol in symbols}
        if len(kinds) != 1:
            raise ConfigurationError(
                "symbols: stocks and crypto come over two streams; watch them apart"
            )
        return self._crypto if kinds.pop() else self._stocks

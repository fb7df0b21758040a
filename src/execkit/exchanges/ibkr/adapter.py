"""Interactive Brokers as an exchange adapter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal

from execkit.clock import Clock, SystemClock
from execkit.errors import (
    ExchangeUnavailableError,
    NotSentError,
)
from execkit.exchanges.base import ExchangeAdapter, MarketStatus
from execkit.exchanges.ibkr.contracts import Contracts
from execkit.exchanges.ibkr.day import offset_of, since_midnight
from execkit.exchanges.ibkr.feed import Feed
from execkit.exchanges.ibkr.line import Line
from execkit.exchanges.ibkr.link import Link
from execkit.exchanges.ibkr.lookup import Lookup
from execkit.exchanges.ibkr.pace import Pace
from execkit.exchanges.ibkr.settings import check, choose_account, refuse_live_port, zone_of
from execkit.exchanges.ibkr.table import OrderTable
from execkit.exchanges.ibkr.trading import Trading
from execkit.exchanges.streams import Stream
from execkit.ids import is_ours
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
    StreamGap,
    TimeInForce,
)


class IBKRAdapter(ExchangeAdapter):
    """One account at Interactive Brokers, through a running TWS or IB Gateway.

    Args:
        host: Where TWS or the gateway listens.
        port: 7497 TWS paper (default), 7496 TWS live, 4002 gateway paper, 4001 gateway live.
        client_id: The API client id; fixed, because only it can cancel and change what it has placed.
        account: The account id; None takes the only one there is. Named, it also binds the journal to the account.
        live: Must be true for an account with real money. Paper accounts have ids that begin with D.
        order_timeout: How long to wait for an answer to an order; after that its outcome is unknown.
        read_timeout: The same for questions, and for connecting.
        heartbeat: How often TWS is asked for its time; a link that does not answer is made anew.
        messages_per_second: What may be sent; TWS takes 50. Orders wait up to *queue_limit* for their turn and then
            provably stay here.
        queue_limit: See above.
        fee_wait: How long an execution waits for its commission before it is told without.
        hours_max_age: How old the trading hours may be that an order is checked with.
        absence_window: How long after a send TWS may not show an order that it has; then it counts as absent.
        delayed_data: Take delayed quotes (15 minutes) where the account has no live ones.
        time_zone: Zone of times that TWS states without one; only old versions do.
        clock: Wall clock.
        rng: Chance for the pauses between attempts to reconnect.
    """

    name = "ibkr"

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 7497,
        client_id: int = 1,
        account: str | None = None,
        live: bool = False,
        order_timeout: timedelta = timedelta(seconds=10),
        read_timeout: timedelta = timedelta(seconds=5),
        heartbeat: timedelta = timedelta(seconds=10),
        messages_per_second: int = 45,
        queue_limit: timedelta = timedelta(seconds=1),
        fee_wait: timedelta = timedelta(milliseconds=250),
        hours_max_age: timedelta = timedelta(hours=1),
        absence_window: timedelta | None = timedelta(seconds=60),
        delayed_data: bool = False,
        time_zone: str | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        check(port=port, client_id=client_id, messages_per_second=messages_per_second)
        self._port = port
        self._client_id = client_id
        self._named = account
        self._address = f"{host}:{port}:{client_id}"
        self._live = live
        self._read_timeout = read_timeout.total_seconds()
        self._delayed_data = delayed_data
        self._absence_window = absence_window
        self._clock: Clock = clock or SystemClock()
        self._pace = Pace(messages_per_second)
        self._zone = zone_of(time_zone)
        self._updates: Stream[OrderUpdate] = Stream(lambda: StreamGap("read too slowly"))
        self._line = Line(
            self._make_link,
            self._synchronise,
            self._on_gap,
            address=(host, port),
            heartbeat=heartbeat.total_seconds(),
            read_timeout=self._read_timeout,
            rng=rng or random.Random(),  # noqa: S311 - spreads attempts, guards nothing
        )
        self._contracts = Contracts(
            lambda: self._line.link, self._clock, hours_max_age=hours_max_age
        )
        self._table = OrderTable(
            self._contracts,
            self._clock,
            client_id=client_id,
            fee_wait=fee_wait.total_seconds(),
            publish=self._updates.publish,
            uplink=self._on_uplink,
        )
        self._lookup = Lookup(self._line, self._contracts, self._table)
        self._trading = Trading(
            self._line,
            self._contracts,
            self._table,
            self._lookup,
            now=self._clock.now,
            order_timeout=order_timeout.total_seconds(),
            queue_limit=queue_limit.total_seconds(),
        )
        self._feed = Feed(self._line, self._contracts, self._clock, read_timeout=self._read_timeout)
        self._data_only = False
        self._offset: timedelta | None = None
        """How far the time of TWS is ahead of UTC."""

    @property
    def capabilities(self) -> Capabilities:
        """Lists, trailing stops, changes and hours outside the regular session; no reduce-only, no fractions."""
        return Capabilities(
            order_types=frozenset(OrderType),
            times_in_force=frozenset(TimeInForce),
            short_selling=True,
            reduce_only=False,
            amend=True,
            lists=frozenset(ListKind),
            extended_hours=True,
            lookup_by_client_id=True,
            lookup_lasts=since_midnight(self._offset, self._clock.now()),
            quote_stream=True,
            trade_stream=True,
            bar_stream=True,
            bar_history=True,
            always_open=False,
            absence_window=self._absence_window,
            client_id_length=40,
            fractional=False,
            order_rate=(45, timedelta(seconds=1)),
        )

    @property
    def account(self) -> str:
        """`ibkr:` and the account id; where none was named, the address and the client id in its place.

        The same before and after connecting, because the journal is opened before.
        """
        return f"ibkr:{self._named or self._address}"

    # -- the connection --------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, choose the account, and read what is open and was executed.

        Raises `ExchangeUnavailableError` when nobody listens or the client id is in use, `ConfigurationError` for an
        account that does not exist, has to be named, or holds real money without `live=True`.
        """
        if not self._live:
            refuse_live_port(self._port)
        if self._data_only:
            await self._line.close()  # nobody has looked whether orders may leave over that one
        self._data_only = False
        await self._line.open()

    async def connect_data(self) -> None:
        """Connect for prices only: a live account will do, because no order can leave."""
        self._data_only = self._data_only or not self._line.is_open
        await self._line.open()

    @property
    def is_connected(self) -> bool:
        """Tell whether there is a connection that has been synchronised."""
        return self._line.is_open

    async def close(self) -> None:
        """Disconnect; orders stay at the venue."""
        await self._feed.close()
        await self._contracts.close()
        await self._line.close()
        self._table.lose("the adapter was closed")
        self._table.close()
        self._updates.end()

    def _make_link(self) -> Link:
        return Link(
            self._table,
            client_id=self._client_id,
            read_timeout=self._read_timeout,
            pace=self._pace,
            zone=self._zone,
        )

    async def _synchronise(self, link: Link, accounts: list[str], next_id: int) -> None:
        """Before anything else uses a new connection: the right account, order ids, open orders, executions."""
        self._table.account = choose_account(
            self._named or self._table.account or None,
            accounts,
            live=self._live,
            data_only=self._data_only,
        )
        self._table.ids.saw(next_id - 1)
        self._offset = offset_of(link.greeting, self._clock.now())
        if self._delayed_data:
            await link.subscribe(
                lambda client, _key: client.reqMarketDataType(3), lambda _row: None
            )
        if not self._data_only:
            await self._lookup.synchronise(link)

    def _on_gap(self, reason: str) -> None:
        self._table.lose(reason)
        self._table.on_gap(reason)

    def _on_uplink(self, code: int) -> None:
        """1100: cut off from IBKR. 1101: back, and data subscriptions are lost. 1102: back, and they are kept."""
        if code == 1101:
            self._feed.renew()
        if code in (1101, 1102):
            self._table.on_gap(f"TWS was cut off from IBKR and is back ({code})")

    # -- orders ----------------------------------------------------------------------------------------

    def reserve(self, request: OrderRequest, earlier: str = "") -> str:
        """Return the order id that the request is sent with, also when it is sent again."""
        return str(self._table.ids.reserve(request.client_order_id, earlier))

    def _check_may_trade(self) -> None:
        if self._data_only:
            text = "not sent: this is connected for prices only; use connect()"
            raise NotSentError(text, venue="ibkr")

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Send one order, once, and wait for what TWS says of it."""
        self._check_may_trade()
        return await self._trading.place(request)

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Send a bracket, an OTO pair, or an OCA group."""
        self._check_may_trade()
        return await self._trading.place_list(orders)

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Ask to cancel one order of this client id."""
        self._check_may_trade()
        return await self._trading.cancel(client_order_id, venue_order_id)

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
        """Change a live order in place; a refusal leaves it as it was."""
        self._check_may_trade()
        return await self._trading.amend(
            symbol,
            client_order_id,
            venue_order_id,
            quantity=quantity,
            limit_price=limit_price,
            stop_price=stop_price,
        )

    async def cancel_all(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Cancel the open orders that execkit has placed under this client id, each by itself, never all there are.

        They are asked for together; one that fails does not keep the others from being cancelled, and its error is
        raised in the end.
        """
        ours = [
            order
            for order in await self.open_orders(symbol)
            if is_ours(order.client_order_id) and self._trading.may_cancel(order)
        ]
        answers = await asyncio.gather(
            *(
                self.cancel_order(
                    order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=order.venue_order_id,
                )
                for order in ours
            ),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, OrderReport)]

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Look in open orders, executions and completed orders, in this order."""
        return await self._lookup.get(client_order_id, venue_order_id)

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return every open order, those of other API clients and by hand included."""
        found = await self._lookup.open_orders()
        return [report for report in found if symbol in (None, report.symbol)]

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return the executions that TWS still knows: those of today, in the gateway since midnight."""
        found = await self._lookup.fills_since(since)
        return [fill for fill in found if symbol in (None, fill.symbol)]

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Yield reports, fills and gaps from now on."""
        return self._updates.subscribe()

    # -- the account and the market --------------------------------------------------------------------

    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol; its tick is that of the price band it trades in now.

        See `execkit.exchanges.ibkr.symbols` for how contracts are spelt.
        """
        listed = await self._contracts.find(symbol, fresh=True)
        price = None
        if len(listed.bands) > 1:
            with suppress(
                ExchangeUnavailableError
            ):  # then the coarsest tick, which is legal everywhere
                price = (await self._feed.quote(symbol)).ask
        return listed.instrument(price)

    async def balances(self) -> dict[str, Balance]:
        """Return cash by currency and what is held of each contract's base, so that all of it is the equity."""
        return await self._lookup.balances()

    async def positions(self) -> Sequence[VenuePosition]:
        """Return all net positions."""
        return await self._lookup.positions()

    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote."""
        return await self._feed.quote(symbol)

    async def market_status(self, symbol: str) -> MarketStatus:
        """Tell what the contract's trading hours say of now; halts they do not know."""
        listed = await self._contracts.find(symbol, fresh=True)
        return listed.status(self._clock.now())

    def watch_quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield quotes as they change."""
        return self._feed.quotes(symbols)

    def watch_trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield trades; TWS joins those of a moment into one."""
        return self._feed.trades(symbols)

    def watch_bars(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield finished bars of the regular session."""
        return self._feed.bars_of(symbols, timeframe)

    async def bars(
        self, symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime | None = None
    ) -> Sequence[BarData]:
        """Return finished bars of the regular session."""
        return await self._feed.history(symbol, timeframe, since, until)

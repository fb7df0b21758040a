"""An exchange adapter around a matching core: what paper trading and the mock have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from execkit.clock import Clock, SystemClock
from execkit.exchanges.base import ExchangeAdapter, MarketStatus
from execkit.exchanges.inputs import (
    AdvanceTime,
    Amend,
    Cancel,
    FeedBar,
    FeedQuote,
    FeedTrade,
    Input,
    ListSymbol,
    Place,
    PlaceList,
)
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.streams import Stream
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
    OrderUpdate,
    StreamGap,
    TimeInForce,
)
from execkit.numbers import ZERO, non_negative, positive

FEE: Final = Decimal("0.001")
"""0.1 %, what a private customer pays on the large spot venues; the default for makers and takers."""


class SimulatedExchange(ExchangeAdapter):
    """One account of a venue that lives in this process and is fed with prices from outside.

    Args:
        balances: What the account owns, by asset.
        prices: A first price by symbol; a symbol that is not in *instruments* gets `Instrument.default`.
        instruments: The rules of the symbols, with their own fees.
        spread_bps: Bid-ask spread in basis points where only bars, trades or first prices are known.
        maker_fee: Fraction of the notional, for symbols that are not in *instruments*.
        taker_fee: The same for takers.
        allow_short: A margin account; see `execkit.exchanges.accounts`.
        clock: Tells when orders arrive; in a replay it has to show the time of the bars.
        name: Name of the venue.
        account: Identifies the account; None means *name*.
        ids_unique_for_ever: False: a client order id may come again once its order is closed.
        native_oco: Whether a stop and a target can rest as one list, of which the execution of one ends the other.
    """

    def __init__(
        self,
        *,
        balances: Mapping[str, Decimal],
        prices: Mapping[str, Decimal] | None = None,
        instruments: Iterable[Instrument] | None = None,
        spread_bps: Decimal = ZERO,
        maker_fee: Decimal = FEE,
        taker_fee: Decimal = FEE,
        allow_short: bool = False,
        clock: Clock | None = None,
        name: str = "simulated",
        account: str | None = None,
        ids_unique_for_ever: bool = True,
        native_oco: bool = False,
    ) -> None:
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self._account = account or name
        self._maker_fee = maker_fee
        self._taker_fee = taker_fee
        self._prices = {
            symbol: positive(f"prices[{symbol!r}]", price)
            for symbol, price in (prices or {}).items()
        }
        self._instruments = {instrument.symbol: instrument for instrument in instruments or ()}
        for symbol in self._prices:
            self._instruments.setdefault(symbol, self._default(symbol))
        self.core = MatchingCore(
            {
                asset: non_negative(f"balances[{asset!r}]", total)
                for asset, total in balances.items()
            },
            instruments=self._instruments.values(),
            spread_bps=non_negative("spread_bps", spread_bps),
            allow_short=allow_short,
            ids_unique_for_ever=ids_unique_for_ever,
        )
        """The venue itself; tests may look at it and drive it past the adapter."""
        for symbol, price in self._prices.items():
            self.core.set_price(symbol, price)
        self._capabilities = Capabilities(
            times_in_force=frozenset(TimeInForce),
            short_selling=allow_short,
            reduce_only=True,
            amend=True,
            lists=frozenset({ListKind.OCO} if native_oco else ()),
            quote_stream=True,
            absence_window=timedelta(0),
        )
        self._updates: Stream[OrderUpdate] = Stream(lambda: StreamGap("read too slowly"))
        self._quotes: Stream[Quote] = Stream()
        self._is_closed = False

    @property
    def capabilities(self) -> Capabilities:
        """Everything, native OCO orders where asked for; what it says of an order is final at once."""
        return self._capabilities

    @property
    def account(self) -> str:
        """The account id given, or the name."""
        return self._account

    async def connect(self) -> None:
        """Begin; there is nothing to connect to."""
        self._is_closed = False

    async def close(self) -> None:
        """End all streams; what is known can still be asked for."""
        self._is_closed = True
        self._updates.end()
        self._quotes.end()

    # --- prices -----------------------------------------------------------------------------------

    def feed_bar(self, bar: BarData) -> bool:
        """Match the orders with a finished bar; return False for one that is not new, which is ignored."""
        self._ensure_listed(bar.symbol)
        last = self.core.last_bar(bar.symbol, bar.timeframe)
        if last is not None and bar.close_time <= last.close_time:
            return False
        self._do(FeedBar(bar.checked()))
        self._publish_quote(bar.symbol)
        return True

    def feed_quote(self, quote: Quote) -> None:
        """Match the orders with a quote."""
        self._ensure_listed(quote.symbol)
        self._do(FeedQuote(quote.checked()))
        self._publish_quote(quote.symbol)

    def feed_trade(self, trade: Trade) -> None:
        """Match the orders with a public trade."""
        self._ensure_listed(trade.symbol)
        self._do(FeedTrade(trade.checked()))
        self._publish_quote(trade.symbol)

    def last_bar(self, symbol: str, timeframe: Timeframe) -> BarData | None:
        """Return the last bar that was consumed, so that a replay knows where to go on."""
        return self.core.last_bar(symbol, timeframe)

    def _default(self, symbol: str) -> Instrument:
        return Instrument.default(symbol, maker_fee=self._maker_fee, taker_fee=self._taker_fee)

    def _ensure_listed(self, symbol: str) -> None:
        if symbol not in self.core.instruments:
            self._do(ListSymbol(self._default(symbol)))

    # --- the one way in ---------------------------------------------------------------------------

    def _do(self, step: Input) -> None:
        """Let the core take an input, and tell the streams what became of the orders."""
        self._publish(step.apply(self.core))

    def _publish(self, updates: Iterable[OrderUpdate]) -> None:
        for update in updates:
            self._updates.publish(update)

    def _publish_quote(self, symbol: str) -> None:
        if self._quotes.is_read:
            self._quotes.publish(self.core.quote(symbol))

    def _now(self) -> datetime:
        """Return the time, after letting it act on the orders."""
        at = self.clock.now()
        if self.core.due(at) and not self._is_closed:
            self._do(AdvanceTime(at))
        return at

    # --- the adapter's contract -------------------------------------------------------------------

    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol."""
        return self.core.instrument(symbol)

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Take one order; what a live price allows is executed before the answer."""
        self._do(Place(request, self._now()))
        return self.core.order(request.client_order_id)

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Take several orders that depend on each other, for all or none."""
        self._do(PlaceList(orders, self._now()))
        return [self.core.order(request.client_order_id) for request in orders.orders]

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Cancel one order; `OrderNotFoundError` when it is not open (any more)."""
        self._do(Cancel(symbol, client_order_id, self._now(), venue_order_id))
        return self.core.order(client_order_id, venue_order_id)

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
        """Change a resting order in place; it loses its time priority."""
        self._do(
            Amend(
                symbol,
                client_order_id,
                self._now(),
                venue_order_id,
                quantity,
                limit_price,
                stop_price,
            )
        )
        return self.core.order(client_order_id, venue_order_id)

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order, open or closed, with its fills."""
        self._now()
        return self.core.order(client_order_id, venue_order_id)

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return every open order."""
        self._now()
        return self.core.open_orders(symbol)

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return what was executed, or became known, at or after *since*."""
        return self.core.fills_since(since, symbol)

    async def balances(self) -> dict[str, Balance]:
        """Return all holdings by asset."""
        self._now()
        return self.core.balances()

    async def positions(self) -> Sequence[VenuePosition]:
        """Return all net positions."""
        return self.core.positions()

    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote, dated now: it stands until the next price comes."""
        return self.core.quote(symbol, self.clock.now())

    async def market_status(self, symbol: str) -> MarketStatus:
        """Tell whether the market takes orders."""
        tradeable = self.core.instrument(symbol).tradeable
        return MarketStatus(is_open=tradeable and symbol not in self.core.halted)

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Yield reports and fills from now on."""
        return self._updates.subscribe()

    def watch_quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield quotes of the symbols, beginning with those that are known."""
        wanted = frozenset(symbols)
        subscriber = self._quotes.subscribe(lambda quote: quote.symbol in wanted)
        for symbol in symbols:
            if symbol in self.core.books:
                subscriber.put(self.core.quote(symbol, self.clock.now()))
        return subscriber

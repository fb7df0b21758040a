"""A venue in memory: one account, many symbols; the door through which orders and prices enter.

Pure and deterministic: the same inputs in the same order give the same orders, fills, ids and balances, in any
process. Times come in with the inputs. Paper trading, the scripted mock and wire-level venues are shells around it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

import msgspec

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    InvalidOrderError,
    MarketClosedError,
    MarketOrderRefusedError,
)
from execkit.exchanges import fills
from execkit.exchanges.fills import Book, Match
from execkit.exchanges.linked import Linked
from execkit.exchanges.matcher import exactly
from execkit.exchanges.venue_orders import VenueOrder, check_request, expiry_of, refuse
from execkit.model.account import Balance, VenuePosition
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import (
    Fill,
    ListKind,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderUpdate,
)
from execkit.numbers import ZERO, plain


class MatchingCore(Linked):
    """The matching engine of one simulated account.

    Inputs return what became of the orders, as a venue's stream would tell it; those that refuse raise an
    `ExchangeError` and change nothing. Venue order ids and trade ids count up from 1. Prices let time pass, orders
    do not: whoever has a clock calls `on_time` first when `due` says so.

    Args:
        balances: What the account owns at the start, by asset.
        instruments: The symbols that can be traded; `add_instrument` adds more.
        spread_bps: Bid-ask spread in basis points, assumed where only bars or trades are known.
        allow_short: A margin account: a base asset may go negative, up to once the collateral.
        ids_unique_for_ever: False: a client order id may be used again once its order is closed, as on
            Binance spot.
    """

    def __init__(
        self,
        balances: Mapping[str, Decimal] | None = None,
        *,
        instruments: Iterable[Instrument] = (),
        spread_bps: Decimal = ZERO,
        allow_short: bool = False,
        ids_unique_for_ever: bool = True,
    ) -> None:
        super().__init__(balances or {}, spread_bps=spread_bps, allow_short=allow_short)
        self.ids_unique_for_ever = ids_unique_for_ever
        for instrument in instruments:
            self.add_instrument(instrument)

    # --- orders -----------------------------------------------------------------------------------

    @exactly
    def place(
        self, request: OrderRequest, at: datetime, *, match: bool = True
    ) -> list[OrderUpdate]:
        """Take an order and execute what a live price allows; *match* False only lets it in.

        Raises `InvalidOrderError` (its code is the filter), `InsufficientBalanceError` (with the quantity that
        would pass), `DuplicateClientOrderIdError`, `MarketClosedError`, or `MarketOrderRefusedError` when the
        symbol has no price yet.
        """
        price = self._vet(request, at)
        order = self._make(request, at)
        self.account.reserve(order, self.instruments[request.symbol], price)
        self.now = max(self.now, at)
        self.admit(order)
        out: list[OrderUpdate] = [order.report()]
        if match:
            self.match_live(order, at, out)
        return out

    @exactly
    def place_list(
        self, orders: OrderList, at: datetime, *, match: bool = True
    ) -> list[OrderUpdate]:
        """Take several orders that depend on each other (see `Linked`); raise as `place` does, for all or none."""
        for request in orders.orders:
            self._vet(request, at)
        made = [self._make(each, at, ahead=place) for place, each in enumerate(orders.orders)]
        entries = made if orders.kind is ListKind.OCO else made[:1]
        for order in made:
            if orders.kind is not ListKind.OTO and (len(made) == 2 or order is not made[0]):
                order.group = made[-1].venue_order_id
            if order not in entries:
                order.waits_for, order.status = made[0].venue_order_id, OrderState.HELD
        entry = max(entries, key=self.worth)
        self.hold_for(entry)
        self.now = max(self.now, at)
        for order in made:
            self.admit(order)
        out: list[OrderUpdate] = [order.report() for order in made]
        for order in entries if match else ():
            self.match_live(order, at, out)
        return out

    def _vet(self, request: OrderRequest, at: datetime) -> Decimal:
        """Refuse an order that may not come in, whatever the account owns; return the price that values it."""
        instrument = self.instrument(request.symbol)
        earlier = self.by_client.get(request.client_order_id)
        if earlier is not None and (self.ids_unique_for_ever or earlier.is_open):
            raise DuplicateClientOrderIdError(f"{request.client_order_id} was used before")
        if request.symbol in self.halted or not instrument.tradeable:
            raise MarketClosedError(f"{request.symbol} does not trade now")
        price = self._check(request, instrument, at)
        if request.reduce_only and not instrument.round_quantity(
            self.account.closable(request.symbol, request.side)
        ):
            refuse("REDUCE_ONLY", f"there is no position in {request.symbol} to reduce")
        return price

    def _make(self, request: OrderRequest, at: datetime, *, ahead: int = 0) -> VenueOrder:
        return VenueOrder(
            request=request,
            venue_order_id=str(len(self.orders) + self.forgotten_orders + 1 + ahead),
            since=at,
            updated_at=at,
            expires_at=expiry_of(request, at),
        )

    @exactly
    def cancel(
        self, symbol: str, client_order_id: str, at: datetime, *, venue_order_id: str | None = None
    ) -> list[OrderUpdate]:
        """End an open order; raise `OrderNotFoundError` when there is none such, also when it has ended."""
        order = self.find_open(symbol, client_order_id, venue_order_id)
        self.now = max(self.now, at)
        out: list[OrderUpdate] = []
        self.close(order, OrderState.CANCELLED, "", at, out)
        return out

    @exactly
    def amend(
        self,
        symbol: str,
        client_order_id: str,
        at: datetime,
        *,
        venue_order_id: str | None = None,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
    ) -> list[OrderUpdate]:
        """Change an open order, which then stands behind all others; raise as `place` and `cancel` do."""
        order = self.find_open(symbol, client_order_id, venue_order_id)
        old = order.request
        new = msgspec.structs.replace(
            old,
            quantity=old.quantity if quantity is None else quantity,
            limit_price=old.limit_price if limit_price is None else limit_price,
            stop_price=old.stop_price if stop_price is None else stop_price,
        )
        instrument = self.instrument(symbol)
        price = self._check(new, instrument, at)
        if new.quantity <= order.filled:
            refuse("PARAMETERS", f"{plain(order.filled)} of it is executed already")
        order.request = new
        try:
            if order.is_working and (order.locked or not order.group):
                self.account.reserve(order, instrument, price)
        except Exception:
            order.request = old
            raise
        self.now = max(self.now, at)
        order.since = order.updated_at = at
        order.rested = False
        line = self.open[symbol]
        line[order.venue_order_id] = line.pop(order.venue_order_id)
        out: list[OrderUpdate] = [order.report()]
        self.match_live(order, at, out)
        return out

    def _check(self, request: OrderRequest, instrument: Instrument, at: datetime) -> Decimal:
        """Put a request through all filters and return the price that values it."""
        book = self.books.get(request.symbol)
        price = self.price_of(request)
        check_request(request, instrument, price, at)
        if price is None:
            raise MarketOrderRefusedError(f"{request.symbol} has no price yet")
        if (
            request.post_only
            and book is not None
            and fills.crosses(request.side, price, book, self.costs(request.symbol))
        ):
            refuse("POST_ONLY", f"{plain(price)} would be executed at once")
        return price

    # --- prices and time --------------------------------------------------------------------------

    @exactly
    def on_quote(self, quote: Quote) -> list[OrderUpdate]:
        """Take a quote: stops trigger on its last price (else bid or ask), limits execute when crossed."""
        self.instrument(quote.symbol)
        out = self._advance(quote.at)
        self.books[quote.symbol] = Book(
            last=quote.last,
            at=quote.at,
            bid=quote.bid,
            ask=quote.ask,
            bid_size=quote.bid_size,
            ask_size=quote.ask_size,
        )
        for order in self.in_line(quote.symbol):
            self.match_live(order, quote.at, out)
        return out

    @exactly
    def on_trade(self, trade: Trade) -> list[OrderUpdate]:
        """Take a public trade: limits execute when it went through them, up to its quantity in all."""
        self.instrument(trade.symbol)
        out = self._advance(trade.at)
        book = self.books.get(trade.symbol)
        if book is not None and book.bid is not None:
            book.last, book.at = trade.price, trade.at
        else:
            self.books[trade.symbol] = Book(trade.price, trade.at)
        left = trade.quantity
        for order in self.in_line(trade.symbol):
            left -= self.match_trade(order, trade.price, left, trade.at, out)
        return out

    @exactly
    def on_bar(self, bar: BarData) -> list[OrderUpdate]:
        """Take a finished bar. One that is not newer than the last of its kind is ignored.

        Time that was matched already, by quotes, trades or other bars, is not matched again.
        """
        self.instrument(bar.symbol)
        key = (bar.symbol, bar.timeframe)
        last = self.bars.get(key)
        if last is not None and bar.close_time <= last.close_time:
            return []
        self.bars[key] = bar
        opened_at = bar.open_time
        book = self.books.get(bar.symbol)
        if book is not None and book.at is not None and book.at > opened_at:
            return self._advance(bar.close_time)
        out = self._advance(opened_at)
        self.now = max(self.now, bar.close_time)
        self.books[bar.symbol] = Book(bar.close, bar.close_time, live=False)
        if self.open.get(bar.symbol) and bar.symbol not in self.halted:
            self.match_bar(bar, out)
        out += self._advance(bar.close_time)
        return out

    @exactly
    def on_time(self, at: datetime) -> list[OrderUpdate]:
        """Let time pass: DAY and GTD orders end."""
        return self._advance(at)

    def due(self, at: datetime) -> bool:
        """Tell whether `on_time` would end an order."""
        return self.next_expiry is not None and at >= self.next_expiry

    def _advance(self, at: datetime) -> list[OrderUpdate]:
        out: list[OrderUpdate] = []
        self.now = max(self.now, at)
        self.expire(at, out)
        return out

    # --- what the venue's owner sets --------------------------------------------------------------

    @exactly
    def add_instrument(self, instrument: Instrument) -> None:
        """Make a symbol tradeable, or change its rules."""
        self.account.add_symbol(instrument, self.instruments.values())
        self.instruments[instrument.symbol] = instrument

    def set_price(self, symbol: str, price: Decimal) -> None:
        """Give a symbol a price to start from; the first real quote, trade or bar takes over."""
        self.books[self.instrument(symbol).symbol] = Book(price, None)

    def set_halted(self, symbol: str, *, halted: bool) -> None:
        """Close or open a market: while closed it takes no orders and executes none."""
        (self.halted.add if halted else self.halted.discard)(self.instrument(symbol).symbol)

    @exactly
    def set_allow_short(self, *, allow: bool) -> None:
        """Turn short selling on or off; what is open stays as it is."""
        self.account.allow_short = allow
        self.rebuild_holds()

    @exactly
    def deposit(self, asset: str, quantity: Decimal) -> None:
        """Change a balance from outside; a negative quantity takes away."""
        of_base = (i.symbol for i in self.instruments.values() if i.base == asset)
        self.account.deposit(asset, quantity, next(of_base, None))

    @exactly
    def execute(
        self,
        client_order_id: str,
        quantity: Decimal,
        price: Decimal,
        at: datetime,
        *,
        maker: bool = False,
    ) -> list[OrderUpdate]:
        """Execute a quantity of an order whatever the market says, also after it was closed."""
        order = self.find(client_order_id, None)
        if not ZERO < quantity <= order.remaining:
            refuse(
                "PARAMETERS", f"{plain(quantity)} is not within the open {plain(order.remaining)}"
            )
        self.now = max(self.now, at)
        out: list[OrderUpdate] = []
        self.before_fill(order, at, out)
        self.execute_fill(order, quantity, Match(price, maker), at, out)
        return out

    @exactly
    def end(
        self, client_order_id: str, status: OrderState, reason: str, at: datetime
    ) -> list[OrderUpdate]:
        """Close an open order with any closed status, e.g. a late rejection."""
        symbol = self.find(client_order_id, None).request.symbol
        order = self.find_open(symbol, client_order_id, None)
        self.now = max(self.now, at)
        out: list[OrderUpdate] = []
        self.close(order, status, reason, at, out)
        return out

    # --- queries ----------------------------------------------------------------------------------

    def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol; raise `InvalidOrderError` for one that is not listed."""
        try:
            return self.instruments[symbol]
        except KeyError:
            raise InvalidOrderError(f"SYMBOL: {symbol} is not listed", code="SYMBOL") from None

    def order(self, client_order_id: str, venue_order_id: str | None = None) -> OrderReport:
        """Return one order, open or closed, with all its fills; raise `OrderNotFoundError`."""
        order = self.find(client_order_id, venue_order_id)
        return order.report(tuple(self.fills_of[order.venue_order_id]))

    def open_orders(self, symbol: str | None = None) -> list[OrderReport]:
        """Return all open orders, in time priority within a symbol."""
        lines = self.open.values() if symbol is None else [self.open.get(symbol, {})]
        return [order.report() for line in lines for order in line.values()]

    def fills_since(self, since: datetime, symbol: str | None = None) -> list[Fill]:
        """Return what was executed, or became known, at or after *since*, oldest first."""
        # A fill is never known before it happened, so none is missed.
        recent = self.fills[bisect_left(self.known_at, since) :]
        return [fill for fill in recent if symbol is None or fill.symbol == symbol]

    @exactly
    def balances(self) -> dict[str, Balance]:
        """Return all holdings by asset."""
        return self.account.balances()

    @exactly
    def positions(self) -> list[VenuePosition]:
        """Return all net positions that are not flat."""
        return self.account.positions()

    @exactly
    def quote(self, symbol: str, at: datetime | None = None) -> Quote:
        """Return the prices of a symbol, dated *at*; raise `ExchangeUnavailableError` without any."""
        self.instrument(symbol)
        book = self.books.get(symbol)
        if book is None:
            raise ExchangeUnavailableError(f"{symbol} has no price yet")
        return Quote(
            symbol,
            bid=fills.touch(book, self.costs(symbol), is_buy=False),
            ask=fills.touch(book, self.costs(symbol), is_buy=True),
            at=at or book.at or self.now,
            last=book.last,
            bid_size=book.bid_size,
            ask_size=book.ask_size,
        )

    def last_bar(self, symbol: str, timeframe: Timeframe) -> BarData | None:
        """Return the last bar consumed."""
        return self.bars.get((symbol, timeframe))

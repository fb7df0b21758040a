"""What happens to orders inside a simulated venue: they are matched, executed, cut short, and ended.

Knows nothing of requests and refusals, which are the business of `matching`. Everything here is called under the
decimal context `MONEY`, and appends what happened to a list, in the order in which a venue's stream would tell it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from execkit.errors import OrderNotFoundError
from execkit.exchanges import fills
from execkit.exchanges.accounts import Account
from execkit.exchanges.fills import Book, Costs, Match
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Timeframe
from execkit.model.order import Fill, OrderState, OrderUpdate, TimeInForce
from execkit.numbers import MONEY, ZERO

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def exactly(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method with so many digits that no sum or product is ever rounded."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with localcontext(MONEY):
            return method(self, *args, **kwargs)

    return run


class Matcher:
    """The state of one simulated venue, and the steps that change it."""

    def __init__(
        self, balances: Mapping[str, Decimal], *, spread_bps: Decimal, allow_short: bool
    ) -> None:
        self.account = Account(balances, allow_short=allow_short)
        self.instruments: dict[str, Instrument] = {}
        self.spread_bps = spread_bps
        self.books: dict[str, Book] = {}
        self.bars: dict[tuple[str, Timeframe], BarData] = {}
        self.orders: dict[str, VenueOrder] = {}
        """All orders ever, by venue id."""
        self.by_client: dict[str, VenueOrder] = {}
        """The latest order of each client order id."""
        self.open: dict[str, dict[str, VenueOrder]] = {}
        """Open orders by symbol and venue id, in time priority."""
        self.fills: list[Fill] = []
        self.known_at: list[datetime] = []
        """When each fill became known: a bar tells at its close of a fill at its open."""
        self.fills_of: dict[str, list[Fill]] = {}
        self.forgotten_orders = 0
        self.forgotten_fills = 0
        """How many `forget` has taken away; ids go on counting."""
        self.halted: set[str] = set()
        self.next_expiry: datetime | None = None
        self.now = datetime(1970, 1, 1, tzinfo=UTC)
        """Latest time of any input; never falls."""

    def rebuild_holds(self) -> None:
        """Add up anew what orders and shorts hold."""
        orders = (order for line in self.open.values() for order in line.values())
        self.account.rebuild_holds(orders, self.instruments)

    def admit(self, order: VenueOrder) -> None:
        """Put an order in line, behind all others of its symbol."""
        self.orders[order.venue_order_id] = order
        self.by_client[order.request.client_order_id] = order
        self.open.setdefault(order.request.symbol, {})[order.venue_order_id] = order
        self.fills_of[order.venue_order_id] = []
        self.note_expiry(order)
        self.link(order)

    def note_expiry(self, order: VenueOrder) -> None:
        """Keep the earliest expiry of all open orders at hand, so that looking costs nothing."""
        if order.expires_at is not None and (
            self.next_expiry is None or order.expires_at < self.next_expiry
        ):
            self.next_expiry = order.expires_at

    def forget(self, before: datetime) -> None:
        """Forget orders that ended before, and executions from before, so that a test may run for days."""
        for key, order in list(self.orders.items()):
            if not order.is_open and order.updated_at < before:
                del self.orders[key], self.fills_of[key]
                if self.by_client.get(order.request.client_order_id) is order:
                    del self.by_client[order.request.client_order_id]
                self.forgotten_orders += 1
        old = bisect_left(self.known_at, before)
        del self.fills[:old], self.known_at[:old]
        self.forgotten_fills += old

    def find(self, client_order_id: str, venue_order_id: str | None) -> VenueOrder:
        """Return an order by the venue's id, where that is given, or by its client order id."""
        found = (
            self.by_client.get(client_order_id)
            if venue_order_id is None
            else self.orders.get(venue_order_id)
        )
        if found is None:
            raise OrderNotFoundError(f"order {venue_order_id or client_order_id} does not exist")
        return found

    def find_open(
        self, symbol: str, client_order_id: str, venue_order_id: str | None
    ) -> VenueOrder:
        """Return an order that can still be executed."""
        order = self.find(client_order_id, venue_order_id)
        if not order.is_open or order.request.symbol != symbol:
            raise OrderNotFoundError(f"order {client_order_id} is not open ({order.status})")
        return order

    def costs(self, symbol: str) -> Costs:
        """Return the spread and tick of a symbol."""
        return Costs(self.spread_bps, self.instruments[symbol].tick_size)

    def in_line(self, symbol: str) -> Iterable[VenueOrder]:
        """Return the open orders of a symbol, as they were before any of them is executed."""
        return list(self.open[symbol].values()) if self.open.get(symbol) else ()

    # --- matching ---------------------------------------------------------------------------------

    def match_live(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """Execute what the present price of a live market allows."""
        symbol = order.request.symbol
        book = self.books.get(symbol)
        if book is None or not book.live or symbol in self.halted or not order.is_working:
            return
        costs = self.costs(symbol)
        if order.waits_for_stop:
            if not fills.stop_is_hit(order, book, costs):
                return
            order.triggered = True
            self.before_fill(order, at, out)
        match = fills.at_touch(order, book, costs)
        if match is not None:
            done = self._fill(order, match, book.size(is_buy=order.is_buy), at, out)
            book.take(done, is_buy=order.is_buy)
        self._rest(order, at, out)

    def match_trade(
        self, order: VenueOrder, price: Decimal, left: Decimal, at: datetime, out: list[OrderUpdate]
    ) -> Decimal:
        """Execute a resting limit that a public trade went through, others as `match_live` does.

        Returns how much of *left*, the traded quantity that others may still take, is gone.
        """
        match = fills.by_trade(order, price) if order.rested and order.is_open else None
        if match is None or order.request.symbol in self.halted:
            self.match_live(order, at, out)
            return ZERO
        return self._fill(order, match, left, at, out)

    def match_bar(self, bar: BarData, out: list[OrderUpdate]) -> None:
        """Execute what a finished bar proves.

        First what its open did, then what came after it, and each time stops before all others: where a bar touched
        both stop and target, nobody knows which came first. An order made while the bar was forming has seen
        nothing of it but the close.
        """
        orders = [
            order
            for order in self.in_line(bar.symbol)
            if order.is_working and not fills.is_out_of_reach(order, bar)
        ]
        if not orders:
            return
        orders.sort(key=lambda order: not order.waits_for_stop)
        opened_at = bar.open_time
        budget = fills.bar_budget(bar, self.instruments[bar.symbol])
        timely = [order for order in orders if order.since <= opened_at]
        budget = self._pass(timely, bar, opened_at, budget, out)
        if len(timely) < len(orders):
            close = msgspec.structs.replace(bar, open=bar.close, high=bar.close, low=bar.close)
            late = [order for order in orders if opened_at < order.since < bar.close_time]
            self._pass(late, close, bar.close_time, budget, out)

    def _pass(
        self,
        orders: list[VenueOrder],
        bar: BarData,
        opened_at: datetime,
        budget: Decimal,
        out: list[OrderUpdate],
    ) -> Decimal:
        costs = self.costs(bar.symbol)

        def run(rule: Callable[[VenueOrder, BarData, Costs], Match | None], at: datetime) -> None:
            nonlocal budget
            for order in orders:
                if order.is_open:
                    match = rule(order, bar, costs)
                    if order.triggered:
                        self.before_fill(order, at, out)
                    if match is not None:
                        budget -= self._fill(order, match, budget, at, out)
                    self._rest(order, at, out)

        run(_after_open_stop, opened_at)
        run(_within_or_stop, bar.close_time)
        return budget

    def _rest(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """After an order had its first chance: it stands in the book, or it ends if it may not."""
        if order.is_open and not order.waits_for_stop:
            order.rested = True
            if order.is_immediate:
                self.close(order, OrderState.EXPIRED, "not executed at once", at, out)

    # --- executing --------------------------------------------------------------------------------

    def _fill(
        self,
        order: VenueOrder,
        match: Match,
        available: Decimal | None,
        at: datetime,
        out: list[OrderUpdate],
    ) -> Decimal:
        """Execute as much as the order, the account and the market allow; return how much that was."""
        symbol = order.request.symbol
        instrument = self.instruments[symbol]
        if available is None or available > ZERO:
            self.before_fill(order, at, out)
        allowed, cut = order.remaining, ""
        if order.request.reduce_only:
            most = instrument.round_quantity(self.account.closable(symbol, order.request.side))
            if most < allowed:
                allowed, cut = most, "reduce-only: no more of the position is left"
        most = self.account.affordable(order, allowed, match.price, instrument)
        if most < allowed:
            allowed, cut = most, "insufficient balance at the price of execution"
        quantity = allowed
        if available is not None and available < quantity:
            quantity = max(ZERO, instrument.round_quantity(available))
        if quantity < order.remaining and order.request.time_in_force is TimeInForce.FOK:
            return ZERO
        if quantity:
            self.execute_fill(order, quantity, match, at, out)
        if cut and quantity == allowed and order.is_open:
            self.close(order, OrderState.CANCELLED, cut, at, out)
        return quantity

    def execute_fill(
        self,
        order: VenueOrder,
        quantity: Decimal,
        match: Match,
        at: datetime,
        out: list[OrderUpdate],
    ) -> None:
        """Book one execution: fee, balances, position, and what follows from them."""
        request = order.request
        instrument = self.instruments[request.symbol]
        rate = instrument.maker_fee if match.maker else instrument.taker_fee
        notional = quantity * match.price
        fee, fee_asset = self.fee_of(order, instrument, quantity, notional, rate)
        fill = Fill(
            trade_id=str(len(self.fills) + self.forgotten_fills + 1),
            client_order_id=request.client_order_id,
            venue_order_id=order.venue_order_id,
            symbol=request.symbol,
            side=request.side,
            quantity=quantity,
            price=match.price,
            at=at,
            fee=fee,
            fee_asset=fee_asset,
            maker=match.maker,
        )
        order.filled += quantity
        order.notional += notional
        order.updated_at = at
        is_done = order.filled >= request.quantity
        if order.is_open:
            order.status = OrderState.FILLED if is_done else OrderState.PARTIALLY_FILLED
        before = self.account.holdings[request.symbol].quantity
        self.account.settle(order, fill, instrument)
        self.fills.append(fill)
        self.known_at.append(self.now)
        self.fills_of[order.venue_order_id].append(fill)
        out += (fill, order.report())
        if is_done:
            self.open[request.symbol].pop(order.venue_order_id, None)
            self.after_done(order, at, out)
        if before and before * self.account.holdings[request.symbol].quantity <= ZERO:
            self._drop_reductions(request.symbol, at, out)

    def fee_of(
        self,
        order: VenueOrder,
        instrument: Instrument,
        quantity: Decimal,
        notional: Decimal,
        rate: Decimal,
    ) -> tuple[Decimal, str]:
        """Return the fee of an execution and the asset it is paid in."""
        if instrument.fee_in_base and order.is_buy:
            return quantity * rate, instrument.base
        return notional * rate, instrument.quote

    def _drop_reductions(self, symbol: str, at: datetime, out: list[OrderUpdate]) -> None:
        """End reduce-only orders of a position that is gone, lest they reduce the next one."""
        for order in self.in_line(symbol):
            if order.request.reduce_only and not self.account.closable(symbol, order.request.side):
                self.close(
                    order, OrderState.CANCELLED, "reduce-only: the position is closed", at, out
                )

    def close(
        self,
        order: VenueOrder,
        status: OrderState,
        reason: str,
        at: datetime,
        out: list[OrderUpdate],
    ) -> None:
        """End an open order and give back what it holds."""
        order.status, order.reason, order.updated_at = status, reason, at
        self.account.release(order)
        del self.open[order.request.symbol][order.venue_order_id]
        out.append(order.report())
        self.after_close(order, at, out)

    # --- what lists of orders add; see `linked` -----------------------------------------------------

    def link(self, order: VenueOrder) -> None:
        """Take note of what an order has to do with others."""

    def before_fill(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """An order triggers, or is about to be executed."""

    def after_done(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """An order was executed whole."""

    def after_close(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """An order ended before that."""

    def expire(self, at: datetime, out: list[OrderUpdate]) -> None:
        """End the orders whose time is over."""
        if self.next_expiry is None or at < self.next_expiry:
            return
        self.next_expiry = None
        for symbol in self.open:
            for order in self.in_line(symbol):
                if order.expires_at is not None and order.expires_at <= at:
                    self.close(order, OrderState.EXPIRED, "its time in force ended", at, out)
                else:
                    self.note_expiry(order)


def _after_open_stop(order: VenueOrder, bar: BarData, costs: Costs) -> Match | None:
    """Match with the open; a stop that the open has reached or gapped over triggers there."""
    if order.waits_for_stop:
        order.follow(bar.open, costs.tick_size)
        if not fills.reaches_stop(order, bar.open):
            return None
        order.triggered = True
    return fills.at_open(order, bar, costs)


def _within_or_stop(order: VenueOrder, bar: BarData, costs: Costs) -> Match | None:
    """Match with what came after the open; a stop may trigger there."""
    if not order.waits_for_stop:
        return fills.within(order, bar)
    if not fills.reached_within(order, bar, costs):
        return None
    order.triggered = True
    return fills.at_stop(order, costs)

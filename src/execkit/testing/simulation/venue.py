"""The venue of a simulated run: a matching core behind the habits of real venues, with a ledger of its own.

The habits (`Rules`) are those that differ between venues and decide about safety: whether a client order id may be used
again after its order has ended, how long an order may stay invisible to queries, whether answers carry fills, whether
the venue itself keeps a reduction from turning a position. The ledger holds every request received and every execution,
as the venue sees them; `execkit.testing.checker` compares it with the journal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal, localcontext

import msgspec

from execkit.errors import OrderNotFoundError
from execkit.exchanges.fills import Match
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.account import Balance, VenuePosition
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import (
    Fill,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    OrderUpdate,
    Side,
)
from execkit.numbers import MONEY, ZERO
from execkit.testing.simulation.hours import Hours
from execkit.testing.simulation.prices import RecentPrices
from execkit.testing.simulation.rules import Rules


class Received(msgspec.Struct):
    """One request that reached the venue, and what it said to it."""

    at: float
    """Moment on the loop, in seconds."""
    kind: str
    client_order_id: str
    payload_hash: str = ""
    request: OrderRequest | None = None
    answer: str = ""
    venue_order_id: str = ""


class Snapshot(msgspec.Struct):
    """What queries saw at one moment."""

    orders: dict[str, OrderReport]
    open: list[OrderReport]
    fills: int
    balances: dict[str, Balance]
    positions: list[VenuePosition]


class SimVenue:
    """One account at a simulated venue. *now* gives the true time, which no clock step changes."""

    def __init__(
        self,
        rules: Rules,
        instruments: Iterable[Instrument],
        balances: dict[str, Decimal],
        now: Callable[[], datetime],
        loop_time: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.rules = rules
        self.core = MatchingCore(
            balances,
            instruments=instruments,
            allow_short=rules.short_selling,
            ids_unique_for_ever=rules.ids_unique_for_ever,
        )
        self.now = now
        self.time = loop_time
        self.rng = rng
        self.ledger: list[Received] = []
        self.fills: list[Fill] = []
        """Every execution, corrections and busts included, as it was announced."""
        self.on_updates: Callable[[list[OrderUpdate]], None] = lambda _updates: None
        self.on_accept: Callable[[OrderRequest], None] = lambda _request: None
        self.on_positions: Callable[[], None] = lambda: None
        self.hidden_until: dict[str, float] = {}
        self.snapshot: Snapshot | None = None
        """What queries show while it is set."""
        self.thawed_at = 0.0
        self.hours: Hours | None = None
        """When it takes no entries; None: it is always open."""
        self.lists = 0
        """How many lists of orders were taken."""
        self._taken_at: dict[str, float] = {}
        """When each order arrived, by client order id."""
        self._foreign = 0
        self.prices = RecentPrices(loop_time)

    # -- requests --------------------------------------------------------------------------------------

    def place(self, request: OrderRequest, *, hold: bool = False) -> OrderReport:
        """Take an order; raises what the core raises."""
        entry = self._receive("place", request.client_order_id, request)
        try:
            updates = self.core.place(request, self.now(), match=False)
        except Exception as error:
            entry.answer = type(error).__name__
            raise
        order = self._accept(entry, request)
        if hold:
            order.status = OrderState.HELD
            updates = [order.report()]
        with localcontext(MONEY):
            self.core.match_live(order, self.now(), updates)
        self.tell(updates)
        return self._report(order)

    def place_list(self, orders: OrderList) -> list[OrderReport]:
        """Take orders that depend on each other, for all or none; raises what the core raises."""
        entries = [self._receive("place", each.client_order_id, each) for each in orders.orders]
        try:
            updates = self.core.place_list(orders, self.now(), match=False)
        except Exception as error:
            for entry in entries:
                entry.answer = type(error).__name__
            raise
        self.lists += 1
        taken = list(map(self._accept, entries, orders.orders))
        with localcontext(MONEY):
            for order in taken:
                if order.is_working:
                    self.core.match_live(order, self.now(), updates)
        self.tell(updates)
        return list(map(self._report, taken))

    def _accept(self, entry: Received, request: OrderRequest) -> VenueOrder:
        """Note an order that was taken; queries may not show it for a while."""
        order = self.core.by_client[request.client_order_id]
        entry.answer, entry.venue_order_id = "accepted", order.venue_order_id
        if self.rules.hidden_for and self.rng.random() < 0.3:
            hidden = self.rng.uniform(0, self.rules.hidden_for)
            self.hidden_until[order.venue_order_id] = self.time() + hidden
        self._taken_at[request.client_order_id] = self.time()
        self.on_accept(request)
        return order

    def release(self, client_order_id: str) -> None:
        """Let an order that was held work; what is executed at once is told before anything else of it."""
        order = self.core.by_client[client_order_id]
        if order.status is OrderState.HELD:
            order.status = OrderState.ACCEPTED
            updates: list[OrderUpdate] = []
            with localcontext(MONEY):
                self.core.match_live(order, self.now(), updates)
            self.tell(updates or [order.report()])

    def cancel(self, symbol: str, client_order_id: str, venue_order_id: str | None) -> OrderReport:
        """Cancel an order; raises `OrderNotFoundError` for one that has ended."""
        entry = self._receive("cancel", client_order_id)
        if venue_order_id is not None and venue_order_id not in self.core.orders:
            venue_order_id = None
        try:
            updates = self.core.cancel(
                symbol, client_order_id, self.now(), venue_order_id=venue_order_id
            )
        except OrderNotFoundError:
            entry.answer = "not found"
            raise
        entry.answer = "cancelled"
        self.tell(updates)
        return self._report(self.core.find(client_order_id, venue_order_id))

    def amend(
        self,
        symbol: str,
        client_order_id: str,
        quantity: Decimal | None,
        limit_price: Decimal | None,
        stop_price: Decimal | None,
    ) -> OrderReport:
        """Change an order; raises what the core raises."""
        entry = self._receive("amend", client_order_id)
        updates = self.core.amend(
            symbol,
            client_order_id,
            self.now(),
            quantity=quantity,
            limit_price=limit_price,
            stop_price=stop_price,
        )
        entry.answer = "amended"
        self.tell(updates)
        return self._report(self.core.by_client[client_order_id])

    def _receive(self, kind: str, client_id: str, request: OrderRequest | None = None) -> Received:
        digest = "" if request is None else request.payload_hash
        entry = Received(self.time(), kind, client_id, digest, request)
        self.ledger.append(entry)
        return entry

    def tell(self, updates: list[OrderUpdate]) -> None:
        """Note executions, and hand updates to whoever listens."""
        self.fills += [update for update in updates if isinstance(update, Fill)]
        if updates:
            self.on_updates(updates)

    # -- queries ---------------------------------------------------------------------------------------

    def _report(self, order: VenueOrder) -> OrderReport:
        if self.rules.reports_carry_fills:
            return order.report(tuple(self.core.fills_of[order.venue_order_id]))
        return order.report()

    def _is_hidden(self, order: VenueOrder) -> bool:
        return self.time() < self.hidden_until.get(order.venue_order_id, -1.0)

    def shown_for(self, client_order_id: str) -> float:
        """Return for how many seconds queries have shown an order without a break; zero or less: not yet."""
        if self.snapshot is not None:
            return 0.0
        hidden = self.hidden_until.get(self.core.by_client[client_order_id].venue_order_id, 0.0)
        return self.time() - max(self._taken_at.get(client_order_id, 0.0), hidden, self.thawed_at)

    def thaw(self) -> None:
        """Let queries see everything again."""
        if self.snapshot is not None:
            self.snapshot, self.thawed_at = None, self.time()

    def freeze(self) -> Snapshot:
        """Return what queries see now."""
        recent = list(self.core.orders.values())[-60:]
        return Snapshot(
            {
                order.request.client_order_id: self._report(order)
                for order in recent
                if not self._is_hidden(order)
            },
            self.open_orders(None),
            len(self.core.fills),
            self.core.balances(),
            self.core.positions(),
        )

    def order(self, client_order_id: str, venue_order_id: str | None) -> OrderReport:
        """Return one order; raises `OrderNotFoundError`."""
        if self.snapshot is not None:
            found = self.snapshot.orders.get(client_order_id)
            if found is None:
                raise OrderNotFoundError(f"{client_order_id} is not known (yet)")
            return found
        order = self.core.find(
            client_order_id, venue_order_id if venue_order_id in self.core.orders else None
        )
        if self._is_hidden(order):
            raise OrderNotFoundError(f"{client_order_id} is not known (yet)")
        return self._report(order)

    def open_orders(self, symbol: str | None) -> list[OrderReport]:
        """Return all open orders."""
        if self.snapshot is not None:
            return [r for r in self.snapshot.open if symbol is None or r.symbol == symbol]
        lines = self.core.open.values() if symbol is None else [self.core.open.get(symbol, {})]
        orders = (order for line in lines for order in line.values())
        return [self._report(order) for order in orders if not self._is_hidden(order)]

    def fills_since(self, since: datetime, symbol: str | None) -> list[Fill]:
        """Return executions from a moment on."""
        fills = self.core.fills_since(since, symbol)
        if self.snapshot is not None:
            known = {fill.trade_id for fill in self.core.fills[: self.snapshot.fills]}
            fills = [fill for fill in fills if fill.trade_id in known]
        if self.hidden_until:
            now, until = self.time(), self.hidden_until
            fills = [fill for fill in fills if now >= until.get(fill.venue_order_id, -1.0)]
        return fills

    def balances(self) -> dict[str, Balance]:
        """Return all holdings."""
        return self.core.balances() if self.snapshot is None else self.snapshot.balances

    def positions(self) -> list[VenuePosition]:
        """Return all net positions."""
        if self.snapshot is not None:
            return self.snapshot.positions
        self.on_positions()
        return self.core.positions()

    # -- what the venue does by itself -----------------------------------------------------------------

    def feed(self, quote: Quote) -> None:
        """Take a price."""
        self.prices.add(quote)
        self.tell(self.core.on_quote(quote))

    def open_of_ours(self, is_ours: Callable[[str], bool]) -> list[VenueOrder]:
        """Return the open orders whose client id passes."""
        rows = [order for line in self.core.open.values() for order in line.values()]
        return [order for order in rows if is_ours(order.request.client_order_id)]

    def end(self, order: VenueOrder, status: OrderState, reason: str) -> None:
        """End an order although nobody asked."""
        self.tell(self.core.end(order.request.client_order_id, status, reason, self.now()))

    def execute(self, order: VenueOrder, quantity: Decimal, price: Decimal) -> None:
        """Execute a quantity, also of an order that has ended, and beyond what was asked."""
        updates: list[OrderUpdate] = []
        with localcontext(MONEY):
            self.core.execute_fill(order, quantity, Match(price, maker=False), self.now(), updates)
        self.tell(updates)

    def correct(self, old: Fill, *, quantity: Decimal, price: Decimal) -> None:
        """Put another execution in the place of one; quantity zero busts it."""
        core, instrument = self.core, self.core.instruments[old.symbol]
        order = core.orders[old.venue_order_id]
        with localcontext(MONEY):
            notional = quantity * price
            fee_unit = old.fee / old.quantity if old.fee_asset == instrument.base else None
            fee = (
                quantity * fee_unit
                if fee_unit is not None
                else notional * (old.fee / (old.quantity * old.price))
            )
            fee = fee.quantize(Decimal("1e-12"))
            new = msgspec.structs.replace(
                old,
                trade_id=f"{old.trade_id.partition('.')[0]}.{len(self.fills)}",
                quantity=quantity,
                price=price,
                fee=fee,
                replaces=old.trade_id,
            )
            sign = old.side.sign
            totals = core.account.totals
            totals[instrument.base] += sign * (quantity - old.quantity)
            totals[instrument.quote] -= sign * (notional - old.quantity * old.price)
            totals[old.fee_asset] += old.fee - fee
            change = sign * (quantity - old.quantity)
            if old.fee_asset == instrument.base:
                change += old.fee - fee
            core.account.holdings[old.symbol].move(change, price)
            order.filled += quantity - old.quantity
            order.notional += notional - old.quantity * old.price
            order.updated_at = self.now()
            if not order.is_open and order.filled < order.request.quantity:
                order.status = OrderState.CANCELLED
            rows = core.fills_of[old.venue_order_id]
            rows[:] = [fill for fill in rows if fill.trade_id != old.trade_id]
            if quantity:
                rows.append(new)
            core.fills.append(new)
            core.known_at.append(max(core.now, self.now()))
            core.rebuild_holds()
        self.tell([new, order.report()])

    def foreign_order(
        self, symbol: str, side: Side, quantity: Decimal, price: Decimal | None
    ) -> None:
        """Have somebody else trade on the account."""
        self._foreign += 1
        request = OrderRequest(
            client_order_id=f"web-{self._foreign}",
            symbol=symbol,
            side=side,
            type=OrderType.LIMIT if price else OrderType.MARKET,
            quantity=quantity,
            limit_price=price,
        )
        self.tell(self.core.place(request, self.now()))

    def covered(self, symbol: str) -> Decimal:
        """Return what the open reductions of a symbol close for certain; the target of a list does not protect."""
        return sum(
            (
                order.remaining
                for order in self.core.open.get(symbol, {}).values()
                if order.request.reduce_only
                and not (order.group and order.request.stop_price is None)
            ),
            ZERO,
        )

    def reducing(self, symbol: str, side: Side) -> Decimal:
        """Return what the open reductions of a symbol can close at worst; of a list, the largest counts."""
        largest: dict[str, Decimal] = {}
        for order in self.core.open.get(symbol, {}).values():
            if order.request.reduce_only and order.request.side is side:
                group = order.group or f"alone {order.venue_order_id}"
                largest[group] = max(largest.get(group, ZERO), order.remaining)
        return sum(largest.values(), ZERO)

    def quantity(self, symbol: str) -> Decimal:
        """Return the true net position of a symbol."""
        holding = self.core.account.holdings.get(symbol)
        return ZERO if holding is None else holding.quantity

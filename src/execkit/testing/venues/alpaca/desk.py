"""Orders at Alpaca: taken, let into the market, executed, replaced and cancelled, with the legs of lists."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from decimal import ROUND_DOWN, Decimal, localcontext
from typing import Any

import attrs
import msgspec

from execkit.errors import (
    ExchangeError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    MarketOrderRefusedError,
)
from execkit.exchanges.base import MarketPhase
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.market import Quote
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    OrderUpdate,
    Side,
    TimeInForce,
)
from execkit.numbers import MONEY, plain
from execkit.testing.venues.alpaca.base import AlpacaBase
from execkit.testing.venues.alpaca.checks import check_change
from execkit.testing.venues.alpaca.errors import forbidden, short_of, unprocessable
from execkit.testing.venues.alpaca.legs import join, leg_requests
from execkit.testing.venues.alpaca.reading import Wanted
from execkit.testing.venues.alpaca.rows import order_row, status_word
from execkit.testing.venues.alpaca.state import AlpacaState, Execution, WireOrder
from execkit.testing.venues.faults import Mishap, WireFault


class Desk:
    """The part of the venue that keeps orders."""

    def __init__(self, venue: AlpacaBase) -> None:
        self.venue = venue

    @property
    def state(self) -> AlpacaState:
        """The venue's state."""
        return self.venue.state

    # --- in ---------------------------------------------------------------------------------------

    def enter(
        self, wanted: Wanted, fault: WireFault | None = None, *, wire_id: str | None = None
    ) -> WireOrder:
        """Take an order; it reaches the market in a moment, so its executions come after the answer."""
        kind = None if fault is None else fault.kind
        by_hand = kind in (Mishap.UNFILLED, Mishap.PARTIAL, Mishap.EXPIRE, Mishap.EXPIRE_IN_MATCH)
        order = self._new(wanted.request, wanted.order_class, notional=wanted.notional)
        order.client_order_id = wire_id or order.client_order_id
        order.by_hand = by_hand
        self._to_core(order)
        self._file(order)
        self._add_legs(order, wanted)
        order.status = "pending_new" if self._may_trade(order) else "accepted"
        self.venue.soon(lambda: self._begin(order, kind, fault))
        return order

    def _new(
        self, request: OrderRequest, order_class: str, *, notional: Decimal | None = None
    ) -> WireOrder:
        now = self.venue.clock.now()
        return WireOrder(
            id=self.venue.new_id(),
            client_order_id=request.client_order_id,
            request=request,
            order_class=order_class,
            created_at=now,
            updated_at=now,
            notional=notional,
        )

    def _file(self, order: WireOrder) -> None:
        self.state.orders[order.id] = order
        self.state.by_client[order.client_order_id] = order

    def _to_core(self, order: WireOrder) -> VenueOrder:
        """Put an order in the core's line; raise Alpaca's refusal of what the core refuses."""
        core, now, request = self.state.core, self.venue.clock.now(), order.request
        if order.is_trailing:
            order.high_water = self._last(request.symbol)
            stop = order.trailing_stop()
            request = msgspec.structs.replace(
                request, type=OrderType.STOP, stop_price=stop, trail_amount=None, trail_percent=None
            )
        try:
            core.place(request, now, match=False)
        except ExchangeError as error:
            self._refused(error, request)
        entered = core.by_client[request.client_order_id]
        if request.time_in_force is TimeInForce.DAY:
            entered.expires_at = self.venue.hours.end_of_day(now, extended=request.extended_hours)
            core.note_expiry(entered)
        order.core_id = entered.venue_order_id
        self.state.live[entered.venue_order_id] = order
        return entered

    def _refused(self, error: ExchangeError, request: OrderRequest) -> None:
        match error:
            case InsufficientBalanceError():
                price = request.limit_price or request.stop_price or self._touch(request)
                cash = self.state.core.balances()["USD"]
                cost = request.quantity * price
                if self.state.assets[request.symbol].is_crypto:
                    short_of("USD", cost, cash.free, cash.total)
                forbidden(
                    "insufficient buying power",
                    buying_power=plain(cash.free),
                    cost_basis=plain(cost),
                )
            case MarketClosedError():
                unprocessable(f"asset {request.symbol} is not tradable")
            case MarketOrderRefusedError():
                unprocessable(f"no price for {request.symbol}")
            case InvalidOrderError():
                unprocessable(str(error))
        raise error

    def _touch(self, request: OrderRequest) -> Decimal:
        quote = self.state.core.quote(request.symbol)
        return quote.ask if request.side is Side.BUY else quote.bid

    def _last(self, symbol: str) -> Decimal:
        quote = self.state.core.quote(symbol)
        return quote.last or quote.bid

    def _add_legs(self, order: WireOrder, wanted: Wanted) -> None:
        legs = [
            self._new(request, wanted.order_class)
            for request in leg_requests(wanted, order.client_order_id, self.venue.new_id)
        ]
        for leg in legs:
            leg.client_order_id = self.venue.new_id()  # legs cannot be named by the client
            leg.parent, leg.status = order.id, "held"
            self._file(leg)
        order.legs = [leg.id for leg in legs]
        if wanted.order_class == "oco":
            join([order, *legs])
            for leg in legs:
                leg.status, leg.shows_held = None, True
                self._to_core(leg)

    # --- the market -------------------------------------------------------------------------------

    def _may_trade(self, order: WireOrder) -> bool:
        symbol = order.request.symbol
        if symbol in self.state.core.halted:
            return False
        match self.venue.phase(symbol):
            case MarketPhase.REGULAR:
                return True
            case MarketPhase.PRE | MarketPhase.AFTER:
                return order.request.extended_hours
        return False

    def _begin(self, order: WireOrder, kind: Mishap | None, fault: WireFault | None) -> None:
        """Let an order reach the market."""
        core = self.state.core_order(order)
        if core is None or not core.is_open:
            return
        order.is_queued = not self._may_trade(order)
        order.status = None
        self._tell(order, "accepted" if order.is_queued else "new")
        if fault is None:
            self.match(order.request.symbol)
            return
        order.by_hand = False
        now, name = self.venue.clock.now(), core.request.client_order_id
        if kind is Mishap.PARTIAL:
            part = (core.remaining * fault.fraction).quantize(
                Decimal(1), ROUND_DOWN
            ) or core.remaining
            price = core.limit or self._touch(core.request)
            self.venue.do(lambda: self.state.core.execute(name, part, price, now))
        elif kind in (Mishap.EXPIRE, Mishap.EXPIRE_IN_MATCH):
            reason = "ended by the venue"
            self.venue.do(lambda: self.state.core.end(name, OrderState.EXPIRED, reason, now))
        elif kind is not Mishap.UNFILLED:
            self.match(order.request.symbol)

    def match(self, symbol: str) -> None:
        """Execute what the present price and the hours allow."""
        core, now, out = self.state.core, self.venue.clock.now(), list[OrderUpdate]()
        self._trail(symbol)
        with localcontext(MONEY):
            for entered in core.in_line(symbol):
                order = self.state.live[entered.venue_order_id]
                if order.status == "pending_new" or order.by_hand or not self._may_trade(order):
                    continue
                if order.is_queued:
                    order.is_queued = False
                    self._tell(order, "new")
                before = len(out)
                core.match_live(entered, now, out)
                if len(out) > before:
                    # What one execution ends, e.g. the other leg of an OCO, must not be executed after it.
                    self.venue.publish(out[before:])
        self.venue.note_change()

    def on_quote(self, quote: Quote) -> None:
        """Take a price, and execute what it and the hours allow."""
        with self.quiet(quote.symbol):
            updates = self.state.core.on_quote(quote)
        self.venue.publish(updates)
        self.match(quote.symbol)

    @contextlib.contextmanager
    def quiet(self, symbol: str) -> Iterator[None]:
        """Keep the core from executing orders by itself: it does not know the hours."""
        halted = self.state.core.halted
        was_halted = symbol in halted
        halted.add(symbol)
        try:
            yield
        finally:
            if not was_halted:
                halted.discard(symbol)

    def _trail(self, symbol: str) -> None:
        """Let trailing stops follow the price."""
        for entered in self.state.core.in_line(symbol):
            order = self.state.live[entered.venue_order_id]
            if not order.is_trailing or entered.triggered:
                continue
            last, best = self._last(symbol), order.high_water
            sells = order.request.side is Side.SELL
            if best is None or (last > best if sells else last < best):
                order.high_water = last
                stop = order.trailing_stop()
                entered.request = msgspec.structs.replace(entered.request, stop_price=stop)

    # --- changes ----------------------------------------------------------------------------------

    def check_open(self, order: WireOrder) -> None:
        """Refuse a change of an order that has ended, or whose change is under way."""
        word = status_word(self.state, order)
        if not self.state.is_open(order):
            unprocessable(f'order is already in "{word}" state')
        if word in ("pending_cancel", "pending_replace"):
            unprocessable(f"order is {word} and cannot be changed")

    def ask_cancel(self, order: WireOrder) -> None:
        """Ask to cancel an order: it is pending first, and then cancelled, or executed before."""
        self.check_open(order)
        if order.core_id is None:
            self._end_held(order)
            return
        order.status = "pending_cancel"
        self._tell(order, "pending_cancel")
        self.venue.soon(lambda: self._cancel(order))

    def _cancel(self, order: WireOrder) -> None:
        core = self.state.core_order(order)
        if core is None or not core.is_open:
            return
        order.status = None
        self._cancel_in_core(order.request.symbol, core.request.client_order_id)

    def _end_held(self, order: WireOrder) -> None:
        order.status, order.updated_at = "canceled", self.venue.clock.now()
        self._tell(order, "canceled")

    def replace(self, order: WireOrder, terms: dict[str, Any], client_order_id: str) -> WireOrder:
        """Put an order with other terms in the place of one, under a new id."""
        core = check_change(self.state, order, terms)
        new = attrs.evolve(
            order,
            id=self.venue.new_id(),
            client_order_id=client_order_id,
            request=msgspec.structs.replace(order.request, **terms),
            created_at=self.venue.clock.now(),
            updated_at=self.venue.clock.now(),
            replaces=order.id,
            status="pending_new",
        )
        try:
            with self.quiet(order.request.symbol):
                self.state.core.amend(
                    order.request.symbol,
                    core.request.client_order_id,
                    self.venue.clock.now(),
                    **terms,
                )
        except ExchangeError as error:
            self._refused(error, new.request)
        order.filled_before, order.average_before = core.filled, core.report().average_price
        order.replaced_by = new.id
        self._file(new)
        self.state.live[core.venue_order_id] = new
        self._move_links(order, new)
        self.venue.soon(lambda: self._replaced(order, new))
        return new

    def _move_links(self, old: WireOrder, new: WireOrder) -> None:
        for each in self.state.orders.values():
            each.legs = [new.id if leg == old.id else leg for leg in each.legs]
            each.group = [new.id if other == old.id else other for other in each.group]
            if each.parent == old.id:
                each.parent = new.id

    def _replaced(self, old: WireOrder, new: WireOrder) -> None:
        self._tell(old, "replaced")
        new.status = None
        self._tell(new, "new")
        self.match(new.request.symbol)

    # --- out --------------------------------------------------------------------------------------

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Tell what happened to orders, and do what follows from it."""
        for update in updates:
            venue_order_id = getattr(update, "venue_order_id", "")
            order = self.state.live.get(venue_order_id)
            if order is None:
                continue
            if isinstance(update, Fill):
                self._executed(order, update)
            elif isinstance(update, OrderReport) and update.status.is_closed:
                self._ended(order, update)

    def _executed(self, order: WireOrder, fill: Fill) -> None:
        known = [e.executed for e in self.state.executions.values() if e.order_id == order.id]
        executed = max([order.filled_before, *known]) + fill.quantity
        self.state.executions[fill.trade_id] = Execution(order.id, executed, self.venue.new_id())
        self.venue.note_day_trade(fill)
        core = self.state.core_order(order)
        assert core is not None, "only orders in the core are executed"
        is_whole = executed >= core.request.quantity
        details = {
            "price": plain(fill.price),
            "qty": plain(fill.quantity),
            "position_qty": plain(self.state.position(fill.symbol)),
            "execution_id": self.state.executions[fill.trade_id].execution_id,
        }
        row = order_row(self.state, order, executed=executed)
        self.venue.tell("fill" if is_whole else "partial_fill", row, fill.at, details)
        self._end_group(order)
        if is_whole and order.order_class in ("bracket", "oto"):
            self._release_legs(order)

    def _ended(self, order: WireOrder, report: OrderReport) -> None:
        if report.status is OrderState.FILLED:
            return
        self._tell(order, status_word(self.state, order))
        self._end_group(order)
        for leg in self._legs(order):
            if leg.core_id is None and leg.status == "held":
                self._end_held(leg)

    def _legs(self, order: WireOrder) -> list[WireOrder]:
        return [self.state.orders[leg] for leg in order.legs]

    def _release_legs(self, order: WireOrder) -> None:
        legs = [leg for leg in self._legs(order) if leg.core_id is None and leg.status == "held"]
        join(legs)
        for leg in legs:
            leg.status = None
            leg.shows_held = len(legs) > 1 and leg.request.type is not OrderType.LIMIT
            self._to_core(leg)
            self._tell(leg, status_word(self.state, leg))
        if legs:
            self.venue.soon(lambda: self.match(order.request.symbol))

    def _end_group(self, order: WireOrder) -> None:
        """End the other orders of an OCO."""
        others, order.group = order.group, []
        for each in others:
            other = self.state.orders[each]
            other.group = []
            core = self.state.core_order(other)
            if core is not None and core.is_open:
                symbol, name = core.request.symbol, core.request.client_order_id
                self._cancel_in_core(symbol, name)

    def _cancel_in_core(self, symbol: str, name: str) -> None:
        now = self.venue.clock.now()
        self.venue.do(lambda: self.state.core.cancel(symbol, name, now))

    def _tell(self, order: WireOrder, event: str) -> None:
        self.venue.tell(event, order_row(self.state, order), self.venue.clock.now(), {})

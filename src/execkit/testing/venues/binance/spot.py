"""Orders on Binance spot: place, cancel, replace, amend, look up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from execkit.errors import ExchangeError, OrderNotFoundError
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.order import OrderState
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import missing, refuse, spot_refusal
from execkit.testing.venues.binance.filters import check_spot_filters
from execkit.testing.venues.binance.params import Params
from execkit.testing.venues.binance.spot_reading import SpotReader, Wanted
from execkit.testing.venues.binance.spot_views import SpotViews
from execkit.testing.venues.binance.words import (
    ListRecord,
    Notes,
    eight,
    ms,
)
from execkit.testing.venues.calls import Answer, Call, Handler, Refusal
from execkit.testing.venues.faults import OF_ORDERS


class SpotOrders:
    """The part of the venue that takes orders."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue
        self.reader = SpotReader(venue)
        self.views = SpotViews(venue)
        self.end_list: Callable[[ListRecord, str], dict[str, Any]] | None = None
        """Cancels a list; set by whoever keeps lists."""

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about single orders."""
        order = "/api/v3/order"
        yield "POST", order, "place", self.place
        yield "POST", f"{order}/test", "test", self.test
        yield "GET", order, "get", self.get
        yield "DELETE", order, "cancel", self.cancel
        yield "POST", f"{order}/cancelReplace", "replace", self.replace
        yield "PUT", f"{order}/amend/keepPriority", "amend", self.amend
        yield "GET", "/api/v3/openOrders", "open", self.open
        yield "DELETE", "/api/v3/openOrders", "cancel_all", self.cancel_all
        yield "GET", "/api/v3/allOrders", "orders", self.all
        yield "GET", "/api/v3/myTrades", "fills", self.trades
        yield "GET", "/api/v3/rateLimit/order", "limits", lambda _: self.venue.limits.counts()

    # --- placing ----------------------------------------------------------------------------------

    def place(self, call: Call) -> Any:
        """Take one order."""
        params = Params(call.params, self.venue.core)
        wanted = self.reader.read(params)
        kind = params.maybe("newOrderRespType") or wanted.default_answer
        params.done()
        order = self.enter(wanted, call)
        return self.views.answer(order, kind)

    def test(self, call: Call) -> Any:
        """Check one order without taking it."""
        params = Params(call.params, self.venue.core)
        self.check(self.reader.read(params))
        params.ignore("computeCommissionRates")
        params.done()
        return {}

    def check(self, wanted: Wanted, *, trigger: bool = True) -> None:
        """Put an order through the filters that the core does not have."""
        check_spot_filters(self.venue, wanted, trigger=trigger)

    def note(self, order: VenueOrder, wanted: Wanted, *, list_id: int = -1) -> None:
        """Keep what Binance says of a new order and the core does not know."""
        request = wanted.request
        self.venue.state.notes_of[order.venue_order_id] = Notes(
            word=wanted.word,
            time_in_force=request.time_in_force.value.upper(),
            created_at=order.since,
            list_id=list_id,
            quote_quantity=wanted.quote_quantity,
            trailing_delta=wanted.trailing_delta,
        )
        order.stop_above = wanted.stop_above

    def enter(self, wanted: Wanted, call: Call | None = None) -> VenueOrder:
        """Let an order into the book, as a fault of the request may want it."""
        self.check(wanted)
        venue, request, now = self.venue, wanted.request, self.venue.clock.now()
        fault = None if call is None else call.fault
        try:
            updates = venue.core.place(request, now, match=False)
        except ExchangeError as error:
            spot_refusal(error)
        order = venue.core.by_client[request.client_order_id]
        self.note(order, wanted)
        venue.took(request.client_order_id)
        venue.tell(updates)
        if fault is not None and fault.kind in OF_ORDERS:
            venue.mistreat(order, fault)
        else:
            venue.tell(venue.core.let_in([order], now))
        return order

    # --- looking up -------------------------------------------------------------------------------

    def find(self, params: Params, instrument: Instrument, *, unknown: int) -> VenueOrder:
        """Return the order that a request names; refuse with the code *unknown*."""
        order_id, client_id = params.integer("orderId"), params.maybe("origClientOrderId")
        if order_id is None and client_id is None:
            refuse(
                -1102,
                "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!",
            )
        try:
            order = self.venue.core.find(
                client_id or "", None if order_id is None else str(order_id)
            )
        except OrderNotFoundError:
            refuse(unknown)
        is_other = client_id is not None and order.request.client_order_id != client_id
        if is_other or order.request.symbol != instrument.symbol:
            refuse(unknown)
        return order

    def get(self, call: Call) -> Any:
        """Show one order."""
        params = Params(call.params, self.venue.core)
        order = self.find(params, params.instrument(), unknown=-2013)
        params.done()
        return self.views.shown(order)

    def open(self, call: Call) -> Any:
        """Show the open orders, of one symbol or all."""
        params = Params(call.params, self.venue.core)
        only = params.instrument().symbol if "symbol" in params else None
        params.done()
        lines = self.venue.core.open
        return [
            self.views.shown(order)
            for symbol, line in lines.items()
            if only in (None, symbol)
            for order in line.values()
        ]

    def all(self, call: Call) -> Any:
        """Show the orders of a symbol, open and closed."""
        params = Params(call.params, self.venue.core)
        symbol = params.instrument().symbol
        since, until = params.integer("startTime"), params.integer("endTime")
        first, limit = params.integer("orderId") or 0, params.integer("limit") or 500
        params.done()
        state = self.venue.state
        found = [
            order
            for order in self.venue.core.orders.values()
            if order.request.symbol == symbol
            and int(order.venue_order_id) >= first
            and (since is None or ms(state.notes(order).created_at) >= since)
            and (until is None or ms(state.notes(order).created_at) <= until)
        ]
        # The newest, unless a place to start from is named.
        found = found[:limit] if first or since is not None else found[-limit:]
        return [self.views.shown(order) for order in found]

    def trades(self, call: Call) -> Any:
        """Show the executions of a symbol."""
        params = Params(call.params, self.venue.core)
        symbol = params.instrument().symbol
        since, until = params.integer("startTime"), params.integer("endTime")
        order_id, first = params.integer("orderId"), params.integer("fromId")
        limit = params.integer("limit") or 500
        params.done()
        found = [
            fill
            for fill in self.venue.core.fills
            if fill.symbol == symbol
            and (order_id is None or fill.venue_order_id == str(order_id))
            and (first is None or int(fill.trade_id) >= first)
            and (since is None or ms(fill.at) >= since)
            and (until is None or ms(fill.at) <= until)
        ]
        found = found[-limit:] if since is None and first is None else found[:limit]
        return [self.views.trade(fill) for fill in found]

    # --- ending and changing ----------------------------------------------------------------------

    def cancel(self, call: Call) -> Any:
        """Cancel one order."""
        params = Params(call.params, self.venue.core)
        instrument = params.instrument()
        order = self.find(params, instrument, unknown=-2011)
        new_id = params.client_id("newClientOrderId")
        only = params.maybe("cancelRestrictions")
        params.done()
        allowed = {
            "ONLY_NEW": OrderState.ACCEPTED,
            "ONLY_PARTIALLY_FILLED": OrderState.PARTIALLY_FILLED,
        }
        if only is not None and order.status is not allowed.get(only):
            refuse(-2011, "Order was not canceled due to cancel restrictions.")
        return self.end(order, new_id)

    def end(self, order: VenueOrder, cancel_id: str | None = None) -> dict[str, Any]:
        """Cancel an order, or the whole list that it is part of, and return what the venue says of it."""
        venue, state = self.venue, self.venue.state
        if not order.is_open:
            refuse(-2011)
        notes = state.notes(order)
        notes.cancel_id = cancel_id or venue.new_client_id()
        if notes.list_id in state.lists and self.end_list is not None:
            return self.end_list(state.lists[notes.list_id], notes.cancel_id)
        request, number = order.request, order.venue_order_id
        venue.tell(
            venue.core.cancel(
                request.symbol, request.client_order_id, venue.clock.now(), venue_order_id=number
            )
        )
        return self.views.cancelled(order)

    def cancel_all(self, call: Call) -> Any:
        """Cancel every order of a symbol, whoever placed it."""
        params = Params(call.params, self.venue.core)
        symbol = params.instrument().symbol
        params.done()
        orders = list(self.venue.core.in_line(symbol))
        if not orders:
            refuse(-2011)
        return [self.end(order) for order in orders if order.is_open]

    def replace(self, call: Call) -> Any:
        """Cancel an order and place another: the second step may fail after the first was done."""
        params = Params(call.params, self.venue.core)
        mode = params.word("cancelReplaceMode", ("STOP_ON_FAILURE", "ALLOW_FAILURE"), -1103)
        wanted = self.reader.read(params)
        kind = params.maybe("newOrderRespType") or wanted.default_answer
        order_id, client_id = (
            params.integer("cancelOrderId"),
            params.maybe("cancelOrigClientOrderId"),
        )
        cancel_id = params.client_id("cancelNewClientOrderId")
        params.ignore("cancelRestrictions", "orderRateLimitExceededMode")
        params.done()
        named = {"orderId": str(order_id or ""), "origClientOrderId": client_id or ""}
        instrument = self.venue.core.instrument(wanted.request.symbol)

        def cancel() -> Any:
            order = self.find(Params(named, self.venue.core), instrument, unknown=-2011)
            return self.end(order, cancel_id)

        cancelled, cancel_answer = _attempt(cancel)
        if cancelled or mode == "ALLOW_FAILURE":
            placed, order_answer = _attempt(
                lambda: self.views.answer(self.enter(wanted, call), kind)
            )
            order_result = "SUCCESS" if placed else "FAILURE"
        else:
            placed, order_answer, order_result = False, None, "NOT_ATTEMPTED"
        data = {
            "cancelResult": "SUCCESS" if cancelled else "FAILURE",
            "newOrderResult": order_result,
            "cancelResponse": cancel_answer,
            "newOrderResponse": order_answer,
        }
        if cancelled and placed:
            return data
        if cancelled or placed:
            text = "Order cancel-replace partially failed."
            return Answer(409, {"code": -2021, "msg": text, "data": data})
        return Answer(400, {"code": -2022, "msg": "Order cancel-replace failed.", "data": data})

    def amend(self, call: Call) -> Any:
        """Make an order smaller; it keeps its place in the book, and gets another client order id."""
        params = Params(call.params, self.venue.core)
        order = self.find(params, params.instrument(), unknown=-2013)
        quantity = params.number("newQty")
        new_id = params.client_id("newClientOrderId") or self.venue.new_client_id()
        params.done()
        if quantity is None:
            missing("newQty")
        if not order.is_open:
            refuse(-2013)
        if quantity >= order.request.quantity or quantity <= order.filled:
            refuse(-2038, "The requested action would change no state; rejecting.")
        old_id, core = order.request.client_order_id, self.venue.core
        now = self.venue.clock.now()
        try:
            updates = core.amend(order.request.symbol, old_id, now, quantity=quantity)
        except ExchangeError as error:
            spot_refusal(error)
        order.request = msgspec.structs.replace(order.request, client_order_id=new_id)
        core.by_client[new_id] = core.by_client.pop(old_id)
        self.venue.tell(updates)
        return {
            "transactTime": ms(now),
            "executionId": len(core.orders),
            "amendedOrder": {
                **self.views.shown(order),
                "origClientOrderId": old_id,
                "qty": eight(quantity),
                "preventedQty": eight(None),
                "cumulativeQuoteQty": eight(order.notional),
            },
        }


def _attempt(step: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, step()
    except Refusal as refusal:
        return False, refusal.payload

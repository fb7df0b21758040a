"""Orders on Bybit's spot market: create, amend, cancel, look up; and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from execkit.errors import ExchangeError, OrderNotFoundError
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
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
from execkit.numbers import plain
from execkit.testing.venues.bybit.base import BybitBase, ms, refuse, refuse_for
from execkit.testing.venues.calls import Call, Handler
from execkit.testing.venues.faults import Mishap

_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_STATUS: Final = {
    OrderState.PARTIALLY_FILLED: "PartiallyFilled",
    OrderState.FILLED: "Filled",
    OrderState.CANCELLED: "Cancelled",
    OrderState.EXPIRED: "Cancelled",
    OrderState.REJECTED: "Rejected",
}
_WEEK: Final = 7 * 24 * 60 * 60 * 1000
"""Milliseconds of executions that one request can be about."""
_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT)
_BY_HAND: Final = (Mishap.UNFILLED, Mishap.PARTIAL, Mishap.EXPIRE, Mishap.EXPIRE_IN_MATCH)


class BybitOrders:
    """The part of the venue that takes orders."""

    def __init__(self, venue: BybitBase) -> None:
        self.venue = venue
        self._created: dict[str, str] = {}
        self._fill: Fill | None = None

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about orders."""
        yield "POST", "/v5/order/create", "place", self.create
        yield "POST", "/v5/order/amend", "amend", self.amend
        yield "POST", "/v5/order/cancel", "cancel", self.cancel
        yield "POST", "/v5/order/cancel-all", "cancel_all", self.cancel_all
        yield "GET", "/v5/order/realtime", "open", self.realtime
        yield "GET", "/v5/order/history", "get", self.history
        yield "GET", "/v5/execution/list", "fills", self.executions

    # --- placing and changing ---------------------------------------------------------------------

    def create(self, call: Call) -> Any:
        """Take one order; the answer names it and says nothing of what became of it."""
        venue, params = self.venue, call.params
        instrument = self._instrument(params)
        word, price, trigger = (
            params.get("orderType"),
            self._number(params, "price"),
            self._number(params, "triggerPrice"),
        )
        quantity = self._number(params, "qty")
        if (
            word not in ("Market", "Limit")
            or params.get("side") not in ("Buy", "Sell")
            or quantity is None
        ):
            refuse(10001)
        side = Side(params["side"].lower())
        if (
            word == "Market"
            and trigger is None
            and params.get("marketUnit") != "baseCoin"
            and side is Side.BUY
        ):
            # A market buy is stated in units of quote, unless it says otherwise.
            quantity = instrument.round_quantity(quantity / venue.core.quote(instrument.symbol).ask)
        types = {(False, False): OrderType.MARKET, (True, False): OrderType.LIMIT}
        types |= {(False, True): OrderType.STOP, (True, True): OrderType.STOP_LIMIT}
        tif = params.get("timeInForce", "GTC")
        request = OrderRequest(
            client_order_id=params.get("orderLinkId") or f"venue-{len(venue.core.orders) + 1}",
            symbol=instrument.symbol,
            side=side,
            type=types[word == "Limit", trigger is not None],
            quantity=quantity,
            limit_price=price if word == "Limit" else None,
            stop_price=trigger,
            time_in_force=TimeInForce(tif.lower())
            if tif in ("GTC", "IOC", "FOK")
            else TimeInForce.GTC,
            post_only=tif == "PostOnly",
        )
        kind = None if call.fault is None else call.fault.kind
        try:
            updates = venue.core.place(request, venue.clock.now(), match=kind not in _BY_HAND)
        except ExchangeError as error:
            refuse_for(error)
        order = venue.core.by_client[request.client_order_id]
        venue.accepts.append(request.client_order_id)
        self._created[order.venue_order_id] = ms(order.since)
        venue.publish(updates)
        if call.fault is not None and kind in _BY_HAND:
            self._mistreat(order, kind, call.fault.fraction)
        return self._named(order)

    def _mistreat(self, order: VenueOrder, kind: Mishap, fraction: Decimal) -> None:
        """Do with a new order what a fault wants."""
        core, name, now = self.venue.core, order.request.client_order_id, self.venue.clock.now()
        if kind is Mishap.PARTIAL:
            part = core.instrument(order.request.symbol).round_quantity(order.remaining * fraction)
            price = order.limit or core.quote(order.request.symbol).ask
            self.venue.publish(core.execute(name, part, price, now))
        elif kind is not Mishap.UNFILLED:
            self.venue.publish(core.end(name, OrderState.EXPIRED, "ended by the venue", now))

    def amend(self, call: Call) -> Any:
        """Change an open order."""
        order = self._find(call.params)
        number = self._number
        request = order.request
        try:
            updates = self.venue.core.amend(
                request.symbol,
                request.client_order_id,
                self.venue.clock.now(),
                venue_order_id=order.venue_order_id,
                quantity=number(call.params, "qty"),
                limit_price=number(call.params, "price"),
                stop_price=number(call.params, "triggerPrice"),
            )
        except ExchangeError as error:
            refuse_for(error)
        self.venue.publish(updates)
        return self._named(order)

    def cancel(self, call: Call) -> Any:
        """Cancel an open order."""
        order = self._find(call.params)
        if not order.is_open:
            refuse(170142 if order.status is OrderState.CANCELLED else 170213)
        self._end(order)
        return self._named(order)

    def cancel_all(self, call: Call) -> Any:
        """Cancel all open orders of a symbol, or all."""
        only = self._instrument(call.params).symbol if "symbol" in call.params else None
        ended = [o for o in self._open() if only in (None, o.request.symbol)]
        for order in ended:
            self._end(order)
        return self.venue.wrap(
            {"list": [self._named(order)["result"] for order in ended], "success": "1"}
        )

    def _end(self, order: VenueOrder) -> None:
        request, now = order.request, self.venue.clock.now()
        number = order.venue_order_id
        self.venue.publish(
            self.venue.core.cancel(
                request.symbol, request.client_order_id, now, venue_order_id=number
            )
        )

    def _named(self, order: VenueOrder) -> dict[str, Any]:
        return self.venue.wrap(
            {"orderId": order.venue_order_id, "orderLinkId": order.request.client_order_id}
        )

    # --- looking up -------------------------------------------------------------------------------

    def _instrument(self, params: dict[str, str]) -> Instrument:
        listed = self.venue.core.instruments.values()
        named = params.get("symbol")
        if params.get("category") != "spot":
            refuse(10001)
        return next((each for each in listed if each.venue_symbol == named), None) or refuse(170121)

    @staticmethod
    def _number(params: dict[str, str], name: str) -> Decimal | None:
        value = params.get(name)
        if not value:
            return None
        if not _NUMBER.fullmatch(value):
            refuse(10001)
        return Decimal(value)

    def _find(self, params: dict[str, str]) -> VenueOrder:
        instrument = self._instrument(params)
        try:
            order = self.venue.core.find(params.get("orderLinkId", ""), params.get("orderId"))
        except OrderNotFoundError:
            refuse(170213)
        return order if order.request.symbol == instrument.symbol else refuse(170213)

    def _open(self) -> list[VenueOrder]:
        return [order for line in self.venue.core.open.values() for order in line.values()]

    def _listed(self, call: Call, orders: Iterable[VenueOrder]) -> Any:
        """Return the orders that a request asks for, newest first."""
        params = call.params
        only = self._instrument(params).symbol if "symbol" in params else None
        wants_stops = params.get("orderFilter") == "StopOrder"
        found = [
            order
            for order in orders
            if only in (None, order.request.symbol)
            and params.get("orderId", order.venue_order_id) == order.venue_order_id
            and params.get("orderLinkId", order.request.client_order_id)
            == order.request.client_order_id
            and wants_stops is (order.request.type in _STOPS)
        ]
        found = found[::-1][: int(params.get("limit", "50"))]
        rows = [self.shown(order.report()) for order in found]
        return self.venue.wrap({"list": rows, "nextPageCursor": "", "category": "spot"})

    def realtime(self, call: Call) -> Any:
        """Show open orders."""
        return self._listed(call, self._open())

    def history(self, call: Call) -> Any:
        """Show orders that have ended."""
        orders = self.venue.core.orders.values()
        return self._listed(call, [order for order in orders if not order.is_open])

    def executions(self, call: Call) -> Any:
        """Show executions, newest first, a page at a time; at most seven days from the start that is asked for."""
        params = call.params
        only = self._instrument(params).symbol if "symbol" in params else None
        now = int(ms(self.venue.clock.now()))
        until = int(params.get("endTime", now))
        since = int(params.get("startTime", until - _WEEK))
        if until - since > _WEEK:
            if "endTime" in params:
                refuse(10001)
            until = since + _WEEK
        found = [
            fill
            for fill in self.venue.core.fills
            if only in (None, fill.symbol)
            and since <= int(ms(fill.at)) <= until
            and params.get("orderId", fill.venue_order_id) == fill.venue_order_id
        ]
        first = int(params.get("cursor") or 0)
        after = first + int(params.get("limit", "50"))
        rows = [self.execution(fill) for fill in found[::-1][first:after]]
        cursor = str(after) if after < len(found) else ""
        return self.venue.wrap({"list": rows, "nextPageCursor": cursor, "category": "spot"})

    # --- how they are shown -----------------------------------------------------------------------

    def shown(self, report: OrderReport) -> dict[str, Any]:
        """Return an order as lists and events show it."""
        order = self.venue.core.orders[report.venue_order_id]
        request = order.request
        waits = report.status is OrderState.ACCEPTED and order.waits_for_stop
        status = "Untriggered" if waits else _STATUS.get(report.status, "New")
        if status == "Cancelled" and report.filled:
            status = "PartiallyFilledCanceled"
        average = "" if report.average_price is None else f"{report.average_price:.10f}"
        is_limit = request.type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
        return {
            "category": "spot",
            "symbol": self.venue.core.instrument(report.symbol).venue_symbol,
            "orderId": report.venue_order_id,
            "orderLinkId": report.client_order_id,
            "side": report.side.value.capitalize(),
            "orderType": "Limit" if is_limit else "Market",
            "qty": plain(report.quantity),
            "marketUnit": "" if is_limit else "baseCoin",
            "price": plain(report.limit_price) if report.limit_price else "0",
            "triggerPrice": plain(report.stop_price) if report.stop_price else "0",
            "stopOrderType": "Stop" if request.type in _STOPS else "",
            "timeInForce": "PostOnly" if request.post_only else request.time_in_force.upper(),
            "orderStatus": status,
            "rejectReason": "EC_NoError",
            "avgPrice": average,
            "cumExecQty": plain(report.filled),
            "cumExecValue": plain((report.average_price or Decimal(0)) * report.filled),
            "cumExecFee": "0",
            "leavesQty": plain(report.quantity - report.filled),
            "createdTime": self._created.get(report.venue_order_id, ms(order.since)),
            "updatedTime": ms(report.updated_at or order.since),
        }

    def execution(self, fill: Fill) -> dict[str, Any]:
        """Return an execution as lists and events show it."""
        order = self.venue.core.orders[fill.venue_order_id]
        return {
            "category": "spot",
            "symbol": self.venue.core.instrument(fill.symbol).venue_symbol,
            "execId": f"exec-{fill.trade_id}",
            "orderId": fill.venue_order_id,
            "orderLinkId": fill.client_order_id,
            "side": fill.side.value.capitalize(),
            "orderType": "Limit" if order.request.limit_price else "Market",
            "orderQty": plain(order.request.quantity),
            "execType": "Trade",
            "execQty": plain(fill.quantity),
            "execPrice": plain(fill.price),
            "execValue": plain(fill.notional),
            "execFee": plain(fill.fee),
            "feeCurrency": fill.fee_asset,
            "feeCoin": fill.fee_asset,
            "feeRate": "0.001",
            "isMaker": bool(fill.maker),
            "execTime": ms(fill.at),
        }

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn what happened to orders into events: an execution, then the order."""
        for update in updates:
            if isinstance(update, Fill):
                self._push("execution", self.execution(update))
            elif isinstance(update, OrderReport):
                self._push("order", self.shown(update))

    def _push(self, topic: str, row: dict[str, Any]) -> None:
        now = int(ms(self.venue.clock.now()))
        self.venue.push_private(
            {"id": f"{now}", "topic": topic, "creationTime": now, "data": [row]}
        )

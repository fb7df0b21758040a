"""Orders on Binance USD-M futures: market and limit; conditional ones have an endpoint of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from execkit.errors import ExchangeError, OrderNotFoundError
from execkit.exchanges import fills
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest, OrderType, Side, TimeInForce
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import futures_refusal, missing, refuse
from execkit.testing.venues.binance.futures_views import FuturesViews
from execkit.testing.venues.binance.params import Params, check_precision
from execkit.testing.venues.binance.symbols import FUTURES_BAND, places
from execkit.testing.venues.binance.words import Notes, from_ms, ms, short
from execkit.testing.venues.calls import Call, Handler
from execkit.testing.venues.faults import OF_ORDERS

CONDITIONAL: Final = (
    "STOP",
    "STOP_MARKET",
    "TAKE_PROFIT",
    "TAKE_PROFIT_MARKET",
    "TRAILING_STOP_MARKET",
)
TIMES: Final = ("GTC", "IOC", "FOK", "GTX", "GTD")
DONE_ALL: Final = {"code": 200, "msg": "The operation of cancel all open order is done."}


class FuturesOrders:
    """The part of the venue that takes orders."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue
        self.views = FuturesViews(venue)
        self._countdowns: dict[str, asyncio.TimerHandle] = {}

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about orders."""
        order = "/fapi/v1/order"
        yield "POST", order, "place", self.place
        yield "POST", f"{order}/test", "test", self.test
        yield "GET", order, "get", self.get
        yield "PUT", order, "amend", self.amend
        yield "DELETE", order, "cancel", self.cancel
        yield "GET", "/fapi/v1/openOrder", "get", self.get_open
        yield "GET", "/fapi/v1/openOrders", "open", self.open
        yield "DELETE", "/fapi/v1/allOpenOrders", "cancel_all", self.cancel_all
        yield "POST", "/fapi/v1/countdownCancelAll", "countdown", self.countdown
        yield "GET", "/fapi/v1/allOrders", "orders", self.all
        yield "GET", "/fapi/v1/userTrades", "fills", self.trades

    # --- placing ----------------------------------------------------------------------------------

    def place(self, call: Call) -> Any:
        """Take one order."""
        params = Params(call.params, self.venue.core)
        request, word, tif = self.read(params)
        kind = params.word("newOrderRespType", ("ACK", "RESULT"), -1115, "ACK")
        params.done()
        order = self.enter(request, word, tif, call)
        shown = self.views.shown(order)
        if kind == "ACK" and order.is_open:
            # What an acknowledgement tells is the order as it came in.
            shown |= {
                "status": "NEW",
                "executedQty": "0",
                "cumQty": "0",
                "cumQuote": "0",
                "avgPrice": "0.00",
            }
        return shown

    def test(self, call: Call) -> Any:
        """Check one order without taking it."""
        params = Params(call.params, self.venue.core)
        self.read(params)
        params.ignore("newOrderRespType")
        params.done()
        return {}

    def read(self, params: Params) -> tuple[OrderRequest, str, str]:
        """Read an order from parameters; return it with its type and time in force in Binance's words."""
        instrument, side = params.instrument(), params.side()
        self.check_side(params)
        word = params.word("type", ("LIMIT", "MARKET", *CONDITIONAL), -1116)
        if word in CONDITIONAL:
            refuse(-4120)
        quantity, price = params.number("quantity"), params.number("price")
        if quantity is None:
            missing("quantity")
        if word == "LIMIT" and price is None:
            missing("price")
        if word == "MARKET" and price is not None:
            refuse(-1106, "Parameter 'price' sent when not required.")
        check_numbers(instrument, quantity, price=price)
        tif = params.word("timeInForce", TIMES, -1115) if word == "LIMIT" else "GTC"
        until = params.integer("goodTillDate")
        params.ignore("workingType", "priceProtect", "selfTradePreventionMode", "priceMatch")
        reduce_only = params.flag("reduceOnly")
        request = OrderRequest(
            client_order_id=params.client_id("newClientOrderId") or self.venue.new_client_id(),
            symbol=instrument.symbol,
            side=side,
            type=OrderType(word.lower()),
            quantity=quantity,
            limit_price=price,
            time_in_force=TimeInForce.GTC if tif == "GTX" else TimeInForce(tif.lower()),
            post_only=tif == "GTX",
            reduce_only=reduce_only,
            expire_at=from_ms(until) if until and tif == "GTD" else None,
        )
        self._check_band(request)
        return request, word, tif

    @staticmethod
    def check_side(params: Params) -> None:
        """Refuse a position side: the account keeps one net position."""
        if params.text("positionSide", "BOTH") != "BOTH":
            refuse(-4061, "Order's position side does not match user's setting.")

    def _check_band(self, request: OrderRequest) -> None:
        """Refuse a limit that is much worse than the market."""
        book, price = self.venue.core.books.get(request.symbol), request.limit_price
        if book is None or price is None:
            return
        mark = book.last or self.venue.core.quote(request.symbol).mid
        low, high = mark * FUTURES_BAND[0], mark * FUTURES_BAND[1]
        if request.side is Side.BUY and price > high:
            refuse(-4016, f"Limit price can't be higher than {short(high)}.")
        if request.side is Side.SELL and price < low:
            refuse(-4024, f"Limit price can't be lower than {short(low)}.")

    def enter(
        self, request: OrderRequest, word: str, tif: str, call: Call | None = None
    ) -> VenueOrder:
        """Let an order into the book, as a fault of the request may want it."""
        venue, now = self.venue, self.venue.clock.now()
        fault = None if call is None else call.fault
        book = venue.core.books.get(request.symbol)
        if (
            request.time_in_force is TimeInForce.FOK
            and book is not None
            and request.limit_price is not None
            and not fills.crosses(
                request.side, request.limit_price, book, venue.core.costs(request.symbol)
            )
        ):
            refuse(-5021)
        try:
            updates = venue.core.place(request, now, match=False)
        except ExchangeError as error:
            futures_refusal(error, short(venue.core.instrument(request.symbol).min_notional))
        order = venue.core.by_client[request.client_order_id]
        venue.state.notes_of[order.venue_order_id] = Notes(
            word=word, time_in_force=tif, created_at=now
        )
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
                -1102, "Mandatory parameter 'orderId' was not sent, was empty/null, or malformed."
            )
        try:
            order = self.venue.core.find(
                client_id or "", None if order_id is None else str(order_id)
            )
        except OrderNotFoundError:
            refuse(unknown)
        if order.request.symbol != instrument.symbol:
            refuse(unknown)
        return order

    def get(self, call: Call) -> Any:
        """Show one order."""
        params = Params(call.params, self.venue.core)
        order = self.find(params, params.instrument(), unknown=-2013)
        params.done()
        return self.views.shown(order)

    def get_open(self, call: Call) -> Any:
        """Show one order that is open."""
        params = Params(call.params, self.venue.core)
        order = self.find(params, params.instrument(), unknown=-2013)
        if not order.is_open:
            refuse(-2013)
        return self.views.shown(order)

    def open(self, call: Call) -> Any:
        """Show the open orders, of one symbol or all."""
        params = Params(call.params, self.venue.core)
        only = params.instrument().symbol if "symbol" in params else None
        params.done()
        return [
            self.views.shown(order)
            for symbol, line in self.venue.core.open.items()
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
        notes = self.venue.state.notes
        found = [
            order
            for order in self.venue.core.orders.values()
            if order.request.symbol == symbol
            and int(order.venue_order_id) >= first
            and (since is None or ms(notes(order).created_at) >= since)
            and (until is None or ms(notes(order).created_at) <= until)
        ]
        found = found[:limit] if first or since is not None else found[-limit:]
        return [self.views.shown(order) for order in found]

    def trades(self, call: Call) -> Any:
        """Show the executions of a symbol; at most seven days at once, by default the last seven."""
        params = Params(call.params, self.venue.core)
        symbol = params.instrument().symbol
        since, until = params.integer("startTime"), params.integer("endTime")
        order_id, first = params.integer("orderId"), params.integer("fromId")
        limit = params.integer("limit") or 500
        params.done()
        week = 7 * 86_400_000
        if since is not None and until is not None and until - since > week:
            refuse(-4166, "Search window is restricted to recent 90 days and 7 days at once.")
        if first is None:
            since = ms(self.venue.clock.now()) - week if since is None else since
            until = since + week if until is None else until
        found = [
            fill
            for fill in self.venue.core.fills
            if fill.symbol == symbol
            and (order_id is None or fill.venue_order_id == str(order_id))
            and (first is None or int(fill.trade_id) >= first)
            and (since is None or ms(fill.at) >= since)
            and (until is None or ms(fill.at) <= until)
        ]
        return [self.views.trade(fill) for fill in found[:limit]]

    # --- ending and changing ----------------------------------------------------------------------

    def cancel(self, call: Call) -> Any:
        """Cancel one order."""
        params = Params(call.params, self.venue.core)
        order = self.find(params, params.instrument(), unknown=-2011)
        params.done()
        if not order.is_open:
            refuse(-2011)
        self._end(order)
        return self.views.shown(order)

    def _end(self, order: VenueOrder) -> None:
        request, number = order.request, order.venue_order_id
        core = self.venue.core
        self.venue.tell(
            core.cancel(
                request.symbol,
                request.client_order_id,
                self.venue.clock.now(),
                venue_order_id=number,
            )
        )

    def cancel_all(self, call: Call) -> Any:
        """Cancel every order of a symbol, whoever placed it."""
        params = Params(call.params, self.venue.core)
        symbol = params.instrument().symbol
        params.done()
        self._end_all(symbol)
        return DONE_ALL

    def _end_all(self, symbol: str) -> None:
        for order in self.venue.core.in_line(symbol):
            if order.is_open:
                self._end(order)

    def countdown(self, call: Call) -> Any:
        """Cancel every order of a symbol when the countdown ends before it is started anew; zero ends it."""
        params = Params(call.params, self.venue.core)
        instrument = params.instrument()
        countdown = params.integer("countdownTime")
        params.done()
        if countdown is None or countdown < 0:
            missing("countdownTime")
        running = self._countdowns.pop(instrument.symbol, None)
        if running is not None:
            running.cancel()
        if countdown > 0:
            self._countdowns[instrument.symbol] = asyncio.get_running_loop().call_later(
                countdown / 1000, self._end_all, instrument.symbol
            )
        return {"symbol": instrument.venue_symbol, "countdownTime": str(countdown)}

    def amend(self, call: Call) -> Any:
        """Change quantity and price of a limit order."""
        params = Params(call.params, self.venue.core)
        instrument = params.instrument()
        order = self.find(params, instrument, unknown=-2013)
        params.side()
        quantity, price = params.number("quantity"), params.number("price")
        params.ignore("priceMatch", "positionSide")
        params.done()
        if quantity is None or price is None:
            missing("quantity" if quantity is None else "price")
        check_numbers(instrument, quantity, price=price)
        if not order.is_open or order.request.type is not OrderType.LIMIT:
            refuse(-2013)
        if (quantity, price) == (order.request.quantity, order.request.limit_price):
            refuse(-5027, "No need to modify the order.")
        core, name = self.venue.core, order.request.client_order_id
        self._check_band(msgspec.structs.replace(order.request, limit_price=price))
        try:
            updates = core.amend(
                instrument.symbol,
                name,
                self.venue.clock.now(),
                venue_order_id=order.venue_order_id,
                quantity=quantity,
                limit_price=price,
            )
        except ExchangeError as error:
            futures_refusal(error, short(instrument.min_notional))
        self.venue.tell(updates)
        return self.views.shown(order)


def check_numbers(instrument: Instrument, quantity: Decimal, **prices: Decimal | None) -> None:
    """Refuse numbers with more places than the symbol has, and a quantity of nothing."""
    text = "Precision is over the maximum defined for this asset."
    check_precision("quantity", quantity, places(instrument.lot_size), text)
    for name, price in prices.items():
        check_precision(name, price, places(instrument.tick_size), text)
        if price is not None and not price:
            refuse(-4001, "Price less than 0.")
    if not quantity:
        refuse(-4003)

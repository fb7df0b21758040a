"""Order lists on Binance spot: OCO, OTO and OTOCO, which the venue itself keeps together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from execkit.errors import ExchangeError
from execkit.model.instrument import Instrument
from execkit.model.order import ListKind, OrderList, OrderState, Side
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import missing, refuse, spot_refusal
from execkit.testing.venues.binance.params import Params
from execkit.testing.venues.binance.spot import SpotOrders
from execkit.testing.venues.binance.spot_reading import Wanted
from execkit.testing.venues.binance.words import ListRecord, ms
from execkit.testing.venues.calls import Call, Handler

_STOPS: Final = ("STOP_LOSS", "STOP_LOSS_LIMIT")
_TARGETS: Final = ("LIMIT_MAKER", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")


class SpotLists:
    """The part of the venue that takes lists."""

    def __init__(self, venue: BinanceBase, orders: SpotOrders) -> None:
        self.venue = venue
        self.orders = orders
        orders.end_list = self.end

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about lists."""
        path = "/api/v3/orderList"
        yield "POST", f"{path}/oco", "place_list", self.oco
        yield "POST", f"{path}/oto", "place_list", self.oto
        yield "POST", f"{path}/otoco", "place_list", self.otoco
        yield "GET", path, "get_list", self.get
        yield "DELETE", path, "cancel_list", self.cancel
        yield "GET", "/api/v3/openOrderList", "open_lists", self.open
        yield "GET", "/api/v3/allOrderList", "lists", self.all

    # --- placing ----------------------------------------------------------------------------------

    def oco(self, call: Call) -> Any:
        """Take two orders of which one ends the other."""
        params = Params(call.params, self.venue.core)
        instrument, side = params.instrument(), params.side()
        quantity = params.number("quantity")
        if quantity is None:
            missing("quantity")
        pair = self._pair(params, instrument, side, quantity, "above", "below")
        self._check_around(instrument, pair)
        return self._enter(params, ListKind.OCO, "OCO", pair)

    def oto(self, call: Call) -> Any:
        """Take an order that lets in another one."""
        params = Params(call.params, self.venue.core)
        instrument = params.instrument()
        working = self._working(params, instrument)
        pending = self._leg(params, instrument, params.side("pendingSide"), "pending", None)
        return self._enter(params, ListKind.OTO, "OTO", [working, pending])

    def otoco(self, call: Call) -> Any:
        """Take an order that lets in two others, of which one ends the other."""
        params = Params(call.params, self.venue.core)
        instrument = params.instrument()
        working = self._working(params, instrument)
        side, quantity = params.side("pendingSide"), params.number("pendingQuantity")
        if quantity is None:
            missing("pendingQuantity")
        pair = self._pair(params, instrument, side, quantity, "pendingAbove", "pendingBelow")
        return self._enter(params, ListKind.BRACKET, "OTO", [working, *pair])

    def _working(self, params: Params, instrument: Instrument) -> Wanted:
        wanted = self._leg(params, instrument, params.side("workingSide"), "working", None)
        if wanted.word not in ("LIMIT", "LIMIT_MAKER"):
            refuse(-1116)
        return wanted

    def _leg(
        self,
        params: Params,
        instrument: Instrument,
        side: Side,
        prefix: str,
        quantity: Decimal | None,
    ) -> Wanted:
        name: Callable[[str], str] = lambda plain: prefix + plain[0].upper() + plain[1:]  # noqa: E731
        return self.orders.reader.read_terms(params, instrument, side, name, quantity=quantity)

    def _pair(
        self,
        params: Params,
        instrument: Instrument,
        side: Side,
        quantity: Decimal,
        above: str,
        below: str,
    ) -> list[Wanted]:
        """Read the legs of an OCO, the one below first, and check that each is on its side."""
        high = self._leg(params, instrument, side, above, quantity)
        low = self._leg(params, instrument, side, below, quantity)
        stop, target = (low, high) if side is Side.SELL else (high, low)
        if "LIMIT_MAKER" == high.word == low.word:
            refuse(-1168, "At least one OCO order must be contingent.")
        if stop.word not in _STOPS or target.word not in _TARGETS:
            refuse(-1158, "Order type not supported in OCO.")
        if not _price(low) < _price(high):
            refuse(-2010, "The relationship of the prices for the orders is not correct.")
        return [low, high]

    def _check_around(self, instrument: Instrument, pair: list[Wanted]) -> None:
        """Refuse legs that do not have the market between them."""
        quote = self.venue.core.quote(instrument.symbol)
        last = quote.last or quote.bid
        if not _price(pair[0]) < last < _price(pair[1]):
            refuse(-2010, "The relationship of the prices for the orders is not correct.")

    def _enter(self, params: Params, kind: ListKind, word: str, wanted: list[Wanted]) -> Any:
        venue = self.venue
        list_id = params.client_id("listClientOrderId") or venue.new_client_id()
        params.ignore("newOrderRespType", "selfTradePreventionMode")
        params.done()
        for each in wanted:
            self.orders.check(each, trigger=kind is ListKind.OCO)
        orders = OrderList(list_id=list_id, kind=kind, orders=tuple(w.request for w in wanted))
        now = venue.clock.now()
        lists = venue.state.lists
        if any(each.client_id == list_id and not each.is_done for each in lists.values()):
            refuse(-2010, "Duplicate order sent.")
        try:
            updates = venue.core.place_list(orders, now, match=False)
        except ExchangeError as error:
            spot_refusal(error)
        made = [venue.core.by_client[each.request.client_order_id] for each in wanted]
        record = ListRecord(
            len(lists) + 1,
            list_id,
            word,
            venue.symbol_of(made[0].request.symbol),
            [order.venue_order_id for order in made],
            now,
        )
        lists[record.list_id] = record
        for order, each in zip(made, wanted, strict=True):
            self.orders.note(order, each, list_id=record.list_id)
            venue.took(each.request.client_order_id)
        venue.tell([*updates])
        self._tell(record)
        venue.tell(venue.core.let_in(made, now))
        return self.shown(record) | {
            "orderReports": [self.orders.views.answer(o, "RESULT") for o in made]
        }

    # --- looking up and ending --------------------------------------------------------------------

    def shown(self, record: ListRecord) -> dict[str, Any]:
        """Return a list as all answers have it."""
        status = "ALL_DONE" if record.is_done else "EXEC_STARTED"
        return {
            "orderListId": record.list_id,
            "contingencyType": record.contingency,
            "listStatusType": status,
            "listOrderStatus": "ALL_DONE" if record.is_done else "EXECUTING",
            "listClientOrderId": record.client_id,
            "transactionTime": ms(record.created_at),
            "symbol": record.symbol,
            "orders": self._names(record, "symbol", "orderId", "clientOrderId"),
        }

    def _names(
        self, record: ListRecord, symbol: str, order: str, client: str
    ) -> list[dict[str, Any]]:
        known = self.venue.core.orders
        return [
            {symbol: record.symbol, order: int(each), client: known[each].request.client_order_id}
            for each in record.orders
        ]

    def get(self, call: Call) -> Any:
        """Show one list."""
        params = Params(call.params, self.venue.core)
        found = self._find(params.integer("orderListId"), params.maybe("origClientOrderId"), -2018)
        params.done()
        return self.shown(found)

    def _find(self, number: int | None, client_id: str | None, unknown: int) -> ListRecord:
        matching = (
            record
            for record in self.venue.state.lists.values()
            if record.list_id == number or (number is None and record.client_id == client_id)
        )
        text = "Order list does not exist." if unknown == -2018 else None
        return next(matching, None) or refuse(unknown, text)

    def open(self, call: Call) -> Any:
        """Show the lists that still do something."""
        return [self.shown(each) for each in self.venue.state.lists.values() if not each.is_done]

    def all(self, call: Call) -> Any:
        """Show all lists."""
        return [self.shown(each) for each in self.venue.state.lists.values()]

    def cancel(self, call: Call) -> Any:
        """Cancel a list."""
        params = Params(call.params, self.venue.core)
        params.instrument()
        record = self._find(params.integer("orderListId"), params.maybe("listClientOrderId"), -2011)
        new_id = params.client_id("newClientOrderId")
        params.done()
        if record.is_done:
            refuse(-2011)
        return self.end(record, new_id or self.venue.new_client_id())

    def end(self, record: ListRecord, cancel_id: str) -> dict[str, Any]:
        """Cancel all that is open of a list, what waits before what it waits for."""
        venue, now = self.venue, self.venue.clock.now()
        orders = [venue.core.orders[each] for each in record.orders]
        ended = [order for order in orders if order.is_open]
        for order in reversed(orders):
            if order.is_open:
                venue.state.notes(order).cancel_id = cancel_id
                name, number = order.request.client_order_id, order.venue_order_id
                venue.tell(
                    venue.core.cancel(order.request.symbol, name, now, venue_order_id=number)
                )
        return self.shown(record) | {
            "orderReports": [self.orders.views.cancelled(order) for order in ended]
        }

    # --- events -----------------------------------------------------------------------------------

    def note_ends(self) -> None:
        """Tell of the lists that have just ended."""
        for record in self.venue.state.lists.values():
            if not record.is_done and all(
                self.venue.core.orders[each].status in _CLOSED for each in record.orders
            ):
                record.is_done = True
                self._tell(record)

    def _tell(self, record: ListRecord) -> None:
        now: datetime = self.venue.clock.now()
        status = "ALL_DONE" if record.is_done else "EXEC_STARTED"
        self.venue.push_private(
            {
                "e": "listStatus",
                "E": ms(now),
                "s": record.symbol,
                "g": record.list_id,
                "c": record.contingency,
                "l": status,
                "L": "ALL_DONE" if record.is_done else "EXECUTING",
                "r": "NONE",
                "C": record.client_id,
                "T": ms(now),
                "O": self._names(record, "s", "i", "c"),
            }
        )


_CLOSED: Final = tuple(state for state in OrderState if state.is_closed)


def _price(wanted: Wanted) -> Decimal:
    """Return the price at which a leg acts."""
    request = wanted.request
    return request.stop_price or request.limit_price or Decimal(0)

"""Conditional orders on Binance USD-M futures: kept apart, with ids of their own, until their price trades."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest, OrderType, Side, TimeInForce
from execkit.numbers import ZERO
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import missing, refuse
from execkit.testing.venues.binance.futures import (
    CONDITIONAL,
    DONE_ALL,
    FuturesOrders,
    check_numbers,
)
from execkit.testing.venues.binance.futures_views import average
from execkit.testing.venues.binance.params import Params
from execkit.testing.venues.binance.words import Algo, ms, short
from execkit.testing.venues.calls import Call, Handler, Refusal

_LIMITS = ("STOP", "TAKE_PROFIT")


class FuturesAlgos:
    """The part of the venue that keeps conditional orders."""

    def __init__(self, venue: BinanceBase, orders: FuturesOrders) -> None:
        self.venue = venue
        self.orders = orders

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about conditional orders."""
        path = "/fapi/v1/algoOrder"
        yield "POST", path, "place", self.place
        yield "GET", path, "get", self.get
        yield "DELETE", path, "cancel", self.cancel
        yield "GET", "/fapi/v1/openAlgoOrders", "open", self.open
        yield "GET", "/fapi/v1/allAlgoOrders", "orders", self.all
        yield "DELETE", "/fapi/v1/algoOpenOrders", "cancel_all", self.cancel_all

    # --- placing ----------------------------------------------------------------------------------

    def place(self, call: Call) -> Any:
        """Take one conditional order; neither margin nor position is looked at before it triggers."""
        venue, now = self.venue, self.venue.clock.now()
        params = Params(call.params, venue.core)
        params.word("algoType", ("CONDITIONAL",), -1116)
        instrument, side = params.instrument(), params.side()
        self.orders.check_side(params)
        word = params.word("type", CONDITIONAL, -1116)
        trigger, price = params.number("triggerPrice"), params.number("price")
        rate, activation = params.number("callbackRate"), params.number("activatePrice")
        closes = params.flag("closePosition")
        quantity = ZERO if closes else params.number("quantity")
        if quantity is None:
            missing("quantity")
        is_trailing = word == "TRAILING_STOP_MARKET"
        if is_trailing and (rate is None or not Decimal("0.1") <= rate <= 10):
            refuse(-2007, "Invalid callBack rate.")
        if not is_trailing and trigger is None:
            missing("triggerPrice")
        if word in _LIMITS and price is None:
            missing("price")
        if not closes:
            check_numbers(instrument, quantity, price=price, triggerPrice=trigger)
            self._check_filters(instrument, quantity, trigger, price)
        client_id = params.client_id("clientAlgoId") or venue.new_client_id()
        tif = params.word("timeInForce", ("GTC", "IOC", "FOK", "GTX"), -1115, "GTC")
        params.ignore(
            *("workingType", "priceProtect", "priceMatch"),
            *("selfTradePreventionMode", "goodTillDate", "newOrderRespType"),
        )
        reduce_only = params.flag("reduceOnly") or closes
        params.done()
        algos = venue.state.algos
        if any(each.client_id == client_id and each.status == "NEW" for each in algos.values()):
            refuse(-4116)
        algo = Algo(
            algo_id=len(algos) + 1,
            client_id=client_id,
            word=word,
            symbol=instrument.symbol,
            is_buy=side is Side.BUY,
            quantity=quantity,
            trigger=trigger,
            price=price,
            time_in_force=tif,
            reduce_only=reduce_only,
            closes_position=closes,
            callback_rate=rate,
            activation=activation,
            created_at=now,
            updated_at=now,
        )
        last = self._last(instrument.symbol)
        if not is_trailing and last is not None and algo.is_hit(last):
            refuse(-2021)
        algos[algo.algo_id] = algo
        venue.took(client_id)
        self._tell(algo)
        return self.shown(algo)

    def _check_filters(
        self, instrument: Instrument, quantity: Decimal, *prices: Decimal | None
    ) -> None:
        if not instrument.on_lot(quantity):
            refuse(-4023)
        if instrument.max_quantity is not None and quantity > instrument.max_quantity:
            refuse(-4005)
        if any(price is not None and not instrument.on_tick(price) for price in prices):
            refuse(-4014)

    def _last(self, symbol: str) -> Decimal | None:
        book = self.venue.core.books.get(symbol)
        return None if book is None else book.last or self.venue.core.quote(symbol).mid

    # --- triggering -------------------------------------------------------------------------------

    def on_price(self, symbol: str) -> None:
        """Trigger what the last price of a symbol has reached."""
        last = self._last(symbol)
        tick = self.venue.core.instrument(symbol).tick_size
        for algo in list(self.venue.state.algos.values()):
            if algo.symbol == symbol and algo.status == "NEW" and last is not None:
                algo.follow(last, tick)
                if algo.is_hit(last):
                    self._trigger(algo)

    def _trigger(self, algo: Algo) -> None:
        """Turn a conditional order into an order, which gets an id of its own."""
        venue = self.venue
        algo.triggered_at = venue.clock.now()
        self._become(algo, "TRIGGERING")
        side = Side.BUY if algo.is_buy else Side.SELL
        quantity = algo.quantity
        if algo.closes_position:
            quantity = venue.core.account.closable(algo.symbol, side)
        is_limit = algo.word in _LIMITS
        tif = algo.time_in_force
        request = OrderRequest(
            client_order_id=algo.client_id,
            symbol=algo.symbol,
            side=side,
            type=OrderType.LIMIT if is_limit else OrderType.MARKET,
            quantity=quantity,
            limit_price=algo.price if is_limit else None,
            time_in_force=TimeInForce.GTC
            if tif == "GTX" or not is_limit
            else TimeInForce(tif.lower()),
            post_only=tif == "GTX" and is_limit,
            reduce_only=algo.reduce_only,
        )
        algo.order_id = str(len(venue.core.orders) + 1)
        try:
            self.orders.enter(request, "LIMIT" if is_limit else "MARKET", tif)
        except Refusal as refusal:
            algo.order_id, algo.reason = "", str(refusal.payload["msg"])
            self._become(algo, "REJECTED")
            return
        # The venue took one order by the client's wish, although it counts it twice.
        venue.accepts.pop()
        if algo.status == "TRIGGERING":
            self._become(algo, "TRIGGERED")
        self.note_ends()

    def note_ends(self) -> None:
        """Finish the conditional orders whose order has ended."""
        for algo in self.venue.state.algos.values():
            if algo.status == "TRIGGERED" and not self.venue.core.orders[algo.order_id].is_open:
                self._become(algo, "FINISHED")

    def _become(self, algo: Algo, status: str) -> None:
        algo.status, algo.updated_at = status, self.venue.clock.now()
        self._tell(algo)

    # --- looking up and ending --------------------------------------------------------------------

    def _find(self, params: Params, unknown: int) -> Algo:
        number, client_id = params.integer("algoId"), params.maybe("clientAlgoId")
        if number is None and client_id is None:
            missing("algoId")
        found = [
            algo
            for algo in self.venue.state.algos.values()
            if algo.algo_id == number or (number is None and algo.client_id == client_id)
        ]
        # The newest, because an id may come again after its order has ended.
        return found[-1] if found else refuse(unknown)

    def get(self, call: Call) -> Any:
        """Show one conditional order."""
        params = Params(call.params, self.venue.core)
        algo = self._find(params, -2013)
        params.ignore("symbol")
        params.done()
        return self.shown(algo)

    def cancel(self, call: Call) -> Any:
        """Cancel one that has not triggered."""
        params = Params(call.params, self.venue.core)
        algo = self._find(params, -2011)
        params.ignore("symbol")
        params.done()
        if algo.status != "NEW":
            refuse(-2011)
        self._become(algo, "CANCELED")
        return {
            "algoId": algo.algo_id,
            "clientAlgoId": algo.client_id,
            "code": "200",
            "msg": "success",
        }

    def open(self, call: Call) -> Any:
        """Show those that have not triggered."""
        return self._listed(call, only_open=True)

    def all(self, call: Call) -> Any:
        """Show all of a symbol."""
        return self._listed(call, only_open=False)

    def _listed(self, call: Call, *, only_open: bool) -> list[dict[str, Any]]:
        params = Params(call.params, self.venue.core)
        symbol = params.instrument().symbol if "symbol" in params else None
        return [
            self.shown(algo)
            for algo in self.venue.state.algos.values()
            if symbol in (None, algo.symbol) and (algo.status == "NEW" or not only_open)
        ]

    def cancel_all(self, call: Call) -> Any:
        """Cancel all of a symbol that have not triggered."""
        symbol = Params(call.params, self.venue.core).instrument().symbol
        for algo in self.venue.state.algos.values():
            if algo.symbol == symbol and algo.status == "NEW":
                self._become(algo, "CANCELED")
        return DONE_ALL

    def shown(self, algo: Algo) -> dict[str, Any]:
        """Return a conditional order as all answers have it."""
        order = self._order(algo)
        return {
            "algoId": algo.algo_id,
            "clientAlgoId": algo.client_id,
            "algoType": "CONDITIONAL",
            "orderType": algo.word,
            "symbol": self.venue.symbol_of(algo.symbol),
            "side": "BUY" if algo.is_buy else "SELL",
            "positionSide": "BOTH",
            "timeInForce": algo.time_in_force,
            "quantity": short(algo.quantity),
            "algoStatus": algo.status,
            "actualOrderId": algo.order_id,
            "actualPrice": "0" if order is None else average(order),
            "triggerPrice": short(algo.trigger),
            "price": short(algo.price),
            "icebergQuantity": None,
            "selfTradePreventionMode": "EXPIRE_MAKER",
            "workingType": "CONTRACT_PRICE",
            "priceMatch": "NONE",
            "closePosition": algo.closes_position,
            "priceProtect": False,
            "reduceOnly": algo.reduce_only,
            "activatePrice": short(algo.activation),
            "callbackRate": short(algo.callback_rate),
            "createTime": ms(algo.created_at),
            "updateTime": ms(algo.updated_at),
            "triggerTime": ms(algo.triggered_at) if algo.triggered_at else 0,
            "goodTillDate": 0,
        }

    def _order(self, algo: Algo) -> VenueOrder | None:
        return self.venue.core.orders.get(algo.order_id)

    def _tell(self, algo: Algo) -> None:
        order, now = self._order(algo), ms(self.venue.clock.now())
        filled = ZERO if order is None else order.filled
        self.venue.push_private(
            {
                "e": "ALGO_UPDATE",
                "T": now,
                "E": now,
                "o": {
                    "caid": algo.client_id,
                    "aid": algo.algo_id,
                    "at": "CONDITIONAL",
                    "o": algo.word,
                    "s": self.venue.symbol_of(algo.symbol),
                    "S": "BUY" if algo.is_buy else "SELL",
                    "ps": "BOTH",
                    "f": algo.time_in_force,
                    "q": short(algo.quantity),
                    "X": algo.status,
                    "ai": algo.order_id,
                    "ap": "0.00000" if order is None else average(order),
                    "aq": short(filled),
                    "act": "0",
                    "tp": short(algo.trigger),
                    "p": short(algo.price),
                    "V": "EXPIRE_MAKER",
                    "wt": "CONTRACT_PRICE",
                    "pm": "NONE",
                    "cp": algo.closes_position,
                    "pP": False,
                    "R": algo.reduce_only,
                    "tt": ms(algo.triggered_at) if algo.triggered_at else 0,
                    "gtd": 0,
                    "rm": algo.reason,
                },
            }
        )
        self.venue.note_change()

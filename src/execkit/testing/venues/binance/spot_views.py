"""How Binance spot shows orders and executions in its answers."""

from __future__ import annotations

from typing import Any

from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import Fill, OrderState, Side
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.words import eight, ms, status_word


class SpotViews:
    """Turns orders into the JSON of each kind of answer."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue

    def answer(self, order: VenueOrder, kind: str) -> dict[str, Any]:
        """Return the answer to a new order: ACK, RESULT or FULL."""
        request, notes = order.request, self.venue.state.notes(order)
        head: dict[str, Any] = {
            "symbol": self.venue.symbol_of(request.symbol),
            "orderId": int(order.venue_order_id),
            "orderListId": notes.list_id,
            "clientOrderId": request.client_order_id,
            "transactTime": ms(order.updated_at),
        }
        if kind == "ACK":
            return head
        head |= self.terms(order)
        if kind == "FULL":
            fills = self.venue.core.fills_of[order.venue_order_id]
            head["fills"] = [self._fill(fill) for fill in fills]
        return head

    @staticmethod
    def _fill(fill: Fill) -> dict[str, Any]:
        return {
            "price": eight(fill.price),
            "qty": eight(fill.quantity),
            "commission": eight(fill.fee),
            "commissionAsset": fill.fee_asset,
            "tradeId": int(fill.trade_id),
        }

    def terms(self, order: VenueOrder) -> dict[str, Any]:
        """Return the terms and the state of an order, as all answers have them."""
        request, notes = order.request, self.venue.state.notes(order)
        terms: dict[str, Any] = {
            "price": eight(request.limit_price),
            "origQty": eight(request.quantity),
            "executedQty": eight(order.filled),
            "origQuoteOrderQty": eight(notes.quote_quantity),
            "cummulativeQuoteQty": eight(order.notional),
            "status": status_word(order, notes),
            "timeInForce": notes.time_in_force,
            "type": notes.word,
            "side": request.side.value.upper(),
            "workingTime": -1 if is_waiting(order) else ms(order.since),
            "selfTradePreventionMode": "NONE",
        }
        if request.stop_price is not None:
            terms["stopPrice"] = eight(request.stop_price)
        if notes.trailing_delta is not None:
            terms["trailingDelta"] = notes.trailing_delta
        return terms

    def shown(self, order: VenueOrder) -> dict[str, Any]:
        """Return an order as look-ups show it."""
        request, notes = order.request, self.venue.state.notes(order)
        return {
            "symbol": self.venue.symbol_of(request.symbol),
            "orderId": int(order.venue_order_id),
            "orderListId": notes.list_id,
            "clientOrderId": request.client_order_id,
            **self.terms(order),
            "stopPrice": eight(request.stop_price),
            "icebergQty": eight(None),
            "time": ms(notes.created_at),
            "updateTime": ms(order.updated_at),
            "isWorking": order.is_open and not order.waits_for_stop,
        }

    def trade(self, fill: Fill) -> dict[str, Any]:
        """Return an execution as a list of them shows it."""
        order = self.venue.core.orders[fill.venue_order_id]
        return {
            "symbol": self.venue.symbol_of(fill.symbol),
            "id": int(fill.trade_id),
            "orderId": int(fill.venue_order_id),
            "orderListId": self.venue.state.notes(order).list_id,
            "price": eight(fill.price),
            "qty": eight(fill.quantity),
            "quoteQty": eight(fill.notional),
            "commission": eight(fill.fee),
            "commissionAsset": fill.fee_asset,
            "time": ms(fill.at),
            "isBuyer": fill.side is Side.BUY,
            "isMaker": bool(fill.maker),
            "isBestMatch": True,
        }

    def cancelled(self, order: VenueOrder) -> dict[str, Any]:
        """Return an order as the answer to its cancel shows it: under the id of the cancel."""
        notes = self.venue.state.notes(order)
        return {
            "symbol": self.venue.symbol_of(order.request.symbol),
            "origClientOrderId": order.request.client_order_id,
            "orderId": int(order.venue_order_id),
            "orderListId": notes.list_id,
            "clientOrderId": notes.cancel_id,
            "transactTime": ms(order.updated_at),
            **self.terms(order),
        }


def is_waiting(order: VenueOrder) -> bool:
    """Tell whether an order stands outside of the book, for its price or for another order."""
    return order.waits_for_stop or order.status is OrderState.HELD

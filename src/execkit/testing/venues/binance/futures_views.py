"""How Binance USD-M futures show orders and executions in their answers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import Fill, Side
from execkit.numbers import MONEY
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.words import ms, short, status_word


class FuturesViews:
    """Turns orders into the JSON of the answers."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue

    def shown(self, order: VenueOrder) -> dict[str, Any]:
        """Return an order as all answers have it."""
        request, notes = order.request, self.venue.state.notes(order)
        return {
            "orderId": int(order.venue_order_id),
            "symbol": self.venue.symbol_of(request.symbol),
            "status": status_word(order, notes),
            "clientOrderId": request.client_order_id,
            "price": short(request.limit_price),
            "avgPrice": average(order),
            "origQty": short(request.quantity),
            "executedQty": short(order.filled),
            "cumQty": short(order.filled),
            "cumQuote": short(order.notional),
            "timeInForce": notes.time_in_force,
            "type": notes.word,
            "origType": notes.word,
            "reduceOnly": request.reduce_only,
            "closePosition": False,
            "side": request.side.value.upper(),
            "positionSide": "BOTH",
            "stopPrice": short(request.stop_price),
            "workingType": "CONTRACT_PRICE",
            "priceProtect": False,
            "priceMatch": "NONE",
            "selfTradePreventionMode": "NONE",
            "goodTillDate": ms(request.expire_at) if request.expire_at else 0,
            "time": ms(notes.created_at),
            "updateTime": ms(order.updated_at),
        }

    def trade(self, fill: Fill) -> dict[str, Any]:
        """Return an execution as a list of them shows it."""
        return {
            "symbol": self.venue.symbol_of(fill.symbol),
            "id": int(fill.trade_id),
            "orderId": int(fill.venue_order_id),
            "side": fill.side.value.upper(),
            "price": short(fill.price),
            "qty": short(fill.quantity),
            "realizedPnl": "0",
            "quoteQty": short(fill.notional),
            "commission": short(fill.fee),
            "commissionAsset": fill.fee_asset,
            "time": ms(fill.at),
            "positionSide": "BOTH",
            "buyer": fill.side is Side.BUY,
            "maker": bool(fill.maker),
        }


def average(order: VenueOrder) -> str:
    """Return the average price of what was executed, to eight places."""
    if not order.filled:
        return "0.00"
    mean = MONEY.divide(order.notional, order.filled)
    return short(mean.quantize(Decimal("1e-8"), context=MONEY))

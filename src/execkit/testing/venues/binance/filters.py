"""Binance's filters that are not in every venue: percent price, notional of a symbol, numbers of orders."""

from __future__ import annotations

from typing import Final

from execkit.exchanges import fills
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import filtered, refuse
from execkit.testing.venues.binance.spot_reading import Wanted

CONDITIONAL: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)


def check_spot_filters(venue: BinanceBase, wanted: Wanted, *, trigger: bool) -> None:
    """Refuse an order for a filter; with *trigger* also because its stop has traded already."""
    request = wanted.request
    check_percent_price(venue, request)
    if wanted.trailing_delta is not None and not 10 <= wanted.trailing_delta <= 2000:
        filtered("TRAILING_DELTA")
    waiting = list(venue.core.in_line(request.symbol))
    if len(waiting) >= venue.rules.max_orders:
        filtered("MAX_NUM_ORDERS")
    if request.type in CONDITIONAL:
        conditional = sum(order.request.type in CONDITIONAL for order in waiting)
        if conditional >= venue.rules.max_conditional:
            filtered("MAX_NUM_ALGO_ORDERS")
        if trigger and would_trigger(venue, wanted):
            refuse(-2010, "Order would trigger immediately.")


def check_percent_price(venue: BinanceBase, request: OrderRequest) -> None:
    """Refuse a price too far from the market, by side."""
    book = venue.core.books.get(request.symbol)
    if book is None:
        return
    average = book.last or fills.touch(
        book, venue.core.costs(request.symbol), is_buy=request.side is Side.BUY
    )
    rules = venue.rules
    up, down = (
        (rules.bid_up, rules.bid_down)
        if request.side is Side.BUY
        else (rules.ask_up, rules.ask_down)
    )
    for price in (request.limit_price, request.stop_price):
        if price is not None and not average * down <= price <= average * up:
            filtered("PERCENT_PRICE_BY_SIDE")


def would_trigger(venue: BinanceBase, wanted: Wanted) -> bool:
    """Tell whether the stop price of a new order has been reached already."""
    request, now = wanted.request, venue.clock.now()
    book = venue.core.books.get(request.symbol)
    if book is None or request.stop_price is None:
        return False
    probe = VenueOrder(
        request=request,
        venue_order_id="",
        since=now,
        updated_at=now,
        stop_above=wanted.stop_above,
    )
    return fills.stop_is_hit(probe, book, venue.core.costs(request.symbol))

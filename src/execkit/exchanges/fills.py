"""At which price a simulated venue executes an order, by quote, by trade and by bar.

Each function looks at one order and one price; all that it may change is the level of a trailing stop. The rules are on
the careful side: whatever a bar does not prove in our favour goes against the order.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.instrument import Instrument
from execkit.model.market import BarData
from execkit.model.order import OrderType, Side
from execkit.numbers import ZERO, round_down, round_up

BAR_SHARE: Final = Decimal("0.1")
"""Share of a bar's volume that all our orders together may take."""

_HALF_BPS: Final = Decimal(20_000)


class Match(NamedTuple):
    """A price at which an order can be executed."""

    price: Decimal
    maker: bool


class Book(msgspec.Struct):
    """Last known prices of one symbol; *bid* and *ask* are None where only a last price is known."""

    last: Decimal | None
    at: datetime | None
    """Up to when prices have been matched; None for a price that was only set."""
    live: bool = True
    """False after a bar: its prices are over, so nothing can be executed before the next input."""
    bid: Decimal | None = None
    ask: Decimal | None = None
    bid_size: Decimal | None = None
    """None: as much as one likes."""
    ask_size: Decimal | None = None

    def size(self, *, is_buy: bool) -> Decimal | None:
        """Return what an order of that side can still take at the touch."""
        return self.ask_size if is_buy else self.bid_size

    def take(self, quantity: Decimal, *, is_buy: bool) -> None:
        """Remove what was executed from the touch."""
        if is_buy and self.ask_size is not None:
            self.ask_size -= quantity
        elif not is_buy and self.bid_size is not None:
            self.bid_size -= quantity


class Costs(NamedTuple):
    """What turns a traded price into the price a taker pays."""

    spread_bps: Decimal
    tick_size: Decimal

    def worse(self, price: Decimal, *, is_buy: bool) -> Decimal:
        """Return *price* half the spread to the disadvantage of the order, rounded the same way."""
        if not self.spread_bps:
            return price
        half = price * self.spread_bps / _HALF_BPS
        if is_buy:
            return round_up(price + half, self.tick_size)
        return max(round_down(price - half, self.tick_size), self.tick_size)


def touch(book: Book, costs: Costs, *, is_buy: bool) -> Decimal:
    """Return the price at which a market order of that side would be executed now."""
    quoted = book.ask if is_buy else book.bid
    if quoted is not None:
        return quoted
    assert book.last is not None, "a book has a last price or a quote"
    return costs.worse(book.last, is_buy=is_buy)


def stop_is_hit(order: VenueOrder, book: Book, costs: Costs) -> bool:
    """Tell whether the stop triggers: on the last price, or on the touch where the quote has no last."""
    price = touch(book, costs, is_buy=order.is_buy) if book.last is None else book.last
    order.follow(price, costs.tick_size)
    return reaches_stop(order, price)


def reached_within(order: VenueOrder, bar: BarData, costs: Costs) -> bool:
    """Tell whether the stop triggers inside a bar; a trailing one moves with it.

    Nobody knows what came first, so the far end is taken to come before the best price; what is proven beyond that is
    only that the close came last.
    """
    if reaches_stop(order, bar.high if order.triggers_above else bar.low):
        return True
    if order.request.type is not OrderType.TRAILING_STOP:
        return False
    order.follow(bar.low if order.is_buy else bar.high, costs.tick_size)
    return reaches_stop(order, bar.close)


def reaches_stop(order: VenueOrder, price: Decimal) -> bool:
    """Tell whether a traded price triggers the stop: a buy at or above it, a sell at or below."""
    stop = order.stop
    if stop is None:
        return False
    return price >= stop if order.triggers_above else price <= stop


def at_touch(order: VenueOrder, book: Book, costs: Costs) -> Match | None:
    """Match an order with a live book.

    A new order takes the touch; one that has rested is met at its own limit, however far the quote crosses it.
    """
    price = touch(book, costs, is_buy=order.is_buy)
    if order.limit is None:
        return Match(price, maker=False)
    if not _within_limit(order, price):
        return None
    return Match(order.limit, maker=True) if order.rested else Match(price, maker=False)


def by_trade(order: VenueOrder, price: Decimal) -> Match | None:
    """Match a resting limit with a public trade: only one *through* the limit proves its turn had come."""
    if order.limit is not None and _is_through(order, price):
        return Match(order.limit, maker=True)
    return None


def is_out_of_reach(order: VenueOrder, bar: BarData) -> bool:
    """Tell whether nothing in the bar can touch the order; true of most orders in most bars."""
    far = bar.low if order.is_buy else bar.high
    if order.waits_for_stop:
        if order.request.type is OrderType.TRAILING_STOP:
            return False  # it moves with every bar
        return not reaches_stop(order, bar.high if order.triggers_above else bar.low)
    return order.rested and order.limit is not None and not _is_through(order, far)


def at_open(order: VenueOrder, bar: BarData, costs: Costs) -> Match | None:
    """Match an order, whose stop if any is triggered, with the open of a bar.

    A taker pays half the spread; a limit that rested before is met at the open when that gaps through it.
    """
    if order.limit is not None and (order.rested or order.request.post_only):
        return Match(bar.open, maker=True) if _is_through(order, bar.open) else None
    price = costs.worse(bar.open, is_buy=order.is_buy)
    return Match(price, maker=False) if _within_limit(order, price) else None


def within(order: VenueOrder, bar: BarData) -> Match | None:
    """Match a limit with what a bar traded after its open: at the limit, and only when traded through."""
    if order.limit is None or not _is_through(order, bar.low if order.is_buy else bar.high):
        return None
    return Match(order.limit, maker=True)


def at_stop(order: VenueOrder, costs: Costs) -> Match | None:
    """Match an order whose stop was just hit inside a bar: at the stop, half the spread worse.

    A stop-limit whose limit does not allow that waits for the next bar, because nobody knows what this one
    traded after the stop.
    """
    stop = order.stop
    assert stop is not None, "only stop orders are asked"
    price = costs.worse(stop, is_buy=order.is_buy)
    return Match(price, maker=False) if _within_limit(order, price) else None


def crosses(side: Side, limit: Decimal, book: Book, costs: Costs) -> bool:
    """Tell whether a limit order of that side would be executed at once."""
    price = touch(book, costs, is_buy=side is Side.BUY)
    return price <= limit if side is Side.BUY else price >= limit


def bar_budget(bar: BarData, instrument: Instrument) -> Decimal:
    """Return the quantity that all our orders together may take of a bar, in whole lots."""
    return round_down(bar.volume * BAR_SHARE, instrument.lot_size) if bar.volume else ZERO


def _within_limit(order: VenueOrder, price: Decimal) -> bool:
    limit = order.limit
    return limit is None or (price <= limit if order.is_buy else price >= limit)


def _is_through(order: VenueOrder, price: Decimal) -> bool:
    limit = order.limit
    assert limit is not None, "only limit orders are asked"
    return price < limit if order.is_buy else price > limit

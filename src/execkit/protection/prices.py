"""What prices say of a position: on the side on which it would be closed, and only since its levels were set. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from execkit.model.position import Position
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder


class Touch(NamedTuple):
    """The best prices of a market: what a seller gets, and what a buyer pays."""

    bid: Decimal
    ask: Decimal

    @classmethod
    def of(cls, book: Book, symbol: str) -> Touch | None:
        """Return the last one that was seen; both sides are the last price where a bar has told it since the quote."""
        mark, seen = book.mark(symbol), book.quotes.get(symbol)
        if mark is None:
            return None
        if seen is None or seen[1] != mark:
            return cls(mark, mark)
        quote, _ = seen
        return cls(quote.bid, quote.ask)

    def near(self, position: Position) -> Decimal:
        """Return the price at which a position would be closed."""
        return self.bid if position.is_long else self.ask

    def far(self, position: Position) -> Decimal:
        """Return the price of the other side: where it is beyond a level, all of the market is."""
        return self.ask if position.is_long else self.bid


class Range(NamedTuple):
    """Where a price was *since* a time, and where it is: *last*. Without *since* it is there now and nowhere else."""

    low: Decimal
    high: Decimal
    last: Decimal
    since: datetime | None = None

    def best(self, position: Position) -> Decimal:
        """Return the best price for a position that is known to come after its target was set."""
        if not self._is_after(position, position.target_since):
            return self.last
        return self.high if position.is_long else self.low

    def reaches_stop(self, position: Position) -> bool:
        """Tell whether the price has come to a stop that was in force then.

        When a range holds the moment at which the stop was set, its extremes may be from before. They count as far as
        they are beyond the earlier one too: whenever that was, one of the two was in force.
        """
        stop = position.stop_loss
        if stop is None or is_through(position, stop, self.last):
            return stop is not None
        if not self._is_after(position, None):
            return False
        if not self._is_after(position, position.stop_since):
            earlier = position.earlier_stop
            if earlier is None or not self._is_after(position, position.earlier_stop_since):
                return False
            stop = min(stop, earlier) if position.is_long else max(stop, earlier)
        return is_through(position, stop, self.low if position.is_long else self.high)

    def _is_after(self, position: Position, at: datetime | None) -> bool:
        """Tell whether the range began after the position, and after *at*."""
        if self.since is None:
            return True
        return self.since >= position.opened_at and (at is None or self.since >= at)


def is_through(position: Position, trigger: Decimal, price: Decimal) -> bool:
    """Tell whether a price has passed a stop, so that a venue would refuse it."""
    return price <= trigger if position.is_long else price >= trigger


def is_left_behind(position: Position, stop: ManagedOrder, touch: Touch) -> bool:
    """Tell whether the price has passed the limit of a stop-limit, so that it rests where nobody trades.

    Then the order itself is the best on its side, or others are better: the far side is not short of its limit. In a
    wide market whose near side alone is beyond it the order has not triggered.
    """
    limit = stop.limit_price
    if limit is None:
        return False
    if position.is_long:
        return touch.bid < limit and touch.ask <= limit
    return touch.ask > limit and touch.bid >= limit

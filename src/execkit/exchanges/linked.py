"""Orders that depend on each other inside a simulated venue: one ends the others, one lets the others in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from execkit.errors import InsufficientBalanceError
from execkit.exchanges import fills
from execkit.exchanges.matcher import Matcher
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import OrderRequest, OrderState, OrderUpdate, Side
from execkit.numbers import ZERO


class Linked(Matcher):
    """A matcher that knows groups of orders and orders that wait for another one.

    Of a group, the first order that triggers or is executed, however little of it, ends the others. An order that
    waits is HELD and holds no money; it is let in when the other one is executed whole, and ends when that ends.
    """

    def __init__(
        self, balances: Mapping[str, Decimal], *, spread_bps: Decimal, allow_short: bool
    ) -> None:
        super().__init__(balances, spread_bps=spread_bps, allow_short=allow_short)
        self._groups: dict[str, list[VenueOrder]] = {}
        self._waiting: dict[str, list[VenueOrder]] = {}

    def link(self, order: VenueOrder) -> None:
        """Enter an order under its group and under the order that it waits for."""
        if order.group:
            self._groups.setdefault(order.group, []).append(order)
        if order.waits_for:
            self._waiting.setdefault(order.waits_for, []).append(order)

    def before_fill(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """End the others of its group."""
        if not order.group:
            return
        for other in self._others(order):
            self.close(other, OrderState.CANCELLED, "another order of its list came first", at, out)

    def after_done(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """Let in the orders that waited for this one."""
        waiting = self._waiting.pop(order.venue_order_id, [])
        let_in = [each for each in waiting if each.status is OrderState.HELD]
        for each in let_in:
            each.status, each.since, each.updated_at = OrderState.ACCEPTED, at, at
        for each in self.share_hold(let_in):
            self.close(
                each, OrderState.REJECTED, "insufficient balance when it was let in", at, out
            )
        out += [each.report() for each in let_in if each.is_open]
        for each in let_in:
            self.match_live(each, at, out)

    def after_close(self, order: VenueOrder, at: datetime, out: list[OrderUpdate]) -> None:
        """End the orders that waited for this one; of its group, another one holds the money now."""
        for waiting in self._waiting.pop(order.venue_order_id, []):
            if waiting.is_open:
                reason = "the order that it waited for has ended"
                self.close(waiting, OrderState.CANCELLED, reason, at, out)
        if order.group:
            self.share_hold(self._others(order))

    def _others(self, order: VenueOrder) -> list[VenueOrder]:
        """Return the orders of its group that can still be executed."""
        return [
            other
            for other in self._groups.get(order.group, ())
            if other is not order and other.is_working
        ]

    def share_hold(self, orders: Iterable[VenueOrder]) -> list[VenueOrder]:
        """Hold money for orders, in a group only for the most expensive; return those that it is not there for."""
        failed: list[VenueOrder] = []
        held: set[str] = set()
        for order in sorted(orders, key=self.worth, reverse=True):
            if order.group and order.group in held:
                continue
            held.add(order.group)
            try:
                self.hold_for(order)
            except InsufficientBalanceError:
                failed.append(order)
        return failed

    def hold_for(self, order: VenueOrder) -> None:
        """Hold what an order may cost; raise `InsufficientBalanceError`."""
        instrument = self.instruments[order.request.symbol]
        self.account.reserve(order, instrument, self.price_of(order.request) or ZERO)

    def price_of(self, request: OrderRequest) -> Decimal | None:
        """Return the price that values an order, None where there is none yet."""
        book = self.books.get(request.symbol)
        price = request.limit_price or request.stop_price
        if price is None and book is not None:
            price = fills.touch(book, self.costs(request.symbol), is_buy=request.side is Side.BUY)
        return price

    def worth(self, order: VenueOrder) -> Decimal:
        """Return what the rest of an order is worth at that price."""
        return order.remaining * (self.price_of(order.request) or ZERO)

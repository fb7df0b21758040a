"""Corrections of executions that are not known: which execution they take the place of.

A venue may correct a correction, and the one between may have been missed. Counted at once, the last would stand
beside the first, and the order would seem to have executed both. So it waits until what it replaces is known. Where the
venue does not show that one, its list of executions decides: a venue that lists only what stands has replaced what it
lists no more.

An execution that is told of after a correction of its order, and is no newer, may be what was corrected: that
waits for the list too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from execkit.model.order import Fill
from execkit.model.records import Source
from execkit.numbers import ZERO
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder


class Waiting(msgspec.Struct, frozen=True):
    """An execution that waits until it is known whether, and in which place, it counts."""

    fill: Fill
    source: Source
    since: float
    """Moment on the loop, in seconds."""


class Corrections:
    """Those that wait. They are not journalled: after a restart the venue lists them again."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._waiting: dict[str, dict[str, Waiting]] = {}
        """By client order id and trade id."""

    @property
    def orders(self) -> list[ManagedOrder]:
        """Orders with a correction that waits: what is known of their symbols is not complete."""
        known = self._book.orders
        return [known[key] for key in self._waiting if key in known]

    def of(self, order: ManagedOrder) -> list[Waiting]:
        """Return what waits of an order, oldest first."""
        return list(self._waiting.get(order.client_order_id, {}).values())

    def is_clear(self, order: ManagedOrder, fill: Fill) -> bool:
        """Tell whether it is known in which place an execution counts."""
        if fill.replaces is None:
            return not any(_may_correct(trade, fill) for trade in order.trades.values())
        return fill.replaces in order.trades

    def hold(self, order: ManagedOrder, waiting: Waiting) -> None:
        """Keep an execution until its place is known."""
        known = self._book.orders
        self._waiting = {key: rows for key, rows in self._waiting.items() if key in known}
        rows = self._waiting.setdefault(order.client_order_id, {})
        rows.setdefault(waiting.fill.trade_id, waiting)

    def drop(self, order: ManagedOrder, trade_id: str) -> None:
        """Wait for one no more, if it waits."""
        rows = self._waiting.get(order.client_order_id, {})
        rows.pop(trade_id, None)
        if not rows:
            self._waiting.pop(order.client_order_id, None)

    def ready(self, order: ManagedOrder) -> Waiting | None:
        """Return one that waits no more, because its place is known by now."""
        for waiting in self.of(order):
            if self.is_clear(order, waiting.fill):
                self.drop(order, waiting.fill.trade_id)
                return waiting
        return None

    def decide(
        self, order: ManagedOrder, shown: Iterable[Fill], covers: datetime
    ) -> list[tuple[Waiting, Fill]]:
        """Return which of those that wait the venue's list places, and as what each counts.

        *shown* are the order's executions that the venue lists, complete from *covers* on. A correction replaces an
        execution of ours that is listed no more, the most similar one; itself where all are, so that the one it
        corrects was never known. Of a venue that lists also what was replaced, what it replaces is missing from the
        list, so it may be any. A correction that is not listed itself waits on; any other execution that is not is
        the one that was corrected, and nothing of it counts.
        """
        rows = {waiting.fill.trade_id: waiting for waiting in self.of(order)}
        trades = list(order.trades.values())
        listed = {fill.trade_id: fill.replaces for fill in shown}
        if not listed or any(trade.at < covers for trade in trades):
            return []
        accounted: set[str | None] = set()
        for trade_id in listed:
            each: str | None = trade_id
            while each is not None and each not in accounted:
                accounted.add(each)  # with all that it corrects in turn
                each = rows[each].fill.replaces if each in rows else None
        left = [trade for trade in trades if trade.trade_id not in listed]
        if not left and not listed.keys().isdisjoint(listed.values()):
            left = trades
        decided = []
        for waiting in sorted(rows.values(), key=lambda row: (row.fill.at, row.fill.trade_id)):
            fill = waiting.fill
            if fill.replaces is None:
                if any(t.trade_id in listed and _may_correct(t, fill) for t in trades):
                    decided.append((waiting, nothing(fill, fill.trade_id)))
            elif fill.trade_id in accounted and fill.replaces not in rows:
                root = min(left, key=lambda trade: _difference(trade, fill), default=None)
                left = [trade for trade in left if trade is not root]
                named = fill.replaces if root is None else root.trade_id
                decided.append((waiting, replace(fill, replaces=named)))
        return decided


def nothing(fill: Fill, trade_id: str) -> Fill:
    """Return an execution of nothing that has an id: what is heard of it later is no news."""
    return replace(fill, trade_id=trade_id, quantity=ZERO, fee=ZERO, replaces=trade_id)


def is_of(fill: Fill, order: ManagedOrder) -> bool:
    """Tell whether an execution is one of an order, by either id."""
    return fill.client_order_id == order.client_order_id or (
        bool(order.venue_order_id) and fill.venue_order_id == order.venue_order_id
    )


def _may_correct(trade: Fill, fill: Fill) -> bool:
    return trade.replaces is not None and fill.at <= trade.at


def _difference(trade: Fill, fill: Fill) -> tuple[bool, timedelta, str]:
    return (trade.quantity != fill.quantity, abs(trade.at - fill.at), trade.trade_id)

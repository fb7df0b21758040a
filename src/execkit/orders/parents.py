"""Orders that are worked in slices: what each parent has sent and executed, counted from its children."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.order import Side
from execkit.model.position import Position
from execkit.model.records import ParentEnded, ParentOrder
from execkit.numbers import ZERO, plain
from execkit.orders.manager import ManagedOrder

KEEP_ENDED: Final = 100
"""Parents remembered after their end."""

OUTLIVED: Final = "its position is not the open one"


def hold_of(parent_id: str) -> str:
    """Return the id of the reservation that covers all slices of a parent."""
    return f"{parent_id}#slices"


class Parent(msgspec.Struct):
    """One order that is worked in slices."""

    record: ParentOrder
    children: dict[str, tuple[Decimal, Decimal]] = {}
    """By client order id: what was executed, and what may still be."""
    ended: str | None = None
    """Why no more is sent."""
    position_id: str = ""
    """The position that it leaves, or builds or adds to; empty while it has built none."""

    @property
    def filled(self) -> Decimal:
        """What was executed."""
        return sum((filled for filled, _ in self.children.values()), ZERO)

    @property
    def left(self) -> Decimal:
        """What was not executed."""
        return max(self.record.quantity - self.filled, ZERO)

    def committed(self, besides: str = "") -> Decimal:
        """Return what was executed or may still be, without the child *besides*."""
        return sum(
            (filled + live for key, (filled, live) in self.children.items() if key != besides), ZERO
        )

    def is_outlived(self, position: Position | None) -> bool:
        """Tell whether the open *position* of its symbol is not, or no longer, the one that it works on.

        A closed position is not entered again by what is left of its entry, and what was to leave one position takes
        nothing from the next.
        """
        if self.position_id:
            return position is None or position.position_id != self.position_id
        against = position is not None and position.is_long is (self.record.side is Side.SELL)
        return against and not self.record.is_reduction

    def ending(self, reason: str) -> ParentEnded:
        """Return the record that ends it."""
        text = f"{reason}; {plain(self.left)} not executed" if self.left else reason
        return ParentEnded(parent_id=self.record.parent_id, reason=text)


class ParentBook:
    """All parents by their signal id."""

    def __init__(self) -> None:
        self._all: dict[str, Parent] = {}

    @property
    def live(self) -> list[Parent]:
        """Those that still send slices."""
        return [parent for parent in self._all.values() if parent.ended is None]

    def get(self, parent_id: str) -> Parent | None:
        """Return a parent, also for a while after its end."""
        return self._all.get(parent_id)

    def endings(
        self, symbol: str | None, reason: str, *, entries: bool = False
    ) -> list[ParentEnded]:
        """Return the records that end those of one symbol (None: of any), or only its *entries*."""
        return [
            parent.ending(reason)
            for parent in self.live
            if symbol in (None, parent.record.symbol)
            and not (entries and parent.record.is_reduction)
        ]

    def apply(self, record: ParentOrder | ParentEnded, positions: Mapping[str, Position]) -> None:
        """Begin or end a parent; *positions* are the open ones by symbol."""
        if isinstance(record, ParentOrder):
            known = self._all.get(record.parent_id)
            if known is None or (known.ended is not None and not known.children):
                position = positions.get(record.symbol)
                here = "" if position is None else position.position_id
                self._all[record.parent_id] = Parent(record, position_id=record.position_id or here)
            return
        parent = self._all.get(record.parent_id)
        if parent is not None and parent.ended is None:
            parent.ended = record.reason
            ended = [key for key, each in self._all.items() if each.ended is not None]
            for key in ended[:-KEEP_ENDED]:
                del self._all[key]

    def on_order(self, order: ManagedOrder, positions: Mapping[str, Position]) -> None:
        """Take in a child that is new or has changed, and the position that it has made."""
        parent = self._all.get(order.intent.slice_of or "")
        if parent is None:
            return
        parent.children[order.client_order_id] = (order.filled, order.exposure_quantity)
        position = positions.get(order.symbol)
        if order.filled and not parent.position_id and position is not None:
            parent.position_id = position.position_id

    def export(self) -> list[Parent]:
        """Return everything, for a snapshot."""
        return list(self._all.values())

    def restore(self, parents: list[Parent]) -> None:
        """Take back what `export` gave."""
        self._all = {parent.record.parent_id: parent for parent in parents}

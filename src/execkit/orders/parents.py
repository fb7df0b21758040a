"""Orders that are worked in slices: what each parent has sent and executed, counted from its children."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.records import ParentEnded, ParentOrder
from execkit.numbers import ZERO
from execkit.orders.manager import ManagedOrder

KEEP_ENDED: Final = 100
"""Parents remembered after their end."""


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

    @property
    def filled(self) -> Decimal:
        """What was executed."""
        return sum((filled for filled, _ in self.children.values()), ZERO)

    def committed(self, besides: str = "") -> Decimal:
        """Return what was executed or may still be, without the child *besides*."""
        return sum(
            (filled + live for key, (filled, live) in self.children.items() if key != besides), ZERO
        )


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

    def apply(self, record: ParentOrder | ParentEnded) -> None:
        """Begin or end a parent."""
        if isinstance(record, ParentOrder):
            known = self._all.get(record.parent_id)
            if known is None or (known.ended is not None and not known.children):
                self._all[record.parent_id] = Parent(record)
            return
        parent = self._all.get(record.parent_id)
        if parent is not None and parent.ended is None:
            parent.ended = record.reason
            ended = [key for key, each in self._all.items() if each.ended is not None]
            for key in ended[:-KEEP_ENDED]:
                del self._all[key]

    def on_order(self, order: ManagedOrder) -> None:
        """Take in a child that is new or has changed."""
        parent = self._all.get(order.intent.slice_of or "")
        if parent is not None:
            parent.children[order.client_order_id] = (order.filled, order.exposure_quantity)

    def export(self) -> list[Parent]:
        """Return everything, for a snapshot."""
        return list(self._all.values())

    def restore(self, parents: list[Parent]) -> None:
        """Take back what `export` gave."""
        self._all = {parent.record.parent_id: parent for parent in parents}

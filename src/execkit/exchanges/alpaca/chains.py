"""Under which names an order is known, although Alpaca gives it a new id with each change.

An order keeps the client order id and the venue id of its first version for as long as it lives; what came after is
linked to it. The legs of a list get client order ids of Alpaca's own making, so ours are remembered for them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final

import attrs
import msgspec

from execkit.exchanges.alpaca.decode import REPLACED, OrderRow
from execkit.ids import is_ours
from execkit.model.order import Fill, OrderReport, OrderState

REMEMBERED: Final = 20_000
_MARK: Final = "-r"
_NAMES: Final = re.compile(
    r"(?P<root>xk[0-9a-z]+)(-s(?P<stop>xk[0-9a-z]+))?(-t(?P<target>xk[0-9a-z]+))?(-r\d+)?", re.ASCII
)


@attrs.frozen
class Name:
    """How an order is known: the ids of its first version."""

    client_order_id: str
    venue_order_id: str


@attrs.frozen
class ListRecord:
    """A list of ours: the order that Alpaca lets us name, and the legs that it names itself.

    The name holds the names of the legs, so that they can be told by whoever sees the list, also after a restart.
    """

    root: str
    """Client order id of the order that goes out by itself."""
    stop: str | None
    target: str | None

    @property
    def wire_id(self) -> str:
        """The client order id of the list at Alpaca; it has room for 128 characters."""
        parts = [self.root]
        if self.stop is not None and self.stop != self.root:
            parts.append(f"s{self.stop}")
        if self.target is not None and self.target != self.root:
            parts.append(f"t{self.target}")
        return "-".join(parts)

    @property
    def ids(self) -> tuple[str, ...]:
        """Our ids of all orders in it."""
        return tuple(dict.fromkeys(i for i in (self.root, self.stop, self.target) if i is not None))

    @classmethod
    def of(cls, wire_id: str) -> ListRecord | None:
        """Return the list that a client order id names, or None where it is that of one order."""
        match = _NAMES.fullmatch(wire_id)
        if match is None or not (match["stop"] or match["target"]):
            return None
        return cls(match["root"], match["stop"], match["target"])


def root_of(wire_id: str) -> str:
    """Return our id of an order from the client order id that Alpaca has for it."""
    match = _NAMES.fullmatch(wire_id)
    return wire_id if match is None else match["root"]


def next_client_id(client_id: str) -> str:
    """Return the client order id of the next version: every version needs one that was never used."""
    root, mark, number = client_id.rpartition(_MARK)
    if mark and number.isascii() and number.isdigit():
        return f"{root}{_MARK}{int(number) + 1}"
    return f"{client_id}{_MARK}1"


def _number_of(client_id: str) -> int:
    _, mark, number = client_id.rpartition(_MARK)
    return int(number) if mark and number.isascii() and number.isdigit() else 0


def named(fill: Fill, name: Name) -> Fill:
    """Return an execution under the ids by which its order is known."""
    return msgspec.structs.replace(
        fill, client_order_id=name.client_order_id, venue_order_id=name.venue_order_id
    )


class Chains:
    """Which version belongs to which order, as far as this process has seen."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, Name] = OrderedDict()
        """By the venue id of a version."""
        self._newest: dict[str, str] = {}
        """Venue id of the newest version, by that of the first."""
        self._last: dict[str, OrderReport] = {}
        """The last report of an order, by the venue id of the first version."""
        self._client_ids: dict[str, str] = {}
        """Client order id of the version with the highest number, by the venue id of the first."""

    def name_of(self, row: OrderRow) -> Name | None:
        """Return how a version's order is known; None when it replaces one that was never seen."""
        found = self._names.get(row.order_id)
        if found is not None:
            return found
        if row.replaces is None:
            return Name(root_of(row.client_id), row.order_id)
        return self._names.get(row.replaces)

    def known(self, venue_order_id: str) -> Name | None:
        """Return how an order is known by the venue id of one of its versions."""
        return self._names.get(venue_order_id)

    def newest(self, venue_order_id: str) -> str:
        """Return the venue id under which an order lives now, as far as is known."""
        return self._newest.get(venue_order_id, venue_order_id)

    def next_client_id(self, venue_order_id: str) -> str:
        """Return the client order id for the next version of an order whose newest was just read.

        None is given twice: that of a change which the venue refused, or may have taken, is used up as well.
        """
        made = self._client_ids[venue_order_id] = next_client_id(self._client_ids[venue_order_id])
        return made

    def last(self, venue_order_id: str) -> OrderReport | None:
        """Return the last report of an order."""
        return self._last.get(venue_order_id)

    def alias(self, venue_order_id: str, client_order_id: str) -> None:
        """Remember our id of an order that Alpaca knows by an id of its own making."""
        known = self._names.get(venue_order_id)
        if known is not None and is_ours(known.client_order_id):
            return
        # The stream may have told of it already, under Alpaca's id.
        root = venue_order_id if known is None else known.venue_order_id
        self._keep(venue_order_id, Name(client_order_id, root))
        last = self._last.get(root)
        if last is not None:
            self._last[root] = msgspec.structs.replace(last, client_order_id=client_order_id)

    def take(self, row: OrderRow, name: Name) -> OrderReport | None:
        """Remember a version; return its report, or None for one that has been replaced, or did not come to be."""
        root = name.venue_order_id
        self._keep(row.order_id, name)
        self._use_up(root, row.client_id)
        if row.is_refused_change:
            if self._newest.get(root) == row.order_id and row.replaces is not None:
                self._newest[root] = row.replaces
            return None
        if row.raw_status == REPLACED:
            if self._gave_way(row, root):
                ended = row.as_order(name.client_order_id, root)
                ended = msgspec.structs.replace(ended, status=OrderState.CANCELLED)
                self._last[root] = ended
                return ended
            if row.replaced_by is not None:
                self._keep(row.replaced_by, name)
                self._newest[root] = row.replaced_by
            return None
        self._newest.setdefault(root, row.order_id)
        if row.replaces is not None and self._newest[root] == row.replaces:
            self._newest[root] = row.order_id
        report = row.as_order(name.client_order_id, root)
        before = self._last.get(root)
        if before is not None and before.filled > report.filled and row.order_id != root:
            # What was executed of an earlier version stays executed.
            filled = min(before.filled, report.quantity)
            report = msgspec.structs.replace(report, filled=filled)
        if row.order_id == self._newest[root]:
            self._last[root] = report
        return report

    def _use_up(self, root: str, client_id: str) -> None:
        """Remember a client order id that nothing else may have any more, if it has the highest number."""
        known = self._client_ids.get(root)
        if known is None or _number_of(client_id) > _number_of(known):
            self._client_ids[root] = client_id

    def _gave_way(self, row: OrderRow, root: str) -> bool:
        """Tell whether a replaced order has no successor: in a list the one leg takes the other's place.

        Seen where a stop is triggered: its target is called replaced, by the stop or by nothing.
        """
        if row.replaced_by is None:
            return row.is_listed
        successor = self._names.get(row.replaced_by)
        return successor is not None and successor.venue_order_id != root

    def _keep(self, venue_order_id: str, name: Name) -> None:
        self._names[venue_order_id] = name
        self._names.move_to_end(venue_order_id)
        if len(self._names) > REMEMBERED:
            gone, _ = self._names.popitem(last=False)
            self._newest.pop(gone, None)
            self._last.pop(gone, None)
            self._client_ids.pop(gone, None)

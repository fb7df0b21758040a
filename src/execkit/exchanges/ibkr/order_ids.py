"""Order ids: handed out here, kept by client order id, and never given to a second order.

TWS takes an order that has the id of a live one for a change of that one. So an id that was handed out before, in this
process or an earlier one, must not come again, whatever nextValidId says: it rolls back when a gateway forgets.

TWS also refuses (103) an id below one that it has had already. Orders wait differently long between their reservation,
which is journalled, and their send, so one that was overtaken gets a new id at its first send. The journal then holds
an id that TWS takes for no order any more: should that be all that is left after a kill, it is refused, never doubled.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from execkit.clock import Clock
from execkit.exchanges.ibkr.link import REQUESTS_FROM

_EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)
_KEEP: Final = 10_000


class OrderIds:
    """The order ids of one API client."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        """The highest id that is known, reserved ones included."""
        self._used = 0
        """The highest id that TWS has had."""
        self._reserved: dict[str, int] = {}
        self._spent: dict[str, None] = {}
        self._inherited: dict[str, None] = {}

    def saw(self, order_id: int) -> None:
        """Note an id that is in use."""
        if 0 < order_id < REQUESTS_FROM:
            self._last = max(self._last, order_id)
            self._used = max(self._used, order_id)

    def reserve(self, client_order_id: str, earlier: str = "") -> int:
        """Return the order id of a client order id: the one it was given before, here or in an *earlier* process.

        A new one is above every id that was seen, and above the seconds since 2024, so that it also is above those
        that nobody remembers.
        """
        known = self._reserved.get(client_order_id)
        if known is not None:
            return known
        if earlier.isdigit() and client_order_id not in self._spent:
            order_id = int(earlier)
            self._inherited[client_order_id] = None
            self._last = max(self._last, order_id)
        else:
            order_id = self._next()
        self._reserved[client_order_id] = order_id
        if len(self._reserved) > _KEEP:
            del self._reserved[next(iter(self._reserved))]
        return order_id

    def _next(self) -> int:
        floor = int((self._clock.now() - _EPOCH).total_seconds())
        self._last = max(self._last + 1, floor)
        return self._last

    def at_send(self, client_order_id: str, *, is_first: bool) -> int:
        """Return the id to send with; another than was reserved where TWS has gone beyond that one.

        Only at the *first* send of an order that no earlier process can have sent: a repetition keeps its id.
        """
        order_id = self._reserved[client_order_id]
        if is_first and client_order_id not in self._inherited and order_id <= self._used:
            order_id = self._reserved[client_order_id] = self._next()
        self._used = max(self._used, order_id)
        return order_id

    def spend(self, client_order_id: str) -> None:
        """Give an order another id at its next send: TWS has gone beyond the one it had (103)."""
        self._spent[client_order_id] = None
        self._inherited.pop(client_order_id, None)
        self._reserved.pop(client_order_id, None)

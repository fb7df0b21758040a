"""What can go wrong on the wire, as a queue: the next matching request, or stream event, gets the first fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import attrs

from execkit.errors import ConfigurationError


class Mishap(StrEnum):
    """What happens. The details named here are fields of `WireFault`."""

    # the way there and back
    DROP_REQUEST = "drop_request"
    """The connection closes before the venue has seen the request."""
    DROP_ANSWER = "drop_answer"
    """The venue does what it was asked, then the connection closes."""
    CUT_BODY = "cut_body"
    """The same, after the head and half of the body."""
    HANG = "hang"
    """No answer until the client gives up; *reached* tells whether the venue did what it was asked."""
    DELAY = "delay"
    """A right answer, *after* seconds late or once *until* is set."""
    # answers
    ERROR = "error"
    """An error of *status*, with *code* and *text* where given; *reached*: the venue did it all the same."""
    HTML = "html"
    """A page of a proxy, with *status*; see *reached*."""
    EMPTY = "empty"
    CUT_JSON = "cut_json"
    """Half of the right answer, complete as far as HTTP can tell."""
    LIST = "list"
    """`[]` where an object belongs."""
    NULL = "null"
    NAN = "nan"
    """The literal NaN where the executed quantity belongs, which is no JSON."""
    NO_ID = "no_id"
    """The right answer without the venue's order id."""
    OTHER_ORDER = "other_order"
    """The answer of another order."""
    CHANGE = "change"
    """The right answer with *changes* to its fields."""
    # what a venue does with an order
    UNFILLED = "unfilled"
    """On place: let in, and executed only by the next price or `fill`."""
    PARTIAL = "partial"
    """On place: only *fraction* is executed; the rest as for `unfilled`."""
    EXPIRE = "expire"
    """On place: accepted and ended at once by the venue, nothing executed."""
    EXPIRE_IN_MATCH = "expire_in_match"
    """The same, as a venue's prevention of self-trades does."""
    # what a venue shows
    NOT_FOUND = "not_found"
    """On reads: orders are not found, lists of them are empty."""
    STALE = "stale"
    """On reads: everything is shown as it was when the fault was set."""
    # single events of the account's stream
    LOSE = "lose"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    """The event comes after the next one."""
    LATE = "late"
    """The event comes *after* seconds later, or once *until* is set."""
    CUT = "cut"
    """The event is lost, and the connection with it."""
    TERMINATE = "terminate"
    """The event is lost, and the venue says that it ends the subscription; the connection stays."""


OF_EVENTS: Final = frozenset(
    {Mishap.LOSE, Mishap.DUPLICATE, Mishap.REORDER, Mishap.LATE, Mishap.CUT, Mishap.TERMINATE}
)
OF_ORDERS: Final = frozenset(
    {Mishap.UNFILLED, Mishap.PARTIAL, Mishap.EXPIRE, Mishap.EXPIRE_IN_MATCH}
)
SPOILS: Final = frozenset(
    {
        Mishap.EMPTY,
        Mishap.CUT_JSON,
        Mishap.LIST,
        Mishap.NULL,
        Mishap.NAN,
        Mishap.NO_ID,
        Mishap.OTHER_ORDER,
        Mishap.CHANGE,
    }
)


@attrs.define(kw_only=True, eq=False)
class WireFault:
    """One thing that goes wrong, at the next *times* requests of *on* after *skip* of them."""

    on: str
    """An operation, `read` for every one that changes nothing, or `any`."""
    kind: Mishap = attrs.field(converter=Mishap)
    times: int = 1
    skip: int = 0
    only: Callable[[Any], bool] | None = None
    """Chooses among the calls (see `Call`) of the operation."""
    reached: bool = False
    status: int = 500
    code: int | None = None
    text: str = ""
    retry_after: timedelta | None = None
    changes: Mapping[str, Any] = attrs.field(factory=dict)
    after: float = 0.05
    """Seconds of the running loop."""
    until: asyncio.Event | None = None
    fraction: Decimal = Decimal("0.5")
    frozen: Any = None
    """What a stale read shows."""

    def __attrs_post_init__(self) -> None:
        if (self.on == "stream") is not (self.kind in OF_EVENTS):
            raise ConfigurationError(f"fault: {self.kind} cannot strike at {self.on}")

    def strikes(self, operation: str, *, is_read: bool, call: object) -> bool:
        """Tell whether this request gets it, and count the request."""
        wanted = self.on in (operation, "any") or (self.on == "read" and is_read)
        if operation == "stream" and self.on != "stream":
            return False
        if not wanted or (self.only is not None and not self.only(call)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class FaultQueue:
    """Faults that wait for their request; `fired` counts how often each kind struck."""

    def __init__(self) -> None:
        self.waiting: list[WireFault] = []
        self.fired: Counter[Mishap] = Counter()

    def take(
        self, operation: str, *, is_read: bool = False, call: object = None
    ) -> WireFault | None:
        """Return the fault of a request, if any: the first that waits for such."""
        for fault in self.waiting:
            if fault.strikes(operation, is_read=is_read, call=call):
                if fault.times <= 0:
                    self.waiting.remove(fault)
                self.fired[fault.kind] += 1
                return fault
        return None

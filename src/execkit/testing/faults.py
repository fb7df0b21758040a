"""What can go wrong between us and a venue, as a script that repeats exactly.

A `Fault` says at which calls it strikes; a `FaultScript` hands out at most one per call. Chance comes from the
generator of the mock, so a seed repeats a run.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

import attrs
import msgspec

from execkit.errors import ConfigurationError, ExchangeError
from execkit.model.order import OrderReport, OrderRequest, OrderState

NOW: Final = timedelta(0)


class Operation(StrEnum):
    """What a fault can strike."""

    PLACE = "place"
    CANCEL = "cancel"
    AMEND = "amend"
    GET = "get"
    OPEN = "open"
    FILLS = "fills"
    BALANCES = "balances"
    POSITIONS = "positions"
    TICKER = "ticker"
    STREAM = "stream"
    """Each single update of the order stream."""


class FaultKind(StrEnum):
    """What happens. *reached*, *after* and the others are fields of `Fault`."""

    # calls
    TIMEOUT = "timeout"
    """No answer; the caller gives up after *takes*. *reached* tells whether the venue got the request."""
    LOST = "lost"
    """The connection breaks, before or after the venue got the request (*reached*)."""
    HANG = "hang"
    """No answer, ever, until the caller is cancelled; see *reached*."""
    SERVER_ERROR = "server_error"
    """The venue answers 5xx, which says nothing of what it did; see *reached*."""
    NOT_SENT = "not_sent"
    """The request provably stays here."""
    RATE_LIMIT = "rate_limit"
    """Refused for its pace, with *retry_after*."""
    ERROR = "error"
    """The venue refuses with *error*."""
    DELAY = "delay"
    """Everything is right, but takes *after* longer."""
    MALFORMED = "malformed"
    """The request is carried out and the answer is spoiled as *spoil* says."""
    # queries
    NOT_FOUND = "not_found"
    """Orders and fills younger than *after* are not shown, as if they did not exist."""
    # what the venue does with the order
    PARTIAL = "partial"
    """On place: only *fraction* executes, at once; the rest after *after*, if that is not zero."""
    LATE_REJECT = "late_reject"
    """On place: acknowledged, and rejected *after* later by the stream."""
    LATE_FILL = "late_fill"
    """On cancel: acknowledged, and *fraction* of the rest is executed *after* later all the same."""
    # stream
    LOSE = "lose"
    """The update never comes."""
    DUPLICATE = "duplicate"
    """The update comes twice."""
    REORDER = "reorder"
    """The update comes after its successor (or *after* later, when there is none)."""
    LATE = "late"
    """The update comes *after* later."""
    GAP = "gap"
    """The update is lost, and the stream says that something was."""
    BREAK = "break"
    """The update is lost and the stream ends with a connection error."""


OF_STREAM: Final = frozenset(
    {
        FaultKind.LOSE,
        FaultKind.DUPLICATE,
        FaultKind.REORDER,
        FaultKind.LATE,
        FaultKind.GAP,
        FaultKind.BREAK,
    }
)
_HIDES: Final = frozenset({Operation.GET, Operation.OPEN, Operation.FILLS})
_ORDERS: Final = frozenset({Operation.PLACE, Operation.CANCEL, Operation.AMEND, Operation.GET})
_ONLY_ON: Final = {
    FaultKind.NOT_FOUND: _HIDES,
    FaultKind.PARTIAL: frozenset({Operation.PLACE}),
    FaultKind.LATE_REJECT: frozenset({Operation.PLACE}),
    FaultKind.LATE_FILL: frozenset({Operation.CANCEL}),
    FaultKind.MALFORMED: _ORDERS,
}

_Change = dict[str, object]
SPOILS: Final[dict[str, Callable[[OrderReport], _Change]]] = {
    "no_id": lambda _: {"venue_order_id": ""},
    "other_client_id": lambda r: {"client_order_id": r.client_order_id + "x"},
    "other_symbol": lambda _: {"symbol": "OTHER/USDT"},
    "other_side": lambda r: {"side": r.side.opposite},
    "other_quantity": lambda r: {"quantity": r.quantity * 2},
    "unknown_status": lambda _: {"status": OrderState.IN_DOUBT, "raw_status": "PENDING_REVIEW"},
    "overfilled": lambda r: {"filled": r.quantity + r.quantity},
    "negative": lambda _: {"filled": Decimal(-1)},
    "not_a_number": lambda _: {"filled": Decimal("NaN")},
}
"""Ways in which an answer can be wrong."""


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that goes wrong.

    Without *nth* and *probability* it strikes at every call; with *nth* (counted from 1) at that call and, with
    *times*, at the following ones. Only calls that *only* accepts and that lie in *window* (virtual time since the
    mock was first used) count. The meaning of the rest depends on the kind.
    """

    on: Operation = attrs.field(converter=Operation)
    kind: FaultKind = attrs.field(converter=FaultKind)
    nth: int | None = None
    times: int = 1
    probability: float | None = None
    window: tuple[timedelta, timedelta] | None = None
    only: Callable[[OrderRequest], bool] | None = None
    """Chooses orders; for place, cancel, amend and get."""
    reached: bool = False
    takes: timedelta = NOW
    """How long the caller waits for the error."""
    arrives_after: timedelta = NOW
    """With *reached*: the request gets to the venue only so much later, perhaps after the caller gave up."""
    raw: bool = False
    """Raise Python's own TimeoutError or ConnectionResetError, as a client library would."""
    after: timedelta = NOW
    retry_after: timedelta | None = None
    error: ExchangeError | None = None
    spoil: str = "no_id"
    fraction: Decimal = Decimal("0.5")

    def __attrs_post_init__(self) -> None:
        if (self.on is Operation.STREAM) is not (self.kind in OF_STREAM):
            raise ConfigurationError(f"fault: {self.kind} cannot strike at {self.on}")
        allowed = _ONLY_ON.get(self.kind)
        if allowed is not None and self.on not in allowed:
            raise ConfigurationError(
                f"fault: {self.kind} cannot strike at {self.on}, only at {', '.join(sorted(allowed))}"
            )
        if self.kind is FaultKind.ERROR and self.error is None:
            raise ConfigurationError("fault: `error` needs error=, the exception to raise")
        if self.spoil not in SPOILS:
            raise ConfigurationError(
                f"spoil: {self.spoil!r} is unknown; use one of {', '.join(SPOILS)}"
            )

    def spoiled(self, report: OrderReport) -> OrderReport:
        """Return the answer as it arrives."""
        return msgspec.structs.replace(report, **SPOILS[self.spoil](report))

    def refusal(self) -> ExchangeError:
        """Return a fresh copy of *error*, because a raised exception keeps its traceback."""
        assert self.error is not None, "checked when the fault was made"
        return copy.copy(self.error)


class FaultScript:
    """Faults in order of precedence; `fired` counts how often each kind struck."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self.fired: Counter[FaultKind] = Counter()
        self._seen = [0] * len(self.faults)

    def next(
        self,
        operation: Operation,
        *,
        elapsed: timedelta,
        rng: random.Random,
        request: OrderRequest | None = None,
    ) -> Fault | None:
        """Return the fault that strikes this call, if any."""
        found = None
        for place, fault in enumerate(self.faults):
            if fault.on is not operation or not _concerns(fault, elapsed, request):
                continue
            self._seen[place] += 1
            if found is None and _strikes(fault, self._seen[place], rng):
                found = fault
        if found is not None:
            self.fired[found.kind] += 1
        return found

    def __repr__(self) -> str:
        return f"FaultScript({len(self.faults)} faults, fired {dict(self.fired)})"


def _concerns(fault: Fault, elapsed: timedelta, request: OrderRequest | None) -> bool:
    if fault.window is not None and not fault.window[0] <= elapsed < fault.window[1]:
        return False
    return fault.only is None or (request is not None and fault.only(request))


def _strikes(fault: Fault, call: int, rng: random.Random) -> bool:
    if fault.nth is not None and not fault.nth <= call < fault.nth + fault.times:
        return False
    return fault.probability is None or rng.random() < fault.probability

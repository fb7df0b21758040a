"""The watch over a simulated run: the invariants that hold at every moment, checked as things happen.

Nothing here is asked of the code under test where the venue or the journal can tell: intents come from what was
journalled, orders and positions from the venue. Each check names the invariant it stands for.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import attrs

from execkit.ids import is_ours
from execkit.model.order import Fill, OrderEvent, OrderRequest, OrderRole, OrderState
from execkit.model.records import (
    Alarm,
    CommandSent,
    Filled,
    Intent,
    OrderChanged,
    Record,
    Source,
)
from execkit.numbers import ZERO
from execkit.orders.states import TRANSITIONS
from execkit.testing.simulation.exposure import exposure_limit, worst_exposure
from execkit.testing.simulation.judges import Judge
from execkit.testing.simulation.naked import NakedClock
from execkit.testing.simulation.protected import ProtectionWatch, Shaken

if TYPE_CHECKING:
    from execkit.exchanges.venue_orders import VenueOrder
    from execkit.orders.book import Book
    from execkit.orders.positions import PositionBook
    from execkit.testing.simulation.process import Process
    from execkit.testing.simulation.venue import SimVenue

_SINGLE: Final = (OrderRole.ENTRY, OrderRole.EXIT)
_SURELY_SEEN: Final = 30.0
"""Seconds after which an order that the venue shows is in every answer to a query."""
_NEVER: Final = frozenset({"KEEPER_FAILED", "KEEPER_LOOP", "TASK_FAILED"})
"""Alarms that tell of a defect of ours."""


class Violated(Exception):  # noqa: N818 - it says what happened
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


@attrs.define(eq=False)
class Watch:
    """What is known of the run so far, and what was found wrong with it first."""

    venue: SimVenue
    time: float = 0.0
    intents: dict[str, tuple[int, Intent]] = attrs.field(factory=dict)
    """Journalled intents and their sequence numbers, by client order id."""
    commands: dict[str, list[int]] = attrs.field(factory=dict)
    states: dict[str, OrderState] = attrs.field(factory=dict)
    answers: dict[str, str] = attrs.field(factory=dict)
    sent_at: dict[str, float] = attrs.field(factory=dict)
    """When each order left last."""
    sends: Counter[str] = attrs.field(factory=Counter)
    edges: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    sources: Counter[str] = attrs.field(factory=Counter)
    """How often each branch of recovery and each kind of alarm was taken."""
    lied: set[str] = attrs.field(factory=set)
    """Client order ids about which the venue broke its own promises; what follows from that is not our fault."""
    shaken: Shaken = attrs.field(init=False)
    """Symbols whose position somebody else has changed, or where the venue executed too much."""
    protection: ProtectionWatch = attrs.field(init=False)
    naked: NakedClock = attrs.field(init=False)
    forged: set[tuple[str, Decimal]] = attrs.field(factory=set)
    """Signals whose ticket a handler changed after its approval, with the quantity it made of it."""
    left_behind: int = 0
    """Stop-limits that the price has passed."""
    exposure_looks: int = 0
    """Entries that left, and how many of them were judged by what they may come to."""
    exposure_judged: int = 0
    judges: list[Judge] = attrs.field(factory=list)
    """Who watches over the parts of the library that this run uses."""
    process: Process | None = None
    problem: Violated | None = None
    _dusty: set[str] = attrs.field(factory=set)
    """Symbols of which less than a lot is held."""

    def __attrs_post_init__(self) -> None:
        self.shaken = Shaken(self.venue)
        self.protection = ProtectionWatch(self.venue, self.shaken, self.need)
        self.naked = NakedClock(self.venue, self.need, self.lied)

    def fail(self, invariant: str, text: str) -> None:
        """Note a violation; the first one ends the run."""
        if self.problem is None:
            self.problem = Violated(invariant, text)

    def need(self, invariant: str, holds: bool, text: str) -> None:
        """Note a violation unless *holds*."""
        if not holds:
            self.fail(invariant, text)

    # -- what is journalled ----------------------------------------------------------------------------

    def on_record(self, seq: int, record: Record) -> None:
        """Take in a record at the moment in which it is appended."""
        for judge in self.judges:
            judge.on_record(seq, record)
        if isinstance(record, Intent):
            key = record.request.client_order_id
            if key in self.intents:
                same = self.intents[key][1].payload_hash == record.payload_hash
                self.need("I3", same, f"{key} is intended twice")
                return
            self.intents[key] = (seq, record)
            self.states[key] = OrderState.NEW
        elif isinstance(record, OrderChanged):
            self._edge(record.client_order_id, record.event)
            if record.source in (Source.RECOVERY, Source.RECONCILE, Source.LOOKUP):
                self.sources[f"{record.source.value}:{record.event.value}"] += 1
            if (
                record.source is Source.ACK
                and self.answers.get(record.client_order_id) == "unknown"
                and record.event in (OrderEvent.REJECT, OrderEvent.UNSENT)
            ):
                self.fail(
                    "I30", f"{record.client_order_id}: an unknown answer was read as {record.event}"
                )
        elif isinstance(record, Filled):
            self._filled(record)
        elif isinstance(record, CommandSent):
            self.commands.setdefault(record.client_order_id, []).append(seq)
        elif isinstance(record, Alarm):
            if record.code == "UNPROTECTED":
                self.protection.alarmed_at[record.symbol] = self.venue.time()
            self.left_behind += "has passed the limit" in record.text
            self.sources[f"alarm:{record.code}"] += 1
            self.need("I29", record.code not in _NEVER, f"{record.code}: {record.text}")
        else:
            self.sources[f"record:{type(record).__name__}"] += 1

    def _edge(self, key: str, event: OrderEvent) -> None:
        before = self.states.get(key)
        book = self._book()
        order = None if book is None else book.orders.get(key)
        if before is None or order is None:
            return
        self.edges[before.value, event.value] += 1
        if event is OrderEvent.SUBMIT and before is OrderState.PRESUMED_ABSENT and self.process:
            self.process.absent.add(key)
        after = order.state
        if event is OrderEvent.ABSENT:
            self._check_absence(key, order.symbol)
        legal = TRANSITIONS[before].get(event)
        if legal is None:
            self.fail("I8", f"{key}: no edge from {before} by {event}")
        self.need("I7", not before.is_closed or after is before, f"{key}: {before} became {after}")
        self.states[key] = after

    def _check_absence(self, key: str, symbol: str) -> None:
        """Check that an order counts as absent only when the venue did not show it, for as long as it states."""
        now, window = self.venue.time(), self.venue.rules.absence_window.total_seconds()
        waited = now - self.sent_at.get(key, -window)
        self.need("I30", waited >= window, f"{key} was presumed absent after {waited:.0f} s")
        if key in self.venue.core.by_client:
            shown = self.venue.shown_for(key)
            self.need("I30", shown < _SURELY_SEEN, f"{key} was presumed absent while it was shown")
            self.lied.add(key)  # the venue has hidden it for longer than it says
            self.shaken.add(symbol)

    def _filled(self, record: Filled) -> None:
        fill = record.fill
        book = self._book()
        if book is None:
            return
        order = book.orders.find(fill.client_order_id, fill.venue_order_id)
        if order is None:
            return
        self.sources[f"fill:{record.source.value}"] += 1
        if fill.quantity:
            done = order.filled >= order.quantity
            self._edge(order.client_order_id, OrderEvent.FILL if done else OrderEvent.FILL_PART)
        mine = [f for f in self.venue.fills if f.trade_id == fill.trade_id]
        self.need("I5", len(mine) == 1, f"fill {fill.trade_id} was not made by the venue")
        over = order.filled > order.quantity and order.client_order_id not in self.lied
        self.need("I6", order.filled >= ZERO and not over, f"{order!r} is overfilled by us")
        self._dust(order.symbol, book.positions)

    def _dust(self, symbol: str, positions: PositionBook) -> None:
        """Check that a position is a lot or more (D5), and count the positions that began with what was left."""
        position = positions.open.get(symbol)
        lot = self.venue.core.instruments[symbol].lot_size
        is_large = position is None or abs(position.quantity) >= lot
        self.need("I4", is_large, f"{position} is a position, and less than a lot of {lot}")
        if symbol in positions.dust:
            self.sources["dust:left"] += symbol not in self._dusty
            self._dusty.add(symbol)
        elif symbol in self._dusty:
            self.sources["dust:taken"] += position is not None
            self._dusty.discard(symbol)

    def _book(self) -> Book | None:
        return None if self.process is None else self.process.book

    # -- what leaves a process -------------------------------------------------------------------------

    def leaves(self, process: Process, kind: str, key: str, request: OrderRequest | None) -> None:
        """Check a request at the moment in which the process lets it go."""
        if kind == "read":
            self.need(
                "I10",
                self.time >= process.link.told_until - 1e-6,
                "a query left before Retry-After ended",
            )
            return
        self.need(
            "I10",
            self.time >= process.link.told_until - 1e-6,
            f"{kind} {key} left before Retry-After ended",
        )
        self.need(
            "I26", process.journal.is_current, f"{kind} {key} left a process that was replaced"
        )
        self.need("I31", is_ours(key), f"{kind} of the foreign order {key}")
        for judge in self.judges:
            judge.leaves(process, key, request)
        if request is None:
            # Two cancels of one order may be under way, the second still in line for its commit.
            safe = any(seq <= process.journal.committed_seq for seq in self.commands.get(key, ()))
            self.need(
                "I3", safe or self._is_emergency(process, key), f"{kind} {key} is not journalled"
            )
            return
        self._check_place(process, key, request)

    def _is_emergency(self, process: Process, key: str) -> bool:
        for _, entry in process.store.emergencies:
            record = entry.record
            found = (
                record.request.client_order_id
                if isinstance(record, Intent)
                else getattr(record, "client_order_id", "")
            )
            if found == key:
                return True
        return False

    def _check_place(self, process: Process, key: str, request: OrderRequest) -> None:
        seq, intent = self.intents.get(key, (0, None))
        if intent is None:
            self.fail("I3", f"{key} was sent without an intent")
            return
        durable = seq <= process.journal.committed_seq or self._is_emergency(process, key)
        self.need("I3", durable, f"{key} was sent before its intent was durable")
        same = intent.payload_hash == request.payload_hash
        self.need("I3", same, f"{key} was sent with another content than its intent")
        for name in ("quantity", "limit_price", "stop_price"):
            value = getattr(request, name)
            good = value is None or (value.is_finite() and value > ZERO)
            self.need("I23", good, f"{key}: {name} {value}")
        if intent.role is OrderRole.ENTRY:
            forged = (intent.signal_id, intent.request.quantity) in self.forged
            self.need("I29", not forged, f"{key} left with a forged ticket")
            self._check_exposure(process, intent)
        self.sends[key] += 1
        self.sent_at[key] = self.venue.time()
        order = process.book.orders[key]
        self.need(
            "I11",
            order.attempts == self.sends_in(process, key),
            f"{key}: sent more often than recorded",
        )
        if (
            self.answers.get(key, "unsent") not in ("unsent", "refused")
            and key not in process.absent
        ):
            self.fail("I11", f"{key} was sent again though its fate was unknown")
        self.answers[key] = "unknown"

    def sends_in(self, process: Process, key: str) -> int:
        """Return how often an order was sent; a send whose record was lost in a crash is not known."""
        return self.sends[key] - process.forgotten.get(key, 0)

    # -- what the venue does ---------------------------------------------------------------------------

    def accepted(self, request: OrderRequest) -> None:
        """Check an order at the moment in which the venue takes it."""
        key = request.client_order_id
        if not is_ours(key) or key in self.lied:
            return
        found = self.intents.get(key)
        if found is None:
            return
        _, intent = found
        for judge in self.judges:
            judge.accepted(intent)
        if intent.role.is_reduction:
            self.protection.accepted(request.symbol)
            self.naked.begin_anew(request.symbol)
        if intent.role in _SINGLE:
            self._one_at_most(intent, request)
        if intent.role.is_reduction and not self._never_flips():
            self._check_reductions(request)

    def _never_flips(self) -> bool:
        rules = self.venue.rules
        return rules.reduce_only or not rules.short_selling

    def _one_at_most(self, intent: Intent, request: OrderRequest) -> None:
        total = first = ZERO
        ids = [
            (seq, k)
            for k, (seq, i) in self.intents.items()
            if i.parent == intent.parent and i.role is intent.role
        ]
        for _, key in sorted(ids):
            if key in self.lied:
                return
            first = max(first, self.intents[key][1].request.quantity)
        for order in self.venue.core.orders.values():
            key = order.request.client_order_id
            if any(key == k for _, k in ids):
                total += order.filled + (order.remaining if order.is_open else ZERO)
        self.need("I1", total <= first, f"{intent.parent}: {total} may execute of {first} intended")

    def _check_reductions(self, request: OrderRequest) -> None:
        if request.symbol in self.shaken:
            return
        held = self.venue.core.account.closable(request.symbol, request.side)
        claimed = self.venue.reducing(request.symbol, request.side)
        self.need(
            "I13",
            claimed <= held,
            f"{request.symbol}: reductions of {claimed} rest on a position of {held}",
        )

    def executed(self, fill: Fill) -> None:
        """Check an execution at the moment in which it happens."""
        order = self.venue.core.orders.get(fill.venue_order_id)
        if order is None or not is_ours(fill.client_order_id) or fill.replaces is not None:
            return
        if order.group and fill.symbol not in self.shaken:
            self._check_list(order)
        found = self.intents.get(fill.client_order_id)
        if found is None or not found[1].role.is_reduction or fill.symbol in self.shaken:
            return
        after = self.venue.quantity(fill.symbol)
        flipped = after < ZERO if fill.side.value == "sell" else after > ZERO
        self.need("I13", not flipped, f"{fill.client_order_id} turned {fill.symbol} to {after}")

    def _check_list(self, order: VenueOrder) -> None:
        """Check that the legs of a list together execute no more than they were to close."""
        legs = [o for o in self.venue.core.orders.values() if o.group == order.group]
        done = sum((leg.filled for leg in legs), ZERO)
        most = max(leg.request.quantity for leg in legs)
        self.sources["list:executed"] += 1
        self.sources["list:partly"] += order.is_open
        self.need("I14", done <= most, f"{order.request.client_order_id}: {done} of {most} closed")

    # -- after a crash ---------------------------------------------------------------------------------

    def resume(self, kept: int, book: Book) -> None:
        """Go on from what a new process finds in the journal."""
        for lost in [key for key, row in self.intents.items() if row[0] > kept]:
            del self.intents[lost]
        for judge in self.judges:
            judge.resume(kept)
        self.commands = {
            key: [seq for seq in seqs if seq <= kept] for key, seqs in self.commands.items()
        }
        self.states = {key: order.state for key, order in book.orders.items()}

    def born(self, process: Process) -> None:
        """Look at a process that has started."""
        for judge in self.judges:
            judge.born(process)

    # -- standing checks -------------------------------------------------------------------------------

    def _check_exposure(self, process: Process, intent: Intent) -> None:
        """Check that no more symbols are held or entered than the chain's limits allow."""
        limit = exposure_limit(process)
        if limit is None:
            return
        worst = worst_exposure(self.venue, self.intents, self.lied, intent)
        self.exposure_looks += 1
        if self.shaken:
            return
        self.exposure_judged += 1
        self.need(
            "I9",
            worst <= limit,
            f"{intent.request.client_order_id}: exposure could come to {worst:.0f}, allowed are {limit:.0f}",
        )

"""Judges: each watches over one part of a simulated run, by what is journalled and by what leaves and arrives.

A judge believes nothing that the code under test says of itself: it keeps its own count.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import attrs
import msgspec

from execkit.model.order import OrderRequest, OrderRole
from execkit.model.records import (
    EquityMarked,
    Intent,
    ParentEnded,
    ParentOrder,
    Record,
    TradingState,
    TradingStateChanged,
)
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Iceberg
from execkit.numbers import HUNDRED, ZERO

if TYPE_CHECKING:
    from execkit.testing.simulation.process import Process
    from execkit.testing.simulation.venue import SimVenue

Need = Callable[[str, bool, str], None]


@attrs.define(eq=False)
class Judge:
    """What a judge may look at; *need* notes a violation unless it holds, *reached* counts what happened."""

    venue: SimVenue
    intents: dict[str, tuple[int, Intent]]
    need: Need
    reached: Counter[str]

    def on_record(self, seq: int, record: Record) -> None:
        """See a record that is appended."""

    def leaves(self, process: Process, key: str, request: OrderRequest | None) -> None:
        """See a command leave; *request* is None for a cancel or an amendment."""

    def accepted(self, intent: Intent) -> None:
        """See the venue take an order of ours."""

    def resume(self, kept: int) -> None:
        """Forget what a crash has lost: all records after the first *kept*."""

    def born(self, process: Process) -> None:
        """See a process that has started."""

    def quiet(self, process: Process) -> None:
        """Look at what must be true when nothing is wrong and nothing is under way."""

    def _intent(self, key: str) -> Intent | None:
        return self.intents[key][1] if key in self.intents else None


@attrs.define(eq=False)
class StateJudge(Judge):
    """I15: no entry leaves while trading is halted or reducing, which outlives the process; only a person releases."""

    history: list[tuple[int, TradingState]] = attrs.field(factory=list)
    asked_at: float = -1.0
    """When a person has asked last for trading again, which is done at once or not at all."""
    switched_off: bool = False
    """The file that halts is there."""

    @property
    def state(self) -> TradingState:
        """What the journal says."""
        return self.history[-1][1] if self.history else TradingState.ACTIVE

    def on_record(self, seq: int, record: Record) -> None:
        """See a state."""
        if not isinstance(record, TradingStateChanged):
            return
        if record.state is TradingState.ACTIVE:
            by_person = self.venue.time() == self.asked_at and record.actor == "operator"
            self.need("I15", by_person, f"trading was released by {record.actor}, nobody asked")
            off = self.switched_off and self.state is not TradingState.ACTIVE
            self.need("I15", not off, "trading was released while the file that halts is there")
        self.history.append((seq, record.state))
        self.reached[f"state:{record.state}"] += 1
        self.reached["state:daily loss"] += record.cause.startswith("daily loss")
        self.reached["state:released"] += record.state is TradingState.ACTIVE
        self.reached["state:file"] += record.actor == "file"

    def leaves(self, process: Process, key: str, request: OrderRequest | None) -> None:
        """See an entry leave, or not."""
        intent = self._intent(key)
        if request is None or intent is None or intent.role is not OrderRole.ENTRY:
            self.reached["killfile:reduction left"] += self.switched_off and request is not None
            return
        active = self.state is TradingState.ACTIVE
        self.need("I15", active, f"{key}: an entry left while trading is {self.state}")
        self.need("I15", not self.switched_off, f"{key}: an entry left while the file is there")

    def resume(self, kept: int) -> None:
        """Forget what a crash has lost."""
        self.history = [row for row in self.history if row[0] <= kept]

    def born(self, process: Process) -> None:
        """Compare with what the new process believes."""
        known = process.book.trading_state
        self.need("I15", known is self.state, f"{known} after a restart, journalled: {self.state}")
        self.reached[f"restart:{self.state}"] += 1
        if self.switched_off:
            halted = known is TradingState.HALTED
            self.need("I15", halted, "a process started with the file there, and is not halted")


@attrs.define(eq=False)
class SliceJudge(Judge):
    """I2: all slices together never exceed their parent, at the venue; none leaves after the parent's end.

    All of them work on one position: none enters again what was closed, or takes something from the next one.
    """

    parents: dict[str, tuple[int, ParentOrder]] = attrs.field(factory=dict)
    ended: dict[str, int] = attrs.field(factory=dict)
    born_in: dict[str, int] = attrs.field(factory=dict)
    worked_on: dict[str, str] = attrs.field(factory=dict)
    """The position that was open when a slice of a parent left that had executed something, by parent."""
    late: set[str] = attrs.field(factory=set)
    """Orders of which the venue has executed more after it had confirmed their end, or about which it has lied."""

    def on_record(self, seq: int, record: Record) -> None:
        """See a parent begin or end."""
        if isinstance(record, ParentOrder):
            self.parents[record.parent_id] = (seq, record)
            self.ended.pop(record.parent_id, None)
            self.worked_on.pop(record.parent_id, None)
            self.reached["slices:parents"] += 1
        elif isinstance(record, ParentEnded):
            self.ended[record.parent_id] = seq
            whole = record.reason == "all slices were sent"
            self.reached["slices:worked to the end"] += whole

    def leaves(self, process: Process, key: str, request: OrderRequest | None) -> None:
        """See a slice leave."""
        intent = self._intent(key)
        if request is None or intent is None or intent.slice_of is None:
            return
        name = intent.slice_of
        _, parent = self.parents.get(name, (0, None))
        self.need("I2", parent is not None, f"{key} is a slice of {name}, which nobody knows")
        self.need("I2", name not in self.ended, f"{key} left after the end of its parent {name}")
        self._on_one_position(process, intent, name)
        number = self.born_in.setdefault(name, process.number)
        self.reached["slices:sent"] += 1
        self.reached["slices:sent after a restart"] += number != process.number

    def _on_one_position(self, process: Process, intent: Intent, name: str) -> None:
        orders = process.book.orders.values()
        executed = any(each.filled for each in orders if each.intent.slice_of == name)
        if intent.role is OrderRole.ENTRY and not executed:
            return
        position = process.book.positions.open.get(intent.request.symbol)
        held = "" if position is None else position.position_id
        first = self.worked_on.setdefault(name, held)
        text = (
            f"a slice of {name} left with {held or 'nothing'} open, not {first or 'its position'}"
        )
        self.need("I2", bool(held) and held == first, text)
        self.reached["slices:sent for a position"] += 1

    def accepted(self, intent: Intent) -> None:
        """Add up what the slices of a parent have executed and may still execute, at the venue."""
        name = intent.slice_of
        if name is None or name not in self.parents:
            return
        parent = self.parents[name][1]
        total = shown = ZERO
        for key, (_, each) in self.intents.items():
            if each.slice_of != name:
                continue
            if key in self.late:
                return
            order = self.venue.core.by_client.get(key)
            if order is not None:
                rests = order.remaining if order.is_open else ZERO
                total, shown = total + order.filled + rests, shown + rests
        most = parent.quantity
        self.need("I2", total <= most, f"slices of {name}: {total} may execute of {most}")
        slicing = msgspec.json.decode(parent.signal, type=TradingSignal).slicing
        if isinstance(slicing, Iceberg):
            self.reached["slices:iceberg"] += 1
            self.need("I2", shown <= slicing.display, f"{name} shows {shown} of {slicing.display}")

    def resume(self, kept: int) -> None:
        """Forget what a crash has lost."""
        self.parents = {key: row for key, row in self.parents.items() if row[0] <= kept}
        self.ended = {key: seq for key, seq in self.ended.items() if seq <= kept}

    def quiet(self, process: Process) -> None:
        """A parent that is worked by the clock has come to its end."""
        for name, (_, parent) in self.parents.items():
            if parent.slices:
                self.need("I19", name in self.ended, f"{name} is still worked after its time")


@attrs.define(eq=False)
class ThrottleJudge(Judge):
    """I10: no more commands leave one process in a window than the venue takes."""

    rate: tuple[int, timedelta] = (1, timedelta(0))
    left: deque[float] = attrs.field(factory=deque)
    life: int = 0

    def is_full(self, process: Process) -> bool:
        """Tell whether nothing more may leave now."""
        return self._count(process) >= self.rate[0]

    def _count(self, process: Process) -> int:
        if process.number != self.life:
            self.life = process.number
            self.left.clear()
        window, now = self.rate[1].total_seconds(), self.venue.time()
        while self.left and self.left[0] + window <= now + 1e-9:
            self.left.popleft()
        return len(self.left)

    def leaves(self, process: Process, key: str, request: OrderRequest | None) -> None:
        """Count a command."""
        count = self._count(process) + 1
        self.left.append(self.venue.time())
        most, per = self.rate
        self.need("I10", count <= most, f"{key}: {count} commands in {per}, {most} are allowed")
        self.reached["throttle:full"] += count == most


@attrs.define(eq=False)
class LossJudge(Judge):
    """The day's loss is counted over restarts and midnight: from the session's first mark, and from the oldest."""

    now: Callable[[], datetime] = attrs.field(kw_only=True)
    limit_pct: Decimal = attrs.field(kw_only=True)
    marks: list[tuple[int, datetime, Decimal, bool]] = attrs.field(factory=list)

    SLACK: Final = Decimal(4)
    """How often the limit may be lost before an entry that leaves counts as wrong: prices move while it waits."""

    def on_record(self, seq: int, record: Record) -> None:
        """See a mark of the equity."""
        if isinstance(record, EquityMarked):
            opens = record.opens_session
            self.reached["loss:second session"] += opens and bool(self.marks)
            self.marks.append((seq, self.now(), record.equity, opens))

    def leaves(self, process: Process, key: str, request: OrderRequest | None) -> None:
        """See an entry leave: the day has not lost its limit."""
        intent = self._intent(key)
        if request is None or intent is None or intent.role is not OrderRole.ENTRY:
            return
        if not self.marks:
            return
        equity = process.book.equity("USDT")
        opening = next((m[2] for m in reversed(self.marks) if m[3]), self.marks[0][2])
        day_ago = self.now() - timedelta(hours=24)
        old = [m[2] for m in self.marks if m[1] <= day_ago]
        base = max(opening, old[-1] if old else self.marks[0][2])
        limit = opening * self.limit_pct / HUNDRED
        lost = base - equity
        self.reached["loss:looks"] += 1
        text = f"{key}: an entry left after a loss of {lost:.0f}, the limit is {limit:.0f}"
        self.need("I15", lost <= limit * self.SLACK, text)

    def resume(self, kept: int) -> None:
        """Forget what a crash has lost."""
        self.marks = [mark for mark in self.marks if mark[0] <= kept]


@attrs.define(eq=False)
class NoStopJudge(Judge):
    """Who has chosen no stops gets none: nothing is placed for a position that has no stop price."""

    def leaves(self, process: Process, key: str, request: OrderRequest | None) -> None:
        """See an order leave: no stop, no target."""
        intent = self._intent(key)
        if request is None or intent is None:
            return
        invented = intent.role in (OrderRole.STOP, OrderRole.TARGET)
        self.need("I12", not invented, f"{key}: a {intent.role} for a position without a stop")
        self.reached["no stops:reduction"] += intent.role.is_reduction

    def accepted(self, intent: Intent) -> None:
        """Count the entries."""
        self.reached["no stops:entry"] += intent.role is OrderRole.ENTRY

    def quiet(self, process: Process) -> None:
        """Nothing rests that would close something."""
        for symbol in process.book.positions.open:
            for order in process.book.orders.open_reductions(symbol):
                live = order.state.may_be_live
                self.need("I13", not live, f"{order!r} rests, and nobody has asked for it")

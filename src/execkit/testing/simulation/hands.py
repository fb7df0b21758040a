"""Judges what a person's commands have brought about: cancel-all and flatten, as the journal and the venue show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from execkit.model.order import OrderEvent, OrderRole
from execkit.model.records import CommandSent, Filled, OrderChanged, Record
from execkit.testing.simulation.judges import Judge

if TYPE_CHECKING:
    from execkit.engine import ExecutionEngine
    from execkit.testing.simulation.process import Process

_PROTECTIVE: Final = (OrderRole.STOP, OrderRole.TARGET)
_WITHIN: Final = 60.0
"""Seconds that a command may take while the venue wants no pause: a lost answer, the line of its rate, a slow disk."""


@attrs.define(eq=False)
class HandJudge(Judge):
    """What cancel-all names is cancelled and stays so, and what flatten says to be flat is so."""

    lied: set[str] = attrs.field(kw_only=True)
    """Orders about which the venue broke its own promises."""
    named: set[str] = attrs.field(factory=set)
    """Orders that somebody wants gone."""
    cancels: dict[str, int] = attrs.field(factory=dict)
    """Orders of which a cancel was asked for, and the first record of it."""
    entered: set[str] = attrs.field(factory=set)
    """Symbols in which an entry has executed since the last flatten began."""

    def on_record(self, seq: int, record: Record) -> None:
        """See a cancel that is asked for, or an execution."""
        if isinstance(record, CommandSent) and record.command == "cancel":
            self.cancels.setdefault(record.client_order_id, seq)
            intent = self._intent(record.client_order_id)
            spared = intent is not None and intent.role in _PROTECTIVE
            text = f"cancel-all took {record.client_order_id} away, which protects"
            self.need("I12", not (spared and record.reason == "cancel-all"), text)
        elif isinstance(record, OrderChanged) and record.event is OrderEvent.ASK_CANCEL:
            self.cancels.setdefault(record.client_order_id, seq)
        elif isinstance(record, Filled):
            intent = self._intent(record.fill.client_order_id)
            if intent is None or intent.role is OrderRole.ENTRY:
                self.entered.add(record.fill.symbol)

    async def cancel_all(self, process: Process, engine: ExecutionEngine, *, halt: bool) -> None:
        """Have everything cancelled, and look at what came of it."""
        orders = process.book.orders
        named = [o for o in orders.active.values() if o.role not in _PROTECTIVE]
        queued = set(process.book.queued)
        began = self.venue.time()
        await engine.cancel_all(halt=halt)
        if not self._counts(process, "cancel-all", began):
            return
        for order in named:
            key = order.client_order_id
            if process.journal.is_healthy:
                self.named.add(key)
            asked = order.is_closed or key in self.cancels
            self.need("I15", asked, f"cancel-all has left {order!r} as it was")
        self.need("I15", not queued & set(process.book.queued), "cancel-all has left the queue")
        self.reached["hand:cancelled"] += bool(named)

    async def flatten(
        self, process: Process, engine: ExecutionEngine, symbol: str | None, *, halt: bool
    ) -> None:
        """Have positions closed, and look at what came of it."""
        self.entered.clear()
        held = [s for s in process.book.positions.open if symbol in (None, s)]
        began = self.venue.time()
        done = await engine.flatten(symbol, halt=halt)
        if not self._counts(process, "flatten", began):
            return
        for each in held:
            told = each in done.flat or each in done.left
            self.need("I15", told, f"flatten says nothing of {each}, which was held")
            if each in done.flat:
                self._check_flat(process, each)
        self.reached["hand:flattened"] += bool(held) and bool(done)
        self.reached["hand:not flattened"] += not done

    def _check_flat(self, process: Process, symbol: str) -> None:
        """Check that nothing is left of what flatten says is flat."""
        true = self.venue.quantity(symbol)
        if symbol in self.entered or true != process.book.positions.quantity(symbol):
            self.reached["hand:unknown"] += 1
            return
        instrument = self.venue.core.instruments[symbol]
        flat = abs(true) < instrument.lot_size
        self.need("I15", flat, f"flatten said that {symbol} is flat, and {true} are left")

    def _counts(self, process: Process, what: str, began: float) -> bool:
        """Tell whether the process that was asked still is the one; check that it did not take too long."""
        if process.is_dead or not process.journal.is_current:
            return False
        took = self.venue.time() - began
        paused = max(process.link.told_until, process.link.ban_ends()) > began
        self.need("I29", paused or took <= _WITHIN, f"{what} took {took:.0f} s")
        self.reached[f"hand:{what}"] += 1
        return True

    def resume(self, kept: int) -> None:
        """Forget what a crash has lost."""
        self.cancels = {key: seq for key, seq in self.cancels.items() if seq <= kept}

    def quiet(self, process: Process) -> None:
        """What somebody wanted gone is gone."""
        for key in self.named - self.lied:
            order = self.venue.core.by_client.get(key)
            rests = order is not None and order.is_open
            self.need("I19", not rests, f"cancel-all has named {key}, which rests still")

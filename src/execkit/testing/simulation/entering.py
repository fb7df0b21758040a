"""Judges of what may be entered: groups of symbols, additions to a position, day trades; each by its own count.

What the account holds and has open is the venue's word, what was executed when is the journal's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import attrs

from execkit.model.order import OrderRequest, OrderRole
from execkit.model.records import ExternalChange, Filled, Intent, Record
from execkit.numbers import HUNDRED, ZERO
from execkit.testing.simulation.exposure import limits_of, worst_exposure
from execkit.testing.simulation.judges import Judge

if TYPE_CHECKING:
    from execkit.testing.simulation.process import Process

_SETTLED: Final = 10.0
"""Seconds after an execution from which on whoever approves an entry knows of it."""
_NEARLY: Final = Decimal("0.9")
"""Share of the gain that is asked for: fees in the base asset move the average."""


@attrs.define(eq=False)
class EntryJudge(Judge):
    """A judge of entries that leave; *shaken* are symbols in which somebody else has traded lately."""

    shaken: Container[object] = attrs.field(kw_only=True)

    def leaves(self, process: Process, key: str, request: OrderRequest | None) -> None:
        """See an entry leave; slices were approved with their parent."""
        intent = self._intent(key)
        if request is None or intent is None or intent.role is not OrderRole.ENTRY:
            return
        if intent.slice_of is None:
            self.enters(process, intent)

    def enters(self, process: Process, intent: Intent) -> None:
        """Look at an entry."""


@attrs.define(eq=False)
class GroupJudge(EntryJudge):
    """I9 for symbols that move together: what is held and may be added of them stays within their share."""

    lied: set[str] = attrs.field(kw_only=True)

    SLACK: Final = Decimal("1.1")
    """Prices move between the approval and the send."""
    MORE: Final = Decimal(100)

    def enters(self, process: Process, intent: Intent) -> None:
        """Add up the groups of its symbol."""
        limits, symbol = limits_of(process), intent.request.symbol
        if limits is None or not limits.groups:
            return
        limit = (
            process.book.equity("USDT") * limits.max_group_pct / HUNDRED * self.SLACK + self.MORE
        )
        for name, members in limits.groups.items():
            if symbol not in members or any(each in self.shaken for each in members):
                continue
            worst = worst_exposure(self.venue, self.intents, self.lied, intent, members)
            self.reached["group:looks"] += 1
            self.reached["group:nearly full"] += worst > limit / 2
            text = (
                f"{intent.request.client_order_id}: {name} could come to {worst:.0f} of {limit:.0f}"
            )
            self.need("I9", worst <= limit, text)


@attrs.frozen
class _Change:
    """What a record has made of a position; of an execution of ours with its order's intent."""

    seq: int
    at: float
    quantity: Decimal
    price: Decimal
    intent: Intent | None


@attrs.define(eq=False)
class _Trades(EntryJudge):
    """Keeps what the journal says of positions, by symbol."""

    changes: dict[str, list[_Change]] = attrs.field(factory=lambda: defaultdict(list))

    def on_record(self, seq: int, record: Record) -> None:
        """See an execution, or what came from outside."""
        if isinstance(record, ExternalChange):
            row = _Change(seq, self.venue.time(), record.quantity, record.price or ZERO, None)
            self.changes[record.symbol].append(row)
        elif isinstance(record, Filled) and record.fill.quantity:
            fill = record.fill
            base = self.venue.core.instruments[fill.symbol].base
            quantity = fill.side.sign * fill.quantity
            quantity -= fill.fee if fill.fee_asset == base else ZERO
            # A correction is counted as what somebody else did: what it takes the place of is counted already.
            intent = self._intent(fill.client_order_id) if fill.replaces is None else None
            row = _Change(seq, self.venue.time(), quantity, fill.price, intent)
            self.changes[fill.symbol].append(row)

    def resume(self, kept: int) -> None:
        """Forget what a crash has lost."""
        for symbol, rows in self.changes.items():
            self.changes[symbol] = [row for row in rows if row.seq <= kept]

    def _since_flat(self, symbol: str) -> tuple[list[_Change], int]:
        """Return what made the position that is open, and how many of ours were opened and closed before."""
        least = self.venue.core.instruments[symbol].lot_size
        rows: list[_Change] = []
        trips, held = 0, ZERO
        for row in self.changes[symbol]:
            rows.append(row)
            held += row.quantity
            if abs(held) < least:
                trips += all(each.intent is not None for each in rows)
                rows = []
        return rows, trips


@attrs.define(eq=False)
class ScaleJudge(_Trades):
    """F: a position is added to where that is on, a winner only, and not too often."""

    def enters(self, process: Process, intent: Intent) -> None:
        """Look whether it adds to a position of ours."""
        limits, request = limits_of(process), intent.request
        symbol = request.symbol
        rows, _ = self._since_flat(symbol)
        entries = [
            row
            for row in rows
            if row.intent is not None
            and row.intent.role is OrderRole.ENTRY
            and row.intent.signal_id != intent.signal_id
        ]
        if limits is None or not entries or symbol in self.shaken:
            return
        known = process.book.positions.quantity(symbol) == self.venue.quantity(symbol)
        held = sum((row.quantity for row in rows), ZERO)
        if not known or self.venue.quantity(symbol) != held:
            return  # a correction counts twice here
        if self.venue.time() - rows[-1].at < _SETTLED:
            return  # the entry may have been approved before
        key = request.client_order_id
        self.reached["scale:added"] += 1
        self.need("I9", limits.scale_in, f"{key} adds to a position, and nothing may")
        same = (held > ZERO) is (request.side.sign > 0)
        self.need("I9", same, f"{key} is an entry against the position in {symbol}")
        intents = [row.intent for row in entries if row.intent is not None]
        parents = {each.slice_of or each.signal_id for each in intents}
        most = limits.max_scale_ins
        text = (
            f"{key} adds to {symbol} once more, after {len(parents) - 1} times; {most} are allowed"
        )
        self.need("I9", len(parents) <= most, text)
        self.reached["scale:at the limit"] += len(parents) == most
        if all(row.intent is not None for row in rows) and intents[0].stop_loss is not None:
            self._check_gain(intent, entries, intents[0].stop_loss)

    def _check_gain(self, intent: Intent, entries: list[_Change], first: Decimal) -> None:
        """Look whether the position gained its risk, to the first stop, at any price of late."""
        size = sum((row.quantity for row in entries), ZERO)
        average = sum((row.quantity * row.price for row in entries), ZERO) / size
        sign = intent.request.side.sign
        best = max((mid - average) * sign for mid in self.venue.prices.of(intent.request.symbol))
        risk = abs(average - first)
        text = f"{intent.request.client_order_id} adds to a gain of {best:.2f}, the risk was {risk:.2f}"
        self.need("I9", best >= risk * _NEARLY, text)


@attrs.define(eq=False)
class DayTradeJudge(_Trades):
    """F: no entry leaves after as many day trades as are allowed; a run is one New York day."""

    def enters(self, process: Process, intent: Intent) -> None:
        """Count the positions that were opened and closed."""
        limits = limits_of(process)
        if limits is None or limits.max_day_trades is None:
            return
        trips = sum(self._since_flat(symbol)[1] for symbol in list(self.changes))
        self.reached["day trades:looks"] += 1
        self.reached["day trades:last"] += trips == limits.max_day_trades - 1
        text = f"{intent.request.client_order_id}: an entry after {trips} day trades"
        self.need("I9", trips < limits.max_day_trades, text)

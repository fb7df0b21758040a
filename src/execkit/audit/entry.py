"""One evaluation as a person asks about it: what was given, what was said, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from execkit.functions.base import ConfidenceLevel
from execkit.model.account import AccountView
from execkit.model.order import Fill, OrderEvent
from execkit.model.records import (
    BarClosed,
    Decision,
    Entry,
    Filled,
    Intent,
    OrderChanged,
    ParentOrder,
    PositionSeen,
    Record,
    SignalResult,
)
from execkit.model.result import Outcome
from execkit.numbers import MONEY, ZERO


class ExecutionLogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One function at one bar close. Prices are in the quote asset, volume in base units, times UTC.

    *seq* is the number of the journal's record that holds it, *place* the function's turn in it. While *skipped* is
    False the answer was followed: an action that asks for an order has a *signal_id*, and *outcome*, *filled* and
    *average_price* say what came of that; None: nothing yet.
    """

    seq: int
    place: int
    at: datetime
    plan: str
    symbol: str
    timeframe: str
    close_time: datetime
    open: Decimal | None
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal | None
    bars: int
    """Bars of history that the function could see, this one included."""
    position: PositionSeen | None
    """The open position, None when flat."""
    account: AccountView | None
    function: str
    parameters: dict[str, Any]
    action: str
    confidence: Decimal
    reasoning: str
    metadata: Any = None
    new_stop: Decimal | None = None
    skipped: bool
    failed: bool
    duration: timedelta
    signal_id: str
    outcome: Outcome | None = None
    """What the caller was told, or what came of it later, by the end of the journal."""
    outcome_reason: str = ""
    client_order_ids: tuple[str, ...] = ()
    filled: Decimal = ZERO
    """Executed so far, also after the caller was told the outcome."""
    average_price: Decimal | None = None

    @property
    def level(self) -> ConfidenceLevel:
        """The confidence in words."""
        return ConfidenceLevel.of(self.confidence)


def entries_of(entry: Entry, record: BarClosed) -> Iterator[ExecutionLogEntry]:
    """Return the evaluations of one bar close; what became of them is not known yet."""
    for place, decision in enumerate(record.decisions):
        yield ExecutionLogEntry(
            seq=entry.seq,
            place=place,
            at=entry.at,
            plan=decision.plan,
            symbol=record.symbol,
            timeframe=record.timeframe,
            close_time=record.close_time,
            open=record.open,
            high=record.high,
            low=record.low,
            close=record.close,
            volume=record.volume,
            bars=decision.bars,
            position=record.position,
            account=record.account,
            function=decision.function,
            parameters=_decoded(decision.parameters) or {},
            action=decision.action,
            confidence=decision.confidence,
            reasoning=decision.reasoning,
            metadata=_decoded(decision.metadata),
            new_stop=decision.new_stop,
            skipped=decision.skipped,
            failed=decision.failed,
            duration=timedelta(microseconds=decision.duration_us),
            signal_id=decision.signal_id,
        )


def _decoded(text: str) -> Any:
    return msgspec.json.decode(text) if text else None


_OPEN: Final = (Outcome.WORKING, Outcome.PARTIALLY_FILLED, Outcome.QUEUED, Outcome.IN_DOUBT)
"""What a caller may be told while more can come of it."""

_ENDS: Final = {
    OrderEvent.CANCEL: Outcome.CANCELLED,
    OrderEvent.EXPIRE: Outcome.EXPIRED,
    OrderEvent.REJECT: Outcome.REJECTED,
}


class Outcomes:
    """What becomes of signals, from the records that follow them."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._results: dict[str, SignalResult] = {}
        self._signals: dict[str, str] = {}
        """Signal by client order id."""
        self._orders: dict[str, list[str]] = {}
        """Client order ids by signal."""
        self._fills: dict[str, dict[str, Fill]] = {}
        """Executions by signal and trade id."""
        self._quantities: dict[str, Decimal] = {}
        """What the last order of a signal asked for."""
        self._ends: dict[str, Outcome] = {}
        """How the last order of a signal ended without being filled."""

    def follow(self, decision: Decision) -> None:
        """Take an interest in a decision's signal."""
        if decision.signal_id:
            self._wanted.add(decision.signal_id)

    def see(self, record: Record) -> None:
        """Take in the next record."""
        match record:
            case SignalResult():
                if record.signal_id in self._wanted:
                    self._results[record.signal_id] = record
            case Intent():
                # Of an order that is worked in slices, the signal is the parent's. What protects a position has the
                # position for its parent, although it names the entry's signal.
                parent, order = record.slice_of or record.parent, record.request.client_order_id
                if parent in self._wanted and order not in self._signals:
                    self._signals[order] = parent
                    self._orders.setdefault(parent, []).append(order)
                    if record.slice_of is None:
                        self._quantities[parent] = record.request.quantity
                    self._ends.pop(parent, None)
            case ParentOrder():
                if record.parent_id in self._wanted:
                    self._quantities[record.parent_id] = record.quantity
            case OrderChanged():
                signal_id = self._signals.get(record.client_order_id)
                if signal_id is not None and record.event in _ENDS:
                    self._ends[signal_id] = _ENDS[record.event]
                elif signal_id is not None and record.quantity is not None:
                    self._quantities[signal_id] = record.quantity
            case Filled():
                fill = record.fill
                signal_id = self._signals.get(fill.client_order_id or "")
                if signal_id is not None:
                    trades = self._fills.setdefault(signal_id, {})
                    trades.pop(fill.replaces or "", None)
                    trades[fill.trade_id] = fill

    def complete(self, entry: ExecutionLogEntry) -> ExecutionLogEntry:
        """Return the entry with what became of it."""
        result = self._results.get(entry.signal_id)
        orders = self._orders.get(entry.signal_id, ())
        if result is None and not orders:
            return entry
        fills = [fill for fill in self._fills.get(entry.signal_id, {}).values() if fill.quantity]
        filled = sum((fill.quantity for fill in fills), ZERO)
        paid = sum((fill.notional for fill in fills), ZERO)
        denial = None if result is None else result.denial
        return msgspec.structs.replace(
            entry,
            outcome=self._outcome(entry.signal_id, result, filled),
            outcome_reason="" if result is None else str(denial or result.reason),
            client_order_ids=tuple(orders),
            filled=filled,
            average_price=MONEY.divide(paid, filled) if filled else None,
        )

    def _outcome(
        self, signal_id: str, result: SignalResult | None, filled: Decimal
    ) -> Outcome | None:
        told = None if result is None else result.outcome
        if told is not None and told not in _OPEN:
            return told
        if filled:
            whole = filled >= self._quantities.get(signal_id, filled)
            return Outcome.FILLED if whole else Outcome.PARTIALLY_FILLED
        return self._ends.get(signal_id, told)

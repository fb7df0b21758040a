"""The parts that the book's state consists of, and the shape of its snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from execkit.model.position import Position, PositionState
from execkit.model.records import (
    Alarm,
    PlanChanged,
    SignalQueued,
    SignalResult,
    TradingStateChanged,
)
from execkit.numbers import MONEY, ZERO
from execkit.orders.manager import ManagedOrder
from execkit.orders.parents import Parent
from execkit.orders.position_state import PositionExport


class SignalEntry(msgspec.Struct):
    """What is known of a signal id: the digest of its content, and what the caller was told."""

    digest: str
    told: bool = False
    result: SignalResult | None = None


class EquityMark(msgspec.Struct, frozen=True):
    """Equity at one time."""

    at: datetime
    equity: Decimal
    opens_session: bool


def rebased(marks: Iterable[EquityMark], transferred: Decimal) -> deque[EquityMark]:
    """Return marks as if what was paid in, or out if negative, had been so at each of them."""
    return deque(
        EquityMark(mark.at, MONEY.add(mark.equity, transferred), mark.opens_session)
        for mark in marks
    )


class Snapshot(msgspec.Struct):
    """The shape of a snapshot."""

    orders: list[ManagedOrder]
    closed: list[str]
    counts: dict[str, int]
    positions: PositionExport
    cash: dict[str, Decimal]
    signals: list[tuple[str, SignalEntry]]
    """A list, like all of which the order counts: the encoder sorts mappings."""
    results: list[str]
    queued: list[SignalQueued]
    trading_state: TradingStateChanged | None
    blocked: dict[str, str]
    equity_marks: list[EquityMark]
    fired: list[tuple[str, str, datetime]]
    plans: dict[str, PlanChanged]
    owed: list[tuple[str, str]]
    alarms: list[Alarm]
    revisions: dict[str, int]
    last_at: datetime | None
    parents: list[Parent] = []


def pending_entry(order: ManagedOrder, mark: Decimal | None) -> Position:
    """Return the position that an entry without a fill is going to open."""
    return Position(
        position_id="",
        symbol=order.symbol,
        quantity=ZERO,
        average_price=ZERO,
        opened_at=order.created_at,
        state=PositionState.PENDING_ENTRY,
        signal_id=order.signal_id or "",
        strength=order.intent.strength,
        stop_loss=order.intent.stop_loss,
        take_profit=order.intent.take_profit,
        mark=mark,
    )

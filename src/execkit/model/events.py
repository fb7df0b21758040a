"""Events for observers, immutable. The money path never depends on somebody listening."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from execkit.model.order import Fill, OrderRole, Side
from execkit.model.position import Position
from execkit.model.signal import TradingSignal
from execkit.numbers import ZERO


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events; *at* is UTC, *signal_id* ties it to the signal that caused it."""

    at: datetime
    signal_id: str = ""


class TradingSignalGenerated(Event, frozen=True, kw_only=True):
    """A strategy or an execution function made a signal."""

    signal: TradingSignal


class OrderEventBase(Event, frozen=True, kw_only=True):
    """What all order events carry."""

    client_order_id: str
    symbol: str
    side: Side
    role: OrderRole
    quantity: Decimal


class OrderPlaced(OrderEventBase, frozen=True, kw_only=True):
    """The venue has accepted an order."""

    venue_order_id: str = ""


class OrderPartiallyFilled(OrderEventBase, frozen=True, kw_only=True):
    """A part of an order was executed."""

    fill: Fill
    filled: Decimal


class OrderFilled(OrderEventBase, frozen=True, kw_only=True):
    """An order was executed whole."""

    fill: Fill
    average_price: Decimal


class OrderFailed(OrderEventBase, frozen=True, kw_only=True):
    """An order was rejected, or provably never sent."""

    reason: str


class OrderCancelled(OrderEventBase, frozen=True, kw_only=True):
    """An order was cancelled or expired."""

    filled: Decimal = ZERO
    reason: str = ""


class OrderInDoubt(OrderEventBase, frozen=True, kw_only=True):
    """An order was sent and its outcome is unknown."""

    reason: str


class SignalDenied(Event, frozen=True, kw_only=True):
    """A signal was refused before anything was sent."""

    symbol: str
    reason: str


class PositionOpened(Event, frozen=True, kw_only=True):
    """A position went from flat to open."""

    position: Position


class PositionChanged(Event, frozen=True, kw_only=True):
    """An open position grew or shrank."""

    position: Position


class PositionClosed(Event, frozen=True, kw_only=True):
    """A position went flat."""

    position: Position


class ProtectionPlaced(Event, frozen=True, kw_only=True):
    """A protective stop rests at the venue."""

    symbol: str
    quantity: Decimal
    stop_price: Decimal
    client_order_id: str


class ProtectionFailed(Event, frozen=True, kw_only=True):
    """A position could not be protected; it is being flattened."""

    symbol: str
    reason: str


class SlippageAlert(Event, frozen=True, kw_only=True):
    """An order was executed worse than the alert threshold, on the average of what was executed of it so far."""

    symbol: str
    client_order_id: str
    slippage_pct: Decimal
    role: OrderRole = OrderRole.ENTRY
    side: Side | None = None
    quantity: Decimal = ZERO
    """What was executed so far."""
    expected_price: Decimal | None = None
    """What is compared with: the arrival mid, a stop's or target's level, or the mid when a flatten was sent."""
    average_price: Decimal | None = None


class ReconcileMismatch(Event, frozen=True, kw_only=True):
    """Our books and the venue's differ."""

    symbol: str
    ours: str
    venue: str


class TradingStateSet(Event, frozen=True, kw_only=True):
    """Trading was restricted or released."""

    state: str
    cause: str


class SystemError(Event, frozen=True, kw_only=True):
    """Something went wrong inside execkit, or a person has to look."""

    code: str
    text: str
    symbol: str = ""

"""What single TWS messages say, with exact numbers, and who takes that in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec


class OrderSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An openOrder or completedOrder message; the latter has no *order_id* and no *client_id*."""

    order_id: int
    client_id: int
    perm_id: int
    ref: str
    account: str
    contract: Any
    action: str
    quantity: Decimal
    order_type: str
    limit: Decimal | None
    aux: Decimal | None
    trail_stop: Decimal | None
    oca_group: str
    status: str
    filled: Decimal | None = None
    reason: str = ""
    is_completed: bool = False
    raw: Any = None
    """ib_async's order object."""


class StatusSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An orderStatus message; it does not name the orderRef."""

    order_id: int
    client_id: int
    perm_id: int
    status: str
    filled: Decimal
    average: Decimal
    why_held: str


class ExecutionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An execDetails message, live (*request_id* -1) or in answer to a request."""

    request_id: int
    order_id: int
    client_id: int
    perm_id: int
    ref: str
    account: str
    contract: Any
    exec_id: str
    side: str
    quantity: Decimal
    price: Decimal
    at: datetime | None
    """None where the message states a zone that nobody knows."""


class CommissionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A commissionReport message."""

    exec_id: str
    amount: Decimal | None
    currency: str


class PositionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A position message; *cost* has the contract's multiplier in it."""

    account: str
    contract: Any
    quantity: Decimal
    cost: Decimal


class ValueSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One value of an account, such as its cash in a currency."""

    tag: str
    text: str
    currency: str
    account: str


class HoldingSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A position, in contracts, and what it is worth at the market, in its contract's currency."""

    contract: Any
    quantity: Decimal
    worth: Decimal
    account: str


class BarSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One historical bar; *date* is where it begins, as text."""

    date: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class Sink(Protocol):
    """Takes in what the messages say."""

    def on_order(self, seen: OrderSeen) -> None:
        """An order is open or has ended."""

    def on_status(self, seen: StatusSeen) -> None:
        """An order stands there."""

    def on_execution(self, seen: ExecutionSeen) -> None:
        """Something was executed."""

    def on_commission(self, seen: CommissionSeen) -> None:
        """That is what an execution cost."""

    def on_error(self, request_id: int, code: int, text: str) -> None:
        """Something is wrong, or merely worth knowing."""

    def on_row(self, key: int | str, row: Any) -> None:
        """A part of the answer to a request, or news of a subscription."""

    def on_end(self, key: int | str) -> None:
        """The answer to a request is complete."""

    def on_unreadable(self, message: int, problem: str) -> None:
        """A message could not be read."""

"""The result: what came of a ticket, and why."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from execkit.model.denial import Denial
from execkit.model.order import Fill, Side
from execkit.numbers import ZERO, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

_BPS = Decimal(10_000)


class Outcome(StrEnum):
    """What became of a signal."""

    FILLED = "filled"
    PARTIALLY_FILLED = "partially_filled"
    WORKING = "working"
    """Resting at the venue."""
    QUEUED = "queued"
    """Waiting for the market to open."""
    DENIED = "denied"
    """Refused by execkit; nothing was sent."""
    REJECTED = "rejected"
    """Refused by the venue."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    IN_DOUBT = "in_doubt"
    """Sent, and the venue has not yet shown what became of it; execkit goes on asking."""


class HandlerTrace(msgspec.Struct, frozen=True):
    """What one handler did with a ticket."""

    handler: str
    verdict: str
    """`passed`, `changed`, `denied`, `raised` or the outcome it returned."""
    reason: str = ""
    seconds: float = 0.0
    """Time spent in the handler itself, without those after it."""

    def __str__(self) -> str:
        return f"{self.handler:<24} {self.verdict:<10} {self.seconds * 1000:8.3f} ms  {self.reason}".rstrip()


class ExecutionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a signal; printing it answers "why?".

    *order* is the live `ManagedOrder`; `await result.order.done()` follows it to its end. *slippage_bps* compares
    the average fill with the mid at arrival: positive is a cost.
    """

    signal_id: str
    symbol: str
    side: Side
    outcome: Outcome
    created_at: datetime
    denial: Denial | None = None
    reason: str = ""
    order: Any = None
    client_order_ids: tuple[str, ...] = ()
    requested: Decimal | None = None
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    expected_price: Decimal | None = None
    fills: tuple[Fill, ...] = ()
    alerts: tuple[str, ...] = ()
    trace: tuple[HandlerTrace, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether an order exists and nothing went wrong with it."""
        return self.outcome in (
            Outcome.FILLED,
            Outcome.PARTIALLY_FILLED,
            Outcome.WORKING,
            Outcome.QUEUED,
        )

    @property
    def slippage_bps(self) -> Decimal | None:
        """Average fill against the mid at arrival, in basis points; positive is a cost."""
        if self.average_price is None or not self.expected_price:
            return None
        difference = (self.average_price - self.expected_price) * self.side.sign
        return difference / self.expected_price * _BPS

    @property
    def fees(self) -> dict[str, Decimal]:
        """Fees paid, by asset."""
        total: dict[str, Decimal] = {}
        for fill in self.fills:
            if fill.fee:
                total[fill.fee_asset] = total.get(fill.fee_asset, ZERO) + fill.fee
        return total

    def with_trace(self, trace: Sequence[HandlerTrace]) -> ExecutionResult:
        """Return a copy that carries the handlers' verdicts."""
        return msgspec.structs.replace(self, trace=tuple(trace))

    def with_alert(self, text: str) -> ExecutionResult:
        """Return a copy with one more alert."""
        return msgspec.structs.replace(self, alerts=(*self.alerts, text))

    def __str__(self) -> str:
        head = f"{self.outcome.value.upper()} {self.side.value} {self.symbol}"
        if self.filled:
            head += f" {plain(self.filled)}"
            if self.requested is not None and self.filled != self.requested:
                head += f" of {plain(self.requested)}"
            if self.average_price is not None:
                head += f" @ {plain(round(self.average_price, 8))}"
        elif self.requested is not None:
            head += f" {plain(self.requested)}"
        slippage = self.slippage_bps
        if slippage is not None:
            head += f", slippage {plain(round(slippage, 2))} bps"
        for asset, fee in self.fees.items():
            head += f", fee {plain(fee)} {asset}"
        if self.reason:
            head += f" - {self.reason}"
        lines = [head]
        lines += [
            f"  fill {plain(fill.quantity)} @ {plain(fill.price)} ({fill.trade_id})"
            for fill in self.fills
        ]
        lines += [f"  ALERT {text}" for text in self.alerts]
        lines += [f"  {entry}" for entry in self.trace]
        return "\n".join(lines)

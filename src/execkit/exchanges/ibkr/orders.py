"""What is known of each order: the sum of the raw messages about it, and what may be concluded from them.

Executions are the truth about quantities, because TWS may send no status at all for an order that is executed at once.
A status counts until the order has ended; afterwards only executions change anything. Orders of this client are known
by their order id, others by permId.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import attrs

from execkit.errors import ExchangeError
from execkit.exchanges.ibkr.seen import ExecutionSeen, OrderSeen, StatusSeen
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side
from execkit.numbers import MONEY, ZERO

TYPES: Final = {
    OrderType.MARKET: "MKT",
    OrderType.LIMIT: "LMT",
    OrderType.STOP: "STP",
    OrderType.STOP_LIMIT: "STP LMT",
    OrderType.TRAILING_STOP: "TRAIL",
}
_TYPE_OF: Final = {text: kind for kind, text in TYPES.items()}
_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)
_LIMITS: Final = (OrderType.LIMIT, OrderType.STOP_LIMIT)

_ENDS: Final = {
    "Filled": OrderState.FILLED,
    "Cancelled": OrderState.CANCELLED,
    "ApiCancelled": OrderState.CANCELLED,
}
_LIVE: Final = {
    "Submitted": OrderState.ACCEPTED,
    "PreSubmitted": OrderState.ACCEPTED,
    "PendingCancel": OrderState.PENDING_CANCEL,
    # TWS has it, the destination has not confirmed it.
    "PendingSubmit": OrderState.HELD,
    "ApiPending": OrderState.HELD,
    # Refused, or waiting for something: an error tells which, and without one it may still come to life.
    "Inactive": OrderState.HELD,
}
_TAKEN: Final = frozenset({"Submitted", "PreSubmitted", "PendingCancel"})


@attrs.define
class Execution:
    """One execution in its latest version. *base* is its id without the last part, which counts corrections."""

    base: str
    version: str
    seen: ExecutionSeen
    at: datetime
    arrived: float
    fee: Decimal | None = None
    fee_asset: str = ""
    told: Fill | None = None
    """As it was published last."""
    former: str | None = None
    """Trade id of what it replaces."""


@attrs.define(eq=False)
class Known:
    """One order."""

    ref: str
    symbol: str
    side: Side
    type: OrderType
    units: Decimal
    """Base units in one contract."""
    quantity: Decimal
    """In base units, as asked for; the venue's own reductions inside an OCA group do not show here."""
    contract: Any = None
    """As the message named it that made the order known; None where we have sent it."""
    client_id: int = 0
    order_id: int = 0
    perm_id: int = 0
    limit: Decimal | None = None
    stop: Decimal | None = None
    status: str = ""
    why_held: str = ""
    filled: Decimal = ZERO
    """As statuses say; executions may say more."""
    average: Decimal | None = None
    executions: dict[str, Execution] = attrs.field(factory=dict)
    refusal: str = ""
    """Text of the error that ended it."""
    refused: ExchangeError | None = None
    """That error, where there was one."""
    objection: ExchangeError | None = None
    """An error that would have refused it, had it not been live: of it, or of a change or a cancel of it."""
    undead: str = ""
    """The status in which TWS has shown it open after it had ended."""
    code: str | None = None
    note: str = ""
    is_crossed: bool = False
    """Its order id was shown with somebody else's orderRef last: a status under that id may not be ours."""
    sends: int = 0
    """How often this session has sent it."""
    shown: Any = None
    """ib_async's order object as TWS showed it last; what a change is a copy of."""
    answers: dict[str, ExchangeError] = attrs.field(factory=dict)
    """Errors that answer what is being asked of it: "place", "cancel" or "amend"."""
    asking: set[str] = attrs.field(factory=set)
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    last_told: OrderReport | None = None

    def count_in(self, units: Decimal) -> None:
        """Take over the base units of its contract, once these are known."""
        factor = MONEY.divide(units, self.units)
        self.units = units
        self.quantity = MONEY.multiply(self.quantity, factor)
        self.filled = MONEY.multiply(self.filled, factor)

    # -- what messages say -----------------------------------------------------------------------------

    def see_order(self, seen: OrderSeen) -> None:
        """Take in an openOrder or completedOrder."""
        self.perm_id = self.perm_id or seen.perm_id
        self.shown = self.shown if seen.is_completed else seen.raw
        if self.type in _LIMITS:
            self.limit = seen.limit
        if self.type in (OrderType.STOP, OrderType.STOP_LIMIT):
            self.stop = seen.aux
        elif self.type is OrderType.TRAILING_STOP:
            self.stop = seen.trail_stop
        if seen.filled is not None:
            self.filled = max(self.filled, seen.filled * self.units)
        if seen.is_completed and seen.status == "Inactive":
            self.refusal = self.refusal or seen.reason or "TWS ended it (Inactive)"
        self.see_status(seen.status, reason=seen.reason)

    def see_status(self, status: str, *, reason: str = "") -> None:
        """Take in a status word; one that comes after the end is late, or shows that it was none."""
        if self.has_ended and (self.status or self.refusal):
            self.undead = status if status in _TAKEN and not self._is_whole else ""
            return
        if status in _TAKEN:
            self.objection = None
        elif status == "Inactive" and self.objection is not None:
            self.refuse(self.objection)
        self.status = status
        self.note = reason or self.note
        self.changed.set()

    def refuse(self, error: ExchangeError) -> None:
        """End it with the error that refuses it."""
        self.refusal, self.refused, self.code = str(error), error, error.code

    def revive(self) -> None:
        """Take the end back: the venue lists it as open after all."""
        self.status, self.undead, self.refusal, self.refused = self.undead, "", "", None
        self.code = None

    def see_order_status(self, seen: StatusSeen) -> None:
        """Take in an orderStatus."""
        self.perm_id = self.perm_id or seen.perm_id
        self.why_held = seen.why_held
        if seen.filled * self.units >= self.filled:
            self.filled = seen.filled * self.units
            self.average = seen.average or self.average
        self.see_status(seen.status)

    def see_execution(self, seen: ExecutionSeen, at: datetime, arrived: float) -> Execution | None:
        """Take in an execution; return it when it is news."""
        base, _, version = seen.exec_id.rpartition(".")
        if not base or not version.isdigit():
            base, version = seen.exec_id, "01"
        known = self.executions.get(base)
        if known is not None and int(version) <= int(known.version):
            return None
        if known is None and not seen.quantity and int(version) <= 1:
            return None
        new = Execution(base, version, seen, at, arrived)
        if known is not None:
            new.told = known.told
            new.former = base if known.told is None else known.told.trade_id
            new.at = known.at
        elif int(version) > 1:
            # Of a session before; each version corrects the one before it, and the first has no number.
            former = int(version) - 1
            new.former = base if former == 1 else f"{base}.{former:0{len(version)}}"
        self.executions[base] = new
        self.perm_id = self.perm_id or seen.perm_id
        self.changed.set()
        return new

    # -- what follows from them ------------------------------------------------------------------------

    @property
    def executed(self) -> Decimal:
        """Sum of all executions, in base units."""
        total = sum((e.seen.quantity for e in self.executions.values()), ZERO)
        return MONEY.multiply(total, self.units)

    @property
    def filled_now(self) -> Decimal:
        """What is executed: by the executions, or by a status that is ahead of them."""
        if any(e.former is not None for e in self.executions.values()):
            return self.executed  # corrected: the sum of the status may be the old one
        return max(self.executed, self.filled)

    @property
    def has_ended(self) -> bool:
        """Tell whether the venue has shown that nothing more will be executed of it."""
        return bool(self.refusal) or self.status in _ENDS or self._is_whole

    @property
    def _is_whole(self) -> bool:
        return ZERO < self.quantity <= self.filled_now

    @property
    def is_taken(self) -> bool:
        """Tell whether TWS has shown it working: an error alone does not end it any more."""
        return self.status in _TAKEN and not self.has_ended

    @property
    def is_acknowledged(self) -> bool:
        """Tell whether TWS has shown the order in a state that is more than being on its way."""
        if not self.perm_id and not self.refusal:
            return False
        return (
            self.has_ended
            or bool(self.executions)
            or self.status not in ("", "PendingSubmit", "ApiPending")
        )

    @property
    def state(self) -> OrderState:
        """Where the order stands."""
        if self._is_whole:
            return OrderState.FILLED
        if self.refusal:
            return OrderState.REJECTED if not self.filled_now else OrderState.CANCELLED
        if self.status in _ENDS:
            # "Filled" below what was asked for: the rest was taken off by its OCA group.
            return OrderState.CANCELLED if self.filled_now else _ENDS[self.status]
        state = _LIVE.get(self.status)
        if state is None:
            return (
                OrderState.PARTIALLY_FILLED
                if not self.status and self.executed
                else OrderState.IN_DOUBT
            )
        if state is OrderState.ACCEPTED and self.status == "PreSubmitted" and self._is_held:
            return OrderState.HELD
        if state is OrderState.ACCEPTED and self.filled_now:
            return OrderState.PARTIALLY_FILLED
        return state

    @property
    def _is_held(self) -> bool:
        """Tell whether PreSubmitted means waiting for more than a stop's price."""
        return (bool(self.why_held) and self.why_held != "trigger") or self.type not in _STOPS

    def fill_of(self, execution: Execution) -> Fill:
        """Return an execution as a fill; a correction, or a fee that came late, replaces what was told before."""
        seen, told = execution.seen, execution.told
        trade_id = (
            execution.base
            if int(execution.version) <= 1
            else f"{execution.base}.{execution.version}"
        )
        replaces = execution.former
        fee = execution.fee or ZERO
        if told is not None and told.trade_id in (trade_id, f"{trade_id}.fee"):
            if (told.fee, told.fee_asset) == (fee, execution.fee_asset):
                return told
            replaces = trade_id if told.trade_id == trade_id else told.replaces
            trade_id = f"{trade_id}.fee"
        return Fill(
            trade_id=trade_id,
            client_order_id=self.ref,
            venue_order_id=str(seen.perm_id),
            symbol=self.symbol,
            side=Side.BUY if seen.side == "BOT" else Side.SELL,
            quantity=MONEY.multiply(seen.quantity, self.units),
            price=seen.price,
            at=execution.at,
            fee=fee,
            fee_asset=execution.fee_asset,
            replaces=replaces,
        )

    def report(self) -> OrderReport | None:
        """Return what is known of the order, without its fills; None when not even its terms are known."""
        if self.quantity <= ZERO:
            return None
        return OrderReport(
            client_order_id=self.ref,
            venue_order_id=str(self.perm_id) if self.perm_id else "",
            symbol=self.symbol,
            side=self.side,
            type=self.type,
            quantity=self.quantity,
            status=self.state,
            filled=self.filled_now,
            average_price=self._average(),
            limit_price=self.limit,
            stop_price=self.stop,
            reason=self.refusal or self.note,
            code=self.code,
            raw_status=self.status,
        )

    def _average(self) -> Decimal | None:
        total = sum((e.seen.quantity for e in self.executions.values()), ZERO)
        if total and MONEY.multiply(total, self.units) >= self.filled_now:
            worth = sum((e.seen.quantity * e.seen.price for e in self.executions.values()), ZERO)
            return round(worth / total, 8)
        return self.average or None


def type_of(text: str, limit: Decimal | None) -> OrderType:
    """Return execkit's kind of order; for one that it does not have the one that costs as much."""
    return _TYPE_OF.get(text) or (OrderType.LIMIT if limit else OrderType.MARKET)

"""The ticket: one request on its way through the chain. Handlers pass changed copies on."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from execkit.model.account import AccountView
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderRole, OrderState, OrderType, Side, TimeInForce
from execkit.model.position import Position, Target
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.signal import TradingSignal


class RiskStamp(msgspec.Struct, frozen=True):
    """Approval of a risk handler. It holds for this symbol and side, up to this quantity and price."""

    reservation_id: str
    symbol: str
    side: Side
    max_quantity: Decimal
    worst_price: Decimal
    """The least favourable price the approval covers; cost is bounded by quantity times this."""


class OrderHandle(Protocol):
    """What a ticket and a result know of an order: see `execkit.ManagedOrder`."""

    @property
    def client_order_id(self) -> str:
        """Our id."""
        ...

    @property
    def state(self) -> OrderState:
        """Where it stands."""
        ...

    @property
    def quantity(self) -> Decimal:
        """What was asked for."""
        ...

    @property
    def filled(self) -> Decimal:
        """What was executed."""
        ...

    @property
    def average_price(self) -> Decimal | None:
        """Mean price of its fills."""
        ...

    @property
    def fills(self) -> tuple[Fill, ...]:
        """Its executions."""
        ...

    @property
    def reason(self) -> str:
        """Last thing said of it."""
        ...


class OrderTicket(msgspec.Struct, frozen=True, kw_only=True):
    """A signal with everything the handlers judge it by. Frozen: use `evolve` for a changed copy."""

    signal: TradingSignal
    signal_id: str
    instrument: Instrument
    quote: Quote
    """Bid and ask when the signal arrived, or when it had waited; see `arrival_mid`."""
    account: AccountView
    position: Position | None
    """The open position of the symbol, or None when flat."""
    role: OrderRole
    side: Side
    type: OrderType
    quantity: Decimal | None
    """None until the risk handler has sized it."""
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: TimeInForce
    stop_loss: Decimal | None
    take_profit: Decimal | None
    created_at: datetime
    arrival: Decimal | None = None
    """Mid when the signal arrived, where *quote* is a later one."""
    targets: tuple[Target, ...] = ()
    """Exits in parts, in the place of *take_profit*."""
    extended_hours: bool = False
    """May also execute before and after the regular session."""
    cancel_at: datetime | None = None
    """When what rests of an entry is cancelled, e.g. at the close of its market."""
    queue_when_closed: bool = True
    """Whether it waits for the next opening where its market turns out to be closed."""
    stamp: RiskStamp | None = None
    order: OrderHandle | None = None
    """The order, once the executor has sent it."""
    parts: tuple[OrderHandle, ...] = ()
    """Orders before the last one, where the venue takes an exit in several only."""
    requested: Decimal | None = None
    """What an exit was for at first, where the venue takes less of it at once."""
    orders: tuple[str, ...] = ()
    """Client order ids of all tries, the last one last."""
    notes: tuple[str, ...] = ()
    context: dict[str, Any] = {}
    """Free for the application's own handlers."""

    @property
    def symbol(self) -> str:
        """The symbol of the signal."""
        return self.instrument.symbol

    @property
    def is_reduction(self) -> bool:
        """Tell whether it only makes a position smaller: such tickets pass every limit."""
        return self.role.is_reduction

    @property
    def arrival_mid(self) -> Decimal:
        """The mid when the signal arrived: slippage is measured against it, so that waiting shows in it too."""
        return self.quote.mid if self.arrival is None else self.arrival

    @property
    def reference_price(self) -> Decimal:
        """The price that judges the order: its limit, else its stop, else the touch it would take."""
        if self.limit_price is not None:
            return self.limit_price
        if self.stop_price is not None:
            return self.stop_price
        return self.quote.ask if self.side is Side.BUY else self.quote.bid

    def evolve(self, **changes: Any) -> OrderTicket:
        """Return a changed copy. A change that the risk stamp does not cover drops the stamp."""
        new: OrderTicket = msgspec.structs.replace(self, **changes)
        if new.stamp is not None and "stamp" not in changes and not new.is_covered:
            return msgspec.structs.replace(new, stamp=None)
        return new

    @property
    def is_covered(self) -> bool:
        """Tell whether the risk stamp covers the ticket as it is."""
        stamp = self.stamp
        if stamp is None or self.quantity is None:
            return False
        return (
            stamp.symbol == self.symbol
            and stamp.side is self.side
            and self.quantity <= stamp.max_quantity
            and self._price_is_covered(stamp)
        )

    def _price_is_covered(self, stamp: RiskStamp) -> bool:
        price = self.limit_price if self.limit_price is not None else self.stop_price
        if price is None:
            return True
        # For both sides a higher price means a larger notional.
        return price <= stamp.worst_price

    def note(self, text: str) -> OrderTicket:
        """Return a copy with a remark for the trace, e.g. a check that was skipped."""
        return msgspec.structs.replace(self, notes=(*self.notes, text))

    def with_order(self, order: OrderHandle) -> OrderTicket:
        """Return a copy that carries the sent order."""
        return msgspec.structs.replace(
            self, order=order, orders=(*self.orders, order.client_order_id)
        )

    def deny(self, code: DenialCode, /, **context: object) -> ExecutionResult:
        """Return the result that refuses this ticket; *context* names the value and the limit."""
        return self.deny_with(Denial.of(code, **context))

    def deny_with(self, denial: Denial) -> ExecutionResult:
        """Return the result that refuses this ticket with a denial made elsewhere."""
        return self.result(Outcome.DENIED, denial=denial)

    def result(
        self, outcome: Outcome, *, denial: Denial | None = None, reason: str = ""
    ) -> ExecutionResult:
        """Return a result for this ticket as it stands."""
        return ExecutionResult(
            signal_id=self.signal_id,
            symbol=self.symbol,
            side=self.side,
            outcome=outcome,
            denial=denial,
            reason=reason or ("" if denial is None else str(denial)),
            order=self.order,
            client_order_ids=self.orders,
            requested=self.quantity if self.requested is None else self.requested,
            expected_price=self.arrival_mid,
            created_at=self.created_at,
        )

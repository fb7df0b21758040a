"""What a person can do to a running engine from code; the same commands come from outside through `execkit.control`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from decimal import Decimal

from execkit import operations
from execkit.audit.logger import ExecutionLogger
from execkit.bars.evaluation import FunctionUse
from execkit.errors import ExecKitError
from execkit.handlers import amending
from execkit.handlers.desk import Desk
from execkit.model.instrument import Instrument
from execkit.model.order import OrderState
from execkit.orders.manager import ManagedOrder, OrderManager
from execkit.parts import Parts
from execkit.taking_out import Flattened


class ByHand(ABC):
    """The part of `ExecutionEngine` that acts at once and past every handler. Reductions are never held up."""

    desk: Desk
    parts: Parts

    @abstractmethod
    async def instrument(self, symbol: str) -> Instrument:
        """Return a symbol's rules."""

    @property
    def orders(self) -> OrderManager:
        """Orders by client order id."""
        return self.desk.book.orders

    @property
    def audit(self) -> ExecutionLogger:
        """What every function said at every close, and what came of it; `audit.log_error` adds to it."""
        recorder = self.desk.recorder
        return ExecutionLogger(recorder.journal, record=recorder.record)

    @property
    def function_health(self) -> list[FunctionUse]:
        """Every function at work for a plan: how often it was asked and failed, when last, how long it took."""
        runner = self.parts.runner
        return [] if runner is None else runner.health

    def last_evaluated(self, function: str) -> datetime | None:
        """Return when a function was last asked since the start, in whatever plan."""
        runner = self.parts.runner
        return None if runner is None else runner.last_evaluated(function)

    def can_open(self, symbol: str) -> tuple[bool, str]:
        """Tell whether an entry in *symbol* could be sent now, and if not, why.

        It is what the gateway and the limits of the chain say, of more of the position that there is or of a purchase;
        whether there is room for it depends on its size, and is not said.
        """
        equity = self.desk.book.equity(self.parts.currency)
        return operations.can_open(self.desk, symbol, self.parts.pipeline, equity)

    async def cancel(self, order: ManagedOrder | str, reason: str = "by hand") -> ManagedOrder:
        """Cancel an order, given itself or its client order id."""
        found = self._order(order)
        return await self.desk.gateway.cancel(found, reason)

    async def amend(
        self,
        order: ManagedOrder | str,
        *,
        limit_price: Decimal | None = None,
        quantity: Decimal | None = None,
        actor: str = "operator",
    ) -> ManagedOrder:
        """Change the limit price of an entry that rests, or make it smaller; the venue does it in place.

        *limit_price* in quote units, *quantity* the new total in base units, what is executed included. A price at
        which it is executed sooner is held, at prices of now, to halts, collars and the risk handler's limits as a new
        order is; handlers of other kinds are not asked. On return the order has its new terms, or shows that it was
        executed, or is in doubt until the venue shows which.

        Raises `ExecKitError` when it stays as it was, with the reason, e.g. because the venue cannot change orders.
        """
        found = self._order(order)
        desk = self.desk
        operations.note(desk, "amend", actor, order=found.client_order_id)
        instrument = await self.instrument(found.symbol)
        return await amending.amend(
            desk,
            self.parts.pipeline.handlers,
            found,
            instrument,
            lambda: desk.book.account(self.parts.currency, desk.ledger.reserved_cash),
            limit_price=limit_price,
            quantity=quantity,
            reason=f"changed by {actor}",
        )

    async def cancel_all(
        self, symbol: str | None = None, *, halt: bool = True, actor: str = "operator"
    ) -> list[ManagedOrder]:
        """Cancel every open order of ours, or of one symbol, at once and without waiting for handlers; return them.

        Stops and targets stay: no position is left without its stop; `flatten` takes both away. With *halt* nothing
        is entered any more, in that symbol or at all, until `resume`.
        """
        return await operations.cancel_all(self.desk, symbol, actor=actor, halt=halt)

    async def flatten(
        self, symbol: str | None = None, *, halt: bool = True, actor: str = "operator"
    ) -> Flattened:
        """Cancel all entries and close every position at the market, or those of one symbol; return what is left.

        No symbol waits for another. With *halt* nothing is entered any more, in that symbol or at all, until `resume`.
        What is left after 20 s goes on, until it is flat or the venue refuses to close it.
        """
        return await operations.flatten(self.desk, symbol, actor=actor, halt=halt)

    async def halt(self, cause: str, *, actor: str = "operator") -> None:
        """Stop everything that adds exposure, until `resume`; it survives a restart."""
        self.desk.gateway.halt(cause, actor=actor)
        await self.desk.recorder.settle()

    async def resume(self, *, actor: str = "operator", symbol: str | None = None) -> None:
        """Release the trading state, and the blocked symbols (or one of them)."""
        await operations.resume(self.desk, actor=actor, symbol=symbol)

    async def close_position(self, symbol: str, *, actor: str = "operator") -> Flattened:
        """Cancel what is under way in *symbol* and close its position at the market; return what is left.

        The next signal may enter it again; `flatten` keeps that from happening. Raises `ExecKitError` when there is
        nothing to close.
        """
        return await operations.close_position(self.desk, symbol, actor=actor)

    async def resolve(
        self, order: ManagedOrder | str, as_: OrderState, *, actor: str = "operator"
    ) -> ManagedOrder:
        """Settle an order in doubt by the word of a person who has looked at the venue.

        *as_* is PRESUMED_ABSENT (it never arrived; it is still watched for a day), CANCELLED, REJECTED or EXPIRED. The
        venue is asked once more first. Raises `ExecKitError` when the order is not in doubt, or the venue shows it.
        """
        found = self._order(order)
        return await operations.resolve(self.desk, found, as_, actor=actor)

    def _order(self, order: ManagedOrder | str) -> ManagedOrder:
        if not isinstance(order, str):
            return order
        if order not in self.orders:
            raise ExecKitError(f"order: {order!r} is not among the orders in memory")
        return self.orders[order]

"""ReconciliationHandler: the result says what the venue says.

It waits until the order has ended or rests, compares the fills with what was asked and expected, and has positions and
balances compared with the venue's own books.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import ClassVar

from execkit.errors import ConfigurationError
from execkit.handlers.desk import Desk
from execkit.model.events import SlippageAlert
from execkit.model.order import OrderState, Side
from execkit.model.result import ExecutionResult
from execkit.model.ticket import OrderTicket
from execkit.numbers import HUNDRED, non_negative, plain
from execkit.orders.manager import ManagedOrder
from execkit.pipeline import Next


class ReconciliationHandler:
    """Wait for what becomes of the order and check it.

    Args:
        verify_fill: Compare positions and balances with the venue after a fill. The comparison runs beside the order
            (shared by all fills of a moment); a difference is taken over, raises an alarm and is announced.
        max_price_slippage_pct: Slippage in percent of the arrival mid beyond which the result is marked.
        alert_slippage_pct: Slippage in percent beyond which an alert is raised.
        max_wait_time: Seconds to wait for the order; then the result says how it stands.
        poll_interval: Seconds between look-ups, only where no order stream tells first.
    """

    place: ClassVar = "after"

    def __init__(
        self,
        verify_fill: bool = True,
        max_price_slippage_pct: Decimal = Decimal("1.0"),
        alert_slippage_pct: Decimal = Decimal("0.5"),
        max_wait_time: float = 10.0,
        poll_interval: float = 0.5,
    ) -> None:
        non_negative("max_price_slippage_pct", max_price_slippage_pct)
        non_negative("alert_slippage_pct", alert_slippage_pct)
        non_negative("max_wait_time", str(max_wait_time))
        if poll_interval <= 0:
            raise ConfigurationError(f"poll_interval: {poll_interval} must be above zero")
        self.verify_fill = verify_fill
        self.max_price_slippage_pct = max_price_slippage_pct
        self.alert_slippage_pct = alert_slippage_pct
        self.max_wait_time = max_wait_time
        self.poll_interval = poll_interval
        self._desk: Desk | None = None

    def bind(self, desk: Desk) -> None:
        """Take the engine's services."""
        self._desk = desk

    @property
    def desk(self) -> Desk:
        """The engine's services."""
        if self._desk is None:
            raise ConfigurationError(
                "ReconciliationHandler: give the pipeline to an ExecutionEngine"
            )
        return self._desk

    async def __call__(self, ticket: OrderTicket, call_next: Next, /) -> ExecutionResult:
        """Wait for the order, build the result, and check it."""
        order = self.desk.book.orders.get(ticket.order.client_order_id) if ticket.order else None
        if order is None:
            return await call_next(ticket)
        deadline = asyncio.get_running_loop().time() + self.max_wait_time
        parts = [self.desk.book.orders.get(part.client_order_id) for part in ticket.parts]
        for each in (*filter(None, parts), order):
            if not _is_settled(each, ticket):
                await self._wait(each, ticket, deadline)
        result = await call_next(ticket)
        if result.filled and self.verify_fill:
            self.desk.reconciler.verify_soon(order.symbol)
        return self._check(result, order)

    async def _wait(self, order: ManagedOrder, ticket: OrderTicket, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        changes = self.desk.gateway.changes
        while not _is_settled(order, ticket):
            left = deadline - loop.time()
            if left <= 0:
                return
            step = left if self.desk.reconciler.stream_is_live else min(left, self.poll_interval)
            if not await changes.until(order, lambda o: _is_settled(o, ticket), step):
                if self.desk.reconciler.stream_is_live:
                    return
                await self.desk.resolver.look(order)

    def _check(self, result: ExecutionResult, order: ManagedOrder) -> ExecutionResult:
        if order.is_closed and order.filled < order.quantity and order.filled:
            result = result.with_alert(
                f"partly filled: {plain(order.filled)} of {plain(order.quantity)}, then {order.state}"
            )
        if order.filled > order.quantity:
            result = result.with_alert(
                f"overfilled: {plain(order.filled)} of {plain(order.quantity)}"
            )
        bps = result.slippage_bps
        if bps is None:
            return result
        slippage = bps / HUNDRED
        if slippage <= self.alert_slippage_pct:
            return result
        self.desk.recorder.announce(
            SlippageAlert(
                at=self.desk.clock.now(),
                signal_id=result.signal_id,
                symbol=result.symbol,
                client_order_id=order.client_order_id,
                slippage_pct=slippage,
            )
        )
        text = f"slippage {plain(round(slippage, 4))} %"
        if slippage > self.max_price_slippage_pct:
            return result.with_alert(
                f"{text} is beyond the maximum of {plain(self.max_price_slippage_pct)} %"
            )
        return result.with_alert(f"{text} is above {plain(self.alert_slippage_pct)} %")


def _is_settled(order: ManagedOrder, ticket: OrderTicket) -> bool:
    """Tell whether the caller can be told: the order has ended, or rests and was not meant to execute at once."""
    if order.is_closed or order.state is OrderState.PRESUMED_ABSENT:
        return True
    if order.state in (OrderState.NEW, OrderState.SUBMITTED, OrderState.IN_DOUBT):
        return False
    return not _is_marketable(order, ticket)


def _is_marketable(order: ManagedOrder, ticket: OrderTicket) -> bool:
    if order.request.is_marketable:
        return True
    if order.limit_price is None or order.stop_price is not None:
        return False
    if order.side is Side.BUY:
        return order.limit_price >= ticket.quote.ask
    return order.limit_price <= ticket.quote.bid

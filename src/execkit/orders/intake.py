"""Intake: takes in what a venue says of orders and fills, from wherever it comes.

Answers, stream, look-ups and reconciliation all end here, so the same news has the same effect whatever way it took.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from execkit.ids import is_ours
from execkit.model.order import Fill, OrderReport, OrderState
from execkit.model.records import Filled, Source
from execkit.numbers import ZERO, plain
from execkit.orders.manager import ManagedOrder
from execkit.orders.reconcile import is_plausible, problem_with, read_report
from execkit.orders.recorder import Recorder

log = structlog.get_logger("execkit")


class Intake:
    """Turns reports and fills into records, once each."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.book = recorder.book
        self.missing_hook: Callable[[ManagedOrder], Awaitable[bool]] | None = None
        """Fetches executions that the venue counts and we do not know."""

    async def absorb(self, report: OrderReport, source: Source) -> ManagedOrder | None:
        """Take in an order report from anywhere: answer, stream, look-up, reconcile. None: not our order."""
        order = self.book.orders.find(report.client_order_id, report.venue_order_id)
        if order is None:
            self._foreign(report)
            return None
        problem = problem_with(order, report)
        if problem is not None:
            self.recorder.alarm(
                "REPORT_DOUBTFUL",
                f"a report on {order.client_order_id} {problem}",
                symbol=order.symbol,
                client_order_id=order.client_order_id,
            )
            self.recorder.anomaly_hook(order.symbol, order.client_order_id)
            return order
        late = order.state is OrderState.PRESUMED_ABSENT
        reading = read_report(order, report, source)
        for change in reading.before:
            self.recorder.record(change)
        for fill in reading.fills:
            self.take_fill(fill.fill, source)
        if reading.fills_missing and not await self._fetch_missing(order, report):
            return order
        for change in reading.after:
            if not order.is_closed:
                self.recorder.record(change)
        if late and order.state is not OrderState.PRESUMED_ABSENT:
            self.recorder.alarm(
                "LATE_SIGHT",
                f"{order.client_order_id} was presumed absent and is {order.state}",
                symbol=order.symbol,
                client_order_id=order.client_order_id,
            )
        return order

    async def _fetch_missing(self, order: ManagedOrder, report: OrderReport) -> bool:
        """Get the executions that the venue counts beyond ours; without them the order cannot end."""
        try:
            if self.missing_hook is not None:
                await self.missing_hook(order)
        except Exception as error:  # noqa: BLE001 - reconciliation goes on asking
            log.warning("fills.missing", client_order_id=order.client_order_id, error=repr(error))
        if order.filled >= report.filled:
            return True
        self._alarm_on(
            order,
            "FILLS_MISSING",
            f"the venue filled {plain(report.filled)}, known {plain(order.filled)}",
        )
        self.recorder.anomaly_hook(order.symbol, order.client_order_id)
        return False

    def take_fill(self, fill: Fill, source: Source) -> bool:
        """Take in one execution from anywhere; return whether it was news about an order of ours."""
        order = self.book.orders.find(fill.client_order_id, fill.venue_order_id)
        if not is_plausible(fill) or (order is not None and fill.symbol != order.symbol):
            self.recorder.alarm("FILL_DOUBTFUL", f"impossible fill {fill!r}", symbol=fill.symbol)
            self.recorder.anomaly_hook(fill.symbol, fill.client_order_id)
            return False
        if order is None:
            if is_ours(fill.client_order_id):
                # Ours, but no longer in memory: the venue's position says what it amounts to.
                self.recorder.anomaly_hook(fill.symbol, fill.client_order_id)
            return False
        was = order.state
        if not self.recorder.record(Filled(fill=fill, source=source)):
            return False
        if order.filled > order.quantity:
            self._alarm_on(
                order, "OVERFILL", f"{plain(order.filled)} of {plain(order.quantity)} filled"
            )
        elif was.is_closed or fill.replaces is not None:
            self._alarm_on(order, "LATE_FILL", f"filled {plain(fill.quantity)} when it was {was}")
        return True

    def _alarm_on(self, order: ManagedOrder, code: str, text: str) -> None:
        self.recorder.alarm(
            code,
            f"{order.client_order_id}: {text}",
            symbol=order.symbol,
            client_order_id=order.client_order_id,
        )

    def _foreign(self, report: OrderReport) -> None:
        """Keep count of orders that are not ours; they are never touched."""
        if report.status.is_closed:
            self.book.foreign.pop(report.venue_order_id, None)
        elif report.quantity > ZERO:
            self.book.foreign[report.venue_order_id] = report

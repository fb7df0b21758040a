"""Intake: takes in what a venue says of orders and fills, from wherever it comes.

Answers, stream, look-ups and reconciliation all end here, so the same news has the same effect whatever way it took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, TypeVar

import structlog

from execkit.ids import is_ours
from execkit.model.order import Fill, OrderReport, OrderState
from execkit.model.records import Filled, Source, SymbolBlocked
from execkit.numbers import ZERO, plain
from execkit.orders.corrections import Corrections, Waiting, is_of, nothing
from execkit.orders.manager import ManagedOrder
from execkit.orders.reconcile import is_plausible, is_zombie, problem_with, read_report
from execkit.orders.recorder import Recorder
from execkit.orders.shape import malformed_fill, malformed_report
from execkit.redaction import shown

log = structlog.get_logger("execkit")

T = TypeVar("T")

_SETTLED_AFTER: Final = timedelta(seconds=60)


class Intake:
    """Turns reports and fills into records, once each."""

    def __init__(self, recorder: Recorder, *, answers_lag: timedelta = timedelta(0)) -> None:
        self.recorder = recorder
        self.answers_lag = answers_lag
        """How long the venue's answers may be behind what it has told before."""
        self.book = recorder.book
        self.missing_hook: Callable[[ManagedOrder], Awaitable[bool]] | None = None
        """Fetches executions that the venue counts and we do not know."""
        self.trace_hook: Callable[[ManagedOrder], None] = lambda _order: None
        """Asks for an order's executions until `corrections` has none of it that waits."""
        self.corrections = Corrections(self.book)
        self.zombie_hook: Callable[[ManagedOrder, OrderReport], None] = lambda _order, _report: None
        """Called with an order that is closed here and, by newer word, open at the venue."""
        self.foreign_hook: Callable[[], None] = lambda: None
        """Called when the stream has told of an order that is not ours."""
        self._doubts: dict[str, str] = {}
        """What was wrong with the last report on an order, so that a person is told of each thing once."""
        self._missing: dict[str, Decimal] = {}
        """How much the venue had filled when a person was told that executions are missing, by order."""

    @property
    def misses_fills(self) -> bool:
        """Tell whether the venue has counted executions that it has not shown yet."""
        known = ((self.book.orders.get(key), total) for key, total in self._missing.items())
        return any(order is not None and order.filled < total for order, total in known)

    async def absorb(self, report: OrderReport, source: Source) -> ManagedOrder | None:
        """Take in an order report from anywhere: answer, stream, look-up, reconcile. None: not our order."""
        if self._is_malformed(malformed_report(report)):
            return None
        order = self._order_of(report)
        if order is None:
            self._foreign(report, source)
            return None
        problem = problem_with(order, report)
        if problem is not None:
            if self._doubts.get(order.client_order_id) != problem:
                self._doubts = self._of_known(self._doubts)
                self._doubts[order.client_order_id] = problem
                self._alarm_on(order, "REPORT_DOUBTFUL", f"a report on it {problem}")
            self.recorder.anomaly_hook(order.symbol, order.client_order_id)
            return order
        self._doubts.pop(order.client_order_id, None)
        settled = self.recorder.clock.now() - self.answers_lag - _SETTLED_AFTER
        if is_zombie(order, report, source, ended_before=settled):
            self.zombie_hook(order, report)
        late = order.state is OrderState.PRESUMED_ABSENT
        reading = read_report(order, report, source, settled=settled)
        is_larger, text = reading.altered.is_larger_than(order), reading.altered.text(order)
        for change in reading.before:
            self.recorder.record(change)
        if reading.altered:
            self._tell_altered(order, text, is_larger=is_larger)
        for fill in reading.fills:
            self.take_fill(fill.fill, source)
        is_short = reading.fills_missing or self.corrections.of(order)
        if is_short and not await self._fetch_missing(order, report):
            return order
        for change in reading.after:
            if not order.is_closed:
                self.recorder.record(change)
        if late and order.state is not OrderState.PRESUMED_ABSENT:
            self._alarm_on(order, "LATE_SIGHT", f"was presumed absent and is {order.state}")
        return order

    def _tell_altered(self, order: ManagedOrder, text: str, *, is_larger: bool) -> None:
        """Tell a person of a change that nobody here asked for; one that may execute more blocks the symbol."""
        self._alarm_on(order, "ORDER_ALTERED", f"the venue shows it with {text}")
        if is_larger:
            self._block(order, f"{order.client_order_id}: {text}")
        self.recorder.anomaly_hook(order.symbol, order.client_order_id)

    def _block(self, order: ManagedOrder, cause: str) -> None:
        """Take no more entries for an order's symbol until a person releases it."""
        if order.symbol not in self.book.blocked:
            self.recorder.record(SymbolBlocked(symbol=order.symbol, blocked=True, cause=cause))

    def _is_malformed(self, problem: str | None) -> bool:
        """Tell whether news are not even in the form of news; then the venue has to be asked."""
        if problem is not None:
            self.recorder.alarm("NEWS_MALFORMED", f"news from the venue: one {problem}")
            self.recorder.anomaly_hook("", "")
        return problem is not None

    async def _fetch_missing(self, order: ManagedOrder, report: OrderReport) -> bool:
        """Get the executions that the venue counts beyond ours; without them the order cannot end."""
        try:
            if self.missing_hook is not None:
                await self.missing_hook(order)
        except Exception as error:  # noqa: BLE001 - reconciliation goes on asking
            log.warning("fills.missing", client_order_id=order.client_order_id, error=shown(error))
        if order.filled >= report.filled:
            self._missing.pop(order.client_order_id, None)
            return True
        if self._missing.get(order.client_order_id) != report.filled:
            self._missing = self._of_known(self._missing)
            self._missing[order.client_order_id] = report.filled
            self._alarm_on(
                order,
                "FILLS_MISSING",
                f"the venue filled {plain(report.filled)}, known {plain(order.filled)}",
            )
        self.recorder.anomaly_hook(order.symbol, order.client_order_id)
        return False

    def take_fill(self, fill: Fill, source: Source, *, is_listed: bool = False) -> bool:
        """Take in one execution from anywhere; return whether it was news about an order of ours.

        *is_listed* tells that the venue lists it among its executions.
        """
        if self._is_malformed(malformed_fill(fill)):
            return False
        order = self._order_of(fill)
        if not is_plausible(fill) or (
            order is not None and (fill.symbol, fill.side) != (order.symbol, order.side)
        ):
            self.recorder.alarm("FILL_DOUBTFUL", f"impossible fill {fill!r}", symbol=fill.symbol)
            self.recorder.anomaly_hook(fill.symbol, fill.client_order_id)
            return False
        if order is None:
            if source is Source.STREAM and (
                is_ours(fill.client_order_id) or not fill.client_order_id
            ):
                # Ours, but no longer in memory, or not yet known by the venue's id: a pass will tell.
                self.recorder.anomaly_hook(fill.symbol, fill.client_order_id)
            return False
        if self.book.knows_fill(fill):
            self._note_gone(order, fill, source)
            return False
        is_sure = is_listed and fill.replaces is None
        if not is_sure and not self.corrections.is_clear(order, fill):
            self.corrections.hold(order, Waiting(fill, source, asyncio.get_running_loop().time()))
            self.trace_hook(order)
            return False
        self.corrections.drop(order, fill.trade_id)
        if not self._count(order, fill, source):
            return False
        self._take_ready(order)
        return True

    def take_fills(self, shown: Sequence[Fill], source: Source, *, covers: datetime) -> bool:
        """Take in a list of the venue's, complete from *covers* on; return whether there was news of orders of ours.

        It also places executions that wait; see `Corrections.decide`.
        """
        news = False
        for fill in shown:
            news = self.take_fill(fill, source, is_listed=True) or news
        for order in self.corrections.orders:
            mine = [fill for fill in shown if is_of(fill, order)]
            for waiting, counted in self.corrections.decide(order, mine, covers):
                self.corrections.drop(order, waiting.fill.trade_id)
                self._count(order, counted, waiting.source)
                self._note_gone(order, waiting.fill, waiting.source)
                news = True
            self._take_ready(order)
        return news

    def _note_gone(self, order: ManagedOrder, fill: Fill, source: Source) -> None:
        """Note what a correction replaces and nobody has shown, so that a late sight of it is no news."""
        gone = fill.replaces
        if gone is not None and not self.book.positions.knows(order.symbol, gone, order.side):
            self.recorder.record(Filled(fill=nothing(fill, gone), source=source))

    def _take_ready(self, order: ManagedOrder) -> None:
        while (ready := self.corrections.ready(order)) is not None:
            self.take_fill(ready.fill, ready.source)

    def give_up_corrections(self, order: ManagedOrder) -> None:
        """Wait no more for what the venue does not list for long: the comparison of positions has to do."""
        patience = (self.answers_lag + _SETTLED_AFTER).total_seconds()
        for waiting in self.corrections.of(order):
            if asyncio.get_running_loop().time() - waiting.since > patience:
                fill = waiting.fill
                self.corrections.drop(order, fill.trade_id)
                text = (
                    f"{fill.trade_id} ({fill.replaces} before) is not among the venue's executions"
                )
                self._alarm_on(order, "CORRECTION_UNPLACED", text)

    def _count(self, order: ManagedOrder, fill: Fill, source: Source) -> bool:
        """Record an execution of an order, and tell a person of one that is out of the ordinary."""
        was, replaced = order.state, order.trades.get(fill.replaces or "")
        if not self.recorder.record(Filled(fill=fill, source=source)):
            return False
        if order.filled > order.quantity_at_most:
            text = f"{plain(order.filled)} of {plain(order.quantity)} filled"
            self._alarm_on(order, "OVERFILL", text)
            self._block(order, f"{order.client_order_id}: {text}")
        elif was is OrderState.PRESUMED_ABSENT:
            self._alarm_on(order, "LATE_SIGHT", f"was presumed absent and is {order.state}")
        elif replaced is not None and _differ_in_fee_only(replaced, fill):
            pass  # a commission that came after its execution, as it often does
        elif was.is_closed or fill.replaces is not None:
            self._alarm_on(order, "LATE_FILL", f"filled {plain(fill.quantity)} when it was {was}")
        return True

    def _order_of(self, news: OrderReport | Fill) -> ManagedOrder | None:
        order = self.book.orders.find(news.client_order_id, news.venue_order_id)
        if order is None or order.client_order_id == news.client_order_id:
            return order
        # Found by the venue's id: some venues count these by symbol.
        return order if order.symbol == news.symbol else None

    def _of_known(self, told: dict[str, T]) -> dict[str, T]:
        """Return what was told of the orders that are still in memory."""
        return {key: what for key, what in told.items() if key in self.book.orders}

    def _alarm_on(self, order: ManagedOrder, code: str, text: str) -> None:
        self.recorder.alarm(
            code,
            f"{order.client_order_id}: {text}",
            symbol=order.symbol,
            client_order_id=order.client_order_id,
        )

    def _foreign(self, report: OrderReport, source: Source) -> None:
        """Keep count of orders that are not ours; they are never touched."""
        if report.status.is_closed:
            self.book.foreign.pop(report.venue_order_id, None)
        elif report.quantity > ZERO:
            self.book.foreign[report.venue_order_id] = report
        if source is Source.STREAM:
            self.foreign_hook()


def _differ_in_fee_only(old: Fill, new: Fill) -> bool:
    return (old.quantity, old.price) == (new.quantity, new.price)

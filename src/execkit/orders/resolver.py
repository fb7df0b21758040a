"""The resolver: asks the venue what became of an order until there is proof.

Proof of presence is any sight of the order: by client id, among the open orders, or in a fill. Proof of absence needs
all of these queries to succeed, to have begun after the venue's absence window, and to show nothing. A failed query is
no answer, and an order that was sent again and called a duplicate is there, whatever the queries show. Without proof
the order stays in doubt, counts in exposure and blocks its symbol for entries.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import Enum
from typing import Final

import structlog

from execkit.errors import DuplicateClientOrderIdError, OrderNotFoundError
from execkit.model.order import OrderEvent, OrderReport, OrderState
from execkit.model.records import CommandSent, Record, Source
from execkit.orders.corrections import is_of
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.orders.reconcile import problem_with
from execkit.orders.shape import malformed_report
from execkit.redaction import shown

log = structlog.get_logger("execkit")

SCHEDULE: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between looks, widening; the last one repeats."""

_OVERLAP: Final = timedelta(seconds=60)
"""How far before an order's first send fills are fetched: clocks differ."""

_FAR_BACK: Final = timedelta(days=1)
"""The same, where executions are known to be missing: a clock may have been stepped."""

_RESTING: Final = frozenset({OrderState.HELD, OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED})

_UNPROVEN: Final = frozenset({OrderState.IN_DOUBT, OrderState.PENDING_CANCEL})

_UNCHANGED_AFTER: Final = 60.0
"""Seconds after which an order that is shown as it was counts as not changed, where the venue states no window."""

ALARM_AFTER: Final = 5
"""Looks without proof after which a person is told."""


class Sight(Enum):
    """What one look at the venue showed."""

    FOUND = "found"
    NOTHING = "nothing"
    BLIND = "blind"
    """A query failed, so nothing follows."""


class Resolver:
    """Follows every order in doubt, and every cancel whose outcome is unknown, in a task of its own."""

    def __init__(
        self, gateway: OrderGateway, *, read_timeout: timedelta = timedelta(seconds=10)
    ) -> None:
        self.gateway = gateway
        self.adapter = gateway.adapter
        self.recorder = gateway.recorder
        self._read_timeout = read_timeout.total_seconds()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._traces: dict[str, asyncio.Task[None]] = {}
        self._lost_at: dict[str, tuple[int, CommandSent | None, float]] = {}
        """Number of the last send, the last change that was asked for, and when their outcome became doubtful."""
        self._stopped = False
        self.recorder.listen(self._on_record)
        gateway.doubt_hook = self.follow
        gateway.intake.missing_hook = self._fetch_missing
        gateway.intake.trace_hook = self.trace

    def _on_record(self, _record: Record, order: ManagedOrder | None) -> None:
        """An order that somebody wanted to cancel has shown up, or its cancel was refused: carry it through."""
        if order is not None and order.cancel_asked and order.state in _RESTING:
            self.follow(order)

    def follow(self, order: ManagedOrder) -> None:
        """Start to ask about an order, unless that is under way."""
        if self._stopped:
            return
        key = order.client_order_id
        loop = asyncio.get_running_loop()
        if key not in self._lost_at or self._lost_at[key][0] != order.attempts:
            self._lost_at[key] = (order.attempts, order.asked, loop.time())
        elif order.asked is not None and self._lost_at[key][1] is not order.asked:
            # Another change was lost while this task still follows the one before.
            self._lost_at[key] = (order.attempts, order.asked, loop.time())
        if key not in self._tasks:
            self._tasks[key] = loop.create_task(self._resolve(order))

    def trace(self, order: ManagedOrder) -> None:
        """Fetch an order's executions until no correction of it waits for the one it replaces."""
        key = order.client_order_id
        if not self._stopped and key not in self._traces:
            self._traces[key] = asyncio.get_running_loop().create_task(self._trace(order))

    async def _trace(self, order: ManagedOrder) -> None:
        try:
            looks = 0
            while self.gateway.intake.corrections.of(order):
                if looks:
                    await asyncio.sleep(SCHEDULE[min(looks, len(SCHEDULE)) - 1])
                looks += 1
                try:
                    await self._fetch_missing(order)
                    self.gateway.intake.give_up_corrections(order)
                except Exception as error:  # noqa: BLE001 - it asks again
                    key = order.client_order_id
                    log.info("trace.failed", client_order_id=key, error=shown(error))
                await self.recorder.try_settle()
        finally:
            del self._traces[order.client_order_id]

    async def settled(self, order: ManagedOrder, timeout: float) -> bool:
        """Wait until an order is no longer in doubt; return False when *timeout* seconds pass first."""
        return await self.gateway.changes.until(order, lambda o: not needs_proof(o), timeout)

    async def stop(self) -> None:
        """End all tasks; the orders stay as they are."""
        self._stopped = True
        tasks = [*self._tasks.values(), *self._traces.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, order: ManagedOrder) -> None:
        try:
            await self._ask(order)
        finally:
            # In the same step in which the asking ends, so that the next doubt starts it anew.
            del self._tasks[order.client_order_id]
            del self._lost_at[order.client_order_id]

    async def _ask(self, order: ManagedOrder) -> None:
        looks = 0
        if order.state is not OrderState.IN_DOUBT:
            await asyncio.sleep(SCHEDULE[0])  # a cancel or a change takes a moment to show
        while needs_proof(order):
            try:
                await self._step(order)
            except Exception as error:  # noqa: BLE001 - it asks again
                log.warning(
                    "resolver.failed", client_order_id=order.client_order_id, error=shown(error)
                )
            looks += 1
            if looks == ALARM_AFTER and needs_proof(order):
                self.recorder.alarm(
                    "IN_DOUBT",
                    f"{order!r}: the venue has not shown what became of it; asking on",
                    symbol=order.symbol,
                    client_order_id=order.client_order_id,
                )
            if needs_proof(order):
                await self._pause(order, SCHEDULE[min(looks, len(SCHEDULE)) - 1])

    async def _pause(self, order: ManagedOrder, seconds: float) -> None:
        """Wait; any news of the order, from the stream for instance, ends the wait."""
        before = order.state
        await self.gateway.changes.until(order, lambda o: o.state is not before, seconds)

    async def _step(self, order: ManagedOrder) -> None:
        began = asyncio.get_running_loop().time()
        sight = await self.look(order)
        _, asked, lost_at = self._lost_at[order.client_order_id]
        doubted_for = began - lost_at
        window = self.adapter.capabilities.absence_window
        if sight is Sight.NOTHING and order.state in _UNPROVEN:
            waited = window is not None and doubted_for >= window.total_seconds()
            proves = waited and self._reaches_back_to(order)
            if proves and not _has_arrived(order):
                text = "not among open or closed orders nor fills"
                self.recorder.record(order.record_of(OrderEvent.ABSENT, Source.LOOKUP, text))
        elif order.cancel_asked and (
            order.state in _RESTING
            or (order.state is OrderState.PENDING_CANCEL and sight is Sight.FOUND)
        ):
            # Alive although a cancel was asked for: that was lost, refused, or too early. Ask again.
            await self.gateway.cancel(order, "the earlier cancel had no effect")
        elif (
            order.asked is not None
            and order.asked is asked  # else the next one is on its way
            and sight is Sight.FOUND
            and doubted_for >= (_UNCHANGED_AFTER if window is None else window.total_seconds())
        ):
            text = "the venue shows the order unchanged"
            self.recorder.record(order.record_of(OrderEvent.REFUSE_AMEND, Source.LOOKUP, text))
            # Terms that nobody asked for show only when nothing is asked any more.
            self.recorder.anomaly_hook(order.symbol, order.client_order_id)
        await self.recorder.try_settle()

    def _reaches_back_to(self, order: ManagedOrder) -> bool:
        """Tell whether the venue would still show an order that had ended as soon as it was sent."""
        lasts = self.adapter.capabilities.lookup_lasts
        return lasts is None or self.recorder.clock.now() - order.created_at < lasts

    async def look(self, order: ManagedOrder) -> Sight:
        """Ask the venue for an order in every place where it could show, and take in what it says."""
        sight = Sight.NOTHING
        if self.adapter.capabilities.lookup_by_client_id or order.venue_order_id:
            sight = await self._look_by_id(order)
            if sight is Sight.FOUND:
                return sight
        for found in (await self._look_in_open(order), await self._look_in_fills(order)):
            if found is Sight.FOUND:
                return found
            if found is Sight.BLIND:
                sight = found
        return sight

    async def _look_by_id(self, order: ManagedOrder) -> Sight:
        try:
            report = await self.gateway.pace.ask(
                self.adapter.get_order,
                self._read_timeout,
                order.symbol,
                client_order_id=order.client_order_id,
                venue_order_id=order.venue_order_id,
            )
        except OrderNotFoundError:
            return Sight.NOTHING
        except Exception as error:  # noqa: BLE001 - no answer is no evidence
            log.info("lookup.failed", client_order_id=order.client_order_id, error=shown(error))
            return Sight.BLIND
        return await self._take(order, report)

    async def _look_in_open(self, order: ManagedOrder) -> Sight:
        try:
            reports = await self.gateway.pace.ask(
                self.adapter.open_orders, self._read_timeout, order.symbol
            )
        except Exception as error:  # noqa: BLE001 - no answer is no evidence
            log.info("lookup.failed", client_order_id=order.client_order_id, error=shown(error))
            return Sight.BLIND
        for report in reports:
            if order.client_order_id == report.client_order_id or (
                order.venue_order_id and order.venue_order_id == report.venue_order_id
            ):
                return await self._take(order, report)
        return Sight.NOTHING

    async def _look_in_fills(self, order: ManagedOrder) -> Sight:
        try:
            found = await self.fetch_fills(order)
        except Exception as error:  # noqa: BLE001 - no answer is no evidence
            log.info("lookup.failed", client_order_id=order.client_order_id, error=shown(error))
            return Sight.BLIND
        return Sight.FOUND if found else Sight.NOTHING

    async def _take(self, order: ManagedOrder, report: OrderReport) -> Sight:
        """Take in a report that answers a look-up; one about something else is no answer."""
        is_answer = malformed_report(report) is None and problem_with(order, report) is None
        await self.gateway.absorb(report, Source.LOOKUP)
        return Sight.FOUND if is_answer else Sight.BLIND

    async def _fetch_missing(self, order: ManagedOrder) -> bool:
        # The venue says there are some. Our clock may have been ahead of its own, so look far back.
        return await self.fetch_fills(order, overlap=_FAR_BACK)

    async def fetch_fills(self, order: ManagedOrder, *, overlap: timedelta = _OVERLAP) -> bool:
        """Fetch an order's executions from the venue; return whether it has any."""
        since = (order.sent_at or order.created_at) - overlap
        fills = await self.gateway.pace.ask(
            self.adapter.fills_since, self._read_timeout, since, order.symbol
        )
        mine = [fill for fill in fills if is_of(fill, order)]
        covers = since + overlap / 2
        self.gateway.intake.take_fills(mine, Source.LOOKUP, covers=covers)
        return bool(mine)


def _has_arrived(order: ManagedOrder) -> bool:
    """Tell whether the venue has said of an order that was sent again that it has one of this id.

    Of a first send that is no proof: the id may be somebody else's (TWS counts its own), and one that the network
    brought twice shows within the venue's window like any other.
    """
    duplicate = DuplicateClientOrderIdError.__name__
    return order.attempts > 1 and any(error.startswith(duplicate) for error in order.errors)


def needs_proof(order: ManagedOrder) -> bool:
    """Tell whether the venue must be asked about an order: it, its cancel or its change may have had an effect."""
    if order.state in _UNPROVEN:
        return True
    return order.state in _RESTING and (order.cancel_asked or order.asked is not None)

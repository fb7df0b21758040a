"""The resolver: asks the venue what became of an order until there is proof.

Proof of presence is any sight of the order: by client id, among the open orders, or in a fill. Proof of absence needs
all of these queries to succeed, to have begun after the venue's absence window, and to show nothing. A failed query is
no answer. Without proof the order stays in doubt, counts in exposure and blocks its symbol for entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from enum import Enum
from typing import Final, TypeVar

import structlog

from execkit.errors import OrderNotFoundError
from execkit.model.order import OrderEvent, OrderReport, OrderState
from execkit.model.records import OrderChanged, Source
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder

log = structlog.get_logger("execkit")

T = TypeVar("T")

SCHEDULE: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between looks, widening; the last one repeats."""

_OVERLAP: Final = timedelta(seconds=60)
"""How far before an order's first send fills are fetched: clocks differ."""

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
        self._lost_at: dict[str, float] = {}
        gateway.doubt_hook = self.follow
        gateway.intake.missing_hook = self.fetch_fills

    def follow(self, order: ManagedOrder) -> None:
        """Start to ask about an order, unless that is under way."""
        loop = asyncio.get_running_loop()
        key = order.client_order_id
        self._lost_at.setdefault(key, loop.time())
        if key not in self._tasks:
            task = self._tasks[key] = loop.create_task(self._resolve(order))
            task.add_done_callback(lambda _done: self._tasks.pop(key, None))

    async def settled(self, order: ManagedOrder, timeout: float) -> bool:
        """Wait until an order is no longer in doubt; return False when *timeout* seconds pass first."""
        return await self.gateway.changes.until(order, lambda o: not needs_proof(o), timeout)

    async def stop(self) -> None:
        """End all tasks; the orders stay as they are."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, order: ManagedOrder) -> None:
        looks = 0
        while needs_proof(order):
            wait = SCHEDULE[min(looks, len(SCHEDULE) - 1)]
            if looks:
                # Any news of the order, from the stream for instance, ends the wait.
                await self.gateway.changes.until(order, lambda o: not needs_proof(o), wait)
                if not needs_proof(order):
                    break
            try:
                await self._step(order)
            except Exception:
                log.exception("resolver.failed", client_order_id=order.client_order_id)
            looks += 1
            if looks == ALARM_AFTER and needs_proof(order):
                self.recorder.alarm(
                    "IN_DOUBT",
                    f"{order!r}: the venue has not shown what became of it; asking on",
                    symbol=order.symbol,
                    client_order_id=order.client_order_id,
                )
        self._lost_at.pop(order.client_order_id, None)

    async def _step(self, order: ManagedOrder) -> None:
        began = asyncio.get_running_loop().time()
        sight = await self.look(order)
        if sight is Sight.NOTHING and self._window_is_over(order, began):
            if order.state in (OrderState.IN_DOUBT, OrderState.PENDING_CANCEL):
                self.recorder.record(
                    OrderChanged(
                        client_order_id=order.client_order_id,
                        event=OrderEvent.ABSENT,
                        source=Source.LOOKUP,
                        reason="not among open or closed orders nor fills",
                    )
                )
        elif (
            sight is Sight.FOUND
            and order.cancel_asked
            and not order.is_closed
            and not needs_proof_of_send(order)
        ):
            # Seen alive although a cancel was asked for: the cancel was lost or refused. Ask again.
            await self.gateway.cancel(order, "the earlier cancel had no effect")
        await self.recorder.settle()

    def _window_is_over(self, order: ManagedOrder, began: float) -> bool:
        window = self.adapter.capabilities.absence_window
        if window is None:
            return False
        lost_at = self._lost_at.get(order.client_order_id, began)
        return began >= lost_at + window.total_seconds()

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
            report = await self._bounded(
                self.adapter.get_order(
                    order.symbol,
                    client_order_id=order.client_order_id,
                    venue_order_id=order.venue_order_id,
                )
            )
        except OrderNotFoundError:
            return Sight.NOTHING
        except Exception as error:  # noqa: BLE001 - no answer is no evidence
            log.info("lookup.failed", client_order_id=order.client_order_id, error=repr(error))
            return Sight.BLIND
        return await self._take(order, report)

    async def _look_in_open(self, order: ManagedOrder) -> Sight:
        try:
            reports = await self._bounded(self.adapter.open_orders(order.symbol))
        except Exception as error:  # noqa: BLE001 - no answer is no evidence
            log.info("lookup.failed", client_order_id=order.client_order_id, error=repr(error))
            return Sight.BLIND
        for report in reports:
            if report.client_order_id == order.client_order_id:
                return await self._take(order, report)
        return Sight.NOTHING

    async def _look_in_fills(self, order: ManagedOrder) -> Sight:
        try:
            found = await self.fetch_fills(order)
        except Exception as error:  # noqa: BLE001 - no answer is no evidence
            log.info("lookup.failed", client_order_id=order.client_order_id, error=repr(error))
            return Sight.BLIND
        return Sight.FOUND if found else Sight.NOTHING

    async def _take(self, order: ManagedOrder, report: OrderReport) -> Sight:
        """Take in a report that answers a look-up; one about something else is no answer."""
        before = self.recorder.journal.last_seq
        taken = await self.gateway.absorb(report, Source.LOOKUP)
        if taken is not order or (needs_proof(order) and self.recorder.journal.last_seq != before):
            return Sight.BLIND
        return Sight.FOUND

    async def fetch_fills(self, order: ManagedOrder) -> bool:
        """Fetch an order's executions from the venue; return whether it has any."""
        since = (order.sent_at or order.created_at) - _OVERLAP
        fills = await self._bounded(self.adapter.fills_since(since, order.symbol))
        found = False
        for fill in fills:
            mine = fill.client_order_id == order.client_order_id or (
                bool(order.venue_order_id) and fill.venue_order_id == order.venue_order_id
            )
            if mine:
                found = True
                self.gateway.intake.take_fill(fill, Source.LOOKUP)
        return found

    async def _bounded(self, call: Awaitable[T]) -> T:
        async with asyncio.timeout(self._read_timeout):
            return await call


def needs_proof_of_send(order: ManagedOrder) -> bool:
    """Tell whether it is unknown if the venue has the order at all."""
    return order.state is OrderState.IN_DOUBT


def needs_proof(order: ManagedOrder) -> bool:
    """Tell whether the venue must be asked about an order."""
    return order.state in (OrderState.IN_DOUBT, OrderState.PENDING_CANCEL)

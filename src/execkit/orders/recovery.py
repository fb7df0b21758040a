"""The reconciler: makes our books and the venue's agree - at the start, after a reconnect, on a period, on suspicion.

The order is always the same: orders, then fills, then positions and balances, then protection; entries are let through
only after a pass that succeeded. A query that failed says nothing: it is never an empty answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, TypeVar

import structlog

from execkit.model.events import ReconcileMismatch
from execkit.model.order import OrderEvent, OrderState
from execkit.model.records import (
    BalancesSeen,
    ExternalChange,
    OrderChanged,
    Source,
)
from execkit.numbers import ZERO, plain
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.orders.positions import split_symbol
from execkit.orders.resolver import Resolver, Sight

log = structlog.get_logger("execkit")

T = TypeVar("T")

_OVERLAP: Final = timedelta(minutes=5)
"""How far before the last known moment fills are fetched again; those known already change nothing."""

_WATCH_FOR: Final = timedelta(hours=24)
"""How long an order presumed absent is watched for a late sight."""

_QUIET: Final = timedelta(seconds=2)
"""A symbol whose orders moved within this time is not compared: the venue's books may lag behind its fills."""


_UNSETTLED: Final = frozenset({OrderState.NEW, OrderState.SUBMITTED, OrderState.IN_DOUBT})
_RESTING: Final = frozenset(
    {OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED, OrderState.HELD, OrderState.PENDING_AMEND}
)


class Reconciler:
    """Compares and repairs. *stream_is_live* tells whether the order stream confirms by itself."""

    def __init__(
        self,
        gateway: OrderGateway,
        resolver: Resolver,
        *,
        read_timeout: timedelta = timedelta(seconds=10),
        protect: Callable[[str], None] = lambda _symbol: None,
        on_foreign: Callable[[], None] = lambda: None,
    ) -> None:
        self.gateway = gateway
        self.adapter = gateway.adapter
        self.book = gateway.book
        self.recorder = gateway.recorder
        self.resolver = resolver
        self.stream_is_live = False
        self.is_blind = True
        """No pass has succeeded since the last failure; nothing may be added to what is not known."""
        self.passes = 0
        self._read_timeout = read_timeout.total_seconds()
        self._protect = protect
        self._on_foreign = on_foreign
        self._lock = asyncio.Lock()
        self._verifying: asyncio.Task[None] | None = None
        self._suspects: set[str] = set()
        self._last_pass: datetime | None = None
        self.recorder.anomaly_hook = lambda symbol, _id: self.verify_soon(symbol)

    # -- whole passes ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring a book from the journal up to the venue's state. Raises what the venue's client raises.

        Whatever was being sent when the last process ended has an unknown outcome.
        """
        for order in list(self.book.orders.active.values()):
            order.done_hook = self.gateway.changes.closed
            if order.state in (OrderState.NEW, OrderState.SUBMITTED):
                self._lose(order, "the process ended before the outcome was journalled")
        await self.run(first=True)
        for order in list(self.book.orders.active.values()):
            if order.state in (OrderState.IN_DOUBT, OrderState.PENDING_CANCEL):
                self.resolver.follow(order)

    def _lose(self, order: ManagedOrder, reason: str) -> None:
        self.recorder.record(
            OrderChanged(
                client_order_id=order.client_order_id,
                event=OrderEvent.LOSE,
                source=Source.RECOVERY,
                reason=reason,
            )
        )

    async def run(self, *, first: bool = False) -> None:
        """Make one pass over orders, fills, positions and balances. Raises when the venue cannot be read."""
        async with self._lock:
            try:
                await self._orders()
                await self._fills()
                await self._watch_absent()
                await self._positions(first=first)
                await self._balances(first=first)
            except BaseException:
                self.is_blind = True
                raise
            self.is_blind = False
            self.passes += 1
            self._last_pass = self.recorder.clock.now()
            for symbol in self._symbols():
                self._protect(symbol)
            await self.recorder.settle()

    def _symbols(self) -> set[str]:
        symbols = {order.symbol for order in self.book.orders.active.values()}
        return symbols | set(self.book.positions.open)

    async def _orders(self) -> None:
        """Compare open orders: what the venue shows is taken in, what it does not show is looked up."""
        reports = await self._bounded(self.adapter.open_orders())
        seen: set[str] = set()
        self.book.foreign.clear()
        for report in reports:
            order = await self.gateway.absorb(report, Source.RECONCILE)
            if order is not None:
                seen.add(order.client_order_id)
        self._on_foreign()
        for order in list(self.book.orders.active.values()):
            if order.client_order_id in seen or order.is_closed:
                continue
            if order.state in (OrderState.NEW, OrderState.SUBMITTED, OrderState.PRESUMED_ABSENT):
                continue  # being sent right now, or watched below
            sight = await self.resolver.look(order)
            if sight is Sight.NOTHING and not self._is_fresh(order) and order.state in _RESTING:
                self._lose(order, "the venue does not show it any more")
                self.resolver.follow(order)

    def _is_fresh(self, order: ManagedOrder) -> bool:
        """Tell whether an order moved so lately that the venue's answers may lag behind it."""
        return self.recorder.clock.now() - order.updated_at < _QUIET

    async def _fills(self) -> None:
        """Fetch executions since the last known moment."""
        since = self._last_pass or self.book.last_at
        if since is None:
            return
        since -= _OVERLAP
        oldest = min(
            (order.created_at for order in self.book.orders.active.values()), default=since
        )
        for fill in await self._bounded(self.adapter.fills_since(min(since, oldest))):
            self.gateway.intake.take_fill(fill, Source.RECONCILE)

    async def _watch_absent(self) -> None:
        """Look for orders that were presumed absent; after a day they are given up."""
        now = self.recorder.clock.now()
        for order in list(self.book.orders.active.values()):
            if order.state is not OrderState.PRESUMED_ABSENT:
                continue
            await self.resolver.look(order)
            if order.state is OrderState.PRESUMED_ABSENT and now - order.updated_at > _WATCH_FOR:
                self.recorder.record(
                    OrderChanged(
                        client_order_id=order.client_order_id,
                        event=OrderEvent.EXPIRE,
                        source=Source.RECONCILE,
                        reason="never seen within 24 hours",
                    )
                )

    # -- positions and balances ------------------------------------------------------------------------

    async def _positions(self, *, first: bool) -> None:
        """Compare net positions; what our fills do not explain came from outside."""
        positions = await self._bounded(self.adapter.positions())
        venue = {position.symbol: position for position in positions}
        for symbol in set(venue) | set(self.book.positions.open):
            theirs = venue[symbol].quantity if symbol in venue else ZERO
            ours = self.book.positions.quantity(symbol)
            if theirs == ours or self._is_unsettled(symbol):
                continue
            if first or not self._is_busy(symbol):
                price = venue[symbol].average_price if symbol in venue else ZERO
                self._adopt(symbol, theirs - ours, price, first=first)

    def _is_busy(self, symbol: str) -> bool:
        """Tell whether orders of a symbol are moving, so that the two sides may be seen at different times."""
        return any(
            order.symbol == symbol and (self._is_fresh(order) or order.state in _UNSETTLED)
            for order in self.book.orders.values()
        )

    def _is_unsettled(self, symbol: str) -> bool:
        """Tell whether a fill of ours may still explain a difference: taking it over would count it twice."""
        return any(
            order.symbol == symbol and order.state in _UNSETTLED
            for order in self.book.orders.active.values()
        )

    def _adopt(self, symbol: str, difference: Decimal, price: Decimal, *, first: bool) -> None:
        ours = self.book.positions.quantity(symbol)
        known_before = first and self.book.last_at is None
        price = price or self.book.mark(symbol) or ZERO
        self.recorder.record(
            ExternalChange(
                symbol=symbol,
                quantity=difference,
                price=price,
                reason="held before execkit began"
                if known_before
                else "not explained by our fills",
            )
        )
        if not known_before:
            self._mismatch(symbol, plain(ours), plain(ours + difference))

    def _mismatch(self, what: str, ours: str, venue: str) -> None:
        log.warning("reconcile.mismatch", what=what, ours=ours, venue=venue)
        self.recorder.alarm("MISMATCH", f"{what}: ours {ours}, the venue's {venue}", symbol=what)
        self.recorder.announce(
            ReconcileMismatch(at=self.recorder.clock.now(), symbol=what, ours=ours, venue=venue)
        )

    async def _balances(self, *, first: bool) -> None:
        """Compare holdings; the venue's are the truth for what can be spent."""
        balances = await self._bounded(self.adapter.balances())
        totals = {asset: balance.total for asset, balance in balances.items() if balance.total}
        ours = {asset: total for asset, total in self.book.cash.items() if total}
        # A venue that keeps holdings as positions (equities) shows cash only.
        for symbol in self.book.positions.open:
            base, _ = split_symbol(symbol)
            if base not in totals and base in ours:
                totals[base] = ours[base]
        if totals == ours or (not first and any(map(self._is_busy, self._symbols()))):
            return
        began = not self.book.cash
        self.recorder.record(
            BalancesSeen(totals=totals, source=Source.RECOVERY if first else Source.RECONCILE)
        )
        if not began:
            for asset in sorted(set(totals) | set(ours)):
                mine, theirs = ours.get(asset, ZERO), totals.get(asset, ZERO)
                if mine != theirs:
                    self._mismatch(asset, plain(mine), plain(theirs))

    # -- on suspicion ----------------------------------------------------------------------------------

    def verify_soon(self, symbol: str) -> None:
        """Have a pass made shortly; all that ask meanwhile share it."""
        self._suspects.add(symbol)
        if self._verifying is None or self._verifying.done():
            self._verifying = asyncio.get_running_loop().create_task(self._verify())

    async def _verify(self) -> None:
        while self._suspects:
            self._suspects.clear()
            # Long enough for the venue's books to catch up with its fills.
            await asyncio.sleep(_QUIET.total_seconds() + 0.1)
            await self.try_run()

    async def try_run(self) -> bool:
        """Make a pass; return False, and log why, when the venue cannot be read."""
        try:
            await self.run()
        except Exception as error:  # noqa: BLE001 - blind until the next pass
            log.warning("reconcile.failed", error=repr(error))
            return False
        return True

    async def stop(self) -> None:
        """End a pass under way."""
        if self._verifying is not None:
            self._verifying.cancel()
            await asyncio.gather(self._verifying, return_exceptions=True)

    async def _bounded(self, call: Awaitable[T]) -> T:
        async with asyncio.timeout(self._read_timeout):
            return await call

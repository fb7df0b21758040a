"""The reconciler: makes our books and the venue's agree - at the start, after a reconnect, on a period, on suspicion.

The order is always the same: orders, then fills, then positions and balances, then protection; entries are let through
only after a pass that succeeded. A query that failed says nothing: it is never an empty answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, ParamSpec, TypeVar

import structlog

from execkit.model.account import VenuePosition
from execkit.model.order import OrderEvent, OrderState
from execkit.model.records import (
    BalancesSeen,
    Filled,
    OrderChanged,
    Record,
    Source,
)
from execkit.numbers import ZERO, plain
from execkit.orders.executions import split_symbol, was_before
from execkit.orders.gateway import OrderGateway
from execkit.orders.holdings import differences, is_less, lag_of, of_one_asset
from execkit.orders.manager import ManagedOrder
from execkit.orders.outside import Outside
from execkit.orders.resolver import Resolver, Sight, needs_proof
from execkit.orders.shape import require_number
from execkit.orders.suspicion import Suspicion, may_move
from execkit.orders.zombies import Zombies
from execkit.redaction import shown

log = structlog.get_logger("execkit")

P = ParamSpec("P")
T = TypeVar("T")

_OVERLAP: Final = timedelta(minutes=5)
"""How far before the last known moment fills are fetched again, besides the time for which the venue may not show
them; those known already change nothing."""

_WATCH_FOR: Final = timedelta(hours=24)
"""How long an order presumed absent is watched for a late sight."""

_QUIET: Final = timedelta(seconds=2)
"""A symbol whose orders moved within this time is not compared: the venue's books may lag behind its fills."""

_BLIND_AFTER: Final = 3
"""Passes that have to fail in a row before a person is told, when something is held."""

_UNANSWERED: Final = frozenset({OrderState.NEW, OrderState.SUBMITTED, OrderState.PENDING_AMEND})
_UNSETTLED: Final = frozenset({OrderState.NEW, OrderState.SUBMITTED, OrderState.IN_DOUBT})
_RESTING: Final = frozenset(
    {OrderState.ACCEPTED, OrderState.PARTIALLY_FILLED, OrderState.HELD, OrderState.PENDING_AMEND}
)


class Reconciler:
    """Compares and repairs. Whoever opens the stream sets *stream_is_open*; *on_sight* hears when sight returns."""

    def __init__(
        self,
        gateway: OrderGateway,
        resolver: Resolver,
        *,
        read_timeout: timedelta = timedelta(seconds=10),
        protect: Callable[[str], None] = lambda _symbol: None,
        on_sight: Callable[[], None] = lambda: None,
        on_foreign: Callable[[], None] = lambda: None,
        worth: Callable[[Mapping[str, Decimal]], Decimal] = lambda _amounts: ZERO,
    ) -> None:
        self.gateway = gateway
        self.adapter = gateway.adapter
        self.book = gateway.book
        self.recorder = gateway.recorder
        self.resolver = resolver
        self.stream_is_open = False
        self.is_blind = True
        """No pass has succeeded since the last failure; nothing may be added to what is not known."""
        self.passes = 0
        self._failures, self._told_blind = 0, False
        self._read_timeout = read_timeout.total_seconds()
        self._by_asset = self.adapter.capabilities.positions_are_holdings
        self._protect = protect
        self._on_sight = on_sight
        self._on_foreign = on_foreign
        self._worth = worth
        self._lock = asyncio.Lock()
        self._suspicion = Suspicion(self.try_run, lambda: self.stream_is_live, at_first=_QUIET)
        self._zombies = Zombies(gateway, self.verify_soon)
        self._outside = Outside(self.recorder, self.adapter, self._ask)
        self._unexplained: dict[str, Decimal] = {}
        """Differences of positions that the last pass found, by symbol."""
        self._unexplained_cash: dict[str, Decimal] = {}
        """The same of holdings, by asset."""
        self._known_until: datetime | None = None
        """Executions from before are known; it does not move while the venue is known to have more than it shows."""
        self._last_fill: datetime | None = None
        """Venue time of the newest fill that this process has seen."""
        self._lagging: set[str] = set()
        """Symbols of which the venue's answers are older than what we know: they miss a fill of ours."""
        self._moved_at: dict[str, float] = {}
        """When an order of a symbol last changed, by the loop's time: steps of the clock do not touch it."""
        self.recorder.listen(self._on_record)
        self.recorder.anomaly_hook = lambda symbol, _id: self.verify_soon(symbol)
        gateway.intake.foreign_hook = on_foreign

    @property
    def stream_is_live(self) -> bool:
        """Tell whether the order stream confirms by itself, and nothing of the time before it is missing."""
        return self.stream_is_open and not self.is_blind

    # -- whole passes ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring a book from the journal up to the venue's state. Raises what the venue's client raises.

        Whatever was being sent when the last process ended has an unknown outcome.
        """
        for order in list(self.book.orders.active.values()):
            order.done_hook = self.gateway.changes.closed
            if order.state in _UNANSWERED:
                self._lose(order, "the process ended before the outcome was journalled")
        await self.run(first=True)
        for order in list(self.book.orders.active.values()):
            if needs_proof(order):
                self.resolver.follow(order)

    def _lose(self, order: ManagedOrder, reason: str) -> None:
        self.recorder.record(order.record_of(OrderEvent.LOSE, Source.RECOVERY, reason))

    async def run(self, *, first: bool = False) -> None:
        """Make one pass over orders, fills, positions and balances. Raises when the venue cannot be read."""
        async with self._lock:
            began = self.recorder.clock.now()
            is_new = first and self.book.last_at is None
            if self._known_until is None and self.book.last_at is not None:
                # What the last process missed may be as old as its oldest open order.
                created = (order.created_at for order in self.book.orders.active.values())
                self._known_until = min([self.book.last_at, *created])
            try:
                await self._orders()
                await self._fills()
                await self._watch_absent()
                self._unexplained = await self._positions(first=first, is_new=is_new)
                if first:
                    await self._outside.end_dust()
                self._unexplained_cash = await self._balances(first=first)
            except BaseException:
                self.is_blind = True
                raise
            if self.is_blind:
                self._on_sight()
            self.is_blind = False
            self.passes += 1
            if not self._lagging and not self.gateway.intake.misses_fills:
                self._known_until = began
            if self._unexplained or self._unexplained_cash:
                self.verify_soon("")
            for symbol in sorted(self._symbols()):
                self._protect(symbol)
            await self.recorder.try_settle()

    def _symbols(self) -> set[str]:
        symbols = {order.symbol for order in self.book.orders.active.values()}
        return symbols | set(self.book.positions.open)

    async def _orders(self) -> None:
        """Compare open orders: what the venue shows is taken in, what it does not show is looked up."""
        reports = await self._ask(self.adapter.open_orders)
        seen: set[str] = set()
        open_now = {report.venue_order_id for report in reports}
        for gone in [key for key in self.book.foreign if key not in open_now]:
            del self.book.foreign[gone]
        for report in reports:
            order = await self.gateway.absorb(report, Source.RECONCILE)
            if order is not None:
                seen.add(order.client_order_id)
        self._on_foreign()
        await self._zombies.lay_to_rest()
        for order in list(self.book.orders.active.values()):
            if order.client_order_id in seen or order.is_closed:
                continue
            if order.state in (OrderState.NEW, OrderState.SUBMITTED, OrderState.PRESUMED_ABSENT):
                continue  # being sent right now, or watched below
            sight = await self.resolver.look(order)
            if (
                sight is Sight.NOTHING
                and not self._is_fresh(order.symbol)
                and order.state in _RESTING
            ):
                self._lose(order, "the venue does not show it any more")
                self.resolver.follow(order)

    def _is_fresh(self, symbol: str) -> bool:
        """Tell whether orders of a symbol moved so lately that the venue's answers may lag behind them."""
        moved_at = self._moved_at.get(symbol)
        quiet_for = _QUIET.total_seconds()
        return moved_at is not None and asyncio.get_running_loop().time() - moved_at < quiet_for

    def _on_record(self, record: Record, order: ManagedOrder | None) -> None:
        if isinstance(record, Filled):
            last = self._last_fill
            self._last_fill = record.fill.at if last is None else max(last, record.fill.at)
        if order is not None and may_move(record):
            self._moved_at[order.symbol] = asyncio.get_running_loop().time()
            if (
                order.role.is_reduction
                and isinstance(record, OrderChanged)
                and record.event is OrderEvent.ACCEPT
                and not self.stream_is_open
            ):
                # Taken is not kept: should the venue think better of it, nobody else would tell.
                self.verify_soon(order.symbol)

    async def _fills(self) -> bool:
        """Fetch executions since the last known moment; return whether one was news."""
        since = self._known_until
        if since is None:
            return False
        if self._last_fill is not None:
            # In the venue's own time, so that a step of our clock hides nothing.
            since = min(since, self._last_fill)
        # What the venue does not show of an order yet, it does not show of its executions either.
        since -= _OVERLAP + (self.adapter.capabilities.absence_window or timedelta(0))
        intake = self.gateway.intake
        fills = await self._ask(self.adapter.fills_since, since)
        # Not those at the very edge: a venue may list by another time than it states.
        surely_since = since + _OVERLAP / 2
        news = intake.take_fills(fills, Source.RECONCILE, covers=surely_since)
        shown = {fill.trade_id for fill in fills}
        self._lagging = {order.symbol for order in intake.corrections.orders} | {
            symbol
            for symbol in self._moved_at.keys() | self.book.positions.open.keys()
            for execution in self.book.positions.executions(symbol)
            if execution.fill.client_order_id
            and execution.fill.at >= surely_since
            and shown.isdisjoint({execution.fill.trade_id, execution.fill.replaces})
        }
        return news

    async def _watch_absent(self) -> None:
        """Look for orders that were presumed absent; after a day they are given up."""
        now = self.recorder.clock.now()
        for order in list(self.book.orders.active.values()):
            if order.state is not OrderState.PRESUMED_ABSENT:
                continue
            await self.resolver.look(order)
            if order.state is OrderState.PRESUMED_ABSENT and now - order.updated_at > _WATCH_FOR:
                text = "never seen within 24 hours"
                self.recorder.record(order.record_of(OrderEvent.EXPIRE, Source.RECONCILE, text))

    # -- positions and balances ------------------------------------------------------------------------

    async def _positions(self, *, first: bool, is_new: bool) -> dict[str, Decimal]:
        """Compare net positions and return what our fills do not explain.

        A difference that two passes in a row have found came from outside and is taken over; the first pass, before
        anything is sent, takes it over at once, or after a second look when less is held. What was held before the
        latest fills may be an old answer, so for a while nothing follows from it.
        """
        seen_at = self.recorder.clock.now() - _QUIET
        venue = await self._venue_positions()
        for _ in range(2):
            if not self._differences(venue) or not await self._fills():
                break
            seen_at = self.recorder.clock.now() - _QUIET
            venue = await self._venue_positions()  # it was executed while we asked
        found = self._differences(venue)
        if first and any(is_less(self.book.positions.quantity(s), d) for s, d in found.items()):
            await asyncio.sleep(_QUIET.total_seconds())
            await self._fills()
            seen_at = self.recorder.clock.now() - _QUIET
            venue = await self._venue_positions()
        before = found if first else self._unexplained
        left = {}
        for symbol, difference in self._differences(venue).items():
            known = self._symbols() | self._moved_at.keys()
            kin = of_one_asset(symbol, known, by_asset=self._by_asset)
            if not kin.isdisjoint(self._lagging) or any(map(self._is_unsettled, kin)):
                continue
            if not first and any(map(self._is_fresh, kin)):
                continue
            if before.get(symbol) != difference or self._may_be_old(symbol, difference):
                left[symbol] = difference
                continue
            stated = venue[symbol].average_price if symbol in venue else ZERO
            terms = await self._outside.terms(symbol, stated)
            if self._differences(venue).get(symbol) == difference:
                self._outside.take(symbol, difference, terms, seen_at, is_new=is_new)
        return left

    async def _venue_positions(self) -> dict[str, VenuePosition]:
        found = await self._ask(self.adapter.positions)
        for each in found:
            require_number(f"the position in {each.symbol}", each.quantity)
            require_number(f"the average price of {each.symbol}", each.average_price)
        return {each.symbol: each for each in found}

    def _differences(self, venue: dict[str, VenuePosition]) -> dict[str, Decimal]:
        """Return how much more of each symbol the venue has than we."""
        theirs = {symbol: position.quantity for symbol, position in venue.items()}
        return differences(theirs, self.book.positions.quantities(), by_asset=self._by_asset)

    def _may_be_old(self, symbol: str, difference: Decimal) -> bool:
        """Tell whether the venue may show a position of before its latest fills; those are the truth then."""
        positions, lag = self.book.positions, max(_QUIET, lag_of(self.adapter.capabilities))
        ours, since = positions.quantity(symbol), self.recorder.clock.now() - lag
        return was_before(positions.executions(symbol), ours, ours + difference, since)

    def _is_busy(self, symbol: str) -> bool:
        """Tell whether orders of a symbol are moving, so that the two sides may be seen at different times."""
        return self._is_fresh(symbol) or self._is_unsettled(symbol)

    def _is_unsettled(self, symbol: str) -> bool:
        """Tell whether a fill of ours may still explain a difference: taking it over would count it twice."""
        return any(
            order.symbol == symbol and order.state in _UNSETTLED
            for order in self.book.orders.active.values()
        )

    async def _balances(self, *, first: bool) -> dict[str, Decimal]:
        """Compare holdings, as `_positions` does; the venue's are the truth for what can be spent."""
        balances = await self._ask(self.adapter.balances)
        for asset, balance in balances.items():
            require_number(f"the balance of {asset}", balance.total)
        totals = {asset: balance.total for asset, balance in balances.items() if balance.total}
        ours = {asset: total for asset, total in self.book.cash.items() if total}
        # A venue that keeps holdings as positions (equities) shows cash only.
        for symbol in self.book.positions.quantities():
            base, _ = split_symbol(symbol)
            if base not in totals and base in ours:
                totals[base] = ours[base]
        difference = {
            asset: totals.get(asset, ZERO) - ours.get(asset, ZERO)
            for asset in sorted(set(totals) | set(ours))
            if totals.get(asset, ZERO) != ours.get(asset, ZERO)
        }
        if not difference or self._lagging:
            return {}
        if not first and any(map(self._is_busy, self._symbols())):
            return {}
        if not first and difference != self._unexplained_cash:
            return difference
        began = not self.book.cash
        self.recorder.record(
            BalancesSeen(
                totals=totals,
                source=Source.RECOVERY if first else Source.RECONCILE,
                transferred=None if began or _is_a_trade(difference) else self._worth(difference),
            )
        )
        if not began:
            for asset in difference:
                mine, theirs = ours.get(asset, ZERO), totals.get(asset, ZERO)
                self._outside.mismatch(asset, plain(mine), plain(theirs))
        return {}

    # -- on suspicion ----------------------------------------------------------------------------------

    def verify_soon(self, symbol: str) -> None:
        """Have a pass made shortly; all that ask meanwhile share it."""
        self._suspicion.raise_(symbol)

    async def try_run(self) -> bool:
        """Make a pass; return False, and log why, when the venue cannot be read."""
        try:
            await self.run()
        except Exception as error:  # noqa: BLE001 - blind until the next pass
            log.warning("reconcile.failed", error=shown(error))
            self._failures += 1
            held = ", ".join(sorted(self.book.positions.open))
            if held and self._failures >= _BLIND_AFTER and not self._told_blind:
                self._told_blind = True
                text = f"{self._failures} comparisons with the venue failed in a row while {held} is held: {error!r}"
                self.recorder.alarm("BLIND", text)
                await self.recorder.try_settle()
            return False
        self._failures, self._told_blind = 0, False
        return True

    async def stop(self) -> None:
        """End a pass under way."""
        await self._suspicion.stop()

    async def _ask(self, query: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.gateway.pace.ask(query, self._read_timeout, *args, **kwargs)


def _is_a_trade(moved: Mapping[str, Decimal]) -> bool:
    """Tell whether holdings moved both ways: somebody traded, or the venue closed something; that is gain or loss."""
    return any(amount > ZERO for amount in moved.values()) and any(
        amount < ZERO for amount in moved.values()
    )

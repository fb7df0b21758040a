"""The keeper: every filled quantity has a stop of its size, or is flattened, and someone is told.

It reacts to every record that changes a position or one of its reductions, one symbol at a time: it asks
`plan_protection` for the next step and takes it, until there is nothing to do. The target is held here, because on most
venues a stop and a target cannot both rest: when the price touches it, the stop is cancelled, proven gone, and the
position is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Final

from execkit.market import MarketHours
from execkit.model.instrument import Instrument
from execkit.model.order import OrderEvent, OrderRole, OrderState
from execkit.model.position import Position
from execkit.model.records import (
    ExternalChange,
    Filled,
    OrderChanged,
    Record,
    Source,
    StopMoved,
    SymbolBlocked,
)
from execkit.numbers import ZERO
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.protection.closing import Closer
from execkit.protection.placing import LOOK_FOR_OPEN, StopPlacer, opens_in
from execkit.protection.plan import (
    Plan,
    Step,
    amendable,
    is_turned,
    is_unproven,
    least_quantity,
    plan_protection,
    refused_late,
)
from execkit.protection.policy import ProtectionPolicy, resting_target
from execkit.protection.prices import Touch
from execkit.protection.room import Room
from execkit.protection.slippage import SlippageWatch
from execkit.protection.telling import Teller
from execkit.protection.turns import AFTER_FAILURES, LONGEST_WAIT, Turns, wait_after
from execkit.protection.watching import PriceWatcher

_NEWS: Final = (Filled, StopMoved, ExternalChange)
_SHIFTS: Final = (OrderEvent.ABSENT, OrderEvent.AMEND)


class ProtectionKeeper:
    """Keeps stops in line with positions.

    *place_within* is how long a stop may take from the fill before the position is flattened instead, *attempts*
    how often it is tried meanwhile.
    """

    def __init__(
        self,
        gateway: OrderGateway,
        instrument_of: Callable[[str], Awaitable[Instrument]],
        *,
        policy: ProtectionPolicy | None = None,
        market: MarketHours | None = None,
    ) -> None:
        self.gateway = gateway
        self.book = gateway.book
        self.recorder = gateway.recorder
        self._instrument_of = instrument_of
        policy = policy or ProtectionPolicy()
        self.market = market or MarketHours(
            gateway.adapter, self.recorder.clock, ask=gateway.pace.ask
        )
        self._place_within = policy.place_within.total_seconds()
        self._attempts = policy.attempts
        self.closer = Closer(gateway, within=policy.place_within, attempts=policy.attempts)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._dirty: set[str] = set()
        self._turns = Turns(self.book)
        self.placer = StopPlacer(gateway, self.closer, policy)
        self.teller = Teller(self.recorder)
        self.slippage = SlippageWatch(self.recorder, policy.alert_slippage_pct)
        self._naked_since: dict[str, float] = {}
        self._refusals: dict[str, int] = {}
        """How often in a row a position could not be closed."""
        self._not_before: dict[str, float] = {}
        """When closing may be tried again."""
        self._stopped = False
        self.watcher = PriceWatcher(
            self.recorder,
            self.closer,
            policy,
            instrument_of,
            self.market,
            turn_of=self._turns.exiting,
            check=self.check,
            stop_out=self.flatten,
            report=self._report,
        )
        room = Room(self.closer, turns=self._turns, check=self.check)
        self.exiting, self.stepping_aside = room.exiting, room.stepping_aside
        self.on_quote = self.watcher.on_quote
        self.on_price = self.watcher.on_price
        self.on_bar = self.watcher.on_bar
        self.recorder.listen(self._on_record)

    # -- being told ------------------------------------------------------------------------------------

    def _on_record(self, record: Record, order: ManagedOrder | None) -> None:
        if isinstance(record, _NEWS):
            self.check(record.fill.symbol if isinstance(record, Filled) else record.symbol)
        elif isinstance(record, OrderChanged) and order is not None:
            if record.event is OrderEvent.ACCEPT and record.source is Source.ACK:
                self.wake()
            if order.role.is_reduction and (order.is_closed or record.event in _SHIFTS):
                self.check(order.symbol)
        if order is not None and self._turns.on_order(order):
            self.check(order.symbol)

    def wake(self) -> None:
        """Try again at once what pauses between two tries: the venue has shown that it answers."""
        for symbol in tuple(self._not_before):
            del self._not_before[symbol]
            self.check(symbol)

    def check(self, symbol: str) -> None:
        """Bring a symbol's protection in line, soon and in a task of its own."""
        if self._stopped:
            return
        self._dirty.add(symbol)
        if symbol not in self._tasks:
            task = self._tasks[symbol] = asyncio.get_running_loop().create_task(self._work(symbol))
            task.add_done_callback(lambda done: self._finished(symbol, done))

    def _finished(self, symbol: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(symbol, None)
        self._report(symbol, task)
        if symbol in self._dirty and not self._stopped:
            self.check(symbol)

    def _report(self, symbol: str, task: asyncio.Task[None]) -> None:
        """Tell of a task that failed, and try again a little later."""
        if not task.cancelled() and task.exception() is not None:
            text = f"protection of {symbol}: {task.exception()!r}"
            self.recorder.alarm("KEEPER_FAILED", text, symbol=symbol)
            self._check_later(symbol, self._next_wait(symbol, AFTER_FAILURES))

    def _next_wait(self, symbol: str, at_most: float) -> float:
        self._refusals[symbol] = self._refusals.get(symbol, 0) + 1
        return wait_after(self._refusals[symbol], at_most)

    def _check_later(self, symbol: str, seconds: float = 1.0) -> None:
        if not self._stopped:
            asyncio.get_running_loop().call_later(seconds, self.check, symbol)

    async def idle(self) -> None:
        """Wait until every check under way has ended."""
        while self._tasks or self.watcher.tasks:
            await asyncio.wait([*self._tasks.values(), *self.watcher.tasks.values()])

    async def stop(self) -> None:
        """End all tasks; orders stay as they are."""
        self._stopped = True
        self.watcher.stop()
        tasks = [*self._tasks.values(), *self.watcher.tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.closer.stop()

    # -- doing it --------------------------------------------------------------------------------------

    async def _work(self, symbol: str) -> None:
        while symbol in self._dirty:
            self._dirty.discard(symbol)
            async with self._turns.of(symbol):
                await self._protect(symbol)
        await self.recorder.try_settle()

    async def _protect(self, symbol: str) -> None:
        """Take steps until there is nothing left to do for a symbol."""
        loop = asyncio.get_running_loop()
        is_closed: bool | None = None
        for _ in range(100):
            if not self.recorder.journal.is_current:
                return  # another process protects it now
            if self._is_idle(symbol):
                self._forget(symbol)
                return
            instrument = await self._instrument_of(symbol)
            position = self.book.position(symbol)
            reductions = self.book.orders.open_reductions(symbol)
            least = least_quantity(position, instrument, self.gateway.adapter.capabilities)
            plan = plan_protection(
                position,
                reductions,
                instrument,
                touch=None if is_closed else Touch.of(self.book, symbol),
                target=self._target(position, instrument),
                can_rest=bool(self.placer.types_for(instrument)),
                turned=is_turned(position, self.book),
                least=least,
            )
            if plan.by_price and is_closed is None:
                # No price of a closed market counts: what can rest protects at the open. Much may change meanwhile.
                is_closed = await self._is_closed(symbol)
                continue
            plan = self.watcher.stopped_out(plan, position)
            if plan.step is Step.COVERED:
                self._check_later(symbol)
            if plan.step in (Step.NOTHING, Step.COVERED, Step.HOLD, Step.TOO_SMALL):
                self._forget(symbol)
                self.teller.of_plan(plan, position, least)
                return
            if plan.step in (Step.PLACE, Step.RESIZE, Step.WAIT):
                self._naked_since.setdefault(symbol, loop.time())
            if not await self._take_step(symbol, instrument, position, plan):
                return
        self.recorder.alarm("KEEPER_LOOP", f"protection of {symbol} does not settle", symbol=symbol)
        self._check_later(symbol)

    def _is_idle(self, symbol: str) -> bool:
        return symbol not in self.book.positions.open and not self.book.orders.open_reductions(
            symbol
        )

    def _forget(self, symbol: str) -> None:
        self.placer.forget(symbol)
        self.teller.forget(symbol)
        self._naked_since.pop(symbol, None)
        self._refusals.pop(symbol, None)
        self._not_before.pop(symbol, None)

    def _target(self, position: Position | None, instrument: Instrument) -> Decimal | None:
        """Return the price of the target that is to rest beside the stop, where the venue keeps the two together."""
        if position is None or not self.gateway.adapter.capabilities.native_oco:
            return None
        return resting_target(position, instrument)

    async def _take_step(
        self, symbol: str, instrument: Instrument, position: Position | None, plan: Plan
    ) -> bool:
        """Take one step; return whether to plan again at once."""
        if plan.step is Step.CANCEL:
            return await self._cancel(symbol, plan.orders, plan.reason or "nothing left to protect")
        assert position is not None, "without one there is only something to cancel"
        now = asyncio.get_running_loop().time()
        if self.placer.found_closed(symbol) and plan.step in (Step.PLACE, Step.RESIZE):
            # The time to place it begins when it can be placed.
            self._naked_since.pop(symbol, None)
            if now < self._not_before.get(symbol, 0.0) or await self._is_closed(symbol):
                return False
        refused = self._is_refused(position)
        overdue = refused or self._is_late(symbol)
        if plan.step is Step.FLATTEN or overdue:
            if now < self._not_before.get(symbol, 0.0):
                return False
            reason = "it could not be protected in time" if overdue else plan.reason
            if overdue:
                # Not built up again before a person has looked.
                self._block(symbol, "the venue takes no stop for it" if refused else reason)
            level = plan.stop_price if plan.step is Step.FLATTEN else ZERO
            return await self._flatten(symbol, instrument, reason, level or None)
        if plan.step is Step.WAIT:
            # Never so short that the sum of floats leaves the moment just short of its end.
            left = max(self._naked_since[symbol] + self._place_within - now, 0.01)
            await self.gateway.changes.until(plan.orders[0], lambda o: not is_unproven(o), left)
            return True
        if plan.step is Step.RESIZE:
            return await self._resize(symbol, instrument, position, plan)
        await self.placer.place(instrument, position, plan)
        return not self._waits_for_open(position, plan)

    def _waits_for_open(self, position: Position, plan: Plan) -> bool:
        """Tell whether the stop has to wait for its market, which takes no order to flatten either; see to that."""
        symbol = position.symbol
        if not self.placer.found_closed(symbol):
            return False
        self.teller.waits_for_open(position, plan)
        self._pause(symbol, LOOK_FOR_OPEN)
        return True

    async def _is_closed(self, symbol: str) -> bool:
        """Tell whether the market is closed now; a try each time would fill the journal. Where nobody can tell: no."""
        status = await self.market.status(symbol, anew=True)
        if status is None or status.is_open:
            return False
        self._pause(symbol, opens_in(status, self.recorder.clock.now()))
        return True

    def _pause(self, symbol: str, seconds: float) -> None:
        """Try no more for so long, unless the venue shows before that it answers."""
        self._not_before[symbol] = asyncio.get_running_loop().time() + seconds
        self._check_later(symbol, seconds)

    async def _cancel(self, symbol: str, orders: tuple[ManagedOrder, ...], reason: str) -> bool:
        """Cancel orders; return False, and look again a little later, when one is not proven gone."""
        gone = await self.closer.cancel_each(orders, reason)
        if not gone:
            self._check_later(symbol)
        return gone

    def _is_late(self, symbol: str) -> bool:
        now = asyncio.get_running_loop().time()
        return now - self._naked_since.get(symbol, now) >= self._place_within

    def _is_refused(self, position: Position) -> bool:
        orders = self.book.orders.revisions(position.position_id)
        return self.placer.failures(position.symbol) + refused_late(orders) >= self._attempts

    async def _resize(
        self, symbol: str, instrument: Instrument, position: Position, plan: Plan
    ) -> bool:
        """Bring a live stop to another size or price, with the shortest time without one."""
        old = amendable(plan, target=self.placer.target_beside(instrument, position, plan))
        capabilities = self.gateway.adapter.capabilities
        if capabilities.amend and old is not None:
            quantity = plan.quantity + old.filled
            if await self.gateway.amend(
                old,
                quantity=None if quantity == old.quantity else quantity,
                stop_price=None if plan.stop_price == old.stop_price else plan.stop_price,
                limit_price=self.placer.limit_of(old.type, instrument, position, plan),
                reason="the position has changed",
            ):
                return True
        if any(order.is_closed or order.state is OrderState.IN_DOUBT for order in plan.orders):
            return True
        ids = tuple(order.client_order_id for order in plan.orders)
        # Where the venue never lets a reduction flip the position, the new stop may rest before the old one goes; until
        # it is known to rest, the old one is all there is. A list goes first, for its target may be what is executed,
        # and so does one that holds the balance for the new one.
        if (
            capabilities.reduce_only
            and not self.placer.found_crowded(symbol)
            and old is not None
            and old.intent.list_id is None
            and not await self.placer.place(instrument, position, plan, replaces=ids)
        ):
            return not self._waits_for_open(position, plan)
        return await self._cancel(symbol, plan.orders, "the position has changed")

    # -- closing ---------------------------------------------------------------------------------------

    async def flatten(
        self, symbol: str, reason: str, level: Decimal | None = None, *, keeping: Decimal = ZERO
    ) -> bool:
        """Close a position at the market, but for a quantity; return whether the order is out or nothing is left.

        *level* is that of the stop in whose place it is done; None: it is no stop.
        """
        instrument = await self._instrument_of(symbol)
        async with self._turns.of(symbol):
            done = await self._flatten(
                symbol, instrument, reason, level, alarm=False, keeping=keeping
            )
        self.check(symbol)
        return done

    async def _flatten(
        self,
        symbol: str,
        instrument: Instrument,
        reason: str,
        level: Decimal | None,
        *,
        alarm: bool = True,
        keeping: Decimal = ZERO,
    ) -> bool:
        """Cancel what would stand in the way, then close the position; return False when it has to be tried later."""
        position = self.book.position(symbol)
        if position is None:
            return True
        if alarm:
            self.teller.flattening(position, reason)
        leaving = max(abs(position.quantity) - keeping, ZERO)
        sent = await self.closer.close(
            symbol, instrument, position, OrderRole.FLATTEN, leaving, expected_price=level
        )
        now = self.book.position(symbol)
        if sent or now is None or now.position_id != position.position_id:
            # It is out; or its stop was executed meanwhile, and there was nothing left to close.
            self._forget(symbol)
            return True
        self._pause(symbol, self._next_wait(symbol, LONGEST_WAIT))
        # Perhaps the venue knows better what is open.
        self.recorder.anomaly_hook(symbol, "")
        self._block(symbol, f"could not be flattened: {reason}")
        return False

    def _block(self, symbol: str, cause: str) -> None:
        """Take no more entries for a symbol until a person releases it."""
        if symbol not in self.book.blocked:
            self.recorder.record(SymbolBlocked(symbol=symbol, blocked=True, cause=cause))

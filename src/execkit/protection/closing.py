"""Closing a position: what stands in the way is cancelled and proven gone, so that nothing executes twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from execkit.errors import (
    ExchangeError,
    InsufficientBalanceError,
    InvalidOrderError,
    QuantityTooLargeError,
)
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRole, OrderState, OrderType, Side, TimeInForce
from execkit.model.position import Position
from execkit.numbers import ZERO, plain
from execkit.orders.commands import Reduction, Sent
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.orders.proofs import reducible
from execkit.orders.shape import require_number
from execkit.protection.plan import is_protective, protective_side
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_ASK_AGAIN: Final = timedelta(seconds=15)
_EXECUTES_WITHIN: Final = 2.0
"""Seconds that a position goes without its stop at most for an exit at a limit that should execute at once."""

_FREE_WITHIN: Final = 2.0
"""Most seconds that a closing waits to hear what is free; without an answer the whole is tried again."""

_ENTRIES_WITHIN: Final = 1.0
"""Most seconds that a closing waits for the end of entries which may rest beside it."""


class Closer:
    """Cancels with proof and closes at the market. *within* bounds the wait for one proof, over *attempts* tries."""

    def __init__(self, gateway: OrderGateway, *, within: timedelta, attempts: int) -> None:
        self.gateway = gateway
        self.book = gateway.book
        self._within = within.total_seconds()
        self._attempts = attempts
        self.cancels: dict[str, tuple[asyncio.Task[bool], float]] = {}
        """Cancels of entries under way by order, each with the loop time at which it began."""

    async def cancel_each(self, orders: tuple[ManagedOrder, ...], reason: str) -> bool:
        """Cancel orders and wait until each is proven gone; return False when one is not."""
        gone = True
        for order in orders:
            gone = await self.cancel_and_confirm(order, reason) and gone
        return gone

    async def cancel_and_confirm(self, order: ManagedOrder, reason: str) -> bool:
        """Cancel an order and wait until it is proven closed; return False when that takes too long."""
        for attempt in range(self._attempts):
            if order.state is not OrderState.PENDING_CANCEL or self._is_forgotten(order):
                await self.gateway.cancel(order, reason)
            if await self.gateway.changes.until(order, is_gone, self._within / self._attempts):
                return True
            if order.state is OrderState.PENDING_CANCEL:
                break  # the resolver asks what became of it, and asks for it again
            await asyncio.sleep(0.1 * 2**attempt)
        return is_gone(order)

    def _is_forgotten(self, order: ManagedOrder) -> bool:
        """Tell whether nothing was heard of a cancel for so long that it is asked for once more, blind or not."""
        return self.gateway.recorder.clock.now() - order.updated_at >= _ASK_AGAIN

    async def stop_entering(self, symbol: str, reason: str) -> tuple[ManagedOrder, ...]:
        """Cancel the entries that may build up a position while it is closed; return those not proven gone by then."""
        return await self.cancel_entries(tuple(self.book.orders.open_entries(symbol)), reason)

    async def cancel_entries(
        self, entries: tuple[ManagedOrder, ...], reason: str, within: float | None = None
    ) -> tuple[ManagedOrder, ...]:
        """Cancel entries, all at once; return those that are not proven gone within so many seconds.

        None: as long as a closing waits for them. Where the venue lets nobody sell beside a buy of his own, they have
        to be gone first, as long as a stop may take. Elsewhere a cancel whose proof takes long keeps the closing
        waiting only a moment; it goes on, and what still executes is protected anew. Who asks for a cancel that is
        under way waits for the same one; the time counts from when that began.
        """
        if within is None:
            beside = self.gateway.adapter.capabilities.opposite_orders
            within = _ENTRIES_WITHIN if beside else self._within
        loop = asyncio.get_running_loop()
        for entry in entries:
            if not entry.is_closed and entry.client_order_id not in self.cancels:
                task = loop.create_task(self.cancel_and_confirm(entry, reason))
                self.cancels[entry.client_order_id] = (task, loop.time())
                task.add_done_callback(partial(self._cancel_ended, entry))
        under_way = [self.cancels[e.client_order_id] for e in entries if not e.is_closed]
        if under_way:
            until = max(began for _, began in under_way) + within
            tasks = [task for task, _ in under_way]
            await asyncio.wait(tasks, timeout=max(until - loop.time(), 0.0))
        return tuple(entry for entry in entries if not is_gone(entry))

    def _cancel_ended(self, entry: ManagedOrder, task: asyncio.Task[bool]) -> None:
        del self.cancels[entry.client_order_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            text = f"cancelling {entry.client_order_id}: {error!r}"
            self.gateway.recorder.alarm("TASK_FAILED", text, symbol=entry.symbol)

    async def stop(self) -> None:
        """End the cancels that are under way; the orders stay as they are."""
        tasks = [task for task, _ in self.cancels.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def end_slicing(self, symbol: str, reason: str) -> None:
        """End what works an entry of a symbol in slices; done first, so that none of them is sent in between."""
        for ending in self.book.parents.endings(symbol, reason, entries=True):
            self.gateway.recorder.record(ending)

    async def make_room(self, symbol: str, quantity: Decimal, side: Side) -> None:
        """Cancel what protects and keeps *quantity* from being closed on *side*, and see it gone."""
        if reducible(self.book, symbol, side) >= quantity:
            return
        for order in self.book.orders.open_reductions(symbol):
            if is_protective(order) and order.side is side:
                await self.cancel_and_confirm(order, "the position is being closed")

    async def close(
        self,
        symbol: str,
        instrument: Instrument,
        position: Position,
        role: OrderRole,
        quantity: Decimal | None = None,
        *,
        limit_price: Decimal | None = None,
        expected_price: Decimal | None = None,
    ) -> bool:
        """Close *quantity* of a position (None: all) as far as nothing else closes it: at the market, or at a limit.

        Returns whether an order for it is out, or none is needed. One at a limit is seen to its end, because while it
        rests nothing protects; then, whether something of it was executed, or may still be. *expected_price* is what
        it should bring, by default the last price.
        """
        side = protective_side(position)
        wanted = abs(position.quantity) if quantity is None else quantity
        whole = instrument.round_quantity(wanted)
        if whole <= ZERO or whole < instrument.min_quantity:
            return True  # the venue takes no order for so little
        self.end_slicing(symbol, "the position is being closed")
        await self.stop_entering(symbol, "the position is being closed")
        await self.make_room(symbol, wanted, side)
        # A stop that could not be proven gone may stay only where the venue keeps the two from executing both.
        stuck = tuple(
            order.client_order_id
            for order in self.book.orders.open_reductions(symbol)
            if is_protective(order) and self.gateway.adapter.capabilities.never_flips
        )
        left = min(wanted, reducible(self.book, symbol, side, replaces=stuck))
        if instrument.round_quantity(left) <= ZERO:
            return self.book.position(symbol) is None
        command = Reduction(
            instrument=instrument,
            side=side,
            quantity=left,
            role=role,
            parent=position.position_id,
            position_id=position.position_id,
            signal_id=position.signal_id or None,
            expected_price=self.book.mark(symbol) if expected_price is None else expected_price,
            replaces=stuck,
        )
        if limit_price is not None:
            return await self._close_at(command, limit_price)
        sent = await self.gateway.send(command)
        less = await self._allowed(command, sent.error)
        if less is not None:
            sent = await self.gateway.send(replace(command, quantity=less))
        order = sent.order
        if order is not None and order.state is OrderState.NEW:
            self.gateway.give_up(order, "not sent; tried again")
        return order is not None and (order.state.may_be_live or bool(order.filled))

    async def _close_at(self, command: Reduction, limit_price: Decimal) -> bool:
        """Sell at a limit or better, or buy at it or lower: what is not executed at once is cancelled."""
        rules = command.instrument
        rounded = rules.round_price_up if command.side is Side.SELL else rules.round_price_down
        limited = replace(
            command,
            type=OrderType.LIMIT,
            limit_price=limit_price if rules.on_tick(limit_price) else rounded(limit_price),
        )
        sent = Sent()
        if TimeInForce.IOC in self.gateway.adapter.capabilities.times_in_force:
            sent = await self.gateway.send(replace(limited, time_in_force=TimeInForce.IOC))
        if sent.order is None or isinstance(sent.error, InvalidOrderError):
            # Some markets have no IOC, as parts of a share at Alpaca.
            sent = await self.gateway.send(limited)
        order = sent.order
        if order is None:
            return False
        if order.state is OrderState.NEW:
            self.gateway.give_up(order, "not sent; tried again")
        elif not await self.gateway.changes.until(order, is_gone, _EXECUTES_WITHIN):
            await self.cancel_and_confirm(order, "it was not executed at once")
        return bool(order.filled) or not is_gone(order)

    async def _allowed(self, command: Reduction, error: ExchangeError | None) -> Decimal | None:
        """Return what the venue would take of an exit that it refused as too much; None where less does not help.

        The same once more would be refused once more. What the venue does not have stays open, and a person is told.
        """
        instrument, wanted = command.instrument, command.quantity
        if isinstance(error, QuantityTooLargeError):
            most = wanted / 2 if error.allowed is None else error.allowed
        elif isinstance(error, InsufficientBalanceError):
            free = await self._free(command) if error.available is None else error.available
            most = min(free, wanted - instrument.lot_size)
        else:
            return None
        less = instrument.round_quantity(most)
        if less < max(instrument.min_quantity, instrument.lot_size):
            return None
        if isinstance(error, InsufficientBalanceError):
            self.gateway.recorder.alarm(
                "CLOSED_IN_PART",
                f"{instrument.symbol}: the venue takes {plain(less)} of {plain(wanted)} to close; "
                f"{plain(wanted - less)} stay open",
                symbol=instrument.symbol,
            )
        return less

    async def _free(self, command: Reduction) -> Decimal:
        """Return how much of what is to be sold the venue has free; zero where it does not say."""
        gateway, base = self.gateway, command.instrument.base
        try:
            balances = await gateway.pace.ask(gateway.adapter.balances, _FREE_WITHIN)
            free = balances[base].free if base in balances else ZERO
            require_number(f"{base} free", free)
        except Exception as error:  # noqa: BLE001 - an adapter is foreign code: what is no answer says nothing
            log.warning("closing.no_balance", symbol=command.instrument.symbol, error=shown(error))
            return ZERO
        return free if command.side is Side.SELL else ZERO


def is_gone(order: ManagedOrder) -> bool:
    """Tell whether nothing more of an order is to be expected."""
    return order.is_closed or order.state is OrderState.PRESUMED_ABSENT

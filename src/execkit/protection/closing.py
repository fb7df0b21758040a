"""Closing a position: what stands in the way is cancelled and proven gone, so that nothing executes twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Final

from execkit.model.instrument import Instrument
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.position import Position
from execkit.numbers import ZERO
from execkit.orders.commands import Reduction
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.orders.proofs import reducible
from execkit.protection.plan import is_protective, protective_side

_ASK_AGAIN: Final = timedelta(seconds=15)


class Closer:
    """Cancels with proof and closes at the market. *within* bounds the wait for one proof, over *attempts* tries."""

    def __init__(self, gateway: OrderGateway, *, within: timedelta, attempts: int) -> None:
        self.gateway = gateway
        self.book = gateway.book
        self._within = within.total_seconds()
        self._attempts = attempts

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

    async def stop_entering(self, symbol: str, reason: str) -> bool:
        """Cancel the entries of a symbol that are still open; return False when one is not proven gone."""
        return await self.cancel_each(tuple(self.book.orders.open_entries(symbol)), reason)

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
    ) -> bool:
        """Close *quantity* of a position (None: all) as far as nothing else closes it.

        Returns whether an order for it is out, or none is needed.
        """
        side = protective_side(position)
        wanted = abs(position.quantity) if quantity is None else quantity
        whole = instrument.round_quantity(wanted)
        if whole <= ZERO or whole < instrument.min_quantity:
            return True  # the venue takes no order for so little
        # What is taken out is not built up meanwhile, and some venues let nobody sell beside a buy of his own.
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
        sent = await self.gateway.send(
            Reduction(
                instrument=instrument,
                side=side,
                quantity=left,
                role=role,
                parent=position.position_id,
                position_id=position.position_id,
                signal_id=position.signal_id or None,
                expected_price=self.book.mark(symbol),
                replaces=stuck,
            )
        )
        order = sent.order
        if order is not None and order.state is OrderState.NEW:
            self.gateway.give_up(order, "not sent; tried again")
        return order is not None and (order.state.may_be_live or bool(order.filled))


def is_gone(order: ManagedOrder) -> bool:
    """Tell whether nothing more of an order is to be expected."""
    return order.is_closed or order.state is OrderState.PRESUMED_ABSENT

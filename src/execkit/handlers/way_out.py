"""The way out of a position: what its entries still fill and what is held is closed, again where the venue hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import structlog

from execkit.errors import ExchangeError
from execkit.handlers.desk import Desk
from execkit.model.order import OrderRole, OrderState
from execkit.numbers import ZERO, plain
from execkit.orders.manager import ManagedOrder
from execkit.protection.closing import is_gone
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_LONGEST_WAIT: Final = 30.0
"""Seconds between two tries to close a position."""

_REFUSALS: Final = 5
"""How often the venue may refuse to close a position until a person has to see to it."""

_CLOSES: Final = frozenset({OrderRole.EXIT, OrderRole.FLATTEN})


class WayOut:
    """The entries of a symbol and its position, on the way out.

    Only what was there when it began is taken out, with what its entries still make: what is entered after that, when a
    person has let entries go on, is somebody else's.
    """

    def __init__(
        self, desk: Desk, symbol: str, entries: Iterable[ManagedOrder], reason: str
    ) -> None:
        self._desk = desk
        self.symbol = symbol
        self._entries = tuple(entries)
        self._reason = reason
        self._began = desk.clock.now()
        position = desk.book.positions.open.get(symbol)
        self._position_id = None if position is None else position.position_id
        self._signals = {order.signal_id for order in self._entries}
        self.tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it is out, or was tried once."""
        self._ended = False

    async def run(self) -> None:
        """Work until it is out, or the venue has refused so often that a person has to see to it."""
        desk, reason = self._desk, self._reason
        try:
            if await desk.keeper.closer.cancel_entries(self._entries, reason):
                await self._close(once=True)
                self._tell()
                for order in self._entries:  # the resolver carries their cancels through
                    await desk.gateway.changes.until(order, is_gone)
            await self._close()
        finally:
            self._ended = True
            self._tell()

    async def follow(self) -> None:
        """Close what the entries still make of the position once they and its exits have ended; tell what stays."""
        for order in (*self._entries, *self._exits()):  # the resolver carries them through
            await self._desk.gateway.changes.until(order, is_gone)
        await self._close()
        self._ended = True
        if self._is_open():
            text = f"{self.symbol}: {self._reason}, and was not closed: {'; '.join(self.left())}"
            self._desk.recorder.alarm("CLOSED_IN_PART", text, symbol=self.symbol)

    async def _close(self, *, once: bool = False) -> None:
        """Close the position; where that fails, again after a pause, in which it has its stop."""
        desk, refusals, wait = self._desk, 0, 1.0
        while self._is_open() and desk.recorder.journal.is_current:
            try:
                keeping = self._added()
                sent = await desk.keeper.flatten(self.symbol, self._reason, keeping=keeping)
            except (ExchangeError, OSError, TimeoutError) as error:
                log.warning("flatten.failed", symbol=self.symbol, error=shown(error))
                sent = False
            exits = self._exits()
            if once or not self._is_open() or (sent and not exits):
                return  # it is out, or too small to be closed
            if not sent:
                refusals += bool(self._refusal())
                self._tell()
            for order in exits:
                await desk.gateway.changes.until(order, is_gone)
            if refusals == _REFUSALS:
                return
            if not sent:
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)

    def _tell(self) -> None:
        if not self.tried.done():
            self.tried.set_result(None)

    def _is_open(self) -> bool:
        position = self._desk.book.positions.open.get(self.symbol)
        return (
            position is not None
            and (position.position_id == self._position_id or position.signal_id in self._signals)
            and abs(position.quantity) > self._added()
        )

    def _added(self) -> Decimal:
        """Return how much others have added since it began: that stays, with its stop."""
        return sum(
            (
                order.filled
                for order in self._desk.book.orders.values()
                if order.role is OrderRole.ENTRY
                and order.symbol == self.symbol
                and order.created_at > self._began
                and order.signal_id not in self._signals
            ),
            ZERO,
        )

    def _exits(self) -> list[ManagedOrder]:
        exits = self._desk.book.orders.open_reductions(self.symbol)
        return [order for order in exits if order.role in _CLOSES]

    def _refusal(self) -> str:
        """Return why the venue has refused the last order that was to close the position; empty: it has not."""
        book = self._desk.book
        position = book.positions.open.get(self.symbol)
        if position is None:
            return ""
        orders = book.orders.revisions(position.position_id)
        last = next((each for each in reversed(orders) if each.role is OrderRole.FLATTEN), None)
        return last.reason if last is not None and last.state is OrderState.REJECTED else ""

    def left(self) -> list[str]:
        """Return what is left to take out, in words."""
        book, found = self._desk.book, []
        position = book.positions.open.get(self.symbol)
        if position is not None:
            found.append(f"{plain(position.quantity)} open")
            found += [f"{o.client_order_id} to close it is {o.state}" for o in self._exits()]
            refusal = self._refusal()
            if refusal:
                found.append(f"the venue says: {refusal}")
        entries = len(book.orders.open_entries(self.symbol))
        if entries:
            found.append(f"{entries} {'entry' if entries == 1 else 'entries'} not proven gone")
        if found and not self._ended:
            found.append("it goes on")
        return found

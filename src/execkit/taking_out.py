"""Taking positions out by hand: each symbol by itself, and until it is flat, also where the venue hangs meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import attrs
import structlog
from msgspec.structs import replace

from execkit.errors import ExchangeError
from execkit.handlers.desk import Desk
from execkit.model.order import OrderRole, OrderState
from execkit.model.result import Outcome
from execkit.numbers import plain
from execkit.orders.manager import ManagedOrder
from execkit.protection.closing import is_gone
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_ANSWER_WITHIN: Final = 20.0
"""Seconds after which a person is told what is left; the rest goes on."""

_LONGEST_WAIT: Final = 30.0
"""Seconds between two tries to close a position."""

_REFUSALS: Final = 5
"""How often the venue may refuse to close a position until a person has to see to it."""

_CLOSES: Final = frozenset({OrderRole.EXIT, OrderRole.FLATTEN})


@attrs.frozen
class Flattened:
    """What flattening has come to, by symbol. It is true when nothing is left."""

    flat: tuple[str, ...] = ()
    """Symbols of which neither a position nor an entry is left."""
    left: Mapping[str, str] = attrs.field(factory=dict)
    """What is left of the others, in words: quantity, orders, and what was in the way."""

    def __bool__(self) -> bool:
        return not self.left


async def take_out(desk: Desk, symbol: str | None, reason: str) -> Flattened:
    """Cancel entries and close positions, of one symbol or all; return what is left after a while.

    What is left then goes on, until it is flat or the venue refuses to close it.
    """
    take_from_queue(desk, symbol, reason)
    desk.slicer.end_all(symbol, reason)
    book = desk.book
    entries: dict[str, list[ManagedOrder]] = {}
    for order in book.orders.active.values():
        if order.role is OrderRole.ENTRY:
            entries.setdefault(order.symbol, []).append(order)
    # Positions first: where the venue's pace is short, what closes them leaves before the cancels of other symbols.
    concerned = [s for s in dict.fromkeys((*book.positions.open, *entries)) if symbol in (None, s)]
    ways = [_WayOut(desk, each, entries.get(each, ()), reason) for each in concerned]
    for way in ways:
        desk.spawn(way.run(), f"{reason} {way.symbol}")
    if ways:
        await asyncio.wait([way.tried for way in ways], timeout=_ANSWER_WITHIN)
    await desk.recorder.try_settle()
    left = {way.symbol: "; ".join(found) for way in ways if (found := way.left())}
    return Flattened(flat=tuple(each for each in concerned if each not in left), left=left)


class _WayOut:
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

    async def _close(self, *, once: bool = False) -> None:
        """Close the position; where that fails, again after a pause, in which it has its stop."""
        desk, refusals, wait = self._desk, 0, 1.0
        while self._is_open() and desk.recorder.journal.is_current:
            try:
                sent = await desk.keeper.flatten(self.symbol, self._reason)
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
        return position is not None and (
            position.position_id == self._position_id or position.signal_id in self._signals
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


def take_from_queue(desk: Desk, symbol: str | None, reason: str) -> None:
    """End the signals that wait for their market to open; who asks again is told that they were cancelled."""
    for queued in [q for q in desk.book.queued.values() if symbol in (None, q.symbol)]:
        known = desk.book.signals.get(queued.signal_id)
        told = None if known is None else known.result
        if told is None:
            # Its chain has not ended yet, or never did: nobody was told that it is queued.
            desk.recorder.record(replace(queued, queued=False))
        else:
            desk.recorder.record(replace(told, outcome=Outcome.CANCELLED, reason=reason))

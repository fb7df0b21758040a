"""Taking positions out by hand: each symbol by itself, and until it is flat, also where the venue hangs meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import attrs
from msgspec.structs import replace

from execkit.handlers.desk import Desk
from execkit.handlers.way_out import WayOut
from execkit.model.order import OrderRole
from execkit.model.result import Outcome
from execkit.orders.manager import ManagedOrder

_ANSWER_WITHIN: Final = 20.0
"""Seconds after which a person is told what is left; the rest goes on."""


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
    ways = [WayOut(desk, each, entries.get(each, ()), reason) for each in concerned]
    for way in ways:
        desk.spawn(way.run(), f"{reason} {way.symbol}")
    if ways:
        await asyncio.wait([way.tried for way in ways], timeout=_ANSWER_WITHIN)
    await desk.recorder.try_settle()
    left = {way.symbol: "; ".join(found) for way in ways if (found := way.left())}
    return Flattened(flat=tuple(each for each in concerned if each not in left), left=left)


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

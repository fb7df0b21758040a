"""Cancel or close everything at several venues at once; one that hangs or is down does not hold up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal

import attrs

from execkit import operations
from execkit.by_hand import ByHand
from execkit.redaction import words_of

_WITHIN = timedelta(seconds=30)


@attrs.frozen(kw_only=True)
class Remains:
    """What is left at one venue. *error* is empty when everything was done in time."""

    account: str
    orders: tuple[str, ...] = ()
    """Client order ids of our orders that are open, or may be."""
    positions: Mapping[str, Decimal] = attrs.field(factory=dict)
    """Quantities by symbol."""
    error: str = ""

    @property
    def is_flat(self) -> bool:
        """Tell whether nothing is left."""
        return not self.orders and not self.positions


async def cancel_all(
    engines: Iterable[ByHand], *, within: timedelta = _WITHIN, actor: str = "emergency"
) -> list[Remains]:
    """Halt every engine, cancel its open orders, and return what is left of each, in their order.

    Stops and targets stay. What has not ended *within* so long goes on, and is reported.
    """

    async def act(engine: ByHand) -> None:
        asked = await engine.cancel_all(actor=actor)
        await asyncio.gather(*(order.done() for order in asked))

    return await _everywhere(engines, act, within, actor)


async def flatten(
    engines: Iterable[ByHand], *, within: timedelta = _WITHIN, actor: str = "emergency"
) -> list[Remains]:
    """Halt every engine, cancel its entries, close its positions, and return what is left of each, in their order.

    What has not ended *within* so long goes on, and is reported.
    """

    async def act(engine: ByHand) -> None:
        await engine.flatten(actor=actor)
        active = list(engine.orders.active.values())
        await asyncio.gather(
            *(each.done() for each in active if each.role not in operations.PROTECTIVE)
        )
        await engine.desk.keeper.idle()  # now that goes which has nothing left to protect

    return await _everywhere(engines, act, within, actor)


async def _everywhere(
    engines: Iterable[ByHand],
    act: Callable[[ByHand], Awaitable[None]],
    within: timedelta,
    actor: str,
) -> list[Remains]:
    async def one(engine: ByHand) -> Remains:
        if not hasattr(engine, "desk"):
            return Remains(
                account=repr(engine), error="it was never started: nothing is known of it"
            )
        try:
            # Halted at once: what is cancelled or closed here must not be bought again by the next signal.
            engine.desk.gateway.halt(f"everything is taken out by {actor}", actor=actor)
            work = asyncio.ensure_future(act(engine))
            await asyncio.wait([work], timeout=within.total_seconds())
            if work.done():
                work.result()
                return _remains(engine)
            engine.parts.upkeep.spawn(work, "emergency")
            seconds = within.total_seconds()
            return _remains(engine, f"not everything has ended within {seconds:g} s; it goes on")
        except Exception as error:  # noqa: BLE001 - the others go on, and this one is reported
            return _remains(engine, words_of(error))

    return list(await asyncio.gather(*(one(engine) for engine in engines)))


def _remains(engine: ByHand, error: str = "") -> Remains:
    open_now = engine.desk.book.positions.open
    return Remains(
        account=engine.desk.recorder.journal.account,
        orders=tuple(engine.orders.active),
        positions={symbol: each.quantity for symbol, each in open_now.items()},
        error=error,
    )

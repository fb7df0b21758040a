"""When how much of an order is sent. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from execkit.model.instrument import Instrument
from execkit.model.slicing import Iceberg, Slice, Slicing, Vwap
from execkit.numbers import MONEY, ONE, ZERO


def schedule(
    slicing: Slicing, quantity: Decimal, instrument: Instrument, price: Decimal, start: datetime
) -> tuple[Slice, ...]:
    """Return the parts of an order in order of time; their sum is *quantity*. An iceberg has none: it has no times.

    Parts are whole lots. One that the venue would not take at *price* is sent together with the next.
    """
    if isinstance(slicing, Iceberg):
        return ()
    weights = slicing.profile if isinstance(slicing, Vwap) else (ONE,) * slicing.slices
    total = sum(weights, ZERO)
    least = instrument.smallest_quantity(price)
    step = slicing.duration / len(weights)
    parts: list[Slice] = []
    weight = sent = ZERO
    for place, each in enumerate(weights):
        weight += each
        share = MONEY.divide(MONEY.multiply(quantity, weight), total)
        wanted = instrument.round_quantity(share) if weight < total else quantity
        if wanted - sent >= least:
            parts.append(Slice(start + step * place, wanted))
            sent = wanted
    if sent < quantity:
        # What is left at the end is too little for an order of its own.
        at = parts.pop().at if parts else start
        parts.append(Slice(at, quantity))
    return tuple(parts)


def due(
    slices: tuple[Slice, ...], place: int, committed: Decimal, instrument: Instrument
) -> Decimal:
    """Return what to send as part *place*: what should be out by then and is not, at most twice the part itself.

    After a pause of any kind an order is not made up for all at once.
    """
    before = slices[place - 1].cumulative if place else ZERO
    nominal = slices[place].cumulative - before
    behind = slices[place].cumulative - committed
    return instrument.round_quantity(max(min(behind, nominal * 2), ZERO))

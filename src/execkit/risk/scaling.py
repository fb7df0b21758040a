"""When an entry may add to a position: only where that is on, to a winner, and not too often."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Side
from execkit.model.position import Position
from execkit.numbers import HUNDRED, MONEY
from execkit.orders.executions import Execution
from execkit.risk.limits import RiskLimits


def check_scale_in(
    position: Position,
    executions: Iterable[Execution],
    side: Side,
    mid: Decimal,
    limits: RiskLimits,
) -> Denial | None:
    """Return why an entry on *side* may not add to *position*, or None.

    A winner gains at least 1 R, the distance from the average entry to the first entry's stop-loss: a stop that was
    moved since says nothing of the risk that was taken. *executions* are the recent fills of the symbol.
    """
    symbol = position.symbol
    if not limits.scale_in or position.is_long is not (side is Side.BUY):
        return Denial.of(
            DenialCode.POSITION_EXISTS,
            symbol=symbol,
            position=position.quantity,
            scale_in=limits.scale_in,
        )
    entries = [e for e in executions if e.fill.side is side and e.fill.at >= position.opened_at]
    # The slices of one order are one entry.
    additions = len({e.origin.slice_of or e.origin.signal_id for e in entries}) - 1
    if additions >= limits.max_scale_ins:
        return Denial.of(
            DenialCode.POSITION_EXISTS,
            symbol=symbol,
            scale_ins=additions,
            limit=limits.max_scale_ins,
        )
    average = position.average_price
    stop_loss = position.initial_stop
    if stop_loss is None:
        risk = MONEY.multiply(average, limits.max_stop_distance_pct) / HUNDRED
    else:
        risk = abs(average - stop_loss)
    gain = (mid - average) * side.sign
    if gain >= risk:
        return None
    return Denial.of(DenialCode.POSITION_EXISTS, symbol=symbol, gain=gain, limit=risk)

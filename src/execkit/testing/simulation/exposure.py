"""What an account may come to hold at worst, as the venue knows it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from execkit.handlers.risk import RiskManagementHandler
from execkit.model.order import OrderRole
from execkit.model.records import Intent
from execkit.numbers import ZERO
from execkit.risk.limits import RiskLimits
from execkit.testing.simulation.venue import SimVenue

if TYPE_CHECKING:
    from execkit.testing.simulation.process import Process


def worst_exposure(
    venue: SimVenue,
    intents: Mapping[str, tuple[int, Intent]],
    besides: Collection[str],
    sending: Intent,
    symbols: Collection[str] | None = None,
) -> Decimal:
    """Return what is held, what open entries may add, and the one that is being sent, in quote units.

    Orders in *besides* are left out: the venue has broken its promises about them. *symbols* are those that count;
    None: all.
    """
    core = venue.core
    worst = ZERO
    for symbol in core.instruments if symbols is None else symbols:
        price = core.quote(symbol).mid
        worst += abs(venue.quantity(symbol)) * price
        for order in core.open.get(symbol, {}).values():
            key = order.request.client_order_id
            found = intents.get(key)
            if found is not None and found[1].role is OrderRole.ENTRY and key not in besides:
                worst += order.remaining * price
        if symbol == sending.request.symbol:
            worst += sending.request.quantity * price
    return worst


def limits_of(process: Process) -> RiskLimits | None:
    """Return the limits of the chain of a process; None when it has none."""
    assert process.engine is not None, "it has sent something"
    handlers = process.engine.parts.pipeline.handlers
    risk = next((each for each in handlers if isinstance(each, RiskManagementHandler)), None)
    return None if risk is None else risk.limits


def exposure_limit(process: Process) -> Decimal | None:
    """Return what the chain of a process allows, in quote units; None when it does not limit it."""
    limits = limits_of(process)
    if limits is None:
        return None
    # Prices move between the check and the send, and equity with them.
    share = limits.max_exposure_pct / 100 * Decimal("1.2")
    return process.book.equity("USDT") * share + 500

"""The terms of an order: how much of it, and at which prices."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

KEEP: Final = 50
"""Terms before the last changes of an order that are remembered."""


class Terms(NamedTuple):
    """Quantity in base units, prices in quote units."""

    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None

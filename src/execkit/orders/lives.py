"""The running sums of one symbol, from which its positions are cut.

A position is open from the execution that makes it a lot or more until one that leaves less. A fee in kind leaves such
dust at nearly every exit, and nobody can sell it. It stays in what is held, at what it has cost, because nothing of it
was sold; the next position begins with it, so that it can be sold then and never adds up. Each amount of money is in
one place: in a closed position, in the open one, or in the dust.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from execkit.model.order import Fill
from execkit.model.position import Dust
from execkit.numbers import MONEY, ZERO
from execkit.orders.executions import Execution, Key, Origin


class Life(msgspec.Struct):
    """What is held of one symbol, and the sums of the position or the dust that it is."""

    number: int = 0
    """Number of the last position."""
    quantity: Decimal = ZERO
    average: Decimal = ZERO
    realised: Decimal = ZERO
    fees: dict[str, Decimal] = {}
    opened_at: datetime | None = None
    peak: Decimal = ZERO
    origin: Origin = Origin()
    lot_size: Decimal = ZERO
    """The last that is known; while it is zero only nothing is less than a lot."""
    opened_by: Key | None = None
    """The execution that opened the last position; None: an older version's."""
    is_dust: bool = False
    """No position owns what is held; the sums are what the next one begins with."""

    @property
    def begins(self) -> Key:
        """Where the position begins among the executions."""
        assert self.opened_at is not None, "only of what was opened"
        return self.opened_by or (self.opened_at, "", "")

    @property
    def is_open(self) -> bool:
        """Tell whether what is held is a position."""
        return bool(self.quantity) and not self.is_dust

    @property
    def is_below_a_lot(self) -> bool:
        """Tell whether nobody can sell what is held."""
        return abs(self.quantity) < self.lot_size

    def grow(self, execution: Execution, change: Decimal, cost: Decimal, fee: Decimal) -> None:
        """Add *change* to what is held; what comes to a lot is a position, opened by this execution."""
        fill = execution.fill
        total = MONEY.add(self.quantity, change)
        if not self.is_open:
            self._begin(execution, total)
        if total:
            self.average = (self.average * self.quantity + fill.price * change) / total
        self.quantity = total
        self.realised = MONEY.subtract(self.realised, cost)
        self.peak = max(self.peak, abs(total))
        self._charge(fill.fee_asset, fee)

    def _begin(self, execution: Execution, total: Decimal) -> None:
        if not self.is_dust:
            self.average = ZERO
            self._clear()
        self.is_dust = abs(total) < self.lot_size
        if not self.is_dust:
            self.number += 1
            self.peak = ZERO
            self.opened_at = execution.fill.at
            self.opened_by = execution.key
            self.origin = execution.origin

    def reduce(self, fill: Fill, change: Decimal, cost: Decimal, fee: Decimal) -> None:
        """Take *change*, of the other sign and no larger, off what is held."""
        gain = MONEY.multiply(MONEY.subtract(fill.price, self.average), -change)
        self.realised = MONEY.add(self.realised, MONEY.subtract(gain, cost))
        self.quantity = MONEY.add(self.quantity, change)
        self._charge(fill.fee_asset, fee)

    def leave_dust(self) -> None:
        """End the position; what is left has sums of its own."""
        if self.quantity:
            self.is_dust = True
            self._clear()

    def dust(self, symbol: str) -> Dust:
        """Return what no position owns."""
        return Dust(symbol, self.quantity, self.average, self.realised, dict(self.fees))

    def _clear(self) -> None:
        self.realised = ZERO
        self.fees = {}

    def _charge(self, asset: str, fee: Decimal) -> None:
        if fee:
            self.fees = {**self.fees, asset: MONEY.add(self.fees.get(asset, ZERO), fee)}

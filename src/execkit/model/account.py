"""Balances and positions as a venue states them."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from execkit.numbers import ZERO


class Balance(msgspec.Struct, frozen=True):
    """Holding of one asset. *free* is what new orders may use."""

    asset: str
    total: Decimal
    free: Decimal

    @property
    def locked(self) -> Decimal:
        """What resting orders hold."""
        return self.total - self.free


class VenuePosition(msgspec.Struct, frozen=True):
    """A net position by the venue's own books; short is negative."""

    symbol: str
    quantity: Decimal
    average_price: Decimal = ZERO


class AccountView(msgspec.Struct, frozen=True):
    """The account as risk checks see it: kept up to date by fills, checked against the venue on reconcile."""

    currency: str
    equity: Decimal
    """All holdings valued at the last marks, in *currency*."""
    cash: Decimal
    """Holding of *currency* itself."""
    reserved: Decimal
    """Worst-case cost of live, in-flight and in-doubt entries."""

    @property
    def buying_power(self) -> Decimal:
        """Cash that no entry has claimed."""
        return self.cash - self.reserved

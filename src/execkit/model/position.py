"""One position: what the fills of a symbol add up to, from flat to flat."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

from execkit.numbers import ZERO, plain


class PositionState(StrEnum):
    """Life of a position."""

    PENDING_ENTRY = "pending_entry"
    OPEN = "open"
    PENDING_EXIT = "pending_exit"
    CLOSED = "closed"


class Dust(msgspec.Struct, frozen=True):
    """What is held of a symbol and is less than a lot: nobody can sell it, so it is no position.

    The next position begins with all of it.
    """

    symbol: str
    quantity: Decimal
    """Signed."""
    average_price: Decimal
    """What it has cost, in quote per unit: the mean entry price of the position that has left it."""
    realised_pnl: Decimal = ZERO
    """Gains and fees of executions that were less than a lot themselves, in quote."""
    fees: dict[str, Decimal] = {}
    """Fees of those by asset."""


class Target(msgspec.Struct, frozen=True):
    """A price at which a share of a position, of its largest size, is closed."""

    price: Decimal
    share: Decimal


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A position, read-only. Prices and money are in the quote asset; a short quantity is negative."""

    position_id: str
    symbol: str
    quantity: Decimal
    average_price: Decimal
    """Mean entry price of what is open, fees not included."""
    realised_pnl: Decimal = ZERO
    """Closed part, after the fees that are paid in base or quote."""
    fees: dict[str, Decimal] = {}
    """Fees paid by asset; those in a third asset are not part of *realised_pnl*."""
    opened_at: datetime
    closed_at: datetime | None = None
    state: PositionState = PositionState.OPEN
    signal_id: str = ""
    strength: Decimal | None = None
    peak_quantity: Decimal = ZERO
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    targets: tuple[Target, ...] = ()
    """Exits in parts, nearest first; they take the place of *take_profit*."""
    initial_stop: Decimal | None = None
    """Stop-loss of the entry: what the risk R is measured by, wherever the stop has moved since."""
    stop_since: datetime | None = None
    """When *stop_loss* was set; None: with the entry."""
    target_since: datetime | None = None
    """When *take_profit* was set; None: with the entry."""
    earlier_stop: Decimal | None = None
    """Stop-loss that was in force before *stop_since*, from *earlier_stop_since* on."""
    earlier_stop_since: datetime | None = None
    limit_exit: bool = False
    """Its *take_profit* is the limit of an exit that was asked for: it is closed there or better, or not at all."""
    stop_order_id: str | None = None
    best_price: Decimal | None = None
    """Most favourable price seen since entry, from bars; feeds trailing stops."""
    mark: Decimal | None = None
    """Last known price."""
    dust: Decimal = ZERO
    """What a closed position has left: less than a lot, at its *average_price*, and part of the next one."""

    @property
    def is_long(self) -> bool:
        """Tell whether it gains when the price rises."""
        return self.quantity > ZERO

    @property
    def is_flat(self) -> bool:
        """Tell whether nothing is open."""
        return self.quantity == ZERO

    @property
    def unrealised_pnl(self) -> Decimal:
        """Gain of the open part at the last known price, before fees; zero without a price."""
        if self.mark is None:
            return ZERO
        return (self.mark - self.average_price) * self.quantity

    def age(self, now: datetime) -> float:
        """Seconds since it was opened, until it was closed."""
        return ((self.closed_at or now) - self.opened_at).total_seconds()

    def __str__(self) -> str:
        stop = "none" if self.stop_loss is None else plain(self.stop_loss)
        return (
            f"{self.symbol} {plain(self.quantity)} @ {plain(round(self.average_price, 8))} "
            f"({self.state}, realised {plain(round(self.realised_pnl, 8))}, stop {stop})"
        )

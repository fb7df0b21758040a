"""Where a trade plan stands; the runner moves it, the journal keeps it."""

from __future__ import annotations

from enum import StrEnum


class TradePlanStatus(StrEnum):
    """Life of a trade plan. Entries are looked for in AWAITING_ENTRY only."""

    AWAITING_ENTRY = "awaiting_entry"
    """Flat; its entry functions are asked at each bar close."""
    POSITION_OPEN = "position_open"
    """A position of this plan is open; its exit functions are asked."""
    COMPLETED = "completed"
    """Its one trade is done; a plan that repeats never gets here."""
    CANCELLED = "cancelled"
    """Ended by a person; no function of it is asked any more."""
    ERROR = "error"
    """A signal of it could not be handed over; it enters nothing more, its exits go on."""

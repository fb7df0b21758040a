"""The day's loss: against the session's opening equity and against the equity 24 hours ago."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol

import msgspec

_DAY: Final = timedelta(hours=24)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class EquityAt(Protocol):
    """Equity at one time, as the book keeps it."""

    @property
    def at(self) -> datetime:
        """When it was taken."""
        ...

    @property
    def equity(self) -> Decimal:
        """All holdings in the account's currency."""
        ...

    @property
    def opens_session(self) -> bool:
        """Whether it is the first of a session."""
        ...


class DayBaseline(msgspec.Struct, frozen=True):
    """What the day is measured against; equities in the account's currency."""

    opening: Decimal
    """At the last session's open, else at the oldest mark."""
    day_ago: Decimal
    """24 hours ago, else at the oldest mark."""
    until: datetime
    """From then on another mark is 24 hours old."""

    def loss(self, equity: Decimal) -> Decimal:
        """Return the larger of the two losses, realised and unrealised; negative is a gain."""
        return max(self.opening, self.day_ago) - equity


def day_baseline(now: datetime, marks: Sequence[EquityAt]) -> DayBaseline | None:
    """Return the baseline at *now* of marks in order of time, or None when there is no mark."""
    since = now - _DAY
    opening = newest_old = oldest = None
    until = _NEVER
    for mark in reversed(marks):
        oldest = mark
        if opening is None and mark.opens_session:
            opening = mark
        if newest_old is None:
            if mark.at <= since:
                newest_old = mark
            else:
                until = mark.at + _DAY
        if opening is not None and newest_old is not None:
            break
    if oldest is None:
        return None
    return DayBaseline((opening or oldest).equity, (newest_old or oldest).equity, until)


class DayWatch:
    """Gives the baseline per order without reading all marks: only when one comes or turns 24 hours old."""

    def __init__(self) -> None:
        self._newest: EquityAt | None = None
        self._baseline: DayBaseline | None = None

    def baseline(self, now: datetime, marks: Sequence[EquityAt]) -> DayBaseline | None:
        """Return `day_baseline(now, marks)`; *marks* only ever grows at its end."""
        known = self._baseline
        if not marks:
            return None
        if known is None or marks[-1] is not self._newest or now >= known.until:
            self._newest = marks[-1]
            self._baseline = known = day_baseline(now, marks)
        return known

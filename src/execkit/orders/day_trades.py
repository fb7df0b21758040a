"""Day trades, counted from the executions of one symbol in order.

The rule is FINRA 4210(f)(8)(B) as it stood until June 2026, when standards of intraday margin took its place; it
matters where a broker still applies it. A day trade is a purchase and a sale, or a short sale and a purchase, of the
same security on the same day, the hours before and after the session included. What was held overnight and is closed
before any new purchase (if short: sale) is none. Several executions in a row in one direction are one transaction, so
changes of direction count (Regulatory Notice 21-13, interpretation 4210(f)(8)(B)(ii)/02). A day is one of New York.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from execkit.numbers import MONEY, ZERO

NEW_YORK: Final = ZoneInfo("America/New_York")

KEEP_DAYS: Final = 10
"""Days with day trades that are remembered; the rule looks back on five."""


class DayTrades(msgspec.Struct):
    """The count of one symbol. Feed it every execution, oldest first."""

    held: Decimal = ZERO
    """Signed position."""
    day: date | None = None
    """New York day of the last execution."""
    is_buying: bool | None = None
    """Direction of the last execution of the day."""
    opened_long: bool = False
    """Something of a long position was bought on that day."""
    opened_short: bool = False
    """Something of a short position was sold on that day."""
    is_counted: bool = False
    """The executions in a row that the last one belongs to are a day trade already."""
    counts: list[tuple[date, int]] = []
    """Day trades by day, oldest first."""

    @classmethod
    def holding(cls, held: Decimal, opened_at: datetime | None) -> DayTrades:
        """Return a count that begins with a signed position, of which only is known when it was opened."""
        if not held or opened_at is None:
            return cls(held)
        day = opened_at.astimezone(NEW_YORK).date()
        return cls(held, day, opened_long=held > ZERO, opened_short=held < ZERO)

    def add(self, change: Decimal, at: datetime) -> None:
        """Take in one execution: the signed *change* of the position, at the venue's time *at*."""
        if not change:
            return
        day = at.astimezone(NEW_YORK).date()
        if day != self.day:
            self.day, self.is_buying = day, None
            self.opened_long = self.opened_short = False
        if self.is_buying is not (change > ZERO):
            self.is_buying, self.is_counted = change > ZERO, False
        if self.closes_todays() and not self.is_counted:
            self.is_counted = True
            self._count(day)
        self.held = MONEY.add(self.held, change)
        if self.held and (self.held > ZERO) is self.is_buying:
            # It opened a position, added to one, or has gone through zero.
            self.opened_long = self.opened_long or self.is_buying
            self.opened_short = self.opened_short or not self.is_buying

    def closes_todays(self) -> bool:
        """Tell whether the last direction takes off a position that was opened, or added to, on the same day."""
        if not self.held or (self.held > ZERO) is self.is_buying:
            return False
        return self.opened_long if self.held > ZERO else self.opened_short

    def would_close(self, at: datetime) -> bool:
        """Tell whether closing what is held at *at* would be one day trade more."""
        if not self.held or at.astimezone(NEW_YORK).date() != self.day:
            return False
        if self.is_counted and self.is_buying is (self.held < ZERO):
            return False  # it would go on with the executions that are counted
        return self.opened_long if self.held > ZERO else self.opened_short

    def since(self, first: date) -> int:
        """Return the day trades from the day *first* on."""
        return sum(count for day, count in self.counts if day >= first)

    def copy(self) -> DayTrades:
        """Return one that goes on by itself."""
        return msgspec.structs.replace(self, counts=list(self.counts))

    def _count(self, day: date) -> None:
        if self.counts and self.counts[-1][0] == day:
            self.counts[-1] = (day, self.counts[-1][1] + 1)
        else:
            self.counts = [*self.counts, (day, 1)][-KEEP_DAYS:]

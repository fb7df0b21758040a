"""The day-trade counter of FINRA rule 4210: four in five business days make a small margin account a restricted one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from execkit.model.denial import Denial, DenialCode
from execkit.model.position import Position
from execkit.orders.positions import PositionBook
from execkit.risk.limits import RiskLimits

_MARKET: Final = ZoneInfo("America/New_York")
_DAYS: Final = 6
"""Weekdays looked back on: one more than the rule's five, because one of them may be a holiday."""


def weekdays_back(today: date, days: int) -> date:
    """Return the first of *days* weekdays that end with *today*."""
    day = today
    while days > 1 or day.weekday() >= 5:
        if day.weekday() < 5:
            days -= 1
        day -= timedelta(days=1)
    return day


def day_trades(closed: Iterable[Position], now: datetime) -> int:
    """Return how many positions of the last business days were opened and closed on one New York day."""
    since = weekdays_back(now.astimezone(_MARKET).date(), _DAYS)
    count = 0
    for position in closed:
        assert position.closed_at is not None, "only closed positions are kept"
        day = position.opened_at.astimezone(_MARKET).date()
        if day >= since and day == position.closed_at.astimezone(_MARKET).date():
            count += 1
    return count


def check_day_trades(
    positions: PositionBook, under_way: int, now: datetime, equity: Decimal, limits: RiskLimits
) -> Denial | None:
    """Refuse an entry whose exit on the same day could be one day trade too many.

    What was opened today, and the *under_way* entries, may have to be closed today as well.
    """
    if limits.max_day_trades is None or equity >= limits.day_trades_free_above:
        return None
    today = now.astimezone(_MARKET).date()
    fresh = sum(
        1 for each in positions.open.values() if each.opened_at.astimezone(_MARKET).date() == today
    )
    done = day_trades(positions.closed, now) + fresh + under_way
    if done < limits.max_day_trades:
        return None
    return Denial.of(
        DenialCode.DAY_TRADES_REACHED,
        day_trades=done,
        limit=limits.max_day_trades,
        equity=equity,
        free_above=limits.day_trades_free_above,
    )

"""The day-trade counter: four in five business days made a small US margin account a restricted one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from execkit.model.denial import Denial, DenialCode
from execkit.orders.day_trades import NEW_YORK, DayTrades
from execkit.orders.positions import PositionBook
from execkit.risk.limits import RiskLimits

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


def day_trades(counted: Iterable[DayTrades], now: datetime) -> int:
    """Return how many day trades the last business days have had, of all symbols together."""
    since = weekdays_back(now.astimezone(NEW_YORK).date(), _DAYS)
    return sum(each.since(since) for each in counted)


def check_day_trades(
    positions: PositionBook,
    entering: Iterable[str],
    now: datetime,
    equity: Decimal,
    limits: RiskLimits,
) -> Denial | None:
    """Refuse an entry whose exit on the same day could be one day trade too many.

    *entering* are the symbols with an entry under way, that of this one included: whatever is bought today, and what
    was opened or added to today and is still held, may have to be closed today as well.
    """
    if limits.max_day_trades is None or equity >= limits.day_trades_free_above:
        return None
    symbols = set(entering)
    counted = {symbol: positions.day_trades(symbol) for symbol in positions.traded}
    to_come = len(symbols) + sum(
        1 for symbol, each in counted.items() if symbol not in symbols and each.would_close(now)
    )
    done = day_trades(counted.values(), now)
    if done + to_come <= limits.max_day_trades:
        return None
    return Denial.of(
        DenialCode.DAY_TRADES_REACHED,
        day_trades=done,
        to_come=to_come,
        limit=limits.max_day_trades,
        equity=equity,
        free_above=limits.day_trades_free_above,
    )

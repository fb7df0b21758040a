"""Whether a market takes orders now, by Alpaca's clock and calendar; half days are in both.

The clock knows of closures that no calendar knew in time. The calendar, written in New York's time, tells apart what
lies around the regular session: before it, after it, and closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs

from execkit.exchanges.alpaca.values import BadAnswerError, day, flag, moment
from execkit.exchanges.base import MarketPhase, MarketStatus
from execkit.exchanges.ccxt.values import mapping, rows

NEW_YORK: Final = ZoneInfo("America/New_York")
_PRE, _AFTER = time(4), time(20)


@attrs.frozen
class TradingDay:
    """One day of the calendar: the regular session, and the extended one around it."""

    day: date
    opens: datetime
    closes: datetime
    extended_from: datetime
    extended_until: datetime


@attrs.frozen
class VenueClock:
    """What the venue's clock says."""

    at: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime


def read_clock(body: Any) -> VenueClock:
    """Return the clock."""
    row = mapping(body, "the clock")
    return VenueClock(
        moment(row, "timestamp"),
        flag(row, "is_open"),
        moment(row, "next_open"),
        moment(row, "next_close"),
    )


def read_calendar(body: Any) -> list[TradingDay]:
    """Return the days of the calendar, in order."""
    return sorted(map(_day, rows(body, "the calendar")), key=lambda found: found.day)


def _day(row: Mapping[str, Any]) -> TradingDay:
    on = day(row, "date")
    opens, closes = _at(on, row, "open"), _at(on, row, "close")
    first = _at(on, row, "session_open", _PRE)
    last = _at(on, row, "session_close", _AFTER)
    if not first <= opens < closes <= last:
        raise BadAnswerError("a day of the calendar closes before it opens")
    return TradingDay(on, opens, closes, first, last)


def _at(on: date, row: Mapping[str, Any], name: str, default: time | None = None) -> datetime:
    """Return a moment of a day from `09:30` or `0930`."""
    value = row.get(name)
    if value is None and default is not None:
        found = default
    else:
        digits = value.replace(":", "") if isinstance(value, str) else ""
        if len(digits) != 4 or not (digits.isascii() and digits.isdigit()):
            raise BadAnswerError(f"{name} is no time of day")
        hour, minute = int(digits[:2]), int(digits[2:])
        if hour > 23 or minute > 59:
            raise BadAnswerError(f"{name} is no time of day")
        found = time(hour, minute)
    return datetime.combine(on, found, NEW_YORK).astimezone(UTC)


def status_of(clock: VenueClock, days: list[TradingDay]) -> MarketStatus:
    """Return the state of the stock market."""
    if clock.is_open:
        return MarketStatus(
            is_open=True,
            phase=MarketPhase.REGULAR,
            next_open=clock.next_open,
            next_close=clock.next_close,
        )
    phase, reason = MarketPhase.CLOSED, "the market is closed"
    for each in days:
        if each.extended_from <= clock.at < each.opens:
            phase, reason = MarketPhase.PRE, "before the regular session"
        elif each.closes <= clock.at < each.extended_until:
            phase, reason = MarketPhase.AFTER, "after the regular session"
    return MarketStatus(
        is_open=False,
        phase=phase,
        reason=reason,
        next_open=clock.next_open,
        next_close=clock.next_close,
    )

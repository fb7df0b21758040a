"""The stock market's days, in New York's time: regular sessions, the extended ones around them, holidays, half days."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from execkit.exchanges.base import MarketPhase

_ZONE: Final = ZoneInfo("America/New_York")
_PRE, _OPEN, _CLOSE, _END = time(4), time(9, 30), time(16), time(20)
_DAY: Final = timedelta(days=1)


class TradingHours:
    """Weekdays but *holidays*; *early* names days that close sooner, at 13:00 for instance."""

    def __init__(
        self, *, holidays: Iterable[date] = (), early: Mapping[date, time] | None = None
    ) -> None:
        self.holidays = set(holidays)
        self.early = dict(early or {})
        self.is_shut = False
        """The exchange is closed although its calendar says nothing of it."""

    def trades_on(self, day: date) -> bool:
        """Tell whether there is a session."""
        return day.weekday() < 5 and day not in self.holidays

    def close_of(self, day: date) -> datetime:
        """Return the end of a day's regular session."""
        return self._at(day, self.early.get(day, _CLOSE))

    def phase(self, at: datetime) -> MarketPhase:
        """Return the part of the day."""
        day = at.astimezone(_ZONE).date()
        if self.is_shut or not self.trades_on(day):
            return MarketPhase.CLOSED
        if self._at(day, _PRE) <= at < self._at(day, _OPEN):
            return MarketPhase.PRE
        if self._at(day, _OPEN) <= at < self.close_of(day):
            return MarketPhase.REGULAR
        if self.close_of(day) <= at < self._at(day, _END):
            return MarketPhase.AFTER
        return MarketPhase.CLOSED

    def end_of_day(self, at: datetime, *, extended: bool) -> datetime:
        """Return when a day order that is placed now ends."""
        day = at.astimezone(_ZONE).date()
        while True:
            if self.trades_on(day):
                end = self._at(day, _END) if extended else self.close_of(day)
                if end > at:
                    return end
            day += _DAY

    def next_open(self, at: datetime) -> datetime:
        """Return the next beginning of a regular session."""
        day = at.astimezone(_ZONE).date()
        while not (self.trades_on(day) and self._at(day, _OPEN) > at):
            day += _DAY
        return self._at(day, _OPEN)

    def next_close(self, at: datetime) -> datetime:
        """Return the next end of a regular session."""
        return self.end_of_day(at, extended=False)

    def listed(self, first: date, last: date) -> list[dict[str, Any]]:
        """Return the calendar as Alpaca writes it."""
        found = []
        day = first
        while day <= last:
            if self.trades_on(day):
                close = self.early.get(day, _CLOSE)
                found.append(
                    {
                        "date": day.isoformat(),
                        "open": f"{_OPEN:%H:%M}",
                        "close": f"{close:%H:%M}",
                        "session_open": f"{_PRE:%H%M}",
                        "session_close": f"{_END:%H%M}",
                        "settlement_date": day.isoformat(),
                    }
                )
            day += _DAY
        return found

    @staticmethod
    def _at(day: date, moment: time) -> datetime:
        return datetime.combine(day, moment, _ZONE).astimezone(UTC)

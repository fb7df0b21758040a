"""Sessions of stock exchanges, from the calendars that the package exchange_calendars keeps.

It is chosen over pandas_market_calendars because it is the one that is built around sessions: it names exchanges by
their ISO 10383 codes, gives every open, break and close in UTC with half days and holidays in it, says how far its
knowledge reaches, and depends on less. No calendar knows an unscheduled closure in time: such a day is taken off with
`amend`, and a venue's own clock wins (see `execkit.bars.sessions.heed`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from execkit.bars.sessions import AlwaysOpen, Hours, ListedHours, Session, Window
from execkit.errors import ConfigurationError

DEFAULT_CALENDAR: Final = "XNYS"
DEFAULT_TIMEZONE: Final = "America/New_York"
ALWAYS: Final = "24/7"
"""The calendar of a market that never closes."""
_AROUND: Final = timedelta(days=400)
_ENOUGH: Final = timedelta(days=40)
"""Closer than this to the end of what was read, more is read; a week or a long holiday never crosses it."""


class ExchangeHours(ListedHours):
    """The regular sessions of a stock exchange, with holidays, half days, breaks and summer time.

    Args:
        calendar: ISO 10383 code, e.g. `XNYS`, or another name that exchange_calendars knows.
        closed: Days on which it does not trade although the calendar says so.
        sessions: Sessions that differ from the calendar's.

    The calendar is read two years at a time, around the moments that are asked for. Raises `ConfigurationError` for an
    unknown calendar, when the package is missing, and for moments that the calendar does not reach.
    """

    def __init__(
        self,
        calendar: str = DEFAULT_CALENDAR,
        *,
        closed: Iterable[date] = (),
        sessions: Iterable[Session] = (),
    ) -> None:
        super().__init__()
        self.calendar = calendar
        self._amended: dict[date, Session | None] = dict.fromkeys(closed)
        self._amended.update((session.day, session) for session in sessions)
        self._from: date | None = None
        self._until: date | None = None
        self._library = _library()
        if calendar not in self._library.get_calendar_names(include_aliases=True):
            raise ConfigurationError(
                f"calendar: {calendar!r} is unknown; use the ISO 10383 code of an exchange, such as XNYS or XLON"
            )

    def amend(self, day: date, session: Session | None) -> None:
        """Put *session* in the place of a day's; None: it does not take place, e.g. on a day of mourning."""
        self._amended[day] = session
        super().amend(day, session)

    def session_after(self, at: datetime) -> Session:
        """Return the first session that closes after *at*."""
        self._reach(at)
        return super().session_after(at)

    def session_until(self, at: datetime) -> Session:
        """Return the last session that has closed at *at*."""
        self._reach(at)
        return super().session_until(at)

    def _reach(self, at: datetime) -> None:
        day = at.date()
        if self._from is not None and self._until is not None:
            if self._from + _ENOUGH <= day <= self._until - _ENOUGH:
                return
            start, end = min(self._from, day - _AROUND), max(self._until, day + _AROUND)
        else:
            start, end = day - _AROUND, day + _AROUND
        try:
            with warnings.catch_warnings():
                # Between the library and its pandas; nobody who trades can do anything about it.
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                found = self._library.get_calendar(self.calendar, start=start, end=end)
        except ValueError as error:
            raise ConfigurationError(f"calendar: {error}") from error
        self._from, self._until = start, end
        listed = {session.day: session for session in map(_session, found.schedule.itertuples())}
        kept = {day: session for day, session in self._amended.items() if start <= day <= end}
        sessions = [session for session in (listed | kept).values() if session is not None]
        self._set(sorted(sessions, key=lambda session: session.open))

    def __repr__(self) -> str:
        return f"ExchangeHours({self.calendar!r})"


def market_hours(
    calendar: str | None = None,
    *,
    timezone: str = DEFAULT_TIMEZONE,
    market_hours_only: bool = True,
) -> Hours:
    """Return the hours of a market: the sessions of a *calendar*, or 24/7 in UTC for None and `24/7`, as for crypto.

    Without *market_hours_only* a session market's bars go round the clock, its days from midnight to midnight in
    *timezone*.
    """
    if calendar is None or calendar == ALWAYS:
        return AlwaysOpen()
    if market_hours_only:
        return ExchangeHours(calendar)
    try:
        return AlwaysOpen(ZoneInfo(timezone))
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            f"timezone: {timezone!r} is unknown; use an IANA name such as America/New_York"
        ) from None


def _library() -> Any:
    try:
        # It brings pandas, which takes a second: only those who trade on exchanges wait for it.
        import exchange_calendars  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "calendar: exchange_calendars is missing; install it with: pip install 'execkit[calendars]'"
        ) from None
    return exchange_calendars


def _session(row: Any) -> Session:
    breaks: tuple[Window, ...] = ()
    if row.break_start == row.break_start:  # NaT, where there is none, is unequal to itself
        breaks = ((row.break_start.to_pydatetime(), row.break_end.to_pydatetime()),)
    return Session(row.Index.date(), row.open.to_pydatetime(), row.close.to_pydatetime(), breaks)

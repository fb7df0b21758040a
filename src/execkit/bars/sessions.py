"""When a market trades, and so where its bars end. Everything is UTC inside; zones only say where a day begins.

A bar is half-open: a trade at the very moment of a close belongs to the next bar. Within a session bars are counted
from its open, anew after a break, and the last one ends with the session, however short that makes it. On 09:30-16:00
the hours close at 10:30, 11:30 ... 15:30 and 16:00, the four hours at 13:30 and 16:00; on a half day to 13:00 at 10:30,
11:30, 12:30 and 13:00, and the only four-hour bar at 13:00. A day closes with its session, a week with the last session
of the calendar week, which begins on Monday. A market that never closes has one session for each day.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Final

import msgspec

from execkit.clock import require_utc
from execkit.errors import ConfigurationError
from execkit.model.market import Timeframe

Window = tuple[datetime, datetime]
"""Open and close of one bar."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)
_LONG: Final = frozenset({Timeframe.D1, Timeframe.W1})


def window_open(at: datetime, timeframe: Timeframe) -> datetime:
    """Return the start of the bar that holds a moment, on a market that is always open; weeks begin on Monday."""
    origin = _MONDAY if timeframe is Timeframe.W1 else EPOCH
    return at - (at - origin) % timeframe.duration


def is_aligned(close_time: datetime, timeframe: Timeframe) -> bool:
    """Tell whether a bar can close at this moment, on a market that is always open."""
    return window_open(close_time, timeframe) == close_time


class Session(msgspec.Struct, frozen=True):
    """One session of a market, in UTC; *day* is the date by which the market calls it."""

    day: date
    open: datetime
    close: datetime
    breaks: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        times = [self.open, *(at for pause in self.breaks for at in pause), self.close]
        for at in times:
            require_utc("session", at)
        if any(later <= earlier for earlier, later in pairwise(times)):
            shown = ", ".join(at.isoformat() for at in times)
            raise ConfigurationError(
                f"session: {shown} are not one after the other: open, breaks, close"
            )

    @property
    def parts(self) -> list[Window]:
        """The stretches in which it trades."""
        edges = [self.open, *(at for pause in self.breaks for at in pause), self.close]
        return list(zip(edges[::2], edges[1::2], strict=True))


class Hours(ABC):
    """The sessions of one market, and the bars in them. Every moment is UTC."""

    @abstractmethod
    def session_after(self, at: datetime) -> Session:
        """Return the first session that closes after *at*; raise `ConfigurationError` when none is known."""

    @abstractmethod
    def session_until(self, at: datetime) -> Session:
        """Return the last session that has closed at *at*; raise `ConfigurationError` when none is known."""

    def is_open(self, at: datetime) -> bool:
        """Tell whether the market trades at this moment."""
        return self._part(at) is not None

    def next_open(self, after: datetime) -> datetime:
        """Return the first moment after *after* at which trading begins, also after a break."""
        session = self.session_after(after)
        while True:
            for opened, _ in session.parts:
                if opened > after:
                    return opened
            session = self.session_after(session.close)

    def closed_for(self, at: datetime) -> timedelta:
        """Return how long the market stays closed from a moment on; zero while it trades, and where nobody knows."""
        try:
            return timedelta(0) if self.is_open(at) else self.next_open(at) - at
        except ConfigurationError:
            return timedelta(0)

    def next_close(self, timeframe: Timeframe, after: datetime) -> datetime:
        """Return the first close of a bar after *after*."""
        session = self.session_after(after)
        if timeframe is Timeframe.W1:
            return self._week(session)[1].close
        if timeframe is Timeframe.D1:
            return session.close
        step = timeframe.duration
        for opened, closed in session.parts:
            if after < closed:
                begun = max(after - opened, timedelta(0)) // step
                return min(opened + (begun + 1) * step, closed)
        raise AssertionError("the session closes after the moment")

    def previous_close(self, timeframe: Timeframe, at: datetime) -> datetime:
        """Return the last close of a bar at or before *at*."""
        if timeframe not in _LONG:
            session = self.session_after(at)
            for opened, closed in reversed(session.parts):
                if at >= closed:
                    return closed
                if at - opened >= timeframe.duration:
                    return opened + (at - opened) // timeframe.duration * timeframe.duration
        session = self.session_until(at)
        if timeframe is Timeframe.W1 and self._week(session)[1].close > at:
            return self.session_until(self._week(session)[0].open).close
        return session.close

    def window(self, timeframe: Timeframe, at: datetime) -> Window | None:
        """Return open and close of the bar that holds a moment; None outside the sessions."""
        part = self._part(at)
        if part is None:
            return None
        opened, closed = part
        if timeframe not in _LONG:
            start = opened + (at - opened) // timeframe.duration * timeframe.duration
            return start, min(start + timeframe.duration, closed)
        session = self.session_after(at)
        if timeframe is Timeframe.D1:
            return session.open, session.close
        first, last = self._week(session)
        return first.open, last.close

    def is_close(self, timeframe: Timeframe, at: datetime) -> bool:
        """Tell whether a bar closes at this moment."""
        window = self.window(timeframe, at - timedelta(microseconds=1))
        return window is not None and window[1] == at

    def closes(self, timeframe: Timeframe, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the closes after *after* and not after *until*."""
        at = self.next_close(timeframe, after)
        while at <= until:
            yield at
            at = self.next_close(timeframe, at)

    def _part(self, at: datetime) -> Window | None:
        for part in self.session_after(at).parts:
            if part[0] <= at < part[1]:
                return part
        return None

    def _week(self, session: Session) -> tuple[Session, Session]:
        """Return the first and the last session of the calendar week of *session*."""
        week = session.day.isocalendar()[:2]
        first = last = session
        while (earlier := self.session_until(first.open)).day.isocalendar()[:2] == week:
            first = earlier
        while (later := self.session_after(last.close)).day.isocalendar()[:2] == week:
            last = later
        return first, last


class AlwaysOpen(Hours):
    """A market that never closes; its days run from midnight to midnight of a zone, UTC for crypto.

    On the day that a clock is set a zone's day has 23 or 25 hours, and the bars of four hours begin anew with the next.
    """

    def __init__(self, zone: tzinfo = UTC) -> None:
        self.zone = zone

    def session_after(self, at: datetime) -> Session:
        """Return the day of a moment."""
        return self._day(at.astimezone(self.zone).date())

    def session_until(self, at: datetime) -> Session:
        """Return the day before that of a moment."""
        return self._day(at.astimezone(self.zone).date() - _DAY)

    def _day(self, day: date) -> Session:
        return Session(day, self._midnight(day), self._midnight(day + _DAY))

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def is_open(self, at: datetime) -> bool:
        """Return True."""
        return True

    def window(self, timeframe: Timeframe, at: datetime) -> Window | None:
        """Return open and close of the bar that holds a moment."""
        if self.zone is UTC:
            start = window_open(at, timeframe)
            return start, start + timeframe.duration
        return super().window(timeframe, at)

    def next_close(self, timeframe: Timeframe, after: datetime) -> datetime:
        """Return the first close of a bar after *after*."""
        if self.zone is UTC:
            return window_open(after, timeframe) + timeframe.duration
        return super().next_close(timeframe, after)

    def __repr__(self) -> str:
        return f"AlwaysOpen({self.zone})"


HoursOf = Callable[[str], Hours]
"""The hours of each symbol; those of one symbol are always the same object."""


def hours_by_symbol(hours: Hours | HoursOf | None) -> HoursOf:
    """Return the hours of each symbol; one set holds for all, and None is a market that never closes."""
    if hours is None or isinstance(hours, Hours):
        same = AlwaysOpen() if hours is None else hours
        return lambda _symbol: same
    return hours


class ListedHours(Hours):
    """A market whose sessions are listed one by one; they may be taken off, added and changed at any time."""

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self._sessions: list[Session] = []
        self._closes: list[datetime] = []
        self.extend(sessions)

    def extend(self, sessions: Iterable[Session]) -> None:
        """Add sessions; one of a day that is known replaces it."""
        fresh = {session.day: session for session in sessions}
        kept = [session for session in self._sessions if session.day not in fresh]
        self._set(sorted([*kept, *fresh.values()], key=lambda session: session.open))

    def _set(self, sessions: list[Session]) -> None:
        for earlier, later in pairwise(sessions):
            if later.open < earlier.close:
                raise ConfigurationError(f"sessions: {earlier.day} and {later.day} overlap")
        self._sessions = sessions
        self._closes = [session.close for session in sessions]

    def amend(self, day: date, session: Session | None) -> None:
        """Put *session* in the place of a day's, by hand or by the venue's own word; None: it does not take place."""
        kept = [each for each in self._sessions if each.day != day]
        if session is not None:
            insort(kept, session, key=lambda each: each.open)
        self._set(kept)

    def session_after(self, at: datetime) -> Session:
        """Return the first session that closes after *at*."""
        place = bisect_right(self._closes, at)
        if place == len(self._closes):
            raise ConfigurationError(f"sessions: none is known after {at.isoformat()}")
        return self._sessions[place]

    def session_until(self, at: datetime) -> Session:
        """Return the last session that has closed at *at*."""
        place = bisect_right(self._closes, at)
        if place == 0:
            raise ConfigurationError(f"sessions: none is known before {at.isoformat()}")
        return self._sessions[place - 1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._sessions)} sessions)"


def agrees(
    hours: ListedHours, now: datetime, *, is_open: bool, next_close: datetime | None
) -> bool:
    """Tell whether the listed hours say what the venue's own clock says now."""
    if not is_open:
        return not hours.is_open(now)
    if next_close is None or next_close <= now:
        return True
    session = hours.session_after(now)
    return session.open <= now and session.close == next_close


def heed(
    hours: ListedHours, now: datetime, *, is_open: bool, next_close: datetime | None
) -> str | None:
    """Bring the listed hours in line with what the venue's own clock says now; return what was changed, if anything.

    The venue wins. A session that it does not hold is taken off, one that it has broken off ends with the last full
    minute, and one whose end it tells differently, or that no list knows, is that of the venue.
    """
    if agrees(hours, now, is_open=is_open, next_close=next_close):
        return None
    session = hours.session_after(now)
    if next_close is not None and is_open:
        if session.open <= now:
            breaks = tuple(pause for pause in session.breaks if pause[1] < next_close)
            hours.amend(session.day, Session(session.day, session.open, next_close, breaks))
            return f"the session of {session.day} ends at {next_close.isoformat()}, not at {session.close.isoformat()}"
        opened = window_open(now, Timeframe.M1)
        unplanned = Session(opened.date(), opened, next_close)
        if session.open < next_close:
            hours.amend(session.day, None)
        hours.amend(unplanned.day, unplanned)
        return f"trading until {next_close.isoformat()}, which no calendar knows"
    ended = window_open(now, Timeframe.M1)
    if ended - session.open < _MINUTE:
        hours.amend(session.day, None)
        return f"no session on {session.day}"
    breaks = tuple(pause for pause in session.breaks if pause[1] < ended)
    hours.amend(session.day, Session(session.day, session.open, ended, breaks))
    return f"the session of {session.day} ended at {ended.isoformat()}, not at {session.close.isoformat()}"

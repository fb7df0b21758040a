"""Whether a market takes orders now: the venue's word where it can be had, a calendar's where it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from execkit.bars.sessions import HoursOf, ListedHours
from execkit.clock import Clock
from execkit.exchanges.base import ExchangeAdapter, MarketStatus
from execkit.redaction import shown

log = structlog.get_logger("execkit")

Calendar = Callable[[str, datetime], MarketStatus | None]
"""What a calendar says of a symbol at a time; None: it does not know the symbol."""

MAX_AGE: Final = timedelta(seconds=15)
"""How long a status is believed; a halt is noticed that late, but never later than the venue's own refusal."""

_QUERY_SECONDS: Final = 5.0

Ask = Callable[[Callable[[str], Awaitable[MarketStatus]], float, str], Awaitable[MarketStatus]]


async def _ask_at_once(
    query: Callable[[str], Awaitable[MarketStatus]], timeout: float, symbol: str
) -> MarketStatus:
    async with asyncio.timeout(timeout):
        return await query(symbol)


def _checked(status: MarketStatus) -> MarketStatus:
    """Return a status that foreign code gave, or raise `TypeError` saying what is wrong with it."""
    if not isinstance(status, MarketStatus) or type(status.is_open) is not bool:
        raise TypeError(f"{status!r:.100} is no MarketStatus")
    for at in (status.next_open, status.next_close):
        if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
            raise TypeError(f"{at!r:.100} is no time with a zone")
    return status


def told_by(hours_of: HoursOf) -> Calendar:
    """Return what the sessions of each symbol say; of one that never closes nothing."""

    def tell(symbol: str, at: datetime) -> MarketStatus | None:
        hours = hours_of(symbol)
        if not isinstance(hours, ListedHours):
            return None
        is_open = hours.is_open(at)
        return MarketStatus(
            is_open=is_open,
            next_open=None if is_open else hours.next_open(at),
            next_close=hours.session_after(at).close,
        )

    return tell


class MarketHours:
    """Market states by symbol.

    The venue's clock wins over the calendar: a closure that no calendar knew, as that of 9 January 2025 in New York,
    is seen. The calendar answers while the venue does not, or wants to be left alone, and fills in the next opening and
    closing where the venue leaves them out. *alarm* is told of a calendar that raises, by code and text.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        clock: Clock,
        calendar: Calendar | None = None,
        *,
        ask: Ask | None = None,
        alarm: Callable[[str, str], object] | None = None,
    ) -> None:
        self._adapter = adapter
        self._clock = clock
        self._ask = ask or _ask_at_once
        self._alarm = alarm or (lambda _code, _text: None)
        self._calendar_failed = False
        self.calendar = calendar
        self._known: dict[str, tuple[datetime, MarketStatus]] = {}

    async def status(self, symbol: str, *, anew: bool = False) -> MarketStatus | None:
        """Return the state of a symbol's market, asked *anew* or not; None when nobody can tell."""
        now = self._clock.now()
        known = self._known.get(symbol)
        if known is not None and not anew and self._holds(*known, now):
            return known[1]
        planned = self._planned(symbol, now)
        try:
            said = _checked(await self._ask(self._adapter.market_status, _QUERY_SECONDS, symbol))
        except Exception as error:  # noqa: BLE001 - the calendar is what is left
            log.warning("market.status_failed", symbol=symbol, error=shown(error))
            return planned
        if planned is not None:
            said = msgspec.structs.replace(
                said,
                next_open=said.next_open or planned.next_open,
                next_close=said.next_close or planned.next_close,
            )
        self._known[symbol] = (now, said)
        return said

    def _planned(self, symbol: str, now: datetime) -> MarketStatus | None:
        """Return what the calendar says. One that raises says nothing; a person is told, until it works again."""
        if self.calendar is None:
            return None
        try:
            planned = self.calendar(symbol, now)
            if planned is not None:
                _checked(planned)
        except Exception as error:  # noqa: BLE001 - a calendar is the application's code
            if not self._calendar_failed:
                self._calendar_failed = True
                self._alarm(
                    "CALENDAR_FAILED", f"the calendar says nothing of {symbol}: {shown(error)}"
                )
            return None
        self._calendar_failed = False
        return planned

    @staticmethod
    def _holds(at: datetime, status: MarketStatus, now: datetime) -> bool:
        changes = [t for t in (status.next_open, status.next_close) if t is not None and t > at]
        return at <= now < min([at + MAX_AGE, *changes])

    async def next_open(self, symbol: str) -> datetime | None:
        """Return when the regular session of a symbol opens next; None while it is open or nobody can tell."""
        status = await self.status(symbol)
        return None if status is None or status.is_open else status.next_open

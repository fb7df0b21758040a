"""Bars of TWS: what it calls them, where they end, and when they are finished."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from execkit.clock import Clock
from execkit.errors import ConfigurationError, ExchangeUnavailableError, UnsupportedFeatureError
from execkit.exchanges.ibkr.contracts import Listed
from execkit.exchanges.ibkr.raw import moment
from execkit.exchanges.ibkr.seen import BarSeen
from execkit.model.market import BarData, Timeframe

_SIZES: Final = {
    Timeframe.M1: "1 min",
    Timeframe.M5: "5 mins",
    Timeframe.M15: "15 mins",
    Timeframe.M30: "30 mins",
    Timeframe.H1: "1 hour",
    Timeframe.H4: "4 hours",
    Timeframe.D1: "1 day",
}
_GRACE: Final = 2.0
"""Seconds after its end at which a bar counts as finished although nothing newer has come."""


class Finisher:
    """Turns the updates of a bar that grows into finished bars."""

    def __init__(self, put: Callable[[BarData], None], clock: Clock, began: datetime) -> None:
        self._put = put
        self._clock = clock
        self._told: dict[datetime, BarData] = {}
        self._open: dict[datetime, BarData] = {}
        self._after = began

    def take(self, bar: BarData) -> None:
        """Take in a bar as it is now; a newer one finishes all before."""
        if bar.close_time <= self._after and bar.close_time not in self._told:
            return
        if bar.close_time in self._told:
            if self._told[bar.close_time] != bar:
                self._tell(bar)  # a late correction
            return
        self._open[bar.close_time] = bar
        self._finish(bar.close_time)

    def _finish(self, before: datetime) -> None:
        for at in sorted(at for at in self._open if at < before):
            self._tell(self._open.pop(at))
            self._after = max(self._after, at)

    def _tell(self, bar: BarData) -> None:
        self._told[bar.close_time] = bar
        while len(self._told) > 10:
            del self._told[next(iter(self._told))]
        self._put(bar)

    async def run(self, timeframe: Timeframe) -> None:
        """Finish bars by the clock too, because nothing newer comes while nobody trades."""
        while True:
            now = self._clock.now()
            left = timeframe.seconds - now.timestamp() % timeframe.seconds
            await asyncio.sleep(left + _GRACE)
            self._finish(self._clock.now())


def size_of(timeframe: Timeframe) -> str:
    """Return TWS's word for a timeframe; raise `UnsupportedFeatureError` where it has none that would fit."""
    try:
        return _SIZES[timeframe]
    except KeyError:
        raise UnsupportedFeatureError(
            f"Interactive Brokers: no bars of {timeframe}", venue="ibkr"
        ) from None


def what_of(listed: Listed) -> str:
    """Return what bars of a contract are made of; forex has no trades."""
    kind = listed.contract.secType
    return "MIDPOINT" if kind == "CASH" else "AGGTRADES" if kind == "CRYPTO" else "TRADES"


def span_of(length: timedelta) -> str:
    """Return a duration as TWS wants it; beyond a day it takes only whole days, beyond a year whole years."""
    seconds = max(30, int(length.total_seconds()) + 1)
    if seconds <= 86400:
        return f"{seconds} S"
    days = -(-seconds // 86400)
    return f"{days} D" if days <= 365 else f"{-(-days // 365)} Y"


def bar_of(symbol: str, timeframe: Timeframe, seen: BarSeen) -> BarData:
    """Return a bar as execkit has it: named by its end."""
    begins = moment(seen.date, None)
    if begins is None:
        raise ExchangeUnavailableError(f"a bar of {symbol} begins at {seen.date!r}", venue="ibkr")
    # The first bar of a session may be a short one: it ends where the next begins.
    since = begins.timestamp() // timeframe.seconds * timeframe.seconds
    try:
        return BarData(
            symbol,
            timeframe,
            datetime.fromtimestamp(since + timeframe.seconds, UTC),
            seen.open,
            seen.high,
            seen.low,
            seen.close,
            seen.volume,
        ).checked()
    except ConfigurationError as error:
        raise ExchangeUnavailableError(
            f"an impossible bar of {symbol}: {error}", venue="ibkr"
        ) from None

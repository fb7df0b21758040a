"""Is this bar to be believed? Every doubt is a typed finding; nothing is ever dropped without one."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from execkit.bars.sessions import Hours
from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe
from execkit.numbers import HUNDRED, MONEY, ONE, percent

MAX_MOVE_PCT: Final = Decimal(25)
"""A price farther than this from the last close is not believed at once."""
_INSTANT: Final = timedelta(microseconds=1)


class BarIssue(StrEnum):
    """What can be wrong with market data."""

    GAP = "gap"
    """Bars are missing before this one."""
    DUPLICATE = "duplicate"
    """The same bar again."""
    OUT_OF_ORDER = "out_of_order"
    """A bar older than the last, which was not known."""
    CORRECTED = "corrected"
    """A known bar comes again with other values."""
    LATE_TRADE = "late_trade"
    """A trade of a bar that had closed."""
    STALE = "stale"
    """Nothing has come for long although the market is open."""
    IMPOSSIBLE = "impossible"
    """High below low, a price of zero and the like."""
    ABSURD_PRICE = "absurd_price"
    """Far from the last close, and not yet confirmed by what followed."""
    OFF_GRID = "off_grid"
    """Closes where no bar of its timeframe can."""
    OUTSIDE_SESSION = "outside_session"
    """From a time at which the market does not trade."""
    FUTURE = "future"
    """Closes later than now: unfinished, or a clock is wrong."""
    UNSEEN = "unseen"
    """Not seen from its beginning, so it cannot be told."""
    UNAVAILABLE = "unavailable"
    """The venue could not be asked for it."""


class BarFinding(msgspec.Struct, frozen=True):
    """One doubt about the data of a market. *at* is the close of the bar, or the time of the trade."""

    issue: BarIssue
    symbol: str
    timeframe: Timeframe
    at: datetime
    text: str = ""


class BarUse(StrEnum):
    """What a bar is good for."""

    NEW = "new"
    CORRECTION = "correction"
    """Data for what is known; it fires nothing."""
    HELD = "held"
    """Nothing, as things stand."""


class PriceBand:
    """Holds prices that lie too far from the last close, until the next one confirms the new level."""

    __slots__ = ("_close", "_factors", "_limits", "_suspected")

    def __init__(self, max_move_pct: Decimal = MAX_MOVE_PCT) -> None:
        move = MONEY.divide(percent("max_move_pct", max_move_pct), HUNDRED)
        self._factors = (MONEY.subtract(ONE, move), MONEY.add(ONE, move))
        self._close: Decimal | None = None
        self._limits: tuple[Decimal, Decimal] | None = None
        self._suspected: tuple[Decimal, Decimal] | None = None

    def allows(self, low: Decimal, high: Decimal, close: Decimal) -> bool:
        """Tell whether prices are believed; an unbelieved close is remembered, and confirmed by one near it."""
        if not (self.contains(low) and self.contains(high)):
            suspected = self._suspected
            if suspected is None or not suspected[0] <= low <= high <= suspected[1]:
                self._suspected = self._around(close)
                return False
        self.center(close)
        return True

    @property
    def limits(self) -> tuple[Decimal, Decimal]:
        """The lowest and the highest price that is believed at once; needs a first close."""
        if self._limits is None:
            assert self._close is not None, "there was a first close"
            self._limits = self._around(self._close)
        return self._limits

    def contains(self, price: Decimal) -> bool:
        """Tell whether a price lies in the band as it is."""
        if self._close is None:
            return True
        lowest, highest = self.limits
        return lowest <= price <= highest

    def center(self, close: Decimal) -> None:
        """Measure from *close* from now on."""
        self._close = close
        self._limits = self._suspected = None

    def _around(self, close: Decimal) -> tuple[Decimal, Decimal]:
        down, up = self._factors
        return MONEY.multiply(close, down), MONEY.multiply(close, up)


class BarCheck:
    """Judges the bars of one market and timeframe as they come.

    Args:
        symbol: The market.
        timeframe: Of the bars.
        hours: When the market trades.
        max_move_pct: How far high, low and close may lie from the close before; a bar beyond is held, and believed
            only when the next one lies near it.
        skew: How far the venue's clock may be ahead of ours.
    """

    def __init__(
        self,
        symbol: str,
        timeframe: Timeframe,
        hours: Hours,
        *,
        max_move_pct: Decimal = MAX_MOVE_PCT,
        skew: timedelta = timedelta(seconds=2),
    ) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.band = PriceBand(max_move_pct)
        self._hours = hours
        self._skew = skew
        self._last: BarData | None = None
        self._seen_until: datetime | None = None
        self._recent: dict[datetime, BarData] = {}
        self._held: BarData | None = None
        self._doubted: list[Decimal] = []
        self.confirmed: BarData | None = None
        """The held bar that the one judged last has confirmed; it comes before that one."""

    def judge(self, bar: BarData, now: datetime) -> tuple[BarUse, list[BarFinding]]:
        """Return what a bar is good for, and every doubt about it."""
        self.confirmed = None
        problem = self._problem(bar, now)
        if problem is not None:
            return BarUse.HELD, [problem]
        if self._last is not None and bar.close_time <= self._last.close_time:
            return self._old(bar)
        if bar == self._held:
            return BarUse.HELD, [self._found(BarIssue.DUPLICATE, bar, "it does not confirm itself")]
        far = [price for price in (bar.low, bar.high) if not self.band.contains(price)]
        if not self.band.allows(bar.low, bar.high, bar.close):
            self._held, self._doubted = bar, far
            text = (
                f"high {bar.high}, low {bar.low} and close {bar.close} are far from the last close"
            )
            return BarUse.HELD, [self._found(BarIssue.ABSURD_PRICE, bar, f"{text}; held")]
        self._confirm_held(bar)
        findings = []
        if self._seen_until is not None and bar.close_time <= self._seen_until:
            findings = [self._found(BarIssue.OUT_OF_ORDER, bar, "its close was told as empty")]
        elif self._seen_until is not None:
            expected = self._hours.next_close(self.timeframe, self._seen_until)
            if bar.close_time > expected:
                text = f"nothing from {expected.isoformat()} to this close"
                findings = [self._found(BarIssue.GAP, bar, text)]
        use = (
            BarUse.CORRECTION
            if findings and findings[0].issue is BarIssue.OUT_OF_ORDER
            else BarUse.NEW
        )
        self.accept(bar)
        return use, findings

    def _confirm_held(self, bar: BarData) -> None:
        """Believe the held bar before *bar*, which is believed, if what was doubted of it lies near."""
        held, self._held = self._held, None
        if held is None or held.close_time >= bar.close_time:
            return
        if all(map(self.band.contains, self._doubted)):
            self.confirmed = held
            self._remember(held)
            self.pass_over(held.close_time)

    def accept(self, bar: BarData) -> None:
        """Take a bar as given, e.g. one built here from trades."""
        self._last = bar
        self._remember(bar)
        self.band.center(bar.close)
        self.pass_over(bar.close_time)

    def pass_over(self, close_time: datetime) -> None:
        """Know that nothing was traded up to a close, so that it is no gap."""
        if self._seen_until is None or close_time > self._seen_until:
            self._seen_until = close_time

    def rewind(self) -> None:
        """Forget that nothing was traded after the last bar: a wrong clock has said so."""
        self._seen_until = None if self._last is None else self._last.close_time

    def silence(self, since: datetime) -> BarFinding:
        """Return the finding that nothing has come since a moment."""
        text = f"nothing since {since.isoformat()} although the market is open"
        return BarFinding(BarIssue.STALE, self.symbol, self.timeframe, since, text)

    def _problem(self, bar: BarData, now: datetime) -> BarFinding | None:
        try:
            bar.checked()
        except ConfigurationError as error:
            return self._found(BarIssue.IMPOSSIBLE, bar, str(error))
        if bar.close_time > now + self._skew:
            return self._found(BarIssue.FUTURE, bar, f"closes {bar.close_time - now} from now")
        window = self._hours.window(self.timeframe, bar.close_time - _INSTANT)
        if window is None:
            return self._found(BarIssue.OUTSIDE_SESSION, bar, "the market is closed then")
        if window[1] != bar.close_time:
            return self._found(
                BarIssue.OFF_GRID, bar, f"no {self.timeframe} bar closes then; check time and label"
            )
        return None

    def _old(self, bar: BarData) -> tuple[BarUse, list[BarFinding]]:
        known = self._recent.get(bar.close_time)
        if known == bar:
            return BarUse.HELD, [self._found(BarIssue.DUPLICATE, bar)]
        self._remember(bar)
        if known is None:
            return BarUse.CORRECTION, [self._found(BarIssue.OUT_OF_ORDER, bar)]
        text = f"was {known.open} {known.high} {known.low} {known.close} {known.volume}"
        return BarUse.CORRECTION, [self._found(BarIssue.CORRECTED, bar, text)]

    def _remember(self, bar: BarData) -> None:
        self._recent[bar.close_time] = bar
        if len(self._recent) > 64:
            del self._recent[next(iter(self._recent))]

    def _found(self, issue: BarIssue, bar: BarData, text: str = "") -> BarFinding:
        return BarFinding(issue, self.symbol, self.timeframe, bar.close_time, text)

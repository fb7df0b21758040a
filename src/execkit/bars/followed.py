"""What a feed knows of one market: the bars that grow, how far everything is in, and what was not seen whole."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from execkit.bars.aggregate import BarAggregator
from execkit.bars.builder import TradeBars
from execkit.bars.cache import MarketDataCache
from execkit.bars.quality import BarCheck
from execkit.bars.sessions import Hours
from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe

_SETTLED: Final = timedelta(seconds=10)
"""A bar that the history still has not so long after its close was not: nothing was traded."""


class Followed:
    """One market of a feed; see `BarFeed` for the arguments."""

    def __init__(
        self,
        symbol: str,
        base: Timeframe,
        timeframes: Iterable[Timeframe],
        hours: Hours,
        max_move_pct: Decimal,
        cache: MarketDataCache,
    ) -> None:
        self.symbol = symbol
        self.check = BarCheck(symbol, base, hours, max_move_pct=max_move_pct)
        self.builder = TradeBars(symbol, base, hours, max_move_pct=max_move_pct)
        self.aggregator = BarAggregator(base, timeframes, hours)
        self.whole_from: datetime | None = None
        """The stream is known without a hole from here on; None: all of it is, with the venue's history."""
        self.held: datetime | None = None
        """Close of a bar that is not believed."""
        self.latest: dict[Timeframe, BarData] = {}
        """The newest bar of each timeframe, which is the one that a close asks for."""
        self.heard_at: datetime | None = None
        self.is_stale = False
        self.hours = hours
        self._base = base
        self._cache = cache

    def has(self, close_time: datetime) -> bool:
        """Tell whether everything up to a close is in."""
        last = self.aggregator.last
        return last is not None and last >= close_time

    def add(self, bar: BarData) -> None:
        """Take in the next bar; the longer ones that it finishes are kept too."""
        self._keep([bar, *self.aggregator.add(bar)])

    def correct(self, bar: BarData) -> None:
        """Take in a bar that comes late or again."""
        self._keep([bar, *self.aggregator.correct(bar)])

    def pass_over(self, close_time: datetime) -> None:
        """Know that nothing was traded up to a close."""
        self.check.pass_over(close_time)
        self._keep(self.aggregator.advance(close_time))

    def _keep(self, bars: Iterable[BarData]) -> None:
        latest = self.latest
        for bar in bars:
            known = latest.get(bar.timeframe)
            if known is None or bar.close_time >= known.close_time:
                latest[bar.timeframe] = bar
            self._cache.append(bar)

    def is_open(self, at: datetime) -> bool:
        """Tell whether it trades at a moment, as far as its calendar reaches."""
        try:
            return self.hours.is_open(at)
        except ConfigurationError:
            return False

    @property
    def proven(self) -> datetime | None:
        """Close of the last bar that has come."""
        bar = self.latest.get(self._base)
        return None if bar is None else bar.close_time

    def rewind(self, now: datetime) -> None:
        """Forget what was believed, under a clock that ran ahead, of a time that is still to come."""
        last = self.aggregator.last
        if last is None or last <= now or last == self.proven:
            return
        self.check.rewind()
        self.builder.rewind(self.proven or now)
        self.aggregator = BarAggregator(self._base, self.aggregator.timeframes, self.hours)
        for bar in self._cache.history(self.symbol, self._base):
            self.add(bar)

    def fill(self, *, asked_at: datetime, is_answered: bool) -> datetime | None:
        """Know of an answer of the history, asked for at *asked_at*; return the last close in a hole that it left."""
        if self.whole_from is None:
            return None
        try:
            ended = self.hours.previous_close(self._base, self.whole_from)
        except ConfigurationError:
            ended = self.whole_from  # no calendar knows
        is_there = self.proven is not None and self.proven >= ended
        if is_there or (is_answered and asked_at - ended >= _SETTLED):
            self.whole_from = None
            return None
        return ended

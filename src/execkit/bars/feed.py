"""The market data of a venue, as finished bars: from its bars or trades as they come, and from its history.

The history fills in what came before the start and what a broken stream has lost. A bar is only told when it is known
whole: one that was not seen from its beginning is asked for, and one that comes late or again changes data and nothing
else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec
import structlog

from execkit.bars.cache import MarketDataCache
from execkit.bars.closes import NOT_YET, NotYet
from execkit.bars.followed import Followed
from execkit.bars.past import BarPast
from execkit.bars.quality import MAX_MOVE_PCT, BarFinding, BarIssue, BarUse
from execkit.bars.sessions import Hours, HoursOf, hours_by_symbol
from execkit.clock import Clock, SystemClock
from execkit.errors import ConfigurationError, UnsupportedFeatureError
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.market import BarData, Timeframe, Trade
from execkit.pauses import Pauses
from execkit.redaction import shown

log = structlog.get_logger("execkit")

Source = Literal["auto", "bars", "trades"]

_ASK_AGAIN: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Pauses before each question for a bar that was not seen whole: a venue needs a moment to have it."""
_PROMPT: Final = timedelta(seconds=2)
"""News of a moment no farther than this from now show that the clock is right."""
FORGOTTEN: Final = timedelta(days=30)
"""Silence after which a symbol's bars are dropped; no market is closed for so long."""
_INSTANT: Final = timedelta(microseconds=1)


class BarFeed:
    """Keeps the finished bars of some symbols; a `BarCloseDetector` takes them from here.

    Args:
        adapter: The venue; only its public market data is used.
        symbols: What to follow.
        timeframes: Longer bars that are built from those of *base*.
        base: Shortest bars.
        hours: When the markets trade, all of them or each; by default always.
        clock: Wall time.
        source: `bars` of the venue, which are its own last word; `trades`, which are quicker; `auto` takes bars where
            the venue streams them.
        cache: Where bars are kept.
        backfill: Bars of each timeframe to ask the history for at the start.
        max_move_pct: Prices farther from the last close are held until the next confirm them.
        stale_after: Silence on an open market after which a symbol is stale.
        rng: Spreads the pauses before a broken stream is opened again.
        on_data: Called with a symbol when a bar of it has come, e.g. `BarCloseDetector.deliver`.
        on_history: Called with bars of the past, oldest first: of all timeframes at the start, later of *base*, all
            that a break of the stream has missed, however few the cache keeps.
        on_correction: Called with a bar of *base* that came late or again.
        on_finding: Called with each doubt about the data.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        symbols: Iterable[str],
        *,
        timeframes: Iterable[str | Timeframe] = (),
        base: str | Timeframe = Timeframe.M1,
        hours: Hours | HoursOf | None = None,
        clock: Clock | None = None,
        source: Source = "auto",
        cache: MarketDataCache | None = None,
        backfill: int = 100,
        max_move_pct: Decimal = MAX_MOVE_PCT,
        stale_after: timedelta = timedelta(minutes=5),
        rng: random.Random | None = None,
        on_data: Callable[[str], object] | None = None,
        on_history: Callable[[Sequence[BarData]], object] | None = None,
        on_correction: Callable[[BarData], object] | None = None,
        on_finding: Callable[[BarFinding], object] | None = None,
    ) -> None:
        self.base = Timeframe.parse(base)
        self.timeframes = tuple(dict.fromkeys(map(Timeframe.parse, timeframes)))
        hours_of = hours_by_symbol(hours)
        self.cache = MarketDataCache() if cache is None else cache
        self.is_connected = False
        self.findings = 0
        self._is_clock_doubted = False
        self.on_data = on_data
        self._adapter = adapter
        self._clock: Clock = clock or SystemClock()
        self.uses_trades = _uses_trades(adapter, source)
        self._backfill = backfill
        self._stale_after = stale_after
        self._pauses = Pauses(rng or random.Random())  # noqa: S311 - jitter, no secrets
        self._on_history = on_history
        self._on_correction = on_correction
        self._on_finding = on_finding
        self._markets = {
            symbol: Followed(
                symbol, self.base, self.timeframes, hours_of(symbol), max_move_pct, self.cache
            )
            for symbol in dict.fromkeys(symbols)
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._past = BarPast(adapter, self._clock, self._find)

    async def start(self) -> None:
        """Open the stream, and fetch the past; returns when that is in."""
        stream = self._open()
        try:
            await self._each(self._fetch_past)
        except BaseException:
            await _close(stream)
            raise
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow(stream)),
            loop.create_task(self._watch_silence()),
        ]

    async def stop(self) -> None:
        """End the stream."""
        tasks, self._tasks = [*self._tasks, *self._asking.values()], []
        self._asking.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def clock_stepped(self) -> None:
        """Believe in no empty bar until the venue's data show that the clock is right, nor in one still to come."""
        self._is_clock_doubted = True
        for market in self._markets.values():
            market.rewind(self._clock.now())

    async def resync(self) -> None:
        """Fetch what may have been missed, e.g. while the machine slept, and trust no bar that was under way."""
        for market in self._markets.values():
            market.whole_from = self._clock.now()
        await self._each(self._fetch_missing)

    def _open(self) -> AsyncIterator[BarData] | AsyncIterator[Trade]:
        symbols = list(self._markets)
        now = self._clock.now()
        for market in self._markets.values():
            market.whole_from = now
        if not self.uses_trades:
            return self._adapter.watch_bars(symbols, self.base)
        return self._adapter.watch_trades(symbols)

    async def _follow(self, stream: AsyncIterator[Any] | None) -> None:
        loop, pauses = asyncio.get_running_loop(), self._pauses
        pauses.opened(loop.time())
        while True:
            try:
                if stream is None:
                    pauses.opened(loop.time())
                    # First the stream, then the history: nothing can fall between the two.
                    stream = self._open()
                    await self._each(self._fetch_missing)
                self.is_connected = True
                async for item in stream:
                    self._take_in(item)
                log.warning("bars.stream_ended", venue=self._adapter.name)
            except Exception as error:  # noqa: BLE001 - open it again
                log.warning("bars.stream_broken", venue=self._adapter.name, error=shown(error))
            finally:
                self.is_connected = False
                await _close(stream)
            stream = None
            await asyncio.sleep(pauses.after_break(loop.time()))

    def _take_in(self, item: BarData | Trade) -> None:
        """Take in one piece of news; one that cannot be used must not silence the rest."""
        market = self._markets.get(item.symbol)
        if market is None:
            return
        now = self._clock.now()
        market.heard_at, market.is_stale = now, False
        if self._is_clock_doubted:
            of = item.at if isinstance(item, Trade) else item.close_time
            self._is_clock_doubted = abs(now - of) > _PROMPT
        try:
            if isinstance(item, Trade):
                found = market.builder.add(item)
                if isinstance(found, BarFinding):
                    self._find(found)
                elif found is not None:
                    text = f"trade of {item.at.isoformat()}"
                    self._find(
                        BarFinding(
                            BarIssue.LATE_TRADE, item.symbol, self.base, found.close_time, text
                        )
                    )
                    self._correct(market, found)
            elif self._judge(market, item):
                self._told(item.symbol)
        except Exception as error:  # noqa: BLE001 - the stream goes on
            log.error("bars.not_taken", item=repr(item)[:300], error=shown(error))  # noqa: TRY400

    # -- what a detector asks --------------------------------------------------------------------------

    def take(
        self, symbol: str, timeframe: Timeframe, close_time: datetime, *, final: bool
    ) -> BarData | NotYet | None:
        """Return the bar that has just closed, None when nothing was traded in it, or `NOT_YET`; see `BarSource`."""
        market = self._markets[symbol]
        last = market.aggregator.last
        if (last is None or last < close_time) and not self._finish(
            market, close_time, final=final
        ):
            return NOT_YET
        bar = market.latest.get(timeframe)
        if bar is not None and bar.close_time == close_time:
            return bar
        return self.cache.at(symbol, timeframe, close_time)

    def _finish(self, market: Followed, close_time: datetime, *, final: bool) -> bool:
        """Bring a market up to a close, if everything up to it is known."""
        step, seen = self.base.duration, market.whole_from
        if not self.uses_trades:
            hole = seen is not None and close_time - step < seen
            if not final or hole or not self._can_believe or market.held == close_time:
                return False
            market.pass_over(close_time)  # the venue has sent no bar: nothing was traded
            return True
        start = market.aggregator.last or close_time - step
        ends: Sequence[datetime] = (close_time,)
        if start + step != close_time:
            ends = list(market.hours.closes(self.base, start, close_time))
        if seen is None or ends[0] - step < seen or not self._can_believe:
            self._ask(market, close_time)
            return False
        for end in ends:
            bar = market.builder.close(end)
            if bar is None:
                market.pass_over(end)
            else:
                market.check.accept(bar)
                market.add(bar)
        return True

    @property
    def _can_believe(self) -> bool:
        """Whether silence means that nothing was traded."""
        return self.is_connected and not self._is_clock_doubted

    def _ask(self, market: Followed, close_time: datetime) -> None:
        """Fetch a bar that was not seen whole."""
        asking = self._asking.get(market.symbol)
        if asking is None or asking.done():
            asking = asyncio.get_running_loop().create_task(self._ask_until(market, close_time))
            self._asking[market.symbol] = asking

    async def _ask_until(self, market: Followed, close_time: datetime) -> None:
        for pause in _ASK_AGAIN:
            await asyncio.sleep(pause)
            await self._fetch_missing(market)
            if market.has(close_time) or (not self.uses_trades and market.whole_from is None):
                self._told(market.symbol)
                return
        text = "not seen from its beginning, and the venue's history does not have it"
        self._find(BarFinding(BarIssue.UNSEEN, market.symbol, self.base, close_time, text))

    def _judge(self, market: Followed, bar: BarData) -> list[BarData]:
        """Take in a bar of the venue; return what is new: it, and before it one that was held and that it confirms."""
        if bar.timeframe is not self.base:
            raise ConfigurationError(f"timeframe: expected {self.base} bars, got {bar.timeframe}")
        use, findings = market.check.judge(bar, self._clock.now())
        for finding in findings:
            self._find(finding)
        new: list[BarData] = []
        held = market.check.confirmed
        if held is not None and market.has(held.close_time):
            self._correct(market, held)  # its close was told as empty
        elif held is not None:
            new.append(held)
        if use is BarUse.NEW:
            market.builder.believe(bar.close)
            market.builder.close(bar.close_time)
            new.append(bar)
        elif use is BarUse.CORRECTION:
            self._correct(market, bar)
        elif findings and findings[0].issue is BarIssue.ABSURD_PRICE:
            market.held = bar.close_time
        for each in new:
            market.add(each)
        return new

    def _correct(self, market: Followed, bar: BarData) -> None:
        market.correct(bar)
        if self._on_correction is not None:
            self._on_correction(bar)

    def _told(self, symbol: str) -> None:
        if self.on_data is not None:
            self.on_data(symbol)

    def _find(self, finding: BarFinding) -> None:
        self.findings += 1
        log.warning("bars.doubtful", **msgspec.to_builtins(finding, str_keys=True))
        if self._on_finding is not None:
            self._on_finding(finding)

    # -- the past --------------------------------------------------------------------------------------

    async def _each(self, work: Callable[[Followed], Any]) -> None:
        await asyncio.gather(*(work(market) for market in self._markets.values()))

    async def _fetch_missing(self, market: Followed) -> None:
        """Fetch what came after the last bar that is known."""
        asked_at = self._clock.now()
        since = market.aggregator.last or asked_at - 2 * self.base.duration
        found = await self._past.since(market.symbol, self.base, since)
        new = [each for bar in found or () for each in self._judge(market, bar)]
        if new and self._on_history is not None:
            self._on_history(new)
        if new:
            self._told(market.symbol)
        self._filled(market, found, asked_at)

    def _filled(self, market: Followed, found: list[BarData] | None, asked_at: datetime) -> None:
        """Ask again when an answer, which may lag, has left a hole. Trades have no history."""
        if not self.uses_trades:
            missing = market.fill(asked_at=asked_at, is_answered=found is not None)
            if missing is not None and self._adapter.capabilities.bar_history:
                self._ask(market, missing)

    async def _fetch_past(self, market: Followed) -> None:
        """Fetch the bars before the start: of *base* so many that each longer bar under way is known whole."""
        if not self._backfill:
            return
        now = self._clock.now()
        since = now - self._backfill * self.base.duration
        for timeframe in self.timeframes:
            since = min(since, market.hours.previous_close(timeframe, now))
        history: list[BarData] = []
        for timeframe in sorted(self.timeframes, key=lambda each: each.seconds, reverse=True):
            if timeframe is not self.base:
                history += await self._past.before(
                    market.symbol, timeframe, since, self._backfill, market.hours
                )
        for bar in history:
            self.cache.append(bar)
        asked_at = self._clock.now()
        found = await self._past.since(market.symbol, self.base, since)
        history += [each for bar in found or () for each in self._judge(market, bar)]
        self._filled(market, found, asked_at)
        if self._on_history is not None and history:
            self._on_history(history)

    async def _watch_silence(self) -> None:
        """Find symbols of which nothing comes although they trade."""
        while True:
            now = self._clock.now()
            for market in self._markets.values():
                if market.heard_at is None or not market.is_open(now):
                    market.heard_at = now
                elif now - market.heard_at > self._stale_after and not market.is_stale:
                    market.is_stale = True
                    self._find(market.check.silence(market.heard_at))
            self.cache.drop_stale(now - FORGOTTEN)
            await asyncio.sleep(self._stale_after.total_seconds() / 4)

    def __repr__(self) -> str:
        kind = "trades" if self.uses_trades else "bars"
        return f"BarFeed({self._adapter.name}, {len(self._markets)} symbols from {kind})"


def _uses_trades(adapter: ExchangeAdapter, source: Source) -> bool:
    can = adapter.capabilities
    if source not in ("auto", "bars", "trades"):
        raise ConfigurationError(f"source: {source!r} is unknown; use auto, bars or trades")
    if source != "trades" and can.bar_stream:
        return False
    if source != "bars" and can.trade_stream:
        return True
    raise UnsupportedFeatureError(
        f"{adapter.name} streams no {'bars or trades' if source == 'auto' else source}"
    )


async def _close(stream: Any) -> None:
    closing = getattr(stream, "aclose", None)
    if closing is not None:
        await closing()

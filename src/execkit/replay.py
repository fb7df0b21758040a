"""Replay: the same engine, chain and functions on recorded bars, as fast as the machine goes.

Time is virtual. Each bar is played in the same order: the venue executes what the bar proves, the engine takes in
what became of its orders, the clock reaches the close, and the plans' functions are asked. A replay that was ended
by anything at all goes on where it stopped, from the same journal and the venue's own ledger, and comes to the same
orders.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import chain, groupby
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import attrs

from execkit.clock import Clock
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError
from execkit.exchanges.base import ExchangeAdapter
from execkit.functions.builtin import register_builtins
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.journal.base import Journal, MemoryJournal
from execkit.journal.segments import trace_hash_of_file
from execkit.journal.trace import trace_hash
from execkit.model.market import BarData, Timeframe
from execkit.orders.book import Book
from execkit.parts import Parts
from execkit.pipeline import ExecutionPipeline
from execkit.plans import TradePlan
from execkit.virtual_time import VirtualClock, VirtualTimeLoop, run_virtual

_INSTANT: Final = timedelta(microseconds=1)
"""What a bar traded is known this long before its close, so that time-outs due at the close come after its fills."""

Strategy = Callable[[ExecutionEngine, BarData], Awaitable[object]]


@runtime_checkable
class BarFedExchange(Protocol):
    """A venue that executes orders on recorded bars, e.g. `PaperExchange`."""

    def feed_bar(self, bar: BarData) -> bool:
        """Execute what a finished bar proves; return False for one that was consumed before."""
        ...

    def last_bar(self, symbol: str, timeframe: Timeframe) -> BarData | None:
        """Return the last bar that was consumed, also before a restart."""
        ...


@attrs.frozen(kw_only=True)
class Replayed:
    """What a replay came to."""

    bars: int
    """Bars played now."""
    resumed_at: datetime | None
    """Close of the last bar that an earlier run had consumed."""
    trace_hash: str
    """Digest of everything recorded; equal for equal runs."""
    book: Book
    """Orders, positions and cash at the end."""


def replay(
    plans: Iterable[TradePlan],
    bars: Iterable[BarData],
    *,
    exchange: Callable[[Clock], ExchangeAdapter],
    journal: str | Path | None = None,
    functions: ExecutionFunctionRegistry | None = None,
    pipeline: ExecutionPipeline | None = None,
    currency: str | None = None,
    strategy: Strategy | None = None,
    on_progress: Callable[[BarData], None] | None = None,
    durability: str = "process",
    store: bool = False,
    seed: int = 0,
) -> Replayed:
    """Play *bars*, in the order of their closes, through an engine with *plans*, and return what came of it.

    Args:
        plans: What is asked at each close; may be none when there is a *strategy*.
        bars: Finished bars; those of several symbols that close together may come in any order.
        exchange: Makes the venue, with the replay's clock; it must take bars, as `PaperExchange` does.
        journal: Path of the journal; the venue's ledger stands beside it. None keeps both in memory.
        functions: Registry of the plans' functions; the built-in ones are added to it.
        pipeline: The chain; the standard one under the risk that the plans state when None.
        currency: Asset in which limits are counted.
        strategy: Called with engine and bar after the plans were asked, to submit signals of its own. After a
            resumption it sees the last bar again: signals with an id made of the bar are then the same signals.
        on_progress: Called with each bar that was played.
        durability: `process` survives kill -9, `power` a power loss.
        store: Whether to bring the SQLite store up to the journal at the end.
        seed: Of everything that is left to chance.

    Raises `ConfigurationError` for bars out of order or other than those of the earlier run; `KeyboardInterrupt`
    passes through when everything is closed.
    """
    plans = tuple(plans)
    if functions is None:
        functions = ExecutionFunctionRegistry()
    register_builtins(functions)
    every = iter(bars)
    first = next(every, None)
    if first is None:
        raise ConfigurationError("bars: there are none; give at least one")
    kept = MemoryJournal() if journal is None else journal

    async def main(clock: VirtualClock) -> Replayed:
        venue = exchange(clock)
        if not isinstance(venue, BarFedExchange):
            raise ConfigurationError(
                f"exchange: {venue!r} takes no bars; replay with a PaperExchange"
            )
        engine = ExecutionEngine(
            venue,
            journal=_named(kept, venue),
            durability=durability,
            pipeline=pipeline,
            functions=functions,
            plans=plans,
            currency=currency,
            clock=clock,
            rng=random.Random(seed),  # noqa: S311 - repeatable chance is the point
            reconcile_every=timedelta(hours=1),
            store=store,
        )
        player = _Player(engine, venue, clock, strategy, on_progress)
        groups = (list(group) for _, group in groupby(chain([first], every), key=_close_time))
        try:
            await player.play(groups)
        finally:
            await engine.stop()
        return Replayed(
            bars=player.played,
            resumed_at=player.resumed_at,
            trace_hash=_trace_hash(kept),
            book=engine.book,
        )

    return run_virtual(main, start=first.open_time)


def _close_time(bar: BarData) -> datetime:
    return bar.close_time


def _named(journal: MemoryJournal | str | Path, venue: ExchangeAdapter) -> Journal | str | Path:
    if isinstance(journal, MemoryJournal):
        journal.account = venue.account
    return journal


def _trace_hash(journal: MemoryJournal | str | Path) -> str:
    if isinstance(journal, MemoryJournal):
        return trace_hash(journal.entries)
    return trace_hash_of_file(journal)


class _Player:
    """Drives engine and venue bar by bar."""

    def __init__(
        self,
        engine: ExecutionEngine,
        venue: BarFedExchange,
        clock: VirtualClock,
        strategy: Strategy | None,
        on_progress: Callable[[BarData], None] | None,
    ) -> None:
        self.engine = engine
        self.venue = venue
        self.clock = clock
        self.strategy = strategy
        self.on_progress = on_progress
        self.played = 0
        self.resumed_at: datetime | None = None
        self._last_close: datetime | None = None
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop), "run_virtual made it"
        self._idle = loop.idle

    async def play(self, groups: Iterator[list[BarData]]) -> None:
        """Start the engine, pass over what was consumed before, and play the rest."""
        seen: list[BarData] = []
        fresh: list[BarData] = []

        def prepare(parts: Parts) -> None:
            nonlocal seen, fresh
            for group in groups:
                if not all(map(self._is_consumed, group)):
                    fresh = group
                    break
                if parts.runner is not None:
                    parts.runner.warm_up(seen)
                seen = group
            if seen:
                self.resumed_at = self._last_close = seen[0].close_time
                # Half a bar to recover in, before the moment at which everything goes on.
                self.clock.step(self.resumed_at - seen[0].timeframe.duration / 2 - self.clock.now())
            for bar in seen:
                parts.desk.book.marks[bar.symbol] = bar.close

        await self.engine.start(prepare=prepare)
        if self.resumed_at is not None:
            await self.clock.sleep_until(self.resumed_at)
            await self._idle()
            await self.engine.parts.settle_owed()
            # The functions may not have been asked at this close; if they were, nothing happens.
            await self._evaluate(seen)
        for group in chain([fresh] if fresh else [], groups):
            await self._play(group)

    def _is_consumed(self, bar: BarData) -> bool:
        last = self.venue.last_bar(bar.symbol, bar.timeframe)
        if last is not None and last.close_time == bar.close_time and last != bar:
            raise ConfigurationError(
                f"bars: {bar.symbol} closed at {bar.close} on {bar.close_time.isoformat()}, but at {last.close} in the "
                "earlier run of this journal; give the same bars, or another journal"
            )
        return last is not None and bar.close_time <= last.close_time

    async def _play(self, bars: list[BarData]) -> None:
        close = bars[0].close_time
        if self._last_close is not None and close <= self._last_close:
            raise ConfigurationError(
                f"bars: {bars[0].symbol} closing at {close.isoformat()} comes after later ones; sort them by close"
            )
        self._last_close = close
        await self.clock.sleep_until(close - _INSTANT)
        for bar in bars:
            self.venue.feed_bar(bar)
        await self._idle()
        await self.clock.sleep_until(close)
        await self._evaluate(bars)
        for bar in bars:
            self.played += 1
            if self.on_progress is not None:
                self.on_progress(bar)

    async def _evaluate(self, bars: list[BarData]) -> None:
        for bar in bars:
            await self.engine.on_bar(bar)
        if self.strategy is not None:
            for bar in bars:
                await self.strategy(self.engine, bar)
        await self._idle()

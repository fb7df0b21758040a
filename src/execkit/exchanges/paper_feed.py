"""Live prices for paper trading: public market data of a real venue, for which no key is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from execkit.clock import Clock
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.market import Quote

log = structlog.get_logger("execkit")

MAX_AGE: Final = timedelta(seconds=5)
"""A quote older than this executes nothing; a new one is fetched first."""

_QUERY_SECONDS: Final = 5.0
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_STEADY: Final = 30.0
"""Seconds after which a stream counts as good: its next loss is answered at once again."""


class PaperFeed:
    """Follows the quotes of the symbols that are asked for, by stream where the venue has one, else by asking.

    Args:
        source: The venue whose public data is used; nothing is ever ordered there.
        take: Gets each quote.
        clock: Tells how old a quote is.
        poll: Pause between two questions where there is no stream.
    """

    def __init__(
        self,
        source: ExchangeAdapter,
        take: Callable[[Quote], None],
        clock: Clock,
        *,
        poll: timedelta = timedelta(seconds=1),
    ) -> None:
        self.source = source
        self._take = take
        self._clock = clock
        self._poll = poll.total_seconds()
        self._last: dict[str, Quote] = {}
        self.symbols: set[str] = set()
        """What is followed."""
        self._task: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        """Two who ask at once must not start two streams."""

    async def start(self) -> None:
        """Connect to the venue's public data."""
        await self.source.connect_data()

    async def stop(self) -> None:
        """End the stream and the connection."""
        async with self._changing:
            await self._end_task()
        await self.source.close()

    async def follow(self, symbol: str) -> None:
        """Follow one more symbol, and have a first price of it."""
        if symbol in self.symbols:
            return
        await self.fetch(symbol)
        async with self._changing:
            self.symbols.add(symbol)
            await self._end_task()
            self._task = asyncio.get_running_loop().create_task(self._run(sorted(self.symbols)))

    async def fetch(self, symbol: str) -> Quote:
        """Ask for a quote now; raise what the venue's client raises."""
        async with asyncio.timeout(_QUERY_SECONDS):
            quote = await self.source.ticker(symbol)
        self._see(quote)
        return quote

    async def fresh(self, symbol: str) -> Quote:
        """Return the last quote, or a new one when that is too old."""
        last = self._last.get(symbol)
        if last is not None and self._clock.now() - last.at <= MAX_AGE:
            return last
        return await self.fetch(symbol)

    def _see(self, quote: Quote) -> None:
        last = self._last.get(quote.symbol)
        if last is None or quote.at >= last.at:
            self._last[quote.symbol] = quote
            self._take(quote)

    async def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, symbols: list[str]) -> None:
        has_stream = self.source.capabilities.quote_stream
        wait, loop = _FIRST_WAIT, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if has_stream:
                    async for quote in self.source.watch_quotes(symbols):
                        self._see(quote)
                else:
                    await self._poll_all(symbols)
                    wait = self._poll / 2  # doubled below
            except Exception as error:  # noqa: BLE001 - prices stand still, so orders ask for a new one
                log.warning("paper.feed_broken", venue=self.source.name, error=repr(error))
            if has_stream and loop.time() - began >= _STEADY:
                wait = _FIRST_WAIT
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _poll_all(self, symbols: list[str]) -> None:
        """Ask for each symbol; one that cannot be had keeps none from those after it."""
        for symbol in symbols:
            try:
                await self.fetch(symbol)
            except Exception as error:  # noqa: BLE001 - asked again in a moment
                log.warning("paper.feed_broken", symbol=symbol, error=repr(error))

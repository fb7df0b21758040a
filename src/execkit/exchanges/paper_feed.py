"""Live prices for paper trading: public market data of a real venue, for which no key is needed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from execkit.clock import Clock
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.pauses import Pauses
from execkit.redaction import shown

log = structlog.get_logger("execkit")

MAX_AGE: Final = timedelta(seconds=5)
"""A quote older than this executes nothing; a new one is fetched first."""

_QUERY_SECONDS: Final = 5.0
_RULES_LAST: Final = 3600.0
"""Seconds after which the venue is asked whether its rules for a symbol have changed."""


class PaperFeed:
    """Follows the quotes of the symbols that are asked for, by stream where the venue has one, else by asking.

    Args:
        source: The venue whose public data is used; nothing is ever ordered there.
        take: Gets each quote.
        clock: Tells how old a quote is.
        poll: Pause between two questions where there is no stream.
        rng: Spreads the pauses before a broken stream is opened again.
    """

    def __init__(
        self,
        source: ExchangeAdapter,
        take: Callable[[Quote], None],
        clock: Clock,
        *,
        poll: timedelta = timedelta(seconds=1),
        rng: random.Random | None = None,
    ) -> None:
        self.source = source
        self._take = take
        self._clock = clock
        self._poll = poll.total_seconds()
        self._pauses = Pauses(rng or random.Random())  # noqa: S311 - jitter, no secrets
        self._last: dict[str, Quote] = {}
        self._unheard: set[str] = set()
        """Symbols whose stream has ended since their last quote, so that they may have moved unseen."""
        self._rules: dict[str, tuple[Instrument, int, float]] = {}
        """Rules by symbol, with the venue's version of all rules and the loop's time when they were asked for."""
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

    def rules(self, symbol: str) -> Instrument | None:
        """Return the rules of a symbol, if they were asked for and may still be those of the venue."""
        known = self._rules.get(symbol)
        if known is None:
            return None
        rules, version, asked_at = known
        is_young = asyncio.get_running_loop().time() - asked_at < _RULES_LAST
        is_same = version == self.source.rules_version
        return rules if rules.tradeable and is_young and is_same else None

    async def fetch_rules(self, symbol: str) -> Instrument:
        """Ask for the rules of a symbol; those that are known stand while the venue cannot be asked."""
        known = self._rules.get(symbol)
        try:
            if known is not None:
                async with asyncio.timeout(_QUERY_SECONDS):
                    # An adapter that keeps rules looks at them anew when it is asked for the state of the market.
                    await self.source.market_status(symbol)
            rules = await self.source.instrument(symbol)
        except Exception as error:
            if known is None:
                raise
            log.warning("paper.rules_unreadable", symbol=symbol, error=shown(error))
            rules = known[0]
        now = asyncio.get_running_loop().time()
        self._rules[symbol] = (rules, self.source.rules_version, now)
        return rules

    async def fetch(self, symbol: str) -> Quote:
        """Ask for a quote now; raise what the venue's client raises."""
        async with asyncio.timeout(_QUERY_SECONDS):
            quote = await self.source.ticker(symbol)
        self._see(quote)
        return quote

    async def fresh(self, symbol: str) -> Quote:
        """Return the last quote, or a new one when that is too old or its stream has ended since."""
        last = None if symbol in self._unheard else self._last.get(symbol)
        if last is not None and self._clock.now() - last.at <= MAX_AGE:
            return last
        return await self.fetch(symbol)

    def _see(self, quote: Quote) -> None:
        last = self._last.get(quote.symbol)
        if last is None or quote.at >= last.at:
            self._last[quote.symbol] = quote
            self._unheard.discard(quote.symbol)
            self._take(quote)

    async def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, symbols: list[str]) -> None:
        has_stream = self.source.capabilities.quote_stream
        loop, pauses = asyncio.get_running_loop(), self._pauses
        while True:
            pauses.opened(loop.time())
            try:
                if has_stream:
                    async for quote in self.source.watch_quotes(symbols):
                        self._see(quote)
                else:
                    await self._poll_all(symbols)
            except Exception as error:  # noqa: BLE001 - prices stand still, so orders ask for a new one
                log.warning("paper.feed_broken", venue=self.source.name, error=shown(error))
            finally:
                if has_stream:
                    self._unheard.update(symbols)
            await asyncio.sleep(pauses.after_break(loop.time()) if has_stream else self._poll)

    async def _poll_all(self, symbols: list[str]) -> None:
        """Ask for each symbol; one that cannot be had keeps none from those after it."""
        for symbol in symbols:
            try:
                await self.fetch(symbol)
            except Exception as error:  # noqa: BLE001 - asked again in a moment
                log.warning("paper.feed_broken", symbol=symbol, error=shown(error))

"""The last quotes: fed by a stream where there is one, fetched once for all who wait where there is none."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Final

import structlog

from execkit.clock import Clock
from execkit.exchanges.base import ExchangeAdapter
from execkit.model.market import Quote
from execkit.numbers import HUNDRED, ZERO
from execkit.orders.book import Book
from execkit.pauses import Pauses
from execkit.redaction import shown

log = structlog.get_logger("execkit")

_STEP: Final = timedelta(seconds=1)
_PATH: Final = 600
"""Quotes remembered of a symbol: ten minutes of them."""

Ask = Callable[[Callable[[str], Awaitable[Quote]], float, str], Awaitable[Quote]]


async def _ask_at_once(
    query: Callable[[str], Awaitable[Quote]], timeout: float, symbol: str
) -> Quote:
    async with asyncio.timeout(timeout):
        return await query(symbol)


class QuoteBook:
    """Quotes by symbol.

    A quote older than *max_age*, or of a stream that has ended since, is fetched anew, once for all who ask meanwhile.
    *rng* spreads the pauses before a broken stream is opened again.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        book: Book,
        clock: Clock,
        *,
        max_age: timedelta = timedelta(seconds=5),
        timeout: timedelta = timedelta(seconds=5),
        ask: Ask | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._adapter = adapter
        self._book = book
        self._clock = clock
        self.max_age = max_age
        self._timeout = timeout.total_seconds()
        self._ask = ask or _ask_at_once
        self._pauses = Pauses(rng or random.Random())  # noqa: S311 - jitter, no secrets
        self._quotes: dict[str, Quote] = {}
        self._unheard: set[str] = set()
        """Symbols whose stream has ended since their last quote, so that they may have moved unseen."""
        self._fetches: dict[str, asyncio.Task[Quote | None]] = {}
        self._wanted: set[str] = set()
        self._changed = asyncio.Event()
        self._path: dict[str, deque[Quote]] = {}
        """Quotes of the last minutes, one a second, by symbol."""
        self.on_quote: Callable[[Quote], None] = lambda _quote: None
        """Called with each quote that was taken in."""

    def see(self, quote: Quote) -> bool:
        """Take in a quote; return False for one that cannot be true or is older than what is known."""
        if not (quote.bid.is_finite() and quote.ask.is_finite() and ZERO < quote.bid <= quote.ask):
            log.warning("quote.impossible", quote=repr(quote))
            return False
        known = self._quotes.get(quote.symbol)
        if known is not None and quote.at < known.at:
            return False
        self._quotes[quote.symbol] = quote
        self._unheard.discard(quote.symbol)
        self._remember(quote)
        self._book.see_quote(quote)
        self.on_quote(quote)
        return True

    def _remember(self, quote: Quote) -> None:
        path = self._path.get(quote.symbol)
        if path is None:
            path = self._path[quote.symbol] = deque(maxlen=_PATH)
        if not path or quote.at - path[-1].at >= _STEP:
            path.append(quote)

    def moved_pct(self, symbol: str, within: timedelta) -> Decimal:
        """Return how far the mid has come in a time of at most ten minutes, in percent of where it was farthest off."""
        last = self._quotes.get(symbol)
        if last is None:
            return ZERO
        since, mid = last.at - within, last.mid
        return max(
            (
                abs(mid - quote.mid) / quote.mid * HUNDRED
                for quote in self._path.get(symbol, ())
                if quote.at >= since
            ),
            default=ZERO,
        )

    def last(self, symbol: str) -> Quote | None:
        """Return the last quote, however old."""
        return self._quotes.get(symbol)

    def fresh(self, symbol: str) -> Quote | None:
        """Return the last quote if it is young enough, and its stream has not ended since."""
        quote = self._quotes.get(symbol)
        if quote is None or symbol in self._unheard:
            return None
        return quote if self._clock.now() - quote.at <= self.max_age else None

    async def get(self, symbol: str) -> Quote | None:
        """Return a fresh quote, fetching it if need be; None when there is none to be had."""
        quote = self.fresh(symbol)
        if quote is not None:
            return quote
        task = self._fetches.get(symbol)
        if task is None:
            task = self._fetches[symbol] = asyncio.get_running_loop().create_task(
                self._fetch(symbol)
            )
            task.add_done_callback(lambda _done: self._fetches.pop(symbol, None))
        # One caller's cancellation must not take the quote away from the others.
        return await asyncio.shield(task)

    async def _fetch(self, symbol: str) -> Quote | None:
        try:
            self.see(await self._ask(self._adapter.ticker, self._timeout, symbol))
        except Exception as error:  # noqa: BLE001 - no quote is an answer here
            log.warning("quote.fetch_failed", symbol=symbol, error=shown(error))
            return None
        return self.fresh(symbol)

    def want(self, symbol: str) -> None:
        """Have the stream follow a symbol too."""
        if symbol not in self._wanted:
            self._wanted.add(symbol)
            self._changed.set()

    async def follow(self) -> None:
        """Feed from the venue's quote stream until cancelled; opened again when it breaks or more is wanted."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            stream = asyncio.ensure_future(self._consume(sorted(self._wanted)))
            change = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait((stream, change), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stream.cancel()
                change.cancel()
                await asyncio.gather(stream, change, return_exceptions=True)

    async def _consume(self, symbols: list[str]) -> None:
        loop, pauses = asyncio.get_running_loop(), self._pauses
        while True:
            pauses.opened(loop.time())
            try:
                async for quote in self._adapter.watch_quotes(symbols):
                    self.see(quote)
            except Exception as error:  # noqa: BLE001 - the fetch is the fallback
                log.warning("quotes.stream_broken", error=shown(error))
            finally:
                self._unheard.update(symbols)
            await asyncio.sleep(pauses.after_break(loop.time()))

"""What is traded and when: assets, clock and calendar, each asked for as seldom as can be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import attrs

from execkit.clock import Clock
from execkit.errors import (
    AuthenticationError,
    ExchangeError,
    InvalidOrderError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.exchanges.alpaca import data
from execkit.exchanges.alpaca.codes import VENUE
from execkit.exchanges.alpaca.hours import TradingDay, read_calendar, read_clock, status_of
from execkit.exchanges.alpaca.market import WORDS, last_price, read_asset, read_snapshot
from execkit.exchanges.alpaca.requests import CENT, is_crypto, tick_of
from execkit.exchanges.alpaca.rest import Rest, understand, understood
from execkit.exchanges.alpaca.values import BadAnswerError, clean, in_path
from execkit.exchanges.base import MarketPhase, MarketStatus
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe

_CLOCK_LASTS: Final = 5.0
"""Seconds for which the venue's clock is believed: one question for all symbols."""
_WEEK: Final = timedelta(days=7)
_SYMBOL: Final = re.compile(r"[A-Z0-9]{1,15}([./][A-Z0-9]{1,10})?", re.ASCII)
"""A symbol travels into addresses, so nothing else does."""


class Markets:
    """Alpaca's assets and their hours and prices."""

    def __init__(
        self,
        rest: Rest,
        *,
        clock: Clock,
        feed: str,
        fractional: bool,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._rest = rest
        self._clock = clock
        self._feed = feed
        self._fractional = fractional
        self._changed = changed
        self._instruments: dict[str, Instrument] = {}
        self._status: tuple[float, MarketStatus] | None = None
        self._days: list[TradingDay] = []
        self._asked: tuple[datetime, datetime] | None = None

    # -- assets ------------------------------------------------------------------------------------------

    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol, which are asked for once, and anew while it is not traded."""
        found = self._instruments.get(symbol)
        return found if found is not None and found.tradeable else await self._load(symbol)

    async def rules_for(self, symbol: str, prices: Iterable[Decimal | None] = ()) -> Instrument:
        """Return a symbol's rules for an order of these prices; when they cannot be had, nothing was sent."""
        try:
            found = await self.instrument(symbol)
            return self._stepped(found, prices)
        except (OrderRejectedError, AuthenticationError, RateLimitError):
            raise
        except ExchangeError as error:
            text = f"{VENUE}: the rules of {symbol} cannot be had: {error}"
        raise NotSentError(text, venue=VENUE)

    def _stepped(self, rules: Instrument, prices: Iterable[Decimal | None]) -> Instrument:
        """Return the rules with the price step of today: a stock that came above 1 USD is traded in cents."""
        if is_crypto(rules.symbol) or rules.tick_size == CENT:
            return rules
        stated = [price for price in prices if price is not None and price.is_finite()]
        if all(tick_of(price) < CENT for price in stated):
            return rules
        return self._keep(attrs.evolve(rules, tick_size=CENT))

    def _keep(self, rules: Instrument) -> Instrument:
        known = self._instruments.get(rules.symbol)
        self._instruments[rules.symbol] = rules
        if known is not None and known != rules:
            self._changed()
        return rules

    async def _load(self, symbol: str) -> Instrument:
        _check(symbol)
        try:
            asset = await self._rest.get(f"/v2/assets/{in_path(symbol)}")
        except OrderNotFoundError:
            raise _unlisted(symbol) from None
        known = self._instruments.get(symbol)
        price = None
        if known is None and not is_crypto(symbol):
            price = await self._price_of(symbol)
        found = understand(
            asset, lambda body: read_asset(body, fractional=self._fractional, price=price)
        )
        if found.symbol != symbol:
            text = f"symbol: {clean(symbol, 40)!r} is written {found.symbol!r} here"
            raise InvalidOrderError(f"{VENUE}: {text}", venue=VENUE)
        if known is not None:
            found = attrs.evolve(found, tick_size=known.tick_size)
        return self._keep(found)

    async def _price_of(self, symbol: str) -> Decimal | None:
        """Return the last price, which decides on the price step; without it a cent is always right."""
        try:
            return last_price(await data.snapshot(self._rest.get_data, symbol, self._feed))
        except (ExchangeError, BadAnswerError):
            return None

    # -- hours -------------------------------------------------------------------------------------------

    async def status(self, symbol: str) -> MarketStatus:
        """Tell whether the market of a symbol takes orders now, by the venue's clock, calendar and asset."""
        rules = await self._load(symbol)
        status = MarketStatus(is_open=True) if is_crypto(symbol) else await self._stocks()
        if rules.tradeable:
            return status
        return MarketStatus(
            is_open=False,
            phase=MarketPhase.HALTED,
            reason=f"{symbol} is not tradable now",
            next_open=status.next_open,
            next_close=status.next_close,
        )

    async def _stocks(self) -> MarketStatus:
        now = asyncio.get_running_loop().time()
        if self._status is not None and now < self._status[0] + _CLOCK_LASTS:
            return self._status[1]
        said = understand(await self._rest.get("/v2/clock"), read_clock)
        status = status_of(said, await self._calendar(said.at - _WEEK, said.at + _WEEK))
        self._status = (now, status)
        return status

    async def _calendar(self, since: datetime, until: datetime) -> list[TradingDay]:
        """Return the trading days of a span, which are asked for once."""
        asked = self._asked
        if asked is None or since < asked[0] or until > asked[1]:
            now = self._clock.now()
            asked = (min(since, now - _WEEK), max(until, now) + _WEEK)
            span = {"start": asked[0].date().isoformat(), "end": asked[1].date().isoformat()}
            body = await self._rest.get("/v2/calendar", span)
            self._days, self._asked = understand(body, read_calendar), asked
        return self._days

    # -- prices ------------------------------------------------------------------------------------------

    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote; `ExchangeUnavailableError` while there is none of two sides."""
        _check(symbol)
        body = await understood(data.snapshot(self._rest.get_data, symbol, self._feed))
        return understand(body, lambda found: read_snapshot(found, symbol))

    async def bars(
        self, symbol: str, timeframe: Timeframe, since: datetime, until: datetime | None
    ) -> Sequence[BarData]:
        """Return finished bars; the daily ones of stocks end with the session, on half days earlier."""
        _check(symbol)
        if timeframe not in WORDS:
            text = f"{VENUE}: no bars of {timeframe}; build them from 1d"
            raise UnsupportedFeatureError(text, venue=VENUE)
        now = self._clock.now()
        until = now if until is None else min(until, now)
        days: list[TradingDay] = []
        if timeframe is Timeframe.D1 and not is_crypto(symbol):
            days = await self._calendar(since - _WEEK, until)
        asked = data.bars(
            self._rest.get_data,
            symbol,
            timeframe,
            since=since,
            until=until,
            feed=self._feed,
            days=days,
        )
        return await understood(asked)


def _check(symbol: str) -> None:
    if not _SYMBOL.fullmatch(symbol):
        raise _unlisted(symbol)


def _unlisted(symbol: str) -> InvalidOrderError:
    text = f"symbol: {clean(symbol, 40)!r} is not listed; stocks are written AAPL, crypto BTC/USD"
    return InvalidOrderError(f"{VENUE}: {text}", venue=VENUE)

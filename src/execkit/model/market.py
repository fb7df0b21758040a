"""Quotes, trades, bars and timeframes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Final, Self

import msgspec

from execkit.clock import require_utc
from execkit.errors import ConfigurationError
from execkit.numbers import ZERO, non_negative, positive

_TWO: Final = Decimal(2)
_BPS: Final = Decimal(10_000)
_WIDE_BPS: Final = 200
"""Spread from which the middle of a quote is no price, in basis points of it."""


class Quote(msgspec.Struct, frozen=True):
    """Best bid and ask of one symbol at one time."""

    symbol: str
    bid: Decimal
    ask: Decimal
    at: datetime
    last: Decimal | None = None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None

    @property
    def mid(self) -> Decimal:
        """The middle between bid and ask."""
        return (self.bid + self.ask) / _TWO

    @property
    def spread_bps(self) -> Decimal:
        """The spread in basis points of the mid."""
        return (self.ask - self.bid) / self.mid * _BPS

    def mark(self, known: Decimal | None) -> Decimal:
        """Return what a holding is worth at this quote: the mid, or in a wide market *known* as far as it lies within.

        Outside of a session quotes can be a tenth of the price apart, and their middle is nobody's price.
        """
        if known is None or self.spread_bps <= _WIDE_BPS:
            return self.mid
        return min(max(known, self.bid), self.ask)

    def checked(self) -> Self:
        """Return this quote, or raise `ConfigurationError` naming what is impossible in it."""
        require_utc("at", self.at)
        positive("bid", self.bid)
        positive("ask", self.ask)
        if self.bid > self.ask:
            raise ConfigurationError(f"bid {self.bid} is above ask {self.ask}")
        for name in ("bid_size", "ask_size"):
            if getattr(self, name) is not None:
                non_negative(name, getattr(self, name))
        if self.last is not None:
            positive("last", self.last)
        return self


class Trade(msgspec.Struct, frozen=True):
    """One public trade of a market."""

    symbol: str
    price: Decimal
    quantity: Decimal
    at: datetime

    def checked(self) -> Self:
        """Return this trade, or raise `ConfigurationError` naming what is impossible in it."""
        require_utc("at", self.at)
        positive("price", self.price)
        positive("quantity", self.quantity)
        return self


_UNITS: Final = {
    "s": 1,
    "sec": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
    "w": 604800,
    "week": 604800,
}


class Timeframe(Enum):
    """Length of a bar; parses `1h` and `1hour`, prints `1h`."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"

    @classmethod
    def parse(cls, text: str | Timeframe) -> Timeframe:
        """Return the timeframe that *text* names, e.g. `1m`, `5min`, `1hour`, `1day`."""
        if isinstance(text, Timeframe):
            return text
        match = re.fullmatch(r"(\d+)([a-z]+)", text) if isinstance(text, str) else None
        if match and match[2] in _UNITS:
            seconds = int(match[1]) * _UNITS[match[2]]
            for member in cls:
                if member.seconds == seconds:
                    return member
        raise ConfigurationError(
            f"timeframe: {text!r} is unknown; use one of {', '.join(m.value for m in cls)}"
        )

    # Members are single, so their identity will do; the hash of an Enum is computed in Python each time.
    __hash__ = object.__hash__

    # Kept once computed, because every boundary of every bar is counted with them.
    @cached_property
    def seconds(self) -> int:
        """Length in seconds."""
        return int(self.value[:-1]) * _UNITS[self.value[-1]]

    @cached_property
    def duration(self) -> timedelta:
        """Length as a duration."""
        return timedelta(seconds=self.seconds)

    def __str__(self) -> str:
        return str(self.value)


class BarData(msgspec.Struct, frozen=True, gc=False):
    """One finished bar. *close_time* is the end of the bar, exclusive; *volume* is in base units."""

    symbol: str
    timeframe: Timeframe
    close_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    @property
    def open_time(self) -> datetime:
        """Start of the bar."""
        return self.close_time - self.timeframe.duration

    def checked(self) -> Self:
        """Return this bar, or raise `ConfigurationError` naming what is impossible in it."""
        require_utc("close_time", self.close_time)
        for name in ("open", "high", "low", "close"):
            positive(name, getattr(self, name))
        non_negative("volume", self.volume)
        if self.high < self.low:
            raise ConfigurationError(f"high {self.high} is below low {self.low}")
        if not self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high:
            raise ConfigurationError(
                f"open {self.open} and close {self.close} must lie between low {self.low} and high {self.high}"
            )
        return self

    @property
    def range(self) -> Decimal:
        """High less low."""
        return self.high - self.low

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing was traded in this bar."""
        return self.volume == ZERO

"""Alpaca's answers that are definite about a request; every other one, known or new, proves nothing.

An answer counts by its HTTP status and its code together: a page of a proxy with status 403 has no code, and a code
inside a 5xx may stand beside an order that was taken. Texts only choose among the meanings of a pair that is definite.
Sources: Alpaca's API documentation and what its client alpaca-py is told; pairs that no source confirms are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import attrs

from execkit.errors import (
    AuthenticationError,
    DuplicateClientOrderIdError,
    ExchangeError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.alpaca.values import BadAnswerError, clean, figure
from execkit.numbers import MONEY, ZERO

VENUE: Final = "alpaca"
Kind = type[ExchangeError]

PATTERN_DAY_TRADING: Final = "pattern day trad"


@attrs.frozen
class Refusal:
    """An answer that is no success."""

    status: int
    code: str | None
    text: str
    body: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    retry_after: timedelta | None = None

    def __str__(self) -> str:
        code = "" if self.code is None else f", code {self.code}"
        return f"{self.text} (HTTP {self.status}{code})"


_FORBIDDEN: Final[tuple[tuple[str, Kind], ...]] = (
    ("insufficient buying power", InsufficientBalanceError),
    ("insufficient day trading buying power", InsufficientBalanceError),
    ("insufficient balance", InsufficientBalanceError),
    ("insufficient qty", InsufficientBalanceError),
    ("minimal amount of order", InvalidOrderError),
    ("wash trade", OrderRejectedError),
    (PATTERN_DAY_TRADING, OrderRejectedError),
    ("account is not authorized to trade", AuthenticationError),
    ("trading is blocked", AuthenticationError),
    ("account is blocked", AuthenticationError),
    ("account is restricted", AuthenticationError),
    ("trade suspended by user", AuthenticationError),
    ("account not eligible to trade", AuthenticationError),
    ("insufficient permission", AuthenticationError),
)
_UNPROCESSABLE: Final[tuple[tuple[str, Kind], ...]] = (
    ("client_order_id must be unique", DuplicateClientOrderIdError),
    ("is not tradable", MarketClosedError),
    ("is not active", MarketClosedError),
    ("market is closed", MarketClosedError),
    ("outside of market hours", MarketClosedError),
    ("trading is halted", MarketClosedError),
)
_ENDED: Final = re.compile(
    r"already in .{0,40} state|not cancelable|pending_(cancel|replace)|order already replaced"
    r"|chain not fully replaced|replace order in (filled|canceled|expired|rejected|replaced) status",
    re.IGNORECASE,
)


def meaning(refusal: Refusal, *, write: bool, about_order: bool) -> Kind | None:
    """Return what a refusal proves, or None when it proves nothing.

    *write*: the request changes something; *about_order*: it names an order that exists already.
    """
    text = refusal.text.lower()
    match refusal.status, refusal.code:
        case 429, "42910000" | None if refusal.body:
            return RateLimitError
        case 401, "40110000":
            return AuthenticationError
        case 403, "40310000" | "40310100":
            return _first(_FORBIDDEN, text, OrderRejectedError)
        case 404, "40410000":
            return OrderNotFoundError if about_order or not write else InvalidOrderError
        case 400 | 422, "40010001" | "42210000" if about_order and _ENDED.search(text):
            return OrderNotFoundError
        case 400 | 422, "40010001" | "42210000":
            return _first(_UNPROCESSABLE, text, InvalidOrderError)
    return None


def _first(rules: tuple[tuple[str, Kind], ...], text: str, default: Kind) -> Kind:
    return next((kind for words, kind in rules if words in text), default)


def error_of(
    refusal: Refusal,
    *,
    write: bool,
    about_order: bool = False,
    quantity: Decimal | None = None,
) -> ExchangeError:
    """Return the error that a refusal means; *quantity* is what was ordered."""
    kind = meaning(refusal, write=write, about_order=about_order)
    text = f"{VENUE}: {refusal}{_fix(refusal)}"
    details: dict[str, Any] = {"venue": VENUE, "code": refusal.code, "raw": refusal.text}
    if kind is RateLimitError:
        return RateLimitError(text, retry_after=refusal.retry_after, **details)
    if kind is InsufficientBalanceError:
        text += _numbers(refusal.body)
        return InsufficientBalanceError(text, available=available(refusal, quantity), **details)
    if kind is DuplicateClientOrderIdError and not write:
        kind = ExchangeError
    if kind is not None:
        return kind(text, **details)
    if write:
        return OrderStatusUnknownError(text, **details)
    if refusal.status == 401 or (refusal.status == 403 and refusal.text.startswith("forbidden")):
        # Without a code, as Alpaca's gate answers a key of the other environment; on a question it costs nothing to
        # believe it.
        return AuthenticationError(text, **details)
    failed = refusal.status >= 500 or refusal.code is None
    return (ExchangeUnavailableError if failed else ExchangeError)(text, **details)


_FIXES: Final = (
    ("sub-penny", "round the price: two decimals from 1 USD on, four below"),
    ("not fractionable", "order whole shares of this symbol"),
    ("sold short", "this asset or account takes no short sales; sell at most what is held"),
    ("minimal amount of order", "order more: the least is 1 USD of a stock and 10 USD of crypto"),
    ("wash trade", "cancel the opposite order first, or send both as one bracket or OCO"),
    (PATTERN_DAY_TRADING, "hold the position overnight, or keep 25,000 USD of equity"),
    ("request is not authorized", "check api_key and secret; keys of paper and live differ"),
    ("unauthorized", "check api_key and secret; keys of paper and live differ"),
    ("forbidden", "check api_key and secret; keys of paper and live differ"),
    ("extended hours", "send a limit order with time in force day or gtc"),
)


def _fix(refusal: Refusal) -> str:
    text = refusal.text.lower()
    fix = next((fix for words, fix in _FIXES if words in text), None)
    return "" if fix is None else f"; {fix}"


_SHORT_OF: Final = re.compile(
    r"insufficient balance for \S+ \(requested: (?P<asked>\d{1,15}(\.\d{1,18})?), "
    r"available: (?P<free>\d{1,15}(\.\d{1,18})?)\)",
    re.ASCII | re.IGNORECASE,
)
"""Crypto: the asset is the one that the order would be paid with."""
_NUMBERS: Final = (
    "buying_power",
    "daytrading_buying_power",
    "cost_basis",
    "available",
    "existing_qty",
    "held_for_orders",
)


def _numbers(body: Mapping[str, Any]) -> str:
    """Return the account's numbers that stand in a refusal."""
    found = [f"{name}={clean(body[name], 40)}" for name in _NUMBERS if body.get(name) is not None]
    return f"; {', '.join(found)}" if found else ""


def available(refusal: Refusal, quantity: Decimal | None) -> Decimal | None:
    """Return the quantity that would pass, from the refusal's own numbers; None where they do not tell."""
    body, stated = refusal.body, _SHORT_OF.search(refusal.text)
    try:
        if stated is not None and quantity:
            # Of whichever asset the account has too little: the same share of the order can be paid for.
            asked, free = Decimal(stated["asked"]), Decimal(stated["free"])
            return min(quantity, _share(quantity, free, asked)) if asked else None
        if body.get("available") is not None:
            return figure(body, "available")
        for name in ("daytrading_buying_power", "buying_power"):
            if body.get(name) is not None and body.get("cost_basis") is not None and quantity:
                power, cost = figure(body, name), figure(body, "cost_basis")
                if cost > ZERO:
                    return min(quantity, _share(quantity, power, cost))
    except BadAnswerError:
        pass
    return None


def _share(quantity: Decimal, free: Decimal, cost: Decimal) -> Decimal:
    return MONEY.divide(MONEY.multiply(quantity, free), cost)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Return how long to wait: `Retry-After` in seconds, else until the moment of `X-Ratelimit-Reset`."""
    wait, reset = headers.get("Retry-After"), headers.get("X-Ratelimit-Reset")
    if wait is not None and _is_number(wait):
        return timedelta(seconds=int(wait))
    if reset is not None and _is_number(reset):
        left = datetime.fromtimestamp(int(reset), UTC) - now
        # A reset that lies far away is another unit or another clock, not a pause.
        return min(max(left, timedelta(0)), timedelta(minutes=5))
    return None


def allowance(headers: Mapping[str, str], now: datetime) -> tuple[int, int, float] | None:
    """Return how many requests of the minute are used, of how many, and in how many seconds it ends; None: not told."""
    names = ("X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset")
    limit, left, reset = (headers.get(name, "") for name in names)
    if not (_is_number(limit) and _is_number(left) and _is_number(reset)):
        return None
    # A reset that lies far away is another unit or another clock.
    ends_in = min(max(int(reset) - now.timestamp(), 0.0), 60.0)
    return int(limit) - int(left), int(limit), ends_in


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 10

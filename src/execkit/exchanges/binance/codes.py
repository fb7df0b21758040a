"""Binance's error codes that are definite about an order; every other one, known or new, proves nothing.

Sources: Binance's error lists for spot and for USD-M futures. Left out on purpose, because the order may have been
taken: -1000, -1001, -1006, -1007 (time-out), -1008, -1016, -2021 and -2022 of a cancel-and-replace, and every 5xx.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from execkit.errors import (
    AuthenticationError,
    DuplicateClientOrderIdError,
    ExchangeError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    MarketOrderRefusedError,
    OrderNotFoundError,
    OrderRejectedError,
    QuantityTooLargeError,
    RateLimitError,
)
from execkit.exchanges.ccxt.dialect import Dialect, Meaning

Kind = type[ExchangeError]


def _code(body: Any) -> tuple[str, str] | None:
    """Find the error in an answer: `{"code": -1013, "msg": "..."}`, also inside a list of orders."""
    if not isinstance(body, Mapping):
        return None
    code = body.get("code")
    if isinstance(code, str) and re.fullmatch(r"-?\d{1,6}", code, re.ASCII):
        code = int(code)
    if not isinstance(code, int) or isinstance(code, bool) or code in (0, 200):
        return None
    return str(code), str(body.get("msg", ""))


def _filter(text: str) -> Kind | None:
    """-1013: a filter of the symbol, or a closed market."""
    if "Market is closed" in text:
        return MarketClosedError
    if "Market orders are not supported" in text:
        return MarketOrderRefusedError
    if "LOT_SIZE" in text and "MARKET" in text:
        return QuantityTooLargeError
    return InvalidOrderError


def _rejected(text: str) -> Kind | None:
    """-2010: the order was refused; the reason is in the text."""
    found: Kind = OrderRejectedError
    for words, kind in _REASONS:
        if words in text:
            found = kind
            break
    return found


_REASONS: Final[tuple[tuple[str, Kind], ...]] = (
    ("Duplicate order sent", DuplicateClientOrderIdError),
    ("insufficient balance", InsufficientBalanceError),
    ("Market is closed", MarketClosedError),
    ("Market orders are not supported", MarketOrderRefusedError),
    ("immediately match and take", InvalidOrderError),
    ("would trigger immediately", InvalidOrderError),
    ("Price * QTY is zero or less", InvalidOrderError),
    ("not supported for this symbol", InvalidOrderError),
    ("This symbol is not permitted", AuthenticationError),
    ("may not place or cancel orders", AuthenticationError),
    ("action is disabled on this account", AuthenticationError),
    ("account may not", AuthenticationError),
)

_BOTH: Final[dict[str, Meaning]] = {
    "-1002": AuthenticationError,
    "-1003": RateLimitError,
    "-1013": _filter,
    "-1015": RateLimitError,
    "-1021": RateLimitError,
    "-1022": AuthenticationError,
    "-1100": InvalidOrderError,
    "-1101": InvalidOrderError,
    "-1102": InvalidOrderError,
    "-1103": InvalidOrderError,
    "-1104": InvalidOrderError,
    "-1105": InvalidOrderError,
    "-1106": InvalidOrderError,
    "-1111": InvalidOrderError,
    "-1114": InvalidOrderError,
    "-1115": InvalidOrderError,
    "-1116": InvalidOrderError,
    "-1117": InvalidOrderError,
    "-1121": InvalidOrderError,
    "-1128": InvalidOrderError,
    "-1130": InvalidOrderError,
    "-2010": _rejected,
    "-2011": OrderNotFoundError,
    "-2013": OrderNotFoundError,
    "-2014": AuthenticationError,
    "-2015": AuthenticationError,
}

_USDM: Final[dict[str, Meaning]] = {
    "-2018": InsufficientBalanceError,
    "-2019": InsufficientBalanceError,
    "-2020": OrderRejectedError,
    "-2021": InvalidOrderError,  # "Order would immediately trigger."; on spot it tells of a half-done replacement
    "-2022": InvalidOrderError,  # "ReduceOnly Order is rejected."
    "-2025": OrderRejectedError,
    "-2026": InvalidOrderError,
    "-2027": OrderRejectedError,
    "-2028": InsufficientBalanceError,
    "-4001": InvalidOrderError,
    "-4002": InvalidOrderError,
    "-4003": InvalidOrderError,
    "-4004": InvalidOrderError,
    "-4005": QuantityTooLargeError,
    "-4013": InvalidOrderError,
    "-4014": InvalidOrderError,
    "-4015": InvalidOrderError,
    "-4016": InvalidOrderError,
    "-4023": InvalidOrderError,
    "-4024": InvalidOrderError,
    "-4061": InvalidOrderError,
    "-4116": DuplicateClientOrderIdError,
    "-4131": InvalidOrderError,
    "-4140": MarketClosedError,
    "-4164": InvalidOrderError,
    "-4183": InvalidOrderError,
    "-5021": OrderRejectedError,
    "-5022": InvalidOrderError,
    "-5024": OrderRejectedError,
    "-5025": OrderRejectedError,
    "-5026": OrderRejectedError,
    "-5027": OrderRejectedError,
    "-5028": OrderRejectedError,
}

FILTERS: Final = frozenset(
    {
        "-1013",
        "-1111",
        "-4001",
        "-4002",
        "-4003",
        "-4004",
        "-4005",
        "-4014",
        "-4023",
        "-4140",
        "-4164",
    }
)
"""Refusals by a market's rules, or because it is closed: what we know of it is out of date."""

_CLOCK: Final = frozenset({"-1021"})

SPOT: Final = Dialect(read_code=_code, meanings=_BOTH, clock_codes=_CLOCK, knows_all=True)
USDM: Final = Dialect(read_code=_code, meanings=_BOTH | _USDM, clock_codes=_CLOCK, knows_all=True)

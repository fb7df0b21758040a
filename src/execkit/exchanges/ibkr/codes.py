"""What TWS error codes mean for an order: one table, and everything that is not in it is unknown.

Codes and classes follow the table of IBKR's API message codes as observed through ib_async 2.1.0. A code alone never
says that bytes did not leave; what it proves depends on whether it answers a new order or a change of a live one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketOrderRefusedError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    QuantityTooLargeError,
    RateLimitError,
)


class Meaning(StrEnum):
    """What a code says of the order that it names."""

    REFUSED = "refused"
    """A new order is dead; a change of a live one was not made."""
    CANCELLED = "cancelled"
    WAITING = "waiting"
    """It lives and waits: for the open, or for shares to borrow."""
    INFO = "info"
    """Worth a log line; the order is what it was."""
    AMBIGUOUS = "ambiguous"
    """Look it up, then decide."""


_REFUSED: Final = {
    100: RateLimitError,
    105: InvalidOrderError,
    110: InvalidOrderError,
    111: InvalidOrderError,
    135: InvalidOrderError,
    200: InvalidOrderError,
    201: OrderRejectedError,
    203: OrderRejectedError,
    320: InvalidOrderError,
    321: InvalidOrderError,
    387: InvalidOrderError,
    434: InvalidOrderError,
    435: InvalidOrderError,
    460: OrderRejectedError,
    10243: InvalidOrderError,
    10289: MarketOrderRefusedError,
}
_WAITING: Final = frozenset({399, 404})
_INFO: Final = frozenset({10349, 10167})
_FIXES: Final = {
    100: "fewer messages a second",
    110: "round the price to the tick of its price band, see instrument()",
    200: "check the symbol; docs/venues/ibkr.md has the grammar",
    203: "the account lacks the trading permission",
    321: "untick 'Read-Only API' in the API settings of TWS or the gateway",
    387: "use an order type that this market knows",
    434: "the quantity became zero; ask for more",
    435: "name the account: IBKRAdapter(account=...)",
    10243: "use whole units, see instrument().lot_size",
    10289: "crypto is bought with a marketable limit order",
}
_MARGIN: Final = ("margin", "insufficient", "available funds", "equity with loan", "buying power")
_TOO_LARGE: Final = ("size limit", "exceeds the maximum", "maximum order size")


def meaning_of(code: int) -> Meaning:
    """Return what a code says of the order whose id it carries."""
    if code in _REFUSED:
        return Meaning.REFUSED
    if code == 202:
        return Meaning.CANCELLED
    if code in _WAITING:
        return Meaning.WAITING
    if code in _INFO or 2100 <= code < 2200:
        return Meaning.INFO
    return Meaning.AMBIGUOUS


def error_of(code: int, text: str) -> ExchangeError:
    """Return the error of a code that answers a new order, or a change of one."""
    fix = f"; {_FIXES[code]}" if code in _FIXES else ""
    message = f"TWS {code}: {text}{fix}"
    details = {"venue": "ibkr", "code": str(code), "raw": text}
    if code in (103, 104):
        return DuplicateClientOrderIdError(message, **details)
    kind: type[ExchangeError] = _REFUSED.get(code, OrderStatusUnknownError)
    lower = text.lower()
    if code == 201 and any(word in lower for word in _MARGIN):
        kind = InsufficientBalanceError
    elif code == 201 and any(word in lower for word in _TOO_LARGE):
        kind = QuantityTooLargeError
    return kind(message, **details)


def cancel_error_of(code: int, text: str) -> ExchangeError:
    """Return the error of a code that answers a cancel: none of them proves what the order is."""
    kind = OrderNotFoundError if code in (135, 10147, 10148) else OrderStatusUnknownError
    return kind(f"TWS {code}: {text}", venue="ibkr", code=str(code), raw=text)

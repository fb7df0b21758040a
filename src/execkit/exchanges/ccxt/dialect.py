"""What a venue's error codes mean to us: an allow-list of definite answers; everything else proves nothing.

The class of exception that a client library makes of an answer is never the evidence. Evidence is the status, the
venue's own code and its text, and whether bytes may have left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
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

TOO_MANY: Final = 429
BANNED: Final = 418


class UnsentError(Exception):
    """Not one byte of the request has left."""


class UnansweredError(Exception):
    """The request may have left, and no answer that can be read came back."""


class RefusedError(Exception):
    """The venue has answered, and its answer is an error; the text is cleaned."""

    def __init__(
        self, status: int, code: str | None, text: str, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(f"HTTP {status}, code {code}: {text}")
        self.status = status
        self.code = code
        self.text = text
        self.retry_after = retry_after


Meaning = type[ExchangeError] | Callable[[str], type[ExchangeError] | None]
"""What a code means: a kind of error, or how to tell by the venue's text; None: it proves nothing."""


def no_code(_body: Any) -> tuple[str, str] | None:
    """Find no error code in an answer."""
    return None


def no_check(_body: Any) -> None:
    """Find nothing wrong with a key."""


@attrs.frozen(kw_only=True)
class Dialect:
    """How one venue says no."""

    read_code: Callable[[Any], tuple[str, str] | None] = no_code
    """Return (code, text) where a parsed body is an error, else None; also with status 200."""
    meanings: Mapping[str, Meaning] = attrs.field(factory=dict)
    """Codes that are definite about an order."""
    clock_codes: frozenset[str] = frozenset()
    """The request was refused unread, because our clock and the venue's differ."""
    knows_all: bool = False
    """Whether *read_code* finds every error, so that ccxt need not be asked."""
    client_id_param: str | None = None
    """The venue's name of our order id in lists of orders, where these can be asked for one id."""
    key_path: str | None = None
    """Where the venue tells what a key may do."""
    check_key: Callable[[Any], None] = no_check
    """Raises `AuthenticationError` for a key that may withdraw, or may not trade."""
    is_subscribed: Callable[[Any], bool] | None = None
    """Whether a frame confirms a subscription to the account's stream; None: nobody knows."""

    def meaning(self, refused: RefusedError) -> type[ExchangeError] | None:
        """Return which error an answer definitely is, or None where it proves nothing."""
        if refused.status >= 500 or refused.status == 408:
            return None
        if refused.status in (TOO_MANY, BANNED) or refused.code in self.clock_codes:
            return RateLimitError
        if refused.code is None:
            return None
        found = self.meanings.get(refused.code)
        if found is None or isinstance(found, type):
            return found
        return found(refused.text)


def _bybit_code(body: Any) -> tuple[str, str] | None:
    if not isinstance(body, Mapping) or "retCode" not in body:
        return None
    code = body["retCode"]
    return None if code in (0, "0") else (str(code), str(body.get("retMsg", "")))


def _bybit_key(body: Any) -> None:
    result = body.get("result") if isinstance(body, Mapping) else None
    rights = result.get("permissions") if isinstance(result, Mapping) else None
    if not isinstance(result, Mapping) or not isinstance(rights, Mapping):
        raise AuthenticationError(
            "api_key: bybit does not tell what this key may do", venue="bybit"
        )
    if "Withdraw" in (rights.get("Wallet") or ()):
        raise AuthenticationError(
            "api_key: this key may withdraw money; make one without that right and use it instead",
            venue="bybit",
        )
    if result.get("readOnly") not in (0, "0"):
        raise AuthenticationError(
            "api_key: this key may only read; make one that may trade", venue="bybit"
        )


def _bybit_subscribed(frame: Any) -> bool:
    return (
        isinstance(frame, Mapping) and frame.get("op") == "subscribe" and bool(frame.get("success"))
    )


BYBIT: Final = Dialect(
    read_code=_bybit_code,
    knows_all=True,
    client_id_param="orderLinkId",
    key_path="v5/user/query-api",
    check_key=_bybit_key,
    is_subscribed=_bybit_subscribed,
    clock_codes=frozenset({"10002"}),
    meanings={
        "10001": InvalidOrderError,
        "10003": AuthenticationError,
        "10004": AuthenticationError,
        "10005": AuthenticationError,
        "10006": RateLimitError,
        "10010": AuthenticationError,
        "33004": AuthenticationError,
        "110001": OrderNotFoundError,
        "110003": InvalidOrderError,
        "110004": InsufficientBalanceError,
        "110007": InsufficientBalanceError,
        "110008": OrderNotFoundError,
        "110012": InsufficientBalanceError,
        "110017": InvalidOrderError,
        "110072": DuplicateClientOrderIdError,
        "110094": InvalidOrderError,
        "170121": InvalidOrderError,
        "170131": InsufficientBalanceError,
        "170134": InvalidOrderError,
        "170135": QuantityTooLargeError,
        "170136": InvalidOrderError,
        "170137": InvalidOrderError,
        "170140": InvalidOrderError,
        "170141": DuplicateClientOrderIdError,
        "170213": OrderNotFoundError,
        "170142": OrderNotFoundError,
    },
)

DIALECTS: Final[Mapping[str, Dialect]] = {"bybit": BYBIT}
"""Venues whose refusals we know. On any other one a refusal is looked up, which costs time but no money."""

KINDS: Final[Mapping[str, type[ExchangeError]]] = {
    "rejected": OrderRejectedError,
    "insufficient_balance": InsufficientBalanceError,
    "invalid": InvalidOrderError,
    "too_large": QuantityTooLargeError,
    "duplicate": DuplicateClientOrderIdError,
    "market_closed": MarketClosedError,
    "no_market_orders": MarketOrderRefusedError,
    "rate_limit": RateLimitError,
    "authentication": AuthenticationError,
    "not_found": OrderNotFoundError,
}
"""What a user may say of a code, in the option *refusals*."""


def with_refusals(dialect: Dialect, refusals: Mapping[str, str] | None) -> Dialect:
    """Return the dialect with codes that the user vouches for."""
    added = {}
    for code, kind in (refusals or {}).items():
        if kind not in KINDS:
            raise ConfigurationError(
                f"refusals[{code!r}]: {kind!r} is unknown; use one of {', '.join(KINDS)}"
            )
        added[str(code)] = KINDS[kind]
    return attrs.evolve(dialect, meanings={**dialect.meanings, **added})

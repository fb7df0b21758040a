"""Alpaca's refusals, by HTTP status, code and words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NoReturn

from execkit.numbers import plain
from execkit.testing.venues.calls import Refusal


def refuse(status: int, code: int, message: str, **details: Any) -> NoReturn:
    """Raise a refusal; *details* stand beside the message."""
    raise Refusal(status, {"code": code, "message": message, **details})


def invalid(message: str) -> NoReturn:
    """Refuse a field that is missing or malformed."""
    refuse(422, 40010001, message)


def unprocessable(message: str) -> NoReturn:
    """Refuse an order that is well written and cannot be done."""
    refuse(422, 42210000, message)


def forbidden(message: str, **details: Any) -> NoReturn:
    """Refuse an order that this account may not make now."""
    refuse(403, 40310000, message, **details)


def short_of(asset: str, asked: Decimal, free: Decimal, total: Decimal) -> NoReturn:
    """Refuse a crypto order for which too little of an asset is there; the symbol that it names is always USD."""
    forbidden(
        f"insufficient balance for {asset} (requested: {plain(asked)}, available: {plain(free)})",
        available=plain(free),
        balance=plain(total),
        symbol="USD",
    )


def order_missing(order_id: str) -> NoReturn:
    """Refuse a request about an order that does not exist."""
    refuse(404, 40410000, f"order not found for {order_id}")

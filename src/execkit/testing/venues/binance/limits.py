"""Binance's limits of pace: request weight per minute, orders per ten seconds and per day, and bans."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import attrs

from execkit.testing.venues.binance.errors import refuse
from execkit.testing.venues.binance.words import ms

_WEIGHTS: Final = {
    "rules": 20,
    "account": 20,
    "balances": 20,
    "positions": 5,
    "get": 4,
    "open": 6,
    "orders": 20,
    "fills": 20,
    "bars": 2,
    "ticker": 2,
    "limits": 40,
    "ping": 1,
}
PLACING: Final = frozenset({"place", "replace", "place_list"})


@attrs.frozen(kw_only=True)
class Rules:
    """Filters that all symbols of a venue share. Multipliers apply to the average price."""

    bid_up: Decimal = Decimal(5)
    bid_down: Decimal = Decimal("0.2")
    ask_up: Decimal = Decimal(5)
    ask_down: Decimal = Decimal("0.2")
    max_orders: int = 200
    max_conditional: int = 5
    weight_per_minute: int = 6_000
    orders_per_10s: int = 100
    orders_per_day: int = 200_000


class Limits:
    """Counts requests and orders in the windows of the venue's clock, and bans who does not listen."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.weight = 0
        self.orders_10s = 0
        self.orders_day = 0
        self.banned_until: datetime | None = None
        self._windows: dict[str, int] = {}
        self._warned = 0

    def count(self, operation: str, at: datetime) -> None:
        """Count a request; refuse it when that is one too many."""
        self._roll(at)
        if self.banned_until is not None and at < self.banned_until:
            self._ban(at, self.banned_until)
        self.weight += _WEIGHTS.get(operation, 1)
        if self.weight > self.rules.weight_per_minute:
            self._warned += 1
            if self._warned > 3:
                self.banned_until = at + timedelta(minutes=2)
                self._ban(at, self.banned_until)
            left = 60 - at.second
            refuse(
                -1003,
                f"Too much request weight used; current limit is {self.rules.weight_per_minute} request weight per "
                "1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API.",
                status=429,
                headers={"Retry-After": str(left)},
            )
        if operation in PLACING:
            self._count_order(at)

    def _count_order(self, at: datetime) -> None:
        for used, most, span in (
            (self.orders_10s, self.rules.orders_per_10s, "10 SECOND"),
            (self.orders_day, self.rules.orders_per_day, "1 DAY"),
        ):
            if used >= most:
                wait = 10 - at.second % 10 if span == "10 SECOND" else 86_400
                retry = {"Retry-After": str(wait)}
                refuse(-1015, status=429, headers=retry, limit=most, span=span)
        self.orders_10s += 1
        self.orders_day += 1

    def _ban(self, at: datetime, until: datetime) -> None:
        left = {"Retry-After": str(max(1, int((until - at).total_seconds())))}
        refuse(-1003, status=418, headers=left, until=ms(until))

    def _roll(self, at: datetime) -> None:
        """Begin new windows."""
        second = ms(at) // 1000
        for name, span in (("weight", 60), ("orders_10s", 10), ("orders_day", 86_400)):
            if self._windows.get(name) != second // span:
                self._windows[name] = second // span
                setattr(self, name, 0)
                if name == "weight":
                    self._warned = 0

    def headers(self) -> dict[str, str]:
        """Return what every answer tells of the use."""
        return {
            "X-MBX-USED-WEIGHT": str(self.weight),
            "X-MBX-USED-WEIGHT-1M": str(self.weight),
            "X-MBX-ORDER-COUNT-10S": str(self.orders_10s),
            "X-MBX-ORDER-COUNT-1D": str(self.orders_day),
        }

    def shown(self) -> list[dict[str, Any]]:
        """Return the limits as the venue's rules list them."""
        rows = (
            ("REQUEST_WEIGHT", "MINUTE", 1, self.rules.weight_per_minute),
            ("ORDERS", "SECOND", 10, self.rules.orders_per_10s),
            ("ORDERS", "DAY", 1, self.rules.orders_per_day),
        )
        return [
            {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": most}
            for kind, interval, number, most in rows
        ]

    def counts(self) -> list[dict[str, Any]]:
        """Return how many orders of the limits are used."""
        used = {"SECOND": self.orders_10s, "DAY": self.orders_day}
        return [
            row | {"count": used[row["interval"]]}
            for row in self.shown()
            if row["rateLimitType"] == "ORDERS"
        ]

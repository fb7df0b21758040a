"""The habits of simulated venues, and how a seed chooses among them."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from typing import Final

import attrs

from execkit.protection.policy import PartialExit, ProtectionPolicy

SYMBOLS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT")


@attrs.frozen(kw_only=True)
class Rules:
    """Habits of a venue."""

    name: str
    ids_unique_for_ever: bool = True
    absence_window: timedelta = timedelta(seconds=60)
    hidden_for: float = 0.0
    """Longest time in seconds that queries do not show a live order; the stream shows it at once."""
    reports_carry_fills: bool = True
    short_selling: bool = False
    reduce_only: bool = True
    amend: bool = False
    order_stream: bool = True
    native_oco: bool = False
    order_rate: tuple[int, timedelta] | None = None
    """How many commands it takes in any window of so long."""
    stop_market: bool = True
    """It has stop-market orders; else stop-limits only."""


RULES: Final = (
    Rules(name="plain", amend=True),
    Rules(name="margin", short_selling=True, amend=True, reports_carry_fills=False),
    Rules(name="margin-bare", short_selling=True, reduce_only=False),
    Rules(
        name="spot",
        ids_unique_for_ever=False,
        absence_window=timedelta(minutes=30),
        hidden_for=1700.0,
        reduce_only=False,
        reports_carry_fills=False,
    ),
    Rules(name="polled", order_stream=False, reports_carry_fills=False),
)

POLICIES: Final = (
    ProtectionPolicy(
        targets=(
            PartialExit(Decimal(1), Decimal("0.5")),
            PartialExit(Decimal(3), Decimal("0.5")),
        ),
        break_even_after_r=Decimal(1),
    ),
    ProtectionPolicy(trailing_pct=Decimal(1), tighten_within_r=Decimal("0.5")),
)
"""What a seed may have done with open positions, besides nothing."""


def rules_of(seed: int) -> Rules:
    """Return the venue of a seed; every third keeps stops and targets together, every fifth has stop-limits only.

    Where an absence is proven at once, an order that was lost on its way is sent again while its signal waits.
    """
    rules = RULES[random.Random(f"rules {seed}").randrange(len(RULES))]
    if not rules.hidden_for and random.Random(f"proof {seed}").random() < 1 / 8:
        rules = attrs.evolve(rules, absence_window=timedelta(0))
    rng = random.Random(f"stops {seed}")
    return attrs.evolve(rules, native_oco=rng.random() < 1 / 3, stop_market=rng.random() > 1 / 5)


def policy_of(seed: int) -> ProtectionPolicy | None:
    """Return how a seed takes positions out; None for one in two, as the default is."""
    rng = random.Random(f"protection {seed}")
    return rng.choice(POLICIES) if rng.random() < 1 / 2 else None

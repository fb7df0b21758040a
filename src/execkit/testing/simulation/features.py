"""What a seed adds to a world besides faults: parts of the library that not every user turns on.

Like the kinds of fault they come in swarms: most seeds have none of them, one in eight a random few.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import attrs

from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.instrument import Instrument
from execkit.model.order import Side
from execkit.model.slicing import Iceberg, Slicing, Twap, Vwap
from execkit.numbers import ZERO
from execkit.pipeline import ExecutionPipeline, HandlerFunction
from execkit.testing.simulation.rules import SYMBOLS, Rules


class Feature(StrEnum):
    """A part of the library that a seed turns on."""

    SLICES = "slices"
    """Some orders are worked in slices."""
    THROTTLE = "throttle"
    """The venue takes so many commands in a window and no more."""
    KILL_FILE = "kill_file"
    """Somebody puts the file that halts there, and takes it away again."""
    DAILY_LOSS = "daily_loss"
    """The limit of the day's loss is small, and the run crosses midnight."""
    BREAKER = "breaker"
    RATE_LIMIT = "rate_limit"
    MARKET_HOURS = "market_hours"
    """The market closes now and then."""
    CONFIRMATION = "confirmation"
    """A person is asked before each entry, and does not always say yes."""
    NO_STOPS = "no_stops"
    """The user has chosen no stops: there is no handler that sets them."""
    GROUPS = "groups"
    """All symbols move together, and little of them may be held."""
    DAY_TRADES = "day_trades"
    """The account is small and in the United States: few positions are opened and closed on one day."""


_WITH_SOME: Final = 1 / 8
"""Share of the seeds that turn something on."""
_SHARE: Final = {Feature.NO_STOPS: 0.2}
_USUAL_SHARE: Final = 0.35
ORDER_RATE: Final = (8, timedelta(seconds=10))
"""Commands that a venue with a throttle takes; few, so that the limit is met."""
DAILY_LOSS_PCT: Final = Decimal("0.03")
"""The small limit of the day's loss, in percent."""
GROUP_PCT: Final = Decimal(3)
"""The small share of a group, in percent of the equity."""
MOST_DAY_TRADES: Final = 4
_COUNTED_BY_RISK: Final = frozenset({Feature.DAILY_LOSS, Feature.GROUPS, Feature.DAY_TRADES})
"""What no handler counts where there is none for risk."""


def features_of(seed: int, *, without: Iterable[str] = ()) -> frozenset[Feature]:
    """Return what a seed turns on, less what is left out by name."""
    rng = random.Random(f"features {seed}")
    has_some = rng.random() < _WITH_SOME
    drawn = {each for each in Feature if rng.random() < _SHARE.get(each, _USUAL_SHARE)}
    if Feature.NO_STOPS in drawn:
        drawn -= _COUNTED_BY_RISK
    off = set(without)
    return frozenset(each for each in drawn if has_some and each.value not in off)


def rules_with(rules: Rules, features: frozenset[Feature]) -> Rules:
    """Return a venue's rules as the features have them."""
    rate = ORDER_RATE if Feature.THROTTLE in features else rules.order_rate
    return attrs.evolve(rules, order_rate=rate)


def options_with(options: dict[str, Any], features: frozenset[Feature]) -> dict[str, Any]:
    """Return engine options as the features have them; guards are added by `guarded`."""
    options = dict(options)
    if Feature.NO_STOPS in features:
        chain: list[HandlerFunction] = [
            ValidationHandler(min_confluence_score=0),
            OrderExecutorHandler(base_delay=0.2, order_timeout=timedelta(seconds=20)),
            ReconciliationHandler(),
        ]
        options["pipeline"] = ExecutionPipeline(chain, unchecked=True)
        options.pop("protection", None)
    changes: dict[str, Any] = {}
    if Feature.DAILY_LOSS in features:
        changes["daily_loss_pct"] = DAILY_LOSS_PCT
    if Feature.GROUPS in features:
        changes |= {"groups": {"coins": SYMBOLS}, "max_group_pct": GROUP_PCT}
    if Feature.DAY_TRADES in features:
        changes |= {"max_day_trades": MOST_DAY_TRADES, "day_trades_free_above": Decimal(10**9)}
    if changes:
        options["pipeline"] = _with_limits(options["pipeline"], changes)
    return options


def _with_limits(pipeline: ExecutionPipeline, changes: dict[str, Any]) -> ExecutionPipeline:
    (risk,) = (each for each in pipeline if isinstance(each, RiskManagementHandler))
    limits = attrs.evolve(risk.limits, **changes)
    return pipeline.replace(RiskManagementHandler, RiskManagementHandler(limits))


def terms_with(
    terms: dict[str, Any],
    features: frozenset[Feature],
    rng: random.Random,
    instrument: Instrument,
    price: Decimal,
    side: Side,
) -> dict[str, Any]:
    """Return the terms of a signal as the features have them."""
    if Feature.NO_STOPS in features:
        terms.pop("stop_loss", None)
        notional = Decimal(rng.choice((30, 500, 3_000)))
        quantity = instrument.round_quantity(notional / price)
        terms["quantity"] = max(quantity, instrument.min_quantity, instrument.lot_size)
    if Feature.SLICES in features and "stop_price" not in terms and rng.random() < 0.5:
        terms.pop("time_in_force", None)
        slicing = terms["slicing"] = _slicing(rng, instrument, price, terms.get("quantity"))
        if isinstance(slicing, Iceberg):
            near = price * (1 - Decimal(side.sign * rng.randint(-5, 20)) / 10_000)
            terms["limit_price"] = instrument.round_price(near)
    return terms


def _slicing(
    rng: random.Random, instrument: Instrument, price: Decimal, quantity: Decimal | None
) -> Slicing:
    duration = timedelta(seconds=rng.choice((5, 20, 60, 120)))
    kind = rng.random()
    if kind < 0.4:
        return Twap(duration=duration, slices=rng.randint(2, 6))
    if kind < 0.7:
        profile = tuple(Decimal(rng.randint(1, 5)) for _ in range(rng.randint(2, 5)))
        return Vwap(duration=duration, profile=profile)
    whole = quantity or Decimal(2_000) / price
    shown = instrument.round_quantity(whole / rng.randint(2, 5))
    return Iceberg(display=max(shown, instrument.min_quantity, instrument.lot_size, ZERO))

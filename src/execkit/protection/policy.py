"""How positions are protected and taken out: targets in parts, stops that follow the price. Pure."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final

import attrs

from execkit.errors import ConfigurationError
from execkit.model.instrument import Instrument
from execkit.model.market import Timeframe
from execkit.model.order import Side
from execkit.model.position import Position, Target
from execkit.numbers import HUNDRED, MONEY, ONE, ZERO, non_negative, percent, positive

_HALF: Final = Decimal("0.5")
_TWO: Final = Decimal(2)


@attrs.frozen
class PartialExit:
    """Leave with *share* of the position (0 to 1) at a gain of *r* times the risk, entry price to first stop."""

    r: Decimal
    share: Decimal

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "r", positive("r", self.r))
        object.__setattr__(self, "share", positive("share", self.share))
        if self.share > ONE:
            raise ConfigurationError(f"share: {self.share} is above 1, the whole position")


HALF_AND_HALF: Final = (PartialExit(Decimal(1), _HALF), PartialExit(Decimal(2), _HALF))
"""50 % at 1 R and 50 % at 2 R."""


def _timeframe(value: Timeframe | str | None) -> Timeframe | None:
    return None if value is None else Timeframe.parse(value)


@attrs.frozen(kw_only=True)
class ProtectionPolicy:
    """What happens to a position between its entry and its end. R is the entry price to the first stop-loss.

    Raises `ConfigurationError` naming the field for a value out of range.
    """

    targets: tuple[PartialExit, ...] = ()
    """Exits in parts, nearest first, for entries that state no take-profit; none: one target for the whole."""
    trailing_pct: Decimal | None = None
    """The stop follows the price at this distance, in percent of it, and never goes back; None: it stays."""
    break_even_after_r: Decimal | None = None
    """From a gain of so many R on, the stop is not beyond the entry price; None: it stays."""
    tighten_within_r: Decimal | None = None
    """Closer than so many R to the target, the stop's distance from the price is halved, once; None: it stays."""
    widen_on_atr: Timeframe | None = attrs.field(default=None, converter=_timeframe)
    """Bars, e.g. `1h`, whose ATR(14) is looked at: once it is twice that at the entry, a stop that has not moved yet
    goes to twice its distance from the entry price, once; None: it stays. In no other way does a stop go away from the
    price, and more may be lost then than the entry was sized for."""
    widest_stop_pct: Decimal = Decimal(2)
    """Farthest that it then goes, in percent of the entry price."""
    step_pct: Decimal = Decimal("0.1")
    """A stop is moved at the venue only by this much of the price or more: each move is a message, and a risk."""
    place_within: timedelta = timedelta(seconds=5)
    """How long a fill may go without its stop before the position is flattened instead."""
    attempts: int = 3
    """How often a stop is tried meanwhile."""
    stop_limit_pct: Decimal = Decimal(1)
    """How far beyond its trigger a stop may execute where the venue has only stop-limit orders, in percent; left behind
    by the price, it is escalated to the market."""
    alert_slippage_pct: Decimal = Decimal("0.5")
    """How much worse than its level a stop or a target, or than the mid a flatten, may be executed before a person is
    told, in percent."""

    def __attrs_post_init__(self) -> None:
        for name in ("trailing_pct", "break_even_after_r", "tighten_within_r"):
            value = getattr(self, name)
            if value is not None:
                check = percent if name.endswith("_pct") else positive
                object.__setattr__(self, name, check(name, value))
        object.__setattr__(
            self, "widest_stop_pct", percent("widest_stop_pct", self.widest_stop_pct)
        )
        object.__setattr__(self, "step_pct", non_negative("step_pct", self.step_pct))
        object.__setattr__(self, "stop_limit_pct", percent("stop_limit_pct", self.stop_limit_pct))
        alert = non_negative("alert_slippage_pct", self.alert_slippage_pct)
        object.__setattr__(self, "alert_slippage_pct", alert)
        if self.place_within <= timedelta(0):
            raise ConfigurationError(f"place_within: {self.place_within!r} must be above zero")
        if type(self.attempts) is not int or self.attempts < 1:
            raise ConfigurationError(f"attempts: {self.attempts!r} must be a whole number from 1")
        object.__setattr__(self, "targets", tuple(self.targets))
        self._check_targets()

    def _check_targets(self) -> None:
        if not self.targets:
            return
        distances = [each.r for each in self.targets]
        if distances != sorted(set(distances)):
            raise ConfigurationError(
                "targets: state them from the nearest to the farthest, each once"
            )
        total = sum((each.share for each in self.targets), ZERO)
        if total != ONE:
            raise ConfigurationError(f"targets: their shares add up to {total}, not to 1")


def targets_for(
    policy: ProtectionPolicy, side: Side, entry: Decimal, stop_loss: Decimal, instrument: Instrument
) -> tuple[Target, ...]:
    """Return the targets of an entry at *entry* on ticks, each rounded away from the entry: no less gain than asked."""
    rounded = instrument.round_price_up if side is Side.BUY else instrument.round_price_down
    risk = abs(entry - stop_loss)
    made = []
    for each in policy.targets:
        price = entry + side.sign * MONEY.multiply(risk, each.r)
        made.append(Target(price if instrument.on_tick(price) else rounded(price), each.share))
    return tuple(made)


def mean_target(targets: tuple[Target, ...]) -> Decimal:
    """Return the price of all exits together, weighted by their shares: what the risk/reward ratio is judged by."""
    return sum((MONEY.multiply(each.price, each.share) for each in targets), ZERO)


def due_exit(
    position: Position,
    low: Decimal,
    high: Decimal,
    instrument: Instrument,
    *,
    any_value: bool = False,
) -> Decimal | None:
    """Return how much to close now that the price was between *low* and *high*; None: nothing.

    What is left after each target is a share of the largest size that the position had, so it does not matter in how
    many steps, or in which process, it is taken out. A rest that the venue would take no stop for goes with it; a part
    that the venue would not take waits for the next target. *any_value* tells that the venue has no least value for
    what makes a position smaller.
    """
    held = abs(position.quantity)
    price = high if position.is_long else low
    touched = _touched(position, price)
    if not touched:
        return None
    keep = MONEY.subtract(ONE, sum((target.share for target in touched), ZERO))
    goal = MONEY.multiply(position.peak_quantity, max(keep, ZERO))
    if goal >= held:
        return None
    closing = instrument.round_quantity(held - goal)
    stop = price if position.stop_loss is None else position.stop_loss
    # The rest is worth least where it would be stopped out, when that is below the target.
    if held - closing < instrument.smallest_quantity(None if any_value else min(price, stop)):
        closing = instrument.round_quantity(held)
    return (
        closing if closing >= instrument.smallest_quantity(None if any_value else price) else None
    )


def _touched(position: Position, price: Decimal) -> list[Target]:
    targets = position.targets
    if not targets and position.take_profit is not None:
        targets = (Target(position.take_profit, ONE),)
    sign = 1 if position.is_long else -1
    return [target for target in targets if (price - target.price) * sign >= ZERO]


def due_price(position: Position, price: Decimal, quantity: Decimal) -> Decimal:
    """Return what *quantity*, which is due at *price*, should bring: the mean of the targets that ask for it.

    Those that are touched first were taken out first, so it is the last ones; a rest that goes with them counts as
    theirs.
    """
    touched = _touched(position, price)
    left, worth = quantity, ZERO
    for target in reversed(touched):
        part = min(left, MONEY.multiply(position.peak_quantity, target.share))
        left, worth = left - part, worth + MONEY.multiply(part, target.price)
    return (worth + MONEY.multiply(left, touched[-1].price)) / quantity


def resting_target(position: Position, instrument: Instrument) -> Decimal | None:
    """Return the price on a tick of the one target that is left for all of a position; None: none, or several."""
    price = position.take_profit
    if position.targets:
        price = position.targets[-1].price
        for earlier in position.targets[:-1]:
            if due_exit(position, earlier.price, earlier.price, instrument) is not None:
                return None
    if price is None or instrument.on_tick(price):
        return price
    rounded = instrument.round_price_up if position.is_long else instrument.round_price_down
    return rounded(price)


def moved_stop(
    policy: ProtectionPolicy, position: Position, price: Decimal, instrument: Instrument
) -> Decimal | None:
    """Return where the stop of a position goes now that its price is *price*; None: it stays.

    It only ever goes towards the price, and only by a step that is worth a message.
    """
    stop, entry = position.stop_loss, position.average_price
    if stop is None or not entry:
        return None
    sign = 1 if position.is_long else -1
    gain = (price - entry) * sign
    risk = abs(entry - (position.initial_stop or stop))
    wishes = []
    if policy.trailing_pct is not None:
        wishes.append(price - sign * MONEY.multiply(price, policy.trailing_pct) / HUNDRED)
    after = policy.break_even_after_r
    if after is not None and risk and gain >= MONEY.multiply(risk, after):
        wishes.append(entry)
    within = policy.tighten_within_r
    goal = position.targets[-1].price if position.targets else position.take_profit
    if within is not None and risk and goal is not None:
        left = (goal - price) * sign
        if ZERO <= left <= MONEY.multiply(risk, within):
            # Half the distance that the first stop had, so that this happens once and not with each tick.
            wishes.append(price - sign * (risk + gain) * _HALF)
    if not wishes:
        return None
    best = max(wishes) if position.is_long else min(wishes)
    # Away from the price, so that no rounding brings it closer than was asked.
    best = (
        instrument.round_price_down(best) if position.is_long else instrument.round_price_up(best)
    )
    ahead = (best - stop) * sign
    if ahead <= ZERO or (price - best) * sign <= ZERO:
        return None
    is_break_even = best == entry and (entry - stop) * sign > ZERO
    worth = ahead >= MONEY.multiply(price, policy.step_pct) / HUNDRED
    return best if worth or is_break_even else None


def widened_stop(
    policy: ProtectionPolicy,
    position: Position,
    price: Decimal,
    growth: Decimal | None,
    instrument: Instrument,
) -> Decimal | None:
    """Return where the stop goes now that the ATR is *growth* times that at the entry; None: it stays.

    A stop that was moved since, by whatever, is not widened: neither twice, nor after it has followed the price.
    """
    stop, entry = position.stop_loss, position.average_price
    if growth is None or growth < _TWO or stop is None or stop != position.initial_stop:
        return None
    sign = 1 if position.is_long else -1
    distance = (entry - stop) * sign
    farthest = MONEY.multiply(entry, policy.widest_stop_pct) / HUNDRED
    wanted = entry - sign * min(MONEY.multiply(distance, _TWO), farthest)
    # Towards the entry, so that no rounding goes beyond the limit.
    rounded = instrument.round_price_up if position.is_long else instrument.round_price_down
    wanted = rounded(wanted)
    away = (stop - wanted) * sign
    return wanted if away > ZERO and (price - stop) * sign > ZERO else None

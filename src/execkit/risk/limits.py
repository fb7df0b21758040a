"""Risk limits with their defaults, checked when they are set."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Self

import attrs

from execkit.errors import ConfigurationError
from execkit.model.instrument import check_symbol
from execkit.numbers import HUNDRED, non_negative, percent, positive

_PERCENTS: Final = (
    "size_pct",
    "max_size_pct",
    "max_position_pct",
    "max_exposure_pct",
    "max_group_pct",
    "max_stop_distance_pct",
    "default_stop_pct",
    "daily_loss_pct",
)
_FLAGS: Final = ("allow_short", "scale_in")


@attrs.frozen(kw_only=True)
class RiskLimits:
    """What the risk handler allows. Fields ending in `_pct` are percentages of equity or price: 2 means 2 %.

    `RiskLimits()` is `RiskLimits.engine()`. A limit itself is still allowed; the daily loss is the exception,
    which trips when it is reached. Raises `ConfigurationError` naming the field for a value that is negative,
    not finite, a float, or a percentage above 100.
    """

    size_pct: Decimal = Decimal(2)
    """Notional of a new entry that states no quantity, of the equity."""
    max_size_pct: Decimal = Decimal(5)
    """Largest notional of one order, of the equity."""
    max_position_pct: Decimal = Decimal(10)
    """Largest notional of one position with everything on its way, of the equity."""
    max_exposure_pct: Decimal = Decimal(50)
    """Largest sum of all positions and live, in-flight and in-doubt entries, of the equity."""
    groups: Mapping[str, tuple[str, ...]] | None = None
    """Symbols that move together, by the group's name; a symbol may be in several. None: there are no groups."""
    max_group_pct: Decimal = Decimal(20)
    """Largest sum over the symbols of one group, of the equity."""
    max_day_trades: int | None = None
    """Day trades of the last five days, in all markets, with which trading still goes on; None: any number. Under FINRA
    rule 4210 as it stood until June 2026 a margin account below 25,000 USD may have three."""
    day_trades_free_above: Decimal = Decimal(25_000)
    """Equity from which *max_day_trades* does not count."""
    max_concurrent_positions: int = 3
    """Symbols with a position or an entry under way."""
    min_risk_reward_ratio: Decimal = Decimal("1.5")
    """Least gain to the target for the loss to the stop, gross; zero turns the rule off."""
    max_stop_distance_pct: Decimal = Decimal(2)
    """Farthest stop-loss, of the entry price: the caller's is denied, one that we computed is clamped."""
    default_stop_pct: Decimal = Decimal(2)
    """Stop-loss of a signal without one, of the entry price."""
    default_target_r: Decimal = Decimal(2)
    """Target of a signal without one, in multiples of the stop distance; never below the least ratio."""
    daily_loss_pct: Decimal = Decimal(3)
    """Loss that sets trading to reducing, of the session's opening equity."""
    daily_loss_amount: Decimal | None = None
    """The same as an amount in the account's currency; takes the place of the percentage."""
    allow_short: bool = False
    """Let a sell without a long position open a short."""
    scale_in: bool = False
    """Let an entry add to a position that is at least 1 R in gain."""
    max_scale_ins: int = 2
    """How often a position may be added to."""
    min_signal_strength: Decimal = Decimal(0)
    """Least strength (0-100); the standard chain passes it to its `ValidationHandler`."""

    def __attrs_post_init__(self) -> None:
        for name in _PERCENTS:
            self._put(name, percent(name, getattr(self, name)))
        self._put(
            "min_risk_reward_ratio",
            non_negative("min_risk_reward_ratio", self.min_risk_reward_ratio),
        )
        self._put("default_target_r", positive("default_target_r", self.default_target_r))
        if self.daily_loss_amount is not None:
            self._put("daily_loss_amount", positive("daily_loss_amount", self.daily_loss_amount))
        strength = non_negative("min_signal_strength", self.min_signal_strength)
        if strength > HUNDRED:
            raise ConfigurationError(f"min_signal_strength: {strength} is outside 0 to 100")
        self._put("min_signal_strength", strength)
        self._put(
            "day_trades_free_above",
            non_negative("day_trades_free_above", self.day_trades_free_above),
        )
        if self.groups is not None:
            object.__setattr__(self, "groups", _groups(self.groups))
        if self.max_day_trades is not None:
            _whole("max_day_trades", self.max_day_trades, at_least=0)
        _whole("max_concurrent_positions", self.max_concurrent_positions, at_least=1)
        _whole("max_scale_ins", self.max_scale_ins, at_least=0)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}: {getattr(self, name)!r} is not True or False")

    def _put(self, name: str, value: Decimal) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def engine(cls, **changes: Any) -> Self:
        """Return the default limits: 3 positions, risk/reward 1.5."""
        return cls(**changes)

    @classmethod
    def strategy(cls, **changes: Any) -> Self:
        """Return the limits for one strategy: strength 70 and above, 5 positions, risk/reward 2."""
        preset: dict[str, Any] = {
            "min_signal_strength": Decimal(70),
            "max_concurrent_positions": 5,
            "min_risk_reward_ratio": Decimal(2),
        }
        return cls(**(preset | changes))


def _groups(value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"groups: {value!r} is no mapping of names to symbols")
    groups: dict[str, tuple[str, ...]] = {}
    for name, members in value.items():
        if isinstance(members, str) or not all(isinstance(each, str) for each in members):
            raise ConfigurationError(
                f"groups: {name!r} has {members!r}; give a list of symbols, e.g. ['BTC/USDT', 'ETH/USDT']"
            )
        groups[str(name)] = _members(f"groups.{name}", tuple(members))
    return groups


def _members(field: str, symbols: tuple[str, ...]) -> tuple[str, ...]:
    if not symbols:
        raise ConfigurationError(f"{field}: it has no symbols; list some, or take the group out")
    for place, symbol in enumerate(symbols):
        check_symbol(field, symbol)
        if symbol in symbols[:place]:
            raise ConfigurationError(f"{field}: {symbol!r} is there twice; is one of them another?")
    return symbols


def _whole(name: str, value: object, *, at_least: int) -> None:
    if type(value) is not int or value < at_least:
        raise ConfigurationError(f"{name}: {value!r} must be a whole number of {at_least} or more")

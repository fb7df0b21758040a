"""Settings that the configuration file and trade plans share: the four handlers, and what is traded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from execkit.bars.live import LiveOptions
from execkit.calendars import DEFAULT_TIMEZONE
from execkit.errors import ConfigurationError
from execkit.guard_settings import CorrectionSettings
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.fields import Count, Duration, NonNegative, Number, Positive, Section
from execkit.model.instrument import Instrument
from execkit.pipeline import ExecutionPipeline
from execkit.protection.policy import PartialExit, ProtectionPolicy
from execkit.risk.limits import RiskLimits
from execkit.risk.sizing import (
    FixedNotional,
    FixedQuantity,
    PercentOfEquity,
    RiskPerTrade,
    Sizing,
    VolatilityTarget,
)
from execkit.risk.stops import AtrStop, FixedStop, LevelStop, StopRule

Percent = Annotated[Number, Field(gt=0, le=100)]


_METHODS: Final[Mapping[str, Callable[[Decimal], Sizing]]] = {
    "percent_of_equity": PercentOfEquity,
    "fixed_notional": FixedNotional,
    "fixed_quantity": FixedQuantity,
    "risk_per_trade": RiskPerTrade,
    "volatility_target": VolatilityTarget,
}


class SizingSettings(Section):
    """How much an entry is; the limits cut it down further."""

    method: Literal[
        "percent_of_equity",
        "fixed_notional",
        "fixed_quantity",
        "risk_per_trade",
        "volatility_target",
    ]
    value: Positive
    """Percent of the equity, quote units, base units, percent of the equity that the stop-loss may cost, or percent
    of the equity that a usual day moves."""

    def build(self) -> Sizing:
        """Return the sizing method."""
        return _METHODS[self.method](self.value)


class StopSettings(Section):
    """Where a stop-loss goes that the signal does not state. What is not stated keeps the rule's default."""

    method: Literal["fixed", "atr", "level"]
    pct: Percent | None = None
    """Distance of a fixed stop."""
    multiple: Positive | None = None
    """Average true ranges of an ATR stop."""
    bars: Count | None = None
    """Bars of an ATR stop's mean, or that a level is looked for in."""
    buffer_pct: NonNegative | None = None
    """How far beyond its level the stop is."""
    timeframe: str | None = None

    _takes: ClassVar = {
        "fixed": {"pct": "pct"},
        "atr": {"multiple": "multiple", "bars": "period", "timeframe": "timeframe"},
        "level": {"bars": "lookback", "buffer_pct": "buffer_pct", "timeframe": "timeframe"},
    }

    @model_validator(mode="after")
    def _check(self) -> Self:
        takes = self._takes[self.method]
        for name in ("pct", "multiple", "bars", "buffer_pct", "timeframe"):
            if getattr(self, name) is not None and name not in takes:
                raise ValueError(
                    f"{name}: the method {self.method!r} has no such option; it takes {', '.join(takes)}"
                )
        try:
            self.build()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self

    def build(self) -> StopRule:
        """Return the rule."""
        given = {
            option: value
            for name, option in self._takes[self.method].items()
            if (value := getattr(self, name)) is not None
        }
        rules: dict[str, Callable[..., StopRule]] = {
            "fixed": FixedStop,
            "atr": AtrStop,
            "level": LevelStop,
        }
        return rules[self.method](**given)


class RiskSettings(Section):
    """A preset of `RiskLimits` and what differs from it; None leaves the preset's value."""

    preset: Literal["engine", "strategy"] = "engine"
    sizing: SizingSettings | None = None
    stop: StopSettings | None = None
    size_pct: Percent | None = None
    max_size_pct: Percent | None = None
    max_position_pct: Percent | None = None
    max_exposure_pct: Percent | None = None
    groups: dict[str, Annotated[tuple[str, ...], Field(strict=False)]] | None = None
    max_group_pct: Percent | None = None
    max_day_trades: Count | None = None
    day_trades_free_above: NonNegative | None = None
    max_concurrent_positions: Count | None = None
    min_risk_reward_ratio: NonNegative | None = None
    max_stop_distance_pct: Percent | None = None
    default_stop_pct: Percent | None = None
    default_target_r: Positive | None = None
    daily_loss_pct: Percent | None = None
    daily_loss_amount: Positive | None = None
    allow_short: bool | None = None
    scale_in: bool | None = None
    max_scale_ins: Count | None = None
    min_signal_strength: NonNegative | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.limits()
            if self.sizing is not None:
                self.sizing.build()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self

    def limits(self) -> RiskLimits:
        """Return the limits."""
        # Of the fields, those that the limits have too; a plan's settings add some of their own.
        stated = {name: getattr(self, name) for name in RiskSettings.model_fields}
        changes = {
            name: value
            for name, value in stated.items()
            if value is not None and name not in ("preset", "sizing", "stop")
        }
        preset = RiskLimits.strategy if self.preset == "strategy" else RiskLimits.engine
        return preset(**changes)


class ValidationSettings(Section):
    """See `ValidationHandler`. The least strength is among the risk limits."""

    min_confluence_score: NonNegative = Decimal("3.0")
    valid_exchanges: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    max_quote_age: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=5)
    price_collar_pct: Percent = Decimal(5)
    max_move_pct: Percent | None = None
    move_window: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(minutes=10))] = timedelta(
        seconds=60
    )


class ExecutorSettings(Section):
    """See `OrderExecutorHandler`."""

    max_retries: Count = 3
    base_delay: Duration = timedelta(seconds=1)
    backoff_factor: Annotated[Number, Field(ge=1)] = Decimal(2)
    max_delay: Duration = timedelta(seconds=30)
    jitter: Annotated[Number, Field(ge=0, lt=1)] = Decimal("0.25")
    doubt_timeout: Duration = timedelta(seconds=10)
    order_timeout: Duration | None = timedelta(seconds=60)


class ReconciliationSettings(Section):
    """See `ReconciliationHandler`."""

    verify_fill: bool = True
    max_price_slippage_pct: NonNegative = Decimal("1.0")
    alert_slippage_pct: NonNegative = Decimal("0.5")
    max_wait_time: Duration = timedelta(seconds=10)
    poll_interval: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(milliseconds=500)


class PartialExitSettings(Section):
    """See `PartialExit`."""

    r: Positive
    share: Annotated[Number, Field(gt=0, le=1)]


class ProtectionSettings(Section):
    """See `ProtectionPolicy`."""

    targets: Annotated[tuple[PartialExitSettings, ...], Field(strict=False)] = ()
    trailing_pct: Percent | None = None
    break_even_after_r: Positive | None = None
    tighten_within_r: Positive | None = None
    widen_on_atr: str | None = None
    widest_stop_pct: Percent = Decimal(2)
    step_pct: NonNegative = Decimal("0.1")
    place_within: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=5)
    attempts: Annotated[Count, Field(ge=1)] = 3
    stop_limit_pct: Percent = Decimal(1)
    alert_slippage_pct: NonNegative = Decimal("0.5")

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.build()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self

    def build(self) -> ProtectionPolicy:
        """Return the policy."""
        targets = tuple(PartialExit(each.r, each.share) for each in self.targets)
        return ProtectionPolicy(**(_values(self) | {"targets": targets}))


class LiveSettings(Section):
    """How the venue's live bars are followed for the plans; see `LiveOptions`."""

    calendar: str | None = None
    timezone: str = DEFAULT_TIMEZONE
    market_hours_only: bool = True
    accuracy: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(milliseconds=500)
    schedule_advance: Duration = timedelta(milliseconds=100)
    grace: Duration = timedelta(milliseconds=100)
    patience: Duration = timedelta(seconds=2)
    backfill: Count = 100
    corrections: dict[str, CorrectionSettings] = Field(default_factory=dict)
    """Days on which an exchange does not keep to its calendar, by the calendar's name."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.build().hours({name: name for name in self.corrections})
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self

    def build(self) -> LiveOptions:
        """Return the options."""
        corrections = {name: each.build() for name, each in self.corrections.items()}
        return LiveOptions(**(_values(self) | {"corrections": corrections}))


class InstrumentSettings(Section):
    """The venue's rules and fees for one symbol. Fees are fractions of the notional: 0.001 is 0.1 %."""

    tick_size: Positive
    lot_size: Positive
    min_quantity: NonNegative = Decimal(0)
    max_quantity: Positive | None = None
    min_notional: NonNegative = Decimal(0)
    maker_fee: Annotated[Number, Field(gt=-1, lt=1)]
    taker_fee: Annotated[Number, Field(gt=-1, lt=1)]
    fee_in_base: bool = False

    def build(self, symbol: str) -> Instrument:
        """Return the instrument; base and quote come from the symbol."""
        return Instrument.default(symbol, **self.model_dump())


def build_pipeline(
    *,
    risk: RiskSettings,
    validation: ValidationSettings | None = None,
    executor: ExecutorSettings | None = None,
    reconciliation: ReconciliationSettings | None = None,
) -> ExecutionPipeline:
    """Return the standard chain with these settings."""
    validation = validation or ValidationSettings()
    limits = risk.limits()
    return ExecutionPipeline(
        [
            ValidationHandler(
                min_signal_strength=limits.min_signal_strength, **_values(validation)
            ),
            RiskManagementHandler(
                limits,
                sizing=None if risk.sizing is None else risk.sizing.build(),
                stop=None if risk.stop is None else risk.stop.build(),
                price_collar_pct=validation.price_collar_pct,
            ),
            OrderExecutorHandler(**_seconds(executor or ExecutorSettings())),
            ReconciliationHandler(**_seconds(reconciliation or ReconciliationSettings())),
        ]
    )


_AS_FLOAT = ("backoff_factor", "jitter")
_AS_TIMEDELTA = ("order_timeout",)


def _values(section: Section) -> dict[str, Any]:
    return {name: getattr(section, name) for name in type(section).model_fields}


def _seconds(section: Section) -> dict[str, Any]:
    """Return the values as those handlers take them: durations as seconds, ratios of durations as floats."""
    values = _values(section)
    for name, value in values.items():
        if isinstance(value, timedelta) and name not in _AS_TIMEDELTA:
            values[name] = value.total_seconds()
        elif name in _AS_FLOAT:
            values[name] = float(value)
    return values

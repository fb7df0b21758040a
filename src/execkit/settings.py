"""Settings that the configuration file and trade plans share: the four handlers, and what is traded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from execkit.errors import ConfigurationError
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.fields import Count, Duration, NonNegative, Number, Positive, Section
from execkit.model.instrument import Instrument
from execkit.pipeline import ExecutionPipeline
from execkit.risk.limits import RiskLimits
from execkit.risk.sizing import FixedNotional, FixedQuantity, PercentOfEquity, RiskPerTrade, Sizing

Percent = Annotated[Number, Field(gt=0, le=100)]


_METHODS: Final[Mapping[str, Callable[[Decimal], Sizing]]] = {
    "percent_of_equity": PercentOfEquity,
    "fixed_notional": FixedNotional,
    "fixed_quantity": FixedQuantity,
    "risk_per_trade": RiskPerTrade,
}


class SizingSettings(Section):
    """How much an entry is; the limits cut it down further."""

    method: Literal["percent_of_equity", "fixed_notional", "fixed_quantity", "risk_per_trade"]
    value: Positive
    """Percent of the equity, quote units, base units, or percent of the equity that the stop-loss may cost."""

    def build(self) -> Sizing:
        """Return the sizing method."""
        return _METHODS[self.method](self.value)


class RiskSettings(Section):
    """A preset of `RiskLimits` and what differs from it; None leaves the preset's value."""

    preset: Literal["engine", "strategy"] = "engine"
    sizing: SizingSettings | None = None
    size_pct: Percent | None = None
    max_size_pct: Percent | None = None
    max_position_pct: Percent | None = None
    max_exposure_pct: Percent | None = None
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
            if value is not None and name not in ("preset", "sizing")
        }
        preset = RiskLimits.strategy if self.preset == "strategy" else RiskLimits.engine
        return preset(**changes)


class ValidationSettings(Section):
    """See `ValidationHandler`. The least strength is among the risk limits."""

    min_confluence_score: NonNegative = Decimal("3.0")
    valid_exchanges: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    max_quote_age: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=5)
    price_collar_pct: Percent = Decimal(5)


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

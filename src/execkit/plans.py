"""Trade plans: which functions open and close positions in one market, with what parameters and risk."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator

from execkit.bars.reader import BarFileSpec, Gaps, Label, VolumeUnit
from execkit.calendars import market_hours
from execkit.config_yaml import YamlFile, load_yaml
from execkit.errors import ConfigurationError, RegistrationError
from execkit.functions.base import ExecutionAction, Part
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.model.fields import (
    Frame,
    Name,
    NonNegative,
    Positive,
    Section,
    SymbolName,
    checked,
    path_text,
)
from execkit.model.fields import Path as KeyPath
from execkit.model.market import Timeframe
from execkit.model.order import Side
from execkit.model.plan import TradePlanStatus
from execkit.numbers import HUNDRED, MONEY, round_down, round_up
from execkit.pipeline import ExecutionPipeline
from execkit.settings import InstrumentSettings, Percent, RiskSettings, build_pipeline

__all__ = ["PlanBars", "PlanRisk", "Rule", "TradePlan", "TradePlanStatus", "load_plans"]

_EIGHT_PLACES: Final = Decimal("1e-8")


class Rule(Section):
    """A function, the timeframe at whose closes it is asked, and its parameters."""

    function: Name
    timeframe: Frame
    parameters: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, timeframe: str | Timeframe, part: Part) -> Rule:
        """Return the rule that asks *part* at the closes of *timeframe*.

        >>> Rule.of("5m", Part(function="breakout", parameters={"bars": 20})).timeframe
        <Timeframe.M5: '5m'>
        """
        return cls(
            function=part.function,
            timeframe=Timeframe.parse(timeframe),
            parameters=part.parameters,
        )


class PlanBars(Section):
    """What the bar files for this plan are; see `BarFileSpec`."""

    symbol: SymbolName | None = None
    """What the file holds; None: the plan's symbol."""
    label: Label
    timezone: str | None = None
    timeframe: Frame = Timeframe.M1
    gaps: Gaps = "refuse"
    volume_unit: VolumeUnit = "base"
    columns: dict[str, str] = Field(default_factory=dict)


class PlanAccount(Section):
    """What a replay starts with."""

    balances: dict[str, NonNegative]
    currency: str | None = None
    """Asset in which limits are counted; None: the engine chooses."""
    spread_bps: NonNegative = Decimal(0)
    """Bid-ask spread that fills on bars assume."""


class PlanRisk(RiskSettings):
    """Risk of the plan's own chain, and the levels that its signals carry into any chain."""

    stop_loss_pct: Percent | None = None
    """Distance of the stop-loss from the close that gave the signal; None leaves it to the chain."""
    take_profit_r: Positive | None = None
    """Distance of the target in multiples of that; needs *stop_loss_pct*."""

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if self.take_profit_r is not None and self.stop_loss_pct is None:
            raise ValueError("take_profit_r: is a multiple of stop_loss_pct; state that too")
        return self


class TradePlan(Section):
    """One market, the functions that enter and leave it, and the rules of the trade.

    While flat the *entry* rules are asked in order at the closes of their timeframes, and the first that wants in
    wins; while a position of the plan is open the *exit* rules are asked. *repeat* False ends it after one trade. What
    a replay needs beyond that is *bars*, *instrument* and *account*. Raises `ConfigurationError` naming the key.
    """

    name: Name
    symbol: SymbolName
    exchange: Name | None = None
    calendar: str | None = None
    """Exchange whose sessions the market has, e.g. `XNYS`, or `24/7`; None: what the venue is, and 24/7 in a replay."""
    entry: Annotated[tuple[Rule, ...], Field(strict=False, min_length=1)]
    exit: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    risk: PlanRisk = PlanRisk()
    repeat: bool = True
    status: Annotated[TradePlanStatus, Field(strict=False)] = TradePlanStatus.AWAITING_ENTRY
    bars: PlanBars | None = None
    instrument: InstrumentSettings | None = None
    account: PlanAccount | None = None

    @classmethod
    def load(
        cls, path: str | Path, *, functions: ExecutionFunctionRegistry | None = None
    ) -> TradePlan:
        """Read the one plan of a YAML file; errors name file, line, key and the fix.

        With *functions* the functions' names and parameters are checked too, while their lines are known.
        """
        plans = load_plans(path, functions=functions)
        if len(plans) > 1:
            names = ", ".join(plan.name for plan in plans)
            raise ConfigurationError(f"{path}: holds {len(plans)} plans ({names}); one is wanted")
        return plans[0]

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            market_hours(self.calendar)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        if self.bars is not None:
            if self.bars.symbol not in (None, self.symbol):
                raise ValueError(
                    f"bars.symbol: {self.bars.symbol} is not what the plan trades, {self.symbol}"
                )
            try:
                self.bar_file()
            except ConfigurationError as error:
                raise ValueError(f"bars.{error}") from None
            for part, rules in (("entry", self.entry), ("exit", self.exit)):
                for place, rule in enumerate(rules):
                    if rule.timeframe.seconds % self.bars.timeframe.seconds:
                        raise ValueError(
                            f"{part}[{place}].timeframe: {rule.timeframe} cannot be built from "
                            f"{self.bars.timeframe} bars"
                        )
        return self

    def bar_file(self) -> BarFileSpec:
        """Return how the plan's bar files are to be read."""
        bars = self._needed("bars", self.bars)
        return BarFileSpec(
            symbol=self.symbol,
            label=bars.label,
            timezone=bars.timezone,
            timeframe=bars.timeframe,
            gaps=bars.gaps,
            volume_unit=bars.volume_unit,
            columns=bars.columns,
        )

    def check_replay(self) -> None:
        """Raise `ConfigurationError` naming the first section that a replay needs and the plan lacks."""
        for name in ("bars", "instrument", "account"):
            self._needed(name, getattr(self, name))

    def _needed(self, name: str, section: Any) -> Any:
        if section is None:
            raise ConfigurationError(
                f"plan {self.name}: {name}: is missing; a replay needs it, see examples/plans/breakout.yaml"
            )
        return section

    def pipeline(self) -> ExecutionPipeline:
        """Return the standard chain under the plan's own risk."""
        return build_pipeline(risk=self.risk)

    def stated_risk(self) -> dict[str, Any]:
        """Return what the plan says of the chain's risk; the levels of its own signals are not part of that."""
        stated = self.risk.model_fields_set & RiskSettings.model_fields.keys()
        return {name: getattr(self.risk, name) for name in sorted(stated)}

    def levels(
        self, action: ExecutionAction, price: Decimal
    ) -> tuple[Decimal | None, Decimal | None]:
        """Return stop-loss and target of an entry at *price*, on the instrument's ticks; None: not stated.

        The stop is rounded towards the price and the target away from it, so neither risk nor ratio gets worse.
        """
        percent, multiple = self.risk.stop_loss_pct, self.risk.take_profit_r
        if percent is None or not action.is_entry:
            return None, None
        distance = MONEY.divide(MONEY.multiply(price, percent), HUNDRED)
        side = Side.BUY if action is ExecutionAction.ENTER_LONG else Side.SELL
        tick = _EIGHT_PLACES if self.instrument is None else self.instrument.tick_size
        outward = round_up if side is Side.BUY else round_down
        stop = outward(price - side.sign * distance, tick)
        if multiple is None:
            return stop, None
        return stop, outward(price + side.sign * distance * multiple, tick)


def chain_of(plans: Iterable[TradePlan]) -> ExecutionPipeline | None:
    """Return the standard chain under the risk that all *plans* state; None without plans.

    Raises `ConfigurationError` when they state different risk, because one engine has one chain.
    """
    plans = tuple(plans)
    for other in plans[1:]:
        if other.stated_risk() != plans[0].stated_risk():
            raise ConfigurationError(
                f"plans: {other.name!r} and {plans[0].name!r} state different risk, and one engine has one chain; "
                "give both the same `risk:`, run them apart, or pass a pipeline of your own"
            )
    return plans[0].pipeline() if plans else None


def calendars_of(plans: Iterable[TradePlan]) -> dict[str, str]:
    """Return the calendars that *plans* state, by symbol.

    Raises `ConfigurationError` when two plans say different things of one market, because it has its bars once.
    """
    found: dict[str, str] = {}
    for plan in plans:
        if (
            plan.calendar is not None
            and found.setdefault(plan.symbol, plan.calendar) != plan.calendar
        ):
            raise ConfigurationError(
                f"plans: {plan.name!r} has calendar {plan.calendar} for {plan.symbol}, another plan has "
                f"{found[plan.symbol]}; give both the same"
            )
    return found


def load_plans(
    path: str | Path, *, functions: ExecutionFunctionRegistry | None = None
) -> tuple[TradePlan, ...]:
    """Read the plans of a YAML file: one plan, or a list of them under the key `plans`.

    With *functions* the functions' names and parameters are checked too. Raises `ConfigurationError` with a line for
    each wrong value of all of them: file, line, key and the fix.
    """
    file = load_yaml(path)
    several = file.values.get("plans")
    if several is None:
        return (_read_plan(file, (), file.values, functions),)
    for key in file.values:
        if key != "plans":
            raise ConfigurationError(
                f"{file.where((key,))}{key}: stands beside `plans`; it belongs into each plan of the list"
            )
    if not isinstance(several, list) or not several:
        raise ConfigurationError(f"{file.where(('plans',))}plans: must be a list of plans")
    plans: list[TradePlan] = []
    problems = []
    for place, values in enumerate(several):
        try:
            plan = _read_plan(file, ("plans", place), values, functions)
            if any(plan.name == other.name for other in plans):
                where = file.where(("plans", place, "name"))
                raise ConfigurationError(  # noqa: TRY301 - one line among the others
                    f"{where}plans[{place}].name: two plans are named {plan.name!r}; rename one"
                )
            plans.append(plan)
        except ConfigurationError as error:
            problems.append(str(error))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return tuple(plans)


def _read_plan(
    file: YamlFile, at: KeyPath, values: Any, functions: ExecutionFunctionRegistry | None
) -> TradePlan:
    inside = f"{path_text(at)}." if at else ""
    plan = checked(TradePlan, values, where=lambda path: f"{file.where(at + path)}{inside}")
    problems = []
    for part, rules in (("entry", plan.entry), ("exit", plan.exit)):
        for place, rule in enumerate(rules):
            try:
                if functions is not None:
                    _check_rule(file, (*at, part, place), rule, functions)
            except ConfigurationError as error:
                problems.append(str(error))
    if problems:
        raise ConfigurationError("\n".join(problems))
    return plan


def _check_rule(
    file: YamlFile, path: KeyPath, rule: Rule, functions: ExecutionFunctionRegistry
) -> None:
    where = (*path, "parameters")
    try:
        functions.check(
            rule.function,
            rule.parameters,
            timeframe=rule.timeframe,
            where=lambda inner: f"{file.where(where + inner)}{path_text(where)}.",
        )
    except RegistrationError as error:
        raise ConfigurationError(f"{file.where(path)}{path_text(path)}: {error}") from None

"""A trade plan at work: its functions made, its position known, its status kept by the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

from execkit.bars.evaluation import FunctionUse
from execkit.errors import ExecKitError
from execkit.functions.base import ExecutionAction, signal_prefix
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.model.market import Timeframe
from execkit.model.plan import TradePlanStatus
from execkit.model.position import Position
from execkit.model.records import PlanChanged, Record
from execkit.orders.book import Book


class PlanRule(Protocol):
    """One rule of a plan."""

    @property
    def function(self) -> str:
        """Name of the function."""
        ...

    @property
    def timeframe(self) -> Timeframe:
        """At whose closes it is asked."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the function is made with."""
        ...


class Plan(Protocol):
    """What a runner needs of a plan; `execkit.TradePlan` is one."""

    @property
    def name(self) -> str:
        """Unique name."""
        ...

    @property
    def symbol(self) -> str:
        """What it trades."""
        ...

    @property
    def exchange(self) -> str | None:
        """Where; None is the engine's exchange."""
        ...

    @property
    def entry(self) -> Sequence[PlanRule]:
        """Asked in this order while flat; the first that wants in wins."""
        ...

    @property
    def exit(self) -> Sequence[PlanRule]:
        """Asked in this order while a position of the plan is open; the first that wants out wins."""
        ...

    @property
    def repeat(self) -> bool:
        """Whether it goes on after its first trade."""
        ...

    @property
    def status(self) -> TradePlanStatus:
        """Where it starts."""
        ...

    def levels(
        self, action: ExecutionAction, price: Decimal
    ) -> tuple[Decimal | None, Decimal | None]:
        """Return stop-loss and target of an entry at *price*, None where the plan states none."""
        ...


class PlanRun:
    """A plan in an engine. Raises `ExecKitError` naming plan and rule when a function cannot be made."""

    def __init__(
        self,
        plan: Plan,
        registry: ExecutionFunctionRegistry,
        book: Book,
        record: Callable[[Record], object],
    ) -> None:
        self.plan = plan
        self.entries = _make(plan, "entry", plan.entry, registry)
        self.exits = _make(plan, "exit", plan.exit, registry)
        self._prefix = signal_prefix(plan.name)
        self._book = book
        self._record = record

    @property
    def uses(self) -> list[FunctionUse]:
        """All its functions."""
        return self.entries + self.exits

    def owns(self, position: Position | None) -> bool:
        """Tell whether a signal of this plan opened the position."""
        return position is not None and position.signal_id.startswith(self._prefix)

    def asked(self, position: Position | None) -> list[FunctionUse]:
        """Return whom to ask as things stand: entries when flat, exits of a position of its own."""
        status = self._refresh(position)
        if self.owns(position) and status is not TradePlanStatus.CANCELLED:
            return self.exits
        if position is None and status is TradePlanStatus.AWAITING_ENTRY:
            return self.entries
        return []

    @property
    def status(self) -> TradePlanStatus:
        """Where it stands. What its file says counts until the journal knows better."""
        known = self._book.plans.get(self.plan.name)
        if known is None or self.plan.status is TradePlanStatus.CANCELLED:
            return self.plan.status
        return TradePlanStatus(known.status)

    def set_status(
        self, status: TradePlanStatus, reason: str, *, signal_id: str | None = None
    ) -> None:
        """Put it into a status and journal that."""
        if status is TradePlanStatus.AWAITING_ENTRY and not self.plan.repeat:
            signal_id = self._last_trade()  # it waits for another one
        self._record(
            PlanChanged(
                plan=self.plan.name, status=status.value, reason=reason, signal_id=signal_id
            )
        )

    def _last_trade(self) -> str | None:
        """Return the signal of its last position that is closed."""
        closed = reversed(self._book.positions.closed)
        return next((each.signal_id for each in closed if self.owns(each)), None)

    def _has_traded(self) -> bool:
        """Tell whether a position of its own was closed since it began to wait for an entry."""
        last = self._last_trade()
        known = self._book.plans.get(self.plan.name)
        return last is not None and (known is None or known.signal_id != last)

    def _refresh(self, position: Position | None) -> TradePlanStatus:
        """Bring the status up to what the positions say."""
        status = self.status
        owned = position is not None and self.owns(position)
        if status is TradePlanStatus.AWAITING_ENTRY:
            if position is not None and owned:
                status = TradePlanStatus.POSITION_OPEN
                self.set_status(status, "entered", signal_id=position.signal_id)
            elif not self.plan.repeat and self._has_traded():
                # Opened and closed between two bars, so it was never seen open.
                status = TradePlanStatus.COMPLETED
                self.set_status(status, "the position is closed")
        elif status is TradePlanStatus.POSITION_OPEN and not owned:
            status = (
                TradePlanStatus.AWAITING_ENTRY if self.plan.repeat else TradePlanStatus.COMPLETED
            )
            self.set_status(status, "the position is closed")
        return status


def _make(
    plan: Plan, part: str, rules: Sequence[PlanRule], registry: ExecutionFunctionRegistry
) -> list[FunctionUse]:
    uses = []
    for place, rule in enumerate(rules):
        try:
            function = registry.create(rule.function, rule.parameters, timeframe=rule.timeframe)
        except ExecKitError as error:
            raise type(error)(f"plan {plan.name}: {part}[{place}]: {error}") from None
        names = registry.names_in(rule.function, function.params)
        uses.append(FunctionUse(plan.name, rule.function, rule.timeframe, function, names=names))
    return uses

"""What a conformance case is: a numbered rule, what it needs to be tried, and how it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import attrs
import msgspec

from execkit.model.capabilities import Capabilities
from execkit.model.order import OrderType, TimeInForce
from execkit.testing.bench import Bench
from execkit.testing.control import VenueControl

CaseBody = Callable[[Bench], Awaitable[None]]


@attrs.frozen
class Case:
    """One numbered rule, and what it takes to try it."""

    body: CaseBody
    needs: tuple[str, ...]
    """Capabilities that must be true."""
    types: tuple[OrderType, ...]
    times: tuple[TimeInForce, ...]
    control: tuple[str, ...]
    """Parts of the control that it uses."""

    @property
    def name(self) -> str:
        """Number and name, e.g. `ac010_instrument_rules`."""
        return self.body.__name__

    @property
    def rule(self) -> str:
        """The rule in a sentence."""
        return (self.body.__doc__ or "").strip()

    def obstacle(self, capabilities: Capabilities, control: VenueControl) -> str | None:
        """Return why the case cannot be run, or None."""
        for name in self.needs:
            if not getattr(capabilities, name):
                return f"the capability {name} is off"
        for kind in self.types:
            if kind not in capabilities.order_types:
                return f"the venue has no {kind} orders"
        for time in self.times:
            if time not in capabilities.times_in_force:
                return f"the venue has no time in force {time}"
        for part in self.control:
            if not control.can(part):
                return f"the control cannot do {part}"
        return None


CASES: Final[list[Case]] = []
"""All cases; the modules of cases add theirs when they are imported."""


def case(
    *,
    needs: Iterable[str] = (),
    types: Iterable[OrderType] = (),
    times: Iterable[TimeInForce] = (),
    control: Iterable[str] = (),
) -> Callable[[CaseBody], CaseBody]:
    """Make an async function `(bench)` a conformance case; its docstring is the rule."""

    def add(body: CaseBody) -> CaseBody:
        CASES.append(Case(body, tuple(needs), tuple(types), tuple(times), tuple(control)))
        return body

    return add


def faults_in(value: object, path: str = "") -> list[str]:
    """List what no value from an adapter may hold: floats, infinite decimals, times without a zone."""
    if isinstance(value, float):
        return [f"{path} is the float {value!r}"]
    if isinstance(value, Decimal):
        return [] if value.is_finite() else [f"{path} is {value}"]
    if isinstance(value, datetime):
        aware = value.utcoffset() == timedelta(0)
        return [] if aware else [f"{path} is {value.isoformat()}, not UTC"]
    if isinstance(value, msgspec.Struct):
        fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
        name = type(value).__name__
        return [text for key, each in fields for text in faults_in(each, f"{path or name}.{key}")]
    kind = type(value)
    if attrs.has(kind):
        values = {each.name: getattr(value, each.name) for each in attrs.fields(kind)}
        return faults_in(values, kind.__name__)
    if isinstance(value, dict):
        return [t for key, each in value.items() for t in faults_in(each, f"{path}[{key!r}]")]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [t for at, each in enumerate(value) for t in faults_in(each, f"{path}[{at}]")]
    return []

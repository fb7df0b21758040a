"""What one simulated run showed."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class SimulationReport:
    """What a run showed. *violation* is empty when every invariant held."""

    seed: int
    steps: int
    rules: str
    violation: str = ""
    invariant: str = ""
    failed_at: int | None = None
    trace_hash: str = ""
    figures: dict[str, int] = attrs.field(factory=dict)
    faults: dict[str, int] = attrs.field(factory=dict)
    edges: dict[tuple[str, str], int] = attrs.field(factory=dict, repr=False)
    branches: dict[str, int] = attrs.field(factory=dict, repr=False)
    enabled: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    skip: tuple[int, ...] = ()
    build: str = ""
    """`module:function` of the options, when they are not the default; `?` when they have no such name."""
    scenario: str = ""
    """Name of the venue's rules, when the seed has not chosen them; `?` when they have none."""
    story: tuple[str, ...] = attrs.field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Tell whether nothing was found."""
        return not self.violation

    def __str__(self) -> str:
        verdict = "every invariant held" if self.ok else f"VIOLATED {self.violation}"
        where = "" if self.failed_at is None else f" at step {self.failed_at}"
        return f"seed {self.seed} ({self.rules}, {self.steps} steps): {verdict}{where}"

"""Many simulated runs: their figures, what they reached, and the shortest story of a failure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import attrs
import msgspec

from execkit.model.order import OrderEvent as E
from execkit.model.order import OrderState as S
from execkit.orders.states import TRANSITIONS
from execkit.testing.simulation.chaos import Kind
from execkit.testing.simulation.report import SimulationReport

Run = Callable[..., SimulationReport]

UNREACHABLE: Final[dict[S, frozenset[E]]] = {
    # What repeats news is no news, and no record is made of it.
    S.IN_DOUBT: frozenset({E.LOSE, E.REFUSE_CANCEL}),
    S.PRESUMED_ABSENT: frozenset({E.ABSENT}),
    S.HELD: frozenset({E.HOLD}),
    S.PENDING_CANCEL: frozenset({E.ACCEPT, E.HOLD, E.LOSE}),
    S.PENDING_AMEND: frozenset({E.ACCEPT}),
    # A refusal is recorded of a cancel under way only; once the answer of the stream came first, there is none.
    S.ACCEPTED: frozenset({E.ACCEPT, E.REFUSE_CANCEL}),
    S.PARTIALLY_FILLED: frozenset({E.ACCEPT, E.REFUSE_CANCEL}),
    # Of a closed order only executions are recorded.
    S.FILLED: frozenset({E.ACCEPT, E.REFUSE_CANCEL}),
    S.CANCELLED: frozenset({E.CANCEL, E.EXPIRE, E.REFUSE_CANCEL}),
    S.REJECTED: frozenset({E.REJECT}),
    S.EXPIRED: frozenset({E.EXPIRE, E.CANCEL, E.REFUSE_CANCEL}),
    S.FAILED: frozenset({E.FAIL}),
}
"""Edges that the table allows for journals and venues of other kinds, and that nothing here records."""

RARE: Final[dict[S, frozenset[E]]] = {
    # The venue ends an order between our intent, or its send, and the first news of it.
    S.NEW: frozenset({E.FILL_PART, E.CANCEL, E.EXPIRE, E.HOLD, E.REJECT}),
    S.SUBMITTED: frozenset({E.CANCEL}),
    # A venue that hides an order for half an hour, and ends it within that time.
    S.PRESUMED_ABSENT: frozenset({E.CANCEL, E.EXPIRE, E.HOLD, E.REJECT}),
    S.HELD: frozenset({E.REJECT}),
    # Two faults within the tenth of a second in which a change is answered.
    S.ACCEPTED: frozenset({E.REFUSE_AMEND}),
    S.PARTIALLY_FILLED: frozenset({E.REJECT, E.AMEND}),
    S.PENDING_CANCEL: frozenset({E.AMEND, E.REFUSE_AMEND, E.ABSENT}),
    S.PENDING_AMEND: frozenset({E.ASK_CANCEL, E.CANCEL, E.EXPIRE, E.FILL_PART, E.REJECT}),
    # An execution of an order that has ended otherwise.
    S.EXPIRED: frozenset({E.FILL, E.FILL_PART}),
    S.FAILED: frozenset({E.FILL_PART}),
}
"""Edges that need two rare things at once: a long campaign takes them now and then, the tests of the table always."""

BRANCHES = frozenset(
    {
        "recovery:lose",
        "reconcile:accept",
        "lookup:accept",
        "lookup:absent",
        "lookup:cancel",
        "fill:ack",
        "fill:stream",
        "fill:lookup",
        "fill:reconcile",
        "record:BalancesSeen",
        "record:ExternalChange",
        "record:SignalQueued",
        "record:SymbolBlocked",
        "record:TradingStateChanged",
        "alarm:ANSWER_NOT_OURS",
        "alarm:FILLS_MISSING",
        "alarm:IN_DOUBT",
        "alarm:LATE_FILL",
        "alarm:LATE_SIGHT",
        "alarm:MISMATCH",
        "alarm:OVERFILL",
        "alarm:UNPROTECTED",
        # what features bring, by what their judges have seen
        "breaker:denied",
        "breaker:reduction",
        "breaker:trial",
        "confirmation:no",
        "confirmation:reduction",
        "confirmation:yes",
        "day trades:last",
        "day trades:looks",
        "dust:left",
        "dust:taken",
        "group:looks",
        "group:nearly full",
        "hand:cancel-all",
        "hand:cancelled",
        "hand:flatten",
        "hand:flattened",
        "hand:not flattened",
        "killfile:appeared",
        "killfile:reduction left",
        "loss:looks",
        "loss:second session",
        "market_hours:queued",
        "market_hours:reduction",
        "no stops:entry",
        "no stops:reduction",
        "rate_limit:reduction",
        "rate_limit:waited",
        "restart:halted",
        "restart:reducing",
        "scale:added",
        "slices:iceberg",
        "slices:parents",
        "slices:sent",
        "slices:sent after a restart",
        "slices:worked to the end",
        "state:daily loss",
        "state:file",
        "state:halted",
        "state:reducing",
        "state:released",
        "throttle:full",
    }
)
"""Branches of recovery, by the records that they leave, and positions that ended with dust and began with it, and
what the features of the seeds have brought about."""


MOST: Final = frozenset({"naked_longest_ms"})
"""Figures of which the largest of all runs counts, not their sum."""


class Reached(msgspec.Struct):
    """What some runs have reached, and how often."""

    seeds: int
    faults: dict[str, int]
    edges: list[tuple[str, str, int]]
    branches: dict[str, int]


@attrs.define
class Campaign:
    """What many runs added up to."""

    seeds: int = 0
    figures: Counter[str] = attrs.field(factory=Counter)
    faults: Counter[str] = attrs.field(factory=Counter)
    edges: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    branches: Counter[str] = attrs.field(factory=Counter)
    sustained: int = 0
    failures: list[SimulationReport] = attrs.field(factory=list)

    def add(self, report: SimulationReport) -> None:
        """Take in one run."""
        self.seeds += 1
        for name, figure in report.figures.items():
            is_most = name in MOST
            self.figures[name] = (
                max(self.figures[name], figure) if is_most else self.figures[name] + figure
            )
        self.faults.update(report.faults)
        self.edges.update(report.edges)
        self.branches.update(report.branches)
        self.sustained += any(kind in report.faults for kind in ("blackout", "ban", "frozen"))
        if not report.ok:
            self.failures.append(report)

    @property
    def missing_kinds(self) -> list[str]:
        """Kinds of fault that never struck."""
        return [kind.value for kind in Kind if not self.faults[kind.value]]

    @property
    def missing_edges(self) -> list[str]:
        """Edges of the state table that were never taken."""
        return [
            f"{state.value} --{event.value}-->"
            for state, row in TRANSITIONS.items()
            for event in row
            if not self.edges[state.value, event.value]
            and event not in RARE.get(state, ())
            and event not in UNREACHABLE.get(state, ())
        ]

    @property
    def missing_branches(self) -> list[str]:
        """Branches of recovery that were never taken."""
        return sorted(each for each in BRANCHES if not self.branches[each])

    @property
    def missing(self) -> list[str]:
        """Everything that the runs should have reached and did not."""
        return self.missing_kinds + self.missing_edges + self.missing_branches

    def export(self) -> bytes:
        """Return what was reached as JSON, so that parts of a campaign can be added up; see `reached`."""
        edges = [(state, event, count) for (state, event), count in self.edges.items()]
        return msgspec.json.encode(Reached(self.seeds, self.faults, edges, self.branches))

    @classmethod
    def reached(cls, parts: Iterable[bytes]) -> Campaign:
        """Return a campaign that has reached what all *parts*, from `export`, have reached together."""
        whole = cls()
        for part in parts:
            found = msgspec.json.decode(part, type=Reached)
            whole.seeds += found.seeds
            whole.faults.update(found.faults)
            whole.branches.update(found.branches)
            whole.edges.update({(state, event): count for state, event, count in found.edges})
        return whole

    def lines(self) -> list[str]:
        """Return the figures, ready to print."""
        edges = sum(len(row) for row in TRANSITIONS.values())
        taken = sum(
            bool(self.edges[s.value, e.value]) for s, row in TRANSITIONS.items() for e in row
        )
        rows = [f"seeds {self.seeds}, with a sustained fault {self.sustained}"]
        rows += [f"{name} {count}" for name, count in self.figures.items()]
        rows += ["faults " + ", ".join(f"{k} {n}" for k, n in sorted(self.faults.items()))]
        rows += [f"edges taken {taken} of {edges}"]
        rows += ["branches " + ", ".join(f"{k} {n}" for k, n in sorted(self.branches.items()))]
        for name, missing in (
            ("kinds", self.missing_kinds),
            ("edges", self.missing_edges),
            ("branches", self.missing_branches),
        ):
            if missing:
                rows.append(f"{name} not reached: {', '.join(missing)}")
        rows += [f"FAILED {report}" for report in self.failures]
        return rows


def run_many(run: Run, seeds: Iterable[int], *, steps: int, jobs: int | None = None) -> Campaign:
    """Run seeds, in as many processes as there are processors, and add them up."""
    campaign = Campaign()
    todo = list(seeds)
    workers = min(jobs or os.cpu_count() or 1, len(todo) or 1)
    if workers == 1:
        for seed in todo:
            campaign.add(run(seed, steps=steps))
        return campaign
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        for report in pool.map(run, todo, [steps] * len(todo), chunksize=8):
            campaign.add(report)
    return campaign


def shrink(run: Run, failed: SimulationReport, *, tries: int = 60) -> SimulationReport:
    """Return a shorter run that breaks the same invariant: fewer steps, kinds of fault and deeds."""
    best = failed
    left = tries

    def attempt(steps: int, without: tuple[str, ...], skip: tuple[int, ...]) -> bool:
        nonlocal best, left
        left -= 1
        report = run(failed.seed, steps=steps, without=without, skip=skip)
        if report.invariant == failed.invariant:
            best = report
            return True
        return False

    if failed.failed_at is not None and failed.failed_at + 1 < failed.steps:
        attempt(failed.failed_at + 1, (), ())
    for kind in best.enabled:
        if left > 0:
            attempt(best.steps, (*best.without, kind), best.skip)
    size = best.steps // 2
    while size and left > 0:
        for start in range(0, best.steps - 1, size):
            chunk = tuple(range(start, min(start + size, best.steps - 1)))
            if left > 0 and not set(chunk) <= set(best.skip):
                attempt(best.steps, best.without, tuple(sorted({*best.skip, *chunk})))
        size //= 2
    return best

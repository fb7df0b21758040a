"""Simulates a pipeline, or a whole engine, against a venue where everything goes wrong, from one seed.

    report = simulate(7, build=lambda: {"pipeline": my_pipeline()})
    assert report.ok, report

Random signals, prices, faults, crashes with restarts from the journal; the invariants are checked after every step,
then all faults stop, and within 120 seconds books and venue must agree and every position must be protected. A run
is repeated exactly by its seed.
"""

from __future__ import annotations

import contextlib
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import structlog

from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.pipeline import ExecutionPipeline, HandlerFunction
from execkit.risk.limits import RiskLimits
from execkit.testing.simulation.actions import Actions
from execkit.testing.simulation.campaign import Run, run_many, shrink
from execkit.testing.simulation.features import features_of
from execkit.testing.simulation.healing import converge
from execkit.testing.simulation.process import Build
from execkit.testing.simulation.protected import muted
from execkit.testing.simulation.report import SimulationReport
from execkit.testing.simulation.rules import RULES, Rules, policy_of
from execkit.testing.simulation.watch import Violated
from execkit.testing.simulation.world import World
from execkit.virtual_time import VirtualClock, run_virtual

_TOLD: Final = 40
"""Last lines of the shortest failing run that are printed."""


def standard() -> dict[str, Any]:
    """Return no options: the standard pipeline."""
    return {}


def bold() -> dict[str, Any]:
    """Return options of a chain that goes long and short, adds to positions and retries at once."""
    limits = RiskLimits(
        allow_short=True,
        scale_in=True,
        size_pct=Decimal(4),
        max_exposure_pct=Decimal(15),
        daily_loss_pct=Decimal(50),
        min_risk_reward_ratio=Decimal(0),
    )
    chain: list[HandlerFunction] = [
        ValidationHandler(min_confluence_score=0),
        RiskManagementHandler(limits),
        OrderExecutorHandler(base_delay=0.2, order_timeout=timedelta(seconds=20)),
        ReconciliationHandler(),
    ]
    return {"pipeline": ExecutionPipeline(chain)}


def _chosen(seed: int) -> dict[str, Any]:
    """Return the options that a seed chooses: its chain, and how positions are taken out."""
    return (bold if seed % 2 else standard)() | {"protection": policy_of(seed)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the log silent: a run provokes thousands of warnings."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)


def simulate(
    seed: int,
    *,
    steps: int = 400,
    build: Build | None = None,
    scenario: Rules | None = None,
    without: tuple[str, ...] = (),
    skip: tuple[int, ...] = (),
    keep_story: bool = False,
) -> SimulationReport:
    """Run one seed and report.

    *build* returns options of `ExecutionEngine` and is called for each life of the process; by default the seed
    chooses between the standard chain and a bolder one, and how positions are taken out. *scenario* fixes the
    venue's rules, which the seed chooses otherwise. *without* turns kinds of fault off, *skip* leaves out steps.
    """
    chosen = build or (lambda: _chosen(seed))
    features = frozenset() if build else features_of(seed, without=without)
    found: list[World] = []
    actions: list[Actions] = []
    at: list[int] = []

    async def main(clock: VirtualClock) -> None:
        world = World(
            seed,
            clock,
            chosen,
            steps=steps,
            rules=scenario,
            without=without,
            keep_story=keep_story,
            features=features,
        )
        found.append(world)
        acting = Actions(world)
        actions.append(acting)
        left_out = set(skip)
        for number in range(steps):
            if number not in left_out:
                at[:] = [number]
                await acting.step(number)
                world.check()
        await converge(world, acting)

    violation = invariant = ""
    with quiet():
        try:
            run_virtual(main)
        except Violated as error:
            violation, invariant = str(error), error.invariant
        except Exception as error:  # noqa: BLE001 - whatever it is, it has a seed
            violation, invariant = _told(error), f"RAISED {type(error).__name__}"
    if not actions:
        return SimulationReport(
            seed=seed,
            steps=steps,
            rules="none yet",
            violation=violation,
            invariant=invariant,
            build=_build_name(build),
            scenario=_scenario_name(scenario),
        )
    world = found[0]
    return SimulationReport(
        seed=seed,
        steps=steps,
        rules=world.rules.name,
        violation=violation,
        invariant=invariant,
        failed_at=at[0] if at and violation else None,
        trace_hash=world.trace_hash,
        figures={
            "steps": steps - len(skip),
            "sends": sum(1 for entry in world.venue.ledger if entry.kind == "place"),
            "requests": len(world.venue.ledger),
            "fills": len(world.venue.fills),
            "lists": world.venue.lists,
            "list_fills": world.watch.sources["list:executed"],
            "list_fills_in_part": world.watch.sources["list:partly"],
            "stops_moved": world.watch.sources["record:StopMoved"],
            "left_behind": world.watch.left_behind,
            "flattened": world.watch.sources["alarm:UNPROTECTED"],
            "records": len(world.store.written),
            "crashes": world.crashes,
            "lives": world.lives,
            "signals": len(actions[0].signals),
            "told": len(actions[0].told),
            "denied": actions[0].denied,
            "protection_looks": world.watch.protection.looked,
            "protection_judged": world.watch.protection.judged,
            "protection_strict": world.watch.protection.strict,
            "protection_told": world.watch.protection.told,
            "naked_clock_looks": world.watch.naked.looks,
            "naked_clock_judged": world.watch.naked.judged,
            "naked_looks": world.watch.naked.naked,
            "naked_longest_ms": round(world.watch.naked.longest * 1000),
            **{f"naked_excused_{k}": n for k, n in world.watch.naked.excused.items()},
            "exposure_looks": world.watch.exposure_looks,
            "exposure_judged": world.watch.exposure_judged,
        },
        faults=dict(world.chaos.counts),
        edges=dict(world.watch.edges),
        branches=dict(world.watch.sources),
        enabled=(*sorted(features), *world.chaos.enabled),
        without=without,
        skip=skip,
        build=_build_name(build),
        scenario=_scenario_name(scenario),
        story=tuple(world.story),
    )


def _told(error: Exception) -> str:
    """Return what was raised and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"RAISED {type(error).__name__}: {error}{where}"


def _build_name(build: Build | None) -> str:
    if build is None:
        return ""
    module, name = getattr(build, "__module__", "__main__"), getattr(build, "__qualname__", "")
    return f"{module}:{name}" if name.isidentifier() and module != "__main__" else "?"


def _scenario_name(scenario: Rules | None) -> str:
    if scenario is None:
        return ""
    return next((rules.name for rules in RULES if rules == scenario), "?")


def replay_command(report: SimulationReport) -> str:
    """Return the command that repeats a run and tells its story; the call, when what it ran has no importable name."""
    if "?" in (report.build, report.scenario):
        own = [("build", report.build), ("scenario", report.scenario)]
        given = "".join(f", {name}=..." for name, value in own if value)
        return (
            f"simulate({report.seed}, steps={report.steps}, without={report.without}, skip={report.skip}{given})"
            "  # with the same objects; a function and rules that can be imported give a command"
        )
    parts = [f"python -m execkit.testing.simulate --seed {report.seed} --steps {report.steps}"]
    if report.without:
        parts.append(f"--without {','.join(report.without)}")
    if report.skip:
        parts.append(f"--skip {','.join(map(str, report.skip))}")
    if report.build:
        parts.append(f"--build {report.build}")
    if report.scenario:
        parts.append(f"--scenario {report.scenario}")
    return " ".join(parts)


def _plain(
    seed: int, steps: int, build: Build | None = None, scenario: Rules | None = None
) -> SimulationReport:
    return simulate(seed, steps=steps, build=build, scenario=scenario)


def _imported(_context: click.Context, option: click.Parameter, value: str) -> Any:
    """Return what `module:name` names; raise `click.BadParameter`."""
    if not value:
        return None
    try:
        return pkgutil.resolve_name(value)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{value}: {error}; write module:name", param=option) from error


def _tell(failed: SimulationReport, run: Run) -> None:
    """Print the shortest run that breaks the same, its command, and how it ends."""
    short = shrink(run, failed)
    click.echo(f"\nseed {failed.seed} breaks {short.violation}; repeat the shortest run found:")
    click.echo(f"  {replay_command(short)}")
    again = run(
        short.seed, steps=short.steps, without=short.without, skip=short.skip, keep_story=True
    )
    for line in again.story[-_TOLD:]:
        click.echo(f"  | {line}")


@click.command()
@click.option("--seeds", default=0, help="How many seeds to run.")
@click.option("--base", default=0, help="The first of them.")
@click.option("--steps", default=400, show_default=True, help="Steps of each run.")
@click.option("--seed", default=None, type=int, help="Repeat one seed and tell its story.")
@click.option("--without", default="", help="Kinds of fault to leave out, with commas.")
@click.option("--skip", default="", help="Steps to leave out, with commas.")
@click.option(
    "--build", default="", callback=_imported, help="module:function that returns engine options."
)
@click.option(
    "--scenario",
    default="",
    type=click.Choice(["", *(rules.name for rules in RULES)]),
    help="The venue's rules; by default the seed chooses.",
)
@click.option("--jobs", default=None, type=int, help="Processes; as many as processors.")
@click.option("--reach", is_flag=True, help="Fail unless every kind, edge and branch was reached.")
@click.option(
    "--figures",
    default=None,
    type=click.Path(path_type=Path),
    help="Where to write what was reached, as JSON.",
)
def main(
    seeds: int,
    base: int,
    steps: int,
    seed: int | None,
    without: str,
    skip: str,
    build: Build | None,
    scenario: str,
    jobs: int | None,
    figures: Path | None,
    *,
    reach: bool,
) -> None:
    """Run many seeds and print what they showed; or one seed, and tell its story."""
    rules = next((each for each in RULES if each.name == scenario), None)
    if seed is not None:
        report = simulate(
            seed,
            build=build,
            scenario=rules,
            steps=steps,
            without=tuple(filter(None, without.split(","))),
            skip=tuple(int(number) for number in filter(None, skip.split(","))),
            keep_story=True,
        )
        for line in report.story:
            click.echo(line)
        click.echo(str(report))
        sys.exit(0 if report.ok else 1)
    whole = partial(_plain, build=build, scenario=rules)
    campaign = run_many(whole, range(base, base + seeds), steps=steps, jobs=jobs)
    excused = muted(campaign.figures)
    for line in (*campaign.lines(), *(f"MUTED {line}" for line in excused)):
        click.echo(line)
    for failed in campaign.failures[:3]:
        _tell(failed, partial(simulate, build=build, scenario=rules))
    if figures is not None:
        figures.write_bytes(campaign.export())
    sys.exit(1 if campaign.failures or excused or (reach and campaign.missing) else 0)


if __name__ == "__main__":
    main()

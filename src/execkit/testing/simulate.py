"""Simulates a pipeline, or a whole engine, against a venue where everything goes wrong, from one seed.

    report = simulate(7, build=lambda: {"pipeline": my_pipeline()})
    assert report.ok, report

Random signals, prices, faults, crashes with restarts from the journal; the invariants are checked after every step,
then all faults stop, and within 120 seconds books and venue must agree and every position must be protected. A run
is repeated exactly by its seed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import structlog

from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.pipeline import ExecutionPipeline, HandlerFunction
from execkit.risk.limits import RiskLimits
from execkit.testing.simulation.actions import Actions
from execkit.testing.simulation.campaign import run_many, shrink
from execkit.testing.simulation.healing import converge
from execkit.testing.simulation.process import Build
from execkit.testing.simulation.report import SimulationReport
from execkit.testing.simulation.rules import Rules, policy_of
from execkit.testing.simulation.watch import Violated
from execkit.testing.simulation.world import World
from execkit.virtual_time import VirtualClock, run_virtual


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
    found: list[World] = []
    actions: list[Actions] = []
    at: list[int] = []

    async def main(clock: VirtualClock) -> None:
        world = World(
            seed, clock, chosen, steps=steps, rules=scenario, without=without, keep_story=keep_story
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

    violated: Violated | None = None
    with quiet():
        try:
            run_virtual(main)
        except Violated as error:
            violated = error
    world = found[0]
    return SimulationReport(
        seed=seed,
        steps=steps,
        rules=world.rules.name,
        violation="" if violated is None else str(violated),
        invariant="" if violated is None else violated.invariant,
        failed_at=at[0] if at and violated is not None else None,
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
        },
        faults=dict(world.chaos.counts),
        edges=dict(world.watch.edges),
        branches=dict(world.watch.sources),
        enabled=tuple(world.chaos.enabled),
        without=without,
        skip=skip,
        story=tuple(world.story),
    )


def replay_command(report: SimulationReport) -> str:
    """Return the command that repeats a run and tells its story."""
    parts = [f"python -m execkit.testing.simulate --seed {report.seed} --steps {report.steps}"]
    if report.without:
        parts.append(f"--without {','.join(report.without)}")
    if report.skip:
        parts.append(f"--skip {','.join(map(str, report.skip))}")
    return " ".join(parts)


def _plain(seed: int, steps: int) -> SimulationReport:
    return simulate(seed, steps=steps)


@click.command()
@click.option("--seeds", default=0, help="How many seeds to run.")
@click.option("--base", default=0, help="The first of them.")
@click.option("--steps", default=400, show_default=True, help="Steps of each run.")
@click.option("--seed", default=None, type=int, help="Repeat one seed and tell its story.")
@click.option("--without", default="", help="Kinds of fault to leave out, with commas.")
@click.option("--skip", default="", help="Steps to leave out, with commas.")
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
    jobs: int | None,
    figures: Path | None,
    *,
    reach: bool,
) -> None:
    """Run many seeds and print what they showed; or one seed, and tell its story."""
    if seed is not None:
        report = simulate(
            seed,
            steps=steps,
            without=tuple(filter(None, without.split(","))),
            skip=tuple(int(number) for number in filter(None, skip.split(","))),
            keep_story=True,
        )
        for line in report.story:
            click.echo(line)
        click.echo(str(report))
        sys.exit(0 if report.ok else 1)
    campaign = run_many(_plain, range(base, base + seeds), steps=steps, jobs=jobs)
    for line in campaign.lines():
        click.echo(line)
    for failed in campaign.failures[:3]:
        short = shrink(simulate, failed)
        click.echo(f"\nseed {failed.seed} breaks {short.violation}; repeat the shortest run found:")
        click.echo(f"  {replay_command(short)}")
    if figures is not None:
        figures.write_bytes(campaign.export())
    sys.exit(1 if campaign.failures or (reach and campaign.missing) else 0)


if __name__ == "__main__":
    main()

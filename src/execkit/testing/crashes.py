"""Simulated crashes: a process dies at every named instant of six scenarios, and again at each of its recovery.

`python -m execkit.testing.crashes` runs all of them: before and after each commit, when each request leaves, arrives
and is answered; with and without the records that were written and not yet committed. After the restart the
independent checker must be quiet, one signal has at most one live order, and the position is protected.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import product
from typing import Any, Final

import attrs
import click

from execkit.model.order import OrderRole, Side
from execkit.model.signal import TradingSignal
from execkit.testing.simulate import quiet
from execkit.testing.simulation.small import PRICE, SYMBOL, DeadEnd, SmallWorld
from execkit.virtual_time import VirtualClock, run_virtual

Scenario = Callable[[SmallWorld], Awaitable[None]]

_LIMIT: Final = PRICE - 100
_SETTLE: Final = 150.0
"""Seconds until everything must be known again; what the venue may hide an order for is within."""


def signal() -> TradingSignal:
    """Return the one signal of every scenario, a resting entry with a stop loss."""
    return TradingSignal(
        symbol=SYMBOL,
        side=Side.BUY,
        quantity=Decimal("0.04"),
        confluence=Decimal(4),
        limit_price=_LIMIT,
        stop_loss=PRICE - 900,
        signal_id="s1",
    )


# -- the scenarios: each may be begun again in any state ----------------------------------------------------


async def entry(world: SmallWorld) -> None:
    """A resting entry is executed whole, and a stop is placed."""
    await world.do(world.engine.submit(signal()))
    await _fill(world, Decimal("0.04"))


async def partial_fill(world: SmallWorld) -> None:
    """An entry is executed in two parts, and the stop of the first is enlarged."""
    await world.do(world.engine.submit(signal()))
    await _fill(world, Decimal("0.01"))
    await _fill(world, Decimal("0.04"))


async def stop_replacement(world: SmallWorld) -> None:
    """The same where a stop can only be cancelled and placed anew."""
    await partial_fill(world)


async def cancel(world: SmallWorld) -> None:
    """An entry that was executed in part is cancelled."""
    await world.do(world.engine.submit(signal()))
    await _fill(world, Decimal("0.01"))
    for order in _entries(world):
        await world.do(world.engine.cancel(order))


async def amend(world: SmallWorld) -> None:
    """A resting entry is made smaller and moved, then executed."""
    await world.do(world.engine.submit(signal()))
    for order in _entries(world):
        gateway = world.engine.desk.gateway
        await world.do(gateway.amend(order, quantity=Decimal("0.02"), limit_price=_LIMIT - 50))
    await _fill(world, Decimal("0.02"))


async def flatten(world: SmallWorld) -> None:
    """A protected position is closed at the market."""
    await entry(world)
    await world.do(world.engine.flatten())
    await world.wait(2)


SCENARIOS: Final[Mapping[Scenario, Mapping[str, Any]]] = {
    entry: {},
    partial_fill: {},
    stop_replacement: {"amend": False, "reduce_only": False},
    cancel: {},
    amend: {},
    flatten: {"amend": False},
}
"""Each scenario with the abilities of its venue that differ from the usual ones."""


def _entries(world: SmallWorld) -> list[Any]:
    return [o for o in world.engine.orders.active.values() if o.role is OrderRole.ENTRY]


async def _fill(world: SmallWorld, up_to: Decimal) -> None:
    """Have the venue execute the entry, where it rests, until so much of it is done."""
    for order in world.venue.core.open_orders():
        if world.role_of(order.client_order_id) is OrderRole.ENTRY and order.filled < up_to:
            world.venue.execute(order.client_order_id, min(up_to, order.quantity) - order.filled)
    await world.wait(2)


# -- one run ----------------------------------------------------------------------------------------------


@attrs.frozen
class CrashRun:
    """One scenario with its deaths. *names* are the instants at which the processes died."""

    scenario: str
    deaths: tuple[int, ...]
    keeps_tail: bool
    names: tuple[str, ...]
    instants: tuple[int, ...]
    """How many instants each life had."""
    problems: tuple[str, ...]

    def __str__(self) -> str:
        tail = "tail kept" if self.keeps_tail else "tail lost"
        died = " and ".join(self.names) or "no instant"
        return f"{self.scenario}, dead at {died} {self.deaths}, {tail}: {self.problems}"


def run(scenario: Scenario, deaths: Sequence[int] = (), *, keeps_tail: bool = False) -> CrashRun:
    """Run one scenario whose first, second... process dies at these instants of its own life, counted from 1."""
    worlds: list[SmallWorld] = []
    wrong: list[str] = []

    async def main(clock: VirtualClock) -> None:
        world = SmallWorld(
            clock, deaths=deaths, keeps_tail=keeps_tail, abilities=SCENARIOS[scenario]
        )
        worlds.append(world)
        await _through(world, scenario)
        wrong.extend(world.verdict())
        await world.do(world.engine.stop())

    try:
        run_virtual(main)
    except Exception as error:  # noqa: BLE001 - whatever it is, this run failed
        wrong.append(repr(error))
    world = worlds[0]
    died = [names[-1] for names, _ in zip(world.instants, deaths, strict=False) if names]
    return CrashRun(
        getattr(scenario, "__name__", str(scenario)),
        tuple(deaths),
        keeps_tail,
        tuple(died[: world.lives - 1]),
        tuple(map(len, world.instants)),
        tuple(wrong),
    )


async def _through(world: SmallWorld, scenario: Scenario) -> None:
    """Go through the scenario, begin it again after each death as callers do, and let everything settle."""
    while True:
        await world.live()
        try:
            await scenario(world)
            await world.wait(_SETTLE)
        except DeadEnd:
            continue
        return


# -- all of them ------------------------------------------------------------------------------------------


@attrs.define
class CrashReport:
    """What the runs showed."""

    runs: int = 0
    twice: int = 0
    """Runs in which the recovery died too."""
    names: Counter[str] = attrs.field(factory=Counter)
    failures: list[CrashRun] = attrs.field(factory=list)

    def add(self, done: CrashRun) -> None:
        """Take in one run."""
        self.runs += 1
        self.twice += len(done.names) > 1
        self.names.update(done.names)
        if done.problems:
            self.failures.append(done)

    def lines(self) -> list[str]:
        """Return the figures, ready to print."""
        head = (
            f"{self.runs} simulated crashes in {len(SCENARIOS)} scenarios, {self.twice} of them again in recovery; "
            f"{len(self.names)} kinds of instant; {len(self.failures)} failures"
        )
        rows = [head]
        rows += [f"  {name}: {count}" for name, count in sorted(self.names.items())]
        return rows + [f"FAILED {done}" for done in self.failures[:20]]


def crash_everywhere(*, stride: int = 1) -> CrashReport:
    """Die at every instant of every scenario, and at every *stride*-th one of the recovery that follows."""
    report = CrashReport()
    with quiet():
        for scenario, keeps_tail in product(SCENARIOS, (False, True)):
            for done in _each_death(scenario, keeps_tail=keeps_tail, stride=stride):
                report.add(done)
    return report


def _each_death(scenario: Scenario, *, keeps_tail: bool, stride: int) -> Iterator[CrashRun]:
    calm = run(scenario)
    if calm.problems:
        yield calm
        return
    turn = 0
    for first in range(1, calm.instants[0] + 1):
        once = run(scenario, (first,), keeps_tail=keeps_tail)
        yield once
        for second in range(1, once.instants[1] + 1):
            turn += 1
            if turn % stride == 0:
                yield run(scenario, (first, second), keeps_tail=keeps_tail)


@click.command()
@click.option("--stride", default=1, show_default=True, help="Take every n-th death in recovery.")
def main(stride: int) -> None:
    """Run all simulated crashes; end with 1 when one of them breaks an invariant."""
    report = crash_everywhere(stride=stride)
    for line in report.lines():
        click.echo(line)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()

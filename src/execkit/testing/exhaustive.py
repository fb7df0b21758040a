"""Small-scope exhaustive check: one order, twelve kinds of fault, every sequence of them up to a depth.

`python -m execkit.testing.exhaustive --depth 3` runs 12 + 12² + 12³ histories and the calm one: an entry rests, is
executed, gets its stop, and half of the position is closed again. The faults of a sequence strike one after the other,
each at the first call of its kind after the one before. In the end nothing is wrong any more, and the independent
checker must be quiet.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from decimal import Decimal
from itertools import product
from multiprocessing import get_context
from typing import Final

import attrs
import click

from execkit.errors import InvalidOrderError
from execkit.model.order import OrderRequest, Side
from execkit.model.signal import TradingSignal
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation
from execkit.testing.simulate import quiet
from execkit.testing.simulation.small import PRICE, SYMBOL, DeadEnd, SmallWorld
from execkit.virtual_time import VirtualClock, run_virtual

KILLED: Final = "killed"
"""The process dies when a place request has arrived, and a new one starts."""

_PLACE, _SECONDS = Operation.PLACE, timedelta(seconds=1)
FAULTS: Final[Mapping[str, Fault | None]] = {
    "request lost": Fault(on=_PLACE, kind=FaultKind.LOST, raw=True),
    "answer lost": Fault(on=_PLACE, kind=FaultKind.TIMEOUT, reached=True, takes=5 * _SECONDS),
    "request late": Fault(
        on=_PLACE,
        kind=FaultKind.TIMEOUT,
        reached=True,
        takes=5 * _SECONDS,
        arrives_after=20 * _SECONDS,
    ),
    "refused": Fault(on=_PLACE, kind=FaultKind.ERROR, error=InvalidOrderError("LOT_SIZE")),
    "too fast": Fault(on=_PLACE, kind=FaultKind.RATE_LIMIT, retry_after=2 * _SECONDS),
    "garbage": Fault(on=_PLACE, kind=FaultKind.MALFORMED),
    "partial": Fault(on=_PLACE, kind=FaultKind.PARTIAL, after=3 * _SECONDS),
    "cancel unanswered": Fault(
        on=Operation.CANCEL, kind=FaultKind.TIMEOUT, reached=True, takes=5 * _SECONDS
    ),
    "not found": Fault(on=Operation.OPEN, kind=FaultKind.NOT_FOUND, after=30 * _SECONDS),
    "update lost": Fault(on=Operation.STREAM, kind=FaultKind.LOSE),
    "stream breaks": Fault(on=Operation.STREAM, kind=FaultKind.BREAK),
    KILLED: None,
}
"""The twelve kinds."""


class OneByOne(FaultScript):
    """A script whose faults wait for each other."""

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__(fault for fault in FAULTS.values() if fault is not None)
        self.waiting = deque(kinds)

    def next(
        self,
        operation: Operation,
        *,
        elapsed: timedelta,
        rng: random.Random,
        request: OrderRequest | None = None,
    ) -> Fault | None:
        """Return the fault whose turn it is, if this is its kind of call."""
        fault = FAULTS[self.waiting[0]] if self.waiting else None
        if fault is None or fault.on is not operation:
            return None
        self.waiting.popleft()
        return fault

    def kills(self) -> bool:
        """Tell whether the process dies now."""
        if not self.waiting or self.waiting[0] != KILLED:
            return False
        self.waiting.popleft()
        return True


@attrs.frozen
class History:
    """One sequence of faults. *struck* tells how many of them did."""

    kinds: tuple[str, ...]
    struck: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.kinds) or 'nothing'}: {'; '.join(self.problems) or 'quiet'}"


class _World(SmallWorld):
    """Dies where the script says so."""

    script: OneByOne

    async def instant(self, name: str, line: object) -> None:
        await super().instant(name, line)  # type: ignore[arg-type]
        if name.startswith("place") and name.endswith("arrived") and self.script.kills():
            await self.die()


def run_history(kinds: Sequence[str]) -> History:
    """Run one sequence."""
    script = OneByOne(kinds)
    wrong: list[str] = []

    async def main(clock: VirtualClock) -> None:
        world = _World(clock, script=script, reconcile_every=20 * _SECONDS)
        world.script = script
        await _through(world)
        wrong.extend(world.verdict())
        await world.do(world.engine.stop())

    try:
        run_virtual(main)
    except Exception as error:  # noqa: BLE001 - whatever it is, this history failed
        wrong.append(repr(error))
    return History(tuple(kinds), len(kinds) - len(script.waiting), tuple(wrong))


async def _through(world: SmallWorld) -> None:
    """Enter, let the entry be executed, close a half, heal and settle; again from the start after a death."""
    enter = TradingSignal(
        symbol=SYMBOL,
        side=Side.BUY,
        quantity=Decimal("0.04"),
        confluence=Decimal(4),
        limit_price=PRICE - 100,
        stop_loss=PRICE - 900,
        signal_id="s1",
    )
    leave = TradingSignal(
        symbol=SYMBOL,
        side=Side.SELL,
        quantity=Decimal("0.02"),
        reduce_only=True,
        signal_id="s2",
    )
    while True:
        try:
            await world.live()
            await world.do(world.engine.submit(enter))
            world.venue.set_price(SYMBOL, PRICE - 200)
            await world.wait(40)
            if world.engine.book.positions.quantity(SYMBOL):
                await world.do(world.engine.submit(leave))
            await world.wait(40)
            world.venue.connection.script = FaultScript()
            await world.wait(200)
        except DeadEnd:
            continue
        return


def histories(depth: int) -> Iterator[tuple[str, ...]]:
    """Yield every sequence of up to *depth* faults, the shortest first."""
    for length in range(depth + 1):
        yield from product(FAULTS, repeat=length)


def _run_quietly(kinds: tuple[str, ...]) -> History:
    with quiet():
        return run_history(kinds)


@attrs.define
class ExhaustiveReport:
    """What all histories showed."""

    histories: int = 0
    complete: int = 0
    """Histories in which every fault struck."""
    struck: Counter[str] = attrs.field(factory=Counter)
    failures: list[History] = attrs.field(factory=list)

    def add(self, done: History) -> None:
        """Take in one history."""
        self.histories += 1
        self.complete += done.struck == len(done.kinds)
        self.struck.update(done.kinds[: done.struck])
        if done.problems:
            self.failures.append(done)

    def lines(self) -> list[str]:
        """Return the figures, ready to print."""
        kinds = ", ".join(f"{kind} {self.struck[kind]}" for kind in FAULTS)
        head = f"{self.histories} histories, in {self.complete} every fault struck; {len(self.failures)} failures"
        return [head, f"struck: {kinds}", *(f"FAILED {done}" for done in self.failures[:20])]


def run_all(chosen: Iterable[tuple[str, ...]], *, jobs: int | None = 1) -> ExhaustiveReport:
    """Run histories, in *jobs* processes; None is as many as there are processors."""
    report = ExhaustiveReport()
    workers = jobs or os.cpu_count() or 1
    if workers == 1:
        for kinds in chosen:
            report.add(_run_quietly(kinds))
        return report
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        for done in pool.map(_run_quietly, chosen, chunksize=64):
            report.add(done)
    return report


@click.command()
@click.option("--depth", default=3, show_default=True, help="The most faults in a row.")
@click.option("--jobs", default=None, type=int, help="Processes; as many as processors.")
def main(depth: int, jobs: int | None) -> None:
    """Run every history; end with 1 when one of them breaks an invariant."""
    report = run_all(histories(depth), jobs=jobs)
    for line in report.lines():
        click.echo(line)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()

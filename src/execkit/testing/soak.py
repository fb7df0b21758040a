"""Soak: keeps an engine busy for as long as one likes and watches what must not grow.

`python -m execkit.testing.soak --seconds 3600` sends 50 intents a second through the standard chain to a mock venue,
over a journal on disk, and ends with 1 when memory, tasks or descriptors grow with time, or an order is left over.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import attrs
import structlog

from execkit.engine import ExecutionEngine
from execkit.journal.file import FileJournal
from execkit.model.order import Side
from execkit.model.records import SignalResult
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.orders.book import KEEP_SIGNALS
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation
from execkit.testing.mock import MockExchange

SYMBOLS: Final = tuple(f"S{number}/USDT" for number in range(5))
_PRICE: Final = Decimal(100)
_FEE: Final = Decimal("0.000001")

MEMORY_LIMIT: Final = 0.1
"""KiB an intent by which memory may grow: what the allocator scatters, and nothing that is kept."""

VENUE_MEMORY: Final = timedelta(minutes=6)
"""How long the mock remembers what has ended; the engine asks for five minutes of executions again and again."""

WARM_UP: Final = 480.0
"""Seconds until every bounded memory is full and memory has found its level."""


@attrs.frozen
class Sample:
    """What one look at the process showed."""

    second: float
    memory_kib: int
    tasks: int
    descriptors: int
    open_orders: int


@attrs.define
class SoakReport:
    """A run's samples, and what is wrong with them."""

    rate: float
    """Intents a second."""
    samples: list[Sample] = attrs.field(factory=list)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    errors: list[str] = attrs.field(factory=list)

    @property
    def memory_growth(self) -> float | None:
        """Growth of memory in KiB an intent after the warm-up, by least squares; None for a shorter run."""
        full = [sample for sample in self.samples if sample.second >= WARM_UP]
        if len(full) < 3:
            return None
        return slope([(sample.second * self.rate, sample.memory_kib) for sample in full])

    @property
    def _settled(self) -> list[Sample]:
        return self.samples[len(self.samples) // 3 :]

    def problems(self) -> list[str]:
        """Return what grew or went wrong."""
        found = list(self.errors)
        settled = self._settled
        if len(settled) < 3:
            return [*found, f"{len(self.samples)} samples are too few to judge; run longer"]
        growth = self.memory_growth
        if growth is not None and growth > MEMORY_LIMIT:
            found.append(f"memory grows by {growth:.2f} KiB an intent, limit {MEMORY_LIMIT}")
        half = len(settled) // 2
        for name in ("tasks", "descriptors", "open_orders"):
            early, late = (
                max(getattr(sample, name) for sample in part)
                for part in (settled[:half], settled[half:])
            )
            if late > early * 1.2 + 10:
                found.append(f"{name} grew from {early} to {late}")
        return found

    def __str__(self) -> str:
        last = self.samples[-1]
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        growth = self.memory_growth
        memory = "run too short to judge" if growth is None else f"{growth:+.2f} KiB an intent"
        return (
            f"{sum(self.outcomes.values())} intents in {last.second:.0f} s ({counts}); memory {last.memory_kib} KiB, "
            f"{memory}; {last.tasks} tasks, {last.descriptors} descriptors, {last.open_orders} open orders"
        )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line through points, by least squares; zero for fewer than two."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


async def soak(
    seconds: float,
    folder: Path,
    *,
    rate: float = 50.0,
    every: float = 5.0,
    faults: bool = True,
    rng: random.Random,
) -> SoakReport:
    """Run for *seconds* at *rate* intents a second and look at the process *every* so many seconds.

    With *faults* one answer in 200 is lost, and one update of the stream in 100 comes twice. The journal begins with as
    many results of signals as an engine remembers, as after a day of work, so that what grows later is growth.
    """
    script = [
        Fault(on=Operation.PLACE, kind=FaultKind.TIMEOUT, reached=True, probability=0.005),
        Fault(on=Operation.STREAM, kind=FaultKind.DUPLICATE, probability=0.01),
    ]
    exchange = MockExchange(
        balances={"USDT": Decimal(10**9)},
        prices=dict.fromkeys(SYMBOLS, _PRICE),
        # With usual fees an hour of this would reach the daily loss limit, and then nothing is sent.
        maker_fee=_FEE,
        taker_fee=_FEE,
        script=FaultScript(script if faults else []),
        rng=rng,
    )
    await _remember(folder / "soak.db", exchange)
    engine = ExecutionEngine(exchange, journal=folder / "soak.db", durability="process", rng=rng)
    report = SoakReport(rate)
    async with engine, asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        began = loop.time()
        next_look = every
        for number in itertools.count():
            elapsed = loop.time() - began
            if elapsed >= next_look or elapsed >= seconds:
                exchange.forget(exchange.clock.now() - VENUE_MEMORY)
                report.samples.append(look(elapsed, engine))
                next_look += every
            if elapsed >= seconds:
                break
            group.create_task(_one(engine, exchange, number, rng, report))
            await asyncio.sleep(max(0.0, (number + 1) / rate - elapsed))
    return report


async def _remember(path: Path, exchange: MockExchange) -> None:
    """Write the results of as many signals as an engine remembers."""
    journal = FileJournal.open(
        path, account=exchange.account, clock=exchange.clock, durability="process"
    )
    for number in range(KEEP_SIGNALS):
        told = SignalResult(
            signal_id=f"s0-{number:012}",
            signal_digest=f"{number:024}",
            symbol=SYMBOLS[0],
            side=Side.BUY,
            outcome=Outcome.EXPIRED,
        )
        journal.append(told, exchange.clock.now())
        if number % 1_000 == 0:
            await journal.commit()
    await journal.close()


async def _one(
    engine: ExecutionEngine,
    exchange: MockExchange,
    number: int,
    rng: random.Random,
    report: SoakReport,
) -> None:
    """Buy, or sell what was bought; a tenth of the entries rests for a while and is cancelled."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    exchange.set_price(symbol, _PRICE + rng.randrange(-100, 100) * Decimal("0.01"))
    rests = number % 10 == 0
    held = engine.book.positions.quantity(symbol)
    signal = TradingSignal(
        symbol=symbol,
        side=Side.SELL if held else Side.BUY,
        strength=80,
        confluence=4,
        limit_price=Decimal(97) if rests and not held else None,
        max_age=timedelta(seconds=30),
    )
    try:
        result = await engine.submit(signal)
        report.outcomes[result.outcome.value] += 1
        if rests and result.order is not None:
            await asyncio.sleep(0.2)
            await engine.cancel(result.order)
    except Exception as error:  # noqa: BLE001 - the run goes on, the report tells
        report.outcomes["error"] += 1
        if len(report.errors) < 20:
            report.errors.append(f"intent {number}: {error!r}")


def look(second: float, engine: ExecutionEngine) -> Sample:
    """Look at the process; memory is what is resident after a collection."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return Sample(
        second=second,
        memory_kib=int(resident.split()[1]),
        tasks=len(asyncio.all_tasks()),
        descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        open_orders=len(engine.orders.active),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak from the command line; return 1 when something grew or failed."""
    parser = argparse.ArgumentParser(prog="python -m execkit.testing.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=50.0, help="intents a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-faults", action="store_true")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    every = min(5.0, options.seconds / 12)
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(
            soak(
                options.seconds,
                Path(folder),
                rate=options.rate,
                every=every,
                faults=not options.no_faults,
                rng=random.Random(options.seed),
            )
        )
    problems = report.problems()
    sys.stdout.write("\n".join([str(report), *problems, ""]))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

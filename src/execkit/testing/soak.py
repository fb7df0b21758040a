"""Soak: keeps an engine busy for as long as one likes and watches what must not grow.

`python -m execkit.testing.soak` sends an hour of 50 intents a second through the standard chain to a mock venue, over a
journal on disk, in virtual time, which takes minutes. `--real --seconds 600` does it in real time, with the threads and
the store that virtual time does without. Both end with 1 when memory, tasks or descriptors grow with time, or an order
is left over.

Much of what an engine remembers has a limit, and memory grows until it is reached. So first, in virtual time, as many
intents are sent as fill everything; what is watched is an engine that starts from that journal.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import attrs
import structlog

from execkit.clock import Clock, ManualClock, SystemClock
from execkit.engine import ExecutionEngine
from execkit.journal.file import FileJournal
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.orders.book import KEEP_SIGNALS
from execkit.store.feed import StoreFeed
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation
from execkit.testing.mock import MockExchange
from execkit.virtual_time import DEFAULT_START, run_virtual

SYMBOLS: Final = tuple(f"S{number}/USDT" for number in range(5))
_PRICE: Final = Decimal(100)
# With usual fees and moves, hours of this would reach the daily loss limit, and then nothing is sent.
_FEE: Final = Decimal("0.000001")
_TICK: Final = Decimal("0.01")

MEMORY_LIMIT: Final = 0.1
"""KiB an intent by which memory may grow: what the allocator scatters, and nothing that is kept."""

OBJECT_LIMIT: Final = 0.5
"""Objects an intent by which their number may grow: whoever keeps something of each intent keeps one at least.

Memory alone would not show it soon: a process rarely gives back what it needed once, and new objects fill the holes.
"""

FILL: Final = KEEP_SIGNALS + KEEP_SIGNALS // 10
"""Intents after which every bounded memory is full, that of the signals as the last."""

SAMPLES: Final = 60
"""How often the process is looked at."""

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""Size of the journal's segments: a quarter of the usual, so that a short run begins several, each with a snapshot.

The first snapshot takes memory that the process then keeps.
"""

FORGET_EVERY: Final = 250
"""Intents after which the mock forgets what is old."""

VENUE_MEMORY: Final = timedelta(minutes=6)
"""How long the mock remembers what has ended; the engine asks for five minutes of executions again and again."""


@attrs.frozen
class Sample:
    """What one look at the process showed."""

    second: float
    intents: int
    memory_kib: int
    objects: int
    tasks: int
    descriptors: int
    open_orders: int


@attrs.define
class SoakReport:
    """A run's samples, and what is wrong with them."""

    samples: list[Sample] = attrs.field(factory=list)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    errors: list[str] = attrs.field(factory=list)

    @property
    def _settled(self) -> list[Sample]:
        """The samples without those of the start."""
        return self.samples[len(self.samples) // 3 :]

    @property
    def memory_growth(self) -> float:
        """Growth of memory in KiB an intent, by least squares."""
        return slope([(sample.intents, sample.memory_kib) for sample in self._settled])

    @property
    def object_growth(self) -> float:
        """Growth of the number of objects an intent, by least squares."""
        return slope([(sample.intents, sample.objects) for sample in self._settled])

    def problems(self) -> list[str]:
        """Return what grew or went wrong."""
        found = list(self.errors)
        settled = self._settled
        if len(settled) < 10:
            return [*found, f"{len(self.samples)} samples are too few to judge; run longer"]
        intents = sum(self.outcomes.values())
        if self.outcomes["filled"] < intents / 3:
            found.append(f"{self.outcomes['filled']} of {intents} were executed: that shows little")
        if self.memory_growth > MEMORY_LIMIT:
            found.append(
                f"memory grows by {self.memory_growth:.3f} KiB an intent, limit {MEMORY_LIMIT}"
            )
        if self.object_growth > OBJECT_LIMIT:
            found.append(
                f"{self.object_growth:.3f} objects an intent are kept, limit {OBJECT_LIMIT}"
            )
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
        return (
            f"{sum(self.outcomes.values())} intents in {last.second:.0f} s ({counts}); memory {last.memory_kib} KiB, "
            f"{self.memory_growth:+.4f} KiB and {self.object_growth:+.4f} objects an intent; "
            f"{last.tasks} tasks, {last.descriptors} descriptors, {last.open_orders} open orders"
        )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line through points, by least squares; zero for fewer than two."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


class _Behind:
    """The machine's clock as it goes on from *start*, where the fill ended: the venue forgets by it."""

    def __init__(self, start: datetime) -> None:
        self._clock = SystemClock()
        self._by = self._clock.now() - start

    def now(self) -> datetime:
        """Return the current time."""
        return self._clock.now() - self._by


class Soak:
    """One venue and one journal, and engines that work on them one after the other.

    With *faults* one answer in 200 is lost, and one update of the stream in 100 comes twice.
    """

    def __init__(self, folder: Path, *, rate: float, faults: bool, rng: random.Random) -> None:
        script = [
            Fault(on=Operation.PLACE, kind=FaultKind.TIMEOUT, reached=True, probability=0.005),
            Fault(on=Operation.STREAM, kind=FaultKind.DUPLICATE, probability=0.01),
        ]
        self.journal = folder / "soak.db"
        self.rate = rate
        self.rng = rng
        # A number of intents, so that a machine that was busy for a while leaves no trace in the memory.
        self._sent_at = deque[datetime](maxlen=int(VENUE_MEMORY.total_seconds() * rate))
        self.exchange = MockExchange(
            balances={"USDT": Decimal(10**9)},
            prices=dict.fromkeys(SYMBOLS, _PRICE),
            maker_fee=_FEE,
            taker_fee=_FEE,
            script=FaultScript(script if faults else []),
            rng=rng,
            clock=ManualClock(),  # each run has its own
        )

    async def run(
        self, clock: Clock, intents: int, *, every: int | None = None, store: bool = False
    ) -> SoakReport:
        """Send so many *intents* and look at the process after *every* so many; None: not at all."""
        self.exchange.clock = clock
        engine = ExecutionEngine(
            self.exchange,
            journal=FileJournal.open(
                self.journal,
                account=self.exchange.account,
                clock=clock,
                durability="process",
                segment_bytes=SEGMENT_BYTES,
            ),
            store=store,
            clock=clock,
            rng=self.rng,
        )
        report = SoakReport()
        async with engine, asyncio.TaskGroup() as group:
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(intents):
                self._sent_at.append(clock.now())
                if number % FORGET_EVERY == 0:
                    self.exchange.forget(self._sent_at[0])
                group.create_task(_one(engine, self.exchange, number, self.rng, report))
                await asyncio.sleep(max(0.0, (number + 1) / self.rate - (loop.time() - began)))
                if every is not None and (number + 1) % every == 0:
                    report.samples.append(look(loop.time() - began, number + 1, engine))
        return report


async def _one(
    engine: ExecutionEngine,
    exchange: MockExchange,
    number: int,
    rng: random.Random,
    report: SoakReport,
) -> None:
    """Buy, or sell what was bought; a tenth of the entries rests for a while and is cancelled."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    exchange.set_price(symbol, _PRICE + rng.randrange(-5, 6) * _TICK)
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


def look(second: float, intents: int, engine: ExecutionEngine) -> Sample:
    """Look at the process after a collection; memory is what is resident."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return Sample(
        second=second,
        intents=intents,
        memory_kib=int(resident.split()[1]),
        objects=sys.getallocatedblocks(),
        tasks=len(asyncio.all_tasks()),
        descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        open_orders=len(engine.orders.active),
    )


def soak(
    seconds: float,
    folder: Path,
    *,
    rate: float = 50.0,
    fill: int = FILL,
    real: bool = False,
    faults: bool = True,
    rng: random.Random,
) -> SoakReport:
    """Send *fill* intents, then as many as come in *seconds* at *rate* a second, and report on those.

    Virtual time runs as fast as the processor does. In *real* time the store is kept too, from the start of the fill.
    """
    work = Soak(folder, rate=rate, faults=faults, rng=rng)
    run_virtual(lambda clock: work.run(clock, fill))
    intents = max(1, int(seconds * rate))
    every = max(1, intents // SAMPLES)
    begin = DEFAULT_START + timedelta(seconds=fill / rate + 1)
    if not real:
        return run_virtual(lambda clock: work.run(clock, intents, every=every), start=begin)
    store = StoreFeed(work.journal)
    store.catch_up()
    store.close()
    return asyncio.run(work.run(_Behind(begin), intents, every=every, store=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak from the command line; return 1 when something grew or failed."""
    parser = argparse.ArgumentParser(prog="python -m execkit.testing.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--rate", type=float, default=50.0, help="intents a second")
    parser.add_argument("--real", action="store_true", help="in real time, with the store")
    parser.add_argument("--fill", type=int, default=FILL, help="intents before those watched")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-faults", action="store_true")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        report = soak(
            options.seconds,
            Path(folder),
            rate=options.rate,
            fill=options.fill,
            real=options.real,
            faults=not options.no_faults,
            rng=random.Random(options.seed),
        )
    problems = report.problems()
    sys.stdout.write("\n".join([str(report), *problems, ""]))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

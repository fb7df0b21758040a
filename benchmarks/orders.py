"""P1-P4: the order path, as ratios taken in one run.

    python benchmarks/orders.py [--orders 2000]

The peer is NautilusTrader's live engine, measured by its own script in an environment of its own: set PEER_PYTHON to
an interpreter that has nautilus_trader 1.221.0, and PEER_SCRIPT to the script (../shared/bench/bench_nautilus.py).
Without it P1, P2 and P4 print our figures alone. The limit for P3 is one bare fdatasync of the same disk.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parent))

from stub import PRICE, StubExchange

from execkit.engine import ExecutionEngine
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.events import PositionOpened
from execkit.model.market import Quote
from execkit.model.order import OrderReport, OrderState, OrderType, Side, TimeInForce
from execkit.model.signal import TradingSignal
from execkit.pipeline import ExecutionPipeline
from execkit.risk.limits import RiskLimits

try:
    from uvloop import new_event_loop
except ImportError:
    new_event_loop = asyncio.new_event_loop

T = TypeVar("T")

SYMBOLS = [f"C{n}/USDT" for n in range(64)]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed, as the peer does."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which *share* of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def chain() -> ExecutionPipeline:
    """Return the whole standard chain, with limits wide enough for many symbols."""
    limits = RiskLimits(max_concurrent_positions=100_000, max_exposure_pct=Decimal(100))
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(limits),
            OrderExecutorHandler(),
            ReconciliationHandler(verify_fill=False),
        ]
    )


def entry(symbol: str) -> TradingSignal:
    """Return a signal that opens a position."""
    return TradingSignal(
        symbol=symbol,
        side=Side.BUY,
        strength=80,
        confluence=4,
        quantity=Decimal("0.010"),
        limit_price=PRICE + Decimal("0.5"),
        stop_loss=Decimal(49_500),
        take_profit=Decimal(52_000),
    )


def exit_(symbol: str) -> TradingSignal:
    """Return a signal that closes it."""
    return TradingSignal(symbol=symbol, side=Side.SELL, confluence=4)


def refresh(engine: ExecutionEngine, symbols: list[str]) -> None:
    """Give the engine young quotes, as a stream would."""
    now = datetime.now(UTC)
    for symbol in symbols:
        engine.desk.quotes.see(Quote(symbol, PRICE - Decimal("0.5"), PRICE + Decimal("0.5"), now))


class Venue(StubExchange):
    """The stub, with cancels that always succeed, so that positions can be closed between measurements."""

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Answer that it is gone."""
        order = self.engine.orders[client_order_id]
        return OrderReport(
            client_order_id=client_order_id,
            venue_order_id=venue_order_id or "",
            symbol=symbol,
            side=order.side,
            type=OrderType.STOP,
            quantity=order.quantity,
            status=OrderState.CANCELLED,
        )

    engine: ExecutionEngine


def engine_on(folder: str, durability: str) -> tuple[ExecutionEngine, Venue]:
    """Return an engine over the stub with a fresh file journal."""
    venue = Venue()
    path = Path(tempfile.mkdtemp(dir=folder)) / "journal.db"
    engine = ExecutionEngine(
        venue, journal=path, durability=durability, pipeline=chain(), store=False
    )
    venue.engine = engine
    return engine, venue


async def closed_loop(folder: str, durability: str, orders: int) -> dict[str, list[float]]:
    """One order at a time: microseconds from submit to the adapter, and to the position event."""
    engine, venue = engine_on(folder, durability)
    opened: dict[str, int] = {}
    engine.events.subscribe(
        PositionOpened, lambda event: opened.setdefault(event.signal_id, time.perf_counter_ns())
    )
    to_adapter: list[float] = []
    to_event: list[float] = []
    async with engine:
        for warm in (True, False):
            for n in range(200 if warm else orders):
                symbol = SYMBOLS[n % len(SYMBOLS)]
                refresh(engine, [symbol])
                signal = entry(symbol)
                start = time.perf_counter_ns()
                result = await engine.submit(signal)
                if not result.filled:
                    raise SystemExit(str(result))
                await asyncio.sleep(0)
                await engine.events.idle()
                if not warm:
                    to_adapter.append((venue.seen[result.client_order_ids[-1]] - start) / 1e3)
                    to_event.append((opened[result.signal_id] - start) / 1e3)
                await engine.desk.keeper.idle()
                await engine.submit(exit_(symbol))
                await engine.desk.keeper.idle()
    return {"adapter": to_adapter, "event": to_event}


async def burst(folder: str, orders: int) -> float:
    """64 symbols at once, safe against power loss: orders per second."""
    engine, venue = engine_on(folder, "power")
    rates = []
    async with engine:
        for _ in range(max(orders // 64, 5)):
            refresh(engine, SYMBOLS)
            before = venue.count
            start = time.perf_counter()
            results = await asyncio.gather(*(engine.submit(entry(s)) for s in SYMBOLS))
            rates.append(len(results) / (time.perf_counter() - start))
            if any(not r.filled for r in results) or venue.count < before + 64:
                raise SystemExit(str(results[0]))
            await engine.desk.keeper.idle()
            refresh(engine, SYMBOLS)
            await asyncio.gather(*(engine.submit(exit_(s)) for s in SYMBOLS))
            await engine.desk.keeper.idle()
    return statistics.median(rates)


async def beside_open_orders(folder: str, open_orders: int, orders: int) -> float:
    """Median microseconds from submit to the adapter while many entries rest."""
    engine, venue = engine_on(folder, "process")
    async with engine:
        venue.resting = True
        for n in range(open_orders):
            symbol = f"R{n}/USDT"
            refresh(engine, [symbol])
            signal = TradingSignal(
                symbol=symbol,
                side=Side.BUY,
                confluence=4,
                quantity=Decimal("0.010"),
                limit_price=PRICE - 1,
                stop_loss=Decimal(49_500),
                take_profit=Decimal(52_000),
                time_in_force=TimeInForce.GTC,
            )
            result = await engine.submit(signal)
            if not result.ok:
                raise SystemExit(str(result))
        venue.resting = False
        gc.collect()
        times = []
        for n in range(orders):
            symbol = SYMBOLS[n % len(SYMBOLS)]
            refresh(engine, [symbol])
            start = time.perf_counter_ns()
            result = await engine.submit(entry(symbol))
            times.append((venue.seen[result.client_order_ids[-1]] - start) / 1e3)
            await engine.desk.keeper.idle()
            await engine.submit(exit_(symbol))
            await engine.desk.keeper.idle()
    return statistics.median(times)


def bare_fdatasync(folder: str, times: int = 500) -> list[float]:
    """Microseconds of one append of a journal-sized line and its fdatasync."""
    found = []
    fd = os.open(Path(folder) / "bare", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    line = b"x" * 700 + b"\n"
    for _ in range(times):
        start = time.perf_counter_ns()
        os.write(fd, line)
        os.fdatasync(fd)
        found.append((time.perf_counter_ns() - start) / 1e3)
    os.close(fd)
    return found


def peer() -> dict[str, Any] | None:
    """Run the peer's script and return its figures, or None where it is not installed."""
    python = os.environ.get("PEER_PYTHON")
    root = Path(__file__).parents[1]
    script = os.environ.get("PEER_SCRIPT", str(root / ".." / "shared/bench/bench_nautilus.py"))
    if python is None or not Path(script).exists():
        return None
    done = subprocess.run(
        [python, script, "--only", "live", "--n", "2000", "--reps", "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=2000)
    options = parser.parse_args()
    other = peer()
    with tempfile.TemporaryDirectory() as folder:
        gc.freeze()
        process = run(closed_loop(folder, "process", options.orders))
        syncs = bare_fdatasync(folder)
        power = run(closed_loop(folder, "power", options.orders // 2))
        syncs += bare_fdatasync(folder)
        rate = run(burst(folder, options.orders // 2))
        for name, values in (
            ("process: signal -> adapter", process["adapter"]),
            ("process: signal -> position event", process["event"]),
            ("power:   signal -> adapter", power["adapter"]),
            ("bare append + fdatasync", syncs),
        ):
            print(
                f"{name:36} p50 {percentile(values, 0.5):8.1f} us  p99 {percentile(values, 0.99):8.1f} us"
            )
        print(f"{'power: 64 symbols at once':36} {rate:8.0f} orders/s")
        ratio50 = percentile(power["adapter"], 0.5) / percentile(syncs, 0.5)
        ratio99 = percentile(power["adapter"], 0.99) / percentile(syncs, 0.99)
        print(f"P3 {ratio50:.2f}x p50 (goal 2.0), {ratio99:.2f}x p99 (goal 2.5)")
        if other is None:
            print("P1, P2, P4: no peer installed (see the head of this file)")
        else:
            report_peer(other, process, rate)
        for count in (1, 100, 10_000):
            value = run(beside_open_orders(folder, count, 200))
            print(f"signal -> adapter beside {count:6} open orders: p50 {value:8.1f} us")


def report_peer(other: dict[str, Any], process: dict[str, list[float]], rate: float) -> None:
    """Print P1, P2 and P4."""
    closed = other["live_closed"]
    adapter, event = closed["signal_to_adapter_us"], closed["submit_to_position_event_us"]
    burst_rate = other["live_burst"]["orders_per_s"]
    print(
        f"peer: signal -> adapter p50 {adapter['p50']} us p99 {adapter['p99']} us, -> position event "
        f"p50 {event['p50']} us, burst {burst_rate} orders/s (it writes no intent)"
    )
    ratio50 = percentile(process["adapter"], 0.5) / adapter["p50"]
    ratio99 = percentile(process["adapter"], 0.99) / adapter["p99"]
    print(f"P1 {ratio50:.2f}x p50 (goal 0.5), {ratio99:.2f}x p99 (goal 0.75)")
    print(f"P2 {percentile(process['event'], 0.5) / event['p50']:.2f}x p50 (goal 0.6)")
    print(f"P4 {rate / burst_rate:.2f}x (goal 1.5)")


if __name__ == "__main__":
    main()

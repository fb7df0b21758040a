"""P6, P7: bar closes in real time, with ticks and orders flowing; evaluations per second; memory; ticks into bars.

    python benchmarks/bar_close.py [--rounds 5]

The wall clock is shifted so that a Monday's midnight UTC, at which bars of every timeframe close together, comes a
moment after everything is ready; nothing else is simulated. Streams are symbols times 1m, 5m, 15m, 1h and 1d. A close
counts as done when an execution function has been given its context and has answered. For P7 the peer is measured by
its own script, see benchmarks/orders.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import subprocess
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import structlog
from orders import SYMBOLS, engine_on, entry, exit_, percentile, refresh, run
from stub import StubExchange

from execkit.bars.aggregate import BarAggregator
from execkit.bars.builder import TradeBars
from execkit.bars.cache import MarketDataCache
from execkit.bars.closes import BarCloseEvent
from execkit.bars.detector import BarCloseDetector
from execkit.bars.feed import BarFeed
from execkit.bars.runner import BarRunner
from execkit.functions.base import ExecutionContext, ExecutionSignal
from execkit.functions.builtin import standard_registry
from execkit.model.account import AccountView
from execkit.model.capabilities import Capabilities
from execkit.model.market import BarData, Timeframe, Trade
from execkit.orders.book import Book
from execkit.plans import TradePlan

FRAMES = [Timeframe.M1, Timeframe.M5, Timeframe.M15, Timeframe.H1, Timeframe.D1]
MIDNIGHT = datetime(2024, 1, 8, tzinfo=UTC)
ACCOUNT = AccountView("USDT", Decimal(10_000), Decimal(10_000), Decimal(0))
ONE = Decimal(1)


class ShiftedClock:
    """The machine's clock, moved so that midnight comes in *seconds*."""

    def __init__(self, seconds: float) -> None:
        self._shift = MIDNIGHT - timedelta(seconds=seconds) - datetime.now(UTC)

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time(), UTC) + self._shift


class Ticker(StubExchange):
    """A venue whose trades flow: *rate* a second, spread over the symbols."""

    def __init__(self, symbols: list[str], clock: ShiftedClock, rate: int) -> None:
        super().__init__()
        self._capabilities = Capabilities(
            order_stream=False, trade_stream=True, bar_history=True, short_selling=True
        )
        self.symbols = symbols
        self.clock = clock
        self.rate = rate
        self.delays: deque[float] = deque()

    async def bars(
        self, symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime | None = None
    ) -> Sequence[BarData]:
        if timeframe is not Timeframe.M1:
            return []
        # The day's first minute and the last hour: so each bar under way is known from its beginning.
        minutes = [1, *range(1440 - 60, 1440)]
        begun = MIDNIGHT - timedelta(days=1)
        price = Decimal(100)
        return [
            BarData(
                symbol, timeframe, begun + timedelta(minutes=m), price, price, price, price, ONE
            )
            for m in minutes
        ]

    async def watch_trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:  # type: ignore[override]
        pause = 0.005
        at_once = max(1, int(self.rate * pause))
        number = 0
        # First one of each symbol, so that every bar has something in it.
        for symbol in symbols:
            yield Trade(symbol, Decimal(100), ONE, self.clock.now())
        while True:
            due = time.perf_counter() + pause
            await asyncio.sleep(pause)
            self.delays.append(time.perf_counter() - due)
            for _ in range(at_once):
                number += 1
                price = Decimal(100) + Decimal(number % 97) / 100
                yield Trade(symbols[number % len(symbols)], price, ONE, self.clock.now())


class Above:
    """A small execution function: is the close above a level, and was the one before it not?"""

    answer = ExecutionSignal.none("below")

    async def evaluate(self, context: ExecutionContext) -> ExecutionSignal:
        if context.bar.close > 1_000 and context.history[-2].close <= 1_000:
            raise AssertionError("the benchmark's prices do not rise so far")
        return self.answer


async def orders_beside(latencies: list[float], folder: str, stop: asyncio.Event) -> None:
    """Send an order every few milliseconds, as a strategy would, and time it up to the adapter."""
    engine, venue = engine_on(folder, "process")
    number = 0
    async with engine:
        while not stop.is_set():
            number += 1
            symbol = SYMBOLS[number % len(SYMBOLS)]
            refresh(engine, [symbol])
            start = time.perf_counter_ns()
            result = await engine.submit(entry(symbol))
            latencies.append((venue.seen[result.client_order_ids[-1]] - start) / 1e6)
            await engine.desk.keeper.idle()
            await engine.submit(exit_(symbol))
            await engine.desk.keeper.idle()
            await asyncio.sleep(0.005)


async def one_boundary(streams: int, rate: int, folder: str) -> dict[str, list[float]]:
    """Let *streams* close together once, and return milliseconds after the true close."""
    symbols = [f"S{n}/USDT" for n in range(max(1, streams // len(FRAMES)))]
    clock = ShiftedClock(4 + streams / 2_500)
    venue = Ticker(symbols, clock, rate)
    feed = BarFeed(venue, symbols, timeframes=FRAMES, clock=clock, backfill=60)
    called: list[timedelta] = []
    done: list[float] = []
    function = Above()
    everything = asyncio.Event()

    cpu: list[float] = []

    async def evaluate(event: BarCloseEvent) -> None:
        if not called:
            cpu.append(time.thread_time())
        assert event.bar is not None, "every stream has traded"
        history = feed.cache.history(event.symbol, event.timeframe, event.close_time)
        context = ExecutionContext(
            plan="bench",
            symbol=event.symbol,
            timeframe=event.timeframe,
            bar=event.bar,
            history=history,
            parameters=None,
            position=None,
            account=ACCOUNT,
            timestamp=event.close_time + event.lateness,
        )
        await function.evaluate(context)
        called.append(event.lateness)
        done.append(time.perf_counter())
        if len(done) == len(symbols) * len(FRAMES):
            cpu.append(time.thread_time())
            everything.set()

    detector = BarCloseDetector(feed, clock=clock)
    feed.on_data = detector.deliver
    detector.watch(symbols, FRAMES, evaluate)
    orders: list[float] = []
    stop = asyncio.Event()
    await feed.start()
    for market in feed._markets.values():
        market.whole_from = MIDNIGHT - timedelta(minutes=1)  # as if it had run for that long
    await detector.start()
    gc.collect()
    gc.freeze()
    beside = asyncio.create_task(orders_beside(orders, folder, stop))
    await asyncio.wait_for(everything.wait(), 60)
    await asyncio.sleep(0.05)
    stop.set()
    await beside
    await detector.stop()
    await feed.stop()
    midnight = time.perf_counter() - (clock.now() - MIDNIGHT).total_seconds()
    assert min(called) >= timedelta(0), "never early"
    assert detector.stats.count == len(done), "every close once"
    return {
        "first": [called[0].total_seconds() * 1e3],
        "called": [late.total_seconds() * 1e3 for late in called],
        "done": [(at - midnight) * 1e3 for at in done],
        "cpu": [(cpu[1] - cpu[0]) * 1e3],
        "order": orders,
        "tick": [delay * 1e3 for delay in venue.delays],
    }


def lateness(rounds: int, rate: int) -> None:
    """Print how late closes are called and done, for each number of streams."""
    print(f"lateness after the true close, ms; {rate} trades/s and orders flow beside")
    for streams in (100, 1_000, 10_000):
        rows = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(run(one_boundary(streams, rate, folder)))
            gc.unfreeze()
        first = [value for row in rows for value in row["first"]]
        print(
            f"  {streams:6} streams: first call p50 {percentile(first, 0.5):.2f} max {max(first):.2f}; "
            + "; ".join(
                f"{name} p50 {percentile(values, 0.5):.2f} p99 {percentile(values, 0.99):.2f} max {max(values):.2f}"
                for name in ("called", "done")
                for values in [[v for row in rows for v in row[name]]]
            )
        )
        last = [max(row["done"]) for row in rows]
        busy = [value for row in rows for value in row["cpu"]]
        print(
            f"          last evaluation done: median {statistics.median(last):.2f} worst {max(last):.2f}; "
            f"on the CPU from first to last: median {statistics.median(busy):.2f}"
        )
        for name, text in (("order", "order to adapter"), ("tick", "loop behind for ticks")):
            values = [v for row in rows for v in row[name]]
            print(
                f"          {text}: p50 {percentile(values, 0.5):.2f} p99 {percentile(values, 0.99):.2f} "
                f"max {max(values):.2f}"
            )
        if streams == 10_000:
            p99s = statistics.median(percentile(row["done"], 0.99) for row in rows)
            print(
                f"P6 p99 {p99s:.1f} ms (goal 40), first callback p50 {percentile(first, 0.5):.2f} ms (goal 1.5)"
            )


def minutes(symbol: str, count: int) -> Iterator[BarData]:
    """Yield bars up to midnight."""
    for n in range(count):
        price = Decimal(100) + Decimal(n % 7)
        at = MIDNIGHT - timedelta(minutes=count - 1 - n)
        yield BarData(symbol, Timeframe.M1, at, price, price + 1, price - 1, price, ONE)


async def evaluations(symbols: int) -> float:
    """Return evaluations per second of whole plans: built-in functions, contexts, decisions, records."""
    frames = ["1m", "5m", "15m", "30m", "1h"]
    rules = [
        {"function": "close_above", "timeframe": t, "parameters": {"threshold_price": 10_000}}
        for t in frames
    ]
    names = [f"S{n}/USDT" for n in range(symbols)]
    clock = ShiftedClock(-1)
    book = Book()
    records = []
    runner = BarRunner(
        registry=standard_registry(clock=clock),
        plans=[TradePlan(name=f"p{n}", symbol=name, entry=rules) for n, name in enumerate(names)],
        cache=MarketDataCache(),
        book=book,
        submit=None,  # type: ignore[arg-type]
        record=lambda record: (records.append(record), book.apply(record, MIDNIGHT)),
        account=lambda: ACCOUNT,
        clock=clock,
    )
    last = []
    for name in names:
        bars = list(minutes(name, 24 * 60))
        runner.warm_up(bars[:-1])
        last.append(bars[-1])
    gc.collect()
    start = time.perf_counter()
    for bar in last:
        await runner.on_bar(bar)
    seconds = time.perf_counter() - start
    asked = sum(use.evaluations for use in runner.health)
    assert asked == symbols * len(frames), asked
    return asked / seconds


def memory(streams: int) -> tuple[float, float]:
    """Return kilobytes per stream, without history and with 1,000 bars of each."""
    tracemalloc.start()
    detector = BarCloseDetector(clock=ShiftedClock(60))
    detector.watch([f"S{n}/USDT" for n in range(streams)], "1m", lambda _event: None)
    builders = [(TradeBars(f"S{n}"), BarAggregator(Timeframe.M1, FRAMES)) for n in range(streams)]
    bare = tracemalloc.get_traced_memory()[0] / streams / 1024
    cache = MarketDataCache()
    for n in range(streams):
        for bar in minutes(f"S{n}/USDT", 1000):
            cache.append(bar)
    full = tracemalloc.get_traced_memory()[0] / streams / 1024
    tracemalloc.stop()
    assert len(detector) == len(builders) == streams
    return bare, full


def ticks(count: int = 20_000) -> float:
    """Return microseconds per trade into bars of 1m, 5m, 15m and 1h; the peer's ticks: two a second."""
    start = MIDNIGHT
    trades = [
        Trade(
            "S/USDT",
            Decimal(50_000) + Decimal(n % 97) / 10,
            Decimal("0.010"),
            start + timedelta(milliseconds=500 * n),
        )
        for n in range(count)
    ]
    builder = TradeBars("S/USDT")
    longer = BarAggregator(Timeframe.M1, FRAMES[:4])
    end = start + timedelta(minutes=1)
    made = 0
    begun = time.perf_counter()
    for trade in trades:
        if trade.at >= end:
            bar = builder.close(end)
            assert bar is not None, "two trades a second"
            made += 1 + len(longer.add(bar))
            end += timedelta(minutes=1)
        builder.add(trade)
    seconds = time.perf_counter() - begun
    assert made > count // 120, made
    return seconds / count * 1e6


def peer() -> float | None:
    """Return the peer's microseconds per tick, or None where it is not installed."""
    python = os.environ.get("PEER_PYTHON")
    root = Path(__file__).parents[1]
    script = os.environ.get("PEER_SCRIPT", str(root / ".." / "shared/bench/bench_nautilus.py"))
    if python is None or not Path(script).exists():
        return None
    done = subprocess.run(
        [python, script, "--only", "agg", "--reps", "5"],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return float(figures["agg_1m5m15m1h"]["us_per_tick_net"])


def main() -> None:
    """Measure and print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trades", type=int, default=2_000, help="trades a second")
    options = parser.parse_args()
    lateness(options.rounds, options.trades)
    for symbols in (100, 1_000):
        rate = run(evaluations(symbols))
        print(
            f"whole plans, {symbols} symbols x 5 timeframes at once: {rate:.0f} evaluations/s, "
            f"{rate * 60:.0f} a minute (floor 1,000)"
        )
    bare, full = memory(200)
    print(f"memory per stream: {bare:.1f} kB, with 1,000 bars kept {full:.0f} kB")
    ours = statistics.median(ticks() for _ in range(5))
    other = peer()
    if other is None:
        print(
            f"P7 {ours:.2f} us per tick; no peer installed (see the head of benchmarks/orders.py)"
        )
    else:
        print(f"P7 {ours:.2f} us per tick, peer {other:.2f}: {ours / other:.2f}x (goal 0.5)")


if __name__ == "__main__":
    main()

"""What a durable record costs: append and commit, beside one bare fdatasync of the same disk in the same run.

    python benchmarks/journal.py [--rounds 20] [--folder .]

The three are measured in turns, because a disk's speed changes from second to second.
"""

import argparse
import asyncio
import os
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from execkit.clock import SystemClock
from execkit.journal.file import FileJournal
from execkit.journal.lines import encode
from execkit.model.order import OrderRequest, OrderRole, OrderType, Side
from execkit.model.records import Entry, Intent

AT = datetime(2024, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
REQUEST = OrderRequest(
    client_order_id="xkabcdefghijklmnopqrstuvwx",
    symbol="BTC/USDT",
    side=Side.BUY,
    type=OrderType.LIMIT,
    quantity=Decimal("0.0123"),
    limit_price=Decimal("42000.5"),
)
RECORD = Intent(
    request=REQUEST,
    payload_hash="a" * 24,
    role=OrderRole.ENTRY,
    parent="s" * 24,
    signal_id="s" * 24,
    signal_digest="d" * 24,
    worst_price=Decimal(42100),
    expected_price=Decimal(42000),
    stop_loss=Decimal(41000),
    take_profit=Decimal(44000),
    strength=Decimal(80),
)
LINE = b"x" * (len(encode(Entry(1, AT, RECORD))) + 44)
EACH_ROUND = 50
WAITERS = 64


def quantile(seconds, part):
    ordered = sorted(seconds)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1e6


async def timed(action, times):
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        await action()
        taken.append(time.perf_counter() - start)
    return taken


def appends(journal):
    """Time of one append, from a few at a time so that none is written."""
    taken = []
    for _ in range(EACH_ROUND):
        start = time.perf_counter()
        for _ in range(10):
            journal.append(RECORD, AT)
        taken.append((time.perf_counter() - start) / 10)
    return taken


async def measure(folder, rounds):
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    journals = {
        durability: FileJournal.open(
            folder / durability / "orders.db",
            account="bench",
            clock=SystemClock(),
            durability=durability,
        )
        for durability in ("process", "power")
    }

    async def bare():
        os.write(fd, LINE)
        os.fdatasync(fd)

    def commit(durability):
        journal = journals[durability]

        async def action():
            journal.append(RECORD, AT)
            await journal.commit()

        return action

    async def together():
        await asyncio.gather(*(commit("power")() for _ in range(WAITERS)))

    taken = {name: [] for name in ("bare", "append", "process", "power", "together")}
    for _ in range(rounds):
        taken["bare"] += await timed(bare, EACH_ROUND)
        taken["append"] += appends(journals["process"])
        await journals["process"].commit()
        taken["process"] += await timed(commit("process"), EACH_ROUND)
        taken["power"] += await timed(commit("power"), EACH_ROUND)
        taken["together"] += await timed(together, EACH_ROUND // 5)
    for journal in journals.values():
        await journal.close()
    os.close(fd)
    return taken


def show(taken):
    rows = {
        "bare": "bare write + fdatasync",
        "append": "append",
        "process": "append + commit, process",
        "power": "append + commit, power",
        "together": f"{WAITERS} x append + commit at once, power",
    }
    table = Table(title="Journal, microseconds")
    for head in ("what", "p50", "p99", "p50 ÷ bare", "p99 ÷ bare"):
        table.add_column(head, justify="left" if head == "what" else "right")
    for name, title in rows.items():
        middle, high = quantile(taken[name], 0.5), quantile(taken[name], 0.99)
        table.add_row(
            title,
            f"{middle:.1f}",
            f"{high:.1f}",
            f"{middle / quantile(taken['bare'], 0.5):.2f}",
            f"{high / quantile(taken['bare'], 0.99):.2f}",
        )
    console = Console()
    console.print(table)
    rate = WAITERS / quantile(taken["together"], 0.5) * 1e6
    console.print(f"{rate:,.0f} power-safe records a second with {WAITERS} waiting at once")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path(), help="where on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        show(asyncio.run(measure(Path(folder), options.rounds)))


if __name__ == "__main__":
    main()

"""Kill a replay with SIGKILL at random instants, start it again, and compare what it comes to with an undisturbed run.

    python benchmarks/kill_replay.py [--kills 60] [--bars 1500] [--seed 1]

Three kinds of instant are drawn: before, in the middle of or after any write to a file (the process kills itself
there); the same among the writes that have to do with orders; and any moment at all (the process is killed from
outside). Every fourth case is killed once more while it recovers. Exit code 1 when anything differs.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import structlog

from execkit.cli.prices import bars_along
from execkit.exchanges.paper import PaperExchange
from execkit.journal.segments import read_entries, verify
from execkit.plans import TradePlan
from execkit.replay import replay
from execkit.report.summary import Summary

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
START = datetime(2024, 1, 1, tzinfo=UTC)
PLAN = TradePlan(
    name="kills",
    symbol="BTC/USDT",
    entry=[
        {
            "function": "close_above",
            "timeframe": "5m",
            "parameters": {"threshold_price": Decimal(40_000)},
        }
    ],
    exit=[
        {
            "function": "trailing_stop",
            "timeframe": "1m",
            "parameters": {"trail_percentage": Decimal("0.6")},
        },
        {
            "function": "close_below",
            "timeframe": "5m",
            "parameters": {"threshold_price": Decimal(39_900)},
        },
    ],
    risk={"stop_loss_pct": Decimal("0.5"), "take_profit_r": Decimal(2)},
    bars={"label": "close"},
)


def all_bars(count, seed):
    path = [
        (minute, 39_700 + (600 if minute // 30 % 2 else 0)) for minute in range(0, count + 30, 30)
    ]
    bars = bars_along("BTC/USDT", path, start=START, tick=Decimal(1), noise=60, seed=seed)
    return list(bars)[:count]


def venue(clock):
    return PaperExchange(
        balances={"USDT": Decimal(10_000)}, spread_bps=Decimal(1), clock=clock, name="kills"
    )


# -- the process that is killed ------------------------------------------------------------------------


def run(place, count, seed, kill_at, phase):
    """Replay; the write number *kill_at* is the last thing that happens. Without it the writes are listed."""
    number, kinds, write = 0, [], os.write

    def counted(fd, data):
        nonlocal number
        number += 1
        if kill_at is None:
            kinds.append(b'"do":"bar"' not in data and b'"kind":"bar"' not in data)
        elif number == kill_at:
            if phase != "before":
                write(fd, data[: len(data) // 2] if phase == "middle" else data)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(fd, data)

    print("ready", flush=True)
    os.write = counted
    replay([PLAN], all_bars(count, seed), exchange=venue, journal=place / "orders.db")
    os.write = write
    print(json.dumps([at + 1 for at, about_orders in enumerate(kinds) if about_orders]))
    print(number)


def child(place, args, kill_at=None, phase="none", delay=None):
    """Run a process, kill it after *delay* seconds if it still runs then, and return its exit code and output."""
    command = [sys.executable, __file__, "--child", str(place), "--bars", str(args.bars)]
    command += ["--seed", str(args.seed), "--kill-at", str(kill_at or 0), "--phase", phase]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if delay is not None:
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
    output, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the replay failed:\n{errors}")
    return process.returncode, output


# -- the comparison ------------------------------------------------------------------------------------


def outcome(place):
    """Return the orders that were executed, the others, and where the account stands."""
    verify(place / "orders.db")
    told = Summary.of(read_entries(place / "orders.db")).to_dict()
    fills = {}
    for fill in told["fills"]:
        fills.setdefault(fill["client_order_id"], []).append(fill)
    terms = ("client_order_id", "role", "side", "type", "quantity", "limit_price", "stop_price")
    executed, others = [], {}
    for order in told["orders"]:
        row = [order[term] for term in terms]
        if order["client_order_id"] in fills:
            executed.append([row, order["state"], fills[order["client_order_id"]]])
        else:
            others[order["client_order_id"]] = [row, order["state"]]
    return {
        "executed": executed,
        "others": others,
        "positions": told["positions"],
        "pnl": told["pnl"],
    }


def accepted_twice(place):
    """Count client order ids that the venue's ledger accepted more than once."""
    exchange = PaperExchange(balances={}, storage=place / "orders.db.paper", name="kills")

    async def ids():
        async with exchange:
            return [order.request.client_order_id for order in exchange.core.orders.values()]

    found = asyncio.run(ids())
    return len(found) - len(set(found))


def differences(expected, got):
    """Say what differs. An extra stop that was never executed is none: after a kill between the cancel of a stop
    and the exit, the position is protected again before anything else.
    """
    found = [key for key in ("executed", "positions", "pnl") if expected[key] != got[key]]
    missing = expected["others"].keys() - got["others"].keys()
    changed = [key for key, row in expected["others"].items() if got["others"].get(key, row) != row]
    extra = [row for key, row in got["others"].items() if key not in expected["others"]]
    wrong = [row for row, state in extra if row[1] != "stop" or state != "cancelled"]
    found += [f"missing {sorted(missing)}"] * bool(missing) + [f"changed {changed}"] * bool(changed)
    found += [f"unexpected {wrong}"] * bool(wrong)
    return found, len(extra)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--bars", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-at", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        return run(args.child, args.bars, args.seed, args.kill_at or None, args.phase)
    rng, began = random.Random(args.seed), time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="kill-replay-"))
    (root / "calm").mkdir()
    start = time.monotonic()
    _, output = child(root / "calm", args)
    seconds = time.monotonic() - start
    writes, about_orders = int(output.splitlines()[-1]), json.loads(output.splitlines()[-2])
    expected = outcome(root / "calm")
    print(
        f"undisturbed: {args.bars} bars, {len(expected['executed'])} orders executed, "
        f"{len(expected['others'])} others, {writes} writes, {len(about_orders)} about orders"
    )
    kills = failures = extras = twice = cases = 0
    while kills < args.kills:
        place = root / f"case{cases}"
        place.mkdir()
        marks = []
        for _ in range(2 if cases % 4 == 3 else 1):
            kind = ("order", "write", "order", "moment")[cases % 4]
            phase = rng.choice(("before", "middle", "after"))
            if marks:
                at, delay = rng.randint(1, 40), None
            elif kind == "moment":
                at, delay = None, rng.uniform(0, seconds / 2)
            else:
                at, delay = (
                    rng.choice(about_orders) if kind == "order" else rng.randint(1, writes),
                    None,
                )
            code, _ = child(place, args, at, phase if at else "none", delay)
            if code == -signal.SIGKILL:
                kills += 1
            marks.append(f"write {at} {phase}" if at else f"after {delay:.3f} s")
        child(place, args)
        wrong, extra = differences(expected, outcome(place))
        extras += extra
        doubled = accepted_twice(place)
        twice += doubled
        if wrong or doubled:
            failures += 1
            print(
                f"DIFFERENT in {place} (killed at {', '.join(marks)}): {wrong}, {doubled} ids twice"
            )
        else:
            shutil.rmtree(place)
        cases += 1
    print(
        f"{kills} kills in {cases} replays: {failures} came to something else, {twice} client order ids accepted "
        f"twice, {extras} stops placed again and cancelled unexecuted; {time.monotonic() - began:.0f} s"
    )
    if not failures:
        shutil.rmtree(root)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

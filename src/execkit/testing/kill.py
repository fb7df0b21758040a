"""Real SIGKILL on a file journal: a replay is killed at writes, started again, and must come to the same end.

`python -m execkit.testing.kill --kills 300` forks children from a parent that has imported everything. A child kills
itself before, in the middle of or after a write to a file: any one, or one that has to do with orders. Every fourth
is killed once more while it recovers. Then the replay runs to its end: the same orders, executions, positions and
result as without kills, no client order id sent twice, and a journal that verifies. The venue of the campaign would
accept an id again once its order has ended, as Binance spot does, and keeps every request in its file, so a resend is
seen whatever became of it. `execkit.testing.documents` checks the two files of every run for themselves.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import attrs
import click

from execkit.clock import Clock
from execkit.exchanges.paper import PaperExchange
from execkit.journal.segments import read_entries, verify
from execkit.model.market import BarData, Timeframe
from execkit.plans import TradePlan
from execkit.replay import replay
from execkit.report.summary import Summary
from execkit.testing.documents import Ledger, check_files, read_ledger, unjournalled
from execkit.testing.simulate import quiet

SYMBOL: Final = "BTC/USDT"
PHASES: Final = ("before", "middle", "after")
_START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_NAME: Final = "kills"
_LEDGER: Final = "orders.db.paper"
_MOST_IN_RECOVERY: Final = 40
"""The second kill comes at one of so many first writes of the recovery."""


def plan() -> TradePlan:
    """Return a plan that trades often: entries on a level, exits by stop, target, trail and level."""
    return TradePlan.model_validate(
        {
            "name": _NAME,
            "symbol": SYMBOL,
            "entry": [_function("close_above", "5m", threshold_price=Decimal(40_000))],
            "exit": [
                _function("trailing_stop", "1m", trail_percentage=Decimal("0.6")),
                _function("close_below", "5m", threshold_price=Decimal(39_900)),
            ],
            "risk": {"stop_loss_pct": Decimal("0.5"), "take_profit_r": Decimal(2)},
            "bars": {"label": "close"},
        }
    )


def _function(name: str, timeframe: str, **parameters: Decimal) -> dict[str, Any]:
    return {"function": name, "timeframe": timeframe, "parameters": parameters}


def bars(count: int, rng: random.Random) -> Iterator[BarData]:
    """Yield one-minute bars that swing between 39,700 and 40,300 every half hour, with noise."""
    price = Decimal(39_700)
    for minute in range(count):
        aim = 39_700 if minute // 30 % 2 else 40_300
        close = price + (Decimal(aim) - price) / 15 + rng.randint(-60, 60)
        close = close.quantize(Decimal(1))
        high, low = max(price, close) + rng.randint(0, 30), min(price, close) - rng.randint(0, 30)
        at = _START + timedelta(minutes=minute + 1)
        yield BarData(SYMBOL, Timeframe.M1, at, price, high, low, close, Decimal(50))
        price = close


# -- the process that is killed ------------------------------------------------------------------------


@attrs.frozen
class Kill:
    """Where a process ends: at its write number *at*, from 1; 0 lets it live."""

    at: int = 0
    phase: str = "before"


@attrs.frozen
class Setting:
    """What every process of a run has in common."""

    count: int
    seed: int

    def play(self, folder: Path) -> None:
        """Replay to the end, from wherever an earlier process has stopped."""

        def venue(clock: Clock) -> PaperExchange:
            exchange = PaperExchange(
                balances={"USDT": Decimal(10_000)}, spread_bps=Decimal(1), clock=clock, name=_NAME
            )
            exchange.core.ids_unique_for_ever = False
            return exchange

        history = list(bars(self.count, random.Random(self.seed)))
        replay([plan()], history, exchange=venue, journal=folder / "orders.db")

    def fork(self, folder: Path, kill: Kill | None = None, *, listed: Path | None = None) -> bool:
        """Run a process to its end, and return whether that was its kill; *listed* takes the kinds of its writes."""
        folder.mkdir(exist_ok=True)
        child = os.fork()
        if child == 0:
            _live(self, folder, kill or Kill(), listed)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return True
        if status:
            raise RuntimeError(f"the replay in {folder} failed with status {status}")
        return False


def _live(setting: Setting, folder: Path, kill: Kill, listed: Path | None) -> None:
    """Be the child; never returns."""
    kinds: list[str] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        about_bars = b'"do":"bar"' in data or b'"kind":"bar"' in data
        kinds.append("b" if about_bars else "o")
        if len(kinds) == kill.at:
            if kill.phase != "before":
                write(fd, data[: len(data) // 2] if kill.phase == "middle" else data)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(fd, data)

    status = 1
    try:
        os.write = counted  # type: ignore[assignment]
        setting.play(folder)
        if listed is not None:
            listed.write_text("".join(kinds), encoding="ascii")
        status = 0
    except BaseException:  # noqa: BLE001 - the parent only sees the status
        traceback.print_exc()
    finally:
        os._exit(status)


# -- the comparison ------------------------------------------------------------------------------------


def outcome(folder: Path) -> dict[str, Any]:
    """Return the orders that were executed, the others, and where the account stands. The journal must verify."""
    verify(folder / "orders.db")
    told = Summary.of(read_entries(folder / "orders.db")).to_dict()
    fills: dict[str, list[Any]] = {}
    for fill in told["fills"]:
        fills.setdefault(fill["client_order_id"], []).append(fill)
    terms = ("client_order_id", "role", "side", "type", "quantity", "limit_price", "stop_price")
    executed, others = [], {}
    for order in told["orders"]:
        row = [order[term] for term in terms]
        key = order["client_order_id"]
        if key in fills:
            executed.append([row, order["state"], fills[key]])
        else:
            others[key] = [row, order["state"]]
    return {"executed": executed, "others": others} | {k: told[k] for k in ("positions", "pnl")}


def settled(folder: Path) -> Ledger:
    """Return the venue's file of a run that has ended, with all of it in its account."""
    exchange = PaperExchange(balances={}, storage=folder / _LEDGER, name=_NAME)

    async def start() -> None:
        async with exchange:
            pass

    asyncio.run(start())
    return read_ledger(folder / _LEDGER)


@attrs.define
class Twice:
    """What came to the venue twice."""

    accepted: int = 0
    sent: int = 0

    @classmethod
    def found(cls, lives: Sequence[Ledger], end: Ledger) -> Twice:
        """Count ids that were accepted twice, and requests with an id that the venue had seen before, in any life."""
        final = Counter(order.client_order_id for order in end.orders)
        again = 0
        for ledger in lives:
            # Each start folds what came before into the orders at the top of the file.
            seen = {order.client_order_id for order in ledger.orders}
            for client_order_id in ledger.placed:
                again += client_order_id in seen
                seen.add(client_order_id)
        return cls(sum(count - 1 for count in final.values()), again)


def differences(expected: dict[str, Any], got: dict[str, Any]) -> tuple[list[str], int]:
    """Return what differs, and how many stops were placed again.

    An extra stop that was cancelled unexecuted is no difference: after a kill between the cancel of a stop and the
    exit, the position is protected again before anything else.
    """
    found = [key for key in ("executed", "positions", "pnl") if expected[key] != got[key]]
    missing = expected["others"].keys() - got["others"].keys()
    changed = [key for key, row in expected["others"].items() if got["others"].get(key, row) != row]
    extra = [row for key, row in got["others"].items() if key not in expected["others"]]
    wrong = [row for row, state in extra if row[1] != "stop" or state != "cancelled"]
    found += [f"missing {sorted(missing)}"] if missing else []
    found += [f"changed {changed}"] if changed else []
    found += [f"unexpected {wrong}"] if wrong else []
    return found, len(extra)


# -- many of them --------------------------------------------------------------------------------------


@attrs.define
class KillReport:
    """What the kills came to."""

    kills: int = 0
    replays: int = 0
    in_recovery: int = 0
    doubled: int = 0
    """Client order ids that the venue accepted twice."""
    resent: int = 0
    """Requests with a client order id that the venue had received before."""
    inconsistent: int = 0
    """Faults that the two files of a run show by themselves."""
    extra_stops: int = 0
    failures: list[str] = attrs.field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills in {self.replays} replays, {self.in_recovery} in recovery: "
            f"{len(self.failures)} came to something else, {self.doubled} ids accepted twice, "
            f"{self.resent} sent twice, {self.inconsistent} faults in the files alone, every journal verifies; "
            f"{self.extra_stops} stops were placed again and cancelled unexecuted"
        )


def kill_many(kills: int, folder: Path, *, count: int = 240, seed: int = 1) -> KillReport:
    """Kill so many times at points that *seed* draws; folders of failures are kept."""
    setting, rng, report = Setting(count, seed), random.Random(seed), KillReport()
    calm, listed = folder / "calm", folder / "writes"
    setting.fork(calm, listed=listed)
    kinds = listed.read_text(encoding="ascii")
    expected = outcome(calm)
    if len(expected["executed"]) < 4:
        raise RuntimeError("the undisturbed replay trades too little to show anything")
    while report.kills < kills:
        number = report.replays
        report.replays += 1
        place = folder / f"case{number}"
        marks = [_draw(kinds, rng, about_orders=number % 2 == 0)]
        if number % 4 == 3:
            marks.append(Kill(rng.randint(1, _MOST_IN_RECOVERY), rng.choice(PHASES)))
        lives: list[Ledger] = []
        early: list[str] = []
        for again, mark in enumerate((*marks, None)):
            died = setting.fork(place, mark)
            report.kills += died
            report.in_recovery += died and again > 0
            if (place / _LEDGER).exists():
                lives.append(read_ledger(place / _LEDGER))
                early += unjournalled(place / "orders.db", lives[-1])
        _judge(report, expected, place, marks, lives, early)
    return report


def _draw(kinds: str, rng: random.Random, *, about_orders: bool) -> Kill:
    chosen = [at for at, kind in enumerate(kinds, 1) if kind == "o" or not about_orders]
    return Kill(rng.choice(chosen), rng.choice(PHASES))


def _judge(
    report: KillReport,
    expected: dict[str, Any],
    place: Path,
    marks: Sequence[Kill],
    lives: Sequence[Ledger],
    early: Sequence[str],
) -> None:
    wrong, extra = differences(expected, outcome(place))
    end = settled(place)
    twice = Twice.found(lives, end)
    shown = [*early, *check_files(place / "orders.db", end)]
    report.extra_stops += extra
    report.doubled += twice.accepted
    report.resent += twice.sent
    report.inconsistent += len(shown)
    if wrong or shown or twice.accepted or twice.sent:
        report.failures.append(f"{place}, killed at {marks}: {wrong}, {twice}, {shown[:3]}")
    else:
        shutil.rmtree(place)


@click.command()
@click.option("--kills", default=300, show_default=True)
@click.option("--bars", "count", default=240, show_default=True, help="Length of a replay.")
@click.option("--seed", default=1, show_default=True)
def main(kills: int, count: int, seed: int) -> None:
    """Kill a replay again and again; end with 1 when one comes to another end."""
    folder = Path(tempfile.mkdtemp(prefix="execkit-kill-"))
    with quiet():
        report = kill_many(kills, folder, count=count, seed=seed)
    click.echo(str(report))
    for failure in report.failures:
        click.echo(f"DIFFERENT {failure}")
    if not report.failures:
        shutil.rmtree(folder)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()

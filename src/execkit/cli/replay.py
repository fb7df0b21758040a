"""`execkit replay`: a trade plan on a file of bars, through the whole chain with a full journal."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from execkit.bars.reader import read_bars
from execkit.clock import Clock
from execkit.exchanges.paper import PaperExchange
from execkit.functions.builtin import standard_registry
from execkit.journal.segments import read_entries
from execkit.model.market import BarData
from execkit.numbers import ZERO, plain
from execkit.orders.executions import split_symbol
from execkit.plans import PlanAccount, TradePlan
from execkit.replay import Replayed
from execkit.replay import replay as play
from execkit.report.summary import Summary
from execkit.report.terminal import ROWS, show

_STEP = 250
"""Bars between two steps of the progress bar."""


@click.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--bars", "bar_file", metavar="FILE", required=True, type=click.Path(path_type=Path))
@click.option(
    "--journal",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Keep the journal; the same command then goes on where it was stopped.",
)
@click.option("--store", is_flag=True, help="Bring FILE.sqlite up to the journal at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--rows", default=ROWS, show_default=True, help="Rows of each table, the newest.")
def replay(
    plan_file: Path,
    bar_file: Path,
    journal: Path | None,
    store: bool,
    as_json: bool,
    rows: int,
) -> None:
    """Run the trade plan PLAN on the bars of a .csv or .csv.gz file.

    The whole file is checked before the first bar is played. Money is never real: the venue is the paper exchange.
    """
    if store and journal is None:
        raise click.UsageError("--store needs --journal FILE: the store stands beside it")
    registry = standard_registry()
    plan = TradePlan.load(plan_file, functions=registry)
    plan.check_replay()
    total = sum(1 for _ in read_bars(bar_file, plan.bar_file()))
    keep = tempfile.TemporaryDirectory(prefix="execkit-") if journal is None else nullcontext()
    with keep as folder:
        path = Path(folder) / "replay.db" if folder is not None else journal
        assert path is not None, "one of the two is given"
        done = _play(plan, bar_file, path, total, store=store, kept=journal is not None)
        summary = Summary.of(read_entries(path), marks=done.book.marks)
    account = _account(plan)
    currency = account.currency or split_symbol(plan.symbol)[1]
    if as_json:
        click.echo(json.dumps(_as_object(plan, done, summary, currency), indent=2))
        return
    console = Console()
    show(
        console,
        summary,
        currency=currency,
        rows=rows,
        title=f"{plan.name} on {total:,} bars of {plan.symbol}",
    )
    console.print(f"trace hash {done.trace_hash}", highlight=False)


def _account(plan: TradePlan) -> PlanAccount:
    assert plan.account is not None, "check_replay() has asked for it"
    return plan.account


def _play(
    plan: TradePlan, bar_file: Path, journal: Path, total: int, *, store: bool, kept: bool
) -> Replayed:
    account, instrument = _account(plan), plan.instrument
    assert instrument is not None, "check_replay() has asked for it"

    def venue(clock: Clock) -> PaperExchange:
        return PaperExchange(
            balances=account.balances,
            instruments=[instrument.build(plan.symbol)],
            spread_bps=account.spread_bps,
            allow_short=bool(plan.risk.allow_short),
            clock=clock,
        )

    shown = _Shown(total)
    try:
        with shown.progress:
            return play(
                [plan],
                read_bars(bar_file, plan.bar_file()),
                exchange=venue,
                journal=journal,
                functions=standard_registry(),
                currency=account.currency,
                on_progress=shown.advance,
                store=store,
            )
    except KeyboardInterrupt:
        where = "before the first bar" if shown.last is None else f"at {shown.last:%Y-%m-%d %H:%M}"
        rest = f"{journal} is whole: run the same command to go on" if kept else "nothing is kept"
        click.echo(f"Stopped {where}; {rest}.", err=True)
        raise SystemExit(130) from None


class _Shown:
    """The progress bar, moved in steps: drawing costs more than a bar does."""

    def __init__(self, total: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("bars"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.last: datetime | None = None
        self._task = self.progress.add_task("replay", total=total)
        self._total = total
        self._count = 0

    def advance(self, bar: BarData) -> None:
        self.last = bar.close_time
        self._count += 1
        if self._count % _STEP == 0 or self._count == self._total:
            self.progress.update(
                self._task, completed=self._count, description=f"{bar.close_time:%Y-%m-%d %H:%M}"
            )


def _as_object(plan: TradePlan, done: Replayed, summary: Summary, currency: str) -> dict[str, Any]:
    told = summary.to_dict()
    told["pnl"]["equity_start"] = plain(summary.opening_equity or ZERO)
    told["pnl"]["equity_end"] = plain(summary.equity(currency))
    told["pnl"]["currency"] = currency
    return {
        "plan": plan.name,
        "trace_hash": done.trace_hash,
        "bars": done.bars,
        "resumed_at": None if done.resumed_at is None else done.resumed_at.isoformat(),
        **told,
    }

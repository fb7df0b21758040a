"""`execkit audit` and `execkit verify-audit`: why did it trade or not, and is the record of it whole?"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from execkit.audit.anchor import Anchor, read_anchors, write_anchor
from execkit.audit.entry import ExecutionLogEntry
from execkit.audit.export import as_text, row, write_csv, write_parquet
from execkit.audit.logger import ExecutionLogger
from execkit.audit.verify import verify_audit as check_audit
from execkit.clock import Clock, SystemClock
from execkit.errors import ConfigurationError
from execkit.functions.base import ExecutionAction
from execkit.numbers import plain

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_WIDTH = 200
_JOURNAL = click.argument(
    "journal", type=click.Path(path_type=Path), default=Path("orders.db"), required=False
)


def moment(text: str | None, clock: Clock) -> datetime | None:
    """Return what a person means by `30m`, `12h`, `7d`, a day in UTC, or a time with its zone."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([mhd])", text, re.ASCII)
    if match:
        return clock.now() - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"{text!r} is no time; write 30m, 12h, 7d, 2024-01-31 or 2024-01-31T09:30:00Z"
        ) from None
    if at.tzinfo is None and len(text) > len("2024-01-31"):
        raise click.UsageError(f"{text!r} has no time zone; add Z for UTC, or e.g. +01:00")
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


@click.command()
@_JOURNAL
@click.option("--symbol", help="Only this market.")
@click.option("--plan", help="Only this trade plan.")
@click.option("--function", help="Only this function.")
@click.option("--action", type=click.Choice([each.value for each in ExecutionAction]))
@click.option("--failed", is_flag=True, help="Only functions that gave no answer that counts.")
@click.option("--since", metavar="TIME", help="30m, 12h, 7d ago, a day, or a time with its zone.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--limit", type=click.IntRange(1), help="Only the newest; a table has 50 by default.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    default="table",
    show_default=True,
)
@click.option("--output", type=click.Path(path_type=Path), help="Write here instead of printing.")
def audit(
    journal: Path,
    form: str,
    output: Path | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    failed: bool,
    **query: str | None,
) -> None:
    """Show what the functions of JOURNAL (orders.db) were asked at bar closes, what they said and what came of it.

    Every line that is read is checked against its chain of hashes.
    """
    if form == "parquet" and output is None:
        raise click.UsageError("--format parquet needs --output FILE")
    clock = SystemClock()
    found = ExecutionLogger(journal).query_logs(
        since=moment(since, clock),
        until=moment(until, clock),
        failed=failed or None,
        limit=limit or (50 if form == "table" and output is None else None),
        **query,
    )
    if form == "parquet":
        assert output is not None, "asked above"
        write_parquet(found, output)
        return
    try:
        target = nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output}: cannot be written: {error.strerror}") from error
    with target as file:
        if form == "csv":
            write_csv(found, file)
        elif form == "json":
            json.dump([as_object(entry) for entry in found], file, indent=2)
            file.write("\n")
        else:
            # A pipe or a file has no width to keep to.
            width = None if output is None and sys.stdout.isatty() else _WIDTH
            _show(found, Console(file=file, width=width))


def as_object(entry: ExecutionLogEntry) -> dict[str, Any]:
    """Return an entry as JSON has it: exact numbers as text, nested values as they are."""
    values = {name: as_text(value) for name, value in row(entry).items()}
    return values | {
        "parameters": entry.parameters,
        "metadata": entry.metadata,
        "client_order_ids": list(entry.client_order_ids),
    }


def _show(found: list[ExecutionLogEntry], console: Console) -> None:
    if not found:
        console.print("Nothing matches.")
        return
    table = Table("close", "market", "plan", "function", "said", "why", "what came of it")
    for entry in found:
        # Text, not markup: what a function says may hold brackets.
        table.add_row(
            f"{entry.close_time:%Y-%m-%d %H:%M}",
            Text(f"{entry.symbol} {entry.timeframe}"),
            Text(entry.plan),
            Text(entry.function),
            _said(entry),
            Text(_printable(entry.reasoning)),
            Text(_printable(_became(entry))),
        )
    console.print(table)


def _said(entry: ExecutionLogEntry) -> str:
    if entry.failed:
        return "failed"
    if entry.skipped:
        return "skipped"
    return entry.action if entry.action == "none" else f"{entry.action} {plain(entry.confidence)}"


def _became(entry: ExecutionLogEntry) -> str:
    if entry.new_stop is not None and not entry.skipped:
        return f"stop to {plain(entry.new_stop)}"
    if entry.outcome is None:
        return "under way" if entry.signal_id else ""
    text = f"{entry.outcome.value}"
    if entry.average_price is not None:
        text += f" {plain(entry.filled)} @ {plain(round(entry.average_price, 8))}"
    return f"{text}: {entry.outcome_reason}" if entry.outcome_reason else text


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _see_on_disk(path: Path) -> None:
    # A power cut must not take away lines that an anchor knows of: a sound journal would look cut off.
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@click.command("verify-audit")
@_JOURNAL
@click.option(
    "--anchors",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Compare with the heads that were noted in FILE.",
)
@click.option("--note", is_flag=True, help="Note the head in the file of --anchors afterwards.")
@click.option("--partial", is_flag=True, help="Earlier segments are kept elsewhere.")
def verify_audit(journal: Path, anchors: Path | None, *, note: bool, partial: bool) -> None:
    """Find a record of JOURNAL (orders.db) that was edited, taken out, put in, moved or cut off.

    A chain alone cannot show that its end was cut off, or that all of it was written anew: keep the file of --anchors
    where whoever can write the journal cannot.
    """
    if note and anchors is None:
        raise click.UsageError("--note needs --anchors FILE")
    known: list[Anchor] = []
    if anchors is not None and (anchors.exists() or not note):
        known = read_anchors(anchors)
    found = check_audit(journal, known, is_partial=partial)
    whole = found.journal
    click.echo(
        f"{journal}: whole; records {whole.first_seq} to {whole.last_seq} in {whole.segments} segments, "
        f"{found.evaluations} evaluations"
    )
    if anchors is not None:
        click.echo(f"agrees with {found.anchors} anchors")
        if found.earlier_anchors:
            click.echo(f"{found.earlier_anchors} anchors are from before record {whole.first_seq}")
    if note and anchors is not None:
        _see_on_disk(journal)
        write_anchor(
            anchors, Anchor(SystemClock().now(), found.account, whole.last_seq, whole.head)
        )
    click.echo(f"head {whole.head} at record {whole.last_seq}")

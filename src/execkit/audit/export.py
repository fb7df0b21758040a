"""Evaluations as rows for other programs: CSV for spreadsheets, DataFrame and Parquet for analysis."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from execkit.audit.entry import ExecutionLogEntry
from execkit.errors import ConfigurationError
from execkit.numbers import plain

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS: Final = (
    *("seq", "place", "at", "plan", "symbol", "timeframe", "close_time"),
    *("open", "high", "low", "close", "volume", "bars"),
    *("position_id", "position_quantity", "position_price", "position_best", "position_stop"),
    *("currency", "equity", "cash", "reserved"),
    *("function", "parameters", "action", "confidence", "level", "reasoning", "metadata"),
    *("new_stop", "skipped", "failed", "duration_ms", "signal_id"),
    *("outcome", "outcome_reason", "client_order_ids", "filled", "average_price"),
)

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the start of a formula (OWASP, CSV injection)."""


def row(entry: ExecutionLogEntry) -> dict[str, Any]:
    """Return an entry as one flat row of `COLUMNS`: numbers exact, texts as they are, nested values as JSON."""
    position, account = entry.position, entry.account
    values = {
        "position_id": position and position.position_id,
        "position_quantity": position and position.quantity,
        "position_price": position and position.average_price,
        "position_best": position and position.best_price,
        "position_stop": position and position.stop_loss,
        "currency": account and account.currency,
        "equity": account and account.equity,
        "cash": account and account.cash,
        "reserved": account and account.reserved,
        "parameters": msgspec.json.encode(entry.parameters).decode(),
        "metadata": None
        if entry.metadata is None
        else msgspec.json.encode(entry.metadata).decode(),
        "level": entry.level.value,
        "duration_ms": Decimal(entry.duration // timedelta(microseconds=1)) / 1000,
        "outcome": None if entry.outcome is None else entry.outcome.value,
        "client_order_ids": " ".join(entry.client_order_ids),
    }
    return {name: values[name] if name in values else getattr(entry, name) for name in COLUMNS}


def as_text(value: Any) -> Any:
    """Return a value of a row so that nothing is lost: exact numbers without exponent, times as ISO 8601."""
    if isinstance(value, Decimal):
        return plain(value)
    return value.isoformat() if isinstance(value, datetime) else value


def escaped(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: foreign text that begins like one gets a `'` in front."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return as_text(value)


def write_csv(entries: Iterable[ExecutionLogEntry], file: IO[str]) -> None:
    """Write entries as CSV with a line of names; texts are escaped against formulas."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        writer.writerow({name: escaped(value) for name, value in row(entry).items()})


def to_frame(entries: Iterable[ExecutionLogEntry]) -> DataFrame:
    """Return entries as a pandas DataFrame; exact numbers stay `Decimal` objects.

    Raises `ConfigurationError` when pandas is not installed.
    """
    pandas = _pandas()
    frame: DataFrame = pandas.DataFrame([row(entry) for entry in entries], columns=list(COLUMNS))
    return frame


def write_parquet(entries: Iterable[ExecutionLogEntry], path: str | os.PathLike[str]) -> None:
    """Write entries as a Parquet file; exact numbers are text, as in the store.

    Raises `ConfigurationError` when pandas or pyarrow is not installed.
    """
    pandas = _pandas()
    rows = [
        {
            name: plain(value) if isinstance(value, Decimal) else value
            for name, value in each.items()
        }
        for each in map(row, entries)
    ]
    pandas.DataFrame(rows, columns=list(COLUMNS)).to_parquet(path, index=False)


def _pandas() -> Any:
    try:
        import pandas  # noqa: ICN001, PLC0415 - an extra
        import pyarrow  # noqa: F401, ICN001, PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed; run: pip install 'execkit[frames]'"
        ) from error
    return pandas

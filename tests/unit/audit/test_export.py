"""Exports lose nothing, and open in a spreadsheet without running anything."""

import csv
import io
from decimal import Decimal

import pytest

from execkit.audit import export
from execkit.audit.logger import ExecutionLogger
from execkit.errors import ConfigurationError


@pytest.fixture
def entries(memory):
    return ExecutionLogger(memory).query_logs()


def test_csv_has_every_column(entries):
    """Exact numbers are plain text, times are ISO 8601, nested values are JSON."""
    file = io.StringIO()
    export.write_csv(entries, file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert tuple(rows[0]) == export.COLUMNS
    entered, left = rows[2], rows[3]
    assert entered["close_time"] == "2024-01-01T00:02:00+00:00"
    assert (entered["confidence"], entered["level"], entered["duration_ms"]) == (
        "0.8",
        "high",
        "1.5",
    )
    assert (entered["outcome"], entered["average_price"]) == ("filled", "102")
    assert entered["parameters"] == '{"threshold_price":"100"}'
    assert (entered["position_id"], left["position_stop"]) == ("", "99")
    assert rows[5]["outcome"] == ""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1"])
def test_formulas_are_escaped(entries, text):
    """S18: text from outside never begins like a formula; numbers of ours may be negative."""
    assert export.escaped(text) == f"'{text}"
    assert export.escaped("a=1") == "a=1"
    assert export.escaped(Decimal(-1)) == "-1"


def test_no_cell_of_a_hostile_function_is_a_formula(entries):
    """The whole way: reasons as functions and exceptions give them."""
    from msgspec.structs import replace

    hostile = [replace(entry, reasoning="=HYPERLINK(1)", outcome_reason="@x") for entry in entries]
    file = io.StringIO()
    export.write_csv(hostile, file)
    for row in csv.reader(io.StringIO(file.getvalue())):
        assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in row)


def test_frames_and_parquet(entries, tmp_path):
    """The same rows for analysis: Decimals in a frame, text in a file."""
    pandas = pytest.importorskip("pandas")
    frame = export.to_frame(entries)
    assert list(frame.columns) == list(export.COLUMNS)
    assert frame["close"].tolist() == [Decimal(101)] * len(entries)
    path = tmp_path / "audit.parquet"
    export.write_parquet(entries, path)
    read = pandas.read_parquet(path)
    assert read["close"].tolist() == ["101"] * len(entries)
    assert read["close_time"].iloc[0] == entries[0].close_time
    assert read["skipped"].tolist() == [entry.skipped for entry in entries]
    export.write_parquet([], path)
    assert len(pandas.read_parquet(path)) == 0


def test_a_missing_extra_says_what_to_install(entries, monkeypatch):
    """One clear sentence at use."""
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError("no pandas", name="pandas")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigurationError, match=r"pandas is not installed; run: pip install 'execkit\[frames\]'"
    ):
        export.to_frame(entries)

"""A bar file is read as it was said to be, or refused with file, line and fix."""

import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.bars.reader import BarFileSpec, read_bars
from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe

HEAD = "timestamp,open,high,low,close,volume"
SPEC = BarFileSpec(symbol="BTC/USDT", label="close", timezone="UTC")


def row(minute, text="100,101,99,100.5,7"):
    return f"2022-01-01 00:{minute:02}:00,{text}"


def write(path, *rows, head=HEAD):
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def read(path, *rows, spec=SPEC, head=HEAD):
    return list(read_bars(write(path, *rows, head=head), spec))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bars.csv"


def refusal(path, *rows, spec=SPEC, head=HEAD):
    with pytest.raises(ConfigurationError) as caught:
        read(path, *rows, spec=spec, head=head)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_reads_exact_numbers(path):
    """Prices and volumes are the decimals that the file spells."""
    (bar,) = read(path, row(1, "0.1,0.30000000000000004,0.1,0.2,1e-3"))
    at = datetime(2022, 1, 1, 0, 1, tzinfo=UTC)
    prices = map(Decimal, ("0.1", "0.30000000000000004", "0.1", "0.2", "0.001"))
    assert bar == BarData("BTC/USDT", Timeframe.M1, at, *prices)


def test_columns_are_found_by_name(path):
    """Any order, extra columns, other names, spaces, capitals and empty lines."""
    spec = BarFileSpec(
        symbol="X", label="close", timezone="UTC", columns={"timestamp": "time", "volume": "vol"}
    )
    (bar,) = read(
        path,
        "9, 100.5,7,99,101,100,2022-01-01 00:01:00",
        "",
        head="trades, Close ,vol,low,high,open,TIME",
        spec=spec,
    )
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (
        100,
        101,
        99,
        Decimal("100.5"),
        7,
    )


def test_reads_gzip(tmp_path):
    """`.csv.gz` is the same, a byte-order mark included."""
    path = tmp_path / "bars.csv.gz"
    path.write_bytes(gzip.compress(f"\ufeff{HEAD}\n{row(1)}\n".encode()))
    assert len(list(read_bars(str(path), SPEC))) == 1


def test_open_labels_become_closes(path):
    """K12: a bar labelled by its open closes one timeframe later."""
    spec = BarFileSpec(symbol="X", label="open", timezone="UTC", timeframe="5m")
    first, second = read(path, row(0), row(5), spec=spec)
    assert first.close_time == datetime(2022, 1, 1, 0, 5, tzinfo=UTC)
    assert first.open_time == datetime(2022, 1, 1, tzinfo=UTC)
    assert second.timeframe is Timeframe.M5


def test_quote_volume_becomes_base_volume(path):
    """A volume in quote units is divided by the close, to 8 places."""
    spec = BarFileSpec(symbol="X", label="close", timezone="UTC", volume_unit="quote")
    (bar,) = read(path, row(1, "30,30,30,30,10"), spec=spec)
    assert bar.volume == Decimal("0.33333333")


@pytest.mark.parametrize(
    ("zone", "text", "utc"),
    [
        ("America/New_York", "2022-07-01 09:31:00", (2022, 7, 1, 13, 31)),
        ("America/New_York", "2022-01-03 09:31:00", (2022, 1, 3, 14, 31)),
        ("UTC", "2022-01-01T00:01:00+02:00", (2021, 12, 31, 22, 1)),
        (None, "2022-01-01T00:01:00Z", (2022, 1, 1, 0, 1)),
    ],
)
def test_times_become_utc(path, zone, text, utc):
    """A stated zone is applied with its summer time; an offset in the file wins over it."""
    spec = BarFileSpec(symbol="X", label="close", timezone=zone)
    (bar,) = read(path, f"{text},1,1,1,1,1", spec=spec)
    assert bar.close_time == datetime(*utc, tzinfo=UTC)


def test_gaps_are_skipped_on_request(path):
    """With gaps: skip the missing bars are simply not there."""
    spec = BarFileSpec(symbol="X", label="close", timezone="UTC", gaps="skip")
    bars = read(path, row(1), row(4), row(5), spec=spec)
    assert [bar.close_time.minute for bar in bars] == [1, 4, 5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(2, "100,98,99,100,7")], ":3: high 98 is below low 99; correct or remove"),
        ([row(1, "100,101,99,102,7")], ":2: open 100 and close 102 must lie between"),
        ([row(1, "100,101,99,100,-7")], ":2: volume: -7 must not be negative"),
        ([row(1, "0,1,0,1,7")], ":2: open: 0 must be above zero"),
        ([row(1, "100,101,99,nan,7")], ":2: close: 'nan' is not a plain decimal number"),
        ([row(1, "100,inf,99,100,7")], ":2: high: 'inf' is not"),
        ([row(1, "1_000,1000,1000,1000,7")], ":2: open: '1_000' is not"),
        ([row(1, "\uff11,1,1,1,7")], ":2: open: '\uff11' is not"),
        ([row(1, "1,1e16,1,1,7")], ":2: high: 1E+16 is too large"),
        ([row(1, "1,1,1,1,")], ":2: volume: '' is not"),
        ([row(1), "2022-01-01 00:02:00,1,1"], ":3: has 3 columns, expected 6; is the row cut off?"),
        (
            [row(1), row(2), row(2)],
            ":4: 2022-01-01 00:02:00+00:00 is a duplicate of the row before",
        ),
        ([row(3), row(1)], ":3: 2022-01-01 00:01:00+00:00 is out of order; sort the file"),
        ([row(1), row(5)], ":3: 3 bars are missing before 2022-01-01 00:05:00+00:00; add them, or"),
        (["2022-01-01 00:01:30,1,1,1,1,1"], ":2: 2022-01-01 00:01:30+00:00 is no boundary of 1m"),
        (["yesterday,1,1,1,1,1"], ":2: timestamp 'yesterday' is no ISO time"),
        (['"open quote,1,1,1,1,1'], ":2: cannot be read: unexpected end of data"),
    ],
)
def test_bad_rows_are_refused_with_their_line(path, rows, message):
    """Malformed, impossible, duplicate, unordered, missing: each names line and fix."""
    assert refusal(path, *rows).startswith(message)


def test_naive_times_need_a_zone(path):
    """Times without an offset are refused unless the zone is stated."""
    spec = BarFileSpec(symbol="X", label="close")
    assert "has no time zone; state timezone: UTC" in refusal(path, row(1), spec=spec)


@pytest.mark.parametrize("text", ["2022-11-06 01:30:00", "2022-03-13 02:30:00"])
def test_times_that_clocks_skip_or_repeat_are_refused(path, text):
    """H3: a local time that came twice, or never, names no moment."""
    spec = BarFileSpec(symbol="X", label="close", timezone="America/New_York")
    assert "names no single moment in America/New_York" in refusal(
        path, f"{text},1,1,1,1,1", spec=spec
    )


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("time,open,high,low,close,volume", ":1: needs one column 'timestamp', found: time, open"),
        ("timestamp,open,open,high,low,close,volume", ":1: needs one column 'open'"),
        ("", ":1: needs one column 'timestamp', found: an empty file"),
    ],
)
def test_the_header_must_name_each_column_once(path, head, message):
    """A missing or doubled column is refused before any row is read."""
    assert refusal(path, row(1), head=head).startswith(message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, ":1: cannot be read: No such file or directory"),
        ("plain.csv.gz", HEAD.encode(), ":1: cannot be read: Not a gzipped file"),
        (
            "cut.csv.gz",
            gzip.compress(b"x" * 9_000, mtime=0)[:-12],
            ":1: cannot be read: Compressed file ended",
        ),
        ("latin.csv", HEAD.encode() + b"\n\xff", ":1: cannot be read: 'utf-8' codec"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, content, message):
    """A missing, cut, mislabelled or undecodable file is a configuration error, not a traceback."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        list(read_bars(path, SPEC))
    assert str(caught.value).startswith(f"{path}{message}")
    assert "it must be a whole CSV file" in str(caught.value)


def test_bars_come_as_they_are_read(path):
    """The file is a stream: what is before a bad row was given out."""
    bars = read_bars(write(path, row(1), row(2), "broken"), SPEC)
    assert next(bars).close_time + timedelta(minutes=1) == next(bars).close_time
    with pytest.raises(ConfigurationError, match="has 1 columns"):
        next(bars)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "middle"}, "label: 'middle' is unknown; use one of open, close"),
        ({"gaps": "ignore"}, "gaps: 'ignore' is unknown; use one of refuse, skip"),
        ({"volume_unit": "lots"}, "volume_unit: 'lots' is unknown; use one of base, quote"),
        ({"timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is unknown; use an IANA name"),
        ({"timezone": "../etc/passwd"}, "timezone: '../etc/passwd' is unknown"),
        ({"timeframe": "7m"}, "timeframe: '7m' is unknown"),
        ({"symbol": "a b"}, "symbol: 'a b' has characters"),
        ({"columns": {"time": "t"}}, "columns: 'time' is unknown; use timestamp, open"),
    ],
)
def test_specs_are_checked(values, message):
    """A wrong word is refused before a file is opened."""
    with pytest.raises(ConfigurationError) as caught:
        BarFileSpec(**({"symbol": "X", "label": "close"} | values))
    assert str(caught.value).startswith(message)

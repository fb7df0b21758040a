"""Whatever is recorded comes back, from every prefix of the file."""

import types
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from execkit.clock import ManualClock
from execkit.journal import lines
from execkit.journal.file import FileJournal
from execkit.journal.segments import read_entries, verify
from execkit.journal.trace import trace_hash
from execkit.model.records import Entry, Record
from execkit.virtual_time import run_virtual

SCALARS = {
    str: st.text(max_size=20),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    datetime: st.datetimes(timezones=st.just(UTC)),
    type(None): st.none(),
}


def values(kind):
    """Everything that a field of this type may hold."""
    if kind in SCALARS:
        return SCALARS[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(*map(values, arguments), max_size=3)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if issubclass(kind, Enum):
        return st.sampled_from(kind)
    assert issubclass(kind, msgspec.Struct)
    hints = get_type_hints(kind)
    return st.builds(kind, **{field: values(hints[field]) for field in kind.__struct_fields__})


records = st.one_of(*map(values, get_args(Record)))
entries = st.builds(Entry, st.integers(1, 2**53), values(datetime), records)


@given(entries)
def test_every_record_comes_back_exactly(entry):
    """Decoding gives the same value, and encoding that gives the same bytes: no digit is lost."""
    payload = lines.encode(entry)
    back = lines.decode_entry(payload)
    assert back == entry
    assert lines.encode(back) == payload
    assert lines.seq_of(payload) == entry.seq
    line, _ = lines.seal(payload, lines.START)
    assert line.count(b"\n") == 1
    assert lines.unseal(line, lines.START)[0] == payload


@settings(max_examples=50)
@given(
    st.lists(st.tuples(values(datetime), records), max_size=12),
    st.sets(st.integers(0, 12)),
    st.integers(300, 5000),
    st.sampled_from(["power", "process"]),
)
def test_every_journal_reads_back_and_so_does_every_prefix(
    rows, commits, segment_bytes, durability
):
    """Commits and segments fall anywhere; the records are the same, and a file cut anywhere has the first of them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "orders.db"

        async def write(_clock):
            journal = FileJournal.open(
                path,
                account="acct",
                clock=ManualClock(),
                durability=durability,
                segment_bytes=segment_bytes,
                snapshot=lambda: b"%d" % journal.last_seq,
            )
            for number, (at, record) in enumerate(rows):
                journal.append(record, at)
                if number in commits:
                    await journal.commit()
            head = journal.head
            await journal.close()
            return head

        head = run_virtual(write)
        expected = [Entry(number, at, record) for number, (at, record) in enumerate(rows, 1)]
        read = list(read_entries(path))
        assert read == expected
        assert trace_hash(read) == trace_hash(expected)
        found = verify(path)
        assert (found.records, found.last_seq, found.head) == (len(rows), len(rows), head)
        check_prefixes(path, expected)


def check_prefixes(path, expected):
    data = path.read_bytes()
    start = 0
    while not data[start:].startswith((b'{"seq"', b'{"opened"')) and start < len(data):
        start = data.index(b"\n", start) + 1
    for end in range(start, len(data) + 1, max(1, (len(data) - start) // 20)):
        path.write_bytes(data[:end])
        kept = list(read_entries(path))
        assert kept == expected[: len(kept)]
        whole = data[:end].count(b"\n")
        assert verify(path).unfinished == data[:end].split(b"\n")[whole]

"""The sealed lines."""

from datetime import UTC, datetime

import msgspec
import pytest

from execkit.journal import lines
from execkit.model.records import Alarm, Entry

AT = datetime(2024, 1, 1, tzinfo=UTC)


def test_a_line_is_one_json_object_with_its_hash_last():
    """A person can read a line, and so can any JSON tool."""
    line, chain = lines.seal(lines.encode(Entry(7, AT, Alarm(code="a", text="b"))), lines.START)
    assert line == (
        b'{"seq":7,"at":"2024-01-01T00:00:00Z","record":{"kind":"alarm","code":"a","text":"b",'
        b'"symbol":"","client_order_id":""},"hash":"' + chain + b'"}\n'
    )
    assert msgspec.json.decode(line)["seq"] == 7


def test_control_characters_are_escaped():
    """One record is one line, whatever a venue puts into a text (I28)."""
    text = "".join(map(chr, range(32))) + '",\n"hash":"\u2028'
    line, _ = lines.seal(lines.encode(Entry(1, AT, Alarm(code="a", text=text))), lines.START)
    assert line.index(b"\n") == len(line) - 1
    assert min(line[:-1]) >= 32
    payload, _ = lines.unseal(line, lines.START)
    assert lines.decode_entry(payload).record.text == text


def test_a_line_belongs_behind_the_one_before_it():
    """The same bytes after another line are refused (S13)."""
    line, chain = lines.seal(lines.encode(Entry(1, AT, Alarm(code="a", text="b"))), lines.START)
    assert lines.unseal(line, lines.START)[1] == chain
    with pytest.raises(ValueError, match="does not follow"):
        lines.unseal(line, chain)


def test_number_and_record_are_read_without_decoding():
    """What the checks need of a record costs no decoding."""
    payload = lines.encode(Entry(123, AT, Alarm(code="a", text="b")))
    assert lines.is_record(payload)
    assert not lines.is_opened(payload)
    assert lines.seq_of(payload) == 123
    assert lines.record_of(payload).startswith(b'"record":{"kind":"alarm"')


def test_torn_is_only_what_a_crash_leaves():
    """The first part of a line is torn; a whole line with a wrong end was changed."""
    line, _ = lines.seal(lines.encode(Entry(1, AT, Alarm(code="a", text="b"))), lines.START)
    for end in range(len(line)):
        assert lines.is_torn(line[:end]), end
    for end in range(len(line) - 1):
        assert lines.is_torn(line[:end] + bytes(100)), end
    assert not lines.is_torn(line[:-1] + b"\0")
    assert not lines.is_torn(line[:-1] + b"x")
    assert not lines.is_torn(line[:-1] + b"x" + line[:20])


def test_a_record_with_a_field_of_a_newer_version_is_refused():
    """A record is never half-read."""
    payload = lines.encode(Entry(1, AT, Alarm(code="a", text="b")))
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        lines.decode_entry(payload.replace(b'"code"', b'"new":1,"code"'))

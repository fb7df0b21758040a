"""The lines of a journal file: one JSON object each, sealed with a hash that covers the line before.

    {"seq":7,"at":"2024-01-01T00:00:00Z","record":{"kind":"alarm",...},"hash":"<32 hex digits>"}

The hash is blake2b-128 over the previous line's hash and all of this line before `,"hash"`. Besides records there are
three kinds of line: the head of a segment, the snapshot that follows it, and a note of each opening.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec

from execkit.model.records import Entry

SCHEMA: Final = 1
"""Version of everything in a line. The head's own form never changes, so that any version can name it."""

START: Final = b"0" * 32
"""What stands for the previous hash in a journal's very first line."""

_MIDDLE: Final = b',"hash":"'
_END: Final = b'"}\n'
_SEAL: Final = len(_MIDDLE) + len(START) + len(_END)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """First line of a segment; *seq* and *chain* are those of the last line before it."""

    schema: int
    account: str
    segment: int
    epoch: int
    seq: int
    chain: str
    created: datetime


class Opened(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Note that a process took the right to write."""

    epoch: int
    at: datetime
    cut: bytes = b""
    """The unfinished line that a crash had left at the end, and that was taken away."""


class HeadLine(msgspec.Struct, frozen=True):
    """The line that holds a head."""

    head: Head


class SnapshotLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line that holds the state of the fold at the start of a segment."""

    snapshot: bytes


class OpenedLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line that notes an opening."""

    opened: Opened


_encoder: Final = msgspec.json.Encoder(decimal_format="string")
_entry: Final = msgspec.json.Decoder(Entry)
_head: Final = msgspec.json.Decoder(HeadLine)
_snapshot: Final = msgspec.json.Decoder(SnapshotLine)
_opened: Final = msgspec.json.Decoder(OpenedLine)


def encode(value: Entry | HeadLine | SnapshotLine | OpenedLine) -> bytes:
    """Return the canonical bytes of a line, not yet sealed.

    Half a character pair in a text from outside has no bytes; its code is written out instead.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_spelled(msgspec.to_builtins(value)))


def _spelled(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_spelled(key): _spelled(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spelled(item) for item in value]
    return value


def seal(payload: bytes, chain: bytes) -> tuple[bytes, bytes]:
    """Return the finished line and its hash, the new *chain*."""
    body = payload[:-1]
    digest = blake2b(chain + body, digest_size=16).hexdigest().encode()
    return body + _MIDDLE + digest + _END, digest


def first_lines(head: Head, snapshot: bytes | None = None) -> tuple[bytes, bytes]:
    """Return the lines a segment begins with, and the hash of the last of them."""
    line, chain = seal(encode(HeadLine(head)), head.chain.encode())
    if snapshot is None:
        return line, chain
    second, chain = seal(encode(SnapshotLine(snapshot)), chain)
    return line + second, chain


def unseal(line: bytes, chain: bytes) -> tuple[bytes, bytes]:
    """Return payload and hash of a line; raise `ValueError` when it is not what was written after *chain*."""
    body = line[:-_SEAL]
    digest = blake2b(chain + body, digest_size=16).hexdigest().encode()
    if line[-_SEAL:] != _MIDDLE + digest + _END:
        raise ValueError("it was changed, or does not follow the line before it")
    return body + b"}", digest


def is_torn(rest: bytes) -> bool:
    """Tell whether bytes without a line end are what a crash leaves: the first part of a line.

    Some file systems add zeros where data did not reach the disk. A whole line whose end alone is wrong is
    damage: it may have been committed.
    """
    written = rest.rstrip(b"\0")
    at = written.find(_MIDDLE)
    whole = at + _SEAL - 1
    return at < 0 or len(written) < whole or len(rest) == whole


def is_record(payload: bytes) -> bool:
    """Tell whether a payload is a record's."""
    return payload.startswith(b'{"seq":')


def is_opened(payload: bytes) -> bool:
    """Tell whether a payload is the note of an opening."""
    return payload.startswith(b'{"opened":')


def seq_of(payload: bytes) -> int:
    """Return the sequence number of a record's payload without decoding the rest."""
    return int(payload[7 : payload.index(b",")])


def record_of(payload: bytes) -> bytes:
    """Return the record alone of a record's payload, without number and time."""
    return payload[payload.index(b'"record":') :]


def decode_entry(payload: bytes) -> Entry:
    """Return the record of a payload; raise `msgspec.MsgspecError` for one this version does not know."""
    return _entry.decode(payload)


def decode_head(payload: bytes) -> Head:
    """Return the head of a payload; raise `msgspec.MsgspecError` when it is none."""
    return _head.decode(payload).head


def decode_snapshot(payload: bytes) -> bytes:
    """Return the snapshot of a payload; raise `msgspec.MsgspecError` when it is none."""
    return _snapshot.decode(payload).snapshot


def decode_opened(payload: bytes) -> Opened:
    """Return the note of an opening; raise `msgspec.MsgspecError` when it is none."""
    return _opened.decode(payload).opened

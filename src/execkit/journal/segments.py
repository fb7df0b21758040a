"""Reading a journal's segments: every line is checked against the chain before anything is believed.

The active segment has the path that the user gave; a full one is kept as `path.000001`, `path.000002` and so on.
Reading takes no lock: beside a running writer it sees what is written so far, and a line under way as not yet there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

import msgspec

from execkit.errors import JournalCorruptedError, JournalError, JournalVersionError
from execkit.journal import lines
from execkit.journal.trace import TraceHash
from execkit.model.records import Entry


def archive_path(path: Path, segment: int) -> Path:
    """Return where a full segment is kept."""
    return path.with_name(f"{path.name}.{segment:06d}")


def archived_segments(path: Path) -> list[int]:
    """Return the numbers of the kept segments of a journal, lowest first."""
    pattern = re.compile(re.escape(path.name) + r"\.(\d{6})")
    matches = (pattern.fullmatch(found.name) for found in path.parent.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _ignore(_seq: int, _chain: bytes) -> None:
    return None


class SegmentReader:
    """Reads one segment from its start; what is appended later is read by asking again.

    Raises `JournalCorruptedError` naming file and line at the first damage, and `JournalVersionError` for a
    schema that this version does not read. *seq*, *epoch* and *chain* are those of the last line read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 0
        self.offset = 0
        """Bytes of whole lines read."""
        self.rest = b""
        """What stood after them, without a line end."""
        self.chain = lines.START
        self.on_line: Callable[[int, bytes], object] = _ignore
        """Called with the number of the last record and the hash of the line, after each line."""
        try:
            self._file: IO[bytes] = open(path, "rb", opener=_opener)  # noqa: SIM115
        except OSError as error:
            raise JournalError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self.head = self._read_head()
            self.snapshot = self._read_snapshot() if self.head.segment > 1 else None
        except BaseException:
            self.close()
            raise
        self.start = self.offset
        """Bytes of head and snapshot."""
        self.seq = self.head.seq
        self.epoch = self.head.epoch

    def _read_head(self) -> lines.Head:
        first = self._file.readline()
        try:
            head = lines.decode_head(first)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.line = 1
            raise self.damaged("this is not the head of a journal") from None
        # The head itself says what came before it.
        self.chain = head.chain.encode()
        self._file.seek(0)
        if self._next() is None:
            self.line = 1
            raise self.damaged("the head is not complete")
        if head.schema != lines.SCHEMA:
            raise JournalVersionError(
                f"{self.path} has journal schema {head.schema}, this version of execkit reads {lines.SCHEMA}; "
                "use the version that wrote it"
            )
        return head

    def _read_snapshot(self) -> bytes:
        payload = self._next()
        try:
            return lines.decode_snapshot(payload or b"")
        except msgspec.MsgspecError:
            raise self.damaged("the snapshot is missing") from None

    def _next(self) -> bytes | None:
        """Return the next line's payload, or None at the end of what is written."""
        raw = self._file.readline()
        if not raw.endswith(b"\n"):
            self._file.seek(self.offset)
            self.rest = raw
            if raw and not lines.is_torn(raw):
                self.line += 1
                raise self.damaged("it was changed at its end")
            return None
        self.line += 1
        try:
            payload, self.chain = lines.unseal(raw, self.chain)
        except ValueError as error:
            raise self.damaged(str(error)) from None
        self.offset += len(raw)
        return payload

    def payloads(self) -> Iterator[bytes]:
        """Return the canonical bytes of the records from here to the end of what is written."""
        while (payload := self._next()) is not None:
            if lines.is_record(payload):
                self.seq += 1
                if lines.seq_of(payload) != self.seq:
                    raise self.damaged(f"record {self.seq} should stand here")
                self.on_line(self.seq, self.chain)
                yield payload
            else:
                try:
                    self.epoch = lines.decode_opened(payload).epoch
                except msgspec.MsgspecError:
                    raise self.damaged("no such kind of line is known") from None
                self.on_line(self.seq, self.chain)

    def decode(self, payload: bytes) -> Entry:
        """Return the record that `payloads` has just given."""
        try:
            return lines.decode_entry(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.damaged(f"the record cannot be read: {error}") from None

    def damaged(self, what: str) -> JournalCorruptedError:
        """Return the error that names this file and line."""
        return JournalCorruptedError(f"{self.path}, line {self.line}: {what}")

    def is_at(self, path: Path) -> bool:
        """Tell whether this is the file at *path* now."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), path.stat())
        except OSError as error:
            raise JournalCorruptedError(f"{path} is missing: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JournalReader:
    """Reads a journal across its segments; what is appended later is read by asking again.

    It begins with the segment that holds the record after *after*, so with that segment's snapshot.
    """

    def __init__(self, path: str | os.PathLike[str], *, after: int = 0) -> None:
        self.path = Path(path)
        self.segment = self._first(after)

    def _first(self, after: int) -> SegmentReader:
        files = [archive_path(self.path, number) for number in archived_segments(self.path)]
        files.append(self.path)
        while len(files) > 1:
            reader = SegmentReader(files.pop())
            if reader.head.seq <= after:
                return reader
            reader.close()
        return SegmentReader(files[0])

    def watch(self, on_line: Callable[[int, bytes], object]) -> None:
        """Call *on_line* for the line before the first record, and then for each line; see `SegmentReader.on_line`."""
        self.segment.on_line = on_line
        on_line(self.segment.seq, self.segment.chain)

    def payloads(self) -> Iterator[bytes]:
        """Return the canonical bytes of the records from here to the end of what is written."""
        while True:
            yield from self.segment.payloads()
            following = self._following()
            if following is None:
                return
            # It may have grown until the next one took its place.
            yield from self.segment.payloads()
            before, self.segment = self.segment, following
            before.close()
            self.watch(before.on_line)
            if before.rest:
                raise before.damaged("the file ends after this line with an unfinished one")
            expected = (before.head.account, before.seq, before.chain.decode())
            if (following.head.account, following.head.seq, following.head.chain) != expected:
                raise JournalCorruptedError(
                    f"{following.path}, line 1: it does not continue {before.path}"
                )

    def entries(self) -> Iterator[Entry]:
        """Return the records from here to the end of what is written."""
        for payload in self.payloads():
            yield self.segment.decode(payload)

    def _following(self) -> SegmentReader | None:
        if self.segment.is_at(self.path):
            return None
        number = self.segment.head.segment + 1
        kept = archive_path(self.path, number)
        for _ in range(2):  # a rotation may come between looking and opening
            found = SegmentReader(kept if kept.exists() else self.path)
            if found.head.segment == number:
                return found
            found.close()
        raise JournalCorruptedError(f"{kept} is missing: segments before and after it are there")

    def close(self) -> None:
        """Close the file."""
        self.segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal holds whose chain is whole.

    Keep *head* and *last_seq* elsewhere: a chain alone cannot show that its end was cut off.
    """

    segments: int
    records: int
    first_seq: int
    last_seq: int
    epoch: int
    head: str
    """Hash of the last line."""
    unfinished: bytes
    """What stands after the last whole line: left by a crash, or being written just now."""


def verify(path: str | os.PathLike[str]) -> Verified:
    """Read every line of every segment; raise the error that names the first damaged file and line."""
    with JournalReader(path) as reader:
        first = reader.segment.head
        records = sum(1 for _ in reader.entries())
        last = reader.segment
        return Verified(
            segments=last.head.segment - first.segment + 1,
            records=records,
            first_seq=first.seq + 1,
            last_seq=last.seq,
            epoch=last.epoch,
            head=last.chain.decode(),
            unfinished=last.rest,
        )


def read_entries(path: str | os.PathLike[str], *, after: int = 0) -> Iterator[Entry]:
    """Return the records after sequence number *after* from all segments, checked as `verify` does."""
    with JournalReader(path, after=after) as reader:
        for entry in reader.entries():
            if entry.seq > after:
                yield entry


def trace_hash_of_file(path: str | os.PathLike[str]) -> str:
    """Return the trace hash of a journal; see `trace.trace_hash`."""
    trace = TraceHash()
    with JournalReader(path) as reader:
        for payload in reader.payloads():
            trace.add_payload(payload)
    return trace.hexdigest()

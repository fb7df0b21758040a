"""The journal in a file: the truth that survives the process.

Appending costs microseconds and waits for nothing; committing makes everything appended so far durable, with one disk
sync for all who wait. One process writes, and each opening gets a new epoch.

Beside the journal at `orders.db` stand `orders.db.lock` (who writes), `orders.db.emergency` (room for when the disk is
full) and `orders.db.000001` … (full segments).
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Self

import structlog

from execkit.clock import Clock
from execkit.errors import (
    ConfigurationError,
    JournalAccountError,
    JournalCommitError,
    JournalCorruptedError,
    JournalError,
)
from execkit.journal import lines
from execkit.journal.disk import Disk, WriteLock, open_private, take_right_away
from execkit.journal.emergency import EmergencyFile
from execkit.journal.segments import SegmentReader, archived_segments
from execkit.journal.writer import Step, Writer, put_segment, undo_rotation
from execkit.model.records import Entry, Record
from execkit.virtual_time import VirtualTimeLoop

SEGMENT_BYTES: Final = 64 * 1024 * 1024
FLUSH_BYTES: Final = 64 * 1024
"""Lines that nobody waits for are written when there are this many bytes of them."""

LOOK_BACK: Final = 1000
"""Last records among which one of the emergency file may be already; it holds fewer, and a failed commit too."""

log = structlog.get_logger("execkit")


class FileJournal:
    """A `Journal` in an append-only file of sealed lines. Make one with `open`."""

    def __init__(
        self,
        path: Path,
        account: str,
        clock: Clock,
        writer: Writer,
        lock: WriteLock,
        emergency: EmergencyFile,
        found: SegmentReader,
        *,
        power: bool,
        segment_bytes: int,
        snapshot: Callable[[], bytes] | None,
    ) -> None:
        self.path = path
        self.account = account
        self.epoch = found.epoch + 1
        self.cut = found.rest
        """The unfinished line that a crash had left and that opening took away."""
        self._clock = clock
        self._writer = writer
        self._lock = lock
        self._emergency = emergency
        self._power = power
        self._segment_bytes = segment_bytes
        self._snapshot = snapshot
        self._segment = found.head.segment
        self._segment_size = found.offset - found.start
        self._last_seq = found.seq
        self._chain = found.chain
        self._lines: list[bytes] = []
        self._buffered = 0
        self._closed = False
        self._opened_seq = found.seq

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        account: str,
        clock: Clock,
        durability: Literal["power", "process"] = "power",
        segment_bytes: int = SEGMENT_BYTES,
        snapshot: Callable[[], bytes] | None = None,
        disk: Disk | None = None,
    ) -> Self:
        """Open the journal at *path*, or begin one, and take the right to write it.

        `durability="power"` syncs the disk at each commit, `"process"` survives the death of the process only. A
        segment is full after *segment_bytes*; the next one starts with *snapshot*, see `set_snapshot`.

        Raises `JournalLockedError`, `JournalAccountError`, `JournalVersionError`, `JournalCorruptedError`,
        `JournalCommitError`, or a plain `JournalError` for a file that is open to others or cannot be used. A torn last
        line is no error: it is taken away, noted in the journal and kept in `cut`. *disk* lets tests inject faults.
        """
        if durability not in ("power", "process"):
            raise ConfigurationError(
                f"durability: {durability!r} is unknown; use 'power' or 'process'"
            )
        if segment_bytes <= 0:
            raise ConfigurationError(f"segment_bytes: {segment_bytes} must be above zero")
        place = Path(path).absolute()
        disk = Disk() if disk is None else disk
        power = durability == "power"
        try:
            with ExitStack() as undo:
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = WriteLock(_companion(place, "lock"), disk)
                undo.callback(lock.release)
                if not os.path.lexists(place):
                    _begin(disk, place, account, clock.now())
                    lock.anchor = None
                fd = open_private(disk, place, os.O_WRONLY | os.O_APPEND)
                undo.callback(os.close, fd)
                found, known = _read(place, account, lock)
                undo_rotation(disk, place, found.head.segment)
                emergency = EmergencyFile(_companion(place, "emergency"), account, disk)
                undo.callback(emergency.close)
                if found.rest:
                    disk.truncate(fd, found.offset)
                    log.warning("journal.cut", path=str(place), line=found.line + 1, cut=found.rest)
                journal = cls(
                    place,
                    account,
                    clock,
                    Writer(fd, place, disk, lambda: lock.is_held, power=power),
                    lock,
                    emergency,
                    found,
                    power=power,
                    segment_bytes=segment_bytes,
                    snapshot=snapshot,
                )
                journal._enter(known)
                undo.pop_all()
        except OSError as error:
            raise JournalError(f"{place} cannot be opened: {error.strerror}") from error
        return journal

    def _enter(self, known: set[bytes]) -> None:
        """Note this opening, and take over what the emergency file holds beyond the *known* records."""
        opened = lines.Opened(epoch=self.epoch, at=self._clock.now(), cut=self.cut)
        line, self._chain = lines.seal(lines.encode(lines.OpenedLine(opened)), self._chain)
        self._lines.append(line)
        for entry in self._emergency.entries:
            # It may be there already: its first way here can have failed after the write, and a crash may have
            # come between taking over and clearing.
            if lines.record_of(lines.encode(entry)) not in known:
                self.append(entry.record, entry.at)
        self._opened_seq = self._last_seq
        step = self._step()
        step.sync = True
        self._writer.write([step])
        self._lock.note(self.epoch, self._last_seq)
        self._emergency.clear()

    # -- reading ---------------------------------------------------------------------------------------

    @property
    def is_current(self) -> bool:
        """Tell whether this process still holds the right to write, and so to send; asks the file system."""
        return not self._closed and self._lock.is_held

    @property
    def is_healthy(self) -> bool:
        """Tell whether commits can succeed; once False it stays so."""
        return self._writer.failure is None

    @property
    def last_seq(self) -> int:
        """Sequence number of the last appended record; 0 when empty."""
        return self._last_seq

    @property
    def committed_seq(self) -> int:
        """Sequence number up to which everything is as durable as promised."""
        return self._writer.committed_seq

    @property
    def head(self) -> str:
        """Hash of the last line; kept elsewhere with `last_seq`, it shows a journal whose end was cut off."""
        return self._chain.decode()

    def recovered(self) -> tuple[bytes | None, Iterator[Entry]]:
        """Return the snapshot that the active segment starts with, and the records after it up to this opening."""
        with SegmentReader(self.path) as reader:
            return reader.snapshot, self._recovered()

    def _recovered(self) -> Iterator[Entry]:
        with SegmentReader(self.path) as reader:
            for payload in reader.payloads():
                if reader.seq > self._opened_seq:
                    return
                yield reader.decode(payload)

    # -- writing ---------------------------------------------------------------------------------------

    def set_snapshot(self, snapshot: Callable[[], bytes]) -> None:
        """Set what gives the state of the fold for the start of the next segment.

        It must be what all records appended so far add up to whenever `commit` is called. Without one, and
        while it raises, the file just grows.
        """
        self._snapshot = snapshot

    def append(self, record: Record, at: datetime) -> int:
        """Put a record in line and return its sequence number; nothing is written yet.

        Raises `JournalError` after `close`.
        """
        if self._closed:
            raise JournalError(f"{self.path} is closed")
        seq = self._last_seq + 1
        line, self._chain = lines.seal(lines.encode(Entry(seq, at, record)), self._chain)
        self._last_seq = seq
        self._lines.append(line)
        self._buffered += len(line)
        if self._buffered >= FLUSH_BYTES:
            self._flush()
        return seq

    def _flush(self) -> None:
        """Write what nobody has waited for; a failure is told by `is_healthy` and the next commit."""
        steps = [self._step()]
        if self._writer.has_thread:
            self._writer.submit(steps)
        else:
            with suppress(JournalCommitError):
                self._writer.write(steps)

    def _step(self) -> Step:
        step = Step(b"".join(self._lines), self._last_seq)
        self._segment_size += len(step.data)
        self._lines.clear()
        self._buffered = 0
        return step

    def _take(self) -> list[Step]:
        """Return the work that a commit has to wait for."""
        steps = [self._step()]
        if self._snapshot is not None and self._segment_size >= self._segment_bytes:
            self._segment_size = 0
            try:
                snapshot = self._snapshot()
            except Exception:
                # The file may grow; trading need not end for that.
                log.exception("journal.snapshot_failed", path=str(self.path))
            else:
                steps.append(self._next_segment(snapshot))
        return steps

    def _next_segment(self, snapshot: bytes) -> Step:
        self._segment += 1
        head = lines.Head(
            schema=lines.SCHEMA,
            account=self.account,
            segment=self._segment,
            epoch=self.epoch,
            seq=self._last_seq,
            chain=self.head,
            created=self._clock.now(),
        )
        data, self._chain = lines.first_lines(head, snapshot)
        return Step(data, self._last_seq, archive=self._segment - 1)

    async def commit(self) -> None:
        """Wait until all that was appended before is durable; at once when it is already.

        Raises `JournalCommitError` with the system's reason when it cannot be; no commit succeeds after that.
        Cancelling the caller does not stop the commit.
        """
        writer = self._writer
        if writer.failure is not None:
            raise JournalCommitError(writer.failure)
        if writer.committed_seq >= self._last_seq:
            return
        steps = self._take()
        if not self._power:
            writer.write(steps)
            return
        steps[-1].sync = True
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualTimeLoop):
            # A thread knows no virtual time; inline, the order of commits repeats with the seed.
            writer.stop_thread()
            writer.write(steps)
            return
        waiter = steps[-1].waiter = loop.create_future()
        writer.submit(steps)
        await waiter

    def emergency(self, record: Record, at: datetime) -> None:
        """Keep one record, durably, although the journal cannot commit; the next opening appends it.

        Raises `JournalCommitError` when not even that is possible.
        """
        if self._closed:
            raise JournalError(f"{self.path} is closed")
        self._emergency.write(record, at)

    async def close(self) -> None:
        """Make everything durable and give up the right to write; safe to call twice.

        Raises `JournalCommitError` when the last records cannot be written, unless that was told before.
        """
        if self._closed:
            return
        self._closed = True
        was_healthy = self.is_healthy
        try:
            self._writer.stop_thread()
            if was_healthy:
                step = self._step()
                step.sync = True
                self._writer.write([step])
                self._lock.note(self.epoch, self._last_seq)
        finally:
            self._writer.close()
            self._emergency.close()
            self._lock.release()

    def __repr__(self) -> str:
        return (
            f"FileJournal({str(self.path)!r}, account={self.account!r}, records={self._last_seq})"
        )


def take_over(path: Path) -> bool:
    """Take the journal at *path* away from its writer, whatever that does; return whether there may have been one.

    For emergencies: an engine that hangs keeps its lock. It notices before it sends or writes anything more; open
    orders stay as they are, and the next opening recovers them.
    """
    return take_right_away(_companion(Path(path).absolute(), "lock"))


def _companion(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}")


def _begin(disk: Disk, path: Path, account: str, now: datetime) -> None:
    """Make the first segment of a new journal."""
    kept = archived_segments(path)
    if kept:
        raise JournalCorruptedError(
            f"{path} is missing although its earlier segments up to number {kept[-1]} are there; "
            "put it back, or move them all away to begin anew"
        )
    head = lines.Head(
        schema=lines.SCHEMA,
        account=account,
        segment=1,
        epoch=0,
        seq=0,
        chain=lines.START.decode(),
        created=now,
    )
    os.close(put_segment(disk, path, lines.first_lines(head)[0]))


def _read(path: Path, account: str, lock: WriteLock) -> tuple[SegmentReader, set[bytes]]:
    """Check the active segment; return the reader at its end, and the last records without their times."""
    with SegmentReader(path) as reader:
        if reader.head.account != account:
            raise JournalAccountError(
                f"{path} belongs to account {reader.head.account!r}, not to {account!r}; "
                "give each account a journal of its own"
            )
        known = {lines.record_of(payload) for payload in deque(reader.payloads(), maxlen=LOOK_BACK)}
    anchor = lock.anchor
    if anchor is not None and (anchor.epoch > reader.epoch or anchor.seq > reader.seq):
        raise JournalCorruptedError(
            f"{path} ends with record {reader.seq} of opening {reader.epoch}, but had come to record "
            f"{anchor.seq} of opening {anchor.epoch}: an older copy was put back, or its end was cut off. "
            f"Put the newest one back, or delete {lock.path} to go on from here and check the venue"
        )
    return reader, known

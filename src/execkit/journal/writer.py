"""Group commit: the thread that writes the active segment, and one disk sync for all who wait.

Invariant: lines reach the file in the order of their chain, and after the first failure nothing is written any more,
so a half-written line stays the last one. The work is done by whoever calls `write`: the thread, or the caller while
there is none.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import msgspec
import structlog

from execkit.errors import JournalCommitError, JournalCorruptedError
from execkit.journal.disk import Disk
from execkit.journal.segments import archive_path

log = structlog.get_logger("execkit")


class Step(msgspec.Struct):
    """One piece of work: lines to be written, up to sequence number *seq*."""

    data: bytes
    seq: int
    sync: bool = False
    """Make everything up to here durable against a power failure."""
    archive: int = 0
    """Number under which the present segment is put away first; *data* then begins the next one."""
    waiter: asyncio.Future[None] | None = None


class Writer:
    """Writes steps to the active segment, in order."""

    def __init__(
        self, fd: int, path: Path, disk: Disk, may_write: Callable[[], bool], *, power: bool
    ) -> None:
        self.failure: str | None = None
        """Why nothing can be written any more."""
        self.committed_seq = 0
        self._synced_seq = -1
        self._fd = fd
        self._path = path
        self._disk = disk
        self._may_write = may_write
        self._power = power
        self._queue: SimpleQueue[Step | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def has_thread(self) -> bool:
        """Tell whether the thread runs; every step must then go through `submit`."""
        return self._thread is not None

    def submit(self, steps: Sequence[Step]) -> None:
        """Hand steps to the thread, which is started when there is none."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="execkit-journal", daemon=True)
            self._thread.start()
        for step in steps:
            self._queue.put(step)

    def stop_thread(self) -> None:
        """Let the thread finish what it was given, and end it."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """End the thread and close the file."""
        self.stop_thread()
        os.close(self._fd)

    def write(self, steps: Sequence[Step]) -> None:
        """Write steps now; raise `JournalCommitError` when that fails, or ever failed."""
        if self.failure is not None:
            raise JournalCommitError(self.failure)
        try:
            self._perform(steps)
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or repr(error)
            self.failure = f"{self._path} cannot be written: {reason}"
            log.error("journal.failed", path=str(self._path), reason=reason)  # noqa: TRY400
            raise JournalCommitError(self.failure) from error

    def _perform(self, steps: Sequence[Step]) -> None:
        if not self._may_write():
            raise PermissionError("another process has taken over")
        pending: list[bytes] = []
        for step in steps:
            if step.archive:
                self._put(pending)
                self._rotate(step)
            else:
                pending.append(step.data)
        self._put(pending)
        last = steps[-1].seq
        # Somebody who came while an earlier sync was under way may be served already.
        if any(step.sync and step.seq > self._synced_seq for step in steps):
            self._disk.sync(self._fd)
            self._synced_seq = last
        self.committed_seq = self._synced_seq if self._power else last

    def _put(self, pending: list[bytes]) -> None:
        if pending:
            self._disk.write(self._fd, b"".join(pending))
            pending.clear()

    def _rotate(self, step: Step) -> None:
        self._disk.sync(self._fd)
        fresh = put_segment(self._disk, self._path, step.data, archive=step.archive)
        os.close(self._fd)
        self._fd = fresh
        self._synced_seq = step.seq

    def _run(self) -> None:
        running = True
        while running:
            taken = [self._queue.get()]
            while not self._queue.empty():
                taken.append(self._queue.get())
            steps = [step for step in taken if step is not None]
            running = len(steps) == len(taken)
            if steps:
                with suppress(JournalCommitError):  # `failure` tells
                    self.write(steps)
                self._answer(steps)

    def _answer(self, steps: Sequence[Step]) -> None:
        """Wake all who wait, with one call for each event loop."""
        waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for step in steps:
            if step.waiter is not None:
                waiting.setdefault(step.waiter.get_loop(), []).append(step.waiter)
        for loop, waiters in waiting.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, waiters, self.failure)


def _settle(waiters: list[asyncio.Future[None]], failure: str | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue  # its task was cancelled; the commit stands
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(JournalCommitError(failure))


def beside(path: Path) -> Path:
    """Return where a segment is prepared before it takes its place."""
    return path.with_name(f"{path.name}.next")


def put_segment(disk: Disk, path: Path, data: bytes, *, archive: int = 0) -> int:
    """Put a new segment at *path* and return its descriptor; the present one is kept under number *archive*.

    At every moment *path* is either the old segment whole or the new one whole, and before the old one can be
    reached by its number only, that name is on the disk.
    """
    if beside(path).exists():
        disk.unlink(beside(path))  # a crash left it half-written
    fd = disk.open(beside(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    try:
        disk.write(fd, data)
        disk.sync(fd)
        if archive:
            disk.link(path, archive_path(path, archive))
            disk.sync_directory(path.parent)
        disk.replace(beside(path), path)
        disk.sync_directory(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def undo_rotation(disk: Disk, path: Path, segment: int) -> None:
    """Take back what a crash left of a rotation before its last step; the next commit does it again.

    Raises `JournalCorruptedError` when another file has the number under which this segment is to be kept.
    """
    kept = archive_path(path, segment)
    if kept.exists():
        if not kept.samefile(path):
            raise JournalCorruptedError(
                f"{path} is segment {segment}, and so is {kept}: an older copy was put back. "
                "Put the newest one back, or move the whole journal away and start with what the venue has"
            )
        disk.unlink(kept)

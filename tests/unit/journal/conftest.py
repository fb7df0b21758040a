"""A bench for journals: a disk that fails on demand, and processes that die on demand."""

import os
import threading
from contextlib import suppress
from datetime import timedelta

import pytest

from execkit.clock import ManualClock
from execkit.journal.disk import Disk
from execkit.journal.file import FileJournal
from execkit.model.records import Alarm

CHANGES = (
    "write",
    "write_at",
    "sync",
    "truncate",
    "link",
    "replace",
    "unlink",
    "sync_directory",
)


class Death(BaseException):
    """The process ends here."""


class FaultyDisk(Disk):
    """Counts what is done, fails what it is told to, and can end the process before any step."""

    def __init__(self):
        self.done = []
        self.faults = {}
        """Name of an operation -> the exception it raises from now on."""
        self.tear = False
        """A write that fails has written its first half."""
        self.dies_at = None
        """Number of the change before which the process dies; a write has done its first half then."""
        self.gate = None
        """An event that each sync waits for, once it was reached."""
        self.reached = threading.Event()

    def _before(self, name, *args):
        if self.dies_at is not None and len(self.done) >= self.dies_at:
            if name == "write":
                os.write(args[0], args[1][: len(args[1]) // 2])
            raise Death
        if name in self.faults:
            if name == "write" and self.tear:
                os.write(args[0], args[1][: len(args[1]) // 2])
            raise self.faults[name]
        if name == "sync" and self.gate is not None:
            self.reached.set()
            self.gate.wait()
        self.done.append(name)

    def count(self, name):
        return self.done.count(name)


def _watched(name):
    def operation(self, *args):
        self._before(name, *args)
        return getattr(Disk, name)(self, *args)

    return operation


for _name in CHANGES:
    setattr(FaultyDisk, _name, _watched(_name))


class Bench:
    """One journal path, and journals opened on it one after the other."""

    Death = Death

    def __init__(self, folder):
        self.path = folder / "orders.db"
        self.disk = FaultyDisk()
        self.clock = ManualClock()
        self._open = []

    def open(self, path=None, **options):
        options = {"account": "acct", "clock": self.clock, "disk": self.disk, **options}
        journal = FileJournal.open(path or self.path, **options)
        self._open.append(journal)
        return journal

    def drop(self, journal):
        """Let the process that holds the journal die: nothing is written any more, the lock is free."""
        if journal._closed:
            return
        journal._closed = True
        journal._writer.stop_thread()
        for fd in (journal._writer._fd, journal._emergency._fd, journal._lock._fd):
            with suppress(OSError):
                os.close(fd)

    def drop_all(self):
        for journal in self._open:
            self.drop(journal)

    def note(self, journal, text="x"):
        """Append a record at a time of its own."""
        self.clock.advance(timedelta(seconds=1))
        return journal.append(Alarm(code="note", text=str(text)), self.clock.now())

    def texts(self, entries):
        return [entry.record.text for entry in entries]


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.disk.__init__()
    made.drop_all()

"""A journal whose process can die at any moment: what was not committed is lost, wholly or from some record on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import datetime

from execkit.errors import JournalCommitError
from execkit.journal import lines
from execkit.journal.fold import fold
from execkit.model.records import Entry, Record

Observer = Callable[[int, Record], None]


class JournalStore:
    """What outlives the process: the records on the disk, and which opening may write."""

    def __init__(self, account: str, rng: random.Random) -> None:
        self.account = account
        self.epoch = 0
        self.written: list[bytes] = []
        """All records in their canonical bytes, the uncommitted ones at the end."""
        self.committed = 0
        self.commits: list[tuple[float, int]] = []
        """(moment on the loop, sequence number) of each commit that succeeded."""
        self.emergencies: list[tuple[float, Entry]] = []
        self.taken_over = 0
        self._rng = rng

    def crash(self) -> int:
        """Lose what a dying process may lose; return how many records are left."""
        kept = self._rng.randint(self.committed, len(self.written))
        del self.written[kept:]
        self.committed = kept
        return kept

    def entries(self) -> list[Entry]:
        """Return all records that are on the disk, read back."""
        return [lines.decode_entry(payload) for payload in self.written]

    def open(self, observer: Observer, hooks: Hooks) -> CrashJournal:
        """Open it for a new process, which fences off the one before."""
        self.epoch += 1
        journal = CrashJournal(self, self.epoch, observer, hooks)
        for _, entry in self.emergencies[self.taken_over :]:
            journal.append(entry.record, entry.at)
        self.taken_over = len(self.emergencies)
        self.committed = len(self.written)
        journal.opened_seq = self.committed
        return journal


class Hooks:
    """What happens around a commit; the simulation overrides these."""

    async def before_commit(self) -> None:
        """Called before records become durable; raise `JournalCommitError` to fail for good."""

    async def after_commit(self) -> None:
        """Called when they are."""


class CrashJournal:
    """The `Journal` of one process."""

    def __init__(self, store: JournalStore, epoch: int, observer: Observer, hooks: Hooks) -> None:
        self.account = store.account
        self.epoch = epoch
        self.is_dead = False
        self.failure: str | None = None
        self.opened_seq = 0
        self.from_snapshot = False
        self._store = store
        self._observer = observer
        self._hooks = hooks

    @property
    def is_current(self) -> bool:
        """Tell whether no later process has opened it."""
        return self._store.epoch == self.epoch and not self.is_dead

    @property
    def is_healthy(self) -> bool:
        """Tell whether commits can succeed."""
        return self.failure is None

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record."""
        return len(self._store.written)

    @property
    def committed_seq(self) -> int:
        """Sequence number of the last durable record."""
        return self._store.committed

    def append(self, record: Record, at: datetime) -> int:
        """Keep a record; a process that is dead or was replaced keeps nothing."""
        store = self._store
        if self.is_current:
            seq = len(store.written) + 1
            store.written.append(lines.encode(Entry(seq, at, record)))
            self._observer(seq, record)
        return len(store.written)

    async def commit(self) -> None:
        """Make everything durable, or fail for good."""
        store = self._store
        if self.is_dead:
            await asyncio.get_running_loop().create_future()
        if self.failure is None and not self.is_current:
            self.failure = "another process has taken over"
        if self.failure is None and store.committed < len(store.written):
            target = len(store.written)
            try:
                await self._hooks.before_commit()
            except JournalCommitError as error:
                self.failure = str(error)
            else:
                if self.is_current and target > store.committed:
                    store.committed = target
                    store.commits.append((asyncio.get_running_loop().time(), target))
                await self._hooks.after_commit()
        if self.failure is not None:
            raise JournalCommitError(self.failure)

    def emergency(self, record: Record, at: datetime) -> None:
        """Keep one record past the journal, for the next opening."""
        if not self.is_dead:
            now = asyncio.get_running_loop().time()
            self._store.emergencies.append((now, Entry(0, at, record)))

    def recovered(self) -> tuple[bytes | None, Iterator[Entry]]:
        """Return what was on the disk when this process opened it, in one of the two forms it may have."""
        entries = self._store.entries()[: self.opened_seq]
        if not self.from_snapshot:
            return None, iter(entries)
        half = len(entries) // 2
        return fold(entries[:half]).snapshot(), iter(entries[half:])

    async def close(self) -> None:
        """Give up the right to write."""
        if not self.is_dead and self.failure is None and self.is_current:
            self._store.committed = len(self._store.written)
        self.is_dead = True

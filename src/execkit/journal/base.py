"""The contract of the journal, and one kept in memory for tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from execkit.model.records import Entry, Record


class Journal(Protocol):
    """An append-only, ordered record of everything that changes state.

    `append` gives the record its place and returns at once; `commit` returns when everything appended
    before it is as durable as the journal promises. One writer at a time: *epoch* grows with each opening,
    and a writer that was replaced finds its `is_current` False.
    """

    @property
    def account(self) -> str:
        """The account it belongs to."""
        ...

    @property
    def epoch(self) -> int:
        """Number of this opening; fences off earlier writers."""
        ...

    @property
    def is_current(self) -> bool:
        """Tell whether this process still holds the right to write, and so to send."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Tell whether commits can succeed."""
        ...

    @property
    def last_seq(self) -> int:
        """Sequence number of the last appended record; 0 when empty."""
        ...

    @property
    def committed_seq(self) -> int:
        """Sequence number up to which everything is durable."""
        ...

    def append(self, record: Record, at: datetime) -> int:
        """Put a record in line and return its sequence number. Does not wait and does not fail."""
        ...

    async def commit(self) -> None:
        """Wait until all that was appended before is durable; raise `JournalCommitError` when it cannot be."""
        ...

    def emergency(self, record: Record, at: datetime) -> None:
        """Keep one record although the journal cannot commit, for cancels and proven reductions."""
        ...

    def recovered(self) -> tuple[bytes | None, Iterator[Entry]]:
        """Return the last snapshot of the fold, if any, and the entries after it; for the start."""
        ...

    async def close(self) -> None:
        """Make everything durable and give up the right to write; safe to call twice."""
        ...


class MemoryJournal:
    """A journal that is gone with the process: for tests and try-outs (`journal=None`)."""

    def __init__(self, account: str = "memory") -> None:
        self.account = account
        self.epoch = 1
        self.is_current = True
        self.is_healthy = True
        self.entries: list[Entry] = []
        self.emergencies: list[Entry] = []

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record."""
        return len(self.entries)

    committed_seq = last_seq

    def append(self, record: Record, at: datetime) -> int:
        """Keep the record."""
        self.entries.append(Entry(len(self.entries) + 1, at, record))
        return len(self.entries)

    async def commit(self) -> None:
        """Do nothing: memory has no later."""

    def emergency(self, record: Record, at: datetime) -> None:
        """Keep the record apart."""
        self.emergencies.append(Entry(0, at, record))

    def recovered(self) -> tuple[bytes | None, Iterator[Entry]]:
        """Return all entries; there is no snapshot."""
        return None, iter(list(self.entries))

    async def close(self) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return f"MemoryJournal({len(self.entries)} records)"

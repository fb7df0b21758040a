"""The trace hash: one digest of everything a run recorded, equal for equal runs.

It covers the records in order with their clock times, and nothing else: no epoch, process id, path, batch or segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from execkit.journal.lines import encode
from execkit.model.records import Entry


class TraceHash:
    """A trace hash that is added up record by record."""

    __slots__ = ("_digest",)

    def __init__(self) -> None:
        self._digest = blake2b(digest_size=16)

    def add(self, entry: Entry) -> None:
        """Add the next record."""
        self.add_payload(encode(entry))

    def add_payload(self, payload: bytes) -> None:
        """Add the next record in its canonical bytes, as `lines.encode` gives them."""
        self._digest.update(payload + b"\n")

    def hexdigest(self) -> str:
        """Return the hash so far, 32 hex digits."""
        return self._digest.hexdigest()


def trace_hash(entries: Iterable[Entry]) -> str:
    """Return the trace hash of records in memory; `segments.trace_hash_of_file` reads a file."""
    trace = TraceHash()
    for entry in entries:
        trace.add(entry)
    return trace.hexdigest()

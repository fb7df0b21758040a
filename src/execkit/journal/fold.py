"""The fold: the state that a journal's records add up to."""

from __future__ import annotations

from collections.abc import Iterable

from execkit.errors import InvalidTransitionError, JournalCorruptedError
from execkit.model.records import Entry
from execkit.orders.book import Book


def fold(entries: Iterable[Entry], snapshot: bytes | None = None) -> Book:
    """Return the book after *entries*, starting from *snapshot* or from nothing.

    Every record was applied once when it was written, so one that cannot be applied now is damage:
    raises `JournalCorruptedError` naming its sequence number.
    """
    book = Book() if snapshot is None else Book.restore(snapshot)
    for entry in entries:
        try:
            book.apply(entry.record, entry.at)
        except InvalidTransitionError as error:
            raise JournalCorruptedError(
                f"record {entry.seq} cannot have happened: {error}"
            ) from error
    return book

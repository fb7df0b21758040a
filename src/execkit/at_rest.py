"""What a person does to an engine that could not start, because its venue is down: its journal is all there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from execkit.assembly import open_journal
from execkit.clock import SystemClock
from execkit.errors import ExecKitError
from execkit.journal.file import FileJournal
from execkit.journal.fold import fold
from execkit.model.records import Record, SymbolBlocked, TradingState, TradingStateChanged
from execkit.orders.book import Book
from execkit.parts import Settings

Change = Callable[[Book], Iterator[Record]]


async def halt(settings: Settings, cause: str, *, actor: str) -> Book:
    """Write a halt into an engine's journal, so that it starts halted; return what the journal knows.

    A journal in memory begins anew with each start: nothing is written then. Raises `JournalError` when the journal is
    in use or cannot be written.
    """

    def change(book: Book) -> Iterator[Record]:
        if book.trading_state is not TradingState.HALTED:
            yield TradingStateChanged(state=TradingState.HALTED, cause=cause, actor=actor)

    return await _write(settings, change)


async def resume(settings: Settings, *, actor: str) -> None:
    """Write the end of every halt; raise `ExecKitError` while the file halts, `JournalError` as `halt` does."""
    file = settings.halt_file
    if file is None and isinstance(settings.journal, (str, Path)):
        file = f"{settings.journal}.halt"
    if file is not None and os.path.exists(file):  # noqa: ASYNC240, PTH110 - a look at a name blocks nothing
        raise ExecKitError(f"the file {file} still halts; remove it first")

    def change(book: Book) -> Iterator[Record]:
        if book.trading_state is not TradingState.ACTIVE:
            yield TradingStateChanged(state=TradingState.ACTIVE, cause="released", actor=actor)
        for symbol in book.blocked:
            yield SymbolBlocked(symbol=symbol, blocked=False, cause=f"released by {actor}")

    await _write(settings, change)


async def _write(settings: Settings, change: Change) -> Book:
    if not isinstance(settings.journal, (str, Path)):
        return Book()
    clock = settings.clock or SystemClock()
    journal = open_journal(settings, clock)
    try:
        snapshot, entries = journal.recovered()
        book = fold(entries, snapshot)
        if isinstance(journal, FileJournal):
            journal.set_snapshot(book.snapshot)
        for record in list(change(book)):
            at = clock.now()
            book.apply(record, at)
            journal.append(record, at)
        await journal.commit()
    finally:
        await journal.close()
    return book

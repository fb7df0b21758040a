"""What keeps the store behind the journal: a thread of its own that reads the journal file, never the money path.

The file is the queue, so nothing piles up in memory while the store is locked or full. Whatever happens to the
store, trading goes on; the store catches up, or is made anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import DatabaseError, OperationalError

from execkit.journal.segments import JournalReader
from execkit.store import schema
from execkit.store.projection import Projection, StaleStoreError, default_url, open_engine

BATCH: Final = 500
"""Records in one transaction."""

THREAD_BATCH: Final = 25
"""The same beside a trading loop, which waits for the interpreter while the thread computes."""

POLL_SECONDS: Final = 0.25
BREATH_SECONDS: Final = 0.0005

log = structlog.get_logger("execkit")


class StoreFeed:
    """Brings the store up to the journal: once with `catch_up`, or all the time from `start` to `stop`.

    *db_url* is the store's SQLAlchemy address; by default an SQLite file beside the journal.
    """

    def __init__(self, journal: str | os.PathLike[str], db_url: str | None = None) -> None:
        self._journal = Path(journal)
        self._url = default_url(journal) if db_url is None else db_url
        self._open: tuple[Projection, JournalReader] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._trouble = ""

    def catch_up(self) -> int:
        """Write what the journal file holds by now, and return the number of the last record.

        A store that is damaged, of another version or of another journal is made anew. Raises
        `sqlalchemy.exc.OperationalError` while it is locked, full or out of reach (calling again goes on from
        there), and `JournalError` when the journal cannot be read.
        """
        try:
            return self._pass()
        except OperationalError:
            raise
        except (DatabaseError, StaleStoreError) as error:
            log.warning("store.made_anew", reason=str(getattr(error, "orig", None) or error))
        self.erase()
        return self._pass()

    def erase(self) -> None:
        """Take the whole store away; the next `catch_up` makes it anew."""
        self.close()
        url = make_url(self._url)
        if url.get_backend_name() == "sqlite":
            for end in ("", "-wal", "-shm"):
                Path(f"{url.database}{end}").unlink(missing_ok=True)
        else:
            engine = open_engine(self._url)
            schema.metadata.drop_all(engine)
            engine.dispose()

    def _pass(self) -> int:
        if self._open is None:
            self._open = _open(self._journal, self._url, self._breathe)
        projection, reader = self._open
        projection.flush()  # what an earlier pass could not write
        size = BATCH if self._thread is None else THREAD_BATCH
        for count, entry in enumerate(reader.entries(), 1):
            projection.fold(entry, reader.segment.chain.decode())
            if count % size == 0:
                projection.flush()
                if self._thread is not None and self._stopping.is_set():
                    break  # `stop` does the rest, without pauses
        projection.flush()
        return projection.last_seq

    # -- all the time ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Follow the journal in a thread, a quarter of a second behind, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="execkit-store", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Catch up once more and end; needs no `start` before. Never raises: what is missing comes the next time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._attempt()
        self.close()

    def close(self) -> None:
        """Close the files."""
        if self._open is not None:
            projection, reader = self._open
            projection.close()
            reader.close()
            self._open = None

    def _breathe(self) -> None:
        """Leave the interpreter to the trading loop; after `sleep(0)` we would have it back before that woke up."""
        if self._thread is not None:
            time.sleep(BREATH_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS) and self._attempt():
            pass

    def _attempt(self) -> bool:
        """Catch up; return whether trying again makes sense."""
        try:
            self.catch_up()
        except OperationalError as error:
            trouble = str(error.orig)
            if trouble != self._trouble:
                log.warning("store.behind", reason=trouble)
            self._trouble = trouble
        except Exception:
            log.exception("store.stopped")
            return False
        else:
            self._trouble = ""
        return True


def rebuild(journal: str | os.PathLike[str], db_url: str | None = None) -> int:
    """Make the store anew from the journal; return the number of the last record."""
    feed = StoreFeed(journal, db_url)
    try:
        feed.erase()
        return feed.catch_up()
    finally:
        feed.close()


def _open(
    journal: Path, db_url: str, breathe: Callable[[], None]
) -> tuple[Projection, JournalReader]:
    """Open store and journal, and bring the fold to where the store stands."""
    projection = Projection(db_url, breathe=breathe)
    try:
        seq = projection.last_seq
        reader = JournalReader(journal, after=max(seq - 1, 0))
        try:
            _fold_up_to(projection, reader, seq)
        except BaseException:
            reader.close()
            raise
    except BaseException:
        projection.close()
        raise
    return projection, reader


def _fold_up_to(projection: Projection, reader: JournalReader, seq: int) -> None:
    first = reader.segment.head.seq
    projection.restore(reader.segment.snapshot, first)
    if seq <= first:
        if first > seq:
            log.warning("store.gap", after=seq, until=first)  # segments were moved away
        return
    for entry in reader.entries():
        projection.fold(entry)
        if entry.seq == seq:
            break
    if reader.segment.seq != seq or reader.segment.chain.decode() != projection.chain:
        raise StaleStoreError("it was made from another journal")

"""The execution log: why did it trade, why did it not, and what came of it?

The journal itself is the log. Each `BarClosed` record holds every function that was asked, or not, at that close,
with what it was given, what it said and how long it took; it is appended in one piece after the last answer, and
before an order from that bar is sent. So there is one chain of hashes, one file to keep and one to verify, and
evaluations and orders cannot tell different stories.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from execkit.audit.entry import ExecutionLogEntry, Outcomes, entries_of
from execkit.errors import ConfigurationError
from execkit.functions.base import ExecutionAction
from execkit.journal.base import Journal, MemoryJournal
from execkit.journal.file import FileJournal
from execkit.journal.segments import JournalReader, SegmentReader, archive_path, archived_segments
from execkit.model.records import Alarm, BarClosed, Decision, Entry, Record
from execkit.redaction import redacted, words_of

_CLOCK_STEP = timedelta(hours=1)
"""A clock that was set back may have dated records up to this much too early."""


class ExecutionLogger:
    """Reads the evaluations of a journal, and notes errors in it.

    Args:
        journal: Path of a journal, or the journal itself: a `FileJournal` or a `MemoryJournal`.
        record: Journals a record, e.g. the engine's; without it the log is only read.

    Reading checks the chain of hashes on the way and raises `JournalCorruptedError` at the first damage. It reads
    files: beside a running engine call it in a thread.
    """

    def __init__(
        self,
        journal: str | os.PathLike[str] | Journal,
        *,
        record: Callable[[Record], object] | None = None,
    ) -> None:
        self._memory = journal if isinstance(journal, MemoryJournal) else None
        self.path: Path | None = None
        if isinstance(journal, FileJournal):
            self.path = journal.path
        elif isinstance(journal, (str, os.PathLike)):
            self.path = Path(journal)
        elif self._memory is None:
            raise ConfigurationError(f"journal: {journal!r} cannot be read; give its path")
        self._record = record

    def log_error(
        self, error: BaseException | str, *, symbol: str = "", function: str = ""
    ) -> None:
        """Record an error of a function or of the code around it as an alarm that a person has to know.

        Raises `ConfigurationError` when this log is only read.
        """
        if self._record is None:
            raise ConfigurationError("this log is only read; take the engine's, `engine.audit`")
        text = redacted(error) if isinstance(error, str) else words_of(error)
        text = f"{function}: {text}" if function else text
        self._record(Alarm(code="FUNCTION_ERROR", text=text[:1000], symbol=symbol))

    def query_logs(
        self,
        *,
        symbol: str | None = None,
        plan: str | None = None,
        function: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        failed: bool | None = None,
        limit: int | None = None,
    ) -> list[ExecutionLogEntry]:
        """Return the evaluations that match, oldest first, and of these the newest *limit*.

        *since* is inclusive and *until* exclusive, both of the close; *failed* True asks for functions that gave no
        answer that counts. What became of each is followed to the end of the journal. Raises `ConfigurationError` for
        an unknown action or a time without zone.
        """
        _check_query(action, since, until, limit)

        def matches(decision: Decision) -> bool:
            return (
                (plan is None or decision.plan == plan)
                and (function is None or decision.function == function)
                and (action is None or decision.action == action)
                and (failed is None or decision.failed is failed)
            )

        found: deque[ExecutionLogEntry] = deque(maxlen=limit)
        outcomes = Outcomes()
        for entry in self._entries(since):
            record = entry.record
            if not isinstance(record, BarClosed):
                outcomes.see(record)
                continue
            if (
                (symbol is None or record.symbol == symbol)
                and (since is None or record.close_time >= since)
                and (until is None or record.close_time < until)
                and any(map(matches, record.decisions))
            ):
                for each, decision in zip(entries_of(entry, record), record.decisions, strict=True):
                    if matches(decision):
                        found.append(each)
                        outcomes.follow(decision)
        return [outcomes.complete(each) for each in found]

    def _entries(self, since: datetime | None) -> Iterator[Entry]:
        if self.path is None:
            yield from list(self._memory.entries if self._memory is not None else ())
            return
        with JournalReader(self.path, after=_record_before(self.path, since)) as reader:
            yield from reader.entries()

    def __repr__(self) -> str:
        return f"ExecutionLogger({repr(str(self.path)) if self.path else 'memory'})"


def _check_query(
    action: str | None, since: datetime | None, until: datetime | None, limit: int | None
) -> None:
    if action is not None and action not in list(ExecutionAction):
        known = ", ".join(each.value for each in ExecutionAction)
        raise ConfigurationError(f"action: {action!r} is unknown; use one of {known}")
    for name, value in (("since", since), ("until", until)):
        if value is not None and value.tzinfo is None:
            raise ConfigurationError(
                f"{name}: {value} has no time zone; say which, e.g. with +00:00"
            )
    if limit is not None and limit < 0:
        raise ConfigurationError(f"limit: {limit} is below zero")


def _record_before(path: Path, since: datetime | None) -> int:
    """Return the number of a record after which everything from *since* on stands, to pass old segments over."""
    if since is None:
        return 0
    before = 0
    files: Iterable[Path] = [
        *(archive_path(path, number) for number in archived_segments(path)),
        path,
    ]
    for file in files:
        with SegmentReader(file) as segment:
            if segment.head.created > since - _CLOCK_STEP:
                break
            before = segment.head.seq
    return before

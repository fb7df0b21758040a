"""Virtual time for tests: hours in milliseconds, clocks that stand still or step, and proof that a run repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from execkit.clock import Clock, ManualClock, require_utc
from execkit.errors import ConfigurationError
from execkit.journal.base import Journal, MemoryJournal
from execkit.journal.segments import trace_hash_of_file
from execkit.journal.trace import trace_hash as trace_hash_of_entries
from execkit.model.records import Entry
from execkit.virtual_time import DEFAULT_START, VirtualClock, VirtualTimeLoop, run_virtual

T = TypeVar("T")


class VirtualTime:
    """A virtual loop with its clock, to be used from a plain test function; see `virtual_time`."""

    def __init__(self, start: datetime = DEFAULT_START) -> None:
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop, start)
        self._runner = asyncio.Runner(loop_factory=lambda: self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; tasks that it leaves behind go on in the next `run`."""
        return self._runner.run(work)

    def advance(self, by: timedelta | float) -> None:
        """Let time pass, in seconds or as a duration, so that everything due meanwhile is done."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if seconds < 0:
            raise ConfigurationError(
                f"by: {seconds} s: the loop's time never goes back; see clock.step()"
            )
        self.run(asyncio.sleep(seconds))

    def close(self) -> None:
        """End what still runs and close the loop."""
        self._runner.close()
        if not self.loop.is_closed():
            self.loop.close()


@contextmanager
def virtual_time(start: datetime = DEFAULT_START) -> Iterator[VirtualTime]:
    """Give virtual time to a plain test.

    >>> with virtual_time() as time:
    ...     time.run(asyncio.sleep(3600))
    ...     time.advance(timedelta(minutes=1))
    ...     time.clock.now().isoformat()
    '2024-01-01T01:01:00+00:00'

    What needs the real world (a socket, a thread, the machine's clock) raises `VirtualTimeError`.
    """
    time = VirtualTime(start)
    try:
        yield time
    finally:
        time.close()


class SteppedClock:
    """A clock that moves by *step* at every look, for code that must not depend on equal or even times."""

    def __init__(
        self, step: timedelta = timedelta(milliseconds=1), start: datetime = DEFAULT_START
    ) -> None:
        self._now = require_utc("start", start)
        self._step = step

    def now(self) -> datetime:
        """Return the time, and move on."""
        now = self._now
        self._now += self._step
        return now

    def __repr__(self) -> str:
        return f"SteppedClock({self._now.isoformat()}, step={self._step})"


def frozen_clock(at: datetime = DEFAULT_START) -> ManualClock:
    """Return a clock that stands still until it is told to move."""
    return ManualClock(at)


def trace_hash(recorded: Journal | str | Path | Iterable[Entry]) -> str:
    """Return the digest of everything a run recorded: equal runs have equal digests.

    Takes a `MemoryJournal`, the path of a closed file journal, or entries.
    """
    if isinstance(recorded, (str, Path)):
        return trace_hash_of_file(Path(recorded))
    if isinstance(recorded, MemoryJournal):
        return trace_hash_of_entries(recorded.entries)
    if isinstance(recorded, Iterable):
        return trace_hash_of_entries(recorded)
    raise ConfigurationError(f"recorded: of {recorded!r} pass the path, once it is closed")


def assert_repeatable(
    run: Callable[[Clock], Coroutine[Any, Any, MemoryJournal]], *, start: datetime = DEFAULT_START
) -> str:
    """Run `run(clock)` twice under virtual time and return the trace hash of both.

    Raises `AssertionError` with the first record that differs, which is where something not seeded or not virtual
    came in: the machine's clock, `random`, `set` order, `uuid`.
    """
    first, second = (run_virtual(run, start=start).entries for _ in range(2))
    for one, other in zip_longest(first, second):
        if one != other:
            raise AssertionError(f"the runs differ\n  first:  {one}\n  second: {other}")
    return trace_hash_of_entries(first)


__all__ = [
    "ManualClock",
    "SteppedClock",
    "VirtualClock",
    "VirtualTime",
    "assert_repeatable",
    "frozen_clock",
    "run_virtual",
    "trace_hash",
    "virtual_time",
]

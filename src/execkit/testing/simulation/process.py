"""One life of the process under test: an engine with its journal and its connection, which can be killed."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from execkit.engine import ExecutionEngine
from execkit.errors import JournalCommitError
from execkit.orders.book import Book
from execkit.parts import Parts
from execkit.testing.simulation.chaos import Chaos, Kind
from execkit.testing.simulation.journal import CrashJournal, Hooks, JournalStore
from execkit.testing.simulation.link import SimLink

OWNER: contextvars.ContextVar[Process | None] = contextvars.ContextVar("owner", default=None)

Build = Callable[[], Mapping[str, Any]]
"""Returns the options of `ExecutionEngine` other than exchange, journal, clock and generator, for each life anew."""


class Process:
    """An engine that runs in tasks of its own, so that all of them can end at one moment."""

    def __init__(
        self,
        number: int,
        store: JournalStore,
        link: SimLink,
        chaos: Chaos,
        wake: Callable[[], None],
    ) -> None:
        self.number = number
        self.store = store
        self.link = link
        self.tasks: list[asyncio.Task[Any]] = []
        self.is_dead = False
        self.commits = 0
        """Commits under way for which the disk takes its time."""
        self.absent: set[str] = set()
        """Orders that the journal says were presumed absent when they went out again."""
        self.forgotten: Counter[str] = Counter()
        """Sends that earlier lives made and did not journal."""
        self.engine: ExecutionEngine | None = None
        self.autopsy: Callable[[], None] = lambda: None
        """Called at the moment of death."""
        self.journal: CrashJournal
        self._chaos = chaos
        self._wake = wake
        self._context = contextvars.copy_context()
        self._context.run(OWNER.set, self)

    def open(self, observer: Callable[[int, Any], None]) -> None:
        """Open the journal."""
        self.journal = self.store.open(observer, _CommitFaults(self, self._chaos))

    async def start(
        self, options: Mapping[str, Any], clock: Any, rng: random.Random, halt_file: Any
    ) -> None:
        """Build the engine and start it, with what stands for the file that halts; raises what `start` raises."""
        self.engine = ExecutionEngine(
            self.link, journal=self.journal, clock=clock, rng=rng, currency="USDT", **options
        )

        def prepare(parts: Parts) -> None:
            parts.desk.gateway.halt_file = halt_file

        await self.run(self.engine.start(prepare=prepare))

    @property
    def is_running(self) -> bool:
        """Tell whether the engine takes signals."""
        return self.engine is not None and self.engine._running and not self.is_dead  # noqa: SLF001

    @property
    def book(self) -> Book:
        """The engine's books."""
        assert self.engine is not None, "asked only once the engine was built"
        return self.engine.parts.desk.book

    @property
    def has_book(self) -> bool:
        """Tell whether the engine has come as far as to have books."""
        return self.engine is not None and hasattr(self.engine, "parts")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something inside the process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something inside the process and wait for it, or for the process to die."""
        task = self.spawn(work)
        while not task.done() and not self.is_dead:
            await asyncio.wait([task], timeout=5.0)
        if self.is_dead:
            raise ProcessDied
        return task.result()

    def die(self) -> None:
        """Stop having any effect, at this very moment."""
        if not self.is_dead:
            self.autopsy()
        self.is_dead = self.link.is_dead = self.journal.is_dead = True
        self._wake()

    async def bury(self) -> None:
        """End what is left of the tasks and timers."""
        loop: Any = asyncio.get_running_loop()
        for handle in loop._scheduled:  # noqa: SLF001 - no public way to the timers
            if handle._context.get(OWNER) is self:  # noqa: SLF001
                handle.cancel()
        for _ in range(20):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0)
            await asyncio.sleep(0)
        for handle in loop._scheduled:  # noqa: SLF001
            if handle._context.get(OWNER) is self:  # noqa: SLF001
                handle.cancel()
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.exception()
        self.tasks = []

    def prune(self) -> None:
        """Forget tasks that have ended."""
        if len(self.tasks) > 200:
            self.tasks = [task for task in self.tasks if not task.done()]


class ProcessDied(Exception):  # noqa: N818 - it says what happened
    """The process was killed while something was awaited in it."""


class _CommitFaults(Hooks):
    """Commits that are slow, fail, or are the last thing that a process did."""

    def __init__(self, process: Process, chaos: Chaos) -> None:
        self._process = process
        self._chaos = chaos

    async def before_commit(self) -> None:
        chaos = self._chaos
        if chaos.hit(Kind.COMMIT_SLOW):
            self._process.commits += 1
            try:
                await asyncio.sleep(chaos.rng.uniform(0.01, 3))
            finally:
                self._process.commits -= 1
        if chaos.hit(Kind.COMMIT_FAILS):
            raise JournalCommitError("no space left on device")
        await self._perhaps_die()

    async def after_commit(self) -> None:
        await self._perhaps_die()

    async def _perhaps_die(self) -> None:
        if self._chaos.hit(Kind.CRASH_AT_COMMIT):
            self._process.die()
        if self._process.is_dead:
            await asyncio.get_running_loop().create_future()


def task_factory(
    loop: asyncio.AbstractEventLoop, work: Any, context: Any = None
) -> asyncio.Task[Any]:
    """Make tasks that belong to the process whose code makes them."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks.append(task)
    return task

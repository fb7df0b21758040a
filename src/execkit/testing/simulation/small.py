"""A small world: the mock venue, a journal that a dying process may lose, and an engine that dies at a named instant.

Everything that a process does to the outside has named instants: before and after each commit, and when each request
leaves, has arrived, and is answered. A run without deaths lists them; later runs die at each of them in turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

import attrs

from execkit.engine import ExecutionEngine
from execkit.journal.fold import fold
from execkit.model.capabilities import Capabilities
from execkit.model.order import OrderRequest, OrderRole, OrderState
from execkit.model.records import Intent, Record, SignalResult
from execkit.model.result import Outcome
from execkit.testing.checker import Evidence, check
from execkit.testing.faults import FaultScript
from execkit.testing.mock import MockExchange
from execkit.testing.simulation.journal import CrashJournal, Hooks, JournalStore
from execkit.testing.simulation.small_line import AT_VENUE, Line
from execkit.virtual_time import VirtualClock

T = TypeVar("T")

SYMBOL: Final = "BTC/USDT"
PRICE: Final = Decimal(42_000)
_ABILITIES: Final[Mapping[str, Any]] = {
    "reduce_only": True,
    "amend": True,
    "absence_window": timedelta(seconds=60),
}

_UNSETTLED: Final = frozenset(
    {
        OrderState.NEW,
        OrderState.SUBMITTED,
        OrderState.IN_DOUBT,
        OrderState.PENDING_CANCEL,
        OrderState.PENDING_AMEND,
    }
)


_BY_SIGNAL: Final = (OrderRole.ENTRY, OrderRole.EXIT)
_NOTHING_DONE: Final = (Outcome.REJECTED, Outcome.DENIED)
_NEVER: Final = frozenset({"KEEPER_FAILED", "KEEPER_LOOP", "TASK_FAILED"})
"""Alarms that tell of a defect of ours."""

_LIFE: contextvars.ContextVar[int | None] = contextvars.ContextVar("life", default=None)
"""Which life of the process something belongs to."""


class DeadEnd(Exception):  # noqa: N818 - it says what happened
    """The process died before what was awaited in it came to an end."""


@attrs.frozen
class Left:
    """A request that left a process."""

    at: float
    kind: str
    client_order_id: str
    payload_hash: str
    request: OrderRequest | None
    answer: str = ""


class SmallWorld:
    """A venue, a disk, and one process after the other.

    Args:
        clock: The virtual clock of the running loop.
        script: What goes wrong on the way to the venue.
        deaths: Instant at which the first, the second... process dies, counted from 1 in its own life.
        keeps_tail: Whether what a dead process wrote and did not commit is still there.
        abilities: Capabilities of the venue that differ from the usual ones.
        reconcile_every: As of the engine.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        script: FaultScript | None = None,
        deaths: Sequence[int] = (),
        keeps_tail: bool = False,
        abilities: Mapping[str, Any] | None = None,
        reconcile_every: timedelta = timedelta(seconds=60),
    ) -> None:
        self.clock = clock
        self.venue = MockExchange(
            clock=clock,
            script=script,
            prices={SYMBOL: PRICE},
            capabilities=Capabilities(**{**_ABILITIES, **(abilities or {})}),
        )
        self.store = Disk(keeps_tail=keeps_tail)
        self.deaths = tuple(deaths)
        self._reconcile_every = reconcile_every
        self.lives = 0
        self.instants: list[list[str]] = []
        """Names of the instants that each life went through."""
        self.ledger: list[Left] = []
        """Requests that left a process, in order."""
        self.commits: list[tuple[float, int]] = []
        self.intents: dict[str, Intent] = {}
        self.last_record = ""
        self.problems: list[str] = []
        self.line: Line
        self.journal: CrashJournal
        self.engine: ExecutionEngine
        self._ticks = 0
        self._died = asyncio.Event()
        asyncio.get_running_loop().set_task_factory(self._task)

    # -- lives -----------------------------------------------------------------------------------------

    @property
    def is_dead(self) -> bool:
        """Tell whether the process has died."""
        return self._died.is_set()

    async def live(self) -> None:
        """Start a process as a supervisor does: again, for as often as it dies while it starts."""
        while True:
            try:
                await self._start()
            except DeadEnd:
                continue
            return

    async def _start(self) -> None:
        self.lives += 1
        self.instants.append([])
        self._died = asyncio.Event()
        self.line = Line(self)
        self.journal = self.store.open(self._on_record, _Commits(self))
        self.journal.from_snapshot = self.lives % 2 == 0
        rng = random.Random(self.lives)
        self.engine = ExecutionEngine(
            self.line,
            journal=self.journal,
            clock=self.clock,
            rng=rng,
            reconcile_every=self._reconcile_every,
        )
        await self.do(self.engine.start())

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the process do something; raise `DeadEnd`, once all of it is gone, when it dies meanwhile."""
        context = contextvars.copy_context()
        context.run(_LIFE.set, self.lives)
        task = asyncio.get_running_loop().create_task(work, context=context)
        death = asyncio.get_running_loop().create_task(self._died.wait())
        await asyncio.wait([task, death], return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if self.is_dead:
            await self._bury()
            raise DeadEnd
        return task.result()

    def _task(
        self, loop: asyncio.AbstractEventLoop, work: Any, context: Any = None
    ) -> asyncio.Future[Any]:
        """Make tasks; a dead process begins none any more, whatever its cleaning up asks for."""
        life = _LIFE.get() if context is None else context.get(_LIFE)
        if life is None or (life == self.lives and not self.is_dead):
            return asyncio.Task(work, loop=loop, context=context)
        work.close()
        return loop.create_future()

    async def wait(self, seconds: float) -> None:
        """Let time pass for the process; raise `DeadEnd` when it dies meanwhile."""
        await self.do(asyncio.sleep(seconds))

    async def instant(self, name: str, line: Line) -> None:
        """Pass a named instant, or die there."""
        if line is not self.line or self.is_dead:
            await asyncio.get_running_loop().create_future()
        passed = self.instants[-1]
        passed.append(name)
        if self.lives <= len(self.deaths) and len(passed) == self.deaths[self.lives - 1]:
            await self.die()

    async def die(self) -> None:
        """Stop having any effect at this moment; whoever calls it never goes on."""
        self.journal.is_dead = True
        self._died.set()
        await asyncio.get_running_loop().create_future()

    async def _bury(self) -> None:
        """End the tasks and timers of the dead process, then lose what it did not commit."""
        loop: Any = asyncio.get_running_loop()
        for _ in range(20):
            for handle in loop._scheduled:  # noqa: SLF001 - no public way to the timers
                if not handle._context.get(AT_VENUE, False):  # noqa: SLF001
                    handle.cancel()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        self.store.crash()

    # -- what is seen ----------------------------------------------------------------------------------

    def tick(self) -> float:
        """Return a moment that is later than every other one so far."""
        self._ticks += 1
        return float(self._ticks)

    def _on_record(self, _seq: int, record: Record) -> None:
        self.last_record = type(record).__name__
        if isinstance(record, Intent):
            self.intents[record.request.client_order_id] = record

    def role_of(self, client_order_id: str) -> OrderRole | None:
        """Return what an order is for, by what was journalled."""
        intent = self.intents.get(client_order_id)
        return None if intent is None else intent.role

    def name_of(self, client_order_id: str) -> str:
        """Return what placing an order is called."""
        return f"place {self.role_of(client_order_id) or 'order'}"

    def leaves(
        self, line: Line, kind: str, client_order_id: str, request: OrderRequest | None = None
    ) -> None:
        """Note a request that leaves the living process."""
        if line is self.line and not self.is_dead:
            digest = "" if request is None else request.payload_hash
            self.ledger.append(Left(self.tick(), kind, client_order_id, digest, request))

    def arrived(self) -> None:
        """Look at the venue's open orders whenever a request has arrived."""
        live = self.venue.core.open_orders()
        entries = [o for o in live if self.role_of(o.client_order_id) is OrderRole.ENTRY]
        if len(entries) > 1:
            self.problems.append(f"I1: {len(entries)} live orders for one signal")
        reducing = sum((o.quantity - o.filled for o in live if o not in entries), Decimal(0))
        if reducing > self.held and not self.venue.capabilities.never_flips:
            self.problems.append(f"I13: reductions of {reducing} rest on a position of {self.held}")

    def evidence(self) -> Evidence:
        """Return what the independent checker reads."""
        return Evidence(
            ledger=self.ledger,
            fills=self.venue.core.fills_since(datetime.min.replace(tzinfo=UTC)),
            positions={SYMBOL: self.held},
            entries=self.store.entries(),
            commits=self.commits,
            apart=[entry for _, entry in self.store.emergencies],
        )

    def verdict(self) -> list[str]:
        """Return what is wrong now that nothing should be under way."""
        book, wrong = self.engine.book, [*self.problems, *check(self.evidence()), *self._untrue()]
        live = self.venue.core.open_orders()
        active = book.orders.active.values()
        wrong += [f"I19: {o!r} is still under way" for o in active if o.state in _UNSETTLED]
        ours = {o.client_order_id for o in active if o.state.may_be_live}
        theirs = {o.client_order_id for o in live}
        if ours != theirs:
            wrong.append(
                f"I19: open orders, ours only {ours - theirs}, theirs only {theirs - ours}"
            )
        position = book.position(SYMBOL)
        quantity = Decimal(0) if position is None else position.quantity
        if quantity != self.held:
            wrong.append(f"I4: our position {quantity}, the venue's {self.held}")
        stops = [o for o in live if self.role_of(o.client_order_id) is not OrderRole.ENTRY]
        if len(stops) > 1:
            wrong.append(f"I1: {len(stops)} live reductions")
        protected = sum((o.quantity - o.filled for o in stops), Decimal(0))
        if protected != quantity:
            wrong.append(f"I12: {quantity} open, {protected} protected")
        if fold(self.store.entries()).state_hash() != book.state_hash():
            wrong.append("I16: the journal does not add up to the state in memory")
        return wrong

    def _untrue(self) -> Iterator[str]:
        """Yield what callers were told and what was not so."""
        done = {fill.client_order_id for fill in self.evidence().fills}
        signals = {key: intent.signal_id for key, intent in self.intents.items()}
        for entry in self.store.entries():
            record = entry.record
            if isinstance(record, SignalResult) and record.outcome in _NOTHING_DONE:
                executed = [key for key in done if signals.get(key) == record.signal_id]
                orders = [key for key in executed if self.intents[key].role in _BY_SIGNAL]
                if orders:
                    yield f"I18: {record.signal_id} was told {record.outcome}, and {orders} executed"
        yield from (f"I29: {a.code}: {a.text}" for a in self.engine.book.alarms if a.code in _NEVER)

    @property
    def held(self) -> Decimal:
        """What the account holds, as the venue tells."""
        balance = self.venue.core.balances().get("BTC")
        return Decimal(0) if balance is None else balance.total


class Disk(JournalStore):
    """A store whose crash keeps all that was written, or only what was committed."""

    def __init__(self, *, keeps_tail: bool) -> None:
        super().__init__("mock", random.Random(0))
        self._keeps_tail = keeps_tail

    def crash(self) -> int:
        """Lose the records that were not committed, or none."""
        if not self._keeps_tail:
            del self.written[self.committed :]
        self.committed = len(self.written)
        return self.committed


class _Commits(Hooks):
    """The instants around a commit."""

    def __init__(self, world: SmallWorld) -> None:
        self._world = world
        self._line = world.line

    async def before_commit(self) -> None:
        await self._world.instant(f"before commit {self._world.last_record}", self._line)

    async def after_commit(self) -> None:
        world = self._world
        world.commits.append((world.tick(), world.store.committed))
        await world.instant(f"after commit {world.last_record}", self._line)

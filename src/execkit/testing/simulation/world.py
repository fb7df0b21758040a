"""The world of one simulated run: venue, prices, the process under test with its lives and deaths, and the watch."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final

from execkit.errors import ExecKitError
from execkit.exchanges.base import ExchangeAdapter
from execkit.ids import is_ours
from execkit.journal.fold import fold
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderRequest, OrderUpdate
from execkit.model.records import Filled, Record
from execkit.numbers import plain
from execkit.testing.simulation.chaos import Chaos, Kind
from execkit.testing.simulation.extras import Extras
from execkit.testing.simulation.features import Feature, rules_with
from execkit.testing.simulation.journal import JournalStore
from execkit.testing.simulation.link import SimLink
from execkit.testing.simulation.meddler import meddled
from execkit.testing.simulation.process import Build, Process, ProcessDied, task_factory
from execkit.testing.simulation.rules import SYMBOLS, Rules, rules_of
from execkit.testing.simulation.venue import SimVenue
from execkit.testing.simulation.watch import Violated, Watch
from execkit.virtual_time import VirtualClock

_LOOKS_EVERY: Final = 5.0
"""Most seconds between two looks at what must always hold."""
_KEPT: Final = 4000
"""Lines of the story that are kept."""


def instruments() -> list[Instrument]:
    """Return the markets of the simulated venue: plain, with the fee in base, and with coarse lots."""
    return [
        Instrument(
            symbol="BTC/USDT",
            base="BTC",
            quote="USDT",
            taker_fee=Decimal("0.001"),
            maker_fee=Decimal("0.001"),
            min_notional=Decimal(10),
            lot_size=Decimal("0.00001"),
        ),
        Instrument(
            symbol="ETH/USDT",
            base="ETH",
            quote="USDT",
            taker_fee=Decimal("0.001"),
            maker_fee=Decimal("0.0008"),
            fee_in_base=True,
            lot_size=Decimal("0.0001"),
            min_quantity=Decimal("0.001"),
        ),
        Instrument(
            symbol="SOL/USDT",
            base="SOL",
            quote="USDT",
            tick_size=Decimal("0.05"),
            lot_size=Decimal("0.1"),
            min_quantity=Decimal("0.1"),
            taker_fee=Decimal("0.001"),
        ),
    ]


class World:
    """Everything outside and around the process. All chance comes from *seed*."""

    def __init__(
        self,
        seed: int,
        clock: VirtualClock,
        build: Build,
        *,
        steps: int,
        rules: Rules | None,
        without: tuple[str, ...],
        keep_story: bool,
        features: frozenset[Feature] = frozenset(),
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.build = build
        self.steps = steps
        self.loop = asyncio.get_running_loop()
        self.loop.set_task_factory(task_factory)
        self.chaos = Chaos(random.Random(f"chaos {seed}"), without=without)
        self.rng = random.Random(f"world {seed}")
        self.rules = rules_with(rules or rules_of(seed), features)
        self.venue = SimVenue(
            self.rules,
            instruments(),
            {"USDT": Decimal(100_000)},
            self.true_now,
            self.loop.time,
            random.Random(f"venue {seed}"),
        )
        self.prices = {
            "BTC/USDT": Decimal(40_000),
            "ETH/USDT": Decimal(2_000),
            "SOL/USDT": Decimal(100),
        }
        self.watch = Watch(self.venue)
        self._began = clock.now()
        self.extras = Extras(self, features)
        self._began = clock.now()
        self.store = JournalStore("simulated", random.Random(f"disk {seed}"))
        self.process: Process | None = None
        self.crashes = 0
        self.lives = 0
        self.story: deque[str] = deque(maxlen=_KEPT)
        self.sustained_until: float | None = None
        self._keep_story = keep_story
        self._digest = blake2b(digest_size=16)
        self._wake: asyncio.Future[None] | None = None
        self.venue.on_accept = self.watch.accepted
        self.venue.on_updates = self._on_updates
        for symbol in SYMBOLS:
            self.quote(symbol)

    # -- time and tale ---------------------------------------------------------------------------------

    def true_now(self) -> datetime:
        """Return the venue's time, which no step of our clock changes."""
        return self._began + timedelta(microseconds=round(self.loop.time() * 1_000_000))

    def tell(self, text: str) -> None:
        """Add a line to the story and to the trace hash."""
        line = f"{self.loop.time():.6f} {text}"
        self._digest.update(line.encode())
        if self._keep_story:
            self.story.append(line)

    @property
    def trace_hash(self) -> str:
        """Digest of everything that happened so far."""
        return self._digest.hexdigest()

    async def pass_time(self, seconds: float) -> None:
        """Wait, or until the process dies, and look around meanwhile; then bury it."""
        end = self.loop.time() + seconds
        while (left := end - self.loop.time()) > 0:
            self._wake = self.loop.create_future()
            often = 0.5 if self.watch.naked.is_running else _LOOKS_EVERY
            timer = self.loop.call_later(min(left, often), self._rouse)
            try:
                await self._wake
            finally:
                timer.cancel()
                self._wake = None
            self.watch.time = self.loop.time()
            if self.process is not None and self.process.is_dead:
                return await self.bury()
            self._look()
        return None

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def check(self) -> None:
        """Look at what must hold after every step, and raise the first violation that was noted."""
        self._look()
        if self.watch.problem is not None:
            raise self.watch.problem

    def _look(self) -> None:
        process = self.process
        if process is not None and process.is_running:
            sustained = self.sustained_until is not None and (
                self.loop.time() < self.sustained_until + 60
            )
            excused = sustained or not process.journal.is_healthy or self.old is not None
            self.watch.protection.note(process, self.chaos)
            self.watch.protection.look(process, excused=excused)
            self.watch.naked.look(process, rate_is_used_up=self.extras.is_used_up(process))

    # -- prices ----------------------------------------------------------------------------------------

    def quote(self, symbol: str) -> None:
        """Give the venue the present price."""
        price = self.prices[symbol]
        instrument = self.venue.core.instruments[symbol]
        tick, size = instrument.tick_size, None
        if self.rng.random() < 0.3:
            # So little is offered that larger orders are executed in parts.
            size = instrument.round_quantity(Decimal(self.rng.randint(20, 900)) / price)
        self.venue.feed(
            Quote(
                symbol,
                price - tick,
                price + tick,
                self.true_now(),
                last=price,
                bid_size=size,
                ask_size=size,
            )
        )

    def move_price(self, symbol: str, share: float) -> None:
        """Move a price by a share of itself."""
        instrument = self.venue.core.instruments[symbol]
        price = self.prices[symbol] * (1 + Decimal(round(share * 1_000_000)) / 1_000_000)
        self.prices[symbol] = max(instrument.round_price(price), instrument.tick_size * 10)
        self.quote(symbol)

    def _on_updates(self, updates: list[OrderUpdate]) -> None:
        fills = [update for update in updates if isinstance(update, Fill)]
        for fill in fills:
            if not is_ours(fill.client_order_id):
                self.watch.shaken.add(fill.symbol)
        for update in updates:
            if isinstance(update, Fill):
                again = "" if update.replaces is None else f" instead of {update.replaces}"
                done = f"{update.side} {update.quantity} @ {update.price}"
                self.tell(f"venue: fill {update.trade_id}{again} {update.client_order_id} {done}")
                self.watch.executed(update)
            elif isinstance(update, OrderReport):
                self.tell(f"venue: {update.client_order_id} {update.status} {update.filled}")
        if self.process is not None and not self.process.is_dead:
            self.process.link.hear(updates)

    # -- the witness of the connection -----------------------------------------------------------------

    def leaves(
        self, link: ExchangeAdapter, kind: str, client_order_id: str, request: OrderRequest | None
    ) -> None:
        """See a request leave."""
        self.watch.time = self.loop.time()
        if kind != "read":
            self.tell(f"out: {kind} {client_order_id} {'' if request is None else _terms(request)}")
        process = next(
            (p for p in (self.process, self.old) if p is not None and p.link is link), None
        )
        if process is not None and process.has_book:
            self.watch.leaves(process, kind, client_order_id, request)

    old: Process | None = None
    """A process that was replaced while it still runs."""

    def answered(self, client_order_id: str, answer: str) -> None:
        """See the answer to a place request."""
        self.watch.answers[client_order_id] = answer
        self.tell(f"in: {client_order_id} {answer}")

    def lied(self, client_order_id: str) -> None:
        """See the venue break a promise."""
        self.watch.lied.add(client_order_id)
        found = self.watch.intents.get(client_order_id)
        if found is not None:
            self.watch.shaken.add(found[1].request.symbol)
        self.tell(f"lied about {client_order_id}")

    def fails(self, link: ExchangeAdapter, symbol: str) -> None:
        """See a command leave that comes to nothing."""
        if self._is_of_the_process(link):
            self.watch.naked.fails(symbol)

    def failed(self, link: ExchangeAdapter, symbol: str) -> None:
        """See that the process knows of it."""
        if self._is_of_the_process(link):
            self.watch.naked.failed(symbol)

    def _is_of_the_process(self, link: ExchangeAdapter) -> bool:
        """Tell whether a link is that of the process, not of one that was replaced and still runs."""
        return self.process is not None and self.process.link is link

    def shaken(self, symbol: str) -> None:
        """See the venue move a position by itself."""
        self.watch.shaken.add(symbol)

    async def call_point(self, link: ExchangeAdapter) -> None:
        """Perhaps die in the middle of a call."""
        process = self.process
        if process is not None and process.link is link and self.chaos.hit(Kind.CRASH_AT_CALL):
            process.die()
        if isinstance(link, SimLink) and link.is_dead:
            await self.loop.create_future()

    # -- lives -----------------------------------------------------------------------------------------

    def _on_record(self, seq: int, record: Record) -> None:
        self._digest.update(self.store.written[-1])
        if self._keep_story:
            self.story.append(f"{self.loop.time():.6f} journal {seq}: {record!r}"[:400])
        self.watch.on_record(seq, record)
        if isinstance(record, Filled):
            self._rouse()  # to see from when on it is without a stop

    async def live(self) -> bool:
        """Start a process, as a supervisor would; return whether it runs."""
        self.lives += 1
        link = SimLink(
            self.venue, self.chaos, random.Random(f"link {self.seed} {self.lives}"), self
        )
        link.is_down = lambda: self._lasts(Kind.BLACKOUT)
        link.ban_ends = lambda: (self.sustained_until or 0.0) if self._lasts(Kind.BAN) else 0.0
        process = Process(self.lives, self.store, link, self.chaos, self._rouse)
        book = fold(self.store.entries())
        self.watch.resume(len(self.store.written), book)
        process.forgotten = self.watch.sends.copy()
        for key, order in book.orders.items():
            process.forgotten[key] -= order.attempts
        self.process = self.watch.process = process
        self.watch.naked.live()
        process.autopsy = lambda: self._compare(process)
        process.open(self._on_record)
        process.journal.from_snapshot = self.lives % 3 == 0
        self.tell(f"life {self.lives} begins, {len(self.store.written)} records")
        try:
            await process.start(
                self._options(),
                self.clock,
                random.Random(f"engine {self.seed} {self.lives}"),
                self.extras.kill_file,
            )
        except ProcessDied:
            await self.bury()
            return False
        except (ExecKitError, OSError, TimeoutError, TypeError, AttributeError) as error:
            if not self.chaos.is_on:
                raise
            self.tell(f"start failed: {type(error).__name__}")
            process.die()
            await self.bury()
            return False
        self.watch.born(process)
        return True

    def _options(self) -> dict[str, Any]:
        options = self.extras.options(dict(self.build()))
        if any(kind.startswith("plugin") for kind in self.chaos.enabled):
            options["pipeline"] = meddled(options.get("pipeline"), self.chaos, self.watch.forged)
        return options

    def _lasts(self, kind: Kind) -> bool:
        return (
            self.chaos.sustained is kind
            and self.sustained_until is not None
            and self.loop.time() < self.sustained_until
        )

    def _compare(self, process: Process) -> None:
        """Check that the journal adds up to what a process has in memory."""
        if process.has_book and process.journal.is_current:
            same = fold(self.store.entries()).state_hash() == process.book.state_hash()
            self.watch.need("I16", same, "the journal does not add up to the state in memory")

    async def kill(self) -> None:
        """Kill the process at this moment."""
        if self.process is not None:
            self.process.die()
            await self.bury()

    async def bury(self) -> None:
        """Take a dead process out of the world; what it had under way may still arrive."""
        process, self.process = self.process, None
        if process is None:
            return
        self.crashes += 1
        self.tell(f"life {process.number} ends")
        for request in process.link.outbound:
            if self.rng.random() < 0.5:
                process.link.deliver(request)
        await process.bury()
        if self.store.epoch == process.journal.epoch:
            self.store.crash()
        self.watch.process = None
        self.check()

    def is_ours(self, client_order_id: str) -> bool:
        """Tell whether an order at the venue came from the process."""
        return is_ours(client_order_id)

    def fail(self, invariant: str, text: str) -> None:
        """Raise a violation."""
        raise Violated(invariant, text)


def fingerprint(result: Any) -> str:
    """Return what a caller was told, for comparison."""
    denial = result.denial
    why = "" if denial is None else f"{denial.code.value} {sorted(denial.context.items())}"
    return f"{result.outcome.value} {result.client_order_ids} {plain(result.filled)} {why}"


def _terms(request: OrderRequest) -> str:
    price = request.limit_price or request.stop_price
    return f"{request.side} {request.type} {request.quantity} {request.symbol} {price}"

"""The order rooms wired together over a scripted venue, under virtual time, without handlers and engine."""

import asyncio
import functools
import inspect
from decimal import Decimal

from tests.support.orders import BTC
from tests.support.tickets import entry
from tests.support.venue import ScriptedVenue

from execkit.errors import JournalCommitError
from execkit.events import EventBus
from execkit.journal.base import MemoryJournal
from execkit.journal.fold import fold
from execkit.model.events import Event
from execkit.model.order import OrderRole, OrderState
from execkit.model.records import Alarm, ExternalChange, Intent, OrderChanged, Source
from execkit.orders.book import Book
from execkit.orders.gateway import OrderGateway
from execkit.orders.recorder import Recorder
from execkit.orders.recovery import Reconciler
from execkit.orders.resolver import Resolver
from execkit.protection.keeper import ProtectionKeeper
from execkit.virtual_time import run_virtual


class SlowJournal(MemoryJournal):
    """A journal in memory whose commits take time, fail, or wait, as a test says."""

    def __init__(self, account="acct"):
        super().__init__(account)
        self.commits = 0
        self.committed = 0
        self.on_commit = None
        """Called, and awaited, with each commit."""
        self.fails = False
        self.emergency_fails = False

    @property
    def is_healthy(self):
        return not self.fails

    @is_healthy.setter
    def is_healthy(self, value):
        pass

    @property
    def committed_seq(self):
        return self.committed

    async def commit(self):
        self.commits += 1
        if self.on_commit is not None:
            await self.on_commit()
        if self.fails:
            raise JournalCommitError("the disk is full")
        self.committed = self.last_seq

    def emergency(self, record, at):
        if self.emergency_fails:
            raise JournalCommitError("no room beside it either")
        super().emergency(record, at)

    def records(self, kind=None):
        return [e.record for e in self.entries if kind is None or isinstance(e.record, kind)]


class Bench:
    """One process: a book, and everything that works on it. `restart` makes the next one from the journal."""

    def __init__(self, clock, venue=None, *, journal=None, book=None, **options):
        self.clock = clock
        self.venue = venue or ScriptedVenue()
        self.journal = journal or SlowJournal()
        self.bus = EventBus()
        self.book = book or Book()
        self.recorder = Recorder(self.journal, self.book, clock, self.bus)
        self.gateway = OrderGateway(self.venue, self.recorder)
        self.resolver = Resolver(self.gateway)
        self.protected = []
        self.foreign_news = 0
        self.keeper = None
        if options.pop("keeper", False):
            self.keeper = ProtectionKeeper(self.gateway, self.venue.instrument, **options)
        self.reconciler = Reconciler(
            self.gateway,
            self.resolver,
            protect=self.keeper.check if self.keeper else self.protected.append,
            on_sight=self.keeper.wake if self.keeper else lambda: None,
            on_foreign=self._on_foreign,
        )
        self.reconciler.stream_is_open = True
        self.events = []
        self.bus.subscribe(Event, self.events.append)

    def _on_foreign(self):
        self.foreign_news += 1

    async def stop(self):
        await self.reconciler.stop()
        if self.keeper:
            await self.keeper.stop()
        await self.resolver.stop()

    async def restart(self, **options):
        """End this process between two steps, and return the next one on the same journal and venue.

        Where the journal could not commit, what it lost is lost, and what was kept beside it is taken over.
        """
        await self.stop()
        journal = SlowJournal()
        journal.entries = list(self.journal.entries)
        if self.journal.fails:
            del journal.entries[self.journal.committed :]
            for entry_ in self.journal.emergencies:
                journal.append(entry_.record, entry_.at)
        keeper = {"keeper": True} if self.keeper else {}
        book = fold(journal.entries)
        made = Bench(self.clock, self.venue, journal=journal, book=book, **keeper, **options)
        made.siblings = self.siblings
        self.siblings.append(made)
        return made

    # -- shortcuts -------------------------------------------------------------------------------------

    def order(self, number=-1):
        """Return an order by the place in which it was intended."""
        return list(self.book.orders.values())[number]

    def orders(self, role):
        return [each for each in self.book.orders.values() if each.role is role]

    @property
    def stops(self):
        """Stops that may be live."""
        return [
            o
            for o in self.book.orders.open_reductions(BTC)
            if o.role is OrderRole.STOP and o.state is not OrderState.NEW
        ]

    @property
    def alarms(self):
        return [each.code for each in self.journal.records(Alarm)]

    def changes(self, order):
        """Return the events of an order, as words."""
        key = order.client_order_id
        return [
            r.event.value for r in self.journal.records(OrderChanged) if r.client_order_id == key
        ]

    def intents(self):
        return self.journal.records(Intent)

    def told(self, kind):
        return [each for each in self.events if isinstance(each, kind)]

    def take(self, fill, source=Source.STREAM):
        return self.gateway.intake.take_fill(fill, source)

    async def open(self, quantity="1", *, signal="s1", price="100", **details):
        """Open a position by an entry that is executed, and return its order."""
        sent = await self.gateway.send(entry(signal, quantity=quantity, limit=price, **details))
        assert sent.denial is None, sent.denial
        self.take(self.venue.fill(sent.order.client_order_id, quantity))
        return sent.order

    async def open_position_by_outside(self, quantity="1"):
        """Open a position without an order of ours."""
        self.recorder.record(
            ExternalChange(
                symbol=BTC, quantity=Decimal(quantity), price=Decimal(100), reason="by hand"
            )
        )

    async def quiet(self, seconds=0.05):
        """Let everything run that is due by then."""
        await asyncio.sleep(seconds)
        await self.bus.idle()


def virtual(test):
    """Run an async test under virtual time; its first argument makes benches, the others are pytest's."""

    @functools.wraps(test)
    def run(**arguments):
        async def main(clock):
            benches = []

            def make(venue=None, **options):
                benches.append(Bench(clock, venue, **options))
                benches[-1].siblings = benches
                return benches[-1]

            try:
                await test(make, **arguments)
            finally:
                for each in benches:
                    await each.stop()

        run_virtual(main)

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    return run

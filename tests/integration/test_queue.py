"""What has waited for its market to open means what it meant when it was queued, also after a restart."""

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from msgspec.structs import replace

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import MarketClosedError
from execkit.handlers.risk import RiskManagementHandler
from execkit.journal.base import MemoryJournal
from execkit.model.denial import DenialCode
from execkit.model.order import OrderRole, Side
from execkit.model.records import Record, SignalQueued
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.risk.limits import RiskLimits
from execkit.testing import Fault, FaultScript, MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


def signal(signal_id, side=Side.BUY, **changes):
    options = {"symbol": BTC, "side": side, "confluence": 4, "quantity": D("0.01")}
    return TradingSignal(**{**options, "signal_id": signal_id, **changes})


def shut(venue):
    """The next order is refused because the market is closed."""
    venue.connection.script = FaultScript(
        [Fault(on="place", kind="error", error=MarketClosedError("closed"), nth=1)]
    )


async def wait(clock, **delta):
    await clock.sleep_until(clock.now() + timedelta(**delta))


def reopened(journal, change=lambda record: record):
    """Return a journal as a new process finds it."""
    again = MemoryJournal(journal.account)
    for entry in journal.entries:
        again.append(change(entry.record), entry.at)
    return again


class Day:
    """A venue that sells short, an engine on it, and a restart of the engine."""

    def __init__(self, clock):
        self.clock = clock
        self.venue = MockExchange(clock=clock, prices={BTC: D(42_000)}, allow_short=True)
        self.journal = MemoryJournal(self.venue.account)

    def engine(self):
        limits = RiskLimits(allow_short=True)
        chain = standard_pipeline().replace(RiskManagementHandler, RiskManagementHandler(limits))
        return ExecutionEngine(
            self.venue, journal=self.journal, clock=self.clock, pipeline=chain, currency="USDT"
        )

    async def queue(self, engine, wanted):
        shut(self.venue)
        assert (await engine.submit(wanted)).outcome is Outcome.QUEUED

    async def stop_out(self, price=D(41_000)):
        """Let the price fall through the stop and come back."""
        self.venue.set_price(BTC, price)
        await wait(self.clock, seconds=3)
        assert self.venue.core.positions() == []
        self.venue.set_price(BTC, D(42_000))


def play(body):
    async def main(clock):
        await body(Day(clock))

    run_virtual(main)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_queued_exit_never_opens_nor_closes_what_came_after(restart, comes_back):
    """Its stop was faster: a sale of what is gone is no short, and no exit from the next position."""

    async def body(day):
        async with day.engine() as engine:
            await engine.submit(signal("in"))
            await engine.desk.keeper.idle()
            await day.queue(engine, signal("out", Side.SELL))
            await day.stop_out()
            if comes_back:
                assert (await engine.submit(signal("again"))).outcome is Outcome.FILLED
                await engine.desk.keeper.idle()
            if not restart:
                await wait(day.clock, minutes=2)
                last = engine.book.signals["out"].result
        if restart:
            day.journal = reopened(day.journal)
            async with day.engine() as engine:
                await wait(day.clock, minutes=2)
                last = engine.book.signals["out"].result
        held = sum((p.quantity for p in day.venue.core.positions()), D(0))
        assert held == (D("0.01") if comes_back else 0)
        assert last.outcome is Outcome.DENIED
        assert last.denial.code is DenialCode.NO_POSITION_TO_REDUCE
        assert last.denial.context["was_for"] == f"{BTC}#1"

    play(body)


def test_a_queued_exit_closes_what_it_was_made_for():
    """As far as it is still there."""

    async def body(day):
        async with day.engine() as engine:
            await engine.submit(signal("in"))
            await engine.desk.keeper.idle()
            await day.queue(engine, signal("out", Side.SELL))
            queued = engine.book.queued["out"]
            assert (queued.role, queued.position_id) == (OrderRole.EXIT, f"{BTC}#1")
            assert queued.signal_digest == signal("out", Side.SELL).digest
            part = await engine.submit(signal("part", Side.SELL, quantity=D("0.004")))
            assert part.outcome is Outcome.FILLED
            await wait(day.clock, minutes=2)
            assert engine.book.signals["out"].result.filled == D("0.006")
        assert day.venue.core.positions() == []

    play(body)


def test_a_queued_entry_never_reduces():
    """A short that was to be opened does not close the long that somebody has opened meanwhile."""

    async def body(day):
        async with day.engine() as engine:
            await day.queue(engine, signal("short", Side.SELL))
            assert engine.book.queued["short"].position_id is None
            await engine.submit(signal("long"))
            await engine.desk.keeper.idle()
            await wait(day.clock, minutes=2)
            last = engine.book.signals["short"].result
            assert last.denial.code is DenialCode.POSITION_EXISTS
            assert engine.positions[BTC].quantity == D("0.01")

    play(body)


def test_a_queue_from_before_its_meaning_was_kept_still_opens():
    """A journal of an earlier version says less: the signal means what it means when it is sent."""

    def as_before(record):
        if not isinstance(record, SignalQueued):
            return record
        said = msgspec.to_builtins(record)
        del said["role"], said["position_id"]
        return msgspec.convert(said, type=Record)

    async def body(day):
        async with day.engine() as engine:
            await engine.submit(signal("in"))
            await engine.desk.keeper.idle()
            await day.queue(engine, signal("out", Side.SELL))
        day.journal = reopened(day.journal, as_before)
        assert replace(engine.book.queued["out"], role=None, position_id=None) in [
            entry.record for entry in day.journal.entries
        ]
        async with day.engine() as engine:
            await wait(day.clock, minutes=2)
            assert engine.book.signals["out"].result.outcome is Outcome.FILLED
        assert day.venue.core.positions() == []

    play(body)

"""An order in slices whose market closes for a while: it is not made up for all at once when that opens again."""

from datetime import timedelta
from types import SimpleNamespace

import msgspec
import pytest
from tests.support.slices import (
    BTC,
    HOUR,
    D,
    Sessions,
    engine_on,
    entries,
    large,
    pipeline,
    reopened,
    venue_for,
    wait,
)

from execkit.engine import ExecutionEngine
from execkit.errors import MarketClosedError
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.journal.base import MemoryJournal
from execkit.model.order import Side
from execkit.model.records import Filled, Intent, SignalQueued
from execkit.model.result import Outcome
from execkit.model.slicing import Twap
from execkit.testing import Fault, FaultKind, FaultScript, Operation
from execkit.virtual_time import run_virtual

TWELVE = Twap(duration=2 * HOUR, slices=12)


def play(body):
    async def main(clock):
        venue = Sessions(clock=clock, prices={BTC: D(42_000)}, balances={"USDT": D(100_000)})
        chain = pipeline().insert(MarketHoursHandler(), before="OrderExecutorHandler")
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            await body(engine, venue, clock)

    run_virtual(main)


def executed_parts(engine):
    """Return the executed slices, from the journal: the stop is tried so often meanwhile that they leave the memory."""
    entries = engine.parts.journal.entries
    done = {e.record.fill.client_order_id for e in entries if isinstance(e.record, Filled)}
    intents = [e for e in entries if isinstance(e.record, Intent) and e.record.slice_of]
    return [
        SimpleNamespace(created_at=each.at, quantity=each.record.request.quantity)
        for each in intents
        if each.record.request.client_order_id in done
    ]


def no_burst(orders, start, parts):
    """Each order was made at the time of a part, one at most, of twice a part at most."""
    times = [order.created_at - start for order in orders]
    steps = {timedelta(minutes=10) * n for n in range(12)}
    assert {timedelta(seconds=round(time.total_seconds())) for time in times} <= steps
    assert len(set(times)) == len(times) == parts
    assert max(order.quantity for order in orders) <= D("0.24") / 12 * 2


def test_parts_that_meet_a_closed_market_do_not_wait_for_its_opening():
    """Eight of twelve parts fall into the pause; each of the last three makes up for one."""

    async def body(engine, venue, clock):
        start = clock.now()
        await engine.submit(large(slicing=TWELVE, quantity=D("0.24")))
        await wait(clock, minutes=5)
        venue.is_open = False
        await wait(clock, minutes=80)
        assert engine.book.queued == {}
        venue.is_open = True
        await wait(clock, hours=2)
        no_burst(entries(engine), start, 4)
        assert engine.book.positions.quantity(BTC) == D("0.02") + 3 * D("0.04")
        denied = engine.book.signals["big/1"].result
        assert denied.outcome is Outcome.DENIED
        assert "MARKET_CLOSED" in denied.reason

    play(body)


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_parts_that_the_venue_refuses_as_closed_are_not_queued_either(side):
    """Of an exit too, which no handler keeps from a closed market."""

    async def body(engine, venue, clock):
        if side is Side.SELL:
            await engine.submit(large(slicing=None, quantity=D("0.24"), signal_id="in"))
            await engine.desk.keeper.idle()
        start = clock.now()
        await engine.submit(large(side=side, slicing=TWELVE, quantity=D("0.24")))
        await wait(clock, minutes=5)
        closed = MarketClosedError("closed")
        venue.connection.script = FaultScript(
            [Fault(on=Operation.PLACE, kind=FaultKind.ERROR, error=closed)]
        )
        await wait(clock, minutes=80)
        assert engine.book.queued == {}
        venue.connection.script = FaultScript()
        await wait(clock, hours=2)
        no_burst(executed_parts(engine), start, 4)
        moved = D("0.02") + 3 * D("0.04")
        left = moved if side is Side.BUY else D("0.24") - moved
        assert engine.book.positions.quantity(BTC) == left

    play(body)


def test_an_order_that_comes_while_the_market_is_closed_waits_for_it_whole():
    """Its time begins at the opening."""

    async def body(engine, venue, clock):
        venue.is_open = False
        queued = await engine.submit(large(slicing=TWELVE, quantity=D("0.24")))
        assert queued.outcome is Outcome.QUEUED
        await wait(clock, hours=10)
        venue.is_open = True
        await wait(clock, minutes=2)
        assert len(entries(engine)) == 1
        assert engine.book.queued == {}
        await wait(clock, hours=2)
        assert engine.book.positions.quantity(BTC) == D("0.24")

    play(body)


def test_parts_that_an_older_process_has_queued_are_not_sent():
    """Their order has gone on without them."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large())
            await wait(clock, minutes=1)
            for number in (8, 9):
                part = large(slicing=None, slice_of="big", signal_id=f"big/{number}")
                queued = SignalQueued(
                    signal_id=f"big/{number}",
                    signal_digest=part.digest,
                    symbol=BTC,
                    signal=msgspec.json.encode(part).decode(),
                )
                engine.desk.recorder.record(queued)
        async with engine_on(venue, clock, reopened(journal)) as engine:
            assert engine.book.queued == {}
            await wait(clock, minutes=5)
            assert len(entries(engine)) == 1

    run_virtual(main)

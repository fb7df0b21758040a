"""Orders in slices across the end of a process: stopped in peace, or killed between any two records."""

import asyncio
from datetime import timedelta

import pytest
from tests.support.slices import (
    BTC,
    D,
    engine_on,
    entries,
    large,
    reopened,
    venue_for,
    wait,
)

from execkit.journal.base import MemoryJournal
from execkit.model.order import Side
from execkit.model.records import Filled, Intent, SignalResult
from execkit.model.result import Outcome
from execkit.model.slicing import Iceberg
from execkit.testing import Fault, FaultKind, FaultScript, Operation
from execkit.virtual_time import run_virtual

ICEBERG = {"slicing": Iceberg(display=D("0.05")), "limit_price": D(41_900)}

SLOW = Fault(on=Operation.PLACE, kind=FaultKind.DELAY, after=timedelta(seconds=6), nth=1)


def codes(engine):
    return {alarm.code for alarm in engine.book.alarms}


@pytest.mark.parametrize("slices", [{}, ICEBERG], ids=["twap", "iceberg"])
def test_a_stop_in_peace_is_a_pause(slices):
    """A part that falls due while the engine waits for another signal is not begun; the next process goes on."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        engine = engine_on(venue, clock, journal)
        await engine.start()
        began = clock.now()
        await engine.submit(large(**slices))
        await clock.sleep_until(began + timedelta(minutes=14, seconds=57))
        venue.set_price("ETH/USDT", D(2_000))
        venue.connection.script = FaultScript([SLOW])
        other = large(symbol="ETH/USDT", slicing=None, quantity=D("0.1"), signal_id="other")
        submitted = asyncio.ensure_future(engine.submit(other))
        await asyncio.sleep(0.01)
        stopping = asyncio.ensure_future(engine.stop())
        await asyncio.sleep(3)
        if slices:
            venue.execute(entries(engine)[0].client_order_id)
        assert not submitted.done()
        await stopping
        assert (await submitted).outcome is Outcome.FILLED
        assert clock.now() >= began + timedelta(minutes=15, seconds=2)
        mine = [o for o in entries(engine) if o.symbol == BTC]
        assert len(mine) == 1
        assert engine.book.parents.get("big").ended is None
        assert "SLICING_FAILED" not in codes(engine)
        venue.connection.script = FaultScript()
        async with engine_on(venue, clock, reopened(journal)) as engine:
            for _ in range(3):
                await wait(clock, minutes=16)
                for order in entries(engine):
                    if not order.is_closed:
                        venue.execute(order.client_order_id)
            await wait(clock, seconds=5)
            assert engine.book.positions.quantity(BTC) == D("0.2")
            assert engine.book.parents.get("big").ended == "all slices were sent"

    run_virtual(main)


def test_a_part_that_is_being_sent_when_the_engine_stops_gets_its_answer():
    """It is no doubt: the stop waits for it."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        engine = engine_on(venue, clock, journal)
        await engine.start()
        began = clock.now()
        await engine.submit(large())
        await wait(clock, seconds=5)
        venue.connection.script = FaultScript([SLOW])
        await clock.sleep_until(began + timedelta(minutes=15, seconds=1))
        await engine.stop()
        assert [order.filled for order in entries(engine)] == [D("0.05"), D("0.05")]
        told = engine.book.signals["big/1"].result
        assert told.outcome is Outcome.FILLED

    run_virtual(main)


def test_the_reservation_after_a_restart_is_what_is_left():
    """What rests of it is a part of that, not taken off; what it executes then is taken off once."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()

        def reserved(engine):
            return engine.desk.ledger.reserved_notional_of(BTC) / 42_000

        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large(**ICEBERG))
            await wait(clock, seconds=5)
            venue.execute(entries(engine)[0].client_order_id)
            await wait(clock, seconds=5)
            venue.execute(entries(engine)[1].client_order_id, D("0.02"))
            await wait(clock, seconds=1)
            assert reserved(engine) == D("0.13")
        async with engine_on(venue, clock, reopened(journal)) as engine:
            await wait(clock, seconds=5)
            assert reserved(engine) == D("0.13")
            venue.execute(entries(engine)[1].client_order_id)
            await wait(clock, seconds=1)
            assert reserved(engine) == D("0.1")
            await engine.cancel_all(halt=False)
            assert len(engine.desk.ledger) == 0

    run_virtual(main)


def cut(journal, last):
    """Return the journal of a process that was killed after the first record of which *last* says so."""
    short = MemoryJournal()
    for entry in journal.entries:
        short.append(entry.record, entry.at)
        if last(entry.record):
            return short
    raise AssertionError("no such record")


def is_part(record):
    return isinstance(record, Intent) and record.slice_of == "big"


def is_fill_of_entry(record):
    return isinstance(record, Filled) and record.fill.side is Side.BUY


@pytest.mark.parametrize("last", [is_part, is_fill_of_entry])
def test_a_kill_after_the_first_part_and_before_its_order_was_told(last):
    """It has begun, so it goes on; the same signal again is told so, and adds nothing."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large())
            await wait(clock, seconds=5)
        killed = MemoryJournal()
        # The result is told while the first part is under way, so it may be lost behind that part.
        rest = [e for e in journal.entries if not is_result(e.record)]
        for entry in rest:
            killed.append(entry.record, entry.at)
        killed = cut(killed, last)
        async with engine_on(venue, clock, killed) as engine:
            await wait(clock, seconds=5)
            again = await engine.submit(large())
            assert again.outcome is Outcome.WORKING
            assert again.reason == "worked in slices since before the restart"
            assert (again.requested, again.filled) == (D("0.2"), D("0.05"))
            assert again.average_price == 42_000
            await wait(clock, hours=1)
            assert engine.book.parents.get("big").ended == "all slices were sent"
            assert engine.book.positions.quantity(BTC) == D("0.2")
            assert len(entries(engine)) == 4
            assert codes(engine) & {"SLICING_FAILED"} == set()

    run_virtual(main)


def is_result(record):
    return isinstance(record, SignalResult) and record.signal_id == "big"


@pytest.mark.parametrize(
    ("bought", "outcome"),
    [
        (D("0.2"), Outcome.FILLED),
        (D("0.05"), Outcome.PARTIALLY_FILLED),
        (D(0), Outcome.CANCELLED),
    ],
)
def test_what_is_over_when_it_is_asked_for_again(bought, outcome):
    """The answer is what its parts have done, with their figures."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            limit = {"limit_price": D(41_990)} if not bought else {}
            await engine.submit(large(**limit))
            await wait(clock, minutes=1)
            if bought != D("0.05"):
                await wait(clock, hours=1)
        killed = MemoryJournal()
        for entry in journal.entries:
            if not is_result(entry.record):
                killed.append(entry.record, entry.at)
        await wait(clock, hours=2)
        async with engine_on(venue, clock, killed) as engine:
            answer = await engine.submit(large())
            assert answer.outcome is outcome
            assert (answer.requested, answer.filled) == (D("0.2"), bought)
            assert answer.average_price == (42_000 if bought else None)
            assert answer.reason == engine.book.parents.get("big").ended
            await wait(clock, hours=2)
            assert engine.book.positions.quantity(BTC) == bought

    run_virtual(main)

"""An order in slices belongs to one position: it builds none anew that was closed, and takes nothing from the next."""

import attrs
import pytest
from tests.support.slices import (
    BTC,
    D,
    engine_on,
    entries,
    large,
    pipeline,
    play,
    reopened,
    trade_at,
    venue_for,
    wait,
)

from execkit.engine import ExecutionEngine
from execkit.journal.base import MemoryJournal
from execkit.journal.fold import fold
from execkit.model.denial import DenialCode
from execkit.model.events import TradingSignalGenerated
from execkit.model.order import Side
from execkit.model.records import ExternalChange, ParentEnded, ParentOrder
from execkit.model.result import Outcome
from execkit.model.slicing import Iceberg
from execkit.virtual_time import run_virtual

OUT = {"side": Side.SELL, "slicing": None, "reduce_only": True}


async def exit_by_signal(engine, venue, clock):
    result = await engine.submit(large(**OUT, quantity=None, signal_id="exit"))
    assert result.outcome is Outcome.FILLED


async def exit_in_slices(engine, venue, clock):
    await engine.submit(large(side=Side.SELL, quantity=None, reduce_only=True, signal_id="exit"))
    await wait(clock, hours=1)


async def exit_at_the_stop(engine, venue, clock):
    trade_at(venue, clock, D(41_000))
    await wait(clock, seconds=20)
    trade_at(venue, clock, D(42_000))


async def exit_at_the_target(engine, venue, clock):
    trade_at(venue, clock, D(45_000))
    await wait(clock, seconds=20)
    trade_at(venue, clock, D(42_000))


async def exit_by_close(engine, venue, clock):
    assert await engine.close_position(BTC)


WAYS = [exit_by_signal, exit_in_slices, exit_at_the_stop, exit_at_the_target, exit_by_close]


@pytest.mark.parametrize("leave", WAYS)
def test_a_closed_position_is_not_entered_again_by_the_rest_of_its_entry(leave):
    """Whatever closes it ends the entry: two parts of four are sent, and no third."""

    async def body(engine, venue, clock):
        await engine.submit(large())
        await wait(clock, minutes=16)
        assert engine.book.positions.quantity(BTC) == D("0.1")
        await leave(engine, venue, clock)
        assert BTC not in engine.book.positions.open
        parent = engine.book.parents.get("big")
        assert parent.ended is not None
        assert parent.ended.endswith("; 0.1 not executed")
        assert len(engine.desk.ledger) == 0
        await wait(clock, hours=2)
        assert len(entries(engine)) == 2
        assert BTC not in engine.book.positions.open

    play(body)


def test_a_partial_exit_leaves_the_entry_at_work():
    """Half is taken out by a signal, and the rest of the entry comes at its times."""

    async def body(engine, _venue, clock):
        await engine.submit(large())
        await wait(clock, minutes=16)
        await engine.submit(large(**OUT, quantity=D("0.05"), signal_id="half"))
        await wait(clock, hours=1)
        assert engine.book.parents.get("big").ended == "all slices were sent"
        assert engine.book.positions.quantity(BTC) == D("0.15")

    play(body)


def test_a_stop_that_is_executed_in_part_ends_the_entry():
    """A position on its way out is not built up meanwhile."""

    async def body(engine, venue, clock):
        await engine.submit(large())
        await wait(clock, minutes=1)
        stop = engine.book.working_stop(BTC)
        venue.execute(stop.client_order_id, D("0.01"))
        await wait(clock, seconds=1)
        assert engine.book.parents.get("big").ended == (
            "its position is being closed; 0.15 not executed"
        )
        await wait(clock, hours=2)
        assert len(entries(engine)) == 1
        assert engine.book.positions.quantity(BTC) == D("0.04")

    play(body)


def test_what_rests_of_an_iceberg_ends_with_its_position():
    """Its part would else be executed later and open the position anew."""

    async def body(engine, venue, clock):
        await engine.submit(large(slicing=Iceberg(display=D("0.08")), limit_price=D(41_900)))
        await wait(clock, seconds=5)
        venue.execute(entries(engine)[0].client_order_id)
        await wait(clock, seconds=5)
        assert [order.is_closed for order in entries(engine)] == [True, False]
        venue.execute(engine.book.working_stop(BTC).client_order_id)
        await wait(clock, seconds=5)
        assert engine.book.parents.get("big").ended.endswith("; 0.12 not executed")
        assert [order.is_closed for order in entries(engine)] == [True, True]
        assert venue.core.positions() == []

    play(body)


def test_the_rest_of_an_exit_takes_nothing_from_the_next_position():
    """A quarter of it left the first position; the rest of that was closed at once, and another was opened."""

    async def body(engine, _venue, clock):
        await engine.submit(large(slicing=None, signal_id="in"))
        await engine.submit(large(side=Side.SELL, quantity=None, signal_id="out"))
        await wait(clock, minutes=1)
        await engine.submit(large(**OUT, quantity=None, signal_id="all"))
        assert engine.book.parents.get("out").ended == (
            "its position is not the open one; 0.15 not executed"
        )
        await engine.submit(large(slicing=None, signal_id="next"))
        part = large(**OUT, slice_of="out", quantity=D("0.05"), signal_id="late")
        assert (await engine.submit(part)).denial.code is DenialCode.PARENT_EXCEEDED
        await wait(clock, hours=2)
        assert engine.book.positions.quantity(BTC) == D("0.2")

    play(body)


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_a_kill_between_the_last_execution_and_the_end_changes_nothing(side):
    """The next process sees that the position is another one, and sends no more."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            if side is Side.SELL:
                await engine.submit(large(slicing=None, signal_id="in"))
            await engine.submit(large(side=side, quantity=D("0.2")))
            await wait(clock, minutes=1)
            await engine.submit(large(**OUT, quantity=None, signal_id="all"))
            if side is Side.SELL:
                await engine.submit(large(slicing=None, signal_id="next"))
                await engine.desk.keeper.idle()
        lost = MemoryJournal()
        for entry in journal.entries:
            if not isinstance(entry.record, ParentEnded):
                lost.append(entry.record, entry.at)
        held = venue.core.positions()
        async with engine_on(venue, clock, lost) as engine:
            ended = engine.book.parents.get("big").ended
            assert ended == "its position is not the open one; 0.15 not executed"
            await wait(clock, hours=2)
            assert venue.core.positions() == held

    run_virtual(main)


def test_an_older_journal_names_no_position():
    """The one that was open when the order began counts, and what its parts have built."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large())
            await wait(clock, hours=1)
            await engine.submit(large(side=Side.SELL, quantity=None, signal_id="out"))
            await wait(clock, minutes=1)
            named = {each: engine.book.parents.get(each).position_id for each in ("big", "out")}
        entries_of_old = []
        for entry in reopened(journal).entries:
            record = entry.record
            if isinstance(record, ParentOrder):
                record = type(record)(
                    **{
                        name: getattr(record, name)
                        for name in record.__struct_fields__
                        if name != "position_id"
                    }
                )
            entries_of_old.append(type(entry)(entry.seq, entry.at, record))
        book = fold(entries_of_old)
        assert named == {each: book.parents.get(each).position_id for each in ("big", "out")}
        assert named["big"] == named["out"] == f"{BTC}#1"

    run_virtual(main)


def test_a_part_of_an_entry_never_reduces_a_position_the_other_way():
    """Somebody has sold short at the venue before anything of it was executed: the order ends."""

    async def body(engine, _venue, clock):
        await engine.submit(large(limit_price=D(41_990)))
        await wait(clock, minutes=1)
        (first,) = entries(engine)
        assert (first.filled, first.is_closed) == (D(0), True)
        parent = engine.book.parents.get("big")
        assert parent.ended is None
        short = ExternalChange(symbol=BTC, quantity=D("-0.05"), price=D(42_000), reason="by hand")
        engine.desk.recorder.record(short)
        assert parent.ended == "its position is not the open one; 0.2 not executed"
        part = large(slicing=None, slice_of="big", quantity=D("0.05"), entry_only=True)
        late = await engine.submit(attrs.evolve(part, signal_id="late"))
        assert late.denial.code is DenialCode.POSITION_EXISTS

    play(body)


def test_parts_say_what_they_are_for():
    """A part of an entry only enters, a part of an exit only reduces."""

    async def body(engine, _venue, clock):
        seen = []
        engine.events.subscribe(TradingSignalGenerated, lambda event: seen.append(event.signal))
        await engine.submit(large())
        await wait(clock, hours=1)
        await engine.submit(large(side=Side.SELL, quantity=None, signal_id="out"))
        await wait(clock, hours=1)
        flags = {each.signal_id: (each.entry_only, each.reduce_only) for each in seen}
        assert {flags[f"big/{n}"] for n in range(4)} == {(True, False)}
        assert {flags[f"out/{n}"] for n in range(4)} == {(False, True)}

    play(body)


def test_an_exit_whose_position_is_closed_before_it_begins():
    """A stop came first, or a person by hand: it is denied, and the next position keeps what it has."""

    async def main(clock):
        venue = venue_for(clock)

        class Meanwhile:
            """Somebody closes the position and opens another while an exit is on its way."""

            place = "before"
            deadline = None

            async def __call__(self, ticket, call_next, /):
                if ticket.is_reduction:
                    for quantity in (D("-0.2"), D("0.1")):
                        await wait(clock, seconds=1)
                        change = ExternalChange(
                            symbol=BTC, quantity=quantity, price=D(42_000), reason="by hand"
                        )
                        engine.desk.recorder.record(change)
                return await call_next(ticket)

        chain = pipeline().insert(Meanwhile(), before="OrderExecutorHandler")
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            await engine.submit(large(slicing=None, signal_id="in"))
            await engine.desk.keeper.idle()
            late = await engine.submit(large(side=Side.SELL, quantity=D("0.1"), signal_id="out"))
            assert late.denial.code is DenialCode.NO_POSITION_TO_REDUCE
            assert late.reason.endswith("the position that it was to leave is closed")
            assert engine.book.parents.get("out") is None

    run_virtual(main)

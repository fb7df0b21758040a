"""An order in slices that is not executed whole is told of, with its figures; one that never can be is refused."""

import pytest
from tests.support.slices import (
    BTC,
    D,
    Sessions,
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
from execkit.errors import ExecKitError
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.handlers.validation import ValidationHandler
from execkit.journal.base import MemoryJournal
from execkit.model.denial import DenialCode
from execkit.model.events import SystemError as AlarmRaised
from execkit.model.order import Side
from execkit.model.result import Outcome
from execkit.model.slicing import Iceberg
from execkit.notify.messages import Severity, message_of
from execkit.pipeline import ExecutionPipeline
from execkit.virtual_time import run_virtual

CODE = "SLICING_UNFINISHED"
BY_FIFTIETHS = {"slicing": Iceberg(display=D("0.05"))}


def listen(engine):
    told = []
    engine.events.subscribe(
        AlarmRaised, lambda event: told.append(event) if event.code == CODE else None
    )
    return told


def test_what_is_left_at_its_end_is_told():
    """A price has run away from the limit; the alarm says what was asked for, what was done, and why no more."""

    async def body(engine, venue, clock):
        told = listen(engine)
        await engine.submit(large(limit_price=D(42_010)))
        await wait(clock, minutes=1)
        trade_at(venue, clock, D(42_100))
        await wait(clock, hours=2)
        (event,) = told
        assert event.text == (
            "big: buy 0.05 of 0.2 BTC/USDT executed; all slices were sent; 0.15 not executed"
        )
        assert event.symbol == BTC
        message = message_of(event)
        assert (message.severity, message.title) == (Severity.ERROR, CODE)

    play(body)


def test_what_is_executed_whole_raises_no_alarm():
    """There is nothing to look at."""

    async def body(engine, _venue, clock):
        await engine.submit(large())
        await wait(clock, hours=2)
        assert engine.book.parents.get("big").ended == "all slices were sent"
        assert list(engine.book.alarms) == []

    play(body)


@pytest.mark.parametrize("how", ["cancel_all", "flatten"])
def test_what_a_command_ends_is_told_too(how):
    """Once, with the command as its reason."""

    async def body(engine, _venue, clock):
        told = listen(engine)
        await engine.submit(large())
        await wait(clock, minutes=1)
        await getattr(engine, how)()
        await wait(clock, seconds=5)
        reason = how.replace("_", "-")
        assert [event.text for event in told] == [
            f"big: buy 0.05 of 0.2 BTC/USDT executed; {reason}; 0.15 not executed"
        ]

    play(body)


def test_what_was_over_while_nothing_ran_is_told_at_the_start():
    """Nobody was there to send it."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large())
            await wait(clock, minutes=1)
        await wait(clock, hours=3)
        async with engine_on(venue, clock, reopened(journal)) as engine:
            (alarm,) = [each for each in engine.book.alarms if each.code == CODE]
            assert alarm.text == (
                "big: buy 0.05 of 0.2 BTC/USDT executed; "
                "its time was over when the process started again; 0.15 not executed"
            )

    run_virtual(main)


def test_an_iceberg_does_not_leave_a_position_with_a_stop():
    """Each part would be denied; so the whole is, at once and with the reason, and nothing else is touched."""

    async def body(engine, _venue, clock):
        await engine.submit(large(slicing=None, signal_id="in"))
        await engine.desk.keeper.idle()
        stop = engine.book.working_stop(BTC)
        out = large(
            side=Side.SELL,
            quantity=None,
            limit_price=D(42_100),
            **BY_FIFTIETHS,
            signal_id="out",
        )
        refused = await engine.submit(out)
        assert refused.denial.code is DenialCode.ORDER_TYPE_UNSUPPORTED
        assert "without a stop" in refused.reason
        await wait(clock, minutes=1)
        assert engine.book.working_stop(BTC) is stop
        assert engine.book.parents.get("out") is None

    play(body)


def test_an_iceberg_leaves_a_position_without_a_stop():
    """The user has chosen no stops, so there is nothing that its parts could stand in the way of."""

    async def main(clock):
        venue = venue_for(clock)
        chain = ExecutionPipeline([ValidationHandler(), OrderExecutorHandler()], unchecked=True)
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            await engine.submit(large(slicing=None, signal_id="in"))
            assert engine.book.position(BTC).stop_loss is None
            out = large(side=Side.SELL, limit_price=D(42_100), **BY_FIFTIETHS, signal_id="out")
            assert (await engine.submit(out)).outcome is Outcome.WORKING
            for _ in range(4):
                await wait(clock, seconds=5)
                (resting,) = [o for o in engine.orders.values() if not o.is_closed]
                assert resting.quantity == D("0.05")
                venue.execute(resting.client_order_id)
            await wait(clock, seconds=5)
            assert BTC not in engine.book.positions.open
            assert engine.book.parents.get("out").ended == "all slices were sent"

    run_virtual(main)


def test_closing_ends_an_order_of_which_nothing_was_executed_yet():
    """No position, no open order: buying would go on, so there is something to close."""

    async def body(engine, venue, clock):
        await engine.submit(large(limit_price=D(41_990)))
        await wait(clock, minutes=1)
        assert not engine.book.orders.open_entries(BTC)
        assert await engine.close_position(BTC)
        assert engine.book.parents.get("big").ended == "close; 0.2 not executed"
        trade_at(venue, clock, D(41_900))
        await wait(clock, hours=1)
        assert BTC not in engine.book.positions.open
        with pytest.raises(ExecKitError, match="nothing to close"):
            await engine.close_position(BTC)

    play(body)


def test_closing_takes_a_queued_signal_out_of_the_queue():
    """It would be bought at the opening."""

    async def main(clock):
        venue = Sessions(clock=clock, prices={BTC: D(42_000)}, balances={"USDT": D(100_000)})
        venue.is_open = False
        chain = pipeline().insert(MarketHoursHandler(), before="OrderExecutorHandler")
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            assert (await engine.submit(large(slicing=None))).outcome is Outcome.QUEUED
            assert await engine.close_position(BTC)
            assert engine.book.queued == {}
            venue.is_open = True
            await wait(clock, minutes=5)
            assert entries(engine) == []

    run_virtual(main)

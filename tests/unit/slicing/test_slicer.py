"""Large orders in slices through the whole chain of an engine, in virtual time."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.support.slices import (
    BTC,
    HOUR,
    D,
    engine_on,
    entries,
    large,
    play,
    reopened,
    venue_for,
    wait,
)

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import OrderRejectedError
from execkit.handlers.risk import RiskManagementHandler
from execkit.journal.base import MemoryJournal
from execkit.model.denial import DenialCode
from execkit.model.market import Quote
from execkit.model.order import OrderState, Side
from execkit.model.records import ParentOrder
from execkit.model.result import Outcome
from execkit.model.slicing import Iceberg, Twap, Vwap
from execkit.risk.limits import RiskLimits
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation
from execkit.virtual_time import run_virtual


def test_time_weighted_parts_go_out_at_their_times():
    """Four of 0.05, a quarter of an hour apart, each with its stop; the caller is told at once until when."""

    async def body(engine, _venue, clock):
        result = await engine.submit(large())
        assert result.outcome is Outcome.WORKING
        assert "worked in 4 slices until 2024-01-01T00:45:00+00:00" in result.reason
        for n in range(1, 5):
            await wait(clock, seconds=10)
            assert engine.book.positions.quantity(BTC) == D("0.05") * n
            assert engine.book.working_stop(BTC).remaining == D("0.05") * n
            assert engine.desk.ledger.reserved_notional_of(BTC) == 42_000 * (
                D("0.2") - D("0.05") * n
            )
            await wait(clock, minutes=15)
        parent = engine.book.parents.get("big")
        assert (parent.ended, parent.filled) == ("all slices were sent", D("0.2"))
        assert [o.intent.signal_id for o in entries(engine)] == [f"big/{n}" for n in range(4)]
        assert len(engine.desk.ledger) == 0
        assert (await engine.submit(large())).outcome is Outcome.WORKING, "the same signal again"
        assert len(entries(engine)) == 4

    play(body)


@pytest.mark.parametrize("restart", [False, True])
def test_what_is_left_is_reserved_with_its_fee(restart):
    """Cash of the worst case for what is not sent yet: the collar's price and a fee of 0.1 % on top of it."""

    async def main(clock):
        venue = MockExchange(
            clock=clock,
            prices={BTC: D(42_000)},
            balances={"USDT": D(100_000)},
            taker_fee=D("0.001"),
        )
        journal = MemoryJournal("mock")
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large())
            await wait(clock, seconds=10)
            cash = engine.desk.ledger.reserved_cash
        if restart:
            async with engine_on(venue, clock, reopened(journal)) as engine:
                cash = engine.desk.ledger.reserved_cash
        assert cash == D("0.15") * 42_000 * D("1.05") * D("1.001")

    run_virtual(main)


def test_volume_weighted_parts_follow_the_profile():
    """A quarter, then three quarters."""

    async def body(engine, _venue, clock):
        await engine.submit(large(slicing=Vwap(duration=HOUR, profile=(D(1), D(3)))))
        await wait(clock, minutes=1)
        assert engine.book.positions.quantity(BTC) == D("0.05")
        await wait(clock, minutes=30)
        assert engine.book.positions.quantity(BTC) == D("0.2")

    play(body)


def test_an_iceberg_shows_one_part_at_a_time():
    """The next rests when the last is executed; a stranger never sees more than 0.08."""

    async def body(engine, venue, clock):
        await engine.submit(large(slicing=Iceberg(display=D("0.08")), limit_price=D(41_900)))
        seen = []
        for _ in range(3):
            await wait(clock, seconds=90)
            (order,) = [o for o in entries(engine) if not o.is_closed]
            seen.append(order.quantity)
            assert order.limit_price == 41_900
            venue.execute(order.client_order_id)
        await wait(clock, seconds=5)
        assert seen == [D("0.08"), D("0.08"), D("0.04")]
        assert engine.book.parents.get("big").ended == "all slices were sent"
        assert engine.book.positions.quantity(BTC) == D("0.2")

    play(body)


def test_an_iceberg_ends_when_a_part_of_it_is_cancelled():
    """Somebody did not want it any more."""

    async def body(engine, _venue, clock):
        await engine.submit(large(slicing=Iceberg(display=D("0.08")), limit_price=D(41_900)))
        await wait(clock, seconds=5)
        (order,) = entries(engine)
        await engine.cancel(order)
        await wait(clock, seconds=5)
        ended = engine.book.parents.get("big").ended
        assert ended.startswith("a slice was ended: ")
        assert ended.endswith("0.2 not executed")
        assert len(entries(engine)) == 1
        assert len(engine.desk.ledger) == 0

    play(body)


def test_the_whole_is_judged_before_the_first_part():
    """Four parts that pass alone do not pass together when the order itself is too large; others wait meanwhile."""

    async def body(engine, _venue, clock):
        denied = await engine.submit(large(quantity=D(1)))
        assert denied.denial.code is DenialCode.NOTIONAL_TOO_LARGE
        assert engine.book.parents.get("big") is None
        await engine.submit(large(signal_id="two"))
        other = await engine.submit(large(signal_id="three", slicing=None, quantity=D("0.01")))
        assert other.outcome is Outcome.DENIED
        await wait(clock, hours=1)
        assert engine.book.positions.quantity(BTC) == D("0.2")

    play(body)


def test_a_position_is_left_in_slices_too():
    """Parts of an exit are reductions; the stop covers what is left."""

    async def body(engine, _venue, clock):
        await engine.submit(large(slicing=None, signal_id="in"))
        await engine.submit(large(side=Side.SELL, quantity=None, signal_id="out"))
        await wait(clock, minutes=1)
        assert engine.book.positions.quantity(BTC) == D("0.15")
        assert engine.book.working_stop(BTC).remaining == D("0.15")
        await wait(clock, hours=1)
        assert BTC not in engine.book.positions.open
        assert engine.book.parents.get("out").ended == "all slices were sent"

    play(body)


def test_a_part_that_failed_is_made_up_for_by_the_next():
    """A rejected part goes with the next, twice the part at most."""

    async def body(engine, venue, clock):
        venue.connection.script = FaultScript(
            [Fault(on=Operation.PLACE, kind=FaultKind.ERROR, error=OrderRejectedError("no"), nth=1)]
        )
        await engine.submit(large())
        await wait(clock, minutes=1)
        assert engine.book.positions.quantity(BTC) == 0
        await wait(clock, minutes=15)
        assert engine.book.positions.quantity(BTC) == D("0.1")
        await wait(clock, hours=1)
        assert engine.book.positions.quantity(BTC) == D("0.2")

    play(body)


def test_a_part_in_doubt_counts_as_sent():
    """The venue has it and hides that for a while: what we count is never less than what is there."""

    async def body(engine, venue, clock):
        began = clock.now()
        await engine.submit(large())
        lost = Fault(on=Operation.PLACE, kind=FaultKind.TIMEOUT, reached=True, nth=1)
        await clock.sleep_until(began + timedelta(minutes=14))
        venue.connection.script = FaultScript(
            [lost, Fault(on=Operation.STREAM, kind=FaultKind.LOSE)]
        )
        await clock.sleep_until(began + timedelta(minutes=15, milliseconds=50))
        reads = (Operation.GET, Operation.OPEN, Operation.FILLS)
        venue.connection.script = FaultScript(
            Fault(on=read, kind=FaultKind.SERVER_ERROR) for read in reads
        )
        await clock.sleep_until(began + timedelta(minutes=35))
        assert engine.book.parents.get("big").committed() >= venue.core.positions()[0].quantity
        venue.connection.script = FaultScript()
        await wait(clock, hours=1)
        assert engine.book.positions.quantity(BTC) == D("0.2")
        assert venue.core.positions()[0].quantity == D("0.2")

    play(body)


@pytest.mark.parametrize("how", ["cancel_all", "flatten"])
def test_emergencies_end_it(how):
    """No part is sent after cancel-all or flatten, and the reservation is gone."""

    async def body(engine, _venue, clock):
        await engine.submit(large())
        await wait(clock, minutes=1)
        await getattr(engine, how)()
        await wait(clock, hours=1)
        assert len(entries(engine)) == 1
        assert engine.book.parents.get("big").ended.endswith("0.15 not executed")
        assert len(engine.desk.ledger) == 0

    play(body)


def test_a_slice_cannot_be_claimed_from_outside():
    """Neither of an unknown parent nor more than is left of one."""

    async def body(engine, _venue, clock):
        stray = await engine.submit(large(slicing=None, slice_of="nothing", signal_id="stray"))
        assert stray.denial.code is DenialCode.PARENT_EXCEEDED
        await engine.submit(large())
        await wait(clock, minutes=1)
        greedy = await engine.submit(
            large(slicing=None, slice_of="big", signal_id="x", quantity=D("0.16"))
        )
        assert greedy.denial.context == {
            "parent": "big",
            "sent": "0.05",
            "slice": "0.16",
            "limit": "0.2",
        }

    play(body)


def test_slices_of_an_exit_never_exceed_it_either():
    """Neither together nor after its end; the position keeps what they were not to close."""

    async def body(engine, _venue, clock):
        await engine.submit(large(slicing=None, signal_id="in"))
        out = {"side": Side.SELL, "reduce_only": True}
        await engine.submit(large(**out, signal_id="out", quantity=D("0.12")))
        await wait(clock, minutes=1)
        assert engine.book.positions.quantity(BTC) == D("0.17")
        part = {**out, "slicing": None, "slice_of": "out"}
        greedy = await engine.submit(large(**part, signal_id="x", quantity=D("0.1")))
        assert greedy.denial.context == {
            "parent": "out",
            "sent": "0.03",
            "slice": "0.1",
            "limit": "0.12",
        }
        await engine.cancel_all()
        late = await engine.submit(large(**part, signal_id="y", quantity=D("0.05")))
        assert late.denial.code is DenialCode.PARENT_EXCEEDED
        assert late.denial.context["ended"].startswith("cancel-all")
        assert engine.book.positions.quantity(BTC) == D("0.17")

    play(body)


def test_a_restart_goes_on_where_it_was():
    """Parts keep their times and ids; what is over by then is ended and said, not sent late."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large())
            await wait(clock, minutes=16)
            assert engine.book.positions.quantity(BTC) == D("0.1")
        await wait(clock, minutes=10)
        journal = reopened(journal)
        async with engine_on(venue, clock, journal) as engine:
            await wait(clock, seconds=1)
            assert engine.book.positions.quantity(BTC) == D("0.1")
            assert engine.desk.ledger.reserved_notional_of(BTC) == 42_000 * D("0.1")
            await wait(clock, minutes=5)
            assert engine.book.positions.quantity(BTC) == D("0.15")
        await wait(clock, hours=2)
        async with engine_on(venue, clock, reopened(journal)) as engine:
            await wait(clock, minutes=1)
            assert engine.book.positions.quantity(BTC) == D("0.15")
            parent = engine.book.parents.get("big")
            assert parent.ended == (
                "its time was over when the process started again; 0.05 not executed"
            )
        assert len(entries(engine)) == 3
        assert {o.state for o in entries(engine)} == {OrderState.FILLED}

    run_virtual(main)


class Jumping:
    """A wall clock that is set, or stands on while the machine sleeps."""

    def __init__(self, clock):
        self._clock = clock
        self.ahead = timedelta(0)

    def now(self):
        return self._clock.now() + self.ahead


@pytest.mark.parametrize(("jump", "parts"), [(30, 5), (40, 5), (-60, 6), (600, 1)])
def test_a_jump_of_the_clock_sends_no_burst(jump, parts):
    """Parts that were slept through come with the next one, twice a part at most; what is long over is not sent."""

    async def main(clock):
        wall = Jumping(clock)
        venue = venue_for(wall)
        async with engine_on(venue, wall) as engine:
            await engine.submit(large(slicing=Twap(duration=HOUR, slices=6), quantity=D("0.3")))
            await asyncio.sleep(60)
            wall.ahead = timedelta(minutes=jump)
            before = len(entries(engine))
            await asyncio.sleep(5)
            assert len(entries(engine)) <= before + 1
            await asyncio.sleep(7 * 3600)
            sent = entries(engine)
            assert len(sent) <= parts
            assert max(order.quantity for order in sent) <= D("0.1")
            assert engine.book.parents.get("big").ended is not None
            assert engine.book.positions.quantity(BTC) <= D("0.3")

    run_virtual(main)


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_a_restart_in_the_middle_of_a_part_goes_on_with_the_rest(side):
    """A part that was cut short has its number for ever; what is left of it is another signal."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            if side is Side.SELL:
                await engine.submit(large(slicing=None, signal_id="in"))
                await engine.desk.keeper.idle()
            limit = {"limit_price": D(42_010) if side is Side.BUY else D(41_990)}
            thin = Quote(BTC, D(41_999), D(42_000), clock.now(), last=D(42_000))
            thin = replace(thin, bid_size=D("0.03"), ask_size=D("0.03"))
            venue.feed_quote(thin)
            await engine.submit(large(side=side, **limit))
            await wait(clock, seconds=5)
            assert engine.book.parents.get("big").filled == D("0.03")
        venue.feed_quote(Quote(BTC, D(41_999), D(42_000), clock.now(), last=D(42_000)))
        async with engine_on(venue, clock, reopened(journal)) as engine:
            await wait(clock, hours=2)
            parent = engine.book.parents.get("big")
            assert (parent.filled, parent.ended) == (D("0.2"), "all slices were sent")
            assert "SLICING_FAILED" not in {alarm.code for alarm in engine.book.alarms}
            expected = D("0.2") if side is Side.BUY else D(0)
            assert engine.book.positions.quantity(BTC) == expected

    run_virtual(main)


def test_an_iceberg_that_somebody_ended_stays_ended_after_a_restart():
    """The part that rested was cancelled while the new process already watched it."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large(slicing=Iceberg(display=D("0.08")), limit_price=D(41_900)))
            await wait(clock, seconds=5)
        async with engine_on(venue, clock, reopened(journal)) as engine:
            await wait(clock, seconds=5)
            (order,) = [o for o in entries(engine) if not o.is_closed]
            await engine.cancel(order)
            await wait(clock, minutes=5)
            assert engine.book.parents.get("big").ended.startswith("a slice was ended")
            assert len(entries(engine)) == 1

    run_virtual(main)


def test_what_nobody_was_told_of_is_not_worked():
    """A process that died before the caller had its answer: asked again, the order begins."""

    async def main(clock):
        venue, journal = venue_for(clock), MemoryJournal()
        async with engine_on(venue, clock, journal) as engine:
            await engine.submit(large())
            await wait(clock, seconds=5)
        cut = MemoryJournal()
        for entry in journal.entries:
            cut.append(entry.record, entry.at)
            if isinstance(entry.record, ParentOrder):
                break
        other = venue_for(clock)
        async with engine_on(other, clock, cut) as engine:
            assert engine.book.parents.get("big").ended.startswith("nobody was told")
            assert (await engine.submit(large())).outcome is Outcome.WORKING
            await wait(clock, hours=1)
            assert engine.book.positions.quantity(BTC) == D("0.2")

    run_virtual(main)


def test_a_price_that_runs_away_leaves_a_limited_order_unfinished():
    """Parts with a limit do not rest: what is left at the end is said."""

    async def body(engine, venue, clock):
        await engine.submit(large(limit_price=D(42_010)))
        await wait(clock, minutes=1)
        venue.feed_quote(Quote(BTC, D(42_100), D(42_101), clock.now(), last=D(42_100)))
        await wait(clock, hours=2)
        assert engine.book.positions.quantity(BTC) == D("0.05")
        assert engine.book.parents.get("big").ended == ("all slices were sent; 0.15 not executed")

    play(body)


def test_a_slicer_that_fails_ends_its_order_and_says_so(monkeypatch):
    """An alarm, and nothing more is sent."""

    async def body(engine, _venue, clock):
        def broken(*_arguments):
            raise ZeroDivisionError

        monkeypatch.setattr("execkit.slicing.slicer.due", broken)
        await engine.submit(large())
        await wait(clock, minutes=1)
        assert "SLICING_FAILED" in {alarm.code for alarm in engine.book.alarms}
        assert engine.book.parents.get("big").ended.startswith("failed: ZeroDivisionError")

    play(body)


def test_parents_survive_a_snapshot():
    """Also an ended one, for a while."""

    async def body(engine, _venue, clock):
        await engine.submit(large())
        await wait(clock, minutes=1)
        book = engine.book
        again = type(book).restore(book.snapshot())
        assert again.parents.get("big").filled == D("0.05")
        assert again.state_hash() == book.state_hash()
        await asyncio.sleep(0)

    play(body)


def test_a_part_may_spend_what_its_own_order_has_reserved():
    """An order for 84,000 of 100,000 in cash: its parts are not refused for the cash that it holds for them itself."""

    async def main(clock):
        venue = venue_for(clock)
        limits = RiskLimits(max_size_pct=D(100), max_position_pct=D(100), max_exposure_pct=D(100))
        chain = standard_pipeline().replace("RiskManagementHandler", RiskManagementHandler(limits))
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            assert (await engine.submit(large(quantity=D(2)))).outcome is Outcome.WORKING
            await wait(clock, seconds=10)
            assert engine.book.positions.quantity(BTC) == D("0.5")
            # The cash of others is not theirs: 100,000 less 21,000 spent and 66,150 held.
            other = large(symbol="ETH/USDT", slicing=None, quantity=D(7), signal_id="other")
            venue.set_price("ETH/USDT", D(2_000))
            refused = await engine.submit(other)
            assert refused.denial.code is DenialCode.NOT_ENOUGH_BUYING_POWER
            await wait(clock, hours=1)
            assert engine.book.positions.quantity(BTC) == D(2)

    run_virtual(main)

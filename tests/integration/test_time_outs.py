"""An entry is cancelled at its time, whatever told first that it lives: an answer, a fill, a look-up, a late sight."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit import (
    Capabilities,
    ExecutionEngine,
    MemoryJournal,
    OrderState,
    Side,
    TradingSignal,
    run_virtual,
)
from execkit.assembly import standard_pipeline
from execkit.exchanges.base import MarketStatus
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.model.order import OrderReport
from execkit.testing import Fault, FaultScript, MockExchange

BTC = "BTC/USDT"
D = Decimal
MINUTE = 60
"""Seconds that an entry without a time in force rests."""


def limit_buy(**changes):
    values = {"quantity": D("0.1"), "limit_price": D(41_900), "stop_loss": D(41_400)}
    return TradingSignal(symbol=BTC, side=Side.BUY, signal_id="buy", **(values | changes))


def is_entry(request):
    return not request.reduce_only


class World:
    """A venue and the engine on it; time is virtual."""

    def __init__(self, clock, venue_class=MockExchange, *, journal=None, pipeline=None, **venue):
        self.clock = clock
        self.pipeline = pipeline
        self.venue = venue_class(clock=clock, balances={"USDT": D(100_000)}, **venue)
        self.journal = journal or MemoryJournal("mock")
        self.engine = None

    async def __aenter__(self):
        self.engine = ExecutionEngine(
            self.venue,
            journal=self.journal,
            clock=self.clock,
            rng=random.Random(1),
            pipeline=self.pipeline,
        )
        await self.engine.start()
        return self

    async def __aexit__(self, *exc):
        await self.engine.stop()

    async def submit(self, **changes):
        """Send the entry and return it at once, as the books have it, with the result that is still to come."""
        result = asyncio.ensure_future(self.engine.submit(limit_buy(**changes)))
        while not self.engine.orders.open_entries(BTC):
            assert not result.done(), await result
            await asyncio.sleep(0.01)
        (order,) = self.engine.orders.open_entries(BTC)
        return order, result

    def break_(self, *faults):
        self.venue.connection.script = FaultScript(faults)

    async def restart(self):
        await self.engine.stop()
        again = MemoryJournal("mock")
        for kept in self.journal.entries:
            again.append(kept.record, kept.at)
        self.journal = again
        await self.__aenter__()
        (order,) = self.engine.orders.open_entries(BTC)
        return order


def play(body, *, pipeline=None, **world):
    async def main(clock):
        made = pipeline() if pipeline else None
        async with World(clock, pipeline=made, **world) as place:
            await body(place)

    run_virtual(main)


async def rests_and_ends(order, *, after=MINUTE):
    """See it rest up to its time, *after* seconds from about now, and cancelled then."""
    assert order.state is OrderState.PARTIALLY_FILLED
    await asyncio.sleep(after - 10)
    assert order.state is OrderState.PARTIALLY_FILLED, "it has its whole time"
    await asyncio.sleep(15)
    assert (order.state, order.filled) == (OrderState.CANCELLED, D("0.05"))


def test_a_fill_that_comes_before_the_answer_arms_it():
    """The stream is faster than the acknowledgement, which then is no news."""

    async def body(place):
        place.break_(Fault(on="stream", kind="lose", nth=2))
        place.venue.connection.latency = timedelta(milliseconds=500)
        order, _ = await place.submit()
        await asyncio.sleep(0.6)
        place.venue.connection.latency = timedelta(0)
        place.venue.execute(order.client_order_id, D("0.05"))
        await asyncio.sleep(2)
        assert order.accepted_at is None, "the fill was first"
        await rests_and_ends(order)

    play(body)


@pytest.mark.parametrize("lost_news", [1, 100], ids=["told by the stream", "looked up"])
def test_a_fill_that_settles_a_doubt_arms_it(lost_news):
    """The send has no answer; a fill, told or looked up, is the only thing that shows the order."""

    async def body(place):
        lost = [Fault(on="place", kind="timeout", reached=True, only=is_entry)]
        lost += [Fault(on=what, kind="server_error") for what in ("get", "open")]
        place.break_(*lost, Fault(on="stream", kind="lose", nth=1, times=lost_news))
        order, _ = await place.submit()
        await asyncio.sleep(0.05)
        place.venue.execute(order.client_order_id, D("0.05"))
        await asyncio.sleep(5)
        assert order.accepted_at is None, "nothing but the fill has told of it"
        place.break_()
        await rests_and_ends(order)

    play(body)


def test_an_adopted_order_is_armed():
    """The answer was lost, and the look-up finds it resting."""

    async def body(place):
        place.break_(Fault(on="place", kind="timeout", reached=True, only=is_entry))
        order, result = await place.submit()
        await result
        place.break_()
        assert order.state is OrderState.ACCEPTED
        place.venue.execute(order.client_order_id, D("0.05"))
        await asyncio.sleep(1)
        await rests_and_ends(order)

    play(body)


@pytest.mark.parametrize("arrives", [20, 90], ids=["before its time", "after its time"])
def test_a_late_sight_arms_it(arrives):
    """Presumed absent, then a fill shows it: cancelled at its time, or at once where that is over."""
    slow = Capabilities(absence_window=timedelta(seconds=5), reduce_only=True)
    hidden = [
        Fault(on=what, kind="not_found", after=timedelta(hours=1)) for what in ("get", "open")
    ]

    async def body(place):
        late = timedelta(seconds=arrives)
        place.break_(
            Fault(on="place", kind="timeout", reached=True, arrives_after=late, only=is_entry)
        )
        order, result = await place.submit()
        await asyncio.sleep(1)
        result.cancel()  # nobody is left who would send it again
        await asyncio.sleep(14)
        assert order.state is OrderState.PRESUMED_ABSENT
        place.break_(*hidden, Fault(on="stream", kind="lose", nth=1))
        await asyncio.sleep(arrives - 14)
        place.venue.execute(order.client_order_id, D("0.05"))
        await asyncio.sleep(0.01)
        assert order.accepted_at is None
        place.break_()
        if arrives < MINUTE:
            await rests_and_ends(order, after=MINUTE - arrives)
        await asyncio.sleep(2)
        assert (order.state, order.filled) == (OrderState.CANCELLED, D("0.05"))

    play(body, capabilities=slow)


@pytest.mark.parametrize("kills", [1, 2])
def test_a_restart_arms_it_again(kills):
    """Whatever is left of it when a process ends keeps its moment."""

    async def body(place):
        order, _ = await place.submit()
        await asyncio.sleep(1)
        place.venue.execute(order.client_order_id, D("0.05"))
        for _ in range(kills):
            await asyncio.sleep(5)
            order = await place.restart()
        await rests_and_ends(order, after=MINUTE - 5 * kills - 1)

    play(body)


def test_a_restart_learns_of_a_fill_and_arms_it():
    """Sent by a process that heard nothing of it; the next one finds only the fill."""

    async def body(place):
        lost = [Fault(on=what, kind="hang", reached=True) for what in ("place",)]
        place.break_(*lost, Fault(on="stream", kind="lose"))
        order, result = await place.submit()
        await asyncio.sleep(0.1)
        place.venue.execute(order.client_order_id, D("0.05"))
        result.cancel()
        place.break_(*(Fault(on=what, kind="server_error") for what in ("get",)))
        order = await place.restart()
        place.break_()
        await rests_and_ends(order)

    play(body)


def test_an_order_that_the_venue_holds_is_armed():
    """Held back, e.g. for shares to borrow, it does not wait for ever either."""

    def held(request):
        if not is_entry(request):
            return None
        return OrderReport(
            client_order_id=request.client_order_id,
            venue_order_id="held-1",
            symbol=request.symbol,
            side=request.side,
            type=request.type,
            quantity=request.quantity,
            status=OrderState.HELD,
            limit_price=request.limit_price,
        )

    async def body(place):
        order, _ = await place.submit()
        await asyncio.sleep(50)
        assert order.state is OrderState.HELD
        await asyncio.sleep(15)
        assert order.state is OrderState.CANCELLED

    play(body, answer=held)


class Sessions(MockExchange):
    """A mock with hours."""

    state = MarketStatus(is_open=True)

    async def market_status(self, symbol):
        return self.state


def test_cancel_at_close_holds_for_what_only_a_fill_has_shown():
    """It was to rest until cancelled; the session ends before."""

    def with_hours():
        return standard_pipeline().insert(MarketHoursHandler(), before="OrderExecutorHandler")

    async def body(place):
        close = place.clock.now() + timedelta(minutes=10)
        place.venue.state = MarketStatus(is_open=True, next_close=close)
        lost = [Fault(on="place", kind="timeout", reached=True, only=is_entry)]
        lost += [Fault(on=what, kind="server_error") for what in ("get", "open")]
        place.break_(*lost, Fault(on="stream", kind="lose", nth=1))
        order, _ = await place.submit(time_in_force="gtc")
        assert order.intent.timeout_at == close
        await asyncio.sleep(0.05)
        place.venue.execute(order.client_order_id, D("0.05"))
        await asyncio.sleep(2)
        place.break_()
        await rests_and_ends(order, after=600)

    play(body, venue_class=Sessions, pipeline=with_hours)


def test_what_a_person_has_cancelled_is_not_cancelled_twice():
    """A fill that comes while its cancel is on the way does not start the time-out anew."""

    async def body(place):
        order, result = await place.submit()
        await result
        place.break_(Fault(on="cancel", kind="hang", nth=1))
        cancelling = asyncio.ensure_future(place.engine.cancel(order))
        await asyncio.sleep(1)
        place.venue.execute(order.client_order_id, D("0.05"))
        await asyncio.sleep(80)
        await cancelling
        asked = [e for e in place.journal.entries if getattr(e.record, "command", "") == "cancel"]
        reasons = {
            e.record.reason for e in asked if e.record.client_order_id == order.client_order_id
        }
        assert order.state is OrderState.CANCELLED
        assert "it rested longer than its time-out" not in reasons

    play(body)


@pytest.mark.parametrize("seconds", [0, 3], ids=["before the stop", "after the stop"])
def test_nothing_is_cancelled_after_the_engine_has_ended(seconds):
    """What rests at a stop rests on, also where the answer to it came when the engine was down already."""

    async def body(place):
        real, asked = place.venue.place_order, []

        async def place_order(*request):
            await asyncio.sleep(seconds)
            return await real(*request)

        async def cancel_order(*names, **more):
            asked.append((names, more))

        place.venue.place_order = place_order
        place.venue.cancel_order = cancel_order
        order, result = await place.submit()
        await asyncio.sleep(1)
        assert (order.accepted_at is None) == bool(seconds)
        await place.engine.stop(drain=0.5)
        await asyncio.sleep(2 * MINUTE)
        await asyncio.gather(result, return_exceptions=True)
        assert order.accepted_at is not None
        assert (order.cancel_asked, asked) == (False, [])

    play(body)

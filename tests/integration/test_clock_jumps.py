"""The wall clock is set, or the machine sleeps, while an engine runs: timers of the loop know nothing of it."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.handlers.throttle import RateLimitHandler
from execkit.model.denial import DenialCode
from execkit.model.order import OrderState, Side
from execkit.model.signal import TradingSignal
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
D = Decimal


class Wall:
    """A wall clock that can be set; the loop's own goes on as ever."""

    def __init__(self, clock):
        self._clock = clock
        self.ahead = timedelta(0)

    def now(self):
        return self._clock.now() + self.ahead


def signal(**changes):
    return TradingSignal(
        **{
            "symbol": BTC,
            "side": Side.BUY,
            "confluence": 4,
            "quantity": D("0.01"),
            **changes,
        }
    )


def play(body, **options):
    async def main(clock):
        wall = Wall(clock)
        venue = MockExchange(clock=wall, prices={BTC: D(42_000), ETH: D(2_500)})
        async with ExecutionEngine(venue, journal=None, clock=wall, **options) as engine:
            await body(engine, venue, wall)

    run_virtual(main)


@pytest.mark.parametrize("slept", [timedelta(seconds=50), timedelta(hours=8)])
def test_a_time_out_comes_at_its_time_although_the_machine_slept(slept):
    """The entry rests its minute of wall time, not a minute of being awake."""

    async def body(engine, _venue, wall):
        result = await engine.submit(signal(limit_price=D(41_900)))
        await asyncio.sleep(5)
        wall.ahead = slept
        await asyncio.sleep(8)
        order = engine.orders[result.client_order_ids[0]]
        assert order.state is OrderState.CANCELLED
        assert [alarm.code for alarm in engine.book.alarms] == ["CLOCK_JUMPED"]

    play(body)


def test_a_clock_that_is_set_back_makes_nothing_rest_for_ever():
    """The time-out is armed anew at the journalled moment."""

    async def body(engine, _venue, wall):
        result = await engine.submit(signal(limit_price=D(41_900)))
        await asyncio.sleep(5)
        wall.ahead = -timedelta(seconds=30)
        await asyncio.sleep(70)
        order = engine.orders[result.client_order_ids[0]]
        assert not order.is_closed
        await asyncio.sleep(20)
        assert order.state is OrderState.CANCELLED

    play(body)


def test_after_a_sleep_nothing_is_entered_before_the_venue_was_asked():
    """What happened meanwhile comes first; once it is known, trading goes on."""

    async def body(engine, venue, wall):
        down = Fault(on=Operation.OPEN, kind=FaultKind.SERVER_ERROR)
        venue.connection.script = FaultScript([down])
        wall.ahead = timedelta(hours=1)
        await asyncio.sleep(3)
        denied = await engine.submit(signal())
        assert denied.denial.code is DenialCode.NOT_RECONCILED
        venue.connection.script = FaultScript()
        wall.ahead += timedelta(hours=1)
        await asyncio.sleep(3)
        assert (await engine.submit(signal())).filled

    play(body)


def test_a_signal_that_became_too_old_in_line_is_not_sent():
    """Its age is looked at once more right before the send."""
    pipeline = standard_pipeline().insert(
        RateLimitHandler(1, timedelta(seconds=20)), before="OrderExecutorHandler"
    )

    async def body(engine, venue, wall):
        await engine.submit(signal(symbol=ETH))
        waiting = asyncio.ensure_future(engine.submit(signal(max_age=timedelta(seconds=60))))
        await asyncio.sleep(5)
        wall.ahead = timedelta(hours=8)
        result = await waiting
        assert result.denial.code is DenialCode.SIGNAL_TOO_OLD
        assert venue.core.positions()[0].symbol == ETH
        assert len(venue.core.positions()) == 1

    play(body, pipeline=pipeline)


def test_ordinary_drift_is_no_jump():
    """A clock that is slewed by tenths of a second disturbs nobody."""

    async def body(engine, _venue, wall):
        for _ in range(20):
            wall.ahead += timedelta(seconds=0.04)
            await asyncio.sleep(1)
        assert not engine.book.alarms

    play(body)

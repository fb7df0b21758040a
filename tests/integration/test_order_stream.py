"""The order stream breaks, and opening it again may fail too: it is tried on, and what was missed is fetched."""

from datetime import timedelta
from decimal import Decimal

import pytest
from attrs import evolve

from execkit.engine import ExecutionEngine
from execkit.model.order import OrderState, Side
from execkit.model.records import Alarm
from execkit.model.signal import TradingSignal
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"


def resting_buy():
    return TradingSignal(
        symbol=BTC,
        side=Side.BUY,
        confluence=4,
        limit_price=Decimal(41_900),
        stop_loss=Decimal(41_500),
        take_profit=Decimal(43_000),
        time_in_force="gtc",
    )


class Unreliable(MockExchange):
    """A mock whose stream cannot be opened for a while."""

    refusals = 0
    openings = 0

    def order_updates(self):
        self.openings += 1
        if self.openings > 1 and self.refusals:
            self.refusals -= 1
            raise ConnectionError("no route to the venue")
        return super().order_updates()


@pytest.mark.parametrize("refusals", [0, 3])
def test_a_broken_stream_is_opened_again(refusals):
    """Also when opening it fails a few times: a fill of that time is known, and the stream counts as live again."""

    async def main(clock):
        venue = Unreliable(clock=clock)
        venue.refusals = refusals
        async with ExecutionEngine(venue, journal=None, clock=clock) as engine:
            result = await engine.submit(resting_buy())
            venue.connection.script = FaultScript(
                [Fault(on=Operation.STREAM, kind=FaultKind.BREAK, nth=1)]
            )
            venue.execute(result.order.client_order_id)
            await clock.sleep_until(clock.now().replace(second=30))
            assert venue.openings == 2 + refusals
            assert engine.desk.reconciler.stream_is_live
            assert result.order.state is OrderState.FILLED
            assert [r for r in engine.book.alarms if isinstance(r, Alarm)] == []

    run_virtual(main)


class Polled(MockExchange):
    """A mock that tells nothing by itself."""

    looks = 0

    @property
    def capabilities(self):
        return evolve(super().capabilities, order_stream=False)

    async def open_orders(self, symbol=None):
        self.looks += symbol is None
        return await super().open_orders(symbol)


def test_a_venue_without_a_stream_is_asked_often_while_orders_are_open():
    """C5: an execution is known, and protected, within seconds; with nothing open, once a minute is enough."""

    async def main(clock):
        venue = Polled(clock=clock)
        async with ExecutionEngine(venue, journal=None, clock=clock) as engine:
            looks = venue.looks
            await clock.sleep_until(clock.now() + timedelta(seconds=59))
            assert venue.looks == looks
            result = await engine.submit(resting_buy())
            await clock.sleep_until(clock.now() + timedelta(minutes=2))
            venue.execute(result.order.client_order_id)
            await clock.sleep_until(clock.now() + timedelta(seconds=10))
            assert result.order.state is OrderState.FILLED
            assert engine.book.position(BTC).stop_order_id
            venue.connection.script = FaultScript(
                [Fault(on=Operation.OPEN, kind=FaultKind.SERVER_ERROR, times=1000)]
            )
            await clock.sleep_until(clock.now() + timedelta(seconds=10))
            looks = venue.looks
            await clock.sleep_until(clock.now() + timedelta(minutes=3))
            assert venue.looks <= looks + 5, "what is down is not hammered"

    run_virtual(main)

"""The order stream breaks, and opening it again may fail too: it is tried on, and what was missed is fetched."""

from decimal import Decimal

import pytest

from execkit.engine import ExecutionEngine
from execkit.model.order import OrderState, Side
from execkit.model.records import Alarm
from execkit.model.signal import TradingSignal
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"


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
            result = await engine.submit(
                TradingSignal(
                    symbol=BTC,
                    side=Side.BUY,
                    confluence=4,
                    limit_price=Decimal(41_900),
                    stop_loss=Decimal(41_500),
                    take_profit=Decimal(43_000),
                )
            )
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

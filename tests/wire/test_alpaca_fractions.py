"""An engine that trades fractions of shares at Alpaca: entry, stop and exit go for the day, and the stop is renewed."""

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal

from tests.support.alpaca import adapter_of, venue_on_the_wire
from tests.support.stages import SetClock, let_clock_be_set

from execkit.engine import ExecutionEngine
from execkit.model.order import OrderState, Side
from execkit.model.signal import TradingSignal

D = Decimal


async def until(condition, what):
    try:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never: {what()}") from None


async def test_a_fraction_is_protected_for_the_day_and_again_on_the_next(monkeypatch):
    """D9 C9: Alpaca ends the stop with the session; the next one stands before anybody asks, and the exit is whole."""
    let_clock_be_set(monkeypatch)
    clock = SetClock()
    async with venue_on_the_wire(clock=clock) as venue:
        engine = ExecutionEngine(
            adapter_of(venue, fractional=True),
            journal=None,
            clock=clock,
            rng=random.Random(1),
            store=False,
        )
        held = D("2.5")

        def stops():
            return [o.request for o in venue.core.open["AAPL"].values()]

        async with engine:
            result = await engine.submit(
                TradingSignal(
                    symbol="AAPL",
                    side=Side.BUY,
                    quantity=held,
                    confluence=4,
                    stop_loss=D(148),
                    take_profit=D(160),
                )
            )
            assert not result.denial, result
            await until(lambda: len(stops()) == 1, lambda: (engine.book.alarms, result))
            [first] = stops()
            assert (first.quantity, first.stop_price) == (held, D(148))
            clock.set(datetime(2024, 3, 12, 20, 0, 1, tzinfo=UTC))
            venue.let_time_pass()
            await until(
                lambda: stops() and stops()[0].client_order_id != first.client_order_id,
                lambda: (stops(), engine.book.alarms),
            )
            [second] = stops()
            assert (second.quantity, second.stop_price) == (held, D(148))
            old = engine.orders[first.client_order_id]
            assert old.state is OrderState.EXPIRED
            clock.set(datetime(2024, 3, 13, 14, 0, tzinfo=UTC))
            await venue.move_price("AAPL", D("147.9"))
            await until(lambda: not venue.state.position("AAPL"), lambda: engine.book.alarms)
            await until(lambda: not engine.positions, lambda: engine.positions)
        bodies = [call.body for call in venue.posts()]
        assert {body["time_in_force"] for body in bodies} == {"day"}
        assert [body["type"] for body in bodies] == ["market", "stop", "stop"]

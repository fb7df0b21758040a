"""E5: near the limit of an account questions wait and orders go on, so that Alpaca never refuses a cancel or a stop."""

import asyncio
from datetime import timedelta

import pytest
from tests.support.alpaca import OPEN, on_the_wire
from tests.support.ibkr import order

from execkit.clock import ManualClock

LIMIT = 60


async def test_questions_wait_and_orders_do_not():
    """Many questions in one minute: from four fifths on they wait, orders and cancels pass, and nothing is refused."""
    clock = ManualClock(OPEN)
    async with on_the_wire(clock=clock, prices={"AAPL": 200}) as (venue, adapter):
        venue.requests_per_minute = LIMIT
        answered = 0

        async def ask_on():
            nonlocal answered
            while True:
                await adapter.open_orders()
                answered += 1

        asking = asyncio.ensure_future(ask_on())
        await venue.until(lambda: venue.used >= LIMIT * 0.8)
        for number in range(3):
            request = order(str(number))
            await adapter.place_order(request)
            await adapter.cancel_order("AAPL", client_order_id=request.client_order_id)
        assert answered > 20
        assert not asking.done()
        assert venue.used <= LIMIT
        assert {call.status for call in venue.requests if call.method != "WS"} <= {200, 204}
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_the_next_minute_has_room_again():
    """The first answer of a new minute ends the wait of the others."""
    clock = ManualClock(OPEN)
    async with on_the_wire(clock=clock, prices={"AAPL": 200}) as (venue, adapter):
        venue.requests_per_minute = LIMIT
        while not adapter._rest.headroom.left():
            await adapter.positions()
        assert venue.used == LIMIT * 0.8
        clock.advance(timedelta(seconds=61))
        await adapter.place_order(order())
        assert adapter._rest.headroom.left() == 0
        assert await adapter.positions() == []

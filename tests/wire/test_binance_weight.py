"""E5 E1: near the limit of an address questions wait and orders go on, so that Binance never refuses or bans."""

import asyncio

import pytest
from tests.support.binance import on_the_wire, order

from execkit.clock import ManualClock
from execkit.testing.venues.binance import Rules

LIMIT = 400


@pytest.mark.parametrize("market", ["spot", "usdm"])
async def test_questions_wait_and_orders_do_not(market):
    """Many questions at the end of a minute: some of them wait, the orders pass, and nobody is banned."""
    symbol = "BTC/USDT" if market == "spot" else "BTC/USDT:USDT"
    clock = ManualClock()
    rules = Rules(weight_per_minute=LIMIT, orders_per_10s=100)
    options = {"market": market, "rules": rules, "clock": clock}
    async with on_the_wire(venue_options=options, market=market, clock=clock) as (venue, adapter):
        answered = 0

        async def ask_on():
            nonlocal answered
            while True:
                await adapter.balances()
                answered += 1

        asking = asyncio.ensure_future(ask_on())
        await venue.until(lambda: venue.limits.weight >= LIMIT * 0.8, limit=60)
        for number in range(20):
            await adapter.place_order(order(number, symbol=symbol))
        assert answered
        assert not asking.done()
        assert {call.status for call in venue.requests if call.method != "WS"} == {200}
        assert venue.limits.weight <= LIMIT
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

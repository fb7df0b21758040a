"""E9 on the wire: the plan that replay and live paper decide alike on decides the same on Binance's live bars.

The market is that of `tests/integration/test_same_decisions.py`. Hours pass in seconds, because the clock is set from
moment to moment; so the detector looks at it more often, and takes no step for a jump.
"""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

from tests.integration.test_same_decisions import FEEDS, PLAN, START, SYMBOL, decisions, market
from tests.support.binance import adapter_of
from tests.support.stages import let_clock_be_set

from execkit.bars.live import LiveOptions
from execkit.clock import ManualClock
from execkit.engine import ExecutionEngine
from execkit.functions.builtin import standard_registry
from execkit.model.market import Quote, Trade
from execkit.testing.venues.binance import BinanceVenue

BARS = 720
"""Twelve hours."""
LOT = Decimal("0.00001")
SECOND = timedelta(seconds=1)


async def until(condition, what):
    try:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


async def play(bars, seed):
    """Live klines and orders over sockets; return the journal."""
    # A minute before: what came before a bar has to be known, or the longer bar that begins with it is not whole.
    clock = ManualClock(START - 30 * SECOND)
    async with BinanceVenue(
        clock=clock,
        prices={SYMBOL: bars[0].open},
        balances={"USDT": Decimal(10_000)},
    ) as venue:
        engine = ExecutionEngine(
            adapter_of(venue, clock=clock, options={"recvWindow": 60_000}),
            journal=None,
            plans=[PLAN],
            pipeline=PLAN.pipeline(),
            functions=standard_registry(clock=clock),
            live=LiveOptions(max_age=timedelta(seconds=60)),
            clock=clock,
            rng=random.Random(seed),
        )

        def is_quiet():
            """Tell whether both sides agree, and nothing is under way."""
            book, resting = engine.book, venue.core.open.get(SYMBOL, {})
            held = next((p.quantity for p in venue.core.positions() if p.symbol == SYMBOL), 0)
            stop = book.working_stop(SYMBOL)
            mine = {o.client_order_id for o in book.orders.active.values()}
            return (
                not engine._in_flight
                and book.positions.quantity(SYMBOL) == held
                and mine == {order.request.client_order_id for order in resting.values()}
                and (stop is not None) == (held > LOT)
            )

        async def trade(at, price):
            clock.set(at)
            await venue.quote(Quote(SYMBOL, price, price, at, last=price))
            await until(is_quiet, f"quiet at {at}")

        dealt_with = []

        async with engine:
            settle = engine.parts.live._after

            async def settled():
                await settle()
                dealt_with.append(clock.now())

            engine.parts.live._after = settled
            await trade(START + SECOND / 20, bars[0].open)
            await until(lambda: dealt_with, "the bar before the first")
            dealt_with.clear()
            following = [*bars[1:], bars[-1]]
            for n, (bar, after) in enumerate(zip(bars, following, strict=True), 1):
                for second, price in ((10, bar.low), (30, bar.high), (59, bar.close)):
                    await trade(bar.open_time + second * SECOND, price)
                # Each of the four quotes was a trade of one lot.
                rest = bar.volume - 4 * LOT
                await venue.trade(Trade(SYMBOL, bar.close, rest, clock.now()))
                at = bar.close_time + timedelta(milliseconds=50)
                clock.set(at)
                price = after.open
                await venue.quote(Quote(SYMBOL, price, price, at, last=price))
                await until(lambda n=n: len(dealt_with) == n, f"the bar of {bar.close_time}")
                await until(is_quiet, f"quiet after {bar.close_time}")
            return engine.parts.journal


def by_wire(bars, seed):
    """Binance on the wire: as an entry of `FEEDS`."""
    return asyncio.run(play(bars, seed))


def test_a_venue_on_the_wire_leads_to_the_same_decisions(monkeypatch):
    """Each function at each close: action, confidence, reason and signal, as in a replay and live on paper."""
    let_clock_be_set(monkeypatch)
    bars = market(0)[:BARS]
    told = {name: decisions(feed(bars, 0)) for name, feed in {**FEEDS, "wire": by_wire}.items()}
    reference = told.pop("replay")
    actions = [action for _, _, _, action, *_ in reference]
    assert actions.count("enter_long") >= 2
    assert actions.count("exit") >= 1
    for name, others in told.items():
        for mine, other in zip(reference, others, strict=False):
            assert other == mine, name
        assert len(others) == len(reference), name

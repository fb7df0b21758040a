"""One group of engines on Binance, Alpaca and Interactive Brokers at once, and one of the three is down for a while.

Ten minutes are ten periods of the comparison with the venue, which are short here. Counted on the venues' side.
"""

import asyncio
import contextlib
import random
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.stages import FIRST, VENUES, SetClock

from execkit.engine import ExecutionEngine
from execkit.group import EngineGroup
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.pipeline import ExecutionPipeline
from execkit.risk.sizing import FixedQuantity

D = Decimal
PERIOD = timedelta(seconds=0.2)
MINUTES = 10


def chain():
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(D(10))),
            OrderExecutorHandler(base_delay=0.02, max_retries=1, doubt_timeout=0.3),
            ReconciliationHandler(max_wait_time=2, poll_interval=0.1),
        ]
    )


async def until(condition, what, seconds=30):
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


class Desk:
    """One stage with its engine in the group, and what was asked of it."""

    def __init__(self, stage, engine, group):
        self.stage = stage
        self.engine = engine
        self.group = group
        self.results = {}
        self.failed_passes = 0
        self._count_passes()

    def _count_passes(self):
        reconciler = self.engine.desk.reconciler
        run = reconciler.run

        async def counted(**options):
            try:
                await run(**options)
            except Exception:
                self.failed_passes += 1
                raise

        reconciler.run = counted

    async def another_pass_fails(self):
        seen = self.failed_passes
        await until(lambda: self.failed_passes > seen, "another pass fails")

    async def submit(self, name, side):
        signal = TradingSignal(
            signal_id=name,
            symbol=self.stage.symbol,
            exchange=self.stage.name,
            side=side,
            strength=80,
            confluence=4,
        )
        self.results[name] = await self.group.submit(signal)
        return self.results[name]

    def is_protected(self):
        """Tell whether all that the venue has is in our books, and a stop of ours rests there for it, as we know."""
        held = self.stage.held()
        stop = self.engine.book.working_stop(self.stage.symbol)
        lot = D("0.1")  # what fees in kind leave is no whole lot
        return (
            abs(held - self.engine.book.positions.quantity(self.stage.symbol)) < lot / 1000
            and held > 0
            and stop is not None
            and abs(stop.remaining - held) < lot
            and bool(self.stage.resting())
            and not self.problems()
        )

    def is_flat(self):
        return (
            not self.engine.positions
            and not self.stage.resting()
            and abs(self.stage.held()) < D("0.001")
        )

    async def trade(self, name):
        """Go in, be protected, go out."""
        assert (await self.submit(f"{name}-in", Side.BUY)).outcome is Outcome.FILLED
        await until(self.is_protected, f"{self.stage.name} {name} is protected")
        assert (await self.submit(f"{name}-out", Side.SELL)).outcome is Outcome.FILLED
        await until(self.is_flat, f"{self.stage.name} {name} is flat")

    def orders_of(self, name):
        """Return what a signal itself has led to; what protects its position carries its name too."""
        orders = self.engine.book.orders.values()
        chain = (OrderRole.ENTRY, OrderRole.EXIT)
        return [order for order in orders if order.signal_id == name and order.role in chain]

    def problems(self):
        """Return what must never be: something doubled, in doubt, or other than at the venue."""
        found = []
        for order in self.engine.book.orders.values():
            taken = self.stage.accepted(order.client_order_id)
            if taken > 1:
                found.append(f"{order!r} was taken {taken} times")
            if order.state in (OrderState.IN_DOUBT, OrderState.SUBMITTED):
                found.append(f"{order!r} is not resolved")
        for name in self.results:
            taken = sum(self.stage.accepted(o.client_order_id) for o in self.orders_of(name))
            if taken > 1:
                found.append(f"{name}: {taken} orders were taken for one signal")
        return [f"{self.stage.name}: {each}" for each in found]


@contextlib.asynccontextmanager
async def three_desks():
    async with contextlib.AsyncExitStack() as stack:
        clock = SetClock()
        stages = [await stack.enter_async_context(make(clock)) for make in VENUES.values()]
        engines = [
            ExecutionEngine(
                stage.exchange,
                journal=None,
                pipeline=chain(),
                clock=clock,
                rng=random.Random(1),
                reconcile_every=PERIOD,
            )
            for stage in stages
        ]
        group = await stack.enter_async_context(EngineGroup(engines))
        # A pass a minute is far below what TWS takes; ten of them in a few seconds are not.
        stages[-1].exchange._pace.limit = 1000
        yield {s.name: Desk(s, e, group) for s, e in zip(stages, engines, strict=True)}


@pytest.mark.parametrize("down", VENUES)
async def test_one_of_three_venues_is_down_for_ten_minutes(down):
    """The two others trade on undisturbed; the third loses nothing, doubles nothing, and trades again."""
    async with three_desks() as desks:
        await asyncio.gather(*(desk.trade("before") for desk in desks.values()))
        broken = desks.pop(down)
        await broken.submit("held", Side.BUY)
        await until(broken.is_protected, "the position is protected")
        taken = broken.stage.taken()

        broken.stage.go_down()
        for minute in range(MINUTES):
            if (
                minute % 2
            ):  # not more often: Binance takes fifty orders in ten seconds, and these are seconds
                await asyncio.gather(*(desk.trade(f"m{minute}") for desk in desks.values()))
            if minute == MINUTES // 2:
                # What rests at a venue is executed there whoever can see it.
                await broken.stage.move(D(190))
            denied = await broken.submit(f"m{minute}", Side.BUY)
            assert denied.outcome is Outcome.DENIED, denied
            await broken.another_pass_fails()
        for desk in desks.values():
            assert desk.problems() == []
            assert desk.failed_passes == 0
            assert not desk.engine.book.alarms
            entries = [o for o in desk.engine.book.orders.values() if o.role is OrderRole.ENTRY]
            assert len(entries) == MINUTES // 2 + 1
            assert all(desk.stage.accepted(o.client_order_id) == 1 for o in entries)
        assert broken.engine.positions, "nobody could tell that it was closed"

        broken.stage.come_back()
        await until(broken.is_flat, f"{down} knows what was executed meanwhile")
        assert broken.problems() == []
        assert broken.stage.taken() == taken
        # Ten minutes make every price old; these few seconds do not.
        await broken.stage.move(FIRST)
        await until(lambda: not broken.engine.desk.reconciler.is_blind, f"{down} is compared")
        await broken.trade("after")
        assert broken.problems() == []


@pytest.mark.parametrize("down", VENUES)
async def test_an_order_whose_answer_is_lost_with_the_venue(down):
    """It is in doubt as long as the venue is down, is never sent again, and is found and protected afterwards."""
    async with three_desks() as desks:
        await asyncio.gather(*(desk.trade("before") for desk in desks.values()))
        broken = desks.pop(down)
        await broken.stage.move(FIRST)
        taken = broken.stage.taken()
        broken.stage.go_down_at_next_order()
        assert (await broken.submit("lost", Side.BUY)).outcome is Outcome.IN_DOUBT
        broken.stage.go_down()
        for minute in range(3):
            await asyncio.gather(*(desk.trade(f"m{minute}") for desk in desks.values()))
            await broken.another_pass_fails()
        for desk in desks.values():
            assert desk.problems() == []
        assert len(broken.engine.book.orders.in_doubt) == 1
        assert broken.engine.book.positions.quantity(broken.stage.symbol) == 0
        assert broken.stage.taken() == taken + 1

        broken.stage.come_back()
        await until(broken.is_protected, "the order is found, and what it bought is protected")
        assert broken.problems() == []
        [entry] = broken.orders_of("lost")
        assert (entry.state, entry.attempts) == (OrderState.FILLED, 1)

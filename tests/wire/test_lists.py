"""A stop and its target as one list at three venues, over sockets: a part of one leg, the rest covered anew."""

import asyncio
import contextlib
import random
from decimal import Decimal

import pytest
from tests.support.stages import VENUES, SetClock

from execkit.engine import ExecutionEngine
from execkit.model.order import OrderRole, Side
from execkit.model.signal import TradingSignal

D = Decimal


@contextlib.asynccontextmanager
async def trading(name):
    """Yield a stage and an engine on it that holds ten, with a stop at 197 and a target at 210 in one list."""
    async with VENUES[name](SetClock()) as stage:
        engine = ExecutionEngine(
            stage.exchange,
            journal=None,
            clock=stage.clock,
            rng=random.Random(1),
            store=False,
        )
        async with engine:
            result = await engine.submit(
                TradingSignal(
                    symbol=stage.symbol,
                    side=Side.BUY,
                    quantity=D(10),
                    confluence=4,
                    stop_loss=D(197),
                    take_profit=D(210),
                )
            )
            assert not result.denial, result
            await until(lambda: legs(engine, stage) == pair(stage.held()), f"a list: {result}")
            yield stage, engine


async def until(condition, what):
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


def pair(quantity):
    return [("stop", D(quantity), D(197)), ("target", D(quantity), D(210))]


def legs(engine, stage):
    """Return (role, what is left, price) of the live reductions, when the venue has just as many."""
    orders = engine.book.orders.open_reductions(stage.symbol)
    told = [(o.role.value, o.remaining, o.stop_price or o.limit_price) for o in orders]
    return sorted(told) if len(stage.resting()) == len(orders) else None


async def execute(stage, quantity):
    """Execute a part of the target at its price."""
    target = next(o.request for o in stage.resting() if o.request.stop_price is None)
    if stage.name == "ibkr":
        now = stage.clock.now()
        done = stage.core.execute(target.client_order_id, D(quantity), D(210), now, maker=True)
        stage.venue.orders.apply(done)
    else:
        await stage.venue.fill(target.client_order_id, D(quantity))


@pytest.mark.parametrize("name", VENUES)
async def test_the_rest_after_a_part_of_the_target_is_protected(name):
    """D6 I14: whatever the venue does to the other leg, what is left has a stop and a target of its size."""
    async with trading(name) as (stage, engine):
        held = stage.held()  # at Binance the fee was paid of it
        await execute(stage, 3)
        await until(lambda: legs(engine, stage) == pair(held - 3), f"a list: {stage.resting()}")
        assert stage.held() == engine.book.positions.quantity(stage.symbol) == held - 3
        lists = {o.intent.list_id for o in engine.book.orders.open_reductions(stage.symbol)}
        assert len(lists) == 1
        await stage.move(D(211))
        await until(lambda: not engine.positions and not stage.resting(), "flat")
        assert stage.held() == 0
        sold = [o for o in engine.orders.values() if o.role is OrderRole.TARGET]
        assert sum(o.filled for o in sold) == held
        assert not [a.code for a in engine.book.alarms]


@pytest.mark.parametrize("name", VENUES)
async def test_a_flatten_takes_both_legs_first(name):
    """D11 D15: nothing rests afterwards, and nothing was sold twice."""
    async with trading(name) as (stage, engine):
        await engine.flatten()
        await until(lambda: not engine.positions and not stage.resting(), "flat")
        assert stage.held() == 0
        assert not [o for o in engine.orders.active.values() if o.state.may_be_live]

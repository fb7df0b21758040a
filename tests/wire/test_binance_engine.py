"""From signal to reconciled position over real sockets, with everything going wrong, one thing and two at a time.

Counted on the venue's side: never two accepted orders for one signal. In the end nothing is in doubt, and both sides
hold the same.
"""

import asyncio
import itertools
import random
from collections import Counter
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.binance import on_the_wire

from execkit.engine import ExecutionEngine
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.signal import TradingSignal
from execkit.pipeline import ExecutionPipeline
from execkit.risk.sizing import FixedQuantity
from execkit.testing.venues.faults import Mishap

SYMBOLS = {"spot": "BTC/USDT", "usdm": "BTC/USDT:USDT"}
SOON = timedelta(0)
FIRED = Counter()
"""How often each kind of fault struck, over all worlds."""
AT_ONCE = 40
"""Worlds that share the loop: they mostly wait."""

PLACE = [
    ("place", Mishap.DROP_REQUEST, {}),
    ("place", Mishap.DROP_ANSWER, {}),
    ("place", Mishap.CUT_BODY, {}),
    ("place", Mishap.HANG, {"reached": True}),
    ("place", Mishap.HANG, {"reached": False}),
    ("place", Mishap.DELAY, {"after": 0.05}),
    ("place", Mishap.ERROR, {"status": 503, "code": -1000, "reached": True}),
    ("place", Mishap.ERROR, {"status": 503, "code": -1007, "reached": False}),
    ("place", Mishap.ERROR, {"status": 429, "code": -1015, "retry_after": SOON}),
    ("place", Mishap.ERROR, {"status": 418, "code": -1003, "retry_after": SOON}),
    ("place", Mishap.ERROR, {"status": 400, "code": -1021}),
    ("place", Mishap.HTML, {"status": 200, "reached": True}),
    ("place", Mishap.HTML, {"status": 403, "reached": False}),
    ("place", Mishap.EMPTY, {}),
    ("place", Mishap.CUT_JSON, {}),
    ("place", Mishap.LIST, {}),
    ("place", Mishap.NULL, {}),
    ("place", Mishap.NAN, {}),
    ("place", Mishap.NO_ID, {}),
    ("place", Mishap.OTHER_ORDER, {}),
    ("place", Mishap.CHANGE, {"changes": {"status": "PENDING_REVIEW"}}),
    ("place", Mishap.UNFILLED, {}),
    ("place", Mishap.PARTIAL, {}),
    ("place", Mishap.EXPIRE, {}),
    ("place", Mishap.EXPIRE_IN_MATCH, {}),
]
READS = [
    ("get", Mishap.NOT_FOUND, {}),
    ("get", Mishap.ERROR, {"status": 500}),
    ("get", Mishap.HANG, {"reached": False}),
    ("get", Mishap.OTHER_ORDER, {}),
    ("fills", Mishap.NOT_FOUND, {}),
    ("open", Mishap.CUT_JSON, {}),
    ("balances", Mishap.HTML, {"status": 502}),
    ("read", Mishap.ERROR, {"status": 429, "code": -1003, "retry_after": SOON}),
]
STREAM = [
    ("stream", Mishap.LOSE, {}),
    ("stream", Mishap.DUPLICATE, {}),
    ("stream", Mishap.REORDER, {}),
    ("stream", Mishap.LATE, {"after": 0.2}),
    ("stream", Mishap.CUT, {}),
    ("stream", Mishap.TERMINATE, {}),
]
FAULTS = [*PLACE, *READS, *STREAM]


def chain():
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(Decimal("0.01"))),
            OrderExecutorHandler(base_delay=0.02, doubt_timeout=1.5),
            ReconciliationHandler(max_wait_time=0.3, poll_interval=0.1),
        ]
    )


async def live_through(faults, market="spot"):
    """Return what is wrong after one signal among these faults; nothing when all is well."""
    symbol = SYMBOLS[market]
    options = {"market": market, "prices": {symbol: Decimal(42_000)}}
    async with on_the_wire(venue_options=options, market=market) as (venue, adapter):
        await adapter.close()
        engine = ExecutionEngine(
            adapter, journal=None, pipeline=chain(), rng=random.Random(1), store=False
        )
        async with engine:
            adapter._client.limit = 0.5
            for on, kind, details in faults:
                venue.fail_next(on, kind, **details)
            await engine.submit(
                TradingSignal(
                    signal_id="s", symbol=symbol, side=Side.BUY, strength=80, confluence=4
                )
            )
            await venue.move_price(symbol, Decimal(42_001))
            await engine.desk.reconciler.try_run()
            venue.heal()
            await settled(engine)
            FIRED.update(venue.faults.fired)
            return problems(venue, engine, symbol)


async def settled(engine):
    """Wait until nothing is in doubt and a pass has compared everything."""
    reconciler = engine.desk.reconciler
    async with asyncio.timeout(20):
        while True:
            if not engine.book.orders.in_doubt and await reconciler.try_run():
                await engine.desk.keeper.idle()
                if not engine.book.orders.in_doubt:
                    return
            await asyncio.sleep(0.05)


def problems(venue, engine, symbol):
    found = []
    orders = [engine.book.orders[key] for key in engine.book.orders]
    entries = [order for order in orders if order.role is OrderRole.ENTRY]
    for order in orders:
        if venue.accepted(order.client_order_id) > 1:
            found.append(f"{order.role}: accepted {venue.accepted(order.client_order_id)} times")
        if order.state in (OrderState.IN_DOUBT, OrderState.SUBMITTED):
            found.append(f"{order!r} is unresolved")
    taken = sum(venue.accepted(order.client_order_id) for order in entries)
    if taken > 1:
        found.append(f"{taken} orders were accepted for one signal")
    ours = engine.book.positions.quantity(symbol)
    theirs = {each.symbol: each.quantity for each in venue.core.positions()}.get(symbol, Decimal(0))
    if ours and not any(engine.book.orders.open_reductions(symbol)):
        found.append(f"{ours} are held without a stop")
    if ours != theirs:
        found.append(f"we hold {ours}, the venue says {theirs}")
    return found


async def all_of(worlds, market="spot"):
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(faults):
        async with gate:
            names = " + ".join(f"{on}:{kind} {details}" for on, kind, details in faults)
            try:
                return [f"{names}: {each}" for each in await live_through(faults, market)]
            except Exception as error:
                return [f"{names}: {error!r}"]

    results = await asyncio.gather(*(one(faults) for faults in worlds))
    return [each for result in results for each in result]


@pytest.mark.parametrize("market", SYMBOLS)
async def test_without_a_fault(market):
    """A signal becomes one order, a position and its stop."""
    assert await live_through([], market) == []


@pytest.mark.parametrize("market", SYMBOLS)
async def test_each_fault_alone(market):
    """Every fault of the venue, one at a time."""
    assert await all_of([[fault] for fault in FAULTS], market) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_faults_in_pairs():
    """Every fault of an order with every fault of another kind, and with a second one of an order."""
    pairs = [*itertools.product(PLACE, [*READS, *STREAM]), *itertools.pairwise(PLACE)]
    FIRED.clear()
    assert await all_of(pairs) == []
    assert set(FIRED) == {kind for _, kind, _ in FAULTS}

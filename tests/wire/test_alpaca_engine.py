"""From signal to reconciled position at Alpaca over real sockets, with everything going wrong, alone and in pairs.

Counted on the venue's side: never two accepted orders for one signal. In the end nothing is in doubt, and both sides
hold the same.
"""

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.alpaca import TradingClock, adapter_of, venue_on_the_wire

from execkit.bars.live import LiveOptions
from execkit.engine import ExecutionEngine
from execkit.exchanges.paper import PaperExchange
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.events import PositionOpened
from execkit.model.market import BarData, Timeframe
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.signal import TradingSignal
from execkit.pipeline import ExecutionPipeline
from execkit.plans import TradePlan
from execkit.protection.policy import ProtectionPolicy
from execkit.risk.sizing import FixedQuantity
from execkit.testing.venues.faults import Mishap

SOON = timedelta(0)
AT_ONCE = 20
"""Worlds that share the loop: they mostly wait."""

PLACE = [
    ("place", Mishap.DROP_REQUEST, {}),
    ("place", Mishap.DROP_ANSWER, {}),
    ("place", Mishap.CUT_BODY, {}),
    ("place", Mishap.HANG, {"reached": True}),
    ("place", Mishap.HANG, {"reached": False}),
    ("place", Mishap.DELAY, {"after": 0.05}),
    ("place", Mishap.ERROR, {"status": 500, "code": 50010000, "reached": True}),
    ("place", Mishap.ERROR, {"status": 503, "reached": False}),
    ("place", Mishap.ERROR, {"status": 504, "reached": True}),
    ("place", Mishap.ERROR, {"status": 429, "code": 42910000, "retry_after": SOON}),
    (
        "place",
        Mishap.ERROR,
        {"status": 422, "code": 40010001, "text": "client_order_id must be unique"},
    ),
    ("place", Mishap.ERROR, {"status": 403, "code": 40310000, "text": "insufficient buying power"}),
    ("place", Mishap.ERROR, {"status": 418, "code": 41810000, "reached": True}),
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
]
READS = [
    ("get", Mishap.NOT_FOUND, {}),
    ("get", Mishap.ERROR, {"status": 500}),
    ("get", Mishap.HANG, {"reached": False}),
    ("get", Mishap.OTHER_ORDER, {}),
    ("get", Mishap.STALE, {}),
    ("open", Mishap.STALE, {}),
    ("fills", Mishap.STALE, {}),
    ("positions", Mishap.STALE, {}),
    ("fills", Mishap.NOT_FOUND, {}),
    ("open", Mishap.CUT_JSON, {}),
    ("account", Mishap.HTML, {"status": 502}),
    ("positions", Mishap.NOT_FOUND, {}),
    ("read", Mishap.ERROR, {"status": 429, "code": 42910000, "retry_after": SOON}),
]
STREAM = [
    ("stream", Mishap.LOSE, {}),
    ("stream", Mishap.DUPLICATE, {}),
    ("stream", Mishap.REORDER, {}),
    ("stream", Mishap.LATE, {"after": 0.2}),
    ("stream", Mishap.CUT, {}),
]
FAULTS = [*PLACE, *READS, *STREAM]


def chain(quantity):
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(Decimal(quantity))),
            OrderExecutorHandler(base_delay=0.02, doubt_timeout=1.5),
            ReconciliationHandler(max_wait_time=0.3, poll_interval=0.1),
        ]
    )


async def live_through(faults, symbol="AAPL", quantity="10", *, held=None):
    """Return what is wrong after one signal among these faults; nothing when all is well."""
    async with venue_on_the_wire() as venue:
        adapter = adapter_of(venue)
        engine = ExecutionEngine(
            adapter,
            journal=None,
            pipeline=chain(quantity),
            clock=venue.clock,
            rng=random.Random(1),
            store=False,
        )
        async with engine:
            adapter._wire._limit = 0.5
            for on, kind, details in faults:
                venue.fail_next(on, kind, **details)
            await engine.submit(
                TradingSignal(
                    signal_id="s", symbol=symbol, side=Side.BUY, strength=80, confluence=4
                )
            )
            if any(details.get("skip") for _, _, details in faults):
                await venue.until(lambda: not venue.faults.waiting)
            venue.heal()
            await venue.move_price(symbol, venue.core.quote(symbol).bid + Decimal("0.01"))
            await settled(engine)
            assert held is None or venue.state.position(symbol) == held
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
    ours, theirs = engine.book.positions.quantity(symbol), venue.state.position(symbol)
    if ours != theirs:
        found.append(f"we hold {ours}, the venue says {theirs}")
    held = venue.state.held_for(symbol, Side.SELL)
    if theirs and held != theirs:
        found.append(f"{held} of {theirs} are protected")
    return found


async def all_of(worlds):
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(faults):
        async with gate:
            names = " + ".join(f"{on}:{kind} {details}" for on, kind, details in faults)
            try:
                return [f"{names}: {each}" for each in await live_through(faults)]
            except Exception as error:
                return [f"{names}: {error!r}"]

    results = await asyncio.gather(*(one(faults) for faults in worlds))
    return [each for result in results for each in result]


@pytest.mark.parametrize(
    ("symbol", "quantity", "held"),
    [("AAPL", "10", "10"), ("BTC/USD", "0.05", "0.049874999")],
)
async def test_without_a_fault(symbol, quantity, held):
    """A signal becomes one order, a position and its stop, for a stock and for crypto, less the fee."""
    assert await live_through([], symbol, quantity, held=Decimal(held)) == []


async def test_each_fault_alone():
    """Every fault of the venue, one at a time."""
    assert await all_of([[fault] for fault in FAULTS]) == []


async def test_each_fault_of_the_protection():
    """Every fault of an order strikes the stop, or the list that it is sent in: in the end it stands, once."""
    later = [(on, kind, details | {"skip": 1}) for on, kind, details in PLACE]
    assert await all_of([[fault] for fault in later]) == []


@pytest.mark.slow
async def test_faults_in_pairs():
    """Every fault of an order with every fault of another kind."""
    pairs = [*itertools.product(PLACE, [*READS, *STREAM])]
    assert await all_of(pairs[::2]) == []


def signal(signal_id, side, **details):
    return TradingSignal(
        signal_id=signal_id, symbol="AAPL", side=side, strength=80, confluence=4, **details
    )


def engine_on(venue, journal, **options):
    return ExecutionEngine(
        adapter_of(venue),
        journal=journal,
        pipeline=chain("10"),
        clock=venue.clock,
        rng=random.Random(1),
        store=False,
        **options,
    )


async def test_an_exit_waits_for_the_stop_that_holds_the_shares():
    """Alpaca refuses to sell what a stop holds: the stop is cancelled first, and nothing is refused or left over."""
    async with venue_on_the_wire() as venue, engine_on(venue, None) as engine:
        await engine.submit(signal("in", Side.BUY))
        await settled(engine)
        await engine.submit(signal("out", Side.SELL))
        await settled(engine)
        assert venue.state.position("AAPL") == engine.book.positions.quantity("AAPL") == 0
        assert not venue.core.open["AAPL"]
        assert [(c.operation, c.status) for c in venue.requests if c.method != "GET"] == [
            ("place", 200),
            ("place", 200),
            ("cancel", 204),
            ("place", 200),
        ]


def stops_at(venue):
    """Return the stop prices that stand at the venue."""
    orders = venue.core.open["AAPL"].values()
    return [o.request.stop_price for o in orders if o.request.stop_price is not None]


async def test_a_stop_that_follows_the_price_protects_also_after_a_restart(tmp_path):
    """The stop is moved at Alpaca; the next process knows it again, moves it on, and is stopped out by it."""
    policy = ProtectionPolicy(trailing_pct=Decimal(1))
    async with venue_on_the_wire() as venue:
        for run, prices in enumerate(([152, 154], [155])):
            async with engine_on(venue, tmp_path / "journal.db", protection=policy) as engine:
                if run == 0:
                    await engine.submit(signal("in", Side.BUY))
                await venue.until(lambda: any("q:AAPL" in s.topics for s in venue.sockets))
                for price in prices:
                    await venue.move_price("AAPL", Decimal(price))
                    least = Decimal(price) * Decimal("0.985")
                    async with asyncio.timeout(10):
                        while not (stops_at(venue) and stops_at(venue)[0] > least):
                            await asyncio.sleep(0.02)
                await settled(engine)
                assert len(stops_at(venue)) == 1
                assert problems(venue, engine, "AAPL") == []
                assert not engine.book.foreign
        async with engine_on(venue, tmp_path / "journal.db", protection=policy) as engine:
            await venue.move_price("AAPL", Decimal(153))
            await venue.until(lambda: venue.state.position("AAPL") == 0)
            await settled(engine)
            assert engine.book.positions.quantity("AAPL") == 0
            assert not venue.core.open["AAPL"]


async def test_a_plan_trades_on_paper_by_alpacas_live_bars():
    """A bar of the data stream fires the plan; the fill is on paper at Alpaca's ask, where no order is sent."""
    close = datetime(2024, 3, 12, 15, 1, tzinfo=UTC)
    clock = TradingClock(close - timedelta(minutes=1))
    rule = {"function": "close_above", "timeframe": "1m"}
    plan = TradePlan(
        name="breakout",
        symbol="BTC/USD",
        entry=[rule | {"parameters": {"threshold_price": Decimal(60_500)}}],
        exit=[
            rule | {"function": "close_below", "parameters": {"threshold_price": Decimal(50_000)}}
        ],
    )
    async with venue_on_the_wire(clock=clock) as venue:
        feed = adapter_of(venue)
        paper = PaperExchange(balances={"USD": Decimal(10_000)}, feed=feed, clock=clock)
        engine = ExecutionEngine(paper, journal=None, plans=[plan], live=LiveOptions(), clock=clock)
        opened = asyncio.Event()
        engine.events.subscribe(PositionOpened, lambda _event: opened.set())
        await feed.connect_data()
        async with engine:
            clock.set(close - timedelta(seconds=1))
            await venue.until(lambda: any("b:BTC/USD" in s.topics for s in venue.sockets))
            price = Decimal(60_600)
            await venue.move_price("BTC/USD", price)
            while clock.now() < close:
                await asyncio.sleep(0.01)
            venue.show_bar(
                BarData("BTC/USD", Timeframe.M1, close, price, price, price, price, Decimal(3))
            )
            async with asyncio.timeout(10):
                await opened.wait()
            assert engine.positions["BTC/USD"].average_price == Decimal("60600.01")
        assert [call.path for call in venue.requests if call.method != "GET"] == []

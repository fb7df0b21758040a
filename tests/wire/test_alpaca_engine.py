"""From signal to reconciled position at Alpaca over real sockets, with everything going wrong, alone and in pairs.

Counted on the venue's side: never two accepted orders for one signal. In the end nothing is in doubt, and both sides
hold the same.
"""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support import wire_worlds
from tests.support.alpaca import TradingClock, adapter_of, venue_on_the_wire
from tests.support.wire_worlds import HURRY, PATIENCE, engine_on, hangs, problems, settled, signal

from execkit.bars.live import LiveOptions
from execkit.engine import ExecutionEngine
from execkit.exchanges.paper import PaperExchange
from execkit.model.denial import DenialCode
from execkit.model.events import PositionOpened
from execkit.model.market import BarData, Timeframe
from execkit.model.order import Side
from execkit.model.records import TradingState
from execkit.plans import TradePlan
from execkit.protection.policy import ProtectionPolicy
from execkit.testing.venues.faults import Mishap

SOON = timedelta(0)
PATIENT = timedelta(seconds=PATIENCE)

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


async def live_through(faults, symbol="AAPL", quantity="10", *, held=None):
    """Return what is wrong after one signal among these faults; nothing when all is well."""
    async with venue_on_the_wire() as venue:
        adapter = adapter_of(venue, timeout=PATIENT)
        async with engine_on(adapter, quantity, clock=venue.clock) as engine:
            usual = adapter._wire._limit
            if hangs(faults):
                adapter._wire._limit = HURRY
            for on, kind, details in faults:
                venue.fail_next(on, kind, **details)
            await engine.submit(signal(symbol))
            if any(details.get("skip") for _, _, details in faults):
                await venue.until(lambda: not venue.faults.waiting, limit=PATIENCE)
            venue.heal()
            adapter._wire._limit = usual
            await venue.move_price(symbol, venue.core.quote(symbol).bid + Decimal("0.01"))
            await settled(engine)
            assert held is None or venue.state.position(symbol) == held
            return wrong(venue, engine, symbol)


def wrong(venue, engine, symbol):
    return problems(
        engine,
        symbol,
        accepted=venue.accepted,
        held=venue.state.position(symbol),
        protected=venue.state.held_for(symbol, Side.SELL),
    )


async def test_an_answer_about_another_order_halts_trading():
    """A10: the order is found and protected, and nothing is added until a person has looked."""
    async with venue_on_the_wire() as venue:
        adapter = adapter_of(venue, timeout=PATIENT)
        async with engine_on(adapter, "10", clock=venue.clock) as engine:
            venue.fail_next("place", Mishap.OTHER_ORDER)
            await engine.submit(signal("AAPL"))
            assert engine.trading_state is TradingState.HALTED
            again = await engine.submit(signal("AAPL", "again"))
            assert again.denial.code is DenialCode.TRADING_HALTED
            await settled(engine)
            held = venue.state.held_for("AAPL", Side.SELL)
            assert held == engine.book.positions.quantity("AAPL") == 10


async def all_of(worlds):
    return await wire_worlds.all_of(worlds, live_through)


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
@pytest.mark.timeout(600)
async def test_faults_in_pairs():
    """Every fault of an order with every fault of another kind."""
    assert await all_of(itertools.product(PLACE, [*READS, *STREAM])) == []


def engine_of(venue, journal=None, **options):
    return engine_on(adapter_of(venue), "10", journal=journal, clock=venue.clock, **options)


async def test_an_exit_waits_for_the_stop_that_holds_the_shares():
    """Alpaca refuses to sell what a stop holds: the stop is cancelled first, and nothing is refused or left over."""
    async with venue_on_the_wire() as venue, engine_of(venue) as engine:
        await engine.submit(signal("AAPL", "in"))
        await settled(engine)
        await engine.submit(signal("AAPL", "out", Side.SELL))
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
            async with engine_of(venue, tmp_path / "journal.db", protection=policy) as engine:
                if run == 0:
                    await engine.submit(signal("AAPL", "in"))
                await venue.until(lambda: any("q:AAPL" in s.topics for s in venue.sockets))
                for price in prices:
                    await venue.move_price("AAPL", Decimal(price))
                    least = Decimal(price) * Decimal("0.985")
                    async with asyncio.timeout(PATIENCE):
                        while not (stops_at(venue) and stops_at(venue)[0] > least):
                            await asyncio.sleep(0.02)
                await settled(engine)
                assert len(stops_at(venue)) == 1
                assert wrong(venue, engine, "AAPL") == []
                assert not engine.book.foreign
        async with engine_of(venue, tmp_path / "journal.db", protection=policy) as engine:
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
            async with asyncio.timeout(PATIENCE):
                await opened.wait()
            assert engine.positions["BTC/USD"].average_price == Decimal("60600.01")
        assert [call.path for call in venue.requests if call.method != "GET"] == []

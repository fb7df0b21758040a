"""From signal to reconciled position over the TWS socket, with everything going wrong, one thing and two at a time.

Counted on the venue's side: never two accepted orders for one signal. In the end nothing is in doubt, and both sides
hold the same.
"""

import asyncio
import itertools
import random
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.ibkr import AAPL, adapter_of

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
from execkit.testing.venues.tws.server import WireTws

AT_ONCE = 12
"""Worlds that share the loop: they mostly wait."""


def kind(name):
    """Choose the stream's messages of one kind."""
    return {"only": lambda call: call[0] == name}


PLACE = [
    ("place", Mishap.DROP_REQUEST, {}),
    ("place", Mishap.DROP_ANSWER, {"reached": True}),
    ("place", Mishap.HANG, {"reached": True}),
    ("place", Mishap.HANG, {}),
    ("place", Mishap.CUT_BODY, {}),
    ("place", Mishap.OTHER_ORDER, {}),
    ("place", Mishap.UNFILLED, {}),
    ("place", Mishap.ERROR, {"code": 103}),
    ("place", Mishap.ERROR, {"code": 504, "reached": True}),
    ("place", Mishap.ERROR, {"code": 100}),
]
READS = [
    ("open_orders", Mishap.HANG, {}),
    ("open_orders", Mishap.CHANGE, {"changes": {"status": "Mystery"}}),
    ("executions", Mishap.ERROR, {"code": 322}),
    ("executions", Mishap.HANG, {}),
    ("executions", Mishap.DROP_ANSWER, {}),
    ("completed_orders", Mishap.HANG, {}),
]
STREAM = [
    ("stream", Mishap.LOSE, kind("openOrder")),
    ("stream", Mishap.LOSE, {"times": 3} | kind("orderStatus")),
    ("stream", Mishap.LOSE, kind("execDetails")),
    ("stream", Mishap.LOSE, kind("commissionReport")),
    ("stream", Mishap.DUPLICATE, kind("execDetails")),
    ("stream", Mishap.LATE, {"after": 0.1} | kind("openOrder")),
    ("stream", Mishap.LATE, {"after": 0.1} | kind("execDetails")),
    ("stream", Mishap.LATE, {"after": 0.1} | kind("commissionReport")),
    ("stream", Mishap.CUT, kind("openOrder")),
    ("stream", Mishap.CUT, kind("execDetails")),
]
LOST = ("place", Mishap.HANG, {"reached": True})
"""Makes the engine ask, so that what is wrong with the answers matters."""


def chain():
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(Decimal(10))),
            OrderExecutorHandler(base_delay=0.02, doubt_timeout=1.5),
            ReconciliationHandler(max_wait_time=0.3, poll_interval=0.1),
        ]
    )


async def live_through(faults, act=None):
    """Return what is wrong after one signal among these faults; nothing when all is well.

    Also wrong is a fault that never struck, where it was the only one.
    """
    async with WireTws(balances={"USD": Decimal(1_000_000)}) as venue:
        adapter = adapter_of(venue, absence_window=timedelta(seconds=0.15), messages_per_second=50)
        adapter._pace.limit = 1000  # many looks in a short time; the pace has a test of its own
        engine = ExecutionEngine(
            adapter, journal=None, pipeline=chain(), rng=random.Random(1), store=False
        )
        async with engine:
            for on, mishap, details in faults:
                venue.fault(on, mishap, **details)
            submitting = asyncio.ensure_future(
                engine.submit(
                    TradingSignal(
                        signal_id="s", symbol=AAPL, side=Side.BUY, strength=80, confluence=4
                    )
                )
            )
            if act is not None:
                await act(venue)
            await submitting
            venue.faults.waiting.clear()
            if venue.orders.by_perm:
                venue.move_price(AAPL, Decimal("200.01"))
            await settled(engine)
            unused = (
                [] if len(faults) > 1 or venue.faults.fired or not faults else ["it never struck"]
            )
            return problems(venue, engine) + unused


async def settled(engine):
    """Wait until nothing is in doubt and a pass has compared everything."""
    async with asyncio.timeout(30):
        while True:
            if not engine.book.orders.in_doubt and await engine.desk.reconciler.try_run():
                await engine.desk.keeper.idle()
                if not engine.book.orders.in_doubt:
                    return
            await asyncio.sleep(0.05)


def problems(venue, engine):
    found = []
    orders = [engine.book.orders[key] for key in engine.book.orders]
    for order in orders:
        if venue.taken(order.client_order_id) > 1:
            found.append(f"{order.role}: taken {venue.taken(order.client_order_id)} times")
        if order.state in (OrderState.IN_DOUBT, OrderState.SUBMITTED):
            found.append(f"{order!r} is unresolved")
        sent = {str(e.sent.order_id) for e in venue.received if e.sent.ref == order.client_order_id}
        if order.attempts == 1 and sent - {order.intent.reserved}:
            found.append(f"sent with {sent}, journalled was {order.intent.reserved!r}")
    entries = [order for order in orders if order.role is OrderRole.ENTRY]
    taken = sum(venue.taken(order.client_order_id) for order in entries)
    if taken > 1:
        found.append(f"{taken} orders were accepted for one signal")
    ids = [(each.client_id, each.sent.order_id) for each in venue.received if each.taken]
    if len(ids) != len(set(ids)):
        found.append(f"an order id was used twice: {ids}")
    ours = engine.book.positions.quantity(AAPL)
    if ours != venue.held(AAPL):
        found.append(f"we hold {ours}, the venue says {venue.held(AAPL)}")
    if venue.messages[58]:
        found.append("reqGlobalCancel was sent")
    return found


async def all_of(worlds):
    """Live through all of them, a few at a time; return what went wrong by name."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name, faults):
        async with gate:
            return name, await live_through([(on, k, dict(d)) for on, k, d in faults])

    results = await asyncio.gather(*(one(name, faults) for name, faults in worlds))
    return {name: found for name, found in results if found}


def name_of(fault):
    on, mishap, details = fault
    return f"{on} {mishap} {sorted(map(str, details.items()))}"[:60]


@pytest.mark.slow
async def test_one_fault_at_a_time():
    """Each fault by itself: one accepted order at most, everything resolved, both sides equal."""
    alone = [(name_of(fault), [fault]) for fault in (*PLACE, *STREAM)]
    asked = [(name_of(fault), [LOST, fault]) for fault in READS]
    assert await all_of([*alone, *asked]) == {}


@pytest.mark.slow
async def test_two_faults_at_a_time():
    """A hundred and fifty seeded pairs of faults: the same."""
    pairs = list(itertools.combinations((*PLACE, *READS, *STREAM), 2))
    chosen = random.Random(5).sample(pairs, 150)
    assert await all_of([(f"{name_of(a)} + {name_of(b)}", [a, b]) for a, b in chosen]) == {}


async def cut_off(venue):
    """Lose the uplink when the order has arrived, and get it back with data subscriptions lost."""
    await venue.until(lambda: bool(venue.received))
    venue.announce(1100)
    await asyncio.sleep(0.1)
    venue.announce(1101)


async def half_open(venue):
    """Let the link go dead without a word when the order has arrived."""
    await venue.until(lambda: bool(venue.received))
    venue.go_mute()


async def restarted(venue):
    """Restart the gateway while orders are live; its order ids begin again, and it refuses connections for a while."""
    await venue.until(lambda: bool(venue.received))
    venue.roll_back_ids()
    venue.is_down = True
    venue.cut()
    await asyncio.sleep(0.1)
    venue.is_down = False


@pytest.mark.parametrize("act", [cut_off, half_open, restarted])
@pytest.mark.parametrize("fault", [None, LOST], ids=["answered", "unanswered"])
async def test_connection_troubles(act, fault):
    """1100 and 1101, a dead link, and a gateway that restarts and forgets its ids: the same."""
    faults = [] if fault is None else [(fault[0], fault[1], dict(fault[2]))]
    assert await live_through(faults, act) == []


async def without_commissions(venue):
    """Send executions without ever a commission report."""
    venue.commission_delay = None


async def test_commission_never_comes():
    """A fill counts without its commission, which is then zero (B15)."""
    assert await live_through([], without_commissions) == []


async def test_late_commission_is_booked(tmp_path):
    """The commission that came after its fill is in the fees, in the cash, and in no alarm (B15)."""
    async with WireTws(balances={"USD": Decimal(1_000_000)}) as venue:
        venue.commission_delay = 0.15
        engine = ExecutionEngine(
            adapter_of(venue), journal=tmp_path / "orders.db", pipeline=chain(), store=False
        )
        async with engine:
            await engine.submit(
                TradingSignal(signal_id="s", symbol=AAPL, side=Side.BUY, strength=80, confluence=4)
            )
            while not engine.positions[AAPL].fees:
                await asyncio.sleep(0.01)
            assert engine.positions[AAPL].fees == {"USD": Decimal("0.2")}
            assert engine.book.cash["USD"] == venue.core.balances()["USD"].total
            assert [alarm.code for alarm in engine.book.alarms] == []

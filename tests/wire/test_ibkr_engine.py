"""From signal to reconciled position over the TWS socket, with everything going wrong, one thing and two at a time.

Counted on the venue's side: never two accepted orders for one signal. In the end nothing is in doubt, and both sides
hold the same.
"""

import asyncio
import itertools
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest
from tests.support import wire_worlds
from tests.support.ibkr import AAPL, adapter_of
from tests.support.wire_worlds import (
    HURRY,
    PATIENCE,
    engine_on,
    once_per_group,
    orders_of,
    problems,
    settled,
    signal,
)

from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.server import WireTws

STOPS = ("STP", "STP LMT", "TRAIL", "TRAIL LIMIT")


@attrs.frozen
class Kind:
    """Chooses the stream's messages of one kind."""

    name: str

    def __call__(self, call):
        return call[0] == self.name


def kind(name):
    return {"only": Kind(name)}


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


async def live_through(faults, act=None, *, held=None):
    """Return what is wrong after one signal among these faults; nothing when all is well.

    Also wrong is a fault that never struck, where it was the only one.
    """
    async with WireTws(balances={"USD": Decimal(1_000_000)}) as venue:
        adapter = adapter_of(venue, absence_window=timedelta(seconds=0.15), messages_per_second=50)
        adapter._pace.limit = 1000  # many looks in a short time; the pace has a test of its own
        be_patient(adapter, PATIENCE)
        async with engine_on(adapter, "10") as engine:
            for on, mishap, details in faults:
                venue.fault(on, mishap, **details)
            if act or {mishap for _, mishap, _ in faults} & {Mishap.HANG, Mishap.DROP_ANSWER}:
                be_patient(adapter, HURRY)
                # Whatever TWS owes an answer for is asked for again on a new link only.
                adapter._line._read_timeout = HURRY
            submitting = asyncio.ensure_future(engine.submit(signal(AAPL)))
            if act is not None:
                await act(venue)
            await submitting
            venue.faults.waiting.clear()
            if act is None:
                be_patient(adapter, PATIENCE)
            if venue.orders.by_perm:
                venue.move_price(AAPL, Decimal("200.01"))
            await settled(engine)
            unused = (
                [] if len(faults) > 1 or venue.faults.fired or not faults else ["it never struck"]
            )
            assert held is None or venue.held(AAPL) == held
            return wrong(venue, engine) + unused


def be_patient(adapter, seconds):
    """Set how long answers to questions are waited for."""
    adapter._read_timeout = seconds
    if adapter._line._link is not None:
        adapter._line._link._read_timeout = seconds


def wrong(venue, engine):
    """Return what is wrong at the end, also with ids and messages that only this venue has."""
    found = problems(
        engine, AAPL, accepted=venue.taken, held=venue.held(AAPL), protected=protected(venue)
    )
    for order in orders_of(engine):
        sent = {str(e.sent.order_id) for e in venue.received if e.sent.ref == order.client_order_id}
        if order.attempts == 1 and sent - {order.intent.reserved}:
            found.append(f"sent with {sent}, journalled was {order.intent.reserved!r}")
    ids = [(each.client_id, each.sent.order_id) for each in venue.received if each.taken]
    if len(ids) != len(set(ids)):
        found.append(f"an order id was used twice: {ids}")
    if venue.messages[58]:
        found.append("reqGlobalCancel was sent")
    return found


def protected(venue):
    """Return what the stops at the venue would sell."""
    return once_per_group(
        (each.sent.oca_group, each.remaining)
        for each in venue.orders.by_perm.values()
        if each.is_open and each.sent.action == "SELL" and each.sent.order_type in STOPS
    )


async def all_of(worlds):
    async def one(faults):
        return await live_through([(on, k, dict(d)) for on, k, d in faults])

    return await wire_worlds.all_of(worlds, one)


@pytest.mark.slow
async def test_one_fault_at_a_time():
    """Each fault by itself: one accepted order at most, everything resolved, both sides equal."""
    alone = [[fault] for fault in (*PLACE, *STREAM)]
    asked = [[LOST, fault] for fault in READS]
    assert await all_of([*alone, *asked]) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_faults_at_a_time():
    """All pairs of faults: the same."""
    pairs = itertools.combinations((*PLACE, *READS, *STREAM), 2)
    assert await all_of([[a, b] for a, b in pairs]) == []


async def test_without_a_fault():
    """A signal becomes one order, a position and its stop."""
    assert await live_through([], held=Decimal(10)) == []


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
        adapter = adapter_of(venue)
        async with engine_on(adapter, "10", journal=tmp_path / "orders.db") as engine:
            await engine.submit(signal(AAPL))
            while not engine.positions[AAPL].fees:
                await asyncio.sleep(0.01)
            assert engine.positions[AAPL].fees == {"USD": Decimal("0.2")}
            assert engine.book.cash["USD"] == venue.core.balances()["USD"].total
            assert [alarm.code for alarm in engine.book.alarms] == []

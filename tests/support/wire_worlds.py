"""Worlds of one signal on a venue's wire: a chain in a hurry, an end to wait for, and what may not be at the end."""

import asyncio
import random
from decimal import Decimal

from execkit.engine import ExecutionEngine
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.signal import TradingSignal
from execkit.numbers import ZERO, round_down
from execkit.pipeline import ExecutionPipeline
from execkit.risk.sizing import FixedQuantity
from execkit.testing.venues.faults import Mishap

PATIENCE = 100.0
"""Seconds after which a wait is given up: no measure of speed, only the end of a test that hangs."""
AT_ONCE = 8
"""Worlds that share the loop: they mostly wait, but where there is little processor time they wait for each other."""
HURRY = 0.5
"""Seconds for one request where one will hang. Only while the faults last: on a busy machine answers that come too late
would be asked for again and again, and none would ever be in time."""


def chain(quantity):
    """Return the usual handlers with a fixed size and short waits."""
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(Decimal(quantity))),
            OrderExecutorHandler(base_delay=0.02, doubt_timeout=1.5),
            ReconciliationHandler(max_wait_time=0.3, poll_interval=0.1),
        ]
    )


def engine_on(adapter, quantity, **options):
    """Return an engine of that chain, by default without files."""
    defaults = {"journal": None, "rng": random.Random(1), "store": False}
    return ExecutionEngine(adapter, pipeline=chain(quantity), **(defaults | options))


def signal(symbol, signal_id="s", side=Side.BUY, **details):
    return TradingSignal(
        signal_id=signal_id, symbol=symbol, side=side, strength=80, confluence=4, **details
    )


def orders_of(engine):
    return [engine.book.orders[key] for key in engine.book.orders]


async def settled(engine, limit=PATIENCE):
    """Wait until nothing is in doubt and a pass has compared everything."""
    reconciler, loop = engine.desk.reconciler, asyncio.get_running_loop()
    passes = 0
    try:
        async with asyncio.timeout(limit):
            while True:
                began = loop.time()
                if not engine.book.orders.in_doubt and await reconciler.try_run():
                    passes += 1
                    await engine.desk.keeper.idle()
                    if not engine.book.orders.in_doubt:
                        return
                # Where a pass takes long, all worlds asking on and on would leave none the time to finish.
                await asyncio.sleep(0.02 + loop.time() - began)
    except TimeoutError:
        open_ones = [order for order in orders_of(engine) if not order.state.is_closed]
        doubted = [engine.book.orders[key] for key in engine.book.orders.in_doubt]
        last = [(alarm.code, alarm.text) for alarm in engine.book.alarms][-5:]
    raise AssertionError(
        f"unresolved after {limit} s: in doubt {doubted}, open {open_ones}, "
        f"{passes} passes compared everything, last alarms {last}"
    )


def problems(engine, symbol, *, accepted, held, protected, lot=None):
    """Return what is wrong at the end.

    *accepted* counts the orders that the venue took by a client order id; *held* is the venue's position, and
    *protected* the quantity that its stops would sell. Less than a *lot* of a position cannot be sold.
    """
    found = []
    entries = []
    for order in orders_of(engine):
        taken = accepted(order.client_order_id)
        if taken > 1:
            found.append(f"{order.role}: accepted {taken} times")
        if order.state in (OrderState.IN_DOUBT, OrderState.SUBMITTED):
            found.append(f"{order!r} is unresolved")
        if order.role is OrderRole.ENTRY:
            entries.append(taken)
    if sum(entries) > 1:
        found.append(f"{sum(entries)} orders were accepted for one signal")
    ours = engine.book.positions.quantity(symbol)
    if ours != held:
        found.append(f"we hold {ours}, the venue says {held}")
    needed = held if lot is None else round_down(held, lot)
    if protected != needed:
        found.append(f"{protected} of {needed} are protected")
    return found


def once_per_group(legs):
    """Return the sum of quantities of (group, quantity); of those in one group only one is executed."""
    groups, total = {}, ZERO
    for group, quantity in legs:
        if group:
            groups[group] = max(quantity, groups.get(group, ZERO))
        else:
            total += quantity
    return total + sum(groups.values())


def hangs(faults):
    """Tell whether a client has to give up waiting among these faults; for others a short limit is one more fault."""
    return any(mishap is Mishap.HANG for _, mishap, _ in faults)


def name_of(fault):
    on, mishap, details = fault
    return f"{on}:{mishap} {details}"


async def all_of(worlds, live_through):
    """Live through lists of faults, a few of them on one loop; return what went wrong, with the faults' names."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(faults):
        async with gate:
            try:
                found = await live_through(faults)
            except Exception as error:
                found = [repr(error)]
        names = " + ".join(map(name_of, faults))
        return [f"{names}: {each}" for each in found]

    results = await asyncio.gather(*(one(faults) for faults in worlds))
    return [each for result in results for each in result]

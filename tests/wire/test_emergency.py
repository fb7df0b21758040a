"""Everything out at two venues over real sockets, with 200 open orders and one venue that answers nothing."""

import asyncio
import contextlib
from datetime import timedelta
from decimal import Decimal

from tests.support import alpaca, binance

from execkit import emergency
from execkit.engine import ExecutionEngine
from execkit.model.denial import DenialCode
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import OperatorActed
from execkit.model.signal import TradingSignal
from execkit.orders.commands import Entry
from execkit.orders.waiting import Throttle
from execkit.signals import make_ticket
from execkit.testing.venues.binance.limits import Rules
from execkit.testing.venues.faults import Mishap

D = Decimal
EACH = 100
"""Resting entries at each venue."""


def signal(symbol, **changes):
    values = {"confluence": 4, "strength": 80, "quantity": D(1)}
    return TradingSignal(symbol=symbol, side=Side.BUY, **(values | changes))


async def rest(engine, symbol, price, number):
    """Place an entry that rests, past the chain: it lets only one through."""
    desk = engine.desk
    one = signal(symbol, limit_price=price, signal_id=f"r{number}")
    ticket = make_ticket(
        one,
        one.signal_id,
        instrument=await engine.instrument(symbol),
        quote=desk.quotes.last(symbol),
        account=engine.account,
        position=None,
        now=desk.clock.now(),
    )
    sent = await desk.gateway.send(Entry(ticket, unchecked=True))
    assert sent.denial is None, sent.denial
    assert sent.order.state is OrderState.ACCEPTED, sent


def entries_of(engine):
    return [key for key, order in engine.orders.active.items() if order.role is OrderRole.ENTRY]


async def load(engine, symbol, other):
    """Open a position with its stop, and 100 entries below the market in another symbol."""
    await engine.instrument(other)
    await engine.desk.quotes.get(other)
    engine.desk.gateway.throttle = Throttle(
        None
    )  # what was placed over hours is placed at once here
    assert (await engine.submit(signal(symbol))).filled == 1
    await engine.desk.keeper.idle()
    for first in range(0, EACH, 20):
        await asyncio.gather(
            *(rest(engine, other, D(170), number) for number in range(first, first + 20))
        )
    assert len(entries_of(engine)) == EACH


@contextlib.asynccontextmanager
async def two_venues():
    """Yield venue and engine of Binance and of Alpaca, each with a position and 100 open entries."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first = await enter(
            binance.BinanceVenue(
                prices={"BTC/USDT": D(200), "ETH/USDT": D(200)}, rules=Rules(orders_per_10s=1_000)
            )
        )
        second = await enter(alpaca.venue_on_the_wire(prices={"AAPL": D(200), "MSFT": D(200)}))
        adapters = (
            binance.adapter_of(first),
            alpaca.adapter_of(second),
        )
        engines = [
            await enter(ExecutionEngine(each, journal=None, clock=venue.clock, store=False))
            for each, venue in zip(adapters, (first, second), strict=True)
        ]
        await asyncio.gather(
            load(engines[0], "BTC/USDT", "ETH/USDT"), load(engines[1], "AAPL", "MSFT")
        )
        yield list(zip((first, second), engines, strict=True))


def open_at(venue):
    return [order for orders in venue.core.open.values() for order in orders.values()]


def held_at(venue):
    """Return what the venue has of the position; Binance counts dust of fees as held."""
    return [each for each in venue.core.positions() if abs(each.quantity) >= D("0.01")]


async def test_flatten_waits_for_no_venue_that_hangs():
    """One is flat although the other answers nothing; that one's rest is named, and goes too once it answers."""
    async with two_venues() as ((good, one), (bad, two)):
        patient, two.desk.adapter._wire._limit = two.desk.adapter._wire._limit, 0.2
        bad.fail_next("any", Mishap.HANG, times=1_000_000)
        first, second = await emergency.flatten((one, two), within=timedelta(seconds=4))
        assert (first.error, first.is_flat) == ("", True)
        assert (open_at(good), held_at(good)) == ([], [])
        assert "goes on" in second.error
        assert len(second.orders) >= EACH
        assert second.positions == {"AAPL": D(1)}
        denied = await one.submit(signal("BTC/USDT"))
        assert denied.denial.code is DenialCode.TRADING_HALTED
        # On a busy machine answers would come too late again and again.
        two.desk.adapter._wire._limit = patient
        bad.heal()
        await bad.until(lambda: not open_at(bad) and not held_at(bad), limit=30)
        accepted = [bad.accepted(key) for key in two.orders]
        assert max(accepted) == 1
        sold = [each for each in bad.core.positions() if each.quantity < 0]
        assert sold == []
        assert [
            (entry.record.command, entry.record.actor)
            for entry in one.parts.journal.entries
            if isinstance(entry.record, OperatorActed)
        ] == [("flatten", "emergency")]


async def test_cancel_all_leaves_the_stops():
    """200 cancels at two venues, one each; the positions keep their protection, and nothing else is left."""
    async with two_venues() as pairs:
        engines = [engine for _, engine in pairs]
        left = await emergency.cancel_all(engines, within=timedelta(seconds=20))
        for (venue, engine), each in zip(pairs, left, strict=True):
            (symbol,) = each.positions
            assert each.error == ""
            assert engine.book.working_stop(symbol).client_order_id in each.orders
            assert entries_of(engine) == []
            assert len(open_at(venue)) == len(each.orders)
            assert len(venue.calls("cancel")) == EACH
            assert not each.is_flat


async def test_an_engine_that_never_started_does_not_stop_the_others():
    """It is reported with what is wrong."""
    async with two_venues() as ((good, one), (bad, _two)):
        idle = ExecutionEngine(alpaca.adapter_of(bad), journal=None)
        failed, done = await emergency.flatten((idle, one), within=timedelta(seconds=20))
        assert "never started" in failed.error
        assert done.is_flat
        assert open_at(good) == []

"""Closing beside an entry whose cancel hangs: it leaves within seconds, and what the entry fills later is seen to."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.engine import ExecutionEngine
from execkit.journal.base import MemoryJournal
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.signal import TradingSignal
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

D = Decimal
BTC = "BTC/USDT"
CLOSES = (OrderRole.EXIT, OrderRole.FLATTEN, OrderRole.TARGET)
A_MOMENT, PLACE_WITHIN = timedelta(seconds=1), timedelta(seconds=5)


class Hanging(MockExchange):
    """Answers no cancel of the orders in *hangs*, and counts how often each was asked for."""

    def __init__(self, **options):
        super().__init__(**options)
        self.hangs = set()
        self.asked = []

    async def cancel_order(self, symbol, *, client_order_id, venue_order_id=None):
        self.asked.append(client_order_id)
        if client_order_id in self.hangs:
            await asyncio.Event().wait()
        return await super().cancel_order(
            symbol, client_order_id=client_order_id, venue_order_id=venue_order_id
        )


def play(body, *, beside=True):
    """Run *body* with an engine that holds 0.1 BTC of an entry for 0.2, whose cancel hangs.

    *beside* tells whether the venue lets somebody sell beside a buy of his own.
    """

    async def main(clock):
        venue = Hanging(
            clock=clock,
            prices={BTC: D(42_000)},
            balances={"USDT": D(1_000_000)},
            capabilities=attrs.evolve(MockExchange().capabilities, opposite_orders=beside),
        )
        async with ExecutionEngine(venue, journal=MemoryJournal("acct"), clock=clock) as engine:
            entered = await engine.submit(
                TradingSignal(
                    symbol=BTC,
                    side=Side.BUY,
                    confluence=4,
                    quantity=D("0.2"),
                    limit_price=D(41_900),
                    stop_loss=D(41_500),
                    take_profit=D(43_500),
                )
            )
            assert entered.order is not None, entered
            entry = entered.order
            venue.execute(entry.client_order_id, D("0.1"))
            await clock.sleep_until(clock.now() + timedelta(seconds=1))
            assert engine.book.working_stop(BTC).quantity == D("0.1")
            venue.hangs.add(entry.client_order_id)
            await body(engine, venue, clock, engine.book.orders[entry.client_order_id])

    run_virtual(main)


async def wait(clock, **delta):
    await clock.sleep_until(clock.now() + timedelta(**delta))


async def by_hand(engine, _venue):
    await engine.flatten()


async def by_the_keeper(engine, _venue):
    assert await engine.desk.keeper.flatten(BTC, "it could not be protected in time")


async def at_the_target(engine, venue):
    price, now = D(43_600), engine.desk.clock.now()
    venue.feed_quote(Quote(BTC, price, price, now, last=price))


async def by_a_signal(engine, _venue):
    await engine.submit(TradingSignal(symbol=BTC, side=Side.SELL, confluence=4, signal_id="out"))


WAYS = [by_hand, by_the_keeper, at_the_target, by_a_signal]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_closing_waits_for_no_cancel_longer_than_a_stop_may_take(way, beside):
    """The cancel is asked for once, waited for once, and goes on beside the order that closes."""

    async def body(engine, venue, clock, entry):
        began = clock.now()
        closing = asyncio.ensure_future(way(engine, venue))
        while venue.core.positions():
            await asyncio.sleep(0.1)
        most = A_MOMENT if beside else PLACE_WITHIN
        assert most <= clock.now() - began <= most + timedelta(seconds=0.5)
        assert venue.asked.count(entry.client_order_id) == 1
        assert entry.state is OrderState.PENDING_CANCEL
        await closing
        venue.hangs.clear()
        await wait(clock, minutes=2)
        assert entry.state is OrderState.CANCELLED
        closed = [o.filled for o in engine.orders.values() if o.role in CLOSES]
        assert closed == [D("0.1")]
        assert venue.core.open_orders() == []
        assert engine.positions == {}

    play(body, beside=beside)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_entry_fills_after_the_closing_is_seen_to(way):
    """By hand and by an exit all was to go, so that goes too; else it is a position of its entry, with its stop."""

    async def body(engine, venue, clock, entry):
        closing = asyncio.ensure_future(way(engine, venue))
        while venue.core.positions():
            await asyncio.sleep(0.1)
        venue.execute(entry.client_order_id, D("0.04"))
        await wait(clock, seconds=1)
        assert engine.book.working_stop(BTC).quantity == D("0.04")
        await closing
        venue.hangs.clear()
        await wait(clock, minutes=2)
        assert (entry.state, entry.filled) == (OrderState.CANCELLED, D("0.14"))
        left = [each.quantity for each in venue.core.positions()]
        assert left == ([] if way in (by_hand, by_a_signal) else [D("0.04")])
        assert [o.quantity for o in venue.core.open_orders()] == left

    play(body)

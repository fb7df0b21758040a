"""Exits in parts and stops that follow, on a mock exchange in virtual time, also across a restart."""

from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.engine import ExecutionEngine
from execkit.exchanges.paper import PaperExchange
from execkit.journal.base import MemoryJournal
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.signal import TradingSignal
from execkit.protection.policy import HALF_AND_HALF, ProtectionPolicy
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


def entry(**changes):
    return TradingSignal(
        **{
            "symbol": BTC,
            "side": Side.BUY,
            "confluence": 4,
            "quantity": D("0.1"),
            "stop_loss": D(41_500),
            **changes,
        }
    )


def mock(clock):
    return MockExchange(
        clock=clock,
        prices={BTC: D(42_000)},
        balances={"USDT": D(100_000)},
        taker_fee=D(0),
        maker_fee=D(0),
    )


async def move(engine, venue, clock, price):
    venue.feed_quote(Quote(BTC, D(price), D(price), clock.now(), last=D(price)))
    await clock.sleep_until(clock.now() + timedelta(seconds=2))
    await engine.desk.keeper.idle()


def reopened(journal):
    again = MemoryJournal()
    for kept in journal.entries:
        again.append(kept.record, kept.at)
    return again


@pytest.mark.parametrize("restart", [False, True])
def test_half_at_one_r_and_half_at_two(restart):
    """The stop always has the size of what is left; a restart in between changes nothing."""

    async def main(clock):
        venue, journal = mock(clock), MemoryJournal()
        policy = ProtectionPolicy(targets=HALF_AND_HALF)

        def engine_on(journal):
            return ExecutionEngine(venue, journal=journal, clock=clock, protection=policy)

        engine = engine_on(journal)
        await engine.start()
        await engine.submit(entry())
        await engine.desk.keeper.idle()
        await move(engine, venue, clock, 42_499)
        assert engine.book.positions.quantity(BTC) == D("0.1")
        await move(engine, venue, clock, 42_500)
        assert engine.book.positions.quantity(BTC) == D("0.05")
        assert engine.book.working_stop(BTC).remaining == D("0.05")
        await move(engine, venue, clock, 42_600)
        assert engine.book.positions.quantity(BTC) == D("0.05"), "each target is taken once"
        if restart:
            await engine.stop()
            engine = engine_on(reopened(journal))
            await engine.start()
            assert engine.book.working_stop(BTC).remaining == D("0.05")
        await move(engine, venue, clock, 43_000)
        assert BTC not in engine.book.positions.open
        assert not engine.orders.active
        (closed,) = engine.book.positions.closed
        assert closed.realised_pnl == D("0.05") * 500 + D("0.05") * 1000
        exits = [o for o in engine.orders.values() if o.role is OrderRole.TARGET]
        assert [(o.filled, o.state) for o in exits] == [(D("0.05"), OrderState.FILLED)] * 2
        await engine.stop()

    run_virtual(main)


def test_a_trailing_stop_follows_and_takes_the_position_out():
    """Up by 2 % the stop has followed at 1 %; back down it sells there, above the entry."""

    async def main(clock):
        venue = mock(clock)
        policy = ProtectionPolicy(trailing_pct=D(1))
        async with ExecutionEngine(venue, journal=None, clock=clock, protection=policy) as engine:
            await engine.submit(entry(take_profit=D(45_000)))
            await engine.desk.keeper.idle()
            for price, stop in [(42_000, 41_580), (42_400, 41_976), (42_840, 42_411)]:
                await move(engine, venue, clock, price)
                assert engine.book.working_stop(BTC).stop_price == pytest.approx(stop, abs=1)
            await move(engine, venue, clock, 42_600)
            assert engine.book.working_stop(BTC).stop_price == D("42411.60")
            await move(engine, venue, clock, 42_400)
            assert BTC not in engine.book.positions.open
            (closed,) = engine.book.positions.closed
            assert closed.realised_pnl == D("0.1") * 400

    run_virtual(main)


def test_break_even_after_one_r():
    """From 1 R on the trade cannot lose any more."""

    async def main(clock):
        venue = mock(clock)
        policy = ProtectionPolicy(break_even_after_r=D(1))
        async with ExecutionEngine(venue, journal=None, clock=clock, protection=policy) as engine:
            await engine.submit(entry(take_profit=D(45_000)))
            await engine.desk.keeper.idle()
            await move(engine, venue, clock, 42_499)
            assert engine.book.working_stop(BTC).stop_price == 41_500
            await move(engine, venue, clock, 42_500)
            assert engine.book.working_stop(BTC).stop_price == 42_000

    run_virtual(main)


@pytest.mark.parametrize("make", [MockExchange, PaperExchange])
@pytest.mark.parametrize("restart", [False, True])
def test_a_list_at_the_venue_takes_the_position_out(make, restart):
    """Where the venue keeps a stop and a target together nothing is left to do at the touch, also after a restart."""

    async def main(clock):
        venue = make(
            clock=clock,
            prices={BTC: D(42_000)},
            balances={"USDT": D(100_000)},
            taker_fee=D(0),
            maker_fee=D(0),
            native_oco=True,
        )
        journal = MemoryJournal()
        engine = ExecutionEngine(venue, journal=journal, clock=clock)
        await engine.start()
        await engine.submit(entry(take_profit=D(43_000)))
        await engine.desk.keeper.idle()
        stop, target = engine.book.orders.open_reductions(BTC)
        assert (stop.role, target.role) == (OrderRole.STOP, OrderRole.TARGET)
        assert (stop.stop_price, target.limit_price) == (41_500, 43_000)
        if restart:
            await engine.stop()
            engine = ExecutionEngine(venue, journal=reopened(journal), clock=clock)
            await engine.start()
        await move(engine, venue, clock, 43_000)
        assert BTC not in engine.book.positions.open
        assert not engine.orders.active
        (closed,) = engine.book.positions.closed
        assert closed.realised_pnl == D("0.1") * 1000
        assert len(engine.orders) == 3
        assert not engine.book.alarms
        await engine.stop()

    run_virtual(main)


def test_the_rest_after_a_part_of_the_target_is_protected_within_a_second():
    """D6: the part has ended the stop at the venue; the rest has a stop and a target again, and never more."""

    async def main(clock):
        venue = MockExchange(
            clock=clock,
            prices={BTC: D(42_000)},
            balances={"USDT": D(100_000)},
            latency=timedelta(milliseconds=50),
            native_oco=True,
        )
        async with ExecutionEngine(venue, journal=None, clock=clock) as engine:
            await engine.submit(entry(take_profit=D(43_000)))
            await clock.sleep_until(clock.now() + timedelta(seconds=1))
            for left in ("0.07", "0.04"):
                target = engine.book.orders.open_reductions(BTC)[-1]
                venue.execute(target.client_order_id, D("0.03"))
                await clock.sleep_until(clock.now() + timedelta(seconds=1))
                assert engine.book.positions.quantity(BTC) == D(left)
                live = {o.role: o for o in engine.book.orders.open_reductions(BTC)}
                assert [o.remaining for o in live.values()] == [D(left)] * 2
                resting = await venue.open_orders()
                assert {o.client_order_id for o in resting} == {
                    o.client_order_id for o in live.values()
                }
            assert await engine.flatten() is not None
            await clock.sleep_until(clock.now() + timedelta(seconds=2))
            assert not engine.orders.active
            assert not engine.book.alarms

    run_virtual(main)

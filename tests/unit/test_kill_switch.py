"""The file and the signal that halt an engine which nobody can speak to."""

import asyncio
import os
import signal
import threading
from decimal import Decimal

import pytest

from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError, ExecKitError
from execkit.kill_switch import KillSwitch
from execkit.model.denial import DenialCode
from execkit.model.order import OrderState, Side
from execkit.model.records import TradingState
from execkit.model.signal import TradingSignal
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal


def buy(**changes):
    values = {"symbol": BTC, "side": Side.BUY, "confluence": 4, "quantity": D("0.02")}
    return TradingSignal(**(values | changes))


def engine_on(clock=None):
    venue = MockExchange(prices={BTC: D(42_000)}, clock=clock)
    return ExecutionEngine(venue, journal=None, clock=clock)


def armed(engine, path=None, *, on_signal=False):
    """Return a kill switch of an engine; its tasks end with the engine's."""
    engine.desk.gateway.halt_file = path
    switch = KillSwitch(engine.desk.gateway, on_signal=on_signal)
    switch.start(engine.parts.upkeep.spawn)
    return switch


def test_the_file_stops_the_next_entry_and_reductions_pass(tmp_path):
    """The gateway looks before each entry, so no task has to run first; what reduces risk still leaves."""
    path = tmp_path / "orders.db.halt"

    async def main(clock):
        async with engine_on(clock) as engine:
            engine.desk.gateway.halt_file = path
            assert (await engine.submit(buy())).filled
            path.touch()
            assert await engine.close_position(BTC)
            await engine.desk.keeper.idle()
            denied = await engine.submit(buy())
            assert denied.denial.code is DenialCode.TRADING_HALTED
            assert "orders.db.halt exists" in str(denied.denial)
            assert not engine.book.positions.open
            path.unlink()
            assert (await engine.submit(buy())).filled

    run_virtual(main)


def test_the_file_becomes_a_halt_that_outlives_it(tmp_path):
    """Within a second it is journalled and told, once; `resume` is refused while the file is there."""
    path = tmp_path / "halt"

    async def main(clock):
        async with engine_on(clock) as engine:
            armed(engine, path)
            path.touch()
            await asyncio.sleep(2.1)
            assert engine.trading_state is TradingState.HALTED
            assert engine.book.state_record.actor == "file"
            with pytest.raises(ExecKitError, match="still halts; remove it first"):
                await engine.resume()
            path.unlink()
            await asyncio.sleep(2)
            assert engine.trading_state is TradingState.HALTED
            await engine.resume()
            assert engine.trading_state is TradingState.ACTIVE
            assert [alarm.code for alarm in engine.book.alarms] == ["HALTED_BY_FILE"]

    run_virtual(main)


def test_what_rests_is_told_of_and_stays(tmp_path):
    """The switch keeps orders from leaving; one that rests may still be executed, and the alarm says so."""
    path = tmp_path / "halt"

    async def main(clock):
        async with engine_on(clock) as engine:
            armed(engine, path)
            resting = await engine.submit(buy(limit_price=D(41_900)))
            path.touch()
            await asyncio.sleep(1.1)
            (alarm,) = engine.book.alarms
            assert "1 of our entries may still be executed, cancel-all ends them" in alarm.text
            assert resting.order.state is OrderState.ACCEPTED
            assert await engine.cancel_all() == [resting.order]
            assert resting.order.state is OrderState.CANCELLED

    run_virtual(main)


def test_a_file_that_is_there_at_the_start_halts_at_once(tmp_path):
    """Nobody has to wait for the first look."""

    async def main(clock):
        async with engine_on(clock) as engine:
            (tmp_path / "halt").touch()
            armed(engine, tmp_path / "halt")
            assert engine.trading_state is TradingState.HALTED

    run_virtual(main)


async def test_the_signal_halts_every_engine_of_the_process():
    """SIGUSR1 is one for all; after the stop it is as it was before."""
    before = signal.getsignal(signal.SIGUSR1)
    async with engine_on() as one, engine_on() as two:
        switches = [armed(each, on_signal=True) for each in (one, two)]
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(5):
            while two.trading_state is TradingState.ACTIVE:
                await asyncio.sleep(0)
        assert [each.book.state_record.actor for each in (one, two)] == ["signal", "signal"]
        for switch in switches:
            await switch.stop()
            await switch.stop()
        assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_that_cannot_be_taken_is_refused_with_the_way_out():
    """Only the main thread gets signals; who asks for it elsewhere hears of it at the start."""
    heard = []

    async def main():
        async with engine_on() as engine:
            with pytest.raises(ConfigurationError, match="use the file or `execkit halt`"):
                armed(engine, on_signal=True)
            heard.append(True)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert heard == [True]


async def test_the_engine_looks_for_a_file_beside_its_journal(tmp_path):
    """`orders.db.halt` by default, or the one that was named; there at the start it halts at once."""
    path = tmp_path / "orders.db"
    venue = MockExchange(prices={BTC: D(42_000)})
    (tmp_path / "orders.db.halt").touch()
    async with ExecutionEngine(venue, journal=path, store=False) as engine:
        assert engine.trading_state is TradingState.HALTED
    named = {"journal": None, "halt_file": tmp_path / "stop", "halt_on_signal": True}
    async with ExecutionEngine(MockExchange(prices={BTC: D(42_000)}), **named) as engine:
        (tmp_path / "stop").touch()
        denied = await engine.submit(buy())
        assert denied.denial.code is DenialCode.TRADING_HALTED
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(5):
            while engine.trading_state is TradingState.ACTIVE:
                await asyncio.sleep(0)

"""Virtual time repeats exactly and refuses everything that belongs to the real world."""

import asyncio
import random
import socket
import subprocess
import time as real_time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.clock import SystemClock
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError, VirtualTimeError
from execkit.journal.base import MemoryJournal
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.testing.mock import MockExchange
from execkit.testing.time import (
    SteppedClock,
    assert_repeatable,
    frozen_clock,
    run_virtual,
    trace_hash,
    virtual_time,
)


def test_hours_take_no_time():
    """Sleeping a day under virtual time is instant, and the clock has moved by a day."""
    began = real_time.monotonic()
    with virtual_time(datetime(2024, 3, 1, tzinfo=UTC)) as time:
        time.run(asyncio.sleep(86_400))
        assert time.clock.now() == datetime(2024, 3, 2, tzinfo=UTC)
    assert real_time.monotonic() - began < 5


def test_tasks_go_on_while_time_is_advanced():
    """What a run leaves behind is done when it is due, in order."""
    done = []

    async def start():
        async def later(after):
            await asyncio.sleep(after)
            done.append(after)

        return [asyncio.get_running_loop().create_task(later(s)) for s in (30, 10, 20)]

    with virtual_time() as time:
        tasks = time.run(start())
        time.advance(15)
        assert done == [10]
        time.advance(timedelta(minutes=1))
        assert done == [10, 20, 30]
        assert all(task.done() for task in tasks)
        with pytest.raises(ConfigurationError, match="never goes back"):
            time.advance(-1)


def test_a_wall_clock_step_changes_no_duration():
    """A step of the clock, as a time server makes it, is seen by `now` and by nothing else."""
    with virtual_time() as time:
        before = time.loop.time()
        time.clock.step(timedelta(hours=-1))
        time.advance(60)
        assert time.loop.time() - before == 60
        assert time.clock.now() == datetime(2023, 12, 31, 23, 1, tzinfo=UTC)


def test_clocks_that_stand_and_step():
    """A frozen clock moves when told to, a stepped one at every look."""
    clock = frozen_clock()
    assert clock.now() == clock.now()
    stepped = SteppedClock(timedelta(seconds=2))
    first, second = stepped.now(), stepped.now()
    assert second - first == timedelta(seconds=2)
    assert "step=0:00:02" in repr(stepped)


async def _thread():
    await asyncio.to_thread(lambda: None)


async def _connection():
    await asyncio.open_connection("127.0.0.1", 9)


async def _server():
    await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)


async def _datagram():
    await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol)


async def _unix():
    await asyncio.open_unix_connection("/tmp/none")


async def _raw_socket():
    with socket.socket() as raw:
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", 9))


async def _process():
    await asyncio.create_subprocess_exec("true", stdout=subprocess.DEVNULL)


async def _shell():
    await asyncio.create_subprocess_shell("true")


async def _name():
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def _machine_clock():
    SystemClock().now()


async def _nobody_sends():
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "reality",
    [
        _thread,
        _connection,
        _server,
        _datagram,
        _unix,
        _raw_socket,
        _process,
        _shell,
        _name,
        _machine_clock,
        _nobody_sends,
    ],
)
def test_the_real_world_is_refused_loudly(reality):
    """A thread, socket, process or real clock under virtual time is an error that says so, never a wrong time."""
    with pytest.raises(VirtualTimeError):
        run_virtual(lambda _clock: reality())


def test_the_machine_clock_works_elsewhere():
    """Outside of virtual time SystemClock tells the time."""
    assert SystemClock().now().tzinfo is UTC

    async def main():
        return SystemClock().now()

    assert asyncio.run(main()) >= datetime(2024, 1, 1, tzinfo=UTC)


def test_an_engine_with_the_machine_clock_is_refused():
    """Mixing the two clocks fails when the engine starts, not as a strange result later."""

    async def main(_clock):
        async with ExecutionEngine(MockExchange(), journal=None):
            pass

    with pytest.raises(VirtualTimeError, match="pass clock="):
        run_virtual(main)


def _run(seed, chance=None):
    async def main(clock):
        journal = MemoryJournal("mock")
        rng = random.Random(seed)
        engine = ExecutionEngine(
            MockExchange(clock=clock), journal=journal, clock=clock, rng=chance or rng
        )
        async with engine:
            for _ in range(3):
                await engine.submit(
                    TradingSignal(
                        symbol="BTC/USDT", side=Side.BUY, quantity=Decimal("0.01"), confluence=4
                    )
                )
                await asyncio.sleep(rng.random())
        return journal

    return main


def test_one_seed_repeats_a_run():
    """Equal seeds give equal trace hashes, others do not."""
    assert assert_repeatable(_run(1)) == assert_repeatable(_run(1))
    assert assert_repeatable(_run(1)) != assert_repeatable(_run(2))


def test_chance_that_is_not_seeded_is_shown():
    """The first record that differs tells where it came in."""
    with pytest.raises(AssertionError, match=r"the runs differ\n  first: "):
        assert_repeatable(_run(1, chance=random.SystemRandom()))


def test_trace_hash_takes_journal_and_entries(tmp_path):
    """A run has one digest, however it is handed over; an open file has none."""
    journal = run_virtual(_run(3))
    assert trace_hash(journal) == trace_hash(journal.entries) == trace_hash(iter(journal.entries))
    with pytest.raises(ConfigurationError, match="pass the path"):
        trace_hash(object())


async def test_trace_hash_of_a_file(tmp_path):
    """The file of a run has the digest of its records."""
    path = tmp_path / "orders.db"
    async with ExecutionEngine(MockExchange(), journal=path, store=False):
        pass
    assert len(trace_hash(path)) == 32

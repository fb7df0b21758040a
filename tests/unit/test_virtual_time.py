"""The virtual loop: hours take milliseconds, are repeatable, and touch nothing real."""

import asyncio
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from execkit.errors import ConfigurationError, VirtualTimeError
from execkit.virtual_time import DEFAULT_START, VirtualClock, VirtualTimeLoop, run_virtual

START = datetime(2024, 6, 1, tzinfo=UTC)


def test_waiting_takes_no_time():
    """A day passes at once, and the clock shows it."""

    async def main(clock):
        await asyncio.sleep(86_400)
        return clock.now(), asyncio.get_running_loop().time()

    began = time.monotonic()
    now, elapsed = run_virtual(main, start=START)
    assert time.monotonic() - began < 5
    assert now == START + timedelta(days=1)
    assert elapsed == 86_400


def test_the_default_start_is_fixed():
    """Two runs tell the same time."""

    async def main(clock):
        return clock.now()

    assert run_virtual(main) == run_virtual(main) == DEFAULT_START


def test_timers_fire_in_order_of_time():
    """And what is ready runs before time moves."""
    seen = []

    async def note(delay, name):
        await asyncio.sleep(delay)
        seen.append((name, asyncio.get_running_loop().time()))

    async def main(_clock):
        await asyncio.gather(note(2, "c"), note(1, "a"), note(1, "b"), note(0, "now"))

    run_virtual(main)
    assert seen == [("now", 0.0), ("a", 1.0), ("b", 1.0), ("c", 2.0)]


def test_time_limits_work():
    """A time-out fires at its virtual second."""

    async def main(clock):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(15):
                await asyncio.Event().wait()
        return clock.now()

    assert run_virtual(main, start=START) == START + timedelta(seconds=15)


def test_sleep_until():
    """To a moment, at once when it has passed, and only to an aware one."""

    async def main(clock):
        await clock.sleep_until(START + timedelta(hours=1))
        await clock.sleep_until(START)
        with pytest.raises(ConfigurationError, match="when: "):
            await clock.sleep_until(datetime(2024, 6, 1))
        return clock.now()

    assert run_virtual(main, start=START) == START + timedelta(hours=1)


def test_a_step_of_the_wall_clock_changes_no_duration():
    """Durations come from the loop (H1, H2)."""

    async def main(clock):
        loop = asyncio.get_running_loop()
        clock.step(timedelta(hours=-5))
        await asyncio.sleep(10)
        return clock.now(), loop.time(), repr(clock)

    now, elapsed, text = run_virtual(main, start=START)
    assert now == START - timedelta(hours=5) + timedelta(seconds=10)
    assert elapsed == 10
    assert text == f"VirtualClock({now.isoformat()})"


def test_a_deadlock_is_an_error():
    """Waiting for what nobody will send does not hang the test."""

    async def main(_clock):
        await asyncio.Event().wait()

    with pytest.raises(VirtualTimeError, match="deadlock"):
        run_virtual(main)


def test_time_does_not_jump_over_something_real():
    """While a commit is outstanding the loop refuses to move on; afterwards it does."""

    async def main(_clock):
        loop = asyncio.get_running_loop()
        loop.hold()
        loop.hold()
        loop.release()
        loop.release()
        await asyncio.sleep(1)
        loop.hold()
        await asyncio.sleep(0)
        await asyncio.sleep(1)

    with pytest.raises(VirtualTimeError, match="commit is outstanding"):
        run_virtual(main)


@pytest.mark.parametrize(
    "touch",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 1),
        lambda loop: loop.create_server(asyncio.Protocol, "localhost", 1),
        lambda loop: loop.sock_connect(None, ("localhost", 1)),
    ],
)
def test_nothing_real_is_touched(touch):
    """Sockets and threads know no virtual time."""

    async def main(_clock):
        await touch(asyncio.get_running_loop())

    with pytest.raises(VirtualTimeError, match="under virtual time"):
        run_virtual(main)


def test_the_result_and_the_error_come_out():
    """And no loop is left open."""

    async def answer(_clock):
        return 42

    async def fail(_clock):
        raise LookupError("inner")

    assert run_virtual(answer) == 42
    with pytest.raises(LookupError, match="inner"):
        run_virtual(fail)


def test_a_bad_start_is_refused_and_leaves_no_loop_open():
    """The start must be aware."""

    async def main(_clock):
        return None

    with pytest.raises(ConfigurationError, match="start: "):
        run_virtual(main, start=datetime(2024, 6, 1))


def test_the_clock_shows_microseconds():
    """What a float cannot hold exactly is rounded to what a datetime can."""
    loop = VirtualTimeLoop()
    try:
        clock = VirtualClock(loop, START)
        loop._virtual_now = 0.1 + 0.2
        assert clock.now() == START + timedelta(microseconds=300_000)
    finally:
        loop.close()


def test_two_runs_of_a_crowd_are_equal():
    """A thousand tasks take the same turns each time (I33)."""

    def run():
        seen = []

        async def worker(number):
            for turn in range(3):
                await asyncio.sleep(number * 7 % 13 / 10)
                seen.append((number, turn))

        async def main(_clock):
            await asyncio.gather(*(worker(number) for number in range(1000)))

        run_virtual(main)
        return seen

    assert run() == run()


def test_idle_waits_for_the_others_without_letting_time_pass():
    """A driver goes on when every other task waits for something too."""
    seen = []

    async def worker(loop):
        for turn in range(3):
            await asyncio.sleep(0)
            seen.append(turn)
        await asyncio.sleep(5)
        seen.append("later")

    async def main(_clock):
        loop = asyncio.get_running_loop()
        task = loop.create_task(worker(loop))
        await loop.idle()
        assert seen == [0, 1, 2]
        assert loop.time() == 0
        await task
        assert loop.time() == 5

    run_virtual(main)


def test_idle_has_one_driver():
    """Two would wait for each other."""

    async def main(_clock):
        loop = asyncio.get_running_loop()
        first = loop.create_task(loop.idle())
        await asyncio.sleep(0)
        with pytest.raises(VirtualTimeError, match="another task waits"):
            await loop.idle()
        await first
        gone = loop.create_task(loop.idle())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(1)
        await loop.idle()

    run_virtual(main)


def _connect(port):
    with socket.socket() as plain:
        plain.connect(("127.0.0.1", port))


@pytest.mark.parametrize(
    "attempt",
    [
        lambda port: socket.create_connection(("127.0.0.1", port)),
        _connect,
        lambda port: socket.getaddrinfo("localhost", port),
        lambda _port: time.sleep(0),
        lambda _port: subprocess.run(["true"], check=True),
    ],
    ids=["create_connection", "connect", "getaddrinfo", "sleep", "subprocess"],
)
def test_blocking_calls_past_the_loop_fail_loudly(attempt):
    """A plain socket, a real pause or a process inside a virtual run raises, and works again after it."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        async def main(_clock):
            attempt(server.getsockname()[1])

        with pytest.raises(VirtualTimeError, match="under virtual time"):
            run_virtual(main)
        socket.create_connection(server.getsockname()).close()
        time.sleep(0)


def test_other_threads_keep_their_sockets():
    """The guard looks at the loop of its own thread only."""
    done = []

    async def main(_clock):
        thread = threading.Thread(target=lambda: done.append(time.sleep(0)))
        thread.start()
        thread.join()

    run_virtual(main)
    assert done == [None]

"""The kept order stream, in virtual time: opened again at once, then with growing pauses, and changed in time."""

import asyncio
import random

import pytest

from execkit.errors import ExchangeUnavailableError
from execkit.exchanges.ccxt.stream import OrderStream, Session
from execkit.model.order import StreamGap
from execkit.virtual_time import run_virtual


class Line:
    """Opens sessions that a test ends; *failures* openings in a row fail after the first."""

    def __init__(self):
        self.opened_at = []
        self.closed = 0
        self.failures = 0
        self.lost = None

    async def open(self):
        loop = asyncio.get_running_loop()
        self.opened_at.append(loop.time())
        if self.failures and len(self.opened_at) > 1:
            self.failures -= 1
            raise ConnectionError("refused, https://host/?signature=secret")
        self.lost = loop.create_future()

        async def wait():
            await self.lost

        async def close():
            self.closed += 1

        return Session(loop.create_task(wait()), close)

    def stream(self, **options):
        return OrderStream(self.open, venue="test", rng=random.Random(1), **options)


def test_a_loss_is_told_once_the_line_is_back():
    """The gap comes after the new session is open, so what is asked for then misses nothing."""

    async def main(_clock):
        line = Line()
        stream = line.stream()
        await stream.start()
        reader = stream.subscribe()
        line.lost.set_exception(ConnectionError("cut"))
        assert await anext(reader) == StreamGap("ConnectionError")
        assert len(set(line.opened_at)) == 1
        assert line.closed == 1
        await stream.stop()
        assert line.closed == 2

    run_virtual(main)


def test_pauses_grow_and_readers_are_told():
    """While the venue is gone readers get an error; attempts come at growing intervals, at most 30 s apart."""

    async def main(_clock):
        line = Line()
        stream = line.stream()
        await stream.start()
        line.failures = 12
        reader = stream.subscribe()
        line.lost.set_exception(ConnectionError("cut"))
        with pytest.raises(ExchangeUnavailableError) as raised:
            await anext(reader)
        assert "secret" not in str(raised.value)
        with pytest.raises(ExchangeUnavailableError):
            await anext(stream.subscribe())
        while line.failures:
            await asyncio.sleep(1)
        await asyncio.sleep(100)
        waits = [b - a for a, b in zip(line.opened_at[1:], line.opened_at[2:], strict=False)]
        assert waits[0] < 0.3
        assert max(waits) <= 30 * 1.25
        assert waits[5] > waits[2]
        line.lost.set_result(None)
        assert isinstance(await anext(stream.subscribe()), StreamGap)
        await stream.stop()

    run_virtual(main)


def test_a_ban_is_waited_for():
    """No attempt is made before the venue's own pause has ended."""

    async def main(_clock):
        line = Line()
        loop = asyncio.get_running_loop()
        until = loop.time() + 100
        stream = line.stream(pause=lambda: until - loop.time())
        await stream.start()
        line.failures = 1
        line.lost.set_result(None)
        await asyncio.sleep(200)
        assert line.opened_at[2] >= until
        await stream.stop()

    run_virtual(main)


def test_the_connection_is_changed_before_a_day_is_over():
    """A venue cuts after 24 hours; we change after 23, and say so."""

    async def main(_clock):
        line = Line()
        stream = line.stream()
        await stream.start()
        reader = stream.subscribe()
        began = asyncio.get_running_loop().time()
        gap = await anext(reader)
        assert "planned" in gap.reason
        assert asyncio.get_running_loop().time() - began == 23 * 3600
        await stream.stop()

    run_virtual(main)


def test_a_start_that_fails_raises():
    """Without a stream at the start the adapter does not connect."""

    async def main(_clock):
        line = Line()
        line.opened_at.append(0.0)
        line.failures = 1
        with pytest.raises(ConnectionError):
            await line.stream().start()

    run_virtual(main)


def test_a_line_that_opens_and_is_lost_at_once_is_not_dialled_for_ever():
    """A venue that cuts each session at once sees few dials, far below what it bans for; the first comes at once."""

    async def main(_clock):
        line = Line()
        loop = asyncio.get_running_loop()
        stream = line.stream()
        await stream.start()
        began, cut = loop.time(), None
        while loop.time() - began < 300:
            if line.lost is not cut:
                cut = line.lost
                cut.set_exception(ConnectionError("cut"))
            await asyncio.sleep(0.01)
        assert line.opened_at[1] - began < 0.1
        assert 8 < len(line.opened_at) < 25
        await stream.stop()

    run_virtual(main)


def test_a_steady_session_makes_the_next_loss_the_first_again():
    """After some time of health a loss is answered at once, whatever was before."""

    async def main(_clock):
        line = Line()
        stream = line.stream()
        await stream.start()
        for _ in range(3):
            line.lost.set_result(None)
            await asyncio.sleep(31)
        before = len(line.opened_at)
        line.lost.set_result(None)
        await asyncio.sleep(0.01)
        assert len(line.opened_at) == before + 1
        await stream.stop()

    run_virtual(main)


def test_nothing_is_dialled_under_a_ban():
    """A loss is often the first sign of a ban: not even the first attempt is made before it has ended."""

    async def main(_clock):
        line = Line()
        loop = asyncio.get_running_loop()
        stream = line.stream(pause=lambda: until - loop.time())
        until = loop.time()
        await stream.start()
        until = loop.time() + 100
        line.lost.set_result(None)
        await asyncio.sleep(200)
        assert len(line.opened_at) == 2
        assert line.opened_at[1] >= until
        await stream.stop()

    run_virtual(main)

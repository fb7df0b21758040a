"""Group commit: one sync for all who wait, and what becomes of those who stop waiting."""

import asyncio
import errno
import os
import threading

import pytest

from execkit.errors import JournalCommitError
from execkit.journal.segments import read_entries, verify
from execkit.journal.writer import Step


@pytest.fixture
async def held(bench):
    """A journal whose next sync stands still until the gate is opened, and a first waiter in it."""
    journal = bench.open()
    bench.disk.done.clear()
    bench.disk.gate = threading.Event()
    bench.note(journal, "first")
    first = asyncio.ensure_future(journal.commit())
    await asyncio.to_thread(bench.disk.reached.wait)
    yield journal, first
    bench.disk.gate.set()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_sync_serves_all_who_wait(bench, held):
    """64 callers who come while the disk is busy share the next sync."""
    journal, first = held

    async def caller(number):
        bench.note(journal, number)
        await journal.commit()
        assert journal.committed_seq >= number

    others = [asyncio.ensure_future(caller(number)) for number in range(2, 66)]
    await settle()
    assert journal.committed_seq == 0
    bench.disk.gate.set()
    await asyncio.gather(first, *others)
    assert bench.disk.done == ["write", "sync", "write", "sync"]
    assert journal.committed_seq == 65


async def test_a_sync_under_way_serves_who_adds_nothing(bench, held):
    """A second commit of the same records waits for the first, without a sync of its own."""
    journal, first = held
    second = asyncio.ensure_future(journal.commit())
    await settle()
    assert not second.done()
    bench.disk.gate.set()
    await asyncio.gather(first, second)
    assert bench.disk.count("sync") == 1


async def test_cancelling_a_waiter_does_not_stop_its_commit(bench, held):
    """The commit of a cancelled caller stands, and the others get theirs (F10)."""
    journal, first = held
    bench.note(journal, "second")
    second = asyncio.ensure_future(journal.commit())
    await settle()
    first.cancel()
    second.cancel()
    await settle()
    assert first.cancelled()
    bench.disk.gate.set()
    bench.note(journal, "third")
    await journal.commit()
    assert journal.committed_seq == 3
    bench.drop(journal)
    assert bench.texts(read_entries(bench.path)) == ["first", "second", "third"]


async def test_a_failed_sync_fails_all_who_wait(bench, held):
    """Everybody who waited hears the system's reason, and so does everybody after them (G16)."""
    journal, first = held
    bench.note(journal, "second")
    second = asyncio.ensure_future(journal.commit())
    cancelled = asyncio.ensure_future(journal.commit())
    await settle()
    cancelled.cancel()
    bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")
    bench.disk.gate.set()
    await first  # was past the point where it could fail
    with pytest.raises(JournalCommitError, match="cannot be written: Input/output error"):
        await second
    bench.disk.faults.clear()
    with pytest.raises(JournalCommitError, match="cannot be written: Input/output error"):
        await journal.commit()
    assert not journal.is_healthy
    assert journal.committed_seq == 1


async def test_close_waits_for_the_thread(bench, held):
    """Closing finishes what others wait for."""
    journal, first = held
    bench.note(journal, "second")
    threading.Timer(0.01, bench.disk.gate.set).start()
    await journal.close()
    await first
    assert verify(bench.path).records == 2


def test_a_waiter_whose_loop_is_gone_is_left_alone(bench):
    """The thread outlives a loop that was closed while it worked."""
    journal = bench.open()
    loop = asyncio.new_event_loop()
    waiter = loop.create_future()
    loop.close()
    journal._writer.submit([Step(b"", 0, sync=True, waiter=waiter)])
    journal._writer.stop_thread()
    assert not waiter.done()
    assert journal.is_healthy


async def test_nobody_waits_for_ever_whatever_goes_wrong(bench):
    """An error that is not the system's fails the commit too."""
    journal = bench.open()
    bench.disk.faults["write"] = ZeroDivisionError()
    bench.note(journal)
    with pytest.raises(JournalCommitError, match=r"cannot be written: ZeroDivisionError\(\)"):
        await journal.commit()


async def test_two_loops_may_wait(bench, held):
    """Each waiter is woken in its own loop."""
    journal, first = held

    def elsewhere():
        asyncio.run(journal.commit())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    bench.disk.gate.set()
    await first
    await asyncio.to_thread(thread.join)
    assert os.fstat(journal._writer._fd).st_size == bench.path.stat().st_size

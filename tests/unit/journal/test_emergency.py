"""The emergency file."""

import errno
from datetime import timedelta

import pytest
from tests.support.orders import intent

from execkit.errors import JournalCommitError, JournalCorruptedError
from execkit.journal.emergency import SIZE
from execkit.journal.file import LOOK_BACK
from execkit.journal.segments import read_entries
from execkit.model.order import OrderRole, OrderType
from execkit.model.records import CommandSent, PlanChanged

FULL = OSError(errno.ENOSPC, "No space left on device")


def cancel(number):
    return CommandSent(client_order_id=f"xk{number}", command="cancel")


def a_stop(number):
    """Return a stop's intent with an id and a parent as long as real ones."""
    return intent(
        f"xk{number:024}",
        symbol="BTC/USDT:USDT",
        type=OrderType.STOP,
        stop="41580.25",
        role=OrderRole.STOP,
        parent=f"BTC/USDT:USDT#{number}",
        position_id=f"BTC/USDT:USDT#{number}",
    )


@pytest.fixture
def emergency(bench):
    return bench.path.with_name("orders.db.emergency")


async def test_records_are_kept_when_the_journal_cannot_commit(bench, emergency):
    """A cancel is recorded on a full disk, synced, in room taken in advance; the next opening appends it."""
    journal = bench.open()
    bench.note(journal, "safe")
    await journal.commit()
    bench.disk.faults["write"] = FULL
    bench.note(journal, "lost")
    with pytest.raises(JournalCommitError):
        await journal.commit()
    bench.disk.done.clear()
    for number in range(2):
        journal.emergency(cancel(number), bench.clock.now())
    assert bench.disk.done == ["write_at", "sync"] * 2
    assert emergency.stat().st_size == SIZE
    bench.drop(journal)
    bench.disk.faults.clear()
    again = bench.open()
    entries = list(again.recovered()[1])
    assert [entry.record for entry in entries[1:]] == [cancel(0), cancel(1)]
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert emergency.read_bytes() == bytes(SIZE)
    again.emergency(cancel(2), bench.clock.now())
    await again.close()
    bench.open()
    assert [entry.seq for entry in read_entries(bench.path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("step", range(3, 8))
async def test_records_are_taken_over_once(bench, emergency, step):
    """A crash between taking over and clearing does not double them, nor does one while clearing (G9)."""
    journal = bench.open()
    bench.note(journal)
    for number in range(3):
        journal.emergency(cancel(number), bench.clock.now())
    await journal.close()
    bench.disk.done.clear()
    # write and sync of the journal, the anchor, then twice zeros and sync
    bench.disk.dies_at = step
    try:
        bench.drop(bench.open())
    except bench.Death:
        assert step < 7
    else:
        assert step == 7
    bench.disk.dies_at = None
    await bench.open().close()
    assert [entry.seq for entry in read_entries(bench.path)] == [1, 2, 3, 4]
    assert emergency.read_bytes() == bytes(SIZE)


async def test_what_reached_the_file_though_its_commit_failed_is_not_doubled(bench):
    """After a failed sync the lines may be in the file all the same; an intent is there once."""
    journal = bench.open()
    bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")
    journal.append(cancel(0), bench.clock.now())
    with pytest.raises(JournalCommitError):
        await journal.commit()
    bench.disk.faults.clear()
    bench.clock.advance(timedelta(seconds=1))
    journal.emergency(cancel(0), bench.clock.now())
    journal.emergency(cancel(1), bench.clock.now())
    await journal.close()
    entries = list(bench.open().recovered()[1])
    assert [entry.record for entry in entries] == [cancel(0), cancel(1)]


async def test_a_part_taken_over_is_completed(bench):
    """When the crash tore the taking over itself, the rest follows."""
    journal = bench.open()
    for number in range(3):
        journal.emergency(cancel(number), bench.clock.now())
    await journal.close()
    bench.disk.done.clear()
    bench.disk.dies_at = 0
    with pytest.raises(bench.Death):
        bench.open()
    bench.disk.dies_at = None
    again = bench.open()
    assert again.cut
    entries = list(again.recovered()[1])
    assert [entry.record for entry in entries] == [cancel(0), cancel(1), cancel(2)]


async def test_a_full_emergency_file_says_so(bench):
    """It never grows, and holds fewer records than the check for doubles looks back."""
    journal = bench.open()
    shortest = PlanChanged(plan="", status="")
    with pytest.raises(JournalCommitError, match="is full; restart"):
        for _ in range(LOOK_BACK):
            journal.emergency(shortest, bench.clock.now())
    kept = len(journal._emergency.entries)
    await journal.close()
    again = bench.open()
    assert again.last_seq == kept < LOOK_BACK


async def test_a_cancel_never_takes_the_room_of_the_order_that_follows_it(bench):
    """A stop that moves is cancelled and placed anew: when no more cancel fits, dozens of orders still do."""
    journal = bench.open()
    now = bench.clock.now()
    with pytest.raises(JournalCommitError, match="is full; restart"):
        for number in range(1000):
            journal.emergency(cancel(number), now)
    kept = 0
    with pytest.raises(JournalCommitError, match="is full; restart"):
        for number in range(1000):
            journal.emergency(a_stop(number), now)
            kept += 1
    assert kept > 40
    await journal.close()


async def test_an_emergency_write_that_fails_says_so(bench):
    """Then not even a cancel is recorded, and the caller knows; a later one may succeed."""
    journal = bench.open()
    bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(JournalCommitError, match="emergency cannot be written: Input/output error"):
        journal.emergency(cancel(0), bench.clock.now())
    bench.disk.faults.clear()
    journal.emergency(cancel(1), bench.clock.now())
    await journal.close()
    assert bench.open().last_seq == 1


def test_without_room_for_it_nothing_is_opened(bench):
    """A disk that is full before the start is noticed at the start."""
    bench.disk.faults["write_at"] = FULL
    with pytest.raises(JournalCommitError, match="no room for 65536 bytes: No space left"):
        bench.open()
    bench.disk.faults.clear()
    bench.open()


async def test_a_changed_byte_is_refused(bench, emergency):
    """The file names its damaged line like the journal does."""
    journal = bench.open()
    for number in range(2):
        journal.emergency(cancel(number), bench.clock.now())
    await journal.close()
    data = emergency.read_bytes()
    used = len(data.rstrip(b"\0"))
    for offset in range(used):
        changed = bytearray(data)
        changed[offset] ^= 0x01
        emergency.write_bytes(changed)
        line = data.count(b"\n", 0, offset) + 1
        with pytest.raises(JournalCorruptedError, match=f"{emergency}, line {line}: "):
            bench.open()
    emergency.write_bytes(data[: used - 10] + bytes(SIZE - used + 10))
    assert bench.open().last_seq == 1  # the second one was torn


async def test_another_accounts_file_is_refused(bench, emergency):
    """Records of one account are not taken over into another's journal."""
    journal = bench.open()
    journal.emergency(cancel(0), bench.clock.now())
    await journal.close()
    bench.path.unlink()
    with pytest.raises(JournalCorruptedError, match=f"{emergency}, line 1: "):
        bench.open(account="other")

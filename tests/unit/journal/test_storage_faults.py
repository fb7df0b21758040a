"""What disks, backups and people do to a journal."""

import asyncio
import base64
import errno
import os
import random
import signal
import subprocess
import sys

import pytest

from execkit.errors import JournalCommitError, JournalCorruptedError
from execkit.journal import lines
from execkit.journal.segments import read_entries, verify
from execkit.virtual_time import run_virtual

FULL = OSError(errno.ENOSPC, "No space left on device")


async def written(bench, *texts, **options):
    """Write a journal and close it; the lock with its anchor is taken away."""
    journal = bench.open(**options)
    for text in texts:
        bench.note(journal, text)
        await journal.commit()
    await journal.close()
    bench.path.with_name("orders.db.lock").unlink()


@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("tear", [True, False])
@pytest.mark.parametrize("virtual", [True, False])
def test_a_full_disk_ends_writing_for_good(bench, durability, tear, virtual):
    """The caller hears why, nothing follows a half-written line, and what was committed stays (G11)."""
    journal = bench.open(durability=durability)

    async def main(_clock=None):
        bench.note(journal, "safe")
        await journal.commit()
        bench.disk.tear = tear
        bench.disk.faults["write"] = FULL
        bench.note(journal, "lost")
        with pytest.raises(JournalCommitError, match="cannot be written: No space left on device"):
            await journal.commit()
        assert not journal.is_healthy
        size = bench.path.stat().st_size
        bench.disk.faults.clear()
        bench.note(journal, "after")
        with pytest.raises(JournalCommitError, match="No space left"):
            await journal.commit()
        assert journal.committed_seq == 1
        await journal.close()
        assert bench.path.stat().st_size == size

    if virtual:
        run_virtual(main)
    else:
        asyncio.run(main())
    again = bench.open()
    assert bench.texts(again.recovered()[1]) == ["safe"]
    assert bool(again.cut) == tear


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_a_failure_that_nobody_waited_for_is_seen(bench, durability):
    """`append` never fails for the disk; health and the next commit tell."""
    journal = bench.open(durability=durability)
    bench.note(journal)
    await journal.commit()
    bench.disk.faults["write"] = FULL
    for _ in range(140):
        bench.note(journal, "x" * 1000)
    journal._writer.stop_thread()
    assert not journal.is_healthy
    assert len(journal._lines) < 66
    with pytest.raises(JournalCommitError, match="No space left"):
        await journal.commit()


async def test_a_failed_last_write_is_told(bench):
    """Closing raises when the last records are lost, and gives the lock up all the same."""
    journal = bench.open()
    bench.note(journal)
    bench.disk.faults["sync"] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(JournalCommitError, match="Input/output error"):
        await journal.close()
    bench.disk.faults.clear()
    bench.open()


async def test_a_line_torn_anywhere_is_cut_and_noted(bench):
    """A crash in the middle of the last line, at any byte, loses that line only."""
    await written(bench, "one", "two", "three")
    data = bench.path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(data)):
        path = bench.path.parent / str(end) / "orders.db"
        path.parent.mkdir()
        path.write_bytes(data[:end])
        path.chmod(0o600)
        journal = bench.open(path)
        assert journal.cut == data[start:end]
        assert bench.texts(journal.recovered()[1]) == ["one", "two"]
        bench.note(journal, "new")
        await journal.close()
        found = verify(path)
        assert (found.records, found.unfinished) == (3, b"")
        if end > start:
            assert f'"cut":"{_base64(data[start:end])}"'.encode() in path.read_bytes()


def _base64(data):
    return base64.b64encode(data).decode()


async def test_zeros_after_a_torn_line_are_cut_too(bench):
    """Some file systems leave zeros where data did not reach the disk."""
    await written(bench, "one", "two")
    data = bench.path.read_bytes()
    bench.path.write_bytes(data[:-30] + bytes(4096))
    assert bench.texts(bench.open().recovered()[1]) == ["one"]


async def test_a_byte_changed_anywhere_is_refused_with_its_line(bench):
    """No single change goes unnoticed, and the error names file and line (G14, G15, S13)."""
    await written(bench, *"abcdef", segment_bytes=450, snapshot=lambda: b"state")
    files = [*sorted(bench.path.parent.glob("orders.db.0*")), bench.path]
    assert len(files) >= 2
    for file in files:
        data = file.read_bytes()
        for offset, byte in enumerate(data):
            for mask in (0x01, 0x0A, 0x20, 0x80) if byte in b'\n"}' else (0x01,):
                changed = bytearray(data)
                changed[offset] ^= mask
                file.write_bytes(changed)
                line = data.count(b"\n", 0, offset) + 1
                with pytest.raises(JournalCorruptedError) as caught:
                    verify(bench.path)
                assert f"{file}, line {line}: " in str(caught.value), (offset, mask)
        file.write_bytes(data)
    assert verify(bench.path).records == 6


@pytest.mark.parametrize("what", ["removed", "doubled", "swapped", "emptied"])
async def test_lines_taken_away_or_moved_are_refused(bench, what):
    """Deleting, repeating or reordering records breaks the chain (I17, S13)."""
    await written(bench, *"abcd")
    rows = bench.path.read_bytes().splitlines(keepends=True)
    rows[3:4] = {
        "removed": [],
        "doubled": [rows[3]] * 2,
        "swapped": [rows[4], rows[3]],
        "emptied": [b"\n"],
    }[what]
    bench.path.write_bytes(b"".join(rows))
    with pytest.raises(JournalCorruptedError, match=rf"{bench.path}, line [45]: it was changed"):
        bench.open()


async def test_a_forged_number_is_refused(bench):
    """A gap in the numbers is damage even where the hashes fit."""
    journal = bench.open()
    journal._last_seq += 1
    bench.note(journal)
    await journal.close()
    with pytest.raises(JournalCorruptedError, match="line 3: record 1 should stand here"):
        verify(bench.path)


async def test_lines_of_an_unknown_kind_are_refused(bench):
    """A whole chain with something in it that this version cannot read is not half-read."""
    journal = bench.open()
    line, journal._chain = lines.seal(b'{"other":1}', journal._chain)
    journal._lines.append(line)
    await journal.close()
    with pytest.raises(JournalCorruptedError, match="line 3: no such kind of line is known"):
        verify(bench.path)


@pytest.mark.parametrize("record", [b'{"kind":"new"}', b'{"kind":"alarm","code":"\xff","text":""}'])
async def test_records_of_an_unknown_kind_are_refused(bench, record):
    """A record of another version names its line."""
    journal = bench.open()
    payload = b'{"seq":1,"at":"2024-01-01T00:00:00Z","record":' + record + b"}"
    line, journal._chain = lines.seal(payload, journal._chain)
    journal._lines.append(line)
    journal._last_seq = 1
    await journal.close()
    again = bench.open()
    with pytest.raises(JournalCorruptedError, match="line 3: the record cannot be read: "):
        list(again.recovered()[1])


CHILD = """
import asyncio, sys
from datetime import UTC, datetime
from execkit.clock import SystemClock
from execkit.journal.file import FileJournal
from execkit.model.records import Alarm

async def main():
    journal = FileJournal.open(
        sys.argv[1], account="acct", clock=SystemClock(), durability="process",
        segment_bytes=20_000, snapshot=lambda: b"state",
    )
    print(journal.last_seq, flush=True)
    while True:
        for _ in range(3):
            seq = journal.append(Alarm(code="a", text="x" * 50), datetime.now(UTC))
        await journal.commit()
        print(seq, flush=True)

asyncio.run(main())
"""


def test_killed_processes_keep_what_they_committed(bench):
    """After SIGKILL every record whose commit returned is there, also in the middle of rotations (G1-G5)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    told = 0
    for seed in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, bench.path], env=environment, stdout=subprocess.PIPE
        )
        with child:
            assert int(child.stdout.readline()) >= told
            for _ in range(random.Random(seed).randrange(1, 400)):
                told = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            # What it told between our last look and its end counts too.
            rows = child.stdout.read().split(b"\n")[:-1]
            told = int(rows[-1]) if rows else told
        assert verify(bench.path).last_seq >= told
    assert verify(bench.path).segments > 1
    assert [entry.seq for entry in read_entries(bench.path)][:told] == list(range(1, told + 1))

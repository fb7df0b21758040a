"""Opening, appending and committing."""

import asyncio
import threading
from pathlib import Path

import pytest

from execkit.errors import (
    ConfigurationError,
    JournalAccountError,
    JournalCommitError,
    JournalCorruptedError,
    JournalError,
    JournalVersionError,
)
from execkit.journal import lines
from execkit.journal.file import FLUSH_BYTES
from execkit.journal.segments import read_entries, verify
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import Side
from execkit.model.records import Alarm, SignalResult
from execkit.model.result import Outcome
from execkit.virtual_time import run_virtual


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_what_was_committed_is_there_after_a_restart(bench, durability):
    """Records come back in order, with their times; each opening has the next epoch (I18)."""
    journal = bench.open(durability=durability)
    assert journal.recovered()[0] is None
    for text in "abc":
        bench.note(journal, text)
    assert (journal.last_seq, journal.committed_seq) == (3, 0)
    await journal.commit()
    assert journal.committed_seq == 3
    bench.drop(journal)
    again = bench.open()
    assert (again.epoch, again.last_seq, again.committed_seq) == (2, 3, 3)
    snapshot, entries = again.recovered()
    entries = list(entries)
    assert snapshot is None
    assert bench.texts(entries) == ["a", "b", "c"]
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert entries[-1].at == bench.clock.now()
    assert bench.note(again, "d") == 4


async def test_recovered_ends_where_the_opening_was(bench):
    """What this process appends itself is not given back to it."""
    journal = bench.open()
    bench.note(journal, "old")
    await journal.close()
    again = bench.open()
    bench.note(again, "new")
    await again.commit()
    assert bench.texts(again.recovered()[1]) == ["old"]


async def test_append_writes_nothing_until_somebody_waits(bench):
    """Records that no send waits for cost no disk access."""
    journal = bench.open()
    size = bench.path.stat().st_size
    bench.note(journal)
    assert bench.path.stat().st_size == size
    await journal.commit()
    assert bench.path.stat().st_size > size


async def test_commit_of_nothing_does_nothing(bench):
    """A commit with nothing to commit returns at once."""
    journal = bench.open()
    bench.disk.done.clear()
    await journal.commit()
    bench.note(journal)
    await journal.commit()
    await journal.commit()
    assert bench.disk.done == ["write", "sync"]


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_unawaited_records_are_written_when_many(bench, durability):
    """What nobody waits for leaves memory after 64 KiB, by the thread where there is one."""
    journal = bench.open(durability=durability)
    waited_for = 0
    for with_thread in (False, durability == "power"):
        if with_thread:
            await journal.commit()
            waited_for = journal.last_seq
        assert journal._writer.has_thread == with_thread
        size = bench.path.stat().st_size
        for _ in range(FLUSH_BYTES // 1000 + 1):
            bench.note(journal, "x" * 1000)
        journal._writer.stop_thread()
        assert bench.path.stat().st_size - size >= FLUSH_BYTES
        bench.note(journal)
    if durability == "power":
        assert journal.committed_seq == waited_for  # written, but not synced
    else:
        assert 0 < journal.last_seq - journal.committed_seq < 66
    await journal.close()
    assert verify(bench.path).records == journal.last_seq


async def test_close_makes_everything_durable(bench):
    """The last records reach the disk also in process mode, and closing twice is closing once."""
    journal = bench.open(durability="process")
    bench.note(journal, "last")
    bench.disk.done.clear()
    await journal.close()
    await journal.close()
    assert bench.disk.count("sync") == 1
    assert bench.texts(read_entries(bench.path)) == ["last"]
    with pytest.raises(JournalError, match="is closed"):
        bench.note(journal)
    with pytest.raises(JournalError, match="is closed"):
        journal.emergency(Alarm(code="a", text="b"), bench.clock.now())


def test_virtual_time_commits_inline(bench):
    """Under virtual time no thread runs, and the disk is synced all the same."""
    journal = bench.open()
    bench.disk.done.clear()

    async def main(_clock):
        for text in "ab":
            bench.note(journal, text)
            await journal.commit()
        assert threading.active_count() == before

    before = threading.active_count()
    run_virtual(main)
    assert bench.disk.done == ["write", "sync"] * 2
    assert journal.committed_seq == 2


def test_a_journal_may_go_from_one_loop_to_another(bench):
    """The thread's work is finished before virtual time takes over."""
    journal = bench.open()

    async def main(_clock=None):
        bench.note(journal)
        await journal.commit()

    asyncio.run(main())
    assert journal._writer.has_thread
    run_virtual(main)
    assert not journal._writer.has_thread
    asyncio.run(main())
    assert journal.committed_seq == 3


async def test_another_account_is_refused(bench):
    """A journal is never opened for another account (G20)."""
    await bench.open().close()
    with pytest.raises(JournalAccountError, match="belongs to account 'acct', not to 'other'"):
        bench.open(account="other")


async def test_another_schema_is_refused(bench, monkeypatch):
    """A journal of another version is named as such, not as damaged (G10)."""
    with monkeypatch.context() as patch:
        patch.setattr(lines, "SCHEMA", 2)
        await bench.open().close()
    with pytest.raises(JournalVersionError, match="schema 2, this version of execkit reads 1"):
        bench.open()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"\xff\xfe\n", b'{"head":1}\n'])
def test_another_kind_of_file_is_refused(bench, content):
    """What is no journal is never appended to."""
    bench.path.write_bytes(content)
    bench.path.chmod(0o600)
    with pytest.raises(JournalCorruptedError, match="line 1: this is not the head of a journal"):
        bench.open()
    assert bench.path.read_bytes() == content


async def test_half_a_head_is_refused(bench):
    """A journal file has a whole head or does not exist; half of one is damage."""
    await bench.open().close()
    head = bench.path.read_bytes().partition(b"\n")[0]
    bench.path.write_bytes(head)
    with pytest.raises(JournalCorruptedError, match="line 1: the head is not complete"):
        bench.open()


async def test_an_older_copy_is_noticed(bench):
    """A journal that ends before its anchor was put back from a backup, or cut (G20, S14)."""
    journal = bench.open()
    copy = bench.path.read_bytes()
    bench.note(journal)
    await journal.close()
    bench.path.write_bytes(copy)
    with pytest.raises(JournalCorruptedError, match=r"had come to record 1 of opening 1.*delete"):
        bench.open()
    bench.path.with_name("orders.db.lock").unlink()
    assert bench.open().last_seq == 0


async def test_a_deleted_journal_begins_anew(bench):
    """Deleting the file is how a person begins again; the anchor does not forbid it."""
    journal = bench.open()
    bench.note(journal)
    await journal.close()
    bench.path.unlink()
    again = bench.open()
    assert (again.epoch, again.last_seq) == (1, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "none"}, "durability: 'none' is unknown; use 'power' or 'process'"),
        ({"segment_bytes": 0}, "segment_bytes: 0 must be above zero"),
    ],
)
def test_wrong_options_are_named(bench, options, message):
    """A bad option names field, value and fix, and touches no file."""
    with pytest.raises(ConfigurationError, match=message):
        bench.open(**options)
    assert list(bench.path.parent.iterdir()) == []


async def test_text_that_is_no_unicode_is_spelled_out(bench):
    """Appending does not fail for what a venue puts into a text: half a character pair is written as its code."""
    journal = bench.open()
    denial = Denial.of(DenialCode.REFUSED_BY_HANDLER, **{"why\ud800": "x"})
    result = SignalResult(
        signal_id="s",
        signal_digest="d",
        symbol="BTC/USDT",
        side=Side.BUY,
        outcome=Outcome.DENIED,
        denial=denial,
        alerts=("a\udfff",),
    )
    journal.append(result, bench.clock.now())
    await journal.close()
    (entry,) = read_entries(bench.path)
    assert entry.record.denial.context == {"why\\ud800": "x"}
    assert entry.record.alerts == ("a\\udfff",)
    assert entry.record.requested is None


async def test_head_is_the_chain_for_an_anchor_elsewhere(bench):
    """What the writer calls its head is what a check of the file finds."""
    journal = bench.open()
    bench.note(journal)
    await journal.commit()
    found = verify(bench.path)
    assert (found.head, found.last_seq) == (journal.head, 1)
    assert repr(journal) == f"FileJournal({str(bench.path)!r}, account='acct', records=1)"


async def test_a_failed_opening_holds_nothing(bench):
    """After an error the files are closed and the lock is free."""
    before = set(Path("/proc/self/fd").iterdir())
    bench.disk.faults["sync"] = OSError(5, "Input/output error")
    with pytest.raises(JournalError, match=r"orders\.db cannot be opened: Input/output error"):
        bench.open()
    bench.disk.faults.clear()
    await bench.open().close()
    bench.disk.faults["write"] = OSError(28, "No space left on device")
    with pytest.raises(JournalCommitError, match=r"cannot be written: No space left on device"):
        bench.open()
    assert set(Path("/proc/self/fd").iterdir()) == before

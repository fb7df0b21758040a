"""The journal in memory."""

from execkit.journal.base import MemoryJournal


async def test_memory_journal_keeps_entries_in_order(bench):
    """It numbers from one, is always durable, and forgets nothing until the process ends."""
    journal = MemoryJournal("acct")
    assert (journal.account, journal.epoch, journal.last_seq) == ("acct", 1, 0)
    assert [bench.note(journal, text) for text in "ab"] == [1, 2]
    await journal.commit()
    journal.emergency(journal.entries[0].record, bench.clock.now())
    snapshot, entries = journal.recovered()
    assert snapshot is None
    assert bench.texts(entries) == ["a", "b"]
    assert bench.texts(journal.emergencies) == ["a"]
    assert journal.committed_seq == journal.last_seq == 2
    assert journal.is_current
    assert journal.is_healthy
    await journal.close()
    assert repr(journal) == "MemoryJournal(2 records)"

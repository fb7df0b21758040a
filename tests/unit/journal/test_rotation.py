"""Segments: rotation, crashes in it, and reading across them."""

import itertools

import pytest

from execkit.errors import JournalCommitError, JournalCorruptedError, JournalError
from execkit.journal.segments import JournalReader, archive_path, read_entries, verify

FULL = 450
"""Bytes of a segment that is full after three records."""


async def fill(bench, journal, texts):
    for text in texts:
        bench.note(journal, text)
        await journal.commit()


async def rotated(bench, texts="abcdefgh", **options):
    """Write a journal of several segments; the snapshot is the number of records."""
    journal = bench.open(segment_bytes=FULL, **options)
    journal.set_snapshot(lambda: b"%d" % journal.last_seq)
    await fill(bench, journal, texts)
    return journal


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_a_full_segment_is_kept_and_the_next_starts_with_the_state(bench, durability):
    """A start reads the newest segment: its snapshot and the records after it; no segment is deleted."""
    journal = await rotated(bench, durability=durability)
    await journal.close()
    kept = sorted(file.name for file in bench.path.parent.glob("orders.db.0*"))
    assert kept == ["orders.db.000001", "orders.db.000002"]
    again = bench.open()
    snapshot, entries = again.recovered()
    entries = list(entries)
    assert int(snapshot) + len(entries) == 8
    assert entries[0].seq == int(snapshot) + 1
    assert bench.texts(read_entries(bench.path)) == list("abcdefgh")
    found = verify(bench.path)
    assert (found.segments, found.records, found.first_seq, found.last_seq) == (3, 8, 1, 8)
    assert found.head == again.head
    assert found.epoch == again.epoch == 2


async def test_without_a_snapshot_the_file_grows(bench):
    """A segment cannot start without the state."""
    journal = bench.open(segment_bytes=10)
    await fill(bench, journal, "abc")
    assert verify(bench.path).segments == 1


async def test_a_large_snapshot_does_not_fill_its_own_segment(bench):
    """What counts are the records since the snapshot."""
    journal = bench.open(segment_bytes=FULL, snapshot=lambda: bytes(10_000))
    await fill(bench, journal, "abcdefgh")
    assert verify(bench.path).segments == 3


async def test_a_snapshot_that_fails_stops_nothing(bench):
    """The records are committed, the file grows, and the next segment's worth later it is tried again."""
    journal = bench.open(segment_bytes=FULL, snapshot=lambda: 1 // 0)
    await fill(bench, journal, "abc")
    assert journal.committed_seq == 3
    journal.set_snapshot(lambda: b"")
    await fill(bench, journal, "de")
    assert verify(bench.path).segments == 1
    await fill(bench, journal, "f")
    assert verify(bench.path).segments == 2


def counting(bench, path):
    """Open a journal of small segments whose snapshot is the number of records."""
    journal = bench.open(path, segment_bytes=FULL, durability="process")
    journal.set_snapshot(lambda: b"%d" % journal.last_seq)
    return journal


async def test_a_crash_at_any_step_of_a_rotation_loses_nothing(bench):
    """Whatever step was the last, the next opening finds every committed record and rotates again (G10)."""
    for step in itertools.count():
        path = bench.path.parent / str(step) / "orders.db"
        journal = counting(bench, path)
        await fill(bench, journal, "ab")
        bench.disk.done.clear()
        bench.disk.dies_at = step
        bench.note(journal, "c")
        try:
            await journal.commit()
            survived = True
        except bench.Death:
            survived = False
        bench.disk.dies_at = None
        bench.drop(journal)
        again = counting(bench, path)
        texts = bench.texts(read_entries(path))
        assert texts in (["a", "b"], ["a", "b", "c"])
        assert not survived or texts == ["a", "b", "c"]
        snapshot, entries = again.recovered()
        assert int(snapshot or 0) + len(list(entries)) == len(texts)
        await fill(bench, again, "defgh")
        bench.drop(again)
        found = verify(path)
        assert (found.segments, found.records) == (3, len(texts) + 5)
        assert bench.texts(read_entries(path)) == [*texts, *"defgh"]
        assert not path.with_name("orders.db.next").exists()
        if survived:
            break
    assert step == 8


@pytest.mark.parametrize("what", ["write", "sync", "link", "replace", "sync_directory"])
async def test_a_rotation_that_fails_ends_writing(bench, what):
    """A disk that fails during the rotation is a disk that fails; nothing committed is lost."""
    journal = bench.open(segment_bytes=FULL, snapshot=lambda: b"")
    await fill(bench, journal, "ab")
    bench.disk.faults[what] = OSError(28, "No space left on device")
    bench.note(journal, "c")
    with pytest.raises(JournalCommitError, match="No space left"):
        await journal.commit()
    bench.disk.faults.clear()
    await journal.close()
    assert bench.texts(read_entries(bench.path))[:2] == list("ab")
    bench.open()


async def test_records_before_and_after_a_rotation_share_one_sync(bench):
    """The commit that rotates is one commit."""
    journal = bench.open(segment_bytes=FULL, snapshot=lambda: b"")
    await fill(bench, journal, "ab")
    bench.disk.done.clear()
    await fill(bench, journal, "c")
    assert bench.disk.done == [
        *("write", "sync"),
        *("write", "sync", "link", "sync_directory", "replace", "sync_directory"),
    ]


async def test_an_older_segment_put_back_is_noticed(bench):
    """The active segment cannot have the number of one that was put away (G20)."""
    journal = await rotated(bench)
    await journal.close()
    archive_path(bench.path, 1).rename(bench.path.with_name("saved"))
    bench.path.write_bytes(archive_path(bench.path, 2).read_bytes())
    bench.path.with_name("orders.db.lock").unlink()
    with pytest.raises(JournalCorruptedError, match=r"is segment 2, and so is .*000002"):
        bench.open()


async def test_a_missing_active_segment_is_noticed(bench):
    """With earlier segments there, a missing file is a loss and not a beginning."""
    journal = await rotated(bench)
    await journal.close()
    bench.path.unlink()
    with pytest.raises(JournalCorruptedError, match=r"is missing although .* up to number 2"):
        bench.open()
    with pytest.raises(JournalError, match=r"orders\.db cannot be read: No such file"):
        verify(bench.path)
    with (
        pytest.raises(JournalCorruptedError, match=r"orders\.db is missing: No such file"),
        JournalReader(archive_path(bench.path, 1)) as reader,
    ):
        reader.path = bench.path
        list(reader.entries())


async def test_segments_moved_away_leave_the_rest_readable(bench):
    """The oldest segments may live elsewhere; one missing in between is a loss."""
    journal = await rotated(bench, "abcdefghijk")
    await journal.close()
    assert verify(bench.path).segments == 4
    archive_path(bench.path, 1).unlink()
    found = verify(bench.path)
    assert found.segments == 3
    assert found.first_seq == found.last_seq - found.records + 1 > 1
    archive_path(bench.path, 3).unlink()
    with pytest.raises(JournalCorruptedError, match=r"000003 is missing"):
        verify(bench.path)


@pytest.mark.parametrize("damage", ["shortened", "torn", "foreign"])
async def test_segments_must_continue_each_other(bench, damage):
    """A segment that ends early, or the segment of another journal, is named."""
    journal = await rotated(bench)
    await journal.close()
    kept = archive_path(bench.path, 2)
    data = kept.read_bytes()
    if damage == "shortened":
        kept.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1])
        message = r"orders\.db, line 1: it does not continue .*000002"
    elif damage == "torn":
        kept.write_bytes(data[:-10])
        message = r"000002, line \d: the file ends after this line with an unfinished one"
    else:
        other = bench.path.parent / "other" / "orders.db"
        bench.path = other
        await (await rotated(bench, account="other")).close()
        bench.path = other.parent.parent / "orders.db"
        archive_path(other, 1).replace(archive_path(bench.path, 1))
        message = r"000002, line 1: it does not continue .*000001"
    with pytest.raises(JournalCorruptedError, match=message):
        verify(bench.path)


async def test_a_segment_without_its_snapshot_is_refused(bench):
    """The state at the start of a segment is part of it."""
    journal = await rotated(bench)
    await journal.close()
    rows = bench.path.read_bytes().splitlines(keepends=True)
    for rest in (rows[:1], [rows[0], *rows[2:]]):
        bench.path.write_bytes(b"".join(rest))
        with pytest.raises(JournalCorruptedError, match=rf"{bench.path}, line [12]: "):
            verify(bench.path)


async def test_reading_goes_on_beside_the_writer(bench):
    """A reader sees what is written so far and goes on, across rotations, when asked again."""
    journal = bench.open(segment_bytes=FULL, snapshot=lambda: b"")
    with JournalReader(bench.path) as reader:
        assert list(reader.entries()) == []
        seen = []
        for text in "abcdefghijk":
            await fill(bench, journal, text)
            if text in "abfk":
                seen += bench.texts(reader.entries())
                assert seen[-1] == text
        assert seen == list("abcdefghijk")
        assert reader.segment.head.segment == 4


async def test_a_line_being_written_is_not_there_yet(bench):
    """Beside a writer, half a line is no damage."""
    journal = bench.open()
    await fill(bench, journal, "ab")
    data = bench.path.read_bytes()
    bench.path.write_bytes(data[:-20])
    with JournalReader(bench.path) as reader:
        assert bench.texts(reader.entries()) == ["a"]
        bench.path.write_bytes(data)
        assert bench.texts(reader.entries()) == ["b"]


async def test_reading_begins_with_the_segment_that_is_needed(bench):
    """Records after a number are found without reading what came long before."""
    journal = await rotated(bench, "abcdefghijk")
    for after in range(13):
        assert bench.texts(read_entries(bench.path, after=after)) == list("abcdefghijk")[after:]
    with JournalReader(bench.path, after=10) as reader:
        assert reader.segment.path == bench.path
        assert int(reader.segment.snapshot) == 9
    with JournalReader(bench.path, after=4) as reader:
        assert reader.segment.path == archive_path(bench.path, 2)
    await journal.close()


async def test_a_rotation_between_looking_and_opening_is_caught_up(bench, monkeypatch):
    """A reader that finds a later segment than it looked for looks again."""
    journal = bench.open(segment_bytes=FULL, snapshot=lambda: b"")
    await fill(bench, journal, "abcd")
    with JournalReader(bench.path) as reader:
        assert bench.texts(reader.entries()) == list("abcd")[:4]
        await fill(bench, journal, "efgh")
        expected = archive_path(bench.path, 2)
        exists = type(expected).exists
        answers = iter([False])

        def late(self):
            return (
                next(answers, None) is None and exists(self) if self == expected else exists(self)
            )

        monkeypatch.setattr(type(expected), "exists", late)
        assert bench.texts(reader.entries()) == list("efgh")

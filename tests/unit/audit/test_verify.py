"""S13, S14: whatever is done to a small journal, it is found; and what only an anchor can show, an anchor shows."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import pytest

from execkit.audit.anchor import (
    Anchor,
    anchor_journal,
    keep_anchored,
    read_anchors,
    write_anchor,
)
from execkit.audit.verify import verify_audit
from execkit.clock import ManualClock
from execkit.errors import ConfigurationError, JournalAccountError, JournalCorruptedError
from execkit.journal.disk import Disk
from execkit.journal.file import FileJournal
from execkit.virtual_time import run_virtual

from .conftest import EVALUATIONS, RECORDS, fill

AT = datetime(2024, 1, 2, tzinfo=UTC)


@pytest.fixture
def heads(tmp_path):
    """Number and hash after each record of the journal at `run.db`."""
    found = []
    asyncio.run(fill(tmp_path / "run.db", found))
    return found


@pytest.fixture
def path(tmp_path, heads):
    return tmp_path / "run.db"


@pytest.fixture
def anchor(heads):
    """The anchor of the last record."""
    return Anchor(AT, "a", *heads[-1])


def forget_the_lock(path):
    """Take away what the journal itself knows of its end."""
    path.with_name(f"{path.name}.lock").unlink()


def segments(path):
    return [path.with_name("run.db.000001"), path.with_name("run.db.000002"), path]


def test_a_sound_journal_is_whole(path, heads):
    """Each head that ever was agrees, in whatever segment it is."""
    anchors = [Anchor(AT, "a", *head) for head in heads]
    found = verify_audit(path, anchors)
    assert (found.account, found.evaluations, found.anchors) == ("a", EVALUATIONS, len(RECORDS))
    assert (found.journal.segments, found.journal.first_seq, found.journal.last_seq) == (3, 1, 10)
    assert found.journal.head == heads[-1][1]


def test_every_edit_is_found(path):
    """One character changed, in any line of any segment, at several places of the line."""
    for file in segments(path):
        lines = file.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines):
            for place in range(1, len(line) - 1, 23):
                changed = bytes([line[place] ^ 1])
                edited = line[:place] + changed + line[place + 1 :]
                if edited.count(b"\n") != 1:
                    continue
                file.write_bytes(b"".join([*lines[:number], edited, *lines[number + 1 :]]))
                with pytest.raises(JournalCorruptedError, match=f"{file.name}, line"):
                    verify_audit(path)
        file.write_bytes(b"".join(lines))
    verify_audit(path)


def variants(lines):
    """All journals with one line taken out, doubled, or moved by one, but for the last line taken out."""
    for number in range(len(lines)):
        if number + 1 < len(lines):
            yield [*lines[:number], *lines[number + 1 :]]
            yield [*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]]
        yield [*lines[: number + 1], lines[number], *lines[number + 1 :]]


def test_every_removal_insertion_and_exchange_is_found(path):
    """In any segment; without any anchor, but for the end."""
    forget_the_lock(path)
    for file in segments(path):
        lines = file.read_bytes().splitlines(keepends=True)
        for changed in variants(lines):
            file.write_bytes(b"".join(changed))
            with pytest.raises(JournalCorruptedError):
                verify_audit(path)
        file.write_bytes(b"".join(lines))


def test_a_line_of_another_segment_is_found(path):
    """A sound line in the wrong place is not sound."""
    forget_the_lock(path)
    first, second, _ = segments(path)
    line = first.read_bytes().splitlines(keepends=True)[-1]
    second.write_bytes(second.read_bytes() + line)
    with pytest.raises(JournalCorruptedError):
        verify_audit(path)


@pytest.mark.parametrize("knows", ["anchor", "lock"])
def test_every_cut_of_the_end_is_found(path, anchor, knows):
    """At every byte of the last segment: by the anchor alone, and by the lock file alone."""
    data = path.read_bytes()
    whole = len(data)
    begin = data.index(b"\n", data.index(b"\n") + 1) + 1  # head and snapshot
    if knows == "anchor":
        forget_the_lock(path)
    for size in range(begin, whole, 7):
        path.write_bytes(data[:size])
        with pytest.raises(JournalCorruptedError):
            verify_audit(path, [anchor] if knows == "anchor" else ())


def test_cut_lines_need_an_anchor(path, anchor):
    """Why heads are kept elsewhere: with journal and lock file in one hand, a cut at a line's end is not seen."""
    forget_the_lock(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert verify_audit(path).journal.last_seq == 9
    with pytest.raises(JournalCorruptedError) as caught:
        verify_audit(path, [anchor])
    assert str(caught.value) == (
        f"{path} ends with record 9, but had come to record 10 on 2024-01-02 00:00:00 UTC: its end was cut off, or an "
        "older copy was put back"
    )


def test_a_journal_written_anew_is_found(path, heads, tmp_path):
    """A whole new chain is sound in itself; each head that was noted of the old one contradicts it."""
    for file in segments(path):
        file.unlink()
    forget_the_lock(path)
    asyncio.run(fill(path, records=[*RECORDS[:3], *RECORDS[4:], RECORDS[3]]))
    verify_audit(path)
    for head in heads[3:]:
        with pytest.raises(JournalCorruptedError, match=f"after record {head[0]} the hash was"):
            verify_audit(path, [Anchor(AT, "a", *head)])


def test_missing_segments_are_found(path, anchor, heads):
    """In the middle always; at the beginning unless it is said that they are kept elsewhere."""
    first, second, _ = segments(path)
    kept = first.read_bytes()
    first.unlink()
    with pytest.raises(
        JournalCorruptedError, match="segments 1 to 1, up to record 3, are not here"
    ):
        verify_audit(path)
    found = verify_audit(path, [Anchor(AT, "a", *heads[0]), anchor], is_partial=True)
    assert (found.journal.first_seq, found.anchors, found.earlier_anchors) == (4, 1, 1)
    first.write_bytes(kept)
    second.unlink()
    with pytest.raises(JournalCorruptedError, match=r"000002 is missing"):
        verify_audit(path, is_partial=True)


def test_anchors_of_another_account_are_refused(path):
    """A mix-up is told as one."""
    with pytest.raises(JournalAccountError, match="belongs to account 'a', an anchor to 'b'"):
        verify_audit(path, [Anchor(AT, "b", 1, "0" * 32)])


# -- anchors -------------------------------------------------------------------------------------------


def test_anchors_are_kept_in_a_private_file(tmp_path, anchor):
    """One line each, in order; a line that a crash left unfinished is passed over."""
    path = tmp_path / "anchors"
    write_anchor(path, anchor)
    write_anchor(path, Anchor(AT, "a", 11, "f" * 32))
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("ab") as file:
        file.write(b'{"at":"2024')
    assert [each.seq for each in read_anchors(path)] == [10, 11]


def test_readable_errors_of_anchors(tmp_path):
    """Not a file, not an anchor, not a place to write."""
    path = tmp_path / "anchors"
    with pytest.raises(ConfigurationError, match="anchors: cannot be read: No such file"):
        read_anchors(path)
    path.write_bytes(b"{}\n")
    with pytest.raises(ConfigurationError, match="anchors:1: is no anchor"):
        read_anchors(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigurationError, match="link: cannot be written"):
        write_anchor(link, Anchor(AT, "a", 1, ""))


@pytest.mark.parametrize("virtual", [False, True])
def test_a_running_journal_is_anchored_at_what_is_durable(tmp_path, virtual):
    """The head is committed before it is noted; whatever comes next, the journal agrees with it."""
    path, noted = tmp_path / "run.db", tmp_path / "noted"
    steps = []

    class Watched(Disk):
        def sync(self, fd):
            steps.append(os.fstat(fd).st_size)
            super().sync(fd)

    async def main(_clock=None):
        clock = ManualClock()
        journal = FileJournal.open(path, account="a", clock=clock, disk=Watched())
        begun = await anchor_journal(journal, noted, clock)
        journal.append(RECORDS[0][1], clock.now())
        before = len(steps)
        made = await anchor_journal(journal, noted, clock)
        assert len(steps) > before, "nothing was synced"
        assert (begun.seq, made.seq, made.head) == (0, 1, journal.head)
        journal.append(RECORDS[1][1], clock.now())
        await journal.close()

    if virtual:
        run_virtual(main)
    else:
        asyncio.run(main())
    assert verify_audit(path, read_anchors(noted)).anchors == 2


def test_anchors_are_noted_all_the_time(tmp_path):
    """One for each period; a place that cannot be written is told once, and used again when it can."""
    path, noted = tmp_path / "run.db", tmp_path / "away" / "noted"
    alarms = []

    async def main(clock):
        journal = FileJournal.open(path, account="a", clock=clock, durability="process")
        work = keep_anchored(journal, noted, clock, every=timedelta(hours=1), alarm=alarms.append)
        task = asyncio.create_task(work)
        await asyncio.sleep(7 * 3600 + 1)
        noted.parent.mkdir()
        for _ in range(3):
            journal.append(RECORDS[0][1], clock.now())
            await asyncio.sleep(3600)
        task.cancel()
        await journal.close()

    run_virtual(main)
    assert len(alarms) == 1
    assert "cannot be written: No such file" in alarms[0]
    assert [anchor.seq for anchor in read_anchors(noted)] == [1, 2, 3]
    assert verify_audit(path, read_anchors(noted)).anchors == 3

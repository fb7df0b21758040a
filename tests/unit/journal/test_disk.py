"""Private files and the one writer."""

import os
import subprocess
import sys

import pytest

from execkit.errors import JournalCommitError, JournalError, JournalLockedError
from execkit.journal.disk import Disk, WriteLock, open_private

OPEN = """
import sys
from execkit.clock import SystemClock
from execkit.journal.file import FileJournal
try:
    FileJournal.open(sys.argv[1], account="acct", clock=SystemClock())
except Exception as error:
    print(type(error).__name__, error)
"""


def open_elsewhere(path):
    """Open the journal in another process, which ends at once; return what it says."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, path],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_files_are_private_whatever_the_umask(bench):
    """The journal and what stands beside it can be read by their owner only (S5)."""
    old = os.umask(0)
    try:
        bench.path = bench.path.parent / "new" / "orders.db"
        bench.open()
    finally:
        os.umask(old)
    folder = bench.path.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    found = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    names = ("orders.db", "orders.db.lock", "orders.db.emergency")
    assert found == dict.fromkeys(names, 0o600)


def test_a_folder_that_exists_is_left_alone(bench):
    """Only a folder that we make is made private."""
    bench.path.parent.chmod(0o755)
    bench.open()
    assert bench.path.parent.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_made_is_named(bench):
    """A file where the folder should be gives a clear error."""
    (bench.path.parent / "file").touch()
    with pytest.raises(JournalError, match=r"file/orders\.db cannot be opened: File exists"):
        bench.open(bench.path.parent / "file" / "orders.db")


@pytest.mark.parametrize("name", ["orders.db", "orders.db.lock", "orders.db.emergency"])
async def test_files_open_to_others_are_refused_with_the_fix(bench, name):
    """A journal that others can read is not used until its owner has said so."""
    await bench.open().close()
    file = bench.path.with_name(name)
    file.chmod(0o644)
    with pytest.raises(JournalError, match=rf"mode 0644\); run: chmod 600 {file}"):
        bench.open()
    file.chmod(0o600)
    bench.open()


@pytest.mark.parametrize("name", ["orders.db", "orders.db.lock", "orders.db.emergency"])
@pytest.mark.parametrize("dangling", [True, False])
def test_symbolic_links_are_refused(bench, name, dangling):
    """Nobody redirects the journal by a link (S19)."""
    target = bench.path.with_name("elsewhere")
    if not dangling:
        target.touch(0o600)
    bench.path.with_name(name).symlink_to(target)
    with pytest.raises(JournalError, match=rf"{name} is a symbolic link"):
        bench.open()
    assert target.exists() != dangling


def test_only_regular_files_are_opened(tmp_path):
    """A pipe is no journal."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(JournalError, match="pipe is not a regular file"):
        open_private(Disk(), tmp_path / "pipe", os.O_RDWR)


def test_a_folder_in_the_place_of_a_file_is_refused(bench):
    """The system's reason is passed on."""
    bench.path.mkdir()
    with pytest.raises(JournalError, match=r"orders\.db cannot be opened: Is a directory"):
        bench.open()


def test_a_second_process_is_refused(bench):
    """One process holds the right to write, and so to send (F1, I26)."""
    bench.open()
    answer = open_elsewhere(bench.path)
    assert answer.startswith("JournalLockedError ")
    assert f"{bench.path} is in use by process {os.getpid()}: an account has one writer" in answer


async def test_the_right_passes_on_when_it_is_given_up(bench):
    """After `close` the next process opens the journal, with the next epoch."""
    first = bench.open()
    assert first.epoch == 1
    await first.close()
    assert open_elsewhere(bench.path) == ""
    assert bench.open().epoch == 3


def test_the_same_process_is_refused_too(bench):
    """Two engines in one process are two writers."""
    bench.open()
    with pytest.raises(JournalLockedError, match="is in use by process"):
        bench.open()


def test_a_lock_without_a_readable_holder_is_a_lock(bench):
    """What the file says is for people; the lock itself decides."""
    bench.open()
    bench.path.with_name("orders.db.lock").write_bytes(b"?")
    with pytest.raises(JournalLockedError, match="is in use by another process"):
        bench.open()


async def test_a_writer_that_was_replaced_writes_nothing(bench):
    """Who lost the right notices before the next send, and before the next write (I26)."""
    journal = bench.open()
    bench.note(journal)
    await journal.commit()
    before = bench.path.read_bytes()
    assert journal.is_current
    fresh = bench.path.with_name("fresh")
    fresh.touch(0o600)
    fresh.replace(bench.path.with_name("orders.db.lock"))
    assert not journal.is_current
    bench.note(journal)
    with pytest.raises(JournalCommitError, match="another process has taken over"):
        await journal.commit()
    assert bench.path.read_bytes() == before


def test_a_lock_replaced_while_it_was_taken_is_taken_again(bench, tmp_path):
    """The lock is held on the file that has the name, not on one that had it."""

    class Swapping(Disk):
        swaps = 1

        def open(self, path, flags):
            fd = super().open(path, flags)
            if self.swaps:
                self.swaps -= 1
                path.unlink()
            return fd

    lock = WriteLock(tmp_path / "some.lock", Swapping())
    assert lock.is_held
    lock.release()


async def test_is_current_ends_with_close(bench):
    """A closed journal gives no right to send."""
    journal = bench.open()
    await journal.close()
    assert not journal.is_current


async def test_an_anchor_that_cannot_be_written_stops_nothing(bench):
    """Without room for the anchor only an old copy goes unnoticed."""
    bench.disk.faults["write_at"] = OSError(28, "No space left on device")
    bench.path.with_name("orders.db.emergency").write_bytes(bytes(64 * 1024))
    bench.path.with_name("orders.db.emergency").chmod(0o600)
    journal = bench.open()
    bench.note(journal)
    await journal.close()
    assert bench.path.with_name("orders.db.lock").read_bytes() == b""

"""The file operations a journal depends on, and who may do them: private files, one writer.

They stand in one class because each can fail, and tests make each one fail.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from execkit.errors import JournalError, JournalLockedError

_sync = getattr(os, "fdatasync", os.fsync)


class Disk:
    """What the journal asks of the operating system; each call raises `OSError` when it fails."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file that only its owner may read, never through a symbolic link."""
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of *data*."""
        while data:
            data = data[os.write(fd, data) :]

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of *data* at a place inside the file."""
        while data:
            done = os.pwrite(fd, data, offset)
            data, offset = data[done:], offset + done

    def sync(self, fd: int) -> None:
        """Return when everything written to the file is on the disk."""
        _sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name."""
        os.link(old, new)

    def replace(self, old: Path, new: Path) -> None:
        """Put a file in the place of another, at once."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Take one name of a file away."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def open_private(disk: Disk, path: Path, flags: int) -> int:
    """Open a file that holds an account's history; refuse links and files that others can read."""
    try:
        fd = disk.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise JournalError(
                f"{path} is a symbolic link; give the path of the file itself"
            ) from None
        raise JournalError(f"{path} cannot be opened: {error.strerror}") from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise JournalError(f"{path} is not a regular file")
    if mode & 0o077:
        os.close(fd)
        raise JournalError(
            f"{path} is open to others (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}"
        )
    return fd


class Anchor(msgspec.Struct, frozen=True):
    """How far the journal had come when its lock was last written."""

    pid: int
    epoch: int
    seq: int


class WriteLock:
    """The right to write a journal, held through a locked file beside it.

    The file also keeps an `Anchor`, so that an old copy of the journal is noticed. Whoever takes the right away by
    force puts a new file in its place: the old one then has no name left, which is what `is_held` looks at.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk
        while True:
            self._fd = open_private(disk, path, os.O_RDWR | os.O_CREAT)
            self.anchor = self._read()
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._fd)
                holder = f"process {self.anchor.pid}" if self.anchor else "another process"
                raise JournalLockedError(
                    f"{path.with_suffix('')} is in use by {holder}: an account has one writer. "
                    "Stop that process first, or give this one an account and journal of its own"
                ) from None
            if self.is_held:  # else it was replaced before it was locked
                break
            os.close(self._fd)

    def _read(self) -> Anchor | None:
        try:
            return msgspec.json.decode(os.pread(self._fd, 4096, 0), type=Anchor)
        except msgspec.MsgspecError:
            return None  # new, or half-written when the power failed

    def note(self, epoch: int, seq: int) -> None:
        """Remember how far the journal has come; where that fails, only an older anchor stays."""
        text = msgspec.json.encode(Anchor(os.getpid(), epoch, seq))
        with suppress(OSError):
            self._disk.write_at(self._fd, text.ljust(127) + b"\n", 0)

    @property
    def is_held(self) -> bool:
        """Tell whether nobody has taken the right away; costs half a microsecond."""
        return os.fstat(self._fd).st_nlink > 0

    def release(self) -> None:
        """Give the right up, also in the name of forked children that inherited the file."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)


def take_right_away(path: Path) -> bool:
    """Take the right to write a journal from whoever holds it; return whether somebody could have held it.

    *path* is that of the lock. Its holder sends nothing more as soon as this returns; what was on its way stays so.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True

"""The file in which a paper exchange keeps its account: a snapshot, and every input since.

A line is written before its input is answered, so whatever anybody was told survives kill -9. Each line carries a
checksum over itself and all lines before it; a last line without its end was being written when the process died,
and nobody was told of it. The matching core is deterministic, so the inputs are all that has to be kept.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import msgspec
import structlog

from execkit.errors import (
    ConfigurationError,
    JournalAccountError,
    JournalCorruptedError,
    JournalLockedError,
    JournalVersionError,
    NotSentError,
)
from execkit.exchanges.inputs import Input

Durability = Literal["process", "power"]

VERSION: Final = 1
_FORMAT: Final = "execkit-paper"
_COMPACT_BYTES: Final = 32 * 1024 * 1024

log = structlog.get_logger("execkit")
_encode = msgspec.json.Encoder().encode
_decode_input = msgspec.json.Decoder(Input).decode


class _Header(msgspec.Struct):
    format: str
    version: int
    account: str


class PaperLedger:
    """One writer's hold on the file. *durability* `power` syncs the disk with each line."""

    def __init__(self, path: Path, *, account: str, durability: Durability = "process") -> None:
        self.path = path
        self._account = account
        self._sync = durability == "power"
        self._file = -1
        self._checksum = 0
        self._size = 0
        self._snapshot_size = 0
        self._is_broken = False
        self._lock = self._take_lock()

    def _take_lock(self) -> int:
        # A file of its own, because compacting replaces the ledger and a lock would stay with the old one.
        try:
            lock = os.open(
                f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise ConfigurationError(
                f"storage: cannot write beside {self.path} ({error.strerror}); name a file in a writable directory"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise JournalLockedError(
                f"{self.path} is in use by another process; stop it, or use another file"
            ) from None
        return lock

    def load(self) -> tuple[bytes, list[Input]] | None:
        """Return the snapshot and the inputs after it, or None when there is no file yet.

        Raises `JournalCorruptedError`, `JournalVersionError` or `JournalAccountError`.
        """
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with os.fdopen(file, "rb") as reader:
            *lines, torn = reader.read().split(b"\n")
        if torn:
            log.warning("paper.torn_line_cut", path=str(self.path), line=len(lines) + 1)
        payloads = self._verified(lines)
        if len(payloads) < 2:
            raise JournalCorruptedError(f"{self.path}: there is no snapshot in it")
        try:
            self._check_header(msgspec.json.decode(payloads[0], type=_Header))
            return payloads[1], [_decode_input(payload) for payload in payloads[2:]]
        except msgspec.DecodeError as error:
            raise JournalCorruptedError(f"{self.path}: {error}") from error

    def _verified(self, lines: list[bytes]) -> list[bytes]:
        checksum, payloads = 0, []
        for number, line in enumerate(lines, 1):
            payload = line[9:]
            checksum = crc32(payload, checksum)
            if line[:9] != b"%08x " % checksum:
                raise JournalCorruptedError(
                    f"{self.path}, line {number}: damaged; restore the file from a copy or remove it to start anew"
                )
            payloads.append(payload)
        return payloads

    def _check_header(self, header: _Header) -> None:
        if header.format != _FORMAT or header.version != VERSION:
            raise JournalVersionError(
                f"{self.path} is {header.format} version {header.version}; this is {_FORMAT} version {VERSION}"
            )
        if header.account != self._account:
            raise JournalAccountError(
                f"{self.path} belongs to account {header.account!r}, not to {self._account!r}"
            )

    def append(self, step: Input) -> None:
        """Write an input; raise `NotSentError`, and leave the file as it was, when that fails."""
        payload = _encode(step)
        checksum = crc32(payload, self._checksum)
        line = b"%08x %b\n" % (checksum, payload)
        if self._is_broken:
            raise NotSentError(f"{self.path} cannot be written since an earlier failure")
        try:
            _write(self._file, line)
            if self._sync:
                os.fdatasync(self._file)
        except OSError as error:
            self._undo()
            raise NotSentError(f"{self.path} cannot be written: {error.strerror}") from error
        self._checksum = checksum
        self._size += len(line)

    def _undo(self) -> None:
        """Cut off what a failed write has left, or refuse everything from now on."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._is_broken = True

    @property
    def is_large(self) -> bool:
        """Tell whether compacting is worth its while."""
        return self._size - self._snapshot_size > max(_COMPACT_BYTES, 4 * self._snapshot_size)

    def compact(self, snapshot: bytes) -> None:
        """Put a new file with only *snapshot* in the place of the old one, in one step.

        An `OSError` leaves the old file in use.
        """
        draft = f"{self.path}.new"
        header = _encode(_Header(_FORMAT, VERSION, self._account))
        first = crc32(header)
        checksum = crc32(snapshot, first)
        content = b"%08x %b\n%08x %b\n" % (first, header, checksum, snapshot)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._snapshot_size = self._size  # should it fail, the next try waits for as much again
        file = os.open(draft, flags, 0o600)
        try:
            _write(file, content)
            os.fsync(file)
            os.replace(draft, self.path)  # noqa: PTH105 - the functions of os, as all around it
        except OSError:
            os.close(file)
            raise
        _sync_directory(self.path.parent)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._checksum = file, checksum
        self._size = self._snapshot_size = len(content)

    def close(self) -> None:
        """Give up the file; safe to call twice."""
        for file in (self._file, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._lock = -1


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

"""The emergency file: room on the disk that was taken in advance, for when the journal cannot commit.

Cancels and proven reductions must still leave when the disk is full, and must still be known after a restart. The
records kept here are appended to the journal when it is opened the next time.
"""

from __future__ import annotations

import os
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from execkit.errors import JournalCommitError, JournalCorruptedError
from execkit.journal import lines
from execkit.journal.disk import Disk, open_private
from execkit.model.records import CommandSent, Entry, Record

SIZE: Final = 64 * 1024
"""Bytes taken in advance: room for about a hundred records."""
FOR_COMMANDS: Final = SIZE // 2
"""Up to here cancels and changes are kept. The rest is for orders: the cancel of a stop that makes room for another,
or for the way out, is never the last thing that could be recorded."""


class EmergencyFile:
    """Keeps records in a file that never grows. Raises `JournalError` when it cannot be made or read."""

    def __init__(self, path: Path, account: str, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        # A chain of its own for each account, so that another account's file is noticed.
        self._start = blake2b(account.encode(), digest_size=16).hexdigest().encode()
        self._fd = open_private(disk, path, os.O_RDWR | os.O_CREAT)
        try:
            data = self._whole()
            self.entries = self._parse(data)
        except BaseException:
            self.close()
            raise

    def _whole(self) -> bytes:
        """Return the content, after filling the file up to its size where that was not done."""
        data = os.pread(self._fd, SIZE, 0)
        if len(data) < SIZE:
            try:
                self._disk.write_at(self._fd, bytes(SIZE - len(data)), len(data))
                self._disk.sync(self._fd)
            except OSError as error:
                raise JournalCommitError(
                    f"{self._path}: no room for {SIZE} bytes: {error.strerror}"
                ) from error
        return data

    def _parse(self, data: bytes) -> list[Entry]:
        self._chain = self._start
        self._offset = 0
        entries: list[Entry] = []
        written = data.rstrip(b"\0")
        self._is_used = bool(written)
        if written.startswith(b"\0"):
            return entries  # a crash came while it was cleared
        *whole, rest = written.split(b"\n")
        for number, text in enumerate(whole, 1):
            try:
                payload, self._chain = lines.unseal(text + b"\n", self._chain)
                entries.append(lines.decode_entry(payload))
            except (ValueError, msgspec.MsgspecError) as error:
                raise JournalCorruptedError(f"{self._path}, line {number}: {error}") from None
            self._offset += len(text) + 1
        if rest and not lines.is_torn(rest):
            raise JournalCorruptedError(
                f"{self._path}, line {len(whole) + 1}: it was changed at its end"
            )
        return entries

    def write(self, record: Record, at: datetime) -> None:
        """Keep a record, durably; raise `JournalCommitError` when it cannot be."""
        entry = Entry(len(self.entries) + 1, at, record)
        line, chain = lines.seal(lines.encode(entry), self._chain)
        most = FOR_COMMANDS if isinstance(record, CommandSent) else SIZE
        if self._offset + len(line) > most:
            raise JournalCommitError(f"{self._path} is full; restart to take its records over")
        self._is_used = True
        try:
            self._disk.write_at(self._fd, line, self._offset)
            self._disk.sync(self._fd)
        except OSError as error:
            raise JournalCommitError(f"{self._path} cannot be written: {error.strerror}") from error
        self._chain = chain
        self._offset += len(line)
        self.entries.append(entry)

    def clear(self) -> None:
        """Forget the records, which are in the journal now; raise `OSError` when that fails."""
        if self._is_used:
            # The first byte empties the file; a power failure may leave any part of the rest.
            for zeros in (bytes(1), bytes(SIZE)):
                self._disk.write_at(self._fd, zeros, 0)
                self._disk.sync(self._fd)
        self._is_used = False
        self._chain, self._offset = self._start, 0
        self.entries = []

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

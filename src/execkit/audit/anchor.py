"""Anchors: how far a journal had come, noted where whoever can write the journal cannot.

A chain of hashes shows a record that was changed, taken out or moved, but not that the end was cut off, nor that all
of it was written anew. The number and hash of the last line, kept on another disk, by another user or in a system
log, show both.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from execkit.clock import Clock
from execkit.errors import ConfigurationError, JournalCommitError
from execkit.journal.disk import Disk
from execkit.journal.file import FileJournal
from execkit.virtual_time import VirtualTimeLoop


class Anchor(msgspec.Struct, frozen=True):
    """That a journal had come to record *seq*, and the hash of its last line was *head*."""

    at: datetime
    account: str
    seq: int
    head: str


def read_anchors(path: str | os.PathLike[str]) -> list[Anchor]:
    """Return the anchors in a file, oldest first; raises `ConfigurationError` naming a line that is none.

    An unfinished last line, which a crash leaves, is passed over.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    anchors = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            anchors.append(msgspec.json.decode(line, type=Anchor))
        except msgspec.MsgspecError as error:
            raise ConfigurationError(f"{path}:{number}: is no anchor: {error}") from None
    return anchors


def write_anchor(path: str | os.PathLike[str], anchor: Anchor) -> None:
    """Append an anchor to a file, which is made private to its owner, and see it on the disk.

    Raises `ConfigurationError` when that is not possible.
    """
    disk = Disk()
    try:
        fd = disk.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            disk.write(fd, msgspec.json.encode(anchor) + b"\n")
            disk.sync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error


async def anchor_journal(
    journal: FileJournal, path: str | os.PathLike[str], clock: Clock
) -> Anchor:
    """Note in the file at *path* how far a journal has come, once that much is durable.

    Raises `JournalCommitError` or `ConfigurationError`. The file is written in a thread: it may be on a disk that
    hangs.
    """
    anchor = Anchor(clock.now(), journal.account, journal.last_seq, journal.head)
    # Not what is being written just now: a power cut would make a sound journal look cut off.
    await journal.commit()
    if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
        write_anchor(path, anchor)
    else:
        await asyncio.to_thread(write_anchor, path, anchor)
    return anchor


async def keep_anchored(
    journal: FileJournal,
    path: str | os.PathLike[str],
    clock: Clock,
    *,
    every: timedelta,
    alarm: Callable[[str], object],
) -> None:
    """Anchor a journal now and then, until cancelled; what prevents it is told to *alarm*, once for each reason.

    Trading goes on without: an anchor proves the past, it protects nothing.
    """
    trouble = ""
    while True:
        try:
            await anchor_journal(journal, path, clock)
            trouble = ""
        except (JournalCommitError, ConfigurationError) as error:
            if str(error) != trouble:
                trouble = str(error)
                alarm(trouble)
        await asyncio.sleep(every.total_seconds())

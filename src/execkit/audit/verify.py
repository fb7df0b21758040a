"""Is the record of what happened still the one that was written? Checked line by line, and against anchors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from execkit.audit.anchor import Anchor
from execkit.errors import JournalAccountError, JournalCorruptedError
from execkit.journal import disk
from execkit.journal.segments import JournalReader, Verified
from execkit.model.records import BarClosed


class AuditCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A journal that is whole."""

    account: str
    journal: Verified
    evaluations: int
    anchors: int
    """Anchors that its lines agree with."""
    earlier_anchors: int
    """Anchors from before the first record that is here; nothing can be said of them."""


def verify_audit(
    journal: str | os.PathLike[str],
    anchors: Iterable[Anchor] = (),
    *,
    is_partial: bool = False,
) -> AuditCheck:
    """Read every line of every segment of a journal and compare it with *anchors*.

    Raises `JournalCorruptedError` naming file and line of a record that was edited, taken out, put in or moved; and
    when the end was cut off, or all written anew, as far as an anchor, or the journal's lock file, knows better.
    Segments that are missing at the beginning are an error too, unless *is_partial* says that they are kept elsewhere.
    """
    path = Path(journal)
    open_anchors: dict[tuple[int, bytes], Anchor] = {}
    with JournalReader(path) as reader:
        first = reader.segment.head
        if first.segment > 1 and not is_partial:
            raise JournalCorruptedError(
                f"{path}: segments 1 to {first.segment - 1}, up to record {first.seq}, are not here; put them back, or "
                "say that they are kept elsewhere (--partial)"
            )
        given = list(anchors)
        for anchor in given:
            if anchor.account != first.account:
                raise JournalAccountError(
                    f"{path} belongs to account {first.account!r}, an anchor to {anchor.account!r}; give its own file"
                )
            if anchor.seq >= first.seq:
                open_anchors[anchor.seq, anchor.head.encode()] = anchor
        covered = len(open_anchors)
        reader.watch(lambda seq, chain: open_anchors.pop((seq, chain), None))
        records = evaluations = 0
        for entry in reader.entries():
            records += 1
            if isinstance(entry.record, BarClosed):
                evaluations += len(entry.record.decisions)
        last = reader.segment
        found = Verified(
            segments=last.head.segment - first.segment + 1,
            records=records,
            first_seq=first.seq + 1,
            last_seq=last.seq,
            epoch=last.epoch,
            head=last.chain.decode(),
            unfinished=last.rest,
        )
    for anchor in sorted(open_anchors.values(), key=lambda each: each.seq):
        raise _broken(path, anchor, found)
    _check_lock(path, found)
    return AuditCheck(
        account=first.account,
        journal=found,
        evaluations=evaluations,
        anchors=covered,
        earlier_anchors=sum(anchor.seq < first.seq for anchor in given),
    )


def _broken(path: Path, anchor: Anchor, found: Verified) -> JournalCorruptedError:
    when = f"{anchor.at:%Y-%m-%d %H:%M:%S} UTC"
    if anchor.seq > found.last_seq:
        return JournalCorruptedError(
            f"{path} ends with record {found.last_seq}, but had come to record {anchor.seq} on {when}: its end was cut "
            "off, or an older copy was put back"
        )
    return JournalCorruptedError(
        f"{path}: after record {anchor.seq} the hash was {anchor.head} on {when}, and none is now: "
        "it was written anew, or cut off there"
    )


def _check_lock(path: Path, found: Verified) -> None:
    """Compare with what the journal's own lock file remembers; nearer than an anchor, but always there."""
    try:
        data = path.with_name(f"{path.name}.lock").read_bytes()
        known = msgspec.json.decode(data, type=disk.Anchor)
    except (OSError, msgspec.MsgspecError):
        return
    if known.seq > found.last_seq or known.epoch > found.epoch:
        raise JournalCorruptedError(
            f"{path} ends with record {found.last_seq} of opening {found.epoch}, but its lock file knows of record "
            f"{known.seq} of opening {known.epoch}: its end was cut off, or an older copy was put back"
        )

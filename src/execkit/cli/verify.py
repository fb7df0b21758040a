"""`execkit verify`: has anything in a journal been changed, taken out or put in?"""

from __future__ import annotations

from pathlib import Path

import click

from execkit.journal.segments import verify as verify_journal


@click.command()
@click.argument("journal", type=click.Path(path_type=Path))
def verify(journal: Path) -> None:
    """Check every line of JOURNAL against its chain of hashes.

    Keep the last line of the answer elsewhere: a chain alone cannot show that its end was cut off.
    """
    found = verify_journal(journal)
    click.echo(
        f"{journal}: whole; {found.records} records in {found.segments} segments, opened {found.epoch} times"
    )
    if found.unfinished:
        click.echo(
            f"after them stand {len(found.unfinished)} bytes of an unfinished line; the next opening takes them away"
        )
    click.echo(f"head {found.head} at record {found.last_seq}")

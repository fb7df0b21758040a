"""`execkit store`: the SQLite projection of a journal."""

from __future__ import annotations

from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from execkit.store.feed import rebuild as rebuild_store
from execkit.store.projection import default_url


@click.group()
def store() -> None:
    """Work on the store, the copy of a journal that SQL can ask."""


@store.command()
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--url", help="SQLAlchemy address of the store; by default JOURNAL.sqlite.")
def rebuild(journal: Path, url: str | None) -> None:
    """Make the store of JOURNAL anew. Also while an engine writes the journal."""
    try:
        records = rebuild_store(journal, url)
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        raise click.ClickException(
            f"the store cannot be written: {reason}; close what uses it, or name another with --url"
        ) from error
    click.echo(f"{records} records in {url or default_url(journal)}")

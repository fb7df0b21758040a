"""`execkit config check`: is a configuration file, with everything it names, fit to run?"""

from __future__ import annotations

from pathlib import Path

import click

from execkit.config import Config
from execkit.engine import ExecutionEngine


@click.group()
def config() -> None:
    """Work on configuration files."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check FILE, the plans it names and the exchange's options; nothing is opened or connected."""
    settings = Config.load(file)
    engine = ExecutionEngine.from_config(settings)
    click.echo(f"{file}: good")
    click.echo(f"exchange: {engine.settings.exchange!r}")
    click.echo(f"journal:  {settings.journal_path} ({settings.journal.durability})")
    click.echo(f"plans:    {', '.join(plan.name for plan in engine.settings.plans) or 'none'}")
    click.echo(f"hash:     {settings.hash}")

"""`execkit check`: are trade plans fit to run, before anything is opened or connected?"""

from __future__ import annotations

from pathlib import Path

import click

from execkit.config import Config
from execkit.errors import ConfigurationError
from execkit.functions.builtin import standard_registry
from execkit.plans import Rule, TradePlan, load_plans


@click.command()
@click.argument(
    "files", metavar="PLAN...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration with the plug-ins that the plans use.",
)
def check(files: tuple[Path, ...], config_file: Path | None) -> None:
    """Check the trade plans in each PLAN file: keys, values, functions and their parameters.

    What is wrong is told with file, line, key and the fix, all at once; the exit code is 1 then.
    """
    registry = standard_registry() if config_file is None else Config.load(config_file).registry()
    problems = []
    owners: dict[str, Path] = {}
    for file in files:
        try:
            plans = load_plans(file, functions=registry)
        except ConfigurationError as error:
            problems.append(str(error))
            continue
        for plan in plans:
            if plan.name in owners:
                problems.append(
                    f"{file}: plan {plan.name!r} is in {owners[plan.name]} too; rename one"
                )
            owners.setdefault(plan.name, file)
            _show(file, plan)
    if problems:
        raise click.ClickException("\n".join(problems))


def _show(file: Path, plan: TradePlan) -> None:
    missing = [name for name in ("bars", "instrument", "account") if getattr(plan, name) is None]
    click.echo(f"{file}: {plan.name} is good")
    click.echo(f"  market  {plan.symbol}" + (f" on {plan.exchange}" if plan.exchange else ""))
    click.echo(f"  entry   {_rules(plan.entry)}")
    click.echo(f"  exit    {_rules(plan.exit) or 'by stop and target only'}")
    click.echo(f"  status  {plan.status.value}, {'repeats' if plan.repeat else 'one trade'}")
    click.echo(
        f"  replay  lacks {', '.join(missing)}" if missing else "  replay  has all that it needs"
    )


def _rules(rules: tuple[Rule, ...]) -> str:
    return ", ".join(f"{rule.function} at {rule.timeframe}" for rule in rules)

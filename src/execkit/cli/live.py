"""`execkit run` and `execkit paper`: trade plans on live market data, for real or on the paper exchange."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import attrs
import click
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from execkit.bars.live import LiveOptions
from execkit.config import Config
from execkit.config_yaml import scalar
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError
from execkit.exchanges.factory import ExchangeFactory
from execkit.exchanges.paper import PaperExchange
from execkit.functions.builtin import standard_registry
from execkit.journal.segments import read_entries
from execkit.model.events import Event
from execkit.model.fields import Duration
from execkit.notify.messages import message_of
from execkit.numbers import positive
from execkit.orders.executions import split_symbol
from execkit.plans import TradePlan, load_plans
from execkit.report.summary import Summary
from execkit.report.terminal import show

_START: Final = Decimal(10_000)
_LASTS: Final = TypeAdapter[timedelta](Duration)


@click.command()
@click.option("--venue", required=True, help="Whose market data is used, e.g. binance.")
@click.option(
    "--plan",
    "plan_file",
    required=True,
    type=click.Path(path_type=Path),
    help="File of trade plans.",
)
@click.option("--symbol", help="Trade this symbol instead of the plan's.")
@click.option(
    "--journal", type=click.Path(path_type=Path), help="Keep the journal and the account here."
)
@click.option(
    "--balance",
    "balances",
    multiple=True,
    metavar="ASSET=AMOUNT",
    help="What the account starts with; by default the plan's, else 10000 of the quote asset.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the venue's adapter, e.g. rest_url=http://127.0.0.1:8900.",
)
@click.option(
    "--calendar",
    help="Exchange whose sessions count, e.g. XNYS, or 24/7; by default what the venue is.",
)
@click.option("--for", "lasts", metavar="DURATION", help="Stop after this time, e.g. 1h.")
def paper(
    venue: str,
    plan_file: Path,
    symbol: str | None,
    journal: Path | None,
    balances: tuple[str, ...],
    options: tuple[str, ...],
    calendar: str | None,
    lasts: str | None,
) -> None:
    """Run trade plans on the live prices of VENUE with money that is not real.

    Where the venue's market data is public, as on Binance, no key is needed; Alpaca wants one, and Interactive Brokers
    a running gateway.
    """
    registry = standard_registry()
    plans = load_plans(plan_file, functions=registry)
    if symbol is not None:
        plans = tuple(plan.model_copy(update={"symbol": symbol}) for plan in plans)
    feed = ExchangeFactory().create_feed(
        venue, **{name: scalar(text) for name, text in map(_pair, options)}
    )
    first = plans[0]
    start = {asset: positive(f"--balance {asset}", text) for asset, text in map(_pair, balances)}
    if not start:
        start = first.account.balances if first.account else {split_symbol(first.symbol)[1]: _START}
    with tempfile.TemporaryDirectory(prefix="execkit-") as folder:
        path = journal or Path(folder) / "paper.db"
        engine = ExecutionEngine(
            PaperExchange(
                balances=start, feed=feed, allow_short=any(p.risk.allow_short for p in plans)
            ),
            journal=path,
            durability="process",
            functions=registry,
            plans=plans,
            currency=first.account.currency if first.account else None,
            live=LiveOptions(calendar=calendar),
        )
        _trade(engine, plans, path, lasts)


@click.command()
@click.argument("config_file", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--for", "lasts", metavar="DURATION", help="Stop after this time, e.g. 1h.")
def run(config_file: Path, lasts: str | None) -> None:
    """Run the engine that CONFIG describes, with its plans on the venue's live bars, until Ctrl-C."""
    config = Config.load(config_file)
    engine = ExecutionEngine.from_config(config)
    engine.settings = attrs.evolve(engine.settings, live=config.live.build())
    _trade(engine, engine.settings.plans, config.journal_path, lasts)


def _trade(
    engine: ExecutionEngine, plans: Iterable[TradePlan], journal: Path, lasts: str | None
) -> None:
    try:
        seconds = None if lasts is None else _LASTS.validate_python(lasts).total_seconds()
    except ValidationError:
        raise ConfigurationError(f"--for: {lasts!r} is no duration such as 30s, 2m or 1h") from None
    names = ", ".join(f"{plan.name} on {plan.symbol}" for plan in plans) or "no plans"
    click.echo(
        f"{engine.settings.exchange!r}: {names}; journal {journal}; Ctrl-C ends it", err=True
    )
    try:
        asyncio.run(_until_the_end(engine, seconds))
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    summary = Summary.of(read_entries(journal), marks=engine.book.marks)
    show(Console(), summary, currency=engine.parts.currency, title=names)


async def _until_the_end(engine: ExecutionEngine, seconds: float | None) -> None:
    engine.events.subscribe(Event, _tell)
    async with engine:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            pass


def _tell(event: Event) -> None:
    message = message_of(event)
    if message is not None:
        click.echo(f"{event.at:%H:%M:%S} {message.title}: {message.text}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigurationError(f"{text!r} is not NAME=VALUE")
    return name, value

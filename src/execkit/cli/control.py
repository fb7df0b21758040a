"""`execkit status`, `halt`, `cancel-all` and so on: what a person does to an engine that runs in another process."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from execkit import at_rest
from execkit.config import Config
from execkit.control.client import NoEngineError, ask
from execkit.control.commands import obey, state_view
from execkit.control.protocol import LIFE, Request
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError, ExecKitError
from execkit.events import EventBus
from execkit.journal.file import take_over

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class Target:
    """Which engine, and how the answer is printed."""

    journal: Path
    config: Path | None
    as_json: bool
    force: bool = False


def _options(*, force: bool) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        options = [
            click.option(
                "--journal",
                type=click.Path(path_type=Path),
                help="The engine's journal; by default that of --config, else orders.db.",
            ),
            click.option(
                "--config", type=click.Path(path_type=Path), help="The engine's configuration file."
            ),
            click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON."),
        ]
        if force:
            options.append(
                click.option(
                    "--force",
                    is_flag=True,
                    help="Take the account away from an engine that hangs, and do it here; needs --config.",
                )
            )
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _target(
    journal: Path | None, config: Path | None, as_json: bool, force: bool = False
) -> Target:
    if journal is None:
        journal = Path("orders.db") if config is None else Config.load(config).journal_path
    if force and config is None:
        raise ConfigurationError("--force: it needs --config, to know the venue and its settings")
    return Target(journal, config, as_json, force)


def _do(target: Target, command: str, **arguments: str | bool) -> Any:
    """Have the engine do it; with --force do it here when no engine answers."""
    given = {name: value for name, value in arguments.items() if value not in (None, "")}
    try:
        return ask(target.journal, command, given)
    except NoEngineError as error:
        if not target.force or target.config is None:
            if command != "halt":
                raise
            raise NoEngineError(
                f"{error}. `touch {target.journal}.halt` halts it at once, or when it starts"
            ) from error
        click.echo(f"{error}", err=True)
    return asyncio.run(_do_here(target.config, command, given))


async def _do_here(config: Path, command: str, arguments: dict[str, str | bool]) -> Any:
    """Take the account over, recover it, do one thing, and leave."""
    settings = Config.load(config)
    engine = _built(settings)  # before: what is wrong here must not take the right to send away
    taken = take_over(settings.journal_path)
    click.echo(
        f"{'took over' if taken else 'opening'} {settings.journal_path}; recovering", err=True
    )
    actor = f"{getpass.getuser()} --force"
    if command == "halt":  # it needs no venue, which may be down
        cause = str(arguments.get("cause", "by hand"))
        return state_view(await at_rest.halt(engine.settings, cause, actor=actor))
    async with engine:
        request = Request(
            command=command,
            actor=actor,
            nonce="",
            expires=engine.desk.clock.now() + LIFE,
            arguments=arguments,
        )
        return await obey(engine.desk, request)


def _built(settings: Config) -> ExecutionEngine:
    """Build the engine that does one thing; where its messages have no address it goes without them."""
    if settings.notify is not None:
        try:
            settings.notify.build()(EventBus())
        except ConfigurationError as error:
            click.echo(f"no messages are sent: {error}", err=True)
            settings = settings.model_copy(update={"notify": None})
    engine = ExecutionEngine.from_config(settings)
    engine.settings = attrs.evolve(engine.settings, plans=(), control=False)
    return engine


def _show(target: Target, answer: Any) -> None:
    if target.as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    if isinstance(answer, list):
        _show_rows(answer)
        return
    for name, value in answer.items():
        if isinstance(value, list) and name == "orders":
            _show_rows(value)
            continue
        if isinstance(value, dict) and value:
            click.echo(f"{name.replace('_', ' ')}:")
            for key, text in value.items():
                click.echo(f"  {key}: {text}")
            continue
        text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' ')}: {text if text not in ('', {}) else '-'}")
    if answer.get("trading_state", "active") != "active" or answer.get("blocked"):
        if answer.get("resting_entries"):
            click.echo(f"to end what rests: execkit cancel-all --journal {target.journal}")
        blocked = list(answer.get("blocked", ()))
        only = answer.get("trading_state") == "active" and len(blocked) == 1
        symbol = f"--symbol {blocked[0]} " if only else ""
        click.echo(f"to trade again: execkit resume {symbol}--journal {target.journal}")


def _show_rows(rows: list[dict[str, str]]) -> None:
    """One line each, with what is known of it: a table of so many columns fits no terminal."""
    for row in rows:
        click.echo(_line(row))
    if not rows:
        click.echo("none")


def _line(row: dict[str, str]) -> str:
    return "  ".join(f"{name}={value}" for name, value in row.items() if value != "")


@click.command()
@_options(force=False)
def status(journal: Path | None, config: Path | None, as_json: bool) -> None:
    """Tell how a running engine is: trading state, positions, orders, doubts, last alarms."""
    target = _target(journal, config, as_json)
    _show(target, _do(target, "status"))


@click.command()
@_options(force=False)
def orders(journal: Path | None, config: Path | None, as_json: bool) -> None:
    """List the open orders of a running engine."""
    target = _target(journal, config, as_json)
    _show(target, _do(target, "orders"))


@click.command()
@click.option(
    "--history", is_flag=True, help="Closed ones instead, from the store; needs no engine."
)
@click.option("--symbol", default="", help="With --history: only this symbol.")
@click.option("--limit", default=20, show_default=True, help="With --history: the newest so many.")
@_options(force=False)
def positions(
    history: bool,
    symbol: str,
    limit: int,
    journal: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """List the positions of a running engine with their protection, or those that were closed."""
    target = _target(journal, config, as_json)
    if not history:
        _show(target, _do(target, "positions"))
        return
    # The database driver takes long to import, and the commands for emergencies do without.
    from execkit.cli.history import closed_positions  # noqa: PLC0415

    closed = closed_positions(target.journal, symbol or None, limit)
    if target.as_json:
        click.echo(json.dumps(closed, indent=2))
        return
    for position in closed:
        fills = position.pop("fills")
        _show_rows([position])
        for fill in fills:
            click.echo("  " + _line(fill))
    if not closed:
        click.echo("none")


@click.command()
@click.argument("cause", default="by hand")
@_options(force=True)
def halt(cause: str, journal: Path | None, config: Path | None, as_json: bool, force: bool) -> None:
    """Let nothing leave that adds exposure, because of CAUSE, until `execkit resume`; it survives a restart.

    Where nobody answers: `touch JOURNAL.halt` halts too.
    """
    target = _target(journal, config, as_json, force)
    _show(target, _do(target, "halt", cause=cause))


@click.command()
@click.option("--symbol", default="", help="Release only this symbol.")
@_options(force=False)
def resume(symbol: str, journal: Path | None, config: Path | None, as_json: bool) -> None:
    """Release a halt, and the blocked symbols."""
    target = _target(journal, config, as_json)
    _show(target, _do(target, "resume", symbol=symbol))


_no_halt = click.option(
    "--no-halt", is_flag=True, help="Let entries go on; by default they end until `execkit resume`."
)


@click.command("cancel-all")
@click.option("--symbol", default="", help="Only this symbol.")
@_no_halt
@click.option("--include-protection", is_flag=True, hidden=True)
@_options(force=True)
def cancel_all(
    symbol: str,
    no_halt: bool,
    include_protection: bool,
    journal: Path | None,
    config: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    """Halt entries and cancel every open order of ours at once. Stops and targets stay: `flatten` takes them away."""
    target = _target(journal, config, as_json, force)
    wishes = {"include_protection": True} if include_protection else {}
    answer = _do(target, "cancel-all", symbol=symbol, halt=not no_halt, **wishes)
    _show(target, answer)
    if answer["not_proven_gone"]:
        count = len(answer["not_proven_gone"])
        raise ExecKitError(f"{count} orders are not proven gone; the engine asks on")


@click.command()
@click.option("--symbol", default="", help="Only this symbol.")
@_no_halt
@_options(force=True)
def flatten(
    symbol: str,
    no_halt: bool,
    journal: Path | None,
    config: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    """Halt entries, cancel those that are open and close every position at the market; tell what is left."""
    target = _target(journal, config, as_json, force)
    _show_taken_out(target, _do(target, "flatten", symbol=symbol, halt=not no_halt))


@click.command()
@click.argument("symbol")
@_options(force=True)
def close(
    symbol: str, journal: Path | None, config: Path | None, as_json: bool, force: bool
) -> None:
    """Cancel what is under way in SYMBOL and close its position at the market. A new signal may enter it again."""
    target = _target(journal, config, as_json, force)
    _show_taken_out(target, _do(target, "close", symbol=symbol))


def _show_taken_out(target: Target, answer: Any) -> None:
    if not answer["flat"] and not answer["left"] and not target.as_json:
        click.echo("nothing was open")
    _show(target, answer)
    if answer["left"]:
        raise ExecKitError(f"not everything is out; look at {', '.join(answer['left'])}")


@click.command()
@click.argument("order")
@click.option(
    "--as",
    "as_",
    required=True,
    type=click.Choice(["presumed_absent", "cancelled", "rejected", "expired"]),
    help="What you saw at the venue became of it.",
)
@_options(force=False)
def resolve(order: str, as_: str, journal: Path | None, config: Path | None, as_json: bool) -> None:
    """Settle ORDER (a client order id) that is in doubt, after you looked at the venue yourself."""
    target = _target(journal, config, as_json)
    _show(target, _do(target, "resolve", order=order, **{"as": as_}))

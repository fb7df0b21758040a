"""The command line: `execkit demo`, `execkit replay` and what a person needs beside a running engine.

A command is imported when it is called, so that asking for help does not load a database driver.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
import structlog

from execkit.errors import ExecKitError

_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "audit": ("execkit.cli.audit:audit", "Show what functions said, and what came of it."),
    "verify-audit": ("execkit.cli.audit:verify_audit", "Check a journal against noted heads."),
    "cancel-all": ("execkit.cli.control:cancel_all", "Halt, and cancel every open order of ours."),
    "close": ("execkit.cli.control:close", "Close one position at the market."),
    "flatten": ("execkit.cli.control:flatten", "Halt, and close every position at the market."),
    "halt": ("execkit.cli.control:halt", "Let nothing leave that adds exposure."),
    "orders": ("execkit.cli.control:orders", "List the open orders of a running engine."),
    "paper": ("execkit.cli.live:paper", "Run plans on live prices, without real money."),
    "positions": ("execkit.cli.control:positions", "List positions with their protection."),
    "resolve": ("execkit.cli.control:resolve", "Settle an order in doubt by hand."),
    "resume": ("execkit.cli.control:resume", "Release a halt."),
    "run": ("execkit.cli.live:run", "Run the engine of a configuration file."),
    "status": ("execkit.cli.control:status", "Tell how a running engine is."),
    "check": ("execkit.cli.check:check", "Check trade plans."),
    "config": ("execkit.cli.config:config", "Check a configuration file."),
    "conformance": ("execkit.cli.conformance:conformance", "Put an adapter through its contract."),
    "demo": ("execkit.cli.demo:demo", "Trade one generated day offline."),
    "replay": ("execkit.cli.replay:replay", "Run a trade plan on a file of bars."),
    "store": ("execkit.cli.store:store", "Rebuild the SQL copy of a journal."),
    "venue": ("execkit.cli.venue:venue", "Run a venue for tests on this machine."),
    "verify": ("execkit.cli.verify:verify", "Check that nobody changed a journal."),
}
"""Where each command is, and what it does in a line."""


class _Commands(click.Group):
    """Finds commands by name, and turns our errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what execkit raises on purpose is a message, not a traceback."""
        try:
            return super().invoke(ctx)
        except ExecKitError as error:
            raise click.ClickException(str(error)) from error


@click.command("execkit", cls=_Commands)
@click.version_option(package_name="execkit", prog_name="execkit")
@click.option("-v", "--verbose", count=True, help="Log to stderr; twice for everything.")
def main(verbose: int) -> None:
    """From a trading signal to one correct order."""
    levels = (logging.CRITICAL, logging.INFO, logging.DEBUG)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(levels[min(verbose, 2)]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

"""`execkit conformance`: runs the adapter contract against any adapter, a user's own too."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from execkit.exchanges.base import ExchangeAdapter
from execkit.testing.contract import AdapterContract, CaseResult, contract_of, run_contract


@click.command()
@click.argument("target")
@click.option("--symbol", help="Market to trade in; a contract class has its own.")
@click.option("--patience", type=float, help="Seconds that the venue may take to show its news.")
@click.option("--only", default="ac", show_default=True, help="Run the cases that start like this.")
def conformance(target: str, symbol: str | None, patience: float | None, only: str) -> None:
    """Run the adapter contract against TARGET and print how each case ended.

    TARGET is module:name of a function or class that makes a new adapter without arguments, or of a subclass of
    execkit.testing.AdapterContract, which can also control the venue. Small real orders are placed: use
    an account for tests. Ends with 1 when a case fails, with 2 when TARGET cannot be used.
    """
    contract = _contract(_load(target))
    if symbol is not None:
        contract.symbol = symbol
    if patience is not None:
        contract.patience = patience
    results = run_contract(contract, only=lambda case: case.name.startswith(only))
    for result in results:
        click.echo(_line(result))
    counts = Counter(result.verdict for result in results)
    click.echo(
        f"\n{counts['pass']} passed, {counts['skip']} skipped, {counts['fail']} failed of {len(results)} cases"
    )
    if counts["fail"] or not counts["pass"]:
        raise SystemExit(1)


def _line(result: CaseResult) -> str:
    text = result.case.rule if result.verdict == "pass" else result.detail
    if result.verdict == "fail":
        text = f"{result.case.rule}\n{'':5}{text}"
    return f"{result.verdict:5}{result.case.name:36} {text}"


def _load(target: str) -> Any:
    module_name, _, name = target.partition(":")
    if not name:
        raise click.UsageError(f"TARGET: {target!r} is not module:name, e.g. my_venue:MyAdapter")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise click.UsageError(f"TARGET: {module_name} cannot be imported: {error}") from error
    finally:
        sys.path.pop(0)
    try:
        return getattr(module, name)
    except AttributeError:
        raise click.UsageError(f"TARGET: {module_name} has no {name}") from None


def _contract(target: Any) -> AdapterContract:
    if inspect.isclass(target) and issubclass(target, AdapterContract):
        return target()
    if not callable(target):
        raise click.UsageError(f"TARGET: {target!r} makes no adapter: it cannot be called")
    if inspect.isclass(target) and not issubclass(target, ExchangeAdapter):
        raise click.UsageError(f"TARGET: {target.__name__} is no ExchangeAdapter")
    return contract_of(target)

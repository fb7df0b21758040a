"""Functions made of functions, written in code: `all_of(use("close_above", threshold_price=42_000), ...)`.

What comes out is plain data, as a plan file has it, so that plans from files and from code are equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from execkit.functions.base import Part


def use(function: str, **parameters: Any) -> Part:
    """Name a registered function with its parameters, for a combinator or `Rule.of`.

    >>> all_of(use("close_above", threshold_price=42_000), use("breakout", bars=20)).function
    'all_of'
    """
    return Part(function=function, parameters=parameters)


def all_of(*of: Part) -> Part:
    """Act when all parts want the same."""
    return use("all_of", of=_plain(of))


def any_of(*of: Part) -> Part:
    """Act when at least one part wants something."""
    return use("any_of", of=_plain(of))


def k_of_n(k: int, *of: Part) -> Part:
    """Act when at least *k* parts want the same."""
    return use("k_of_n", k=k, of=_plain(of))


def not_(of: Part, *, action: str) -> Part:
    """Answer *action* when the part wants nothing."""
    return use("not_", of=of.model_dump(), action=action)


def cooldown(of: Part, *, bars: int) -> Part:
    """Do nothing for *bars* bars after the part wanted something."""
    return use("cooldown", of=of.model_dump(), bars=bars)


def confirm(of: Part, *, bars: int) -> Part:
    """Act once the part has wanted the same at *bars* closes in a row."""
    return use("confirm", of=of.model_dump(), bars=bars)


def only_in_session(of: Part, **session: Any) -> Part:
    """Act inside a session only: *start*, *end*, *timezone* and *days*, see `SessionParams`."""
    return use("only_in_session", of=of.model_dump(), **session)


def _plain(parts: Iterable[Part]) -> list[dict[str, Any]]:
    return [part.model_dump() for part in parts]

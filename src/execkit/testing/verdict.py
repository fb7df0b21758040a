"""How a conformance case ends before its last line: it fails, or cannot be run here."""

from __future__ import annotations

from typing import NoReturn


class CaseFailed(AssertionError):  # noqa: N818 - pytest shows it, nobody handles it
    """The adapter breaks a rule; the text says which and how it shows."""


class CaseSkipped(Exception):  # noqa: N818 - it is no error
    """The case cannot be run here; the text is the reason."""


def fail(text: str) -> NoReturn:
    """End the case: the adapter breaks the rule."""
    raise CaseFailed(text)


def check(condition: object, text: str) -> None:
    """End the case unless the condition holds."""
    if not condition:
        fail(text)

"""Files stay small and say why they exist."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
LIMIT = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=name_of)
def test_file_is_small_and_introduces_itself(path):
    """At most 400 lines, with a sentence or two at the top."""
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= LIMIT, f"{name_of(path)} has {lines} lines: split it by subject"
    assert ast.get_docstring(ast.parse(text)), f"{name_of(path)} has no docstring"

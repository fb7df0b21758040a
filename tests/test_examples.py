"""Every example is short, says what it shows, and runs as it stands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
LIMIT = 60


def name_of(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_example_is_short_and_says_what_it_shows(path):
    """A newcomer reads it on one screen."""
    text = path.read_text()
    assert len(text.splitlines()) < LIMIT
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_example_runs(path, tmp_path):
    """It ends well, offline, without a warning, and leaves its files where it was started."""
    command = [sys.executable, "-W", "error", path]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr

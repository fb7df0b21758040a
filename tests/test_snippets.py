"""The collector in the root conftest runs what documents show, and notices when it fails."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_document(folder: Path, text: str) -> tuple[int, str]:
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    (folder / "page.md").write_text(text)
    settings = ["-c", ROOT / "pyproject.toml", "--rootdir", folder, "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *settings, "page.md"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_blocks_share_a_namespace_and_write_elsewhere(tmp_path):
    """The blocks of a document are one script with a directory of its own."""
    text = """
```python
import asyncio
from pathlib import Path

async def main() -> None:
    Path("journal.db").write_text("x")

asyncio.run(main())
```

1. In a list:

   ```python
   assert Path("journal.db").exists()
   assert __name__ == "__main__"
   ```

<!-- snippet: skip needs a key -->
```python
raise RuntimeError
```

```sh
not python
```
"""
    code, output = run_document(tmp_path, text)
    assert code == 0, output
    assert "1 passed" in output
    assert not (tmp_path / "journal.db").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Title\n\n```python\nx = 1\nx.y\n```\n", "page.md:5:"),
        ("```python\nx = (\n```\n", "SyntaxError"),
        ("<!-- snippet: skip -->\n```python\nx = 1\n```\n", "skip <reason>"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```\n", "UserWarning: old"),
    ],
)
def test_a_broken_block_fails_and_says_where(tmp_path, text, message):
    """A document whose code does not run cannot pass."""
    code, output = run_document(tmp_path, text)
    assert code != 0
    assert message in output

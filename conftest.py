"""Run the Python blocks of the documents, and settle how Hypothesis behaves in this repository.

A document is one test. Its blocks run from top to bottom in one namespace, as one script would, in a
directory of their own, so that the journals they write never meet. `<!-- snippet: skip reason -->` on the
line before a block leaves that block out; the reason is for the reader.
"""

import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from execkit import redaction

# Speed is measured in benchmarks, never asserted in a test: two busy cores must not fail a property.
settings.register_profile(
    "execkit", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("execkit")


@pytest.fixture(autouse=True)
def _secrets_of_this_test() -> Iterator[None]:
    """Forget the secrets that a test has made known: elsewhere they are words like any other."""
    before = set(redaction._known)
    yield
    redaction._known.clear()
    redaction._known.update(before)
    redaction._patterns.clear()


BLOCK = re.compile(
    r"^(?:<!-- snippet: (?P<directive>.*?) -->\n+)?"
    r"^(?P<indent> *)```python\b[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    """Collect every Markdown document that pytest is pointed at."""
    if file_path.suffix != ".md":
        return None
    return Document.from_parent(parent, path=file_path)


class Document(pytest.File):
    """A Markdown file."""

    def collect(self) -> list[pytest.Item]:
        """Give one test, or none for a document without code."""
        blocks = []
        text = self.path.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            directive = block["directive"]
            if directive is None:
                # The lines above the code stay, empty: a traceback then shows the document's own lines.
                above = text.count("\n", 0, block.start("code"))
                code = re.sub(f"^{block['indent']}", "", block["code"], flags=re.MULTILINE)
                blocks.append("\n" * above + code)
            elif not re.fullmatch(r"skip \S.*", directive):
                message = (
                    f"{self.path}: 'snippet: {directive}' should read 'snippet: skip <reason>'"
                )
                raise self.CollectError(message)
        return [Snippets.from_parent(self, name="snippets", blocks=blocks)] if blocks else []


class Snippets(pytest.Item):
    """The blocks of one document."""

    def __init__(self, *, blocks: list[str], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.blocks = blocks

    def runtest(self) -> None:
        """Run the blocks as the main module of a script."""
        # pytest keeps `tmp_path_factory` in its fixtures only; a plain item asks the configuration.
        factory = self.config._tmp_path_factory
        script = ModuleType("__main__")
        script.__file__ = str(self.path)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(factory.mktemp(self.path.stem))
            patch.setitem(sys.modules, "__main__", script)
            # Whoever looks up the source of a class finds code, not prose.
            lines = self._code_lines()
            patch.setitem(linecache.cache, str(self.path), (0, None, lines, str(self.path)))
            for block in self.blocks:
                exec(compile(block, self.path, "exec"), script.__dict__)

    def _code_lines(self) -> list[str]:
        """Return the document with every line that is not run left blank."""
        lines: list[str] = []
        for block in self.blocks:
            lines += block.splitlines(keepends=True)[len(lines) :]
        return lines

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
        """Show the document's lines, not this file's."""
        inside = [entry for entry in excinfo.traceback if entry.path == self.path]
        where = f"{self.path}:{inside[-1].lineno + 1}: " if inside else ""
        return where + str(excinfo.getrepr(style="short"))

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the document."""
        return self.path, 0, f"snippets of {self.path.name}"

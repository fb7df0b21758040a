"""YAML without its traps: what is written is what is meant, and every value knows its line.

`ON`, `NO`, `12:30:00`, `0123` and dates stay text; `true`, `false`, `null`, whole numbers and decimal fractions are the
only words with a meaning, and fractions are exact. Duplicate keys, tags and merge keys are refused, and aliases may
not blow a file up.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import attrs
import yaml
from pydantic import BaseModel

from execkit.errors import ConfigurationError
from execkit.model.fields import Path as KeyPath
from execkit.model.fields import checked

M = TypeVar("M", bound=BaseModel)

MAX_BYTES: Final = 1_000_000
MAX_VALUES: Final = 10_000
"""Values in a file with all aliases written out."""
MAX_DEPTH: Final = 20

_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,39})", re.ASCII)
_FRACTION: Final = re.compile(
    r"[-+]?(0|[1-9][0-9]{0,39})(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?", re.ASCII
)
_PLAIN_TAGS: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))


class _Loader(yaml.SafeLoader):
    """Reads structure only: no scalar is guessed to be anything but text."""


_Loader.yaml_implicit_resolvers = {}


@attrs.frozen
class YamlFile:
    """The content of a file, and where each value stands in it."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int]

    def where(self, path: KeyPath) -> str:
        """Return `file:line: ` of the value at *path*, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.path}:{self.lines[path]}: "

    def build(self, model: type[M]) -> M:
        """Build *model* from the content; errors name file, line and key."""
        return checked(model, self.values, where=self.where)


def load_yaml(path: str | Path) -> YamlFile:
    """Read a YAML file whose top is a mapping. Raises `ConfigurationError` naming file, line and fix."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text: {error.reason}") from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path}: is larger than {MAX_BYTES} bytes; is it the right file?")
    return parse_yaml(text, path)


def parse_yaml(text: str, path: str | Path = "<text>") -> YamlFile:
    """Read YAML text; *path* names it in messages."""
    path = Path(path)
    reader = _Reader(path)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: is nested too deeply") from None
    values = {} if node is None else reader.read(node, ())
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}:1: must be `key: value` lines at the top")
    return YamlFile(path, values, {(): 1} | reader.lines)


class _Reader:
    """Turns nodes into values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.count = 0

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            self._fail(node, f"more than {MAX_VALUES} values, aliases written out; shorten it")
        if len(path) > MAX_DEPTH:
            self._fail(node, f"nested more than {MAX_DEPTH} deep, or an alias inside itself")
        if node.tag not in _PLAIN_TAGS:
            self._fail(node, f"tag {node.tag} is not allowed; write the plain value")
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return scalar(node.value) if node.style is None else node.value
        if isinstance(node, yaml.SequenceNode):
            return [self.read(each, (*path, place)) for place, each in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _PLAIN_TAGS:
                self._fail(key, "a key must be plain text")
            if key.value in values:
                first = self.lines[*path, key.value]
                self._fail(
                    key, f"key {key.value!r} comes twice (first in line {first}); remove one"
                )
            values[key.value] = self.read(value, (*path, key.value))
            self.lines[*path, key.value] = key.start_mark.line + 1
        return values

    def _fail(self, node: yaml.Node, text: str) -> NoReturn:
        raise ConfigurationError(f"{self.path}:{node.start_mark.line + 1}: {text}")


def scalar(text: str) -> Any:
    """Return what unquoted text means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return Decimal(text)
    return text

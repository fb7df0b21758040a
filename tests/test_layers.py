"""Imports point down only, in no circle, and the face is for users alone."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "execkit"
MODULES = sorted(PACKAGE.rglob("*.py"))

MIXED = ("orders", "journal", "bars", "exchanges", "protection", "functions", "slicing")
"""Packages whose modules stand in different layers: importing one must not load the others."""

OUTSIDE = {
    *(
        "asyncio",
        "threading",
        "multiprocessing",
        "subprocess",
        "concurrent",
        "socket",
        "ssl",
        "selectors",
    ),
    *("os", "io", "pathlib", "shutil", "tempfile", "sqlite3", "time", "random", "secrets"),
    *("aiohttp", "ccxt", "ib_async", "sqlalchemy", "yaml", "click", "rich", "tenacity"),
}
"""What brings waiting, the disk, the clock or chance: not for the pure rooms."""


def contract_layers() -> list[list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (each for each in settings["contracts"] if each["id"] == "layers")
    return [[room.strip(" ()") for room in row.split(":")] for row in contract["layers"]]


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> list[tuple[int, str, str | None]]:
    """List line, module and, for `from module import name`, the name; relative ones made absolute."""
    found = []
    package = (
        name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    )
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found += [(node.lineno, module, alias.name) for alias in node.names]
    return found


def is_room(name: str) -> bool:
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name / "__init__.py").exists()


def within(module: str, rooms: list[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def test_imports_point_down_only():
    """The contract in pyproject.toml holds."""
    script = Path(sys.executable).with_name("lint-imports")
    command = [script, "--no-cache", "--config", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_has_a_layer():
    """A new module cannot slip past the contract by not being named in it."""
    named = [room for row in contract_layers() for room in row]
    free = {"execkit", *(f"execkit.{package}" for package in MIXED)}
    homeless = [name_of(path) for path in MODULES if not within(name_of(path), named)]
    assert sorted(set(homeless) - free) == [], "name these in [tool.importlinter] of pyproject.toml"


def test_no_circles():
    """No module reaches itself through its imports, not even for types only."""
    graph = grimp.build_graph("execkit", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail("circle: " + " -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_inside_imports_the_face(path):
    """Modules name the room they need; `execkit` itself is for users."""
    if path == PACKAGE / "__init__.py":
        return
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: take {name or 'it'} from the room that defines it"
        for line, module, name in imports_of(path)
        if module == "execkit" and (name is None or not is_room(name))
    ]
    assert wrong == []


@pytest.mark.parametrize("package", MIXED)
def test_faces_of_mixed_packages_are_empty(package):
    """A docstring and nothing else."""
    path = PACKAGE / package / "__init__.py"
    body = ast.parse(path.read_text()).body
    assert [type(node).__name__ for node in body] == ["Expr"]
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_pure_rooms_stay_pure():
    """Decisions wait for nothing, read no clock and touch no disk."""
    (pure,) = (row for row in contract_layers() if "execkit.risk" in row)
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in MODULES
        if within(name_of(path), pure)
        for line, module, _ in imports_of(path)
        if module.partition(".")[0] in OUTSIDE
    ]
    assert wrong == []

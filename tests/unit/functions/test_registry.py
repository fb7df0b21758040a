"""Names are unique, uses are limited, and every change is on record."""

import asyncio
import doctest
import hashlib
import sys
from decimal import Decimal
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from execkit.clock import ManualClock
from execkit.errors import ConfigurationError, RegistrationError
from execkit.functions import base
from execkit.functions import registry as module
from execkit.functions.base import ExecutionFunctionBase, ExecutionSignal, FunctionParams
from execkit.functions.registry import ExecutionFunctionRegistry, default_registry, register
from execkit.model.market import Timeframe


class Params(FunctionParams):
    level: Decimal = Decimal(1)


class Breakout(ExecutionFunctionBase[Params]):
    async def evaluate(self, context):
        return ExecutionSignal.none("class")


async def wait(context):
    return ExecutionSignal.none(f"plain {context}")


@pytest.fixture
def registry():
    return ExecutionFunctionRegistry(clock=ManualClock())


def audit(registry):
    return [(e.change.name, e.change.action, e.change.actor) for e in registry.changes]


def test_holds_classes_and_plain_functions(registry):
    """Both register alike, are handed back unchanged, and are made and asked alike."""
    assert registry.register("breakout", timeframes=("1h",))(Breakout) is Breakout
    assert registry.register("wait", params=Params)(wait) is wait
    assert list(registry) == ["breakout", "wait"]
    assert (len(registry), "wait" in registry, "other" in registry) == (2, True, False)
    made = registry.create("breakout", {"level": 5}, timeframe=Timeframe.H1)
    assert isinstance(made, Breakout)
    assert made.params.level == 5
    plain = registry.create("wait", Params(level=Decimal(7)))
    assert plain.params.level == 7
    assert asyncio.run(plain.evaluate("x")).reasoning == "plain x"
    assert repr(registry) == "ExecutionFunctionRegistry(breakout, wait)"


def test_every_change_is_audited(registry):
    """Register, replace, enable and disable are kept with who and when, and told to whoever attaches."""
    heard = []
    registry.register("f", actor="anna")(wait)
    registry.attach(heard.append)
    registry.register("f", replace=True)(Breakout)
    registry.disable("f", actor="operator", reason="too noisy")
    assert not registry.is_enabled("f")
    assert repr(registry) == "ExecutionFunctionRegistry(f (disabled))"
    registry.enable("f", actor="operator")
    assert registry.is_enabled("f")
    assert audit(registry) == [
        ("f", "register", "anna"),
        ("f", "replace", "application"),
        ("f", "disable", "operator"),
        ("f", "enable", "operator"),
    ]
    assert [e.change for e in registry.changes] == heard
    assert {e.at for e in registry.changes} == {ManualClock().now()}
    assert heard[0].detail.endswith("test_registry.wait")
    assert heard[2].detail == "too noisy"
    registry.detach(heard.append)
    registry.disable("f")
    assert len(heard) == 4


def test_a_name_is_taken_once(registry):
    """P11: a second registration is refused unless it says that it replaces."""
    registry.register("f")(wait)
    with pytest.raises(
        RegistrationError, match="'f' is registered already; choose another name or"
    ):
        registry.register("f")(Breakout)
    assert len(registry.changes) == 1


@pytest.mark.parametrize("name", ["", "a|b", "a b", "x" * 61, None, "-a"])
def test_names_are_plain(registry, name):
    """A name travels into signal ids, so it has no separator and an end."""
    with pytest.raises(ConfigurationError, match=r"name: .* is not a name"):
        registry.register(name)


def not_async(context):
    return ExecutionSignal.none()


async def two(context, more):
    return ExecutionSignal.none()


class Abstract(ExecutionFunctionBase[Params]):
    pass


class Sync(ExecutionFunctionBase[Params]):
    def evaluate(self, context):
        return ExecutionSignal.none()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (not_async, "neither an ExecutionFunctionBase class nor an `async def` function"),
        (two, "function of one argument"),
        (object, "neither"),
        ("close_above", "neither"),
        (Abstract, "Abstract has no evaluate"),
        (Sync, "Sync.evaluate must be `async def`"),
    ],
)
def test_only_functions_register(registry, target, message):
    """Anything else is refused, with what would do."""
    with pytest.raises(RegistrationError, match=message):
        registry.register("f")(target)
    assert len(registry) == 0


def test_unknown_names_and_wrong_uses(registry):
    """An unknown name lists the known; a timeframe and parameters must fit."""
    registry.register("f", timeframes=("4h", "15m"))(Breakout)
    with pytest.raises(RegistrationError, match="'g' is unknown; registered are: f"):
        registry.create("g")
    with pytest.raises(RegistrationError, match="'f' is made for 15m, 4h, not 1h"):
        registry.create("f", timeframe=Timeframe.H1)
    with pytest.raises(ConfigurationError, match=r"f: level: float 1\.5 is not exact"):
        registry.create("f", {"level": 1.5})
    with pytest.raises(
        ConfigurationError, match="f: parameters are FunctionParams, expected Params"
    ):
        registry.create("f", FunctionParams())
    with pytest.raises(RegistrationError, match="unknown; registered are: none"):
        ExecutionFunctionRegistry().is_enabled("f")


def test_plain_functions_take_no_parameters_unless_they_say_so(registry):
    """An unknown parameter is refused for them too."""
    registry.register("wait")(wait)
    with pytest.raises(ConfigurationError, match=r"level: unknown key\. Known here: none"):
        registry.create("wait", {"level": 1})


def test_living_instances_are_limited():
    """As many live at once as may; one that is gone makes room, even out of a circle."""
    registry = ExecutionFunctionRegistry(max_instances={"f": 2})
    registry.register("f", max_instances=1)(Breakout)
    first = registry.create("f")
    second = registry.create("f")
    with pytest.raises(RegistrationError, match="'f' has 2 instances, as many as max_instances"):
        registry.create("f")
    second.circle = second
    del second
    assert registry.create("f") is not first


def test_the_default_registry_can_be_emptied():
    """Scripts share one registry; a test puts it back."""
    register("f")(wait)
    try:
        assert "f" in default_registry
    finally:
        default_registry.reset()
    assert len(default_registry) == 0
    assert default_registry.changes == []


@pytest.mark.parametrize("documented", [module, base])
def test_the_examples_in_the_documentation_run(documented):
    """What the docstrings show is what happens."""
    assert doctest.testmod(documented).failed == 0


# --- plug-ins -----------------------------------------------------------------------------------------

SOURCE = """
LOADED.append(1)
async def rsi(context):
    return None
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install modules of a plug-in package; return a function that offers entry points."""
    package = tmp_path / "some_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nobody asked for me')\n")
    loaded = []
    monkeypatch.setitem(sys.modules, "builtins_loaded", SimpleNamespace(LOADED=loaded))
    file = tmp_path / "some_functions.py"
    file.write_text(f"from builtins_loaded import LOADED\n{SOURCE}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_functions", raising=False)

    def offer(*points):
        found = [EntryPoint(name, value, module.GROUP) for name, value in points]
        monkeypatch.setattr(module, "entry_points", lambda group: found)
        return loaded, hashlib.sha256(file.read_bytes()).hexdigest()

    yield offer
    sys.modules.pop("some_functions", None)


def test_plugins_load_by_exact_name_only(registry, plugin):
    """What is installed and not named is not even imported."""
    loaded, _ = plugin(("rsi", "some_functions:rsi"), ("evil", "evil:run"))
    registry.load_plugins([])
    assert (loaded, len(registry)) == ([], 0)
    registry.load_plugins(["rsi"])
    assert (loaded, list(registry)) == ([1], ["rsi"])
    assert audit(registry) == [("rsi", "register", "plugin:some_functions:rsi")]


def test_an_allow_list_checks_the_source_before_it_runs(registry, plugin):
    """A plug-in that is not listed, was changed or has no source is refused, and none of its code runs."""
    loaded, digest = plugin(
        ("rsi", "some_functions:rsi"),
        ("gone", "some_plugin.gone:f"),
        ("missing", "no_such_package.sub:f"),
        ("frozen", "sys:f"),
    )
    for name, allowed, message in (
        ("rsi", {}, "'rsi' is not on the allow-list; add its SHA-256"),
        ("rsi", {"rsi": "0" * 64}, f"has SHA-256 {digest}, the allow-list says 000"),
        ("gone", {"gone": digest}, "no source file of some_plugin.gone found"),
        ("missing", {"missing": digest}, "no source file of no_such_package.sub found"),
        ("frozen", {"frozen": digest}, "no source file of sys found"),
    ):
        with pytest.raises(RegistrationError, match=message):
            registry.load_plugins([name], allowed=allowed)
    assert (loaded, len(registry)) == ([], 0)
    registry.load_plugins(["rsi"], allowed={"rsi": digest.upper()})
    assert (loaded, list(registry)) == ([1], ["rsi"])


def test_plugins_that_shadow_each_other_are_refused(registry, plugin):
    """P11: two distributions that offer one name are a conflict, not a race."""
    plugin(("rsi", "some_functions:rsi"), ("rsi", "evil:run"))
    with pytest.raises(RegistrationError, match="'rsi' is offered by several: evil:run, some_func"):
        registry.load_plugins(["rsi"])


def test_a_missing_plugin_names_what_is_there(registry, plugin):
    """The message lists what is offered."""
    plugin(("rsi", "some_functions:rsi"))
    with pytest.raises(RegistrationError, match="'macd' is not installed; offered are: rsi"):
        registry.load_plugins(["macd"])


def test_the_origin_of_a_plugin_is_its_distribution():
    """The audit names package and version where there is one."""
    point = EntryPoint("f", "m:f", module.GROUP)._for(SimpleNamespace(name="dist", version="1.2"))
    assert module._origin(point) == "dist==1.2"

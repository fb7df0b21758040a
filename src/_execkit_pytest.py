"""pytest plugin of execkit: fixtures, a seed, and virtual time for `async def` tests.

It stands outside of the package so that pytest loads it without importing the library; a test that uses none of it
pays nothing.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from execkit.clock import Clock
    from execkit.engine import ExecutionEngine
    from execkit.journal.base import MemoryJournal
    from execkit.testing.mock import MockExchange
    from execkit.testing.time import VirtualTime

MARKER = "virtual_time"
_TIME: pytest.StashKey[VirtualTime] = pytest.StashKey()
_SEED: pytest.StashKey[int] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--execkit-seed` and `--execkit-frames`."""
    group = parser.getgroup("execkit")
    group.addoption(
        "--execkit-seed",
        type=int,
        default=None,
        metavar="N",
        help="seed of execkit_rng and execkit_seed; the default is a new one for each run",
    )
    group.addoption(
        "--execkit-frames",
        type=int,
        default=20_000,
        metavar="N",
        help="how many mutated frames a fuzz test feeds to a decoder",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and choose the seed of the run."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}: run an `async def` test on an event loop whose time jumps; waiting costs nothing",
    )
    seed = config.getoption("--execkit-seed")
    # With xdist every worker gets the choice of the controller.
    inherited = getattr(config, "workerinput", {}).get("execkit_seed")
    if seed is None:
        seed = inherited if inherited is not None else random.SystemRandom().randrange(2**32)
    config.stash[_SEED] = seed


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a worker of xdist."""
    node.workerinput["execkit_seed"] = node.config.stash[_SEED]


# -- virtual time --------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[Any] | None:
    """Collect a marked `async def` test as a plain one, so that no plugin for asyncio takes it."""
    function = obj.__func__ if isinstance(obj, (staticmethod, classmethod)) else obj
    if not inspect.iscoroutinefunction(function) or not collector.funcnamefilter(name):
        return None
    own = getattr(function, "pytestmark", [])
    if not any(mark.name == MARKER for mark in [*own, *collector.iter_markers()]):
        return None
    plain = _plain(function)
    setattr(collector.obj, name, plain if function is obj else type(obj)(plain))  # type: ignore[call-arg]
    return list(collector._genfunctions(name, getattr(collector.obj, name)))  # noqa: SLF001 - pytest has no public way


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    if getattr(function, "_execkit_virtual", False):
        return function

    @functools.wraps(function)
    def test(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    test._execkit_virtual = True  # type: ignore[attr-defined]  # noqa: SLF001 - our own mark
    return test


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked test on the virtual loop of its fixtures."""
    if not getattr(pyfuncitem.obj, "_execkit_virtual", False):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001 - as pytest's own implementation does
    work = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    _time_of(pyfuncitem).run(work)
    return True


def _time_of(item: pytest.Item) -> VirtualTime:
    """Return the virtual time of a test, made when it is first asked for."""
    if _TIME not in item.stash:
        from execkit.testing.time import VirtualTime  # noqa: PLC0415 - only when used

        item.stash[_TIME] = VirtualTime()
    return item.stash[_TIME]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Close the virtual loop after the fixtures that used it."""
    try:
        return (yield)
    finally:
        if _TIME in item.stash:
            item.stash[_TIME].close()
            del item.stash[_TIME]


# -- the seed ------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with a failure how to repeat its chance."""
    report = yield
    if report.failed and "execkit_seed" in getattr(item, "fixturenames", ()):
        report.sections.append(
            ("execkit", f"repeat with --execkit-seed={item.config.stash[_SEED]}")
        )
    return report


@pytest.fixture
def execkit_seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this run; a failure prints it."""
    return request.config.stash[_SEED]


@pytest.fixture
def execkit_rng(request: pytest.FixtureRequest, execkit_seed: int) -> random.Random:
    """Return a generator whose chance depends on the seed and the test's name, not on the order of tests."""
    return random.Random(f"{execkit_seed} {request.node.nodeid}")  # noqa: S311 - simulations


@pytest.fixture
def execkit_frames(request: pytest.FixtureRequest) -> int:
    """Return how many mutated frames a fuzz test should feed: 20,000, or what the command line says."""
    return int(request.config.getoption("--execkit-frames"))


# -- parts ---------------------------------------------------------------------------------------------


@pytest.fixture
def virtual_time(request: pytest.FixtureRequest) -> VirtualTime:
    """Return virtual time: in a marked test its own, in a plain test one to `run` and `advance`."""
    return _time_of(request.node)


@pytest.fixture
def execkit_clock(request: pytest.FixtureRequest) -> Clock:
    """Return the clock of the test: virtual in a marked test, else one that stands still until it is moved."""
    if (
        getattr(request.node.obj, "_execkit_virtual", False)
        or "virtual_time" in request.fixturenames
    ):
        return _time_of(request.node).clock
    from execkit.clock import ManualClock  # noqa: PLC0415 - only when used

    return ManualClock()


@pytest.fixture
def mock_exchange(execkit_clock: Clock, execkit_rng: random.Random) -> MockExchange:
    """Return a scripted venue with 1,000,000 USDT and BTC/USDT at 42,000."""
    from execkit.testing.mock import MockExchange  # noqa: PLC0415 - only when used

    return MockExchange(clock=execkit_clock, rng=execkit_rng)


@pytest.fixture
def execkit_journal(mock_exchange: MockExchange) -> MemoryJournal:
    """Return a journal in memory, for the account of `mock_exchange`."""
    from execkit.journal.base import MemoryJournal  # noqa: PLC0415 - only when used

    return MemoryJournal(mock_exchange.account)


@pytest.fixture
def execkit_engine(
    mock_exchange: MockExchange,
    execkit_journal: MemoryJournal,
    execkit_clock: Clock,
    execkit_rng: random.Random,
) -> Callable[..., ExecutionEngine]:
    """Return a maker of engines over the parts above, to be started by `async with`.

    Every argument of `ExecutionEngine` can be given, e.g. a pipeline.
    """
    from execkit.engine import ExecutionEngine  # noqa: PLC0415 - only when used

    parts = {
        "exchange": mock_exchange,
        "journal": execkit_journal,
        "clock": execkit_clock,
        "rng": execkit_rng,
    }
    return functools.partial(_engine, ExecutionEngine, parts)


def _engine(
    kind: Callable[..., ExecutionEngine], parts: dict[str, Any], **changes: Any
) -> ExecutionEngine:
    values = parts | changes
    return kind(values.pop("exchange"), **values)

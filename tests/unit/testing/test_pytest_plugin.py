"""The pytest plugin: virtual time, seeds and fixtures, beside pytest-asyncio and xdist."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a test module by pytest, and gives its exit code and output."""

    def run(text, *options):
        (tmp_path / "test_it.py").write_text(text)
        settings = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *settings, *options, "test_it.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


# -- in this very run ----------------------------------------------------------------------------------


@pytest.mark.virtual_time
async def test_a_marked_test_runs_under_virtual_time(execkit_clock):
    """A sleep of a day is instant, and the clock of the test has moved."""
    import asyncio

    before = execkit_clock.now()
    await asyncio.sleep(86_400)
    assert (execkit_clock.now() - before).days == 1


async def test_other_async_tests_keep_the_real_loop(execkit_clock):
    """Without the mark pytest-asyncio runs the test, and the clock stands still."""
    import asyncio

    assert not hasattr(asyncio.get_running_loop(), "is_virtual")
    assert execkit_clock.now() == execkit_clock.now()


@pytest.mark.virtual_time
@pytest.mark.parametrize("quantity", ["0.01", "0.02"])
async def test_fixtures_make_a_whole_engine(
    quantity, execkit_engine, mock_exchange, execkit_journal, execkit_rng
):
    """Exchange, journal, clock and chance belong together."""
    from decimal import Decimal

    from execkit.model.order import Side
    from execkit.model.signal import TradingSignal

    async with execkit_engine() as engine:
        result = await engine.submit(
            TradingSignal(
                symbol="BTC/USDT", side=Side.BUY, quantity=Decimal(quantity), confluence=4
            )
        )
    assert result.ok
    assert len(mock_exchange.received) >= 1
    assert execkit_journal.last_seq > 0


@pytest.mark.virtual_time
async def test_an_entry_that_rests_is_cancelled_after_a_minute(execkit_engine, mock_exchange):
    """The example of docs/reference/testing.md holds."""
    import asyncio

    from execkit import Side, TradingSignal

    async with execkit_engine() as engine:
        price = mock_exchange.core.quote("BTC/USDT").bid - 100
        signal = TradingSignal(symbol="BTC/USDT", side=Side.BUY, limit_price=price)
        result = await engine.submit(signal)
        await asyncio.sleep(61)
        assert result.order.is_closed


class TestInClasses:
    """The mark works on methods too."""

    pytestmark = pytest.mark.virtual_time

    async def test_method(self, virtual_time):
        """A test method has its instance and the virtual time of the test."""
        import asyncio

        assert isinstance(self, TestInClasses)
        assert asyncio.get_running_loop() is virtual_time.loop
        await asyncio.sleep(10)

    @staticmethod
    async def test_static_method():
        """A static one too."""
        import asyncio

        assert asyncio.get_running_loop().is_virtual


def test_a_plain_test_drives_virtual_time_itself(virtual_time, execkit_clock):
    """The fixture has `run` and `advance`, and the clock follows it."""
    before = execkit_clock.now()
    virtual_time.advance(60)
    assert (execkit_clock.now() - before).total_seconds() == 60


def test_chance_is_repeatable(execkit_rng, execkit_seed, request):
    """The generator depends on seed and test, so tests may run in any order."""
    import random

    again = random.Random(f"{execkit_seed} {request.node.nodeid}")
    assert execkit_rng.random() == again.random()


# -- in runs of their own ------------------------------------------------------------------------------


FAILS = "def test_chance(execkit_rng):\n    assert execkit_rng.random() < 0\n"


def test_a_failure_prints_how_to_repeat_it(run):
    """The seed is shown with the failure, and giving it repeats the chance."""
    code, output = run(FAILS, "--execkit-seed", "17")
    assert code == 1
    assert "repeat with --execkit-seed=17" in output
    number = next(line for line in output.splitlines() if "assert 0." in line)
    assert number in run(FAILS, "--execkit-seed", "17")[1]
    assert number not in run(FAILS, "--execkit-seed", "18")[1]


def test_workers_of_xdist_share_the_seed(run):
    """Two workers have the one seed of the run, chosen or given."""
    text = """
import pytest

@pytest.mark.parametrize("n", range(4))
def test_it(n, execkit_seed):
    assert execkit_seed < 0
"""
    code, output = run(text, "-n", "2")
    assert code == 1
    assert len({line for line in output.splitlines() if "--execkit-seed=" in line}) == 1


def test_loading_the_plugin_imports_nothing_heavy():
    """A project that has execkit installed and uses none of it pays nothing."""
    script = "import sys, _execkit_pytest; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"execkit", "msgspec", "hypothesis", "pydantic"})


def test_the_real_world_in_a_marked_test_fails(run):
    """A socket under virtual time is a failure that says so."""
    text = (
        "import asyncio, pytest\n\n@pytest.mark.virtual_time\nasync def test_it():\n"
        "    await asyncio.open_connection('127.0.0.1', 9)\n"
    )
    code, output = run(text)
    assert code == 1
    assert "VirtualTimeError" in output


def test_it_works_without_pytest_asyncio(run):
    """Marked tests need no other plugin."""
    text = "import asyncio, pytest\n\n@pytest.mark.virtual_time\nasync def test_it():\n    await asyncio.sleep(99)\n"
    options = ["-p", "no:asyncio", "-o", "asyncio_mode=", "-o", "addopts=", "-W", "ignore"]
    code, output = run(text, *options)
    assert "1 passed" in output, output
    assert code == 0

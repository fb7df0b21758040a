"""One command tells whether an adapter keeps the contract."""

import pytest
from click.testing import CliRunner

from execkit.cli.conformance import conformance

MODULE = """
from execkit.errors import OrderNotFoundError
from execkit.testing.contract import AdapterContract
from execkit.testing.mock import MockExchange

async def make():
    return MockExchange()

class Fast(AdapterContract):
    virtual_time = True

    async def make_adapter(self):
        return MockExchange(clock=self.clock)

class Broken(MockExchange):
    async def cancel_order(self, symbol, **ids):
        try:
            return await super().cancel_order(symbol, **ids)
        except OrderNotFoundError:
            return None

answer = 42
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command beside a module with adapters."""
    (tmp_path / "venue_under_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(conformance, arguments)


@pytest.mark.parametrize("name", ["make", "Fast"])
def test_a_right_adapter_ends_with_zero(run, name):
    """A table of all cases, the skipped ones with their reason, and a sum."""
    done = run(f"venue_under_test:{name}")
    assert done.exit_code == 0, done.output
    assert "pass ac010_instrument_rules" in done.output
    skipped = next(line for line in done.output.splitlines() if line.startswith("skip"))
    assert skipped.split(maxsplit=2) == [
        "skip",
        "ac730_no_secret_shows",
        "the control cannot do secrets",
    ]
    assert "0 failed of" in done.output.splitlines()[-1]


def test_a_failure_ends_with_one_and_shows_rule_and_symptom(run):
    """Whoever reads it knows what is wrong without a debugger."""
    done = run("venue_under_test:Broken", "--only", "ac24")
    assert done.exit_code == 1
    assert "fail ac240_unknown_order" in done.output
    assert "cancel: an order that does not exist is None" in done.output


def test_no_case_passed_is_no_success(run):
    """A filter that matches nothing must not look like a pass."""
    assert run("venue_under_test:make", "--only", "xx").exit_code == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("venue_under_test", "is not module:name"),
        ("no_such_module:make", "cannot be imported"),
        ("venue_under_test:nothing", "has no nothing"),
        ("venue_under_test:answer", "it cannot be called"),
        ("venue_under_test:OrderNotFoundError", "is no ExchangeAdapter"),
    ],
)
def test_a_wrong_target_ends_with_two(run, target, message):
    """The message says what TARGET should be."""
    done = run(target)
    assert done.exit_code == 2
    assert message in done.output


def test_symbol_and_patience_reach_the_cases(run):
    """An unknown symbol fails the first case."""
    done = run(
        "venue_under_test:make", "--symbol", "NO/SUCH", "--patience", "0.1", "--only", "ac01"
    )
    assert done.exit_code == 1
    assert "NO/SUCH is not listed" in done.output

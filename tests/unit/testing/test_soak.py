"""The soak sends at its rate, and tells growth from a steady state."""

import random
import re

import pytest
import structlog

from execkit.testing import soak
from execkit.testing.soak import Sample, SoakReport, main, slope


@pytest.fixture(autouse=True)
def _restore_logging():
    """The command silences structlog for its process; here that is only the test's."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def samples(**growing):
    """Return twelve samples of one minute each, in which what is named grows by so much at each."""
    start = {"memory_kib": 80_000, "tasks": 10, "descriptors": 16, "open_orders": 3}
    return [
        Sample(
            second=60.0 * n,
            **{name: value + n * growing.get(name, 0) for name, value in start.items()},
        )
        for n in range(1, 13)
    ]


def test_a_slope_is_that_of_the_line():
    """Least squares: points on a line give its slope, noise about it cancels out."""
    assert slope([(0, 5), (10, 25), (20, 45)]) == 2
    assert slope([(1, 3)]) == slope([(2, 1), (2, 9)]) == 0
    rng = random.Random(1)
    assert slope([(x, 3 * x + rng.uniform(-5, 5)) for x in range(1000)]) == pytest.approx(
        3, abs=0.01
    )


def test_a_steady_state_is_no_problem():
    """What stays the same, and memory within its allowance, passes."""
    assert SoakReport(50, samples()).problems() == []
    assert SoakReport(50, samples(memory_kib=240)).problems() == []  # 0.08 KiB an intent


@pytest.mark.parametrize(
    ("what", "by", "message"),
    [
        ("memory_kib", 3_000, "memory grows by 1.00 KiB an intent, limit 0.1"),
        ("tasks", 20, "tasks grew from"),
        ("descriptors", 20, "descriptors grew from"),
        ("open_orders", 20, "open_orders grew from"),
    ],
)
def test_growth_is_a_problem(what, by, message):
    """A leak of memory, tasks, descriptors or orders is named."""
    (problem,) = SoakReport(50, samples(**{what: by})).problems()
    assert message in problem


def test_a_short_run_judges_no_memory():
    """While histories fill up, memory has to grow."""
    short = SoakReport(50, samples(memory_kib=30_000)[:9])
    assert short.memory_growth is None
    assert short.problems() == []
    assert "too few to judge" in SoakReport(50, samples()[:3]).problems()[0]
    assert SoakReport(50, samples(), errors=["intent 7: boom"]).problems() == ["intent 7: boom"]


def test_the_command_runs_and_tells_what_it_saw(monkeypatch, capsys):
    """Intents go through chain, journal and a faulty venue; how many in real time is not for a test to say."""
    monkeypatch.setattr(soak, "KEEP_SIGNALS", 10)
    code = main(["--seconds", "0.5", "--rate", "50"])
    text = capsys.readouterr().out
    assert re.search(r"\d+ intents in ", text)
    assert code == 0 or "too few to judge" in text


def test_an_intent_that_fails_is_reported(monkeypatch, capsys):
    """An error in the engine fails the run, and does not end it."""

    async def broken(_self, _signal):
        raise RuntimeError("boom")

    monkeypatch.setattr(soak, "KEEP_SIGNALS", 10)
    monkeypatch.setattr(soak.ExecutionEngine, "submit", broken)
    assert main(["--seconds", "0.1", "--no-faults"]) == 1
    assert "RuntimeError('boom')" in capsys.readouterr().out

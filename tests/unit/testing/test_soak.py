"""The soak sends at its rate, and tells growth from a steady state."""

import random
import re
from collections import Counter

import attrs
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


def samples(count=60, **growing):
    """Return samples of 500 intents each, in which what is named grows by so much at each."""
    start = {"memory_kib": 80_000, "objects": 900_000, "tasks": 10, "descriptors": 16}
    return [
        Sample(
            second=10.0 * n,
            intents=500 * n,
            open_orders=3 + n * growing.get("open_orders", 0),
            **{name: value + n * growing.get(name, 0) for name, value in start.items()},
        )
        for n in range(1, count + 1)
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
    """What stays the same, and memory and objects within their allowance, passes."""
    assert SoakReport(samples()).problems() == []
    assert SoakReport(samples(memory_kib=40)).problems() == []  # 0.08 KiB an intent
    assert SoakReport(samples(objects=200)).problems() == []  # 0.4 an intent


@pytest.mark.parametrize(
    ("what", "by", "message"),
    [
        ("memory_kib", 500, "memory grows by 1.000 KiB an intent, limit 0.1"),
        ("objects", 500, "1.000 objects an intent are kept, limit 0.5"),
        ("tasks", 20, "tasks grew from"),
        ("descriptors", 20, "descriptors grew from"),
        ("open_orders", 20, "open_orders grew from"),
    ],
)
def test_growth_is_a_problem(what, by, message):
    """A leak of memory, objects, tasks, descriptors or orders is named."""
    (problem,) = SoakReport(samples(**{what: by})).problems()
    assert message in problem


def test_the_start_is_not_judged():
    """A process takes what it needs at its first snapshot once."""
    began = samples(20, memory_kib=5_000, objects=10_000)
    later = [attrs.evolve(each, memory_kib=180_000) for each in samples()[20:]]
    assert SoakReport(began + later).problems() == []


def test_a_run_that_shows_nothing_passes_as_nothing():
    """Too short, failed, or without executions because some limit was reached: all are told."""
    assert "too few to judge" in SoakReport(samples(12)).problems()[0]
    assert SoakReport(samples(), errors=["intent 7: boom"]).problems() == ["intent 7: boom"]
    denied = SoakReport(samples(), outcomes=Counter(denied=90, filled=10))
    assert denied.problems() == ["10 of 100 were executed: that shows little"]


@pytest.mark.parametrize("where", [[], ["--real"]])
def test_the_command_runs_and_tells_what_it_saw(where, monkeypatch, capsys):
    """Intents go through chain, journal and a faulty venue, in virtual and in real time."""
    monkeypatch.setattr(soak, "SAMPLES", 20)
    code = main(["--fill", "100", "--seconds", "0.5", "--rate", "200", *where])
    text = capsys.readouterr().out
    assert re.search(r"^100 intents in .* filled.* tasks, .* descriptors", text)
    assert code == 1, "nothing is full after so few"
    assert "objects an intent are kept" in text


def test_an_intent_that_fails_is_reported(monkeypatch, capsys):
    """An error in the engine fails the run, and does not end it."""

    async def broken(_self, _signal):
        raise RuntimeError("boom")

    monkeypatch.setattr(soak.ExecutionEngine, "submit", broken)
    assert main(["--fill", "1", "--seconds", "0.1", "--no-faults"]) == 1
    assert "RuntimeError('boom')" in capsys.readouterr().out

"""The watch itself: no excuse lasts for ever, what raises has a seed, and a campaign that is mostly excused fails."""

import asyncio
from datetime import timedelta

import pytest

from execkit.protection.keeper import ProtectionKeeper
from execkit.testing.simulate import bold, replay_command, simulate
from execkit.testing.simulation.actions import Actions
from execkit.testing.simulation.features import Feature, features_of
from execkit.testing.simulation.protected import FADES, Shaken, muted
from execkit.testing.simulation.rules import RULES

ASLEEP = timedelta(minutes=10).total_seconds()


@pytest.fixture
def sleepy(monkeypatch):
    """Plant a keeper that does nothing for ten minutes after each alarm about its symbol."""
    awake_at = {}
    protect = ProtectionKeeper._protect

    async def lazy(self, symbol):
        loop = asyncio.get_running_loop()
        codes = ("UNPROTECTED", "MISMATCH")
        alarms = [a for a in self.book.alarms if a.symbol == symbol and a.code in codes]
        if alarms:
            end = awake_at.setdefault((id(self), symbol, len(alarms)), loop.time() + ASLEEP)
            if loop.time() < end:
                loop.call_later(end - loop.time() + 0.1, self.check, symbol)
                return
        await protect(self, symbol)

    monkeypatch.setattr(ProtectionKeeper, "_protect", lazy)


@pytest.mark.usefixtures("sleepy")
def test_an_alarm_excuses_no_keeper_that_sleeps():
    """I12: having told somebody is no reason to leave a position without a stop."""
    reports = [simulate(seed) for seed in range(8)]
    assert "I12" in {report.invariant for report in reports}
    assert any("nothing kept the venue" in report.violation for report in reports)


def test_what_others_did_is_an_excuse_for_a_while():
    """A changed position excuses until the venue has told it, and a comparison and a half longer."""

    class Venue:
        hidden_until, thawed_at, now = {}, 0.0, 5.0

        def time(self):
            return self.now

    venue = Venue()
    shaken = Shaken(venue)
    assert not shaken
    shaken.add("A/B")
    venue.now += 10 * FADES
    assert "A/B" in shaken, "nobody was told yet"
    venue.on_positions()
    assert "A/B" in shaken
    venue.now += FADES
    assert "A/B" not in shaken
    assert not shaken


def test_an_exception_in_a_world_has_a_seed(monkeypatch):
    """Whatever is raised is a finding: with its place, and a command that repeats it."""

    def boom(self, rng):
        raise RuntimeError("a defect that raises")

    monkeypatch.setattr(Actions, "_exit", boom)
    failed = next(r for r in (simulate(seed, steps=60) for seed in range(9)) if not r.ok)
    assert failed.invariant == "RAISED RuntimeError"
    assert "a defect that raises in test_watch.py, line" in failed.violation
    assert failed.failed_at is not None
    assert replay_command(failed).startswith(
        f"python -m execkit.testing.simulate --seed {failed.seed} "
    )


def test_the_command_names_what_was_run():
    """Own options and rules are in the command, or the call says that they are missing."""
    spot = next(rules for rules in RULES if rules.name == "spot")
    command = replay_command(simulate(1, steps=3, build=bold, scenario=spot))
    assert command.endswith("--build execkit.testing.simulate:bold --scenario spot")
    call = replay_command(simulate(1, steps=3, build=lambda: bold()))  # noqa: PLW0108 - it has no name
    assert call.startswith("simulate(1, steps=3, without=(), skip=(), build=...)")


def test_features_come_in_swarms_and_can_be_left_out_by_name():
    """The fixed seeds have each of them often enough, most have none, and shrinking can do without one."""
    chosen = [features_of(seed) for seed in range(512)]
    assert all(sum(each in features for features in chosen) >= 8 for each in Feature)
    assert sum(not features for features in chosen) > 400
    seed = next(seed for seed, features in enumerate(chosen) if Feature.SLICES in features)
    assert features_of(seed, without=["slices"]) == chosen[seed] - {Feature.SLICES}
    assert "slices" in simulate(seed, steps=2).enabled
    assert "slices" not in simulate(seed, steps=2, without=("slices",)).enabled


def test_a_watch_that_is_always_excused_fails_the_campaign():
    """The floors: so many of all looks were judged."""
    good = {
        "protection_looks": 100_000,
        "protection_judged": 70_000,
        "protection_strict": 30_000,
        "exposure_looks": 1_000,
        "exposure_judged": 900,
    }
    assert muted(good) == []
    assert muted(good | {"protection_judged": 10_000}) == [
        "protection_judged are 10% of protection_looks, at least 60% are needed"
    ]
    assert muted({"protection_looks": 100}) == [], "too few to say"

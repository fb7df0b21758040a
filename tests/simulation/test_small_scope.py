"""One order in a small world: every short sequence of faults, and a death at every named instant."""

import pytest
from tests.support.simulation_bugs import BUGS

from execkit.testing.crashes import SCENARIOS, crash_everywhere, entry, run
from execkit.testing.exhaustive import FAULTS, histories, run_all, run_history
from execkit.testing.simulate import quiet


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_sequence_of_three_faults_ends_well():
    """I1-I19: twelve kinds of fault, all sequences to depth 3, and the checker has nothing to say."""
    report = run_all(histories(3))
    print("\n".join(report.lines()))
    assert not report.failures, report.lines()
    assert len(FAULTS) == 12
    assert report.histories == 1 + 12 + 12**2 + 12**3
    assert report.complete > 1_300
    assert min(report.struck[kind] for kind in FAULTS) > 300


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_may_die_at_every_named_instant():
    """G1-G9: around every commit and every request of six scenarios, and at a sample of instants in recovery."""
    report = crash_everywhere(stride=41)
    print("\n".join(report.lines()))
    assert not report.failures, report.lines()[-3:]
    assert len(SCENARIOS) == 6
    assert report.runs > 2_000
    assert report.twice > 1_000
    assert len(report.names) > 35


def test_every_kind_of_instant_is_there():
    """The instants are those of the table: G1 to G8 are between the names of a calm run."""
    with quiet():
        calm = run(entry)
    assert calm.problems == ()
    with quiet():
        names = [run(entry, (at,)).names[0] for at in range(1, calm.instants[0] + 1)]
    for name in (
        "before commit Intent",  # G1
        "after commit Intent",  # G2
        "place entry leaves",
        "place entry arrived",  # G3, G4
        "place entry answered",
        "before commit OrderChanged",  # G5
        "after commit SignalResult",  # G6
        "place stop leaves",  # G7
    ):
        assert name in names


def test_one_more_death_does_not_matter():
    """G9: recovery that dies again and again comes to the same end."""
    with quiet():
        done = run(entry, (20, 5, 9, 14, 20))
    assert done.problems == ()
    assert len(done.names) == 5


@pytest.mark.parametrize(
    ("bug", "kinds"),
    [
        ("positions_are_not_protected", ()),
        ("nothing_is_journalled_before_the_send", ()),
        ("commands_are_not_journalled", ()),
        ("a_fill_counts_twice", ()),
        ("a_lost_answer_is_a_refusal", ("answer lost",)),
        ("nobody_asks_about_doubts", ("request lost",)),
        ("garbage_is_an_acknowledgement", ("request late",)),
        ("the_book_runs_ahead_of_the_journal", ("stream breaks",)),
    ],
)
def test_a_planted_defect_is_found_by_a_short_sequence(bug, kinds):
    """The harness can fail: the shortest sequence that shows the defect finds it."""
    with quiet():
        assert run_history(kinds).problems == ()
        with BUGS[bug]():
            assert run_history(kinds).problems


def test_a_planted_defect_is_found_by_a_death():
    """The harness can fail: a recovery that leaves in flight what was in flight is found by some instant."""
    with quiet(), BUGS["recovery_skips_what_was_in_flight"]():
        found = [run(entry, (at,)).problems for at in range(1, 50)]
    assert any(found)

"""The simulation finds what is planted: 56 defects and a canary, each by a seed known to find it."""

import pytest
from tests.support.simulation_bugs import BUGS, CAUGHT_BY

from execkit.testing.simulate import simulate


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUGHT_BY)
def test_a_planted_defect_is_found(name):
    """The seed breaks an invariant with the defect; see `test_worlds` for the same seeds without."""
    with BUGS[name]():
        report = simulate(CAUGHT_BY[name])
    assert not report.ok, f"{name} was not found by seed {CAUGHT_BY[name]}"


def test_every_planted_defect_has_its_seed():
    """No defect is left out of the table."""
    assert set(CAUGHT_BY) == set(BUGS)
    assert len(BUGS) == 57

"""Seeds that once broke an invariant, with what was wrong in the library."""

import pytest

from execkit.testing.simulate import simulate

ONCE_BROKEN = {
    450: "the keeper waited for a span that float sums kept just short of its end, and never settled",
    503: "the same, after a restart",
    235: "frozen queries: a position older than our own fills was taken over",
    275: "an exit larger than what a late fill had left stayed open",
    333: "a late fill of a cancelled stop, hidden by the venue for half an hour, was never fetched",
    172: "a slice of an exit left after its parent was ended by hand",
    91: "the market's state was asked for while the venue wanted to be left alone",
    17: "refused tries to close a position kept it from being compared with the venue's",
    135: "a larger stop was refused beside the one that held the balance for it, until the position was closed",
    150: "a closing was taken for the same order, presumed absent, that somebody had cancelled, and never left",
    336: "a closing waited a quarter of a minute to hear what was free",
    355: "a closing waited for the end of an entry",
    46: "a stop filled whole while its amendment was unanswered never ended",
}


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_a_seed_that_once_failed_holds(seed):
    """The seed runs through, and its books and the venue's agree in the end."""
    report = simulate(seed)
    assert report.ok, f"{ONCE_BROKEN[seed]}: {report}"

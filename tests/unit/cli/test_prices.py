"""Generated prices: bars along a path, the same for the same seed."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from execkit.cli.prices import bars_along

START = datetime(2024, 1, 1, tzinfo=UTC)


@given(seed=st.integers(), noise=st.integers(min_value=1, max_value=200))
def test_bars_are_possible_and_stay_near_the_path(seed, noise):
    """Each opens where the one before closed, nothing is impossible, no price is far from the path."""
    path = [(0, 10_000), (30, 11_000), (60, 9_000)]
    bars = list(bars_along("A/B", path, start=START, tick=Decimal("0.1"), noise=noise, seed=seed))
    assert len(bars) == 60
    for number, bar in enumerate(bars):
        bar.checked()
        assert bar.close_time == START + timedelta(minutes=number + 1)
        at = number + 1
        middle = 10_000 + at * 1_000 / 30 if at <= 30 else 11_000 - (at - 30) * 2_000 / 30
        assert abs(float(bar.close) * 10 - middle) <= 3 * noise + 1
    for before, after in itertools.pairwise(bars):
        assert after.open == before.close


def test_the_seed_makes_the_bars():
    """The same seed and symbol, the same bars."""
    path = [(0, 100), (50, 120)]
    first, second, other = (
        list(bars_along("A/B", path, start=START, tick=Decimal(1), noise=5, seed=seed))
        for seed in (1, 1, 2)
    )
    assert first == second != other

"""What is measured on bars, with numbers worked out by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.bars.cache import BarHistory
from execkit.functions.measures import atr_growth
from execkit.model.market import BarData, Timeframe

D = Decimal
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hours(*ranges):
    """Return hourly bars around 100 with these ranges, the first one closed at one o'clock."""
    return BarHistory(
        [
            BarData(
                "X",
                Timeframe.H1,
                START + HOUR * (n + 1),
                D(100),
                100 + D(r) / 2,
                100 - D(r) / 2,
                D(100),
                D(1),
            )
            for n, r in enumerate(ranges)
        ]
    )


@pytest.mark.parametrize(
    ("ranges", "since", "expected"),
    [
        ((2, 2, 2, 4, 4, 4), 3, D(2)),
        ((2, 2, 2, 4, 4, 4), 4, D(4) / (D(8) / 3)),
        ((9, 2, 2, 2, 4), 4, D(8) / 3 / 2),
        ((2, 2, 2), 3, D(1)),
        ((2, 2, 4, 4), 2, None),
        ((0, 0, 0, 4, 4, 4), 3, None),
        ((), 3, None),
    ],
)
def test_growth_of_the_range(ranges, since, expected):
    """Three bars now against the three that had closed at a time; None with fewer, and where nothing moved."""
    got = atr_growth(hours(*ranges), START + since * HOUR, 3)
    assert got == expected if expected is None else abs(got - expected) < D("1e-20")


def test_a_bar_that_was_not_over_yet_does_not_count():
    """At half past three the fourth bar was still growing."""
    assert atr_growth(hours(2, 2, 2, 8), START + 3.5 * HOUR, 3) == 2

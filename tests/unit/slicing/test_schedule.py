"""Schedules: whole lots that add up, none too small to send."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.errors import ConfigurationError
from execkit.model.instrument import Instrument
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Iceberg, Slice, Twap, Vwap
from execkit.slicing.schedule import due, schedule

D = Decimal
START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def rules(lot="0.1", least="0"):
    return Instrument.default("BTC/USDT", lot_size=D(lot), min_notional=D(least))


def parts(slices):
    return [(s.at - START, s.cumulative) for s in slices]


def test_equal_parts_at_equal_distances():
    """1 in 4 over 4 minutes: 0.25 each, on lots of 0.1 never ahead of time, the rest with the last."""
    made = schedule(Twap(duration=4 * MINUTE, slices=4), D(1), rules(), D(100), START)
    assert parts(made) == [
        (0 * MINUTE, D("0.2")),
        (1 * MINUTE, D("0.5")),
        (2 * MINUTE, D("0.7")),
        (3 * MINUTE, D(1)),
    ]


def test_parts_follow_the_volume():
    """1, 0 and 3 of 4: a quarter at once, nothing in the middle, the rest at the end."""
    profile = (D(1), D(0), D(3))
    made = schedule(Vwap(duration=3 * MINUTE, profile=profile), D(2), rules(), D(100), START)
    assert parts(made) == [(0 * MINUTE, D("0.5")), (2 * MINUTE, D(2))]


def test_a_part_that_is_too_small_goes_with_the_next():
    """The venue takes 30 at least, which is 0.3; what is too little at the end goes with the one before."""
    made = schedule(Twap(duration=5 * MINUTE, slices=5), D(1), rules(least="30"), D(100), START)
    assert parts(made) == [(1 * MINUTE, D("0.4")), (3 * MINUTE, D(1))]
    made = schedule(
        Vwap(duration=2 * MINUTE, profile=(D(9), D(1))), D(1), rules(least="30"), D(100), START
    )
    assert parts(made) == [(0 * MINUTE, D(1))]
    alone = schedule(Twap(duration=MINUTE, slices=2), D("0.1"), rules(least="30"), D(100), START)
    assert parts(alone) == [(0 * MINUTE, D("0.1"))]


def test_an_iceberg_has_no_times():
    """It goes by what was executed."""
    assert schedule(Iceberg(display=D(1)), D(5), rules(), D(100), START) == ()


@given(
    quantity=st.integers(1, 10**6).map(lambda n: D(n) / 100),
    weights=st.lists(st.integers(0, 50).map(D), min_size=1, max_size=40).filter(any),
    least=st.integers(0, 500).map(D),
)
def test_all_parts_together_are_the_order(quantity, weights, least):
    """Whatever the profile: in order of time, growing, each large enough unless it is alone, the last one whole."""
    instrument = Instrument.default("BTC/USDT", lot_size=D("0.01"), min_notional=least)
    made = schedule(
        Vwap(duration=timedelta(hours=1), profile=tuple(weights)), quantity, instrument, D(7), START
    )
    assert made[-1].cumulative == quantity
    times = [part.at for part in made]
    assert times == sorted(set(times))
    assert START <= times[0] <= times[-1] < START + timedelta(hours=1)
    steps = [
        b - a
        for a, b in zip(
            [D(0), *(p.cumulative for p in made)], (p.cumulative for p in made), strict=False
        )
    ]
    assert all(step > 0 for step in steps)
    assert len(steps) == 1 or min(steps) >= instrument.smallest_quantity(D(7))


@pytest.mark.parametrize(
    ("place", "committed", "quantity"),
    [(0, "0", "1"), (1, "1", "1"), (1, "0.4", "1.6"), (2, "0", "2"), (2, "3", "0"), (2, "4", "0")],
)
def test_what_is_behind_is_made_up_in_steps(place, committed, quantity):
    """At most twice the part itself; never more than is planned by then."""
    slices = tuple(Slice(START, D(n)) for n in (1, 2, 3))
    assert due(slices, place, D(committed), rules()) == D(quantity)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Twap(duration=timedelta(0)), "duration"),
        (lambda: Twap(duration=MINUTE, slices=0), "slices: 0"),
        (lambda: Twap(duration=MINUTE, slices=1001), "slices: 1001"),
        (lambda: Vwap(duration=MINUTE, profile=()), "slices: 0"),
        (lambda: Vwap(duration=MINUTE, profile=(D(0),)), "profile: it is zero"),
        (lambda: Vwap(duration=MINUTE, profile=(D(-1),)), r"profile\[0\]"),
        (lambda: Iceberg(display=D(0)), "display"),
        (lambda: signal(slicing=Iceberg(display=D(1))), "needs a limit_price"),
        (lambda: signal(slicing=Twap(duration=MINUTE), stop_price=D(5)), "leave out stop_price"),
    ],
)
def test_impossible_slicings_are_refused(make, text):
    """The error names the field."""
    with pytest.raises(ConfigurationError, match=text):
        make()


def signal(**changes):
    return TradingSignal(symbol="BTC/USDT", side=Side.BUY, **changes)

"""The venue's rate holds for every sequence of commands, and entries never keep a reduction waiting."""

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from execkit.orders.waiting import Throttle, Use
from execkit.virtual_time import run_virtual

WINDOW = 10

commands = st.lists(
    st.tuples(st.sampled_from(Use), st.integers(0, 40).map(lambda quarter: quarter / 4)),
    max_size=60,
)
"""Each one: what it is for, and how many seconds after the one before it comes."""


def run(count, arrivals):
    """Return (use, came, left) of each command, in their order."""
    lived = []

    async def one(throttle, use):
        came = asyncio.get_running_loop().time()
        row = [use, came, None]
        lived.append(row)
        await throttle.turn(use)
        row[2] = asyncio.get_running_loop().time()

    async def main(_clock):
        throttle = Throttle((count, timedelta(seconds=WINDOW)))
        tasks = []
        for use, gap in arrivals:
            await asyncio.sleep(gap)
            tasks.append(asyncio.ensure_future(one(throttle, use)))
        await asyncio.gather(*tasks)

    run_virtual(main)
    return lived


@given(count=st.integers(1, 12), arrivals=commands)
def test_no_window_holds_more_than_the_rate(count, arrivals):
    """Also at the edges: as many as the rate may leave at both ends of a window, but not one more."""
    left = sorted(row[2] for row in run(count, arrivals))
    for first, later in zip(left, left[count:], strict=False):
        assert later >= first + WINDOW


@given(count=st.integers(1, 12), arrivals=commands)
def test_each_kind_leaves_in_its_order(count, arrivals):
    """First come, first served, among those of one use."""
    lived = run(count, arrivals)
    for kind in Use:
        left = [row[2] for row in lived if row[0] is kind]
        assert left == sorted(left)


@given(count=st.integers(5, 20), arrivals=commands)
def test_the_less_urgent_never_starve_the_more_urgent(count, arrivals):
    """While no more come than what is kept for them, each leaves in the moment in which it comes."""
    lived = run(count, arrivals)
    for kept, urgent in ((Use.ENTRY, (Use.CHANGE, Use.REDUCTION)), (Use.CHANGE, (Use.REDUCTION,))):
        reserve = round(count * kept.value)
        rows = [row for row in lived if row[0] in urgent]
        for number, (use, came, left) in enumerate(rows):
            lately = [row for row in rows[:number] if row[2] > came - WINDOW]
            if use is Use.REDUCTION and len(lately) < reserve:
                assert left == came

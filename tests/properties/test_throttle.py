"""The venue's rate holds for every sequence of commands, and entries never keep a reduction waiting."""

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from execkit.orders.waiting import Throttle
from execkit.virtual_time import run_virtual

WINDOW = 10

commands = st.lists(
    st.tuples(st.booleans(), st.integers(0, 40).map(lambda quarter: quarter / 4)),
    max_size=60,
)
"""Each one: whether it reduces, and how many seconds after the one before it comes."""


def run(count, arrivals):
    """Return (reduces, came, left) of each command, in their order."""
    lived = []

    async def one(throttle, reduces):
        came = asyncio.get_running_loop().time()
        row = [reduces, came, None]
        lived.append(row)
        await throttle.turn(reduces=reduces)
        row[2] = asyncio.get_running_loop().time()

    async def main(_clock):
        throttle = Throttle((count, timedelta(seconds=WINDOW)))
        tasks = []
        for reduces, gap in arrivals:
            await asyncio.sleep(gap)
            tasks.append(asyncio.ensure_future(one(throttle, reduces)))
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
    """First come, first served, among entries and among reductions."""
    lived = run(count, arrivals)
    for kind in (True, False):
        left = [row[2] for row in lived if row[0] is kind]
        assert left == sorted(left)


@given(count=st.integers(3, 12), arrivals=commands)
def test_entries_never_starve_reductions(count, arrivals):
    """While no more reductions come than the reserve holds, each leaves in the moment in which it comes."""
    reserve = round(count * 0.2)
    lived = run(count, arrivals)
    cuts = [row for row in lived if row[0]]
    for number, (_, came, left) in enumerate(cuts):
        lately = [row for row in cuts[:number] if row[2] > came - WINDOW]
        if len(lately) < reserve:
            assert left == came

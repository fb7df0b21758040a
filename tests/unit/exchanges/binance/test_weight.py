"""E5: what all users of an address have used of a minute decides when questions wait."""

import asyncio
from datetime import UTC, datetime

import pytest

from execkit.exchanges.binance.weight import Weight
from execkit.virtual_time import run_virtual

LIMITS = [
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 50},
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1000},
]


def at(second):
    return datetime(2024, 3, 1, 12, 0, second, tzinfo=UTC)


def made():
    weight = Weight()
    weight.note_limits(LIMITS)
    return weight


@pytest.mark.parametrize(("used", "seconds"), [(0, 0), (799, 0), (800, 18), (5000, 18)])
def test_from_four_fifths_of_the_limit_questions_wait_for_the_next_minute(used, seconds):
    """The minute is the venue's."""

    async def main(_clock):
        weight = made()
        weight.note(used, at(42))
        assert weight.left() == pytest.approx(seconds)
        began = asyncio.get_running_loop().time()
        await weight.turn()
        assert asyncio.get_running_loop().time() - began == pytest.approx(seconds)

    run_virtual(main)


def test_a_later_answer_neither_prolongs_the_wait_nor_keeps_it_up():
    """The minute ends when it ends; the first answer of the next one tells that there is room again."""

    async def main(_clock):
        weight = made()
        weight.note(900, at(42))
        await asyncio.sleep(5)
        weight.note(990, at(47))
        assert weight.left() == pytest.approx(13)
        weight.note(20, at(1))
        assert weight.left() == 0

    run_virtual(main)


@pytest.mark.parametrize(
    "limits", [None, 7, [], ["x"], [LIMITS[0]], [LIMITS[1] | {"limit": "many"}]]
)
def test_without_a_limit_nothing_waits(limits):
    """Rules that cannot be read are no reason to stop."""

    async def main(_clock):
        weight = Weight()
        weight.note_limits(limits)
        weight.note(10_000, at(0))
        assert weight.left() == 0

    run_virtual(main)

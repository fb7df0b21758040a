"""Pauses before a broken stream is opened again: growing, bounded, by chance, and anew after a steady one."""

import random

from execkit.pauses import Pauses


class Middle(random.Random):
    """Chance that always falls in the middle."""

    def uniform(self, a, b):
        return (a + b) / 2


def pauses_of(pauses, lasted):
    """Return the pauses after streams that lasted so many seconds."""
    found, now = [], 0.0
    for seconds in lasted:
        pauses.opened(now)
        now += seconds
        found.append(pauses.after_break(now))
        now += found[-1]
    return found


def test_pauses_double_up_to_the_longest():
    """0.5 s to 30 s."""
    assert pauses_of(Pauses(Middle()), [0] * 9) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_only_a_steady_stream_begins_anew():
    """29 s of news are not yet steady; 30 s are, and the next break is the first again."""
    assert pauses_of(Pauses(Middle()), [0, 29, 29, 30, 0]) == [0.5, 1, 2, 0.5, 1]


def test_chance_spreads_them_within_a_quarter_and_never_beyond_the_longest():
    """One seed repeats them; different ones do not come back together."""
    first = [Pauses(random.Random(seed)).after_break(0) for seed in range(200)]
    assert len(set(first)) == 200
    assert 0.375 <= min(first) < 0.4
    assert 0.6 < max(first) <= 0.625
    many = [pauses_of(Pauses(random.Random(seed)), [0] * 12) for seed in range(50)]
    assert max(map(max, many)) == 30
    assert min(row[-1] for row in many) < 29
    assert pauses_of(Pauses(random.Random(7)), [0] * 5) == pauses_of(
        Pauses(random.Random(7)), [0] * 5
    )

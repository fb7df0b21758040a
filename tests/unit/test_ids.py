"""Ids: derived ones repeat, random ones come from the given generator."""

import random
import re
from decimal import Decimal

import pytest

from execkit.ids import client_order_id, content_digest, is_ours, random_id


def test_client_order_ids_are_pinned_for_ever():
    """A journal written today must find its orders with tomorrow's version."""
    assert client_order_id("paper", "signal-1", "entry") == "xkn4jyexujavpew4awcz2lpr4h"


def test_client_order_ids_are_legal_everywhere():
    """`xk` and 24 lower-case letters or digits 2 to 7."""
    assert re.fullmatch(r"xk[a-z2-7]{24}", client_order_id("a", "ß" * 200, "entry", 1, 2, 3))


def test_every_part_counts():
    """Another account, signal, role, leg, slice or revision is another order."""
    ids = {
        client_order_id("a", "s", "entry"),
        client_order_id("b", "s", "entry"),
        client_order_id("a", "t", "entry"),
        client_order_id("a", "s", "exit"),
        client_order_id("a", "s", "entry", 1),
        client_order_id("a", "s", "entry", 0, 1),
        client_order_id("a", "s", "entry", 0, 0, 1),
        client_order_id("as", "", "entry"),
    }
    assert len(ids) == 8


@pytest.mark.parametrize(
    ("order_id", "ours"),
    [
        (client_order_id("a", "s", "entry"), True),
        ("xk123", False),
        ("", False),
        ("web_" + "a" * 22, False),
    ],
)
def test_our_own_are_recognised(order_id, ours):
    """By their form."""
    assert is_ours(order_id) is ours


def test_equal_content_has_an_equal_digest():
    """1.0 equals 1; 1 is not the text next to it, and parts do not run together."""
    assert content_digest(Decimal("1.0"), "x") == content_digest(Decimal(1), "x")
    assert content_digest("ab", "c") != content_digest("a", "bc")
    assert content_digest(None) != content_digest("")


def test_random_ids_come_from_the_generator():
    """One seed gives one sequence."""
    first, second = random.Random(7), random.Random(7)
    ids = [random_id(first) for _ in range(100)]
    assert ids == [random_id(second) for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(re.fullmatch(r"[0-9a-f]{24}", each) for each in ids)

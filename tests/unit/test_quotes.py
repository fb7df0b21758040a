"""The quote book: how far a price has come lately. What else it does, the engine's tests show."""

from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.clock import ManualClock
from execkit.model.market import Quote
from execkit.orders.book import Book
from execkit.quotes import QuoteBook

BTC = "BTC/USDT"
D = Decimal


@pytest.fixture
def see():
    clock = ManualClock()
    start = clock.now()
    quotes = QuoteBook(None, Book(), clock)

    def feed(*path):
        for seconds, price in path:
            at = start + timedelta(seconds=seconds)
            assert quotes.see(Quote(BTC, D(price), D(price), at))
        return quotes

    return feed


def test_a_move_is_measured_against_where_the_price_was_farthest_off(see):
    """Up and half back: 110 is 10 % above where it was within the minute; what is older does not count."""
    quotes = see((0, 50), (30, 100), (60, 120), (89, 110))
    assert quotes.moved_pct(BTC, timedelta(seconds=60)) == 10
    assert quotes.moved_pct(BTC, timedelta(seconds=30)) == D(10) / 120 * 100
    assert quotes.moved_pct(BTC, timedelta(seconds=89)) == 120


def test_one_quote_a_second_is_remembered(see):
    """Ten minutes of them, however many come."""
    quotes = see(*((n / 10, 100 + n) for n in range(100)))
    assert len(quotes._path[BTC]) == 10
    see(*((10 + n, 100) for n in range(700)))
    assert len(quotes._path[BTC]) == 600


def test_without_a_quote_nothing_has_moved(see):
    """An unknown symbol, and one that has just come."""
    assert see().moved_pct(BTC, timedelta(seconds=60)) == 0
    assert see((0, 100)).moved_pct(BTC, timedelta(seconds=60)) == 0

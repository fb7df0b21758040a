"""Trades into minutes: half-open windows, late trades, prices that nobody believes at once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.bars.builder import TradeBars
from execkit.bars.quality import BarFinding, BarIssue, PriceBand
from execkit.bars.sessions import ListedHours, Session
from execkit.errors import ConfigurationError
from execkit.model.market import Trade

START = datetime(2024, 1, 1, tzinfo=UTC)
D = Decimal


def trade(seconds, price, quantity=1):
    return Trade("S", D(price), D(quantity), START + timedelta(seconds=seconds))


def close_of(minute):
    return START + timedelta(minutes=minute)


@pytest.fixture
def builder():
    made = TradeBars("S")
    for second, price in ((1, 100), (20, 104), (40, 99), (59.999, 102)):
        assert made.add(trade(second, price)) is None
    return made


def test_one_minute_by_hand(builder):
    """Open, extremes, close, sum; a second close finds nothing."""
    bar = builder.close(close_of(1))
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (100, 104, 99, 102, 4)
    assert (bar.close_time, bar.open_time) == (close_of(1), START)
    assert builder.close(close_of(1)) is None


def test_a_trade_at_the_close_belongs_to_the_next_bar(builder):
    """Half-open windows, also while the last bar still waits for its last trade."""
    builder.add(trade(60, 110))
    builder.add(trade(59.9995, 103))
    assert builder.due(close_of(1)) == [close_of(1)]
    first, second = builder.close(close_of(1)), builder.close(close_of(2))
    assert (first.high, first.close, first.volume) == (104, 103, 5)
    assert (second.open, second.volume) == (110, 1)


def test_a_late_trade_gives_the_bar_anew_and_a_very_late_one_a_finding(builder):
    """K4: the last closed bar can be corrected, older ones cannot."""
    builder.close(close_of(1))
    corrected = builder.add(trade(30, 105, 7))
    assert (corrected.high, corrected.close, corrected.volume) == (105, 102, 11)
    builder.add(trade(61, 100))
    builder.close(close_of(2))
    found = builder.add(trade(30, 105))
    assert (found.issue, found.symbol) == (BarIssue.LATE_TRADE, "S")


def test_an_absurd_price_waits_for_the_next(builder):
    """K15: one spike is left out; two in a row are the market."""
    assert builder.add(trade(59.9995, 379)).issue is BarIssue.ABSURD_PRICE
    assert builder.add(trade(59.9996, 102)) is None
    assert builder.close(close_of(1)).high == 104
    builder.add(trade(61, 101))
    assert builder.add(trade(62, 200)).issue is BarIssue.ABSURD_PRICE
    assert builder.add(trade(63, 201)) is None
    assert builder.add(trade(64, 202)) is None
    bar = builder.close(close_of(2))
    assert (bar.high, bar.volume) == (202, 4), "the held one counts when it is confirmed"


def test_a_spike_long_ago_confirms_nothing(builder):
    """Only the very next trade does."""
    assert builder.add(trade(59.9991, 379)).issue is BarIssue.ABSURD_PRICE
    builder.add(trade(59.9992, 102))
    assert builder.add(trade(59.9993, 380)).issue is BarIssue.ABSURD_PRICE


@pytest.mark.parametrize(("price", "quantity"), [(0, 1), (-1, 1), (100, 0), (100, -1)])
def test_impossible_trades_are_found(builder, price, quantity):
    """Never taken in."""
    found = builder.add(trade(59.9995, price, quantity))
    assert found.issue is BarIssue.IMPOSSIBLE
    assert builder.close(close_of(1)).volume == 4


def test_trades_outside_the_sessions_make_no_bar():
    """Before the open and at the very close."""
    next_day = START + timedelta(days=1)
    hours = ListedHours(
        [
            Session(START.date(), close_of(10), close_of(20)),
            Session(next_day.date(), next_day, next_day + timedelta(hours=1)),
        ]
    )
    builder = TradeBars("S", hours=hours)
    for seconds in (599, 1200):
        found = builder.add(trade(seconds, 100))
        assert isinstance(found, BarFinding)
        assert found.issue is BarIssue.OUTSIDE_SESSION
    assert builder.add(trade(600, 100)) is None
    assert builder.due(close_of(99)) == [close_of(11)]


def test_times_far_ahead_do_not_fill_the_memory(builder):
    """H8, I32: three windows at most."""
    found = [builder.add(trade(3600 * n, 100)) for n in range(1, 50)]
    assert [f for f in found if f is None] == [None, None]
    assert {f.issue for f in found if f is not None} == {BarIssue.FUTURE}


def test_the_band_is_a_percentage():
    """Above 100 or below 0 is none."""
    with pytest.raises(ConfigurationError, match="max_move_pct: 101 is above 100"):
        PriceBand(D(101))

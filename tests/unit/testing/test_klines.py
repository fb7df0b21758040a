"""The bars of a simulated market."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from execkit.model.market import BarData, Timeframe
from execkit.testing.venues.klines import Klines

START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOL = "BTC/USDT"


def trade(klines, price, seconds, quantity=1):
    at = START + timedelta(seconds=seconds)
    return klines.trade(SYMBOL, Decimal(price), Decimal(quantity), at)


def bars(klines, timeframe=Timeframe.M1, **limits):
    return [
        (int((k.bar.open_time - START).total_seconds()), str(k.bar.close), k.is_closed)
        for k in klines.show(SYMBOL, timeframe, **limits)
    ]


def test_bar_forms_until_a_later_trade_ends_it():
    """A minute in which nothing trades repeats the last price, with no volume."""
    klines = Klines()
    for price, seconds in ((100, 5), (103, 30), (99, 59), (101, 125)):
        changed = trade(klines, price, seconds)
    assert [
        (str(k.bar.volume), k.is_closed) for k in changed if k.bar.timeframe is Timeframe.M1
    ] == [
        ("3", True),
        ("0", True),
        ("1", False),
    ]
    assert bars(klines) == [(0, "99", True), (60, "99", True), (120, "101", False)]
    first = klines.show(SYMBOL, Timeframe.M1)[0].bar
    assert (first.open, first.high, first.low, first.close) == (100, 103, 99, 99)


def test_clock_ends_bars_without_a_trade():
    """In every timeframe whose time is over."""
    klines = Klines()
    trade(klines, 100, 5)
    ended = klines.close_due(START + timedelta(minutes=5))
    assert {k.bar.timeframe for k in ended} == {Timeframe.M1, Timeframe.M5}
    assert len(ended) == 6
    assert klines.close_due(START + timedelta(minutes=5)) == []


def test_long_silence_is_not_told_bar_by_bar():
    """After more than 500 bars of silence the next trade begins anew."""
    klines = Klines()
    trade(klines, 100, 5)
    trade(klines, 200, 86_400)
    assert bars(klines) == [(0, "100", True), (86_400, "200", False)]


def test_history_is_sorted_and_corrected():
    """A bar that comes again replaces the first one; limits choose by the opening."""
    klines = Klines()
    for minute, close in ((3, 13), (1, 11), (2, 12), (2, 22)):
        prices = [Decimal(close)] * 4
        at = START + timedelta(minutes=minute)
        klines.load([BarData(SYMBOL, Timeframe.M1, at, *prices, Decimal(1))])
    assert bars(klines) == [(0, "11", True), (60, "22", True), (120, "13", True)]
    assert bars(klines, limit=1) == [(120, "13", True)]
    assert bars(klines, since=START, limit=1) == [(0, "11", True)]
    assert bars(klines, until=START) == [(0, "11", True)]

"""The cache is bounded, and what it has handed out never changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.bars.cache import BarHistory, MarketData, MarketDataCache
from execkit.errors import ConfigurationError
from execkit.model.market import Timeframe


@given(st.integers(1, 7), st.integers(0, 40))
def test_keeps_the_last_bars(bar, keep, count):
    """After any number of bars the history is the last *keep* of them, oldest first."""
    cache = MarketDataCache(keep=keep)
    bars = [bar(n, 100 + n) for n in range(1, count + 1)]
    for each in bars:
        assert cache.append(each)
    history = cache.history("BTC/USDT", Timeframe.M1)
    assert tuple(history) == tuple(bars[-keep:])
    assert len(cache) == min(keep, count)


def test_keeps_a_thousand_bars_of_each_market_and_timeframe(bar):
    """1000 bars per symbol and timeframe is the default, and memory stays within twice that."""
    cache = MarketDataCache()
    for n in range(1, 4_500):
        cache.append(bar(n))
    cache.append(bar(5, timeframe=Timeframe.M5))
    assert len(cache.history("BTC/USDT", Timeframe.M1)) == 1000
    assert len(cache.history("BTC/USDT", Timeframe.M5)) == 1
    assert max(len(bars) for bars in cache._bars.values()) <= 2000
    assert repr(cache) == "MarketDataCache(2 series, 1001 bars)"


def test_views_never_change(bar):
    """A history is what it was when it was taken: later bars, trims and corrections do not show in it."""
    cache = MarketDataCache(keep=3)
    for n in range(1, 4):
        cache.append(bar(n, n))
    view = cache.history("BTC/USDT", Timeframe.M1)
    before = tuple(view)
    cache.append(bar(2, 99))
    for n in range(4, 20):
        cache.append(bar(n, n))
    assert tuple(view) == before
    with pytest.raises(TypeError):
        view[0] = before[1]
    with pytest.raises(AttributeError):
        view.extra = 1


def test_a_correction_replaces_its_bar_and_is_not_new(bar):
    """K4: a bar with a known close changes data only; an unknown old one changes nothing."""
    cache = MarketDataCache()
    for n in (1, 2, 4):
        assert cache.append(bar(n, n))
    assert not cache.append(bar(2, 50))
    assert not cache.append(bar(3, 60))
    closes = [int(each.close) for each in cache.history("BTC/USDT", Timeframe.M1)]
    assert closes == [1, 50, 4]


@given(st.lists(st.integers(-12, 12), min_size=2, max_size=2), st.sampled_from([None, 1, 2, -1]))
def test_a_history_reads_like_a_tuple(bar, ends, step):
    """Indexing, slicing, iteration and comparison agree with the tuple of the same bars."""
    bars = [bar(n, n) for n in range(1, 12)]
    history, plain = BarHistory(bars, 2, 9), tuple(bars[2:9])
    piece = slice(ends[0], ends[1], step)
    assert tuple(history[piece]) == plain[piece]
    assert isinstance(history[piece], BarHistory)
    assert list(reversed(history)) == list(reversed(plain))
    assert history[-1] == plain[-1]
    assert history[0] == plain[0]
    assert history == BarHistory(plain)
    assert history != plain
    assert hash(history) == hash(BarHistory(plain))
    for place in (7, -8):
        with pytest.raises(IndexError):
            history[place]


def test_view_of_a_market(bar):
    """`MarketData` says what is known of a market; nothing is known of one that was never seen."""
    cache = MarketDataCache()
    assert cache.view("ETH/USDT", Timeframe.H1) == MarketData(
        "ETH/USDT", Timeframe.H1, BarHistory()
    )
    assert cache.view("ETH/USDT", Timeframe.H1).last is None
    cache.append(bar(1, 7))
    assert cache.view("BTC/USDT", Timeframe.M1).last == bar(1, 7)
    assert repr(cache.history("BTC/USDT", Timeframe.M1)).startswith("BarHistory(1 bars, last 2024-")
    assert repr(BarHistory()) == "BarHistory(0 bars)"


def test_refuses_to_keep_nothing():
    """A cache without room is a mistake."""
    with pytest.raises(ConfigurationError, match="keep: 0"):
        MarketDataCache(keep=0)


def test_memory_is_bounded(bar):
    """However many bars come, a series never holds more than a quarter above what is kept."""
    cache = MarketDataCache(keep=100)
    for n in range(1, 2_000):
        cache.append(bar(n))
        assert len(cache._bars["BTC/USDT"][bar(1).timeframe]) <= 125
    history = cache.history("BTC/USDT", bar(1).timeframe)
    assert [b.close_time for b in history] == [bar(n).close_time for n in range(1_900, 2_000)]


def test_stale_symbols_are_dropped(bar):
    """A symbol goes when its newest bar is old in every timeframe; views of it stay."""
    cache = MarketDataCache()
    for symbol, minute in (("OLD", 1), ("NEW", 500), ("OLD", 2)):
        cache.append(bar(minute, symbol=symbol))
    view = cache.history("OLD", bar(1).timeframe)
    assert cache.drop_stale(bar(100).close_time) == ["OLD"]
    assert (len(cache), len(view)) == (1, 2)
    assert cache.drop_stale(bar(100).close_time) == []


def test_a_view_up_to_a_moment_has_no_future(bar):
    """What closed later is not in it, and a bar is found by its close."""
    cache = MarketDataCache()
    for n in range(1, 11):
        cache.append(bar(n))
    frame = bar(1).timeframe
    assert cache.history("BTC/USDT", frame, bar(7).close_time)[-1] == bar(7)
    assert len(cache.history("BTC/USDT", frame, bar(0).close_time)) == 0
    assert cache.at("BTC/USDT", frame, bar(4).close_time) == bar(4)
    assert cache.at("BTC/USDT", frame, bar(40).close_time) is None
    assert cache.at("ETH/USDT", frame, bar(4).close_time) is None

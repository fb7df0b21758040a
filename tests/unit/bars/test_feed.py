"""Market data as finished bars: from streams and history, through breaks, corrections, silence and nonsense."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest
from tests.support.recorded import RecordedVenue

from execkit.bars.cache import MarketDataCache
from execkit.bars.detector import BarCloseDetector
from execkit.bars.feed import BarFeed
from execkit.bars.quality import BarCheck, BarIssue, BarUse
from execkit.bars.sessions import AlwaysOpen
from execkit.clock import ManualClock
from execkit.errors import UnsupportedFeatureError
from execkit.model.market import BarData, Timeframe, Trade
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOL = "BTC/USDT"
D = Decimal


def at(minute, second=0):
    return START + timedelta(minutes=minute, seconds=second)


def bar(minute, close=100, **values):
    return BarData(
        **{
            "symbol": SYMBOL,
            "timeframe": Timeframe.M1,
            "close_time": at(minute),
            "open": D(close),
            "high": D(close),
            "low": D(close),
            "close": D(close),
            "volume": D(1),
        }
        | values
    )


def trade(minute, second, price, quantity=1):
    return Trade(SYMBOL, D(price), D(quantity), at(minute, second))


class Run:
    """A feed with a detector on a recorded venue, from *begin* to *end* minutes after midnight."""

    def __init__(self, bars=(), *, begin=0.2, end=10, prepare=None, frames=("1m", "5m"), **options):
        self.events, self.findings, self.corrections, self.skips = [], [], [], []
        venue_options = {k: options.pop(k) for k in ("trades", "delay") if k in options}
        detector_options = {k: options.pop(k) for k in ("grace", "patience") if k in options}

        async def main(clock):
            self.venue = RecordedVenue(clock, bars, **venue_options)
            if prepare is not None:
                prepare(self.venue)
            self.feed = feed = BarFeed(
                self.venue,
                [SYMBOL],
                timeframes=frames,
                clock=clock,
                on_finding=self.findings.append,
                on_correction=self.corrections.append,
                **options,
            )
            detector = BarCloseDetector(
                feed, clock=clock, on_skip=self.skips.append, **detector_options
            )
            feed.on_data = detector.deliver
            detector.watch(SYMBOL, frames, self.events.append)
            await feed.start()
            await detector.start()
            await clock.sleep_until(at(end) - timedelta(seconds=1))
            await detector.stop()
            await feed.stop()
            assert len(asyncio.all_tasks()) == 1

        run_virtual(main, start=at(0) + timedelta(minutes=begin))

    def told(self, frame="1m"):
        """Return (minute, close or None) of each event."""
        return [
            ((e.close_time - START) // timedelta(minutes=1), e.bar and e.bar.close)
            for e in self.events
            if e.timeframe is Timeframe.parse(frame)
        ]

    def issues(self):
        return [finding.issue for finding in self.findings]


def test_venue_bars_are_told_when_they_come():
    """Each as soon as it is there; the longer ones with their last part; nothing twice."""
    run = Run([bar(n, 100 + n) for n in range(1, 10)], delay=0.3)
    assert run.told() == [(n, 100 + n) for n in range(1, 10)]
    assert run.told("5m") == [(5, 105)]
    assert {e.lateness for e in run.events} == {timedelta(seconds=0.3)}
    assert run.findings == []


def test_the_past_is_known_from_the_start():
    """The hour that is under way is whole although the feed starts in its middle, and history is there."""
    bars = [bar(n, 100 + n) for n in range(-60, 61)]
    run = Run(bars, begin=37.5, end=61, frames=("1m", "1h"))
    (hour,) = [e.bar for e in run.events if e.timeframe is Timeframe.H1]
    assert (hour.open, hour.close, hour.volume) == (101, 160, 60)
    assert run.told() == [(n, 100 + n) for n in range(38, 61)]
    history = run.feed.cache.history(SYMBOL, Timeframe.M1)
    assert [b.close_time for b in history] == [at(n) for n in range(-60, 61) if n > -63]


def test_a_break_of_the_stream_is_filled_from_history():
    """K1, B6: what came meanwhile is fetched; young bars fire, older ones are data only; the 5m bar is whole."""
    bars = [bar(n, 100 + n) for n in range(1, 13)]
    run = Run(bars, end=13, prepare=lambda venue: setattr(venue, "breaks_at", [at(3), at(3.02)]))
    assert [minute for minute, _ in run.told()] == list(range(1, 13))
    five = [e.bar for e in run.events if e.timeframe is Timeframe.M5]
    assert [(b.open, b.close, b.volume) for b in five] == [(101, 105, 5), (106, 110, 5)]


def test_a_duplicate_changes_nothing_and_a_correction_data_only():
    """K2, K4: no second fire; the corrected minute is in the cache and in the five minutes that grow or just ended."""
    again = [bar(3, 103), bar(3, 150), bar(5, 160)]
    bars = [bar(n, 100 + n) for n in range(1, 8)]

    async def stream(venue, _symbols, _timeframe):
        for each in (*bars[:3], again[0], bars[3], again[1], bars[4], again[2], *bars[5:]):
            await venue.clock.sleep_until(each.close_time + timedelta(seconds=0.1))
            await asyncio.sleep(1 if each in again else 0)
            yield each
        await asyncio.Event().wait()

    run = Run(
        bars,
        backfill=0,
        prepare=lambda venue: setattr(venue, "watch_bars", lambda *a: stream(venue, *a)),
    )
    assert run.told() == [(n, 100 + n) for n in range(1, 8)] + [(8, None), (9, None)]
    assert run.issues() == [BarIssue.DUPLICATE, BarIssue.CORRECTED, BarIssue.CORRECTED]
    assert [b.close for b in run.corrections] == [150, 160]
    assert run.feed.cache.at(SYMBOL, Timeframe.M1, at(3)).close == 150
    five = run.feed.cache.at(SYMBOL, Timeframe.M5, at(5))
    assert (five.high, five.close) == (160, 160)
    assert len([e for e in run.events if e.timeframe is Timeframe.M5]) == 1


def test_no_bar_is_an_empty_close_only_while_the_stream_lives():
    """K6: nothing traded: told as empty when patience ends, the 5m bar all the same; a gap is told by no one."""
    bars = [bar(n, 100 + n) for n in (1, 2, 3, 7)]
    run = Run(bars, end=8)
    assert run.told() == [(1, 101), (2, 102), (3, 103), (4, None), (5, None), (6, None), (7, 107)]
    assert run.told("5m") == [(5, 103)]
    assert {e.lateness for e in run.events if e.bar is None} == {timedelta(seconds=2)}
    assert run.findings == []


class Lagging(RecordedVenue):
    """Its history has a bar only some time after its close."""

    lag = timedelta(0)

    async def bars(self, symbol, timeframe, *, since, until=None):
        known = await super().bars(symbol, timeframe, since=since, until=until)
        return [each for each in known if each.close_time + self.lag <= self.clock.now()]


def lagging(lag, breaks_at):
    def prepare(venue):
        venue.__class__ = Lagging
        venue.lag, venue.breaks_at = timedelta(seconds=lag), [breaks_at]

    return prepare


@pytest.mark.parametrize(("lag", "told"), [(0.8, 104), (8, None)])
def test_a_history_that_lags_is_no_proof_that_nothing_was_traded(lag, told):
    """What it has not yet is asked for again: told when it comes in time, skipped when not, and never told as empty."""
    bars = [bar(n, 100 + n) for n in range(1, 13)]
    run = Run(bars, end=12, prepare=lagging(lag, at(4)))
    wanted = [(n, 100 + n) for n in range(1, 12) if n != 4 or told]
    assert run.told() == wanted
    assert [(s.first, s.reason) for s in run.skips if s.timeframe is Timeframe.M1] == (
        [] if told else [(at(4), "no bar came within 0:00:02")]
    )
    five = [e.bar for e in run.events if e.timeframe is Timeframe.M5]
    assert [(b.open, b.close, b.volume) for b in five] == [(101, 105, 5), (106, 110, 5)]


def test_a_minute_that_the_history_never_has_was_not_traded():
    """Some seconds after its close that is settled, without a finding, and empty closes are told again."""
    bars = [bar(n, 100 + n) for n in range(1, 13) if n not in (4, 6)]
    run = Run(bars, end=12, prepare=lagging(0.5, at(3)))
    assert (6, None) in run.told()
    assert run.issues() == []


def test_a_dead_stream_without_history_fires_nothing():
    """Nobody knows what was traded: skips with the reason, no empty closes, until a whole minute was heard again."""

    async def stream(venue, _symbols, _timeframe):
        now = venue.clock.now()
        for n in (1, 2, 7, 8):
            if at(2.5) < now < at(5.5):
                raise ConnectionError("no route")
            if at(n) > now:
                await venue.clock.sleep_until(at(n))
                yield bar(n)
            if n == 2:
                await venue.clock.sleep_until(max(venue.clock.now(), at(2.6)))
                now = venue.clock.now()
        await asyncio.Event().wait()

    async def no_history(*_args, **_options):
        raise ConnectionError("no route")

    def prepare(venue):
        venue.watch_bars = lambda *args: stream(venue, *args)
        venue.bars = no_history

    run = Run([bar(n) for n in range(1, 3)], end=10, prepare=prepare)
    assert run.told() == [(1, 100), (2, 100), (7, 100), (8, 100), (9, None)]
    skipped = {(s.first - START) // timedelta(minutes=1) for s in run.skips}
    assert skipped == {3, 4, 5, 6}
    assert BarIssue.UNAVAILABLE in run.issues()


@pytest.mark.parametrize(
    ("wrong", "issue"),
    [
        ({"low": D(200)}, BarIssue.IMPOSSIBLE),
        ({"volume": D(-1)}, BarIssue.IMPOSSIBLE),
        ({"close_time": at(3, 1)}, BarIssue.OFF_GRID),
        ({"close_time": at(4)}, BarIssue.FUTURE),
        ({"high": D(379)}, BarIssue.ABSURD_PRICE),
    ],
)
def test_nonsense_is_held_and_told(wrong, issue):
    """K5, K14, K15: never used, never silently dropped, and no fire for it."""
    odd = msgspec.structs.replace(bar(3), **wrong)
    good = [bar(n) for n in range(1, 8) if n != 3]

    async def stream(venue, _symbols, _timeframe):
        for each in (*good[:2], odd, *good[2:]):
            moment = at(3) if each is odd else each.close_time
            await venue.clock.sleep_until(moment + timedelta(seconds=0.1))
            yield each
        await asyncio.Event().wait()

    run = Run(good, prepare=lambda v: setattr(v, "watch_bars", lambda *a: stream(v, *a)), end=8)
    assert issue in run.issues()
    fired = dict(run.told())
    assert fired.get(3) is None
    assert [n for n in fired if fired[n] is not None] == [1, 2, 4, 5, 6, 7]


def test_a_new_price_level_is_believed_when_it_is_confirmed():
    """A market that halves is held for one bar, which fires nothing; the next puts it back into the longer bar."""
    bars = [bar(n, 100 if n < 4 else 50) for n in range(1, 8)]
    bars[3] = bar(4, 50, high=D(100), open=D(100), volume=D(7))
    run = Run(bars, end=8)
    assert [n for n, close in run.told() if close is not None] == [1, 2, 3, 5, 6, 7]
    assert run.issues() == [BarIssue.ABSURD_PRICE]
    assert run.feed.cache.at(SYMBOL, Timeframe.M1, at(4)) == bars[3]
    (five,) = [e.bar for e in run.events if e.timeframe is Timeframe.M5]
    assert (five.high, five.low, five.close, five.volume) == (100, 50, 50, 11)


def test_a_confirmation_after_an_empty_minute_corrects_what_was_built():
    """The longer bar that has ended meanwhile is as it is with the held bar."""
    bars = [bar(n, 100 if n < 4 else 50) for n in (1, 2, 3, 4, 6, 7)]
    run = Run(bars, end=8)
    assert [each.close_time for each in run.corrections] == [at(4)]
    assert run.feed.cache.at(SYMBOL, Timeframe.M5, at(5)).volume == 4


def test_a_bar_does_not_confirm_itself_nor_a_spike():
    """The same one again stays held; one whose spike nothing comes near is never put back."""
    check = BarCheck(SYMBOL, Timeframe.M1, AlwaysOpen())
    far, spike = bar(2, 200), bar(4, 201, high=D(900))
    assert check.judge(bar(1), at(9))[0] is BarUse.NEW
    assert check.judge(far, at(9))[0] is BarUse.HELD
    assert check.judge(far, at(9))[0] is BarUse.HELD
    assert check.judge(bar(3, 201), at(9))[0] is BarUse.NEW
    assert check.confirmed == far
    assert check.judge(spike, at(9))[0] is BarUse.HELD
    assert check.judge(bar(5, 201), at(9))[0] is BarUse.NEW
    assert check.confirmed is None


# -- trades --------------------------------------------------------------------------------------------


def test_trades_become_bars_at_the_close():
    """With grace for the last trade; a bar that nothing traded in is empty; nothing waits for patience."""
    trades = [
        trade(0, 20, 99),
        *[trade(m, s, 100 + m) for m in (1, 2, 4, 5) for s in (1, 30, 59.99)],
    ]
    bars = [bar(1, 99)]
    run = Run(bars, trades=trades, delay=0.05, grace=timedelta(seconds=0.1), end=7)
    assert run.told()[1:] == [(2, 101), (3, 102), (4, None), (5, 104), (6, 105)]
    assert {e.lateness for e in run.events[1:]} == {timedelta(seconds=0.1)}
    assert {e.bar.volume for e in run.events[1:] if e.bar and e.timeframe is Timeframe.M1} == {3}


def test_a_minute_not_seen_whole_is_fetched():
    """The feed begins within a minute: that one comes from the venue's history, not from half its trades."""
    trades = [trade(0, 40, 105), trade(1, 5, 106), trade(2, 5, 107)]
    run = Run([bar(1, 104)], trades=trades, end=3)
    assert run.told() == [(1, 104), (2, 106)]
    assert run.events[0].lateness < timedelta(seconds=0.5)
    alone = Run([], trades=trades, end=3)
    assert alone.told() == [(2, 106)]
    assert BarIssue.UNSEEN in alone.issues()


def test_a_late_trade_corrects_and_fires_nothing():
    """K4: it is in the bar and in the longer one; told once."""
    trades = [trade(m, 30, 100 + m) for m in range(1, 7)]

    async def stream(venue, _symbols):
        late = trade(2, 59, 110, 5)
        for each in (*trades[:2], late, *trades[2:]):
            moment = at(3, 0.7) if each is late else each.at
            await venue.clock.sleep_until(moment)
            yield each
        await asyncio.Event().wait()

    run = Run(
        [bar(1)],
        trades=trades,
        end=8,
        prepare=lambda venue: setattr(venue, "watch_trades", lambda *a: stream(venue, *a)),
    )
    assert run.told()[2] == (3, 102)
    third = run.feed.cache.at(SYMBOL, Timeframe.M1, at(3))
    assert (third.close, third.volume) == (110, 6)
    assert [n for n, _ in run.told()] == list(range(1, 8))
    assert run.issues() == [BarIssue.LATE_TRADE]
    (five,) = [e.bar for e in run.events if e.timeframe is Timeframe.M5]
    assert (five.high, five.volume) == (110, 10)


def test_silence_on_an_open_market_is_found_once():
    """STALE, until something comes again."""
    run = Run([bar(n) for n in (1, 2)], end=30)
    assert run.issues().count(BarIssue.STALE) == 1


def test_a_venue_without_streams_is_refused():
    """At construction, naming what is missing."""
    with pytest.raises(UnsupportedFeatureError, match="streams no bars or trades"):
        BarFeed(MockExchange(), [SYMBOL])


def test_an_empty_cache_that_is_given_is_used():
    """It is as good as a full one."""
    cache = MarketDataCache(7)
    assert BarFeed(RecordedVenue(ManualClock()), [SYMBOL], cache=cache).cache is cache


def test_a_stream_that_breaks_again_and_again_is_opened_with_growing_pauses():
    """B18: news between two breaks is no success; a stream that held for 30 s is, and the next break is the first."""
    opened = []

    def prepare(venue):
        async def broken(_symbols, _timeframe):
            opened.append(asyncio.get_running_loop().time())
            if len(opened) == 9:
                await asyncio.sleep(40)
            yield bar(0)
            raise ConnectionError("the stream broke")

        venue.watch_bars = broken

    Run(prepare=prepare, end=4, rng=random.Random(3))
    lasted = [0.0] * 8 + [40.0]
    pauses = [
        later - earlier - seconds
        for (earlier, later), seconds in zip(pairwise(opened), lasted, strict=False)
    ]
    expected = [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5]
    assert len(pauses) >= len(expected)
    for pause, middle in zip(pauses, expected, strict=False):
        assert middle * 0.75 <= pause <= min(middle * 1.25, 30)
    assert pauses[:3] != [0.5, 1, 2]

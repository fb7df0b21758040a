"""Closes are told on time, once, in order and never early, whatever the clock, the loop and the callbacks do."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from execkit.bars.closes import NOT_YET, AgeLimits
from execkit.bars.detector import BarCloseDetector
from execkit.bars.sessions import AlwaysOpen, ListedHours, Session
from execkit.errors import ConfigurationError
from execkit.model.market import BarData, Timeframe
from execkit.virtual_time import run_virtual

START = datetime(2024, 1, 1, 0, 0, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EIGHT = list(Timeframe)


def at(minute, second=0):
    return START.replace(second=0) + timedelta(minutes=minute, seconds=second)


class Bench:
    """A detector whose events and skips are kept."""

    def __init__(self, clock, source=None, **options):
        self.clock = clock
        self.events = []
        self.skips = []
        self.steps = []
        self.detector = BarCloseDetector(
            source, clock=clock, on_skip=self.skips.append, on_step=self.steps.append, **options
        )

    def watch(self, symbols="BTC/USDT", frames="1m", **options):
        return self.detector.watch(symbols, frames, self.events.append, **options)

    async def until(self, moment):
        await self.clock.sleep_until(moment)
        await asyncio.sleep(0.001)

    @property
    def closes(self):
        return [event.close_time for event in self.events]


def virtual(story, start=START, **options):
    """Run a story with a bench in virtual time."""

    async def main(clock):
        bench = Bench(clock, **options)
        try:
            await story(bench)
        finally:
            await bench.detector.stop()
        return bench

    return run_virtual(main, start=start)


def test_each_close_of_eight_timeframes_fires_once_in_order():
    """Over a night into a Monday each close of each timeframe comes once, at its moment, the short bars first."""
    start, end = (
        datetime(2024, 1, 7, 19, 58, 30, tzinfo=UTC),
        datetime(2024, 1, 8, 4, 1, tzinfo=UTC),
    )

    async def story(bench):
        bench.watch(["A/USDT", "B/USDT"], EIGHT)
        await bench.detector.start()
        await bench.until(end)

    bench = virtual(story, start=start)
    hours = AlwaysOpen()
    for symbol in ("A/USDT", "B/USDT"):
        for frame in EIGHT:
            seen = [
                e.close_time for e in bench.events if (e.symbol, e.timeframe) == (symbol, frame)
            ]
            assert seen == list(hours.closes(frame, start, end))
    assert bench.closes == sorted(bench.closes)
    assert all(e.lateness == timedelta(0) for e in bench.events)
    week = [e for e in bench.events if e.close_time == datetime(2024, 1, 8, tzinfo=UTC)]
    assert [e.timeframe for e in week if e.symbol == "A/USDT"] == EIGHT
    assert bench.detector.stats.count == len(bench.events)


def test_one_timer_whatever_the_number_of_streams():
    """A thousand streams: one timer of the detector in the loop, and no task for a call."""

    async def story(bench):
        bench.watch([f"S{n}/USDT" for n in range(200)], EIGHT[:5])
        await bench.detector.start()
        tasks = len(asyncio.all_tasks())
        timers = [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()]
        assert len(timers) == 1
        seen = []
        bench.detector.watch("X/USDT", "1m", lambda _event: seen.append(len(asyncio.all_tasks())))
        await bench.until(at(60, 1))
        assert set(seen) == {tasks}

    bench = virtual(story)
    assert len(bench.events) == 200 * (60 + 12 + 4 + 2 + 1)


class EarlyLoopClock:
    """A wall clock that runs behind the loop's timers by a little: they ring too early."""

    def __init__(self, clock, behind):
        self.clock, self.behind = clock, behind

    def now(self):
        return self.clock.now() - self.behind


def test_never_early():
    """A timer that rings before the close sets itself again; the lateness is never negative."""

    async def main(clock):
        drift = EarlyLoopClock(clock, timedelta(0))
        bench = Bench(drift)
        bench.watch()
        await bench.detector.start()
        await clock.sleep_until(at(0, 59.95))
        drift.behind = timedelta(milliseconds=30)  # after the exact timer was set
        await clock.sleep_until(at(1) + timedelta(milliseconds=20))
        assert bench.events == []
        await clock.sleep_until(at(1) + timedelta(milliseconds=40))
        await bench.detector.stop()
        (event,) = bench.events
        assert event.lateness >= timedelta(0)

    run_virtual(main, start=START)


@pytest.mark.parametrize("hours", [1, 8])
def test_a_jump_ahead_skips_what_is_too_old(hours):
    """H2, H5, K11: set ahead or suspended: a skip with its range, closes young for their timeframe, then on."""

    async def story(bench):
        bench.watch(frames=["1m", "4h"])
        await bench.detector.start()
        await bench.until(at(5, 30))
        bench.clock.step(timedelta(hours=hours))
        await asyncio.sleep(95)

    bench = virtual(story)
    after = at(60 * hours)
    assert bench.closes[:5] == [at(n) for n in range(1, 6)]
    ours = [e.close_time for e in bench.events[5:] if e.timeframe is Timeframe.M1]
    assert ours == [after + timedelta(minutes=n) for n in (5, 6, 7)]
    late = [e.lateness for e in bench.events[5:] if e.timeframe is Timeframe.M1]
    assert late[0] <= timedelta(seconds=32)
    # Five and a half minutes before the clock is looked at the second four hours ended; of the first no news is left.
    long = [e.close_time for e in bench.events if e.timeframe is Timeframe.H4]
    assert long == ([at(480)] if hours == 8 else [])
    assert bench.steps == [pytest.approx(timedelta(hours=hours), abs=timedelta(seconds=0.001))]
    skips = {s.timeframe: (s.first, s.last) for s in bench.skips}
    assert skips[Timeframe.M1] == (at(6), after + timedelta(minutes=4))
    assert skips.get(Timeframe.H4) == ((at(240), at(240)) if hours == 8 else None)
    assert all("clock jumped ahead" in skip.reason for skip in bench.skips)


def test_a_step_back_repeats_nothing():
    """H1: the hour that comes a second time fires nothing; after it everything goes on."""

    async def story(bench):
        bench.watch()
        await bench.detector.start()
        await bench.until(at(70, 30))
        bench.clock.step(timedelta(hours=-1))
        await asyncio.sleep(3600 + 150)

    bench = virtual(story)
    assert bench.closes == [at(n) for n in range(1, 74)]
    assert len(bench.steps) == 1
    assert bench.skips == []


def test_ahead_and_back_again():
    """A clock that was wrong for ten minutes: no close fires twice, none out of order, and the true ones go on."""

    async def story(bench):
        bench.watch()
        await bench.detector.start()
        await bench.until(at(5, 30))
        bench.clock.step(timedelta(hours=-1))
        await asyncio.sleep(600)
        bench.clock.step(timedelta(hours=1))
        await asyncio.sleep(300)

    bench = virtual(story)
    assert bench.closes == sorted(set(bench.closes))
    assert bench.closes[:5] == [at(n) for n in range(1, 6)]
    assert bench.closes[5:] == [at(n) for n in range(15, 21)]


class BlockingLoop:
    """Lets the loop's time pass while nothing can run, as a callback that computes does."""

    @staticmethod
    def block(seconds):
        asyncio.get_running_loop()._virtual_now += seconds


def test_a_blocked_loop_fires_no_burst():
    """H10: after 200 s without a turn the one young close fires, late and known as late; the others are skipped."""

    async def story(bench):
        bench.watch()
        await bench.detector.start()
        await bench.until(at(2, 30))
        BlockingLoop.block(200)
        await asyncio.sleep(30)

    bench = virtual(story)
    assert bench.closes == [at(1), at(2), at(5), at(6)]
    assert bench.events[2].lateness > timedelta(seconds=45)
    (skip,) = bench.skips
    assert (skip.first, skip.last) == (at(3), at(4))
    assert "event loop was blocked" in skip.reason
    stats = bench.detector.stats
    assert (stats.blocked, stats.late, stats.skipped) == (1, 1, 1)
    assert stats.max == bench.events[2].lateness
    assert stats.longest_block > timedelta(seconds=190)


def test_grace_delays_the_call_and_counts_as_lateness():
    """With 250 ms of grace a close is told then, and says so."""

    async def story(bench):
        bench.watch()
        await bench.detector.start()
        await bench.until(at(1, 1))

    bench = virtual(story, grace=timedelta(milliseconds=250))
    assert [e.lateness for e in bench.events] == [timedelta(milliseconds=250)]


# -- restarts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fired", "closes", "skipped"),
    [
        (None, [at(61)], []),
        (at(60), [at(61)], []),
        (at(59), [at(60), at(61)], []),
        (at(40), [at(60), at(61)], [(at(41), at(59))]),
    ],
)
def test_a_restart_fires_what_is_young_and_new(fired, closes, skipped):
    """K10: what fired before does not fire again; a close that the restart passed over does, if it is young."""

    async def story(bench):
        bench.watch()
        await bench.detector.start()
        await bench.until(at(61, 5))

    bench = virtual(story, start=at(60, 20), fired=lambda _symbol, _frame: fired)
    assert bench.closes == closes
    assert [(s.first, s.last) for s in bench.skips] == skipped


def test_streams_may_come_and_go_while_it_runs():
    """A stream watched later starts with the next close; one that is given up is told nothing more."""

    async def story(bench):
        await bench.detector.start()
        end = bench.watch("A/USDT")
        await bench.until(at(2, 1))
        bench.watch("B/USDT", "5m")
        end()
        await bench.until(at(10, 1))

    bench = virtual(story)
    told = [(e.symbol, e.close_time) for e in bench.events]
    assert told == [("A/USDT", at(1)), ("A/USDT", at(2)), ("B/USDT", at(5)), ("B/USDT", at(10))]


# -- callbacks -----------------------------------------------------------------------------------------


def test_callbacks_that_raise_hang_or_cancel_stop_nobody():
    """P1, P3, P7: each failure is counted, and all others are told."""

    async def story(bench):
        async def hangs(_event):
            await asyncio.Event().wait()

        async def cancels(_event):
            raise asyncio.CancelledError

        async def works(event):
            await asyncio.sleep(0.01)
            bench.events.append(event)

        def raises(_event):
            raise RuntimeError("no")

        for number, callback in enumerate([raises, hangs, cancels, works]):
            bench.detector.watch(f"S{number}/USDT", "1m", callback)
        await bench.detector.start()
        await bench.until(at(3, 30))

    bench = virtual(story)
    assert bench.closes == [at(1), at(2), at(3)]
    assert bench.detector.stats.failures == 9


def test_a_callback_slower_than_its_bars_is_not_called_twice_at_once():
    """K13: one in flight; what it makes too old is skipped and recorded."""

    async def story(bench):
        running = 0

        async def slow(event):
            nonlocal running
            assert running == 0
            running += 1
            bench.events.append(event)
            await asyncio.sleep(150)
            running -= 1

        bench.detector.watch("BTC/USDT", "1m", slow)
        await bench.detector.start()
        await bench.until(at(10, 30))

    bench = virtual(story, budget=None)
    assert bench.closes == sorted(set(bench.closes))
    told = {s.first for s in bench.skips} | set(bench.closes)
    assert told >= {at(n) for n in range(1, 9)}
    assert all("after it closed" in skip.reason for skip in bench.skips)


# -- bars ----------------------------------------------------------------------------------------------


class Source:
    """Bars that come when they are told to."""

    def __init__(self):
        self.bars = {}
        self.knows = True

    def take(self, symbol, timeframe, close_time, *, final):
        bar = self.bars.get((symbol, close_time))
        if bar is not None:
            return bar
        return None if final and self.knows else NOT_YET

    def put(self, minute, symbol="BTC/USDT"):
        self.bars[symbol, at(minute)] = BarData(symbol, Timeframe.M1, at(minute), *[1] * 5)


def test_a_bar_is_told_when_it_comes():
    """A bar that is there is told at the close; a later one when it comes; one that never comes as an empty close."""
    source = Source()

    async def story(bench):
        bench.watch()
        await bench.detector.start()
        source.put(1)
        await bench.until(at(2, 0.7))
        source.put(2)
        bench.detector.deliver("BTC/USDT")
        await bench.until(at(3, 10))

    bench = virtual(story, source=source)
    assert [(e.close_time, e.is_empty, e.lateness.total_seconds()) for e in bench.events] == [
        (at(1), False, 0),
        (at(2), False, pytest.approx(0.7, abs=0.01)),
        (at(3), True, 2),
    ]


def test_a_close_that_nobody_knows_is_skipped():
    """K9: no bar, and the source cannot say that nothing was traded: no fire, one skip."""
    source = Source()
    source.knows = False

    async def story(bench):
        bench.watch()
        await bench.detector.start()
        await bench.until(at(1, 30))
        source.put(1)
        bench.detector.deliver("BTC/USDT")  # K4: too late to fire
        await bench.until(at(1, 50))

    bench = virtual(story, source=source)
    assert bench.events == []
    (skip,) = bench.skips
    assert "no bar came within 0:00:02" in skip.reason


# -- sessions ------------------------------------------------------------------------------------------


def new_york(day, clock):
    hour, minute = map(int, clock.split(":"))
    zone = ZoneInfo("America/New_York")
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(UTC)


def test_session_closes_over_a_half_day_and_a_closure_taken_off():
    """K8, K9: 16:00, 13:00, nothing on the day taken off while it runs, and on."""
    days = [date(2024, 7, n) for n in (1, 2, 3, 5, 8)]
    hours = ListedHours(
        Session(d, new_york(d, "09:30"), new_york(d, "13:00" if d.day == 3 else "16:00"))
        for d in days
    )

    async def story(bench):
        bench.watch("AAPL", "1d")
        bench.watch("MSFT", "4h")
        await bench.detector.start()
        await bench.until(new_york(date(2024, 7, 1), "20:00"))
        hours.amend(date(2024, 7, 2), None)
        bench.detector.reschedule()
        await bench.until(new_york(date(2024, 7, 3), "13:01"))

    bench = virtual(story, start=new_york(date(2024, 7, 1), "08:00"), hours=hours)
    told = [(e.symbol, e.close_time) for e in bench.events]
    assert told == [
        ("MSFT", new_york(days[0], "13:30")),
        ("MSFT", new_york(days[0], "16:00")),
        ("AAPL", new_york(days[0], "16:00")),
        ("MSFT", new_york(days[2], "13:00")),
        ("AAPL", new_york(days[2], "13:00")),
    ]


def test_an_end_of_the_calendar_stops_only_its_own_streams():
    """Behind the last known session nothing closes; other markets go on."""
    day = date(2024, 7, 1)
    listed = ListedHours([Session(day, new_york(day, "09:30"), new_york(day, "16:00"))])

    async def story(bench):
        bench.watch("AAPL", "1d", hours=listed)
        bench.watch("BTC/USDT", "1d")
        await bench.detector.start()
        await bench.until(new_york(date(2024, 7, 1), "20:01"))

    bench = virtual(story, start=new_york(day, "08:00"))
    assert [e.symbol for e in bench.events].count("BTC/USDT") == 1
    assert [e.symbol for e in bench.events].count("AAPL") == 1


def test_a_calendar_that_ends_during_a_suspend_stops_nobody_else():
    """Its last closes are skipped with their reason, the clock goes on for the others, and so does a start after it."""
    begin = START.replace(second=0)
    listed = ListedHours([Session(begin.date(), begin, begin + timedelta(hours=1))])

    async def story(bench):
        bench.detector._fired = lambda symbol, _frame: at(0) if symbol == "AAPL" else None
        bench.watch("BTC/USDT")
        bench.watch("AAPL", hours=listed)
        await bench.detector.start()
        await bench.until(at(2, 1))
        bench.clock.step(timedelta(hours=2))
        await asyncio.sleep(600)
        await bench.detector.stop()
        await bench.detector.start()

    bench = virtual(story)
    told = [(e.symbol, e.close_time) for e in bench.events]
    assert [when for symbol, when in told if symbol == "BTC/USDT"][2:] == [
        at(120 + n) for n in range(2, 13)
    ]
    assert [when for symbol, when in told if symbol == "AAPL"] == [at(1), at(2)]
    (skip,) = [skip for skip in bench.skips if skip.symbol == "AAPL"]
    assert skip.first == at(3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"accuracy": timedelta(seconds=-1)}, "accuracy: .* must not be negative"),
        ({"patience": timedelta(minutes=2)}, "patience"),
        ({"grace": timedelta(seconds=5)}, "patience: 0:00:02 must lie between grace, 0:00:05"),
        ({"calendar": "XXXX"}, "calendar: 'XXXX' is unknown"),
    ],
)
def test_refuses_options_that_cannot_work(options, text):
    """Named with value and limit, before anything runs."""
    with pytest.raises(ConfigurationError, match=text):
        BarCloseDetector(**options)


@pytest.mark.parametrize(
    ("frame", "limit"),
    [
        ("1m", 60),
        ("5m", 60),
        ("15m", 75),
        ("30m", 150),
        ("1h", 300),
        ("4h", 1200),
        ("1d", 3600),
        ("1w", 3600),
    ],
)
def test_how_old_a_close_may_be_follows_its_timeframe(frame, limit):
    """A twelfth of it, a minute at least, an hour at most; what is stated holds for all."""
    assert AgeLimits().of(Timeframe.parse(frame)) == timedelta(seconds=limit)
    assert AgeLimits(timedelta(seconds=7)).of(Timeframe.parse(frame)) == timedelta(seconds=7)
    with pytest.raises(ConfigurationError, match="max_age"):
        AgeLimits(timedelta(seconds=-1))


@pytest.mark.parametrize(("away", "told"), [(300, True), (301, False)])
def test_a_restart_tells_an_hour_that_is_still_news(away, told):
    """Five minutes are the limit of an hour: at it the close fires, after it the close is skipped."""

    async def story(bench):
        bench.watch(frames=["1h"])
        await bench.detector.start()
        await bench.until(at(70))

    bench = virtual(story, start=at(60, away), fired=lambda _symbol, _frame: at(0))
    assert bench.closes == ([at(60)] if told else [])
    assert [(s.first, s.last) for s in bench.skips] == ([] if told else [(at(60), at(60))])

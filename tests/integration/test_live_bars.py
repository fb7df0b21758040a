"""Plans on live market data: the same decisions as in a replay, across breaks, restarts, suspends and closures."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.recorded import RecordedVenue

from execkit.bars.cache import MarketDataCache
from execkit.bars.live import LiveBars, LiveOptions
from execkit.bars.runner import BarRunner
from execkit.bars.sessions import AlwaysOpen, ListedHours, Session
from execkit.cli.prices import bars_along
from execkit.engine import ExecutionEngine
from execkit.errors import RateLimitError
from execkit.exchanges.base import MarketStatus
from execkit.exchanges.paper import PaperExchange
from execkit.functions.base import ExecutionSignal
from execkit.functions.builtin import standard_registry
from execkit.journal.segments import read_entries
from execkit.model.denial import DenialCode
from execkit.model.market import BarData, Quote, Timeframe
from execkit.model.order import Side
from execkit.model.records import Alarm, BarClosed, BarSkipped, Filled
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.plans import TradePlan
from execkit.replay import replay
from execkit.virtual_time import run_virtual

START = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOL = "BTC/USDT"
HILLS = [(minute, 39_600 + (700 if minute // 30 % 2 else 0)) for minute in range(0, 331, 30)]
BARS = list(bars_along(SYMBOL, HILLS, start=START, tick=Decimal(1), noise=20, seed=1))
PLAN = TradePlan(
    name="swing",
    symbol=SYMBOL,
    entry=[
        {"function": "close_above", "timeframe": "5m", "parameters": {"threshold_price": 40_000}}
    ],
    exit=[
        {
            "function": "trailing_stop",
            "timeframe": "1m",
            "parameters": {"trail_percentage": Decimal("0.5")},
        }
    ],
    risk={"stop_loss_pct": Decimal("0.5"), "take_profit_r": 2},
)


def at(minute, second=0):
    return START + timedelta(minutes=minute, seconds=second)


class Session24:
    """An engine with `LiveBars` on a recorded venue."""

    def __init__(self, clock, venue, journal, *, hours=None, submit=None, **options):
        self.clock = clock
        self.venue = venue
        self.engine = ExecutionEngine(
            venue,
            journal=journal,
            durability="process",
            pipeline=PLAN.pipeline(),
            clock=clock,
            store=False,
        )
        self.hours = hours
        self.submit = submit and (lambda signal: submit(self.engine, signal))
        self.options = LiveOptions(**options)

    async def __aenter__(self):
        await self.engine.start()
        parts = self.engine.parts
        runner = BarRunner(
            registry=standard_registry(clock=self.clock),
            plans=[PLAN],
            cache=MarketDataCache(),
            book=parts.desk.book,
            submit=self.submit or self.engine.submit,
            record=parts.recorder.record,
            account=lambda: self.engine.account,
            clock=self.clock,
            hours=self.hours,
        )
        self.live = LiveBars(runner, parts.desk, spawn=parts.upkeep.spawn, options=self.options)
        await self.live.start()
        return self

    async def __aexit__(self, *exc):
        await self.live.stop()
        await self.engine.stop()


def live(journal, *, begin=START, end, bars=BARS, prepare=None, story=None, **options):
    """Run a live session in virtual time."""

    async def main(clock):
        venue = RecordedVenue(clock, bars, executes=True, balances={"USDT": Decimal(10_000)})
        if prepare is not None:
            prepare(venue)
        async with Session24(clock, venue, journal, **options) as session:
            if story is not None:
                await story(session)
            await clock.sleep_until(end)
            return session.live.stats

    return run_virtual(main, start=begin + timedelta(microseconds=1))


def records(journal, kind):
    return [entry.record for entry in read_entries(journal) if isinstance(entry.record, kind)]


def decisions(journal):
    """Every evaluation that counted, without what is measured."""
    return [
        (close.timeframe, close.close_time, d.function, d.action, d.confidence, d.reasoning)
        for close in records(journal, BarClosed)
        for d in close.decisions
        if not d.skipped
    ]


def test_live_decides_what_a_replay_decides(tmp_path):
    """The same plan on the same bars: the same evaluations, answers, fills and prices."""
    replay(
        [PLAN],
        BARS,
        exchange=lambda clock: PaperExchange(balances={"USDT": Decimal(10_000)}, clock=clock),
        journal=tmp_path / "replay.db",
    )
    stats = live(tmp_path / "live.db", end=at(330, 5))
    wanted = decisions(tmp_path / "replay.db")
    assert decisions(tmp_path / "live.db") == wanted
    assert len({row[3] for row in wanted}) >= 3
    fills = [
        [(f.fill.side, f.fill.price, f.fill.quantity) for f in records(tmp_path / name, Filled)]
        for name in ("live.db", "replay.db")
    ]
    assert fills[0] == fills[1] != []
    assert (stats.count, stats.skipped) == (330, 0)


def test_a_restart_fires_nothing_twice_and_goes_on(tmp_path):
    """K10: stopped in the middle of a bar and started again: each close once, and the 5m bars are whole."""
    live(tmp_path / "run.db", end=at(42, 20))
    live(tmp_path / "run.db", begin=at(42, 40), end=at(80, 1))
    closes = [(c.timeframe, c.close_time) for c in records(tmp_path / "run.db", BarClosed)]
    assert len(closes) == len(set(closes))
    fives = [when for frame, when in closes if frame == "5m"]
    assert fives == [at(n) for n in range(5, 81, 5)]
    by_close = {c.close_time: c for c in records(tmp_path / "run.db", BarClosed)}
    assert by_close[at(45)].high == max(b.high for b in BARS[40:45])


def test_a_broken_stream_and_a_suspend_are_recorded(tmp_path):
    """H5, K11: closes that nobody could tell fire nothing and are recorded; the clock's jump is alarmed."""

    async def story(session):
        await session.clock.sleep_until(at(62, 30))
        session.clock.step(timedelta(minutes=30))

    def prepare(venue):
        venue.breaks_at = [at(20)]

    live(tmp_path / "run.db", end=at(130), prepare=prepare, story=story)
    closes = [c.close_time for c in records(tmp_path / "run.db", BarClosed) if c.timeframe == "5m"]
    asked = [c.close_time for c in records(tmp_path / "run.db", BarClosed) if c.decisions]
    assert closes == sorted(set(closes))
    assert [a.code for a in records(tmp_path / "run.db", Alarm)].count("CLOCK_JUMPED") == 1
    skipped = records(tmp_path / "run.db", BarSkipped)
    assert any(
        s.timeframe == "5m"
        and s.first == at(65)
        and s.last >= at(85)
        and "clock jumped" in s.reason
        for s in skipped
    )
    assert not [when for when in asked if at(63) < when < at(91)]
    assert at(20) in closes
    assert at(100) in closes


@pytest.mark.parametrize("hangs", [False, True])
def test_a_closure_that_no_calendar_knows(tmp_path, hangs):
    """K9: the venue's own clock says closed, twice: no fire, one alarm, and the day is over.

    An answer that never comes keeps nobody from asking again.
    """
    begins = [datetime(2023, 12, 31, 1, tzinfo=UTC) + timedelta(days=n) for n in range(4)]
    hours = ListedHours(Session(b.date(), b, b + timedelta(hours=2)) for b in begins)

    asked = []

    def prepare(venue):
        async def closed(_symbol):
            asked.append(_symbol)
            if hangs and len(asked) == 2:
                await asyncio.Event().wait()
            return MarketStatus(is_open=False, reason="day of mourning")

        venue.market_status = closed

    live(tmp_path / "run.db", end=at(200), bars=[], prepare=prepare, hours=hours)
    assert records(tmp_path / "run.db", BarClosed) == []
    (alarm,) = [a for a in records(tmp_path / "run.db", Alarm) if a.code == "MARKET_HOURS"]
    assert "2024-01-01" in alarm.text
    assert hours.next_close(Timeframe.D1, at(200)) == datetime(2024, 1, 2, 3, tzinfo=UTC)


def test_one_market_that_is_closed_closes_no_other():
    """Its venue says so of it alone, e.g. a share that is not traded any more: the calendar stands for all."""
    begins = [START + timedelta(days=n) for n in (-2, -1, 0, 1)]
    hours = ListedHours(Session(b.date(), b, b + timedelta(hours=3)) for b in begins)
    other = "ETH/USDT"

    async def closed(symbol):
        return MarketStatus(
            is_open=symbol != SYMBOL, next_close=None if symbol == SYMBOL else at(180)
        )

    async def main(clock):
        venue = RecordedVenue(clock, [])
        venue.market_status = closed
        rule = {
            "function": "close_above",
            "timeframe": "1m",
            "parameters": {"threshold_price": 1},
        }
        plans = [
            TradePlan(name=symbol[:3], symbol=symbol, entry=[rule], risk={"stop_loss_pct": 1})
            for symbol in (SYMBOL, other)
        ]
        async with ExecutionEngine(
            venue, journal=None, clock=clock, pipeline=plans[0].pipeline()
        ) as engine:
            parts = engine.parts
            runner = BarRunner(
                registry=standard_registry(clock=clock),
                plans=plans,
                cache=MarketDataCache(),
                book=parts.desk.book,
                submit=engine.submit,
                record=parts.recorder.record,
                account=lambda: engine.account,
                clock=clock,
                hours=hours,
            )
            bars = LiveBars(runner, parts.desk, spawn=parts.upkeep.spawn)
            await bars.start()
            await clock.sleep_until(at(10))
            await bars.stop()
            return [each.code for each in engine.book.alarms]

    assert "MARKET_HOURS" not in run_virtual(main, start=START + timedelta(microseconds=1))
    assert hours.next_close(Timeframe.D1, at(10)) == at(180)


def test_one_markets_order_keeps_nobody_waiting(tmp_path):
    """K13: while a signal is under way its plan is not asked, closes go on, and the skip says why."""

    async def slow(engine, signal):
        await asyncio.sleep(400)
        return await engine.submit(signal)

    live(tmp_path / "run.db", end=at(50, 1), submit=slow)
    reasons = [d.reasoning for c in records(tmp_path / "run.db", BarClosed) for d in c.decisions]
    assert "the signal of an earlier close is still under way" in reasons
    closes = [c.close_time for c in records(tmp_path / "run.db", BarClosed) if c.timeframe == "5m"]
    assert closes == [at(n) for n in range(5, 51, 5)]


def test_one_markets_target_keeps_nobody_waiting():
    """K13: its exit waits out a pause that the venue asked for; the other market's closes are told meanwhile."""
    other = "ETH/USDT"
    highs = {(SYMBOL, 4): Decimal(40_900)}
    bars = [
        BarData(symbol, Timeframe.M1, at(n), low, highs.get((symbol, n), low), low, low, Decimal(9))
        for n in range(1, 12)
        for symbol, low in ((SYMBOL, Decimal(40_000)), (other, Decimal(2_000)))
    ]
    rule = {"function": "close_above", "timeframe": "1m", "parameters": {"threshold_price": 10**6}}
    plans = [
        TradePlan(name=symbol[:3], symbol=symbol, entry=[rule], risk={"stop_loss_pct": 1})
        for symbol in (SYMBOL, other)
    ]

    async def main(clock):
        venue = RecordedVenue(clock, bars, executes=True, balances={"USDT": Decimal(100_000)})
        async with ExecutionEngine(
            venue,
            journal=None,
            plans=plans,
            pipeline=plans[0].pipeline(),
            clock=clock,
            live=LiveOptions(),
        ) as engine:
            await clock.sleep_until(at(2, 5))
            entry = TradingSignal(
                symbol=SYMBOL, side=Side.BUY, stop_loss=Decimal(39_600), take_profit=Decimal(40_800)
            )
            await engine.submit(entry)
            assert SYMBOL in engine.positions
            await clock.sleep_until(at(3, 50))
            engine.desk.gateway.pace.note(RateLimitError("wait", retry_after=timedelta(minutes=3)))
            await clock.sleep_until(at(11, 30))
            assert SYMBOL not in engine.positions
            return [
                entry.record.close_time
                for entry in engine.desk.recorder.journal.entries
                if isinstance(entry.record, BarClosed) and entry.record.symbol == other
            ]

    told = run_virtual(main, start=START + timedelta(microseconds=1))
    assert told == [at(n) for n in range(1, 12)]


def test_symbols_of_which_nothing_comes_any_more_are_forgotten():
    """After a month without a bar; memory stays bounded however long an engine runs."""

    async def main(clock):
        venue = RecordedVenue(clock, BARS, balances={"USDT": Decimal(10_000)})
        async with ExecutionEngine(
            venue,
            journal=None,
            plans=[PLAN],
            pipeline=PLAN.pipeline(),
            clock=clock,
            live=LiveOptions(),
        ) as engine:
            kept = engine.desk.bars
            for days, symbol in ((29, "NEW/USDT"), (31, "OLD/USDT")):
                values = [Decimal(1)] * 5
                kept.append(BarData(symbol, Timeframe.M1, START - timedelta(days=days), *values))
            await clock.sleep_until(at(2, 1))
            return {
                symbol: len(kept.history(symbol, Timeframe.M1))
                for symbol in (SYMBOL, "NEW/USDT", "OLD/USDT")
            }

    known = run_virtual(main, start=START + timedelta(microseconds=1))
    assert known == {SYMBOL: 2, "NEW/USDT": 1, "OLD/USDT": 0}


def test_a_long_bar_is_whole_after_a_long_outage():
    """What the history brings reaches the plans' longer bars, however few bars the feed itself keeps."""
    rule = {"function": "close_above", "timeframe": "1d", "parameters": {"threshold_price": 10**6}}
    plan = TradePlan(name="day", symbol=SYMBOL, entry=[rule], risk={"stop_loss_pct": 1})
    bars = [
        BarData(
            SYMBOL, Timeframe.M1, at(n), *[Decimal(45_000 if n == 100 else 40_000)] * 4, Decimal(1)
        )
        for n in range(1, 1445)
    ]

    class Down(RecordedVenue):
        def check(self):
            if at(1085) <= self.clock.now() < at(1385):
                raise ConnectionError("down")

        async def watch_bars(self, symbols, timeframe):
            self.check()
            async for bar in super().watch_bars(symbols, timeframe):
                self.check()
                yield bar

        async def bars(self, symbol, timeframe, *, since, until=None):
            self.check()
            return await super().bars(symbol, timeframe, since=since)

    async def main(clock):
        venue = Down(clock, bars, balances={"USDT": Decimal(10_000)})
        async with ExecutionEngine(
            venue,
            journal=None,
            plans=[plan],
            pipeline=plan.pipeline(),
            clock=clock,
            live=LiveOptions(),
        ) as engine:
            await clock.sleep_until(at(1441))
            entries = engine.desk.recorder.journal.entries
            return [each.record for each in entries if isinstance(each.record, BarClosed)]

    (day,) = run_virtual(main, start=at(1080, 1))
    assert (day.timeframe, day.high, day.volume) == ("1d", 45_000, 1440)


class WrongClock:
    """A wall clock that can be wrong, on a loop whose time is right."""

    def __init__(self, clock):
        self.clock, self.wrong = clock, timedelta(0)

    def now(self):
        return self.clock.now() + self.wrong

    async def sleep_until(self, moment):
        await self.clock.sleep_until(moment)


class TrueVenue(RecordedVenue):
    """Its bars come at their true time, whatever our own clock says."""

    async def watch_bars(self, symbols, timeframe):
        opened = self.clock.clock.now()
        for bar in self.recorded:
            if bar.close_time > opened:
                await self.clock.sleep_until(bar.close_time)
                yield bar
        await asyncio.Event().wait()

    async def bars(self, symbol, timeframe, *, since, until=None):
        now = self.clock.clock.now()
        return [bar for bar in self.recorded if since < bar.close_time <= now]


@pytest.mark.parametrize("begin", [0, 5.5])
@pytest.mark.parametrize("missing", [{}, {10}])
def test_a_clock_that_was_an_hour_ahead_blinds_nobody(begin, missing):
    """H1: minutes that never were are not believed, or believed no more when it is right again: all go on at once."""
    bars = [
        BarData(SYMBOL, Timeframe.M1, at(n), *[Decimal(40_000)] * 4, Decimal(1))
        for n in range(1, 30)
        if n not in missing
    ]
    rules = [
        {"function": "close_above", "timeframe": each, "parameters": {"threshold_price": 10**6}}
        for each in ("1m", "5m")
    ]
    plan = TradePlan(name="a", symbol=SYMBOL, entry=rules, risk={"stop_loss_pct": 1})

    async def main(clock):
        wall = WrongClock(clock)
        venue = TrueVenue(wall, bars, balances={"USDT": Decimal(100_000)})
        if not begin:
            wall.wrong = timedelta(hours=1)
        async with ExecutionEngine(
            venue,
            journal=None,
            plans=[plan],
            pipeline=plan.pipeline(),
            clock=wall,
            live=LiveOptions(),
        ) as engine:
            await clock.sleep_until(START + timedelta(minutes=begin))
            wall.wrong = timedelta(hours=1)
            await clock.sleep_until(at(8, 30))
            wall.wrong = timedelta(0)
            await clock.sleep_until(at(29, 30))
            return [
                entry.record
                for entry in engine.desk.recorder.journal.entries
                if isinstance(entry.record, BarClosed) and entry.record.close_time > at(8)
            ]

    told = run_virtual(main, start=START + timedelta(microseconds=1))
    minutes = [each.close_time for each in told if each.timeframe == "1m"]
    assert minutes == [at(n) for n in range(9, 30) if n not in missing]
    fives = [(each.close_time, each.volume) for each in told if each.timeframe == "5m"]
    assert fives == [(at(n), 5 - (n == 10 and len(missing))) for n in (10, 15, 20, 25)]


def test_a_plans_entry_never_closes_what_another_plan_has_opened():
    """Two plans want different things at one close: the first is in when the second is looked at, and stays in."""
    registry = standard_registry()

    def wants(action):
        async def function(_context):
            return ExecutionSignal(action=action, confidence=Decimal("0.9"))

        return function

    registry.register("long")(wants("enter_long"))
    registry.register("short")(wants("enter_short"))
    plans = [
        TradePlan(name=name, symbol=SYMBOL, entry=[{"function": name, "timeframe": "1m"}])
        for name in ("long", "short")
    ]

    async def main(clock):
        price = Decimal(40_000)
        venue = PaperExchange(
            balances={"USDT": Decimal(10_000)}, prices={SYMBOL: price}, clock=clock
        )
        engine = ExecutionEngine(venue, journal=None, plans=plans, functions=registry, clock=clock)
        async with engine:
            parts = engine.parts
            parts.runner.go_live(lambda work: parts.upkeep.spawn(work, "signal"))
            await clock.sleep_until(at(1))
            venue.feed_quote(Quote(SYMBOL, price - 1, price + 1, clock.now(), last=price))
            await engine.on_bar(
                BarData(SYMBOL, Timeframe.M1, at(1), price, price, price, price, Decimal(1))
            )
            await asyncio.sleep(5)
            assert engine.positions[SYMBOL].signal_id.startswith("long|")
            assert engine.book.positions.closed == []
            told = {name.partition("|")[0]: known for name, known in engine.book.signals.items()}
            assert told["long"].result.outcome is Outcome.FILLED
            assert told["short"].result.denial.code is DenialCode.POSITION_EXISTS

    run_virtual(main, start=START)


def test_what_a_days_close_decides_is_done_at_the_next_open(tmp_path):
    """The market has just closed when the day's function answers: its order waits for the open, and is sent then."""
    day = TradePlan(
        name="days",
        symbol=SYMBOL,
        calendar="XNYS",
        entry=[
            {"function": "close_above", "timeframe": "1d", "parameters": {"threshold_price": 100}}
        ],
    )
    opens, closes, next_open = (
        datetime(2024, 1, 2, 14, 30, tzinfo=UTC),
        datetime(2024, 1, 2, 21, tzinfo=UTC),
        datetime(2024, 1, 3, 14, 30, tzinfo=UTC),
    )

    async def main(clock):
        price = Decimal(40_000)
        venue = PaperExchange(
            balances={"USDT": Decimal(10_000)}, prices={SYMBOL: price}, clock=clock
        )
        engine = ExecutionEngine(venue, journal=None, plans=[day], clock=clock)
        async with engine:
            for minute in range(1, 391):
                bar = BarData(
                    SYMBOL,
                    Timeframe.M1,
                    opens + timedelta(minutes=minute),
                    *[price] * 4,
                    Decimal(1),
                )
                if bar.close_time == closes:
                    await clock.sleep_until(closes)
                    venue.feed_quote(Quote(SYMBOL, price, price, clock.now(), last=price))
                    venue.core.set_halted(SYMBOL, halted=True)
                    await engine.on_bar(bar)
                else:
                    engine.parts.runner.warm_up([bar])
            assert len(engine.book.queued) == 1
            await clock.sleep_until(next_open - timedelta(minutes=1))
            assert engine.positions == {}
            await clock.sleep_until(next_open)
            venue.core.set_halted(SYMBOL, halted=False)
            venue.feed_quote(Quote(SYMBOL, price, price, clock.now(), last=price))
            for _ in range(14):  # the queue is looked at once in a period, which is a minute
                await asyncio.sleep(5)
                venue.feed_quote(Quote(SYMBOL, price, price, clock.now(), last=price))
            assert next_open <= engine.positions[SYMBOL].opened_at <= clock.now()

    run_virtual(main, start=opens)


def test_a_share_and_a_coin_in_one_runner(tmp_path):
    """Each has its own hours: after the share's session its minutes are no empty ones, and the coin's go on."""
    share = "XYZ/USD"
    end = at(60)
    hours = {
        SYMBOL: AlwaysOpen(),
        share: ListedHours(
            Session(day.date(), day, day + timedelta(minutes=30))
            for day in (START + timedelta(days=n) for n in range(-2, 3))
        ),
    }
    bars = [
        BarData(symbol, Timeframe.M1, at(n), *[Decimal(100)] * 4, Decimal(1))
        for n in range(1, 61)
        for symbol in (SYMBOL, share)
        if symbol == SYMBOL or n <= 30
    ]
    closed, skipped = [], []

    async def main(clock):
        venue = RecordedVenue(clock, bars)
        engine = ExecutionEngine(venue, journal=None, clock=clock)
        async with engine:
            desk = engine.parts.desk

            def record(record):
                if isinstance(record, BarClosed):
                    closed.append((record.symbol, record.close_time))
                elif isinstance(record, BarSkipped):
                    skipped.append((record.symbol, record.first))
                engine.parts.recorder.record(record)

            runner = BarRunner(
                registry=standard_registry(clock=clock),
                plans=[
                    PLAN.model_copy(update={"name": f"p{n}", "symbol": symbol})
                    for n, symbol in enumerate(hours)
                ],
                cache=MarketDataCache(),
                book=desk.book,
                submit=engine.submit,
                record=record,
                account=lambda: engine.account,
                clock=clock,
                hours=hours.__getitem__,
            )
            live = LiveBars(runner, desk, spawn=engine.parts.upkeep.spawn)
            await live.start()
            await clock.sleep_until(end + timedelta(seconds=30))
            await live.stop()

    run_virtual(main, start=START + timedelta(microseconds=1))
    last = {symbol: max(close for each, close in closed if each == symbol) for symbol in hours}
    assert last == {SYMBOL: end, share: at(30)}
    assert [first for symbol, first in skipped if symbol == share] == []

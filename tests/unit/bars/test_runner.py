"""A close fires once, in order, never late, and its record comes before its order."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from execkit.bars.closes import BarSkip
from execkit.bars.plan_run import PlanRun
from execkit.bars.runner import BarRunner
from execkit.bars.sessions import AlwaysOpen, ListedHours, Session
from execkit.clock import ManualClock
from execkit.errors import ConfigurationError, ExecKitError, RegistrationError, SignalConflictError
from execkit.functions.base import ExecutionFunctionBase, ExecutionSignal, FunctionParams
from execkit.functions.builtin import standard_registry
from execkit.model.market import Timeframe
from execkit.model.order import Side
from execkit.model.plan import TradePlanStatus
from execkit.model.position import PositionState
from execkit.model.records import Alarm, BarClosed, BarSkipped, PlanChanged, StopMoved
from execkit.model.signal import TradingSignal
from execkit.orders.book import Book
from execkit.virtual_time import run_virtual

START = ManualClock().now()
SYMBOL = "BTC/USDT"
ABOVE = ("close_above", "1m", {"threshold_price": 100})
BELOW = ("close_below", "1m", {"threshold_price": 90})


def run(main):
    """Run a scenario under virtual time."""
    return run_virtual(lambda _clock: main)


def registry_of(**functions):
    """A registry of plain functions; none of them takes parameters."""
    registry = standard_registry()
    for name, function in functions.items():
        registry.register(name)(function)
    return registry


def ids(desk):
    return [signal.signal_id for signal in desk.submitted]


# --- from a close to an order -------------------------------------------------------------------------


def test_entry_then_exit(desk, plan, bar):
    """Flat, the entry rules are asked; with a position of the plan open, its exit rules."""
    runner = desk.runner(plan([ABOVE], [BELOW]))
    run(desk.feed(runner, bar(1, 99), bar(2, 101), bar(3, 105), bar(4, 89), bar(5, 88)))
    assert ids(desk) == [
        "p|close_above|BTC/USDT|1m|2024-01-01T00:02:00Z",
        "p|close_below|BTC/USDT|1m|2024-01-01T00:04:00Z",
    ]
    entry, leave = desk.submitted
    assert (entry.side, entry.reduce_only, entry.source) == (Side.BUY, False, "plan:p")
    assert (leave.side, leave.reduce_only, leave.max_age) == (Side.SELL, True, timedelta(minutes=1))
    assert [(name, action) for name, action, _ in desk.decisions] == [
        ("close_above", "none"),
        ("close_above", "enter_long"),
        ("close_below", "none"),
        ("close_below", "exit"),
        ("close_above", "none"),
    ]


def test_the_record_is_written_before_the_order(desk, plan, bar):
    """Architecture 8 and 14: the decisions of a close are journalled before what they lead to."""
    run(desk.feed(desk.runner(plan([ABOVE])), bar(1, 101)))
    assert desk.log == ["BarClosed", "submit", "Intent", "Filled", "SignalResult"]
    (close,) = desk.closes
    assert (close.symbol, close.timeframe, close.close_time) == (
        "BTC/USDT",
        "1m",
        bar(1).close_time,
    )
    assert (close.high, close.low, close.close) == (101, 101, 101)
    assert list(close.signals) == ids(desk)


def test_the_first_rule_that_wants_in_wins(desk, plan, bar):
    """Rules are asked in the plan's order; after the first order the rest of the close is skipped."""
    rules = [
        ("close_above", "1m", {"threshold_price": 200}),
        ("close_below", "1m", {"threshold_price": 300}),
        ABOVE,
    ]
    run(desk.feed(desk.runner(plan(rules)), bar(1, 150)))
    assert ids(desk) == ["p|close_below|BTC/USDT|1m|2024-01-01T00:01:00Z"]
    assert [(name, action) for name, action, _ in desk.decisions] == [
        ("close_above", "none"),
        ("close_below", "enter_short"),
        ("close_above", "skipped"),
    ]
    assert desk.decisions[-1][2] == "the plan acts on this close already"


def test_shorter_bars_come_first(desk, plan, bar):
    """At one moment closes are asked from the shortest timeframe to the longest, with one order for all."""
    rules = [(name, frame, values) for frame in ("1h", "5m", "1m") for name, _, values in [ABOVE]]
    runner = desk.runner(plan(rules))
    run(desk.feed(runner, *(bar(n, 99) for n in range(1, 60)), bar(60, 101)))
    assert [close.timeframe for close in desk.closes[-3:]] == ["1m", "5m", "1h"]
    assert [d.skipped for close in desk.closes[-3:] for d in close.decisions] == [False, True, True]
    assert ids(desk) == ["p|close_above|BTC/USDT|1m|2024-01-01T01:00:00Z"]


def test_only_timeframes_in_use_are_recorded(desk, plan, bar):
    """A bar that no rule looks at is no business of the journal."""
    runner = desk.runner(plan([("close_above", "5m", {"threshold_price": 500})]))
    run(desk.feed(runner, *(bar(n) for n in range(1, 13))))
    assert [close.timeframe for close in desk.closes] == ["5m", "5m"]
    assert len(runner._cache.history("BTC/USDT", Timeframe.M1)) == 12


def test_bars_of_other_symbols_are_nothing(desk, plan, bar):
    """Without a plan for a symbol its bars are not even kept."""
    runner = desk.runner(plan([ABOVE]))
    run(desk.feed(runner, bar(1, 500, symbol="ETH/USDT")))
    runner.warm_up([bar(2, 500, symbol="ETH/USDT")])
    assert (desk.records, len(runner._cache)) == ([], 0)


def test_the_context_of_a_function(desk, plan, bar):
    """D3: bar, bounded history that ends with it, parameters, position, account and time, in one value."""
    seen = []

    async def look(context):
        seen.append(context)
        return ExecutionSignal.none()

    runner = desk.runner(plan([("look", "1m", {})]), registry=registry_of(look=look))
    run(desk.feed(runner, bar(1, 5), bar(2, 6)))
    context = seen[-1]
    assert (context.plan, context.symbol, context.timeframe) == ("p", "BTC/USDT", Timeframe.M1)
    assert context.history[-1] is context.bar
    assert [int(each.close) for each in context.history] == [5, 6]
    assert [len(each.history) for each in seen] == [1, 2]
    assert context.timestamp == bar(2).close_time
    assert context.account.equity == 10_000
    assert (context.position, context.parameters) == (None, FunctionParams())


def test_levels_of_the_plan_and_of_the_function(desk, plan, bar):
    """A plan states stop and target in percent and R; what a function says itself goes before it."""

    async def own(_context):
        return ExecutionSignal(action="enter_long", confidence=1, stop_loss=Decimal(90))

    risk = {"stop_loss_pct": 2, "take_profit_r": 3}
    runner = desk.runner(
        plan([ABOVE], risk=risk, exchange="paper"),
        plan([("own", "1m", {})], name="q", risk=risk),
        registry=registry_of(own=own),
    )
    run(desk.feed(runner, bar(1, 200)))
    first, second = desk.submitted
    assert (first.stop_loss, first.take_profit, first.exchange) == (196, 212, "paper")
    assert (second.stop_loss, second.take_profit, second.exchange) == (90, 212, None)


# --- once, in order, never late -----------------------------------------------------------------------


def test_duplicates_and_old_bars_never_fire(desk, plan, bar):
    """K2, K3, K4: a bar that is not newer corrects data at most."""
    desk.fills = False
    runner = desk.runner(plan([ABOVE]))
    run(desk.feed(runner, bar(1, 99), bar(2, 101), bar(2, 101), bar(1, 150), bar(3, 99)))
    assert len(desk.submitted) == 1
    assert [close.close_time for close in desk.closes] == [bar(n).close_time for n in (1, 2, 3)]
    assert [int(b.close) for b in runner._cache.history("BTC/USDT", Timeframe.M1)] == [150, 101, 99]


def test_a_close_fires_once_across_a_restart(desk, plan, bar):
    """K10, I24: what the journal says was used is not used again by another process."""
    desk.fills = False
    run(desk.feed(desk.runner(plan([ABOVE])), bar(1, 99), bar(2, 101)))
    book = Book.restore(desk.book.snapshot())
    second = type(desk)(book)
    runner = second.runner(plan([ABOVE]))
    runner.warm_up([bar(1, 99)])
    run(second.feed(runner, bar(2, 101), bar(3, 102)))
    assert ids(second) == ["p|close_above|BTC/USDT|1m|2024-01-01T00:03:00Z"]
    assert [close.close_time for close in second.closes] == [bar(3).close_time]


def test_signals_are_owed_until_they_are_taken_up(desk, plan, bar):
    """A kill between the close's record and the order's intent loses nothing: the signal is sent after it."""
    desk.error = ExecKitError("the engine is not running")
    run(desk.feed(desk.runner(plan([ABOVE])), bar(1, 101)))
    assert list(desk.book.owed) == ids(desk)
    second = type(desk)(Book.restore(desk.book.snapshot()))
    second.clock.set(bar(1).close_time)
    runner = second.runner(plan([ABOVE]))
    run(runner.settle())
    assert second.submitted == desk.submitted
    assert second.book.owed == {}
    run(runner.settle())
    assert len(second.submitted) == 1


def test_late_bars_are_recorded_and_fire_nothing(desk, plan, bar):
    """K11: of a burst after a reconnect only what is young enough is used; the rest says why not."""
    desk.fills = False
    runner = desk.runner(plan([ABOVE]))

    async def burst():
        desk.clock.set(bar(10).close_time)
        for n in range(1, 11):
            await runner.on_bar(bar(n, 101))

    run(burst())
    assert ids(desk) == [
        f"p|close_above|BTC/USDT|1m|2024-01-01T00:{minute:02}:00Z" for minute in (9, 10)
    ]
    assert [action for _, action, _ in desk.decisions] == ["skipped"] * 8 + ["enter_long"] * 2
    assert desk.decisions[0][2] == "closed 0:09:00 ago, more than 0:01:00"


def test_missing_bars_are_on_record(desk, plan, bar):
    """K1: what was never asked, because its bar never came, is journalled as an alarm."""
    run(desk.feed(desk.runner(plan([ABOVE])), bar(1), bar(2), bar(6)))
    (alarm,) = [record for record in desk.records if isinstance(record, Alarm)]
    assert (alarm.code, alarm.symbol) == ("BARS_MISSING", "BTC/USDT")
    assert alarm.text == (
        "3 1m bars are missing before 2024-01-01T00:05:00+00:00; nothing was asked"
    )


def test_a_longer_bar_that_ends_in_a_gap_comes_late(desk, plan, bar):
    """The hour whose last minute is missing is final with the next minute, and too old when that is late."""
    rule = ("close_above", "5m", {"threshold_price": 100})
    runner = desk.runner(plan([rule]))
    run(
        desk.feed(runner, *(bar(n, 101) for n in range(1, 5)), bar(8, 101), bar(9, 99), bar(10, 99))
    )
    assert [(c.close_time.minute, c.decisions[0].skipped) for c in desk.closes] == [
        (5, True),
        (10, False),
    ]


def test_impossible_and_misplaced_bars_are_refused(desk, plan, bar):
    """K14, K15, I23: no such bar reaches a function, and the feed goes on."""
    runner = desk.runner(plan([ABOVE]))
    nan = msgspec.structs.replace(bar(2, 101), close=Decimal("NaN"))
    upside_down = bar(2, 101, high=90)
    between = msgspec.structs.replace(
        bar(2, 101), close_time=bar(2).close_time + timedelta(seconds=1)
    )
    run(desk.feed(runner, bar(1, 99), nan, upside_down, between, bar(2, 102)))
    assert [close.close for close in desk.closes] == [99, 102]
    assert len(desk.submitted) == 1


@pytest.mark.parametrize(("delay", "then"), [(90, "exit"), (200, "skipped")])
def test_bars_of_one_symbol_wait_for_each_other(desk, plan, bar, delay, then):
    """K13: while a submit hangs the next bar of the symbol waits; when it is too old then, it is skipped."""
    runner = desk.runner(plan([ABOVE], [BELOW]))

    async def main(clock):
        desk.clock = runner._clock = clock
        inner = desk.submit

        async def slow(signal):
            await asyncio.sleep(delay)
            await inner(signal)

        runner._submit = slow
        first = asyncio.create_task(runner.on_bar(bar(0, 101)))
        second = asyncio.create_task(runner.on_bar(bar(1, 89)))
        await asyncio.sleep(0)
        assert desk.submitted == []
        await asyncio.gather(first, second)

    run_virtual(main)
    assert len(desk.closes) == 2
    assert [action for _, action, _ in desk.decisions] == ["enter_long", then]


# --- whose position is it -----------------------------------------------------------------------------


def test_plans_leave_the_positions_of_others_alone(desk, plan, bar):
    """A position that no signal of the plan opened is neither left nor entered again."""
    desk.fill(TradingSignal(symbol="BTC/USDT", side=Side.BUY, signal_id="by hand"))
    run(desk.feed(desk.runner(plan([ABOVE], [BELOW])), bar(1, 101), bar(2, 89)))
    assert desk.submitted == []
    assert desk.decisions == []


def test_an_exit_under_way_is_not_repeated(desk, plan, bar):
    """While an exit order works the exit rules are skipped."""
    runner = desk.runner(plan([ABOVE], [BELOW]))

    async def scenario():
        await desk.feed(runner, bar(1, 101))
        desk.fills = False
        position = desk.book.position
        exiting = msgspec.structs.replace(position("BTC/USDT"), state=PositionState.PENDING_EXIT)
        desk.book.position = lambda _symbol: exiting
        await desk.feed(runner, bar(2, 89))

    run(scenario())
    assert len(desk.submitted) == 1
    assert desk.decisions[-1] == ("close_below", "skipped", "an exit is under way")


def test_status_follows_the_position(desk, plan, bar):
    """D8: awaiting entry, position open, and awaiting again; each change is journalled with its signal."""
    runner = desk.runner(plan([ABOVE], [BELOW]))
    assert runner.status("p") is TradePlanStatus.AWAITING_ENTRY
    run(desk.feed(runner, bar(1, 101), bar(2, 102), bar(3, 89), bar(4, 95)))
    changes = [record for record in desk.records if isinstance(record, PlanChanged)]
    assert [(c.status, c.signal_id) for c in changes] == [
        ("position_open", ids(desk)[0]),
        ("awaiting_entry", None),
    ]
    assert desk.book.plans["p"].status == "awaiting_entry"


def test_a_plan_that_does_not_repeat_trades_once(desk, plan, bar):
    """`repeat: false` is completed by its first trade, also across a restart."""
    once = plan([ABOVE], [BELOW], repeat=False)
    run(desk.feed(desk.runner(once), bar(1, 101), bar(2, 89), bar(3, 101), bar(4, 101)))
    assert len(desk.submitted) == 2
    runner = desk.runner(once)
    assert runner.status("p") is TradePlanStatus.COMPLETED
    run(desk.feed(runner, bar(5, 101)))
    assert len(desk.submitted) == 2


def test_a_trade_that_no_bar_saw_counts_too(desk, plan, bar):
    """Entered and stopped out between two bars, the one trade is done."""
    runner = desk.runner(plan([ABOVE], [BELOW], repeat=False))

    async def scenario():
        await desk.feed(runner, bar(1, 101))
        desk.stop_out()
        await desk.feed(runner, bar(2, 101))

    run(scenario())
    assert len(desk.submitted) == 1
    assert runner.status("p") is TradePlanStatus.COMPLETED


def test_a_cancelled_plan_asks_nobody(desk, plan, bar):
    """Cancelled by hand or in its file; armed again it goes on."""
    runner = desk.runner(plan([ABOVE], [BELOW]), plan([ABOVE], name="q", status="cancelled"))
    run(desk.feed(runner, bar(1, 101)))
    runner.set_status("p", TradePlanStatus.CANCELLED, "by hand")
    run(desk.feed(runner, bar(2, 89)))
    assert [close.decisions for close in desk.closes[1:]] == [()]
    runner.set_status("p", TradePlanStatus.AWAITING_ENTRY, "by hand")
    run(desk.feed(runner, bar(3, 89)))
    assert [signal.source for signal in desk.submitted] == ["plan:p", "plan:p"]
    with pytest.raises(ConfigurationError, match="plan: 'x' is unknown; there are: p, q"):
        runner.status("x")


def test_a_signal_in_conflict_stops_the_entries(desk, plan, bar):
    """The same bar with other content is a mistake that no retry heals: the plan is in error, its exits go on."""
    runner = desk.runner(plan([ABOVE], [BELOW]))
    desk.error = SignalConflictError("came before with other content")
    run(desk.feed(runner, bar(1, 101)))
    assert runner.status("p") is TradePlanStatus.ERROR
    desk.error = None
    run(desk.feed(runner, bar(2, 101)))
    assert len(desk.submitted) == 1
    desk.fill(desk.submitted[0])
    run(desk.feed(runner, bar(3, 89)))
    assert [signal.reduce_only for signal in desk.submitted] == [False, True]


def test_owed_signals_of_a_plan_that_is_gone(desk, plan, bar):
    """A conflict over a signal whose plan is not here any more concerns nobody."""
    desk.error = ExecKitError("stopping")
    run(desk.feed(desk.runner(plan([ABOVE])), bar(1, 101)))
    desk.error = SignalConflictError("conflict")
    run(desk.runner(plan([ABOVE], name="other")).settle())
    assert "other" not in desk.book.plans


# --- what functions may say ---------------------------------------------------------------------------


def test_rules_keep_to_their_part(desk, plan, bar):
    """An exit from an entry rule, and an entry from an exit rule, are recorded and not followed."""

    async def leave(_context):
        return ExecutionSignal(action="exit", confidence=1)

    async def enter(_context):
        return ExecutionSignal(action="enter_long", confidence=1)

    runner = desk.runner(
        plan([("leave", "1m", {}), ABOVE], [("enter", "1m", {})]),
        registry=registry_of(leave=leave, enter=enter),
    )
    run(desk.feed(runner, bar(1, 101), bar(2, 101)))
    assert desk.decisions == [
        ("leave", "skipped", "exit from an entry rule: nothing is open"),
        ("close_above", "enter_long", "close 101 is above 100"),
        ("enter", "skipped", "enter_long from an exit rule: a position is open"),
    ]


@pytest.mark.parametrize(
    ("side", "stop", "moved"),
    [
        ("long", 98, ""),
        ("long", 101, "stop 101 is beyond the close 101"),
        ("long", 95, "stop 95 is not tighter than 96"),
        ("short", 103, ""),
        ("short", 101, "stop 101 is beyond the close 101"),
        ("short", 106, "stop 106 is not tighter than 105"),
    ],
)
def test_stops_only_tighten(desk, plan, bar, side, stop, moved):
    """ADJUST_STOP moves the stop towards the price, never away from it and never beyond it."""

    async def tighten(_context):
        return ExecutionSignal(
            action="adjust_stop", confidence=1, new_stop=Decimal(stop), reasoning="tighter"
        )

    async def enter(_context):
        first = 96 if side == "long" else 105
        return ExecutionSignal(action=f"enter_{side}", confidence=1, stop_loss=Decimal(first))

    runner = desk.runner(
        plan([("enter", "1m", {})], [("tighten", "1m", {})]),
        registry=registry_of(enter=enter, tighten=tighten),
    )
    run(desk.feed(runner, bar(1, 101), bar(2, 101)))
    moves = [record for record in desk.records if isinstance(record, StopMoved)]
    if moved:
        assert moves == []
        assert desk.decisions[-1] == ("tighten", "skipped", f"{moved} (tighter)")
    else:
        (move,) = moves
        assert (move.stop_loss, move.reason) == (stop, "tighten: tighter")
        assert desk.book.position("BTC/USDT").stop_loss == stop
        assert desk.decisions[-1][:2] == ("tighten", "adjust_stop")
    assert len(desk.submitted) == 1


def test_the_record_holds_what_the_functions_were_given(desk, plan, bar):
    """D9: bar, position, account, parameters, history, duration and signal: enough to ask the same again."""

    async def slow(_context):
        await asyncio.sleep(0.02)
        return ExecutionSignal(
            action="exit", confidence=1, reasoning="x" * 2000, metadata={"level": [1, 2]}
        )

    async def odd(_context):
        return ExecutionSignal(action="none", confidence=0, metadata={"thing": object()})

    registry = registry_of(slow=slow, odd=odd)
    runner = desk.runner(plan([ABOVE], [("odd", "1m", {}), ("slow", "1m", {})]), registry=registry)
    run(desk.feed(runner, bar(1, 99), bar(2, 101, high=104, volume=7), bar(3, 103)))
    flat, entered, left = desk.closes
    assert flat.position is None
    assert (flat.account.equity, flat.account.currency) == (10_000, "USDT")
    assert (entered.open, entered.high, entered.volume) == (101, 104, 7)
    (decision,) = entered.decisions
    assert msgspec.json.decode(decision.parameters) == {
        "threshold_price": "100",
        "min_volume": "0",
    }
    assert (decision.bars, decision.duration_us, decision.failed) == (2, 0, False)
    assert [decision.signal_id] == list(entered.signals) == ids(desk)[:1]
    assert (left.position.quantity, left.position.average_price) == (1, 101)
    asked, did = left.decisions
    assert asked.metadata == '"(not JSON)"'
    assert (did.duration_us, did.metadata, len(did.reasoning)) == (20_000, '{"level":[1,2]}', 1000)
    assert did.signal_id == ids(desk)[1]


def test_an_answer_that_makes_no_signal_stops_nobody(desk, plan, bar):
    """I29: levels that come out at or below zero are no order; the next rule is asked, and the close is recorded."""
    far = plan([ABOVE, ABOVE], risk={"stop_loss_pct": 100})
    near = plan([ABOVE], name="near")
    run(desk.feed(desk.runner(far, near), bar(1, 101)))
    assert ids(desk) == ["near|close_above|BTC/USDT|1m|2024-01-01T00:01:00Z"]
    (first, _), second = desk.decisions[:2], desk.closes[0].decisions[1]
    assert first[:2] == ("close_above", "skipped")
    assert first[2].startswith("makes no signal: stop_loss: 0E-8 must be above zero (close 101")
    assert second.skipped


def test_a_part_that_is_disabled_disables_the_whole(desk, plan, bar):
    """A function inside another one is switched off with it; nobody asks around the switch."""
    parameters = {"of": [{"function": "close_above", "parameters": {"threshold_price": 100}}]}
    registry = standard_registry()
    runner = desk.runner(plan([("any_of", "1m", parameters)]), registry=registry)
    registry.disable("close_above", actor="operator")
    run(desk.feed(runner, bar(1, 101)))
    assert desk.decisions == [("any_of", "skipped", "disabled")]
    registry.enable("close_above", actor="operator")
    run(desk.feed(runner, bar(2, 101)))
    assert len(desk.submitted) == 1


def test_lookback_is_waited_for(desk, plan, bar):
    """A function is not asked before its history is there; warm-up counts."""
    asked = []

    class Needs(ExecutionFunctionBase[FunctionParams]):
        required_lookback = 3

        async def evaluate(self, context):
            asked.append(len(context.history))
            return ExecutionSignal.none()

    registry = standard_registry()
    registry.register("needs")(Needs)
    runner = desk.runner(plan([("needs", "1m", {})]), registry=registry)
    run(desk.feed(runner, bar(1), bar(2), bar(3)))
    assert asked == [3]
    assert desk.decisions[0] == ("needs", "skipped", "has 1 of 3 bars")
    warm = desk.runner(plan([("needs", "1m", {})]), registry=registry)
    warm.warm_up([bar(1), bar(2), bar(3)])
    run(desk.feed(warm, bar(4)))
    assert asked == [3, 4]


def test_disabled_functions_are_skipped(desk, plan, bar):
    """Switched off, a function is passed over in the next bar, and back on it is asked again."""
    registry = standard_registry()
    runner = desk.runner(plan([ABOVE]), registry=registry)
    registry.disable("close_above")
    run(desk.feed(runner, bar(1, 101)))
    assert desk.decisions == [("close_above", "skipped", "disabled")]
    registry.enable("close_above")
    run(desk.feed(runner, bar(2, 101)))
    assert len(desk.submitted) == 1


def test_functions_see_the_best_price_of_this_very_close(desk, plan, bar):
    """The best price since entry counts the bar that is asked about, and no bar that began before the entry."""
    seen = []

    async def look(context):
        seen.append(context.position.best_price)
        context.position.fees["USDT"] = Decimal(-1)
        return ExecutionSignal.none()

    runner = desk.runner(
        plan([ABOVE], [("look", "1m", {}), ("look", "5m", {})]), registry=registry_of(look=look)
    )
    run(
        desk.feed(
            runner,
            bar(1, 99, high=500),
            bar(2, 101, high=300),
            bar(3, 105, high=110),
            bar(4, 104, high=108),
            bar(5, 106, high=120),
        )
    )
    assert seen == [110, 110, 120, 120]
    assert desk.book.position("BTC/USDT").best_price == 120
    assert desk.book.position("BTC/USDT").fees == {}, "P5: what functions see is theirs"


# --- how a runner is made -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        (
            ("nobody", "1m", {}),
            RegistrationError,
            r"plan p: entry\[0\]: function 'nobody' is unknown",
        ),
        (
            ("close_above", "1m", {}),
            ConfigurationError,
            r"plan p: entry\[0\]: close_above: threshold_price: is missing",
        ),
    ],
)
def test_functions_are_made_at_once(desk, plan, entry, kind, message):
    """A plan that cannot run is refused when the runner is built, naming plan and rule."""
    with pytest.raises(kind, match=message):
        desk.runner(plan([entry]))


def test_a_lookback_must_be_a_number(desk, plan):
    """A function that asks for no bars or half a bar is refused."""

    class Odd(ExecutionFunctionBase[FunctionParams]):
        required_lookback = 0

        async def evaluate(self, context):
            return ExecutionSignal.none()

    registry = standard_registry()
    registry.register("odd")(Odd)
    with pytest.raises(ConfigurationError, match="odd: required_lookback is 0"):
        desk.runner(plan([("odd", "1m", {})]), registry=registry)


def test_plans_have_names_of_their_own(desk, plan):
    """Two plans of one name could not tell their positions apart."""
    with pytest.raises(ConfigurationError, match="plans: two are named 'p'; rename one"):
        desk.runner(plan([ABOVE]), plan([ABOVE]))


def test_several_plans_watch_one_symbol(desk, plan, bar):
    """Each decides for itself; the health of every function can be read."""
    desk.fills = False
    runner = desk.runner(plan([ABOVE]), plan([ABOVE], name="q"))
    run(desk.feed(runner, bar(1, 101)))
    assert [signal.source for signal in desk.submitted] == ["plan:p", "plan:q"]
    assert [(use.plan, use.name, use.evaluations, use.failures) for use in runner.health] == [
        ("p", "close_above", 1, 0),
        ("q", "close_above", 1, 0),
    ]
    assert runner.last_evaluated("close_above") == bar(1).close_time
    assert runner.last_evaluated("close_below") is None


def test_records_fold_again(desk, plan, bar):
    """I16: the runner's records are the state; folding them once more gives the same book."""
    runner = desk.runner(plan([ABOVE], [BELOW]))
    run(desk.feed(runner, *(bar(n, 85 + (n * 7) % 30) for n in range(1, 60))))
    assert any(isinstance(record, BarClosed) for record in desk.records)
    again = Book()
    for record in desk.records:
        again.apply(
            msgspec.json.decode(msgspec.json.encode(record), type=type(record)), desk.clock.now()
        )
    assert again.fired == desk.book.fired
    assert again.plans == desk.book.plans
    assert again.owed == desk.book.owed == {}


def test_public_parts_are_documented():
    """Users meet the runner through the engine, and read it when something did not fire."""
    assert all(part.__doc__ for part in (BarRunner, PlanRun, BarRunner.settle, BarRunner.warm_up))


# -- the clock -----------------------------------------------------------------------------------------


async def test_a_close_without_trades_ends_the_longer_bars(desk, bar, plan):
    """K6: the clock says that the fifth minute was empty: the five minutes end then."""
    runner = desk.runner(plan([("close_above", "5m", {"threshold_price": 100})]))
    await desk.feed(runner, bar(0), *(bar(n) for n in range(1, 5)))
    desk.clock.set(bar(5).close_time)
    await runner.on_empty("BTC/USDT", bar(5).close_time)
    await runner.on_empty("BTC/USDT", bar(5).close_time)
    (close,) = desk.closes
    assert (close.timeframe, close.close_time) == ("5m", bar(5).close_time)
    await runner.on_bar(bar(5))  # late: data only
    assert len(desk.closes) == 1


async def test_skipped_closes_are_recorded_for_what_is_used(desk, bar, plan):
    """I24: for each timeframe in use that had a close in the time, and not what had fired before."""
    runner = desk.runner(
        plan(
            [
                ("close_above", "1m", {"threshold_price": 1_000_000}),
                ("close_above", "15m", {"threshold_price": 1_000_000}),
            ]
        )
    )
    await desk.feed(runner, bar(1), bar(2))
    first, last = bar(2).close_time, bar(20).close_time
    runner.on_skip(BarSkip("BTC/USDT", Timeframe.M1, first, last, "the clock jumped ahead"))
    runner.on_skip(BarSkip("XRP/USDT", Timeframe.M1, first, last, "not ours"))
    skipped = [
        (r.timeframe, r.first, r.last, r.reason) for r in desk.records if isinstance(r, BarSkipped)
    ]
    assert skipped == [
        ("1m", bar(3).close_time, last, "the clock jumped ahead"),
        ("15m", bar(15).close_time, bar(15).close_time, "the clock jumped ahead"),
    ]


async def test_a_corrected_minute_corrects_the_longer_bars(desk, bar, plan):
    """K4: the five minutes that grow, and those that ended, without a second fire."""
    runner = desk.runner(plan([("close_above", "5m", {"threshold_price": 1_000_000})]))
    await desk.feed(runner, bar(0), *(bar(n) for n in range(1, 6)))
    await runner.on_bar(bar(4, 100, high=170))
    cache = runner._cache
    assert cache.at("BTC/USDT", Timeframe.M5, bar(5).close_time).high == 170
    assert len(desk.closes) == 1


async def test_a_night_between_sessions_is_no_gap(desk, bar, plan):
    """Only what the hours expect can be missing."""
    opens = [bar(0).close_time + timedelta(days=n, hours=10) for n in range(3)]
    hours = ListedHours(Session(o.date(), o, o + timedelta(minutes=2)) for o in opens)
    rule = [("close_above", "1m", {"threshold_price": 1_000_000})]
    runner = desk.runner(plan(rule), hours=hours)
    await desk.feed(runner, bar(601), bar(602), bar(1440 + 601))
    assert not [r for r in desk.records if isinstance(r, Alarm)]
    await desk.feed(runner, bar(2880 + 601))
    assert [r.code for r in desk.records if isinstance(r, Alarm)] == ["BARS_MISSING"]


# --- each market's own hours, and how old is too old --------------------------------------------------


def sessions_of(*days, opens=14.5, closes=21):
    """Sessions on these days of January 2024; hours in UTC."""
    midnight = [START + timedelta(days=day - 1) for day in days]
    return ListedHours(
        Session(at.date(), at + timedelta(hours=opens), at + timedelta(hours=closes))
        for at in midnight
    )


def test_each_market_has_its_own_hours(desk, plan, bar):
    """A share's hours end at half past, those of a coin with the clock, in one runner."""
    rule = ("close_above", "1h", {"threshold_price": 500})
    hours = {"XYZ/USD": sessions_of(1, 2, 3), SYMBOL: AlwaysOpen()}
    plans = [plan([rule], name=f"p{n}", symbol=symbol) for n, symbol in enumerate(hours)]
    runner = desk.runner(*plans, hours=hours.__getitem__)
    minutes = range(14 * 60 + 31, 17 * 60 + 1)
    run(desk.feed(runner, *(bar(n, symbol=symbol) for n in minutes for symbol in hours)))
    closed = {
        symbol: [
            (c.close_time - START) / timedelta(hours=1) for c in desk.closes if c.symbol == symbol
        ]
        for symbol in hours
    }
    assert closed == {"XYZ/USD": [15.5, 16.5], SYMBOL: [16, 17]}


def test_how_old_a_close_may_be_follows_the_timeframe(desk, plan, bar):
    """At 01:00 four minutes late: the hour is asked about, its last minute is not, and both are recorded."""
    rules = [("close_above", frame, {"threshold_price": 100}) for frame in ("1m", "1h")]
    runner = desk.runner(plan(rules))

    async def story():
        await desk.feed(runner, *(bar(n, 99) for n in range(1, 60)))
        desk.clock.set(bar(64).close_time)
        await runner.on_bar(bar(60, 101))

    run(story())
    assert ids(desk) == ["p|close_above|BTC/USDT|1h|2024-01-01T01:00:00Z"]
    minute = desk.closes[-2].decisions[0]
    assert (minute.skipped, minute.reasoning) == (True, "closed 0:04:00 ago, more than 0:01:00")


@pytest.mark.parametrize(("closes_at", "age"), [(20 * 60, 300), (21 * 60, 17.5 * 3600 + 300)])
def test_a_closed_market_does_not_make_a_signal_older(desk, plan, bar, closes_at, age):
    """What a session's last bar decides is for the next open: until then, and as long as ever, it may wait."""
    hours = sessions_of(1, 2, opens=14)
    hours.amend(
        (START + timedelta(days=1)).date(),
        Session(
            (START + timedelta(days=1)).date(),
            START + timedelta(hours=38.5),
            START + timedelta(hours=45),
        ),
    )
    runner = desk.runner(plan([("close_above", "1h", {"threshold_price": 100})]), hours=hours)
    run(
        desk.feed(
            runner,
            *(bar(n, 101 if n == closes_at else 99) for n in range(closes_at - 60, closes_at + 1)),
        )
    )
    (signal,) = desk.submitted
    assert signal.max_age == timedelta(seconds=age)

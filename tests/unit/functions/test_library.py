"""Breakout, moving-average cross, ATR stop and time exit by hand-computed numbers."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test

from execkit.bars.cache import BarHistory
from execkit.clock import ManualClock
from execkit.functions.base import ExecutionContext
from execkit.functions.builtin import standard_registry
from execkit.functions.compose import (
    all_of,
    any_of,
    confirm,
    cooldown,
    k_of_n,
    not_,
    only_in_session,
    use,
)
from execkit.functions.library import LIBRARY, MaCross, MaCrossParams
from execkit.functions.measures import best_price
from execkit.model.account import AccountView
from execkit.model.market import BarData, Timeframe
from execkit.model.position import Position
from execkit.numbers import ZERO
from execkit.testing.function_machine import FunctionMachine

START = datetime(2024, 1, 1, tzinfo=UTC)
REGISTRY = standard_registry()


def bars(*closes, spread=0, volume=10):
    return [
        BarData(
            "BTC/USDT",
            Timeframe.M1,
            START + timedelta(minutes=number + 1),
            Decimal(close),
            Decimal(close) + spread,
            Decimal(close) - spread,
            Decimal(close),
            Decimal(volume),
        )
        for number, close in enumerate(closes)
    ]


def held(quantity, average=100, best=None, opened=0, stop=None):
    return Position(
        position_id="p",
        symbol="BTC/USDT",
        quantity=Decimal(quantity),
        average_price=Decimal(average),
        best_price=None if best is None else Decimal(best),
        opened_at=START + timedelta(minutes=opened),
        stop_loss=None if stop is None else Decimal(stop),
    )


def ask(name, series, position=None, **parameters):
    function = REGISTRY.create(name, parameters)
    assert len(series) >= function.required_lookback
    context = ExecutionContext(
        plan="p",
        symbol="BTC/USDT",
        timeframe=Timeframe.M1,
        bar=series[-1],
        history=BarHistory(series),
        parameters=function.params,
        position=position,
        account=AccountView("USDT", ZERO, ZERO, ZERO),
        timestamp=series[-1].close_time,
    )
    return asyncio.run(function.evaluate(context))


def action(*args, **kwargs):
    return ask(*args, **kwargs).action.value


@pytest.mark.parametrize(
    ("last", "position", "direction", "wanted"),
    [
        (106, None, "both", "enter_long"),
        (105, None, "both", "none"),  # the high itself is not beyond
        (99, None, "both", "none"),
        (98, None, "both", "enter_short"),
        (106, None, "short", "none"),
        (98, None, "long", "none"),
        (106, held(-1), "short", "exit"),
        (98, held(1), "long", "exit"),
        (106, held(1), "both", "none"),
        (98, held(-1), "both", "none"),
    ],
)
def test_breakout(last, position, direction, wanted):
    """Beyond the extremes of the bars before: an entry when flat, an exit against a position."""
    series = bars(200, 100, 104, 102, last, spread=1)  # the first is out of the range of 3 bars
    assert action("breakout", series, position, bars=3, direction=direction) == wanted


def test_breakout_says_why():
    """The range and the close are named; the confidence is that of close_above at the extreme."""
    answer = ask("breakout", bars(100, 104, 102, 106, spread=1), bars=3)
    assert answer.reasoning == "close 106 is above the high 105 of 3 bars"
    # true ranges: 2, max(105,100)-103=5... by hand: 2; 105-100=5; 104-101=3; 107-102=5 -> ATR 15/4
    assert answer.confidence == Decimal("0.5667")  # 0.5 + 0.25 x 1 / 3.75; the volume is its mean


@pytest.mark.parametrize(
    ("closes", "position", "direction", "wanted"),
    [
        ((100, 100, 100, 101), None, "both", "enter_long"),
        ((100, 100, 100, 99), None, "both", "enter_short"),
        ((100, 100, 101, 102), None, "both", "none"),  # crossed a bar ago
        ((100, 100, 100, 100), None, "both", "none"),
        ((100, 100, 100, 101), held(-1), "long", "exit"),
        ((100, 100, 100, 101), held(1), "long", "none"),
        ((100, 100, 100, 99), None, "long", "none"),
    ],
)
def test_ma_cross(closes, position, direction, wanted):
    """Mean of 2 against mean of 3, now and one bar ago."""
    series = bars(*closes)
    assert action("ma_cross", series, position, fast=2, slow=3, direction=direction) == wanted


@given(st.lists(st.integers(90, 110), min_size=7, max_size=40))
def test_ma_cross_equals_brute_force(closes):
    """At each close the cross is that of sums computed anew from the closes."""
    function = MaCross(MaCrossParams(fast=2, slow=6))
    series = bars(*closes)
    for count in range(7, len(closes) + 1):
        now, before = (
            sum(closes[end - 2 : end]) * 3 - sum(closes[end - 6 : end])
            for end in (count, count - 1)
        )
        wanted = (
            "enter_long" if now > 0 >= before else "enter_short" if now < 0 <= before else "none"
        )
        assert action("ma_cross", series[:count], fast=2, slow=6) == wanted
    assert function.required_lookback == 7


ATR_FOUR = bars(*[100] * 15, spread=2)  # every true range is 4


@pytest.mark.parametrize(
    ("quantity", "best", "wanted"),
    [
        (1, 106, "exit"),  # 106 - 1.5 x 4 = 100, reached
        (1, "105.9", "none"),
        (-1, 94, "exit"),
        (-1, "94.1", "none"),
    ],
)
def test_atr_stop(quantity, best, wanted):
    """The close against the best price less a multiple of the ATR; the level itself is enough."""
    assert action("atr_stop", ATR_FOUR, held(quantity, best=best, opened=-9)) == wanted


def test_atr_stop_can_move_the_stop_at_the_venue():
    """It follows the best price while that makes the stop tighter."""
    for stop, wanted in (("99.0", "adjust_stop"), (None, "adjust_stop"), ("99.9", "none")):
        answer = ask(
            "atr_stop", ATR_FOUR, held(1, best="105.9", opened=-9, stop=stop), move_stop=True
        )
        assert answer.action.value == wanted
        assert answer.new_stop == (Decimal("99.9") if wanted == "adjust_stop" else None)


def test_atr_stop_waits():
    """Without a position, or without a range to measure by, there is nothing to do."""
    assert action("atr_stop", ATR_FOUR) == "none"
    assert ask("atr_stop", bars(*[100] * 15), held(1)).reasoning == "the bars have no range"


@pytest.mark.parametrize(
    ("parameters", "opened", "wanted"),
    [
        ({"after": timedelta(minutes=5)}, 0, "exit"),
        ({"after": timedelta(minutes=5)}, "0.1", "none"),
        ({"bars": 5}, 0, "exit"),
        ({"bars": 5}, "0.1", "none"),  # the first bar had begun before the entry
        ({"bars": 6}, 0, "none"),
    ],
)
def test_time_exit(parameters, opened, wanted):
    """By age of the position, or by whole bars since the entry."""
    position = held(1, opened=float(opened))
    assert action("time_exit", bars(*[100] * 5), position, **parameters) == wanted


def test_time_exit_needs_a_position():
    """Flat, there is nothing to leave."""
    assert action("time_exit", bars(100), bars=1) == "none"


def test_all_are_registered():
    """The standard registry has each of them."""
    assert set(LIBRARY) <= set(REGISTRY)


PARTS = {
    "breakout": use("breakout", bars=3),
    "ma_cross": use("ma_cross", fast=2, slow=5),
    "all": all_of(use("breakout", bars=2), use("ma_cross", fast=1, slow=3)),
    "some": k_of_n(1, use("breakout", bars=2), use("ma_cross", fast=1, slow=3)),
    "confirmed": confirm(any_of(use("breakout", bars=1), use("breakout", bars=4)), bars=2),
    "cooled": cooldown(not_(use("breakout", bars=1), action="enter_long"), bars=3),
    "session": only_in_session(
        use("breakout", bars=1), start="22:00", end="05:00", timezone="UTC", days=["mon"]
    ),
}


class NoLookAhead(FunctionMachine):
    """Answers are the same with later bars in memory, for every function that needs no position."""

    @initialize(part=st.sampled_from(sorted(PARTS)))
    def choose(self, part):
        self.part = PARTS[part]
        self.function = self.make_function()

    part = use("breakout", bars=3)

    def make_function(self):
        return standard_registry(clock=ManualClock()).create(
            self.part.function, self.part.parameters
        )


def test_nobody_looks_ahead():
    """A function, alone or inside others, knows the past only, and answers the same question the same way."""
    run_state_machine_as_test(
        NoLookAhead, settings=settings(max_examples=40, stateful_step_count=15)
    )


def test_a_shorter_last_bar_of_a_session_counts_from_where_it_began():
    """Four-hour bars of New York close at 13:30 and 16:00: who entered at 13:00 has held all of the second one."""

    def four_hours(close, high):
        price = Decimal(100)
        return BarData(
            "BTC/USDT", Timeframe.H4, close, price, Decimal(high), price, price, Decimal(1)
        )

    history = [
        four_hours(START + timedelta(hours=13, minutes=30), 150),
        four_hours(START + timedelta(hours=16), 120),
    ]
    early, late = held(1, opened=13 * 60), held(1, opened=14 * 60)
    assert best_price(early, BarHistory(history)) == 120
    assert best_price(late, BarHistory(history)) == 100
    assert action("time_exit", history, early, bars=1) == "exit"
    assert action("time_exit", history, late, bars=1) == "none"

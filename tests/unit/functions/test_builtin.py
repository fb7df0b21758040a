"""The three built-in functions by hand-computed numbers; a month of real bars is in tests/unit/bars."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError, RegistrationError
from execkit.functions.base import ExecutionContext
from execkit.functions.builtin import MAX_INSTANCES, register_builtins, standard_registry
from execkit.functions.measures import average_true_range, breakout_confidence, mean_volume
from execkit.functions.registry import ExecutionFunctionRegistry
from execkit.model.account import AccountView
from execkit.model.market import BarData, Timeframe
from execkit.model.position import Position
from execkit.numbers import ZERO

START = datetime(2024, 1, 1, tzinfo=UTC)
REGISTRY = standard_registry(max_instances=dict.fromkeys(MAX_INSTANCES, 10_000))


def bar(minute, close, high=None, low=None, volume=10):
    close = Decimal(str(close))
    high = close if high is None else Decimal(str(high))
    low = close if low is None else Decimal(str(low))
    at = START + timedelta(minutes=minute)
    return BarData("BTC/USDT", Timeframe.M1, at, close, high, low, close, Decimal(str(volume)))


def held(quantity, average=100, best=None, opened=0):
    return Position(
        position_id="p",
        symbol="BTC/USDT",
        quantity=Decimal(quantity),
        average_price=Decimal(average),
        best_price=None if best is None else Decimal(best),
        opened_at=START + timedelta(minutes=opened),
    )


def ask(name, bars, position=None, **parameters):
    function = REGISTRY.create(name, parameters)
    context = ExecutionContext(
        plan="p",
        symbol="BTC/USDT",
        timeframe=Timeframe.M1,
        bar=bars[-1],
        history=BarHistory(bars),
        parameters=function.params,
        position=position,
        account=AccountView("USDT", ZERO, ZERO, ZERO),
        timestamp=bars[-1].close_time,
    )
    return asyncio.run(function.evaluate(context))


def action(*args, **kwargs):
    return ask(*args, **kwargs).action.value


@pytest.mark.parametrize(
    ("name", "close", "position", "wanted", "result"),
    [
        ("close_above", 101, None, None, "enter_long"),
        ("close_above", 100, None, None, "none"),
        ("close_above", 99, None, None, "none"),
        ("close_above", 101, held(-1), None, "exit"),
        ("close_above", 101, held(1), None, "none"),
        ("close_above", 101, None, "enter_short", "enter_short"),
        ("close_above", 101, held(1), "enter_long", "none"),
        ("close_above", 101, held(1), "exit", "exit"),
        ("close_above", 101, None, "exit", "none"),
        ("close_below", 99, None, None, "enter_short"),
        ("close_below", 100, None, None, "none"),
        ("close_below", 99, held(1), None, "exit"),
        ("close_below", 99, held(-1), None, "none"),
        ("close_below", 99, None, "enter_long", "enter_long"),
        ("close_below", 99, held(-1), "exit", "exit"),
    ],
)
def test_closes_beyond_a_threshold(name, close, position, wanted, result):
    """The threshold itself is not beyond; flat it enters its way, against a position it exits."""
    assert action(name, [bar(1, close)], position, threshold_price=100, action=wanted) == result


def test_thin_bars_are_ignored():
    """`min_volume` itself is enough, less is not."""
    bars = [bar(1, 101, volume=7)]
    assert action("close_above", bars, threshold_price=100, min_volume=7) == "enter_long"
    answer = ask("close_above", bars, threshold_price=100, min_volume=Decimal("7.1"))
    assert (answer.action.value, answer.reasoning) == ("none", "volume 7 is below 7.1")


def test_reasons_name_the_numbers():
    """What decided can be read."""
    assert ask("close_above", [bar(1, 99)], threshold_price=100).reasoning == (
        "close 99 is not above 100"
    )
    assert (
        ask("close_below", [bar(1, 99)], threshold_price=100).reasoning == "close 99 is below 100"
    )
    held_already = ask("close_above", [bar(1, 101)], held(1), threshold_price=100)
    assert held_already.reasoning == "close is above 100, but the position is as wanted"


def test_confidence_by_hand():
    """0.5 + 0.25 for a volume half above its mean / 2 + 0.25 for a distance of 2 at an ATR of 4 / 2."""
    bars = [bar(n, 100, high=102, low=98, volume=10) for n in range(1, 21)]
    bars.append(bar(21, 102, high=102, low=98, volume=15))
    history = BarHistory(bars)
    assert mean_volume(history) == 10
    assert average_true_range(history) == 4
    assert breakout_confidence(history, Decimal(2)) == Decimal("0.7500")
    assert ask("close_above", bars, threshold_price=100).confidence == Decimal("0.7500")


def test_confidence_is_clamped_at_both_ends():
    """A huge volume and distance make 1, a small volume takes nothing away."""
    quiet = [bar(n, 100, high=101, low=99, volume=10) for n in range(1, 25)]
    loud = BarHistory([*quiet, bar(25, 900, high=900, low=100, volume=10_000)])
    assert breakout_confidence(loud, Decimal(800)) == 1
    still = BarHistory([*quiet, bar(25, 100, high=101, low=99, volume=1)])
    assert breakout_confidence(still, Decimal("0.0001")) == Decimal("0.5000")


def test_confidence_without_history():
    """Parts whose divisor is unknown or zero count nothing."""
    assert mean_volume(BarHistory()) == 0
    assert average_true_range(BarHistory()) == 0
    alone = BarHistory([bar(1, 100, volume=9)])
    assert (mean_volume(alone), average_true_range(alone)) == (0, 0)
    assert breakout_confidence(alone, Decimal(5)) == Decimal("0.5000")
    ranged = BarHistory([bar(1, 100, high=110, low=90)])
    assert breakout_confidence(ranged, Decimal(5)) == Decimal("0.5625")


def test_true_range_counts_the_gap():
    """A bar that opens away from the close before it has moved that far."""
    history = BarHistory([bar(1, 100), bar(2, 110, high=111, low=109)])
    assert average_true_range(history, 1) == 11
    assert average_true_range(history) == Decimal("5.5")
    longer = BarHistory([bar(n, 100, high=101, low=99) for n in range(1, 30)])
    assert average_true_range(longer) == 2


@pytest.mark.parametrize(
    ("quantity", "best", "close", "result"),
    [
        (1, 200, 198, "exit"),
        (1, 200, "198.01", "none"),
        (1, 200, 150, "exit"),
        (-1, 50, "50.5", "exit"),
        (-1, 50, "50.49", "none"),
    ],
)
def test_trailing_stop_by_hand(quantity, best, close, result):
    """1 % from a best of 200 is 198, for a short from 50 it is 50.5; reaching it is enough."""
    position = held(quantity, average=100, best=best, opened=50)
    answer = ask("trailing_stop", [bar(60, close)], position, trail_percentage=1)
    assert answer.action.value == result
    assert answer.confidence == (1 if result == "exit" else 0)
    if result == "exit":
        assert answer.level.value == "high"


@pytest.mark.parametrize(
    ("quantity", "start", "best", "close", "result"),
    [
        (1, 150, 149, 100, "none"),
        (1, 150, 150, 148, "exit"),
        (-1, 60, 61, 90, "none"),
        (-1, 60, 60, 61, "exit"),
    ],
)
def test_trailing_stop_waits_for_its_activation(quantity, start, best, close, result):
    """Before the best price has reached `activation_price` nothing is trailed."""
    position = held(quantity, best=best, opened=50)
    bars = [bar(60, close)]
    assert (
        action("trailing_stop", bars, position, trail_percentage=1, activation_price=start)
        == result
    )


@pytest.mark.parametrize(("sign", "extreme", "close"), [(1, 120, 118), (-1, 80, 81)])
def test_trailing_stop_without_a_recorded_best(sign, extreme, close):
    """Bars since the entry and the entry price tell the best; bars that began before it do not count."""
    early = [bar(1, 100, high=500, low=1), bar(2, 100, high=500, low=1)]
    later = [bar(3, 100, high=120, low=80), bar(4, close)]
    position = held(sign, opened=2)
    assert action("trailing_stop", early + later, position, trail_percentage=1) == "exit"
    assert action("trailing_stop", early[:1], held(sign, opened=1), trail_percentage=1) == "none"
    answer = ask("trailing_stop", later, position, trail_percentage=1)
    assert answer.reasoning.endswith(f"from the best price {extreme}")


def test_trailing_stop_needs_a_position():
    """Flat, there is nothing to leave."""
    answer = ask("trailing_stop", [bar(1, 1)], trail_percentage=1)
    assert (answer.action.value, answer.reasoning) == ("none", "no position is open")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("close_above", {}, "threshold_price: is missing"),
        (
            "close_above",
            {"threshold_price": 0},
            "threshold_price: 0 is wrong; it should be greater",
        ),
        ("close_above", {"threshold_price": 1, "min_volume": -1}, "min_volume: -1 is wrong"),
        (
            "close_below",
            {"threshold_price": 1, "action": "buy"},
            "action: 'buy' is wrong; it should",
        ),
        ("trailing_stop", {"trail_percentage": 100}, "trail_percentage: 100 is wrong"),
        ("trailing_stop", {"trail_percentage": 0.5}, "trail_percentage: float 0.5 is not exact"),
        (
            "trailing_stop",
            {"trail_percentage": 1, "activation": 2},
            "did you mean 'activation_price'",
        ),
    ],
)
def test_parameters_are_checked(name, parameters, message):
    """A wrong parameter names function, key and what would do."""
    with pytest.raises(ConfigurationError) as caught:
        REGISTRY.create(name, parameters)
    assert str(caught.value).startswith(f"{name}: ")
    assert message in str(caught.value)


def test_instances_are_limited_to_10_10_5():
    """The limits of the specification, unless the configuration says otherwise."""
    registry = standard_registry(max_instances={"close_below": 1})
    for name, limit in (("close_above", 10), ("close_below", 1), ("trailing_stop", 5)):
        key = "trail_percentage" if "trail" in name else "threshold_price"
        made = [registry.create(name, {key: 1 + number}) for number in range(limit)]
        with pytest.raises(RegistrationError, match=f"has {limit} instances"):
            registry.create(name, {key: 50})
        assert registry.create(name, {key: 1}) is made[0]  # equal parameters share an instance


def test_builtins_do_not_replace_what_is_there():
    """An application's own close_above stays."""
    registry = ExecutionFunctionRegistry()

    @registry.register("close_above")
    async def own(context):
        return None

    assert register_builtins(registry) is registry
    assert set(registry) == set(standard_registry())
    assert [e.change.actor for e in registry.changes] == ["application", *["execkit"] * 13]

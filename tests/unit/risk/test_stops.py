"""Stop rules, computed by hand from a handful of bars."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.bars.cache import BarHistory
from execkit.errors import ConfigurationError
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Timeframe
from execkit.model.order import Side
from execkit.risk.sizing import SizingInputs, VolatilityTarget
from execkit.risk.stops import AtrStop, FixedStop, LevelStop, computed_stop, on_ticks

D = Decimal
AT = datetime(2024, 1, 1, tzinfo=UTC)


def bars(*rows):
    """Bars of (high, low, close)."""
    return BarHistory(
        [
            BarData(
                "BTC/USDT",
                Timeframe.H1,
                AT + timedelta(hours=n),
                D(close),
                D(high),
                D(low),
                D(close),
                D(1),
            )
            for n, (high, low, close) in enumerate(rows)
        ]
    )


RANGES = bars((102, 98, 100), (104, 100, 103), (105, 101, 102), (106, 99, 105))
"""True ranges 4, 4, 4 and 7."""


@pytest.mark.parametrize(("side", "price"), [(Side.BUY, 98), (Side.SELL, 102)])
def test_a_fixed_stop_is_a_share_of_the_entry(side, price):
    """2 % of 100, below a long and above a short."""
    assert FixedStop().stop(side, D(100), BarHistory()) == price


@pytest.mark.parametrize(("side", "price"), [(Side.BUY, "97.0"), (Side.SELL, "113.0")])
def test_an_atr_stop_is_so_many_true_ranges_away(side, price):
    """(4 + 4 + 4) / 3 and 7: the mean of the last three is 5, times 1.6 is 8."""
    rule = AtrStop(D("1.6"), period=3)
    assert rule.stop(side, D(105), RANGES) == D(price)
    assert AtrStop(period=5).stop(side, D(105), RANGES) is None


@pytest.mark.parametrize(("side", "price"), [(Side.BUY, "98.901"), (Side.SELL, "106.106")])
def test_a_level_stop_is_beyond_the_extreme_of_its_bars(side, price):
    """0.1 % below the lowest low of three bars, 99; above the highest high, 106."""
    assert LevelStop(lookback=3).stop(side, D(105), RANGES) == D(price)
    assert LevelStop(lookback=5).stop(side, D(105), RANGES) is None


@pytest.mark.parametrize(
    ("rule", "stop", "note"),
    [
        (FixedStop(D(1)), "99", ""),
        (FixedStop(D(2)), "98", ""),
        (FixedStop(D(5)), "98", "FixedStop clamped to 2 %"),
        (AtrStop(period=9), "98", "AtrStop has too few bars (4); 2 % instead"),
        (LevelStop(lookback=1), "98.901", ""),
    ],
)
def test_a_computed_stop_is_never_farther_than_allowed(rule, stop, note):
    """What is not the rule's own is said."""
    assert computed_stop(rule, FixedStop(D(2)), Side.BUY, D(100), RANGES) == (D(stop), note)


def test_a_level_beyond_the_entry_protects_nothing():
    """A long below the lowest low gets the fixed distance, and so does a short above the highest high."""
    for side, entry, stop in [(Side.BUY, 90, "88.2"), (Side.SELL, 120, "122.4")]:
        made = computed_stop(LevelStop(lookback=4), FixedStop(D(2)), side, D(entry), RANGES)
        assert made == (D(stop), "LevelStop put the stop beyond the entry; 2 % instead")


def test_levels_are_put_on_ticks_to_our_disadvantage_never():
    """A stop goes towards the entry and a target away from it."""
    instrument = Instrument.default("BTC/USDT", tick_size=D("0.5"))
    assert on_ticks(Side.BUY, instrument, D("98.1"), D("104.1")) == (D("98.5"), D("104.5"))
    assert on_ticks(Side.SELL, instrument, D("101.9"), D("95.9")) == (D("101.5"), D("95.5"))
    assert on_ticks(Side.BUY, instrument, D("98.5"), D(104)) == (D("98.5"), D(104))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FixedStop(D(0)), "pct"),
        (lambda: AtrStop(D(0)), "multiple"),
        (lambda: AtrStop(period=0), "period: 0"),
        (lambda: AtrStop(timeframe="7m"), "timeframe"),
        (lambda: LevelStop(lookback=True), "lookback: True"),
        (lambda: LevelStop(buffer_pct=D(-1)), "buffer_pct"),
        (lambda: LevelStop(buffer_pct=D(101)), "buffer_pct: 101 is above 100"),
        (lambda: VolatilityTarget(D(0)), "pct"),
        (lambda: VolatilityTarget(period=0), "period: 0"),
    ],
)
def test_impossible_rules_are_refused(make, text):
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=text):
        make()


def sizing_inputs(history):
    return SizingInputs(
        symbol="BTC/USDT",
        side=Side.BUY,
        equity=D(10_000),
        price=D(105),
        stop_distance=D(2),
        strength=D(100),
        bars=history,
    )


def test_volatility_sizes_an_entry():
    """1 % of 10,000 over a mean range of 5 is 20 units."""
    assert VolatilityTarget(period=3, timeframe="1h").quantity(sizing_inputs(RANGES)) == 20


@pytest.mark.parametrize(
    ("history", "text"),
    [
        (BarHistory(), "has 0 bars of 1d, and VolatilityTarget needs 3"),
        (bars(*3 * [(100, 100, 100)]), "ATR is zero"),
    ],
)
def test_without_a_volatility_there_is_no_size(history, text):
    """The signal is denied with the reason rather than sized by guess."""
    with pytest.raises(ConfigurationError, match=text):
        VolatilityTarget(period=3).quantity(sizing_inputs(history))

"""Risk limits: the presets are part of the contract, and a value that cannot work is refused by name."""

from decimal import Decimal

import pytest

from execkit.errors import ConfigurationError
from execkit.risk.limits import RiskLimits

D = Decimal
PERCENTS = (
    "size_pct",
    "max_size_pct",
    "max_position_pct",
    "max_exposure_pct",
    "max_stop_distance_pct",
    "default_stop_pct",
    "daily_loss_pct",
)


def test_the_unnamed_default_is_the_engine_preset():
    """Both hold the published values."""
    limits = RiskLimits()
    assert limits == RiskLimits.engine()
    assert limits.size_pct == 2
    assert limits.max_size_pct == 5
    assert limits.max_position_pct == 10
    assert limits.max_exposure_pct == 50
    assert limits.max_concurrent_positions == 3
    assert limits.min_risk_reward_ratio == D("1.5")
    assert limits.max_stop_distance_pct == 2
    assert limits.default_stop_pct == 2
    assert limits.default_target_r == 2
    assert limits.daily_loss_pct == 3
    assert limits.daily_loss_amount is None
    assert limits.allow_short is False
    assert limits.scale_in is False
    assert limits.max_scale_ins == 2
    assert limits.min_signal_strength == 0


def test_the_strategy_preset():
    """Five positions, risk/reward 2, strength 70; the rest as in the engine preset."""
    limits = RiskLimits.strategy()
    assert limits == RiskLimits(
        min_signal_strength=D(70), max_concurrent_positions=5, min_risk_reward_ratio=D(2)
    )


def test_presets_take_changes():
    """A preset is a start."""
    assert RiskLimits.strategy(max_concurrent_positions=7).max_concurrent_positions == 7
    assert RiskLimits.engine(size_pct="1.5").size_pct == D("1.5")


@pytest.mark.parametrize("field", PERCENTS)
@pytest.mark.parametrize(
    "value", [D(-1), D(0), D("100.1"), D("NaN"), D("Infinity"), 2.0, True, None, "two"]
)
def test_percentages(field, value):
    """Above 0 and up to 100, exact."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        RiskLimits(**{field: value})
    assert getattr(RiskLimits(**{field: 100}), field) == 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_risk_reward_ratio", D(-1)),
        ("min_risk_reward_ratio", 1.5),
        ("default_target_r", D(0)),
        ("daily_loss_amount", D(0)),
        ("daily_loss_amount", D("NaN")),
        ("min_signal_strength", D(101)),
        ("min_signal_strength", D(-1)),
        ("max_concurrent_positions", 0),
        ("max_concurrent_positions", D(3)),
        ("max_concurrent_positions", True),
        ("max_scale_ins", -1),
        ("allow_short", 1),
        ("scale_in", "no"),
    ],
)
def test_other_values(field, value):
    """The message begins with the field."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        RiskLimits(**{field: value})


def test_the_ratio_rule_can_be_off():
    """A ratio of zero accepts any target."""
    assert RiskLimits(min_risk_reward_ratio=0).min_risk_reward_ratio == 0

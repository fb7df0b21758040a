"""The protection policy: exits in parts and stops that follow, with numbers worked out by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execkit.errors import ConfigurationError
from execkit.model.instrument import Instrument
from execkit.model.order import Side
from execkit.model.position import Position, Target
from execkit.protection.policy import (
    HALF_AND_HALF,
    PartialExit,
    ProtectionPolicy,
    due_exit,
    due_price,
    mean_target,
    moved_stop,
    targets_for,
    widened_stop,
)

D = Decimal
RULES = Instrument.default("BTC/USDT", lot_size=D("0.01"), min_notional=D(10))
PARTS = ProtectionPolicy(targets=HALF_AND_HALF)


def position(quantity="1", *, stop="98", targets=(), take_profit=None, peak=None, initial=None):
    held = D(quantity)
    return Position(
        position_id="BTC/USDT#1",
        symbol="BTC/USDT",
        quantity=held,
        average_price=D(100),
        opened_at=datetime(2024, 1, 1, tzinfo=UTC),
        peak_quantity=abs(held) if peak is None else D(peak),
        stop_loss=None if stop is None else D(stop),
        initial_stop=D(initial or stop or 0) or None,
        take_profit=None if take_profit is None else D(take_profit),
        targets=tuple(Target(D(price), D(share)) for price, share in targets),
    )


LONG = [("102", "0.5"), ("104", "0.5")]
SHORT = [("98", "0.5"), ("96", "0.5")]


# -- targets ---------------------------------------------------------------------------------------------


def test_targets_are_multiples_of_the_risk_on_ticks():
    """R is 2.01: 1 R is 102.01 and 2 R is 104.02; on ticks of 0.1 never less than asked."""
    rules = Instrument.default("BTC/USDT", tick_size=D("0.1"))
    long = targets_for(PARTS, Side.BUY, D(100), D("97.99"), rules)
    assert long == (Target(D("102.1"), D("0.5")), Target(D("104.1"), D("0.5")))
    short = targets_for(PARTS, Side.SELL, D(100), D("102.01"), rules)
    assert short == (Target(D("97.9"), D("0.5")), Target(D("95.9"), D("0.5")))
    assert targets_for(ProtectionPolicy(), Side.BUY, D(100), D(98), rules) == ()


def test_half_at_one_and_half_at_two_is_one_and_a_half():
    """What the risk/reward ratio is judged by."""
    assert mean_target(targets_for(PARTS, Side.BUY, D(100), D(98), RULES)) == 103


@pytest.mark.parametrize(
    ("held", "targets", "low", "high", "closing"),
    [
        ("1", LONG, "99", "101.99", None),
        ("1", LONG, "99", "102", "0.5"),
        ("1", LONG, "99", "104", "1"),
        ("0.5", LONG, "99", "103.99", None),
        ("0.5", LONG, "99", "104", "0.5"),
        ("0.7", LONG, "99", "102", "0.2"),
        ("-1", SHORT, "98.01", "101", None),
        ("-1", SHORT, "98", "101", "0.5"),
        ("-0.5", SHORT, "96", "101", "0.5"),
    ],
)
def test_each_target_takes_its_share_of_the_largest_size(held, targets, low, high, closing):
    """In one step or in several, whatever was closed before."""
    due = due_exit(
        position(held, stop="98" if D(held) > 0 else "102", targets=targets, peak="1"),
        D(low),
        D(high),
        RULES,
    )
    assert due == (None if closing is None else D(closing))


@pytest.mark.parametrize(
    ("held", "goal", "low", "high", "closing"),
    [
        ("1", "110", "100", "110", "1"),
        ("1", "110", "100", "109.9", None),
        ("-1", "90", "90", "100", "1"),
        ("-1", "90", "90.1", "100", None),
        ("1", None, "1", "1000", None),
    ],
)
def test_one_target_takes_everything(held, goal, low, high, closing):
    """Touched by the high for a long, by the low for a short."""
    due = due_exit(position(held, take_profit=goal), D(low), D(high), RULES)
    assert due == (None if closing is None else D(closing))


def test_a_rest_that_nobody_takes_goes_with_the_part():
    """Half of 0.15 at 102 is worth 7.65, below the minimum of 10; and dust is nothing to close."""
    small = position("0.15", targets=LONG)
    assert due_exit(small, D(100), D(102), RULES) == D("0.15")
    assert due_exit(position("0.001", targets=LONG), D(100), D(104), RULES) is None


@pytest.mark.parametrize(
    ("held", "targets", "price", "any_value", "closing"),
    [
        # A fifth of 0.4 at 102 is worth 8.16: it waits, and all of it goes at the next target.
        ("0.4", [("102", "0.2"), ("104", "0.8")], "102", False, None),
        ("0.4", [("102", "0.2"), ("104", "0.8")], "102", True, "0.08"),
        ("0.4", [("102", "0.2"), ("104", "0.8")], "104", False, "0.4"),
        # What is left, 0.1, is worth 10.2 at the target and 9.8 at the stop, where it would have to be closed.
        ("1", [("102", "0.9"), ("104", "0.1")], "102", False, "1"),
        ("1", [("102", "0.9"), ("104", "0.1")], "102", True, "0.9"),
        # A short's rest is worth least at its target: 0.11 at 90 is 9.9.
        ("-1.1", [("90", "0.9"), ("80", "0.1")], "90", False, "1.1"),
        ("-1.2", [("90", "0.9"), ("80", "0.1")], "90", False, "1.08"),
    ],
)
def test_neither_the_part_nor_the_rest_is_less_than_the_venue_takes(
    held, targets, price, any_value, closing
):
    """D5: the least order is worth 10, by which a part waits and a rest goes; with any value both stand."""
    stop = "98" if D(held) > 0 else "102"
    now = position(held, stop=stop, targets=targets)
    due = due_exit(now, D(price), D(price), RULES, any_value=any_value)
    assert due == (None if closing is None else D(closing))


def test_without_a_stop_the_rest_is_judged_at_the_target():
    """Nothing lower is known: 0.1 at 102 is worth 10.2."""
    bare = position("1", stop=None, targets=[("102", "0.9"), ("104", "0.1")])
    assert due_exit(bare, D(102), D(102), RULES) == D("0.9")


@given(
    moves=st.lists(st.integers(90, 115), min_size=1, max_size=12),
    size=st.integers(20, 500),
    shares=st.sampled_from([(1,), (5, 5), (3, 3, 4), (1, 2, 3, 4)]),
)
def test_however_the_price_goes_no_more_is_closed_than_is_due(moves, size, shares):
    """What is left never falls below what the untouched targets keep, but for a rest that is too small to stand."""
    total = sum(shares)
    policy = ProtectionPolicy(
        targets=[PartialExit(D(n), D(share) / total) for n, share in enumerate(shares, 1)]
    )
    quantity = D(size) / 100
    targets = targets_for(policy, Side.BUY, D(100), D(98), RULES)
    held, best = quantity, D(0)
    for price in map(D, moves):
        best = max(best, price)
        now = position(str(held), targets=[(t.price, t.share) for t in targets], peak=quantity)
        due = due_exit(now, price, price, RULES) if held else None
        if due is not None:
            assert D(0) < due <= held
            assert RULES.on_lot(due)
            held -= due
        kept = sum((t.share for t in targets if best < t.price), D(0)) * quantity
        assert held >= kept or held == 0
        # What was touched is gone, but for a lot, or for a part of which the venue takes no order yet.
        assert held < kept + RULES.lot_size or (held - kept) * best < RULES.min_notional


# -- stops that follow -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "targets", "price", "quantity", "worth"),
    [
        ("1", LONG, "102", "0.5", "102"),
        ("1", LONG, "104", "1", "103"),
        ("0.5", LONG, "104", "0.5", "104"),  # the first half is out already
        ("0.75", LONG, "104", "0.75", "103.3333"),  # 0.5 at 104, 0.25 at 102
        ("1", [("102", "0.9"), ("104", "0.1")], "102", "1", "102"),  # with a rest
        ("-1", SHORT, "96", "1", "97"),
    ],
)
def test_what_a_part_should_bring_is_the_mean_of_its_targets(held, targets, price, quantity, worth):
    """The last ones that were touched: the first were taken out first."""
    now = position(held, stop="98" if D(held) > 0 else "102", targets=targets, peak="1")
    assert round(due_price(now, D(price), D(quantity)), 4) == D(worth)


def test_one_target_brings_its_price():
    """However far beyond it the market is."""
    assert due_price(position(take_profit="110"), D(115), D(1)) == 110


@pytest.mark.parametrize(
    ("options", "price", "stop"),
    [
        ({"trailing_pct": D(1)}, "100", "99"),
        ({"trailing_pct": D(1)}, "98.9", None),
        ({"trailing_pct": D(1)}, "110", "108.9"),
        ({"trailing_pct": D(5)}, "102", None),
        ({"break_even_after_r": D(1)}, "101.99", None),
        ({"break_even_after_r": D(1)}, "102", "100"),
        ({"break_even_after_r": D(1), "trailing_pct": D(1)}, "103", "101.97"),
        ({"tighten_within_r": D("0.5")}, "102.9", None),
        ({"tighten_within_r": D("0.5")}, "103", "100.5"),
        ({"tighten_within_r": D("0.5")}, "104.1", None),
        ({}, "110", None),
    ],
)
def test_a_stop_follows_the_price(options, price, stop):
    """Stop 98, entry 100, target 104: trailing, break-even and tightening, the closest of them."""
    held = position(take_profit="104")
    moved = moved_stop(ProtectionPolicy(**options), held, D(price), RULES)
    assert moved == (None if stop is None else D(stop))


def test_a_short_is_the_mirror_image():
    """Stop 102, entry 100: down to 97 the stop trails to 97.97, and at 98 it is at the entry."""
    held = position("-1", stop="102")
    policy = ProtectionPolicy(trailing_pct=D(1))
    assert moved_stop(policy, held, D(97), RULES) == D("97.97")
    assert moved_stop(policy, held, D("101.5"), RULES) is None
    assert moved_stop(ProtectionPolicy(break_even_after_r=D(1)), held, D(98), RULES) == 100


def test_risk_is_measured_by_the_first_stop():
    """A stop that has moved does not bring break-even closer."""
    held = position(stop="99.5", initial="98")
    policy = ProtectionPolicy(break_even_after_r=D(1))
    assert moved_stop(policy, held, D("101.9"), RULES) is None
    assert moved_stop(policy, held, D(102), RULES) == 100


def test_small_steps_are_not_worth_a_message():
    """0.1 % by default; the move to the entry price is worth it however small."""
    policy = ProtectionPolicy(trailing_pct=D(1))
    held = position(stop="98.95")
    assert moved_stop(policy, held, D("100.04"), RULES) is None
    assert moved_stop(policy, held, D("100.07"), RULES) == D("99.06")
    near = position(stop="99.95", initial="98")
    assert moved_stop(ProtectionPolicy(break_even_after_r=D(1)), near, D(102), RULES) == 100


def test_a_stop_is_never_put_where_it_would_trigger():
    """A coarse tick is rounded away from the price; without a stop there is nothing to move."""
    coarse = Instrument.default("BTC/USDT", tick_size=D(1))
    policy = ProtectionPolicy(trailing_pct=D("0.001"), step_pct=D(0))
    short = position("-1", stop="102")
    assert moved_stop(policy, short, D("99.9999"), coarse) == 101
    assert moved_stop(policy, position(stop="97"), D(99), coarse) == 98
    assert moved_stop(policy, position(stop=None), D(110), RULES) is None


@given(
    path=st.lists(st.integers(9000, 12000).map(lambda n: D(n) / 100), min_size=1, max_size=30),
    trailing=st.sampled_from([None, D("0.5"), D(1), D(3)]),
    even=st.sampled_from([None, D(1), D(2)]),
    tighten=st.sampled_from([None, D("0.5")]),
)
def test_a_stop_only_ever_comes_closer_and_never_touches_the_price(path, trailing, even, tighten):
    """Along any path, for a long."""
    policy = ProtectionPolicy(
        trailing_pct=trailing, break_even_after_r=even, tighten_within_r=tighten
    )
    stop = D(98)
    for price in path:
        if price <= stop:
            break
        held = position(stop=str(stop), initial="98", take_profit="110")
        moved = moved_stop(policy, held, price, RULES)
        if moved is not None:
            assert stop < moved < price
            assert RULES.on_tick(moved)
            stop = moved
        if trailing is not None:
            assert (
                stop
                >= price * (1 - trailing / 100) - price * policy.step_pct / 100 - RULES.tick_size
            )


@pytest.mark.parametrize(
    ("quantity", "stop", "growth", "widest", "expected"),
    [
        ("1", "99", "2", "2", "98"),
        ("1", "99", "1.999", "2", None),
        ("1", "99", None, "2", None),
        ("1", "99", "7", "2", "98"),
        ("1", "98.5", "2", "2", "98"),
        ("1", "98.5", "2", "10", "97"),
        ("1", "98.5", "2", "1.996", "98.01"),
        ("1", "98", "2", "2", None),
        ("1", "97", "2", "2", None),
        ("-1", "101", "2", "2", "102"),
        ("-1", "101.5", "2", "1.996", "101.99"),
        ("-1", "102", "2", "2", None),
        ("1", None, "2", "2", None),
    ],
)
def test_a_stop_is_widened_once_the_range_has_doubled(quantity, stop, growth, widest, expected):
    """To twice its distance from the entry at 100, rounded towards it, and never beyond the limit."""
    policy = ProtectionPolicy(widen_on_atr="1h", widest_stop_pct=D(widest))
    growth = None if growth is None else D(growth)
    got = widened_stop(policy, position(quantity, stop=stop), D(100), growth, RULES)
    assert got == (None if expected is None else D(expected))


@pytest.mark.parametrize(
    ("stop", "initial", "price"), [("99.5", "99", "100"), ("98", "99", "100"), ("99", "99", "99")]
)
def test_a_stop_that_was_moved_or_is_reached_is_not_widened(stop, initial, price):
    """Once widened it is not widened again; where the price has come to it already, it does its work."""
    policy = ProtectionPolicy(widen_on_atr="1h", widest_stop_pct=D(10))
    held = position("1", stop=stop, initial=initial)
    assert widened_stop(policy, held, D(price), D(3), RULES) is None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PartialExit(D(0), D("0.5")), "r: "),
        (lambda: PartialExit(D(1), D(0)), "share"),
        (lambda: PartialExit(D(1), D("1.1")), "share: 1.1 is above 1"),
        (lambda: ProtectionPolicy(targets=[PartialExit(D(1), D("0.5"))]), "add up to 0.5"),
        (lambda: ProtectionPolicy(targets=HALF_AND_HALF[::-1]), "nearest to the farthest"),
        (lambda: ProtectionPolicy(trailing_pct=D(0)), "trailing_pct"),
        (lambda: ProtectionPolicy(trailing_pct=D(101)), "trailing_pct"),
        (lambda: ProtectionPolicy(break_even_after_r=D(-1)), "break_even_after_r"),
        (lambda: ProtectionPolicy(tighten_within_r=D(0)), "tighten_within_r"),
        (lambda: ProtectionPolicy(widen_on_atr="1x"), "1x"),
        (lambda: ProtectionPolicy(widest_stop_pct=D(0)), "widest_stop_pct"),
        (lambda: ProtectionPolicy(step_pct=D(-1)), "step_pct"),
        (lambda: ProtectionPolicy(stop_limit_pct=D(0)), "stop_limit_pct"),
        (lambda: ProtectionPolicy(alert_slippage_pct=D(-1)), "alert_slippage_pct"),
        (lambda: ProtectionPolicy(place_within=timedelta(0)), "place_within"),
        (lambda: ProtectionPolicy(attempts=0), "attempts: 0"),
    ],
)
def test_impossible_policies_are_refused(make, text):
    """The error names the field."""
    with pytest.raises(ConfigurationError, match=text):
        make()

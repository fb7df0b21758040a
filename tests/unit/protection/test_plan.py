"""What protection a position needs: a function of the position and of what rests."""

from decimal import Decimal

import pytest
from tests.support import orders as make
from tests.support.orders import AT, BTC, fill

from execkit.model.instrument import Instrument
from execkit.model.order import OrderRole, Side
from execkit.model.position import Position
from execkit.protection.plan import (
    Plan,
    Step,
    plan_protection,
    protective_quantity,
    protective_side,
    stop_trigger,
)
from execkit.protection.prices import Touch

D = Decimal
INSTRUMENT = Instrument.default(BTC, tick_size=D("0.5"), lot_size=D("0.01"), min_quantity=D("0.02"))


def position(quantity="1", stop="95", **details):
    return Position(
        position_id=f"{BTC}#1",
        symbol=BTC,
        quantity=D(quantity),
        average_price=D(100),
        opened_at=AT,
        stop_loss=None if stop is None else D(stop),
        **details,
    )


def stop(quantity="1", price="95", *events, side=Side.SELL, order_id="st"):
    return make.order(
        "submit",
        "accept",
        *events,
        order_id=order_id,
        side=side,
        quantity=quantity,
        stop=price,
        role=OrderRole.STOP,
    )


def leaving(quantity="1", *events, role=OrderRole.EXIT, side=Side.SELL):
    return make.order("submit", *events, order_id="x", side=side, quantity=quantity, role=role)


def plan(held, *reductions, mark=None, far=None, **options):
    """Return the plan at a bid and ask, which are one price unless *far* says where the ask is, or a short's bid."""
    touch = None
    if mark is not None:
        sides = [D(mark), D(far or mark)]
        touch = Touch(*(sides if held.is_long else sides[::-1]))
    return plan_protection(held, list(reductions), INSTRUMENT, touch=touch, **options)


def test_sides():
    """A long is closed by selling, a short by buying."""
    assert protective_side(position()) is Side.SELL
    assert protective_side(position("-1")) is Side.BUY


@pytest.mark.parametrize(
    ("held", "exits", "needed"),
    [
        ("1", (), "1"),
        ("-1", (), "1"),
        ("1.019", (), "1.01"),
        ("1", ("0.4",), "0.6"),
        ("1", ("0.4", "0.7"), "0"),
    ],
)
def test_quantity_is_the_position_less_what_leaves(held, exits, needed):
    """In whole lots, never below zero."""
    found = protective_quantity(position(held), [leaving(each) for each in exits], INSTRUMENT)
    assert found == D(needed)


@pytest.mark.parametrize(
    ("held", "asked", "trigger"),
    [("1", "95.1", "95.5"), ("1", "95", "95"), ("-1", "104.9", "104.5"), ("-1", "105", "105")],
)
def test_the_trigger_is_never_later_than_asked(held, asked, trigger):
    """On a tick, rounded towards the market: above for a long, below for a short."""
    assert stop_trigger(position(held, asked), INSTRUMENT) == D(trigger)


def test_no_stop_price_no_trigger():
    """A position from outside has none."""
    assert stop_trigger(position(stop=None), INSTRUMENT) is None


def test_flat_and_nothing_rests():
    """Nothing to do."""
    assert plan(None) == Plan(Step.NOTHING)


def test_flat_and_something_rests():
    """What was to close the position goes."""
    orphans = (stop(), leaving())
    assert plan(None, *orphans) == Plan(Step.CANCEL, orders=orphans)


def test_the_position_has_turned():
    """What would add to it now goes first."""
    old, right = stop(side=Side.BUY), stop(order_id="s2")
    found = plan(position(), old, right)
    assert found == Plan(Step.CANCEL, orders=(old,), reason="the position has turned")


def test_naked_is_placed():
    """One stop of the position's size on its trigger."""
    assert plan(position("1.005"), mark=96) == Plan(Step.PLACE, quantity=D(1), stop_price=D(95))
    assert plan(position("1"), mark=None).step is Step.PLACE


def test_protected_is_left_alone():
    """A stop of the right size and price, also one partly executed whose rest is right."""
    assert plan(position(), stop()) == Plan(Step.NOTHING)
    part = stop("1.5", "95", fill("p", "st", "0.5", side=Side.SELL))
    assert plan(position(), part) == Plan(Step.NOTHING)


@pytest.mark.parametrize("wrong", [("0.5", "95"), ("1", "94"), ("2", "95")])
def test_a_stop_of_the_wrong_size_or_price_is_resized(wrong):
    """To the size and price that are right now."""
    old = stop(*wrong)
    assert plan(position(), old) == Plan(
        Step.RESIZE, quantity=D(1), stop_price=D(95), orders=(old,)
    )


def test_one_right_stop_is_enough():
    """The others go, whichever came first."""
    wrong, right, double = stop("0.5"), stop(order_id="r"), stop(order_id="d")
    assert plan(position(), wrong, right, double) == Plan(Step.CANCEL, orders=(wrong, double))


def test_two_wrong_stops_are_resized_together():
    """Both are named, so that both go."""
    both = (stop("0.5"), stop("0.4", order_id="b"))
    assert plan(position(), *both).orders == both


def test_a_live_exit_needs_no_stop():
    """A stop beside it would close twice; for the part that does not leave there is one."""
    whole = stop()
    assert plan(position(), leaving(), whole) == Plan(Step.CANCEL, orders=(whole,))
    assert plan(position(), leaving()) == Plan(Step.NOTHING)
    assert plan(position(), leaving("0.4")) == Plan(Step.PLACE, quantity=D("0.6"), stop_price=D(95))


def test_exits_for_more_than_there_is_are_taken_back():
    """The newest goes, until what is left fits."""
    first, second = leaving("0.7"), leaving("0.6")
    assert plan(position(), first, second) == Plan(
        Step.CANCEL, orders=(second,), reason="more would be closed than is open"
    )
    assert plan(position("0.5"), first).orders == (first,)


@pytest.mark.parametrize("event", ["lose", "ask_cancel"])
def test_a_stop_in_doubt_is_waited_for(event):
    """Whether another one is needed depends on what became of it."""
    doubtful = stop("1", "95", event)
    assert plan(position("2"), doubtful, stop(order_id="b")) == Plan(Step.WAIT, orders=(doubtful,))


@pytest.mark.parametrize("event", ["lose", "ask_cancel"])
def test_what_is_in_doubt_beside_the_right_stop_changes_nothing(event):
    """D1: the position is covered; the doubt is not a reason to take it out, nor to take the stop away."""
    doubtful = stop("1", "95", event, order_id="b")
    wrong = stop("0.5", order_id="w")
    assert plan(position(), doubtful, stop()) == Plan(Step.COVERED, orders=(doubtful,))
    assert plan(position(), doubtful, wrong, stop()) == Plan(Step.CANCEL, orders=(wrong,))
    assert plan(position(), doubtful) == Plan(Step.WAIT, orders=(doubtful,))


def test_a_target_in_doubt_beside_its_stop_changes_nothing():
    """A21: of a list the stop is known to rest, and what became of the target is not."""
    terms = {"list_id": "l", "side": Side.SELL}
    kept = make.order("submit", "accept", order_id="st", stop="95", role=OrderRole.STOP, **terms)
    target = make.order("submit", "lose", order_id="t", limit="110", role=OrderRole.TARGET, **terms)
    found = plan(position(), kept, target, target=D(110))
    assert found == Plan(Step.COVERED, orders=(target,))
    lost = make.order("submit", "lose", order_id="st", stop="95", role=OrderRole.STOP, **terms)
    known = make.order(
        "submit", "accept", order_id="t", limit="110", role=OrderRole.TARGET, **terms
    )
    assert plan(position(), lost, known, target=D(110)) == Plan(Step.WAIT, orders=(lost,))


@pytest.mark.parametrize("event", ["lose", "ask_cancel"])
def test_a_wrong_order_that_does_not_go_keeps_no_stop_away(event):
    """I12: the position has turned, its old stop is asked to go, and nobody shows what became of it."""
    old = stop("1", "95", event, side=Side.BUY)
    asked = event == "ask_cancel"
    if not asked:
        assert plan(position(), old) == Plan(
            Step.CANCEL, orders=(old,), reason="the position has turned"
        )
        old = stop("1", "95", "ask_cancel", "lose", side=Side.BUY)
    assert plan(position(), old) == Plan(Step.PLACE, quantity=D(1), stop_price=D(95))
    assert plan(position(), old, stop(order_id="r")) == Plan(Step.COVERED, orders=(old,))
    assert plan(position(stop=None), old) == Plan(Step.COVERED, orders=(old,))
    assert plan(position("0.005"), old) == Plan(Step.COVERED, orders=(old,))
    doubtful = stop("1", "95", "lose", order_id="b")
    assert plan(position(), old, doubtful, stop(order_id="r")) == Plan(
        Step.COVERED, orders=(doubtful, old)
    )


def test_a_rest_below_the_minimum_cannot_be_protected():
    """Nothing is placed for it; a stop that is left over goes, one of its size may stay."""
    dust = position("0.015")
    left = stop()
    assert plan(dust) == Plan(Step.TOO_SMALL, quantity=D("0.01"), stop_price=D(95))
    assert plan(position("0.005")) == Plan(Step.NOTHING), "less than a lot"
    assert plan(dust, left) == Plan(Step.CANCEL, orders=(left,))
    partly = stop("1", "95", fill("p", "st", "0.99", side=Side.SELL))
    assert plan(position("0.01"), partly) == Plan(Step.NOTHING)


def test_without_a_stop_price_nothing_is_done():
    """It came from outside and is not ours to protect; what rests is left as it is."""
    assert plan(position(stop=None)) == Plan(Step.NOTHING)
    assert plan(position(stop=None), stop()) == Plan(Step.NOTHING)


@pytest.mark.parametrize(
    ("held", "level", "mark", "step"),
    [
        ("1", "95", "95.1", Step.PLACE),
        ("1", "95", "95", Step.FLATTEN),
        ("1", "95", "80", Step.FLATTEN),
        ("-1", "105", "104.9", Step.PLACE),
        ("-1", "105", "105", Step.FLATTEN),
    ],
)
def test_a_price_beyond_the_stop_flattens(held, level, mark, step):
    """A venue would refuse the stop, and the loss is there already."""
    found = plan(position(held, level), mark=mark)
    assert found.step is step
    if step is Step.FLATTEN:
        assert found.reason == f"the price {mark} is beyond the stop {level}"
        assert found.quantity == 1


def test_a_stop_that_rests_is_not_flattened_over_the_price():
    """The venue has it: it will execute there."""
    assert plan(position(), stop(), mark="90") == Plan(Step.NOTHING)


@pytest.mark.parametrize(
    ("held", "level", "near", "far"), [("1", "95", "10", "95.5"), ("-1", "105", "300", "104.5")]
)
def test_one_side_of_a_wide_market_is_for_the_venue_to_judge(held, level, near, far):
    """Nobody knows where it trades: the stop is placed. One that is held here goes by what closing would bring."""
    assert plan(position(held, level), mark=near, far=far).step is Step.PLACE
    beyond = plan(position(held, level), mark=near, far=level)
    assert (beyond.step, beyond.by_price) == (Step.FLATTEN, True)
    held_here = plan(position(held, level), mark=near, far=far, can_rest=False)
    assert (held_here.step, held_here.by_price) == (Step.FLATTEN, True)
    assert held_here.reason == f"the price {near} is beyond the stop {level}"


def test_an_exit_at_a_limit_that_nobody_sees_to_is_taken_back():
    """It leaves the position without a stop while it rests, as after a kill; in a list it rests beside one."""
    exit_ = make.order(
        "submit", "accept", order_id="x", side=Side.SELL, limit="110", role=OrderRole.TARGET
    )
    assert plan(position(), exit_) == Plan(
        Step.CANCEL, orders=(exit_,), reason="it was not executed at once"
    )

"""Following the plan of protection against a venue that does what it is told always ends, and ends right."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from tests.support.orders import AT, BTC, changed, fill, order

from execkit.model.instrument import Instrument
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.position import Position
from execkit.numbers import ZERO
from execkit.protection.plan import (
    Step,
    plan_protection,
    protective_quantity,
    protective_side,
    stop_trigger,
)
from execkit.protection.prices import Touch

INSTRUMENT = Instrument.default(
    BTC, tick_size=Decimal("0.5"), lot_size=Decimal("0.1"), min_quantity=Decimal("0.3")
)
sizes = st.integers(1, 400).map(lambda n: Decimal(n) / 100)
levels = st.integers(900, 1100).map(lambda n: Decimal(n) / 10)
positions = st.none() | st.builds(
    lambda size, side, stop: Position(
        position_id=f"{BTC}#1",
        symbol=BTC,
        quantity=size * side.sign,
        average_price=Decimal(100),
        opened_at=AT,
        stop_loss=stop,
    ),
    sizes,
    st.sampled_from(Side),
    st.none() | levels,
)


@st.composite
def reductions(draw):
    """Return live reductions of any kind, size and side; some are in doubt, some partly executed."""
    found = []
    for n in range(draw(st.integers(0, 4))):
        role = draw(st.sampled_from([OrderRole.STOP, OrderRole.STOP, OrderRole.EXIT]))
        made = order(
            "submit",
            "accept",
            order_id=f"r{n}",
            side=draw(st.sampled_from(Side)),
            quantity=draw(sizes),
            role=role,
            stop=draw(levels) if role is OrderRole.STOP else None,
        )
        part = draw(st.sampled_from([None, None, 4]))
        if part:
            made.execute(fill(f"f{n}", f"r{n}", made.quantity / part, side=made.side), AT)
        event = draw(st.sampled_from([None, None, "lose", "ask_cancel"]))
        if event:
            made.change(changed(event, f"r{n}"), AT)
        found.append(made)
    return found


touches = st.builds(lambda one, other: Touch(min(one, other), max(one, other)), levels, levels)


@given(positions, reductions(), st.none() | touches, st.sampled_from(["accept", "cancel"]))
def test_the_plan_ends_with_exactly_one_stop_of_the_right_size(held, live, touch, proof):
    """Whatever rests at first: one stop, of the uncovered quantity and on the trigger, and nothing else to do."""
    for number in range(12):
        plan = plan_protection(held, live, INSTRUMENT, touch=touch)
        if plan.step is Step.TOO_SMALL:
            assert ZERO < plan.quantity < INSTRUMENT.min_quantity
            break
        if plan.step is Step.NOTHING:
            break
        assert plan.step is Step.WAIT or plan.orders or plan.quantity
        if plan.step in (Step.CANCEL, Step.RESIZE):
            live = [each for each in live if each not in plan.orders]
        elif plan.step is Step.PLACE:
            live.append(
                order(
                    "submit",
                    "accept",
                    order_id=f"new{number}",
                    side=protective_side(held),
                    quantity=plan.quantity,
                    stop=plan.stop_price,
                    role=OrderRole.STOP,
                )
            )
        elif plan.step is Step.FLATTEN:
            held = None
        else:
            for each in live:
                if each.state is OrderState.IN_DOUBT:
                    each.change(changed(proof, each.client_order_id), AT)
                elif each.state is OrderState.PENDING_CANCEL:
                    event = "refuse_cancel" if proof == "accept" else proof
                    each.change(changed(event, each.client_order_id), AT)
            live = [each for each in live if not each.is_closed]
    else:
        raise AssertionError(f"does not end: {plan}")
    _check(held, live)


def _check(held, live):
    if held is None:
        assert live == []
        return
    side = protective_side(held)
    assert all(each.side is side for each in live)
    stops = [each for each in live if each.role is OrderRole.STOP]
    exits = [each for each in live if each.role is not OrderRole.STOP]
    trigger = stop_trigger(held, INSTRUMENT)
    needed = protective_quantity(held, exits, INSTRUMENT)
    assert needed <= abs(held.quantity)
    if trigger is None:
        return
    if needed < INSTRUMENT.min_quantity and not stops:
        return
    (only,) = stops
    assert (only.remaining, only.stop_price) == (needed, trigger)
    early = trigger >= held.stop_loss if held.is_long else trigger <= held.stop_loss
    assert early, "never later than asked"
    assert abs(trigger - held.stop_loss) < INSTRUMENT.tick_size

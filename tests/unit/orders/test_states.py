"""The table of states, edge by edge."""

import itertools

import msgspec
import pytest
from tests.support import orders as make

from execkit.errors import InvalidTransitionError
from execkit.model.order import OrderEvent, OrderState
from execkit.orders.states import TRANSITIONS, diagram, next_state

EDGES = """
new: submit>submitted lose>in_doubt fail>failed ask_cancel>new accept>accepted hold>held reject>rejected
     fill_part>partially_filled fill>filled cancel>cancelled expire>expired
submitted: unsent>new lose>in_doubt ask_cancel>submitted accept>accepted hold>held reject>rejected
     fill_part>partially_filled fill>filled cancel>cancelled expire>expired
in_doubt: lose>in_doubt ask_cancel>in_doubt refuse_cancel>in_doubt absent>presumed_absent accept>accepted hold>held
     reject>rejected fill_part>partially_filled fill>filled cancel>cancelled expire>expired
presumed_absent: absent>presumed_absent submit>submitted ask_cancel>presumed_absent accept>accepted hold>held
     reject>rejected fill_part>partially_filled fill>filled cancel>cancelled expire>expired
held: lose>in_doubt ask_cancel>pending_cancel accept>accepted hold>held reject>rejected
     fill_part>partially_filled fill>filled cancel>cancelled expire>expired
accepted: lose>in_doubt ask_cancel>pending_cancel refuse_cancel>accepted ask_amend>pending_amend amend>accepted
     refuse_amend>accepted accept>accepted hold>held reject>rejected
     fill_part>partially_filled fill>filled cancel>cancelled expire>expired
partially_filled: lose>in_doubt ask_cancel>pending_cancel refuse_cancel>partially_filled ask_amend>pending_amend
     amend>partially_filled refuse_amend>partially_filled accept>partially_filled reject>cancelled
     fill_part>partially_filled fill>filled cancel>cancelled expire>expired
pending_cancel: lose>pending_cancel ask_cancel>pending_cancel refuse_cancel>accepted amend>pending_cancel
     refuse_amend>pending_cancel absent>presumed_absent accept>pending_cancel hold>pending_cancel reject>rejected
     fill_part>pending_cancel fill>filled cancel>cancelled expire>expired
pending_amend: lose>in_doubt ask_cancel>pending_cancel amend>accepted refuse_amend>accepted accept>pending_amend
     reject>rejected fill_part>pending_amend fill>filled cancel>cancelled expire>expired
filled: fill>filled fill_part>filled accept>filled refuse_cancel>filled
cancelled: cancel>cancelled expire>cancelled fill_part>cancelled fill>cancelled refuse_cancel>cancelled
rejected: reject>rejected fill_part>rejected fill>rejected
expired: expire>expired cancel>expired fill_part>expired fill>expired refuse_cancel>expired
failed: fail>failed fill_part>failed fill>failed
"""


def expected_edges():
    found = {}
    for word in EDGES.split():
        if word.endswith(":"):
            state = OrderState(word[:-1])
        else:
            event, _, after = word.partition(">")
            found[state, OrderEvent(event)] = OrderState(after)
    return found


EXPECTED = expected_edges()


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(OrderState, OrderEvent)), ids=lambda v: v.value
)
def test_table(state, event):
    """Each event leads where it is written here, and where nothing is written it is refused by name."""
    after = EXPECTED.get((state, event))
    if after is not None:
        assert next_state(state, event) is after
        return
    with pytest.raises(InvalidTransitionError) as refusal:
        next_state(state, event)
    assert str(refusal.value) == f"an order that is {state.value} cannot {event.value}"


@pytest.mark.parametrize("state", [s for s in OrderState if s.is_closed])
def test_closed_never_opens(state):
    """Every edge of a closed state leads back to it."""
    assert set(TRANSITIONS[state].values()) == {state}


@pytest.mark.parametrize("state", OrderState)
def test_fills_count_in_every_state(state):
    """An execution is the truth whatever we thought, so no state refuses one."""
    assert {OrderEvent.FILL, OrderEvent.FILL_PART} <= TRANSITIONS[state].keys()


@pytest.mark.parametrize(
    ("state", "event"),
    [key for key, after in EXPECTED.items() if after is OrderState.ACCEPTED],
    ids=lambda v: v.value,
)
def test_an_order_that_rests_on_with_fills_is_partially_filled(state, event):
    """Whatever leads to ACCEPTED leads to PARTIALLY_FILLED when a part was executed."""
    assert next_state(state, event, filled_part=True) is OrderState.PARTIALLY_FILLED


@pytest.mark.parametrize("state", OrderState)
def test_an_impossible_event_changes_nothing(state):
    """The order is the same, field by field, after a refused event."""
    order = _order_in(state)
    before = msgspec.to_builtins(order)
    for event in OrderEvent:
        if (state, event) not in EXPECTED:
            with pytest.raises(InvalidTransitionError):
                order.change(
                    make.changed(event, reason="no", venue_order_id="other"), make.later(9)
                )
    assert msgspec.to_builtins(order) == before


def _order_in(state):
    records = make.records_into(state)
    steps = [getattr(record, "fill", record) for record in records[1:]]
    order = make.order(*steps)
    assert order.state is state
    return order


def test_every_state_is_reached_and_left_in_the_diagram():
    """The diagram names each edge between two states once, and ends where an order ends."""
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> new" in lines
    drawn = set()
    for line in lines[2:]:
        before, _, rest = line.strip().partition(" --> ")
        after, _, events = rest.partition(": ")
        drawn |= {(before, event, after) for event in events.split(", ") if event}
        if after == "[*]":
            assert OrderState(before).is_closed
    wanted = {
        (state.value, event.value, after.value)
        for (state, event), after in EXPECTED.items()
        if state is not after
    }
    assert drawn == wanted
    assert sum(line.endswith("--> [*]") for line in lines) == 5

"""Reading a venue's words: what is believed, what is not, and what it adds."""

from datetime import datetime
from decimal import Decimal

import pytest
from tests.support import orders as make
from tests.support.orders import AT, ask, changed, fill, later, report

from execkit.model.order import OrderEvent, OrderState, OrderType, Side
from execkit.model.records import Source
from execkit.orders.reconcile import is_plausible, problem_with, read_report

D = Decimal
NAN, INF = D("NaN"), D("Infinity")


def in_flight():
    return make.order("submit", quantity="1", limit="100")


def resting():
    return make.order("submit", changed("accept", venue_order_id="v-o1"), quantity="1", limit="100")


# -- what is not believed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        # A9, N13: required parts are missing
        ({"venue_order_id": ""}, "has no venue order id"),
        ({"client_order_id": ""}, "names client order id ''"),
        # A10: an answer about something else
        ({"client_order_id": "xk-other"}, "names client order id 'xk-other'"),
        ({"symbol": "ETH/USDT"}, "names symbol 'ETH/USDT'"),
        ({"side": Side.SELL}, "names side <Side.SELL: 'sell'>"),
        ({"type": OrderType.MARKET}, "names type <OrderType.MARKET: 'market'>"),
        ({"quantity": D(2)}, "has quantity 2 instead of 1"),
        ({"quantity": D("0.5")}, "has quantity 0.5 instead of 1"),
        # N1 N2 N3: numbers that are none
        ({"quantity": NAN}, "has quantity NaN and filled 0"),
        ({"quantity": INF}, "has quantity Infinity and filled 0"),
        ({"filled": NAN}, "has quantity 1 and filled NaN"),
        ({"filled": INF}, "has quantity 1 and filled Infinity"),
        ({"filled": D(-5)}, "has quantity 1 and filled -5"),
        ({"limit_price": NAN}, "has the price NaN"),
        ({"stop_price": INF}, "has the price Infinity"),
        # N4: more than there is
        ({"filled": D(7)}, "has filled 7 of 1"),
        # N12: a word nobody knows
        (
            {"status": OrderState.IN_DOUBT, "raw_status": "frozen"},
            "has the unknown status 'frozen'",
        ),
        # fills that cannot be
        ({"fills": (fill("", quantity="1"),)}, "carries the impossible fill ''"),
        ({"fills": (fill("t", quantity="0"),)}, "carries the impossible fill 't'"),
        ({"fills": (fill("t", price="NaN"),)}, "carries the impossible fill 't'"),
        ({"fills": (fill("t", symbol="ETH/USDT"),)}, "carries the impossible fill 't'"),
        ({"fills": (fill("t", side=Side.SELL),)}, "carries the impossible fill 't'"),
    ],
)
def test_an_answer_that_cannot_be_true_is_a_problem(lie, problem):
    """It is neither success nor refusal: the text says what is wrong with it."""
    told = {"status": OrderState.ACCEPTED} | lie
    order = in_flight()
    assert problem_with(order, report(order, **told)) == problem


def test_a_true_answer_is_no_problem():
    """In flight and resting, filled or refused."""
    order = in_flight()
    for status in (OrderState.ACCEPTED, OrderState.FILLED, OrderState.HELD, OrderState.CANCELLED):
        assert problem_with(order, report(order, status)) is None
    assert problem_with(order, report(order, OrderState.REJECTED, venue_order_id="")) is None
    assert problem_with(order, report(order, fills=(fill(quantity="1"),), filled=D(1))) is None


def test_a_known_order_may_be_told_of_by_the_venues_id():
    """Once the venue's id is known, ours may be missing and a stop may be called what it has become."""
    order = resting()
    assert problem_with(order, report(order, client_order_id="")) is None
    assert problem_with(order, report(order, type=OrderType.MARKET)) is None
    problem = problem_with(order, report(order, venue_order_id="v9"))
    assert problem == "names venue order id 'v9', known is 'v-o1'"


@pytest.mark.parametrize(
    "events", [("lose",), ("accept",), ("lose", "absent"), ("accept", "ask_cancel")]
)
def test_only_the_answer_to_a_send_must_repeat_its_quantity(events):
    """C12: afterwards another quantity is what has become of the order; the ids and the market say whose it is."""
    order = make.order("submit", *events, quantity="1", limit="100")
    for quantity in ("0.4", "1", "3"):
        assert problem_with(order, report(order, quantity=D(quantity))) is None
    assert problem_with(order, report(order, quantity=D(0))) == "is open and has quantity 0"
    assert problem_with(order, report(order, OrderState.CANCELLED, quantity=D(0))) is None
    crossed = report(order, quantity=D("0.4"), side=Side.SELL)
    assert problem_with(order, crossed) == "names side <Side.SELL: 'sell'>"


@pytest.mark.parametrize(
    ("changes", "plausible"),
    [
        ({}, True),
        ({"quantity": "0", "replaces": "t0"}, True),
        ({"fee": "-0.1"}, True),
        ({"trade_id": ""}, False),
        ({"quantity": "0"}, False),
        ({"quantity": "-1"}, False),
        ({"quantity": "NaN"}, False),
        ({"price": "0"}, False),
        ({"price": "-1"}, False),
        ({"price": "Infinity"}, False),
        ({"fee": "NaN"}, False),
        ({"at": datetime(2024, 1, 1)}, False),
    ],
)
def test_plausible_fills(changes, plausible):
    """An id, a quantity above zero (or a correction), finite money, a time with a zone."""
    assert is_plausible(fill(**changes)) is plausible


# -- what a report adds --------------------------------------------------------------------------------


def read(order, status, **told):
    found = read_report(order, report(order, status, **told), Source.ACK, settled=AT)
    return (
        [change.event.value for change in found.before],
        found,
        [c.event.value for c in found.after],
    )


def test_a_first_sight_is_an_acknowledgement():
    """It carries the venue's id, time and words."""
    before, reading, after = read(
        in_flight(), OrderState.ACCEPTED, updated_at=later(3), reason="fine", code="0"
    )
    assert (before, after, reading.fills, reading.fills_missing) == (["accept"], [], (), False)
    record = reading.before[0]
    assert (record.venue_order_id, record.venue_at, record.reason, record.code, record.source) == (
        "v-o1",
        later(3),
        "fine",
        "0",
        Source.ACK,
    )
    assert (record.quantity, record.limit_price) == (None, None)


@pytest.mark.parametrize(
    ("events", "status", "told", "expected"),
    [
        # in flight, in doubt or presumed absent: seen now
        (("submit",), "filled", {}, (["accept"], [])),
        (("submit", "lose"), "accepted", {}, (["accept"], [])),
        (("submit", "lose", "absent"), "accepted", {}, (["accept"], [])),
        (("submit", "hold"), "accepted", {}, (["accept"], [])),
        ((), "pending_cancel", {}, (["accept"], [])),
        # the end
        (("submit",), "rejected", {}, ([], ["reject"])),
        (("submit",), "cancelled", {}, ([], ["cancel"])),
        (("submit",), "expired", {"fills": (fill(quantity="0.5"),)}, (["accept"], ["expire"])),
        (("submit", "accept"), "cancelled", {"fills": (fill(quantity="0.5"),)}, ([], ["cancel"])),
        (("submit", "accept", "ask_cancel"), "cancelled", {}, ([], ["cancel"])),
        # known already: nothing
        (("submit", "accept"), "accepted", {}, ([], [])),
        (("submit", "accept"), "partially_filled", {}, ([], [])),
        (("submit", "accept", "ask_cancel"), "accepted", {}, ([], [])),
        (("submit", "accept", "ask_amend"), "filled", {}, ([], [])),
        # B10: a closed order does not open again, whatever an old answer says
        (("submit", "accept", "cancel"), "accepted", {}, ([], [])),
        (("submit", "reject"), "filled", {}, ([], [])),
        (("submit", "accept", "cancel"), "rejected", {}, ([], [])),
        # held back by the venue
        (("submit",), "held", {}, (["hold"], [])),
        (("submit", "accept"), "held", {}, (["hold"], [])),
        (("submit", "hold"), "held", {}, ([], [])),
        (("submit", "accept", "ask_cancel"), "held", {}, ([], [])),
        (("submit", "accept", "fill_part"), "held", {}, ([], [])),
    ],
)
def test_events_in_a_report(events, status, told, expected):
    """Which events it makes, before and after its fills."""
    steps = [fill("t0", quantity="0.1") if e == "fill_part" else e for e in events]
    order = make.order(*steps, quantity="1", limit="100")
    before, _, after = read(order, OrderState(status), **told)
    assert (before, after) == expected


def test_older_news_does_not_hold_an_accepted_order():
    """B8: a snapshot from before the acknowledgement says nothing about now."""
    order = make.order("submit")
    order.change(changed("accept", venue_at=later(5), venue_order_id="v-o1"), AT)
    assert read(order, OrderState.HELD, updated_at=later(4))[0] == []
    assert read(order, OrderState.HELD, updated_at=later(6))[0] == ["hold"]
    assert read(order, OrderState.HELD)[0] == ["hold"]


def test_only_a_report_that_shows_the_change_confirms_it():
    """One from before the change neither confirms nor refuses; quantity, limit and stop must all be as asked."""
    order = make.order("submit", changed("accept", venue_order_id="v"), quantity="1", stop="90")
    ask(order, quantity=2, stop_price=95)
    for old in ({}, {"quantity": D(2)}, {"stop_price": D(95)}):
        assert read(order, OrderState.ACCEPTED, **old)[0] == []
    new = {"quantity": D(2), "stop_price": D(95)}
    before, reading, _ = read(order, OrderState.PARTIALLY_FILLED, **new)
    assert before == ["amend"]
    assert (reading.before[0].quantity, reading.before[0].stop_price) == (D(2), D(95))
    order.change(changed("lose"), AT)
    assert read(order, OrderState.ACCEPTED, **new)[0] == ["accept", "amend"]
    assert read(order, OrderState.ACCEPTED)[0] == ["accept"]
    limit = make.order("submit", "accept", limit="100")
    ask(limit, limit_price=101)
    assert read(limit, OrderState.ACCEPTED)[0] == []
    assert read(limit, OrderState.ACCEPTED, limit_price=D(101))[0] == ["amend"]


def test_a_report_from_before_what_is_known_confirms_no_change():
    """I22: a price that the order had before is asked for again, and an old answer still shows it."""
    order = make.order("submit", "accept", limit="100")
    order.change(changed("amend", limit_price=D(101), venue_at=later(5)), AT)
    ask(order, limit_price=100)
    old = {"limit_price": D(100), "updated_at": later(4)}
    assert read(order, OrderState.ACCEPTED, **old)[0] == []
    assert read(order, OrderState.ACCEPTED, **(old | {"updated_at": later(6)}))[0] == ["amend"]


def test_an_order_executed_whole_as_it_was_refuses_the_change():
    """C6: the change that was asked for came too late."""
    order = make.order("submit", changed("accept", venue_order_id="v"), quantity="1", stop="90")
    ask(order, quantity=2)
    whole = {"fills": (fill(),), "filled": D(1)}
    assert read(order, OrderState.FILLED, **whole)[2] == ["refuse_amend"]
    assert read(order, OrderState.FILLED, quantity=D(2), filled=D(2))[0] == ["amend"]


def test_fills_are_news_once():
    """Known ones and repetitions are left out; what the venue counts beyond them is missing."""
    order = make.order("submit", fill("a", quantity="0.2"), quantity="1")
    again = (fill("a", quantity="0.2"), fill("b", quantity="0.3"), fill("b", quantity="0.3"))
    _, reading, _ = read(order, OrderState.PARTIALLY_FILLED, fills=again, filled=D("0.5"))
    assert [record.fill.trade_id for record in reading.fills] == ["b"]
    assert all(record.source is Source.ACK for record in reading.fills)
    assert not reading.fills_missing
    _, reading, after = read(order, OrderState.CANCELLED, fills=again, filled=D("0.6"))
    assert reading.fills_missing
    assert after == ["cancel"]


def test_fills_of_a_closed_order_count():
    """C3: the order stays closed, its executions are taken in, and missing ones are noticed."""
    order = make.order("submit", "accept", "cancel")
    whole = report(order, OrderState.FILLED, fills=(fill("x"),), filled=D(1))
    found = read_report(order, whole, Source.LOOKUP, settled=AT)
    assert ([r.fill.trade_id for r in found.fills], found.fills_missing) == (["x"], False)
    assert found.before == found.after == ()
    ended = report(order, OrderState.CANCELLED, filled=D(1))
    found = read_report(order, ended, Source.LOOKUP, settled=AT)
    assert found.fills_missing
    assert OrderEvent.CANCEL not in {c.event for c in found.after}

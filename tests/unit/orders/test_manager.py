"""Orders in memory: their life, the indexes, what is kept and what is forgotten."""

import asyncio
from decimal import Decimal

import msgspec
import pytest
from tests.support import orders as make
from tests.support.orders import AT, ask, changed, fill, filled, intent, later

from execkit.errors import InvalidTransitionError
from execkit.model.order import OrderRole, OrderState, OrderType, Side
from execkit.model.records import CommandSent
from execkit.orders import manager
from execkit.orders.manager import OrderManager


def managed(*records):
    """Return a manager that has applied the records, one second apart."""
    orders = OrderManager()
    for second, record in enumerate(records):
        orders.apply(record, later(second))
    return orders


# -- one order -----------------------------------------------------------------------------------------


def test_an_order_shows_what_its_intent_says():
    """All that was intended can be read from the order itself."""
    order = make.order(
        order_id="x",
        symbol="ETH/USDT",
        side=Side.SELL,
        quantity="2",
        limit="100",
        role=OrderRole.EXIT,
        parent="p",
        revision=3,
        signal_id="s",
        position_id="ETH/USDT#1",
        reservation_id="r",
        worst_price=Decimal(101),
        expected_price=Decimal(99),
    )
    shown = (
        order.client_order_id,
        order.symbol,
        order.side,
        order.type,
        order.role,
        order.parent,
        order.revision,
        order.signal_id,
        order.position_id,
        order.reservation_id,
        order.worst_price,
        order.expected_price,
        order.quantity,
        order.limit_price,
        order.stop_price,
        order.created_at,
    )
    assert shown == (
        "x",
        "ETH/USDT",
        Side.SELL,
        OrderType.LIMIT,
        OrderRole.EXIT,
        "p",
        3,
        "s",
        "ETH/USDT#1",
        "r",
        Decimal(101),
        Decimal(99),
        Decimal(2),
        Decimal(100),
        None,
        AT,
    )
    assert repr(order) == "<x exit sell 2 ETH/USDT limit 100 new, filled 0>"
    assert repr(make.order(stop="90")) == "<o1 entry buy 1 BTC/USDT stop 90 new, filled 0>"


def test_fills_add_up():
    """Filled quantity, mean price and times follow from the executions; they are shown oldest first."""
    orders = managed(
        intent(quantity="1"),
        changed("submit"),
        changed("accept", venue_order_id="7"),
        filled("b", quantity="0.4", price="101", at=later(5)),
        filled("a", quantity="0.1", price="100", at=later(4)),
    )
    order = orders["o1"]
    assert order.state is OrderState.PARTIALLY_FILLED
    assert (order.filled, order.remaining, order.exposure_quantity) == (
        Decimal("0.5"),
        Decimal("0.5"),
        Decimal("0.5"),
    )
    assert order.average_price == Decimal("100.8")
    assert [each.trade_id for each in order.fills] == ["a", "b"]
    assert (order.sent_at, order.accepted_at, order.first_fill_at) == (
        later(1),
        later(2),
        later(3),
    )
    assert order.closed_at is None
    orders.apply(filled("c", quantity="0.5", price="102"), later(9))
    assert (order.state, order.closed_at, order.remaining) == (OrderState.FILLED, later(9), 0)
    assert order.exposure_quantity == 0


def test_a_fill_names_the_venue_order_when_no_answer_did():
    """The venue's id is learned from a fill that overtakes the acknowledgement."""
    orders = managed(intent(), changed("submit"), filled(quantity="0.5", venue_id="v9"))
    assert orders["o1"].venue_order_id == "v9"
    assert orders.by_venue_id("v9") is orders["o1"]
    orders.apply(changed("accept", venue_order_id="v9"), AT)
    assert orders["o1"].state is OrderState.PARTIALLY_FILLED


def test_a_late_fill_changes_quantities_only():
    """A cancelled order stays cancelled, also when the rest turns out to be executed."""
    order = make.order("submit", "accept", "cancel", fill(quantity="1"))
    assert (order.state, order.filled) == (OrderState.CANCELLED, Decimal(1))


def test_a_correction_replaces_and_a_bust_takes_away():
    """The filled quantity is that of the executions which still stand."""
    order = make.order(
        "submit",
        fill("a", quantity="0.4", price="100"),
        fill("b", quantity="0.3", price="110", replaces="a"),
    )
    assert (order.filled, order.average_price) == (Decimal("0.3"), Decimal(110))
    order.execute(fill("c", quantity="0", replaces="b"), AT)
    assert (order.filled, order.average_price, order.fills) == (0, None, ())
    order.execute(fill("d", quantity="0", replaces="unknown"), AT)
    assert order.filled == 0


def test_reasons_errors_and_attempts_are_kept():
    """Each send counts; the last 20 failures stay; a new send clears the last word."""
    order = make.order()
    for attempt in range(25):
        order.change(changed("submit", attempt=attempt + 1), AT)
        order.change(changed("unsent", reason=f"refused {attempt}"), AT)
    assert order.attempts == 25
    assert order.reason == "refused 24"
    assert order.errors == tuple(f"refused {n}" for n in range(5, 25))
    order.change(changed("submit"), AT)
    assert order.reason == ""
    order.change(changed("lose"), AT)
    assert order.errors[-1] == "lose"


def test_venue_time_only_moves_forward():
    """Older news does not turn the order's venue time back."""
    order = make.order("submit")
    order.change(changed("accept", venue_at=later(5)), AT)
    order.change(changed("accept", venue_at=later(4)), AT)
    assert order.venue_at == later(5)
    order.change(changed("accept", venue_at=later(6)), AT)
    assert order.venue_at == later(6)


def test_the_wish_to_cancel_stays_until_the_end():
    """A refused cancel leaves the order resting, and leaves the wish: somebody has to carry it through."""
    order = make.order("submit", "accept", "ask_cancel")
    assert (order.state, order.cancel_asked) == (OrderState.PENDING_CANCEL, True)
    order.change(changed("refuse_cancel"), AT)
    assert (order.state, order.cancel_asked) == (OrderState.ACCEPTED, True)


def test_a_command_is_a_wish_until_the_venue_shows_it():
    """It changes no state: after a crash it may be all that is known, and it may never have left."""
    orders = managed(
        intent(),
        CommandSent(client_order_id="o1", command="amend", quantity=Decimal(2)),
        CommandSent(client_order_id="o1", command="cancel"),
        CommandSent(client_order_id="gone", command="cancel"),
    )
    order = orders["o1"]
    assert (order.state, order.cancel_asked) == (OrderState.NEW, True)
    assert (order.quantity, order.quantity_at_most) == (1, 2)


def test_a_change_counts_once_it_is_confirmed():
    """Until then the order is what it was, and at worst the larger of the two."""
    order = make.order("submit", "accept", quantity="1", stop="90")
    ask(order, quantity=3, stop_price=95)
    assert (order.quantity, order.stop_price) == (Decimal(1), Decimal(90))
    assert (order.quantity_at_most, order.remaining_at_most) == (Decimal(3), Decimal(3))
    order.change(changed("amend", quantity=Decimal(3), stop_price=Decimal(95)), AT)
    assert (order.quantity, order.stop_price, order.limit_price) == (Decimal(3), Decimal(95), None)
    assert (order.state, order.asked) == (OrderState.ACCEPTED, None)
    ask(order, quantity=2)
    assert order.quantity_at_most == Decimal(3)
    order.change(changed("refuse_amend"), AT)
    assert (order.quantity, order.asked, order.quantity_at_most) == (Decimal(3), None, Decimal(3))
    ask(order, limit_price=80)
    assert order.quantity_at_most == Decimal(3)
    order.change(changed("amend", limit_price=Decimal(80)), AT)
    assert (order.quantity, order.limit_price) == (Decimal(3), Decimal(80))


def test_an_order_executed_while_its_change_is_asked_for_ends_when_the_change_is_refused():
    """It may have grown, so the fills do not end it; the refusal tells that they do."""
    order = make.order("submit", "accept", quantity="1", stop="90")
    ask(order, quantity=2)
    order.execute(fill(quantity="1"), AT)
    assert (order.state, order.remaining, order.remaining_at_most) == (
        OrderState.PENDING_AMEND,
        0,
        1,
    )
    order.change(changed("refuse_amend"), later(3))
    assert (order.state, order.closed_at) == (OrderState.FILLED, later(3))


def test_a_fill_that_only_the_change_allows_proves_the_change():
    """The answer was lost; nothing of it is an overfill."""
    order = make.order("submit", "accept", quantity="1", stop="90")
    ask(order, quantity=3)
    order.execute(fill("a", quantity="2"), AT)
    assert (order.state, order.quantity, order.remaining) == (OrderState.PENDING_AMEND, 3, 1)
    order.execute(fill("b", quantity="1"), AT)
    assert (order.state, order.quantity, order.filled) == (OrderState.FILLED, 3, 3)
    order.execute(fill("c", quantity="1"), AT)
    assert (order.quantity, order.filled) == (3, 4)


def test_done_waits_through_the_hook_only_while_open():
    """A closed order, and one that nobody watches, is returned at once."""
    waited = []

    async def hook(order):
        waited.append(order.client_order_id)

    async def run():
        closed = make.order("fail")
        closed.done_hook = hook
        assert await closed.done() is closed
        unwatched = make.order()
        assert await unwatched.done() is unwatched
        order = make.order()
        order.done_hook = hook
        assert await order.done() is order

    asyncio.run(run())
    assert waited == ["o1"]


# -- all orders ----------------------------------------------------------------------------------------


def test_lookup_by_either_id():
    """Our id comes first; the venue's is used when ours is not known."""
    orders = managed(
        intent("o1", parent="s1"),
        changed("accept", "o1", venue_order_id="v1"),
        intent("o2", parent="s2"),
        changed("accept", "o2", venue_order_id="v2"),
    )
    assert orders.find("o1", "v2") is orders["o1"]
    assert orders.find("", "v2") is orders["o2"]
    assert orders.find("other", "v9") is None
    assert orders.find("other") is None
    assert orders.by_venue_id("v9") is None
    assert list(orders) == ["o1", "o2"]
    assert len(orders) == 2


def test_indexes_follow_the_states():
    """Open orders stand in the index of their role and symbol, in-doubt ones in theirs, closed ones in none."""
    orders = managed(
        intent("e", parent="s"),
        intent("x", parent="x", role=OrderRole.STOP, side=Side.SELL, stop="90"),
        intent("y", parent="y", role=OrderRole.STOP, side=Side.SELL, symbol="ETH/USDT", stop="9"),
    )
    assert [o.client_order_id for o in orders.open_entries("BTC/USDT")] == ["e"]
    assert [o.client_order_id for o in orders.open_reductions("BTC/USDT")] == ["x"]
    assert orders.open_entries("ETH/USDT") == []
    assert list(orders.active) == ["e", "x", "y"]
    for event in ("submit", "lose"):
        orders.apply(changed(event, "e"), AT)
    assert list(orders.in_doubt) == ["e"]
    orders.apply(changed("absent", "e"), AT)
    assert list(orders.in_doubt) == []
    assert orders.open_entries("BTC/USDT") == []
    assert "e" in orders.active
    orders.apply(changed("reject", "x"), AT)
    assert orders.open_reductions("BTC/USDT") == []
    assert list(orders.active) == ["e", "y"]
    assert orders.counts == {
        "new": 3,
        "submitted": 1,
        "in_doubt": 1,
        "presumed_absent": 1,
        "rejected": 1,
    }


def test_records_of_unknown_orders_change_nothing():
    """An event or a fill of an order that is not in memory is nobody's."""
    orders = managed(intent())
    assert orders.apply(changed("accept", "other"), AT) is None
    assert orders.apply(filled("t", "other"), AT) is None
    assert orders["o1"].state is OrderState.NEW


def test_the_same_order_twice_is_refused():
    """A client order id is used once for ever."""
    orders = managed(intent())
    with pytest.raises(InvalidTransitionError, match="o1 is intended twice"):
        orders.apply(intent(), AT)
    assert len(orders) == 1
    assert orders.counts == {"new": 1}


def test_the_last_thousand_closed_orders_stay():
    """Older ones leave every index; open ones stay however many there are."""
    orders = managed(intent("open", parent="open"), intent("first", parent="p", revision=0))
    orders.apply(changed("accept", "first", venue_order_id="v-first"), AT)
    orders.apply(changed("cancel", "first"), AT)
    orders.apply(intent("second", parent="p", revision=1), AT)
    orders.apply(changed("fail", "second"), AT)
    for n in range(manager.KEEP_CLOSED - 1):
        orders.apply(intent(f"n{n}", parent=f"n{n}"), AT)
        orders.apply(changed("fail", f"n{n}"), AT)
    assert len(orders) == manager.KEEP_CLOSED + 1
    assert "first" not in orders
    assert orders.by_venue_id("v-first") is None
    assert [o.client_order_id for o in orders.revisions("p")] == ["second"]
    orders.apply(intent("one more", parent="m"), AT)
    orders.apply(changed("fail", "one more"), AT)
    assert "second" not in orders
    assert orders.revisions("p") == []
    assert "open" in orders


def test_export_and_restore_give_the_same_orders():
    """Everything but the hooks comes back: states, indexes, order of the ends, and revisions in their order."""
    orders = managed(
        intent("r0", parent="s", revision=0),
        *(changed(event, "r0") for event in ("submit", "lose", "absent")),
        intent("r1", parent="s", revision=1),
        changed("fail", "r1"),
        intent("d", parent="d"),
        changed("lose", "d"),
        intent("x", parent="x", role=OrderRole.STOP, side=Side.SELL),
        changed("accept", "x", venue_order_id="vx"),
        intent("z", parent="z"),
        changed("accept", "z", venue_order_id="vz"),
        changed("cancel", "z"),
    )
    orders["r0"].done_hook = print
    data = msgspec.json.encode([*orders.export(), orders.counts])
    rows, closed, counts = msgspec.json.decode(
        data, type=tuple[list[manager.ManagedOrder], list[str], dict[str, int]]
    )
    again = OrderManager()
    again.restore(rows, closed, counts)
    assert [o.client_order_id for o in again.revisions("s")] == ["r0", "r1"]
    assert list(again.in_doubt) == ["d"]
    assert again.by_venue_id("vz") is again["z"]
    assert [o.client_order_id for o in again.open_reductions("BTC/USDT")] == ["x"]
    assert again["r0"].done_hook is None
    assert list(again) == list(orders)
    assert msgspec.json.encode([*again.export(), again.counts]) == data
    for each in (orders, again):
        for n in range(manager.KEEP_CLOSED - 1):
            each.apply(intent(f"n{n}", parent=f"n{n}"), AT)
            each.apply(changed("fail", f"n{n}"), AT)
    assert list(again) == list(orders)
    assert again.export()[1] == orders.export()[1]
    assert "r1" not in again
    assert "z" in again

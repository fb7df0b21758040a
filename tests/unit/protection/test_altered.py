"""Orders whose terms were changed at the venue: believed, told, and put right. What the venue holds decides."""

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import BTC
from tests.support.tickets import entry
from tests.support.venue import ScriptedVenue

from execkit.model.order import ListKind, OrderRole, OrderState
from execkit.model.records import SymbolBlocked

D = Decimal


def live_stops(bench):
    return [(o.quantity - o.filled, o.stop_price) for o in bench.venue.open if o.stop_price]


async def protected(make, **capabilities):
    """Return a bench with a long of 1 at 100 and its stop at 95, an hour later."""
    bench = make(ScriptedVenue(**capabilities), keeper=True)
    await bench.reconciler.start()
    await bench.open("1")
    await bench.quiet(3600)
    return bench, bench.stops[0]


@pytest.mark.parametrize("amend", [True, False])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"quantity": D("0.5")}, "quantity 0.5 instead of 1"),
        ({"stop_price": D(50)}, "stop price 50 instead of 95"),
    ],
)
@virtual
async def test_a_stop_that_was_changed_at_the_venue_is_put_right(make, amend, changes, text):
    """C12 D9 D10: seen in the next pass, told, and of the right size and price within a second."""
    bench, stop = await protected(make, amend=amend)
    bench.venue.amend(stop.client_order_id, **changes)
    await bench.reconciler.run()
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 95)]
    assert [(o.remaining, o.stop_price) for o in bench.stops] == [(1, 95)]
    assert bench.alarms == ["ORDER_ALTERED"]
    key = stop.client_order_id
    assert bench.book.alarms[0].text == f"{key}: the venue shows it with {text}"
    assert bench.book.blocked == {}
    await bench.quiet(600)
    assert bench.alarms == ["ORDER_ALTERED"]


@virtual
async def test_a_changed_stop_that_is_gone_is_gone(make):
    """Reduced to a half by hand and triggered before anybody looked: the other half has a stop again."""
    bench, stop = await protected(make)
    key = stop.client_order_id
    bench.venue.amend(key, quantity=D("0.5"))
    bench.venue.fill(key, "0.5", price="95")
    await bench.reconciler.run()
    await bench.quiet(1)
    assert (stop.state, stop.quantity, stop.filled) == (OrderState.FILLED, D("0.5"), D("0.5"))
    assert bench.book.positions.quantity(BTC) == D("0.5")
    assert live_stops(bench) == [(D("0.5"), 95)]
    assert bench.alarms == ["ORDER_ALTERED"]


@virtual
async def test_a_changed_stop_that_ended_is_gone(make):
    """Its quantity does not keep its end from being believed."""
    bench, stop = await protected(make)
    key = stop.client_order_id
    bench.venue.amend(key, quantity=D("0.5"))
    bench.venue.end(key)
    await bench.reconciler.run()
    await bench.quiet(1)
    assert stop.state is OrderState.CANCELLED
    assert live_stops(bench) == [(1, 95)]


@virtual
async def test_a_change_of_an_entry_that_came_after_all_is_believed(make):
    """C6: lost, called refused after the window, and then made: the entry ends with what it has executed."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=5)), keeper=True)
    await bench.reconciler.start()
    order = (await bench.gateway.send(entry(limit="100"))).order
    bench.venue.script("amend_order", TimeoutError())
    assert not await bench.gateway.amend(order, quantity=D("0.4"))
    await bench.quiet(60)
    assert order.asked is None
    assert order.quantity == 1
    bench.venue.amend(order.client_order_id, quantity=D("0.4"))
    bench.venue.fill(order.client_order_id, "0.4")
    await bench.reconciler.run()
    await bench.quiet(1)
    assert (order.state, order.quantity, order.filled) == (OrderState.FILLED, D("0.4"), D("0.4"))
    assert live_stops(bench) == [(D("0.4"), 95)]
    assert bench.alarms == ["IN_DOUBT", "ORDER_ALTERED"]


@virtual
async def test_an_entry_that_was_made_larger_blocks_its_symbol(make):
    """B17: the truth, told, and no more entries until a person has looked; all of it is protected."""
    bench = make(ScriptedVenue(), keeper=True)
    await bench.reconciler.start()
    order = (await bench.gateway.send(entry(limit="100"))).order
    bench.venue.amend(order.client_order_id, quantity=D(3))
    await bench.reconciler.run()
    assert (order.quantity, order.remaining) == (3, 3)
    (blocked,) = bench.journal.records(SymbolBlocked)
    key = order.client_order_id
    assert (blocked.symbol, blocked.cause) == (BTC, f"{key}: quantity 3 instead of 1")
    bench.venue.fill(key)
    await bench.reconciler.run()
    await bench.quiet(1)
    assert live_stops(bench) == [(3, 95)]
    assert bench.alarms == ["ORDER_ALTERED"], "it is no overfill as well"
    bench.venue.amend(bench.stops[0].client_order_id, quantity=D(4))
    await bench.quiet(3600)
    await bench.reconciler.run()
    await bench.quiet(1)
    assert live_stops(bench) == [(3, 95)]
    assert len(bench.journal.records(SymbolBlocked)) == 1


@virtual
async def test_an_answer_with_another_quantity_has_to_show_twice(make):
    """A9: the answer to a send is doubted; what a look-up shows then is what there is."""
    bench = make(ScriptedVenue(), keeper=True)
    await bench.reconciler.start()
    bench.venue.script(
        "place_order",
        lambda request: bench.venue.amend(
            bench.venue.accept(request).client_order_id, quantity=D("0.5")
        ),
    )
    sent = await bench.gateway.send(entry(limit="100"))
    assert sent.order.state is OrderState.IN_DOUBT
    await bench.quiet(1)
    assert (sent.order.state, sent.order.quantity) == (OrderState.ACCEPTED, D("0.5"))
    assert bench.alarms == ["ANSWER_NOT_OURS", "ORDER_ALTERED"]


@virtual
async def test_a_stop_that_the_venue_made_smaller_while_nobody_ran(make):
    """D6 D12: the target of its list executed four of ten, and the venue took them off the stop; the rest can close."""
    bench = make(ScriptedVenue(lists=frozenset({ListKind.OCO})), keeper=True)
    await bench.reconciler.start()
    await bench.open("10", take_profit=D(110))
    await bench.quiet(3600)
    stop = bench.stops[0]
    [target] = bench.orders(OrderRole.TARGET)
    await bench.stop()
    bench.venue.fill(target.client_order_id, "4")
    bench.venue.amend(stop.client_order_id, quantity=D(6))
    bench = await bench.restart()
    await bench.reconciler.start()
    await bench.quiet(1)
    assert bench.book.positions.quantity(BTC) == 6
    assert live_stops(bench) == [(6, 95)]
    assert [(o.remaining, o.stop_price) for o in bench.stops] == [(6, 95)]
    assert bench.alarms.count("UNPROTECTED") == 0
    assert bench.book.blocked == {}
    assert await bench.keeper.flatten(BTC, "by hand")
    await bench.quiet(1)
    assert bench.book.positions.quantity(BTC) == 0
    assert bench.venue.open == []

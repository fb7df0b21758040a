"""With every pass of reconciliation the protective quantity is compared with the position, whoever changed either."""

from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import BTC
from tests.support.venue import ScriptedVenue

from execkit.model.order import ListKind, OrderState

D = Decimal


def covered(bench):
    """Return what the stops that rest at the venue would close."""
    return sum((o.quantity - o.filled for o in bench.venue.open if o.stop_price is not None), D(0))


async def passes(bench, count=2):
    """Reconcile, and let the keeper act; a difference counts once two passes have found it."""
    for _ in range(count):
        await bench.quiet(3)
        await bench.reconciler.run()
        await bench.quiet(3)


async def opened(make, **details):
    bench = make(
        ScriptedVenue(lists=frozenset({ListKind.OCO} if "take_profit" in details else ())),
        keeper=True,
    )
    await bench.open("1", **details)
    await bench.quiet(3)
    assert covered(bench) == 1
    return bench


@pytest.mark.parametrize("status", [OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED])
@pytest.mark.parametrize("details", [{}, {"take_profit": D(110)}], ids=["stop", "list"])
@virtual
async def test_a_stop_that_vanished_without_a_word_is_restored(make, status, details):
    """D9 C10: cancelled by hand or ended by the venue, and no stream told of it."""
    bench = await opened(make, **details)
    for each in list(bench.venue.open):
        bench.venue.end(each.client_order_id, status)
    await passes(bench, 1)
    assert covered(bench) == 1
    assert len(bench.venue.open) == 1 + len(details)
    assert bench.book.positions.quantity(BTC) == 1


@virtual
async def test_a_stop_that_the_venue_has_forgotten_is_restored_in_the_end(make):
    """It knows nothing of it any more: in doubt first, and then the position is covered again or closed."""
    bench = await opened(make)
    bench.venue.orders.pop(bench.stops[0].client_order_id)
    await passes(bench)
    await bench.quiet(20)
    held = bench.venue._positions()
    assert covered(bench) == (held[0].quantity if held else 0)


@virtual
async def test_a_stop_whose_position_was_sold_elsewhere_is_cancelled(make):
    """D15: what is left would open a position. Right after the purchase it could be an old answer (D17)."""
    bench = await opened(make)
    await bench.quiet(60)
    bench.venue.held = D(-1)
    await passes(bench)
    assert (bench.venue.open, bench.stops) == ([], [])


@pytest.mark.parametrize(("elsewhere", "size"), [("-0.4", "0.6"), ("0.5", "1.5")])
@virtual
async def test_the_stop_follows_what_was_traded_elsewhere(make, elsewhere, size):
    """D10: one size, whoever has changed the position."""
    bench = await opened(make)
    bench.venue.held = D(elsewhere)
    await passes(bench)
    assert bench.book.positions.quantity(BTC) == D(size)
    assert covered(bench) == D(size)


@virtual
async def test_a_fill_of_the_stop_that_nobody_told_of_ends_it(make):
    """The pass finds the execution, the position is closed, and nothing else is sent."""
    bench = await opened(make)
    bench.venue.fill(bench.stops[0].client_order_id, at=bench.clock.now())
    await passes(bench, 1)
    assert (bench.book.positions.open, bench.venue.open) == ({}, [])
    assert len(bench.venue.sent) == 2

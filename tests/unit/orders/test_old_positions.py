"""Positions that the venue shows as they were before the latest fills: fills are the truth, and stops stay."""

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import BTC
from tests.support.tickets import entry
from tests.support.venue import ScriptedVenue

from execkit.model.account import VenuePosition
from execkit.model.records import ExternalChange, StopMoved

D = Decimal


def live_stops(bench):
    return [(o.quantity - o.filled, o.stop_price) for o in bench.venue.open if o.stop_price]


def shows(bench, quantity):
    """Let the venue show a position, whatever it holds."""
    rows = [VenuePosition(BTC, D(quantity))] if quantity else []
    bench.venue.always("positions", lambda: rows)


async def holding(make, **capabilities):
    """Return a bench with a long of 1 at 100 whose stop rests at 95, just bought."""
    bench = make(ScriptedVenue(**capabilities), keeper=True)
    await bench.reconciler.start()
    order = (await bench.gateway.send(entry(limit="100"))).order
    bench.take(bench.venue.fill(order.client_order_id, at=bench.clock.now()))
    await bench.quiet(0)
    assert live_stops(bench) == [(1, 95)]
    return bench


@pytest.mark.parametrize("lag", [1, 4.2, 8, 50])
@virtual
async def test_a_position_from_before_the_last_fill_is_no_change(make, lag):
    """D17 I22: for a minute after a fill the venue may show what was held before it, pass for pass."""
    bench = await holding(make)
    shows(bench, 0)
    bench.reconciler.verify_soon(BTC)
    await bench.quiet(lag)
    bench.venue.always("positions")
    await bench.quiet(120)
    assert live_stops(bench) == [(1, 95)]
    assert bench.journal.records(ExternalChange) == []
    assert bench.alarms == []


@virtual
async def test_a_position_of_before_a_restart_does_not_take_the_stop(make):
    """The entry is executed while the process is down, and `positions` of the first passes is from before."""
    bench = make(ScriptedVenue(), keeper=True)
    await bench.reconciler.start()
    order = (await bench.gateway.send(entry(limit="100"))).order
    await bench.quiet(60)
    await bench.stop()
    bench.venue.fill(order.client_order_id, at=bench.clock.now())
    shows(bench, 0)
    bench = await bench.restart()
    await bench.reconciler.start()
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 95)]
    await bench.quiet(5)
    bench.venue.always("positions")
    await bench.quiet(120)
    assert live_stops(bench) == [(1, 95)]
    assert bench.book.positions.open[BTC].stop_loss == 95
    assert bench.journal.records(ExternalChange) == []


@virtual
async def test_what_is_gone_for_longer_is_gone(make):
    """E19: closed by hand right after the purchase; after a minute it is taken over, and the stop goes."""
    bench = await holding(make)
    bench.venue.held = D(-1)
    bench.reconciler.verify_soon(BTC)
    await bench.quiet(55)
    assert bench.book.positions.quantity(BTC) == 1
    await bench.quiet(25)
    assert BTC not in bench.book.positions.open
    assert live_stops(bench) == []
    assert bench.alarms == ["MISMATCH"]


@pytest.mark.parametrize(
    ("window", "shown", "after"),
    [
        # A venue whose answers are never old; one that states a shorter time; what no earlier moment explains.
        (timedelta(0), "0", 8),
        (timedelta(seconds=10), "0", 18),
        (None, "0.7", 8),
        (None, "-1", 8),
    ],
)
@virtual
async def test_what_no_old_answer_can_show_is_taken_over(make, window, shown, after):
    """As soon as two passes have found it."""
    bench = await holding(make, absence_window=window)
    bench.venue.held = D(shown) - 1
    bench.reconciler.verify_soon(BTC)
    await bench.quiet(after)
    assert bench.book.positions.quantity(BTC) == D(shown)


@virtual
async def test_one_old_answer_at_the_start_takes_nothing_away(make):
    """Hours after the last fill: what makes a position smaller has to show twice, and a larger one at once."""
    bench = await holding(make)
    await bench.quiet(7200)
    await bench.stop()
    bench.venue.script("positions", [])
    bench = await bench.restart()
    await bench.reconciler.start()
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 95)]
    assert bench.journal.records(ExternalChange) == []
    await bench.stop()
    bench.venue.held = D(-1)
    bench = await bench.restart()
    await bench.reconciler.start()
    assert BTC not in bench.book.positions.open, (
        "it shows twice: taken over before anything is sent"
    )
    await bench.quiet(1)
    assert live_stops(bench) == []


@pytest.mark.parametrize("moved", [True, False])
@virtual
async def test_a_position_that_was_none_the_less_there_has_its_stop_again(make, moved):
    """What comes back whole is the position that an old answer took away: entry, levels and number."""
    bench = await holding(make)
    stop = 95
    if moved:
        bench.recorder.record(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(97)))
        stop = 97
    await bench.quiet(3600)
    before = bench.book.positions.open[BTC]
    shows(bench, 0)
    await bench.reconciler.run()
    await bench.quiet(10)
    assert BTC not in bench.book.positions.open
    assert live_stops(bench) == []
    bench.venue.always("positions")
    await bench.reconciler.run()
    await bench.quiet(10)
    assert bench.book.positions.open[BTC] == before
    assert bench.book.positions.closed == []
    assert live_stops(bench) == [(1, stop)]
    assert bench.alarms == ["MISMATCH", "MISMATCH"]
    first, second = bench.journal.records(ExternalChange)
    assert (first.quantity, first.restores, second.quantity, second.restores) == (
        -1,
        False,
        1,
        True,
    )
    again = await bench.restart()
    assert again.book.state_hash() == bench.book.state_hash(), "I16"


@pytest.mark.parametrize("how", ["late", "other", "between"])
@virtual
async def test_what_comes_back_otherwise_is_another_position(make, how):
    """Later than an hour, of another size, or after something else was executed."""
    bench = await holding(make)
    await bench.quiet(3600)
    bench.venue.held = D(-1)
    await bench.reconciler.run()
    await bench.quiet(10)
    assert BTC not in bench.book.positions.open
    if how == "late":
        await bench.quiet(3600)
    if how == "between":
        await bench.open("2", signal="s2", stop_loss=D(90))
        await bench.quiet(3600)
        bench.venue.held = D(-3)
        await bench.reconciler.run()
        await bench.quiet(10)
    bench.venue.held += D(2) if how == "other" else D(1)
    await bench.reconciler.run()
    await bench.quiet(10)
    assert bench.book.positions.open[BTC].stop_loss is None
    assert not any(change.restores for change in bench.journal.records(ExternalChange))

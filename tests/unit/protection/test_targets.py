"""Targets that are taken from here: what the venue would not take, and what it refuses, costs no stop."""

import asyncio
from decimal import Decimal

import attrs
import pytest
from tests.support.bench import virtual
from tests.support.orders import AT, BTC
from tests.support.tickets import INSTRUMENT
from tests.support.venue import ScriptedVenue

from execkit.errors import OrderRejectedError, RateLimitError
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, OrderType, Side
from execkit.model.position import Target
from execkit.model.records import Alarm, StopMoved

D = Decimal
NO = OrderRejectedError("not now")


def quote(bid, ask=None):
    return Quote(BTC, D(bid), D(ask or bid), AT)


def texts(bench, code):
    return [each.text for each in bench.journal.records(Alarm) if each.code == code]


def refuse_sales(venue, error=NO):
    """Have every sale at the market refused."""

    def place(request):
        if request.type is OrderType.MARKET and request.side is Side.SELL:
            raise error
        return venue._place(request)

    venue.always("place_order", place)


def with_least(notional, **capabilities):
    """Return a venue whose orders have to be worth *notional*."""
    venue = ScriptedVenue(**capabilities)

    async def instrument(_symbol):
        return attrs.evolve(INSTRUMENT, min_notional=D(notional))

    venue.instrument = instrument
    return venue


async def see(bench, bid, ask=None):
    bench.keeper.on_quote(quote(bid, ask))
    await bench.keeper.idle()


# -- refused targets -----------------------------------------------------------------------------------


@virtual
async def test_a_refused_target_waits_and_is_told_once(make):
    """Its stop is put back at once, and is not taken away again at each touch but after pauses that grow."""
    bench = make(keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    refuse_sales(bench.venue)
    naked = []
    for _ in range(300):
        await see(bench, "110")
        naked.append(not bench.stops)
        await asyncio.sleep(1)
    tried = bench.orders(OrderRole.TARGET)
    assert [order.state for order in tried] == [OrderState.REJECTED] * 6
    began = [(order.created_at - tried[0].created_at).total_seconds() for order in tried]
    assert began == pytest.approx([0, 5, 15, 35, 75, 155], abs=1.5)
    assert not any(naked)
    assert [stop.state for stop in bench.stops] == [OrderState.ACCEPTED]
    assert texts(bench, "TARGET_REFUSED") == [
        f"{BTC}: the target for 1 could not be taken (not now); the stop rests again, and it is tried later"
    ]
    bench.venue.always("place_order")
    await bench.quiet(160)
    await see(bench, "110")
    assert bench.book.positions.quantity(BTC) == 0


@virtual
async def test_a_target_whose_stop_is_not_proven_gone_waits_too(make):
    """I13: where positions can turn nothing is sent beside it, and the cancel is not asked for at each touch."""
    bench = make(ScriptedVenue(short_selling=True), keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    bench.venue.always("cancel_order", RateLimitError("slow"))
    await see(bench, "110")
    asked = bench.venue.calls["cancel_order"]
    assert asked >= 3
    for _ in range(4):
        await see(bench, "110")
    assert bench.venue.calls["cancel_order"] == asked
    assert bench.orders(OrderRole.TARGET) == []
    (text,) = texts(bench, "TARGET_REFUSED")
    assert "(its stop is not proven gone)" in text


@virtual
async def test_a_new_position_does_not_wait_for_the_last_ones_pause(make):
    """The pause is the position's; a success ends it as well."""
    bench = make(keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    bench.venue.script("place_order", NO)
    await see(bench, "110")
    assert bench.book.positions.quantity(BTC) == 1
    assert await bench.keeper.flatten(BTC, "by hand")
    await bench.quiet()
    await bench.open("1", signal="s2", take_profit=D(110))
    await bench.quiet()
    await see(bench, "110")
    assert bench.book.positions.quantity(BTC) == 0
    assert len(texts(bench, "TARGET_REFUSED")) == 1


@virtual
async def test_a_target_after_a_pause_begins_anew_with_the_next_part(make):
    """The first part was refused once and then taken: the second is tried at once, and told anew when refused."""
    bench = make(keeper=True)
    targets = (Target(D(105), D("0.5")), Target(D(110), D("0.5")))
    await bench.open("1", take_profit=D(110), targets=targets)
    await bench.quiet()
    bench.venue.script("place_order", NO)
    await see(bench, "105")
    await bench.quiet(6)
    await see(bench, "105")
    assert bench.book.positions.quantity(BTC) == D("0.5")
    await bench.quiet()
    bench.venue.script("place_order", NO)
    await see(bench, "110")
    await bench.quiet(6)
    assert len(texts(bench, "TARGET_REFUSED")) == 2
    await see(bench, "110")
    assert bench.book.positions.quantity(BTC) == 0


@virtual
async def test_a_process_that_was_replaced_takes_no_stop_away(make):
    """I26: neither the stop nor the target is its business any more."""
    bench = make(keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    bench.journal.is_current = False
    await see(bench, "110")
    assert bench.venue.calls["cancel_order"] == 0
    assert [order.state for order in bench.stops] == [OrderState.ACCEPTED]


# -- what the venue takes no order for -----------------------------------------------------------------


@virtual
async def test_a_part_that_is_worth_too_little_costs_no_stop(make):
    """A tenth of 1 at 105 is worth 10.5, and the least order 20: it waits for the next target, which takes all."""
    bench = make(with_least(20), keeper=True)
    targets = (Target(D(105), D("0.1")), Target(D(110), D("0.9")))
    await bench.open("1", take_profit=D(110), targets=targets)
    await bench.quiet()
    for _ in range(5):
        await see(bench, "105")
    assert bench.orders(OrderRole.TARGET) == []
    assert bench.venue.calls["cancel_order"] == 0
    await see(bench, "110")
    (taken,) = bench.orders(OrderRole.TARGET)
    assert (taken.filled, bench.book.positions.quantity(BTC)) == (1, 0)
    assert bench.alarms == []


@virtual
async def test_where_reductions_may_be_worth_little_the_part_is_taken(make):
    """Binance's futures have no least value for an order that is reduce-only."""
    bench = make(with_least(20, reduce_only=True), keeper=True)
    targets = (Target(D(105), D("0.1")), Target(D(110), D("0.9")))
    await bench.open("1", take_profit=D(110), targets=targets)
    await bench.quiet()
    await see(bench, "105")
    assert bench.book.positions.quantity(BTC) == D("0.9")


@virtual
async def test_no_rest_is_left_that_takes_no_stop(make):
    """What would be left is worth 10.8 at the target, but 9.5 at its stop: no stop is taken for that, so all goes."""
    bench = make(with_least(10), keeper=True)
    targets = (Target(D(108), D("0.9")), Target(D(110), D("0.1")))
    await bench.open("1", take_profit=D(110), targets=targets)
    await bench.quiet()
    await see(bench, "108")
    assert bench.book.positions.quantity(BTC) == 0
    await bench.quiet()
    assert bench.alarms == []


@virtual
async def test_what_can_be_neither_protected_nor_closed_is_told_once(make):
    """However often its stop moves, and with it the least quantity; nothing is sent for it."""
    bench = make(with_least(200), keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    for stop in ("96", "97", "98"):
        bench.recorder.record(
            StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(stop), take_profit=D(110))
        )
        await see(bench, "110")
        await bench.quiet(1)
    assert texts(bench, "NOT_PROTECTING") == [
        f"{BTC} 1: the venue takes no order below 2.11, so the stop at 95 is placed when there is more"
    ]
    assert len(bench.venue.sent) == 1
    assert bench.alarms == ["NOT_PROTECTING"]

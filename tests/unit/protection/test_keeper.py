"""Every filled quantity has a stop of its size, or is flattened, and someone is told. Numbers at the venue decide."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.support.bench import virtual
from tests.support.orders import AT, BTC, changed, report
from tests.support.tickets import INSTRUMENT, entry, reduction
from tests.support.venue import ScriptedVenue, after, never

from execkit.errors import (
    ExchangeUnavailableError,
    InsufficientBalanceError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    QuantityTooLargeError,
    RateLimitError,
)
from execkit.model.denial import DenialCode
from execkit.model.events import ProtectionFailed, ProtectionPlaced
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, OrderType, Side
from execkit.model.records import ExternalChange, StopMoved, SymbolBlocked
from execkit.protection.telling import REMIND_AFTER

D = Decimal
NO = OrderRejectedError("would trigger immediately")


def now():
    return asyncio.get_running_loop().time()


def worst_reduction(bench, side=Side.SELL):
    """Return what could be closed at the venue if everything that rests there were executed."""
    return sum((o.quantity - o.filled for o in bench.venue.open if o.side is side), D(0))


def live_stops(bench):
    """Return (quantity, stop price) of the stops that rest at the venue."""
    return [
        (o.quantity - o.filled, o.stop_price) for o in bench.venue.open if o.type is OrderType.STOP
    ]


def only_stops(venue, step):
    """Have *step* done with stops only; everything else is the venue's own business."""

    def place(request):
        if request.type not in (OrderType.STOP, OrderType.STOP_LIMIT):
            return venue._place(request)
        if isinstance(step, BaseException):
            raise step
        return step(request)

    venue.always("place_order", place)


async def opened(make, quantity="1", venue=None, **options):
    """Return a bench with a long of *quantity* at 100 whose stop is to be at 95."""
    bench = make(venue, keeper=True)
    await bench.open(quantity, **options)
    return bench


# -- the stop ------------------------------------------------------------------------------------------


@virtual
async def test_a_fill_gets_its_stop_at_once(make):
    """C5: of the filled quantity, on the signal's price, reduce-only, bound to the position; and it is announced."""
    bench = await opened(make)
    began = now()
    await bench.quiet(0)
    assert now() == began
    assert live_stops(bench) == [(1, 95)]
    (stop,) = bench.stops
    assert (stop.side, stop.parent, stop.position_id) == (Side.SELL, f"{BTC}#1", f"{BTC}#1")
    assert stop.request.reduce_only
    assert stop.signal_id == "s1"
    await bench.quiet()
    (placed,) = bench.told(ProtectionPlaced)
    assert (placed.symbol, placed.quantity, placed.stop_price, placed.signal_id) == (
        BTC,
        1,
        95,
        "s1",
    )
    assert placed.client_order_id == stop.client_order_id
    assert bench.book.position(BTC).stop_order_id == stop.client_order_id


@virtual
async def test_a_short_gets_its_stop_above(make):
    """The mirror image."""
    bench = make(ScriptedVenue(short_selling=True), keeper=True)
    await bench.open("1", side=Side.SELL, stop_loss=D(105))
    await bench.quiet()
    (stop,) = bench.stops
    assert (stop.side, stop.stop_price, stop.quantity) == (Side.BUY, 105, 1)


@pytest.mark.parametrize(
    "capabilities",
    [{}, {"amend": True}, {"reduce_only": True}, {"amend": True, "reduce_only": True}],
)
@virtual
async def test_each_partial_fill_is_followed(make, capabilities):
    """D3 D10: one stop of the position's size after each, however the venue lets it be changed."""
    bench = make(ScriptedVenue(**capabilities), keeper=True)
    order = (await bench.gateway.send(entry())).order
    key = order.client_order_id
    for part, total in (("0.2", "0.2"), ("0.3", "0.5"), ("0.5", "1")):
        bench.take(bench.venue.fill(key, part))
        await bench.quiet(1)
        assert live_stops(bench) == [(D(total), 95)]
        assert bench.book.positions.quantity(BTC) == D(total)
    stops = bench.orders(OrderRole.STOP)
    if "amend" in capabilities:
        assert len(stops) == 1
        assert bench.venue.calls["amend_order"] == 2
    else:
        assert [s.state for s in stops] == [
            OrderState.CANCELLED,
            OrderState.CANCELLED,
            OrderState.ACCEPTED,
        ]
        asked = [name for name, _ in bench.venue.log]
        new_then_old = ["place", "place", "place", "cancel", "place", "cancel"]
        old_then_new = ["place", "place", "cancel", "place", "cancel", "place"]
        assert asked == (new_then_old if capabilities else old_then_new)
    assert bench.alarms == []


@virtual
async def test_more_is_never_reduced_than_there_is(make):
    """I13: at no moment could what rests close more than the position, through fills, exits and changes."""
    bench = make(keeper=True)
    order = (await bench.gateway.send(entry(quantity="2"))).order
    watched = []

    async def watch():
        while True:
            held = sum(
                (f.quantity if f.side is Side.BUY else -f.quantity) for f in bench.venue.fills
            )
            watched.append((worst_reduction(bench), held))
            await asyncio.sleep(0.01)

    task = asyncio.ensure_future(watch())
    for part in ("0.5", "0.5", "1"):
        bench.take(bench.venue.fill(order.client_order_id, part))
        await asyncio.sleep(0.2)
    async with bench.keeper.exiting(BTC, D("0.7"), Side.SELL):
        await bench.gateway.send(reduction("0.7"))
    await asyncio.sleep(0.5)
    await bench.keeper.flatten(BTC, "test")
    await asyncio.sleep(0.5)
    task.cancel()
    assert bench.book.positions.quantity(BTC) == 0
    assert live_stops(bench) == []
    assert len(watched) > 100
    assert all(worst <= held for worst, held in watched)


@virtual
async def test_a_moved_stop_is_followed(make):
    """The new price rests, the old one is gone."""
    bench = await opened(make)
    await bench.quiet()
    bench.recorder.record(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(97)))
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 97)]


@virtual
async def test_a_stop_that_vanishes_is_restored(make):
    """D9 C10: cancelled by the venue, or by somebody at its desk."""
    bench = await opened(make)
    await bench.quiet()
    (stop,) = bench.stops
    await bench.gateway.absorb(bench.venue.end(stop.client_order_id), "stream")
    await bench.quiet()
    assert live_stops(bench) == [(1, 95)]
    assert len(bench.orders(OrderRole.STOP)) == 2


@virtual
async def test_a_stop_that_is_executed_leaves_nothing(make):
    """The position is closed, and nothing rests."""
    bench = await opened(make)
    await bench.quiet()
    bench.take(bench.venue.fill(bench.stops[0].client_order_id))
    await bench.quiet()
    assert (bench.book.positions.open, bench.venue.open) == ({}, [])
    assert len(bench.venue.sent) == 2


@virtual
async def test_orphans_are_cancelled(make):
    """D15: a stop that outlives its position would open another one."""
    bench = await opened(make)
    await bench.quiet()
    bench.recorder.record(
        ExternalChange(symbol=BTC, quantity=D(-1), price=D(100), reason="closed by hand")
    )
    await bench.quiet()
    assert bench.venue.open == []
    assert bench.stops == []


@virtual
async def test_a_position_from_outside_is_left_alone(make):
    """It has no stop price of ours."""
    bench = make(keeper=True)
    await bench.open_position_by_outside()
    await bench.quiet(1)
    assert bench.venue.sent == []


@virtual
async def test_a_rest_too_small_for_the_venue_is_left(make):
    """D5: dust has no stop, and no loop."""
    bench = await opened(make, "1")
    await bench.quiet()
    bench.take(bench.venue.fill(bench.stops[0].client_order_id, "0.99"))
    await bench.quiet(10)
    assert bench.book.positions.quantity(BTC) == D("0.01")
    assert len(bench.venue.sent) == 2
    assert await bench.keeper.flatten(BTC, "test"), "nothing that could be closed is left"
    assert (bench.alarms, bench.book.blocked) == ([], {})


@virtual
async def test_after_a_restart_protection_comes_first(make):
    """G7 D12: a fill whose stop was never sent is protected by the first pass; one that rests is kept."""
    bench = await opened(make)
    again = await bench.restart()
    assert live_stops(again) == []
    await again.reconciler.start()
    await again.quiet()
    assert live_stops(again) == [(1, 95)]
    third = await again.restart()
    await third.reconciler.start()
    await third.quiet()
    assert live_stops(third) == [(1, 95)]
    assert len(third.venue.sent) == 2


# -- refused stops -------------------------------------------------------------------------------------


@virtual
async def test_a_refused_stop_is_tried_again(make):
    """D1: bounded, with growing waits, each with an id and terms of its own: a tick further away, then a stop-limit."""
    bench = make(keeper=True)
    bench.venue.script("place_order", bench.venue._place, NO, NO)
    await bench.open()
    await bench.quiet(2)
    (rests,) = [o for o in bench.venue.open if o.side is Side.SELL]
    tried = [(s.type, s.stop_price, s.limit_price) for s in bench.orders(OrderRole.STOP)]
    assert tried == [
        (OrderType.STOP, 95, None),
        (OrderType.STOP, D("94.9"), None),
        (OrderType.STOP_LIMIT, D("94.8"), D("93.8")),
    ]
    assert (rests.type, rests.quantity) == (OrderType.STOP_LIMIT, 1)
    assert [s.revision for s in bench.orders(OrderRole.STOP)] == [0, 1, 2]
    assert len(set(bench.venue.sent)) == 4
    assert bench.alarms == []
    assert bench.keeper.placer.failures(BTC) == 0
    assert bench.keeper._naked_since == {}
    moved = [(r.stop_loss, r.reason) for r in bench.journal.records(StopMoved)]
    assert moved == [
        (D("94.9"), "the venue has refused a stop at 95"),
        (D("94.8"), "the venue has refused a stop at 94.9"),
    ]


@virtual
async def test_who_can_be_neither_protected_nor_closed_is_told_of_again(make):
    """Not at each of the tries, whose pauses grow to half a minute, but for as long as the position is open."""
    bench = make(keeper=True)
    await bench.open()

    def place(request):
        raise NO

    bench.venue.always("place_order", place)
    await asyncio.sleep(300)
    assert bench.book.positions.quantity(BTC) == 1
    told = bench.alarms.count("UNPROTECTED")
    assert 300 / 60 - 1 <= told <= 300 / REMIND_AFTER + 1
    assert len(bench.orders(OrderRole.FLATTEN)) > told


@virtual
async def test_a_stop_that_cannot_be_placed_flattens(make):
    """I12: after three tries the position is closed, someone is told, and an event says so."""
    bench = make(keeper=True)
    only_stops(bench.venue, NO)
    began = now()
    await bench.open()
    while bench.book.positions.quantity(BTC):
        await asyncio.sleep(0.01)
    assert now() - began < 5
    assert [s.state for s in bench.orders(OrderRole.STOP)] == [OrderState.REJECTED] * 3
    (flat,) = bench.orders(OrderRole.FLATTEN)
    assert (flat.state, flat.quantity, flat.side) == (OrderState.FILLED, 1, Side.SELL)
    await bench.quiet()
    assert bench.alarms == ["UNPROTECTED"]
    assert bench.book.alarms[0].text == (f"{BTC} 1: it could not be protected in time; flattening")
    (event,) = bench.told(ProtectionFailed)
    assert (event.symbol, event.signal_id) == (BTC, "s1")
    assert event.reason == "it could not be protected in time"
    assert bench.book.blocked == {BTC: "the venue takes no stop for it"}
    assert bench.venue.open == []


@virtual
async def test_an_unsent_stop_is_closed_before_the_next(make):
    """A NEW order would claim the position for ever."""
    bench = make(keeper=True)
    bench.venue.script("place_order", bench.venue._place, NotSentError("no route"))
    await bench.open()
    await bench.quiet(2)
    first, second = bench.orders(OrderRole.STOP)
    assert (first.state, first.reason) == (OrderState.FAILED, "not sent; a new stop follows")
    assert second.state is OrderState.ACCEPTED


@virtual
async def test_the_price_beyond_the_stop_flattens_at_once(make):
    """The venue would refuse the stop, and every second costs."""
    bench = make(keeper=True)
    bench.book.marks[BTC] = D(94)
    await bench.open()
    await bench.quiet()
    assert bench.orders(OrderRole.STOP) == []
    (flat,) = bench.orders(OrderRole.FLATTEN)
    assert flat.state is OrderState.FILLED
    assert bench.book.alarms[0].text == (f"{BTC} 1: the price 94 is beyond the stop 95; flattening")


@virtual
async def test_a_position_that_cannot_be_closed_is_blocked_and_tried_on(make):
    """D14: no entry for the symbol, and tries until one succeeds, soon after the venue takes orders again."""
    bench = make(keeper=True)
    bench.venue.script("place_order", bench.venue._place)
    bench.venue.always("place_order", NO)
    await bench.open()
    await bench.quiet(60)
    assert list(bench.book.blocked) == [BTC]
    assert bench.book.blocked[BTC] == "the venue takes no stop for it"
    assert len(bench.journal.records(SymbolBlocked)) == 1
    tries = len(bench.orders(OrderRole.FLATTEN))
    assert 14 <= tries <= 16, "after 1 s and 2 s, then every 4 s"
    assert bench.told(ProtectionFailed)
    bench.venue.always("place_order")
    await bench.quiet(4.1)
    assert bench.book.positions.quantity(BTC) == 0
    assert list(bench.book.blocked) == [BTC], "a person releases it"


@virtual
async def test_an_unsent_flatten_is_tried_again(make):
    """It is closed as never sent, and the next one has an id of its own."""
    bench = make(keeper=True)
    bench.book.marks[BTC] = D(94)
    bench.venue.script("place_order", bench.venue._place, NotSentError("no route"))
    await bench.open()
    await bench.quiet(2)
    first, second = bench.orders(OrderRole.FLATTEN)
    assert (first.state, first.reason) == (OrderState.FAILED, "not sent; tried again")
    assert second.state is OrderState.FILLED


# -- doubt ---------------------------------------------------------------------------------------------


@virtual
async def test_a_stop_in_doubt_is_waited_for(make):
    """D2: found within its time, it is the stop; no second one is sent."""
    bench = make(keeper=True)
    bench.venue.always("get_order", ExchangeUnavailableError("503"))
    bench.venue.always("open_orders", ExchangeUnavailableError("503"))

    def place(request):
        bench.venue.accept(request)
        raise ConnectionResetError

    bench.venue.script("place_order", bench.venue._place, place)
    await bench.open()
    await bench.quiet(3)
    assert bench.order().state is OrderState.IN_DOUBT
    bench.venue.always("get_order")
    await bench.quiet(3)
    assert live_stops(bench) == [(1, 95)]
    assert len(bench.venue.sent) == 2
    assert bench.alarms == ["IN_DOUBT"]
    assert bench.keeper._naked_since == {}


@virtual
async def test_a_stop_that_never_arrived_goes_out_again(make):
    """Proven absent in time: the same stop, under the same id."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=1)), keeper=True)
    bench.venue.script("place_order", bench.venue._place, ConnectionResetError())
    await bench.open()
    await bench.quiet(4)
    assert live_stops(bench) == [(1, 95)]
    assert len(bench.orders(OrderRole.STOP)) == 1
    assert bench.venue.sent[1] == bench.venue.sent[2]


@virtual
async def test_a_stop_in_doubt_for_too_long_flattens(make):
    """D2: after five seconds it is cancelled by id, and the position is closed, capped to what is held."""
    bench = make(keeper=True)
    bench.venue.script("place_order", bench.venue._place, ConnectionResetError())
    bench.venue.always("get_order", ExchangeUnavailableError("503"))
    began = now()
    await bench.open()
    while not bench.orders(OrderRole.FLATTEN):
        await asyncio.sleep(0.01)
    assert 5 <= now() - began < 15
    await bench.quiet()
    assert bench.book.positions.quantity(BTC) == 0
    assert bench.venue.calls["cancel_order"] >= 1
    assert "UNPROTECTED" in bench.alarms
    assert bench.book.blocked == {BTC: "it could not be protected in time"}, "a person releases it"
    denied = (await bench.gateway.send(entry("s2"))).denial
    assert denied.code is DenialCode.SYMBOL_BLOCKED


@virtual
async def test_where_the_venue_lets_positions_turn_a_stop_in_doubt_blocks_the_exit(make):
    """I13: on a margin venue without reduce-only the two could both execute; so it waits for proof."""
    bench = make(ScriptedVenue(short_selling=True), keeper=True)

    def place(request):
        bench.venue.accept(request)
        raise ConnectionResetError

    bench.venue.script("place_order", bench.venue._place, place)
    blind = ExchangeUnavailableError("503")
    for method in ("get_order", "open_orders", "fills_since", "cancel_order"):
        bench.venue.always(method, blind)
    await bench.open()
    await bench.quiet(20)
    assert bench.orders(OrderRole.FLATTEN) == []
    assert bench.book.blocked
    assert worst_reduction(bench) == 1
    for method in ("get_order", "open_orders", "fills_since", "cancel_order"):
        bench.venue.always(method)
    await bench.quiet(60)
    assert worst_reduction(bench) <= bench.book.positions.quantity(BTC)
    assert bench.book.positions.quantity(BTC) in (0, 1)


@virtual
async def test_a_new_stop_in_doubt_does_not_cost_the_old_one(make):
    """D16: new-then-old; until the new one is known to rest, the old one is all there is."""
    bench = make(ScriptedVenue(reduce_only=True), keeper=True)
    order = (await bench.gateway.send(entry())).order
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet()
    bench.venue.script("place_order", ConnectionResetError())
    bench.venue.always("get_order", ExchangeUnavailableError("503"))
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet(2)
    assert live_stops(bench) == [(D("0.5"), 95)]
    assert bench.venue.calls["cancel_order"] == 0
    bench.venue.always("get_order")
    await bench.quiet(10)
    assert bench.book.positions.quantity(BTC) == 0 or live_stops(bench) == [(1, 95)]


@virtual
async def test_an_amendment_in_doubt_is_proven_first(make):
    """C6 C7: no second stop beside one that may have grown."""
    bench = make(ScriptedVenue(amend=True, reduce_only=True), keeper=True)
    order = (await bench.gateway.send(entry())).order
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet()

    def amend(key, **changes):
        bench.venue.amend(key, **changes)
        raise TimeoutError

    bench.venue.script("amend_order", amend)
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet(2)
    assert live_stops(bench) == [(1, 95)]
    assert len(bench.orders(OrderRole.STOP)) == 1


@virtual
async def test_a_refused_amendment_falls_back_to_a_new_stop(make):
    """The position is covered all the same."""
    bench = make(ScriptedVenue(amend=True), keeper=True)
    order = (await bench.gateway.send(entry())).order
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet()
    bench.venue.always("amend_order", OrderRejectedError("no"))
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 95)]
    assert len(bench.orders(OrderRole.STOP)) == 2


@virtual
async def test_a_stop_executed_while_it_is_amended_is_planned_anew(make):
    """What is left is covered by a new one."""
    bench = make(ScriptedVenue(amend=True), keeper=True)
    order = (await bench.gateway.send(entry())).order
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet()

    def amend(key, **_changes):
        bench.take(bench.venue.fill(key))
        raise OrderRejectedError("not open")

    bench.venue.script("amend_order", amend)
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet(1)
    assert bench.book.positions.quantity(BTC) == D("0.5")
    assert live_stops(bench) == [(D("0.5"), 95)]


@virtual
async def test_a_cancel_that_is_refused_is_asked_until_the_stop_has_the_right_size(make):
    """C8: rate-limited again and again; in the end there is one stop of the right size, or none and no position."""
    bench = await opened(make, "1")
    await bench.quiet()
    bench.venue.always("cancel_order", RateLimitError("slow"))
    bench.recorder.record(
        ExternalChange(symbol=BTC, quantity=D("-0.4"), price=D(100), reason="by hand")
    )
    bench.venue.held = D("-0.4")
    await bench.quiet(3)
    assert live_stops(bench) == [(1, 95)]
    bench.venue.always("cancel_order")
    await bench.quiet(20)
    held = bench.book.positions.quantity(BTC)
    assert (held == 0 and not live_stops(bench)) or live_stops(bench) == [(D("0.6"), 95)]


@virtual
async def test_a_cancel_that_is_refused_for_long_blocks_the_symbol(make):
    """On a margin venue nothing else may leave while the old stop rests; it is cancelled as soon as that works."""
    bench = await opened(make, "1", ScriptedVenue(short_selling=True))
    await bench.quiet()
    bench.venue.always("cancel_order", RateLimitError("slow"))
    bench.venue.held = D("-0.4")
    bench.recorder.record(
        ExternalChange(symbol=BTC, quantity=D("-0.4"), price=D(100), reason="by hand")
    )
    await bench.quiet(20)
    assert live_stops(bench) == [(1, 95)]
    assert bench.orders(OrderRole.FLATTEN) == []
    assert list(bench.book.blocked) == [BTC]
    bench.venue.always("cancel_order")
    await bench.quiet(40)
    held = bench.book.positions.quantity(BTC)
    assert worst_reduction(bench) == held, "covered by a stop of its size, or closed"


@virtual
async def test_what_comes_while_the_last_records_commit_is_looked_at(make):
    """No news is lost between the end of one check and the start of the next."""
    bench = await opened(make)
    await bench.quiet()
    bench.journal.on_commit = lambda: asyncio.sleep(1)
    bench.keeper.check(BTC)
    await asyncio.sleep(0.5)
    bench.recorder.record(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(97)))
    bench.journal.on_commit = None
    await bench.quiet(2)
    assert live_stops(bench) == [(1, 97)]


# -- exits ---------------------------------------------------------------------------------------------


@virtual
async def test_an_exit_makes_room_first(make):
    """D11: the stop is cancelled and proven gone before the exit leaves; what remains is covered again."""
    bench = await opened(make, "1")
    await bench.quiet()
    async with bench.keeper.exiting(BTC, D("0.4"), Side.SELL):
        assert bench.venue.open == []
        bench.recorder.record(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(96)))
        await bench.quiet(1)
        assert bench.venue.open == [], "the keeper leaves the symbol alone meanwhile"
        sent = await bench.gateway.send(reduction("0.4"))
        assert sent.order.state is OrderState.FILLED
    await bench.quiet()
    assert live_stops(bench) == [(D("0.6"), 96)]


@virtual
async def test_an_exit_that_fits_beside_the_stop_leaves_it(make):
    """Room is made only where it is needed."""
    bench = await opened(make, "1", stop_loss=None)
    bench.recorder.record(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(95)))
    await bench.quiet()
    (stop,) = bench.stops
    bench.take(bench.venue.fill(stop.client_order_id, "0.6"))
    order = (await bench.gateway.send(entry("s2", quantity="1"))).order
    async with bench.keeper.exiting(BTC, D("0.4"), Side.BUY):
        assert stop.state is OrderState.PARTIALLY_FILLED
    assert order.state is OrderState.ACCEPTED


@virtual
async def test_whatever_ends_an_exit_the_position_is_covered_again(make):
    """An error or a cancellation inside: the stop comes back."""
    bench = await opened(make, "1")
    await bench.quiet()
    with pytest.raises(ValueError, match="inside"):
        async with bench.keeper.exiting(BTC, D(1), Side.SELL):
            raise ValueError("inside")
    await bench.quiet()
    assert live_stops(bench) == [(1, 95)]

    async def exit_slowly():
        async with bench.keeper.exiting(BTC, D(1), Side.SELL):
            await asyncio.sleep(10)

    task = asyncio.ensure_future(exit_slowly())
    await asyncio.sleep(1)
    assert live_stops(bench) == []
    task.cancel()
    await bench.quiet()
    assert live_stops(bench) == [(1, 95)]


@virtual
async def test_a_stop_that_fills_while_it_makes_room_leaves_nothing_to_close(make):
    """C1: the exit then finds no position, and is denied."""
    bench = await opened(make, "1")
    await bench.quiet()

    def cancel(key):
        bench.venue.fill(key)
        raise OrderNotFoundError(key)

    bench.venue.script("cancel_order", cancel)
    async with bench.keeper.exiting(BTC, D(1), Side.SELL):
        sent = await bench.gateway.send(reduction("1"))
    assert sent.order is None
    assert bench.book.positions.quantity(BTC) == 0
    assert len(bench.venue.fills) == 2


def sells_at_most(venue, most, error):
    """Have the venue refuse every sale at the market of more than *most*."""

    def place(request):
        if request.type is OrderType.MARKET and request.quantity > most:
            raise error
        return venue._place(request)

    venue.always("place_order", place)


@pytest.mark.parametrize(
    ("error", "free", "sold"),
    [
        (InsufficientBalanceError("no", available=D("0.927")), None, ["1", "0.92"]),
        (InsufficientBalanceError("no"), D("0.927"), ["1", "0.92"]),
        (QuantityTooLargeError("no", allowed=D("0.927")), None, ["1", "0.92", "0.08"]),
        (QuantityTooLargeError("no"), None, ["1", "0.5", "0.5"]),
    ],
    ids=["stated", "asked", "too large", "too large, not stated"],
)
@virtual
async def test_what_the_venue_would_take_is_closed(make, error, free, sold):
    """A17: a refused exit is not repeated unchanged; a person is told of the rest that the venue does not have."""
    bench = await opened(make)
    most = D(sold[1])
    sells_at_most(bench.venue, most, error)
    if free is not None:
        bench.venue.cash = {"BTC": free, "USDT": D(0)}
    assert await bench.keeper.flatten(BTC, "by hand")
    tried = [o.quantity for o in bench.orders(OrderRole.FLATTEN)[:2]]
    assert tried == [D(each) for each in sold[:2]]
    short = [each.text for each in bench.book.alarms if each.code == "CLOSED_IN_PART"]
    if len(sold) == 2:
        assert short == [f"{BTC}: the venue takes 0.92 of 1 to close; 0.08 stay open"]
    else:
        assert short == []
        await bench.quiet()
        assert await bench.keeper.flatten(BTC, "by hand")
        assert [o.quantity for o in bench.orders(OrderRole.FLATTEN)] == [D(each) for each in sold]


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (InsufficientBalanceError("no", available=D("0.019")), None),
        (InsufficientBalanceError("no", available=D(0)), None),
        (InsufficientBalanceError("no"), ExchangeUnavailableError("503")),
        (InsufficientBalanceError("no"), {}),
        (InsufficientBalanceError("no"), "no table"),
        (InsufficientBalanceError("no"), {"BTC": None}),
        (OrderRejectedError("no"), None),
    ],
    ids=[
        "below the minimum",
        "nothing",
        "not known",
        "not held",
        "no answer",
        "no balance",
        "another reason",
    ],
)
@virtual
async def test_an_exit_of_which_nothing_passes_is_tried_later(make, error, free):
    """One refusal, and the same again after a pause: the venue may have another answer then."""
    bench = await opened(make)
    sells_at_most(bench.venue, D(0), error)
    if free is not None:
        bench.venue.always("balances", free if isinstance(free, Exception) else lambda: free)
    assert not await bench.keeper.flatten(BTC, "by hand")
    assert [o.quantity for o in bench.orders(OrderRole.FLATTEN)] == [1]
    assert "CLOSED_IN_PART" not in bench.alarms


@virtual
async def test_flatten_closes_at_the_market(make):
    """The stop goes, the position goes, nothing rests; a flat symbol has nothing to do."""
    bench = await opened(make, "1")
    await bench.quiet()
    assert await bench.keeper.flatten(BTC, "by hand")
    await bench.quiet()
    assert (bench.book.positions.open, bench.venue.open, bench.alarms) == ({}, [], [])
    assert [name for name, _ in bench.venue.log[-2:]] == ["cancel", "place"]
    assert await bench.keeper.flatten(BTC, "by hand")
    assert len(bench.orders(OrderRole.FLATTEN)) == 1


@virtual
async def test_a_stuck_stop_stays_where_the_venue_keeps_positions_from_turning(make):
    """On spot the sale is refused while the stop holds the coins: it is tried until the stop is gone."""
    bench = await opened(make, "1")
    await bench.quiet()
    bench.venue.always("cancel_order", TimeoutError())
    bench.venue.script("place_order", NO)
    assert not await bench.keeper.flatten(BTC, "by hand")
    assert bench.orders(OrderRole.FLATTEN)[0].state is OrderState.REJECTED
    assert list(bench.book.blocked) == [BTC]
    bench.venue.always("cancel_order")
    await bench.quiet(30)
    assert bench.book.positions.quantity(BTC) == 0 or live_stops(bench) == [(1, 95)]


# -- targets -------------------------------------------------------------------------------------------


def quote(bid, ask=None):
    return Quote(BTC, D(bid), D(ask or bid), AT)


@virtual
async def test_a_touched_target_closes_the_position(make):
    """The stop is cancelled, proven gone, and the whole position closed, once."""
    bench = await opened(make, "1", take_profit=D(110))
    await bench.quiet()
    bench.keeper.on_quote(quote("109.9"))
    await bench.quiet()
    assert bench.orders(OrderRole.TARGET) == []
    for _ in range(3):
        bench.keeper.on_quote(quote("110"))
    await bench.keeper.idle()
    (target,) = bench.orders(OrderRole.TARGET)
    assert (target.state, target.quantity) == (OrderState.FILLED, 1)
    assert bench.venue.open == []
    bench.keeper.on_quote(quote("120"))
    await bench.quiet()
    assert len(bench.orders(OrderRole.TARGET)) == 1


@virtual
async def test_a_bar_that_touches_the_target_closes_too(make):
    """By its high for a long, by its low for a short; a symbol without a position has no target."""
    bench = await opened(make, "1", take_profit=D(110))
    await bench.quiet()
    await bench.keeper.on_price(BTC, D(100), D("109.9"))
    assert bench.book.positions.quantity(BTC) == 1
    await bench.keeper.on_price(BTC, D(100), D(111))
    assert bench.book.positions.quantity(BTC) == 0
    await bench.keeper.on_price(BTC, D(100), D(111))
    bench.keeper.on_quote(quote("111"))
    assert len(bench.orders(OrderRole.TARGET)) == 1


@virtual
async def test_a_bar_that_began_before_the_position_counts_by_its_close_only(make):
    """Its high may be from before the entry: no target was reached then; its close was."""
    bench = await opened(make, "1", take_profit=D(110))
    await bench.quiet()
    began = bench.book.position(BTC).opened_at
    before = began - timedelta(seconds=1)
    await bench.keeper.on_price(BTC, D(90), D(111), D(100), since=before)
    assert bench.orders(OrderRole.TARGET) == []
    await bench.keeper.on_price(BTC, D(90), D(111), D(110), since=before)
    assert bench.book.positions.quantity(BTC) == 0
    other = await opened(make, "1", take_profit=D(110))
    await other.quiet()
    await other.keeper.on_price(
        BTC, D(100), D(111), D(100), since=other.book.position(BTC).opened_at
    )
    assert other.book.positions.quantity(BTC) == 0


@virtual
async def test_a_short_takes_its_profit_at_the_ask(make):
    """What it would have to pay."""
    bench = make(ScriptedVenue(short_selling=True), keeper=True)
    await bench.open("1", side=Side.SELL, stop_loss=D(105), take_profit=D(90))
    await bench.quiet()
    bench.keeper.on_quote(quote("89", "91"))
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == -1
    bench.keeper.on_quote(quote("89", "90"))
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 0


@virtual
async def test_a_position_that_is_being_closed_needs_no_target(make):
    """One exit is enough: neither beside a live one, nor after one that came first."""
    bench = await opened(make, "1", take_profit=D(110))
    await bench.quiet()
    async with bench.keeper.exiting(BTC, D(1), Side.SELL):
        bench.venue.script("place_order", bench.venue.accept)
        sent = await bench.gateway.send(reduction("1"))
        assert sent.order.state is OrderState.ACCEPTED
    await bench.keeper.on_price(BTC, D(100), D(111))
    assert bench.orders(OrderRole.TARGET) == []
    other = await opened(make, "1", take_profit=D(110))
    await other.quiet()
    async with other.keeper.exiting(BTC, D(1), Side.SELL):
        task = asyncio.ensure_future(other.keeper.on_price(BTC, D(100), D(111)))
        await other.quiet()
        await other.gateway.send(reduction("1"))
    await task
    assert other.book.positions.quantity(BTC) == 0
    assert other.orders(OrderRole.TARGET) == []


@virtual
async def test_a_target_that_cannot_be_closed_leaves_the_stop(make):
    """The venue refuses: the position is covered again, and a touch after a pause tries anew."""
    bench = await opened(make, "1", take_profit=D(110))
    await bench.quiet()
    bench.venue.script("place_order", NO)
    bench.keeper.on_quote(quote("110"))
    await bench.keeper.idle()
    assert live_stops(bench) == [(1, 95)]
    await bench.quiet(5)
    bench.keeper.on_quote(quote("110"))
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 0


# -- the keeper itself ---------------------------------------------------------------------------------


@virtual
async def test_a_failure_of_the_keeper_is_told_and_tried_again(make):
    """E17: the rules of the symbol cannot be read at the moment of the fill; a second later they can."""
    bench = make(keeper=True)
    bench.venue.script("instrument", ExchangeUnavailableError("503"))
    await bench.open()
    await bench.quiet(0.5)
    assert bench.alarms == ["KEEPER_FAILED"]
    assert live_stops(bench) == []
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 95)]
    bench.venue.always("instrument", ExchangeUnavailableError("503"))
    bench.recorder.record(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(96)))
    await bench.quiet(120)
    assert 7 <= bench.alarms.count("KEEPER_FAILED") <= 10, "with growing waits"


@virtual
async def test_a_failure_at_the_target_is_told(make):
    """The position stays as it was, and protected."""
    bench = await opened(make, "1", take_profit=D(110))
    await bench.quiet()
    bench.venue.script("instrument", ExchangeUnavailableError("503"))
    bench.keeper.on_quote(quote("110"))
    await bench.quiet(2)
    assert bench.alarms == ["KEEPER_FAILED"]
    assert live_stops(bench) == [(1, 95)]


@virtual
async def test_the_plan_is_made_of_what_is_now(make):
    """While the rules are fetched the position changes: the stop has the size of the position as it is."""
    bench = make(keeper=True)
    order = (await bench.gateway.send(entry())).order

    async def slow_rules(_symbol):
        bench.take(bench.venue.fill(order.client_order_id, "0.6"))
        return INSTRUMENT

    bench.venue.script("instrument", slow_rules)
    bench.take(bench.venue.fill(order.client_order_id, "0.4"))
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 95)]
    assert len(bench.venue.sent) == 2


@virtual
async def test_a_position_that_closes_while_the_rules_are_fetched_needs_nothing(make):
    """Flat by then: no stop, no failure."""
    bench = make(keeper=True)

    async def slow_rules(_symbol):
        bench.recorder.record(
            ExternalChange(symbol=BTC, quantity=D(-1), price=D(100), reason="by hand")
        )
        return INSTRUMENT

    bench.venue.script("instrument", slow_rules)
    await bench.open()
    await bench.quiet(5)
    assert (len(bench.venue.sent), bench.alarms) == (1, [])


@virtual
async def test_what_never_settles_is_told(make):
    """A venue that answers a new stop with another price than asked for, for ever, cannot make us loop for ever."""
    bench = make(ScriptedVenue(amend=True), keeper=True)
    await bench.open()
    await bench.quiet()
    count = 0

    def move():
        nonlocal count
        count += 1
        moved = StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(95) - D(count) / 10)
        bench.book.positions.set_levels(moved, AT)
        return True

    async def amend(*_args, **_kwargs):
        return move()

    bench.gateway.amend = amend
    move()
    bench.keeper.check(BTC)
    await bench.quiet(0.5)
    assert bench.alarms == ["KEEPER_LOOP"]
    assert count == 101


@virtual
async def test_a_process_that_was_replaced_protects_nothing(make):
    """I26: the other one does."""
    bench = make(keeper=True)
    order = (await bench.gateway.send(entry())).order
    bench.journal.is_current = False
    bench.take(bench.venue.fill(order.client_order_id))
    await bench.quiet(30)
    assert (len(bench.venue.sent), bench.alarms) == (1, [])


@virtual
async def test_the_stop_leaves_when_the_journal_cannot_commit(make):
    """G11: after its emergency record; the failing commit is not a failure of the keeper."""
    bench = make(keeper=True)
    order = (await bench.gateway.send(entry())).order
    bench.journal.fails = True
    bench.take(bench.venue.fill(order.client_order_id))
    await bench.quiet(1)
    assert live_stops(bench) == [(1, 95)]
    assert len(bench.journal.emergencies) == 1
    assert bench.alarms == []


@virtual
async def test_symbols_do_not_wait_for_each_other(make):
    """One hanging venue call does not keep another symbol naked."""
    bench = make(keeper=True)
    bench.venue.script("instrument", never)
    bench.keeper.check("ETH/USDT")
    bench.recorder.record(ExternalChange(symbol="ETH/USDT", quantity=D(1), price=D(1), reason="x"))
    await bench.quiet()
    await bench.open()
    await bench.quiet()
    assert live_stops(bench) == [(1, 95)]


@virtual
async def test_after_stop_the_keeper_does_nothing(make):
    """Tasks end; records, prices and timers that come later move nothing."""
    bench = await opened(make, "1", take_profit=D(110))
    bench.venue.script("place_order", after(10, bench.venue._place))
    await bench.quiet(1)
    await bench.keeper.stop()
    bench.keeper.check(BTC)
    bench.keeper._check_later(BTC)
    bench.keeper.on_quote(quote("110"))
    await bench.quiet(30)
    assert bench.orders(OrderRole.TARGET) == []
    assert len(bench.venue.sent) == 2
    (stop,) = bench.orders(OrderRole.STOP)
    assert "lose" in bench.changes(stop)


@virtual
async def test_news_of_entries_and_of_open_stops_start_nothing(make):
    """Only what changes a position or ends a reduction is looked at."""
    bench = make(keeper=True)
    order = (await bench.gateway.send(entry())).order
    bench.recorder.record(changed("accept", order.client_order_id))
    await bench.gateway.absorb(bench.venue.end(order.client_order_id), "stream")
    assert bench.keeper._tasks == {}
    assert report(order).quantity == 1


# -- accepted is not kept ------------------------------------------------------------------------------


def taken_and_refused(bench, after_seconds):
    """Have every stop taken, and refused a little later without a word."""

    def place(request):
        answer = bench.venue._place(request)

        def think_better_of_it():
            key = request.client_order_id
            bench.venue.orders[key] = replace(
                bench.venue.orders[key], status=OrderState.REJECTED, reason="refused after all"
            )

        asyncio.get_running_loop().call_later(after_seconds, think_better_of_it)
        return answer

    only_stops(bench.venue, place)


@virtual
async def test_stops_that_are_refused_after_they_were_taken_end_in_flattening(make):
    """A20 without a stream: each is looked at soon, and the third time the position is closed."""
    bench = make(keeper=True)
    bench.reconciler.stream_is_open = False
    taken_and_refused(bench, 0.5)
    await bench.open("1")
    await bench.quiet(15)
    assert bench.book.positions.quantity(BTC) == 0
    stops = [o for o in bench.book.orders.revisions(f"{BTC}#1") if o.role is OrderRole.STOP]
    assert [stop.state for stop in stops] == [OrderState.REJECTED] * 3
    assert "UNPROTECTED" in bench.alarms


@virtual
async def test_a_stop_that_is_refused_after_a_while_is_simply_placed_again(make):
    """The venue ended what had rested: that is no sign that it takes none."""
    bench = make(keeper=True)
    taken_and_refused(bench, 100)
    await bench.open("1")
    for _ in range(5):
        await bench.quiet(110)
        await bench.reconciler.run()
        await bench.quiet(1)
        assert len(live_stops(bench)) == 1
    assert bench.book.positions.quantity(BTC) == 1


@virtual
async def test_a_cancel_under_way_is_not_asked_for_again_and_again(make):
    """C2: the resolver asks what became of it; only after a long silence is it sent once more without knowing."""
    bench = await opened(make, "1")
    await bench.quiet(2)
    for query in ("get_order", "open_orders", "fills_since"):
        bench.venue.always(query, ExchangeUnavailableError("503"))
    bench.venue.always("cancel_order", ConnectionError("reset by peer"))
    bench.recorder.record(
        ExternalChange(symbol=BTC, quantity=D(-1), price=D(100), reason="sold by hand")
    )
    await bench.quiet(14)
    assert bench.venue.calls["cancel_order"] == 1
    await bench.quiet(60)
    assert 4 <= bench.venue.calls["cancel_order"] <= 6
    for query in ("get_order", "open_orders", "fills_since", "cancel_order"):
        bench.venue.always(query)
    await bench.quiet(60)
    assert live_stops(bench) == []


@virtual
async def test_a_covered_position_is_not_closed_for_an_old_stop_in_doubt(make):
    """D1: the new stop rests, and nobody shows what became of the old one's cancel: no reason to sell."""
    bench = make(ScriptedVenue(reduce_only=True, amend=False), keeper=True)
    await bench.open("1")
    await bench.quiet()
    bench.venue.always("cancel_order", ExchangeUnavailableError("blind"))
    bench.venue.always("get_order", ExchangeUnavailableError("blind"))
    bench.recorder.record(
        StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(96), take_profit=None)
    )
    await bench.quiet(60)
    assert bench.orders(OrderRole.FLATTEN) == []
    assert "UNPROTECTED" not in bench.alarms
    assert sorted(o.stop_price for o in bench.venue.open) == [95, 96]
    bench.venue.always("cancel_order")
    bench.venue.always("get_order")
    await bench.quiet(60)
    assert [o.stop_price for o in bench.venue.open] == [96]


@virtual
async def test_a_turned_position_gets_its_stop_although_the_old_one_is_in_doubt(make):
    """I12: what is asked to go, and does not show, leaves the new position naked no longer than its own stop takes."""
    bench = make(keeper=True)
    await bench.open("1")
    await bench.quiet()
    bench.venue.always("cancel_order", ExchangeUnavailableError("blind"))
    bench.venue.always("get_order", ExchangeUnavailableError("blind"))
    await bench.open_position_by_outside("-1")
    await bench.quiet(5)
    sent = await bench.gateway.send(
        entry("s2", quantity="1", limit="100", side=Side.SELL, stop_loss=D(105))
    )
    bench.take(bench.venue.fill(sent.order.client_order_id, at=bench.clock.now()))
    await bench.quiet(5)
    stops = [(o.side, o.stop_price) for o in bench.venue.open if o.stop_price]
    assert (Side.BUY, 105) in stops

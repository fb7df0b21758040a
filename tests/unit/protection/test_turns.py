"""When the keeper acts: at once where the venue shows that it answers, and as soon as it has taken an exit."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest
from msgspec.structs import replace
from tests.support.bench import virtual
from tests.support.orders import BTC
from tests.support.tickets import INSTRUMENT, entry, reduction
from tests.support.venue import ScriptedVenue, after, never

from execkit.errors import InsufficientBalanceError, OrderRejectedError
from execkit.model.market import Quote
from execkit.model.order import ListKind, OrderRole, OrderState, OrderType, Side
from execkit.model.records import Alarm, ExternalChange

D = Decimal
NO = OrderRejectedError("no market orders now")


def stops(bench):
    """Return (quantity left, stop price) of the stops that rest at the venue."""
    return [
        (o.quantity - o.filled, o.stop_price) for o in bench.venue.open if o.type is OrderType.STOP
    ]


async def refused(make):
    """Return a bench whose position can be neither protected nor closed, in the pause after a try."""
    bench = make(keeper=True)
    bench.venue.script("place_order", bench.venue._place)
    bench.venue.always("place_order", NO)
    await bench.open()
    await bench.quiet(20)
    while bench.keeper._not_before[BTC] - asyncio.get_running_loop().time() < 3:
        await bench.quiet(0.1)
    bench.venue.always("place_order")
    return bench


def elsewhere(bench):
    """Return an exit from a position in another symbol."""
    rules = attrs.evolve(INSTRUMENT, symbol="ETH/USDT")
    bench.recorder.record(
        ExternalChange(symbol="ETH/USDT", quantity=D(2), price=D(100), reason="by hand")
    )
    return reduction("1", instrument=rules)


# -- pauses --------------------------------------------------------------------------------------------


@virtual
async def test_an_order_that_the_venue_takes_ends_the_pause(make):
    """I12: another order's acknowledgement proves that it takes orders again."""
    bench = await refused(make)
    sent = await bench.gateway.send(elsewhere(bench))
    assert sent.order.venue_order_id
    await bench.quiet(0.1)
    assert bench.orders(OrderRole.FLATTEN)[-1].state is OrderState.FILLED
    assert bench.book.position(BTC) is None


@virtual
async def test_the_first_comparison_after_a_failure_ends_the_pause(make):
    """So does the pass after a reconnect of the stream, or after one that failed; every other says nothing new."""
    bench = await refused(make)
    tries = len(bench.orders(OrderRole.FLATTEN))
    await bench.reconciler.run()
    await bench.quiet(0.1)
    assert len(bench.orders(OrderRole.FLATTEN)) == tries
    bench.reconciler.is_blind = True
    await bench.reconciler.run()
    await bench.quiet(0.1)
    assert bench.book.position(BTC) is None


@virtual
async def test_an_order_that_is_refused_ends_no_pause(make):
    """A refusal of something else says nothing."""
    bench = await refused(make)
    bench.venue.script("place_order", NO)
    await bench.gateway.send(elsewhere(bench))
    tries = len(bench.orders(OrderRole.FLATTEN))
    await bench.quiet(1)
    assert len(bench.orders(OrderRole.FLATTEN)) == tries
    await bench.quiet(4)
    assert bench.book.position(BTC) is None


@virtual
async def test_hours_of_refusals_end_with_the_first_order_that_is_taken(make):
    """D14: however many tries there were, another one follows."""
    bench = await refused(make)
    bench.venue.always("place_order", NO)
    bench.keeper._refusals[BTC] = 2000
    await bench.quiet(20)
    assert "KEEPER_FAILED" not in bench.alarms
    bench.venue.always("place_order")
    await bench.quiet(4.1)
    assert bench.book.position(BTC) is None


# -- turns ---------------------------------------------------------------------------------------------


async def leaving(make, **capabilities):
    """Return a bench with a long of 1 and its stop, after which executions are not to be had."""
    bench = make(ScriptedVenue(**capabilities), keeper=True)
    await bench.open("1")
    await bench.quiet()
    assert stops(bench) == [(1, 95)]
    bench.venue.always("fills_since", never)
    return bench


def rests_in_part(bench):
    """Return a step that takes an exit, executes 0.1 of it, and tells the count without the executions."""

    def place(request):
        bench.venue.accept(request)
        bench.venue.fill(request.client_order_id, "0.1")
        return replace(bench.venue.orders[request.client_order_id], fills=())

    return place


@virtual
async def test_what_an_exit_leaves_open_is_protected_while_its_executions_are_fetched(make):
    """I12: the venue has taken the exit; what it counts beyond the executions that we know may take long to come."""
    bench = await leaving(make)
    bench.venue.script("place_order", rests_in_part(bench))

    async def leave():
        async with bench.keeper.exiting(BTC, D("0.4"), Side.SELL):
            await bench.gateway.send(reduction("0.4"))

    task = asyncio.ensure_future(leave())
    await bench.quiet(1)
    assert not task.done()
    assert stops(bench) == [(D("0.6"), 95)]
    await task
    await bench.quiet()
    assert stops(bench) == [(D("0.6"), 95)]
    assert bench.orders(OrderRole.EXIT)[0].remaining + D("0.6") == 1


@pytest.mark.parametrize("news", ["filled", "cancelled"])
@virtual
async def test_the_stream_ends_the_turn_of_an_exit_whose_answer_is_lost(make, news):
    """Executed or ended, by the stream: what is left is protected, though the sender waits for its answer."""
    bench = await leaving(make)

    def place(request):
        bench.venue.accept(request)
        return never()

    bench.venue.script("place_order", place)

    async def leave():
        async with bench.keeper.exiting(BTC, D("0.4"), Side.SELL):
            await bench.gateway.send(reduction("0.4"))

    task = asyncio.ensure_future(leave())
    await bench.quiet(1)
    assert stops(bench) == []
    (exit_,) = bench.orders(OrderRole.EXIT)
    if news == "filled":
        bench.take(bench.venue.fill(exit_.client_order_id, at=bench.clock.now()))
    else:
        await bench.gateway.absorb(bench.venue.end(exit_.client_order_id), "stream")
    await bench.quiet(0.1)
    assert not task.done()
    assert stops(bench) == [(D("0.6") if news == "filled" else 1, 95)]
    await task


@virtual
async def test_news_of_an_earlier_exit_end_no_turn(make):
    """Only the exit that is being sent does: until it is out, the stop must not come back in its way."""
    bench = await leaving(make)
    bench.venue.script("place_order", bench.venue.accept)
    async with bench.keeper.exiting(BTC, D("0.2"), Side.SELL):
        await bench.gateway.send(reduction("0.2"))
    await bench.quiet()
    assert stops(bench) == [(D("0.8"), 95)]
    (earlier,) = bench.orders(OrderRole.EXIT)
    async with bench.keeper.exiting(BTC, D("0.5"), Side.SELL):
        assert stops(bench) == []
        bench.take(bench.venue.fill(earlier.client_order_id, "0.1", at=bench.clock.now()))
        await bench.quiet(1)
        assert stops(bench) == []
        sent = await bench.gateway.send(reduction("0.5", parent="x2"))
        assert sent.order.state is OrderState.FILLED
    await bench.quiet()
    assert stops(bench) == [(D("0.3"), 95)]


@virtual
async def test_a_refused_exit_keeps_its_turn(make):
    """Its sender may try once more with less, so the stop comes back only when it has done."""
    bench = await leaving(make)
    bench.venue.script("place_order", NO)
    async with bench.keeper.exiting(BTC, D("0.4"), Side.SELL):
        await bench.gateway.send(reduction("0.4"))
        await bench.quiet(1)
        assert stops(bench) == []
    await bench.quiet()
    assert stops(bench) == [(1, 95)]


@virtual
async def test_what_a_target_leaves_open_is_protected_while_its_executions_are_fetched(make):
    """The same of an exit that the keeper makes at a target."""
    bench = make(keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    bench.venue.script("place_order", after(0.5, bench.venue.accept))
    bench.keeper.on_quote(Quote(BTC, D(111), D(111), bench.clock.now()))
    await bench.quiet(0.4)
    assert stops(bench) == []
    await bench.quiet(0.4)
    (exit_,) = bench.orders(OrderRole.TARGET)
    assert (exit_.state, exit_.quantity) == (OrderState.ACCEPTED, 1)
    await bench.gateway.absorb(bench.venue.end(exit_.client_order_id), "stream")
    await bench.quiet(0.1)
    assert bench.stops or bench.orders(OrderRole.TARGET)[-1] is not exit_


# -- the venue's rate ----------------------------------------------------------------------------------


@virtual
async def test_a_stop_does_not_wait_until_its_target_may_leave_too(make):
    """I12: the venue takes one command now and two in ten seconds: the stop leaves alone, the target is held here."""
    venue = ScriptedVenue(lists=frozenset({ListKind.OCO}), order_rate=(2, timedelta(seconds=10)))
    bench = make(venue, keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet(0.1)
    assert stops(bench) == [(1, 95)]
    assert len(venue.open) == 1
    await bench.quiet(60)
    assert len(venue.sent) == 2, "a stop that rests is enough"


# -- entries that are still open -----------------------------------------------------------------------


@pytest.mark.parametrize("beside", [True, False])
@virtual
async def test_a_closing_waits_but_a_moment_for_the_end_of_an_entry(make, beside):
    """I12: the cancel of an entry hangs; where sell and buy may be open together the closing order leaves anyhow."""
    bench = make(ScriptedVenue(opposite_orders=beside), keeper=True)
    await bench.open("1")
    await bench.quiet()
    adding = (await bench.gateway.send(entry("s2", quantity="1", limit="90"))).order
    bench.venue.always(
        "cancel_order",
        lambda key: never() if key == adding.client_order_id else bench.venue._cancel(key),
    )
    flat = asyncio.ensure_future(bench.keeper.flatten(BTC, "test"))
    await bench.quiet(1.2)
    assert flat.done() is beside
    assert (bench.book.position(BTC) is None) is beside
    assert adding.state is OrderState.PENDING_CANCEL
    bench.venue.always("cancel_order")
    await bench.quiet(40)
    assert flat.done()
    assert adding.state is OrderState.CANCELLED
    assert bench.book.position(BTC) is None
    assert bench.keeper.closer.cancels == {}


@virtual
async def test_a_stop_that_is_refused_beside_an_entry_follows_the_end_of_that_entry(make):
    """Some venues take no stop beside a buy of one's own: its cancel takes 3 s, and the stop keeps its price."""
    bench = make(keeper=True)
    venue, sent = bench.venue, []

    def place(request):
        if request.type is OrderType.STOP:
            sent.append(request.stop_price)
            if bench.book.orders.open_entries(BTC):
                raise OrderRejectedError("wash trade")
        return venue._place(request)

    venue.always("place_order", place)
    venue.always("cancel_order", after(3, venue._cancel))
    adding = (await bench.gateway.send(entry("s1", quantity="2", limit="100"))).order
    bench.take(venue.fill(adding.client_order_id, "1"))
    await bench.quiet(4)
    assert adding.state is OrderState.CANCELLED
    assert sent == [95, 95]
    assert stops(bench) == [(1, 95)]
    assert bench.book.blocked == {}


@virtual
async def test_an_entry_that_does_not_go_leaves_time_for_one_more_stop(make):
    """I12: the stop was refused for another reason than the entry, whose cancel hangs: it is tried again within 5 s."""
    bench = make(keeper=True)
    adding = (await bench.gateway.send(entry("s1", quantity="2", limit="100"))).order
    bench.venue.always("cancel_order", lambda _key: never())
    bench.venue.script("place_order", OrderRejectedError("not now"))
    bench.take(bench.venue.fill(adding.client_order_id, "1"))
    await bench.quiet(4.5)
    assert adding.state is OrderState.PENDING_CANCEL
    assert [quantity for quantity, _ in stops(bench)] == [1]
    await bench.quiet(10)
    assert bench.orders(OrderRole.FLATTEN) == []
    assert bench.book.blocked == {}


@virtual
async def test_an_entry_that_executes_while_its_position_is_closed_is_protected(make):
    """What still comes of it is a position anew, with a stop of its size."""
    bench = make(keeper=True)
    await bench.open("1")
    await bench.quiet()
    adding = (await bench.gateway.send(entry("s2", quantity="1", limit="90"))).order
    bench.venue.script("cancel_order", never)
    await bench.keeper.flatten(BTC, "test")
    assert bench.book.position(BTC) is None
    bench.take(bench.venue.fill(adding.client_order_id, "0.5", at=bench.clock.now()))
    await bench.quiet(0.1)
    assert stops(bench) == [(D("0.5"), 95)]


@virtual
async def test_a_failure_while_entries_are_cancelled_does_not_keep_a_closing(make, monkeypatch):
    """It is told; the closing order leaves."""
    bench = make(keeper=True)
    await bench.open("1")
    await bench.quiet()
    adding = (await bench.gateway.send(entry("s2", quantity="1", limit="90"))).order
    cancel, began = bench.gateway.cancel, bench.clock.now()

    async def broken(order, reason):
        if order is adding:
            raise RuntimeError("a defect")
        return await cancel(order, reason)

    monkeypatch.setattr(bench.gateway, "cancel", broken)
    assert await bench.keeper.flatten(BTC, "test")
    assert bench.clock.now() == began
    assert bench.book.position(BTC) is None
    (alarm,) = bench.journal.records(Alarm)
    assert (alarm.code, alarm.symbol) == ("TASK_FAILED", BTC)
    assert alarm.text == f"cancelling {adding.client_order_id}: RuntimeError('a defect')"


@virtual
async def test_after_stop_no_cancel_of_an_entry_goes_on(make):
    """The keeper's end is the end of what it has begun."""
    bench = make(keeper=True)
    await bench.open("1")
    await bench.quiet()
    await bench.gateway.send(entry("s2", quantity="1", limit="90"))
    bench.venue.always("cancel_order", never)
    flat = asyncio.ensure_future(bench.keeper.flatten(BTC, "test"))
    await bench.quiet(1.5)
    assert len(bench.keeper.closer.cancels) == 1
    flat.cancel()
    await bench.keeper.stop()
    assert bench.keeper.closer.cancels == {}


@virtual
async def test_a_stop_that_holds_what_a_larger_one_needs_goes_first(make):
    """I12: the venue counts what rests against the balance; it is asked for the larger stop beside it but once."""
    bench = make(ScriptedVenue(reduce_only=True), keeper=True)
    bought = (await bench.gateway.send(entry())).order
    bench.take(bench.venue.fill(bought.client_order_id, "0.4"))
    await bench.quiet()

    def place(request):
        held = sum((o.quantity for o in bench.venue.open if o.side is Side.SELL), D(0))
        if request.side is Side.SELL and held + request.quantity > 1:
            raise InsufficientBalanceError("needs more than is free")
        return bench.venue._place(request)

    bench.venue.always("place_order", place)
    bench.take(bench.venue.fill(bought.client_order_id, "0.6"))
    await bench.quiet(1)
    assert stops(bench) == [(1, 95)]
    states = [each.state for each in bench.orders(OrderRole.STOP)]
    assert states == [OrderState.CANCELLED, OrderState.REJECTED, OrderState.ACCEPTED]
    assert bench.alarms == []
    assert not bench.keeper.placer.found_crowded(BTC)


@virtual
async def test_a_closing_waits_two_seconds_to_hear_what_is_free(make):
    """Without an answer the whole is tried again."""
    bench = make(keeper=True)
    await bench.open("1")
    await bench.quiet()
    bench.venue.script("place_order", InsufficientBalanceError("no"))
    bench.venue.always("balances", never)
    flat = asyncio.ensure_future(bench.keeper.flatten(BTC, "test"))
    await bench.quiet(1.9)
    assert not flat.done()
    await bench.quiet(0.2)
    assert flat.done()
    assert not flat.result()

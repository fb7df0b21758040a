"""Closed in our books by the venue's own word, open at the venue: counted, told, and cancelled until it is gone."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.support.bench import virtual
from tests.support.orders import BTC, later, report
from tests.support.tickets import entry
from tests.support.venue import ScriptedVenue

from execkit.errors import (
    AuthenticationError,
    ExchangeUnavailableError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    RateLimitError,
)
from execkit.model.order import OrderState
from execkit.model.records import CommandSent, Source, TradingState

D = Decimal


async def started(bench):
    await bench.reconciler.start()
    return bench


def refuse_and_take(venue, error):
    """Let the venue say no to what it takes."""

    def place(request):
        venue._place(request)
        raise error

    venue.script("place_order", place)


async def lied_to(make, error, **options):
    """Return a bench and an order that was "refused" and rests."""
    bench = await started(make(ScriptedVenue(**options)))
    refuse_and_take(bench.venue, error)
    order = (await bench.gateway.send(entry(quantity="2"))).order
    if order.state is OrderState.NEW:
        bench.gateway.give_up(order, "not sent")
    assert order.is_closed
    assert [o.client_order_id for o in bench.venue.open] == [order.client_order_id]
    return bench, order


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OrderRejectedError("no"), OrderState.REJECTED),
        (NotSentError("nothing left"), OrderState.FAILED),
    ],
)
@virtual
async def test_an_order_that_was_refused_and_rests_is_cancelled(make, error, state):
    """The state stays what it was; the next pass has it cancelled by the venue's id, recorded before it leaves."""
    bench, order = await lied_to(make, error)
    shown = bench.venue.orders[order.client_order_id]
    counted = []
    bench.venue.script(
        "cancel_order",
        lambda key: counted.append(list(bench.book.foreign)) or bench.venue._cancel(key),
    )
    await bench.reconciler.run()
    assert counted == [[shown.venue_order_id]], "it counts like an order of somebody else"
    assert bench.foreign_news >= 2
    assert bench.venue.open == []
    assert order.state is state
    assert bench.alarms == ["ZOMBIE_ORDER"]
    (command,) = bench.journal.records(CommandSent)
    assert (command.client_order_id, command.command) == (order.client_order_id, "cancel")
    await bench.quiet(10)
    assert bench.book.foreign == {}
    assert bench.venue.calls["cancel_order"] == 1, "then it is at rest"


@virtual
async def test_the_stream_tells_of_it_first(make):
    """What was never there needs no second sight."""
    bench, order = await lied_to(make, OrderRejectedError("no"))
    await bench.gateway.absorb(bench.venue.orders[order.client_order_id], Source.STREAM)
    assert bench.alarms == ["ZOMBIE_ORDER"]
    await bench.quiet(3)
    assert bench.venue.open == []


@pytest.mark.parametrize(
    "problem",
    [
        ExchangeUnavailableError("503"),
        RateLimitError("slow down", retry_after=timedelta(seconds=3)),
    ],
)
@virtual
async def test_a_cancel_that_fails_is_tried_in_the_next_pass(make, problem):
    """One alarm for all of them."""
    bench, _ = await lied_to(make, OrderRejectedError("no"))
    bench.venue.script("cancel_order", problem, problem)
    await bench.reconciler.run()
    assert len(bench.venue.open) == 1
    await bench.quiet(60)
    assert bench.venue.open == []
    assert bench.venue.calls["cancel_order"] == 3
    assert bench.alarms == ["ZOMBIE_ORDER"]


@virtual
async def test_a_venue_that_does_not_know_what_it_shows_is_asked_again(make):
    """C2: "unknown order" is believed only until the order shows again."""
    bench, _ = await lied_to(make, OrderRejectedError("no"))
    bench.venue.script("cancel_order", OrderNotFoundError("unknown order sent"))
    await bench.reconciler.run()
    assert len(bench.venue.open) == 1
    await bench.reconciler.run()
    assert bench.venue.open == []


@virtual
async def test_what_is_executed_of_it_counts(make):
    """C3: a fill is a fill, whatever the order's state; and the order is cancelled after it as well."""
    bench, order = await lied_to(make, OrderRejectedError("no"))
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    assert bench.book.positions.quantity(BTC) == D("0.5")
    assert order.state is OrderState.REJECTED
    await bench.reconciler.run()
    assert bench.venue.open == []
    assert bench.alarms == ["LATE_FILL", "ZOMBIE_ORDER"]


@virtual
async def test_it_is_found_after_a_restart(make):
    """The next process has it from the venue's list of open orders."""
    bench, _ = await lied_to(make, OrderRejectedError("no"))
    again = await started(await bench.restart())
    assert again.venue.open == []
    assert again.alarms[-1] == "ZOMBIE_ORDER"


@virtual
async def test_an_order_that_memory_has_forgotten_is_left_to_the_count(make):
    """The pass that cannot find it any more gives it up; what is open counts as somebody else's."""
    bench, order = await lied_to(make, OrderRejectedError("no"))
    await bench.gateway.absorb(bench.venue.orders[order.client_order_id], Source.STREAM)
    del bench.book.orders._orders[order.client_order_id]
    await bench.reconciler.run()
    assert bench.venue.calls["cancel_order"] == 0
    assert len(bench.book.foreign) == 1


@virtual
async def test_a_key_that_is_refused_halts_here_too(make):
    """A command is a command."""
    bench, _ = await lied_to(make, OrderRejectedError("no"))
    bench.venue.script("cancel_order", AuthenticationError("the key is not valid"))
    await bench.reconciler.run()
    assert bench.book.trading_state is TradingState.HALTED
    assert len(bench.venue.open) == 1


@virtual
async def test_a_process_that_was_replaced_cancels_nothing(make):
    """I26: the other one does."""
    bench, _ = await lied_to(make, OrderRejectedError("no"))
    bench.journal.is_current = False
    await bench.reconciler.run()
    assert bench.venue.calls["cancel_order"] == 0


# -- what had ended ------------------------------------------------------------------------------------


async def ended(make, **options):
    """Return a bench and an order that the venue said it has cancelled, and an open report of it."""
    bench = await started(make(ScriptedVenue(**options)))
    order = (await bench.gateway.send(entry(quantity="2"))).order
    alive = bench.venue.orders[order.client_order_id]
    await bench.gateway.absorb(
        replace(alive, status=OrderState.CANCELLED, updated_at=later(10)), Source.STREAM
    )
    assert order.state is OrderState.CANCELLED
    return bench, order, alive


@virtual
async def test_a_list_that_is_older_than_the_end_proves_nothing(make):
    """B8: neither the list of open orders, nor a status that goes backwards on the stream."""
    bench, order, alive = await ended(make)
    old = replace(alive, updated_at=later(9))
    await bench.gateway.absorb(old, Source.RECONCILE)
    await bench.gateway.absorb(replace(old, updated_at=later(11)), Source.STREAM)
    await bench.gateway.absorb(replace(old, updated_at=None), Source.RECONCILE)
    assert bench.alarms == []
    assert order.state is OrderState.CANCELLED


@virtual
async def test_a_later_word_of_the_venue_proves_that_it_lives(make):
    """By the venue's own time."""
    bench, _, alive = await ended(make)
    await bench.gateway.absorb(replace(alive, updated_at=later(11)), Source.RECONCILE)
    assert bench.alarms == ["ZOMBIE_ORDER"]
    await bench.quiet(3)
    assert bench.venue.open == []


@virtual
async def test_an_order_that_is_listed_long_after_its_end_lives(make):
    """Longer than the venue's answers may lag behind, and a minute."""
    bench, _, _ = await ended(make, absence_window=timedelta(seconds=30))
    await asyncio.sleep(89)
    await bench.reconciler.run()
    assert bench.alarms == []
    await asyncio.sleep(3)
    await bench.reconciler.run()
    assert bench.alarms == ["ZOMBIE_ORDER"]
    assert bench.venue.open == []


@virtual
async def test_an_order_that_was_executed_whole_is_none(make):
    """What is executed beyond it is an overfill, and told as such."""
    bench = await started(make())
    await bench.open("1")
    order = bench.order()
    assert order.state is OrderState.FILLED
    await asyncio.sleep(1000)
    shown = report(order, status=OrderState.ACCEPTED, updated_at=later(900), filled=D(1))
    await bench.gateway.absorb(shown, Source.RECONCILE)
    assert bench.alarms == []

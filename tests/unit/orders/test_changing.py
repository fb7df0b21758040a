"""Cancels and amendments: proven by what the venue shows, carried through once they are wanted."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import BTC
from tests.support.tickets import entry, reduction
from tests.support.venue import ScriptedVenue, after, never

from execkit.errors import (
    AuthenticationError,
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import CommandSent, TradingState

D = Decimal
BLIND = ExchangeUnavailableError("blind")


async def resting(bench, signal="s1", **details):
    sent = await bench.gateway.send(entry(signal, **details))
    assert sent.order.state is OrderState.ACCEPTED
    return sent.order


async def resting_stop(bench, quantity="1", price="95"):
    await bench.open("2")
    sent = await bench.gateway.send(
        reduction(quantity, role=OrderRole.STOP, stop=price, parent="p")
    )
    assert sent.order.state is OrderState.ACCEPTED
    return sent.order


# -- cancelling ----------------------------------------------------------------------------------------


@virtual
async def test_a_cancel_is_recorded_before_it_leaves(make):
    """I3: the command with its hash is durable when the request arrives; the answer ends the order."""
    bench = make()
    order = await resting(bench)
    seen = []
    bench.venue.script(
        "cancel_order", lambda key: seen.append(bench.journal.committed) or bench.venue._cancel(key)
    )
    assert await bench.gateway.cancel(order, "test") is order
    assert order.state is OrderState.CANCELLED
    assert seen == [5], "intent, submit, accept, command, ask"
    (command,) = bench.journal.records(CommandSent)
    assert (command.client_order_id, command.command, command.reason) == (
        order.client_order_id,
        "cancel",
        "test",
    )
    assert len(command.command_hash) == 24
    await bench.quiet(1)
    assert bench.venue.calls["get_order"] == 0, "there is nothing to prove"


@virtual
async def test_cancelling_what_is_closed_does_nothing(make):
    """No record, no request."""
    bench = make()
    order = await resting(bench)
    bench.take(bench.venue.fill(order.client_order_id))
    before = bench.journal.last_seq
    await bench.gateway.cancel(order, "test")
    assert bench.journal.last_seq == before
    assert bench.venue.calls["cancel_order"] == 0


@virtual
async def test_a_cancel_that_loses_to_the_fill_finds_the_fill(make):
    """C1: "not found" proves nothing; the look-up shows that it was executed."""
    bench = make()
    order = await resting(bench)
    bench.venue.fill(order.client_order_id)
    await bench.gateway.cancel(order, "test")
    assert order.state is OrderState.PENDING_CANCEL
    await bench.quiet(1)
    assert order.state is OrderState.FILLED
    assert bench.book.positions.quantity(BTC) == 1


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        OrderStatusUnknownError("lost"),
        OrderRejectedError("cannot cancel"),
        AuthenticationError("revoked"),
        ValueError("NaN"),
        None,
        "done",
    ],
    ids=repr,
)
@virtual
async def test_an_unknown_outcome_of_a_cancel_is_proven(make, error):
    """C2: the order stays pending until the venue shows it gone, and what it is asked is only to show it."""
    bench = make()
    order = await resting(bench)

    def cancel(key):
        bench.venue.end(key)
        if isinstance(error, Exception):
            raise error
        return error

    bench.venue.script("cancel_order", cancel)
    await bench.gateway.cancel(order, "test")
    assert order.state is OrderState.PENDING_CANCEL
    await bench.quiet(1)
    assert order.state is OrderState.CANCELLED
    assert bench.venue.calls["cancel_order"] == 1
    halted = isinstance(error, AuthenticationError)
    assert (bench.book.trading_state is TradingState.HALTED) is halted
    assert bench.alarms == (["ANSWER_NOT_OURS"] if error in (None, "done") else [])


@virtual
async def test_no_answer_to_a_cancel_in_time(make):
    """After fifteen seconds the venue is asked instead."""
    bench = make()
    order = await resting(bench)
    bench.venue.script("cancel_order", never)
    began = asyncio.get_running_loop().time()
    await bench.gateway.cancel(order, "test")
    assert asyncio.get_running_loop().time() - began == pytest.approx(15)
    await bench.quiet(1)
    assert order.state is OrderState.CANCELLED
    assert bench.venue.calls["cancel_order"] == 2, "it was found alive, so it was asked again"


@virtual
async def test_an_answer_about_another_order_changes_neither(make):
    """A10: a cross-wired answer is no answer, and the other order is not what it says."""
    bench = make()
    order, other = await resting(bench), await resting(bench, "s2")
    bench.venue.script("cancel_order", lambda _key: bench.venue.end(other.client_order_id))
    await bench.gateway.cancel(order, "test")
    assert other.state is OrderState.ACCEPTED
    assert "ANSWER_NOT_OURS" in bench.alarms
    await bench.quiet(1)
    assert order.state is OrderState.CANCELLED


@pytest.mark.parametrize("error", [NotSentError("no route"), RateLimitError("slow")], ids=repr)
@virtual
async def test_a_refused_cancel_is_asked_again(make, error):
    """The order rests meanwhile, and the wish is carried through without the caller."""
    bench = make()
    order = await resting(bench)
    bench.venue.script("cancel_order", error, error)
    await bench.gateway.cancel(order, "test")
    assert (order.state, order.cancel_asked) == (OrderState.ACCEPTED, True)
    await bench.quiet(2)
    assert order.state is OrderState.CANCELLED
    assert bench.venue.calls["cancel_order"] == 3


@virtual
async def test_a_cancel_waits_for_the_venues_pause(make):
    """I10: nothing is sent before Retry-After ends, a cancel neither."""
    bench = make()
    order, other = await resting(bench), await resting(bench, "s2")
    loop = asyncio.get_running_loop()
    bench.venue.script("cancel_order", RateLimitError("slow", retry_after=timedelta(seconds=7)))
    began = loop.time()
    await bench.gateway.cancel(order, "test")
    await bench.gateway.cancel(other, "test")
    assert loop.time() - began == pytest.approx(7)
    assert other.state is OrderState.CANCELLED
    await bench.quiet(1)
    assert order.state is OrderState.CANCELLED


@virtual
async def test_an_order_that_ends_while_its_cancel_commits_is_not_cancelled(make):
    """The fill came first; no request is needed."""
    bench = make()
    order = await resting(bench)

    async def execute():
        bench.take(bench.venue.fill(order.client_order_id))

    bench.journal.on_commit = execute
    await bench.gateway.cancel(order, "test")
    assert order.state is OrderState.FILLED
    assert bench.venue.calls["cancel_order"] == 0


@virtual
async def test_an_unsent_order_is_not_sent_any_more(make):
    """A cancel between intent and send is in time: proven never sent, and the caller is told so."""
    bench = make()
    bench.journal.on_commit = lambda: asyncio.sleep(1)
    task = asyncio.ensure_future(bench.gateway.send(entry()))
    await asyncio.sleep(0.5)
    order = bench.order()
    await bench.gateway.cancel(order, "cancel-all")
    assert order.state is OrderState.FAILED
    sent = await task
    assert (sent.order, sent.denial.code) == (order, DenialCode.CANCELLED)
    assert order.reason == "cancelled before it was sent: cancel-all"
    again = await bench.gateway.send(entry())
    assert again.denial.code is DenialCode.CANCELLED, "no other try of a signal that was cancelled"
    assert bench.venue.sent == []


@virtual
async def test_an_unsent_reduction_is_not_sent_any_more(make):
    """The same for what makes a position smaller."""
    bench = make()
    await bench.open()
    sends = len(bench.venue.sent)
    bench.journal.on_commit = lambda: asyncio.sleep(1)
    task = asyncio.ensure_future(bench.gateway.send(reduction()))
    await asyncio.sleep(0.5)
    await bench.gateway.cancel(bench.order(), "test")
    assert (await task).denial.code is DenialCode.CANCELLED
    assert len(bench.venue.sent) == sends


@virtual
async def test_an_order_in_flight_is_cancelled_when_it_is_answered(make):
    """C4: before the answer there is nothing to cancel; the wish waits for it."""
    bench = make()
    bench.venue.script("place_order", after(3, bench.venue._place))
    task = asyncio.ensure_future(bench.gateway.send(entry()))
    await asyncio.sleep(1)
    order = bench.order()
    await bench.gateway.cancel(order, "test")
    assert (order.state, order.cancel_asked) == (OrderState.SUBMITTED, True)
    assert bench.venue.calls["cancel_order"] == 0
    await task
    await bench.quiet(1)
    assert order.state is OrderState.CANCELLED
    assert bench.changes(order) == ["submit", "ask_cancel", "accept", "ask_cancel", "cancel"]


@virtual
async def test_an_order_in_doubt_is_cancelled_by_our_id_and_again_when_it_shows(make):
    """The first cancel may come too early for the venue; the stream shows the order, and it is cancelled."""
    bench = make()
    bench.venue.script("place_order", ConnectionResetError())
    bench.venue.always("get_order", BLIND)
    bench.venue.always("open_orders", BLIND)
    sent = await bench.gateway.send(entry())
    await bench.gateway.cancel(sent.order, "test")
    assert (sent.order.state, bench.venue.calls["cancel_order"]) == (OrderState.IN_DOUBT, 1)
    await bench.quiet(20)
    await bench.gateway.absorb(bench.venue.accept(sent.order.request), "stream")
    assert sent.order.state is OrderState.ACCEPTED
    await bench.quiet(1)
    assert sent.order.state is OrderState.CANCELLED


@virtual
async def test_an_absent_order_is_cancelled_should_it_show_late(make):
    """A14: the wish outlives the proof of absence."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    bench.venue.script("place_order", ConnectionResetError())
    sent = await bench.gateway.send(entry())
    await bench.quiet()
    order = sent.order
    await bench.gateway.cancel(order, "flatten")
    assert (order.state, order.cancel_asked) == (OrderState.PRESUMED_ABSENT, True)
    denied = await bench.gateway.resend(order, entry())
    assert denied.denial.code is DenialCode.CANCELLED
    await bench.gateway.absorb(bench.venue.accept(order.request), "stream")
    await bench.quiet(1)
    assert order.state is OrderState.CANCELLED
    assert bench.alarms == ["LATE_SIGHT"]


@virtual
async def test_a_caller_that_gives_up_leaves_the_cancel_to_the_resolver(make):
    """During the commit or during the request: the order does not stay pending for ever."""
    bench = make()
    for number, moment in enumerate(("commit", "request")):
        order = await resting(bench, f"s{number}")
        if moment == "commit":
            bench.journal.on_commit = lambda: asyncio.sleep(0.2)
        else:
            bench.venue.script("cancel_order", never)
        task = asyncio.ensure_future(bench.gateway.cancel(order, "test"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert order.state is OrderState.PENDING_CANCEL
        bench.journal.on_commit = None
        await bench.quiet(2)
        assert order.state is OrderState.CANCELLED


@virtual
async def test_cancels_leave_when_the_journal_cannot_commit(make):
    """G11: after an emergency record; without that, not, and the wish is carried through later."""
    bench = make()
    order, other = await resting(bench), await resting(bench, "s2")
    bench.journal.fails = True
    await bench.gateway.cancel(order, "test")
    assert order.state is OrderState.CANCELLED
    assert [type(e.record) for e in bench.journal.emergencies] == [CommandSent]
    bench.journal.emergency_fails = True
    await bench.gateway.cancel(other, "test")
    assert (other.state, other.reason) == (OrderState.ACCEPTED, "the disk is full")
    assert bench.venue.calls["cancel_order"] == 1
    bench.journal.fails = bench.journal.emergency_fails = False
    await bench.quiet(2)
    assert other.state is OrderState.CANCELLED


@virtual
async def test_a_process_that_was_replaced_cancels_nothing(make):
    """I26: neither cancel nor amendment leaves, and nothing is recorded."""
    bench = make(ScriptedVenue(amend=True))
    order = await resting_stop(bench)
    before = bench.journal.last_seq
    bench.journal.is_current = False
    await bench.gateway.cancel(order, "test")
    assert not await bench.gateway.amend(order, quantity=D("0.5"))
    assert order.state is OrderState.ACCEPTED
    assert bench.journal.last_seq == before

    async def lose_the_lease():
        bench.journal.is_current = False

    bench.journal.is_current = True
    bench.journal.on_commit = lose_the_lease
    await bench.gateway.cancel(order, "test")
    assert bench.venue.calls["cancel_order"] == bench.venue.calls["amend_order"] == 0


# -- amending ------------------------------------------------------------------------------------------


@virtual
async def test_an_amendment_counts_when_the_venue_confirms_it(make):
    """Recorded with what was asked, sent once, and taken over from the answer."""
    bench = make()
    order = await resting_stop(bench)
    assert await bench.gateway.amend(order, quantity=D(2), stop_price=D(96), reason="grown")
    assert (order.state, order.quantity, order.stop_price) == (OrderState.ACCEPTED, D(2), D(96))
    assert order.asked is None
    assert bench.venue.calls["amend_order"] == 1
    assert bench.journal.records(CommandSent)[0].command == "amend"
    assert bench.changes(order)[-2:] == ["ask_amend", "amend"]


@virtual
async def test_an_entry_does_not_grow_by_an_amendment(make):
    """It would need an approval of its own; to shrink it is fine."""
    bench = make()
    order = await resting(bench)
    with pytest.raises(OrderRejectedError, match=r"quantity 2 is above 1: send a new signal"):
        await bench.gateway.amend(order, quantity=D(2))
    assert await bench.gateway.amend(order, quantity=D("0.5"), limit_price=D(99))
    assert (order.quantity, order.limit_price) == (D("0.5"), D(99))


@virtual
async def test_only_a_resting_order_is_amended(make):
    """Nothing is asked of one that is being cancelled or has ended."""
    bench = make()
    order = await resting(bench)
    bench.venue.script("cancel_order", never)
    task = asyncio.ensure_future(bench.gateway.cancel(order, "test"))
    await asyncio.sleep(0.01)
    assert not await bench.gateway.amend(order, quantity=D("0.5"))
    assert bench.venue.calls["amend_order"] == 0
    task.cancel()


@virtual
async def test_a_report_from_before_the_change_neither_confirms_nor_disturbs(make):
    """C6: the stream tells of the old order while the answer is on its way; the answer decides."""
    bench = make()
    order = await resting_stop(bench)
    old = bench.venue.orders[order.client_order_id]

    async def amend(key, **changes):
        await bench.gateway.absorb(old, "stream")
        assert order.state is OrderState.PENDING_AMEND
        return bench.venue.amend(key, **changes)

    bench.venue.script("amend_order", amend)
    assert await bench.gateway.amend(order, quantity=D("1.5"))
    assert (order.quantity, bench.alarms) == (D("1.5"), [])
    await bench.gateway.absorb(old, "stream")
    assert (order.quantity, bench.alarms) == (D("1.5"), [])


@virtual
async def test_fills_beyond_the_old_quantity_are_no_overfill_while_growth_is_asked(make):
    """The stream shows the executions of the grown order before the answer says that it grew."""
    bench = make()
    order = await resting_stop(bench)

    async def amend(key, **changes):
        told = bench.venue.amend(key, **changes)
        bench.take(bench.venue.fill(key, "1.5"))
        assert order.state is OrderState.PENDING_AMEND
        return bench.venue.orders[key] if told else None

    bench.venue.script("amend_order", amend)
    assert await bench.gateway.amend(order, quantity=D(2))
    assert (order.state, order.filled, order.quantity) == (
        OrderState.PARTIALLY_FILLED,
        D("1.5"),
        D(2),
    )
    assert bench.alarms == []


@pytest.mark.parametrize(
    "error",
    [
        OrderRejectedError("too late"),
        NotSentError("no route"),
        RateLimitError("slow"),
        UnsupportedFeatureError("no"),
        AuthenticationError("revoked"),
    ],
    ids=repr,
)
@virtual
async def test_a_refused_amendment_leaves_the_order_as_it_was(make, error):
    """Definite evidence: nothing to prove, and nothing changed."""
    bench = make()
    order = await resting_stop(bench)
    bench.venue.script("amend_order", error)
    assert not await bench.gateway.amend(order, quantity=D("0.5"))
    assert (order.state, order.quantity, order.asked) == (OrderState.ACCEPTED, D(1), None)
    await bench.quiet(1)
    assert bench.venue.calls["get_order"] == 0
    halted = isinstance(error, AuthenticationError)
    assert (bench.book.trading_state is TradingState.HALTED) is halted


UNKNOWN = [
    TimeoutError(),
    ConnectionResetError(),
    OrderStatusUnknownError("lost"),
    OrderNotFoundError("?"),
    DuplicateClientOrderIdError("?"),
    ValueError("NaN"),
    None,
    "yes",
]


@pytest.mark.parametrize("took_effect", [True, False])
@pytest.mark.parametrize("error", UNKNOWN, ids=repr)
@virtual
async def test_an_unknown_outcome_of_an_amendment_is_looked_up(make, error, took_effect):
    """Which of the two orders is live is asked for; a change that does not show in time was refused."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=2)))
    order = await resting_stop(bench)

    def amend(key, **changes):
        if took_effect:
            bench.venue.amend(key, **changes)
        if isinstance(error, Exception):
            raise error
        return error

    bench.venue.script("amend_order", amend)
    assert not await bench.gateway.amend(order, quantity=D(2))
    assert order.state is OrderState.IN_DOUBT
    assert order.quantity_at_most == 2
    await bench.quiet(4)
    assert order.state is OrderState.ACCEPTED
    assert (order.quantity, order.asked) == (D(2) if took_effect else D(1), None)
    assert order.quantity_at_most == order.quantity


@virtual
async def test_an_answer_that_shows_the_old_order_is_no_confirmation(make):
    """The venue takes its time: the order is asked for, not taken for changed."""
    bench = make()
    order = await resting_stop(bench)
    bench.venue.script("amend_order", lambda key, **_: bench.venue.orders[key])
    assert not await bench.gateway.amend(order, quantity=D(2))
    assert order.state is OrderState.IN_DOUBT
    bench.venue.amend(order.client_order_id, quantity=D(2))
    await bench.quiet(1)
    assert (order.state, order.quantity) == (OrderState.ACCEPTED, D(2))


@pytest.mark.parametrize("moment", ["commit", "request"])
@virtual
async def test_a_caller_that_gives_up_an_amendment_leaves_it_to_the_resolver(make, moment):
    """The order does not stay pending for ever."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    order = await resting_stop(bench)
    if moment == "commit":
        bench.journal.on_commit = lambda: asyncio.sleep(0.2)
    else:
        bench.venue.script("amend_order", never)
    task = asyncio.ensure_future(bench.gateway.amend(order, quantity=D(2)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.journal.on_commit = None
    await bench.quiet(1)
    assert (order.state, order.quantity, order.asked) == (OrderState.ACCEPTED, D(1), None)


@virtual
async def test_no_amendment_leaves_without_a_record(make):
    """When neither journal nor emergency file take the command, the order stays as it is."""
    bench = make()
    order = await resting_stop(bench)
    bench.journal.fails = bench.journal.emergency_fails = True
    assert not await bench.gateway.amend(order, quantity=D("0.5"))
    assert (order.state, order.quantity) == (OrderState.ACCEPTED, D(1))
    assert bench.venue.calls["amend_order"] == 0
    bench.journal.emergency_fails = False
    assert await bench.gateway.amend(order, quantity=D("0.5"))
    assert bench.venue.calls["amend_order"] == 1


@pytest.mark.parametrize("intent_too", [False, True])
@virtual
async def test_what_was_asked_survives_a_journal_that_failed(make, intent_too):
    """G11 C10: all that is left is the emergency record; it says enough to know the changed order again."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    await bench.open("2")
    await bench.recorder.settle()
    bench.journal.fails = intent_too
    sent = await bench.gateway.send(reduction("1", role=OrderRole.STOP, stop="95", parent="p"))
    assert sent.order.state is OrderState.ACCEPTED
    await bench.recorder.try_settle()
    bench.journal.fails = True
    assert await bench.gateway.amend(sent.order, quantity=D(2))
    again = await bench.restart()
    await again.reconciler.start()
    await again.quiet(1)
    order = again.book.orders[sent.order.client_order_id]
    assert (order.state, order.quantity, order.asked) == (OrderState.ACCEPTED, D(2), None)
    assert again.alarms == []
    bench.journal.fails = False


@virtual
async def test_a_wish_to_cancel_survives_a_journal_that_failed(make):
    """The emergency record is enough to carry it through."""
    bench = make()
    order = await resting(bench)
    await bench.recorder.settle()
    bench.journal.fails = True
    bench.venue.script("cancel_order", TimeoutError())
    await bench.gateway.cancel(order, "test")
    again = await bench.restart()
    await again.reconciler.start()
    await again.quiet(1)
    assert again.order().state is OrderState.CANCELLED


@virtual
async def test_an_order_filled_while_its_amendment_is_refused_ends(make):
    """C6: "too late" because it is executed whole."""
    bench = make()
    order = await resting_stop(bench)

    def amend(key, **_changes):
        bench.take(bench.venue.fill(key))
        raise OrderRejectedError("not open")

    bench.venue.script("amend_order", amend)
    assert not await bench.gateway.amend(order, quantity=D(2))
    assert order.state is OrderState.FILLED
    assert order.side is Side.SELL
    assert bench.book.positions.quantity(BTC) == 1


@virtual
async def test_an_entry_executed_sooner_needs_an_approval(make):
    """The gateway's own guard: a worse limit price leaves only where somebody answers for it."""
    bench = make()
    order = await resting(bench)
    higher = order.limit_price + 1
    with pytest.raises(OrderRejectedError, match="is executed sooner than the approved"):
        await bench.gateway.amend(order, limit_price=higher)
    assert bench.journal.records(CommandSent) == []
    assert await bench.gateway.amend(order, limit_price=higher, refuse=lambda: None)
    assert (order.limit_price, order.worst_price) == (higher, 200), "approved up to 200"
    assert await bench.gateway.amend(order, limit_price=D(201), refuse=lambda: None)
    assert order.worst_price == 201


@virtual
async def test_a_change_is_refused_when_it_is_about_to_leave(make):
    """The change is recorded as refused, and no request goes out."""
    bench = make()
    order = await resting(bench)
    before = order.limit_price
    denial = Denial.of(DenialCode.TRADING_HALTED, cause="a test")
    assert not await bench.gateway.amend(order, limit_price=before + 1, refuse=lambda: denial)
    assert (order.limit_price, order.state, order.asked) == (before, OrderState.ACCEPTED, None)
    assert order.reason == "TRADING_HALTED: cause=a test"
    assert bench.venue.calls["amend_order"] == 0

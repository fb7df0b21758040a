"""The door to the venue: what leaves, how often, and what is known afterwards."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import BTC, report
from tests.support.tickets import entry, reduction
from tests.support.venue import ScriptedVenue, after, never

from execkit.errors import (
    AuthenticationError,
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.ids import client_order_id
from execkit.journal.fold import fold
from execkit.model.denial import DenialCode
from execkit.model.order import OrderRole, OrderState, OrderType, Side
from execkit.model.records import (
    ExternalChange,
    Intent,
    OrderChanged,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.orders.waiting import Use

D = Decimal


def is_live(order):
    return order.state in (OrderState.ACCEPTED, OrderState.FILLED)


# -- a send that succeeds ------------------------------------------------------------------------------


@virtual
async def test_an_entry_is_durable_before_it_leaves(make):
    """I3: intent, commit, send, answer; the record of the intent holds id and payload hash."""
    bench = make()
    committed = []

    def place(request):
        committed.append(bench.journal.committed)
        return bench.venue.accept(request)

    bench.venue.script("place_order", place)
    sent = await bench.gateway.send(entry())
    assert (sent.error, sent.denial) == (None, None)
    assert sent.order.state is OrderState.ACCEPTED
    assert bench.venue.sent == [client_order_id("acct", "s1", OrderRole.ENTRY)]
    kinds = [type(e.record).__name__ for e in bench.journal.entries]
    assert kinds == ["Intent", "OrderChanged", "OrderChanged"]
    assert committed == [1], "the intent, and only that, was durable when the request left"
    intent = bench.intents()[0]
    assert intent.payload_hash == intent.request.payload_hash
    assert bench.changes(sent.order) == ["submit", "accept"]
    assert bench.journal.records(OrderChanged)[0].attempt == 1
    assert sent.order.venue_order_id == "v1"


@virtual
async def test_fills_of_the_answer_count(make):
    """A market order is executed with its answer; position and cash follow."""
    bench = make()
    sent = await bench.gateway.send(entry(limit=None, quantity="2"))
    assert sent.order.state is OrderState.FILLED
    assert bench.book.positions.quantity(BTC) == 2
    assert bench.book.cash["USDT"] == -200


@virtual
async def test_news_may_overtake_the_answer(make):
    """B1 B2: stream fills come while the send is under way; the acknowledgement is no news then."""
    bench = make()

    async def place(request):
        bench.venue.accept(request)
        assert bench.take(bench.venue.fill(request.client_order_id, "0.4"))
        await asyncio.sleep(1)
        assert bench.take(bench.venue.fill(request.client_order_id, "0.6"))
        return bench.venue.orders[request.client_order_id]

    bench.venue.script("place_order", place)
    sent = await bench.gateway.send(entry())
    assert sent.order.state is OrderState.FILLED
    assert sent.order.filled == 1
    assert bench.changes(sent.order) == ["submit"]
    assert bench.alarms == []


@virtual
async def test_done_follows_the_order_to_its_end(make):
    """The hook is set with the intent; the waiter wakes when the stream brings the end."""
    bench = make()
    sent = await bench.gateway.send(entry())
    waiter = asyncio.ensure_future(sent.order.done())
    await asyncio.sleep(1)
    assert not waiter.done()
    bench.take(bench.venue.fill(sent.order.client_order_id))
    assert (await waiter).state is OrderState.FILLED


# -- what the errors mean ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (NotSentError("no route"), OrderState.NEW),
        (OrderRejectedError("no", code="-1"), OrderState.REJECTED),
        (InsufficientBalanceError("poor"), OrderState.REJECTED),
        (InvalidOrderError("filter"), OrderState.REJECTED),
        (MarketClosedError("night"), OrderState.REJECTED),
        (RateLimitError("slow down"), OrderState.REJECTED),
        (AuthenticationError("revoked"), OrderState.REJECTED),
        (DuplicateClientOrderIdError("used"), OrderState.IN_DOUBT),
        (OrderStatusUnknownError("lost"), OrderState.IN_DOUBT),
        (ExchangeUnavailableError("503"), OrderState.IN_DOUBT),
        (OrderNotFoundError("what?"), OrderState.IN_DOUBT),
        (UnsupportedFeatureError("what?"), OrderState.IN_DOUBT),
        (TimeoutError(), OrderState.IN_DOUBT),
        (ConnectionResetError("reset"), OrderState.IN_DOUBT),
        (ValueError("NaN"), OrderState.IN_DOUBT),
        (KeyError("status"), OrderState.IN_DOUBT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
@virtual
async def test_an_error_rejects_only_on_definite_evidence(make, error, state):
    """A7 A8 A17 A23: one send each; what is not known to be a no is in doubt and is asked for."""
    bench = make()
    bench.venue.script("place_order", error)
    bench.venue.always("get_order", ExchangeUnavailableError("blind"))
    sent = await bench.gateway.send(entry())
    order = sent.order
    assert order.state is state
    assert len(bench.venue.sent) == 1
    assert sent.denial is None
    if state is OrderState.IN_DOUBT:
        assert not sent.error.outcome_known
        assert order.errors[0].startswith(type(error).__name__)
        await bench.quiet()
        assert bench.venue.calls["get_order"] == 1, "the resolver has begun"
    else:
        assert sent.error is error
        assert bench.venue.calls["get_order"] == 0
        assert order.reason == str(error)
    halted = isinstance(error, AuthenticationError)
    assert (bench.book.trading_state is TradingState.HALTED) is halted


@virtual
async def test_no_answer_in_time_is_doubt(make):
    """A12: fifteen seconds, then nobody waits any longer, and one send is one send."""
    bench = make()
    bench.venue.script("place_order", never)
    began = asyncio.get_running_loop().time()
    sent = await bench.gateway.send(entry())
    assert asyncio.get_running_loop().time() - began == pytest.approx(15)
    assert sent.order.state is OrderState.IN_DOUBT
    assert isinstance(sent.error, OrderStatusUnknownError)
    assert str(sent.error) == "TimeoutError"
    assert len(bench.venue.sent) == 1


@pytest.mark.parametrize(
    ("answer", "halts"),
    [
        (None, False),
        ("accepted", False),
        ({"venue_order_id": ""}, False),
        ({"quantity": D(2)}, False),
        ({"filled": D(-5)}, False),
        ({"filled": D(7)}, False),
        ({"status": OrderState.IN_DOUBT, "raw_status": "frozen"}, False),
        ({"client_order_id": "xk-other"}, True),
        ({"client_order_id": ""}, True),
        ({"symbol": "ETH/USDT"}, True),
        ({"side": Side.SELL}, True),
        ({"type": OrderType.MARKET}, True),
    ],
)
@virtual
async def test_an_answer_that_cannot_be_true_is_doubt(make, answer, halts):
    """A9 A10 N3 N4 N12 N13: never success; one about something else also stops what adds exposure."""
    bench = make()

    def place(request):
        told = bench.venue.accept(request)
        if not isinstance(answer, dict):
            return answer
        return report(bench.order(), **({"status": told.status} | answer))

    bench.venue.script("place_order", place)
    bench.venue.always("get_order", ExchangeUnavailableError("blind"))
    sent = await bench.gateway.send(entry())
    assert sent.order.state is OrderState.IN_DOUBT
    assert isinstance(sent.error, OrderStatusUnknownError)
    assert bench.alarms == ["ANSWER_NOT_OURS"]
    assert (bench.book.trading_state is TradingState.HALTED) is halts
    bench.venue.always("get_order")
    await bench.quiet(1)
    assert is_live(sent.order), "the look-up tells the truth"
    assert len(bench.venue.sent) == 1


@virtual
async def test_an_error_that_tells_of_another_order_halts(make):
    """A10: also where the adapter has found out."""
    bench = make()

    def place(request):
        bench.venue.accept(request)
        error = OrderStatusUnknownError("the answer has another symbol")
        error.is_about_another = True
        raise error

    bench.venue.script("place_order", place)
    sent = await bench.gateway.send(entry())
    assert sent.order.state is OrderState.IN_DOUBT
    assert bench.alarms == ["ANSWER_NOT_OURS"]
    assert bench.book.trading_state is TradingState.HALTED
    await bench.quiet(1)
    assert is_live(sent.order)


@virtual
async def test_a_refusal_does_not_overrule_what_the_stream_has_shown(make):
    """A22: an error although the order went through; it stays live, and a pass is asked for."""
    for number, error in enumerate(
        [OrderRejectedError("no"), NotSentError("not sent"), RateLimitError("slow")]
    ):
        bench = make(ScriptedVenue())
        bench.reconciler.verify_soon = lambda symbol, found=(asked := []): found.append(symbol)

        async def place(request, bench=bench, error=error):
            await bench.gateway.absorb(bench.venue.accept(request), "stream")
            raise error

        bench.venue.script("place_order", place)
        sent = await bench.gateway.send(entry(f"s{number}"))
        assert sent.order.state is OrderState.ACCEPTED
        assert not sent.error.outcome_known
        assert asked == [BTC]
        assert bench.alarms == []


@virtual
async def test_a_lost_answer_is_no_doubt_when_the_stream_has_told(make):
    """A6: evidence from anywhere ends the doubt before it begins."""
    bench = make()

    async def place(request):
        await bench.gateway.absorb(bench.venue.accept(request), "stream")
        raise ConnectionResetError

    bench.venue.script("place_order", place)
    sent = await bench.gateway.send(entry())
    assert sent.order.state is OrderState.ACCEPTED
    assert bench.changes(sent.order) == ["submit", "accept"]
    await bench.quiet()
    assert bench.venue.calls["get_order"] == 0


@virtual
async def test_a_revoked_key_halts_once(make):
    """E8: the account is halted; further refusals are no further news."""
    bench = make()
    bench.venue.always("place_order", AuthenticationError("revoked"))
    await bench.open_position_by_outside()
    for _ in range(2):
        await bench.gateway.send(reduction())
    states = bench.journal.records(TradingStateChanged)
    assert [(s.state, s.actor) for s in states] == [(TradingState.HALTED, "gateway")]
    assert (await bench.gateway.send(entry())).denial.code is DenialCode.TRADING_HALTED


# -- denials -------------------------------------------------------------------------------------------


@virtual
async def test_a_denied_entry_leaves_no_trace(make):
    """Nothing is journalled and nothing is sent."""
    bench = make()
    bench.recorder.record(SymbolBlocked(symbol=BTC, blocked=True, cause="x"))
    before = bench.journal.last_seq
    sent = await bench.gateway.send(entry())
    assert (sent.order, sent.denial.code) == (None, DenialCode.SYMBOL_BLOCKED)
    assert bench.journal.last_seq == before
    assert bench.venue.sent == []


@virtual
async def test_reductions_pass_what_stops_entries(make):
    """I15: halted, blocked and in doubt: what makes the position smaller leaves all the same."""
    bench = make()
    await bench.open()
    bench.recorder.record(SymbolBlocked(symbol=BTC, blocked=True, cause="x"))
    bench.gateway.halt("test", actor="me")
    sent = await bench.gateway.send(reduction())
    assert sent.order.state is OrderState.FILLED
    assert bench.book.positions.quantity(BTC) == 0
    denied = await bench.gateway.send(reduction())
    assert denied.denial.code is DenialCode.NO_POSITION_TO_REDUCE


@virtual
async def test_two_live_tries_of_one_signal_are_one_too_many(make):
    """I1: the door itself refuses the second while the first may be live."""
    bench = make()
    first = await bench.gateway.send(entry())
    second = await bench.gateway.send(entry())
    assert second.denial.code is DenialCode.PENDING_ORDER_EXISTS
    assert bench.venue.sent == [first.order.client_order_id]


@virtual
async def test_an_id_that_was_used_is_never_sent_again(make):
    """F2: should the revisions be forgotten, the order that has the id is left alone."""
    bench = make()
    bench.venue.script("place_order", OrderRejectedError("no"))
    first = await bench.gateway.send(entry())
    bench.book.revisions.clear()
    again = await bench.gateway.send(entry())
    assert again.denial.code is DenialCode.DUPLICATE_SIGNAL
    assert bench.venue.sent == [first.order.client_order_id]
    assert len(bench.intents()) == 1


@virtual
async def test_a_refused_try_is_followed_by_the_next_revision(make):
    """A definite answer uses up the id; both revisions belong to one signal."""
    bench = make()
    bench.venue.script("place_order", OrderRejectedError("no"))
    await bench.gateway.send(entry())
    await bench.gateway.send(entry())
    assert [i.revision for i in bench.intents()] == [0, 1]
    assert len(set(bench.venue.sent)) == 2


# -- the journal ---------------------------------------------------------------------------------------


@virtual
async def test_without_a_commit_no_entry_leaves(make):
    """I3 G11: the order is closed as never sent, and the caller hears why."""
    bench = make()
    bench.journal.on_commit = fail_later(bench.journal)
    sent = await bench.gateway.send(entry())
    assert sent.denial.code is DenialCode.JOURNAL_UNAVAILABLE
    assert sent.denial.context == {"reason": "the disk is full"}
    assert sent.order.state is OrderState.FAILED
    assert bench.venue.sent == []
    denied = await bench.gateway.send(entry("s2"))
    assert (denied.order, denied.denial.code) == (None, DenialCode.JOURNAL_UNAVAILABLE)


def fail_later(journal):
    async def commit():
        journal.fails = True

    return commit


@virtual
async def test_without_a_commit_a_reduction_leaves_after_an_emergency_record(make):
    """Its intent is kept beside the journal first."""
    bench = make()
    await bench.open()
    bench.journal.fails = True
    kept = []
    bench.venue.script(
        "place_order",
        lambda request: kept.append(len(bench.journal.emergencies)) or bench.venue._place(request),
    )
    sent = await bench.gateway.send(reduction())
    assert sent.order.state is OrderState.FILLED
    assert kept == [1]
    assert bench.journal.emergencies[0].record == bench.intents()[-1]


@virtual
async def test_without_any_record_nothing_leaves(make):
    """I3: when not even the emergency file takes it, the reduction stays here."""
    bench = make()
    await bench.open()
    sends = len(bench.venue.sent)
    bench.journal.fails = bench.journal.emergency_fails = True
    sent = await bench.gateway.send(reduction())
    assert sent.denial.code is DenialCode.JOURNAL_UNAVAILABLE
    assert sent.order.state is OrderState.FAILED
    assert len(bench.venue.sent) == sends


@pytest.mark.parametrize("moment", ["before", "during"])
@virtual
async def test_a_process_that_was_replaced_sends_nothing(make, moment):
    """I26: checked before the intent and right before the send, for entries and reductions."""
    bench = make()
    await bench.open()
    sends = len(bench.venue.sent)

    async def lose_the_lease():
        bench.journal.is_current = False

    if moment == "before":
        await lose_the_lease()
    else:
        bench.journal.on_commit = lose_the_lease
    for command in (entry("s2"), reduction()):
        bench.journal.is_current = moment == "during"
        sent = await bench.gateway.send(command)
        assert sent.denial.code is DenialCode.JOURNAL_UNAVAILABLE
        assert "another process" in sent.denial.context["reason"]
        assert (sent.order is None) is (moment == "before")
        assert sent.order is None or sent.order.state is OrderState.FAILED
    assert len(bench.venue.sent) == sends


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (
            TradingStateChanged(state=TradingState.HALTED, cause="c", actor="a"),
            DenialCode.TRADING_HALTED,
        ),
        (SymbolBlocked(symbol=BTC, blocked=True, cause="c"), DenialCode.SYMBOL_BLOCKED),
    ],
)
@virtual
async def test_what_comes_during_the_commit_stops_the_send(make, record, code):
    """I15: a halt between commit and send is in time."""
    bench = make()

    async def halt():
        bench.recorder.record(record)

    bench.journal.on_commit = halt
    sent = await bench.gateway.send(entry())
    assert sent.denial.code is code
    assert sent.order.state is OrderState.FAILED
    assert sent.order.reason == f"not sent: {sent.denial}"
    assert bench.venue.sent == []


@virtual
async def test_a_position_that_shrinks_during_the_commit_stops_the_reduction(make):
    """I13: the proof is made again right before the send."""
    bench = make()
    await bench.open()
    sends = len(bench.venue.sent)

    async def shrink():
        bench.journal.on_commit = None
        bench.recorder.record(
            ExternalChange(symbol=BTC, quantity=D("-0.5"), price=D(100), reason="by hand")
        )

    bench.journal.on_commit = shrink
    sent = await bench.gateway.send(reduction())
    assert str(sent.denial) == f"NO_POSITION_TO_REDUCE: symbol={BTC}, asked=1, reducible=0.5"
    assert sent.order.state is OrderState.FAILED
    assert len(bench.venue.sent) == sends


# -- callers that give up ------------------------------------------------------------------------------


@virtual
async def test_a_caller_that_gives_up_during_the_commit_sends_nothing(make):
    """F10: the order is closed as never sent, also in the journal."""
    bench = make()
    bench.journal.on_commit = lambda: asyncio.sleep(1)
    task = asyncio.ensure_future(bench.gateway.send(entry()))
    await asyncio.sleep(0.5)
    assert bench.order().state is OrderState.NEW
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.order().state is OrderState.FAILED
    assert bench.changes(bench.order()) == ["fail"]
    assert bench.venue.sent == []


@virtual
async def test_a_caller_that_gives_up_during_the_send_leaves_doubt_and_a_resolver(make):
    """A13: bytes may have left; exactly one send, and the truth is found without the caller."""
    bench = make()

    async def place(request):
        bench.venue.accept(request)
        await asyncio.sleep(5)

    bench.venue.script("place_order", place)
    task = asyncio.ensure_future(bench.gateway.send(entry()))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.quiet()
    assert bench.changes(bench.order()) == ["submit", "lose", "accept"]
    assert bench.order().errors == ("CancelledError",)
    assert len(bench.venue.sent) == 1


# -- the venue's pause ---------------------------------------------------------------------------------


def slow(seconds):
    return RateLimitError("slow down", retry_after=timedelta(seconds=seconds))


@virtual
async def test_nothing_is_sent_before_retry_after_ends(make):
    """I10 E1: orders wait for the end of the pause, also those that were under way when it began."""
    bench = make()
    await bench.open(signal="s0")
    loop = asyncio.get_running_loop()
    sent_at = []
    bench.venue.always(
        "place_order", lambda request: sent_at.append(loop.time()) or bench.venue._place(request)
    )
    bench.venue.script("place_order", slow(10))
    began = loop.time()
    bench.journal.on_commit = lambda: asyncio.sleep(0.1)
    done = await asyncio.gather(
        *(bench.gateway.send(c) for c in (entry("s1"), entry("s2"), reduction("0.5")))
    )
    late = await bench.gateway.send(reduction("0.2", parent="x2"))
    assert [d.denial for d in (*done, late)] == [None] * 4
    assert all(at >= began + 10 for at in sent_at)
    assert len(sent_at) == 3


@virtual
async def test_an_entry_does_not_wait_for_a_long_pause(make):
    """It would be old when it leaves; a reduction waits as long as it takes."""
    bench = make()
    await bench.open(signal="s0")
    bench.venue.script("place_order", slow(31))
    began = asyncio.get_running_loop().time()
    await bench.gateway.send(entry("s1"))
    denied = await bench.gateway.send(entry("s2"))
    assert str(denied.denial) == "VENUE_UNAVAILABLE: retry_after_seconds=31"
    sent = await bench.gateway.send(reduction())
    assert sent.order.state is OrderState.FILLED
    assert asyncio.get_running_loop().time() - began == pytest.approx(31)
    bench.venue.script("place_order", after(0.1, slow(5)), after(0.2, slow(3)))
    await asyncio.gather(bench.gateway.send(entry("s3")), bench.gateway.send(entry("s4")))
    assert bench.gateway.pace.left() == pytest.approx(4.9), "the longer pause holds"


@virtual
async def test_a_caller_that_gives_up_during_the_pause_sends_nothing(make):
    """The order is closed as never sent, not left open for ever."""
    bench = make()
    await bench.open(signal="s0")
    bench.journal.on_commit = lambda: asyncio.sleep(0.1)
    bench.venue.script("place_order", slow(10))
    task = asyncio.ensure_future(bench.gateway.send(entry("s1")))
    other = asyncio.ensure_future(bench.gateway.send(entry("s2")))
    await asyncio.sleep(1)
    assert bench.order().state is OrderState.NEW
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other
    await task
    assert bench.order().state is OrderState.FAILED


# -- sending again -------------------------------------------------------------------------------------


@virtual
async def test_only_what_provably_never_arrived_is_sent_again(make):
    """The same order, byte for byte, under the same id; anything that may be live is refused."""
    bench = make()
    bench.venue.script("place_order", NotSentError("no route"))
    command = entry()
    sent = await bench.gateway.send(command)
    assert bench.gateway.same_payload(sent.order, command)
    assert not bench.gateway.same_payload(sent.order, entry(quantity="2"))
    again = await bench.gateway.resend(sent.order, command)
    assert again.order is sent.order
    assert (sent.order.state, sent.order.attempts) == (OrderState.ACCEPTED, 2)
    assert bench.venue.sent == [sent.order.client_order_id] * 2
    with pytest.raises(OrderStatusUnknownError, match="may be live: it is not sent again"):
        await bench.gateway.resend(sent.order, command)
    assert len(bench.intents()) == 1


@virtual
async def test_the_venues_own_number_is_journalled_and_handed_back(make):
    """What the adapter reserved is durable before the first send, and every send of the order is told it."""
    bench = make()
    told = []

    def reserve(request, earlier=""):
        told.append((request.client_order_id, earlier))
        return earlier or "4711"

    bench.venue.reserve = reserve
    bench.venue.script("place_order", NotSentError("no route"))
    command = entry()
    sent = await bench.gateway.send(command)
    (intent,) = bench.intents()
    assert intent.reserved == "4711"
    await bench.gateway.resend(sent.order, command)
    key = sent.order.client_order_id
    assert told == [(key, ""), (key, "4711"), (key, "4711")]


@virtual
async def test_an_order_seen_while_its_repetition_commits_is_not_sent_again(make):
    """A6 A14: it was presumed absent and shows up between proof and send: one is enough."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    bench.venue.script("place_order", ConnectionResetError())
    sent = await bench.gateway.send(entry())
    await bench.quiet()
    assert sent.order.state is OrderState.PRESUMED_ABSENT

    async def show():
        await bench.gateway.absorb(bench.venue.accept(sent.order.request), "stream")

    bench.journal.on_commit = show
    again = await bench.gateway.resend(sent.order, entry())
    assert (again.denial, again.error) == (None, None)
    assert sent.order.state is OrderState.ACCEPTED
    assert len(bench.venue.sent) == 1
    assert bench.alarms == ["LATE_SIGHT"]


@virtual
async def test_a_repetition_is_durable_before_it_leaves(make):
    """I2 I18: a crash right after the second send must not bring the proof of absence of the first one back."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    bench.venue.script("place_order", ConnectionResetError())
    sent = await bench.gateway.send(entry())
    await bench.quiet()
    assert sent.order.state is OrderState.PRESUMED_ABSENT
    seen = []

    def arrives(request):
        durable = fold(bench.journal.entries[: bench.journal.committed])
        seen.append(durable.orders[request.client_order_id].state)
        return bench.venue._place(request)

    bench.venue.script("place_order", arrives)
    await bench.gateway.resend(sent.order, entry())
    assert seen == [OrderState.SUBMITTED]
    assert sent.order.state is OrderState.ACCEPTED


@virtual
@pytest.mark.parametrize("what", ["halted", "disk", "shown", "cancelled"])
async def test_what_comes_while_a_repetition_is_made_durable(make, what):
    """A halt, a full disk, a late sight or a caller who gives up in that moment: it does not leave a second time."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    bench.venue.script("place_order", ConnectionResetError())
    sent = await bench.gateway.send(entry())
    await bench.quiet()

    async def on_commit():
        if sent.order.state is not OrderState.SUBMITTED:
            return
        if what == "halted":
            bench.gateway.halt("a test", actor="me")
        elif what == "disk":
            bench.journal.fails = True
        elif what == "shown":
            await bench.gateway.absorb(bench.venue.accept(sent.order.request), "stream")
        else:
            raise asyncio.CancelledError

    bench.journal.on_commit = on_commit
    if what == "cancelled":
        with pytest.raises(asyncio.CancelledError):
            await bench.gateway.resend(sent.order, entry())
    else:
        again = await bench.gateway.resend(sent.order, entry())
        code = {"halted": DenialCode.TRADING_HALTED, "disk": DenialCode.JOURNAL_UNAVAILABLE}
        assert (None if again.denial is None else again.denial.code) == code.get(what)
    assert len(bench.venue.sent) == 1
    bench.journal.fails, bench.journal.on_commit = False, None
    shown = what == "shown"
    assert sent.order.state is (OrderState.ACCEPTED if shown else OrderState.IN_DOUBT)
    await bench.quiet()
    assert sent.order.state is (OrderState.ACCEPTED if shown else OrderState.PRESUMED_ABSENT)


@virtual
async def test_a_stop_leaves_again_though_the_journal_cannot_commit(make):
    """Protection counts for more than the record of its repetition."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    await bench.open()
    command = reduction(role=OrderRole.STOP, stop="95", parent=f"{BTC}#1")
    bench.venue.script("place_order", ConnectionResetError())
    lost = await bench.gateway.send(command)
    await bench.quiet()
    bench.journal.fails = True
    again = await bench.gateway.send(command)
    assert again.order is lost.order
    assert again.order.state is OrderState.ACCEPTED


@virtual
async def test_a_repetition_that_may_not_leave_is_closed_or_stays_watched(make):
    """Denied: an unsent order is closed, one that is presumed absent stays so."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    bench.venue.script("place_order", NotSentError("no route"), ConnectionResetError())
    unsent = await bench.gateway.send(entry("s1"))
    absent = await bench.gateway.send(entry("s2"))
    await bench.quiet()
    bench.gateway.halt("test", actor="me")
    denied = [
        await bench.gateway.resend(each.order, entry(signal))
        for each, signal in ((unsent, "s1"), (absent, "s2"))
    ]
    assert [d.denial.code for d in denied] == [DenialCode.TRADING_HALTED] * 2
    assert unsent.order.state is OrderState.FAILED
    assert absent.order.state is OrderState.PRESUMED_ABSENT
    assert len(bench.venue.sent) == 2


@virtual
async def test_a_stop_that_never_arrived_keeps_its_id(make):
    """G2: what a kill left between intent and send goes out again as it was, once it is proven absent."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    await bench.open()
    command = reduction(role=OrderRole.STOP, stop="95", parent=f"{BTC}#1")
    bench.venue.script("place_order", ConnectionResetError())
    lost = await bench.gateway.send(command)
    await bench.quiet()
    assert lost.order.state is OrderState.PRESUMED_ABSENT
    again = await bench.gateway.send(command)
    assert again.order is lost.order
    assert again.order.state is OrderState.ACCEPTED
    other = await bench.gateway.send(reduction("0.5", role=OrderRole.EXIT, parent="x"))
    assert other.denial.code is DenialCode.NO_POSITION_TO_REDUCE


@virtual
async def test_an_absent_stop_that_was_cancelled_keeps_no_other_one_from_leaving(make):
    """I12: somebody has cancelled all meanwhile; the same terms are wanted again, by an order of their own."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    await bench.open()
    command = reduction(role=OrderRole.STOP, stop="95", parent=f"{BTC}#1")
    bench.venue.script("place_order", ConnectionResetError())
    lost = (await bench.gateway.send(command)).order
    await bench.quiet()
    assert lost.state is OrderState.PRESUMED_ABSENT
    await bench.gateway.cancel(lost, "cancel-all")
    again = await bench.gateway.send(command)
    assert again.order is not lost
    assert again.order.revision == 1
    assert again.order.state is OrderState.ACCEPTED
    assert bench.venue.sent[-1] == again.order.client_order_id


@virtual
async def test_another_stop_than_the_absent_one_gets_an_id_of_its_own(make):
    """Other terms are another order; and a marketable one is not repeated where absence can be overtaken."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=1)))
    await bench.open()
    stop = reduction(role=OrderRole.STOP, stop="95", parent="p")
    bench.venue.script("place_order", ConnectionResetError(), ConnectionResetError())
    first = await bench.gateway.send(stop)
    second = await bench.gateway.send(reduction(role=OrderRole.EXIT, parent="p"))
    assert second.denial.code is DenialCode.NO_POSITION_TO_REDUCE
    await bench.quiet(3)
    assert first.order.state is OrderState.PRESUMED_ABSENT
    exit_ = await bench.gateway.send(reduction(role=OrderRole.EXIT, parent="p"))
    await bench.quiet(3)
    assert exit_.order.state is OrderState.PRESUMED_ABSENT
    moved = await bench.gateway.send(reduction(role=OrderRole.STOP, stop="96", parent="p"))
    assert moved.order is not first.order
    assert moved.order.revision == 1
    await bench.gateway.cancel(moved.order, "test")
    again = await bench.gateway.send(reduction(role=OrderRole.EXIT, parent="p"))
    assert again.order is not exit_.order


@virtual
async def test_giving_up_closes_an_unsent_order(make):
    """FAILED is proven never sent."""
    bench = make()
    bench.venue.script("place_order", NotSentError("no route"))
    sent = await bench.gateway.send(entry())
    bench.gateway.give_up(sent.order, "enough")
    assert (sent.order.state, sent.order.reason) == (OrderState.FAILED, "enough")


@virtual
async def test_the_limit_of_time_is_an_option(make):
    """A venue that is slower than its limit is asked, not waited for."""
    bench = make()
    bench.gateway.send_timeout = 1.0
    bench.venue.script("place_order", after(2, bench.venue._place))
    sent = await bench.gateway.send(entry())
    assert sent.order.state is OrderState.IN_DOUBT
    assert bench.journal.records(Intent)[0].request.client_order_id == bench.venue.sent[0]


@virtual
async def test_a_person_is_told_when_commands_wait_for_long(make):
    """E5: an entry is denied during a long pause, a reduction waits for its end, and one alarm tells of the pause."""
    bench = make()
    await bench.open("2")
    resting = (await bench.gateway.send(entry("s2"))).order
    bench.gateway.pace.note(slow(20))
    waiting = [
        asyncio.create_task(bench.gateway.send(reduction("1", parent=parent))) for parent in "ab"
    ]
    await asyncio.sleep(15)
    bench.gateway.pace.note(slow(100))
    await asyncio.sleep(4)
    assert bench.alarms == [], "a short one is no news, and so far it was one"
    waiting.append(asyncio.create_task(bench.gateway.cancel(resting, "test")))
    await asyncio.sleep(2)
    assert bench.alarms == ["VENUE_PAUSE"]
    await asyncio.gather(*waiting)
    assert bench.alarms == ["VENUE_PAUSE"]
    assert resting.state is OrderState.CANCELLED
    assert bench.book.positions.quantity(BTC) == 0
    bench.gateway.pace.note(slow(31))
    assert (await bench.gateway.send(entry("s3"))).denial.code is DenialCode.VENUE_UNAVAILABLE
    assert bench.alarms == ["VENUE_PAUSE"], "an entry is denied instead"


@virtual
async def test_another_long_pause_is_told_anew(make):
    """One alarm each."""
    bench = make()
    order = (await bench.gateway.send(entry("s1"))).order
    other = (await bench.gateway.send(entry("s2"))).order
    for each in (order, other):
        bench.gateway.pace.note(slow(31))
        await bench.gateway.cancel(each, "test")
    assert bench.alarms == ["VENUE_PAUSE"] * 2


# -- the venue's rate ------------------------------------------------------------------------------------


def paced(count=5, **capabilities):
    return ScriptedVenue(order_rate=(count, timedelta(seconds=10)), **capabilities)


def now():
    return asyncio.get_running_loop().time()


@virtual
async def test_entries_keep_the_venues_rate_and_a_stop_need_not_wait_for_them(make):
    """E1 E3: what the venue would refuse waits here; the last fifth of the rate is for what reduces risk."""
    bench = make(paced())
    await bench.open()
    waiting = [
        asyncio.ensure_future(bench.gateway.send(entry(f"e{n}", quantity="0.02"))) for n in range(6)
    ]
    await bench.quiet()
    assert bench.venue.calls["place_order"] == 4
    stop = await bench.gateway.send(reduction(role=OrderRole.STOP, stop="95"))
    assert is_live(stop.order)
    assert (bench.venue.calls["place_order"], now()) == (5, pytest.approx(0.05))
    sent = await asyncio.gather(*waiting)
    assert all(is_live(each.order) for each in sent)
    assert 10 <= now() < 10.1


@virtual
async def test_an_entry_never_waits_longer_than_for_a_pause(make):
    """Queued, not dropped; but after `longest_pause` its price is of the past: it is denied and was never sent."""
    bench = make(paced(1))
    sent = await asyncio.gather(*(bench.gateway.send(entry(f"e{n}")) for n in range(5)))
    denied = [each for each in sent if each.denial is not None]
    assert [each.denial.code for each in denied] == [DenialCode.THROTTLED] * 2
    assert denied[0].order.state is OrderState.FAILED
    assert (bench.venue.calls["place_order"], now()) == (3, 30)


@virtual
async def test_a_halt_reaches_those_that_wait_for_their_turn(make):
    """They are judged anew when their turn comes, and what they do not use is free for the next."""
    bench = make(paced(3))
    await asyncio.gather(*(bench.gateway.send(entry(f"e{n}")) for n in range(2)))
    waiting = asyncio.ensure_future(bench.gateway.send(entry("late")))
    await bench.quiet()
    bench.gateway.halt("enough", actor="test")
    denied = await waiting
    assert denied.denial.code is DenialCode.TRADING_HALTED
    assert (bench.venue.calls["place_order"], now()) == (2, 10)
    assert bench.gateway.throttle.wait(Use.ENTRY) == 0


@virtual
@pytest.mark.parametrize(("counts", "after"), [(True, 10), (False, 0)])
async def test_cancels_count_where_the_venue_counts_them(make, counts, after):
    """Where it does not, an emergency is over as fast as the line carries it."""
    bench = make(paced(5, rate_counts_cancels=counts))
    sent = [await bench.gateway.send(entry(f"e{n}")) for n in range(4)]
    await asyncio.gather(*(bench.gateway.cancel(each.order, "enough") for each in sent))
    assert bench.venue.calls["cancel_order"] == 4
    assert (bench.venue.open, now()) == ([], after)


@virtual
async def test_a_pause_that_begins_in_the_line_holds(make):
    """Retry-After counts for those too who have waited for their turn already."""
    bench = make(paced(1))
    await bench.gateway.send(entry("first"))
    waiting = asyncio.ensure_future(bench.gateway.send(entry("second")))
    await bench.quiet(9)
    bench.gateway.pace.note(slow(4))
    assert is_live((await waiting).order)
    assert now() == pytest.approx(13)

"""What became of an order: asked until there is proof, and never concluded from silence."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.support.bench import virtual
from tests.support.orders import AT, PATHS, ask, changed, order, report
from tests.support.tickets import entry
from tests.support.venue import ScriptedVenue, after, never

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    OrderNotFoundError,
    RateLimitError,
)
from execkit.model.order import OrderState
from execkit.model.records import OrderChanged, Source
from execkit.orders.resolver import SCHEDULE, Sight, needs_proof

D = Decimal
BLIND = ExchangeUnavailableError("503")
QUERIES = ("get_order", "open_orders", "fills_since")


def now():
    return asyncio.get_running_loop().time()


async def lost(bench, reached=True, **details):
    """Return an order whose answer was lost; *reached* tells whether the venue has it."""

    def place(request):
        if reached:
            bench.venue.accept(request)
        raise ConnectionResetError

    bench.venue.script("place_order", place)
    sent = await bench.gateway.send(entry(**details))
    assert sent.order.state is OrderState.IN_DOUBT
    return sent.order


def blind(bench, *methods):
    for method in QUERIES:
        bench.venue.always(method, BLIND if method in methods else None)


def sight_of(bench, order_):
    (record,) = [
        r
        for r in bench.journal.records(OrderChanged)
        if r.client_order_id == order_.client_order_id and r.source is Source.LOOKUP
    ]
    return record.event.value


# -- presence ------------------------------------------------------------------------------------------


@virtual
async def test_found_by_id_at_once(make):
    """A2: the first look needs no waiting; nothing is sent again."""
    bench = make()
    began = now()
    order_ = await lost(bench)
    await bench.quiet(0)
    assert (order_.state, sight_of(bench, order_)) == (OrderState.ACCEPTED, "accept")
    assert now() == began
    assert bench.venue.calls["get_order"] == 1
    assert len(bench.venue.sent) == 1


@virtual
async def test_found_among_the_open_orders(make):
    """A15: the look-up by id says that there is none, the list shows it."""
    bench = make()
    bench.venue.always("get_order", OrderNotFoundError("?"))
    order_ = await lost(bench)
    await bench.quiet(0)
    assert order_.state is OrderState.ACCEPTED
    assert bench.venue.calls["open_orders"] == 1


@virtual
async def test_found_by_its_fills(make):
    """A3: executed at once, no longer open and not found by id: the trade is the proof."""
    bench = make()
    bench.venue.always("get_order", OrderNotFoundError("?"))
    order_ = await lost(bench)
    bench.venue.fill(order_.client_order_id)
    await bench.quiet(0)
    assert order_.state is OrderState.FILLED
    assert [f.trade_id for f in order_.fills] == ["t1"]


@virtual
async def test_a_fill_that_names_the_venues_id_only_is_proof_once_that_is_known(make):
    """The open orders named it; the fill has no id of ours."""
    bench = make()
    bench.venue.always("get_order", OrderNotFoundError("?"))
    order_ = await lost(bench)
    await bench.quiet(0)
    done = bench.venue.fill(order_.client_order_id, "0.5")
    bench.venue.fills[:] = [
        replace(done, client_order_id=""),
        replace(done, client_order_id="web", trade_id="other", venue_order_id="v99"),
    ]
    assert await bench.resolver.fetch_fills(order_)
    assert order_.filled == D("0.5")


@virtual
async def test_an_open_order_may_be_told_by_the_venues_id(make):
    """Some venues do not echo our id in lists."""
    bench = make()
    bench.venue.always("get_order", OrderNotFoundError("?"))
    sent = await bench.gateway.send(entry())
    nameless = replace(bench.venue.orders[sent.order.client_order_id], client_order_id="")
    bench.venue.always("open_orders", lambda _symbol: [nameless])
    assert await bench.resolver.look(sent.order) is Sight.FOUND


@virtual
async def test_a_venue_without_a_look_up_by_our_id_is_asked_for_lists(make):
    """Until it has told its own id."""
    bench = make(ScriptedVenue(lookup_by_client_id=False))
    order_ = await lost(bench)
    await bench.quiet(0)
    assert order_.state is OrderState.ACCEPTED
    assert bench.venue.calls["get_order"] == 0
    await bench.resolver.look(order_)
    assert bench.venue.calls["get_order"] == 1


@virtual
async def test_the_stream_ends_the_wait(make):
    """A6: news from anywhere are proof, at once."""
    bench = make()
    blind(bench, *QUERIES)
    order_ = await lost(bench)
    await bench.quiet(20)
    looks = bench.venue.calls["get_order"]
    waiter = asyncio.ensure_future(bench.resolver.settled(order_, 100))
    began = now()
    await bench.gateway.absorb(bench.venue.orders[order_.client_order_id], Source.STREAM)
    assert await waiter
    assert now() == began
    await bench.quiet(30)
    assert bench.venue.calls["get_order"] == looks, "nobody asks any more"


@virtual
async def test_settled_has_its_limit(make):
    """Whoever waits is told when there is no proof in time."""
    bench = make()
    blind(bench, *QUERIES)
    order_ = await lost(bench)
    began = now()
    assert not await bench.resolver.settled(order_, 10)
    assert now() == began + 10


@virtual
async def test_missing_executions_are_fetched_from_far_back(make):
    """B16: the venue says that there are some; our clock may have been ahead of its own."""
    bench = make()
    asked = []
    sent = await bench.gateway.send(entry())
    await bench.quiet(86_400)
    bench.venue.always("fills_since", lambda since: asked.append(since) or bench.venue.fills)
    bench.venue.fill(sent.order.client_order_id, "0.4")
    told = replace(bench.venue.end(sent.order.client_order_id), fills=())
    await bench.gateway.absorb(told, Source.STREAM)
    assert (sent.order.state, sent.order.filled) == (OrderState.CANCELLED, D("0.4"))
    assert asked == [sent.order.sent_at - timedelta(days=1)]


# -- absence -------------------------------------------------------------------------------------------


@virtual
async def test_absence_needs_the_window_and_all_three_queries(make):
    """A1 A14: only queries that began after the window, and all succeeded, prove that it is not there."""
    window = timedelta(seconds=30)
    bench = make(ScriptedVenue(absence_window=window))
    began = now()
    order_ = await lost(bench, reached=False)
    while order_.state is OrderState.IN_DOUBT:
        await asyncio.sleep(0.01)
    assert order_.state is OrderState.PRESUMED_ABSENT
    looks = [0.0]
    for wait in (*SCHEDULE, SCHEDULE[-1], SCHEDULE[-1]):
        looks.append(looks[-1] + wait)
    proven_at = next(at for at in looks if at >= 30)
    assert now() - began == pytest.approx(proven_at, abs=0.02)
    assert order_.reason == "not among open or closed orders nor fills"
    assert bench.venue.calls["get_order"] == looks.index(proven_at) + 1


@virtual
async def test_a_window_of_zero_proves_at_once(make):
    """The venue's answers are final."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    order_ = await lost(bench, reached=False)
    await bench.quiet(0)
    assert order_.state is OrderState.PRESUMED_ABSENT
    assert bench.venue.calls["get_order"] == 1


@virtual
async def test_what_the_venue_calls_a_duplicate_is_not_absent(make):
    """A18: where queries lag behind, an order sent again is said to be there; it is not sent a third time."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    blank = {
        "get_order": OrderNotFoundError("never heard of it"),
        "open_orders": lambda _symbol: [],
        "fills_since": lambda _since: [],
    }
    for method, answer in blank.items():
        bench.venue.always(method, answer)
    order_ = await lost(bench)
    await bench.quiet(0)
    assert order_.state is OrderState.PRESUMED_ABSENT
    bench.venue.script("place_order", DuplicateClientOrderIdError("the id is in use"))
    await bench.gateway.resend(order_, entry())
    await bench.quiet(3600)
    assert (order_.state, order_.attempts) == (OrderState.IN_DOUBT, 2)
    assert bench.alarms == ["IN_DOUBT"]
    for method in blank:
        bench.venue.always(method)
    await bench.quiet(20)
    assert order_.state is OrderState.ACCEPTED


@virtual
async def test_what_a_venue_has_forgotten_by_now_is_not_absent(make):
    """A14 A3: where the venue shows what has ended for a while only, not finding an older order proves nothing."""
    bench = make(
        ScriptedVenue(absence_window=timedelta(seconds=30), lookup_lasts=timedelta(seconds=20))
    )
    order_ = await lost(bench, reached=False)
    await bench.quiet(86_400)
    assert order_.state is OrderState.IN_DOUBT
    assert bench.alarms == ["IN_DOUBT"]
    bench = make(
        ScriptedVenue(absence_window=timedelta(seconds=30), lookup_lasts=timedelta(seconds=200))
    )
    order_ = await lost(bench, reached=False)
    await bench.quiet(86_400)
    assert order_.state is OrderState.PRESUMED_ABSENT


@virtual
async def test_without_a_window_absence_is_never_proven(make):
    """It stays in doubt for ever, and asked for."""
    bench = make(ScriptedVenue(absence_window=None))
    order_ = await lost(bench, reached=False)
    await bench.quiet(86_400)
    assert order_.state is OrderState.IN_DOUBT
    assert bench.venue.calls["get_order"] > 5_000
    assert bench.alarms == ["IN_DOUBT"]


@pytest.mark.parametrize("failing", QUERIES)
@virtual
async def test_a_failed_query_proves_nothing(make, failing):
    """One blind side is enough: no absence until it sees again."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    blind(bench, failing)
    order_ = await lost(bench, reached=False)
    await bench.quiet(3600)
    assert order_.state is OrderState.IN_DOUBT
    blind(bench)
    await bench.quiet(20)
    assert order_.state is OrderState.PRESUMED_ABSENT


@virtual
async def test_a_query_that_hangs_is_a_failed_query(make):
    """Ten seconds each; the next side is asked all the same."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    bench.venue.script("get_order", never)
    began = now()
    order_ = await lost(bench)
    await bench.quiet(11)
    assert order_.state is OrderState.ACCEPTED, "found in the list of open orders"
    assert now() - began == pytest.approx(11, abs=0.1)


@virtual
async def test_a_pause_of_the_venue_is_a_failed_query(make):
    """I10: nothing is asked before it ends."""
    bench = make()
    bench.venue.script("get_order", RateLimitError("slow", retry_after=timedelta(seconds=60)))
    order_ = await lost(bench)
    await bench.quiet(45)
    assert bench.venue.calls["get_order"] == 1
    assert bench.venue.calls["open_orders"] == bench.venue.calls["fills_since"] == 0
    await bench.quiet(45)
    assert order_.state is OrderState.ACCEPTED


@virtual
async def test_the_window_runs_from_the_last_send(make):
    """The proof that an earlier send never arrived says nothing of the later one."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=10)))
    order_ = await lost(bench, reached=False)
    while order_.state is OrderState.IN_DOUBT:
        await asyncio.sleep(0.01)
    bench.venue.script("place_order", ConnectionResetError())
    bench.journal.on_commit = lambda: asyncio.sleep(0.01)
    await bench.gateway.resend(order_, entry())
    assert (order_.state, order_.attempts) == (OrderState.IN_DOUBT, 2)
    await bench.quiet(9.5)
    assert order_.state is OrderState.IN_DOUBT
    await bench.quiet(20)
    assert order_.state is OrderState.PRESUMED_ABSENT


@virtual
async def test_a_new_send_that_is_lost_while_the_proof_commits_starts_the_window_anew(make):
    """The resolver is still at the old doubt when the new one begins."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=10)))
    order_ = await lost(bench, reached=False)
    bench.journal.on_commit = lambda: asyncio.sleep(0.5)
    while order_.state is OrderState.IN_DOUBT:
        await asyncio.sleep(0.01)
    bench.journal.on_commit = None
    bench.venue.script("place_order", ConnectionResetError())
    await bench.gateway.resend(order_, entry())
    lost_at = now()
    assert order_.state is OrderState.IN_DOUBT
    while order_.state is OrderState.IN_DOUBT:
        await asyncio.sleep(0.01)
    assert now() - lost_at >= 10


@virtual
async def test_cancels_do_not_put_the_proof_off(make):
    """Whoever tries to cancel an order in doubt again and again gets his proof all the same."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=10)))
    order_ = await lost(bench, reached=False)
    began = now()
    while order_.state is OrderState.IN_DOUBT:
        await bench.gateway.cancel(order_, "again")
        await asyncio.sleep(2)
    assert now() - began < 25


# -- doubtful answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie", [{"quantity": D(0)}, {"symbol": "ETH/USDT"}, {"venue_order_id": ""}, None]
)
@virtual
async def test_an_answer_about_something_else_is_no_answer(make, lie):
    """A10: neither presence nor absence follows from it."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    order_ = await lost(bench, reached=False)
    bench.venue.always("get_order", lambda _id: None if lie is None else report(order_, **lie))
    await bench.quiet(0)
    assert order_.state is OrderState.IN_DOUBT
    assert await bench.resolver.look(order_) is Sight.BLIND
    bench.venue.always("get_order")
    await bench.quiet(5)
    assert order_.state is OrderState.PRESUMED_ABSENT


@virtual
async def test_a_person_is_told_after_five_looks(make):
    """Once; and the asking goes on."""
    bench = make()
    blind(bench, *QUERIES)
    order_ = await lost(bench)
    await bench.quiet(1.8)
    assert (bench.venue.calls["get_order"], bench.alarms) == (4, [])
    await bench.quiet(0.2)
    assert (bench.venue.calls["get_order"], bench.alarms) == (5, ["IN_DOUBT"])
    await bench.quiet(600)
    assert bench.alarms == ["IN_DOUBT"]
    assert repr(order_) in bench.book.alarms[0].text


@virtual
async def test_a_resolver_that_fails_goes_on(make):
    """Whatever goes wrong in a look, the next one comes."""
    bench = make()
    order_ = await lost(bench)
    look, failures = bench.resolver.look, [RuntimeError("bug"), RuntimeError("bug")]

    async def broken(wanted):
        if failures:
            raise failures.pop()
        return await look(wanted)

    bench.resolver.look = broken
    await bench.quiet(1)
    assert order_.state is OrderState.ACCEPTED


@virtual
async def test_a_journal_that_cannot_commit_does_not_stop_the_asking(make):
    """What was found is known in memory, and the resolver lives."""
    bench = make()
    order_ = await lost(bench)
    bench.journal.fails = True
    await bench.quiet(1)
    assert order_.state is OrderState.ACCEPTED


# -- cancels and changes -------------------------------------------------------------------------------


@virtual
async def test_a_cancelled_order_that_nobody_knows_is_presumed_absent(make):
    """C1 C5: after the window the venue has shown that there is nothing left to cancel."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=5)))
    sent = await bench.gateway.send(entry())
    bench.venue.orders.clear()
    await bench.gateway.cancel(sent.order, "test")
    assert sent.order.state is OrderState.PENDING_CANCEL
    await bench.quiet(20)
    assert sent.order.state is OrderState.PRESUMED_ABSENT
    assert bench.venue.calls["cancel_order"] == 1


@virtual
async def test_a_cancel_without_effect_is_asked_again_until_it_has(make):
    """C2: the venue shows the order alive each time."""
    bench = make()
    sent = await bench.gateway.send(entry())
    order_ = sent.order
    bench.venue.always("cancel_order", lambda key: bench.venue.orders[key])
    await bench.gateway.cancel(order_, "test")
    await bench.quiet(60)
    assert order_.state is OrderState.PENDING_CANCEL
    tries = bench.venue.calls["cancel_order"]
    assert 8 <= tries <= 12
    bench.venue.always("cancel_order")
    await bench.quiet(20)
    assert order_.state is OrderState.CANCELLED
    assert bench.venue.calls["cancel_order"] == tries + 1


@virtual
async def test_a_cancel_is_not_asked_again_while_the_venue_is_blind(make):
    """Whether it is alive is not known."""
    bench = make()
    sent = await bench.gateway.send(entry())
    blind(bench, *QUERIES)
    bench.venue.script("cancel_order", TimeoutError())
    await bench.gateway.cancel(sent.order, "test")
    await bench.quiet(60)
    assert bench.venue.calls["cancel_order"] == 1
    blind(bench)
    await bench.quiet(20)
    assert sent.order.state is OrderState.CANCELLED


@virtual
async def test_a_refused_cancel_of_an_order_in_doubt_leaves_the_doubt(make):
    """The refusal was of the request; what became of the order is still asked."""
    bench = make()
    blind(bench, *QUERIES)
    order_ = await lost(bench)
    bench.venue.script("cancel_order", RateLimitError("slow"))
    await bench.gateway.cancel(order_, "test")
    assert (order_.state, order_.cancel_asked) == (OrderState.IN_DOUBT, True)
    blind(bench)
    await bench.quiet(20)
    assert order_.state is OrderState.CANCELLED


@pytest.mark.parametrize("state", OrderState)
@virtual
async def test_what_needs_proof(make, state):
    """In doubt, pending cancel; and what rests though somebody wants it gone or changed."""
    steps = ["fill_part" if s == "fill" else s for s in PATHS[state]]
    plain = {OrderState.IN_DOUBT, OrderState.PENDING_CANCEL}
    if any("fill" in step for step in steps):
        return
    assert needs_proof(order(*steps)) is (state in plain)
    if state in (OrderState.HELD, OrderState.ACCEPTED):
        assert needs_proof(order(*steps, "ask_cancel"))
    if state is OrderState.ACCEPTED:
        assert needs_proof(order(*steps, "ask_cancel", "refuse_cancel"))
        amended = order(*steps)
        ask(amended, quantity=2)
        for event in ("lose", "accept"):
            amended.change(changed(event), AT)
        assert amended.state is OrderState.ACCEPTED
        assert needs_proof(amended)


@virtual
async def test_a_change_that_does_not_show_was_not_made(make):
    """Where the venue states no window, a minute is enough."""
    bench = make(ScriptedVenue(absence_window=None))
    sent = await bench.gateway.send(entry())
    bench.venue.script("amend_order", TimeoutError())
    assert not await bench.gateway.amend(sent.order, quantity=D("0.5"))
    await bench.quiet(30)
    assert sent.order.asked is not None
    await bench.quiet(60)
    assert (sent.order.state, sent.order.asked, sent.order.quantity) == (
        OrderState.ACCEPTED,
        None,
        1,
    )


@virtual
async def test_a_second_change_that_is_lost_has_its_own_time_to_show(make):
    """C6: the window of the first one proves nothing of the second."""
    bench = make(ScriptedVenue(absence_window=timedelta(seconds=15)))
    order_ = (await bench.gateway.send(entry())).order
    bench.venue.script("amend_order", TimeoutError(), after(3, TimeoutError()))
    assert not await bench.gateway.amend(order_, quantity=D("0.5"))
    bench.venue.always("get_order", after(6, bench.venue._get))
    await bench.quiet(20)  # so that a look is under way from before the second until after its loss
    assert not await bench.gateway.amend(order_, quantity=D("0.4"))
    lost_at = now()
    await bench.quiet(10)
    assert order_.asked is not None
    assert order_.asked.quantity == D("0.4")
    await bench.gateway.changes.until(order_, lambda each: each.asked is None, 60)
    assert 15 <= now() - lost_at <= 40
    assert bench.changes(order_).count("refuse_amend") == 1


@virtual
async def test_after_stop_nobody_asks(make):
    """Tasks end, orders stay as they are, and no new doubt starts a task."""
    bench = make()
    blind(bench, *QUERIES)
    order_ = await lost(bench)
    await bench.quiet(1)
    await bench.resolver.stop()
    calls = bench.venue.calls["get_order"]
    bench.resolver.follow(order_)
    await bench.quiet(60)
    assert bench.venue.calls["get_order"] == calls
    assert order_.state is OrderState.IN_DOUBT
    assert bench.resolver._tasks == bench.resolver._lost_at == {}

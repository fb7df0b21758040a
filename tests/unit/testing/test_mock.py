"""Each scripted fault does what it says, and the mock's own books tell it."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.errors import (
    ConfigurationError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    MarketClosedError,
    MarketOrderRefusedError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.model.capabilities import Capabilities
from execkit.model.order import (
    Fill,
    ListKind,
    OrderList,
    OrderReport,
    OrderState,
    OrderType,
    Side,
    StreamGap,
)
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation
from execkit.testing.factories import START, SYMBOL, make_request
from execkit.testing.faults import OF_STREAM, SPOILS
from execkit.virtual_time import run_virtual

SECOND = timedelta(seconds=1)


def virtual(scenario):
    """Run `scenario(mock_factory, clock)` under virtual time."""

    def run():
        async def main(clock):
            def mock(*faults, **options):
                options = {"prices": {SYMBOL: 100}, "clock": clock} | options
                return MockExchange(script=FaultScript(faults), **options)

            await scenario(mock, clock)

        run_virtual(main, start=START)

    run.__name__, run.__doc__ = scenario.__name__, scenario.__doc__
    return run


def each(name, values):
    """Parametrise a virtual scenario by one value."""

    def wrap(scenario):
        @pytest.mark.parametrize("value", values, ids=str)
        def run(value):
            async def one(mock, clock):
                await scenario(mock, clock, value)

            virtual(one)()

        run.__doc__ = scenario.__doc__
        return run

    return wrap


async def passed(clock, seconds):
    return (clock.now() - START) == seconds * SECOND


@virtual
async def test_without_faults_it_is_an_honest_venue(mock, clock):
    """The order is received, accepted, executed, told of and found again."""
    venue = mock()
    updates = venue.order_updates()
    request = make_request()
    report = await venue.place_order(request)
    assert report.status is OrderState.FILLED
    (entry,) = venue.received
    assert (entry.client_order_id, entry.payload_hash) == ("order-1", request.payload_hash)
    assert (venue.sends("order-1"), venue.accepted("order-1")) == (1, 1)
    assert [type(await anext(updates)) for _ in range(3)] == [OrderReport, Fill, OrderReport]
    assert await venue.get_order(SYMBOL, client_order_id="order-1") == report
    assert await venue.fills_since(START) == list(report.fills)
    assert (await venue.positions())[0].quantity == 1
    assert (await venue.balances())["BTC"].free == 1
    assert (await venue.ticker(SYMBOL)).at == clock.now()


@virtual
async def test_refused_order_is_received_but_not_accepted(mock, clock):
    """What the core refuses counts as sent and not as accepted."""
    venue = mock()
    await venue.place_order(make_request())
    with pytest.raises(OrderRejectedError):
        await venue.place_order(make_request())
    assert (venue.sends("order-1"), venue.accepted("order-1")) == (2, 1)


@virtual
async def test_latency_delays_request_answer_and_stream(mock, clock):
    """50 ms each way; the venue has the order after the first 50."""
    venue = mock(latency=timedelta(milliseconds=50))
    updates = venue.order_updates()
    await venue.place_order(make_request())
    assert (clock.now() - START) == timedelta(milliseconds=100)
    assert venue.received[0].at - START == timedelta(milliseconds=50)
    kinds = [type(await anext(updates)) for _ in range(3)]
    assert kinds == [OrderReport, Fill, OrderReport]
    assert (clock.now() - START) == timedelta(milliseconds=100)


UNANSWERED = [
    (FaultKind.TIMEOUT, TimeoutError),
    (FaultKind.LOST, ConnectionResetError),
    (FaultKind.SERVER_ERROR, ConnectionAbortedError),
]


@each("kind", UNANSWERED)
async def test_unanswered_order_that_never_arrived(mock, clock, value):
    """The outcome is unknown to the caller, and the venue knows nothing."""
    kind, _ = value
    venue = mock(Fault(on="place", kind=kind, takes=10 * SECOND))
    with pytest.raises(OrderStatusUnknownError) as caught:
        await venue.place_order(make_request())
    assert not caught.value.outcome_known
    assert await passed(clock, 10)
    assert venue.sends("order-1") == 0
    with pytest.raises(OrderNotFoundError):
        await venue.get_order(SYMBOL, client_order_id="order-1")


@each("kind", UNANSWERED)
async def test_unanswered_order_that_was_executed(mock, clock, value):
    """The caller hears the same, and the order is filled."""
    kind, raw = value
    venue = mock(Fault(on="place", kind=kind, reached=True, raw=True))
    with pytest.raises(raw):
        await venue.place_order(make_request())
    assert venue.accepted("order-1") == 1
    report = await venue.get_order(SYMBOL, client_order_id="order-1")
    assert report.status is OrderState.FILLED


@virtual
async def test_order_may_arrive_after_the_caller_gave_up(mock, clock):
    """Given up after 1 s, accepted after 5: not there in between."""
    fault = Fault(on="place", kind="timeout", reached=True, takes=SECOND, arrives_after=5 * SECOND)
    venue = mock(fault)
    with pytest.raises(OrderStatusUnknownError):
        await venue.place_order(make_request())
    assert await venue.open_orders() == []
    assert venue.accepted("order-1") == 0
    await clock.sleep_until(START + 6 * SECOND)
    assert venue.accepted("order-1") == 1
    assert venue.received[0].at == START + 5 * SECOND


@virtual
async def test_late_request_that_is_refused_troubles_nobody(mock, clock):
    """A request that arrives after a newer one of the same id is refused in silence."""
    fault = Fault(on="place", kind="lost", nth=1, reached=True, arrives_after=SECOND)
    venue = mock(fault)
    with pytest.raises(OrderStatusUnknownError):
        await venue.place_order(make_request())
    await venue.place_order(make_request())
    await clock.sleep_until(START + 2 * SECOND)
    assert (venue.sends("order-1"), venue.accepted("order-1")) == (2, 1)


@virtual
async def test_hanging_call_ends_with_its_caller(mock, clock):
    """Nothing comes until the caller cancels; the order may be there all the same."""

    venue = mock(Fault(on="place", kind="hang", reached=True))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(15):
            await venue.place_order(make_request())
    assert await passed(clock, 15)
    assert venue.accepted("order-1") == 1


@each("operation", [o for o in Operation if o is not Operation.STREAM])
async def test_every_call_can_fail(mock, clock, value):
    """A lost call is of unknown outcome where it changes something, and just unavailable where not."""
    sends = value in (Operation.PLACE, Operation.CANCEL, Operation.AMEND)
    error = OrderStatusUnknownError if sends else ExchangeUnavailableError
    venue = mock(Fault(on=value, kind=FaultKind.LOST, nth=1))
    calls = {
        Operation.PLACE: lambda: venue.place_order(make_request(limit=90)),
        Operation.CANCEL: lambda: venue.cancel_order(SYMBOL, client_order_id="there"),
        Operation.AMEND: lambda: venue.amend_order(
            SYMBOL, client_order_id="there", limit_price=Decimal(80)
        ),
        Operation.GET: lambda: venue.get_order(SYMBOL, client_order_id="there"),
        Operation.OPEN: venue.open_orders,
        Operation.FILLS: lambda: venue.fills_since(START),
        Operation.BALANCES: venue.balances,
        Operation.POSITIONS: venue.positions,
        Operation.TICKER: lambda: venue.ticker(SYMBOL),
    }
    venue.core.place(make_request("there", limit=50), START)
    with pytest.raises(error):
        await calls[value]()
    await calls[value]()
    assert venue.connection.script.fired == {FaultKind.LOST: 1}


@virtual
async def test_not_sent_leaves_nothing(mock, clock):
    """The request provably stays here."""
    venue = mock(Fault(on="place", kind="not_sent"))
    with pytest.raises(NotSentError):
        await venue.place_order(make_request())
    assert venue.received == []


@virtual
async def test_rate_limit_says_how_long(mock, clock):
    """Received, not accepted, and to be repeated later."""
    venue = mock(Fault(on="place", kind="rate_limit", retry_after=7 * SECOND, nth=1))
    with pytest.raises(RateLimitError) as caught:
        await venue.place_order(make_request())
    assert caught.value.retry_after == 7 * SECOND
    assert (venue.sends("order-1"), venue.accepted("order-1")) == (1, 0)
    await venue.place_order(make_request())


@each(
    "error",
    [
        InsufficientBalanceError("no", available=Decimal("0.5")),
        InsufficientBalanceError("no"),
        MarketOrderRefusedError("no"),
        MarketClosedError("no"),
    ],
)
async def test_any_refusal_can_be_scripted(mock, clock, value):
    """The venue says no in whatever words; each time anew."""
    venue = mock(Fault(on="place", kind="error", error=value))
    for _ in range(2):
        with pytest.raises(type(value)) as caught:
            await venue.place_order(make_request())
        assert caught.value is not value
        assert getattr(caught.value, "available", None) == getattr(value, "available", None)
    assert (venue.sends("order-1"), venue.accepted("order-1")) == (2, 0)


@virtual
async def test_delay_only_costs_time(mock, clock):
    """Everything is right, three seconds later."""
    venue = mock(Fault(on="place", kind="delay", after=3 * SECOND))
    assert (await venue.place_order(make_request())).status is OrderState.FILLED
    assert await passed(clock, 3)


@each("spoil", list(SPOILS))
async def test_malformed_answer_hides_a_true_order(mock, clock, value):
    """The answer is wrong in one way; the order is there."""
    venue = mock(Fault(on="place", kind="malformed", spoil=value, nth=1))
    answer = await venue.place_order(make_request())
    truth = await venue.get_order(SYMBOL, client_order_id="order-1")
    assert answer != truth
    assert truth.status is OrderState.FILLED


@virtual
async def test_orders_may_be_invisible_for_a_while(mock, clock):
    """Not found by id, in the list or in the fills for 22 s, though the order exists."""
    hide = [Fault(on=on, kind="not_found", after=22 * SECOND) for on in ("get", "open", "fills")]
    venue = mock(*hide)
    await venue.place_order(make_request("filled"))
    await venue.place_order(make_request("resting", limit=50))
    for seconds, visible in ((21, False), (22, True)):
        await clock.sleep_until(START + seconds * SECOND)
        assert bool(await venue.open_orders()) is visible
        assert bool(await venue.fills_since(START)) is visible
        if visible:
            await venue.get_order(SYMBOL, client_order_id="filled")
        else:
            with pytest.raises(OrderNotFoundError):
                await venue.get_order(SYMBOL, client_order_id="filled")


@virtual
async def test_partial_fill_leaves_the_rest_for_later(mock, clock):
    """0.3 of 1 at once, the rest ten seconds later."""
    fault = Fault(on="place", kind="partial", fraction=Decimal("0.3"), after=10 * SECOND)
    venue = mock(fault)
    report = await venue.place_order(make_request())
    assert (report.filled, report.status) == (Decimal("0.3"), OrderState.PARTIALLY_FILLED)
    await clock.sleep_until(START + 10 * SECOND)
    assert venue.core.order("order-1").status is OrderState.FILLED


@virtual
async def test_a_cancelled_order_has_no_rest_to_execute(mock, clock):
    """The rest of a partial fill does not come once the order has ended: that would be a fault of its own."""
    venue = mock(Fault(on="place", kind="partial", fraction=Decimal("0.3"), after=10 * SECOND))
    await venue.place_order(make_request())
    await venue.cancel_order("BTC/USDT", client_order_id="order-1")
    await clock.sleep_until(START + 20 * SECOND)
    assert venue.core.order("order-1").filled == Decimal("0.3")


@virtual
async def test_what_has_long_ended_can_be_forgotten(mock, clock):
    """Ended orders go with their fills and requests; open ones stay, and ids go on counting."""
    venue = mock()
    await venue.place_order(make_request("old"))
    await venue.place_order(make_request("open", limit=50))
    await clock.sleep_until(START + 60 * SECOND)
    await venue.place_order(make_request("new"))
    venue.forget(START + 30 * SECOND)
    assert set(venue.core.by_client) == {"open", "new"}
    assert [entry.client_order_id for entry in venue.received] == ["new"]
    assert [fill.trade_id for fill in venue.core.fills] == ["2"]
    assert (await venue.place_order(make_request("next", limit=50))).venue_order_id == "4"


@virtual
async def test_partial_fill_may_be_all(mock, clock):
    """Without *after* the rest stays open; less than a lot fills nothing."""
    venue = mock(Fault(on="place", kind="partial"))
    assert (await venue.place_order(make_request("a"))).filled == Decimal("0.5")
    tiny = make_request("b", quantity="0.00001", limit=200)
    assert (await venue.place_order(tiny)).status is OrderState.ACCEPTED


@virtual
async def test_acknowledged_order_may_be_rejected_later(mock, clock):
    """The answer is good, the stream brings the rejection."""
    venue = mock(Fault(on="place", kind="late_reject", after=2 * SECOND))
    updates = venue.order_updates()
    assert (await venue.place_order(make_request())).status is OrderState.ACCEPTED
    assert (await anext(updates)).status is OrderState.ACCEPTED
    assert (await anext(updates)).status is OrderState.REJECTED
    assert await passed(clock, 2)


@virtual
async def test_fill_may_come_after_the_cancel_was_acknowledged(mock, clock):
    """Cancelled, and half of it executed all the same a second later."""
    venue = mock(Fault(on="cancel", kind="late_fill", after=SECOND))
    await venue.place_order(make_request(limit=90))
    updates = venue.order_updates()
    report = await venue.cancel_order(SYMBOL, client_order_id="order-1")
    assert (report.status, report.filled) == (OrderState.CANCELLED, 0)
    await anext(updates)
    fill = await anext(updates)
    assert (fill.quantity, fill.price, fill.at) == (Decimal("0.5"), 90, START + SECOND)
    assert (await anext(updates)).status is OrderState.CANCELLED


async def stream_of(venue, orders=2):
    """Place resting orders and return whose updates came, in order."""
    updates = venue.order_updates()
    for number in range(orders):
        await venue.place_order(make_request(f"o{number}", limit=90))
    await venue.close()
    return [
        type(u).__name__ if isinstance(u, StreamGap) else u.client_order_id async for u in updates
    ]


@each(
    "kind",
    [
        ("lose", ["o1", "o2"]),
        ("duplicate", ["o0", "o0", "o1", "o2"]),
        ("reorder", ["o1", "o0", "o2"]),
        ("gap", ["StreamGap", "o1", "o2"]),
    ],
)
async def test_stream_misbehaves(mock, clock, value):
    """The first update is lost, doubled, overtaken, or replaced by a gap marker."""
    kind, expected = value
    assert await stream_of(mock(Fault(on="stream", kind=kind, nth=1)), orders=3) == expected


@virtual
async def test_updates_may_come_late(mock, clock):
    """Three seconds after the others; a held-back one without a successor comes by itself too."""
    late = mock(Fault(on="stream", kind="late", nth=1, after=3 * SECOND))
    updates = late.order_updates()
    await late.place_order(make_request("a", limit=90))
    await late.place_order(make_request("b", limit=90))
    assert [(await anext(updates)).client_order_id for _ in range(2)] == ["b", "a"]
    assert await passed(clock, 3)
    held = mock(Fault(on="stream", kind="reorder", nth=1, after=SECOND))
    updates = held.order_updates()
    await held.place_order(make_request("c", limit=90))
    assert (await anext(updates)).client_order_id == "c"
    assert await passed(clock, 4)


@virtual
async def test_stream_may_break(mock, clock):
    """The reader gets a connection error; a new subscription works."""
    venue = mock(Fault(on="stream", kind="break", nth=2))
    updates = venue.order_updates()
    await venue.place_order(make_request("a", limit=90))
    await venue.place_order(make_request("b", limit=90))
    assert (await anext(updates)).client_order_id == "a"
    with pytest.raises(ConnectionResetError):
        await anext(updates)
    with pytest.raises(StopAsyncIteration):
        await anext(updates)
    again = venue.order_updates()
    await venue.place_order(make_request("c", limit=90))
    assert (await anext(again)).client_order_id == "c"


@virtual
async def test_faults_strike_by_number(mock, clock):
    """The second and third call, and no other."""
    venue = mock(Fault(on="ticker", kind="lost", nth=2, times=2))
    outcomes = []
    for _ in range(5):
        try:
            await venue.ticker(SYMBOL)
            outcomes.append("ok")
        except ExchangeUnavailableError:
            outcomes.append("lost")
    assert outcomes == ["ok", "lost", "lost", "ok", "ok"]


@virtual
async def test_faults_strike_within_a_window(mock, clock):
    """From the tenth to the twentieth second after first use."""
    venue = mock(Fault(on="ticker", kind="lost", window=(10 * SECOND, 20 * SECOND)))
    for seconds, fails in ((0, False), (9, False), (10, True), (19, True), (20, False)):
        await clock.sleep_until(START + seconds * SECOND)
        if fails:
            with pytest.raises(ExchangeUnavailableError):
                await venue.ticker(SYMBOL)
        else:
            await venue.ticker(SYMBOL)


@virtual
async def test_faults_strike_chosen_orders(mock, clock):
    """Only stops; other orders are not even counted."""
    fault = Fault(on="place", kind="lost", nth=1, only=lambda r: r.type is OrderType.STOP)
    venue = mock(fault)
    await venue.place_order(make_request("a"))
    with pytest.raises(OrderStatusUnknownError):
        await venue.place_order(make_request("b", side=Side.SELL, stop=90))
    await venue.place_order(make_request("c", side=Side.SELL, stop=90))


@virtual
async def test_chance_comes_from_the_seed(mock, clock):
    """One seed gives one sequence, and about the asked share of it."""

    async def outcomes(seed):
        fault = Fault(on="ticker", kind="lost", probability=0.3)
        venue = mock(fault, rng=random.Random(seed))
        found = []
        for _ in range(200):
            try:
                await venue.ticker(SYMBOL)
                found.append(True)
            except ExchangeUnavailableError:
                found.append(False)
        return found

    assert await outcomes(1) == await outcomes(1)
    assert await outcomes(1) != await outcomes(2)
    assert 30 < (await outcomes(1)).count(False) < 90


@virtual
async def test_first_fault_wins_and_the_others_count_on(mock, clock):
    """One fault per call, the earlier in the script; the later has seen the call as well."""
    venue = mock(
        Fault(on="ticker", kind="lost", nth=1), Fault(on="ticker", kind="rate_limit", nth=2)
    )
    with pytest.raises(ExchangeUnavailableError):
        await venue.ticker(SYMBOL)
    with pytest.raises(RateLimitError):
        await venue.ticker(SYMBOL)
    assert repr(venue.connection.script).startswith("FaultScript(2 faults, fired {")


def answered(request, status=OrderState.ACCEPTED, **changes):
    return OrderReport(
        client_order_id=request.client_order_id,
        venue_order_id="77",
        symbol=request.symbol,
        side=request.side,
        type=request.type,
        quantity=request.quantity,
        status=status,
        **changes,
    )


@virtual
async def test_any_function_can_be_the_venue(mock, clock):
    """Its report is what the venue knows from then on: found, listed, cancelled once."""
    venue = mock(answer=answered)
    report = await venue.place_order(make_request())
    assert report.venue_order_id == "77"
    assert venue.accepted("order-1") == 1
    assert await venue.get_order(SYMBOL, client_order_id="order-1") == report
    assert await venue.open_orders(SYMBOL) == [report]
    assert await venue.open_orders("ETH/USDT") == []
    cancelled = await venue.cancel_order(SYMBOL, client_order_id="order-1")
    assert cancelled.status is OrderState.CANCELLED
    assert await venue.open_orders() == []
    with pytest.raises(OrderNotFoundError):
        await venue.cancel_order(SYMBOL, client_order_id="order-1")


@virtual
async def test_answering_function_may_wait_raise_or_pass(mock, clock):
    """Async ones are awaited, errors come through, and None hands the order to the matching core."""

    async def answer(request):
        if request.client_order_id == "bad":
            raise OrderRejectedError("no")
        if request.client_order_id == "own":
            fill = Fill(
                trade_id="t",
                client_order_id="own",
                venue_order_id="77",
                symbol=SYMBOL,
                side=Side.BUY,
                quantity=Decimal(1),
                price=Decimal(99),
                at=START,
            )
            return answered(request, OrderState.FILLED, filled=Decimal(1), fills=(fill,))
        return None

    venue = mock(answer=answer)
    with pytest.raises(OrderRejectedError):
        await venue.place_order(make_request("bad"))
    assert (await venue.place_order(make_request("core"))).average_price == 100
    await venue.place_order(make_request("own"))
    assert [f.price for f in await venue.fills_since(START)] == [100, 99]
    assert len(await venue.fills_since(START, "ETH/USDT")) == 0


@virtual
async def test_market_and_orders_can_be_moved_by_hand(mock, clock):
    """Prices are set, orders executed and ended, and the stream tells it."""
    venue = mock()
    await venue.place_order(make_request("a", limit=90))
    venue.set_price(SYMBOL, Decimal(89))
    assert venue.core.order("a").status is OrderState.FILLED
    await venue.place_order(make_request("b", limit=80))
    venue.execute("b", Decimal("0.4"))
    venue.execute("b", price=Decimal(79))
    report = venue.core.order("b")
    assert [(f.quantity, f.price) for f in report.fills] == [
        (Decimal("0.4"), 80),
        (Decimal("0.6"), 79),
    ]
    await venue.place_order(make_request("c", limit=80))
    venue.end("c", OrderState.EXPIRED, "gone")
    assert venue.core.order("c").reason == "gone"


def test_capabilities_are_given():
    """The mock claims what the test says it can."""
    can = Capabilities(absence_window=None)
    assert MockExchange(capabilities=can).capabilities is can
    assert MockExchange(allow_short=True).capabilities.short_selling


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"on": "stream", "kind": "timeout"}, "cannot strike at stream"),
        ({"on": "place", "kind": "lose"}, "cannot strike at place"),
        ({"on": "place", "kind": "not_found"}, "only at fills, get, open"),
        ({"on": "cancel", "kind": "partial"}, "only at place"),
        ({"on": "balances", "kind": "malformed"}, "only at"),
        ({"on": "place", "kind": "error"}, "needs error="),
        ({"on": "place", "kind": "malformed", "spoil": "rotten"}, "spoil: 'rotten' is unknown"),
    ],
)
def test_senseless_faults_are_refused(fault, text):
    """A fault that could never strike as meant is an error of the test."""
    with pytest.raises(ConfigurationError, match=text):
        Fault(**fault)


def test_every_kind_belongs_to_calls_or_to_the_stream():
    """No kind is without a place."""
    for kind in FaultKind:
        on = "stream" if kind in OF_STREAM else "place"
        if kind is FaultKind.NOT_FOUND:
            on = "get"
        elif kind is FaultKind.LATE_FILL:
            on = "cancel"
        assert Fault(on=on, kind=kind, error=OrderRejectedError("x")).kind is kind


# --- lists of orders ----------------------------------------------------------------------------------


def target_and_stop():
    """Return a sell of what was bought: at 110, or when it falls to 90."""
    return OrderList(
        list_id="pair",
        kind=ListKind.OCO,
        orders=(
            make_request("target", side=Side.SELL, limit=110),
            make_request("stop", side=Side.SELL, stop=90),
        ),
    )


@virtual
async def test_a_part_of_one_leg_ends_the_other(mock, clock):
    """D6: what is left of the target has no stop any more."""
    venue = mock()
    await venue.place_order(make_request("entry", quantity=1))
    reports = await venue.place_list(target_and_stop())
    assert [r.client_order_id for r in reports] == ["target", "stop"]
    assert [venue.accepted(r.client_order_id) for r in reports] == [1, 1]
    venue.execute("target", Decimal("0.4"))
    target = await venue.get_order(SYMBOL, client_order_id="target")
    stop = await venue.get_order(SYMBOL, client_order_id="stop")
    assert (target.status, target.filled) == (OrderState.PARTIALLY_FILLED, Decimal("0.4"))
    assert stop.status.is_closed
    assert (stop.filled, stop.reason) == (0, "another order of its list came first")


@virtual
async def test_a_list_fails_like_an_order(mock, clock):
    """Its answer may be lost although all of it arrived; what is refused is refused for all."""
    venue = mock(
        Fault(on=Operation.PLACE, kind=FaultKind.TIMEOUT, nth=2, reached=True),
        Fault(on=Operation.PLACE, kind=FaultKind.ERROR, nth=3, error=OrderRejectedError("no")),
    )
    await venue.place_order(make_request("entry", quantity=1))
    with pytest.raises(OrderStatusUnknownError):
        await venue.place_list(target_and_stop())
    await asyncio.sleep(1)
    assert len(await venue.open_orders()) == 2
    with pytest.raises(OrderRejectedError):
        await venue.place_list(target_and_stop())
    assert (venue.sends("stop"), venue.accepted("stop")) == (2, 1)

"""Targets that are taken from here: what the venue would not take, and what it refuses, costs no stop."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest
from tests.support.bench import virtual
from tests.support.orders import AT, BTC
from tests.support.tickets import INSTRUMENT
from tests.support.venue import ScriptedVenue

from execkit.errors import (
    ExchangeUnavailableError,
    InvalidOrderError,
    MarketClosedError,
    NotSentError,
    OrderRejectedError,
    RateLimitError,
)
from execkit.exchanges.base import MarketStatus
from execkit.model.market import BarData, Quote, Timeframe
from execkit.model.order import OrderRole, OrderState, OrderType, Side, TimeInForce
from execkit.model.position import Target
from execkit.model.records import Alarm, ExternalChange, StopMoved
from execkit.protection.policy import ProtectionPolicy

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
    seen = quote(bid, ask)
    bench.venue.price = seen.bid
    bench.book.see_quote(seen)
    bench.keeper.on_quote(seen)
    await bench.keeper.idle()


def move(bench, *, stop="95", target=None, **details):
    """Set the levels of the position now, and return the time."""
    bench.recorder.record(
        StopMoved(
            symbol=BTC,
            position_id=f"{BTC}#1",
            stop_loss=D(stop),
            take_profit=None if target is None else D(target),
            **details,
        )
    )
    return bench.clock.now()


def rests(bench):
    """Return (type, what is left, price) of the orders that rest at the venue."""
    return [
        (o.type, o.quantity - o.filled, o.stop_price or o.limit_price) for o in bench.venue.open
    ]


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


# -- since when a level counts -------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
@virtual
async def test_a_bar_counts_for_a_target_only_from_when_it_was_set(make, restart):
    """Set within a bar: its high may be from before; its close is not, nor is the next bar. A restart knows it too."""
    bench = make(keeper=True)
    await bench.open("1")
    await bench.quiet(60)
    set_at = move(bench, target="110")
    await bench.quiet(30)
    if restart:
        bench = await bench.restart()
        await bench.reconciler.start()
        await bench.quiet()
    within = set_at - timedelta(seconds=30)
    await bench.keeper.on_price(BTC, D(99), D(112), D(100), since=within)
    assert bench.orders(OrderRole.TARGET) == []
    assert bench.venue.calls["cancel_order"] == 0
    await bench.keeper.on_price(BTC, D(99), D(112), D(100), since=set_at)
    assert bench.book.positions.quantity(BTC) == 0


@pytest.mark.parametrize("restart", [False, True])
@virtual
async def test_a_bar_counts_for_a_stop_only_from_when_it_was_set(make, restart):
    """Where the venue takes none: tightened to 98 within a bar whose low was 96; at 95 it had been reached anyway."""
    venue = ScriptedVenue(order_types=frozenset({OrderType.MARKET, OrderType.LIMIT}))
    bench = make(venue, keeper=True)
    await bench.open("1")
    await bench.quiet(60)
    set_at = move(bench, stop="98")
    await bench.quiet(30)
    if restart:
        bench = await bench.restart()
        await bench.reconciler.start()
        await bench.quiet()
    within = set_at - timedelta(seconds=30)
    await bench.keeper.on_price(BTC, D(96), D(101), D(100), since=within)
    assert bench.book.positions.quantity(BTC) == 1
    await bench.keeper.on_price(BTC, D(95), D(101), D(100), since=within)
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 0


# -- exits at a limit ----------------------------------------------------------------------------------


def sell_limit(bench, price="110", *, at="110"):
    """Have limit orders executed whole at *at*, as an IOC that finds a buyer."""

    def place(request):
        report = bench.venue._place(request)
        if request.type is not OrderType.LIMIT:
            return report
        bench.venue.fill(request.client_order_id, price=at)
        return bench.venue.orders[request.client_order_id]

    bench.venue.always("place_order", place)


async def holding_limit(make, venue=None, **options):
    """Return a bench with a long of 1 at 100, stopped at 95, that is to be sold at 110 or better."""
    bench = make(venue, keeper=True, **options)
    await bench.open("1")
    await bench.quiet()
    move(bench, target="110", limit_exit=True)
    await bench.quiet()
    return bench


@virtual
async def test_a_held_limit_exit_is_sent_at_its_limit(make):
    """Never at the market: the price may be gone when the order arrives. At once or not at all."""
    bench = await holding_limit(make)
    sell_limit(bench, at="110.5")
    await see(bench, "109.9", "110.1")
    assert bench.orders(OrderRole.TARGET) == []
    await see(bench, "110", "110.2")
    (sent,) = bench.orders(OrderRole.TARGET)
    assert (sent.type, sent.limit_price, sent.side) == (OrderType.LIMIT, 110, Side.SELL)
    assert sent.request.time_in_force is TimeInForce.IOC
    assert (sent.quantity, sent.average_price) == (1, D("110.5"))
    await bench.quiet()
    assert (bench.book.positions.quantity(BTC), bench.venue.open, bench.alarms) == (0, [], [])


@virtual
async def test_a_short_is_bought_back_at_its_limit(make):
    """The mirror image; a limit that is on no tick any more is rounded to the better side."""
    bench = make(ScriptedVenue(short_selling=True), keeper=True)
    await bench.open("1", side=Side.SELL, stop_loss=D(105))
    await bench.quiet()
    move(bench, stop="105", target="90.07", limit_exit=True)
    sell_limit(bench, at="90")
    await see(bench, "89", "90.1")
    assert bench.orders(OrderRole.TARGET) == []
    await see(bench, "89.9", "90.07")
    (sent,) = bench.orders(OrderRole.TARGET)
    assert (sent.side, sent.limit_price, sent.state) == (Side.BUY, 90, OrderState.FILLED)


@pytest.mark.parametrize("ends_at_once", [True, False])
@virtual
async def test_an_exit_that_nobody_takes_at_its_limit_gives_the_stop_back(make, ends_at_once):
    """Protection first: within 2 s it is gone and the stop rests; the next tries come after pauses, told once."""
    bench = await holding_limit(make)

    def place(request):
        report = bench.venue._place(request)
        if request.type is OrderType.LIMIT and ends_at_once:
            return bench.venue.end(request.client_order_id, OrderState.EXPIRED)
        return report

    bench.venue.always("place_order", place)
    for second in range(30):
        await see(bench, "110")
        assert rests(bench) == [(OrderType.STOP, 1, 95)], second
        await asyncio.sleep(1)
    ended = OrderState.EXPIRED if ends_at_once else OrderState.CANCELLED
    tried = bench.orders(OrderRole.TARGET)
    assert [order.state for order in tried] == [ended] * 3, "after 0, 5 and 10 s more"
    assert all(order.limit_price == 110 for order in tried)
    lives = [(order.closed_at - order.created_at).total_seconds() for order in tried]
    assert max(lives) == (0 if ends_at_once else 2)
    (text,) = texts(bench, "TARGET_REFUSED")
    why = "nobody took it at its limit" if ends_at_once else "it was not executed at once"
    assert f"({why})" in text
    assert bench.alarms == ["TARGET_REFUSED"]


@virtual
async def test_what_is_left_of_an_exit_at_its_limit_is_protected(make):
    """Of 1 only 0.4 finds a buyer at 110: 0.6 has its stop again, and is sold when the price comes once more."""
    bench = await holding_limit(make)

    def place(request):
        report = bench.venue._place(request)
        if request.type is not OrderType.LIMIT:
            return report
        bench.venue.fill(request.client_order_id, "0.4", "110")
        return bench.venue.end(request.client_order_id, OrderState.EXPIRED)

    bench.venue.always("place_order", place)
    await see(bench, "110")
    await bench.quiet()
    assert rests(bench) == [(OrderType.STOP, D("0.6"), 95)]
    sell_limit(bench)
    await see(bench, "110")
    assert bench.book.positions.quantity(BTC) == 0
    assert [o.quantity for o in bench.orders(OrderRole.TARGET)] == [1, D("0.6")]
    assert bench.alarms == []


@pytest.mark.parametrize("why", ["refused", "unknown here"])
@virtual
async def test_where_no_order_is_for_at_once_only_it_rests_for_two_seconds(make, why):
    """Parts of a share at Alpaca have no IOC: then one that rests, and is cancelled."""
    capabilities = {"times_in_force": frozenset({TimeInForce.GTC})} if why != "refused" else {}
    bench = await holding_limit(make, ScriptedVenue(**capabilities))

    def place(request):
        if request.time_in_force is TimeInForce.IOC:
            raise InvalidOrderError("for the day only")
        return bench.venue._place(request)

    bench.venue.always("place_order", place)
    task = asyncio.ensure_future(see(bench, "110"))
    await bench.quiet(1)
    assert rests(bench) == [(OrderType.LIMIT, 1, 110)]
    await task
    assert rests(bench) == [(OrderType.STOP, 1, 95)]
    last = bench.orders(OrderRole.TARGET)[-1]
    assert last.request.time_in_force is TimeInForce.GTC
    assert (last.state, last.reason) == (OrderState.CANCELLED, "it was not executed at once")


@virtual
async def test_an_exit_at_its_limit_that_was_not_sent_is_closed(make):
    """A NEW order would claim the position for ever; nor does one that is denied leave anything."""
    bench = await holding_limit(make)
    bench.venue.script("place_order", NotSentError("no route"))
    await see(bench, "110")
    (order,) = bench.orders(OrderRole.TARGET)
    assert (order.state, order.reason) == (OrderState.FAILED, "not sent; tried again")
    assert rests(bench) == [(OrderType.STOP, 1, 95)]
    await bench.quiet(5)
    bench.journal.is_current = False
    await see(bench, "110")
    assert len(bench.orders(OrderRole.TARGET)) == 1


@virtual
async def test_an_exit_at_its_limit_in_doubt_is_proven_gone_before_the_stop_comes_back(make):
    """I13: two reductions of the whole position never rest together."""
    bench = await holding_limit(make, ScriptedVenue(short_selling=True))

    def place(request):
        bench.venue.accept(request)
        raise ConnectionResetError

    bench.venue.script("place_order", place)
    blind = ("get_order", "open_orders", "fills_since", "cancel_order")
    for method in blind:
        bench.venue.always(method, ExchangeUnavailableError("503"))
    seen = quote("110")
    bench.keeper.on_quote(seen)
    bench.venue.always("cancel_order")
    await bench.quiet(20)
    for method in blind:
        bench.venue.always(method)
    await bench.quiet(60)
    assert rests(bench) == [(OrderType.STOP, 1, 95)]
    assert [o.state for o in bench.orders(OrderRole.TARGET)] == [OrderState.CANCELLED]


@virtual
async def test_after_a_kill_an_exit_at_its_limit_gives_way_to_the_stop(make):
    """C10: it rests at the venue, and nobody waits for it any more."""
    bench = await holding_limit(make)
    bench.keeper.on_quote(quote("110"))
    await bench.quiet(1)
    assert rests(bench) == [(OrderType.LIMIT, 1, 110)]
    again = await bench.restart()
    await again.reconciler.start()
    await again.quiet(1)
    assert rests(again) == [(OrderType.STOP, 1, 95)]
    assert again.book.position(BTC).limit_exit


@virtual
async def test_an_exit_at_its_limit_goes_by_where_the_price_is(make):
    """A bar's high is gone by its end: an order at that limit would find nobody and cost the stop."""
    bench = await holding_limit(make)
    sell_limit(bench)
    since = bench.clock.now()
    await bench.keeper.on_price(BTC, D(100), D(112), D(109), since=since)
    assert bench.orders(OrderRole.TARGET) == []
    await bench.keeper.on_price(BTC, D(100), D(112), D(110), since=since)
    assert bench.book.positions.quantity(BTC) == 0


# -- the right side of an open market ------------------------------------------------------------------


@virtual
async def test_stops_follow_what_the_position_would_bring(make):
    """In a wide market that is the bid of a long, and the ask of a short, not what lies between."""
    policy = ProtectionPolicy(trailing_pct=D(1))
    bench = make(keeper=True, policy=policy)
    await bench.open("1")
    await bench.quiet()
    await see(bench, "100", "120")
    await bench.quiet(1)
    assert rests(bench) == [(OrderType.STOP, 1, 99)]
    short = make(ScriptedVenue(short_selling=True), keeper=True, policy=policy)
    await short.open("1", side=Side.SELL, stop_loss=D(105))
    await short.quiet()
    await see(short, "80", "100")
    await short.quiet(1)
    assert rests(short) == [(OrderType.STOP, 1, 101)]


@virtual
async def test_a_market_that_is_empty_on_one_side_gets_the_stop(make):
    """Its middle, 55.5, is no price: a position is not sold at 10 for it."""
    bench = make(keeper=True)
    bench.book.see_quote(quote("10", "101"))
    await bench.open("1")
    await bench.quiet()
    assert rests(bench) == [(OrderType.STOP, 1, 95)]
    assert bench.orders(OrderRole.FLATTEN) == []
    assert bench.alarms == []


def is_open(bench, *, venue=None, calendar=None):
    """Have the venue, or a calendar, say whether the market is open; None: the venue cannot be asked."""

    async def market_status(_symbol):
        if venue is None:
            raise ExchangeUnavailableError("503")
        return MarketStatus(is_open=venue)

    bench.venue.market_status = market_status
    if calendar is not None:
        bench.keeper.market.calendar = lambda _symbol, _at: MarketStatus(is_open=calendar)


@pytest.mark.parametrize(
    ("venue", "calendar", "acts"),
    [
        (False, True, False),
        (False, None, False),
        (None, False, False),
        (True, False, True),
        (None, True, True),
        (None, None, True),
    ],
)
@pytest.mark.parametrize("kind", ["target", "stop", "trailing"])
@virtual
async def test_a_closed_market_triggers_nothing(make, venue, calendar, acts, kind):
    """C9: what the venue says wins over the calendar, which answers for it; where nobody can tell it counts as open."""
    types = {OrderType.MARKET, OrderType.LIMIT} | ({OrderType.STOP} if kind != "stop" else set())
    policy = ProtectionPolicy(trailing_pct=D(1)) if kind == "trailing" else None
    bench = make(ScriptedVenue(order_types=frozenset(types)), keeper=True, policy=policy)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    before = rests(bench)
    is_open(bench, venue=venue, calendar=calendar)
    price = {"target": "110", "stop": "94", "trailing": "105"}[kind]
    await see(bench, price)
    await bench.quiet(1)
    if not acts:
        assert (bench.book.positions.quantity(BTC), rests(bench)) == (1, before)
        assert bench.venue.calls["cancel_order"] == 0
        is_open(bench, venue=True)
        await bench.quiet(15)
        await see(bench, price)
        await bench.quiet(1)
    if kind == "trailing":
        assert rests(bench) == [(OrderType.STOP, 1, D("103.9"))]
    else:
        assert bench.book.positions.quantity(BTC) == 0


@virtual
async def test_a_position_that_closes_while_the_market_is_asked_about_needs_nothing(make):
    """The venue's answer takes a while."""
    bench = make(keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()

    async def market_status(_symbol):
        await asyncio.sleep(2)
        return MarketStatus(is_open=True)

    bench.venue.market_status = market_status
    bench.keeper.on_quote(quote("110"))
    await bench.quiet(1)
    bench.take(bench.venue.fill(bench.stops[0].client_order_id))
    await bench.quiet(3)
    assert bench.orders(OrderRole.TARGET) == []


@virtual
async def test_what_comes_while_the_market_is_asked_about_is_looked_at_after_it(make):
    """Perhaps nothing comes for long: the newest quote, and the bar that ended meanwhile, are not lost."""
    bench = make(keeper=True, policy=ProtectionPolicy(trailing_pct=D(1)))
    await bench.open("1", take_profit=D(120))
    await bench.quiet()

    async def market_status(_symbol):
        await asyncio.sleep(2)
        return MarketStatus(is_open=True)

    bench.venue.market_status = market_status
    for bid in ("105", "107", "108"):
        bench.keeper.on_quote(quote(bid))
        await bench.quiet(0.1)
    await bench.quiet(3)
    assert rests(bench) == [(OrderType.STOP, 1, D("106.9"))]
    await bench.quiet(60)
    bench.keeper.on_quote(quote("110"))
    await bench.quiet(0.1)
    at = bench.clock.now().replace(second=0, microsecond=0) + timedelta(minutes=2)
    bench.keeper.on_bar(BarData(BTC, Timeframe.M1, at, *map(D, ("110", "121", "110", "111", "1"))))
    await bench.quiet(5)
    assert bench.book.positions.quantity(BTC) == 0


@virtual
async def test_a_closed_market_is_no_reason_to_flatten(make):
    """The price beyond the stop is nobody's offer: the stop is placed, and protects from the open on."""
    bench = make(keeper=True)
    is_open(bench, venue=False)
    bench.book.see_quote(quote("90"))
    await bench.open("1")
    await bench.quiet(1)
    assert rests(bench) == [(OrderType.STOP, 1, 95)]
    await bench.quiet(20)
    assert (bench.orders(OrderRole.FLATTEN), bench.alarms) == ([], [])


@virtual
async def test_a_position_that_closes_while_the_keeper_asks_about_its_market_needs_nothing(make):
    """The plan is made anew of what is then; nothing fails, and nothing is sent."""
    bench = make(keeper=True)

    async def market_status(_symbol):
        await asyncio.sleep(2)
        return MarketStatus(is_open=True)

    bench.venue.market_status = market_status
    bench.book.see_quote(quote("90"))
    await bench.open("1")
    await bench.quiet(1)
    gone = ExternalChange(symbol=BTC, quantity=D(-1), price=D(100), reason="by hand")
    bench.recorder.record(gone)
    await bench.quiet(5)
    assert (bench.alarms, len(bench.venue.sent)) == ([], 1)


@virtual
async def test_a_position_that_closes_while_the_keeper_asks_for_the_open_needs_nothing(make):
    """The same after its stop was refused because the market was closed."""
    bench = make(keeper=True)
    bench.venue.script("place_order", bench.venue._place, MarketClosedError("closed"))
    await bench.open("1")
    await bench.quiet(1)
    assert bench.alarms == ["NOT_PROTECTING"]

    async def market_status(_symbol):
        await asyncio.sleep(2)
        return MarketStatus(is_open=True)

    bench.venue.market_status = market_status
    await bench.quiet(5)
    gone = ExternalChange(symbol=BTC, quantity=D(-1), price=D(100), reason="by hand")
    bench.recorder.record(gone)
    await bench.quiet(5)
    assert (bench.alarms, len(bench.venue.sent)) == (["NOT_PROTECTING"], 2)


@virtual
async def test_a_stop_limit_is_not_left_behind_in_a_closed_market(make):
    """It has not triggered there; when the market opens beyond it the rest goes out."""
    types = frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT})
    bench = make(ScriptedVenue(order_types=types), keeper=True)
    await bench.open("1")
    await bench.quiet()
    is_open(bench, venue=False)
    await see(bench, "90")
    bench.keeper.check(BTC)
    await bench.quiet(12)
    assert rests(bench) == [(OrderType.STOP_LIMIT, 1, 95)]
    is_open(bench, venue=True)
    await bench.quiet(6)
    assert bench.book.positions.quantity(BTC) == 0
    assert bench.alarms == ["UNPROTECTED", "SLIPPAGE"], "at 90, not at 95"

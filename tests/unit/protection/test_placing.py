"""Stops where the venue has no stop-market orders, or none at all, and in the form that it takes."""

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
    InsufficientBalanceError,
    MarketClosedError,
    OrderRejectedError,
    RateLimitError,
)
from execkit.exchanges.base import MarketStatus
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, OrderType, Side
from execkit.model.records import Alarm, ExternalChange, StopMoved
from execkit.protection.policy import ProtectionPolicy

D = Decimal
PLAIN = frozenset({OrderType.MARKET, OrderType.LIMIT})
LIMITED = PLAIN | {OrderType.STOP_LIMIT}


def see(bench, bid, ask=None):
    """Show the price to the book and to the keeper, as the feed does."""
    quote = Quote(BTC, D(bid), D(ask or bid), AT)
    bench.book.see_quote(quote)
    bench.keeper.on_quote(quote)


def sells(bench):
    """Return (type, quantity, stop price, limit price) of what rests at the venue."""
    return [(o.type, o.quantity - o.filled, o.stop_price, o.limit_price) for o in bench.venue.open]


def flattened(bench):
    """Return the quantities of the market orders that closed something, and the reasons that were told."""
    alarms = [a.text for a in bench.journal.records(Alarm) if a.code == "UNPROTECTED"]
    return [o.filled for o in bench.orders(OrderRole.FLATTEN)], alarms


# -- stop-limits ---------------------------------------------------------------------------------------


@virtual
async def test_a_venue_without_stop_market_orders_gets_a_stop_limit(make):
    """C5: its limit is one percent beyond the trigger, on a tick and never nearer."""
    bench = make(ScriptedVenue(order_types=LIMITED), keeper=True)
    await bench.open("1", stop_loss=D("95.3"))
    await bench.quiet()
    assert sells(bench) == [(OrderType.STOP_LIMIT, 1, D("95.3"), D("94.3"))]
    assert bench.alarms == []


@virtual
async def test_a_market_that_takes_stop_limits_only_gets_one(make):
    """D8: although the venue has stop-market orders elsewhere; left behind, it is escalated like any other."""
    venue = ScriptedVenue()

    async def instrument(_symbol):
        return attrs.evolve(INSTRUMENT, stop_limit_only=True)

    venue.instrument = instrument
    bench = make(venue, keeper=True)
    assert OrderType.STOP in venue.capabilities.order_types
    await bench.open("1", stop_loss=D("95.3"))
    await bench.quiet()
    assert sells(bench) == [(OrderType.STOP_LIMIT, 1, D("95.3"), D("94.3"))]
    see(bench, "94.3")
    await bench.quiet(1)
    assert flattened(bench) == ([], [])
    see(bench, "94.2")
    await bench.quiet(1)
    assert flattened(bench)[0] == [1]
    assert bench.book.positions.quantity(BTC) == 0
    assert venue.open == []


@virtual
async def test_the_limit_of_a_short_is_above_its_trigger(make):
    """The mirror image, with a distance of one's own."""
    venue = ScriptedVenue(order_types=LIMITED, short_selling=True)
    bench = make(venue, keeper=True, policy=ProtectionPolicy(stop_limit_pct=D(2)))
    await bench.open("1", side=Side.SELL, stop_loss=D("105.1"))
    await bench.quiet()
    assert sells(bench) == [(OrderType.STOP_LIMIT, 1, D("105.1"), D("107.3"))]


@pytest.mark.parametrize("by_quote", [True, False])
@virtual
async def test_a_stop_limit_that_the_price_has_left_behind_is_escalated(make, by_quote):
    """D8: it is cancelled, proven gone, and the rest goes to the market; at its limit it still works."""
    bench = make(ScriptedVenue(order_types=LIMITED), keeper=True)
    await bench.open("1")
    await bench.quiet()
    (stop,) = bench.stops
    bench.take(bench.venue.fill(stop.client_order_id, "0.4", "94.5"))
    see(bench, "94")
    await bench.quiet(1)
    assert flattened(bench) == ([], [])
    assert sells(bench) == [(OrderType.STOP_LIMIT, D("0.6"), 95, 94)]
    if by_quote:
        see(bench, "93.9")
    else:
        bench.book.marks[BTC] = D("93.9")
        await bench.keeper.on_price(BTC, D(93), D(99))
    await bench.quiet(1)
    reason = f"{BTC} 0.6: the price 93.9 has passed the limit 94 of its stop; flattening"
    assert flattened(bench) == ([D("0.6")], [reason])
    assert [name for name, _ in bench.venue.log[-2:]] == ["cancel", "place"]
    assert bench.book.positions.quantity(BTC) == 0
    assert bench.venue.open == []


@virtual
async def test_a_stop_limit_of_a_short_is_left_behind_above(make):
    """The mirror image."""
    bench = make(ScriptedVenue(order_types=LIMITED, short_selling=True), keeper=True)
    await bench.open("1", side=Side.SELL, stop_loss=D(105))
    await bench.quiet()
    see(bench, "106.1")
    await bench.quiet(1)
    assert flattened(bench)[0] == []
    see(bench, "106.2")
    await bench.quiet(1)
    assert flattened(bench)[0] == [1]


@virtual
async def test_an_escalation_that_fails_is_tried_again(make):
    """D14: the venue refuses the market order; the symbol is closed for entries and it goes on."""
    bench = make(ScriptedVenue(order_types=LIMITED), keeper=True)
    await bench.open("1")
    await bench.quiet()
    bench.venue.script("place_order", OrderRejectedError("no market orders now"))
    see(bench, "93")
    await bench.quiet(10)
    assert bench.book.positions.quantity(BTC) == 0
    assert list(bench.book.blocked) == [BTC]


# -- no stops at all -----------------------------------------------------------------------------------


@virtual
async def test_where_the_venue_takes_no_stops_a_person_is_told_once(make):
    """C5: nothing rests and nothing is flattened; the alarm says who watches."""
    bench = make(ScriptedVenue(order_types=PLAIN), keeper=True)
    await bench.open("1")
    for _ in range(3):
        bench.keeper.check(BTC)
        await bench.quiet(10)
    assert (bench.venue.open, bench.alarms) == ([], ["NOT_PROTECTING"])
    assert bench.book.positions.quantity(BTC) == 1
    assert "the one at 95 is held here" in bench.book.alarms[0].text


@virtual
async def test_a_stop_that_is_held_here_closes_at_its_price(make):
    """By the price at which the position would be closed."""
    bench = make(ScriptedVenue(order_types=PLAIN), keeper=True)
    await bench.open("1")
    await bench.quiet()
    see(bench, "95.1", "95.2")
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 1
    see(bench, "95", "99")
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 0
    assert flattened(bench) == ([1], [])


@pytest.mark.parametrize("what", ["refused", "in part"])
@virtual
async def test_a_held_stop_that_was_reached_closes_all_of_it(make, what):
    """The exit is refused, or executed in part and ended, and the price comes back: the rest goes all the same."""
    bench = make(ScriptedVenue(order_types=PLAIN), keeper=True)
    await bench.open("1")
    await bench.quiet()

    def in_part(request):
        report = bench.venue.accept(request)
        bench.take(bench.venue.fill(request.client_order_id, "0.3"))
        bench.take(bench.venue.end(request.client_order_id, OrderState.EXPIRED))
        return report

    answer = OrderRejectedError("not now") if what == "refused" else in_part
    bench.venue.script("place_order", answer)
    see(bench, "95", "99")
    await bench.quiet(3)
    assert bench.book.positions.quantity(BTC) == 0
    assert flattened(bench)[0] == ([0, 1] if what == "refused" else [D("0.3"), D("0.7")])
    assert list(bench.book.blocked) == ([BTC] if what == "refused" else [])
    if what == "refused":
        return
    await bench.open("1", signal="s2")
    see(bench, "99")
    await bench.quiet(3)
    assert bench.book.positions.quantity(BTC) == 1, "the next position has a stop of its own"


@virtual
async def test_a_bar_through_a_held_stop_and_the_target_is_a_loss(make):
    """Nobody knows which came first: the stop counts."""
    bench = make(ScriptedVenue(order_types=PLAIN), keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    await bench.keeper.on_price(BTC, D(94), D(111), D(100))
    await bench.quiet()
    assert bench.orders(OrderRole.TARGET) == []
    assert flattened(bench) == ([1], [])


@virtual
async def test_a_held_stop_survives_a_restart(make):
    """D12: its level is in the journal; a price beyond it closes at once."""
    bench = make(ScriptedVenue(order_types=PLAIN), keeper=True)
    await bench.open("1")
    await bench.quiet()
    again = await bench.restart()
    again.book.marks[BTC] = D(94)
    await again.reconciler.start()
    await again.quiet(1)
    assert again.book.positions.quantity(BTC) == 0


# -- what is changed after a refusal -------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [InsufficientBalanceError("held for orders"), MarketClosedError("closed")]
)
@virtual
async def test_a_refusal_that_is_not_about_the_terms_changes_none(make, error):
    """Another price would not help."""
    bench = make(keeper=True)
    bench.venue.script("place_order", bench.venue._place, error)
    await bench.open("1")
    await bench.quiet(6)
    assert sells(bench) == [(OrderType.STOP, 1, 95, None)]
    assert bench.journal.records(StopMoved) == []


@pytest.mark.parametrize("says", ["closed", "open", "nothing"])
@virtual
async def test_a_stop_waits_for_its_market_to_open(make, says):
    """D13: told once, neither blocked nor flattened however long it takes, and placed when it can be.

    It is tried again when the venue says that the market is open, and when it says nothing.
    """

    async def market_status(_symbol):
        if says == "nothing":
            raise ExchangeUnavailableError("down")
        return MarketStatus(is_open=says == "open" or is_open)

    is_open = False
    bench = make(keeper=True)
    bench.venue.market_status = market_status
    bench.venue.script("place_order", bench.venue._place)
    bench.venue.always("place_order", MarketClosedError("closed"))
    await bench.open("1")
    await bench.quiet(60)
    assert bench.alarms == ["NOT_PROTECTING"]
    assert "its market is closed, so the stop at 95 is placed when it opens" in (
        bench.book.alarms[0].text
    )
    assert (bench.orders(OrderRole.FLATTEN), list(bench.book.blocked)) == ([], [])
    assert len(bench.orders(OrderRole.STOP)) == (1 if says == "closed" else 15)
    is_open = True
    bench.venue.always("place_order")
    await bench.quiet(6)
    assert sells(bench) == [(OrderType.STOP, 1, 95, None)]
    assert bench.alarms == ["NOT_PROTECTING"]


@virtual
async def test_a_stop_is_placed_when_its_market_said_that_it_would_open(make):
    """D13: at the moment that the venue has named, and every half a second when that is past and it is closed still."""
    opens_at = []

    async def market_status(_symbol):
        return MarketStatus(is_open=now() >= opens_at[0] + 1, next_open=bench.clock.now() + left())

    def left():
        return timedelta(seconds=opens_at[0] - now())

    now = asyncio.get_running_loop().time
    opens_at.append(now() + 6.5)
    bench = make(keeper=True)
    bench.venue.market_status = market_status
    bench.venue.script("place_order", bench.venue._place, MarketClosedError("closed"))
    await bench.open("1")
    await bench.quiet(7.4)
    assert sells(bench) == []
    await bench.quiet(0.2)
    assert sells(bench) == [(OrderType.STOP, 1, 95, None)]


@virtual
async def test_whether_a_market_has_opened_is_not_asked_while_the_venue_wants_a_pause(make):
    """I10: the pause is for questions too."""
    asked, now = [], asyncio.get_running_loop().time

    async def market_status(_symbol):
        asked.append(now())
        return MarketStatus(is_open=False)

    bench = make(keeper=True)
    bench.venue.market_status = market_status
    bench.venue.script("place_order", bench.venue._place)
    bench.venue.always("place_order", MarketClosedError("closed"))
    await bench.open("1")
    await asyncio.sleep(12)
    assert asked
    bench.gateway.pace.note(RateLimitError("slow down", retry_after=timedelta(seconds=45)))
    began = now()
    await asyncio.sleep(120)
    assert not [at for at in asked if began < at < began + 45]
    assert [at for at in asked if at >= began + 45]


@virtual
async def test_a_position_worth_too_little_for_a_stop(make):
    """D13: told once and left alone; a stop of the whole size follows when there is more."""
    bench = make(keeper=True)
    bench.venue.always("instrument", attrs.evolve(INSTRUMENT, min_notional=D(50)))
    await bench.open("0.5")
    for _ in range(3):
        bench.keeper.check(BTC)
        await bench.quiet(10)
    assert (bench.venue.open, bench.alarms) == ([], ["NOT_PROTECTING"])
    assert "the venue takes no order below 0.53, so the stop at 95" in bench.book.alarms[0].text
    await bench.open("0.5", signal="s2")
    await bench.quiet()
    assert sells(bench) == [(OrderType.STOP, 1, 95, None)]


@virtual
async def test_a_venue_with_one_type_of_stop_is_asked_for_that(make):
    """The trigger goes on by a tick each time, also for a short: away from the market."""
    venue = ScriptedVenue(order_types=PLAIN | {OrderType.STOP}, short_selling=True)
    bench = make(venue, keeper=True)
    no = OrderRejectedError("would trigger immediately")
    bench.venue.script("place_order", bench.venue._place, no, no)
    await bench.open("1", side=Side.SELL, stop_loss=D(105))
    await bench.quiet(2)
    assert sells(bench) == [(OrderType.STOP, 1, D("105.2"), None)]
    assert bench.book.position(BTC).initial_stop == 105


@virtual
async def test_a_stop_that_was_moved_meanwhile_is_not_moved_back(make):
    """The trader's level wins over the tick."""
    bench = make(keeper=True)

    def refuse(_request):
        bench.recorder.record(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(93)))
        raise OrderRejectedError("would trigger immediately")

    bench.venue.script("place_order", bench.venue._place, refuse)
    await bench.open("1")
    await bench.quiet(2)
    assert sells(bench) == [(OrderType.STOP, 1, 93, None)]


@virtual
async def test_a_position_that_closes_while_its_stop_is_refused_has_no_level_to_move(make):
    """Nothing is recorded of a position that is gone."""
    bench = make(keeper=True)

    def refuse(_request):
        bench.venue.held = D(-1)
        bench.recorder.record(
            ExternalChange(symbol=BTC, quantity=D(-1), price=D(100), reason="by hand")
        )
        raise OrderRejectedError("nothing to reduce")

    bench.venue.script("place_order", bench.venue._place, refuse)
    await bench.open("1")
    await bench.quiet(2)
    assert bench.journal.records(StopMoved) == []
    assert (bench.venue.open, bench.alarms) == ([], [])


@virtual
async def test_a_price_that_asks_for_nothing_starts_nothing(make):
    """Once the rules are known, a quote costs no task; a bar of a quiet market moves no stop."""
    bench = make(keeper=True)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    await bench.keeper.on_price(BTC, D(99), D(101))
    see(bench, "100")
    assert bench.keeper.watcher.tasks == {}
    assert sells(bench) == [(OrderType.STOP, 1, 95, None)]


# -- reversals -----------------------------------------------------------------------------------------


@virtual
async def test_a_position_that_a_reduction_has_turned_is_closed_at_once(make):
    """D7: more was executed than there was; what nobody wanted goes, and a person is told."""
    bench = make(ScriptedVenue(short_selling=True), keeper=True)
    await bench.open("1")
    await bench.quiet()
    (stop,) = bench.stops
    bench.take(bench.venue.fill(stop.client_order_id, "1.5", at=bench.clock.now()))
    await bench.quiet(1)
    assert bench.book.positions.quantity(BTC) == 0
    (flat,) = bench.orders(OrderRole.FLATTEN)
    assert (flat.side, flat.filled) == (Side.BUY, D("0.5"))
    assert "UNPROTECTED" in bench.alarms
    texts = [a.text for a in bench.journal.records(Alarm)]
    assert f"{BTC} -0.5: a reduction has turned the position around; flattening" in texts


@virtual
async def test_a_reversal_too_small_to_close_is_left(make):
    """D5: dust, and no loop."""
    bench = make(ScriptedVenue(short_selling=True), keeper=True)
    await bench.open("1")
    await bench.quiet()
    (stop,) = bench.stops
    bench.take(bench.venue.fill(stop.client_order_id, "1.01", at=bench.clock.now()))
    await bench.quiet(5)
    assert bench.book.positions.quantity(BTC) == D("-0.01")
    assert "KEEPER_LOOP" not in bench.alarms
    assert stop.state is OrderState.FILLED

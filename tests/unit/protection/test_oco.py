"""A stop and its target as one list that the venue keeps together: sizes, partial legs, races, doubt and restarts."""

from datetime import timedelta
from decimal import Decimal

import attrs
import pytest
from tests.support.bench import virtual
from tests.support.orders import AT, BTC
from tests.support.tickets import INSTRUMENT, entry, reduction
from tests.support.venue import ScriptedVenue

from execkit.errors import ExchangeUnavailableError, InvalidOrderError, NotSentError
from execkit.model.market import Quote
from execkit.model.order import ListKind, OrderRole, OrderState, OrderType, Side
from execkit.model.position import Target
from execkit.model.records import CommandSent, ExternalChange, StopMoved
from execkit.orders.proofs import reducible
from execkit.protection.policy import ProtectionPolicy

D = Decimal
OCO = {"lists": frozenset({ListKind.OCO})}


def rests(bench):
    """Return (type, what is left, price) of the orders that rest at the venue."""
    return [
        (o.type, o.quantity - o.filled, o.stop_price or o.limit_price) for o in bench.venue.open
    ]


def pair(quantity="1", stop="95", target="110"):
    return [
        (OrderType.STOP, D(quantity), D(stop)),
        (OrderType.LIMIT, D(quantity), D(target)),
    ]


async def opened(make, quantity="1", **capabilities):
    """Return a bench with a long of *quantity* at 100, its stop at 95 and its target at 110 in one list."""
    bench = make(ScriptedVenue(**OCO, **capabilities), keeper=True)
    await bench.open(quantity, take_profit=D(110))
    await bench.quiet()
    return bench


def leg(bench, role):
    return bench.orders(role)[-1]


async def execute(bench, order, quantity=None):
    """Execute a leg as Binance does: however little of it, the other one ends."""
    key = order.client_order_id
    others = bench.venue.end_siblings(key)
    bench.take(bench.venue.fill(key, quantity, at=bench.clock.now()))
    for report in others:
        await bench.gateway.absorb(report, "stream")


# -- placing -------------------------------------------------------------------------------------------


@virtual
async def test_stop_and_target_rest_as_one_list(make):
    """C5: stop first, target second, one size, one message, a name of its own; a restart finds both right."""
    bench = await opened(make)
    assert rests(bench) == pair()
    assert bench.venue.calls["place_list"] == 1
    stop, target = leg(bench, OrderRole.STOP), leg(bench, OrderRole.TARGET)
    assert stop.intent.list_id == target.intent.list_id is not None
    assert stop.intent.list_id not in bench.book.orders
    assert stop.request.reduce_only
    assert target.request.reduce_only
    assert bench.alarms == []
    again = await bench.restart()
    await again.reconciler.start()
    await again.quiet()
    assert rests(again) == pair()
    assert len(again.venue.sent) == 3
    assert again.book.orders[target.client_order_id].intent == target.intent


@virtual
async def test_a_list_counts_once(make):
    """I13: the larger of the two legs is what could be closed; what another order may close is the rest."""
    bench = await opened(make)
    assert reducible(bench.book, BTC, Side.SELL) == 0
    await bench.open("0.5", signal="s2")
    assert reducible(bench.book, BTC, Side.SELL) == D("0.5")


@virtual
async def test_the_list_goes_by_the_one_door(make):
    """I3: both intents are durable before either leaves; what cannot be made durable is kept beside the journal."""
    bench = make(ScriptedVenue(**OCO), keeper=True)
    seen = []

    def place(orders):
        seen.append([r.client_order_id in bench.book.orders for r in orders.orders])
        seen.append(bench.journal.committed == bench.journal.last_seq - 2)  # the two sends
        return bench.venue.accept_list(orders)

    bench.venue.always("place_list", place)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    assert seen == [[True, True], True]
    bench.journal.fails = True
    bench.recorder.record(
        StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(96), take_profit=D(110))
    )
    await bench.quiet(2)
    assert rests(bench) == pair(stop="96")
    kept = [e.record for e in bench.journal.emergencies]
    assert [type(r) is CommandSent for r in kept] == [True, True, False, False]


@virtual
async def test_without_a_target_the_stop_rests_alone(make):
    """A list needs two."""
    bench = make(ScriptedVenue(**OCO), keeper=True)
    await bench.open("1")
    await bench.quiet()
    assert rests(bench) == pair()[:1]


@virtual
async def test_a_target_that_has_been_touched_is_taken_from_here(make):
    """It would execute at once, perhaps before the stop rests."""
    bench = make(ScriptedVenue(**OCO), keeper=True)
    bench.book.marks[BTC] = D(110)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    assert rests(bench) == pair()[:1]
    bench.keeper.on_quote(Quote(BTC, D(110), D(110), AT))
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 0


@virtual
async def test_a_venue_with_stop_limits_only_gets_them_in_the_list(make):
    """The stop has the form that the venue takes."""
    types = frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT})
    bench = await opened(make, order_types=types)
    assert [o.type for o in bench.venue.open] == [OrderType.STOP_LIMIT, OrderType.LIMIT]


@virtual
async def test_a_short_has_its_target_below(make):
    """The mirror image, rounded away from the entry."""
    bench = make(ScriptedVenue(**OCO, short_selling=True), keeper=True)
    await bench.open("1", side=Side.SELL, stop_loss=D(105), take_profit=D("90.07"))
    await bench.quiet()
    assert rests(bench) == pair(stop="105", target="90")


@virtual
async def test_the_last_of_several_targets_rests(make):
    """With two targets the first is taken from here; what it leaves gets a list with the second."""
    bench = make(ScriptedVenue(**OCO), keeper=True)
    targets = (Target(D(105), D("0.5")), Target(D(110), D("0.5")))
    await bench.open("1", take_profit=D(110), targets=targets)
    await bench.quiet()
    assert rests(bench) == pair()[:1]
    bench.venue.price = D(105)
    bench.keeper.on_quote(Quote(BTC, D(105), D(105), AT))
    await bench.keeper.idle()
    await bench.quiet()
    assert rests(bench) == pair("0.5")


# -- what becomes of the legs --------------------------------------------------------------------------


@pytest.mark.parametrize("role", [OrderRole.STOP, OrderRole.TARGET])
@virtual
async def test_one_leg_executed_whole_leaves_nothing(make, role):
    """I14: the position is closed by one of them, and nothing is sent."""
    bench = await opened(make)
    await execute(bench, leg(bench, role))
    await bench.quiet(1)
    assert (bench.book.positions.quantity(BTC), bench.venue.open) == (0, [])
    assert len(bench.venue.sent) == 3
    assert bench.alarms == []


@pytest.mark.parametrize("capabilities", [{}, {"reduce_only": True}, {"amend": True}])
@virtual
async def test_the_rest_after_a_part_of_one_leg_is_protected_at_once(make, capabilities):
    """D6 I14: a part of the target has ended the stop; the rest gets a new list of its size."""
    bench = await opened(make, **capabilities)
    await execute(bench, leg(bench, OrderRole.TARGET), "0.3")
    await bench.quiet(0.1)
    assert rests(bench) == pair("0.7")
    await execute(bench, leg(bench, OrderRole.TARGET), "0.2")
    await bench.quiet(0.1)
    assert rests(bench) == pair("0.5")
    assert bench.book.positions.quantity(BTC) == D("0.5")
    assert bench.alarms == []


@virtual
async def test_a_part_of_the_stop_leaves_the_rest_of_it(make):
    """It has triggered and goes on by itself; a target beside it is taken from here."""
    bench = await opened(make)
    stop = leg(bench, OrderRole.STOP)
    await execute(bench, stop, "0.3")
    await bench.quiet()
    assert rests(bench) == pair("0.7")[:1]
    assert bench.venue.open[0].client_order_id == stop.client_order_id


@virtual
async def test_both_legs_executed_is_a_reversal_that_is_closed(make):
    """D7: in a fast gap; what was sold too much is bought back, and a person is told."""
    bench = await opened(make, short_selling=True)
    for role in (OrderRole.TARGET, OrderRole.STOP):
        key = leg(bench, role).client_order_id
        bench.take(bench.venue.fill(key, at=bench.clock.now()))
    await bench.quiet(1)
    assert bench.book.positions.quantity(BTC) == 0
    (flat,) = bench.orders(OrderRole.FLATTEN)
    assert (flat.side, flat.filled) == (Side.BUY, 1)
    assert bench.alarms == ["UNPROTECTED"]


@virtual
async def test_a_stop_that_vanishes_from_its_list_is_restored(make):
    """D9: the target alone does not protect."""
    bench = await opened(make)
    stop = leg(bench, OrderRole.STOP)
    await bench.gateway.absorb(bench.venue.end(stop.client_order_id), "stream")
    await bench.quiet(1)
    assert rests(bench) == pair()


@virtual
async def test_a_target_that_vanishes_is_taken_from_here(make):
    """The stop stays as it is."""
    bench = await opened(make)
    target = leg(bench, OrderRole.TARGET)
    await bench.gateway.absorb(bench.venue.end(target.client_order_id), "stream")
    await bench.quiet(1)
    assert rests(bench) == pair()[:1]
    bench.keeper.on_quote(Quote(BTC, D(110), D(110), AT))
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 0


# -- changes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [{}, {"reduce_only": True}, {"amend": True}])
@virtual
async def test_a_list_follows_size_and_prices(make, capabilities):
    """D10 D16: cancelled as a whole and placed anew; a stop that only moves is changed in place where that works."""
    bench = await opened(make, **capabilities)
    await bench.open("0.5", signal="s2")
    await bench.quiet(1)
    assert rests(bench) == pair("1.5")
    bench.recorder.record(
        StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(97), take_profit=D(112))
    )
    await bench.quiet(1)
    assert rests(bench) == pair("1.5", "97", "112")
    bench.recorder.record(
        StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(97), take_profit=D(113))
    )
    await bench.quiet(1)
    assert rests(bench) == pair("1.5", "97", "113")
    lists, amended = bench.venue.calls["place_list"], bench.venue.calls["amend_order"]
    bench.recorder.record(
        StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(98), take_profit=D(113))
    )
    await bench.quiet(1)
    assert rests(bench) == pair("1.5", "98", "113")
    in_place = bench.venue.calls["amend_order"] - amended
    assert (in_place, bench.venue.calls["place_list"] - lists) == (
        (1, 0) if "amend" in capabilities else (0, 1)
    )
    assert bench.alarms == []


@pytest.mark.parametrize("capabilities", [{}, {"amend": True}])
@virtual
async def test_while_an_entry_may_grow_the_stop_rests_alone(make, capabilities):
    """D3: it is resized with each part; with the last one it gets its target."""
    bench = make(ScriptedVenue(**OCO, **capabilities), keeper=True)
    order = (await bench.gateway.send(entry(take_profit=D(110)))).order
    for part, total in (("0.2", "0.2"), ("0.3", "0.5")):
        bench.take(bench.venue.fill(order.client_order_id, part))
        await bench.quiet(1)
        assert rests(bench)[1:] == pair(total)[:1]
    bench.take(bench.venue.fill(order.client_order_id, "0.5"))
    await bench.quiet(1)
    assert rests(bench) == pair()
    assert bench.venue.calls["amend_order"] == (1 if capabilities else 0)


@virtual
async def test_a_list_whose_change_is_refused_is_replaced(make):
    """C8: the venue does not move the stop of a list."""
    bench = await opened(make, amend=True)
    bench.venue.always("amend_order", InvalidOrderError("not in a list"))
    bench.recorder.record(
        StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(97), take_profit=D(110))
    )
    await bench.quiet(1)
    assert rests(bench) == pair(stop="97")


@virtual
async def test_an_exit_takes_the_place_of_the_list(make):
    """D11: both legs are gone before it leaves; what remains gets a list of its size."""
    bench = await opened(make)
    async with bench.keeper.exiting(BTC, D("0.4"), Side.SELL):
        assert bench.venue.open == []
        await bench.gateway.send(reduction("0.4"))
    await bench.quiet(1)
    assert rests(bench) == pair("0.6")
    assert await bench.keeper.flatten(BTC, "by hand")
    await bench.quiet(1)
    assert (bench.book.positions.open, bench.venue.open) == ({}, [])


@virtual
async def test_while_the_target_rests_nothing_takes_it_from_here(make):
    """A touch is the venue's business."""
    bench = await opened(make)
    bench.keeper.on_quote(Quote(BTC, D(111), D(111), AT))
    await bench.keeper.on_price(BTC, D(100), D(112))
    await bench.keeper.idle()
    assert rests(bench) == pair()


@virtual
async def test_a_list_follows_a_trailing_stop(make):
    """The target stays where it is."""
    policy = ProtectionPolicy(trailing_pct=D(1))
    bench = make(ScriptedVenue(**OCO), keeper=True, policy=policy)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    for price in ("105", "105.05"):
        bench.keeper.on_quote(Quote(BTC, D(price), D(price), AT))
        await bench.quiet(1)
        assert rests(bench) == pair(stop="103.9")
    assert bench.alarms == []


# -- refusals and doubt --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "seconds"), [(InvalidOrderError("no lists here"), 0), (NotSentError("no route"), 2)]
)
@virtual
async def test_a_list_that_is_refused_is_followed_by_the_stop_alone(make, error, seconds):
    """D1: at the level that was asked for, at once where the venue has no lists; the target is taken from here."""
    bench = make(ScriptedVenue(**OCO), keeper=True)
    bench.venue.script("place_list", error)
    await bench.open("1", take_profit=D(110))
    await bench.quiet(seconds)
    assert rests(bench) == pair()[:1]
    assert [o for o in bench.book.orders.active.values() if o.role is OrderRole.TARGET] == []
    bench.keeper.on_quote(Quote(BTC, D(110), D(110), AT))
    await bench.keeper.idle()
    assert bench.book.positions.quantity(BTC) == 0


@virtual
async def test_a_symbol_without_lists_is_not_asked_for_one_again(make):
    """Of Alpaca, stocks have lists and coins have none."""
    bench = make(ScriptedVenue(**OCO), keeper=True)
    bench.venue.script("place_list", InvalidOrderError("no lists here"))
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    await bench.open("1", signal="s2", take_profit=D(110))
    await bench.quiet(1)
    assert rests(bench) == pair("2")[:1]
    assert bench.venue.calls["place_list"] == 1


@pytest.mark.parametrize(
    ("rules", "quantity"), [({"lists": False}, "1"), ({"list_lot_size": D(1)}, "1.5")]
)
@virtual
async def test_a_market_without_lists_is_never_asked_for_one(make, rules, quantity):
    """Crypto and parts of a share at Alpaca: no intent, no refusal; the stop alone, the target from here."""
    venue = ScriptedVenue(**OCO)

    async def instrument(_symbol):
        return attrs.evolve(INSTRUMENT, **rules)

    venue.instrument = instrument
    bench = make(venue, keeper=True)
    await bench.open(quantity, take_profit=D(110))
    await bench.quiet()
    assert rests(bench) == pair(quantity)[:1]
    assert venue.calls["place_list"] == 0
    assert len(bench.intents()) == 2
    venue.price = D(110)
    bench.keeper.on_quote(Quote(BTC, D(110), D(110), AT))
    await bench.keeper.idle()
    assert (bench.book.positions.quantity(BTC), bench.alarms) == (0, [])


@virtual
async def test_whole_shares_get_their_list(make):
    """Two of a market whose lists take whole ones; what scaling in makes a fraction of rests without its target."""
    venue = ScriptedVenue(**OCO)

    async def instrument(_symbol):
        return attrs.evolve(INSTRUMENT, list_lot_size=D(1))

    venue.instrument = instrument
    bench = make(venue, keeper=True)
    await bench.open("2", take_profit=D(110))
    await bench.quiet()
    assert rests(bench) == pair("2")
    await bench.open("0.5", signal="s2", take_profit=D(110))
    await bench.quiet(1)
    assert rests(bench) == pair("2.5")[:1]
    assert (venue.calls["place_list"], bench.alarms) == (1, [])


@virtual
async def test_a_refused_target_leaves_its_stop(make):
    """A21: each leg has an outcome of its own."""
    bench = make(ScriptedVenue(**OCO), keeper=True)

    def half(orders):
        stop, target = bench.venue.accept_list(orders)
        return [stop, bench.venue.end(target.client_order_id, OrderState.REJECTED)]

    bench.venue.script("place_list", half)
    await bench.open("1", take_profit=D(110))
    await bench.quiet(1)
    assert rests(bench) == pair()[:1]
    assert bench.alarms == []


@virtual
async def test_an_answer_of_a_list_that_makes_no_sense_is_none(make):
    """A9: both legs are in doubt until they are seen, and a person is told."""
    bench = make(ScriptedVenue(**OCO), keeper=True)

    def place(orders):
        bench.venue.accept_list(orders)
        return [None, {"id": 7}]

    bench.venue.script("place_list", place)
    await bench.open("1", take_profit=D(110))
    await bench.quiet(4)
    assert rests(bench) == pair()
    assert bench.alarms == ["ANSWER_NOT_OURS", "ANSWER_NOT_OURS"]


@pytest.mark.parametrize("answer", [ConnectionResetError(), None, "short", "doubtful"])
@virtual
async def test_a_list_whose_answer_is_lost_is_looked_up_leg_by_leg(make, answer):
    """A21 I30: without an answer for a leg it is in doubt, and no second list goes out before there is proof."""
    bench = make(ScriptedVenue(**OCO), keeper=True)
    for method in ("get_order", "open_orders"):
        bench.venue.always(method, ExchangeUnavailableError("503"))

    def place(orders):
        reports = bench.venue.accept_list(orders)
        if isinstance(answer, BaseException):
            raise answer
        if answer == "short":
            return reports[:1]
        if answer == "doubtful":
            return [
                type(each)(
                    client_order_id=each.client_order_id,
                    venue_order_id="",
                    symbol=each.symbol,
                    side=each.side,
                    type=each.type,
                    quantity=each.quantity,
                    status=OrderState.IN_DOUBT,
                )
                for each in reports
            ]
        return None

    bench.venue.script("place_list", place)
    await bench.open("1", take_profit=D(110))
    await bench.quiet(1)
    legs = [leg(bench, OrderRole.STOP), leg(bench, OrderRole.TARGET)]
    assert [o.state for o in legs] == [OrderState.IN_DOUBT] * 2
    for method in ("get_order", "open_orders"):
        bench.venue.always(method)
    await bench.quiet(4)
    assert [o.state for o in legs] == [OrderState.ACCEPTED] * 2
    assert rests(bench) == pair()
    assert len(bench.venue.sent) == 3
    assert bench.alarms == []


@virtual
async def test_a_list_in_doubt_for_too_long_flattens(make):
    """D2: both legs are cancelled by id before the position goes."""
    bench = make(ScriptedVenue(**OCO, short_selling=True), keeper=True)

    def place(orders):
        bench.venue.accept_list(orders)
        raise ConnectionResetError

    bench.venue.script("place_list", place)
    for method in ("get_order", "open_orders", "fills_since"):
        bench.venue.always(method, ExchangeUnavailableError("503"))
    await bench.open("1", take_profit=D(110))
    await bench.quiet(30)
    for method in ("get_order", "open_orders", "fills_since"):
        bench.venue.always(method)
    await bench.quiet(60)
    assert (bench.book.positions.quantity(BTC), bench.venue.open) == (0, [])
    assert "UNPROTECTED" in bench.alarms


@virtual
async def test_a_list_that_never_arrived_is_placed_anew(make):
    """Proven absent: a new list under new ids, never one leg of the old one alone."""
    bench = make(ScriptedVenue(**OCO, absence_window=timedelta(seconds=1)), keeper=True)
    bench.venue.script("place_list", ConnectionResetError())
    await bench.open("1", take_profit=D(110))
    await bench.quiet(4)
    assert rests(bench) == pair()
    assert len(set(bench.venue.sent)) == 5


@virtual
async def test_the_stop_alone_never_takes_the_id_of_a_leg(make):
    """The leg was not to go out alone: should the list arrive late, the two would be one order for the venue."""
    bench = make(ScriptedVenue(**OCO, absence_window=timedelta(seconds=1)), keeper=True)
    bench.venue.script("place_list", ConnectionResetError())
    await bench.open("1", take_profit=D(110))
    await bench.quiet(0.5)
    bench.book.marks[BTC] = D(110)
    await bench.quiet(3.5)
    assert rests(bench) == pair()[:1]
    assert len(set(bench.venue.sent)) == 4


@virtual
async def test_after_a_kill_within_the_send_the_list_is_proven_first(make):
    """G7 D12: it arrived, the answer was not journalled; the next process finds both legs and sends nothing."""
    bench = make(ScriptedVenue(**OCO), keeper=True)

    def place(orders):
        bench.venue.accept_list(orders)
        bench.journal.is_current = False  # killed: nothing of it is written any more
        raise ConnectionResetError

    bench.venue.script("place_list", place)
    await bench.open("1", take_profit=D(110))
    await bench.quiet()
    again = await bench.restart()
    await again.reconciler.start()
    await again.quiet(2)
    assert rests(again) == pair()
    assert len(again.venue.sent) == 3
    states = {o.state for o in again.book.orders.open_reductions(BTC)}
    assert states == {OrderState.ACCEPTED}


@virtual
async def test_a_list_for_no_position_is_denied(make):
    """I13: nothing is intended."""
    bench = make(ScriptedVenue(**OCO))
    stop = reduction("1", role=OrderRole.STOP)
    target = reduction("1", role=OrderRole.TARGET)
    sent = await bench.gateway.send_oco(stop, target)
    assert [each.denial is not None and each.order is None for each in sent] == [True, True]
    assert bench.intents() == []


@virtual
async def test_a_list_whose_position_has_gone_meanwhile_is_not_sent(make):
    """The position was closed while the intents were committed: both are given up."""
    bench = make(ScriptedVenue(**OCO))
    await bench.open("1")

    async def close():
        bench.journal.on_commit = None
        bench.recorder.record(
            ExternalChange(symbol=BTC, quantity=D(-1), price=D(100), reason="by hand")
        )

    bench.journal.on_commit = close
    stop = reduction("1", role=OrderRole.STOP, stop="95")
    target = reduction("1", role=OrderRole.TARGET)
    sent = await bench.gateway.send_oco(stop, target)
    assert [each.order.state for each in sent] == [OrderState.FAILED] * 2
    assert bench.venue.calls["place_list"] == 0

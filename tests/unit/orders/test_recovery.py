"""Books and venue brought together: at the start, on suspicion, and never by counting a thing twice."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from msgspec.structs import replace
from tests.support.bench import virtual
from tests.support.orders import AT, BTC, changed, fill, later, records_into, report
from tests.support.tickets import entry, reduction
from tests.support.venue import ScriptedVenue, after, never

from execkit.errors import ExchangeUnavailableError, OrderNotFoundError, OrderRejectedError
from execkit.journal.fold import fold
from execkit.model.account import Balance, VenuePosition
from execkit.model.events import ReconcileMismatch
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import (
    Alarm,
    BalancesSeen,
    EquityMarked,
    ExternalChange,
    Filled,
    Source,
)

D = Decimal
BLIND = ExchangeUnavailableError("503")


def now():
    return asyncio.get_running_loop().time()


async def started(bench):
    await bench.reconciler.start()
    return bench


# -- a fresh start -------------------------------------------------------------------------------------


@virtual
async def test_a_fresh_account_is_taken_over_without_alarm(make):
    """What was held before is no mismatch, however much it is."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000), "BTC": D(2), "ETH": D(3), "X": D(0)}
    bench.venue.always(
        "positions", lambda: [VenuePosition(BTC, D(2), D(90)), VenuePosition("ETH/USDT", D(3))]
    )
    await started(bench)
    assert bench.book.cash == {"USDT": D(1000), "BTC": D(2), "ETH": D(3)}
    assert bench.book.positions.open[BTC].average_price == 90
    assert bench.book.positions.open["ETH/USDT"].average_price == 100, "from the ticker"
    assert [r.reason for r in bench.journal.records(ExternalChange)] == [
        "held before execkit began"
    ] * 2
    assert bench.alarms == []
    assert not bench.reconciler.is_blind
    assert bench.reconciler.passes == 1
    await bench.quiet(30)
    assert bench.reconciler.passes == 1, "nothing to look at again"


@virtual
async def test_an_empty_venue_needs_no_record(make):
    """Nothing held, nothing journalled."""
    bench = make()
    await started(bench)
    assert bench.journal.entries == []
    assert bench.venue.calls["fills_since"] == 0


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("open_orders", BLIND),
        ("positions", BLIND),
        ("balances", BLIND),
        ("positions", lambda: [VenuePosition(BTC, D("NaN"))]),
        ("positions", lambda: [VenuePosition(BTC, D(1), D("Infinity"))]),
        ("balances", lambda: {"USDT": Balance("USDT", D("NaN"), D(0))}),
        ("balances", lambda: {"USDT": Balance("USDT", 1.0, 1.0)}),
        ("open_orders", never),
    ],
)
@virtual
async def test_a_start_needs_the_whole_truth(make, method, answer):
    """N1 E17: a query that fails, hangs or answers no number raises, changes nothing and leaves us blind."""
    bench = make()
    bench.venue.always(method, answer)
    with pytest.raises((ExchangeUnavailableError, TimeoutError, Exception)):
        await bench.reconciler.start()
    assert bench.reconciler.is_blind
    assert bench.journal.records(ExternalChange) == bench.journal.records(BalancesSeen) == []


# -- a restart -----------------------------------------------------------------------------------------

OPEN = {
    OrderState.NEW,
    OrderState.SUBMITTED,
    OrderState.IN_DOUBT,
    OrderState.PRESUMED_ABSENT,
    OrderState.HELD,
    OrderState.ACCEPTED,
    OrderState.PARTIALLY_FILLED,
    OrderState.PENDING_CANCEL,
    OrderState.PENDING_AMEND,
}


async def restarted(make, state, at_venue):
    """Return the process after the one whose journal ends with an order in *state*."""
    first = make(ScriptedVenue(absence_window=timedelta(seconds=5)))
    for record in records_into(state, limit="100"):
        first.recorder.record(record)
    order = first.order()
    if at_venue is not None:
        told = first.venue.accept(order.request)
        first.venue.orders["o1"] = replace(told, venue_order_id="v-o1", status=at_venue)
        for done in order.fills:
            first.venue.fill("o1", done.quantity)
            first.venue.fills[-1] = done
            first.venue.orders["o1"] = replace(first.venue.orders["o1"], fills=(done,))
    return await first.restart()


@pytest.mark.parametrize("state", sorted(OPEN))
@virtual
async def test_an_open_order_that_rests_is_adopted(make, state):
    """C10: whatever the journal knew, after the start it is what the venue says, and can be waited for."""
    bench = await restarted(make, state, OrderState.ACCEPTED)
    await started(bench)
    await bench.quiet(1)
    order = bench.order()
    wish = state is OrderState.PENDING_CANCEL
    partly = state is OrderState.PARTIALLY_FILLED
    if wish:
        assert order.state is OrderState.CANCELLED, "the cancel is carried through"
    else:
        assert order.state is (OrderState.PARTIALLY_FILLED if partly else OrderState.ACCEPTED)
        waiter = asyncio.ensure_future(order.done())
        bench.take(bench.venue.fill("o1"))
        assert (await waiter).state is OrderState.FILLED
    late = state is OrderState.PRESUMED_ABSENT
    assert bench.alarms == (["LATE_SIGHT"] if late else [])
    assert bench.venue.sent == [], "recovery sends no order"
    assert fold(bench.journal.entries).state_hash() == bench.book.state_hash()


@pytest.mark.parametrize("state", sorted(OPEN))
@virtual
async def test_an_open_order_that_was_executed_meanwhile_is_filled(make, state):
    """G4 C10: found closed by id, with its fills; the position follows."""
    bench = await restarted(make, state, OrderState.ACCEPTED)
    bench.venue.fill("o1")
    await started(bench)
    assert bench.order().state is OrderState.FILLED
    assert bench.book.positions.quantity(BTC) == 1
    assert bench.journal.records(ExternalChange) == []


@pytest.mark.parametrize("state", sorted(OPEN))
@virtual
async def test_an_open_order_that_was_cancelled_meanwhile_is_closed(make, state):
    """The venue's word is the end."""
    bench = await restarted(make, state, OrderState.ACCEPTED)
    bench.venue.end("o1")
    await started(bench)
    assert bench.order().state is OrderState.CANCELLED


@pytest.mark.parametrize("state", sorted(OPEN - {OrderState.PARTIALLY_FILLED}))
@virtual
async def test_an_open_order_that_nobody_knows_is_proven_absent(make, state):
    """G2: never sent on by itself, in doubt until the window is over, then watched."""
    bench = await restarted(make, state, None)
    await started(bench)
    order = bench.order()
    assert order.state in (
        OrderState.IN_DOUBT,
        OrderState.PENDING_CANCEL,
        OrderState.PRESUMED_ABSENT,
    )
    await bench.quiet(20)
    assert order.state is OrderState.PRESUMED_ABSENT
    assert bench.venue.sent == []


@pytest.mark.parametrize("state", [s for s in OrderState if s.is_closed])
@virtual
async def test_a_closed_order_stays_closed(make, state):
    """I7: not even asked for."""
    bench = await restarted(make, state, None)
    await started(bench)
    assert bench.order().state is state
    assert bench.venue.calls["get_order"] == 0


@virtual
async def test_recovery_twice_is_recovery_once(make):
    """G9: a second start on the journal of the first adds nothing."""
    bench = await restarted(make, OrderState.SUBMITTED, OrderState.ACCEPTED)
    bench.venue.fill("o1", "0.5")
    await started(bench)
    again = await bench.restart()
    known = len(again.journal.entries)
    await started(again)
    assert len(again.journal.entries) == known
    assert again.book.state_hash() == bench.book.state_hash()


@virtual
async def test_fills_that_were_missed_are_fetched_from_the_oldest_open_order_on(make):
    """B6: the first pass goes back that far, later ones five minutes before the last."""
    asked = []
    first = make()
    for record in records_into(OrderState.ACCEPTED, limit="100"):
        first.recorder.record(record)
    first.venue.orders["o1"] = replace(
        first.venue.accept(first.order().request), venue_order_id="v-o1"
    )
    await asyncio.sleep(86_400)
    first.recorder.record(changed("accept"))
    bench = await first.restart()
    await asyncio.sleep(600)
    bench.venue.always("fills_since", lambda since: asked.append(since) or [])
    await started(bench)
    await asyncio.sleep(60)
    await bench.reconciler.run()
    five_minutes = timedelta(minutes=5)
    assert asked == [AT - five_minutes, later(86_400 + 600) - five_minutes]
    bench.take(fill("z", "o1", "0.1", at=later(50)))
    await bench.reconciler.run()
    assert asked[-1] == later(50) - five_minutes, (
        "in the venue's own time, should our clock be ahead"
    )


@virtual
async def test_a_late_fill_of_a_closed_order_is_found(make):
    """C3 after a crash: the overlap shows it."""
    bench = await restarted(make, OrderState.CANCELLED, OrderState.CANCELLED)
    bench.venue.fill("o1", "0.3")
    await started(bench)
    assert (bench.order().filled, bench.book.positions.quantity(BTC)) == (D("0.3"), D("0.3"))
    assert bench.alarms == ["LATE_FILL"]


@virtual
async def test_what_is_in_doubt_at_the_start_is_not_counted_twice(make):
    """The venue's position may hold a fill that the look-up does not show yet: it is not taken for an outside one."""
    bench = await restarted(make, OrderState.SUBMITTED, None)
    bench.venue.held = D(1)
    bench.venue.cash = {"BTC": D(1)}
    await started(bench)
    assert bench.order().state is OrderState.IN_DOUBT
    assert bench.journal.records(ExternalChange) == []
    bench.venue.held = D(0)
    bench.venue.orders["o1"] = report(bench.order(), venue_order_id="v1")
    bench.venue.fill("o1")
    await bench.quiet(10)
    assert bench.book.positions.quantity(BTC) == 1
    await bench.reconciler.run()
    await bench.quiet(10)
    assert bench.book.positions.quantity(BTC) == 1


# -- differences ---------------------------------------------------------------------------------------


@virtual
async def test_a_change_from_outside_is_taken_over_when_two_passes_find_it(make):
    """E19: recorded, told and announced; the second look comes by itself."""
    bench = await started(make())
    bench.venue.held = D(2)
    await bench.reconciler.run()
    assert bench.book.positions.quantity(BTC) == 0
    await bench.quiet(3)
    assert bench.book.positions.quantity(BTC) == 2
    (change,) = bench.journal.records(ExternalChange)
    assert (change.quantity, change.price, change.reason) == (
        2,
        100,
        "not explained by our fills",
    )
    (alarm,) = bench.journal.records(Alarm)
    assert (alarm.code, alarm.text) == ("MISMATCH", f"{BTC}: ours 0, the venue's 2")
    (event,) = bench.told(ReconcileMismatch)
    assert (event.symbol, event.ours, event.venue) == (BTC, "0", "2")
    assert BTC in bench.protected
    passes = bench.reconciler.passes
    await bench.quiet(60)
    assert bench.reconciler.passes == passes


@virtual
async def test_a_difference_that_changes_is_looked_at_again(make):
    """Only what stands still is taken over."""
    bench = await started(make())
    bench.venue.held = D(2)
    await bench.reconciler.run()
    bench.venue.held = D(3)
    await bench.quiet(2.5)
    assert bench.book.positions.quantity(BTC) == 0
    await bench.quiet(4.5)
    assert bench.book.positions.quantity(BTC) == 3


@virtual
async def test_a_fill_on_its_way_is_not_taken_for_an_outside_change(make):
    """D17: the venue's position leads its own stream; the fill is counted once, whenever it comes."""
    bench = await started(make())
    sent = await bench.gateway.send(entry())
    await bench.quiet(60)
    bench.venue.always("fills_since", lambda _since: [])
    bench.venue.always("open_orders", lambda _symbol: [report(sent.order)])
    done = bench.venue.fill(sent.order.client_order_id)
    await bench.reconciler.run()
    await bench.quiet(0.5)
    assert bench.take(done)
    await bench.quiet(10)
    assert bench.book.positions.quantity(BTC) == 1
    assert bench.journal.records(ExternalChange) == []
    assert bench.alarms == []


def shown_as(symbol, quantity):
    return lambda: [VenuePosition(symbol, D(quantity))]


@virtual
async def test_a_holding_under_another_name_is_ours(make):
    """A spot account holds coins: whichever of their markets is named, ours are found among them."""
    bench = await started(make(ScriptedVenue(positions_are_holdings=True)))
    await bench.gateway.send(entry(limit=None))
    await bench.quiet(60)
    assert bench.book.positions.quantity(BTC) == 1
    bench.venue.always("positions", shown_as("BTC/USDC", "1"))
    for _ in range(3):
        await bench.reconciler.run()
        await bench.quiet(10)
    assert dict(bench.book.positions.open).keys() == {BTC}
    assert bench.journal.records(ExternalChange) == []
    assert bench.alarms == []
    bench.venue.always("positions", shown_as("BTC/USDC", "1.5"))
    await bench.reconciler.run()
    await bench.quiet(10)
    assert bench.book.positions.quantity(BTC) == D("1.5")
    assert bench.book.positions.quantity("BTC/USDC") == 0


@virtual
async def test_a_fill_on_its_way_in_another_market_of_the_asset_is_no_outside_change(make):
    """The venue shows the coins under a market of its choice before it says which order bought them."""
    venue = ScriptedVenue(positions_are_holdings=True, absence_window=timedelta(hours=1))
    bench = await started(make(venue))
    bench.venue.script("place_order", BLIND)
    bench.venue.always("get_order", BLIND)
    sent = await bench.gateway.send(entry())
    assert sent.order.state is OrderState.IN_DOUBT
    await bench.quiet(60)
    bench.venue.always("positions", shown_as("BTC/USDC", "1"))
    for _ in range(3):
        await bench.reconciler.run()
        await bench.quiet(10)
    assert bench.journal.records(ExternalChange) == []


async def taken_over(make, quantity="1", **options):
    """Return a bench whose entry has ended, and the fill of it that the venue hid when its position was taken over."""
    bench = await started(make(**options))
    order = (await bench.gateway.send(entry(stop_loss=D(90)))).order
    await bench.gateway.absorb(bench.venue.end(order.client_order_id), Source.STREAM)
    await bench.quiet(60)
    bench.venue.always("fills_since", lambda _since: [])
    hidden = bench.venue.fill(order.client_order_id, quantity, at=bench.clock.now())
    await bench.quiet(10)
    bench.venue.always("get_order", lambda _key: report(order, status=OrderState.CANCELLED))
    await bench.reconciler.run()
    await bench.quiet(5)
    assert bench.book.positions.quantity(BTC) == D(quantity)
    assert [r.quantity for r in bench.journal.records(ExternalChange)] == [D(quantity)]
    assert bench.book.positions.open[BTC].stop_loss is None, "nobody knows whose it is"
    return bench, hidden


@virtual
async def test_a_fill_that_was_taken_over_as_an_outside_change_explains_it(make):
    """It counts once, from the moment in which it shows, in cash too; the position is the order's, with its stop."""
    bench, hidden = await taken_over(make, keeper=True)
    assert bench.stops == []
    cash = dict(bench.book.cash)
    assert cash == {"BTC": D(1), "USDT": bench.venue._balances()["USDT"].total}
    assert bench.take(hidden)
    position = bench.book.positions.open[BTC]
    assert (position.quantity, position.average_price, position.stop_loss) == (1, 100, 90)
    assert bench.book.cash == cash
    bench.venue.always("fills_since")
    await bench.reconciler.run()
    await bench.quiet(30)
    assert bench.alarms == ["MISMATCH", "LATE_FILL"]
    assert bench.book.positions.quantity(BTC) == 1
    assert [(stop.quantity, stop.stop_price) for stop in bench.stops] == [(1, 90)]
    assert fold(bench.journal.entries).state_hash() == bench.book.state_hash()


@virtual
async def test_what_a_late_fill_does_not_explain_stays_an_outside_change(make):
    """Somebody has bought as well: the rest of what was taken over is theirs."""
    bench, hidden = await taken_over(make)
    assert bench.take(replace(hidden, quantity=D("0.4")))
    assert bench.book.positions.quantity(BTC) == 1
    assert bench.take(replace(hidden, trade_id="t2", quantity=D("0.6")))
    assert bench.book.positions.quantity(BTC) == 1
    assert bench.take(replace(hidden, trade_id="t3", quantity=D("0.1")))
    assert bench.book.positions.quantity(BTC) == D("1.1"), "nothing is left to explain"


@pytest.mark.parametrize(
    "changes",
    [{"at": later(80)}, {"quantity": D("1.1")}, {"side": Side.SELL}],
    ids=["executed afterwards", "more than that", "the other way"],
)
@virtual
async def test_a_fill_that_cannot_have_been_taken_over_counts(make, changes):
    """Only an execution from before the venue was looked at, in that direction and no larger, is in its position."""
    bench, hidden = await taken_over(make)
    other = replace(hidden, **changes)
    bench.recorder.record(Filled(fill=other, source=Source.STREAM))
    change = other.quantity * other.side.sign
    assert bench.book.positions.quantity(BTC) == 1 + change


@virtual
async def test_a_fill_between_two_queries_is_fetched_first(make):
    """The order of the queries leaves gaps; before anything is taken over the executions are asked for again."""
    bench = make()
    for record in records_into(OrderState.ACCEPTED, limit="100"):
        bench.recorder.record(record)
    bench = await bench.restart()
    bench.venue.orders["o1"] = report(bench.order())
    bench.venue.script("fills_since", lambda _since: bench.venue.fill("o1") and [])
    await started(bench)
    assert bench.order().state is OrderState.FILLED
    assert bench.book.positions.quantity(BTC) == 1
    assert bench.journal.records(ExternalChange) == []


@virtual
async def test_a_venue_that_executes_all_the_time_is_compared_next_time(make):
    """Twice is asked again at most; whatever differs then is looked at by a later pass."""
    bench = await started(make())
    order = (await bench.gateway.send(entry())).order
    await bench.quiet(3)

    def execute_more():
        bench.venue.fill(order.client_order_id, "0.1")
        return bench.venue._positions()

    bench.venue.always("positions", execute_more)
    await bench.reconciler.run()
    assert bench.venue.calls["positions"] == 4, "one at the start"
    assert order.filled == D("0.2"), "the third is still to be fetched"
    bench.venue.always("positions")
    await bench.quiet(10)
    await bench.reconciler.run()
    assert (order.filled, bench.book.positions.quantity(BTC)) == (D("0.3"), D("0.3"))
    assert bench.alarms == []


@virtual
async def test_a_symbol_whose_orders_move_is_not_compared(make):
    """The two sides may be seen at different times."""
    bench = await started(make())
    bench.venue.held = D(1)
    await bench.gateway.send(entry())
    await bench.reconciler.run()
    await bench.quiet(0.5)
    await bench.reconciler.run()
    assert bench.book.positions.quantity(BTC) == 0
    await bench.quiet(5)
    await bench.reconciler.run()
    await bench.quiet(3)
    assert bench.book.positions.quantity(BTC) == 1


@virtual
async def test_tries_that_are_refused_do_not_keep_a_symbol_from_being_compared(make):
    """I19: what we believe to hold was sold elsewhere; the venue refuses each sale, and the difference is found."""
    bench = await started(make(ScriptedVenue(absence_window=timedelta(0))))
    await bench.open("1")
    await bench.quiet(5)
    bench.venue.held = D(-1)
    refused = OrderRejectedError("there is no position to reduce")
    bench.venue.always("place_order", refused)
    tries = 0
    while bench.book.positions.quantity(BTC) and tries < 20:
        sent = await bench.gateway.send(reduction(parent=f"try{tries}"))
        assert sent.error is refused
        await bench.quiet(0.5)
        await bench.reconciler.run()
        tries += 1
    assert tries == 2, "two passes have found it"
    assert bench.alarms == ["MISMATCH"]


@virtual
async def test_dust_is_compared_and_not_taken_for_a_position(make):
    """D5: what is less than a lot was there before, is counted on both sides, and comes and goes from outside."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000), "BTC": D("0.009")}
    bench.venue.always("positions", lambda: [VenuePosition(BTC, D("0.009"), D(90))])
    await started(bench)
    assert bench.book.positions.open == {}
    assert bench.book.positions.dust[BTC].average_price == 90
    (change,) = bench.journal.records(ExternalChange)
    assert (change.quantity, change.lot_size) == (D("0.009"), D("0.01"))
    await bench.quiet(5)
    await bench.reconciler.run()
    await bench.quiet(5)
    assert (len(bench.journal.records(ExternalChange)), bench.alarms) == (1, [])
    bench.venue.cash = {"USDT": D(1000)}
    bench.venue.always("positions", list)
    for _ in range(2):
        await bench.reconciler.run()
        await bench.quiet(5)
    assert bench.book.positions.quantities() == {}
    assert [r.quantity for r in bench.journal.records(ExternalChange)][1:] == [D("-0.009")]
    assert bench.book.cash == {"USDT": 1000}


@virtual
async def test_what_is_held_of_a_market_that_cannot_be_read_is_a_position(make):
    """Without its lot nobody knows better."""
    bench = make()
    bench.venue.always("instrument", BLIND)
    bench.venue.always("positions", lambda: [VenuePosition(BTC, D("0.009"), D(90))])
    await started(bench)
    assert bench.book.positions.open[BTC].quantity == D("0.009")
    assert [r.lot_size for r in bench.journal.records(ExternalChange)] == [None]


@virtual
async def test_a_start_ends_what_an_older_journal_has_as_a_position(make):
    """Less than a lot, where the journal knows no lots; a lot or more, and what cannot be looked up, stays."""

    async def found(held, **answers):
        bench = make()
        await bench.open_position_by_outside(held)
        bench.venue.always("positions", lambda: [VenuePosition(BTC, D(held), D(90))])
        bench.venue.cash = {"BTC": D(held)}
        for name, answer in answers.items():
            bench.venue.always(name, answer)
        await started(bench)
        await bench.reconciler.run()
        records = bench.journal.records(ExternalChange)[1:]
        return [r.reason for r in records], list(bench.book.positions.open), bench.alarms

    assert await found("0.009") == (["less than a lot"], [], [])
    assert await found("0.01") == ([], [BTC], [])
    assert await found("0.009", instrument=BLIND) == ([], [BTC], [])


@virtual
async def test_the_price_of_an_outside_change(make):
    """The venue's, else the last one known, else our own entry, else the ticker, else none."""
    bench = await started(make())
    await bench.open("2", price="90")
    await bench.quiet(3)

    async def adopt(held, price=D(0)):
        answer = [VenuePosition(BTC, D(held), price)] if held else []
        bench.venue.always("positions", lambda: answer)
        await bench.reconciler.run()
        await bench.quiet(3)
        return bench.journal.records(ExternalChange)[-1].price

    assert await adopt(1) == 90
    bench.book.marks[BTC] = D(95)
    assert await adopt(2) == 95
    assert await adopt(3, D(97)) == 97
    assert await adopt(0) == 95
    del bench.book.marks[BTC]
    assert await adopt(1) == 100
    bench.venue.always("ticker", BLIND)
    await adopt(0)
    assert await adopt(2) == 0
    assert bench.book.positions.quantity(BTC) == 2


@virtual
async def test_what_moves_while_the_price_is_asked_for_is_not_taken_over(make):
    """The difference must still be the same."""
    bench = await started(make())
    bench.venue.held = D(1)
    await bench.reconciler.run()

    async def ticker(_symbol):
        bench.recorder.record(ExternalChange(symbol=BTC, quantity=D(1), price=D(1), reason="test"))
        raise BLIND

    bench.venue.script("ticker", ticker)
    await bench.quiet(3)
    assert len(bench.journal.records(ExternalChange)) == 1
    assert bench.book.positions.quantity(BTC) == 1


@virtual
async def test_holdings_are_the_venues_when_two_passes_find_it(make):
    """A deposit, a funding payment: taken over, told by asset."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000), "BNB": D(1)}
    await started(bench)
    bench.venue.cash = {"USDT": D(900)}
    await bench.reconciler.run()
    assert bench.book.cash["USDT"] == 1000
    await bench.quiet(3)
    assert bench.book.cash == {"USDT": D(900)}
    assert [a.text for a in bench.journal.records(Alarm)] == [
        "BNB: ours 1, the venue's 0",
        "USDT: ours 1000, the venue's 900",
    ]
    assert [r.source for r in bench.journal.records(BalancesSeen)] == [
        Source.RECOVERY,
        Source.RECONCILE,
    ]


@virtual
@pytest.mark.parametrize(
    ("now", "transferred"),
    [
        ({"USDT": D(900), "BNB": D(1)}, D(-100)),
        ({"USDT": D(1000)}, D(-50)),
        ({"USDT": D(1200), "BNB": D(3)}, D(300)),
        ({"USDT": D(1060)}, None),
        ({"USDT": D(940), "BNB": D(2)}, None),
        ({"USDT": D(1000), "BNB": D(1), "NEW": D(5)}, D(0)),
    ],
    ids=["paid out", "coins out", "both in", "sold", "bought", "nobody knows its price"],
)
async def test_holdings_that_all_move_one_way_were_paid_in_or_out(make, now, transferred):
    """Both ways is a trade by somebody: its outcome is gain or loss. The record says which it was."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000), "BNB": D(1)}
    await started(bench)
    bench.reconciler._worth = partial(bench.book.worth, currency="USDT")
    bench.book.marks["BNB/USDT"] = D(50)
    bench.recorder.record(EquityMarked(equity=D(1050), opens_session=True))
    bench.venue.cash = now
    await bench.reconciler.run()
    await bench.quiet(3)
    first, then = bench.journal.records(BalancesSeen)
    assert (first.transferred, then.transferred) == (None, transferred)
    (mark,) = bench.book.equity_marks
    assert (mark.equity, mark.opens_session) == (1050 + (transferred or 0), True)


@virtual
async def test_holdings_that_change_again_are_looked_at_again(make):
    """The same difference twice, or none."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000)}
    await started(bench)
    bench.venue.cash = {"USDT": D(900)}
    await bench.reconciler.run()
    bench.venue.cash = {"USDT": D(1000)}
    await bench.quiet(10)
    assert bench.alarms == []
    assert len(bench.journal.records(BalancesSeen)) == 1


@virtual
async def test_holdings_are_not_compared_while_orders_move(make):
    """A fill changes them first at the venue."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000)}
    await started(bench)
    await bench.gateway.send(entry())
    bench.venue.cash = {"USDT": D(900)}
    for _ in range(3):
        await bench.reconciler.run()
    assert bench.book.cash == {"USDT": D(1000)}


@virtual
async def test_holdings_kept_as_positions_are_not_missing(make):
    """A venue for equities shows cash only; what our fills bought stays counted."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000)}
    await started(bench)
    await bench.open("2")
    bench.venue.cash = {"USDT": D(800)}
    await bench.quiet(5)
    await bench.reconciler.run()
    assert bench.book.cash == {"USDT": D(800), "BTC": D(2)}
    assert bench.alarms == []


@virtual
async def test_executions_that_frozen_answers_did_not_show_are_found_after_the_thaw(make):
    """A pass over answers that are too old has seen nothing: the next ones go as far back again."""
    bench = await started(make())
    key = (await bench.gateway.send(entry(quantity="2"))).order.client_order_id
    await bench.quiet(3)
    await bench.reconciler.run()
    frozen = [bench.venue.orders[key]]
    bench.venue.always("fills_since", lambda _since: [])
    bench.venue.always("open_orders", lambda _symbol: frozen)
    bench.take(bench.venue.fill(key, "0.1", at=later(30)))
    missed = bench.venue.fill(key, "0.5", at=later(60))
    for _ in range(20):
        await bench.quiet(60)
        assert await bench.reconciler.try_run()
    bench.take(bench.venue.fill(key, "0.1", at=later(60 * 20)))
    asked = []
    bench.venue.always("fills_since", lambda since: asked.append(since) or bench.venue.fills)
    bench.venue.always("open_orders")
    await bench.reconciler.run()
    assert missed.trade_id in bench.order().trades
    assert asked[0] <= later(60)
    await bench.quiet(60)
    await bench.reconciler.run()
    assert asked[-1] == later(60 * 20) - timedelta(minutes=5)


@virtual
async def test_executions_are_fetched_as_far_back_as_the_venue_may_hide_them(make):
    """What it need not show of an order for a while, it need not show of its executions either."""
    bench = await started(make(ScriptedVenue(absence_window=timedelta(minutes=30))))
    await asyncio.sleep(3600)
    await bench.reconciler.run()
    asked = []
    bench.venue.always("fills_since", lambda since: asked.append(since) or [])
    await bench.reconciler.run()
    assert asked == [later(3600) - timedelta(minutes=35)]


@virtual
async def test_executions_that_the_venue_counts_are_looked_for_until_it_shows_them(make):
    """C3: a cancelled order was executed in part after all, and queries answer as of long ago."""
    bench = await started(make())
    order = (await bench.gateway.send(entry(quantity="2"))).order
    key = order.client_order_id
    bench.venue.script(
        "cancel_order",
        lambda *_a, **_k: report(
            order, status=OrderState.CANCELLED, venue_order_id=order.venue_order_id
        ),
    )
    await bench.gateway.cancel(order, "why not")
    assert order.state is OrderState.CANCELLED
    late = bench.venue.fill(key, "0.5", at=later(5))
    bench.venue.always("fills_since", lambda _since: [])
    await bench.gateway.absorb(
        replace(bench.venue.orders[key], status=OrderState.CANCELLED, fills=()), Source.STREAM
    )
    assert bench.gateway.intake.misses_fills
    for _ in range(30):
        await bench.quiet(60)
        await bench.reconciler.run()
    bench.venue.always("fills_since")
    await bench.quiet(60)
    await bench.reconciler.run()
    assert late.trade_id in bench.order().trades
    assert not bench.gateway.intake.misses_fills


@virtual
async def test_a_fill_at_the_edge_of_the_answer_is_no_sign_of_lag(make):
    """A venue may list by another time than it states: what should just have been shown proves nothing."""
    bench = await started(make())
    order = (await bench.gateway.send(entry(quantity="2"))).order
    await bench.quiet(600)
    await bench.reconciler.run()
    bench.take(bench.venue.fill(order.client_order_id, "0.5", at=later(310)))
    bench.take(bench.venue.fill(order.client_order_id, "0.5", at=later(590)))
    bench.venue.always("fills_since", lambda _since: bench.venue.fills[1:])
    await bench.reconciler.run()
    assert bench.reconciler._lagging == set()
    bench.venue.always("fills_since", lambda _since: bench.venue.fills[:1])
    await bench.reconciler.run()
    assert bench.reconciler._lagging == {BTC}


@virtual
async def test_a_correction_counts_as_shown_by_what_it_corrects(make):
    """Otherwise a venue that goes on listing the first form would count as lagging for ever."""
    bench = await started(make())
    await bench.open("2")
    done = bench.venue.fills[0]
    bench.take(replace(done, trade_id="fix", replaces=done.trade_id, price=D(99)))
    await bench.reconciler.run()
    assert bench.reconciler._lagging == set()


@virtual
async def test_answers_that_miss_a_fill_of_ours_are_too_old(make):
    """D17: neither positions nor holdings are compared while the venue's own fills lag behind its stream."""
    bench = make()
    bench.venue.cash = {"USDT": D(1000)}
    await started(bench)
    await bench.open("2")
    bench.venue.always("fills_since", lambda _since: [])
    bench.venue.always("positions", list)
    for _ in range(3):
        await bench.quiet(60)
        await bench.reconciler.run()
    assert bench.book.positions.quantity(BTC) == 2
    assert bench.alarms == []
    bench.venue.always("fills_since")
    await bench.reconciler.run()
    await bench.quiet(3)
    assert bench.book.positions.quantity(BTC) == 0


# -- orders --------------------------------------------------------------------------------------------


@virtual
async def test_orders_are_compared_with_the_venues(make):
    """What it shows is taken in, what it does not show is looked up by id: cancelled by the venue, here (C10)."""
    bench = await started(make())
    first = (await bench.gateway.send(entry("s1"))).order
    second = (await bench.gateway.send(entry("s2"))).order
    bench.venue.end(first.client_order_id, OrderState.EXPIRED)
    bench.venue.fill(second.client_order_id, "0.4")
    await bench.quiet(3)
    await bench.reconciler.run()
    assert first.state is OrderState.EXPIRED
    assert (second.state, second.filled) == (OrderState.PARTIALLY_FILLED, D("0.4"))


@virtual
async def test_a_resting_order_that_the_venue_does_not_show_is_doubted(make):
    """D9: counted on, asked for, and its symbol blocked for entries, until there is proof."""
    bench = await started(make(ScriptedVenue(absence_window=timedelta(seconds=5))))
    order = (await bench.gateway.send(entry())).order
    bench.venue.orders.clear()
    await bench.reconciler.run()
    assert order.state is OrderState.ACCEPTED, "it moved just now: the venue may lag"
    await bench.quiet(3)
    await bench.reconciler.run()
    assert order.state is OrderState.IN_DOUBT
    assert order.reason == "the venue does not show it any more"
    await bench.quiet(20)
    assert order.state is OrderState.PRESUMED_ABSENT


@virtual
async def test_a_blind_look_up_doubts_nothing(make):
    """E17: a query that failed is no answer."""
    bench = await started(make())
    order = (await bench.gateway.send(entry())).order
    await bench.quiet(3)
    bench.venue.always("open_orders", lambda _symbol: [])
    bench.venue.always("get_order", BLIND)
    await bench.reconciler.run()
    assert order.state is OrderState.ACCEPTED


@virtual
async def test_orders_that_are_being_sent_are_left_alone(make):
    """They have a life of their own: not asked for, not doubted."""
    bench = await started(make())
    bench.venue.script("place_order", after(10, bench.venue._place))
    task = asyncio.ensure_future(bench.gateway.send(entry()))
    await asyncio.sleep(5)
    await bench.reconciler.run()
    assert bench.order().state is OrderState.SUBMITTED
    assert bench.venue.calls["get_order"] == 0
    await task


@virtual
async def test_foreign_orders_are_counted_anew_with_each_pass(make):
    """I31: those that are gone leave, those that are there are counted, none is touched."""
    bench = await started(make())
    theirs = [
        report(client_order_id=f"web-{n}", venue_order_id=f"w{n}", status=OrderState.ACCEPTED)
        for n in range(3)
    ]
    for shown in (theirs[:2], theirs[1:]):
        bench.venue.always("open_orders", lambda _symbol, shown=shown: shown)
        news = bench.foreign_news
        await bench.reconciler.run()
        assert bench.book.foreign == {each.venue_order_id: each for each in shown}
        assert bench.foreign_news == news + 1
    assert bench.venue.calls["cancel_order"] == 0


@virtual
async def test_an_absent_order_is_watched_for_a_day(make):
    """A14: a late sight is adopted; after 24 hours without one the order is given up."""
    bench = make(ScriptedVenue(absence_window=timedelta(0)))
    await started(bench)
    bench.venue.script("place_order", ConnectionResetError(), ConnectionResetError())
    lost = (await bench.gateway.send(entry("s1"))).order
    await bench.quiet()
    late = (await bench.gateway.send(entry("s2"))).order
    await bench.quiet()
    assert [o.state for o in (lost, late)] == [OrderState.PRESUMED_ABSENT] * 2
    await bench.quiet(12 * 3600)
    bench.venue.accept(late.request)
    await bench.reconciler.run()
    assert late.state is OrderState.ACCEPTED
    assert bench.alarms == ["LATE_SIGHT"]
    await bench.quiet(12 * 3600 - 60)
    await bench.reconciler.run()
    assert lost.state is OrderState.PRESUMED_ABSENT
    await bench.quiet(120)
    await bench.reconciler.run()
    assert (lost.state, lost.reason) == (OrderState.EXPIRED, "never seen within 24 hours")


@virtual
async def test_an_order_that_ends_between_two_answers_is_passed_over(make):
    """Its end came by the stream while the others were asked for."""
    bench = await started(make())
    orders = [(await bench.gateway.send(entry(f"s{n}"))).order for n in range(2)]

    async def meanwhile(key):
        await bench.gateway.absorb(bench.venue.end(orders[1].client_order_id), Source.STREAM)
        raise OrderNotFoundError(key)

    bench.venue.always("open_orders", lambda _symbol: [])
    bench.venue.script("get_order", meanwhile)
    await bench.reconciler.run()
    assert orders[1].state is OrderState.CANCELLED
    assert bench.venue.calls["get_order"] == 1


# -- blindness and suspicion ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["open_orders", "positions", "balances"])
@virtual
async def test_a_failed_pass_is_blind_until_one_succeeds(make, method):
    """E17: entries stop when reconciliation is blind."""
    bench = await started(make())
    bench.venue.script(method, BLIND)
    assert not await bench.reconciler.try_run()
    assert bench.reconciler.is_blind
    assert await bench.reconciler.try_run()
    assert not bench.reconciler.is_blind
    assert bench.reconciler.passes == 2


@pytest.mark.parametrize("holds", [True, False], ids=["held", "flat"])
@virtual
async def test_a_person_is_told_of_lasting_blindness(make, holds):
    """Once, when three passes in a row have failed while something is held; anew after one that succeeded."""
    bench = await started(make())
    if holds:
        await bench.gateway.send(entry(limit=None))
        await bench.quiet(60)
    for _ in range(2):
        told = []
        bench.venue.always("open_orders", BLIND)
        for _ in range(5):
            assert not await bench.reconciler.try_run()
            told.append([alarm.code for alarm in bench.journal.records(Alarm)].count("BLIND"))
        bench.venue.always("open_orders")
        assert await bench.reconciler.try_run()
        before = told[0]
        assert [each - before for each in told] == ([0, 0, 1, 1, 1] if holds else [0] * 5)


@virtual
async def test_a_pass_that_is_given_up_is_blind(make):
    """A cancelled pass has seen nothing."""
    bench = await started(make())
    bench.venue.script("open_orders", never)
    task = asyncio.ensure_future(bench.reconciler.run())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.reconciler.is_blind


@virtual
async def test_suspicions_share_one_pass(make):
    """Two seconds later, so that the venue's books have caught up; what comes during it gets another."""
    bench = await started(make())
    began = now()
    for _ in range(5):
        bench.reconciler.verify_soon(BTC)
    await asyncio.sleep(1)
    bench.reconciler.verify_soon("ETH/USDT")
    await asyncio.sleep(1.05)
    assert bench.reconciler.passes == 1
    await asyncio.sleep(0.1)
    assert bench.reconciler.passes == 2
    await asyncio.sleep(30)
    assert bench.reconciler.passes == 3, "the one that came while the first was waited for"
    assert now() > began


@virtual
async def test_a_suspicion_that_each_pass_renews_is_looked_at_less_and_less_often(make):
    """A venue that goes on telling nonsense is asked at growing intervals, and at once when it has stopped."""
    bench = await started(make())
    order = (await bench.gateway.send(entry())).order
    bench.venue.always("open_orders", lambda _symbol: [report(order, side=Side.SELL)])
    bench.reconciler.stream_is_open = True
    await bench.reconciler.run()
    await bench.quiet(120)
    passes = bench.reconciler.passes
    assert 9 <= passes <= 12
    bench.reconciler.stream_is_open = False
    await bench.quiet(60)
    assert bench.reconciler.passes >= passes + 20, "without a stream nobody else would tell"
    assert bench.alarms == ["REPORT_DOUBTFUL"]
    bench.venue.always("open_orders")
    await bench.quiet(60)
    passes = bench.reconciler.passes
    bench.reconciler.verify_soon(BTC)
    await bench.quiet(2.2)
    assert bench.reconciler.passes == passes + 1


@virtual
async def test_passes_do_not_overlap(make):
    """One at a time: what one has taken over the next one knows."""
    bench = await started(make())
    running = []

    async def slowly(_symbol):
        running.append(1)
        assert len(running) == 1
        await asyncio.sleep(1)
        running.pop()
        return []

    bench.venue.always("open_orders", slowly)
    await asyncio.gather(*(bench.reconciler.run() for _ in range(3)))
    assert bench.reconciler.passes == 4


@virtual
async def test_an_anomaly_starts_a_pass(make):
    """An impossible event is a reason to look."""
    bench = await started(make())
    for record in records_into(OrderState.FILLED):
        bench.recorder.record(record)
    bench.recorder.record(changed("submit"))
    passes = bench.reconciler.passes
    await bench.quiet(3)
    assert bench.reconciler.passes == passes + 1


@virtual
async def test_a_pass_survives_a_journal_that_cannot_commit(make):
    """What was seen is seen; durability is the journal's own alarm."""
    bench = await started(make())
    bench.journal.fails = True
    assert await bench.reconciler.try_run()
    assert not bench.reconciler.is_blind


@virtual
async def test_after_stop_no_pass_begins(make):
    """A suspicion that comes later is for the next process."""
    bench = await started(make())
    bench.reconciler.verify_soon(BTC)
    await bench.reconciler.stop()
    bench.reconciler.verify_soon(BTC)
    await bench.quiet(10)
    assert bench.reconciler.passes == 1
    idle = make()
    await idle.reconciler.stop()


@virtual
async def test_every_symbol_with_an_order_or_a_position_is_protected_anew(make):
    """G7: in the order of their names, so that a run repeats."""
    bench = await started(make())
    await bench.open("2")
    await bench.gateway.send(reduction("1", role=OrderRole.STOP, stop="95", parent="p"))
    for number, symbol in enumerate(("ZZZ/USDT", "AAA/USDT")):
        for record in records_into(
            OrderState.ACCEPTED, order_id=f"q{number}", parent=f"q{number}", symbol=symbol
        ):
            bench.recorder.record(record)
    bench.protected.clear()
    await bench.reconciler.run()
    assert bench.protected == ["AAA/USDT", BTC, "ZZZ/USDT"]


@virtual
async def test_the_same_news_by_stream_and_pass_are_one(make):
    """B4 I5: a pass finds what the stream told already, and adds nothing."""
    bench = await started(make())
    await bench.open("2")
    await bench.quiet(3)
    known = len(bench.journal.records(Filled))
    await bench.reconciler.run()
    assert len(bench.journal.records(Filled)) == known
    assert bench.order().side is Side.BUY

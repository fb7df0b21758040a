"""News from the venue: believed, doubted, fetched where a part is missing, and counted when not ours."""

from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import BTC, changed, fill, filled, intent, later, records_into, report

from execkit.errors import ExchangeUnavailableError
from execkit.ids import client_order_id
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.records import Alarm, Filled, Source, SymbolBlocked
from execkit.orders.zombies import Zombies

D = Decimal


def known(make, state=OrderState.ACCEPTED, **details):
    """Return a bench whose book has one order in *state*, and a list of what was asked to be verified."""
    bench = make()
    asked = []
    bench.recorder.anomaly_hook = lambda symbol, key: asked.append((symbol, key))
    for record in records_into(state, **details):
        bench.recorder.record(record)
    return bench, bench.order(), asked


@virtual
async def test_a_report_is_taken_in_once(make):
    """Acknowledgement, fill, end: in this order, each once, whatever is repeated."""
    bench, order, asked = known(make, OrderState.SUBMITTED)
    done = fill("a", quantity="0.4", venue_id="v1")
    told = report(order, OrderState.CANCELLED, venue_order_id="v1", fills=(done,), filled=D("0.4"))
    for _ in range(3):
        assert await bench.gateway.absorb(told, Source.LOOKUP) is order
    assert bench.changes(order) == ["submit", "accept", "cancel"]
    assert len(bench.journal.records(Filled)) == 1
    assert (order.state, order.filled, asked) == (OrderState.CANCELLED, D("0.4"), [])


@virtual
async def test_a_report_that_cannot_be_true_is_an_alarm_and_a_question(make):
    """I30: the order is as it was."""
    bench, order, asked = known(make)
    lie = report(order, OrderState.FILLED, quantity=D(2), filled=D(3))
    assert await bench.gateway.absorb(lie, Source.STREAM) is order
    assert order.state is OrderState.ACCEPTED
    (alarm,) = bench.journal.records(Alarm)
    assert (alarm.code, alarm.client_order_id) == ("REPORT_DOUBTFUL", "o1")
    assert alarm.text == "o1: a report on it has filled 3 of 2"
    assert asked == [(BTC, "o1")]
    other = report(order, symbol="ETH/USDT")
    for told in (lie, other, report(order), lie):
        await bench.gateway.absorb(told, Source.STREAM)
    assert bench.alarms == ["REPORT_DOUBTFUL"] * 3, "each thing once, until there is a good report"
    assert len(asked) == 4


@virtual
async def test_news_that_are_none_are_an_alarm_and_a_question(make):
    """N11: what is not even in the form of news changes nothing."""
    bench, order, asked = known(make)
    assert await bench.gateway.absorb(None, Source.STREAM) is None
    assert not bench.take("a fill")
    assert not bench.take(fill("x", quantity="NaN"))
    assert bench.alarms == ["NEWS_MALFORMED"] * 3
    assert asked == [("", "")] * 3
    assert order.state is OrderState.ACCEPTED


# -- missing executions --------------------------------------------------------------------------------


@virtual
async def test_executions_that_the_venue_counts_beyond_ours_are_fetched(make):
    """B9 B16: only with them can the order end."""
    bench, order, asked = known(make)

    async def fetch(wanted):
        assert wanted is order
        return bench.take(fill("a", quantity="0.4"), Source.LOOKUP)

    bench.gateway.intake.missing_hook = fetch
    await bench.gateway.absorb(report(order, OrderState.CANCELLED, filled=D("0.4")), Source.STREAM)
    assert (order.state, order.filled) == (OrderState.CANCELLED, D("0.4"))
    assert (bench.alarms, asked) == ([], [])


@pytest.mark.parametrize("how", ["none", "fails", "no hook"])
@virtual
async def test_without_the_missing_executions_an_order_does_not_end(make, how):
    """It stays open and counted, a person is told once, and the venue is asked each time."""
    bench, order, asked = known(make)

    async def fetch(_order):
        if how == "fails":
            raise ExchangeUnavailableError("503")
        return False

    bench.gateway.intake.missing_hook = None if how == "no hook" else fetch
    told = report(order, OrderState.CANCELLED, filled=D("0.4"))
    for _ in range(3):
        assert await bench.gateway.absorb(told, Source.STREAM) is order
    assert order.state is OrderState.ACCEPTED
    assert bench.alarms == ["FILLS_MISSING"]
    assert len(asked) == 3
    await bench.gateway.absorb(report(order, OrderState.CANCELLED, filled=D("0.5")), Source.STREAM)
    assert bench.alarms == ["FILLS_MISSING"] * 2
    bench.take(fill("a", quantity="0.5"))
    await bench.gateway.absorb(report(order, OrderState.CANCELLED, filled=D("0.5")), Source.STREAM)
    assert order.state is OrderState.CANCELLED


@virtual
async def test_what_ended_while_executions_were_fetched_ends_once(make):
    """The fetch itself may bring the end: the report's own is no news then."""
    bench, order, _ = known(make)

    async def fetch(_order):
        return bench.take(fill("a", quantity="1"), Source.LOOKUP)

    bench.gateway.intake.missing_hook = fetch
    await bench.gateway.absorb(report(order, OrderState.EXPIRED, filled=D(1)), Source.STREAM)
    assert order.state is OrderState.FILLED
    assert bench.alarms == []


@virtual
async def test_a_late_sight_is_an_alarm(make):
    """A14 I7: presumed absent is not terminal; it is adopted, and somebody is told."""
    bench, order, _ = known(make, OrderState.PRESUMED_ABSENT)
    await bench.gateway.absorb(report(order, OrderState.REJECTED, venue_order_id=""), "stream")
    assert order.state is OrderState.REJECTED
    assert bench.book.alarms[0].text == "o1: was presumed absent and is rejected"


@pytest.mark.parametrize("by", ["fill", "report"])
@virtual
async def test_a_late_sight_by_a_fill_is_an_alarm(make, by):
    """The position is there, and somebody is told once."""
    bench, order, _ = known(make, OrderState.PRESUMED_ABSENT)
    done = fill("a", quantity="0.4", venue_id="v1")
    if by == "fill":
        assert bench.take(done)
    else:
        told = report(
            order, OrderState.PARTIALLY_FILLED, venue_order_id="v1", fills=(done,), filled=D("0.4")
        )
        await bench.gateway.absorb(told, Source.STREAM)
    assert order.state is OrderState.PARTIALLY_FILLED
    assert bench.alarms == ["LATE_SIGHT"]


# -- fills ---------------------------------------------------------------------------------------------


@virtual
async def test_a_fill_counts_once_from_any_source(make):
    """B3 B4: stream, look-up and reconcile tell of the same execution."""
    bench, order, _ = known(make)
    assert [bench.take(fill("a", quantity="0.4"), source) for source in Source] == [True] + [
        False
    ] * (len(Source) - 1)
    assert order.filled == D("0.4")


@pytest.mark.parametrize(
    "lie",
    [
        {"symbol": "ETH/USDT"},
        {"side": Side.SELL},
        {"price": "0"},
        {"quantity": "0"},
        {"quantity": "-1"},
        {"trade_id": ""},
    ],
)
@virtual
async def test_a_fill_that_cannot_be_true_changes_nothing(make, lie):
    """Another symbol or side than the order's, or no quantity, price or id."""
    bench, order, asked = known(make)
    assert not bench.take(fill(**({"trade_id": "a"} | lie)))
    assert (order.filled, bench.alarms) == (0, ["FILL_DOUBTFUL"])
    assert asked == [(lie.get("symbol", BTC), "o1")]


@virtual
async def test_a_late_fill_is_taken_and_told(make):
    """C3: the order stays cancelled, the position is what was executed, a person is told."""
    bench, order, _ = known(make, OrderState.CANCELLED)
    assert bench.take(fill("a", quantity="0.4"))
    assert (order.state, order.filled) == (OrderState.CANCELLED, D("0.4"))
    assert bench.book.positions.quantity(BTC) == D("0.4")
    assert bench.book.alarms[0].code == "LATE_FILL"
    assert bench.book.alarms[0].text == "o1: filled 0.4 when it was cancelled"


@virtual
async def test_corrections_and_busts_are_told(make):
    """B12 B13: replaced, not added; what a correction took away does not come back."""
    bench, order, _ = known(make)
    bench.take(fill("a", quantity="0.4"))
    bench.take(fill("b", quantity="0.3", replaces="a"))
    assert not bench.take(fill("a", quantity="0.4"))
    bench.take(fill("c", quantity="0", replaces="b"))
    assert not bench.take(fill("c", quantity="0", replaces="b"))
    assert (order.filled, bench.book.positions.quantity(BTC)) == (0, 0)
    assert bench.alarms == ["LATE_FILL"] * 2


def listing(bench, *fills):
    """Have the venue list these executions."""
    bench.venue.always("fills_since", lambda _since: list(fills))


@virtual
async def test_a_correction_of_an_unknown_execution_waits_for_it(make):
    """B12: the one between was missed, so it is fetched; meanwhile nothing counts twice."""
    bench, order, _ = known(make)
    first, second, third = (
        fill("a"),
        fill("b", replaces="a", price="101"),
        fill("c", replaces="b", price="102"),
    )
    listing(bench, first, second, third)
    bench.take(first)
    for _ in range(2):
        assert not bench.take(third)
        assert (order.filled, order.filled_notional) == (1, 100)
    await bench.quiet()
    assert (order.filled, order.filled_notional) == (1, 102)
    assert list(order.trades) == ["c"]
    assert bench.book.positions.open[BTC].average_price == 102
    assert bench.alarms == ["LATE_FILL"] * 2
    assert bench.venue.calls["fills_since"] == 1
    assert not any(bench.take(each) for each in (first, second, third))


@virtual
async def test_a_correction_is_placed_by_a_list_of_what_stands(make):
    """The one between is never shown: what is listed no more has been replaced, the most similar first."""
    bench, order, _ = known(make)
    bench.take(fill("other", quantity="0.2"))
    bench.take(fill("a", quantity="0.3"))
    bench.take(fill("x", quantity="0.4"))
    last = fill("c", quantity="0.3", price="102", replaces="b")
    listing(bench, fill("x", quantity="0.4"), last)
    bench.take(last)
    await bench.quiet()
    assert list(order.trades) == ["other", "x", "c"]
    assert order.filled == D("0.9")
    assert not bench.take(fill("b", quantity="0.3", replaces="a")), "a late sight is no news"
    assert order.filled == D("0.9")


@virtual
async def test_a_correction_of_what_was_never_known_counts_by_itself(make):
    """All we know stands at the venue; what comes late of the chain is no news any more."""
    bench, order, _ = known(make)
    other = fill("x", quantity="0.4", at=later(1))
    bench.take(other)
    last = fill("c", quantity="0.3", replaces="b")
    listing(bench, other, last)
    bench.take(last)
    await bench.quiet()
    assert (order.filled, bench.alarms) == (D("0.7"), ["LATE_FILL"])
    assert not bench.take(fill("b", quantity="0.3", replaces="a"))
    assert not bench.take(fill("a", quantity="0.3"))
    await bench.quiet(90)
    assert (order.filled, bench.alarms) == (D("0.7"), ["LATE_FILL"])


@virtual
async def test_an_old_execution_after_a_correction_waits_for_the_list(make):
    """It may be what was corrected; listed it counts, not listed it does not."""
    bench, order, _ = known(make)
    last = fill("c", quantity="0.3", replaces="b")
    listing(bench, last)
    bench.take(last)
    await bench.quiet()
    old = fill("a", quantity="0.3")
    assert not bench.take(old)
    await bench.quiet()
    assert order.filled == D("0.3")
    own = fill("y", quantity="0.2")
    listing(bench, last, own)
    assert not bench.take(own)
    assert order.filled == D("0.3")
    await bench.quiet()
    assert order.filled == D("0.5")
    bench.take(fill("z", quantity="0.1", at=later(1)))
    assert order.filled == D("0.6"), "a newer one is not what was corrected"


@virtual
async def test_a_venue_that_lists_all_and_hides_the_one_between(make):
    """What it replaces must be among the others of its order."""
    bench, order, _ = known(make)
    rows = [
        fill("x", quantity="0.4"),
        fill("x2", quantity="0.4", replaces="x"),
        fill("a", quantity="0.3"),
        fill("c", quantity="0.3", replaces="b"),
    ]
    listing(bench, *rows)
    for row in rows:
        bench.take(row)
    await bench.quiet()
    assert (list(order.trades), order.filled) == (["x2", "c"], D("0.7"))


@virtual
async def test_a_correction_that_the_venue_never_lists_is_given_up(make):
    """A person is told, and the comparison of positions is not held up by it for ever."""
    bench, order, _ = known(make)
    bench.take(fill("a", quantity="0.4"))
    listing(bench, fill("a", quantity="0.4"))
    bench.take(fill("c", quantity="0.3", replaces="b"))
    await bench.quiet(30)
    assert bench.gateway.intake.corrections.orders == [order]
    bench.venue.always("fills_since", ExchangeUnavailableError("503"))
    await bench.quiet(100)
    assert bench.gateway.intake.corrections.orders == [order], "a failed query is no answer"
    listing(bench, fill("a", quantity="0.4"))
    await bench.quiet(30)
    assert bench.gateway.intake.corrections.orders == []
    assert (order.filled, bench.alarms) == (D("0.4"), ["CORRECTION_UNPLACED"])
    assert bench.journal.records(Alarm)[0].text.startswith("o1: c (b before) is not among")


@virtual
async def test_a_report_with_a_correction_of_the_unknown_ends_its_order_after_the_fetch(make):
    """The report of an order carries what stands only; its end waits for the executions."""
    bench, order, _ = known(make)
    first, second, third = (
        fill("a", quantity="0.4"),
        fill("b", quantity="0.4", replaces="a"),
        fill("c", quantity="0.4", replaces="b"),
    )
    listing(bench, first, second, third)
    bench.take(first)
    told = report(order, OrderState.CANCELLED, filled=D("0.4"), fills=(third,))
    await bench.gateway.absorb(told, Source.STREAM)
    assert (order.state, order.filled, list(order.trades)) == (
        OrderState.CANCELLED,
        D("0.4"),
        ["c"],
    )


@virtual
async def test_a_correction_waits_for_a_list_that_goes_back_far_enough(make):
    """An execution from before the list begins is missing from it for that reason alone."""
    bench, order, _ = known(make)
    bench.take(fill("a", quantity="0.4", at=later(-100_000)))
    last = fill("c", quantity="0.4", replaces="b")
    listing(bench, last)
    bench.take(last)
    await bench.quiet(30)
    assert (order.filled, list(order.trades)) == (D("0.4"), ["a"])


@virtual
async def test_a_fee_that_comes_later_is_booked_without_an_alarm(make):
    """B15: the same execution with its fee takes the place of the one without."""
    bench, order, _ = known(make)
    bench.take(fill("a", quantity="1"))
    assert order.state is OrderState.FILLED
    cash = bench.book.cash["USDT"]
    assert bench.take(fill("a.fee", quantity="1", replaces="a", fee=D(2), fee_asset="USDT"))
    assert not bench.take(fill("a", quantity="1"))
    assert (order.state, order.filled) == (OrderState.FILLED, 1)
    assert bench.book.positions.open[BTC].fees == {"USDT": 2}
    assert (bench.book.cash["USDT"], bench.alarms) == (cash - 2, [])


@virtual
async def test_more_than_the_quantity_is_the_truth_and_blocks_the_symbol(make):
    """B17: taken as it is, told, and no entry for the symbol until somebody has looked."""
    bench, order, _ = known(make)
    bench.take(fill("a", quantity="0.8"))
    bench.take(fill("b", quantity="0.8"))
    assert order.filled == D("1.6")
    assert bench.alarms == ["OVERFILL"]
    assert bench.book.blocked == {BTC: "o1: 1.6 of 1 filled"}
    bench.take(fill("c", quantity="0.1"))
    assert bench.alarms == ["OVERFILL"] * 2
    assert len(bench.journal.records(SymbolBlocked)) == 1


# -- not ours ------------------------------------------------------------------------------------------


@virtual
async def test_foreign_orders_are_counted(make):
    """I31: open ones are kept as they are told, closed ones leave; the stream's are told on at once."""
    bench, _, _ = known(make)
    stranger = {"client_order_id": "web-1", "venue_order_id": "v77"}
    told = report(status=OrderState.ACCEPTED, **stranger)
    assert await bench.gateway.absorb(told, Source.RECONCILE) is None
    assert bench.book.foreign == {"v77": told}
    assert bench.foreign_news == 0
    empty = report(status=OrderState.ACCEPTED, quantity=D(0), **stranger)
    await bench.gateway.absorb(empty, Source.STREAM)
    assert bench.book.foreign == {"v77": told}
    await bench.gateway.absorb(report(status=OrderState.FILLED, **stranger), Source.STREAM)
    assert (bench.book.foreign, bench.foreign_news) == ({}, 2)
    assert bench.alarms == []


@virtual
async def test_an_unknown_fill_of_the_stream_asks_for_a_pass(make):
    """B1 B14: ours but forgotten, or told by a venue id that no answer has named yet; a stranger's is his."""
    bench, _, asked = known(make)
    mine = client_order_id("acct", "old", OrderRole.ENTRY)
    for order_id, venue_id, source in (
        (mine, "v8", Source.STREAM),
        ("", "v9", Source.STREAM),
        ("web-1", "v9", Source.STREAM),
        (mine, "v8", Source.RECONCILE),
    ):
        assert not bench.take(fill("z", order_id, venue_id=venue_id), source)
    assert asked == [(BTC, mine), (BTC, "")]
    assert bench.journal.records(Filled) == []


@virtual
async def test_venue_ids_may_repeat_in_another_symbol(make):
    """Some venues count them by symbol: a stranger's order with our number is the stranger's."""
    bench, order, asked = known(make)
    bench.recorder.record(changed("accept", venue_order_id="7"))
    theirs = report(order, client_order_id="web-1", venue_order_id="7", symbol="ETH/USDT")
    assert await bench.gateway.absorb(theirs, Source.RECONCILE) is None
    assert list(bench.book.foreign) == ["7"]
    assert not bench.take(fill("q", "web-1", venue_id="7", symbol="ETH/USDT"))
    assert bench.take(fill("r", "", venue_id="7", quantity="0.1"))
    assert (order.filled, bench.alarms, asked) == (D("0.1"), [], [])


@virtual
async def test_a_forgotten_order_does_not_come_back_by_its_fill(make):
    """A fill of an order that is no longer in memory is not recorded: the venue's position tells of it."""
    bench = make()
    bench.recorder.record(intent())
    bench.recorder.record(filled(at=later(1)))
    assert not bench.take(fill("t2", "gone"))
    assert bench.book.positions.quantity(BTC) == 1


@virtual
async def test_what_was_told_of_an_order_is_forgotten_with_it(make, monkeypatch):
    """I32: an engine that runs for months keeps nothing of orders that it no longer knows."""
    monkeypatch.setattr("execkit.orders.manager.KEEP_CLOSED", 2)
    bench = make()
    intake = bench.gateway.intake
    zombies = Zombies(bench.gateway, lambda _symbol: None)
    for number in range(6):
        key = f"o{number}"
        for record in records_into(OrderState.ACCEPTED, order_id=key):
            bench.recorder.record(record)
        order = bench.book.orders[key]
        await intake.absorb(report(order, filled=D("0.5")), Source.STREAM)
        await intake.absorb(report(order, filled=D(3)), Source.STREAM)
        zombies.seen(order, report(order))
        bench.recorder.record(changed("reject", key))
    assert bench.alarms == ["FILLS_MISSING", "REPORT_DOUBTFUL", "ZOMBIE_ORDER"] * 6
    kept = (intake._doubts, intake._missing, zombies._told)
    assert [len(told) for told in kept] == [3, 3, 3], "the last two that ended, and the one told of"


@virtual
async def test_the_two_sides_of_a_trade_with_oneself_both_count(make):
    """I5: Binance gives both executions one trade id; each is one order's, and each counts once."""
    bench, buy, _ = known(make, quantity="1")
    for record in records_into(OrderState.ACCEPTED, order_id="o2", side=Side.SELL, quantity="1"):
        bench.recorder.record(record)
    for _ in range(2):
        bench.take(fill("t", "o1"))
        bench.take(fill("t", "o2", side=Side.SELL))
    assert (buy.filled, bench.book.orders["o2"].filled) == (1, 1)
    assert bench.book.positions.quantity(BTC) == 0
    assert len(bench.journal.records(Filled)) == 2

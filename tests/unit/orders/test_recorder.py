"""The one way in which state changes: applied, journalled, told to those who count, announced when durable."""

import asyncio
from decimal import Decimal

import pytest
from tests.support.bench import virtual
from tests.support.orders import BTC, changed, fill, filled, intent, later

from execkit.errors import JournalCommitError
from execkit.journal.fold import fold
from execkit.model.events import (
    Event,
    OrderCancelled,
    OrderFailed,
    OrderFilled,
    OrderInDoubt,
    OrderPartiallyFilled,
    OrderPlaced,
    PositionChanged,
    PositionClosed,
    PositionOpened,
    SlippageAlert,
    SystemError,  # noqa: A004 - promised name
    TradingStateSet,
)
from execkit.model.order import OrderState, Side
from execkit.model.records import CommandSent, Filled, TradingState, TradingStateChanged
from execkit.orders.recorder import Recorder

D = Decimal


@virtual
async def test_book_and_journal_are_one(make):
    """What memory has is the fold of what was journalled, anomalies included."""
    bench = make()
    for record in (
        intent(),
        changed("submit"),
        changed("absent"),
        filled(quantity="0.5"),
        filled(quantity="0.5"),
        changed("cancel"),
        changed("accept"),
    ):
        bench.recorder.record(record)
        assert fold(bench.journal.entries).state_hash() == bench.book.state_hash()
    assert bench.alarms == ["IMPOSSIBLE_EVENT"] * 2


@virtual
async def test_an_impossible_event_is_an_anomaly(make):
    """It changes nothing, is recorded as an alarm, and somebody is asked to look."""
    bench = make()
    asked = []
    bench.recorder.anomaly_hook = lambda symbol, key: asked.append((symbol, key))
    assert bench.recorder.record(intent())
    assert not bench.recorder.record(changed("absent"))
    assert bench.book.orders["o1"].state is OrderState.NEW
    assert bench.book.alarms[0].text == "an order that is new cannot absent"
    assert (bench.book.alarms[0].symbol, bench.book.alarms[0].client_order_id) == (BTC, "o1")
    assert asked == [(BTC, "o1")]
    other = intent(quantity="2")
    assert not bench.recorder.record(other)
    assert asked[1] == ("", "")
    assert bench.book.orders["o1"].quantity == 1


@virtual
async def test_an_anomaly_without_a_reconciler_is_still_recorded(make):
    """Nobody has to ask the venue for the alarm to stand."""
    bench = make()
    alone = Recorder(bench.journal, bench.book, bench.clock, bench.bus)
    alone.record(intent())
    assert not alone.record(changed("absent"))
    assert bench.alarms == ["IMPOSSIBLE_EVENT"]


@virtual
async def test_listeners_hear_each_record_once_with_its_order(make):
    """By direct calls, before anything else happens; what was refused is an alarm, what was known is not told."""
    bench = make()
    heard = []
    bench.recorder.listen(
        lambda record, order: heard.append((type(record).__name__, order and order.client_order_id))
    )
    bench.recorder.record(intent())
    bench.recorder.record(changed("submit"))
    bench.recorder.record(changed("absent"))
    assert bench.recorder.record(filled())
    assert not bench.recorder.record(filled())
    bench.recorder.record(filled("t9", "unknown"))
    bench.recorder.record(CommandSent(client_order_id="o1", command="cancel"))
    assert heard == [
        ("Intent", "o1"),
        ("OrderChanged", "o1"),
        ("Alarm", None),
        ("Filled", "o1"),
        ("Filled", None),
        ("CommandSent", None),
    ]
    assert len(bench.journal.records(Filled)) == 2


@virtual
async def test_observers_hear_only_what_is_durable(make):
    """I18: nothing is announced before its commit, and nothing at all when the commit fails."""
    bench = make()
    bench.recorder.record(intent())
    bench.recorder.record(changed("submit"))
    bench.recorder.record(changed("accept", venue_order_id="v"))
    await bench.quiet()
    assert bench.events == []
    bench.journal.fails = True
    with pytest.raises(JournalCommitError, match="the disk is full"):
        await bench.recorder.settle()
    assert not await bench.recorder.try_settle()
    await bench.quiet()
    assert [event.code for event in bench.events] == ["JOURNAL_UNAVAILABLE"]
    bench.journal.fails = False
    assert await bench.recorder.try_settle()
    await bench.quiet()
    placed = bench.events[1]
    assert isinstance(placed, OrderPlaced)
    assert (placed.client_order_id, placed.venue_order_id, placed.symbol) == ("o1", "v", BTC)


@virtual
async def test_what_comes_during_a_commit_waits_for_the_next(make):
    """Only what the journal has committed is told."""
    bench = make()
    bench.recorder.record(intent())
    bench.recorder.record(changed("accept"))

    async def meanwhile():
        bench.journal.on_commit = None
        bench.recorder.record(filled())

    bench.journal.on_commit = meanwhile
    bench.journal.commit = commit_up_to(bench.journal, 2)
    await bench.recorder.settle()
    await bench.quiet()
    assert [type(e).__name__ for e in bench.events] == ["OrderPlaced"]
    bench.journal.commit = commit_up_to(bench.journal, 3)
    await bench.recorder.settle()
    await bench.quiet()
    assert [type(e).__name__ for e in bench.events[1:]] == ["OrderFilled", "PositionOpened"]


def commit_up_to(journal, seq):
    async def commit():
        if journal.on_commit is not None:
            await journal.on_commit()
        journal.committed = seq

    return commit


async def told(bench, *records):
    for record in records:
        bench.recorder.record(record)
    await bench.recorder.settle()
    await bench.quiet()
    return bench.events


@pytest.mark.parametrize(
    ("records", "kind", "shown"),
    [
        ([changed("accept", venue_order_id="v")], OrderPlaced, {"venue_order_id": "v"}),
        ([changed("reject", reason="no")], OrderFailed, {"reason": "no"}),
        ([changed("fail", reason="never")], OrderFailed, {"reason": "never"}),
        ([changed("cancel", reason="x")], OrderCancelled, {"reason": "x", "filled": D(0)}),
        ([changed("expire")], OrderCancelled, {}),
        ([changed("lose", reason="?")], OrderInDoubt, {"reason": "?"}),
    ],
)
@virtual
async def test_an_event_for_each_turn_of_an_order(make, records, kind, shown):
    """Each carries the order's id, signal, symbol, side, role and quantity."""
    bench = make()
    events = await told(bench, intent(signal_id="s1"), *records)
    (event,) = events
    assert type(event) is kind
    assert (event.client_order_id, event.signal_id, event.side, event.quantity) == (
        "o1",
        "s1",
        Side.BUY,
        1,
    )
    assert event.at == bench.journal.entries[-1].at
    assert {name: getattr(event, name) for name in shown} == shown


@virtual
async def test_some_turns_are_nobody_elses_business(make):
    """A submit is not announced."""
    bench = make()
    assert await told(bench, intent(), changed("submit"), changed("ask_cancel")) == []


@virtual
async def test_fills_are_announced_with_what_they_did_to_the_position(make):
    """Part, whole, opened, changed, closed: once each, with the numbers after it."""
    bench = make()
    events = await told(
        bench,
        intent(quantity="2"),
        filled("a", quantity="0.5", price="100"),
        filled("b", quantity="1.5", price="102"),
        intent("x", parent="x", side=Side.SELL, quantity="3"),
        filled("c", "x", "3", "110", side=Side.SELL, at=later(5)),
    )
    kinds = [type(event) for event in events]
    assert kinds == [
        OrderPartiallyFilled,
        PositionOpened,
        OrderFilled,
        PositionChanged,
        OrderFilled,
        PositionClosed,
        PositionOpened,
    ]
    assert (events[0].filled, events[0].fill.trade_id) == (D("0.5"), "a")
    assert (events[2].average_price, events[3].position.quantity) == (D("101.5"), 2)
    assert events[5].position.realised_pnl == 17
    assert events[6].position.quantity == -1


@virtual
async def test_an_exit_that_leaves_less_than_a_lot_closes_the_position(make):
    """What is left is told with it, and is part of what the next entry opens."""
    bench = make()
    lot = {"lot_size": D("0.01")}
    events = await told(
        bench,
        intent("a", parent="a", signal_id="a", signal_digest="", **lot),
        filled("1", "a", fee="0.001", fee_asset="BTC", at=later(0)),
        intent("x", parent="x", side=Side.SELL, quantity="0.99", **lot),
        filled("2", "x", quantity="0.99", side=Side.SELL, at=later(1)),
        intent("b", parent="b", signal_id="b", signal_digest="", **lot),
        filled("3", "b", at=later(2)),
    )
    shown = [
        (type(event).__name__, event.signal_id, event.position.quantity, event.position.dust)
        for event in events
        if isinstance(event, (PositionOpened, PositionChanged, PositionClosed))
    ]
    assert shown == [
        ("PositionOpened", "a", D("0.999"), 0),
        ("PositionClosed", "a", 0, D("0.009")),
        ("PositionOpened", "b", D("1.009"), 0),
    ]


@virtual
async def test_the_position_that_closed_is_the_one_announced(make):
    """Also when a fill that closes a position is older than another position's end."""
    bench = make()
    events = await told(
        bench,
        intent("a", parent="a", symbol="ETH/USDT"),
        filled("1", "a", symbol="ETH/USDT", at=later(0)),
        intent("b", parent="b"),
        filled("2", "b", at=later(0)),
        intent("xb", parent="xb", side=Side.SELL),
        filled("3", "xb", side=Side.SELL, at=later(9)),
        intent("xa", parent="xa", symbol="ETH/USDT", side=Side.SELL),
        filled("4", "xa", symbol="ETH/USDT", side=Side.SELL, at=later(5)),
    )
    closed = [event.position.symbol for event in events if isinstance(event, PositionClosed)]
    assert closed == [BTC, "ETH/USDT"]


@virtual
async def test_a_position_that_never_was_is_not_announced_as_closed(make):
    """A late fill changed history: the position that seemed open is another one now."""
    bench = make()
    events = await told(
        bench,
        intent("a", parent="a", side=Side.SELL),
        filled("1", "a", side=Side.SELL, at=later(10)),
        intent("b", parent="b"),
        filled("0", "b", at=later(5)),
    )
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["OrderFilled", "PositionOpened", "OrderFilled", "PositionClosed"]
    assert events[-1].position.realised_pnl == 0
    assert bench.book.positions.open == {}


@virtual
async def test_a_bust_of_the_opening_fill_closes_without_a_trace(make):
    """There is no closed position then; the one that was open is announced as gone."""
    bench = make()
    events = await told(bench, intent(), filled("a"), filled("b", quantity="0", replaces="a"))
    assert bench.book.positions.closed == []
    (gone,) = [event for event in events if isinstance(event, PositionClosed)]
    assert gone.position.position_id == f"{BTC}#1"


@virtual
async def test_alarms_and_states_are_announced(make):
    """A person who listens hears what a person has to know."""
    bench = make()
    bench.recorder.alarm("X", "look", symbol=BTC, client_order_id="o1")
    events = await told(
        bench, TradingStateChanged(state=TradingState.REDUCING, cause="loss", actor="a")
    )
    assert (events[0].code, events[0].text, events[0].symbol) == ("X", "look", BTC)
    assert isinstance(events[0], SystemError)
    assert isinstance(events[1], TradingStateSet)
    assert (events[1].state, events[1].cause) == ("reducing", "loss")


@virtual
async def test_alarms_are_told_though_they_cannot_be_kept(make):
    """When the journal is gone a person hears so, and hears every alarm; nothing else is told, and nothing piles up."""
    bench = make()
    bench.recorder.record(intent())
    bench.recorder.alarm("FIRST", "before the failure was known")
    bench.recorder.record(changed("accept"))
    bench.journal.fails = True
    for _ in range(2):
        assert not await bench.recorder.try_settle()
    bench.recorder.alarm("SECOND", "after it")
    bench.recorder.record(changed("cancel"))
    await bench.quiet()
    assert [event.code for event in bench.events] == ["JOURNAL_UNAVAILABLE", "FIRST", "SECOND"]
    assert bench.events[0].text == "the disk is full"
    assert len(bench.recorder._pending) == 1


@virtual
async def test_an_event_of_no_record_waits_for_what_came_before(make):
    """It is told after the commit, in its place."""
    bench = make()
    bench.recorder.record(intent())
    bench.recorder.record(changed("accept"))
    alert = SlippageAlert(
        at=later(0), symbol=BTC, client_order_id="o1", slippage_pct=Decimal("0.6")
    )
    bench.recorder.announce(alert)
    bench.recorder.record(changed("cancel"))
    await bench.recorder.settle()
    await bench.quiet()
    assert [type(e).__name__ for e in bench.events] == [
        "OrderPlaced",
        "SlippageAlert",
        "OrderCancelled",
    ]


@virtual
async def test_no_event_is_built_for_nobody(make):
    """Without a subscription nothing waits in line."""
    bench = make()
    for subscription in list(bench.bus._subscriptions):
        subscription.cancel()
    bench.recorder.record(intent())
    bench.recorder.record(changed("accept"))
    bench.recorder.announce(Event(at=later(0)))
    await bench.recorder.settle()
    assert not bench.recorder._pending


@virtual
async def test_an_emergency_record_is_kept_or_refused(make):
    """The answer says whether it is kept."""
    bench = make()
    record = CommandSent(client_order_id="o1", command="cancel")
    assert bench.recorder.keep_apart(record)
    bench.journal.emergency_fails = True
    assert not bench.recorder.keep_apart(record)
    assert [e.record for e in bench.journal.emergencies] == [record]


@virtual
async def test_a_fill_is_news_once_even_when_two_tell_it_together(make):
    """Application is one synchronous step."""
    bench = make()
    bench.recorder.record(intent())

    async def tell():
        await asyncio.sleep(0)
        return bench.recorder.record(Filled(fill=fill(), source="stream"))

    assert sorted(await asyncio.gather(tell(), tell())) == [False, True]
    assert bench.book.positions.quantity(BTC) == 1

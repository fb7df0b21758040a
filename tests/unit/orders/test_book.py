"""The book, record by record."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from tests.support.orders import AT, BTC, changed, fill, filled, intent, later, records_into

from execkit.errors import InvalidTransitionError, JournalCorruptedError
from execkit.journal.fold import fold
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, Side
from execkit.model.position import PositionState
from execkit.model.records import (
    Alarm,
    BalancesSeen,
    BarClosed,
    CommandSent,
    Entry,
    EquityMarked,
    ExternalChange,
    PlanChanged,
    RegistryChanged,
    SignalQueued,
    SignalResult,
    Source,
    StopMoved,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.model.result import Outcome
from execkit.orders import book as module
from execkit.orders.book import Book

D = Decimal


def book_of(*records):
    book = Book()
    for record in records:
        book.apply(record, AT)
    return book


def entries(*records):
    return [Entry(n, AT, record) for n, record in enumerate(records, 1)]


def result(signal_id, **changes):
    return SignalResult(
        **{
            "signal_id": signal_id,
            "signal_digest": f"d-{signal_id}",
            "symbol": BTC,
            "side": Side.BUY,
            "outcome": Outcome.FILLED,
        }
        | changes
    )


def entry(order_id="o1", **details):
    return intent(order_id, signal_id=details.get("parent", "s1"), signal_digest="d-s1", **details)


# -- positions as they are shown -----------------------------------------------------------------------


def test_an_entry_without_a_fill_is_shown_as_pending():
    """Until the first fill there is a PENDING_ENTRY of quantity zero; a proven-absent entry shows nothing."""
    book = book_of(entry(stop_loss=D(95), take_profit=D(110), strength=D(80)))
    book.marks[BTC] = D(101)
    shown = book.open_positions()[BTC]
    assert (shown.state, shown.quantity, shown.position_id) == (PositionState.PENDING_ENTRY, 0, "")
    assert (shown.signal_id, shown.strength) == ("s1", D(80))
    assert (shown.stop_loss, shown.take_profit, shown.mark) == (D(95), D(110), D(101))
    assert book.position(BTC) is None
    for event in ("submit", "lose", "absent"):
        book.apply(changed(event), AT)
    assert book.open_positions() == {}


def test_an_open_position_is_shown_with_its_stop_and_mark():
    """The newest live stop and the last price belong to what is shown; another entry does not hide it."""
    book = book_of(
        entry(),
        filled(),
        entry("o2", parent="s2"),
        intent("st1", parent="p", side=Side.SELL, role=OrderRole.STOP, stop="90"),
        intent("st2", parent="p", side=Side.SELL, role=OrderRole.STOP, stop="91", revision=1),
    )
    assert book.position(BTC).mark is None
    book.see_quote(Quote(BTC, D(99), D(101), AT))
    position = book.open_positions()[BTC]
    assert (position.state, position.mark, position.stop_order_id) == (
        PositionState.OPEN,
        D(100),
        "st2",
    )
    assert book.working_stop(BTC).client_order_id == "st2"
    assert book.mark(BTC) == 100
    assert book.mark("ETH/USDT") is None


@pytest.mark.parametrize("role", [OrderRole.EXIT, OrderRole.FLATTEN])
def test_a_position_with_a_live_exit_is_pending_exit(role):
    """While an order that closes it may be live it is PENDING_EXIT, afterwards OPEN again."""
    book = book_of(entry(), filled(), intent("x", parent="x", side=Side.SELL, role=role))
    assert book.position(BTC).state is PositionState.PENDING_EXIT
    book.apply(changed("fail", "x"), AT)
    assert book.position(BTC).state is PositionState.OPEN
    assert book.position(BTC).stop_order_id is None


# -- fills, cash, equity -------------------------------------------------------------------------------


def test_cash_follows_fills_fees_and_the_venue():
    """A buy takes quote and gives base, less the fee in its asset; the venue's holdings replace all of it."""
    book = book_of(
        BalancesSeen(totals={"USDT": D(1000)}, source=Source.RECOVERY),
        entry(quantity="2"),
        filled("a", quantity="1", price="100", fee="0.1", fee_asset="USDT"),
        filled("b", quantity="0.5", price="100", fee="0.001", fee_asset="BTC"),
        filled("c", quantity="0.5", price="100", fee="0.02", fee_asset="BNB"),
    )
    assert book.cash == {"USDT": D("799.9"), "BTC": D("1.999"), "BNB": D("-0.02")}
    assert book.positions.quantity(BTC) == D("1.999")
    book.apply(filled("d", quantity="0", replaces="b"), AT)
    assert (book.cash["USDT"], book.cash["BTC"]) == (D("849.9"), D("1.5"))
    book.apply(filled("e", quantity="1", price="90", replaces="a", fee="0.2"), AT)
    assert book.cash["USDT"] == D("849.9") + D("100.1") - D("90.2")
    book.apply(BalancesSeen(totals={"USDT": D(5)}, source=Source.RECONCILE), AT)
    assert book.cash == {"USDT": D(5)}


def test_a_short_makes_the_base_asset_negative():
    """What was sold and is not owned is owed."""
    book = book_of(intent(side=Side.SELL), filled(side=Side.SELL, price="100"))
    assert book.cash == {"BTC": D(-1), "USDT": D(100)}
    book.marks[BTC] = D(90)
    assert book.equity("USDT") == 10


def test_no_digit_of_money_is_lost():
    """Seventeen digits times seventeen digits is exact in the cash, however long."""
    quantity, price = "1.2345678901234567", "98765.432109876543"
    book = book_of(entry(quantity=quantity), filled(quantity=quantity, price=price))
    assert Fraction(book.cash["USDT"]) == -Fraction(quantity) * Fraction(price)
    assert len(book.cash["USDT"].as_tuple().digits) > 28


def test_equity_values_holdings_at_the_last_price_known():
    """The mark, else the entry price, else nothing; an equity goes by its own symbol."""
    book = book_of(
        entry(),
        filled(price="100"),
        BalancesSeen(totals={"USDT": D(10), "BTC": D(1)}, source="ack"),
    )
    assert book.equity("USDT") == 110
    book.marks[BTC] = D(120)
    assert book.equity("USDT") == 130
    book.cash |= {"AAPL": D(2), "XRP": D(5), "BNB": D(0)}
    book.marks["AAPL"] = D(50)
    assert book.equity("USDT") == 230
    account = book.account("USDT", reserved=D(4))
    assert (account.equity, account.cash, account.buying_power) == (230, 10, 6)
    assert book.account("EUR", reserved=D(0)).cash == 0


@pytest.mark.parametrize(
    ("symbol", "asset", "quote", "marks", "worth"),
    [
        ("BTC/USDT:USDT", "BTC", "USDT", {}, 200),
        ("BTC/USDT:USDT", "BTC", "USDT", {"BTC/USDT:USDT": D(120)}, 240),
        ("SAP/EUR:IBIS", "SAP", "EUR", {"EUR/USDT": D("1.1"), "SAP/EUR:IBIS": D(90)}, 198),
        ("SAP/EUR:IBIS", "SAP", "EUR", {}, 0),
    ],
)
def test_equity_values_markets_that_name_more_than_a_pair(symbol, asset, quote, marks, worth):
    """A contract's or an exchange's name after the pair changes no value; another currency is converted by its mark."""
    book = book_of(
        entry(symbol=symbol, quantity="2"),
        filled(symbol=symbol, price="100", quantity="2"),
        BalancesSeen(totals={"USDT": D(10), asset: D(2)}, source="ack"),
    )
    book.marks |= marks
    assert book.equity("USDT") == 10 + worth


def test_a_fill_is_known_by_order_and_by_symbol():
    """Also one that a correction took away, and one of an order that is forgotten."""
    book = book_of(entry(), filled("a"), filled("b", "gone", symbol="ETH/USDT"))
    assert book.knows_fill(fill("a"))
    assert book.knows_fill(fill("b", "gone", symbol="ETH/USDT"))
    assert not book.knows_fill(fill("b", "o1"))
    book.apply(filled("a"), AT)
    assert book.positions.quantity(BTC) == 1
    book.apply(filled("a2", quantity="0.5", replaces="a"), AT)
    assert book.knows_fill(fill("a"))
    assert book.positions.quantity("ETH/USDT") == 1
    assert book.positions.open["ETH/USDT"].signal_id == ""


def test_equity_counts_dust_at_what_it_has_cost():
    """Less than a lot is no position, and still held; without a price it counts as a position would."""
    book = book_of(
        intent(lot_size=D("0.01")),
        filled(fee="0.001", fee_asset="BTC"),
        intent("x", parent="x", side=Side.SELL, quantity="0.99", lot_size=D("0.01")),
        filled("t2", "x", quantity="0.99", side=Side.SELL, price="110"),
    )
    assert (book.position(BTC), book.open_positions()) == (None, {})
    assert book.positions.quantity(BTC) == book.cash["BTC"] == D("0.009")
    assert book.cash["USDT"] == D("8.9")
    assert book.equity("USDT") == D("8.9") + D("0.9")
    book.marks[BTC] = D(1000)
    assert book.equity("USDT") == D("17.9")


@pytest.mark.parametrize(("lot", "is_open"), [(None, True), ("0.01", True), ("0.02", False)])
def test_an_outside_change_of_less_than_a_lot_opens_nothing(lot, is_open):
    """Where the lot is known; it counts in what is held all the same."""
    lot_size = None if lot is None else D(lot)
    book = book_of(
        ExternalChange(symbol=BTC, quantity=D("0.01"), price=D(50), reason="", lot_size=lot_size)
    )
    assert (BTC in book.positions.open) is is_open
    assert book.positions.quantities() == {BTC: D("0.01")}


def test_an_outside_change_moves_the_position_only():
    """Cash is the venue's to tell."""
    book = book_of(ExternalChange(symbol=BTC, quantity=D(2), price=D(50), reason="by hand"))
    assert (book.positions.quantity(BTC), book.cash) == (2, {})


# -- signals -------------------------------------------------------------------------------------------


def test_signals_are_known_from_intent_or_result():
    """The digest is that of the first time; told is told."""
    book = book_of(entry(), result("s2"))
    assert (book.signals["s1"].digest, book.signals["s1"].told) == ("d-s1", False)
    assert (book.signals["s2"].told, book.signals["s2"].result.outcome) == (True, Outcome.FILLED)
    book.apply(result("s1", outcome=Outcome.CANCELLED), AT)
    assert (book.signals["s1"].told, book.signals["s1"].result.outcome) == (
        True,
        Outcome.CANCELLED,
    )
    book.apply(intent("x", parent="p", role=OrderRole.STOP, signal_id="s9"), AT)
    assert "s9" not in book.signals


def test_results_and_signals_are_kept_for_a_while(monkeypatch):
    """The last results stay whole; older ones are known by id; the oldest ids go, with their revisions."""
    monkeypatch.setattr(module, "KEEP_RESULTS", 2)
    monkeypatch.setattr(module, "KEEP_SIGNALS", 4)
    book = book_of(entry())
    for n in range(2, 5):
        book.apply(result(f"s{n}"), AT)
    book.apply(result("s4"), AT)
    assert [book.signals[f"s{n}"].result is not None for n in (2, 3, 4)] == [False, True, True]
    assert book.next_revision("s1", OrderRole.ENTRY) == 1
    restored = Book.restore(book.snapshot())
    for each in (book, restored):
        each.apply(result("a0"), AT)
        assert list(each.signals) == ["s2", "s3", "s4", "a0"]
        assert each.next_revision("s1", OrderRole.ENTRY) == 0
        assert [i for i, e in each.signals.items() if e.result] == ["s4", "a0"]
        each.apply(result("a1"), AT)
        each.apply(result("a2"), AT)
        each.apply(result("a3"), AT)
        assert list(each.signals) == ["a0", "a1", "a2", "a3"]
    assert restored.state_hash() == book.state_hash()


def test_a_result_whose_signal_is_forgotten_leaves_no_trace(monkeypatch):
    """The two memories have limits of their own."""
    monkeypatch.setattr(module, "KEEP_RESULTS", 2)
    monkeypatch.setattr(module, "KEEP_SIGNALS", 1)
    book = book_of(*(result(f"s{n}") for n in range(4)))
    assert list(book.signals) == ["s3"]


def test_owed_signals_stay_owed_until_their_result_or_the_queue():
    """What a bar decided survives until somebody was told, or it waits for the open."""
    bar = BarClosed(
        symbol=BTC,
        timeframe="1m",
        close_time=later(60),
        high=D(2),
        low=D(1),
        close=D(1),
        signals={"b": "1", "a": "2", "c": "3"},
    )
    book = book_of(bar, entry(parent="b"))
    assert list(Book.restore(book.snapshot()).owed.items()) == [("b", "1"), ("a", "2"), ("c", "3")]
    book.apply(result("b"), AT)
    waiting = SignalQueued(signal_id="a", signal_digest="d", symbol=BTC, signal="{}")
    book.apply(waiting, AT)
    assert list(book.owed) == ["c"]
    assert book.queued == {"a": waiting}
    book.apply(
        SignalQueued(signal_id="a", signal_digest="d", symbol=BTC, signal="{}", queued=False), AT
    )
    assert book.queued == {}


def test_revisions_count_by_parent_and_role():
    """The next number follows the largest that was intended."""
    book = book_of(entry(revision=2), entry("o2", revision=1))
    assert book.next_revision("s1", OrderRole.ENTRY) == 3
    assert book.next_revision("s1", OrderRole.EXIT) == 0


def test_an_intent_that_was_kept_twice_counts_once():
    """A reduction whose commit half failed stands in the journal and in the emergency file."""
    book = book_of(entry(), changed("submit"), entry())
    assert book.orders["o1"].state is OrderState.SUBMITTED
    with pytest.raises(InvalidTransitionError, match="o1 is intended twice"):
        book.apply(entry(quantity="2"), AT)


# -- bars and levels -----------------------------------------------------------------------------------


def bar(close_time, high, low, frame="1m"):
    return BarClosed(
        symbol=BTC, timeframe=frame, close_time=close_time, high=D(high), low=D(low), close=D(low)
    )


def test_the_last_close_only_moves_forward():
    """A bar that comes late does not fire again what came after it."""
    book = book_of(bar(later(120), 2, 1), bar(later(60), 2, 1), bar(later(3600), 2, 1, "1h"))
    assert book.fired == {(BTC, "1m"): later(120), (BTC, "1h"): later(3600)}


def test_only_bars_that_began_with_the_position_set_its_best_price():
    """The extreme of an earlier or longer bar may be from before."""
    book = book_of(entry(), filled(at=later(60)), bar(later(119), 500, 1))
    assert book.positions.open[BTC].best_price is None
    book.apply(bar(later(120), 110, 90), AT)
    assert book.positions.open[BTC].best_price == 110


def test_moved_stops_belong_to_the_position():
    """A StopMoved record sets what the position shows."""
    book = book_of(entry(stop_loss=D(90)), filled())
    book.apply(StopMoved(symbol=BTC, position_id=f"{BTC}#1", stop_loss=D(97)), AT)
    assert book.position(BTC).stop_loss == 97


# -- restrictions --------------------------------------------------------------------------------------


def test_restrictions_are_state():
    """Trading state, blocked symbols, plans and alarms are what was recorded last."""
    book = Book()
    assert book.trading_state is TradingState.ACTIVE
    book.apply(TradingStateChanged(state=TradingState.HALTED, cause="c", actor="a"), AT)
    assert book.trading_state is TradingState.HALTED
    book.apply(SymbolBlocked(symbol=BTC, blocked=True, cause="doubt"), AT)
    assert book.blocked == {BTC: "doubt"}
    book.apply(SymbolBlocked(symbol=BTC, blocked=False, cause=""), AT)
    book.apply(SymbolBlocked(symbol=BTC, blocked=False, cause=""), AT)
    assert book.blocked == {}
    plan = PlanChanged(plan="p", status="awaiting_entry")
    book.apply(plan, AT)
    assert book.plans == {"p": plan}
    for n in range(module.KEEP_ALARMS + 1):
        book.apply(Alarm(code="X", text=str(n)), AT)
    assert (len(book.alarms), book.alarms[0].text) == (module.KEEP_ALARMS, "1")
    before = book.state_hash()
    book.apply(CommandSent(client_order_id="o1", command="cancel"), AT)
    book.apply(RegistryChanged(name="f", action="registered", actor="a"), AT)
    assert book.state_hash() == before


@pytest.mark.parametrize("symbol", ["BTC/USDT:USDT", "BTC/USDT:PAXOS"])
def test_equity_values_what_has_a_longer_name(symbol):
    """What a future, or a listing elsewhere, has cost is no loss: its position is worth its mark, else its entry."""
    book = book_of(entry(symbol=symbol), filled(symbol=symbol, price="100"))
    assert book.cash == {"USDT": D(-100), "BTC": D(1)}
    assert book.equity("USDT") == 0
    book.marks[symbol] = D(120)
    assert book.equity("USDT") == 20
    assert book.equity("USD") == 0, "in another currency it has no price"


def test_equity_marks_are_kept_for_a_day_and_an_hour():
    """Enough for any rolling day."""
    book = Book()
    for hours in (0, 1, 25, 26):
        book.apply(
            EquityMarked(equity=D(hours), opens_session=hours == 25), AT + timedelta(hours=hours)
        )
    assert [(m.equity, m.opens_session) for m in book.equity_marks] == [
        (1, False),
        (25, True),
        (26, False),
    ]
    assert book.last_at == AT + timedelta(hours=26)


# -- replay --------------------------------------------------------------------------------------------


def test_an_impossible_event_changes_nothing():
    """The book refuses it and is as it was."""
    book = book_of(*records_into(OrderState.FILLED))
    before = book.state_hash()
    with pytest.raises(InvalidTransitionError):
        book.apply(changed("submit"), AT)
    assert book.state_hash() == before


def test_fold_names_the_record_that_cannot_have_happened():
    """A journal was applied when it was written, so what does not apply is damage."""
    with pytest.raises(JournalCorruptedError, match="record 3 cannot have happened: an order that"):
        fold(entries(intent(), changed("submit"), changed("absent")))


@pytest.mark.parametrize("state", OrderState)
def test_each_state_survives_a_snapshot(state):
    """An order in any state comes back in it."""
    book = fold(entries(*records_into(state)))
    again = Book.restore(book.snapshot())
    assert again.orders["o1"].state is state
    assert again.state_hash() == book.state_hash()


def test_marks_and_foreign_orders_are_not_state():
    """What is not journalled leaves hash and snapshot alone."""
    book = book_of(intent())
    before = book.state_hash()
    book.marks[BTC] = D(1)
    book.foreign["x"] = None
    assert book.state_hash() == before


def test_revisions_of_positions_long_closed_are_forgotten():
    """I32: one revision for each position that ever was would be memory without bound; snapshots agree."""
    book = Book()
    for number in range(1, 1_101):
        name = f"{BTC}#{number}"
        role = OrderRole.STOP
        book.apply(intent(f"o{number}", parent=name, position_id=name, role=role), AT)
    assert len(book.revisions) == 1_000
    assert book.next_revision(f"{BTC}#1", OrderRole.STOP) == 0
    assert book.next_revision(f"{BTC}#101", OrderRole.STOP) == 1
    assert Book.restore(book.snapshot()).state_hash() == book.state_hash()


@pytest.mark.parametrize(
    ("bid", "ask", "mark"),
    [
        ("194", "196", "195"),
        ("193.1", "197", "195.05"),
        ("100", "200", "190"),
        ("100", "150", "150"),
        ("192", "240", "192"),
    ],
)
def test_the_middle_of_a_wide_quote_is_no_price(bid, ask, mark):
    """Outside of a session quotes lie far apart: what is held is worth what it was, as far as that lies within."""
    book = book_of()
    book.see_quote(Quote(BTC, D(150), D(230), AT))
    assert book.mark(BTC) == 190, "the first is all there is"
    book.see_quote(Quote(BTC, D(bid), D(ask), AT))
    assert book.mark(BTC) == D(mark)

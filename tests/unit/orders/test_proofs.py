"""What may leave: proofs over the book, and the intents that are written for it."""

from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.support import orders as make
from tests.support.orders import AT, BTC, changed, filled, intent
from tests.support.tickets import entry, reduction, ticket

from execkit.ids import client_order_id, is_ours
from execkit.model.capabilities import Capabilities
from execkit.model.denial import DenialCode
from execkit.model.order import OrderRole, OrderState, OrderType, Side, TimeInForce
from execkit.model.records import SymbolBlocked, TradingState, TradingStateChanged
from execkit.orders.book import Book
from execkit.orders.commands import terms
from execkit.orders.proofs import (
    deny_entry,
    entry_intent,
    fit_reduction,
    reducible,
    reduction_intent,
)

D = Decimal
PLAIN = Capabilities()


def book_of(*records):
    book = Book()
    for record in records:
        book.apply(record, AT)
    return book


def long(quantity="1"):
    """Return the records of a long position."""
    return (intent("e", parent="e", quantity=quantity), filled("e", "e", quantity=quantity))


def refusal(denial):
    return None if denial is None else str(denial)


# -- entries -------------------------------------------------------------------------------------------


def test_a_stamped_entry_may_leave():
    """Nothing stands in its way on an empty book, nor with orders of others and finished ones of its own."""
    assert deny_entry(entry(), Book(), PLAIN) is None
    book = book_of(
        intent("other", parent="s2"),
        *make.records_into(OrderState.REJECTED),
        intent("absent", parent="s1", revision=1),
        *(changed(e, "absent") for e in ("submit", "lose", "absent")),
    )
    assert deny_entry(entry(), book, PLAIN) is None


def halted(state):
    return TradingStateChanged(state=state, cause="c", actor="a")


@pytest.mark.parametrize(
    ("records", "command", "expected"),
    [
        ([halted(TradingState.HALTED)], entry(), "TRADING_HALTED: cause=c"),
        ([halted(TradingState.REDUCING)], entry(), "TRADING_REDUCING: cause=c"),
        (
            [SymbolBlocked(symbol=BTC, blocked=True, cause="why")],
            entry(),
            f"SYMBOL_BLOCKED: symbol={BTC}, cause=why",
        ),
        (
            make.records_into(OrderState.IN_DOUBT, order_id="d", parent="s2"),
            entry(),
            f"SYMBOL_BLOCKED: symbol={BTC}, in_doubt=d",
        ),
        # I1: nothing new while an earlier try may be live
        (
            make.records_into(OrderState.IN_DOUBT),
            entry(),
            "PENDING_ORDER_EXISTS: order=o1",
        ),
        (make.records_into(OrderState.ACCEPTED), entry(), "PENDING_ORDER_EXISTS: order=o1"),
        ([intent()], entry(), "PENDING_ORDER_EXISTS: order=o1"),
        # somebody wanted it gone
        (
            [intent(), changed("ask_cancel"), changed("fail")],
            entry(),
            "CANCELLED: order=o1",
        ),
        ([], entry(stamped=False), f"NOT_STAMPED: symbol={BTC}"),
        ([], entry(quantity=None), f"NOT_STAMPED: symbol={BTC}"),
        ([], entry(quantity=None, unchecked=True), f"NOT_STAMPED: symbol={BTC}"),
        ([], entry(stamped=False, unchecked=True), None),
        (
            [SymbolBlocked(symbol="ETH/USDT", blocked=True, cause="why")],
            entry(),
            None,
        ),
        (make.records_into(OrderState.IN_DOUBT, parent="s2", symbol="ETH/USDT"), entry(), None),
    ],
)
def test_each_refusal_of_an_entry(records, command, expected):
    """Each has its code and says what stands in the way."""
    assert refusal(deny_entry(command, book_of(*records), PLAIN)) == expected


def test_numbers_and_abilities_are_checked_at_the_door_again():
    """I23: off the tick, out of any collar, or of a kind that the venue lacks: it does not leave."""
    for details, code in (
        ({"limit": "100.05"}, DenialCode.PRICE_OFF_TICK),
        ({"limit": "121"}, DenialCode.PRICE_OUTSIDE_COLLAR),
        ({"quantity": "0.025"}, DenialCode.QUANTITY_OFF_LOT),
    ):
        assert deny_entry(entry(**details), Book(), PLAIN).code is code
    market_only = Capabilities(order_types=frozenset({OrderType.MARKET}))
    denial = deny_entry(entry(), Book(), market_only)
    assert denial.code is DenialCode.ORDER_TYPE_UNSUPPORTED


def test_the_order_being_sent_does_not_stand_in_its_own_way():
    """Its intent is in the book already when the proof is made a second time; unless it was cancelled."""
    book = book_of(intent())
    assert deny_entry(entry(), book, PLAIN, sending=book.orders["o1"]) is None
    book.apply(changed("ask_cancel"), AT)
    denial = deny_entry(entry(), book, PLAIN, sending=book.orders["o1"])
    assert denial.code is DenialCode.CANCELLED


def test_a_stamp_for_less_covers_nothing_more():
    """The ticket that grew after its approval is not stamped any more."""
    grown = replace(ticket(), quantity=D(1001))
    command = replace(entry(), ticket=grown)
    assert deny_entry(command, Book(), PLAIN).code is DenialCode.NOT_STAMPED


def test_open_orders_are_limited_by_the_venue():
    """Foreign orders count too; the limit itself is full."""
    book = book_of(intent("a", parent="s2"))
    book.foreign["v"] = None
    assert deny_entry(entry(), book, Capabilities(max_open_orders=3)) is None
    denial = deny_entry(entry(), book, Capabilities(max_open_orders=2))
    assert str(denial) == "VENUE_UNAVAILABLE: open_orders=2, limit=2"


# -- reductions ----------------------------------------------------------------------------------------


def sell(order_id, quantity, role=OrderRole.STOP, **details):
    return intent(
        order_id, parent=order_id, side=Side.SELL, quantity=quantity, role=role, **details
    )


def test_what_can_be_reduced_is_the_position_less_what_closes_it_already():
    """Every live reduction on the side counts with what is left of it, in flight and in doubt included."""
    book = book_of(
        *long("5"),
        sell("a", "1", OrderRole.EXIT),
        sell("b", "2"),
        filled("b1", "b", "0.5", side=Side.SELL),
        sell("c", "1"),
        changed("submit", "c"),
        changed("lose", "c"),
    )
    assert book.positions.quantity(BTC) == D("4.5")
    assert reducible(book, BTC, Side.SELL) == D("4.5") - 1 - D("1.5") - 1
    assert reducible(book, BTC, Side.SELL, replaces=("b", "c")) == D("3.5")
    assert reducible(book, BTC, Side.BUY) == 0
    assert reducible(book, "ETH/USDT", Side.SELL) == 0
    book.apply(changed("absent", "c"), AT)
    assert reducible(book, BTC, Side.SELL) == 2


def test_a_short_is_reduced_by_buying():
    """The mirror image."""
    book = book_of(
        intent("e", parent="e", side=Side.SELL, quantity="2"),
        filled("e", "e", "2", side=Side.SELL),
    )
    assert reducible(book, BTC, Side.BUY) == 2
    assert reducible(book, BTC, Side.SELL) == 0


def test_a_change_under_way_counts_at_its_worst():
    """A stop that was asked to grow may have grown."""
    book = book_of(*long("5"), sell("b", "1"), changed("accept", "b"))
    make.ask(book.orders["b"], quantity=3)
    assert reducible(book, BTC, Side.SELL) == 2


def test_more_claims_than_position_leave_nothing():
    """Never a negative quantity."""
    book = book_of(*long("1"), sell("a", "3"))
    assert reducible(book, BTC, Side.SELL) == 0


@pytest.mark.parametrize(
    ("held", "asked", "fitted"),
    [
        ("1", "1", "1"),
        ("1", "2", "1"),
        ("1", "0.5", "0.5"),
        ("1.019", "2", "1.01"),
        ("0.02", "1", "0.02"),
    ],
)
def test_a_reduction_is_made_to_fit(held, asked, fitted):
    """As much as was asked for, never more than there is, in whole lots."""
    command = reduction(asked)
    found = fit_reduction(command, book_of(*long(held)))
    assert found == replace(command, quantity=D(fitted))
    assert (found is command) == (asked == fitted)


@pytest.mark.parametrize(("held", "left"), [("0.019", "0.019"), ("0.009", "0.009")])
def test_a_rest_that_cannot_be_sold_is_refused(held, left):
    """Below the venue's minimum, or below one lot, nothing is sent."""
    denial = fit_reduction(reduction("1"), book_of(*long(held)))
    assert str(denial) == f"NO_POSITION_TO_REDUCE: symbol={BTC}, asked=1, reducible={left}"


def test_nothing_to_reduce_is_refused():
    """Flat, or on the side that would add."""
    assert fit_reduction(reduction(), Book()).code is DenialCode.NO_POSITION_TO_REDUCE
    wrong = fit_reduction(reduction(side=Side.BUY), book_of(*long()))
    assert wrong.code is DenialCode.NO_POSITION_TO_REDUCE


# -- intents -------------------------------------------------------------------------------------------


def test_the_intent_of_an_entry():
    """It carries everything of the ticket that has to survive, and an id derived from the signal."""
    command = entry(timeout=60, post_only=True, take_profit=D(120))
    made = entry_intent(command, "acct", Book())
    request = made.request
    assert request.client_order_id == client_order_id("acct", "s1", OrderRole.ENTRY)
    assert is_ours(request.client_order_id)
    assert (request.symbol, request.side, request.type, request.quantity, request.limit_price) == (
        BTC,
        Side.BUY,
        OrderType.LIMIT,
        D(1),
        D(100),
    )
    assert (request.post_only, request.reduce_only, request.time_in_force) == (
        True,
        False,
        TimeInForce.GTC,
    )
    assert made.payload_hash == request.payload_hash
    assert (made.role, made.parent, made.revision) == (OrderRole.ENTRY, "s1", 0)
    assert (made.signal_id, made.signal_digest) == ("s1", command.ticket.signal.digest)
    assert (made.reservation_id, made.worst_price, made.expected_price) == ("r-s1", D(200), D(100))
    assert (made.stop_loss, made.take_profit, made.strength) == (D(95), D(120), D(100))
    assert made.timeout_at == AT + timedelta(seconds=60)
    assert made.lot_size == command.ticket.instrument.lot_size == D("0.01")
    unstamped = entry_intent(entry(stamped=False, unchecked=True), "acct", Book())
    assert (unstamped.reservation_id, unstamped.worst_price) == (None, None)


def test_the_intent_of_a_reduction():
    """Reduce-only, for its position, with an id derived from its parent and role."""
    made = reduction_intent(reduction(role=OrderRole.STOP, stop="95", parent="p"), "acct", Book())
    request = made.request
    assert request.client_order_id == client_order_id("acct", "p", OrderRole.STOP)
    assert (request.reduce_only, request.type, request.stop_price) == (True, OrderType.STOP, D(95))
    assert (made.position_id, made.parent, made.signal_id) == (f"{BTC}#1", "p", None)
    assert made.lot_size == D("0.01")


def test_ids_are_derived_and_unique():
    """The same signal gives the same id anywhere; account, signal, role and revision each give another."""
    ids = {
        entry_intent(entry(signal), account, book).request.client_order_id
        for signal in ("s1", "s2")
        for account in ("a", "b")
        for book in (Book(), book_of(intent("x", revision=3, parent=signal)))
    }
    ids |= {
        reduction_intent(reduction(role=role, parent="s1"), "a", Book()).request.client_order_id
        for role in OrderRole
        if role.is_reduction
    }
    assert len(ids) == 8 + 4
    again = [entry_intent(entry(), "a", Book()).request.client_order_id for _ in range(2)]
    assert again[0] == again[1]


def test_equal_terms_are_the_same_order():
    """Everything the venue is asked for, but the id."""
    made = entry_intent(entry(), "a", Book()).request
    again = entry_intent(entry("s2"), "a", Book()).request
    assert made.client_order_id != again.client_order_id
    assert terms(made) == terms(again)
    for change in (
        {"quantity": D(2)},
        {"limit_price": D(99)},
        {"stop_price": D(99)},
        {"side": Side.SELL},
        {"symbol": "ETH/USDT"},
        {"type": OrderType.MARKET},
        {"time_in_force": TimeInForce.IOC},
        {"post_only": True},
    ):
        assert terms(replace(made, **change)) != terms(made)

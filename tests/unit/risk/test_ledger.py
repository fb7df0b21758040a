"""The ledger: what is decided, live, in flight or in doubt counts; nothing counts twice."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from execkit.errors import PipelineError
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderRole,
    OrderState,
    OrderType,
    Side,
)
from execkit.model.records import Intent
from execkit.orders.manager import ManagedOrder
from execkit.risk.ledger import RiskLedger

D = Decimal
AT = datetime(2024, 1, 1, tzinfo=UTC)


def make_order(name="o1", quantity="10", *, signal="s1", symbol="A/B", **changes):
    terms = {"role": OrderRole.ENTRY, "reservation_id": signal, "expected_price": D(100)}
    side = changes.pop("side", Side.BUY)
    prices = {key: changes.pop(key, None) for key in ("limit_price", "stop_price")}
    request = OrderRequest(
        client_order_id=name,
        symbol=symbol,
        side=side,
        type=OrderType.MARKET,
        quantity=D(quantity),
        **prices,
    )
    intent = Intent(request=request, payload_hash="", parent=signal, **(terms | changes))
    return ManagedOrder.of(intent, AT)


def fill(order, quantity, trade="t1", **changes):
    order.execute(
        Fill(
            trade_id=trade,
            client_order_id=order.client_order_id,
            venue_order_id="",
            symbol=order.symbol,
            side=order.side,
            quantity=D(quantity),
            price=D(100),
            at=AT,
            **changes,
        ),
        AT,
    )


@pytest.fixture
def ledger():
    """Return a ledger with 10 reserved for s1: at 100 for limits, at most 105 and 1 % fee in cash."""
    ledger = RiskLedger()
    ledger.reserve("s1", "A/B", Side.BUY, D(10), D(105), price=D(100), fee_rate=D("0.01"))
    return ledger


def sums(ledger):
    return ledger.exposure, ledger.reserved_cash


def test_a_reservation_counts_at_once(ledger):
    """Exposure at the mid, cash at the worst price with fee."""
    assert sums(ledger) == (1000, D("1060.5"))
    assert ledger.reserved_notional(Side.BUY) == 1000
    assert ledger.reserved_notional(Side.SELL) == 0
    assert ledger.reserved_notional_of("A/B") == 1000
    assert ledger.reserved_notional_of("C/D") == 0
    assert ledger.claimed("s1") == (1000, D("1060.5"))
    assert ledger.claimed("other") == (0, 0)
    assert set(ledger.pending_symbols) == {"A/B"}
    assert ledger.is_pending("A/B", besides="other")
    assert not ledger.is_pending("A/B", besides="s1")
    assert not ledger.is_pending("C/D", besides="other")
    assert len(ledger) == 1


def test_release_without_an_order_frees_everything(ledger):
    """A chain that sent nothing claims nothing."""
    ledger.release("s1")
    assert sums(ledger) == (0, 0)
    assert not ledger.pending_symbols
    assert len(ledger) == 0
    ledger.release("s1")


def test_a_sell_reserves_no_cash():
    """Shorts count in exposure."""
    ledger = RiskLedger()
    ledger.reserve("s1", "A/B", Side.SELL, D(10), D(105), price=D(100))
    assert sums(ledger) == (1000, 0)
    assert ledger.claimed("s1") == (1000, 0)
    assert ledger.reserved_notional(Side.SELL) == 1000
    assert ledger.reserved_notional(Side.BUY) == 0


def test_an_order_does_not_count_beside_its_reservation(ledger):
    """Nor do its retries and revisions; fills move from the reservation to the position."""
    first = make_order("o1", "10")
    ledger.on_order(first)
    assert sums(ledger) == (1000, D("1060.5"))
    fill(first, 4)
    ledger.on_order(first)
    assert ledger.exposure == 600
    first.state = OrderState.CANCELLED
    ledger.on_order(first)
    assert ledger.exposure == 600, "a revision may follow while the chain runs"
    second = make_order("o2", "6")
    ledger.on_order(second)
    assert ledger.exposure == 600
    ledger.release("s1")
    assert ledger.exposure == 600, "the revision is live"
    fill(second, 6, "t2")
    ledger.on_order(second)
    assert sums(ledger) == (0, 0)
    assert len(ledger) == 0


@pytest.mark.parametrize("state", list(OrderState))
def test_after_the_chain_only_what_may_be_live_counts(ledger, state):
    """In doubt counts, presumed absent and closed do not."""
    order = make_order()
    ledger.on_order(order)
    ledger.release("s1")
    assert ledger.exposure == 1000, "it is new: the send may follow at any moment"
    order.state = state
    ledger.on_order(order)
    assert ledger.exposure == (1000 if state.may_be_live else 0)
    assert len(ledger) == state.may_be_live


def test_a_late_sight_counts_again(ledger):
    """Presumed absent and then seen: it is live."""
    order = make_order()
    ledger.release("s1")
    order.state = OrderState.PRESUMED_ABSENT
    ledger.on_order(order)
    assert ledger.exposure == 0
    order.state = OrderState.ACCEPTED
    ledger.on_order(order)
    assert ledger.exposure == 1000


def test_an_overfill_counts_no_less_than_nothing(ledger):
    """What was filled beyond the reservation is in the position."""
    order = make_order()
    fill(order, 12)
    ledger.on_order(order)
    assert sums(ledger) == (0, 0)


def test_a_bust_gives_the_reservation_back(ledger):
    """A reversed execution may be executed again while the chain runs."""
    order = make_order()
    fill(order, 4)
    ledger.on_order(order)
    fill(order, 0, "t2", replaces="t1")
    ledger.on_order(order)
    assert ledger.exposure == 1000


def test_an_order_larger_than_its_reservation_counts_as_it_is(ledger):
    """The sums never show less than the venue may execute."""
    ledger.on_order(make_order(quantity="12"))
    assert ledger.exposure == 1200


def test_an_order_from_before_a_restart_counts_without_a_reservation():
    """At its arrival mid and its worst price, until it ends."""
    ledger = RiskLedger()
    order = make_order(worst_price=D(110))
    fill(order, 4)
    ledger.on_order(order)
    assert sums(ledger) == (600, 660)
    order.state = OrderState.EXPIRED
    ledger.on_order(order)
    assert sums(ledger) == (0, 0)


def test_a_new_approval_takes_over_what_a_restart_left():
    """The order that is still live draws on it."""
    ledger = RiskLedger()
    order = make_order()
    ledger.on_order(order)
    ledger.reserve("s1", "A/B", Side.BUY, D(10), D(105), price=D(100))
    assert ledger.exposure == 1000
    fill(order, 4)
    ledger.on_order(order)
    assert ledger.exposure == 600


@pytest.mark.parametrize(
    ("changes", "exposure"),
    [
        ({"limit_price": D(90)}, 900),
        ({"stop_price": D(95)}, 950),
        ({"worst_price": D(105)}, 1050),
        ({}, 0),
    ],
)
def test_an_order_without_an_arrival_price(changes, exposure):
    """A chain without a risk handler leaves other prices to value it by; no price at all, no value."""
    ledger = RiskLedger()
    ledger.on_order(make_order(reservation_id=None, expected_price=None, **changes))
    assert ledger.exposure == exposure
    assert set(ledger.pending_symbols) == {"A/B"}


@pytest.mark.parametrize("role", [role for role in OrderRole if role.is_reduction])
def test_reductions_do_not_count(role):
    """They make positions smaller."""
    ledger = RiskLedger()
    ledger.on_order(make_order(role=role))
    assert sums(ledger) == (0, 0)


def test_closed_orders_never_start_a_claim():
    """News of an order that ended long ago changes nothing."""
    ledger = RiskLedger()
    order = make_order()
    order.state = OrderState.REJECTED
    ledger.on_order(order)
    assert len(ledger) == 0


def test_two_claims_of_one_symbol(ledger):
    """The symbol stays pending until both are gone."""
    ledger.reserve("s2", "A/B", Side.BUY, D(1), D(100), price=D(100))
    assert ledger.is_pending("A/B", besides="s1")
    ledger.release("s1")
    assert ledger.reserved_notional_of("A/B") == 100
    assert not ledger.is_pending("A/B", besides="s2")
    ledger.release("s2")
    assert not ledger.pending_symbols


def test_a_reservation_is_held_once(ledger):
    """Two risk handlers in one chain would count one signal twice."""
    with pytest.raises(PipelineError, match="reservation s1 is held already"):
        ledger.reserve("s1", "A/B", Side.BUY, D(1), D(100), price=D(100))


def test_foreign_orders_count():
    """At their own price or the mark, buys also in cash; each list takes the place of the last."""

    def make_report(side, quantity, filled="0", **prices):
        return OrderReport(
            client_order_id="",
            venue_order_id="v",
            symbol="A/B",
            side=side,
            type=OrderType.LIMIT,
            quantity=D(quantity),
            filled=D(filled),
            status=OrderState.ACCEPTED,
            **prices,
        )

    ledger = RiskLedger()
    ledger.set_foreign(
        [
            make_report(Side.BUY, 10, 4, limit_price=D(100)),
            make_report(Side.SELL, 2, stop_price=D(90)),
            make_report(Side.BUY, 1),
            make_report(Side.BUY, 1, 2, limit_price=D(100)),
        ],
        {"A/B": D(95)},
    )
    assert sums(ledger) == (600 + 180 + 95, 695)
    assert not ledger.pending_symbols
    ledger.set_foreign([])
    assert sums(ledger) == (0, 0)


def test_the_cost_does_not_grow_with_the_number_of_orders():
    """10,000 open orders leave the same sums to read, and nothing behind."""
    ledger = RiskLedger()
    orders = [make_order(f"o{i}", "1", signal=f"s{i}", symbol=f"S{i % 7}/B") for i in range(10_000)]
    for order in orders:
        ledger.on_order(order)
    assert ledger.exposure == 1_000_000
    assert ledger.is_pending("S1/B", besides="s1")
    for order in orders:
        order.state = OrderState.CANCELLED
        ledger.on_order(order)
    assert sums(ledger) == (0, 0)
    assert len(ledger) == 0


def test_a_claim_is_priced_anew_and_never_becomes_cheaper():
    """A changed entry: cash at the new worst price with its fee, exposure at the mid of now, the higher of each."""
    ledger = RiskLedger()
    ledger.reserve("a", "X", Side.BUY, D(2), D(100), price=D(99), fee_rate=D("0.01"))
    ledger.reprice("a", D(110), price=D(105), fee_rate=D("0.01"))
    assert (ledger.reserved_cash, ledger.exposure) == (D("222.2"), 210)
    assert ledger.reserved_notional_of("X") == 210
    ledger.reprice("a", D(90), price=D(95))
    assert (ledger.reserved_cash, ledger.exposure) == (D("222.2"), 210)
    ledger.reprice("nobody", D(90), price=D(95))
    ledger.release("a")
    assert (ledger.reserved_cash, ledger.exposure) == (0, 0)


def test_a_sale_that_is_priced_anew_claims_no_cash():
    """Its exposure counts at the higher price."""
    ledger = RiskLedger()
    ledger.reserve("a", "X", Side.SELL, D(2), D(100), price=D(99))
    ledger.reprice("a", D(110), price=D(105))
    assert (ledger.reserved_cash, ledger.reserved_notional(Side.SELL)) == (0, 210)

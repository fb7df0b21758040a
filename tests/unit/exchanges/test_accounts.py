"""Positions by average cost, and what a margin account holds for orders and shorts."""

from decimal import Decimal

import pytest

from execkit.errors import InsufficientBalanceError
from execkit.exchanges.accounts import Holding
from execkit.exchanges.matching import MatchingCore
from execkit.model.account import VenuePosition
from execkit.model.instrument import Instrument
from execkit.model.order import OrderState, Side
from execkit.testing.factories import START, SYMBOL, make_bar, make_quote, make_request


def venue(cash=1000, *, allow_short=True, price=100, **rules):
    rules = {"lot_size": Decimal("0.01")} | rules
    core = MatchingCore(
        {"USDT": Decimal(cash)},
        instruments=[Instrument.default(SYMBOL, **rules)],
        allow_short=allow_short,
    )
    core.on_quote(make_quote(price, price))
    return core


def place(core, name, **kwargs):
    core.place(make_request(name, **kwargs), START)
    return core.order(name)


def free(core):
    return core.balances()["USDT"].free


@pytest.mark.parametrize(
    ("moves", "quantity", "cost"),
    [
        ([(1, 100), (1, 110)], 2, 210),
        ([(2, 100), (-1, 150)], 1, 100),
        ([(2, 100), (-2, 150)], 0, 0),
        ([(2, 100), (-3, 150)], -1, 150),
        ([(-1, 100), (-1, 90)], -2, 190),
        ([(-2, 95), (1, 50)], -1, 95),
        ([(-1, 100), (3, 50)], 2, 100),
        ([(3, 100), (-1, 1), (-1, 1)], 1, 100),
    ],
)
def test_holding_goes_by_average_cost(moves, quantity, cost):
    """Growing adds cost at the price, shrinking takes it off at the average, a flip starts at the price."""
    holding = Holding()
    for change, price in moves:
        holding.move(Decimal(change), Decimal(price))
    assert (holding.quantity, holding.cost) == (quantity, cost)


def test_short_holds_its_proceeds_and_as_much_again():
    """4 sold at 100: 1400 in all, 800 of them held, 600 free for six more."""
    core = venue()
    place(core, "a", side=Side.SELL, quantity=4)
    usdt = core.balances()["USDT"]
    assert (usdt.total, usdt.free) == (1400, 600)
    assert core.balances()["BTC"].total == -4
    assert core.positions() == [VenuePosition(SYMBOL, Decimal(-4), Decimal(100))]
    with pytest.raises(InsufficientBalanceError) as caught:
        place(core, "b", side=Side.SELL, quantity=7)
    assert caught.value.available == 6
    assert place(core, "c", side=Side.SELL, quantity=6).status is OrderState.FILLED
    assert free(core) == 0


def test_short_is_bought_back_without_free_money():
    """Closing frees more than it costs; 10 sold at 100 and bought at 90 earn 100."""
    core = venue()
    place(core, "a", side=Side.SELL, quantity=10)
    core.on_quote(make_quote(90, 90))
    assert place(core, "b", side=Side.BUY, quantity=10).status is OrderState.FILLED
    assert (core.balances()["USDT"].total, free(core)) == (1100, 1100)


def test_short_that_lost_everything_can_still_be_closed():
    """At 250 the loss is 1500 of 1000; the venue lets go of it, and free is never below zero."""
    core = venue()
    place(core, "a", side=Side.SELL, quantity=10)
    core.on_quote(make_quote(250, 250))
    assert free(core) == 0
    assert place(core, "b", side=Side.BUY, quantity=10).status is OrderState.FILLED
    assert (core.balances()["USDT"].total, free(core)) == (-500, 0)


def test_orders_hold_only_for_what_they_open():
    """Two sells of a long of 5 hold nothing; one of 7 holds collateral for 2 at its price."""
    core = venue()
    place(core, "entry", quantity=5)
    assert free(core) == 500
    place(core, "target", side=Side.SELL, limit=120, quantity=5)
    place(core, "stop", side=Side.SELL, stop=80, quantity=5)
    assert free(core) == 500
    place(core, "more", side=Side.SELL, limit=120, quantity=7)
    assert free(core) == 260


def test_order_whose_position_is_gone_must_be_paid_when_executed():
    """Three sells of one long hold nothing; the second opens a short, the third has no collateral left."""
    core = venue(400)
    place(core, "entry", quantity=4)
    for name in ("a", "b", "c"):
        place(core, name, side=Side.SELL, limit=120, quantity=4)
    core.on_quote(make_quote(125, 125))
    # a closes the long for 480; b shorts 4 at 120 against these 480, and nothing is left for c.
    assert [core.order(n).filled for n in ("a", "b", "c")] == [4, 4, 0]
    assert core.order("c").status is OrderState.CANCELLED
    assert core.positions()[0].quantity == -4
    assert core.balances()["USDT"].total == 960
    assert free(core) == 0


def test_flipping_order_pays_for_its_opening_part():
    """Long 2, sell 5 at 100 with 800 free + 200 proceeds: 3 short hold 600 of 1300."""
    core = venue()
    place(core, "entry", quantity=2)
    place(core, "flip", side=Side.SELL, quantity=5)
    assert core.positions()[0].quantity == -3
    usdt = core.balances()["USDT"]
    assert (usdt.total, usdt.free) == (1300, 700)


def test_spot_account_never_sells_what_it_has_not():
    """Without short selling a sell needs the base."""
    core = venue(allow_short=False)
    with pytest.raises(InsufficientBalanceError) as caught:
        place(core, "a", side=Side.SELL)
    assert caught.value.available == 0


def test_short_selling_can_be_turned_on_and_off():
    """Turned off, a short stays and no new one is let in; its holds are counted anew each time."""
    core = venue()
    place(core, "a", side=Side.SELL, quantity=4)
    core.set_allow_short(allow=False)
    assert free(core) == 1400
    with pytest.raises(InsufficientBalanceError):
        place(core, "b", side=Side.SELL)
    core.set_allow_short(allow=True)
    assert free(core) == 600


def test_order_of_a_spot_account_survives_the_change_to_margin():
    """A sell that holds base is executed and gives it back."""
    core = venue(allow_short=False)
    place(core, "entry", quantity=1)
    place(core, "target", side=Side.SELL, limit=110)
    core.set_allow_short(allow=True)
    core.on_quote(make_quote(120, 120))
    assert core.order("target").status is OrderState.FILLED
    assert core.balances()["USDT"].free == 1010
    assert core.balances()["BTC"].locked == 0


def test_first_symbol_of_a_base_takes_what_is_owned():
    """Positions of symbols that share a base add up to the balance."""
    core = MatchingCore({"BTC": Decimal(3), "USDT": Decimal(1000), "EUR": Decimal(1000)})
    for symbol in (SYMBOL, "BTC/EUR"):
        core.add_instrument(Instrument.default(symbol))
        core.set_price(symbol, Decimal(100))
    assert [(p.symbol, p.quantity) for p in core.positions()] == [(SYMBOL, 3)]
    place(core, "a", symbol="BTC/EUR", quantity=2)
    assert {p.symbol: p.quantity for p in core.positions()} == {SYMBOL: 3, "BTC/EUR": 2}
    assert core.balances()["BTC"].total == 5
    core.add_instrument(Instrument.default("BTC/EUR", tick_size=Decimal(1)))
    assert core.balances()["BTC"].total == 5


def test_deposit_changes_balance_and_position():
    """Money from outside is a balance; a base asset is its first symbol's position as well."""
    core = venue()
    core.deposit("BTC", Decimal(2))
    core.deposit("USDT", Decimal(-300))
    core.deposit("XRP", Decimal(7))
    totals = {asset: balance.total for asset, balance in core.balances().items()}
    assert totals == {"USDT": 700, "BTC": 2, "XRP": 7}
    assert core.positions() == [VenuePosition(SYMBOL, Decimal(2), Decimal(0))]


def test_money_of_a_gapped_order_is_not_spent_twice():
    """A short at the next open is cut to the collateral that is there: 10 at 100, 8 at 125."""
    core = venue()
    core.on_bar(make_bar(1, 100, 100, 100, 100))
    at = make_bar(1, 1, 1, 1, 1).close_time
    core.place(make_request("a", side=Side.SELL, quantity=10), at)
    core.on_bar(make_bar(2, 125, 125, 125, 125))
    report = core.order("a")
    assert (report.filled, report.status) == (8, OrderState.CANCELLED)
    assert free(core) == 0

"""The door of the matching core: what it lets in, what it refuses, and what it tells."""

from datetime import timedelta
from decimal import Decimal

import attrs
import msgspec
import pytest

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    MarketOrderRefusedError,
    OrderNotFoundError,
)
from execkit.exchanges.matching import MatchingCore
from execkit.model.instrument import Instrument
from execkit.model.market import Timeframe
from execkit.model.order import OrderState, OrderType, Side, TimeInForce
from execkit.testing.factories import START, SYMBOL, make_bar, make_quote, make_request

RULES = Instrument.default(
    SYMBOL,
    tick_size=Decimal("0.05"),
    lot_size=Decimal("0.01"),
    min_quantity=Decimal("0.02"),
    max_quantity=Decimal(100),
    market_max_quantity=Decimal(50),
    min_notional=Decimal(10),
    max_notional=Decimal(8000),
)


def venue(cash=1_000_000, *, rules=RULES, **options):
    core = MatchingCore({"USDT": Decimal(cash)}, instruments=[rules], **options)
    core.on_quote(make_quote(100, 100))
    return core


def place(core, *args, at=START, **kwargs):
    core.place(make_request(*args, **kwargs), at)
    return core.order(args[0] if args else "order-1")


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"limit": "99.99"}, "TICK_SIZE"),
        ({"stop": "100.01"}, "TICK_SIZE"),
        ({"quantity": "1.005"}, "LOT_SIZE"),
        ({"quantity": "0.01"}, "MIN_QUANTITY"),
        ({"quantity": "100.01", "limit": 10}, "MAX_QUANTITY"),
        ({"quantity": 51}, "MARKET_MAX_QUANTITY"),
        ({"quantity": 51, "stop": 110}, "MARKET_MAX_QUANTITY"),
        ({"quantity": "0.02"}, "MIN_NOTIONAL"),
        ({"quantity": "0.5", "limit": "19.95"}, "MIN_NOTIONAL"),
        ({"quantity": 81, "limit": 99}, "MAX_NOTIONAL"),
        ({"client_order_id": ""}, "CLIENT_ORDER_ID"),
        ({"symbol": "ETH/USDT"}, "SYMBOL"),
        ({"type": OrderType.LIMIT}, "PARAMETERS"),
        ({"type": OrderType.MARKET, "limit_price": Decimal(1)}, "PARAMETERS"),
        ({"type": OrderType.STOP_LIMIT, "stop_price": Decimal(1)}, "PARAMETERS"),
        ({"quantity": Decimal("NaN")}, "PARAMETERS"),
        ({"quantity": Decimal("Infinity")}, "PARAMETERS"),
        ({"quantity": Decimal(-1)}, "PARAMETERS"),
        ({"type": OrderType.LIMIT, "limit_price": Decimal(0)}, "PARAMETERS"),
        ({"limit": 100, "post_only": True}, "POST_ONLY"),
        ({"post_only": True}, "POST_ONLY"),
        ({"limit": 90, "post_only": True, "time_in_force": TimeInForce.IOC}, "POST_ONLY"),
        ({"time_in_force": TimeInForce.GTD}, "EXPIRY"),
        ({"time_in_force": TimeInForce.GTD, "expire_at": START}, "EXPIRY"),
        ({"side": Side.SELL, "reduce_only": True}, "REDUCE_ONLY"),
    ],
)
def test_filters_refuse_by_name(order, code):
    """Each filter has a code, and a refused order leaves no trace."""
    core = venue()
    values = {
        key: order.pop(key) for key in list(order) if key in ("type", "limit_price", "stop_price")
    }
    if not isinstance(order.get("quantity", ""), str | int):
        values["quantity"] = order.pop("quantity")
    request = msgspec.structs.replace(make_request(**order), **values)
    with pytest.raises(InvalidOrderError, match=code) as caught:
        core.place(request, START)
    assert caught.value.code == code
    assert core.orders == {}
    assert core.balances()["USDT"].free == 1_000_000


@pytest.mark.parametrize(
    "order",
    [
        {"quantity": "0.1"},  # notional 10
        {"quantity": 80},  # notional 8000
        {"quantity": 50, "stop": 160},
        {"quantity": 100, "limit": "79.95"},
        {"limit": "99.95", "post_only": True},
    ],
)
def test_limits_of_the_filters_are_inclusive(order):
    """Exactly the minimum or the maximum passes."""
    core = venue(rules=attrs.evolve(RULES, market_max_quantity=Decimal(80)))
    assert place(core, **order).venue_order_id == "1"


def test_reduction_may_be_below_the_minimum_notional():
    """What is left of a position can always be closed."""
    core = venue()
    place(core, "a", quantity="0.1")
    core.on_quote(make_quote(50, 50))
    assert place(core, "b", side=Side.SELL, quantity="0.1", reduce_only=True).filled == Decimal(
        "0.1"
    )


def test_ids_count_up():
    """Venue order ids and trade ids come from counters, so the same inputs give the same ids."""
    core = venue()
    reports = [place(core, name) for name in ("a", "b")]
    assert [r.venue_order_id for r in reports] == ["1", "2"]
    assert [f.trade_id for r in reports for f in r.fills] == ["1", "2"]


def test_client_order_id_is_unique_for_ever():
    """Also after the first order was filled, a second of its name is refused, with an unknown outcome."""
    core = venue()
    place(core, "a")
    with pytest.raises(DuplicateClientOrderIdError) as caught:
        place(core, "a")
    assert not caught.value.outcome_known
    assert len(core.orders) == 1


def test_client_order_id_may_be_unique_among_open_orders_only():
    """As on Binance spot: refused while the first is open, taken again after it was filled."""
    core = venue(ids_unique_for_ever=False)
    place(core, "a", limit=90)
    with pytest.raises(DuplicateClientOrderIdError):
        place(core, "a")
    core.on_quote(make_quote(80, 80))
    assert place(core, "a").venue_order_id == "2"
    assert core.order("a", "1").limit_price == 90


def test_money_is_held_by_resting_orders():
    """A bid for 1 at 90 with 0.1 % fee holds 90.09; the cancel gives it back."""
    core = venue(100, rules=attrs.evolve(RULES, taker_fee=Decimal("0.001")))
    place(core, "a", limit=90)
    usdt = core.balances()["USDT"]
    assert (usdt.total, usdt.free, usdt.locked) == (100, Decimal("9.91"), Decimal("90.09"))
    core.cancel(SYMBOL, "a", START)
    assert core.balances()["USDT"].free == 100


def test_insufficient_balance_says_what_would_pass():
    """With 95 USDT at 100 and 0.1 % fee: 95 / 100.1 = 0.949, in lots 0.94."""
    core = venue(95, rules=attrs.evolve(RULES, taker_fee=Decimal("0.001")))
    with pytest.raises(InsufficientBalanceError) as caught:
        place(core, quantity=1)
    assert caught.value.available == Decimal("0.94")
    assert place(core, "smaller", quantity="0.94").status is OrderState.FILLED


def test_base_is_held_by_resting_sells():
    """A stop and a target cannot both rest on a spot account."""
    core = venue()
    place(core, "entry", quantity=1)
    place(core, "stop", side=Side.SELL, stop=90, quantity="0.7")
    with pytest.raises(InsufficientBalanceError) as caught:
        place(core, "target", side=Side.SELL, limit=110, quantity=1)
    assert caught.value.available == Decimal("0.3")


def test_fee_may_come_off_the_base():
    """1 bought less 0.1 % fee in base is 0.999, and only that can be sold; a seller pays in quote."""
    core = venue(rules=attrs.evolve(RULES, taker_fee=Decimal("0.001"), fee_in_base=True))
    (fill,) = place(core, "a", quantity=1).fills
    assert (fill.fee, fill.fee_asset) == (Decimal("0.001"), "BTC")
    assert core.balances()["BTC"].total == Decimal("0.999")
    assert core.positions()[0].quantity == Decimal("0.999")
    with pytest.raises(InsufficientBalanceError) as caught:
        place(core, "b", side=Side.SELL, quantity=1)
    assert caught.value.available == Decimal("0.99")
    (fill,) = place(core, "c", side=Side.SELL, quantity="0.99").fills
    assert (fill.fee, fill.fee_asset) == (Decimal("0.099"), "USDT")


def test_makers_and_takers_pay_their_own_fees():
    """Taker 0.2 %, maker a rebate of 0.1 %: 1 at 100 costs 0.2, 1 at 90 brings 0.09."""
    rules = attrs.evolve(RULES, maker_fee=Decimal("-0.001"), taker_fee=Decimal("0.002"))
    core = venue(rules=rules)
    place(core, "taker")
    place(core, "maker", limit=90)
    core.on_quote(make_quote(80, 80))
    assert [str(f.fee) for f in core.fills] == ["0.200", "-0.090"]
    assert core.account.fees == {"USDT": Decimal("0.110")}
    assert core.balances()["USDT"].total == 1_000_000 - 190 - Decimal("0.11")


def test_market_order_needs_a_price():
    """Without any price the venue refuses market orders; a limit order may rest."""
    core = MatchingCore({"USDT": Decimal(1000)}, instruments=[RULES])
    with pytest.raises(MarketOrderRefusedError):
        place(core)
    with pytest.raises(ExchangeUnavailableError):
        core.quote(SYMBOL)
    assert place(core, limit=100).status is OrderState.ACCEPTED


@pytest.mark.parametrize("how", ["halted", "untradeable"])
def test_closed_market_takes_no_orders(how):
    """Closed or delisted: refused as such, because such an order may be queued."""
    core = venue()
    if how == "halted":
        core.set_halted(SYMBOL, halted=True)
    else:
        core.add_instrument(attrs.evolve(RULES, tradeable=False))
    with pytest.raises(MarketClosedError):
        place(core)


@pytest.mark.parametrize(
    ("time_in_force", "expire_at", "lives", "ends"),
    [
        (TimeInForce.DAY, None, timedelta(hours=23, minutes=59), timedelta(days=1)),
        (TimeInForce.GTD, START + timedelta(hours=1), timedelta(minutes=59), timedelta(hours=1)),
    ],
)
def test_orders_end_by_time(time_in_force, expire_at, lives, ends):
    """DAY ends at midnight UTC, GTD at its own time; neither a moment earlier."""
    core = venue()
    place(core, "other", limit=90)
    place(core, "a", limit=90, time_in_force=time_in_force, expire_at=expire_at)
    assert not core.due(START + lives)
    assert core.on_time(START + lives) == []
    assert core.due(START + ends)
    (report,) = core.on_time(START + ends)
    assert (report.client_order_id, report.status) == ("a", OrderState.EXPIRED)
    assert core.balances()["USDT"].locked == 90
    assert not core.due(START + timedelta(days=9))


def test_bar_ends_orders_by_its_own_time():
    """An order that ended before the bar opened is not filled by it; one that ends inside still is."""
    core = venue()
    for name, minutes in (("early", 1), ("late", 2)):
        at = START + timedelta(minutes=minutes)
        place(core, name, limit=90, time_in_force=TimeInForce.GTD, expire_at=at)
    core.on_bar(make_bar(1, 100, 100, 80, 100))
    assert core.order("early").status is OrderState.EXPIRED
    assert core.order("late").status is OrderState.FILLED


def test_cancel_ends_an_open_order_once():
    """A second cancel, or one of a filled order, finds nothing."""
    core = venue()
    place(core, "a", limit=90)
    place(core, "filled")
    (report,) = core.cancel(SYMBOL, "a", START)
    assert report.status is OrderState.CANCELLED
    for name in ("a", "filled", "never"):
        with pytest.raises(OrderNotFoundError):
            core.cancel(SYMBOL, name, START)
    with pytest.raises(OrderNotFoundError):
        core.order("never")


def test_cancel_needs_the_right_symbol():
    """An order of another symbol is not found, also by the venue's own id."""
    core = venue()
    core.add_instrument(Instrument.default("ETH/USDT"))
    place(core, "a", limit=90)
    with pytest.raises(OrderNotFoundError):
        core.cancel("ETH/USDT", "a", START, venue_order_id="1")
    assert core.cancel(SYMBOL, "whatever", START, venue_order_id="1")[0].client_order_id == "a"


def test_amend_changes_price_and_holds():
    """From 1 at 90 to 2 at 80: 160 are held instead of 90; the id stays."""
    core = venue(200)
    place(core, "a", limit=90)
    (report,) = core.amend(SYMBOL, "a", START, quantity=Decimal(2), limit_price=Decimal(80))
    assert (report.quantity, report.limit_price, report.venue_order_id) == (2, 80, "1")
    assert core.balances()["USDT"].locked == 160


def test_amend_that_fails_changes_nothing():
    """Too expensive, off tick, or already filled beyond: the order rests on as it was."""
    core = venue(200)
    core.on_quote(make_quote(90, 90, ask_size="0.5"))
    place(core, "a", limit=90)
    before = core.order("a")
    with pytest.raises(InsufficientBalanceError):
        core.amend(SYMBOL, "a", START, quantity=Decimal(3))
    with pytest.raises(InvalidOrderError, match="TICK_SIZE"):
        core.amend(SYMBOL, "a", START, limit_price=Decimal("80.01"))
    with pytest.raises(InvalidOrderError, match="executed already"):
        core.amend(SYMBOL, "a", START, quantity=Decimal("0.5"))
    assert core.order("a") == before
    assert core.balances()["USDT"].locked == 45


def test_amended_limit_may_execute_at_once():
    """Raised to the ask it takes the ask; a stop lowered to the market triggers."""
    core = venue()
    place(core, "a", limit=90)
    core.amend(SYMBOL, "a", START, limit_price=Decimal(105))
    assert core.order("a").average_price == 100
    place(core, "s", stop=120)
    core.amend(SYMBOL, "s", START, stop_price=Decimal(100))
    assert core.order("s").status is OrderState.FILLED


def test_amended_order_stands_behind_the_others():
    """Whoever changes an order gives up its place: 1 of 2 can be filled, and it is the other's."""
    core = venue()
    place(core, "a", limit=90)
    place(core, "b", limit=90)
    core.amend(SYMBOL, "a", START, quantity=Decimal(2))
    core.on_quote(make_quote(80, 80, ask_size=1))
    assert (core.order("a").filled, core.order("b").filled) == (0, 1)


def test_amended_order_does_not_see_the_bar_it_was_made_in():
    """A new limit is judged from the time of the change on."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place(core, "a", limit=50, at=START + timedelta(minutes=1))
    core.amend(SYMBOL, "a", START + timedelta(seconds=90), limit_price=Decimal(95))
    assert core.on_bar(make_bar(1, 100, 100, 90, 100)) == []


def test_reduce_only_never_flips():
    """2 to sell, 1 owned by then: 1 is sold, the rest ends, and the position is flat."""
    core = venue(allow_short=True)
    place(core, "entry", quantity=2)
    place(core, "target", side=Side.SELL, limit=110, quantity=2, reduce_only=True)
    place(core, "exit", side=Side.SELL, quantity=1)
    core.on_quote(make_quote(115, 115))
    report = core.order("target")
    assert (report.filled, report.status) == (1, OrderState.CANCELLED)
    assert core.positions() == []


def test_reduce_only_orders_end_with_their_position():
    """A stop of a closed position may not reduce the next one."""
    core = venue(allow_short=True)
    place(core, "entry", quantity=1)
    place(core, "stop", side=Side.SELL, stop=90, reduce_only=True)
    place(core, "exit", side=Side.SELL, quantity=1)
    assert core.order("stop").status is OrderState.CANCELLED
    place(core, "entry 2", quantity=1)
    assert core.on_quote(make_quote(80, 80)) == []


def test_reduce_only_fok_is_all_or_nothing():
    """A FOK that the position cannot satisfy ends without a fill."""
    core = venue(allow_short=True)
    place(core, "entry", quantity=1)
    report = place(
        core, "exit", side=Side.SELL, quantity=2, reduce_only=True, time_in_force=TimeInForce.FOK
    )
    assert (report.filled, report.status) == (0, OrderState.EXPIRED)


def test_last_bar_is_remembered_by_timeframe():
    """So that a replay knows where to go on."""
    core = venue()
    bar = make_bar(5, 1, 1, 1, 1)
    core.on_bar(bar)
    assert core.last_bar(SYMBOL, Timeframe.M1) == bar
    assert core.last_bar(SYMBOL, Timeframe.H1) is None


def test_execution_by_decree_reaches_closed_orders_too():
    """A late fill counts although the order is cancelled, changes money and never more than was open."""
    core = venue()
    place(core, "a", limit=90)
    core.cancel(SYMBOL, "a", START)
    core.execute("a", Decimal("0.4"), Decimal(90), START)
    report = core.order("a")
    assert (report.filled, report.status) == (Decimal("0.4"), OrderState.CANCELLED)
    assert core.balances()["USDT"].total == 1_000_000 - 36
    for quantity in ("0.61", "0", "-1"):
        with pytest.raises(InvalidOrderError):
            core.execute("a", Decimal(quantity), Decimal(90), START)
    core.execute("a", Decimal("0.6"), Decimal(90), START)
    assert core.order("a").status is OrderState.CANCELLED


def test_order_can_be_ended_by_decree():
    """With any closed status and a reason."""
    core = venue()
    place(core, "a", limit=90)
    (report,) = core.end("a", OrderState.REJECTED, "no borrow", START)
    assert (report.status, report.reason) == (OrderState.REJECTED, "no borrow")
    with pytest.raises(OrderNotFoundError):
        core.end("a", OrderState.EXPIRED, "", START)


def test_open_orders_and_fills_can_be_asked_by_symbol():
    """All, or those of one symbol."""
    core = venue()
    core.add_instrument(Instrument.default("ETH/USDT"))
    core.set_price("ETH/USDT", Decimal(10))
    place(core, "a", limit=90)
    place(core, "b", symbol="ETH/USDT", limit=9)
    place(core, "c")
    place(core, "d", symbol="ETH/USDT")
    names = lambda found: [each.client_order_id for each in found]  # noqa: E731
    assert names(core.open_orders()) == ["a", "b"]
    assert names(core.open_orders("ETH/USDT")) == ["b"]
    assert names(core.open_orders("XRP/USDT")) == []
    assert names(core.fills_since(START)) == ["c", "d"]
    assert names(core.fills_since(START, SYMBOL)) == ["c"]
    assert names(core.fills_since(START + timedelta(seconds=1))) == []

"""Each rule of `check_order` and its neighbours, at the boundary and beyond it."""

from datetime import UTC, datetime
from decimal import Decimal

import attrs
import pytest

from execkit.model.capabilities import Capabilities
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderRequest, OrderType, Side, TimeInForce
from execkit.risk.checks import (
    check_buying_power,
    check_exposure,
    check_order,
    check_order_size,
    check_position_count,
    check_position_size,
    check_risk_reward,
    check_stop_distance,
    check_stop_loss,
    check_take_profit,
    expected_price,
    largest_quantity,
    reference_price,
    unit_cost,
    worst_price,
)

D = Decimal
QUOTE = Quote("BTC/USDT", D("99.9"), D("100.1"), datetime(2024, 1, 1, tzinfo=UTC))
INSTRUMENT = Instrument.default(
    "BTC/USDT",
    tick_size=D("0.05"),
    lot_size=D("0.01"),
    min_quantity=D("0.1"),
    max_quantity=D(50),
    market_max_quantity=D(20),
    min_notional=D(50),
    max_notional=D(4000),
)


@attrs.define
class Terms:
    """An order on paper."""

    side: Side = Side.BUY
    type: OrderType = OrderType.MARKET
    quantity: Decimal | None = Decimal(1)
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    symbol: str = "BTC/USDT"


def make_limit(price, quantity=1, **changes):
    return Terms(
        type=OrderType.LIMIT, limit_price=D(price), quantity=quantity and D(quantity), **changes
    )


def check(terms, *, quote=QUOTE, instrument=INSTRUMENT, reduces=False, **capabilities):
    return check_order(
        terms,
        instrument,
        quote,
        Capabilities(**capabilities),
        collar_pct=D(5),
        is_reduction=reduces,
    )


@pytest.mark.parametrize(
    ("terms", "denial"),
    [
        (Terms(), None),
        (Terms(quantity=D("0.5")), None),
        (Terms(quantity=D("0.49")), Denial.of(DenialCode.NOTIONAL_TOO_SMALL, notional="49.049", limit=50)),
        (Terms(quantity=D("0.09")), Denial.of(DenialCode.QUANTITY_TOO_SMALL, quantity="0.09", limit="0.1")),
        (Terms(quantity=D("1.005")), Denial.of(DenialCode.QUANTITY_OFF_LOT, quantity="1.005", lot_size="0.01")),
        (Terms(quantity=D(20)), None),
        (Terms(quantity=D("20.01")), Denial.of(DenialCode.QUANTITY_TOO_LARGE, quantity="20.01", limit=20)),
        (make_limit(100, 40), None),
        (make_limit(100, "40.01"), Denial.of(DenialCode.NOTIONAL_TOO_LARGE, notional=4001, limit=4000)),
        (make_limit(100, "50.01"), Denial.of(DenialCode.QUANTITY_TOO_LARGE, quantity="50.01", limit=50)),
        (make_limit("100.05"), None),
        (make_limit("100.03"), Denial.of(DenialCode.PRICE_OFF_TICK, limit_price="100.03", tick_size="0.05")),
        (make_limit(105), None),
        (make_limit("105.05"), Denial.of(DenialCode.PRICE_OUTSIDE_COLLAR, limit_price="105.05", mid=100, limit_pct=5)),
        (make_limit("94.95"), Denial.of(DenialCode.PRICE_OUTSIDE_COLLAR, limit_price="94.95", mid=100, limit_pct=5)),
        (
            Terms(type=OrderType.STOP_LIMIT, limit_price=D(100), stop_price=D(106)),
            Denial.of(DenialCode.PRICE_OUTSIDE_COLLAR, stop_price=106, mid=100, limit_pct=5),
        ),
        (
            Terms(type=OrderType.STOP, stop_price=D(101), quantity=D("20.01")),
            Denial.of(DenialCode.QUANTITY_TOO_LARGE, quantity="20.01", limit=20),
        ),
        (
            Terms(type=OrderType.STOP, stop_price=D("101.01")),
            Denial.of(DenialCode.PRICE_OFF_TICK, stop_price="101.01", tick_size="0.05"),
        ),
    ],
)  # fmt: skip
def test_venue_rules(terms, denial):
    """The limit itself passes; the denial carries value and limit (half a unit at the ask costs 50.05)."""
    assert check(terms) == denial


@pytest.mark.parametrize("field", ["quantity", "limit_price", "stop_price"])
@pytest.mark.parametrize(
    "value", [D("NaN"), D("sNaN"), D("Infinity"), D(0), D(-1), D("1e15"), D("1e999999"), 1.5, True, 1]
)  # fmt: skip
@pytest.mark.parametrize("reduces", [False, True])
def test_numbers_must_be_legal(field, value, reduces):
    """Not finite, not above zero, absurdly large, not a Decimal: refused for every order (N1-N6, N9, N17)."""
    terms = Terms()
    setattr(terms, field, value)
    denial = check(terms, reduces=reduces)
    limit = "above 0, below 1e15"
    assert denial == Denial.of(DenialCode.NUMBER_INVALID, **{field: str(value)}, limit=limit)


def test_the_first_failing_rule_wins():
    """A price off tick is named before a quantity off lot and a collar."""
    terms = make_limit("200.01", "0.001")
    assert check(terms).code is DenialCode.PRICE_OFF_TICK
    assert check(make_limit(200, "0.001")).code is DenialCode.QUANTITY_TOO_SMALL
    assert check(make_limit(200)).code is DenialCode.PRICE_OUTSIDE_COLLAR


def test_capabilities():
    """What the venue lacks is refused, and what it has is named."""
    few = frozenset({OrderType.LIMIT, OrderType.STOP})
    denial = check(Terms(), order_types=few)
    assert denial == Denial.of(
        DenialCode.ORDER_TYPE_UNSUPPORTED, type="market", supported="limit stop"
    )
    denial = check(
        Terms(time_in_force=TimeInForce.GTD), times_in_force=frozenset({TimeInForce.GTC})
    )
    assert denial == Denial.of(
        DenialCode.ORDER_TYPE_UNSUPPORTED, time_in_force="gtd", supported="gtc"
    )


def test_reductions_skip_the_collar_only():
    """A stop far away is fine; off tick it is not."""
    assert check(make_limit(200), reduces=True) is None
    assert check(make_limit("200.01"), reduces=True).code is DenialCode.PRICE_OFF_TICK
    assert check(Terms(quantity=D("0.01")), reduces=True).code is DenialCode.QUANTITY_TOO_SMALL


def test_without_a_quote():
    """A market order without a quote has no notional; one with a price has."""
    assert check(Terms(quantity=D("0.1")), quote=None, reduces=True) is None
    denial = check(make_limit(100, "0.1"), quote=None, reduces=True)
    assert denial == Denial.of(DenialCode.NOTIONAL_TOO_SMALL, notional=10, limit=50)


def test_an_unsized_order_is_judged_by_its_prices():
    """Before sizing there is no quantity to judge."""
    assert check(Terms(quantity=None)) is None
    assert check(make_limit("94.95", None)).code is DenialCode.PRICE_OUTSIDE_COLLAR


def test_requests_are_terms():
    """The gateway checks the request as it is sent."""
    request = OrderRequest(
        client_order_id="x",
        symbol="BTC/USDT",
        side=Side.SELL,
        type=OrderType.MARKET,
        quantity=D("0.5"),
    )
    denial = check(request)
    assert denial == Denial.of(DenialCode.NOTIONAL_TOO_SMALL, notional="49.95", limit=50)


def test_largest_quantity():
    """Each of the two maxima may be missing."""
    plain, both = Instrument.default("A/B"), INSTRUMENT
    market = Instrument.default("A/B", market_max_quantity=D(7))
    assert largest_quantity(plain, OrderType.MARKET) is None
    assert largest_quantity(market, OrderType.MARKET) == 7
    assert largest_quantity(market, OrderType.LIMIT) is None
    assert largest_quantity(both, OrderType.STOP) == 20
    assert largest_quantity(both, OrderType.STOP_LIMIT) == 50


@pytest.mark.parametrize(
    ("side", "limit", "stop", "reference", "expected", "worst"),
    [
        (Side.BUY, None, None, "100.1", "100", "105.105"),
        (Side.BUY, "97", None, "97", "97", "97"),
        (Side.BUY, "103", None, "103", "100", "103"),
        (Side.BUY, None, "102", "102", "102", "107.1"),
        (Side.BUY, None, "98", "98", "100", "102.9"),
        (Side.BUY, "103", "102", "103", "102", "103"),
        (Side.BUY, "101", "102", "101", "101", "101"),
        (Side.SELL, None, None, "99.9", "100", "100"),
        (Side.SELL, "103", None, "103", "103", "103"),
        (Side.SELL, "97", None, "97", "100", "100"),
        (Side.SELL, None, "98", "98", "98", "102.9"),
        (Side.SELL, None, "90", "90", "90", "100"),
    ],
)
def test_prices_of_an_order(side, limit, stop, reference, expected, worst):
    """What values it, what it is expected to get, and what bounds its notional (bid 99.9, ask 100.1)."""
    terms = Terms(side=side, limit_price=limit and D(limit), stop_price=stop and D(stop))
    assert reference_price(terms, QUOTE) == D(reference)
    assert expected_price(terms, QUOTE.mid) == D(expected)
    assert worst_price(terms, QUOTE, D(5)) == D(worst)
    own = limit or stop
    assert reference_price(terms, None) == (own and D(own))


@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({}, "100"),
        ({"taker_fee": D("0.001")}, "100.1"),
        ({"taker_fee": D("-0.001")}, "100"),
        ({"taker_fee": D("0.001"), "fee_in_base": True}, "100"),
    ],
)
def test_unit_cost(changes, cost):
    """A fee in quote is paid on top; a rebate is not counted on."""
    assert unit_cost(D(100), Instrument.default("A/B", **changes)) == D(cost)


@pytest.mark.parametrize(
    ("denial", "expected"),
    [
        (check_stop_loss(Side.BUY, D(100), D("99.99")), None),
        (check_stop_loss(Side.SELL, D(100), D("100.01")), None),
        (
            check_stop_loss(Side.BUY, D(100), D(-1)),
            Denial.of(DenialCode.STOP_LOSS_WRONG_SIDE, stop_loss=-1, price=100),
        ),
        (check_take_profit(Side.BUY, D(100), D("100.01")), None),
        (check_take_profit(Side.SELL, D(100), D("99.99")), None),
        (
            check_take_profit(Side.SELL, D(100), D(-1)),
            Denial.of(DenialCode.TAKE_PROFIT_WRONG_SIDE, take_profit=-1, price=100),
        ),
        (check_stop_distance(D(100), D(98), D(2)), None),
        (
            check_stop_distance(D(100), D("97.999"), D(2)),
            Denial.of(DenialCode.STOP_TOO_FAR, distance="2.001", limit=2, limit_pct=2),
        ),
        (check_risk_reward(D(100), D(98), D(103), D("1.5")), None),
        (
            check_risk_reward(D(100), D(98), D("102.99999"), D("1.5")),
            Denial.of(DenialCode.RISK_REWARD_TOO_LOW, ratio="1.4999", limit="1.5"),
        ),
        (check_position_count(3, 3), None),
        (
            check_position_count(4, 3),
            Denial.of(DenialCode.TOO_MANY_POSITIONS, positions=4, limit=3),
        ),
        (check_order_size(D(500), D(500)), None),
        (
            check_order_size(D("500.01"), D(500)),
            Denial.of(DenialCode.NOTIONAL_TOO_LARGE, notional="500.01", limit=500),
        ),
        (check_position_size(D(500), D(500)), None),
        (
            check_position_size(D("500.01"), D(500)),
            Denial.of(DenialCode.POSITION_TOO_LARGE, position="500.01", limit=500),
        ),
        (check_exposure(D(500), D(500)), None),
        (
            check_exposure(D("500.01"), D(500)),
            Denial.of(DenialCode.EXPOSURE_TOO_LARGE, exposure="500.01", limit=500),
        ),
        (check_buying_power(D(500), D(500)), None),
        (
            check_buying_power(D("500.01"), D(500)),
            Denial.of(DenialCode.NOT_ENOUGH_BUYING_POWER, cost="500.01", available=500),
        ),
    ],
)
def test_single_rules(denial, expected):
    """Each limit is inclusive, each denial names the value and the limit."""
    assert denial == expected

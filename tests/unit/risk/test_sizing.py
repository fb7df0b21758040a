"""Sizing by hand-computed tables."""

from decimal import Decimal
from fractions import Fraction

import pytest

from execkit.errors import ConfigurationError
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.order import OrderType, Side
from execkit.risk.sizing import (
    FixedNotional,
    FixedQuantity,
    PercentOfEquity,
    RiskPerTrade,
    Room,
    Sizing,
    SizingInputs,
    fit,
)

D = Decimal


def make_inputs(equity="10000", price="250", stop_distance="5"):
    return SizingInputs(
        symbol="A/B",
        side=Side.BUY,
        equity=D(equity),
        price=D(price),
        stop_distance=D(stop_distance),
        strength=D(100),
    )


def make_room(**changes):
    fields = {
        "price": D(250),
        "size_limit": D(500),
        "position": D(0),
        "position_limit": D(1000),
        "exposure": D(0),
        "exposure_limit": D(5000),
        "cost": None,
        "cash": D(0),
    }
    fields |= {name: value and D(value) for name, value in changes.items()}
    return Room(**fields)


@pytest.mark.parametrize(
    ("method", "inputs", "quantity"),
    [
        (PercentOfEquity(), make_inputs(), "0.8"),  # 200 / 250
        (PercentOfEquity(D("0.5")), make_inputs(equity="8000", price="160"), "0.25"),  # 40 / 160
        (PercentOfEquity(D(100)), make_inputs(), "40"),
        (FixedNotional(D(100)), make_inputs(), "0.4"),
        (FixedNotional(D(100)), make_inputs(equity="1"), "0.4"),
        (FixedQuantity(D("0.3")), make_inputs(), "0.3"),
        (RiskPerTrade(), make_inputs(), "20"),  # 100 / 5
        (RiskPerTrade(D("0.25")), make_inputs(stop_distance="12.5"), "2"),  # 25 / 12.5
    ],
)
def test_methods(method, inputs, quantity):
    """Equity x percent / price, notional / price, quantity, equity x percent / stop distance."""
    assert isinstance(method, Sizing)
    assert method.quantity(inputs) == D(quantity)


def test_quotients_are_never_rounded_up():
    """Two thirds end in a six."""
    quantity = FixedNotional(D(2)).quantity(make_inputs(price="3"))
    assert str(quantity).endswith("666")
    assert Fraction(quantity) * 3 < 2


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: PercentOfEquity(D(0)), "pct"),
        (lambda: PercentOfEquity(D(101)), "pct"),
        (lambda: PercentOfEquity(2.0), "pct"),
        (lambda: FixedNotional(D(-1)), "notional"),
        (lambda: FixedQuantity(D("NaN")), "amount"),
        (lambda: RiskPerTrade(D(-1)), "pct"),
        (lambda: RiskPerTrade(True), "pct"),
    ],
)
def test_bad_amounts_are_refused_by_name(make, field):
    """The message begins with the field."""
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        make()


@pytest.mark.parametrize(
    ("wanted", "room", "quantity", "cause"),
    [
        ("1.9999", {}, "1.99", ""),
        ("2", {}, "2", ""),
        ("2.01", {}, "2", "max_size_pct"),
        ("2", {"position": "750"}, "1", "max_position_pct"),
        ("2", {"exposure": "4875"}, "0.5", "max_exposure_pct"),
        ("2", {"position": "900", "exposure": "4999"}, "0", "max_exposure_pct"),
        ("2", {"exposure": "5100"}, "0", "max_exposure_pct"),
        ("2", {"cost": "251", "cash": "502"}, "2", ""),
        ("2", {"cost": "251", "cash": "501.99"}, "1.99", "buying power"),
        ("2", {"cost": "251", "cash": "-1"}, "0", "buying power"),
        ("-1", {}, "0", ""),
    ],
)
def test_fit(wanted, room, quantity, cause):
    """The tightest limit decides, the lot of 0.01 is rounded down, nothing left is zero."""
    instrument = Instrument.default("A/B", lot_size=D("0.01"))
    assert fit(
        D(wanted),
        make_room(**room),
        instrument,
        order_type=OrderType.MARKET,
        reference_price=D(250),
    ) == (D(quantity), cause)


@pytest.mark.parametrize(
    ("rules", "order_type", "quantity", "cause"),
    [
        ({"max_quantity": D("1.5")}, OrderType.LIMIT, "1.5", "the venue's largest quantity"),
        ({"market_max_quantity": D(1)}, OrderType.LIMIT, "2", ""),
        ({"market_max_quantity": D(1)}, OrderType.STOP, "1", "the venue's largest quantity"),
        ({"max_notional": D(260)}, OrderType.LIMIT, "1", "the venue's largest notional"),
        ({"max_notional": D(520)}, OrderType.LIMIT, "2", ""),
    ],
)
def test_fit_to_the_venue(rules, order_type, quantity, cause):
    """The venue's maxima decide too; its notional is taken at the order's own price of 260."""
    instrument = Instrument.default("A/B", lot_size=D("0.01"), **rules)
    result = fit(D(2), make_room(), instrument, order_type=order_type, reference_price=D(260))
    assert result == (D(quantity), cause)


@pytest.mark.parametrize(
    ("quantity", "room", "denial"),
    [
        ("2", {}, None),
        ("2.01", {}, Denial.of(DenialCode.NOTIONAL_TOO_LARGE, notional="502.5", limit=500)),
        ("1", {"position": "750"}, None),
        ("1.01", {"position": "750"}, Denial.of(DenialCode.POSITION_TOO_LARGE, position="1002.5", limit=1000)),
        ("1", {"exposure": "4750"}, None),
        ("1.01", {"exposure": "4750"}, Denial.of(DenialCode.EXPOSURE_TOO_LARGE, exposure="5002.5", limit=5000)),
        ("1", {"cost": "251", "cash": "251"}, None),
        (
            "1.01",
            {"cost": "251", "cash": "251"},
            Denial.of(DenialCode.NOT_ENOUGH_BUYING_POWER, cost="253.51", available=251),
        ),
    ],
)  # fmt: skip
def test_room(quantity, room, denial):
    """Each limit is inclusive."""
    assert make_room(**room).check(D(quantity)) == denial

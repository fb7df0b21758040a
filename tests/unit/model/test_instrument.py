"""Instruments: the venue's rules are sane, and rounding goes the safe way."""

from decimal import Decimal

import pytest

from execkit.errors import ConfigurationError
from execkit.model.instrument import Instrument, check_symbol

D = Decimal


def test_default_rules():
    """Base and quote come from the symbol; a settlement suffix is no part of the quote."""
    spot = Instrument.default("BTC/USDT")
    assert (spot.base, spot.quote) == ("BTC", "USDT")
    assert (spot.tick_size, spot.lot_size) == (D("0.01"), D("0.00001"))
    perpetual = Instrument.default("BTC/USDT:USDT")
    assert (perpetual.base, perpetual.quote) == ("BTC", "USDT")
    share = Instrument.default("AAPL", tick_size=D("0.05"))
    assert (share.base, share.quote, share.tick_size) == ("AAPL", "USD", D("0.05"))
    assert str(spot) == "BTC/USDT (tick 0.01, lot 0.00001)"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("tick_size", [0, -1, D("NaN"), 0.01, None]),
        ("lot_size", [0, -1, D("Infinity"), True]),
        ("min_quantity", [-1, D("NaN")]),
        ("min_notional", [-1, 5.0]),
        ("max_quantity", [0, -1]),
        ("market_max_quantity", [0, D("NaN")]),
        ("max_notional", [0, "lots"]),
        ("list_lot_size", [0, D("NaN")]),
        ("maker_fee", [D(1), D("NaN"), 0.001]),
        ("taker_fee", [D(-1), D("Infinity"), 1]),
        ("symbol", ["", "BTC USDT", "BTC;DROP", 5]),
    ],
)
def test_bad_rules_are_refused_by_name(field, values):
    """A rule that is no number judges no order."""
    for value in values:
        with pytest.raises(ConfigurationError, match=f"^{field}: "):
            Instrument(**({"symbol": "A/B", "base": "A", "quote": "B"} | {field: value}))


def test_rules_are_decimals():
    """Text and integers are exact as well."""
    instrument = Instrument.default("A/B", tick_size="0.5", min_notional=5, max_quantity="1e3")
    assert (instrument.tick_size, instrument.min_notional) == (D("0.5"), D(5))
    assert instrument.max_quantity == 1000
    assert {type(instrument.tick_size), type(instrument.min_notional)} == {Decimal}


def test_a_rebate_is_a_negative_fee():
    """Makers may be paid."""
    assert Instrument.default("A/B", maker_fee=D("-0.0001")).maker_fee == D("-0.0001")


@pytest.mark.parametrize(
    ("price", "down", "up", "nearest"),
    [("10.07", "10.05", "10.10", "10.05"), ("10.10", "10.10", "10.10", "10.10")],
)
def test_rounding_of_prices(price, down, up, nearest):
    """To ticks of 0.05, each way (N10)."""
    instrument = Instrument.default("A/B", tick_size=D("0.05"))
    assert instrument.round_price_down(D(price)) == D(down)
    assert instrument.round_price_up(D(price)) == D(up)
    assert instrument.round_price(D(price)) == D(nearest)
    assert instrument.on_tick(D(price)) is (down == up)


def test_rounding_of_quantities():
    """Never more than asked."""
    instrument = Instrument.default("A/B", lot_size=D("0.3"))
    assert instrument.round_quantity(D("1.19")) == D("0.9")
    assert instrument.on_lot(D("0.9"))
    assert not instrument.on_lot(D(1))


@pytest.mark.parametrize(
    ("rules", "price", "least"),
    [
        ({}, 100, "0.1"),
        ({"min_quantity": D("0.25")}, 100, "0.3"),
        ({"min_notional": D(50)}, 100, "0.5"),
        ({"min_notional": D(51)}, 100, "0.6"),
        ({"min_notional": D(5), "min_quantity": D(2)}, 100, "2"),
    ],
)
def test_smallest_quantity(rules, price, least):
    """Lot, minimum and notional at a price, rounded up to the lot of 0.1."""
    instrument = Instrument.default("A/B", lot_size=D("0.1"), **rules)
    quantity = instrument.smallest_quantity(D(price))
    assert quantity == D(least)
    assert quantity * price >= instrument.min_notional


def test_the_smallest_quantity_of_any_value():
    """Where an order may be worth as little as it likes only lot and minimum count."""
    instrument = Instrument.default("A/B", lot_size=D("0.1"), min_notional=D(51))
    assert instrument.smallest_quantity(None) == D("0.1")
    more = Instrument.default("A/B", lot_size=D("0.1"), min_quantity=D("0.25"), min_notional=D(51))
    assert more.smallest_quantity(None) == D("0.3")


@pytest.mark.parametrize("symbol", ["BTC/USDT", "AAPL", "BRK.B", "BTC/USDT:USDT-240628", "a_b"])
def test_plausible_symbols(symbol):
    """ASCII letters, digits and / : . _ - only."""
    assert check_symbol("symbol", symbol) == symbol


@pytest.mark.parametrize(
    "symbol", ["A B", "A\x00", "\u0410/B", "A'", "A%20", "x" * 41, "", None, 7]
)
def test_implausible_symbols(symbol):
    """A symbol travels into URLs, SQL and file names (S7)."""
    with pytest.raises(ConfigurationError, match=r"^symbol: "):
        check_symbol("symbol", symbol)

"""What a venue has beside what we have, where it shows assets and not positions."""

from decimal import Decimal

import pytest

from execkit.orders.holdings import differences, of_one_asset

USDT, USDC, EUR, ETH = "BTC/USDT", "BTC/USDC", "BTC/EUR", "ETH/USDT"

CASES = {
    "nothing": ({}, {}, {}),
    "the same under another name": ({USDC: "1"}, {USDT: "1"}, {}),
    "two of ours are one of theirs": ({EUR: "1.5"}, {USDT: "1", USDC: "0.5"}, {}),
    "more than ours": ({USDC: "1.2"}, {USDT: "1"}, {USDT: "0.2"}),
    "more than two of ours": ({EUR: "2"}, {USDT: "0.5", USDC: "1"}, {USDC: "0.5"}),
    "less than ours": ({USDC: "0.4"}, {USDT: "1"}, {USDT: "-0.6"}),
    "less than two of ours": ({EUR: "0.2"}, {USDT: "1", USDC: "0.5"}, {USDT: "-0.8", USDC: "-0.5"}),
    "gone": ({}, {USDT: "1"}, {USDT: "-1"}),
    "not ours": ({USDC: "1"}, {}, {USDC: "1"}),
    "another asset": ({ETH: "1"}, {USDT: "1"}, {ETH: "1", USDT: "-1"}),
    "two names of theirs": ({USDC: "0.5", EUR: "0.5"}, {USDT: "1"}, {}),
    "a stock that is called like a coin": (
        {"BTC": "100", USDC: "1"},
        {USDT: "1"},
        {"BTC": "100"},
    ),
    "both of them ours": (
        {"BTC": "90", USDC: "1"},
        {"BTC": "100", USDT: "2"},
        {"BTC": "-10", USDT: "-1"},
    ),
    "short": ({"AAPL": "-3"}, {"AAPL": "-1"}, {"AAPL": "-2"}),
    "turned around": ({"AAPL": "-3"}, {"AAPL": "1"}, {"AAPL": "-4"}),
}


def numbers(of):
    return {symbol: Decimal(quantity) for symbol, quantity in of.items()}


@pytest.mark.parametrize(("theirs", "ours", "wanted"), CASES.values(), ids=CASES)
def test_by_asset(theirs, ours, wanted):
    """Ours keep their names, none is taken below zero, and the rest is what the venue has more or less."""
    assert differences(numbers(theirs), numbers(ours), by_asset=True) == numbers(wanted)


def test_by_symbol():
    """A venue that keeps positions is believed by symbol."""
    found = differences(numbers({USDC: "1"}), numbers({USDT: "1"}), by_asset=False)
    assert found == numbers({USDC: "1", USDT: "-1"})


@pytest.mark.parametrize(("by_asset", "wanted"), [(True, {USDT, USDC}), (False, {USDT})])
def test_whose_orders_may_explain_it(by_asset, wanted):
    """An order in any market of an asset changes what is held of it."""
    assert of_one_asset(USDT, [USDC, ETH], by_asset=by_asset) == wanted

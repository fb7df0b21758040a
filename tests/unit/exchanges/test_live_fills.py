"""Matching against quotes and trades."""

from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.exchanges.matching import MatchingCore
from execkit.model.instrument import Instrument
from execkit.model.market import Trade
from execkit.model.order import Fill, OrderState, Side, TimeInForce
from execkit.testing.factories import START, SYMBOL, make_bar, make_quote, make_request


def venue(*, allow_short=True, spread_bps="0", **rules):
    rules = {"lot_size": Decimal("0.001")} | rules
    return MatchingCore(
        {"USDT": Decimal(1_000_000)},
        instruments=[Instrument.default(SYMBOL, **rules)],
        allow_short=allow_short,
        spread_bps=Decimal(spread_bps),
    )


def quoted(bid=99, ask=101, **sizes):
    core = venue()
    core.on_quote(make_quote(bid, ask, **sizes))
    return core


def executions(updates):
    return [
        (str(u.quantity), str(u.price), "M" if u.maker else "T")
        for u in updates
        if isinstance(u, Fill)
    ]


def trade(core, price, quantity=1000, seconds=1):
    at = START + timedelta(seconds=seconds)
    return core.on_trade(Trade(SYMBOL, Decimal(price), Decimal(quantity), at))


@pytest.mark.parametrize(("side", "price"), [(Side.BUY, "101"), (Side.SELL, "99")])
def test_market_order_takes_the_touch_at_once(side, price):
    """A buy pays the ask, a sell gets the bid, before the call returns."""
    assert executions(quoted().place(make_request(side=side), START)) == [("1", price, "T")]


def test_market_order_takes_no_more_than_the_touch_holds():
    """0.4 are offered: the rest waits for the next quote, and the same quote cannot be taken twice."""
    core = quoted(ask_size="0.4")
    assert executions(core.place(make_request("a"), START)) == [("0.400", "101", "T")]
    assert executions(core.place(make_request("b"), START)) == []
    updates = core.on_quote(make_quote(99, 102, ask_size="0.7"))
    assert executions(updates) == [("0.600", "102", "T"), ("0.100", "102", "T")]


def test_sized_bid_serves_sellers():
    """The bid's size bounds sells as the ask's bounds buys."""
    core = quoted(bid_size="0.4")
    updates = core.place(make_request(side=Side.SELL), START)
    assert executions(updates) == [("0.400", "99", "T")]
    assert core.quote(SYMBOL).bid_size == 0


@pytest.mark.parametrize(
    ("side", "limit", "expected"),
    [
        (Side.BUY, 101, [("1", "101", "T")]),
        (Side.BUY, 105, [("1", "101", "T")]),
        (Side.BUY, "100.99", []),
        (Side.SELL, 99, [("1", "99", "T")]),
        (Side.SELL, "99.01", []),
    ],
)
def test_limit_that_crosses_takes_the_touch(side, limit, expected):
    """A marketable limit pays the touch, not its limit; others rest."""
    updates = quoted().place(make_request(side=side, limit=limit), START)
    assert executions(updates) == expected


def test_resting_limit_is_met_at_its_own_price():
    """The ask falls to 95 through a bid at 98: the maker pays 98, no better."""
    core = quoted()
    core.place(make_request(limit=98), START)
    assert executions(core.on_quote(make_quote(94, 95))) == [("1", "98", "M")]


@pytest.mark.parametrize(
    ("side", "stop", "quote", "expected"),
    [
        (Side.SELL, 95, make_quote(95, 97), [("1", "95", "T")]),
        (Side.SELL, 95, make_quote("95.01", 97), []),
        (Side.BUY, 105, make_quote(103, 105), [("1", "105", "T")]),
        (Side.BUY, 105, make_quote(103, "104.99"), []),
        # a last price decides, where there is one
        (Side.SELL, 95, make_quote(94, 97, last=96), []),
        (Side.SELL, 95, make_quote(96, 97, last=95), [("1", "96", "T")]),
    ],
)
def test_stop_triggers_on_last_or_else_on_the_touch(side, stop, quote, expected):
    """A triggered stop takes the touch, whatever its stop price was."""
    core = quoted()
    assert executions(core.place(make_request(side=side, stop=stop), START)) == []
    assert executions(core.on_quote(quote)) == expected


def test_stop_that_is_past_already_triggers_at_once():
    """A sell stop at 99.5 with a bid of 99 sells now."""
    updates = quoted().place(make_request(side=Side.SELL, stop="99.5"), START)
    assert executions(updates) == [("1", "99", "T")]


def test_triggered_stop_limit_rests_at_its_limit():
    """Triggered at a bid of 94 below its limit of 95, it waits until somebody pays 95."""
    core = quoted()
    core.place(make_request(side=Side.SELL, stop=96, limit=95), START)
    assert core.on_quote(make_quote(94, 95)) == []
    assert executions(core.on_quote(make_quote(96, 97))) == [("1", "95", "M")]


@pytest.mark.parametrize(
    ("time_in_force", "size", "filled", "status"),
    [
        (TimeInForce.IOC, "0.4", "0.4", OrderState.EXPIRED),
        (TimeInForce.IOC, None, "1", OrderState.FILLED),
        (TimeInForce.FOK, "0.4", "0", OrderState.EXPIRED),
        (TimeInForce.FOK, None, "1", OrderState.FILLED),
    ],
)
def test_immediate_orders_end_at_once(time_in_force, size, filled, status):
    """IOC keeps its part, FOK wants all; neither rests."""
    core = quoted(ask_size=size)
    core.place(make_request(limit=101, time_in_force=time_in_force), START)
    report = core.order("order-1")
    assert (report.filled, report.status) == (Decimal(filled), status)
    assert core.open_orders() == []
    assert core.balances()["USDT"].locked == 0


def test_trade_through_a_limit_fills_it():
    """At 98 nothing is proven, at 97.99 it is; no more than was traded, oldest order first."""
    core = quoted()
    core.place(make_request("a", limit=98), START)
    core.place(make_request("b", limit=98), START)
    assert executions(trade(core, 98)) == []
    assert executions(trade(core, "97.99", "1.5")) == [("1", "98", "M"), ("0.500", "98", "M")]


def test_trades_alone_make_a_market():
    """With trades only, a market order pays the last price and half the spread: 100 * 1.001 = 100.1."""
    core = venue(spread_bps="20")
    trade(core, 100)
    assert executions(core.place(make_request(), START)) == [("1", "100.10", "T")]
    assert (core.quote(SYMBOL).bid, core.quote(SYMBOL).last) == (Decimal("99.90"), 100)


def test_trade_triggers_stops_and_market_orders_from_bar_time():
    """An order that waits for the next bar takes the first live price instead."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    core.place(make_request("market"), START + timedelta(minutes=1))
    core.place(make_request("stop", side=Side.SELL, stop=95), START + timedelta(minutes=1))
    assert executions(trade(core, 94, seconds=61)) == [("1", "94", "T"), ("1", "94", "T")]


def test_trade_moves_the_last_price_of_a_quoted_market():
    """Bid and ask stay, the last price changes, and stops look at it."""
    core = quoted()
    core.place(make_request(side=Side.SELL, stop=95), START)
    assert executions(trade(core, 95)) == [("1", "99", "T")]


def test_closed_market_executes_nothing():
    """While halted, prices move and orders stand still; afterwards they are matched again."""
    core = quoted()
    core.place(make_request("a", limit=98), START)
    core.set_halted(SYMBOL, halted=True)
    assert core.on_quote(make_quote(90, 91)) == []
    assert trade(core, 89) == []
    core.on_bar(make_bar(5, 90, 90, 80, 90))
    assert core.order("a").filled == 0
    core.set_halted(SYMBOL, halted=False)
    assert executions(core.on_quote(make_quote(90, 91, seconds=400))) == [("1", "98", "M")]


def test_first_price_is_a_market_of_its_own():
    """A price that was only set is live until something real comes."""
    core = venue()
    core.set_price(SYMBOL, Decimal(100))
    assert executions(core.place(make_request("a"), START)) == [("1", "100", "T")]
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    assert executions(core.place(make_request("b"), START)) == []

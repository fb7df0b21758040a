"""The bar fill model, each rule with figures worked out by hand."""

from decimal import Decimal

import pytest

from execkit.exchanges.matching import MatchingCore
from execkit.model.instrument import Instrument
from execkit.model.market import Timeframe
from execkit.model.order import Fill, OrderReport, OrderState, Side, TimeInForce
from execkit.testing.factories import START, SYMBOL, make_bar, make_quote, make_request

MINUTE = Timeframe.M1.duration


def venue(spread_bps="0", *, allow_short=True, cash=1_000_000, **rules):
    rules = {"tick_size": Decimal("0.01"), "lot_size": Decimal("0.001")} | rules
    return MatchingCore(
        {"USDT": Decimal(cash)},
        instruments=[Instrument.default(SYMBOL, **rules)],
        spread_bps=Decimal(spread_bps),
        allow_short=allow_short,
    )


def executions(updates):
    """List quantity, price and minute after START of each fill, with M for makers and T for takers."""
    return [
        (str(u.quantity), str(u.price), (u.at - START) / MINUTE, "M" if u.maker else "T")
        for u in updates
        if isinstance(u, Fill)
    ]


def place_at(core, minute, *args, **kwargs):
    return core.place(make_request(*args, **kwargs), START + minute * MINUTE)


def test_order_made_on_a_close_fills_at_the_next_open_plus_half_the_spread():
    """Close of minute 1 at 102; the next open is 103: a 20 bps spread makes it 103 * 1.001 = 103.103, so 103.11."""
    core = venue("20")
    core.on_bar(make_bar(0, 100, 105, 95, 102))
    (report,) = place_at(core, 1)
    assert report.status is OrderState.ACCEPTED
    assert executions(core.on_bar(make_bar(1, 103, 104, 101, 104))) == [("1", "103.11", 1.0, "T")]


def test_seller_gets_the_next_open_less_half_the_spread():
    """103 * 0.999 = 102.897, rounded against the seller to 102.89."""
    core = venue("20")
    core.on_bar(make_bar(0, 100, 105, 95, 102))
    place_at(core, 1, side=Side.SELL)
    assert executions(core.on_bar(make_bar(1, 103, 104, 101, 104))) == [("1", "102.89", 1.0, "T")]


def test_order_never_sees_the_bar_that_closed_before_it():
    """A market order made after a bar has no price to fill at, however that bar looked."""
    core = venue()
    core.on_bar(make_bar(0, 100, 105, 95, 102))
    assert executions(place_at(core, 1)) == []


def test_order_made_inside_a_bar_sees_only_its_close():
    """Made 30 s into the bar: not its open 103, not its low 90, only its close 104."""
    core = venue()
    core.on_bar(make_bar(0, 100, 105, 95, 102))
    place_at(core, 1.5)
    place_at(core, 1.5, "limit", limit=95)
    assert executions(core.on_bar(make_bar(1, 103, 106, 90, 104))) == [("1", "104", 2.0, "T")]


def test_order_made_after_a_bar_ended_is_not_filled_by_it():
    """A bar that is delivered late fills nothing that was placed after it."""
    core = venue()
    place_at(core, 3, limit=200)
    assert executions(core.on_bar(make_bar(1, 103, 106, 90, 104))) == []


@pytest.mark.parametrize(
    ("side", "stop", "bar", "price", "minute"),
    [
        # touched inside the bar: the stop price
        (Side.SELL, 95, (100, 101, 94, 96), "95", 2.0),
        (Side.SELL, 95, (100, 101, 95, 96), "95", 2.0),
        (Side.BUY, 105, (100, 106, 99, 104), "105", 2.0),
        # gapped: the open, which is worse than the stop
        (Side.SELL, 95, (93, 99, 90, 98), "93", 1.0),
        (Side.BUY, 105, (107, 110, 106, 108), "107", 1.0),
    ],
)
def test_stop_fills_at_its_price_or_at_the_open_when_gapped(side, stop, bar, price, minute):
    """A stop that the bar touches fills at the stop; one that the open jumped over fills at the open."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=side, stop=stop)
    assert executions(core.on_bar(make_bar(1, *bar))) == [("1", price, minute, "T")]


def test_stop_that_is_not_reached_rests():
    """A low of 95.01 leaves a sell stop at 95 alone."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=Side.SELL, stop=95)
    assert core.on_bar(make_bar(1, 100, 101, "95.01", 96)) == []


@pytest.mark.parametrize(
    ("bar", "price"),
    [
        ((100, 101, 94, 96), "94.81"),  # 95 * 0.998 = 94.81
        ((93, 99, 90, 98), "92.81"),  # 93 * 0.998 = 92.814
    ],
)
def test_stop_pays_half_the_spread(bar, price):
    """A triggered stop is a market order: 40 bps spread, so 20 bps below the stop or the open."""
    core = venue("40")
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=Side.SELL, stop=95)
    assert executions(core.on_bar(make_bar(1, *bar)))[0][1] == price


def test_stop_comes_before_target_in_one_bar():
    """Both 95 and 105 lie in the bar: the stop is taken, and the target's position is gone."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, "entry")
    core.on_bar(make_bar(1, 100, 101, 99, 100))
    place_at(core, 2, "target", side=Side.SELL, limit=105, reduce_only=True)
    place_at(core, 2, "stop", side=Side.SELL, stop=95, reduce_only=True)
    updates = core.on_bar(make_bar(2, 100, 110, 90, 100))
    assert executions(updates) == [("1", "95", 3.0, "T")]
    assert core.order("stop").status is OrderState.FILLED
    assert core.order("target").status is OrderState.CANCELLED


def test_target_at_the_open_comes_before_a_stop_inside_the_bar():
    """An open of 106 fills the target at 106 for certain; the low of 90 came later."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, "entry")
    core.on_bar(make_bar(1, 100, 101, 99, 100))
    place_at(core, 2, "target", side=Side.SELL, limit=105, reduce_only=True)
    place_at(core, 2, "stop", side=Side.SELL, stop=95, reduce_only=True)
    core.on_bar(make_bar(2, 100, 101, 99, 100))
    assert executions(core.on_bar(make_bar(3, 106, 110, 90, 100))) == [("1", "106", 3.0, "M")]
    assert core.order("stop").status is OrderState.CANCELLED


@pytest.mark.parametrize(
    ("side", "limit", "bar", "expected"),
    [
        (Side.BUY, 95, (100, 101, 95, 96), []),  # touched only
        (Side.BUY, 95, (100, 101, "94.99", 96), [("1", "95", 3.0, "M")]),
        (Side.BUY, 95, (93, 99, 92, 98), [("1", "93", 2.0, "M")]),  # gapped
        (Side.SELL, 105, (100, 105, 99, 101), []),
        (Side.SELL, 105, (100, "105.01", 99, 101), [("1", "105", 3.0, "M")]),
        (Side.SELL, 105, (107, 108, 106, 107), [("1", "107", 2.0, "M")]),
    ],
)
def test_resting_limit_fills_only_when_traded_through(side, limit, bar, expected):
    """At the limit when the bar trades through it, at the open when that gaps through, never when only touched."""
    core = venue("20")
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=side, limit=limit)
    assert core.on_bar(make_bar(1, 100, 101, 99, 100)) == []
    assert executions(core.on_bar(make_bar(2, *bar))) == expected


def test_new_limit_that_is_marketable_takes_the_open():
    """Limit 104 against an open of 103: the open plus half the spread, 103 * 1.001 = 103.103, so 103.11."""
    core = venue("20")
    core.on_bar(make_bar(0, 100, 105, 95, 102))
    place_at(core, 1, limit=104)
    assert executions(core.on_bar(make_bar(1, 103, 104, 101, 104))) == [("1", "103.11", 1.0, "T")]


def test_new_limit_inside_the_spread_rests_and_fills_at_its_price():
    """Limit 103.05 is below the ask of 103.11 at the open, and the bar trades through it."""
    core = venue("20")
    core.on_bar(make_bar(0, 100, 105, 95, 102))
    place_at(core, 1, limit="103.05")
    assert executions(core.on_bar(make_bar(1, 103, 104, 101, 104))) == [("1", "103.05", 2.0, "M")]


def test_stop_limit_fills_at_the_stop_when_the_limit_allows():
    """Sell stop 95, limit 94: triggered inside the bar, filled at 95."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=Side.SELL, stop=95, limit=94)
    assert executions(core.on_bar(make_bar(1, 100, 101, 92, 93))) == [("1", "95", 2.0, "T")]


def test_stop_limit_gapped_over_becomes_a_resting_limit():
    """Sell stop 95, limit 94, open 90: triggered at the open; filled at 94 only when the bar trades above it."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=Side.SELL, stop=95, limit=94)
    assert core.on_bar(make_bar(1, 90, 94, 88, 92)) == []
    assert executions(core.on_bar(make_bar(2, 92, 95, 91, 93))) == [("1", "94", 3.0, "M")]


def test_stop_limit_whose_limit_forbids_the_stop_price_waits():
    """Sell stop 95, limit 95, spread: 94.9 is below the limit, and what came after the stop is not known."""
    core = venue("20")
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=Side.SELL, stop=95, limit=95)
    assert core.on_bar(make_bar(1, 100, 101, 92, 93)) == []
    assert executions(core.on_bar(make_bar(2, 94, 96, 94, 95))) == [("1", "95", 3.0, "M")]


def test_volume_is_capped_at_a_tenth_of_the_bar():
    """Volume 25: 2.5 of the 4 fill in the first bar, the rest at the next open."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, quantity=4)
    updates = core.on_bar(make_bar(1, 101, 102, 100, 101, volume=25))
    assert executions(updates) == [("2.500", "101", 1.0, "T")]
    assert core.order("order-1").status is OrderState.PARTIALLY_FILLED
    updates = core.on_bar(make_bar(2, 103, 104, 102, 103, volume=25))
    assert executions(updates) == [("1.500", "103", 2.0, "T")]
    assert core.order("order-1").average_price == Decimal("101.75")  # (2.5 * 101 + 1.5 * 103) / 4


def test_volume_cap_is_shared_by_all_orders_and_rounded_down_to_lots():
    """Volume 10.019 allows 1.0019, so 1.001 in lots: 0.7 for the first order leaves 0.301 for the second."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, "first", quantity="0.7")
    place_at(core, 1, "second", quantity="0.7")
    updates = core.on_bar(make_bar(1, 101, 102, 100, 101, volume="10.019"))
    assert [e[0] for e in executions(updates)] == ["0.7", "0.301"]


def test_bar_without_volume_fills_nothing():
    """Where nobody traded, nor could we."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1)
    assert core.on_bar(make_bar(1, 100, 100, 100, 100, volume=0)) == []


@pytest.mark.parametrize(
    ("time_in_force", "volume", "filled", "status"),
    [
        (TimeInForce.IOC, 25, "2.500", OrderState.EXPIRED),
        (TimeInForce.IOC, 1000, "4", OrderState.FILLED),
        (TimeInForce.FOK, 25, "0", OrderState.EXPIRED),
        (TimeInForce.FOK, 1000, "4", OrderState.FILLED),
    ],
)
def test_immediate_orders_take_the_next_open_or_end(time_in_force, volume, filled, status):
    """IOC fills what the open allows, FOK all or nothing; neither sees what comes after the open."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, quantity=4, limit=101, time_in_force=time_in_force)
    core.on_bar(make_bar(1, 101, 102, 90, 101, volume=volume))
    report = core.order("order-1")
    assert (str(report.filled), report.status) == (filled, status)


def test_ioc_stop_waits_for_its_stop():
    """Immediate begins with the trigger."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=Side.SELL, stop=95, quantity=4, time_in_force=TimeInForce.IOC)
    assert core.on_bar(make_bar(1, 100, 101, 99, 100)) == []
    core.on_bar(make_bar(2, 100, 101, 94, 95, volume=25))
    report = core.order("order-1")
    assert (report.filled, report.status) == (Decimal("2.5"), OrderState.EXPIRED)


def test_triggered_stop_goes_on_as_a_market_order():
    """What the volume cap left of a stop fills at the next open, wherever that is."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, side=Side.SELL, stop=95, quantity=4)
    core.on_bar(make_bar(1, 100, 101, 94, 95, volume=25))
    assert executions(core.on_bar(make_bar(2, 99, 100, 98, 99))) == [("1.500", "99", 2.0, "T")]


def test_bar_that_is_not_newer_is_ignored():
    """The same bar again, or an older one, changes nothing."""
    core = venue()
    core.on_bar(make_bar(1, 100, 100, 100, 100))
    place_at(core, 2)
    assert core.on_bar(make_bar(1, 90, 90, 90, 90)) == []
    assert core.on_bar(make_bar(0, 90, 90, 90, 90)) == []
    assert core.quote(SYMBOL).last == 100


def test_time_is_matched_once():
    """A five-minute bar over minutes that were matched one by one fills nothing, nor does one after quotes."""
    core = venue()
    for minute in range(5):
        core.on_bar(make_bar(minute, 100, 100, 100, 100))
    place_at(core, 2, limit=95)
    assert core.on_bar(make_bar(0, 100, 100, 90, 100, timeframe=Timeframe.M5)) == []
    core.on_quote(make_quote(99, 101, seconds=330))
    assert core.on_bar(make_bar(5, 100, 100, 90, 100)) == []
    assert executions(core.on_bar(make_bar(6, 100, 100, 90, 100))) == [("1", "95", 7.0, "M")]


def test_fill_at_an_open_is_found_by_the_time_it_became_known():
    """A query since the close finds the fill dated at the open: it was not known before."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1)
    core.on_bar(make_bar(1, 101, 102, 100, 101))
    (fill,) = core.fills_since(START + 2 * MINUTE)
    assert fill.at == START + MINUTE
    assert core.fills_since(START + 2.1 * MINUTE) == []


def test_market_buy_is_cut_to_the_money_when_the_open_ran_away():
    """1000 USDT bought 10 at 100; at 125 they buy 8, and the order ends."""
    core = venue(allow_short=False, cash=1000)
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, quantity=10)
    assert executions(core.on_bar(make_bar(1, 125, 125, 125, 125))) == [("8.000", "125", 1.0, "T")]
    report = core.order("order-1")
    assert report.status is OrderState.CANCELLED
    assert report.reason.startswith("insufficient balance")
    assert core.balances()["USDT"].total == 0


def test_partial_fill_above_the_estimate_leaves_nothing_negative():
    """5 of 10 fill at 120 instead of 100: 600 of 1000 are gone, and the rest holds no more than 400."""
    core = venue(allow_short=False, cash=1000)
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, quantity=10)
    core.on_bar(make_bar(1, 120, 120, 120, 120, volume=50))
    usdt = core.balances()["USDT"]
    assert (usdt.total, usdt.free, usdt.locked) == (400, 0, 400)


def test_stop_buy_pays_what_the_gap_asks():
    """Fees are of the true notional: 1 at 110 with 0.1 % is 0.11."""
    core = venue(taker_fee=Decimal("0.001"), allow_short=False, cash=1000)
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1, stop=105)
    fill = next(u for u in core.on_bar(make_bar(1, 110, 111, 109, 110)) if isinstance(u, Fill))
    assert (fill.price, fill.fee, fill.fee_asset) == (110, Decimal("0.11"), "USDT")


def test_report_follows_each_fill():
    """The stream tells the fill first and then what it made of the order."""
    core = venue()
    core.on_bar(make_bar(0, 100, 100, 100, 100))
    place_at(core, 1)
    fill, report = core.on_bar(make_bar(1, 101, 102, 100, 101))
    assert isinstance(fill, Fill)
    assert isinstance(report, OrderReport)
    assert (report.status, report.filled, report.fills) == (OrderState.FILLED, 1, ())

"""Lists of orders and trailing stops in the matching core."""

from decimal import Decimal

import pytest
from msgspec.structs import replace

from execkit.errors import (
    DuplicateClientOrderIdError,
    InsufficientBalanceError,
    InvalidOrderError,
    OrderNotFoundError,
)
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.snapshots import restore, snapshot
from execkit.model.instrument import Instrument
from execkit.model.order import ListKind, OrderList, OrderReport, OrderState, OrderType, Side
from execkit.testing.factories import START, SYMBOL, make_bar, make_quote, make_request


def venue(**balances):
    core = MatchingCore(
        {name: Decimal(value) for name, value in (balances or {"BTC": 1}).items()},
        instruments=[Instrument.default(SYMBOL, lot_size=Decimal("0.001"))],
    )
    core.on_quote(make_quote(100, 100, last=Decimal(100)))
    return core


def stop(name="stop", side=Side.SELL, price=90, **changes):
    return make_request(name, side=side, stop=price, **changes)


def target(name="target", side=Side.SELL, price=110, **changes):
    return make_request(name, side=side, limit=price, **changes)


def entry(price=95, **changes):
    return target("entry", Side.BUY, price, **changes)


def place(core, kind, *orders):
    return core.place_list(OrderList(list_id="list", kind=kind, orders=orders), START)


def move(core, price):
    return core.on_quote(make_quote(price, price, last=Decimal(price)))


def states(core, *names):
    return [core.order(name).status for name in names]


def test_oco_holds_money_once_and_one_execution_ends_the_other():
    """One coin serves both sells; when the target is executed the stop is cancelled first."""
    core = venue()
    place(core, ListKind.OCO, stop(), target())
    assert core.balances()["BTC"].free == 0
    updates = move(core, 111)
    seen = [(u.client_order_id, u.status) for u in updates if isinstance(u, OrderReport)]
    assert seen == [("stop", OrderState.CANCELLED), ("target", OrderState.FILLED)]
    assert core.balances()["BTC"].total == 0


def test_oco_stop_that_triggers_ends_the_target():
    """The trigger alone is enough, before anything is executed."""
    core = venue()
    limit = make_request("stop", side=Side.SELL, stop=90, limit=89)
    place(core, ListKind.OCO, limit, target())
    move(core, 80)
    assert states(core, "stop", "target") == [OrderState.ACCEPTED, OrderState.CANCELLED]
    assert core.balances()["BTC"].free == 0


def test_oco_partial_execution_ends_the_other():
    """However little of it is executed."""
    core = venue()
    place(core, ListKind.OCO, stop(), target())
    core.execute("target", Decimal("0.4"), Decimal(110), START)
    assert states(core, "stop", "target") == [OrderState.CANCELLED, OrderState.PARTIALLY_FILLED]
    assert core.balances()["BTC"].free == 0


def test_oco_that_loses_a_leg_keeps_its_money():
    """The leg that is left holds what both held before."""
    core = venue()
    place(core, ListKind.OCO, stop(), target())
    for name in ("stop", "target"):
        assert core.balances()["BTC"].free == 0
        core.cancel(SYMBOL, name, START)
    assert core.balances()["BTC"].free == 1


def test_oco_needs_the_money_of_its_dearer_leg():
    """A list that the account cannot pay is refused whole."""
    core = venue(USDT="100")
    legs = (stop(side=Side.BUY, price=110), target(side=Side.BUY, price=90))
    with pytest.raises(InsufficientBalanceError):
        place(core, ListKind.OCO, *legs)
    assert core.open_orders() == []
    core.deposit("USDT", Decimal(10))
    place(core, ListKind.OCO, *legs)
    assert core.balances()["USDT"].free == 0


def test_refused_leg_refuses_the_list():
    """Nothing of a list is taken when one of its orders is wrong."""
    core = venue()
    core.place(target("used"), START)
    with pytest.raises(DuplicateClientOrderIdError):
        place(core, ListKind.OCO, stop(), target("used"))
    with pytest.raises(InvalidOrderError):
        place(core, ListKind.OCO, stop(price="90.001"), target())
    with pytest.raises(OrderNotFoundError):
        core.order("stop")


def test_bracket_goes_live_when_its_entry_is_executed_whole():
    """Half an entry lets nothing in; the other half lets in stop and target as an OCO."""
    core = venue(USDT="1000")
    place(core, ListKind.BRACKET, entry(), stop(), target())
    assert states(core, "stop", "target") == [OrderState.HELD] * 2
    core.execute("entry", Decimal("0.5"), Decimal(95), START)
    assert states(core, "stop", "target") == [OrderState.HELD] * 2
    move(core, 94)
    assert states(core, "entry", "stop", "target") == [
        OrderState.FILLED,
        *[OrderState.ACCEPTED] * 2,
    ]
    move(core, 85)
    assert states(core, "stop", "target") == [OrderState.FILLED, OrderState.CANCELLED]


def test_held_order_sees_no_price():
    """A target that the market has passed while it was held is not executed before its entry."""
    core = venue(USDT="1000")
    place(core, ListKind.OTO, entry(), target(price=105))
    move(core, 120)
    core.on_bar(make_bar(1, 120, 130, 118, 125))
    assert states(core, "entry", "target") == [OrderState.ACCEPTED, OrderState.HELD]


def test_orders_of_an_entry_that_ended_end_too():
    """Also after a part of it was executed."""
    core = venue(USDT="1000")
    place(core, ListKind.BRACKET, entry(), stop(), target())
    core.execute("entry", Decimal("0.5"), Decimal(95), START)
    core.cancel(SYMBOL, "entry", START)
    assert states(core, "stop", "target") == [OrderState.CANCELLED] * 2
    assert core.balances()["BTC"].free == Decimal("0.5")


def test_order_let_in_without_money_is_rejected():
    """The coins that its entry bought were taken away by the fee."""
    core = venue(USDT="1000")
    core.add_instrument(
        Instrument.default(
            SYMBOL, lot_size=Decimal("0.001"), maker_fee=Decimal("0.001"), fee_in_base=True
        )
    )
    place(core, ListKind.OTO, entry(), target())
    move(core, 90)
    assert states(core, "entry", "target") == [OrderState.FILLED, OrderState.REJECTED]


def test_lists_survive_a_snapshot():
    """What belongs together still does after a restart."""
    core = venue(USDT="1000")
    place(core, ListKind.BRACKET, entry(), stop(), target())
    core = restore(snapshot(core))
    move(core, 94)
    core = restore(snapshot(core))
    move(core, 111)
    assert states(core, "stop", "target") == [OrderState.CANCELLED, OrderState.FILLED]


# -- trailing stops ----------------------------------------------------------------------------------


def trailing(side=Side.SELL, **distance):
    distance = {name: Decimal(value) for name, value in distance.items()}
    return replace(make_request("trail", side=side), type=OrderType.TRAILING_STOP, **distance)


@pytest.mark.parametrize(
    ("side", "path", "last"),
    [(Side.SELL, (100, 120, 115), 108), (Side.BUY, (100, 80, 85), 88)],
)
def test_trailing_stop_keeps_its_distance_from_the_best_price(side, path, last):
    """10 % from the best price since it was placed, never wider again, and nothing before that."""
    core = venue(BTC="1", USDT="1000")
    core.place(trailing(side, trail_percent=10), START)
    for price in path:
        move(core, price)
        assert states(core, "trail") == [OrderState.ACCEPTED]
    move(core, last)
    assert core.order("trail").average_price == last


def test_trailing_stop_by_amount():
    """The distance may be an amount in quote units."""
    core = venue()
    core.place(trailing(trail_amount=5), START)
    move(core, 103)
    move(core, "98.01")
    assert states(core, "trail") == [OrderState.ACCEPTED]
    move(core, 98)
    assert states(core, "trail") == [OrderState.FILLED]


def test_trailing_stop_in_a_bar_is_taken_at_its_worst():
    """The low is taken to come before the high; the close, which came last, is held against the new level."""
    core = venue()
    core.place(trailing(trail_amount=5), START)
    core.on_bar(make_bar(1, 100, 110, 96, 108))
    assert states(core, "trail") == [OrderState.ACCEPTED]
    core.on_bar(make_bar(2, 108, 112, 106, 106))
    assert core.order("trail").average_price == 107


@pytest.mark.parametrize(
    "distance", [{}, {"trail_amount": 1, "trail_percent": 1}, {"trail_amount": 0}]
)
def test_trailing_stop_has_one_distance(distance):
    """Neither none, nor two, nor nothing."""
    with pytest.raises(InvalidOrderError):
        venue().place(trailing(**distance), START)

"""Changes of live orders at TWS: what each kind of order takes over, keeps, and refuses before anything is sent."""

from decimal import Decimal

import attrs
import msgspec
import pytest
from tests.support.ibkr import AAPL, on_the_wire, order

from execkit.errors import InvalidOrderError
from execkit.model.order import ListKind, OrderList, OrderState, OrderType, Side
from execkit.testing.venues.faults import Mishap

D = Decimal
MARKET = {"type": OrderType.MARKET}
TRAIL = {"side": Side.SELL, "type": OrderType.TRAILING_STOP}


@pytest.mark.parametrize("trail", [{"trail_amount": D(5)}, {"trail_percent": D("2.5")}])
async def test_a_trailing_stop_keeps_its_distance_and_what_it_has_gained(trail):
    """Its quantity is changed: the distance stays, and the stop stays where the best price has taken it."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order("first", **MARKET))
        request = order("t", **TRAIL, **trail)
        await adapter.place_order(request)
        venue.move_price(AAPL, D(240))
        live = venue.orders.find(request.client_order_id)
        distance, stop = (live.sent.aux, live.sent.trail_percent), live.stop
        report = await adapter.amend_order(
            AAPL, client_order_id=request.client_order_id, quantity=D(6)
        )
        assert (report.quantity, report.stop_price) == (6, stop)
        assert (live.sent.aux, live.sent.trail_percent, live.stop) == (*distance, stop)
        venue.move_price(AAPL, stop)
        assert venue.held(AAPL) == 4


async def test_the_stop_of_a_trailing_stop_is_not_its_distance():
    """A new stop price moves the stop; the amount by which it trails stays what it was."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order("first", **MARKET))
        request = order("t", trail_amount=D(5), **TRAIL)
        await adapter.place_order(request)
        report = await adapter.amend_order(
            AAPL, client_order_id=request.client_order_id, stop_price=D(198)
        )
        live = venue.orders.find(request.client_order_id)
        assert (live.sent.aux, live.stop, report.stop_price) == (5, 198, 198)
        venue.move_price(AAPL, D(198))
        assert venue.held(AAPL) == 0


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        ({}, {"stop_price": D(170)}, "stop_price"),
        (
            {"type": OrderType.STOP, "stop_price": D(220)},
            {"limit_price": D(221)},
            "limit_price",
        ),
        ({}, {"limit_price": D("180.001")}, "tick"),
        ({}, {"quantity": D("1.5")}, "fractions"),
        ({}, {"quantity": D(-1)}, "quantity"),
        ({}, {"limit_price": D("NaN")}, "limit_price"),
    ],
)
async def test_changes_that_never_leave(changes, asked, said):
    """A price that the order does not have, or that cannot be, is refused by name; the order stays as it was."""
    async with on_the_wire() as (venue, adapter):
        request = order(**changes)
        before = await adapter.place_order(request)
        with pytest.raises(InvalidOrderError, match=said):
            await adapter.amend_order(AAPL, client_order_id=request.client_order_id, **asked)
        assert venue.messages[3] == 1
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert msgspec.structs.replace(found, updated_at=before.updated_at) == before


async def test_an_order_of_another_kind_is_left_alone():
    """An order under our client id of a type that execkit does not place cannot be changed by it."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order())
        live = venue.orders.find(order().client_order_id)
        live.sent = attrs.evolve(live.sent, order_type="LIT")
        venue._show(live)
        assert (await adapter.open_orders())[0].status is OrderState.ACCEPTED
        with pytest.raises(InvalidOrderError, match="LIT"):
            await adapter.amend_order(AAPL, client_order_id=live.sent.ref, quantity=D(5))
        assert venue.messages[3] == 1


async def test_a_family_whose_last_leg_is_refused_leaves_nothing_behind():
    """The last message was to transmit all: the legs that wait for it are cancelled, and none is live (A21)."""
    async with on_the_wire() as (venue, adapter):
        legs = (
            order("entry", limit_price=D(195)),
            order("stop", side=Side.SELL, type=OrderType.STOP, stop_price=D(190)),
            order("target", side=Side.SELL, limit_price=D(220)),
        )
        venue.fault("place", Mishap.ERROR, skip=2, code=201, text="Order rejected - reason:no")
        reports = await adapter.place_list(
            OrderList(list_id="xklist", kind=ListKind.BRACKET, orders=legs)
        )
        assert [report.status for report in reports] == [
            OrderState.CANCELLED,
            OrderState.CANCELLED,
            OrderState.REJECTED,
        ]
        assert not [live for live in venue.orders.by_perm.values() if live.is_open]
        assert venue.messages[3] == 3

"""Changes of orders that Alpaca refuses, or that cannot work; and open orders as Alpaca lists them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from tests.support.alpaca import TradingClock, adapter_of, on_the_wire

from execkit.errors import InvalidOrderError, OrderNotFoundError
from execkit.ids import client_order_id
from execkit.model.order import ListKind, OrderList, OrderRequest, OrderState, OrderType, Side

D = Decimal
COUNT = iter(range(1, 100_000))


def order(**changes):
    values = {
        "client_order_id": client_order_id("alpaca", str(next(COUNT)), "change"),
        "symbol": "AAPL",
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "quantity": D(10),
        "limit_price": D(140),
    }
    return OrderRequest(**(values | changes))


def names(request, placed):
    return {"client_order_id": request.client_order_id, "venue_order_id": placed.venue_order_id}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit_price": D("140.005")}, "limit_price: 140.005 is a sub-penny price"),
        ({"limit_price": D("NaN")}, "limit_price: NaN must be a number above zero"),
        ({"limit_price": D(-1)}, "limit_price: -1 must be a number above zero"),
        ({"stop_price": D(130)}, "stop_price: a limit order takes none"),
        ({"quantity": D(0)}, "quantity: 0 must be a number above zero"),
        ({"quantity": D("1.5")}, "no whole number of shares"),
    ],
)
async def test_a_change_that_cannot_work_is_not_sent(change, words):
    """It is refused with field, value and fix, and the order stays as it is."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        placed = await adapter.place_order(request)
        with pytest.raises(InvalidOrderError) as caught:
            await adapter.amend_order("AAPL", **names(request, placed), **change)
        assert words in str(caught.value)
        assert venue.calls("amend") == []


async def test_a_change_that_changes_nothing_is_not_sent():
    """Alpaca refuses it; the order is as was asked."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        placed = await adapter.place_order(request)
        shown = await adapter.amend_order("AAPL", **names(request, placed), limit_price=D(140))
        assert (shown.status, shown.limit_price) == (OrderState.ACCEPTED, D(140))
        assert venue.calls("amend") == []


async def test_an_order_that_waits_for_the_market_cannot_be_changed():
    """Alpaca changes none that is not at the exchange yet; the refusal is definite, and the order lives on."""
    clock = TradingClock(datetime(2024, 3, 12, 22, 0, tzinfo=UTC))
    async with on_the_wire(clock=clock) as (_venue, adapter):
        request = order()
        placed = await adapter.place_order(request)
        with pytest.raises(InvalidOrderError, match="cannot replace order in accepted status") as e:
            await adapter.amend_order("AAPL", **names(request, placed), limit_price=D(141))
        assert e.value.outcome_known
        found = await adapter.get_order("AAPL", **names(request, placed))
        assert (found.status, found.limit_price) == (OrderState.ACCEPTED, D(140))


async def test_a_change_that_comes_too_late_proves_nothing():
    """Of an order that was executed or replaced meanwhile Alpaca refuses it: look before you believe."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        placed = await adapter.place_order(request)
        for text in ("cannot replace order in filled status", "order already replaced"):
            details = {"status": 422, "code": 42210000, "text": text}
            venue.fail_next("amend", "error", **details)
            with pytest.raises(OrderNotFoundError):
                await adapter.amend_order("AAPL", **names(request, placed), limit_price=D(141))


async def test_the_legs_of_a_bracket_are_open_orders_after_its_entry():
    """Alpaca lists the target only where lists are not asked for, and the held stop not at all: both are shown."""
    async with on_the_wire() as (venue, adapter):
        entry = order()
        stop = order(side=Side.SELL, type=OrderType.STOP, limit_price=None, stop_price=D(130))
        target = order(side=Side.SELL, limit_price=D(170))
        lists = OrderList(list_id="l", kind=ListKind.BRACKET, orders=(entry, stop, target))
        await adapter.place_list(lists)
        alone = order(limit_price=D(100))
        await adapter.place_order(alone)
        await venue.fill(entry.client_order_id, D(10))
        expected = {
            stop.client_order_id: OrderState.HELD,
            target.client_order_id: OrderState.ACCEPTED,
            alone.client_order_id: OrderState.ACCEPTED,
        }
        other = adapter_of(venue)
        await other.connect()
        try:
            for each in (adapter, other):
                for symbol in ("AAPL", None):
                    shown = await each.open_orders(symbol)
                    assert {o.client_order_id: o.status for o in shown} == expected
                    assert len(shown) == 3
        finally:
            await other.close()

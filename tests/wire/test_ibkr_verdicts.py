"""Errors that name an order which works: none of them ends it, and what TWS lists as open counts as open."""

import asyncio
from decimal import Decimal

import attrs
import pytest
from tests.support.ibkr import AAPL, Updates, on_the_wire, order

from execkit.errors import InsufficientBalanceError, OrderNotFoundError, OrderStatusUnknownError
from execkit.model.order import Fill, OrderState, OrderType, StreamGap
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws import messages

REFUSALS = [100, 105, 110, 135, 200, 201, 203, 320, 321, 435, 460, 10243]


async def executes(venue, updates, request):
    """Let the market come, and tell whether the stream says that the order was executed."""
    venue.move_price(AAPL, request.limit_price)
    fill = await updates.until(lambda update: isinstance(update, Fill))
    return (fill.client_order_id, fill.quantity) == (request.client_order_id, request.quantity)


async def test_a_code_that_answers_a_cancel_refuses_the_cancel():
    """What would kill a new order answers the cancel of a live one: that lives on, and is executed (C1, C4)."""
    await asyncio.gather(*map(cancel_is_refused, REFUSALS))


async def cancel_is_refused(code):
    async with on_the_wire() as (venue, adapter):
        updates, request = Updates(adapter), order()
        await adapter.place_order(request)
        venue.fault("cancel", Mishap.ERROR, code=code, text="not this one")
        kind = OrderNotFoundError if code == 135 else OrderStatusUnknownError
        with pytest.raises(kind) as caught:
            await adapter.cancel_order(AAPL, client_order_id=request.client_order_id)
        assert caught.value.code == str(code)
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert found.status is OrderState.ACCEPTED
        assert [r.status for r in await adapter.open_orders()] == [OrderState.ACCEPTED]
        assert await executes(venue, updates, request)
        assert not [u for u in updates.seen if getattr(u, "status", None) is OrderState.REJECTED]


async def test_a_refusal_that_comes_after_the_change_gave_up():
    """A change without an answer, refused later: the order itself lives on, and everything is compared (C6)."""
    await asyncio.gather(*map(change_is_refused_late, REFUSALS))


async def change_is_refused_late(code):
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        updates = Updates(adapter)
        venue.fault("place", Mishap.HANG)
        with pytest.raises(OrderStatusUnknownError):
            await adapter.amend_order(
                AAPL, client_order_id=request.client_order_id, limit_price=request.limit_price + 1
            )
        venue._warn(venue.orders.find(request.client_order_id), code, "not like that")
        assert isinstance(await updates.until(lambda _update: True), StreamGap)
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert (found.status, found.limit_price) == (OrderState.ACCEPTED, request.limit_price)
        assert await executes(venue, updates, request)


async def test_an_error_while_change_and_cancel_are_asked_answers_neither_for_sure():
    """It may be about either: neither is told as refused."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        own = request.client_order_id
        await adapter.place_order(request)
        venue.fault("place", Mishap.HANG)
        venue.fault("cancel", Mishap.ERROR, code=201, text="Order rejected - reason:margin")
        changing = asyncio.ensure_future(
            adapter.amend_order(AAPL, client_order_id=own, limit_price=Decimal(181))
        )
        await venue.until(lambda: venue.messages[3] == 2)
        with pytest.raises(OrderStatusUnknownError):
            await adapter.cancel_order(AAPL, client_order_id=own)
        with pytest.raises(OrderStatusUnknownError):
            await changing


async def test_an_order_that_works_is_refused_by_error_and_status_together():
    """A late refusal counts once its status confirms it, and then with its own class and words (A20)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        updates = Updates(adapter)
        live = venue.orders.find(request.client_order_id)
        venue._warn(live, 201, "Order rejected - reason:margin")
        assert isinstance(await updates.until(lambda _update: True), StreamGap)
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert (
            found.status is OrderState.ACCEPTED
        )  # looked up, it works: that error was about something else
        venue._warn(live, 201, "Order rejected - reason:margin")
        venue.orders.end(live, "Inactive")
        ended = await updates.until(lambda u: getattr(u, "status", None) is OrderState.REJECTED)
        assert "margin" in ended.reason
        assert ended.code == "201"


async def test_a_new_order_that_is_shown_and_refused_at_once():
    """Shown as PreSubmitted, then refused and Inactive within one breath: the caller is told the refusal's class."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        show = venue.orders._on_change

        def refuse(shown):
            show(shown)
            venue.orders._on_change = show
            venue._warn(shown, 201, "Order rejected - reason:insufficient margin")
            venue.orders.end(shown, "Inactive")

        venue.orders._on_change = refuse
        with pytest.raises(InsufficientBalanceError) as caught:
            await adapter.place_order(request)
        assert caught.value.outcome_known
        assert await adapter.open_orders() == []


@pytest.mark.parametrize("code", [201, 202])
async def test_what_is_listed_as_open_is_open(code):
    """An order that TWS has called dead and lists as open is shown as open, and can be cancelled (I7)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        if code == 201:
            venue.fault("place", Mishap.HANG, reached=True)
            placing = asyncio.ensure_future(adapter.place_order(request))
            await venue.until(lambda: bool(venue.received))
            live = venue.orders.find(request.client_order_id)
            venue._warn(live, 201, "Order rejected - reason:no")
            with pytest.raises(Exception, match="201"):
                await placing
        else:
            await adapter.place_order(request)
            live = venue.orders.find(request.client_order_id)
            updates = Updates(adapter)
            venue._warn(live, 202, "Order Canceled - reason:")
            await updates.until(lambda u: getattr(u, "status", None) is OrderState.CANCELLED)
        [shown] = await adapter.open_orders()
        assert (shown.client_order_id, shown.status) == (
            request.client_order_id,
            OrderState.ACCEPTED,
        )
        ended = await adapter.cancel_order(
            AAPL, client_order_id=shown.client_order_id, venue_order_id=shown.venue_order_id
        )
        assert ended.status is OrderState.CANCELLED
        assert not live.is_open
        assert await adapter.open_orders() == []


async def test_the_status_of_a_twin_is_not_ours():
    """Two orders under one order id: what is said of the one by its permId is not said of the other (C7)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        one = venue.orders.find(request.client_order_id)
        twin = attrs.evolve(one, perm_id=one.perm_id + 500, status="Cancelled")
        venue.sessions[0].send(messages.order_status(twin))
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert (found.status, found.venue_order_id) == (OrderState.ACCEPTED, str(one.perm_id))


async def test_a_filled_order_stays_filled_whatever_is_listed():
    """Executed whole is the end: a list that still shows it is late (B10)."""
    async with on_the_wire() as (venue, adapter):
        request = order(type=OrderType.MARKET)
        await adapter.place_order(request)
        live = venue.orders.find(request.client_order_id)
        live.status, live.filled = "Submitted", Decimal(0)
        assert await adapter.open_orders() == []
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert (found.status, found.filled) == (OrderState.FILLED, 10)

"""The venue driven by hand."""

import asyncio
from decimal import Decimal

import pytest

from execkit.errors import (
    ExchangeUnavailableError,
    InvalidOrderError,
    MarketClosedError,
    OrderNotFoundError,
    OrderRejectedError,
)
from execkit.model.order import Fill, OrderState
from execkit.testing import mock_venue
from execkit.testing.factories import START, SYMBOL, make_request
from execkit.virtual_time import run_virtual


def virtual(scenario):
    """Run `scenario(venue, desk)` under virtual time."""

    def run():
        async def main(clock):
            await scenario(*mock_venue(prices={SYMBOL: 100}, clock=clock))

        run_virtual(main, start=START)

    run.__name__, run.__doc__ = scenario.__name__, scenario.__doc__
    return run


def send(venue, *args, **kwargs):
    return asyncio.ensure_future(venue.place_order(make_request(*args, **kwargs)))


@virtual
async def test_order_is_answered_when_the_desk_says_so(venue, desk):
    """Received, and only then acknowledged; nothing is executed by that."""
    call = send(venue)
    order = await desk.next_order()
    assert (venue.sends("order-1"), venue.accepted("order-1")) == (1, 0)
    assert not call.done()
    desk.accept(order)
    assert (await call).status is OrderState.ACCEPTED
    assert venue.accepted("order-1") == 1


@virtual
async def test_fill_may_overtake_the_answer(venue, desk):
    """The stream tells the fill while the call still waits."""
    updates = venue.order_updates()
    call = send(venue)
    order = await desk.next_order()
    desk.fill(order, "0.4", 99)
    await anext(updates)
    fill = await anext(updates)
    assert isinstance(fill, Fill)
    assert (fill.quantity, fill.price) == (Decimal("0.4"), 99)
    assert not call.done()
    desk.accept(order)
    assert (await call).filled == Decimal("0.4")
    desk.fill(order)
    assert venue.core.order("order-1").status is OrderState.FILLED


@virtual
async def test_order_is_refused_in_any_words(venue, desk):
    """A text or an error of one's own; an acknowledged order is rejected on the stream."""
    first, second, third = (send(venue, name) for name in ("a", "b", "c"))
    desk.reject(await desk.next_order(), "no margin")
    desk.reject(await desk.next_order(), MarketClosedError("shut"))
    order = await desk.next_order()
    desk.accept(order)
    desk.reject(order, "after all not")
    with pytest.raises(OrderRejectedError, match="no margin"):
        await first
    with pytest.raises(MarketClosedError):
        await second
    assert (await third).status is OrderState.ACCEPTED
    assert venue.core.order("c").status is OrderState.REJECTED
    assert [venue.accepted(name) for name in "abc"] == [0, 0, 1]


@virtual
async def test_fill_and_cancel_race(venue, desk):
    """The order is filled before the cancel is answered: there is nothing left to cancel."""
    call = send(venue)
    order = await desk.next_order()
    desk.accept(order)
    await call
    cancel = asyncio.ensure_future(venue.cancel_order(SYMBOL, client_order_id="order-1"))
    assert await desk.next_cancel() == order
    desk.fill(order)
    desk.refuse_cancel(order)
    with pytest.raises(OrderNotFoundError):
        await cancel
    assert venue.core.order("order-1").status is OrderState.FILLED


@virtual
async def test_cancel_is_answered_when_the_desk_says_so(venue, desk):
    """With the report of the cancelled order, or with any error."""
    for name in ("a", "b"):
        call = send(venue, name, limit=90)
        desk.accept(await desk.next_order())
        await call
    first = asyncio.ensure_future(venue.cancel_order(SYMBOL, client_order_id="a"))
    desk.cancel(await desk.next_cancel())
    assert (await first).status is OrderState.CANCELLED
    second = asyncio.ensure_future(venue.cancel_order(SYMBOL, client_order_id="b"))
    desk.refuse_cancel(await desk.next_cancel(), InvalidOrderError("too late"))
    with pytest.raises(InvalidOrderError):
        await second
    with pytest.raises(OrderNotFoundError):
        await venue.cancel_order(SYMBOL, client_order_id="never")


@virtual
async def test_order_may_end_by_itself(venue, desk):
    """Expired, or cancelled by the venue without anybody asking."""
    for name in ("a", "b"):
        call = send(venue, name, limit=90)
        order = await desk.next_order()
        desk.accept(order)
        await call
        (desk.expire if name == "a" else desk.cancel)(order)
    statuses = [venue.core.order(name).status for name in "ab"]
    assert statuses == [OrderState.EXPIRED, OrderState.CANCELLED]


@virtual
async def test_silent_venue_goes_on_without_a_word(venue, desk):
    """Calls, queries and the stream are silent; the order is executed all the same."""
    updates = venue.order_updates()
    desk.go_silent()
    call = send(venue)
    query = asyncio.ensure_future(venue.get_order(SYMBOL, client_order_id="order-1"))
    order = await desk.next_order()
    desk.accept(order)
    desk.fill(order)
    await asyncio.sleep(60)
    assert not call.done()
    assert not query.done()
    desk.speak()
    await venue.close()
    assert [update async for update in updates] == []
    report = await venue.get_order(SYMBOL, client_order_id="order-1")
    assert report.status is OrderState.FILLED
    for waiting in (call, query):
        waiting.cancel()


@virtual
async def test_answers_that_nobody_waits_for_are_dropped(venue, desk):
    """The caller gave up: accepting the order still makes it true."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await venue.place_order(make_request())
    desk.accept(await desk.next_order())
    assert venue.core.order("order-1").status is OrderState.ACCEPTED


@virtual
async def test_what_the_core_refuses_the_desk_cannot_accept(venue, desk):
    """A desk that tries gets the core's own error."""
    call = send(venue, quantity="0.000001")
    order = await desk.next_order()
    with pytest.raises(InvalidOrderError, match="LOT_SIZE"):
        desk.accept(order)
    desk.reject(order, ExchangeUnavailableError("down"))
    with pytest.raises(ExchangeUnavailableError):
        await call

"""What each error code of TWS becomes, and how many orders the venue has seen and taken then."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.ibkr import AAPL, Updates, on_the_wire, order

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketOrderRefusedError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    QuantityTooLargeError,
    RateLimitError,
)
from execkit.model.order import OrderState, StreamGap
from execkit.testing.venues.faults import Mishap

REFUSALS = [
    (100, "Max rate of messages per second has been exceeded", RateLimitError),
    (105, "Order being modified does not match original order", InvalidOrderError),
    (110, "The price does not conform to the minimum price variation", InvalidOrderError),
    (111, "The TIF (time-in-force) is invalid for this order type", InvalidOrderError),
    (135, "Can't find order with id = 5", InvalidOrderError),
    (200, "No security definition has been found for the request", InvalidOrderError),
    (201, "Order rejected - reason:no such luck", OrderRejectedError),
    (201, "Order rejected - reason:insufficient margin", InsufficientBalanceError),
    (201, "Order rejected - reason:Available Funds are too low", InsufficientBalanceError),
    (201, "Order rejected - reason:size exceeds the maximum order size", QuantityTooLargeError),
    (203, "The security is not available or allowed for this account", OrderRejectedError),
    (320, "Server error when reading an API client request", InvalidOrderError),
    (321, "Server error when validating an API client request", InvalidOrderError),
    (387, "Unsupported order type for this exchange and security type", InvalidOrderError),
    (434, "The order size cannot be zero", InvalidOrderError),
    (435, "You must specify an account", InvalidOrderError),
    (460, "No trading permissions", OrderRejectedError),
    (10243, "Fractional-sized order cannot be placed via API", InvalidOrderError),
    (10289, "You must set Cash Quantity for this order", MarketOrderRefusedError),
]


@pytest.mark.parametrize(("code", "text", "kind"), REFUSALS, ids=lambda value: str(value)[:30])
async def test_definite_refusals(code, text, kind):
    """A code that kills a new order becomes its class with the venue's words; one message was sent, no order made."""
    async with on_the_wire() as (venue, adapter):
        venue.fault("place", Mishap.ERROR, code=code, text=text)
        with pytest.raises(kind) as caught:
            await adapter.place_order(order())
        assert type(caught.value) is kind
        assert caught.value.outcome_known
        assert caught.value.code == str(code)
        assert text in str(caught.value)
        assert (venue.sends(order().client_order_id), venue.taken(order().client_order_id)) == (
            1,
            0,
        )
        with pytest.raises(OrderNotFoundError):
            await adapter.get_order(AAPL, client_order_id=order("other").client_order_id)


AMBIGUOUS = [
    (103, DuplicateClientOrderIdError),
    (104, DuplicateClientOrderIdError),
    (161, OrderStatusUnknownError),
    (504, OrderStatusUnknownError),
    (10147, OrderStatusUnknownError),
    (10148, OrderStatusUnknownError),
    (10149, OrderStatusUnknownError),
    (99999, OrderStatusUnknownError),
]


@pytest.mark.parametrize(("code", "kind"), AMBIGUOUS)
@pytest.mark.parametrize("reached", [True, False])
async def test_ambiguous_codes(code, kind, reached):
    """A code that proves nothing, or that nobody knows, leaves the outcome unknown; the look-up then tells."""
    async with on_the_wire() as (venue, adapter):
        venue.orders.match_at_once = False
        venue.fault("place", Mishap.ERROR, code=code, text="whatever", reached=reached)
        request = order()
        if reached:
            # The order's own news come first and settle it; the error afterwards changes nothing.
            updates = Updates(adapter)
            report = await adapter.place_order(request)
            assert report.status is OrderState.ACCEPTED
            await updates.until(lambda update: isinstance(update, StreamGap))
        else:
            with pytest.raises(kind) as caught:
                await adapter.place_order(request)
            assert not caught.value.outcome_known
        assert venue.sends(request.client_order_id) == 1
        assert venue.taken(request.client_order_id) == int(reached)
        if reached:
            found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
            assert found.status is OrderState.ACCEPTED
        else:
            with pytest.raises(OrderNotFoundError):
                await adapter.get_order(AAPL, client_order_id=request.client_order_id)


WARNINGS = [2100, 2109, 2137, 2199, 10349, 10167, 399, 404]


@pytest.mark.parametrize("code", WARNINGS)
async def test_warnings_leave_the_order_alone(code):
    """A warning that names a live order changes nothing, and the order can still be cancelled (C12)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        live = venue.orders.find(request.client_order_id)
        venue._warn(live, code, "just so you know")
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert found.status is OrderState.ACCEPTED
        assert venue.messages[3] == 1
        cancelled = await adapter.cancel_order(AAPL, client_order_id=request.client_order_id)
        assert cancelled.status is OrderState.CANCELLED


async def test_a_preset_changes_the_time_in_force():
    """10349 answers a new order that is live all the same: it is accepted, and fills (C12)."""
    async with on_the_wire() as (venue, adapter):
        venue.orders.preset_day = True
        report = await adapter.place_order(order())
        assert report.status is OrderState.ACCEPTED
        venue.move_price(AAPL, order().limit_price)
        found = await adapter.get_order(AAPL, client_order_id=order().client_order_id)
        assert found.status is OrderState.FILLED


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (161, OrderStatusUnknownError),
        (10147, OrderNotFoundError),
        (10148, OrderNotFoundError),
        (10149, OrderStatusUnknownError),
    ],
)
async def test_errors_of_a_cancel_prove_nothing(code, kind):
    """A refused cancel never makes an order cancelled: it is still live, and filled when the market comes (C1)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        venue.fault("cancel", Mishap.ERROR, code=code, text="not now")
        with pytest.raises(kind):
            await adapter.cancel_order(AAPL, client_order_id=request.client_order_id)
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert found.status is OrderState.ACCEPTED
        venue.move_price(AAPL, request.limit_price)
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert found.status is OrderState.FILLED


async def test_terminal_202_counts_what_was_filled():
    """202 ends an order; what was executed before still counts."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        live = venue.orders.find(request.client_order_id)
        venue.orders.apply(venue.core.execute(live.key, 4, request.limit_price, venue.clock.now()))
        updates = Updates(adapter)
        venue.orders.cancel(1, live.sent.order_id)
        venue._warn(live, 202, "Order Canceled - reason:by hand")
        ended = await updates.until(
            lambda u: getattr(u, "status", None) is OrderState.CANCELLED and u.filled == 4
        )
        assert ended.venue_order_id == str(live.perm_id)


async def test_refused_change_leaves_the_original_live():
    """201 on a modification refuses the modification: the order rests on at its old terms, known as such."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        venue.fault("place", Mishap.ERROR, code=201, text="Order rejected - reason:margin")
        with pytest.raises(InsufficientBalanceError):
            await adapter.amend_order(
                AAPL, client_order_id=request.client_order_id, limit_price=request.limit_price + 1
            )
        found = await adapter.get_order(AAPL, client_order_id=request.client_order_id)
        assert (found.status, found.limit_price) == (OrderState.ACCEPTED, request.limit_price)
        assert (venue.messages[3], venue.taken(request.client_order_id)) == (2, 1)


async def test_late_rejection_after_the_answer():
    """An order that was shown working and is refused later is told as rejected by the stream (A20)."""
    async with on_the_wire() as (venue, adapter):
        request = order()
        await adapter.place_order(request)
        updates = Updates(adapter)
        live = venue.orders.find(request.client_order_id)
        venue._warn(live, 201, "Order rejected - reason:late")
        venue.orders.end(live, "Inactive")
        ended = await updates.until(lambda u: getattr(u, "status", None) is OrderState.REJECTED)
        assert "late" in ended.reason


async def test_uplink_lost_keeps_orders_here():
    """During 1100 nothing is sent and reads are no answers; after 1102 there is a gap, and all works again (A7)."""
    async with on_the_wire() as (venue, adapter):
        updates = Updates(adapter)
        venue.announce(1100)
        await asyncio.wait_for(_cut_off(adapter), 1)
        request = order()
        before = venue.messages[3]
        with pytest.raises(NotSentError):
            await adapter.place_order(request)
        for read in (adapter.open_orders, adapter.positions, adapter.balances):
            with pytest.raises(ExchangeUnavailableError):
                await read()
        assert venue.messages[3] == before
        venue.announce(1102)
        await updates.until(lambda update: isinstance(update, StreamGap))
        assert (await adapter.place_order(request)).status is OrderState.ACCEPTED


async def _cut_off(adapter):
    while not adapter._line._link.uplink_lost:
        await asyncio.sleep(0.005)


async def test_pace_is_kept_and_orders_never_wait_unseen():
    """More orders than TWS takes in a second: those beyond are provably unsent, and the venue counts the same."""
    async with on_the_wire(messages_per_second=20, queue_limit=timedelta(0)) as (venue, adapter):
        await adapter.instrument(AAPL)
        sent = unsent = 0
        for number in range(30):
            try:
                await adapter.place_order(order(str(number), quantity=Decimal(1)))
            except (NotSentError, RateLimitError):
                unsent += 1
            else:
                sent += 1
        assert unsent > 0
        assert sent == len(venue.received) == len({each.sent.ref for each in venue.received})


async def test_burst_stays_below_what_tws_takes():
    """Sixty orders at once, at the default pace, to a venue that enforces its own: none is refused, all arrive once."""
    async with on_the_wire(
        venue_options={"pace": 50},
        queue_limit=timedelta(seconds=5),
        order_timeout=timedelta(seconds=5),
    ) as (venue, adapter):
        await adapter.instrument(AAPL)
        orders = [order(str(number), quantity=Decimal(1)) for number in range(60)]
        reports = await asyncio.gather(*(adapter.place_order(each) for each in orders))
        assert {report.status for report in reports} == {OrderState.ACCEPTED}
        assert all(venue.sends(each.client_order_id) == 1 for each in orders)


async def test_rule_that_is_not_answered_is_asked_again():
    """A market rule without an answer fails the look-up of the symbol, and the next one asks anew."""
    async with on_the_wire() as (venue, adapter):
        venue.fault("rule", Mishap.HANG)
        with pytest.raises(ExchangeUnavailableError):
            await adapter.instrument(AAPL)
        assert (await adapter.instrument(AAPL)).tick_size == Decimal("0.01")

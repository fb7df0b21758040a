"""The connection to TWS under stress: bursts, unasked lists, connecting twice, old rules and hours."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from tests.support.ibkr import AAPL, Updates, adapter_of, on_the_wire, order

from execkit.clock import ManualClock
from execkit.errors import (
    ConfigurationError,
    ExchangeUnavailableError,
    InvalidOrderError,
    MarketClosedError,
    NotSentError,
    OrderStatusUnknownError,
)
from execkit.model.order import OrderState, OrderType, Side, StreamGap
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.control import TwsControl
from execkit.testing.venues.tws.server import WireTws

D = Decimal


async def test_bursts_of_questions_stay_below_what_tws_takes():
    """Fifty quotes, each of which ends its subscription, at a venue that counts: each message has its turn (E1)."""
    async with on_the_wire(venue_options={"pace": 50}, read_timeout=timedelta(seconds=10)) as (
        venue,
        adapter,
    ):
        refused = []
        warn = venue.warn

        def heard(session, request_id, code, text):
            refused.append(code)
            warn(session, request_id, code, text)

        venue.warn = heard
        await adapter.instrument(AAPL)
        await asyncio.gather(*(adapter.ticker(AAPL) for _ in range(50)))
        await venue.until(lambda: venue.messages[2] == venue.messages[1] > 50, seconds=20)
        assert refused == []


async def test_open_orders_that_tws_lists_unasked():
    """The list that TWS sends by itself after connecting, and its end, are not taken for the answer to a question."""
    async with WireTws() as venue:
        foreign = order("x", client_order_id="manual-1")
        first = adapter_of(venue)
        await TwsControl(venue, first).foreign_order(foreign)
        await first.connect()
        await first.place_order(order())
        for _ in range(3):
            assert len(await first.open_orders()) == 2
        await first.close()
        second = adapter_of(venue)
        await second.connect()
        for _ in range(3):
            shown = {each.client_order_id for each in await second.open_orders()}
            assert shown == {order().client_order_id, "manual-1"}
        await second.close()


async def test_connecting_twice_makes_one_connection():
    """At once, one after the other, or while a lost connection is made again: a client id connects once."""
    async with WireTws() as venue:
        adapter = adapter_of(venue)
        await asyncio.gather(adapter.connect(), adapter.connect())
        await adapter.connect()
        assert venue.connects == 1
        venue.is_down = True
        venue.cut()
        while adapter.is_connected:
            await asyncio.sleep(0)
        with pytest.raises(ExchangeUnavailableError, match="made again"):
            await adapter.connect()
        venue.is_down = False
        while not adapter.is_connected:
            await asyncio.sleep(0.01)
        assert [session.client_id for session in venue.sessions] == [1]
        assert (await adapter.place_order(order())).status is OrderState.ACCEPTED
        await adapter.close()


async def test_a_connection_for_prices_does_not_become_one_for_orders():
    """Connecting to trade looks at the account again: real money still needs `live=True`."""
    async with WireTws(accounts=("U1234567",)) as venue:
        adapter = adapter_of(venue)
        await adapter.connect_data()
        with pytest.raises(ConfigurationError, match="live=True"):
            await adapter.connect()
        with pytest.raises(NotSentError):
            await adapter.place_order(order())
        assert venue.received == []
        await adapter.close()


async def test_hours_that_ran_out_close_no_market():
    """After days without an order the hours are read anew before one is refused by them."""
    clock = ManualClock(datetime(2026, 7, 6, 14, tzinfo=UTC))
    async with on_the_wire(
        clock=clock, venue_options={"clock": clock}, hours_max_age=timedelta(hours=1)
    ) as (venue, adapter):
        await adapter.place_order(order("1", type=OrderType.MARKET))
        clock.advance(timedelta(days=20))
        report = await adapter.place_order(order("2", type=OrderType.MARKET, side=Side.SELL))
        assert report.status is OrderState.FILLED
        clock.advance(timedelta(days=20))
        venue.fault("contract", Mishap.HANG, times=2)
        with pytest.raises(NotSentError):
            await adapter.place_order(order("3"))
        venue.core.set_halted(AAPL, halted=True)
        with pytest.raises(MarketClosedError):
            await adapter.place_order(order("4"))
        assert len(venue.received) == 2


async def test_rules_are_read_anew_when_the_venue_refuses_by_them():
    """A tick that has changed: the order is refused with 110, and the next look at the rules shows the new one."""
    async with on_the_wire(hours_max_age=timedelta(hours=1)) as (venue, adapter):
        assert (await adapter.instrument(AAPL)).tick_size == D("0.01")
        venue.listings[AAPL].bands = ((D(0), D("0.05")),)
        with pytest.raises(InvalidOrderError) as caught:
            await adapter.place_order(order(limit_price=D("180.01")))
        assert caught.value.code == "110"
        assert (await adapter.instrument(AAPL)).tick_size == D("0.05")


async def test_cancel_all_asks_for_all_at_once():
    """One cancel that is not answered keeps no other waiting."""
    async with on_the_wire(order_timeout=timedelta(seconds=5)) as (venue, adapter):
        for name in "abcd":
            await adapter.place_order(order(name))
        venue.fault("cancel", Mishap.HANG)
        stopping = asyncio.ensure_future(adapter.cancel_all())
        await venue.until(lambda: len([o for o in venue.orders.by_perm.values() if o.is_open]) == 1)
        adapter._table.lose("enough")
        with pytest.raises(OrderStatusUnknownError):
            await stopping


async def test_codes_that_end_a_connection():
    """502, 503, 504 and 507 without an order: what was sent is in doubt, the line made anew, the order found."""
    await asyncio.gather(*map(connection_ends, (502, 503, 504, 507)))


async def connection_ends(code):
    async with on_the_wire(order_timeout=timedelta(seconds=20)) as (venue, adapter):
        updates = Updates(adapter)
        venue.fault("place", Mishap.HANG, reached=True)
        placing = asyncio.ensure_future(adapter.place_order(order()))
        await venue.until(lambda: bool(venue.received))
        venue.announce(code)
        with pytest.raises(OrderStatusUnknownError):
            await placing
        await updates.until(lambda u: isinstance(u, StreamGap) and "again" in u.reason)
        found = await adapter.get_order(AAPL, client_order_id=order().client_order_id)
        assert found.status is OrderState.ACCEPTED
        assert venue.sends(order().client_order_id) == venue.taken(order().client_order_id) == 1

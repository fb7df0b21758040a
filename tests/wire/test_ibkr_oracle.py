"""The unmodified ib_async works against the wire-level TWS, and does there what made us read raw messages."""

import logging
from decimal import Decimal

import attrs
import ib_async
import pytest
from tests.support.ibkr import AAPL, on_the_wire, order

from execkit.model.order import OrderState, OrderType
from execkit.testing.venues.tws.server import WireTws

ACCOUNT = "DU1234567"


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("ib_async").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("ib_async").setLevel(logging.NOTSET)


async def connected(venue, client_id=1):
    ib = ib_async.IB()
    await ib.connectAsync(
        "127.0.0.1", venue.port, clientId=client_id, timeout=2, raiseSyncErrors=True
    )
    return ib


@pytest.mark.parametrize("version", range(157, 179))
async def test_every_version_that_ib_async_speaks(version):
    """Connecting, a bracket, its fills, modification, cancel and completed orders, over each protocol version."""
    async with WireTws(version=version) as venue:
        ib = await connected(venue)
        stock = ib_async.Stock(AAPL, "SMART", "USD")
        assert (await ib.qualifyContractsAsync(stock))[0].conId == 265598
        family = ib.bracketOrder("BUY", 10, 190, 220, 180, account=ACCOUNT, tif="GTC")
        trades = [ib.placeOrder(stock, each) for each in family]
        await venue.until(lambda: len(venue.received) == 3)
        venue.move_price(AAPL, Decimal(190))
        venue.move_price(AAPL, Decimal(221))
        resting = ib.placeOrder(
            stock, ib_async.LimitOrder("BUY", 5, 150, account=ACCOUNT, tif="GTC")
        )
        await resting.statusEvent
        resting.order.lmtPrice = 151
        ib.placeOrder(stock, resting.order)
        await venue.until(lambda: len(venue.received) == 5)
        assert venue.orders.by_id[1, resting.order.orderId].sent.limit == 151
        ib.cancelOrder(resting.order)
        await venue.until(lambda: venue.messages[4] == 1)
        done = await ib.reqCompletedOrdersAsync(apiOnly=False)
        assert [t.orderStatus.status for t in trades] == ["Filled", "Filled", "Cancelled"]
        assert len(done) == 4
        assert ib.client.serverVersion() == version
        ib.disconnect()
        await venue.until(lambda: not venue.sessions)


async def test_same_order_same_bytes():
    """What the adapter sends is what ib_async's own order classes send for the same order."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order(limit_price=Decimal(180)))
        ib = await connected(venue, client_id=2)
        stock = (await ib.qualifyContractsAsync(ib_async.Stock(AAPL, "SMART", "USD")))[0]
        ref = order().client_order_id
        ib.placeOrder(
            stock,
            ib_async.LimitOrder("BUY", 10, 180, account=ACCOUNT, tif="GTC", orderRef=ref),
        )
        await venue.until(lambda: len(venue.received) == 2)
        ours, theirs = (each.sent for each in venue.received)
        assert attrs.evolve(theirs, order_id=ours.order_id) == ours
        ib.disconnect()
        await venue.until(lambda: len(venue.sessions) == 1)


@pytest.mark.parametrize("code", [10349, 161, 10147, 504])
async def test_ib_async_gives_a_live_order_up(code):
    """ib_async calls a live order cancelled on codes that say no such thing; the adapter knows it as live."""
    async with on_the_wire() as (venue, adapter):
        ib = await connected(venue, client_id=2)
        stock = (await ib.qualifyContractsAsync(ib_async.Stock(AAPL, "SMART", "USD")))[0]
        theirs = ib.placeOrder(
            stock, ib_async.LimitOrder("BUY", 10, 180, account=ACCOUNT, tif="GTC")
        )
        await theirs.statusEvent
        await adapter.place_order(order())
        for live in venue.orders.by_perm.values():
            venue._warn(live, code, "whatever")
        found = await adapter.get_order(AAPL, client_order_id=order().client_order_id)
        assert found.status is OrderState.ACCEPTED
        await ib.reqCurrentTimeAsync()
        assert theirs.orderStatus.status == "Cancelled"
        assert all(live.status == "Submitted" for live in venue.orders.by_perm.values())
        ib.disconnect()
        await venue.until(lambda: len(venue.sessions) == 1)


async def test_ib_async_adds_a_correction_up():
    """ib_async counts a corrected execution twice; the adapter replaces it."""
    async with on_the_wire() as (venue, adapter):
        ib = await connected(venue, client_id=2)
        stock = (await ib.qualifyContractsAsync(ib_async.Stock(AAPL, "SMART", "USD")))[0]
        theirs = ib.placeOrder(stock, ib_async.MarketOrder("BUY", 10, account=ACCOUNT, tif="DAY"))
        await theirs.filledEvent
        await adapter.place_order(order(type=OrderType.MARKET))
        for executed in list(venue.orders.executions):
            venue.orders.correct(executed, Decimal(6))
        await adapter.open_orders()  # what was sent before its answer has arrived with it
        found = await adapter.get_order(AAPL, client_order_id=order().client_order_id)
        await ib.reqCurrentTimeAsync()
        assert (theirs.filled(), found.filled) == (16, 6)
        ib.disconnect()
        await venue.until(lambda: len(venue.sessions) == 1)

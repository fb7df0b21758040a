"""Binance's countdown that cancels every order of a symbol, on USD-M futures; spot has none."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.binance import on_the_wire, order

from execkit.errors import UnsupportedFeatureError
from execkit.model.order import OrderState

SYMBOL = "BTC/USDT:USDT"
USDM = {"market": "usdm", "prices": {SYMBOL: Decimal(42_000)}}


async def test_when_nobody_renews_it_the_venue_cancels():
    """The venue's own doing: it is seen on the stream, as a cancel of every order there."""
    async with on_the_wire(venue_options=USDM, market="usdm") as (venue, adapter):
        assert adapter.capabilities.dead_man
        updates = adapter.order_updates()
        for number in (1, 2):
            await adapter.place_order(order(number, symbol=SYMBOL))
        await adapter.dead_man(SYMBOL, timedelta(seconds=0.05))
        ended = set()
        async with asyncio.timeout(5):
            async for update in updates:
                if getattr(update, "status", None) is OrderState.CANCELLED:
                    ended.add(update.client_order_id)
                if len(ended) == 2:
                    break
        assert await adapter.open_orders(SYMBOL) == []
        assert len(venue.calls("cancel")) == 0


async def test_it_is_started_anew_and_ended():
    """The countdown goes out in milliseconds for its symbol; zero ends it, and the order rests on."""
    async with on_the_wire(venue_options=USDM, market="usdm") as (venue, adapter):
        await adapter.place_order(order(symbol=SYMBOL))
        await adapter.dead_man(SYMBOL, timedelta(seconds=30))
        await adapter.dead_man(SYMBOL, timedelta(seconds=60))
        await adapter.dead_man(SYMBOL, None)
        told = [
            (call.params["symbol"], call.params["countdownTime"])
            for call in venue.calls("countdown")
        ]
        assert told == [("BTCUSDT", "30000"), ("BTCUSDT", "60000"), ("BTCUSDT", "0")]
        assert len(await adapter.open_orders(SYMBOL)) == 1


async def test_spot_has_none():
    """The capability says so, and nothing is sent."""
    async with on_the_wire() as (venue, adapter):
        assert not adapter.capabilities.dead_man
        with pytest.raises(UnsupportedFeatureError):
            await adapter.dead_man("BTC/USDT", timedelta(seconds=30))
        assert venue.calls("countdown") == []

"""Venues on loopback, each with a ccxt client that trades there."""

import pytest
from tests.support.ccxt_wire import client_of

from execkit.testing.venues.binance import BinanceVenue
from execkit.testing.venues.bybit import BybitVenue


@pytest.fixture
async def venue():
    async with BinanceVenue() as started:
        yield started


@pytest.fixture
async def ccxt(venue):
    async with client_of(venue) as client:
        yield client


@pytest.fixture
async def usdm():
    async with BinanceVenue(market="usdm") as started:
        yield started


@pytest.fixture
async def perp(usdm):
    async with client_of(usdm) as client:
        yield client


@pytest.fixture
async def bybit():
    async with BybitVenue() as started:
        yield started


@pytest.fixture
async def byccxt(bybit):
    async with client_of(bybit) as client:
        yield client

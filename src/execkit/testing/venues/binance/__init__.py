"""Binance on loopback: spot and USD-M futures, REST, WebSocket API and streams, as ccxt speaks to them."""

from __future__ import annotations

from execkit.testing.venues.binance.base import KEY, SECRET
from execkit.testing.venues.binance.limits import Rules
from execkit.testing.venues.binance.venue import BinanceVenue

__all__ = ["KEY", "SECRET", "BinanceVenue", "Rules"]

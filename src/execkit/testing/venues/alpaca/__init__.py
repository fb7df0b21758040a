"""Alpaca on loopback: trading and market data, REST and streams, as alpaca-py speaks to them."""

from __future__ import annotations

from execkit.testing.venues.alpaca.hours import TradingHours
from execkit.testing.venues.alpaca.state import Asset
from execkit.testing.venues.alpaca.venue import KEY, SECRET, AlpacaVenue

__all__ = ["KEY", "SECRET", "AlpacaVenue", "Asset", "TradingHours"]

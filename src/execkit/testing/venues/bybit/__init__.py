"""Bybit on loopback: a unified account's spot market, version 5 of the protocol, as ccxt speaks it."""

from __future__ import annotations

from execkit.testing.venues.bybit.base import KEY, SECRET
from execkit.testing.venues.bybit.venue import BybitVenue

__all__ = ["KEY", "SECRET", "BybitVenue"]

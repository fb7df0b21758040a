"""Venues for tests: scripted, and driven by hand. Nothing in here belongs in a live system."""

from __future__ import annotations

from execkit.testing.desk import VenueDesk, mock_venue
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation
from execkit.testing.mock import MockExchange, Received

__all__ = [
    "Fault",
    "FaultKind",
    "FaultScript",
    "MockExchange",
    "Operation",
    "Received",
    "VenueDesk",
    "mock_venue",
]

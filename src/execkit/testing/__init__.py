"""Venues for tests: scripted, and driven by hand. Nothing in here belongs in a live system."""

from __future__ import annotations

from execkit.testing.contract import AdapterContract
from execkit.testing.control import VenueControl
from execkit.testing.desk import VenueDesk, mock_venue
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation
from execkit.testing.mock import MockExchange, Received

__all__ = [
    "AdapterContract",
    "Fault",
    "FaultKind",
    "FaultScript",
    "MockExchange",
    "Operation",
    "Received",
    "VenueControl",
    "VenueDesk",
    "mock_venue",
]

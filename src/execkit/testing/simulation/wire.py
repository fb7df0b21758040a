"""The order stream between venue and process, which loses, repeats, delays and reorders what it carries."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

import msgspec

from execkit.exchanges.streams import Subscriber
from execkit.model.order import OrderReport, OrderState, OrderUpdate, StreamGap
from execkit.testing.simulation.chaos import Chaos, Kind


class Wire:
    """One subscription."""

    def __init__(self, chaos: Chaos, rng: random.Random) -> None:
        self.subscriber: Subscriber[OrderUpdate] = Subscriber(lambda _item: True, None, 100_000)
        self._chaos = chaos
        self._rng = rng
        self._is_silent = False

    def carry(self, updates: list[OrderUpdate]) -> None:
        """Bring updates to the process, or not."""
        for update in updates:
            fault = self._chaos.pick("stream")
            if fault is Kind.STREAM_SILENT:
                self._is_silent = True
            if not self._is_silent and fault is not Kind.STREAM_DROPS:
                self._carry(update, fault)

    def _carry(self, update: OrderUpdate, fault: Kind | None) -> None:
        loop, reader = asyncio.get_running_loop(), self.subscriber
        delay = 0.005 + self._rng.random() * 0.05
        match fault:
            case Kind.STREAM_BREAKS:
                loop.call_later(delay, reader.end, ConnectionError("reset by peer"))
            case Kind.STREAM_ENDS:
                loop.call_later(delay, reader.end)
            case Kind.STREAM_GAP:
                loop.call_later(delay, reader.put, StreamGap("lost something"))
            case Kind.STREAM_DELAYS:
                loop.call_later(self._rng.uniform(0.1, 20), reader.put, update)
            case Kind.STREAM_REPEATS:
                loop.call_later(delay, reader.put, update)
                loop.call_later(self._rng.uniform(0.1, 5), reader.put, update)
            case Kind.STREAM_BACKWARDS if isinstance(update, OrderReport):
                old = msgspec.structs.replace(
                    update, status=OrderState.ACCEPTED, filled=Decimal(0), average_price=None
                )
                loop.call_later(delay, reader.put, update)
                loop.call_later(delay + 0.1, reader.put, old)
            case _:
                loop.call_later(delay, reader.put, update)

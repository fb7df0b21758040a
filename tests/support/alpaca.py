"""Alpaca on the wire for tests: a venue on loopback on a trading day, and the adapter that speaks to it."""

import contextlib
import time
from datetime import UTC, datetime, timedelta

from execkit.exchanges.alpaca.adapter import AlpacaAdapter
from execkit.testing.venues.alpaca import KEY, SECRET, AlpacaVenue

OPEN = datetime(2024, 3, 12, 15, 0, tzinfo=UTC)
"""A Tuesday in New York, late morning."""


class TradingClock:
    """A clock that runs like the real one, but began on a trading day."""

    def __init__(self, start=OPEN):
        self.start = start
        self._began = time.monotonic()

    def now(self):
        return self.start + timedelta(seconds=time.monotonic() - self._began)

    def set(self, at):
        self.start, self._began = at, time.monotonic()


@contextlib.asynccontextmanager
async def venue_on_the_wire(**options):
    options.setdefault("clock", TradingClock())
    async with AlpacaVenue(**options) as venue:
        yield venue


def adapter_of(venue, **options):
    options.setdefault("api_key", KEY)
    options.setdefault("secret", SECRET)
    return AlpacaAdapter(
        **{
            "rest_url": venue.rest_url,
            "stream_url": venue.stream_url,
            "clock": venue.clock,
            "timeout": timedelta(seconds=5),
            "absence_window": timedelta(seconds=0.2),
            **options,
        }
    )


@contextlib.asynccontextmanager
async def on_the_wire(*, connect=True, adapter=None, **venue_options):
    """Yield a venue and a connected adapter."""
    async with venue_on_the_wire(**venue_options) as venue:
        made = adapter_of(venue, **(adapter or {}))
        try:
            if connect:
                await made.connect()
            yield venue, made
        finally:
            await made.close()

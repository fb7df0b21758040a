"""The whole adapter contract against Bybit on the wire, through the adapter that serves every exchange of ccxt."""

from datetime import timedelta

from execkit.exchanges.ccxt.adapter import CCXTAdapter
from execkit.testing.contract import AdapterContract
from execkit.testing.venues.bybit import KEY, SECRET, BybitVenue


class OnTheWire(CCXTAdapter):
    """The adapter with the venue that it speaks to: started before it connects, closed after it."""

    def __init__(self, venue, **options):
        super().__init__(
            "bybit",
            api_key=KEY,
            secret=SECRET,
            rest_url=venue.rest_url,
            stream_url=venue.stream_url,
            absence_window=timedelta(seconds=0.15),
            **options,
        )
        self.venue = venue

    async def close(self):
        await super().close()
        await self.venue.close()


class TestBybit(AdapterContract):
    """Spot."""

    async def make_adapter(self):
        venue = BybitVenue()
        await venue.start()
        return OnTheWire(venue)

    def make_control(self, adapter):
        return adapter.venue.control()


del AdapterContract

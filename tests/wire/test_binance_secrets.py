"""No secret shows anywhere, on any error path, in any spelling."""

import random
from decimal import Decimal

import pytest
from tests.support.binance import adapter_of, on_the_wire, order

from execkit.errors import InvalidOrderError
from execkit.testing.canary import run_under_canary
from execkit.testing.contract import AdapterContract
from execkit.testing.venues.binance import KEY, SECRET, BinanceVenue
from execkit.testing.venues.faults import Mishap


class Planted(AdapterContract):
    """The contract with made-up keys on both sides."""

    __test__ = False
    market = "spot"

    async def make_adapter(self):
        key = (self.secrets.get("api_key", KEY) * 4)[:64] if self.secrets else KEY
        secret = self.secrets.get("api_secret", SECRET) if self.secrets else SECRET
        venue = BinanceVenue(
            market=self.market, key=key, secret=secret, prices={self.symbol: Decimal(42_000)}
        )
        await venue.start()
        adapter = adapter_of(venue, api_key=key, secret=secret)
        close = adapter.close

        async def close_both():
            await close()
            await venue.close()

        adapter.close = close_both
        adapter.venue = venue
        return adapter

    def make_control(self, adapter):
        return adapter.venue.control()


def test_no_secret_is_written():
    """The whole contract with planted keys: logs, reprs, errors with their causes, and what ccxt logs."""
    canary = run_under_canary(Planted(), random.Random(7))
    canary.check()
    assert canary.bytes_scanned > 100_000


async def test_what_a_venue_repeats_of_ours_is_taken_out():
    """A venue that quotes our request in its error does not get our key or signature into a message."""
    async with on_the_wire() as (venue, adapter):
        text = f"refused: apiKey {KEY} signature={'ab' * 32} in the request\r\nforged: line"
        venue.fail_next("place", Mishap.ERROR, status=400, code=-1102, text=text)
        with pytest.raises(InvalidOrderError) as raised:
            await adapter.place_order(order())
        shown = f"{raised.value!r} {raised.value.raw} {raised.value.__context__!r}"
        assert KEY not in shown
        assert "abab" not in shown
        assert "\n" not in str(raised.value)
        assert raised.value.__cause__ is None

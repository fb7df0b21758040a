"""What a conformance test can make a venue on the wire do: everything."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from execkit.model.order import OrderRequest
from execkit.testing.control import VenueControl
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.server import WireVenue


class WireControl(VenueControl):
    """Drives a venue on the wire; each call that makes something fail replaces what was to fail before."""

    def __init__(self, venue: WireVenue) -> None:
        self.venue = venue
        self.secrets = venue.secrets

    async def move_price(self, symbol: str, price: Decimal) -> None:
        """Trade the market at the price."""
        await self.venue.move_price(symbol, price)

    async def fill(self, client_order_id: str, quantity: Decimal) -> None:
        """Execute a quantity of a resting order at its limit."""
        await self.venue.fill(client_order_id, quantity)

    async def foreign_order(self, request: OrderRequest) -> None:
        """Place it past the protocol."""
        self.venue.place_foreign(request)

    async def close_market(self, symbol: str) -> None:
        """Halt the symbol."""
        self.venue.halt(symbol)

    async def drop_answer(self) -> None:
        """Take the next order and close the connection."""
        self._next("place", Mishap.DROP_ANSWER)

    async def drop_request(self) -> None:
        """Close the connection before the next order is read."""
        self._next("place", Mishap.DROP_REQUEST)

    async def garble_answer(self) -> None:
        """Take the next order and answer with a page of a proxy."""
        self._next("place", Mishap.HTML, status=200, reached=True)

    async def swap_answer(self) -> None:
        """Take the next order and answer with another one."""
        self._next("place", Mishap.OTHER_ORDER)

    async def unknown_status(self) -> None:
        """Show the next order that is looked up with a status that nobody knows."""
        self._next("get", Mishap.CHANGE, changes={self.venue.order_fields.status: "PENDING_REVIEW"})

    async def fail_read(self) -> None:
        """Answer the next read with a server error."""
        self._next("read", Mishap.ERROR, status=500)

    async def rate_limit(self, retry_after: timedelta) -> None:
        """Refuse the next order for its pace."""
        self._next("place", Mishap.ERROR, **self.venue.rate_limit(retry_after))

    async def cut_stream(self) -> None:
        """Lose the next update and the connection with it."""
        self._next("stream", Mishap.CUT)

    async def sends(self, client_order_id: str) -> int:
        """Count in the venue's own record."""
        return self.venue.sends(client_order_id)

    def _next(self, operation: str, kind: Mishap, **details: Any) -> None:
        self.venue.heal()
        self.venue.fail_next(operation, kind, **details)

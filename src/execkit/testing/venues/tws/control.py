"""What a conformance test can make the wire-level TWS do."""

from __future__ import annotations

from decimal import Decimal

from execkit.errors import ConfigurationError
from execkit.exchanges.ibkr.adapter import IBKRAdapter
from execkit.model.order import OrderRequest, OrderType, Side, StreamGap
from execkit.testing.control import VenueControl
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.server import WireTws
from execkit.testing.venues.tws.wire import SentContract, SentOrder

_SOMEBODY_ELSE = 77
"""API client id under which foreign orders are placed."""


class TwsControl(VenueControl):
    """Everything but a Retry-After and secrets, neither of which TWS has."""

    def __init__(self, venue: WireTws, adapter: IBKRAdapter) -> None:
        self.venue = venue
        self.adapter = adapter
        self._foreign = 0

    async def move_price(self, symbol: str, price: Decimal) -> None:
        """Quote the price on both sides."""
        self.venue.move_price(symbol, price)

    async def fill(self, client_order_id: str, quantity: Decimal) -> None:
        """Execute so much of an order at its limit."""
        orders = self.venue.orders
        order = orders.find(client_order_id)
        if order.sent.limit is None:
            raise ConfigurationError(f"fill: {client_order_id} is no limit order")
        now = self.venue.clock.now()
        orders.apply(
            self.venue.core.execute(order.key, quantity, order.sent.limit, now, maker=True)
        )

    async def foreign_order(self, request: OrderRequest) -> None:
        """Let another API client place a limit order."""
        if request.type is not OrderType.LIMIT:
            raise ConfigurationError("foreign_order: only limit orders")
        listing = self.venue.listings[request.symbol]
        self._foreign += 1
        sent = SentOrder(
            order_id=self._foreign,
            contract=SentContract(listing.con_id, "", "", "", "", "", "", ""),
            action="BUY" if request.side is Side.BUY else "SELL",
            quantity=request.quantity / listing.units,
            order_type="LMT",
            limit=request.limit_price,
            aux=None,
            tif="GTC",
            oca_group="",
            account=self.venue.accounts[0],
            ref=request.client_order_id,
            transmit=True,
            parent_id=0,
            outside_rth=False,
            good_till="",
            oca_type=0,
            trail_stop=None,
            trail_percent=None,
            what_if=False,
            cash=None,
        )
        self.venue.orders.place(_SOMEBODY_ELSE, sent, listing)

    async def close_market(self, symbol: str) -> None:
        """Let the hours of the coming days say CLOSED."""
        self.venue.core.set_halted(symbol, halted=True)

    async def drop_answer(self) -> None:
        """Take the next order, and say nothing of it."""
        self.venue.fault("place", Mishap.HANG, reached=True)

    async def drop_request(self) -> None:
        """Lose the next order before it is seen."""
        self.venue.fault("place", Mishap.HANG)

    async def garble_answer(self) -> None:
        """Take the next order, and show it in a message that breaks off."""
        self.venue.fault("place", Mishap.CUT_BODY)

    async def swap_answer(self) -> None:
        """Take the next order, and show another one under its id."""
        self.venue.fault("place", Mishap.OTHER_ORDER)

    async def unknown_status(self) -> None:
        """Show a status that nobody knows in the next list of open orders."""
        self.venue.fault("open_orders", Mishap.CHANGE, changes={"status": "Mystery"})

    async def fail_read(self) -> None:
        """Answer the next question with an error, or not at all where it has no id to answer to."""
        self.venue.fault("read", Mishap.ERROR)

    async def cut_stream(self) -> None:
        """Break the connection, over which everything goes, and wait until the adapter has made it again."""
        updates = self.adapter.order_updates()
        self.venue.cut()
        gaps = 0
        async for update in updates:
            gaps += isinstance(update, StreamGap)
            if gaps == 2:  # one for the loss, one for the new connection
                return

    async def sends(self, client_order_id: str) -> int:
        """Count placeOrder messages by their orderRef."""
        return self.venue.sends(client_order_id)

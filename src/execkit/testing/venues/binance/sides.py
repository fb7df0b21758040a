"""The two markets of Binance behind one face: what each routes, triggers and tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.futures import FuturesOrders
from execkit.testing.venues.binance.futures_account import FuturesAccount
from execkit.testing.venues.binance.futures_algo import FuturesAlgos
from execkit.testing.venues.binance.futures_stream import FuturesStream
from execkit.testing.venues.binance.spot import SpotOrders
from execkit.testing.venues.binance.spot_account import SpotAccount
from execkit.testing.venues.binance.spot_lists import SpotLists
from execkit.testing.venues.binance.words import ms
from execkit.testing.venues.calls import Handler
from execkit.testing.venues.sockets import Socket


class SpotSide:
    """Spot: orders, lists, balances; its stream is a subscription on the WebSocket API."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue
        self.account = SpotAccount(venue)
        self.orders = SpotOrders(venue)
        self.lists = SpotLists(venue, self.orders)

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests of the market."""
        yield from self.account.routes()
        yield from self.orders.routes()
        yield from self.lists.routes()

    def on_price(self, symbol: str) -> None:
        """Do nothing: stops rest in the book."""

    def note_ends(self) -> None:
        """Tell of lists that have ended."""
        self.lists.note_ends()

    def on_open(self, socket: Socket) -> None:
        """Do nothing: a client subscribes by a message."""

    def on_message(self, socket: Socket, message: Any) -> None:
        """Take a request of the WebSocket API."""
        self.account.on_message(socket, message)

    def wrap(self, event: Any) -> Iterable[Any]:
        """Yield an event as it travels."""
        yield {"subscriptionId": 0, "event": event}

    def terminate(self) -> None:
        """End the subscriptions."""
        event = {"e": "eventStreamTerminated", "E": ms(self.venue.clock.now())}
        for socket in self.venue.listeners():
            socket.push({"subscriptionId": 0, "event": event})
            socket.is_private = False


class FuturesSide:
    """USD-M futures: orders, conditional orders, positions; its stream is addressed by a listen key."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue
        self.account = FuturesAccount(venue)
        self.stream = FuturesStream(venue, self.account.wallet)
        self.orders = FuturesOrders(venue)
        self.algos = FuturesAlgos(venue, self.orders)

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests of the market."""
        yield from self.account.routes()
        yield from self.stream.routes()
        yield from self.orders.routes()
        yield from self.algos.routes()

    def on_price(self, symbol: str) -> None:
        """Trigger conditional orders."""
        self.algos.on_price(symbol)

    def note_ends(self) -> None:
        """Finish conditional orders whose order has ended."""
        self.algos.note_ends()

    def on_open(self, socket: Socket) -> None:
        """Let a socket that names the listen key listen."""
        self.stream.on_open(socket)

    def on_message(self, socket: Socket, message: Any) -> None:
        """Ignore it: nothing of the WebSocket API of futures is needed."""

    def wrap(self, event: Any) -> Iterable[Any]:
        """Yield an event as it travels, or nothing once the listen key has expired."""
        if self.stream.may_deliver():
            yield event

    def terminate(self) -> None:
        """Expire the listen key."""
        self.stream.expire_key()

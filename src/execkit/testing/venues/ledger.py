"""What tests see and do of a venue on the wire: its record of every request, its faults, and its market."""

from __future__ import annotations

import asyncio
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from execkit.clock import Clock, SystemClock
from execkit.exchanges.matching import MatchingCore
from execkit.model.market import Quote
from execkit.model.order import OrderRequest, OrderUpdate
from execkit.testing.venues.calls import Call, Refusal
from execkit.testing.venues.faults import FaultQueue, Mishap, WireFault
from execkit.testing.venues.sockets import Socket
from execkit.testing.venues.spoils import OrderFields


class VenueState:
    """What a venue knows, and what a stale read shows an old copy of."""

    def __init__(self, core: MatchingCore) -> None:
        self.core = core


class Ledger(ABC):
    """Everything about a venue but its sockets.

    Args:
        state: Orders, balances and prices.
        clock: The venue's own wall clock.
    """

    name: ClassVar[str] = "venue"
    order_fields: ClassVar = OrderFields("orderId", "clientOrderId", "executedQty", "status")
    """How the venue calls the parts of an order in an answer."""

    def __init__(self, state: VenueState, *, clock: Clock | None = None) -> None:
        self.state = state
        self.clock: Clock = clock or SystemClock()
        self.requests: list[Call] = []
        """Every request, in the order of arrival."""
        self.accepts: list[str] = []
        """The client order id of every order that the venue took, once per order."""
        self.sockets: list[Socket] = []
        """The open WebSockets."""
        self.faults = FaultQueue()
        self.secrets: tuple[str, ...] = ()
        """What must not show in a client's logs."""
        self.is_dark = False
        self._changed = asyncio.Event()

    @property
    def core(self) -> MatchingCore:
        """The matching core; in a stale read a copy of it."""
        return self.state.core

    # --- what tests ask ---------------------------------------------------------------------------

    def calls(self, operation: str | None = None, *, path: str | None = None) -> list[Call]:
        """Return the requests of an operation, or to a path, or all."""
        return [
            call
            for call in self.requests
            if operation in (None, call.operation) and path in (None, call.path)
        ]

    def posts(self, path: str | None = None) -> list[Call]:
        """Return the POST requests, to one path or all."""
        return [call for call in self.calls(path=path) if call.method == "POST"]

    def sends(self, client_order_id: str) -> int:
        """Return how many requests to place this order came in, also those that were lost at the door."""
        return sum(
            call.operation in ("place", "place_list", "replace")
            and client_order_id in self.client_order_ids(call)
            for call in self.requests
        )

    def client_order_ids(self, call: Call) -> tuple[str, ...]:
        """Return the ids that a request to place orders gives them."""
        return (call.client_order_id,)

    def accepted(self, client_order_id: str) -> int:
        """Return how many orders of this id the venue took."""
        return self.accepts.count(client_order_id)

    async def until(self, condition: Callable[[], bool], *, limit: float = 5.0) -> None:
        """Wait until a condition on this venue holds; raise `TimeoutError` after *limit* seconds."""
        async with asyncio.timeout(limit):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def note_change(self) -> None:
        """Let `until` look again."""
        self._changed.set()

    # --- what tests do ----------------------------------------------------------------------------

    def fail_next(self, operation: str, kind: Mishap | str, **details: Any) -> WireFault:
        """Let the next request of *operation*, or event of the `stream`, go wrong; see `WireFault`."""
        fault = WireFault(on=operation, kind=Mishap(kind), **details)
        if fault.kind is Mishap.STALE:
            fault.frozen = copy.deepcopy(self.state)
        self.faults.waiting.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults that wait, and come back from darkness."""
        self.faults.waiting.clear()
        self.is_dark = False

    def go_dark(self) -> None:
        """Refuse everything and cut all streams, until `heal`."""
        self.is_dark = True
        self.cut_streams()

    def cut_streams(self) -> None:
        """Break all WebSockets."""
        for socket in list(self.sockets):
            socket.cut()

    async def move_price(self, symbol: str, price: Decimal) -> None:
        """Trade the market at *price*, and quote it with a spread of one tick."""
        tick = self.core.instrument(symbol).tick_size
        await self.quote(Quote(symbol, price, price + tick, self.clock.now(), last=price))

    async def quote(self, quote: Quote) -> None:
        """Match the orders with a quote, and publish it."""
        self.do(lambda: self.core.on_quote(quote.checked()))
        self.show_quote(self.core.quote(quote.symbol, quote.at))

    async def fill(
        self, client_order_id: str, quantity: Decimal | None = None, price: Decimal | None = None
    ) -> None:
        """Execute an order as the maker, by default the rest of it at its limit or at the touch."""
        order = self.core.order(client_order_id)
        if price is None:
            quote = self.core.quote(order.symbol)
            price = order.limit_price or (quote.ask if order.side == "buy" else quote.bid)
        amount = order.quantity - order.filled if quantity is None else quantity
        now = self.clock.now()
        self.do(lambda: self.core.execute(client_order_id, amount, price, now, maker=True))

    def halt(self, symbol: str, *, halted: bool = True) -> None:
        """Close a market, or open it again."""
        self.core.set_halted(symbol, halted=halted)

    @abstractmethod
    def place_foreign(self, request: OrderRequest) -> None:
        """Place an order of somebody else in the same account, past the protocol."""

    # --- what a venue has to say ------------------------------------------------------------------

    def do(self, step: Callable[[], list[OrderUpdate]]) -> list[OrderUpdate]:
        """Let the core take an input, and tell the streams what became of the orders."""
        updates = step()
        self.publish(updates)
        self.note_change()
        return updates

    def let_time_pass(self) -> datetime:
        """Return the time, after letting it act on the orders."""
        at = self.clock.now()
        if self.core.due(at):
            self.do(lambda: self.core.on_time(at))
        return at

    @abstractmethod
    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Tell the account's streams what became of orders; events go through `push_private`."""

    def show_quote(self, quote: Quote) -> None:
        """Tell the market streams of a quote."""

    def unknown_path(self, call: Call) -> Any:
        """Answer a request that the venue does not have."""
        raise Refusal(404, None)

    def admit(self, call: Call) -> None:
        """Refuse a request for its key, signature, time or pace; raise `Refusal`."""

    def headers(self, call: Call) -> dict[str, str]:
        """Return what every answer says in its head."""
        return {}

    @abstractmethod
    def error(self, fault: WireFault) -> Any:
        """Return the payload of an error on demand."""

    @abstractmethod
    def rate_limit(self, retry_after: timedelta) -> dict[str, Any]:
        """Return the details of the error by which the venue refuses for pace."""

    def not_found(self, call: Call) -> Any:
        """Return or raise what the venue says when it cannot see an order, or a list of them."""
        raise Refusal(404, None)

    def order_in(self, payload: Any) -> dict[str, Any] | None:
        """Return the part of an answer that names one order, so that it can be spoiled."""
        return payload if isinstance(payload, dict) else None

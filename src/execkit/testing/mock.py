"""A venue for tests: the matching core of the paper exchange behind a connection that fails by script.

All waiting is `asyncio.sleep`, so under virtual time it costs nothing. The mock keeps a book of its own on what
reached it, so that a test can count sends without believing the code under test.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from execkit.clock import Clock
from execkit.errors import OrderNotFoundError
from execkit.exchanges.inputs import Amend, Cancel
from execkit.exchanges.simulated import FEE, SimulatedExchange
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import (
    Fill,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderUpdate,
    Side,
)
from execkit.numbers import ONE, ZERO
from execkit.testing.connection import Connection
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation

Answer = OrderReport | None
Answering = Callable[[OrderRequest], Answer | Awaitable[Answer]]


class Received(msgspec.Struct):
    """One place request that reached the venue."""

    at: datetime
    client_order_id: str
    payload_hash: str
    request: OrderRequest
    accepted: bool = False


class MockExchange(SimulatedExchange):
    """A scripted venue; see `SimulatedExchange` for the arguments it shares with paper trading.

    Args:
        balances: What the account owns; by default 1,000,000 USDT.
        prices: First prices by symbol; by default BTC/USDT at 42,000.
        script: What goes wrong.
        rng: Decides about faults with a probability.
        latency: Time a request takes to the venue, and again the answer and each update of the stream.
        capabilities: What the adapter says it can do; by default everything but native OCO.
        answer: Any function from a request to its report, which then is all that the venue knows of the order;
            it may raise. Where it returns None, the matching core takes the order.
    """

    def __init__(
        self,
        *,
        balances: Mapping[str, Decimal] | None = None,
        prices: Mapping[str, Decimal] | None = None,
        instruments: Iterable[Instrument] | None = None,
        script: FaultScript | None = None,
        rng: random.Random | None = None,
        latency: timedelta = timedelta(0),
        capabilities: Capabilities | None = None,
        answer: Answering | None = None,
        spread_bps: Decimal = ZERO,
        maker_fee: Decimal = FEE,
        taker_fee: Decimal = FEE,
        allow_short: bool = False,
        clock: Clock | None = None,
        name: str = "mock",
        account: str | None = None,
        ids_unique_for_ever: bool = True,
        native_oco: bool = False,
    ) -> None:
        super().__init__(
            balances={"USDT": Decimal(1_000_000)} if balances is None else balances,
            prices={"BTC/USDT": Decimal(42_000)} if prices is None else prices,
            instruments=instruments,
            spread_bps=spread_bps,
            maker_fee=maker_fee,
            taker_fee=taker_fee,
            allow_short=allow_short,
            clock=clock,
            name=name,
            account=account,
            ids_unique_for_ever=ids_unique_for_ever,
            native_oco=native_oco,
        )
        self._capabilities = capabilities or self._capabilities
        self.connection = Connection(
            script or FaultScript(), rng or random.Random(0), latency, self._updates
        )
        """The way here; its `script` may be replaced at any time."""
        self.received: list[Received] = []
        """Every place request that got here, in order."""
        self._answer = answer
        self._answered: dict[str, OrderReport] = {}

    def _publish(self, updates: Iterable[OrderUpdate]) -> None:
        for update in updates:
            self.connection.send(update)

    # --- what tests do and ask --------------------------------------------------------------------

    def sends(self, client_order_id: str) -> int:
        """Return how many place requests with this id reached the venue."""
        return sum(entry.client_order_id == client_order_id for entry in self.received)

    def accepted(self, client_order_id: str) -> int:
        """Return how many of them the venue accepted."""
        return sum(
            entry.accepted and entry.client_order_id == client_order_id for entry in self.received
        )

    def set_price(self, symbol: str, price: Decimal) -> None:
        """Move the market to a price, without a spread and without limits of size."""
        self.feed_quote(Quote(symbol, price, price, self.clock.now(), last=price))

    def forget(self, before: datetime) -> None:
        """Forget what ended before, as venues do; their ids may come again then."""
        self.core.forget(before)
        self.received = [entry for entry in self.received if entry.at >= before]

    def execute(
        self, client_order_id: str, quantity: Decimal | None = None, price: Decimal | None = None
    ) -> None:
        """Execute an order whatever the market says, by default all of it at its limit or the touch."""
        report = self.core.order(client_order_id)
        if quantity is None:
            quantity = report.quantity - report.filled
        if price is None:
            quote = self.core.quote(report.symbol)
            price = report.limit_price or (quote.ask if report.side is Side.BUY else quote.bid)
        self._publish(self.core.execute(client_order_id, quantity, price, self.clock.now()))

    def end(self, client_order_id: str, status: OrderState, reason: str = "scripted") -> None:
        """Close an open order with any closed status."""
        self._publish(self.core.end(client_order_id, status, reason, self.clock.now()))

    def _execute_part(self, client_order_id: str, fraction: Decimal) -> None:
        report = self.core.order(client_order_id)
        rest = report.quantity - report.filled
        part = self.core.instrument(report.symbol).round_quantity(rest * fraction)
        if part:
            self.execute(client_order_id, part)

    def _execute_rest(self, client_order_id: str) -> None:
        """Execute what is left of an order that is still open; an ended one has no rest."""
        if self.core.by_client[client_order_id].is_open:
            self._execute_part(client_order_id, ONE)

    # --- orders -----------------------------------------------------------------------------------

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Take one order, as the script allows."""
        fault = self.connection.fault(Operation.PLACE, request)
        answer: Answer = None
        if self._answer is not None:
            given = self._answer(request)
            answer = await given if inspect.isawaitable(given) else given
        return await self.connection.call(
            Operation.PLACE,
            fault,
            lambda: self._take(request, fault, answer),
            refused=lambda: self._note(request),
        )

    def _note(self, request: OrderRequest) -> Received:
        entry = Received(self.clock.now(), request.client_order_id, request.payload_hash, request)
        self.received.append(entry)
        return entry

    def _take(
        self, request: OrderRequest, fault: Fault | None, answer: Answer = None
    ) -> OrderReport:
        """Accept an order, and do with it what the fault wants."""
        entry = self._note(request)
        if answer is not None:
            entry.accepted = True
            self._answered[request.client_order_id] = answer
            return answer
        kind = None if fault is None else fault.kind
        by_hand = kind in (FaultKind.PARTIAL, FaultKind.LATE_REJECT)
        updates = self.core.place(request, self._now(), match=not by_hand)
        entry.accepted = True
        self._publish(updates)
        name = request.client_order_id
        if fault is not None and kind is FaultKind.LATE_REJECT:
            self.connection.later(fault.after, lambda: self.end(name, OrderState.REJECTED))
        elif fault is not None and kind is FaultKind.PARTIAL:
            self._execute_part(name, fault.fraction)
            if fault.after:
                self.connection.later(fault.after, lambda: self._execute_rest(name))
        return self.core.order(name)

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Take several orders that the venue keeps together, for all or none, as the script allows for the first.

        As on Binance, the first execution of one leg of an OCO, however small, ends the other.
        """
        fault = self.connection.fault(Operation.PLACE, orders.orders[0])
        return await self.connection.call(
            Operation.PLACE,
            fault,
            lambda: self._take_list(orders),
            refused=lambda: [self._note(request) for request in orders.orders],
        )

    def _take_list(self, orders: OrderList) -> list[OrderReport]:
        entries = [self._note(request) for request in orders.orders]
        self._publish(self.core.place_list(orders, self._now()))
        for entry in entries:
            entry.accepted = True
        return [self.core.order(request.client_order_id) for request in orders.orders]

    def _request_of(self, client_order_id: str) -> OrderRequest | None:
        order = self.core.by_client.get(client_order_id)
        return None if order is None else order.request

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Cancel one order, as the script allows."""
        fault = self.connection.fault(Operation.CANCEL, self._request_of(client_order_id))

        def cancel() -> OrderReport:
            answered = self._answered.get(client_order_id)
            if answered is not None:
                return self._cancel_answered(answered)
            self._do(Cancel(symbol, client_order_id, self._now(), venue_order_id))
            if fault is not None and fault.kind is FaultKind.LATE_FILL:
                part = fault.fraction
                self.connection.later(
                    fault.after, lambda: self._execute_part(client_order_id, part)
                )
            return self.core.order(client_order_id, venue_order_id)

        return await self.connection.call(Operation.CANCEL, fault, cancel)

    def _cancel_answered(self, report: OrderReport) -> OrderReport:
        if report.status.is_closed:
            raise OrderNotFoundError(f"order {report.client_order_id} is not open")
        report = msgspec.structs.replace(report, status=OrderState.CANCELLED)
        self._answered[report.client_order_id] = report
        return report

    async def amend_order(
        self,
        symbol: str,
        *,
        client_order_id: str,
        venue_order_id: str | None = None,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
    ) -> OrderReport:
        """Change one order, as the script allows."""
        fault = self.connection.fault(Operation.AMEND, self._request_of(client_order_id))

        def amend() -> OrderReport:
            at = self._now()
            changes = (venue_order_id, quantity, limit_price, stop_price)
            self._do(Amend(symbol, client_order_id, at, *changes))
            return self.core.order(client_order_id, venue_order_id)

        return await self.connection.call(Operation.AMEND, fault, amend)

    # --- queries ----------------------------------------------------------------------------------

    def _is_hidden(self, client_order_id: str, fault: Fault | None) -> bool:
        """Tell whether the venue does not show the order yet."""
        if fault is None or fault.kind is not FaultKind.NOT_FOUND:
            return False
        since = self.clock.now() - fault.after
        return any(e.client_order_id == client_order_id and e.at > since for e in self.received)

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order, as the script allows."""
        fault = self.connection.fault(Operation.GET, self._request_of(client_order_id))

        def get() -> OrderReport:
            self._now()
            if self._is_hidden(client_order_id, fault):
                raise OrderNotFoundError(f"scripted: order {client_order_id} does not exist")
            answered = self._answered.get(client_order_id)
            return answered or self.core.order(client_order_id, venue_order_id)

        return await self.connection.call(Operation.GET, fault, get)

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return every open order, as the script allows."""
        fault = self.connection.fault(Operation.OPEN)

        def find() -> list[OrderReport]:
            self._now()
            answered = [
                report
                for report in self._answered.values()
                if not report.status.is_closed and symbol in (None, report.symbol)
            ]
            found = self.core.open_orders(symbol) + answered
            return [o for o in found if not self._is_hidden(o.client_order_id, fault)]

        return await self.connection.call(Operation.OPEN, fault, find)

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return what was executed, as the script allows."""
        fault = self.connection.fault(Operation.FILLS)

        def find() -> list[Fill]:
            answered = [fill for report in self._answered.values() for fill in report.fills]
            found = self.core.fills_since(since, symbol)
            found += [f for f in answered if f.at >= since and symbol in (None, f.symbol)]
            return [f for f in found if not self._is_hidden(f.client_order_id, fault)]

        return await self.connection.call(Operation.FILLS, fault, find)

    async def balances(self) -> dict[str, Balance]:
        """Return all holdings, as the script allows."""
        fault = self.connection.fault(Operation.BALANCES)
        return await self.connection.call(Operation.BALANCES, fault, self.core.balances)

    async def positions(self) -> Sequence[VenuePosition]:
        """Return all net positions, as the script allows."""
        fault = self.connection.fault(Operation.POSITIONS)
        return await self.connection.call(Operation.POSITIONS, fault, self.core.positions)

    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote, as the script allows."""
        fault = self.connection.fault(Operation.TICKER)
        return await self.connection.call(
            Operation.TICKER, fault, lambda: self.core.quote(symbol, self.clock.now())
        )

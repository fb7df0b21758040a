"""A venue driven by hand: the test receives each request and decides when and how it is answered.

For races that no script can place exactly, e.g. a fill between a cancel and its answer.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from execkit.errors import ExchangeError, OrderNotFoundError, OrderRejectedError
from execkit.exchanges.inputs import Cancel
from execkit.model.order import OrderReport, OrderRequest, OrderState
from execkit.numbers import positive
from execkit.testing.faults import Fault, FaultKind, FaultScript, Operation
from execkit.testing.mock import MockExchange


class HandDrivenExchange(MockExchange):
    """A mock whose orders and cancels wait for the desk."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.desk = VenueDesk(self)

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Hand the order to the desk and wait for its answer."""
        self._note(request)
        return await self.desk.receive(self.desk.orders, request.client_order_id, request)

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Hand the cancel to the desk and wait for its answer."""
        request = self._request_of(client_order_id)
        if request is None:
            raise OrderNotFoundError(f"order {client_order_id} does not exist")
        return await self.desk.receive(self.desk.cancels, client_order_id, request)


class VenueDesk:
    """The venue's side of the table. Orders are named by the request that `next_order` returned.

    What the desk does becomes true at the venue and goes out on the stream at once; the caller of `place_order` or
    `cancel_order` gets an answer only from `accept`, `reject`, `cancel` and `refuse_cancel`.
    """

    def __init__(self, venue: MockExchange) -> None:
        self._venue = venue
        self.orders: asyncio.Queue[OrderRequest] = asyncio.Queue()
        """Requests that nobody has taken from the desk yet."""
        self.cancels: asyncio.Queue[OrderRequest] = asyncio.Queue()
        self._waiting: dict[tuple[int, str], asyncio.Future[OrderReport]] = {}
        self._is_silent = False

    async def receive(
        self, queue: asyncio.Queue[OrderRequest], client_order_id: str, request: OrderRequest
    ) -> OrderReport:
        """Take in a request and return the desk's answer, when there is one."""
        answer: asyncio.Future[OrderReport] = asyncio.get_running_loop().create_future()
        self._waiting[id(queue), client_order_id] = answer
        queue.put_nowait(request)
        return await answer

    async def next_order(self) -> OrderRequest:
        """Return the next order that reaches the venue."""
        return await self.orders.get()

    async def next_cancel(self) -> OrderRequest:
        """Return the order whose cancel reaches the venue next."""
        return await self.cancels.get()

    def accept(self, order: OrderRequest) -> None:
        """Acknowledge an order; nothing is executed by this."""
        self._let_in(order)
        self._answer(self.orders, order)

    def fill(
        self,
        order: OrderRequest,
        quantity: Decimal | str | None = None,
        price: Decimal | str | None = None,
    ) -> None:
        """Execute a part (by default all) at a price (by default its limit or the touch).

        An order that was not acknowledged yet is in the book all the same: its fill overtakes the answer.
        """
        self._let_in(order)
        self._venue.execute(
            order.client_order_id,
            None if quantity is None else positive("quantity", quantity),
            None if price is None else positive("price", price),
        )

    def reject(self, order: OrderRequest, error: ExchangeError | str = "rejected") -> None:
        """Refuse an order; one that was acknowledged before is rejected on the stream."""
        if self._is_in(order):
            self._venue.end(order.client_order_id, OrderState.REJECTED, str(error))
            return
        refusal = OrderRejectedError(error) if isinstance(error, str) else error
        self._answer(self.orders, order, refusal)

    def expire(self, order: OrderRequest) -> None:
        """End an acknowledged order by its time in force."""
        self._venue.end(order.client_order_id, OrderState.EXPIRED)

    def cancel(self, order: OrderRequest) -> None:
        """Cancel an order, asked for or not, and answer whoever asked."""
        venue = self._venue
        step = Cancel(order.symbol, order.client_order_id, venue.clock.now())
        venue._do(step)  # noqa: SLF001 - the desk is the inside of the venue
        self._answer(self.cancels, order)

    def refuse_cancel(self, order: OrderRequest, error: ExchangeError | None = None) -> None:
        """Answer a cancel with an error, by default that there is no such order."""
        text = f"order {order.client_order_id} is not open"
        self._answer(self.cancels, order, error or OrderNotFoundError(text))

    def go_silent(self) -> None:
        """Answer nothing from now on, and let the stream say nothing; the venue itself goes on."""
        self._is_silent = True
        queries = [operation for operation in Operation if operation is not Operation.STREAM]
        self._venue.connection.script = FaultScript(
            [
                *(Fault(on=operation, kind=FaultKind.HANG) for operation in queries),
                Fault(on=Operation.STREAM, kind=FaultKind.LOSE),
            ]
        )

    def speak(self) -> None:
        """Answer again; what went unanswered stays so."""
        self._is_silent = False
        self._venue.connection.script = FaultScript()

    def _is_in(self, order: OrderRequest) -> bool:
        return order.client_order_id in self._venue.core.by_client

    def _let_in(self, order: OrderRequest) -> None:
        """Put an order into the book without matching it; does nothing the second time."""
        if self._is_in(order):
            return
        venue = self._venue
        updates = venue.core.place(order, venue.clock.now(), match=False)
        next(e for e in venue.received if e.request is order).accepted = True
        venue._publish(updates)  # noqa: SLF001 - the desk is the inside of the venue

    def _answer(
        self,
        queue: asyncio.Queue[OrderRequest],
        order: OrderRequest,
        error: ExchangeError | None = None,
    ) -> None:
        answer = self._waiting.pop((id(queue), order.client_order_id), None)
        if answer is None or answer.done() or self._is_silent:
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(self._venue.core.order(order.client_order_id))


def mock_venue(**options: Any) -> tuple[MockExchange, VenueDesk]:
    """Return a venue driven by hand, and the desk that drives it; *options* are those of `MockExchange`."""
    venue = HandDrivenExchange(**options)
    return venue, venue.desk

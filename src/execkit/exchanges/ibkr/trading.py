"""What changes the account: placing, cancelling, changing, and lists that TWS itself keeps together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeError,
    InvalidOrderError,
    MarketClosedError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
)
from execkit.exchanges.base import MarketPhase
from execkit.exchanges.ibkr.contracts import Contracts, Listed
from execkit.exchanges.ibkr.line import Line
from execkit.exchanges.ibkr.lookup import Lookup
from execkit.exchanges.ibkr.orders import Known
from execkit.exchanges.ibkr.requests import changed, order_of
from execkit.exchanges.ibkr.table import OrderTable
from execkit.model.order import (
    ListKind,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
)

_REST_OUTSIDE_HOURS: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)
"""What is sent although the market is closed: TWS holds it, and it protects from the open on."""


class Trading:
    """Sends each command once and waits for what the raw messages say of it.

    Nothing is sent while TWS is cut off from IBKR (1100): a change in that state has made two live orders of one.
    """

    def __init__(
        self,
        line: Line,
        contracts: Contracts,
        table: OrderTable,
        lookup: Lookup,
        *,
        now: Callable[[], datetime],
        order_timeout: float,
        queue_limit: float,
    ) -> None:
        self._line = line
        self._contracts = contracts
        self._table = table
        self._lookup = lookup
        self._now = now
        self._order_timeout = order_timeout
        self._queue_limit = queue_limit

    # -- placing ---------------------------------------------------------------------------------------

    async def place(self, request: OrderRequest) -> OrderReport:
        """Send one order, once."""
        self._refuse_repetition(request)
        listed = await self._admitted(request)
        order = self._order_of(request, listed)
        known = self._table.begin(request, listed)
        await self._send([(known, listed, order)])
        return await self._answer(known)

    def _order_of(self, request: OrderRequest, listed: Listed, **family: Any) -> Any:
        order_id = self._table.ids.reserve(request.client_order_id)
        return order_of(request, listed, account=self._table.account, order_id=order_id, **family)

    async def place_list(self, orders: OrderList) -> list[OrderReport]:
        """Send a family or an OCA group: the last message transmits all of a family at once."""
        for request in orders.orders:
            self._refuse_repetition(request)
        contracts = [await self._admitted(request) for request in orders.orders]
        has_parent = orders.kind is not ListKind.OCO
        parent_id = self._table.ids.reserve(orders.orders[0].client_order_id) if has_parent else 0
        sent = []
        for at, (request, listed) in enumerate(zip(orders.orders, contracts, strict=True)):
            is_parent = has_parent and at == 0
            order = self._order_of(
                request,
                listed,
                transmit=not has_parent or at == len(contracts) - 1,
                parent_id=0 if is_parent else parent_id,
                oca_group="" if is_parent or orders.kind is ListKind.OTO else orders.list_id,
            )
            sent.append((request, listed, order))
        legs = [
            (self._table.begin(request, listed), listed, order) for request, listed, order in sent
        ]
        await self._send(legs)
        knowns = [known for known, _listed, _order in legs]
        reports = await asyncio.gather(*map(self._leg, knowns))
        if has_parent and reports[-1].status is OrderState.REJECTED:
            # It was to transmit the others, which TWS now keeps for ever, for whoever transmits them by hand.
            taken_back = await asyncio.gather(*map(self._take_back, knowns[:-1]))
            return [*taken_back, reports[-1]]
        return reports

    async def _take_back(self, known: Known) -> OrderReport:
        """Cancel an order that was sent and never transmitted; what is not shown as cancelled stays in doubt."""
        if not known.has_ended:
            with suppress(ExchangeError):
                await self._send_cancel(known)
        return await self._leg(known, what="cancel")

    async def _leg(self, known: Known, what: str = "place") -> OrderReport:
        """Return what is known of one leg of a list, also when it failed."""
        try:
            if what == "place" or known.is_acknowledged:
                return await self._answer(known)
            raise OrderStatusUnknownError("it was sent and not transmitted", venue="ibkr")
        except ExchangeError as error:
            report = known.report()
            assert report is not None, "its terms are known"
            refused = isinstance(error, OrderRejectedError) and error.outcome_known
            status = OrderState.REJECTED if refused else OrderState.IN_DOUBT
            return replace(report, status=status, reason=str(error), code=error.code)

    def _refuse_repetition(self, request: OrderRequest) -> None:
        known = self._table.find(request.client_order_id)
        if known is not None and known.is_acknowledged:
            raise DuplicateClientOrderIdError(
                f"order {request.client_order_id} is at the venue already ({known.status}): look it up",
                venue="ibkr",
            )

    async def _admitted(self, request: OrderRequest) -> Listed:
        """Return the order's contract, or raise while nothing has been sent.

        The reads that this needs change nothing, so when they fail the order provably stays here.
        """
        link = self._line.sending
        try:
            listed = await self._contracts.find(request.symbol)
        except OrderRejectedError:
            raise
        except ExchangeError as error:
            raise _unsent(error) from error
        link.check_may_send()
        if request.type in _REST_OUTSIDE_HOURS:
            return listed
        self._contracts.refresh(listed)
        status = listed.status(self._now())
        if not status.is_open:
            # Hours reach a few days: what is said to be closed may only be old.
            try:
                listed = await self._contracts.find(request.symbol, fresh=True)
            except ExchangeError as error:
                raise _unsent(error) from error
            status = listed.status(self._now())
        in_extended = request.extended_hours and status.phase in (
            MarketPhase.PRE,
            MarketPhase.AFTER,
        )
        if not status.is_open and not in_extended:
            opens = (
                ""
                if status.next_open is None
                else f"; it opens at {status.next_open:%Y-%m-%d %H:%M} UTC"
            )
            raise MarketClosedError(
                f"{request.symbol} is closed, nothing was sent ({status.reason}){opens}",
                venue="ibkr",
            )
        return listed

    async def _send(self, legs: Sequence[tuple[Known, Listed, Any]]) -> None:
        """Hand all legs to the socket in one step, so that either all of them leave or none."""
        link = self._line.sending
        await link.turns(self._queue_limit, len(legs))
        self._number(legs)
        for known, _listed, _order in legs:
            known.sends += 1
            known.asking.add("place")
        try:
            link.send(
                lambda client: [
                    client.placeOrder(order.orderId, listed.contract, order)
                    for _known, listed, order in legs
                ]
            )
        except ExchangeError:
            for known, _listed, _order in legs:
                known.sends -= 1
                known.asking.discard("place")
            raise

    def _number(self, legs: Sequence[tuple[Known, Listed, Any]]) -> None:
        """Give each order the id that it is sent with, and children that of their parent."""
        numbers = {0: 0}
        for known, _listed, order in legs:
            order_id = self._table.ids.at_send(known.ref, is_first=not known.sends)
            numbers[order.orderId] = order_id
            order.orderId, order.parentId = order_id, numbers.get(order.parentId, order.parentId)
            self._table.enter_id(known, order_id)

    async def _answer(self, known: Known) -> OrderReport:
        try:
            await self._table.until(
                known, "place", lambda: known.is_acknowledged, self._order_timeout
            )
        except InvalidOrderError:
            self._contracts.forget(known.symbol)
            raise
        finally:
            known.asking.discard("place")
        if known.refusal and not known.executions:
            # The error went to whoever asked first, or a status has confirmed it only now.
            raise known.refused or OrderRejectedError(known.refusal, venue="ibkr", code=known.code)
        return await self._told(known)

    async def _told(self, known: Known) -> OrderReport:
        """Return an order with its executions, each with its commission where that comes in time."""
        await self._table.ripen([known])
        report = self._table.report(known)
        assert report is not None, "its terms are known"
        return report

    # -- cancelling and changing -----------------------------------------------------------------------

    async def cancel(self, client_order_id: str, venue_order_id: str | None) -> OrderReport:
        """Ask to cancel; on return it is cancelled, executed, or its cancel is pending."""
        known = await self._found(client_order_id, venue_order_id)
        if known.has_ended:
            return await self._told(known)
        await self._send_cancel(known)
        return await self._told(known)

    async def _send_cancel(self, known: Known) -> None:
        link = self._line.sending
        await link.turns(self._queue_limit, 1)
        known.asking.add("cancel")
        try:
            link.send(lambda client: client.cancelOrder(known.order_id))
            await self._table.until(
                known,
                "cancel",
                lambda: known.has_ended or known.state is OrderState.PENDING_CANCEL,
                self._order_timeout,
            )
        finally:
            known.asking.discard("cancel")

    def may_cancel(self, report: OrderReport) -> bool:
        """Tell whether this API client has placed an order."""
        known = self._table.find(report.client_order_id, report.venue_order_id)
        return known is not None and self._table.is_mine(known)

    async def amend(
        self,
        symbol: str,
        client_order_id: str,
        venue_order_id: str | None,
        *,
        quantity: Decimal | None,
        limit_price: Decimal | None,
        stop_price: Decimal | None,
    ) -> OrderReport:
        """Change a live order by sending a copy of it with other values; a refusal leaves the original live."""
        known = await self._found(client_order_id, venue_order_id)
        if known.type is OrderType.TRAILING_STOP and not known.has_ended:
            # Where it stands now: the copy states its stop, and an old one would take back what it has gained.
            known = await self._lookup.find(client_order_id, venue_order_id)
        if known.has_ended or known.shown is None:
            raise OrderNotFoundError(f"order {client_order_id} is not live", venue="ibkr")
        listed = await self._contracts.find(symbol)
        order = changed(
            known.shown, listed, quantity=quantity, limit_price=limit_price, stop_price=stop_price
        )
        link = self._line.sending
        await link.turns(self._queue_limit, 1)
        known.asking.add("amend")
        try:
            link.send(lambda client: client.placeOrder(known.order_id, listed.contract, order))
            await self._table.until(
                known,
                "amend",
                lambda: known.has_ended or _shows(known, quantity, limit_price, stop_price),
                self._order_timeout,
            )
        finally:
            known.asking.discard("amend")
        return await self._told(known)

    async def _found(self, client_order_id: str, venue_order_id: str | None) -> Known:
        """Return an order that this client may cancel, looking it up where it is not known."""
        known = self._table.find(client_order_id, venue_order_id)
        if known is None or not (known.is_acknowledged or known.perm_id):
            known = await self._lookup.find(client_order_id, venue_order_id)
        if not known.has_ended and not self._table.is_mine(known):
            raise OrderStatusUnknownError(
                f"order {known.perm_id} was placed by API client {known.client_id}, and only that one can cancel or "
                f"change it; connect with client_id={known.client_id}",
                venue="ibkr",
            )
        return known


def _shows(
    known: Known, quantity: Decimal | None, limit_price: Decimal | None, stop_price: Decimal | None
) -> bool:
    pairs = ((quantity, known.quantity), (limit_price, known.limit), (stop_price, known.stop))
    return all(asked is None or asked == shown for asked, shown in pairs)


def _unsent(error: ExchangeError) -> ExchangeError:
    return NotSentError(f"not sent: {error}", venue="ibkr", code=error.code)

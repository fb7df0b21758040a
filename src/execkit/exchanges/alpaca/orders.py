"""Reading orders at Alpaca: by our id or by its own, through all their versions, with the legs of lists."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from execkit.errors import OrderNotFoundError
from execkit.exchanges.alpaca.chains import REMEMBERED, Chains, ListRecord, Name, named
from execkit.exchanges.alpaca.decode import (
    REPLACED,
    OrderRow,
    is_option,
    is_tradeable_here,
    read_activity,
    read_order,
)
from execkit.exchanges.alpaca.values import BadAnswerError, in_path
from execkit.exchanges.ccxt.values import rows
from execkit.ids import is_ours
from execkit.model.order import Fill, OrderReport, OrderState, OrderType

Ask = Callable[[str, Mapping[str, str] | None], Awaitable[Any]]
"""Reads from a path of the trading host."""

_PAGE: Final = 500
_FILL_PAGE: Final = 100
_MOST_PAGES: Final = 200
_MOST_VERSIONS: Final = 50
_TICK: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)


class OrderReads:
    """Asks for orders and executions, and keeps track of the names they are known by."""

    def __init__(self, ask: Ask, chains: Chains) -> None:
        self._ask = ask
        self.chains = chains
        self._lists: dict[str, ListRecord] = {}
        """By the client order id of each leg."""

    # -- one order ---------------------------------------------------------------------------------------

    async def get(
        self, symbol: str, client_order_id: str, venue_order_id: str | None
    ) -> OrderReport:
        """Return an order in its newest version."""
        if venue_order_id is not None:
            return await self._get_by_venue_id(client_order_id, venue_order_id)
        record = self._lists.get(client_order_id)
        if record is not None:
            return await self._in_list(await self._by_client_id(record.wire_id), client_order_id)
        try:
            row = await self._by_client_id(client_order_id)
        except OrderNotFoundError:
            found = await self._listed_with(symbol, client_order_id)
            if found is None:
                raise
            return await self._in_list(found, client_order_id)
        return await self.newest(row)

    async def _by_client_id(self, wire_id: str) -> OrderRow:
        query = {"client_order_id": wire_id}
        row = read_order(await self._ask("/v2/orders:by_client_order_id", query))
        if row.client_id != wire_id:
            raise BadAnswerError("the answer is about another order")
        return row

    async def _listed_with(self, symbol: str, client_order_id: str) -> OrderRow | None:
        """Return the list among the latest orders of a symbol that an order of ours is part of."""
        params = {"status": "all", "limit": str(_PAGE), "direction": "desc", "nested": "true"}
        listed = rows(await self._ask("/v2/orders", params | {"symbols": symbol}), "the orders")
        for body in listed:
            record = ListRecord.of(str(body.get("client_order_id")))
            if record is not None and client_order_id in record.ids:
                return read_order(body)
        return None

    async def _in_list(self, row: OrderRow, client_order_id: str) -> OrderReport:
        """Return the report of one order of a list, from the row of the list."""
        record = ListRecord.of(row.client_id)
        if record is None:
            raise BadAnswerError("the answer is about no list")
        if not row.legs:
            row = await self.row(row.order_id, nested=True)
        legs = self.legs_of(row, record)
        if client_order_id == record.root:
            return await self.newest(row)
        if client_order_id not in legs:
            raise BadAnswerError("a list without one of its legs")
        return legs[client_order_id]

    async def _get_by_venue_id(self, client_order_id: str, venue_order_id: str) -> OrderReport:
        known = self.chains.known(venue_order_id)
        if known is not None:
            return await self.newest(await self.row(self.chains.newest(known.venue_order_id)))
        row = await self.row(venue_order_id)
        if not is_ours(row.client_id[:26]):
            # A leg of a list of an earlier process: Alpaca named it, its own id proves what it is.
            self.chains.alias(venue_order_id, client_order_id)
        elif row.client_id[:26] != client_order_id[:26]:
            raise BadAnswerError("the answer is about another order")
        return await self.newest(row)

    async def row(self, venue_order_id: str, *, nested: bool = False) -> OrderRow:
        """Return one version of an order."""
        path = f"/v2/orders/{in_path(venue_order_id)}"
        row = read_order(await self._ask(path, {"nested": "true"} if nested else None))
        if row.order_id != venue_order_id:
            raise BadAnswerError("the answer is about another order")
        return row

    async def newest(self, row: OrderRow) -> OrderReport:
        """Return the report of the order that a row belongs to, following what it was replaced by."""
        name = await self.name_of(row)
        for _ in range(_MOST_VERSIONS):
            report = self.chains.take(row, name)
            if report is not None:
                return report
            if row.is_refused_change and row.replaces is not None:
                before = await self.row(row.replaces)
                if before.raw_status == REPLACED:
                    return row.as_order(name.client_order_id, name.venue_order_id)
                row = before
                continue
            if row.replaced_by is None:
                doubtful = row.as_order(name.client_order_id, name.venue_order_id)
                return msgspec.structs.replace(doubtful, status=OrderState.IN_DOUBT)
            row = await self.row(row.replaced_by)
        raise BadAnswerError("an order with no end of versions")

    async def name_of(self, row: OrderRow) -> Name:
        """Return how an order is known, going back to its first version where that was not seen yet."""
        unseen: list[OrderRow] = []
        first = row
        while (name := self.chains.name_of(first)) is None:
            assert first.replaces is not None, "the first version has a name"
            unseen.append(first)
            if len(unseen) > _MOST_VERSIONS:
                raise BadAnswerError("an order with no end of versions")
            first = await self.row(first.replaces)
        for each in (first, *reversed(unseen)):
            self.chains.take(each, name)
        return name

    # -- lists -------------------------------------------------------------------------------------------

    def expect_list(self, record: ListRecord) -> None:
        """Remember a list before it is sent, so that its orders can be found whatever becomes of the answer."""
        for each in record.ids:
            self._lists[each] = record
        while len(self._lists) > REMEMBERED:
            del self._lists[next(iter(self._lists))]

    def forget_list(self, record: ListRecord) -> None:
        """Forget a list that was refused."""
        for each in record.ids:
            self._lists.pop(each, None)

    def legs_of(self, row: OrderRow, record: ListRecord) -> dict[str, OrderReport]:
        """Return the reports of a list's legs by our ids."""
        found = {}
        for leg in row.legs:
            ours = record.target if leg.report.type is OrderType.LIMIT else record.stop
            if ours is None or ours == record.root:
                continue
            self.chains.alias(leg.order_id, ours)
            name = self.chains.name_of(leg)
            report = None if name is None else self.chains.take(leg, name)
            if report is not None:
                found[ours] = report
        return found

    # -- many orders, and executions -----------------------------------------------------------------------

    async def open_orders(self, symbol: str | None) -> list[OrderReport]:
        """Return every open order of the account.

        Alpaca lists the legs of a list whose first order has ended only when it is not asked for lists, and those of
        them that are held not at all; so it is asked in both ways, and for the lists that such legs are part of.
        """
        params = {"status": "open", "limit": str(_PAGE), "direction": "asc"}
        if symbol is not None:
            params["symbols"] = symbol
        found = await self._pages(params | {"nested": "true"})
        legs = {leg.order_id for row in found.values() for leg in row.legs}
        alone = await self._pages(params)
        apart = {key: row for key, row in alone.items() if key not in found.keys() | legs}
        for each in sorted({row.report.symbol for row in apart.values() if row.is_listed}):
            for parent in await self._lists_of(each):
                if not apart.keys().isdisjoint(leg.order_id for leg in parent.legs):
                    found[parent.order_id] = parent
                    for leg in parent.legs:
                        apart.pop(leg.order_id, None)
        found |= apart
        return [report for row in found.values() for report in await self._reports_of(row)]

    async def _lists_of(self, symbol: str) -> list[OrderRow]:
        """Return the lists among the latest orders of a symbol, whether they have ended or not."""
        params = {"status": "all", "limit": str(_PAGE), "direction": "desc", "nested": "true"}
        listed = rows(await self._ask("/v2/orders", params | {"symbols": symbol}), "the orders")
        return [read_order(body) for body in listed if body.get("legs")]

    async def _pages(self, params: dict[str, str]) -> dict[str, OrderRow]:
        """Return all rows of a list of orders by their ids."""
        params = dict(params)
        found: dict[str, OrderRow] = {}
        for _ in range(_MOST_PAGES):
            listed = rows(await self._ask("/v2/orders", params), "the orders")
            before = len(found)
            page = [read_order(row) for row in listed if is_tradeable_here(row)]
            found |= {row.order_id: row for row in page}
            if len(listed) < _PAGE:
                return found
            last = page[-1].submitted_at if page else None
            if last is None or len(found) == before:
                raise BadAnswerError("the list of open orders does not go on")
            # Orders of one moment may stand on both sides of the border.
            params["after"] = (last - _TICK).isoformat().replace("+00:00", "Z")
        raise BadAnswerError("the list of open orders has no end")

    async def _reports_of(self, row: OrderRow) -> list[OrderReport]:
        """Return the reports of an open order and of its open legs."""
        name = await self.name_of(row)
        reports = [self.chains.take(row, name) or await self.newest(row)]
        record = ListRecord.of(row.client_id)
        if record is not None:
            reports += self.legs_of(row, record).values()
        else:
            reports += [await self.newest(leg) for leg in row.legs]
        return [report for report in reports if not report.status.is_closed]

    async def fills_since(self, since: datetime, symbol: str | None) -> list[Fill]:
        """Return the executions at or after a moment, oldest first."""
        params = {
            "after": (since - _SECOND).isoformat().replace("+00:00", "Z"),
            "direction": "asc",
            "page_size": str(_FILL_PAGE),
        }
        found: dict[str, Fill] = {}
        for _ in range(_MOST_PAGES):
            listed = rows(await self._ask("/v2/account/activities/FILL", params), "the activities")
            for row in listed:
                if is_option(row):
                    continue
                fill = read_activity(row)
                if fill.at >= since and symbol in (None, fill.symbol):
                    found[fill.trade_id] = fill
            if len(listed) < _FILL_PAGE:
                break
            params["page_token"] = str(listed[-1].get("id"))
        else:
            raise BadAnswerError("the list of executions has no end")
        ordered = sorted(found.values(), key=lambda fill: fill.at)
        return [await self._named(fill) for fill in ordered]

    async def _named(self, fill: Fill) -> Fill:
        """Return an execution under our id; one of an order that cannot be read keeps Alpaca's id alone."""
        name = self.chains.known(fill.venue_order_id)
        if name is None:
            # An execution that is real must not be withheld because its order cannot be read.
            with contextlib.suppress(OrderNotFoundError):
                name = await self.name_of(await self.row(fill.venue_order_id))
        return fill if name is None else named(fill, name)

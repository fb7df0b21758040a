"""What asks: orders, executions, positions and balances. A question that fails raises; it is never an empty answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from ib_async.objects import ExecutionFilter

from execkit.errors import ExchangeUnavailableError, OrderNotFoundError
from execkit.exchanges.ibkr.contracts import Contracts, base_of
from execkit.exchanges.ibkr.line import Line
from execkit.exchanges.ibkr.link import Link
from execkit.exchanges.ibkr.orders import Known
from execkit.exchanges.ibkr.raw import exact
from execkit.exchanges.ibkr.seen import (
    ExecutionSeen,
    HoldingSeen,
    OrderSeen,
    PositionSeen,
    ValueSeen,
)
from execkit.exchanges.ibkr.table import OrderTable
from execkit.model.account import Balance, VenuePosition
from execkit.model.order import Fill, OrderReport
from execkit.numbers import MONEY, ZERO

_BASE: Final = "BASE"
"""The account's own currency summed over all others; no holding."""


class Lookup:
    """Questions about one account."""

    def __init__(self, line: Line, contracts: Contracts, table: OrderTable) -> None:
        self._line = line
        self._contracts = contracts
        self._table = table

    # -- orders ----------------------------------------------------------------------------------------

    async def synchronise(self, link: Link) -> None:
        """Read over a new connection what is open and what was executed today.

        TWS may list open orders by itself, right after the connection was made. So its time is asked for first: the
        end of that list must not pass for the end of the one that is asked for then.
        """
        await link.ask_shared("time", lambda client: client.reqCurrentTime())
        orders = await self._open_rows(link)
        executions = await self._execution_rows(link)
        await self._learn(link, [*orders, *executions])

    async def _learn(
        self, link: Link, rows: Sequence[OrderSeen | ExecutionSeen | PositionSeen | HoldingSeen]
    ) -> None:
        await self._contracts.learn(link, [row.contract for row in rows])
        self._table.name_and_tell()

    async def open_orders(self) -> list[OrderReport]:
        """Return every open order of the account, whoever has placed it."""
        found = await self._open(self._line.link)
        return [report for known in found if (report := self._table.report(known)) is not None]

    async def _open(self, link: Link) -> list[Known]:
        rows = await self._open_rows(link)
        await self._learn(link, rows)
        knowns = {id(known): known for known in map(self._table.of, rows)}.values()
        for known in knowns:
            if known.undead:
                known.revive()
        return [known for known in knowns if not known.has_ended]

    async def _open_rows(self, link: Link) -> list[OrderSeen]:
        rows = await link.ask_shared("open_orders", lambda client: client.reqAllOpenOrders())
        return [row for row in rows if self._table.is_ours(row.account)]

    async def _execution_rows(self, link: Link) -> list[ExecutionSeen]:
        today = ExecutionFilter(acctCode=self._table.account)
        rows = await link.ask(lambda client, key: client.reqExecutions(key, today))
        return [row for row in rows if self._table.is_ours(row.account)]

    async def get(self, client_order_id: str, venue_order_id: str | None) -> OrderReport:
        """Return one order; `OrderNotFoundError` only when open orders, executions and completed orders all lack it."""
        known = await self.find(client_order_id, venue_order_id)
        await self._table.ripen([known])
        report = self._table.report(known)
        if report is None or not (report.venue_order_id or known.refusal):
            text = f"TWS shows executions of order {client_order_id}, but not its terms"
            raise ExchangeUnavailableError(text, venue="ibkr")
        return report

    async def find(self, client_order_id: str, venue_order_id: str | None) -> Known:
        """Return an order as the venue shows it now; of one that has ended what it has shown already."""
        known = self._table.find(client_order_id, venue_order_id)
        is_over = known is not None and known.has_ended and not known.undead
        if known is not None and is_over and known.executed >= known.filled_now:
            return known
        link = self._line.link
        was_executed = False
        for ask in (self._open, self._executed, self._completed):
            for found in await ask(link):
                if not _is(found, client_order_id, venue_order_id):
                    continue
                if ask != self._executed or found.has_ended:
                    return found
                was_executed = True
        if was_executed:
            text = f"order {client_order_id} has executions, and TWS shows it neither open nor completed"
            raise ExchangeUnavailableError(text, venue="ibkr")
        raise OrderNotFoundError(
            f"order {client_order_id} is neither open nor completed, and has no executions today",
            venue="ibkr",
        )

    async def _executed(self, link: Link) -> list[Known]:
        """Return the orders that have executions today; whether they have ended is for the other two to say."""
        rows = await self._execution_rows(link)
        await self._learn(link, rows)
        return [self._table.of(row) for row in rows]

    async def _completed(self, link: Link) -> list[Known]:
        rows = await link.ask_shared(
            "completed_orders", lambda client: client.reqCompletedOrders(False)
        )
        rows = [row for row in rows if self._table.is_ours(row.account)]
        await self._learn(link, rows)
        for row in rows:
            self._table.on_order(row)
        return [self._table.of(row) for row in rows]

    async def fills_since(self, since: datetime) -> list[Fill]:
        """Return today's executions at or after a time, with their commissions where these come in time."""
        link = self._line.link
        rows = await self._execution_rows(link)
        await self._learn(link, rows)
        knowns = self._table.every()
        await self._table.ripen(knowns)
        fills = [fill for known in knowns for fill in self._table.fills(known) if fill.at >= since]
        return sorted(fills, key=lambda fill: (fill.at, fill.trade_id))

    # -- the account -----------------------------------------------------------------------------------

    async def positions(self) -> list[VenuePosition]:
        """Return all net positions."""
        account = self._table.account
        link = self._line.link
        rows: Sequence[PositionSeen] = await link.ask(
            lambda client, key: client.reqPositionsMulti(key, account, ""),
            end=lambda client, key: client.cancelPositionsMulti(key),
        )
        await self._learn(link, rows)
        found: dict[str, VenuePosition] = {}
        for row in rows:
            if row.account != account:
                continue
            units = self._contracts.units(row.contract)
            symbol = self._contracts.name(row.contract)
            quantity = MONEY.multiply(row.quantity, units)
            found[symbol] = VenuePosition(symbol, quantity, round(row.cost / units, 8))
        return [position for position in found.values() if position.quantity]

    async def balances(self) -> dict[str, Balance]:
        """Return cash by currency and holdings, as if futures had been paid for in full: so do the books count.

        TWS keeps the gains and losses of futures in its cash balance and nothing of their notional. Less what they are
        worth, cash and holdings add up to the equity. Of cash no more is free than the available funds.
        """
        account, link = self._table.account, self._line.link
        rows: Sequence[ValueSeen | HoldingSeen] = await link.ask_shared(
            "account",
            lambda client: client.reqAccountUpdates(True, account),
            end=lambda client: client.reqAccountUpdates(False, account),
        )
        rows = [row for row in rows if self._table.is_ours(row.account)]
        values = [row for row in rows if isinstance(row, ValueSeen)]
        cash = {
            row.currency: _money(row)
            for row in values
            if row.tag == "CashBalance" and row.currency != _BASE
        }
        if not cash:
            raise ExchangeUnavailableError(
                "TWS states no cash balance of the account", venue="ibkr"
            )
        funds = {row.currency: _money(row) for row in values if row.tag == "AvailableFunds"}
        holdings = [row for row in rows if isinstance(row, HoldingSeen) and row.quantity]
        await self._learn(link, holdings)
        held: dict[str, Decimal] = {}
        for row in holdings:
            if row.contract.secType == "CASH":
                continue  # its currencies are in the cash
            if row.contract.secType == "FUT":
                currency = row.contract.currency
                cash[currency] = MONEY.subtract(cash.get(currency, ZERO), row.worth)
            quantity = MONEY.multiply(row.quantity, self._contracts.units(row.contract))
            base = base_of(self._contracts.name(row.contract), row.contract)
            held[base] = MONEY.add(held.get(base, ZERO), quantity)
        found = {each: Balance(each, total, max(ZERO, total)) for each, total in held.items()}
        return found | {
            each: Balance(each, total, _free(total, funds.get(each)))
            for each, total in cash.items()
        }


def _money(row: ValueSeen) -> Decimal:
    try:
        return exact(row.text)
    except ValueError as error:
        text = f"TWS states no number as {row.tag} in {row.currency}: {error}"
        raise ExchangeUnavailableError(text, venue="ibkr") from None


def _free(total: Decimal, funds: Decimal | None) -> Decimal:
    return max(ZERO, total if funds is None else min(total, funds))


def _is(known: Known, client_order_id: str, venue_order_id: str | None) -> bool:
    if venue_order_id and known.perm_id:
        return venue_order_id == str(known.perm_id)
    return bool(client_order_id) and known.ref == client_order_id

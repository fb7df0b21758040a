"""The order side of an account at any venue of ccxt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from execkit.errors import (
    InvalidOrderError,
    MarketClosedError,
    OrderNotFoundError,
    UnsupportedFeatureError,
)
from execkit.exchanges.ccxt.base import CCXTBase
from execkit.exchanges.ccxt.capabilities import buys_by_cost, can_post_only, features_of
from execkit.exchanges.ccxt.rules import check_rules, compare, reduces
from execkit.exchanges.ccxt.unified import is_whole, read_each, read_fill, read_order
from execkit.exchanges.ccxt.values import (
    BadAnswerError,
    OtherOrderError,
    identifier,
    mapping,
    milliseconds,
    moment,
    rows,
)
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.numbers import MONEY, ONE, plain

_READ_BACK: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses before looking for an order that was acknowledged by its id only."""
_PAGE: Final = 100
_MOST_PAGES: Final = 100
_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT)


class CCXTOrders(CCXTBase):
    """Orders by ccxt's unified methods."""

    _sizes: dict[str, Decimal]
    """Size of a contract by symbol; one where quantities are in base units anyway."""
    _used: dict[str, None]

    def _size_of(self, symbol: str) -> Decimal:
        found = self._sizes.get(symbol)
        if found is None:
            raise BadAnswerError("a market that is not traded here")
        return found

    def _use(self, symbol: str) -> None:
        self._rules(symbol)
        self._used[symbol] = None

    # -- placing -----------------------------------------------------------------------------------------

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Send one order, once. What the market's rules forbid is refused here, and nothing is sent."""
        self._use(request.symbol)
        lacking = self.capabilities.unsupported(request)
        if lacking is None and request.post_only and not can_post_only(self._client, self.market):
            lacking = "post-only orders"
        is_priceless = request.type in (OrderType.MARKET, OrderType.STOP)
        if is_priceless and request.side is Side.BUY and buys_by_cost(self._client, self.market):
            lacking = "market buys by quantity; use a limit order, IOC where the venue has it"
        if lacking is not None:
            raise InvalidOrderError(f"{self.name}: no {lacking}", venue=self.name)
        rules = self._rules(request.symbol)
        if not rules.tradeable and not reduces(request):
            rules = await self._renewed(request.symbol)
        check_rules(rules, request)
        try:
            return await self._tell(self._place(request))
        except (InvalidOrderError, MarketClosedError) as error:
            if error.code is not None:
                # Said by the venue: the next try is to be made by its rules of now.
                await self._renewed(request.symbol)
            raise

    async def _place(self, request: OrderRequest) -> OrderReport:
        size = self._size_of(request.symbol)
        is_limit = request.type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
        price = request.limit_price if is_limit else None
        body = mapping(
            await self._client.create_order(
                request.symbol,
                "limit" if is_limit else "market",
                request.side.value,
                plain(request.quantity if size == ONE else MONEY.divide(request.quantity, size)),
                None if price is None else plain(price),
                self._params(request, is_limit=is_limit),
            )
        )
        if is_whole(body):
            report = self._read(body)
        else:
            if body.get("clientOrderId") not in (None, request.client_order_id):
                raise OtherOrderError("the answer names another order")
            back = self._read_back(request, identifier(body, "id"))
            report = await self._afterwards(back)
        compare(report, request)
        return report

    def _params(self, request: OrderRequest, *, is_limit: bool) -> dict[str, Any]:
        params: dict[str, Any] = {"clientOrderId": request.client_order_id}
        if is_limit:
            params["timeInForce"] = request.time_in_force.upper()
        if request.post_only:
            params |= {"postOnly": True, "timeInForce": "PO"}
        if request.reduce_only and self.capabilities.reduce_only:
            params["reduceOnly"] = True
        if request.type in _STOPS and request.stop_price is not None:
            params["triggerPrice"] = plain(request.stop_price)
            if features_of(self._client, self.market).get("triggerDirection"):
                rises = request.side is Side.BUY
                params["triggerDirection"] = "ascending" if rises else "descending"
        if request.type is OrderType.MARKET and request.time_in_force is not TimeInForce.GTC:
            params["timeInForce"] = request.time_in_force.upper()
        return params

    async def _read_back(self, request: OrderRequest, venue_id: str) -> OrderReport:
        """Look an order up that was acknowledged by its id only: an acknowledgement does not say that it lives."""
        for pause in _READ_BACK:
            await asyncio.sleep(pause)
            try:
                return await self._look_up(request.symbol, request.client_order_id, venue_id)
            except OrderNotFoundError:
                continue
        raise BadAnswerError("the order was acknowledged and does not show")

    def _read(self, body: Any) -> OrderReport:
        report = read_order(body, self._size_of)
        if not report.client_order_id:
            known = self._client_ids.get(report.venue_order_id, "")
            report = replace(report, client_order_id=known)
        self._remember(report.venue_order_id, report.client_order_id)
        return report

    # -- cancelling and changing -------------------------------------------------------------------------

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Ask to cancel one order. The venue's own id is used; one that is not known is looked up first."""
        self._use(symbol)
        before = None
        if venue_order_id is None or self._dialect.client_id_param is not None:
            # Also because some venues answer a cancel with the id only, and need to know whether it is a stop.
            before = await self.get_order(
                symbol, client_order_id=client_order_id, venue_order_id=venue_order_id
            )
            if before.status.is_closed:
                raise OrderNotFoundError(
                    f"{self.name}: the order has ended already", venue=self.name
                )
            venue_order_id = before.venue_order_id
        return await self._tell(self._cancel(symbol, client_order_id, venue_order_id, before))

    async def _cancel(
        self, symbol: str, client_id: str, venue_id: str, before: OrderReport | None
    ) -> OrderReport:
        params = {"trigger": True} if before is not None and before.type in _STOPS else {}
        body = mapping(await self._client.cancel_order(venue_id, symbol, params))
        if is_whole(body):
            return self._read(body)
        if before is None:
            return await self._afterwards(self._look_up(symbol, client_id, venue_id))
        return replace(before, status=OrderState.PENDING_CANCEL)

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
        """Change quantity or limit of a resting order in place, where the venue can."""
        self._use(symbol)
        if not self.capabilities.amend or stop_price is not None:
            raise UnsupportedFeatureError(
                f"{self.name}: cannot change such an order; cancel it and place a new one"
            )
        now = await self.get_order(
            symbol, client_order_id=client_order_id, venue_order_id=venue_order_id
        )
        if now.status.is_closed:
            raise OrderNotFoundError(f"{self.name}: the order has ended already", venue=self.name)
        size = self._size_of(symbol)
        wanted = now.quantity if quantity is None else quantity
        price = now.limit_price if limit_price is None else limit_price

        async def change() -> OrderReport:
            await self._client.edit_order(
                now.venue_order_id,
                symbol,
                "limit",
                now.side.value,
                plain(MONEY.divide(wanted, size)),
                None if price is None else plain(price),
            )
            return await self._afterwards(
                self._look_up(symbol, client_order_id, now.venue_order_id)
            )

        return await self._tell(change())

    # -- looking up --------------------------------------------------------------------------------------

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order. Without the venue's id it is found where the venue can be asked by ours."""
        self._use(symbol)
        return await self._ask(self._look_up(symbol, client_order_id, venue_order_id))

    async def _look_up(self, symbol: str, client_id: str, venue_id: str | None) -> OrderReport:
        found = await self._find(symbol, client_id, venue_id)
        if found is None:
            raise OrderNotFoundError(f"{self.name}: no such order", venue=self.name)
        report = self._read(found)
        if not report.client_order_id and venue_id:
            report = replace(report, client_order_id=client_id)
        if client_id and report.client_order_id != client_id:
            raise BadAnswerError("the answer is about another order")
        if venue_id and report.venue_order_id != venue_id:
            raise BadAnswerError("the answer is about another order")
        return report

    async def _find(self, symbol: str, client_id: str, venue_id: str | None) -> Any:
        param = self._dialect.client_id_param
        if param is not None:
            named = {"orderId": venue_id} if venue_id else {param: client_id}
            for reading in (
                self._client.fetch_open_orders,
                self._client.fetch_canceled_and_closed_orders,
            ):
                for extra in ({}, {"trigger": True}):
                    orders = rows(await reading(symbol, None, None, {**named, **extra}))
                    if orders:
                        return orders[0]
            return None
        if venue_id:
            return await self._client.fetch_order(venue_id, symbol)
        for order in rows(await self._client.fetch_open_orders(symbol)):
            if order.get("clientOrderId") == client_id:
                return order
        return None

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return every open order of the market kind."""
        if symbol is not None:
            self._use(symbol)

        async def load() -> list[OrderReport]:
            extras: tuple[dict[str, Any], ...] = ({},)
            if OrderType.STOP in self.capabilities.order_types:
                extras = ({}, {"trigger": True})
            found: dict[str, OrderReport] = {}
            for extra in extras:
                body = rows(await self._client.fetch_open_orders(symbol, None, None, extra))
                listed = self._outside.listed(body, self._sizes, "order")
                reports = read_each(self.name, listed, self._read)
                found |= {report.venue_order_id: report for report in reports}
            return list(found.values())

        reports = await self._ask(load())
        self._used |= dict.fromkeys(report.symbol for report in reports)
        return reports

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return executions, a page at a time, however the venue orders and pages them.

        A venue with a cursor is followed by it. Elsewhere a full page may miss what is newer than it or what is older,
        so both are asked for; the latter only where ccxt can bound the time. Too many pages are an error, not the end.
        """
        if symbol is not None:
            self._use(symbol)

        async def load() -> list[Fill]:
            most = features_of(self._client, self.market, "fetchMyTrades").get("untilDays")
            spans = [(start, end, "") for start, end in _spans(since, self.clock.now(), most)]
            found: dict[str, Fill] = {}
            seen: set[str] = set()
            for _ in range(_MOST_PAGES):
                if not spans:
                    return [fill for fill in found.values() if fill.at >= since]
                start, end, cursor = spans.pop()
                params: dict[str, Any] = {"cursor": cursor} if cursor else {}
                if end is not None:
                    params["until"] = milliseconds(end)
                body = rows(
                    await self._client.fetch_my_trades(symbol, milliseconds(start), _PAGE, params)
                )
                listed = self._outside.listed(body, self._sizes, "execution")
                page = [self._read_fill(row) for row in listed]
                found |= {fill.trade_id: fill for fill in page}
                news = {identifier(row, "id") for row in body} - seen
                seen |= news
                if following := _cursor(body):
                    spans.append((start, end, following))
                elif len(body) >= _PAGE:
                    if not news:
                        raise BadAnswerError("more executions at one time than a page has")
                    times = [moment(row, "timestamp") for row in body]
                    spans.append((max(start, *times), end, ""))
                    if most:
                        spans.append((start, min(times), ""))
            raise BadAnswerError(f"the executions have more than {_MOST_PAGES} pages")

        return sorted(await self._ask(load()), key=lambda fill: (fill.at, fill.trade_id))

    def _read_fill(self, row: Any) -> Fill:
        return read_fill(row, self._size_of, lambda key: self._client_ids.get(key, ""))


def _spans(
    since: datetime, now: datetime, most_days: Any
) -> list[tuple[datetime, datetime | None]]:
    """Return the spans of time to ask for, none longer than the venue takes; the newest, which is open, first."""
    if not most_days:
        return [(since, None)]
    longest, starts = timedelta(days=int(most_days)), [since]
    while now - starts[-1] > longest:
        starts.append(starts[-1] + longest)
    return list(zip(starts, [*starts[1:], None], strict=True))[::-1]


def _cursor(body: Sequence[Mapping[str, Any]]) -> str:
    """Return where the next page begins: ccxt leaves it in the raw form of a row."""
    raw = (row.get("info") for row in body)
    found = (each.get("nextPageCursor") for each in raw if isinstance(each, Mapping))
    return next((each for each in found if isinstance(each, str) and each), "")

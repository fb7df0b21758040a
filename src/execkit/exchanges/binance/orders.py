"""Orders at Binance: placing, cancelling, changing, looking up, and their executions."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from execkit.errors import (
    ExchangeError,
    InvalidOrderError,
    OrderNotFoundError,
    UnsupportedFeatureError,
)
from execkit.exchanges.binance import decode, requests
from execkit.exchanges.binance.codes import FILTERS
from execkit.exchanges.binance.core import BinanceCore
from execkit.exchanges.binance.markets import Market, check
from execkit.exchanges.ccxt.dialect import RefusedError
from execkit.exchanges.ccxt.rules import compare, reduces
from execkit.exchanges.ccxt.unified import read_each
from execkit.exchanges.ccxt.values import (
    BadAnswerError,
    OtherOrderError,
    identifier,
    mapping,
    milliseconds,
    rows,
)
from execkit.model.order import Fill, OrderList, OrderReport, OrderRequest, OrderState
from execkit.numbers import ZERO, plain

T = TypeVar("T")

_PAGE: Final = 1000
_FUTURES_WINDOW: Final = timedelta(days=6)
"""Futures list the executions of at most seven days at once."""
_REFERENCE_LASTS: Final = timedelta(seconds=60)


class BinanceOrders(BinanceCore):
    """The order side of an account."""

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Send one order, once. What Binance's filters forbid is refused here, and nothing is sent."""
        market = self._market(request.symbol)
        lacking = self._capabilities.unsupported(request)
        if lacking is not None:
            raise InvalidOrderError(f"{self.name}: no {lacking}", venue=self.name)
        market = await self._checked(market, request)
        return await self._by_rules(market, self._place(request, market.id))

    async def _checked(self, market: Market, request: OrderRequest) -> Market:
        """Return the market after its filters' check; one that was closed is asked for anew before an entry fails."""
        symbol = request.symbol
        if not market.instrument.tradeable and not reduces(request):
            self._status.pop(market.id, None)  # it may have opened a moment ago
            await self._renewed(symbol)
            market = self._book[symbol]
        check(market, request, self._reference(symbol))
        return market

    async def _by_rules(self, market: Market, work: Awaitable[T]) -> T:
        """Send; when Binance refuses by a filter, ask for the rules anew, so that the next try is made by them."""
        try:
            return await self._tell(work)
        except ExchangeError as error:
            if error.code in FILTERS:
                self._status.pop(market.id, None)
                await self._renewed(market.instrument.symbol)
            raise

    async def _place(self, request: OrderRequest, market_id: str) -> OrderReport:
        params = requests.order(request, market_id, self._kind)
        if self._is_conditional(request):
            report, _ = self._read_algo(await self._api.private("algoOrder", params, method="POST"))
        else:
            report = self._read(await self._api.private("order", params, method="POST"))
        compare(report, request)
        return report

    def _is_conditional(self, request: OrderRequest) -> bool:
        return not self._spot and request.type in requests.CONDITIONAL

    def _reference(self, symbol: str) -> Decimal | None:
        quote = self._quotes.get(symbol)
        if quote is None or self.clock.now() - quote.at > _REFERENCE_LASTS:
            return None
        return quote.mid

    def _read(self, body: Any, *, of_cancel: bool = False) -> OrderReport:
        report = decode.read_order(body, self._kind, self._symbol_of, of_cancel=of_cancel)
        if not self._spot:
            known = self._conditionals.venue_id(report.client_order_id, report.venue_order_id)
            if known != report.venue_order_id:
                self._conditionals.learn(report.client_order_id, known, report.venue_order_id)
                report = replace(report, venue_order_id=known)
        self._remember(report.venue_order_id, report.client_order_id)
        return report

    def _read_algo(self, body: Any) -> tuple[OrderReport, str | None]:
        report, actual = decode.read_algo(body, self._symbol_of)
        self._conditionals.learn(report.client_order_id, report.venue_order_id, actual)
        self._remember(report.venue_order_id, report.client_order_id)
        return report, actual

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Send an OCO, OTO or bracket as one; spot only. A leg that the answer does not show is IN_DOUBT."""
        if orders.kind not in self._capabilities.lists:
            raise InvalidOrderError(
                f"{self.name}: {self.market} has no lists of orders", venue=self.name
            )
        market = self._market(orders.orders[0].symbol)
        for request in orders.orders:
            market = await self._checked(market, request)
        path, params = requests.order_list(orders, market.id)
        return await self._by_rules(market, self._place_list(orders, path, params))

    async def _place_list(
        self, orders: OrderList, path: str, params: Mapping[str, str]
    ) -> Sequence[OrderReport]:
        body = mapping(await self._api.private(path, params, method="POST"))
        found = {
            report.client_order_id: report
            for report in map(self._read, rows(body.get("orderReports"), "orderReports"))
        }
        if found.keys().isdisjoint(request.client_order_id for request in orders.orders):
            raise OtherOrderError("the answer shows none of the orders")
        return [found.get(r.client_order_id) or _in_doubt(r) for r in orders.orders]

    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Ask to cancel one order; on futures a conditional one is looked for at its own endpoint too."""
        market_id = self._market(symbol).id
        venue_id = venue_order_id or self._conditionals.of_client(client_order_id)
        if venue_id and venue_id.startswith(decode.ALGO):
            return await self._tell(self._cancel_algo(market_id, client_order_id, venue_id))
        try:
            return await self._tell(self._cancel(market_id, client_order_id, venue_id))
        except OrderNotFoundError:
            if self._spot or venue_id:
                raise
        return await self._tell(self._cancel_algo(market_id, client_order_id, None))

    async def _cancel(self, market_id: str, client_id: str, venue_id: str | None) -> OrderReport:
        params = {"symbol": market_id, **requests.by_id(client_id, venue_id)}
        body = mapping(await self._api.private("order", params, method="DELETE"))
        if "orderReports" not in body:
            return self._read(body, of_cancel=self._spot)
        # The cancel of one leg has ended its whole list.
        for leg in (self._read(row, of_cancel=True) for row in rows(body["orderReports"])):
            if leg.client_order_id == client_id or leg.venue_order_id == venue_id:
                return leg
        raise BadAnswerError("the answer shows other orders of the list only")

    async def _cancel_algo(
        self, market_id: str, client_id: str, venue_id: str | None
    ) -> OrderReport:
        named = _algo_id(client_id, venue_id)
        try:
            await self._api.private("algoOrder", named, method="DELETE")
        except RefusedError as refused:
            if self._dialect.meaning(refused) is not OrderNotFoundError:
                raise
            # It has triggered, perhaps: what it became may rest.
            report, actual = self._read_algo(await self._api.private("algoOrder", named))
            if actual is None:
                return report
            return await self._cancel(market_id, client_id, actual)
        report, _ = self._read_algo(await self._afterwards(self._api.private("algoOrder", named)))
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
        """Change a resting order in place: on futures quantity and price, on spot a smaller quantity only."""
        market_id = self._market(symbol).id
        if stop_price is not None or (self._spot and (limit_price is not None or quantity is None)):
            raise UnsupportedFeatureError(
                "binance: spot makes a quantity smaller and changes nothing else; cancel and place a new order"
                if self._spot
                else "binance: the trigger of a conditional order cannot be changed; cancel and place a new one"
            )
        params: dict[str, str] = {
            "symbol": market_id,
            **requests.by_id(client_order_id, venue_order_id),
        }
        if self._spot:
            assert quantity is not None
            params |= {"newQty": plain(quantity), "newClientOrderId": client_order_id}
            return await self._tell(self._amend_spot(params))
        # A part of the change, so it does not wait for the weight.
        named = self._get(market_id, client_order_id, venue_order_id)
        now = await self._call(named, write=False)
        params |= {
            "side": now.side.upper(),
            "quantity": plain(now.quantity if quantity is None else quantity),
            "price": plain((now.limit_price or ZERO) if limit_price is None else limit_price),
        }
        return await self._tell(self._amend_futures(params))

    async def _amend_spot(self, params: Mapping[str, str]) -> OrderReport:
        body = mapping(await self._api.private("order/amend/keepPriority", params, method="PUT"))
        amended = dict(mapping(body.get("amendedOrder"), "amendedOrder"))
        amended |= {"origQty": amended.get("qty"), "transactTime": body.get("transactTime")}
        return self._read(amended)

    async def _amend_futures(self, params: Mapping[str, str]) -> OrderReport:
        return self._read(await self._api.private("order", params, method="PUT"))

    # -- looking up --------------------------------------------------------------------------------------

    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order; on futures absent means absent at both endpoints."""
        market_id = self._market(symbol).id
        return await self._ask(self._look_up(market_id, client_order_id, venue_order_id))

    async def _look_up(self, market_id: str, client_id: str, venue_id: str | None) -> OrderReport:
        venue_id = venue_id or self._conditionals.of_client(client_id)
        if self._spot or (venue_id and not venue_id.startswith(decode.ALGO)):
            return await self._get(market_id, client_id, venue_id)
        if venue_id is None:
            try:
                return await self._get(market_id, client_id, None)
            except RefusedError as refused:
                if self._dialect.meaning(refused) is not OrderNotFoundError:
                    raise
        report, actual = self._read_algo(
            await self._api.private("algoOrder", _algo_id(client_id, venue_id))
        )
        if actual is None:
            return report
        # It has triggered: how much of it is executed is told by the order that it became.
        order = await self._get(market_id, client_id, actual, checked=False)
        return replace(
            order,
            client_order_id=report.client_order_id,
            venue_order_id=report.venue_order_id,
            type=report.type,
            limit_price=report.limit_price,
            stop_price=report.stop_price,
        )

    async def _get(
        self, market_id: str, client_id: str, venue_id: str | None, *, checked: bool = True
    ) -> OrderReport:
        params = {"symbol": market_id, **requests.by_id(client_id, venue_id)}
        report = self._read(await self._api.private("order", params))
        if checked and client_id and report.client_order_id != client_id:
            raise BadAnswerError("the answer is about another order")
        return report

    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return every open order; those of markets that are not traded here are left out."""
        params = {} if symbol is None else {"symbol": self._market(symbol).id}

        async def load() -> list[OrderReport]:
            found = self._each(await self._api.private("openOrders", params))
            if not self._spot:
                listed = self._traded(await self._api.private("openAlgoOrders", params))
                each = read_each(self.name, listed, self._read_algo, "clientAlgoId")
                found += [report for report, _ in each]
            return found

        reports = await self._ask(load())
        self._used |= dict.fromkeys(report.symbol for report in reports)
        return reports

    def _each(self, body: Any) -> list[OrderReport]:
        return read_each(self.name, self._traded(body), self._read)

    def _traded(self, body: Any) -> list[Mapping[str, Any]]:
        return self._outside.listed(rows(body), self._symbols, "order")

    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return executions. Binance lists them by market, so without a symbol those in use are asked for:
        held, open, looked up or ordered in this process, and *symbols*.
        """
        if symbol is not None:
            wanted = [self._market(symbol).instrument.symbol]
        else:
            if self._spot:
                await self.balances()
            wanted = sorted({*self._used, *self._symbols_held()} & self._book.keys())
        found: list[Fill] = []
        for each in wanted:
            found += await self._ask(self._fills(self._book[each].id, since))
        return sorted(found, key=lambda fill: (fill.at, fill.trade_id))

    async def _fills(self, market_id: str, since: datetime) -> list[Fill]:
        path = "myTrades" if self._spot else "userTrades"
        found: dict[str, Fill] = {}
        start, now = since, self.clock.now()
        while True:
            params: dict[str, Any] = {
                "symbol": market_id,
                "startTime": max(milliseconds(start), 0),
                "limit": _PAGE,
            }
            page = rows(await self._api.private(path, params))
            fills = [self._read_fill(row) for row in page]
            news = {fill.trade_id: fill for fill in fills} | found
            if len(page) == _PAGE and len(news) > len(found):
                # From the last one's time again: several may share it.
                start = max(fill.at for fill in fills)
            elif not self._spot and now - start > _FUTURES_WINDOW:
                start = min(start + _FUTURES_WINDOW, now)
            else:
                found = news
                break
            found = news
        return await self._named(market_id, [f for f in found.values() if f.at >= since])

    async def _named(self, market_id: str, fills: list[Fill]) -> list[Fill]:
        """Return executions with our ids. Binance lists them by its own: those that we do not know are asked for."""
        unnamed = {fill.venue_order_id for fill in fills if not fill.client_order_id}
        conditional = {each for each in unnamed if each.startswith(decode.ALGO)}
        for each in sorted(conditional):
            try:
                self._read_algo(await self._api.private("algoOrder", _algo_id("", each)))
            except RefusedError as refused:
                if self._dialect.meaning(refused) is not OrderNotFoundError:
                    raise
        numbers = sorted(map(int, unnamed - conditional))
        start = numbers[0] if numbers else 0
        while numbers and start <= numbers[-1]:
            params = {"symbol": market_id, "orderId": start, "limit": _PAGE}
            page = rows(await self._api.private("allOrders", params))
            self._each(page)
            if len(page) < _PAGE:
                break
            start = max([start, *(int(identifier(row, "orderId")) for row in page)]) + 1
        return [
            fill
            if fill.client_order_id
            else replace(fill, client_order_id=self._client_id_of(fill.venue_order_id))
            for fill in fills
        ]

    def _read_fill(self, row: Any) -> Fill:
        fill = decode.read_trade(row, self._kind, self._symbol_of, self._client_id_of)
        known = self._conditionals.venue_id("", fill.venue_order_id)
        return fill if known == fill.venue_order_id else self._of_conditional(fill, known)

    def _of_conditional(self, fill: Fill, venue_id: str) -> Fill:
        return replace(fill, venue_order_id=venue_id, client_order_id=self._client_id_of(venue_id))

    def _client_id_of(self, venue_id: str) -> str:
        return self._client_ids.get(venue_id, "")


def _in_doubt(request: OrderRequest) -> OrderReport:
    return OrderReport(
        client_order_id=request.client_order_id,
        venue_order_id="",
        symbol=request.symbol,
        side=request.side,
        type=request.type,
        quantity=request.quantity,
        status=OrderState.IN_DOUBT,
        raw_status="not in the answer",
    )


def _algo_id(client_id: str, venue_id: str | None) -> dict[str, str]:
    return {"algoId": venue_id[1:]} if venue_id else {"clientAlgoId": client_id}

"""Orders on their way to Alpaca: placed, changed and cancelled, each request once."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from execkit.errors import (
    AuthenticationError,
    ExchangeUnavailableError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.exchanges.alpaca.codes import VENUE
from execkit.exchanges.alpaca.decode import OrderRow, read_order
from execkit.exchanges.alpaca.markets import Markets
from execkit.exchanges.alpaca.orders import OrderReads
from execkit.exchanges.alpaca.requests import (
    NINE_PLACES,
    SHARE,
    check,
    is_crypto,
    list_body,
    notional_body,
    order_body,
    refuse,
)
from execkit.exchanges.alpaca.rest import Rest, about_another, understood, unknown
from execkit.exchanges.alpaca.values import BadAnswerError, in_path
from execkit.model.instrument import Instrument
from execkit.model.order import (
    OrderList,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from execkit.numbers import ZERO, is_multiple, plain


class Trading:
    """Everything that changes an order."""

    def __init__(self, rest: Rest, markets: Markets, reads: OrderReads) -> None:
        self._rest = rest
        self._markets = markets
        self._reads = reads

    async def place(self, request: OrderRequest) -> OrderReport:
        """Send one order, once."""
        prices = (request.limit_price, request.stop_price)
        rules = await self._markets.rules_for(request.symbol, prices)
        body = order_body(request, rules)
        answer = await self._rest.send("POST", "/v2/orders", body, order=request, rules=rules)
        return self._placed(answer, request, request.client_order_id)[0]

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Send a bracket, OCO or OTO as one order with legs; one report each, in their order."""
        prices = [p for each in orders.orders for p in (each.limit_price, each.stop_price)]
        rules = await self._markets.rules_for(orders.orders[0].symbol, prices)
        body, record = list_body(orders, rules)
        root = next(each for each in orders.orders if each.client_order_id == record.root)
        self._reads.expect_list(record)
        try:
            answer = await self._rest.send("POST", "/v2/orders", body, order=root, rules=rules)
        except (OrderRejectedError, RateLimitError, AuthenticationError, NotSentError) as error:
            if error.outcome_known:
                self._reads.forget_list(record)
            raise
        report, row = self._placed(answer, root, record.wire_id)
        try:
            legs = self._reads.legs_of(row, record)
        except BadAnswerError:
            legs = {}
        return [
            report if each is root else legs.get(each.client_order_id) or _in_doubt(each)
            for each in orders.orders
        ]

    def _placed(
        self, answer: Any, request: OrderRequest, wire_id: str
    ) -> tuple[OrderReport, OrderRow]:
        """Return the report of an order that was just taken, when the answer is about it."""
        try:
            row = read_order(answer)
        except BadAnswerError as error:
            raise unknown(error) from None
        if row.client_id != wire_id or row.report.symbol != request.symbol:
            raise about_another()
        name = self._reads.chains.name_of(row)
        report = None if name is None else self._reads.chains.take(row, name)
        if report is None:
            raise unknown("the answer is about an order that was replaced")
        return report, row

    async def cancel(
        self, symbol: str, client_order_id: str, venue_order_id: str | None
    ) -> OrderReport:
        """Ask to cancel one order, in its newest version."""
        chains = self._reads.chains
        known = None if venue_order_id is None else chains.known(venue_order_id)
        last = None if known is None else chains.last(known.venue_order_id)
        if last is None:
            last = await self._look(symbol, client_order_id, venue_order_id)
        if last.status is OrderState.FILLED:
            return last
        target = chains.newest(last.venue_order_id)
        await self._rest.send("DELETE", f"/v2/orders/{in_path(target)}")
        last = chains.last(last.venue_order_id) or last
        return last if last.status.is_closed else replace(last, status=OrderState.PENDING_CANCEL)

    async def _look(
        self, symbol: str, client_order_id: str, venue_order_id: str | None
    ) -> OrderReport:
        """Return an order that is to be changed; when it cannot be seen, no change was sent."""
        try:
            return await understood(self._reads.get(symbol, client_order_id, venue_order_id))
        except ExchangeUnavailableError as error:
            text = f"{VENUE}: {client_order_id} cannot be looked up: {error}"
        raise NotSentError(text, venue=VENUE)

    async def amend(
        self,
        symbol: str,
        *,
        client_order_id: str,
        venue_order_id: str | None,
        quantity: Decimal | None,
        limit_price: Decimal | None,
        stop_price: Decimal | None,
    ) -> OrderReport:
        """Replace a resting order by one with other terms; it keeps its name here.

        An order that is executed in part is refused: whether what was executed counts in its successor is not
        documented, and too much would be bought.
        """
        now = await self._look(symbol, client_order_id, venue_order_id)
        rules = await self._markets.rules_for(symbol, (limit_price, stop_price))
        wanted = OrderRequest(
            client_order_id=client_order_id,
            symbol=symbol,
            side=now.side,
            type=now.type,
            quantity=now.quantity if quantity is None else quantity,
            limit_price=now.limit_price if limit_price is None else limit_price,
            stop_price=now.stop_price if stop_price is None else stop_price,
            time_in_force=TimeInForce.GTC,
        )
        _check_amendable(now, wanted, rules)
        terms = (wanted.quantity, wanted.limit_price, wanted.stop_price)
        if terms == (now.quantity, now.limit_price, now.stop_price):
            return now  # Alpaca refuses a change that changes nothing
        target = self._reads.chains.newest(now.venue_order_id)
        named = zip(("qty", "limit_price", "stop_price"), terms, strict=True)
        body = {name: plain(value) for name, value in named if value is not None}
        body["client_order_id"] = self._reads.chains.next_client_id(now.venue_order_id)
        answer = await self._rest.send("PATCH", f"/v2/orders/{in_path(target)}", body)
        try:
            row = read_order(answer)
        except BadAnswerError as error:
            raise unknown(error) from None
        name = self._reads.chains.known(target)
        if row.replaces != target or name is None:
            raise unknown("the answer is not about the order that was to be replaced")
        report = self._reads.chains.take(row, name)
        if report is None:
            raise unknown("the order was replaced once more")
        return report

    async def place_notional(
        self, symbol: str, side: Side, amount: Decimal, client_order_id: str
    ) -> OrderReport:
        """Buy or sell for an amount of money at the market: for use by hand, past any journal.

        How much that is shows when it is executed, so the report's quantity is what was executed so far, and an engine,
        which sizes and protects quantities, sends none such.
        """
        rules = await self._markets.rules_for(symbol)
        body = notional_body(rules, side, amount, client_order_id)
        answer = await self._rest.send("POST", "/v2/orders", body, is_new=True)
        try:
            row = read_order(answer)
        except BadAnswerError as error:
            raise unknown(error) from None
        if (row.client_id, row.report.symbol) != (client_order_id, symbol):
            raise about_another()
        return row.report

    async def close_position(self, symbol: str, quantity: Decimal | None = None) -> OrderReport:
        """Close a position, or a quantity of it, by Alpaca's own means: for use by hand, past any journal.

        The order that this makes has a client order id of Alpaca's making, so a running engine sees it as foreign; an
        engine closes positions by orders of its own.
        """
        rules = await self._markets.rules_for(symbol)
        if quantity is not None and not (quantity.is_finite() and quantity > ZERO):
            refuse(f"quantity: {quantity} must be a number above zero")
        if quantity is not None and not is_multiple(quantity, NINE_PLACES):
            refuse(f"quantity: {plain(quantity)} has more than nine decimals; round it down")
        params = None if quantity is None else {"qty": plain(quantity)}
        path = f"/v2/positions/{in_path(rules.symbol.replace('/', ''))}"
        answer = await self._rest.send("DELETE", path, params=params)
        try:
            return read_order(answer).report
        except BadAnswerError as error:
            raise unknown(error) from None


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


def _check_amendable(now: OrderReport, wanted: OrderRequest, rules: Instrument) -> None:
    if now.status.is_closed:
        raise OrderNotFoundError(
            f"{VENUE}: {now.client_order_id} is {now.status} and cannot be changed", venue=VENUE
        )
    if now.filled:
        raise UnsupportedFeatureError(
            f"{VENUE}: {now.client_order_id} is executed in part; cancel it and place the rest anew",
            venue=VENUE,
        )
    if now.type is OrderType.TRAILING_STOP:
        raise UnsupportedFeatureError(
            f"{VENUE}: a trailing stop is not changed; cancel it and place a new one", venue=VENUE
        )
    if not is_crypto(now.symbol) and not is_multiple(now.quantity, SHARE):
        raise UnsupportedFeatureError(
            f"{VENUE}: an order for a fraction of a share is not changed; cancel it and place a new one",
            venue=VENUE,
        )
    check(wanted, rules)

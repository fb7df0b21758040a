"""Alpaca's REST answers: orders, account, assets, clock and calendar, and the data host's snapshots and bars."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from execkit.errors import ExchangeUnavailableError
from execkit.exchanges.base import MarketPhase
from execkit.model.order import OrderRequest, OrderType, Side, TimeInForce
from execkit.numbers import ONE, ZERO
from execkit.testing.venues.alpaca.base import AlpacaBase
from execkit.testing.venues.alpaca.checks import check_account, check_order, check_position
from execkit.testing.venues.alpaca.desk import Desk
from execkit.testing.venues.alpaca.errors import invalid, order_missing, refuse
from execkit.testing.venues.alpaca.legs import names_in
from execkit.testing.venues.alpaca.reading import Wanted, asset_of, check_penny, number, read_body
from execkit.testing.venues.alpaca.rows import (
    account_row,
    activity_row,
    asset_row,
    order_row,
    position_row,
    quote_row,
    stamp,
    status_word,
    trade_row,
)
from execkit.testing.venues.alpaca.state import AlpacaState, WireOrder
from execkit.testing.venues.calls import Answer, Call, Handler

_MOST_ORDERS: Final = 500
_MOST_ACTIVITIES: Final = 100


class Answers:
    """Answers requests."""

    def __init__(self, venue: AlpacaBase, desk: Desk) -> None:
        self.venue = venue
        self.desk = desk

    @property
    def state(self) -> AlpacaState:
        """The venue's state; in a stale read an old one."""
        return self.venue.state

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield all requests."""
        yield "POST", "/v2/orders", "place", self.place
        yield "GET", "/v2/orders", "open", self.listed
        yield "DELETE", "/v2/orders", "cancel_all", self.cancel_all
        yield "GET", "/v2/orders:by_client_order_id", "get", self.get_by_client_id
        yield "GET", "/v2/orders/{id}", "get", self.get
        yield "PATCH", "/v2/orders/{id}", "amend", self.replace
        yield "DELETE", "/v2/orders/{id}", "cancel", self.cancel
        yield "GET", "/v2/account", "account", lambda _: account_row(self.state)
        yield "GET", "/v2/account/activities/FILL", "fills", self.activities
        yield "GET", "/v2/positions", "positions", self.positions
        yield "GET", "/v2/positions/{symbol}", "positions", self.position
        yield "DELETE", "/v2/positions/{symbol}", "close_position", self.close_position
        yield "GET", "/v2/clock", "clock", self.clock
        yield "GET", "/v2/calendar", "calendar", self.calendar
        yield "GET", "/v2/assets", "assets", self.assets
        yield "GET", "/v2/assets/{symbol}", "asset", self.asset
        yield "GET", "/v2/stocks/{symbol}/snapshot", "ticker", self.snapshot
        yield "GET", "/v1beta3/crypto/us/snapshots", "ticker", self.crypto_snapshots
        yield "GET", "/v2/stocks/bars", "bars", self.bars
        yield "GET", "/v1beta3/crypto/us/bars", "bars", self.bars

    # --- placing ----------------------------------------------------------------------------------

    def place(self, call: Call) -> Any:
        """Take an order with its legs."""
        check_account(self.state)
        own_id = call.body.get("client_order_id") if isinstance(call.body, dict) else None
        if own_id is not None and not (isinstance(own_id, str) and 0 < len(own_id) <= 128):
            invalid("client_order_id must be no more than 128 characters")
        if own_id in self.state.by_client:
            invalid("client_order_id must be unique")
        wire_id = own_id or self.venue.new_id()
        wanted = read_body(call.body, self.state, names_in(wire_id)[0])
        check_order(self.state, wanted, today=self.venue.clock.now().date())
        order = self.desk.enter(wanted, call.fault, wire_id=wire_id)
        self.venue.accepts += names_in(wire_id)
        return order_row(self.state, order)

    # --- looking up, changing -----------------------------------------------------------------------

    def get_by_client_id(self, call: Call) -> Any:
        """Show an order by its client's id."""
        wanted = call.params.get("client_order_id", "")
        order = self.state.by_client.get(wanted)
        if order is None:
            order_missing(wanted)
        return order_row(self.state, order)

    def _order(self, call: Call) -> WireOrder:
        order = self.state.orders.get(call.params["id"])
        if order is None:
            order_missing(call.params["id"])
        return order

    def get(self, call: Call) -> Any:
        """Show an order by its id."""
        return order_row(self.state, self._order(call))

    def listed(self, call: Call) -> Any:
        """Show orders, by default the open ones."""
        params, status = call.params, call.params.get("status", "open")
        symbols = params["symbols"].split(",") if params.get("symbols") else None
        after = datetime.fromisoformat(params["after"]) if params.get("after") else None
        is_nested = params.get("nested") == "true"
        found = [
            order
            for order in self.state.orders.values()
            if (status == "all" or self._is_listed_open(order) is (status == "open"))
            and (symbols is None or order.request.symbol in symbols)
            and (after is None or order.created_at > after)
            and not (is_nested and order.parent is not None)
        ]
        found.sort(key=lambda order: order.created_at, reverse=params.get("direction") != "asc")
        most = int(params.get("limit", "50"))
        if most > _MOST_ORDERS:
            invalid(f"limit must be no more than {_MOST_ORDERS}")
        return [order_row(self.state, order, nested=is_nested) for order in found[:most]]

    def _is_listed_open(self, order: WireOrder) -> bool:
        """Tell whether an order is among the open ones; a leg that is held is not, but for its list."""
        is_held = order.parent is not None and status_word(self.state, order) == "held"
        return self.state.is_open(order) and not is_held

    def cancel(self, call: Call) -> Any:
        """Ask to cancel an order."""
        self.desk.ask_cancel(self._order(call))
        return Answer(204, None)

    def cancel_all(self, call: Call) -> Any:
        """Ask to cancel every open order."""
        found = [order for order in self.state.orders.values() if self.state.is_open(order)]
        for order in found:
            if self.state.is_open(order):
                self.desk.ask_cancel(order)
        return Answer(207, [{"id": order.id, "status": 200} for order in found])

    def replace(self, call: Call) -> Any:
        """Put an order with other terms in the place of one."""
        order, body = self._order(call), call.body
        if not isinstance(body, dict):
            invalid("request body format is invalid")
        own_id = body.get("client_order_id") or self.venue.new_id()
        if own_id in self.state.by_client:
            invalid("client_order_id must be unique")
        terms = {
            "quantity": number(body, "qty"),
            "limit_price": number(body, "limit_price"),
            "stop_price": number(body, "stop_price"),
        }
        if not self.state.assets[order.request.symbol].is_crypto:
            check_penny("limit_price", terms["limit_price"])
            check_penny("stop_price", terms["stop_price"])
        changes = {name: value for name, value in terms.items() if value is not None}
        return order_row(self.state, self.desk.replace(order, changes, own_id))

    # --- account ------------------------------------------------------------------------------------

    def activities(self, call: Call) -> Any:
        """List executions."""
        params = call.params
        after = datetime.fromisoformat(params["after"]) if params.get("after") else None
        rows = [
            activity_row(self.state, fill)
            for fill in self.state.core.fills
            if after is None or fill.at > after
        ]
        rows.sort(key=lambda row: row["id"], reverse=params.get("direction", "desc") == "desc")
        token = params.get("page_token")
        if token:
            at = next((n for n, row in enumerate(rows) if row["id"] == token), len(rows) - 1)
            rows = rows[at + 1 :]
        most = int(params.get("page_size", "100"))
        if most > _MOST_ACTIVITIES:
            invalid(f"page_size must be no more than {_MOST_ACTIVITIES}")
        return rows[:most]

    def positions(self, call: Call) -> Any:
        """List positions."""
        return [
            position_row(self.state, each.symbol, each.quantity, each.average_price)
            for each in self.state.core.positions()
        ]

    def _symbol(self, name: str) -> str:
        for symbol in self.state.assets:
            if name in (symbol, symbol.replace("/", "")):
                return symbol
        return refuse(404, 40410000, f"position does not exist: {name}")

    def position(self, call: Call) -> Any:
        """Show one position."""
        symbol = self._symbol(call.params["symbol"])
        found = [each for each in self.state.core.positions() if each.symbol == symbol]
        if not found:
            refuse(404, 40410000, f"position does not exist: {symbol}")
        return position_row(self.state, symbol, found[0].quantity, found[0].average_price)

    def close_position(self, call: Call) -> Any:
        """Place a market order that closes a position, or a part of it."""
        symbol = self._symbol(call.params["symbol"])
        held = self.state.position(symbol)
        if not held:
            refuse(404, 40410000, f"position does not exist: {symbol}")
        quantity = abs(held)
        if call.params.get("qty"):
            quantity = Decimal(call.params["qty"])
        elif call.params.get("percentage"):
            quantity = quantity * Decimal(call.params["percentage"]) / 100
        is_coin = self.state.assets[symbol].is_crypto
        request = OrderRequest(
            client_order_id=self.venue.new_id(),
            symbol=symbol,
            side=Side.SELL if held > ZERO else Side.BUY,
            type=OrderType.MARKET,
            quantity=quantity,
            time_in_force=TimeInForce.GTC if is_coin else TimeInForce.DAY,
        )
        wanted = Wanted(request, "simple", None, None, None, None)
        check_position(self.state, wanted)
        return order_row(self.state, self.desk.enter(wanted))

    # --- market -------------------------------------------------------------------------------------

    def clock(self, call: Call) -> Any:
        """Show the venue's clock."""
        now, hours = self.venue.clock.now(), self.venue.hours
        return {
            "timestamp": stamp(now),
            "is_open": hours.phase(now) is MarketPhase.REGULAR,
            "next_open": stamp(hours.next_open(now)),
            "next_close": stamp(hours.next_close(now)),
        }

    def calendar(self, call: Call) -> Any:
        """Show the days on which stocks are traded."""
        first = date.fromisoformat(call.params.get("start", "2024-01-01"))
        last = date.fromisoformat(call.params.get("end", "2029-12-31"))
        return self.venue.hours.listed(first, last)

    def assets(self, call: Call) -> Any:
        """List assets."""
        wanted = call.params.get("asset_class")
        return [
            asset_row(each, halted=each.symbol in self.state.core.halted)
            for each in self.state.assets.values()
            if wanted in (None, each.asset_class)
        ]

    def asset(self, call: Call) -> Any:
        """Show one asset."""
        name = call.params["symbol"]
        for each in self.state.assets.values():
            if name in (each.symbol, each.id, each.symbol.replace("/", "")):
                return asset_row(each, halted=each.symbol in self.state.core.halted)
        return refuse(404, 40410000, f"asset not found for {name}")

    # --- prices -------------------------------------------------------------------------------------

    def _snapshot(self, symbol: str) -> dict[str, Any]:
        asset_of(self.state, symbol)
        try:
            quote = self.state.core.quote(symbol)
        except ExchangeUnavailableError:
            refuse(404, 40410000, f"no data for {symbol}")
        at = self.venue.clock.now()
        last = quote.last or quote.bid
        return {
            "symbol": symbol,
            "latestTrade": trade_row(last, ONE, at),
            "latestQuote": quote_row(quote) | {"t": stamp(at)},
        }

    def snapshot(self, call: Call) -> Any:
        """Show the prices of a stock."""
        return self._snapshot(call.params["symbol"])

    def crypto_snapshots(self, call: Call) -> Any:
        """Show the prices of pairs of crypto currencies."""
        symbols = call.params.get("symbols", "").split(",")
        return {"snapshots": {symbol: self._snapshot(symbol) for symbol in symbols}}

    def bars(self, call: Call) -> Any:
        """Show the history of bars, page by page."""
        params = call.params
        symbol, word = params["symbols"], params["timeframe"]
        first, last = params.get("start", ""), params.get("end", "9")
        rows = [
            row
            for row in self.venue.bars.get((symbol, word), [])
            if first[:19] <= row["t"][:19] <= last[:19]
        ]
        begin, most = int(params.get("page_token", "0")), int(params.get("limit", "1000"))
        page = rows[begin : begin + most]
        more = begin + most < len(rows)
        return {
            "bars": {symbol: page} if page else {},
            "next_page_token": str(begin + most) if more else None,
        }

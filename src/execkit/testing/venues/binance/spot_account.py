"""The account on Binance spot, its rights, and the stream that tells of it over the WebSocket API."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import Fill, OrderReport, OrderState, OrderUpdate
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.params import Params
from execkit.testing.venues.binance.words import Notes, eight, ms, reported_status
from execkit.testing.venues.calls import Call, Handler, Refusal
from execkit.testing.venues.sockets import Socket


class SpotAccount:
    """Balances, and executionReport and outboundAccountPosition events."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue
        self._events = 0
        self._fill: Fill | None = None
        venue.on_updates = self.publish

    def routes(self) -> Iterable[tuple[str, str, str, Handler]]:
        """Yield the requests about the account."""
        yield "GET", "/api/v3/account", "balances", self.account
        yield "GET", "/api/v3/account/commission", "fees", self.commission
        yield "GET", "/sapi/v1/account/apiRestrictions", "permissions", self.restrictions
        yield "GET", "/sapi/v1/asset/tradeFee", "fees", self.trade_fee

    def account(self, call: Call) -> Any:
        """Show all balances."""
        hide = call.params.get("omitZeroBalances", "false") == "true"
        rows = [
            row
            for row in self._balances()
            if not hide or set(row["free"] + row["locked"]) - {"0", "."}
        ]
        can_trade = self.venue.can_trade
        return {
            "makerCommission": 10,
            "takerCommission": 10,
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {
                "maker": "0.00100000",
                "taker": "0.00100000",
                "buyer": "0.00000000",
                "seller": "0.00000000",
            },
            "canTrade": can_trade,
            "canWithdraw": bool(self.venue.permissions["enableWithdrawals"]),
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": ms(self.venue.core.now),
            "accountType": "SPOT",
            "balances": rows,
            "permissions": ["SPOT"],
            "uid": 354937868,
        }

    def _balances(self) -> list[dict[str, str]]:
        return [
            {"asset": asset, "free": eight(each.free), "locked": eight(each.locked)}
            for asset, each in sorted(self.venue.core.balances().items())
        ]

    def restrictions(self, call: Call) -> Any:
        """Show what the key may do."""
        return {"ipRestrict": False, "createTime": 1_600_000_000_000, **self.venue.permissions}

    def commission(self, call: Call) -> Any:
        """Show the fees of a symbol."""
        each = Params(call.params, self.venue.core).instrument()
        rates = {"maker": eight(each.maker_fee), "taker": eight(each.taker_fee)}
        zero = {
            "maker": eight(None),
            "taker": eight(None),
            "buyer": eight(None),
            "seller": eight(None),
        }
        return {
            "symbol": each.venue_symbol,
            "standardCommission": {**zero, **rates},
            "specialCommission": zero,
            "taxCommission": zero,
            "discount": {
                "enabledForAccount": True,
                "enabledForSymbol": True,
                "discountAsset": "BNB",
                "discount": "0.75000000",
            },
        }

    def trade_fee(self, call: Call) -> Any:
        """Show the fees of all symbols."""
        wanted = call.params.get("symbol")
        return [
            {
                "symbol": each.venue_symbol,
                "makerCommission": eight(each.maker_fee),
                "takerCommission": eight(each.taker_fee),
            }
            for each in self.venue.core.instruments.values()
            if wanted in (None, each.venue_symbol)
        ]

    # --- events -----------------------------------------------------------------------------------

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn what happened to orders into events, each execution with the order as it was then."""
        for update in updates:
            if isinstance(update, Fill):
                self._fill = update
            elif isinstance(update, OrderReport):
                fill, self._fill = self._fill, None
                self._tell(update, fill)

    def _tell(self, report: OrderReport, fill: Fill | None) -> None:
        order = self.venue.core.orders[report.venue_order_id]
        notes = self.venue.state.notes(order)
        self.venue.push_private(self._report(report, fill, order, notes))
        notes.announced = report.status is not OrderState.HELD
        self._tell_balances(report, fill)

    def _tell_balances(self, report: OrderReport, fill: Fill | None) -> None:
        instrument = self.venue.core.instrument(report.symbol)
        assets = {instrument.base, instrument.quote} | ({fill.fee_asset} if fill else set())
        now = ms(self.venue.clock.now())
        self.venue.push_private(
            {
                "e": "outboundAccountPosition",
                "E": now,
                "u": now,
                "B": [
                    {"a": row["asset"], "f": row["free"], "l": row["locked"]}
                    for row in self._balances()
                    if row["asset"] in assets
                ],
            }
        )

    def _report(
        self, report: OrderReport, fill: Fill | None, order: VenueOrder, notes: Notes
    ) -> dict[str, Any]:
        request, now = order.request, self.venue.clock.now()
        status = reported_status(report, order, notes)
        execution = "TRADE" if fill else _EXECUTIONS.get(status, status)
        if status in ("NEW", "PENDING_NEW", "PARTIALLY_FILLED") and fill is None:
            execution = "REPLACED" if notes.announced else "NEW"
        self._events += 1
        # A cancel names itself; the order it ended stands in the other field.
        is_cancel = execution == "CANCELED"
        cancel_id = notes.cancel_id or self.venue.new_client_id() if is_cancel else None
        event: dict[str, Any] = {
            "e": "executionReport",
            "E": ms(now),
            "s": self.venue.symbol_of(report.symbol),
            "c": cancel_id or request.client_order_id,
            "S": request.side.value.upper(),
            "o": notes.word,
            "f": notes.time_in_force,
            "q": eight(report.quantity),
            "p": eight(report.limit_price),
            "P": eight(report.stop_price),
            "F": eight(None),
            "g": notes.list_id,
            "C": request.client_order_id if is_cancel else "",
            "x": execution,
            "X": status,
            "r": "NONE",
            "i": int(report.venue_order_id),
            "l": eight(fill.quantity if fill else None),
            "z": eight(report.filled),
            "L": eight(fill.price if fill else None),
            "n": eight(fill.fee) if fill else "0",
            "N": fill.fee_asset if fill else None,
            "T": ms(fill.at if fill else report.updated_at or now),
            "t": int(fill.trade_id) if fill else -1,
            "I": self._events,
            "w": status in ("NEW", "PARTIALLY_FILLED") and not order.waits_for_stop,
            "m": bool(fill and fill.maker),
            "M": False,
            "O": ms(notes.created_at),
            "Z": eight((report.average_price or 0) * report.filled),
            "Y": eight(fill.notional if fill else None),
            "Q": eight(notes.quote_quantity),
            "V": "NONE",
        }
        if event["w"]:
            event["W"] = ms(order.since)
        if notes.trailing_delta is not None:
            event["d"] = notes.trailing_delta
        if notes.expiry_reason is not None and status.startswith("EXPIRED"):
            event["eR"] = notes.expiry_reason
        return event

    # --- WebSocket API ----------------------------------------------------------------------------

    def on_message(self, socket: Socket, message: Any) -> None:
        """Subscribe to the account's events."""
        request = json.loads(message)
        method, params = str(request.get("method")), request.get("params") or {}
        try:
            result = self._ws_method(socket, method, params)
            answer = {"id": request.get("id"), "status": 200, "result": result}
        except Refusal as refusal:
            answer = {"id": request.get("id"), "status": refusal.status, "error": refusal.payload}
        socket.push(answer | {"rateLimits": []})

    def _ws_method(self, socket: Socket, method: str, params: dict[str, Any]) -> Any:
        sent = {name: str(value) for name, value in params.items()}
        self.venue.note_ws(method, sent)
        match method:
            case "ping":
                return {}
            case "time":
                return {"serverTime": ms(self.venue.clock.now())}
            case "userDataStream.subscribe.signature":
                self.venue.check_key(sent.get("apiKey", ""))
                pairs = sorted((k, v) for k, v in sent.items() if k != "signature")
                self.venue.check_signature("&".join(f"{k}={v}" for k, v in pairs), sent)
                socket.is_private = True
                return {"subscriptionId": 0}
            case "userDataStream.unsubscribe":
                socket.is_private = False
                return {}
        raise Refusal(400, {"code": -1101, "msg": f"Method '{method}' does not exist."})


_EXECUTIONS = {"EXPIRED_IN_MATCH": "TRADE_PREVENTION"}

"""What spot and futures share at Binance: keys, signatures, the clock, the limits, and the account's state."""

from __future__ import annotations

import hashlib
import hmac
import random
import string
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

from execkit.clock import Clock
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import OrderState, OrderUpdate
from execkit.testing.venues.binance.core import BinanceCore
from execkit.testing.venues.binance.errors import TEXTS, missing, refuse
from execkit.testing.venues.binance.limits import Limits, Rules
from execkit.testing.venues.binance.words import BinanceState, ms
from execkit.testing.venues.calls import Call, Refusal
from execkit.testing.venues.faults import Mishap, WireFault
from execkit.testing.venues.server import WireVenue

KEY: Final = "wire-level-key-" + "k" * 49
SECRET: Final = "wire-level-secret-" + "s" * 46
"""Credentials of the account, as long as real ones."""

_PUBLIC: Final = frozenset({"ping", "time", "rules", "ticker", "bars", "depth", "unknown"})
_KEY_ONLY: Final = frozenset({"listen"})
TRADING: Final = frozenset(
    {"place", "cancel", "replace", "amend", "cancel_all", "place_list", "test"}
)
_ID_LETTERS: Final = string.ascii_letters + string.digits


class BinanceBase(WireVenue):
    """The account's side of a Binance venue."""

    name = "binance"
    state: BinanceState

    def __init__(
        self,
        state: BinanceState,
        *,
        key: str,
        secret: str,
        rules: Rules,
        permissions: dict[str, Any],
        clock: Clock | None,
        port: int,
        rng: random.Random,
        right_to_trade: str,
    ) -> None:
        super().__init__(state, clock=clock, port=port)
        self.key, self.secret = key, secret
        self.secrets = (key, secret)
        self.rules = rules
        self.limits = Limits(rules)
        self.permissions = permissions
        self._rng = rng
        self._right = right_to_trade
        self.on_updates: Callable[[Iterable[OrderUpdate]], None] = lambda _updates: None
        """Turns what happened to orders into events of the account's stream."""

    @property
    def core(self) -> BinanceCore:
        """The matching core; in a stale read a copy of it."""
        return self.state.core

    def symbol_of(self, symbol: str) -> str:
        """Return Binance's name of a symbol of ours."""
        return self.core.instrument(symbol).venue_symbol

    def new_client_id(self) -> str:
        """Return a client order id as Binance makes them up."""
        return "".join(self._rng.choices(_ID_LETTERS, k=22))

    def took(self, client_order_id: str) -> None:
        """Record that an order was taken."""
        self.accepts.append(client_order_id)

    def tell(self, updates: list[OrderUpdate]) -> None:
        """Tell the streams what became of orders."""
        self.publish(updates)
        self.note_change()

    def publish(self, updates: Iterable[OrderUpdate]) -> None:
        """Turn updates into events."""
        self.on_updates(updates)

    def mistreat(self, order: VenueOrder, fault: WireFault) -> None:
        """Do with a new order what a fault wants."""
        name, now = order.request.client_order_id, self.clock.now()
        if fault.kind is Mishap.PARTIAL:
            instrument = self.core.instrument(order.request.symbol)
            part = instrument.round_quantity(order.remaining * fault.fraction)
            quote = self.core.quote(order.request.symbol)
            price = order.limit or (quote.ask if order.is_buy else quote.bid)
            self.tell(self.core.execute(name, part, price, now))
        elif fault.kind in (Mishap.EXPIRE, Mishap.EXPIRE_IN_MATCH):
            notes = self.state.notes(order)
            notes.expiry_reason = 1
            if fault.kind is Mishap.EXPIRE_IN_MATCH:
                notes.status = "EXPIRED_IN_MATCH"
            self.tell(self.core.end(name, OrderState.EXPIRED, "ended by the venue", now))

    # --- requests ---------------------------------------------------------------------------------

    def read_call(self, operation: str, request: web.Request, body: str) -> Call:
        """Read a request's parameters from query and form."""
        query = request.raw_path.partition("?")[2]
        params = dict(parse_qsl(query, keep_blank_values=True))
        params |= parse_qsl(body, keep_blank_values=True)
        return Call(
            operation=operation,
            method=request.method,
            path=request.path,
            params=params,
            at=self.clock.now(),
            payload=_unsigned(query) + _unsigned(body),
            headers=dict(request.headers),
            client_order_id=params.get("newClientOrderId", params.get("clientAlgoId", "")),
        )

    def client_order_ids(self, call: Call) -> tuple[str, ...]:
        """Return the ids of all orders in a request."""
        return tuple(
            value
            for name, value in call.params.items()
            if name.lower().endswith("clientorderid")
            and not name.startswith(("orig", "list", "cancel"))
        ) + ((call.params["clientAlgoId"],) if "clientAlgoId" in call.params else ())

    def note_ws(self, method: str, params: dict[str, str]) -> None:
        """Record a request that came in through the WebSocket API."""
        self.requests.append(
            Call(
                operation=method,
                method="WS",
                path="/ws-api/v3",
                params=params,
                at=self.clock.now(),
                client_order_id=params.get("newClientOrderId", ""),
            )
        )

    def admit(self, call: Call) -> None:
        """Check pace, key, signature and time."""
        self.limits.count(call.operation, self.clock.now())
        if call.operation in _PUBLIC:
            return
        key = next((v for k, v in call.headers.items() if k.upper() == "X-MBX-APIKEY"), "")
        self.check_key(key)
        if call.operation in _KEY_ONLY:
            return
        self.check_signature(call.payload, call.params)
        if call.operation in TRADING and not self.can_trade:
            refuse(-2015, status=401)

    @property
    def can_trade(self) -> bool:
        """Tell whether the key has the right to trade here."""
        return bool(self.permissions[self._right])

    def check_key(self, key: str) -> None:
        """Refuse a key that is malformed or not ours."""
        if len(key) != 64 or not key.isascii():
            refuse(-2014, status=401)
        if key != self.key:
            refuse(-2015, status=401)

    def check_signature(self, payload: str, params: dict[str, str]) -> None:
        """Refuse a wrong signature, and a time outside of the window."""
        signature = params.get("signature") or missing("signature")
        right = hmac.new(self.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(right, signature.lower()):
            refuse(-1022)
        sent, window = (
            params.get("timestamp") or missing("timestamp"),
            params.get("recvWindow", "5000"),
        )
        if not sent.isdigit() or not window.isdigit():
            missing("timestamp" if not sent.isdigit() else "recvWindow")
        if int(window) > 60_000:
            refuse(-1131)
        now = ms(self.clock.now())
        if int(sent) > now + 1000:
            refuse(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now - int(sent) > int(window):
            refuse(-1021)

    def headers(self, call: Call) -> dict[str, str]:
        """Return the use of the limits."""
        return self.limits.headers()

    # --- faults -----------------------------------------------------------------------------------

    def error(self, fault: WireFault) -> Any:
        """Return an error in Binance's form; without a code, as a gateway in front of it answers."""
        if fault.code is None:
            return fault.text or None
        return {"code": fault.code, "msg": fault.text or TEXTS.get(fault.code, "Unknown error.")}

    def rate_limit(self, retry_after: timedelta) -> dict[str, Any]:
        """Return how Binance refuses an order for its pace."""
        text = TEXTS[-1015].format(limit=self.rules.orders_per_10s, span="10 SECOND")
        return {"status": 429, "code": -1015, "text": text, "retry_after": retry_after}

    def not_found(self, call: Call) -> Any:
        """Say that an order does not exist, or that there are none."""
        self.admit(call)
        if call.operation == "get":
            refuse(-2013)
        return []

    def order_in(self, payload: Any) -> dict[str, Any] | None:
        """Return the order in an answer; of several, the first."""
        if isinstance(payload, list):
            return payload[0] if payload and isinstance(payload[0], dict) else None
        if not isinstance(payload, dict):
            return None
        for name in ("orderReports", "newOrderResponse", "amendedOrder"):
            if payload.get(name):
                return self.order_in(payload[name])
        return payload

    def unknown_path(self, call: Call) -> Any:
        """Answer as the gateway does."""
        raise Refusal(404, "<html><body><h2>404 Not found</h2></body></html>")


def _unsigned(part: str) -> str:
    return "&".join(each for each in part.split("&") if not each.startswith("signature="))

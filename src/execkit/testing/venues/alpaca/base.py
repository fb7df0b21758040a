"""What stands below Alpaca's orders: keys, ids, the hours, what is told to the account's stream."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from execkit.clock import Clock
from execkit.exchanges.base import MarketPhase
from execkit.model.order import Fill
from execkit.numbers import ZERO
from execkit.testing.venues.alpaca.errors import order_missing, refuse
from execkit.testing.venues.alpaca.hours import TradingHours
from execkit.testing.venues.alpaca.legs import names_in
from execkit.testing.venues.alpaca.rows import stamp
from execkit.testing.venues.alpaca.state import AlpacaState
from execkit.testing.venues.calls import Call
from execkit.testing.venues.faults import WireFault
from execkit.testing.venues.server import WireVenue
from execkit.testing.venues.spoils import OrderFields


class AlpacaBase(WireVenue):
    """One account at Alpaca, without its desk."""

    name = "alpaca"
    order_fields = OrderFields("id", "client_order_id", "filled_qty", "status")
    state: AlpacaState

    def __init__(
        self,
        state: AlpacaState,
        *,
        hours: TradingHours,
        clock: Clock | None,
        key: str,
        secret: str,
        port: int,
        rng: random.Random,
    ) -> None:
        super().__init__(state, clock=clock, port=port)
        self.hours = hours
        self.key, self.secret = key, secret
        self.secrets = (key, secret)
        self.bars: dict[tuple[str, str], list[dict[str, Any]]] = {}
        """History by symbol and Alpaca's word for the timeframe."""
        self._rng = rng
        self._soon: set[asyncio.Handle] = set()
        self.requests_per_minute: int | None = None
        """Requests of one minute of the venue's clock, after which it refuses; None: as many as come."""
        self.used = self._minute = 0

    def new_id(self) -> str:
        """Return a fresh id."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def soon(self, step: Callable[[], object]) -> None:
        """Do something in a moment: after the answer to the request that causes it was made."""

        def run() -> None:
            self._soon.discard(handle)
            step()
            self.note_change()

        handle = asyncio.get_running_loop().call_soon(run)
        self._soon.add(handle)

    async def close(self) -> None:
        """Stop; nothing more happens to orders."""
        for handle in self._soon:
            handle.cancel()
        await super().close()

    def phase(self, symbol: str) -> MarketPhase:
        """Return the part of a market's day; crypto trades around the clock."""
        if self.state.assets[symbol].is_crypto:
            return MarketPhase.REGULAR
        return self.hours.phase(self.clock.now())

    def note_day_trade(self, fill: Fill) -> None:
        """Keep count of positions that were opened and closed on one day."""
        if self.state.assets[fill.symbol].is_crypto:
            return
        held, today = self.state.position(fill.symbol), fill.at.date()
        change = fill.quantity * fill.side.sign
        if held * change > ZERO:
            self.state.opened_on[fill.symbol] = today
        elif self.state.opened_on.get(fill.symbol) == today:
            self.state.day_trades.append(today)
            del self.state.opened_on[fill.symbol]

    # --- requests -----------------------------------------------------------------------------------

    def read_call(self, operation: str, request: web.Request, body: str) -> Call:
        """Read a request: its query, the parts of its path, and its JSON body."""
        try:
            parsed = json.loads(body) if body else None
        except ValueError:
            parsed = None
        params = dict(request.query) | dict(request.match_info)
        own_id = parsed.get("client_order_id") if isinstance(parsed, dict) else None
        return Call(
            operation=operation,
            method=request.method,
            path=request.path,
            params=params,
            at=self.clock.now(),
            payload=body,
            headers=dict(request.headers),
            body=parsed,
            client_order_id=own_id if isinstance(own_id, str) else "",
        )

    def client_order_ids(self, call: Call) -> tuple[str, ...]:
        """Return the names of all orders that a request is about."""
        return tuple(names_in(call.client_order_id))

    def admit(self, call: Call) -> None:
        """Refuse a wrong key, and what is one too many in this minute."""
        heads = {name.upper(): value for name, value in call.headers.items()}
        if (heads.get("APCA-API-KEY-ID"), heads.get("APCA-API-SECRET-KEY")) != (
            self.key,
            self.secret,
        ):
            refuse(401, 40110000, "request is not authorized")
        minute = int(self.clock.now().timestamp()) // 60
        if minute != self._minute:
            self._minute, self.used = minute, 0
        self.used += 1
        if self.requests_per_minute is not None and self.used > self.requests_per_minute:
            refuse(429, 42910000, "rate limit exceeded")

    def headers(self, call: Call) -> dict[str, str]:
        """Return the state of the rate limit."""
        limit = self.requests_per_minute
        return {
            "X-Ratelimit-Limit": str(limit or 200),
            "X-Ratelimit-Remaining": str(199 if limit is None else max(limit - self.used, 0)),
            "X-Ratelimit-Reset": str((self._minute + 1) * 60),
        }

    def error(self, fault: WireFault) -> Any:
        """Return an error in Alpaca's form."""
        body: dict[str, Any] = {"message": fault.text or "internal server error occurred"}
        return body if fault.code is None else {"code": fault.code, **body}

    def rate_limit(self, retry_after: timedelta) -> dict[str, Any]:
        """Return how Alpaca refuses for pace."""
        return {
            "status": 429,
            "code": 42910000,
            "text": "rate limit exceeded",
            "retry_after": retry_after,
        }

    def not_found(self, call: Call) -> Any:
        """Say that an order does not exist, or that there are none."""
        self.admit(call)
        if call.operation == "get":
            order_missing(call.params.get("client_order_id") or call.params.get("id", ""))
        return []

    def order_in(self, payload: Any) -> dict[str, Any] | None:
        """Return the order of an answer; of a list its first."""
        if isinstance(payload, list):
            payload = payload[0] if payload else None
        return payload if isinstance(payload, dict) else None

    def unknown_path(self, call: Call) -> Any:
        """Answer a request that Alpaca does not have."""
        refuse(404, 40410000, "endpoint not found")

    def tell(
        self, event: str, order: dict[str, Any], at: datetime, details: dict[str, Any]
    ) -> None:
        """Send an event of the account, as Alpaca does: JSON in binary frames."""
        body = {"event": event, "timestamp": stamp(at), "order": order, **details}
        frame = {"stream": "trade_updates", "data": body}
        self.push_private(json.dumps(frame, separators=(",", ":")).encode())

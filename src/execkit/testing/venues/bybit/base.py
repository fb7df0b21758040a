"""Keys, signatures, the envelope of every answer, and the refusals of a Bybit venue."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from aiohttp import web

from execkit.clock import Clock
from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeError,
    InsufficientBalanceError,
    InvalidOrderError,
    OrderNotFoundError,
)
from execkit.testing.venues.calls import Call, Refusal
from execkit.testing.venues.faults import WireFault
from execkit.testing.venues.ledger import VenueState
from execkit.testing.venues.server import WireVenue
from execkit.testing.venues.spoils import OrderFields

KEY: Final = "wireBybitKey" + "0" * 6
SECRET: Final = "wireBybitSecret" + "0" * 21
"""Credentials of the account."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PUBLIC: Final = frozenset({"time", "rules", "ticker", "bars", "unknown"})
_TEXTS: Final = {
    10001: "Request parameter error.",
    10002: "Timestamp for this request is outside of the recvWindow.",
    10003: "API key is invalid.",
    10004: "Error sign, please check your signature generation algorithm.",
    10006: "Too many visits. Exceeded the API Rate Limit.",
    10016: "Internal server error.",
    170121: "Invalid symbol.",
    170131: "Balance insufficient.",
    170134: "Order price decimal too long.",
    170135: "Order quantity exceeded upper limit.",
    170136: "Order quantity exceeded lower limit.",
    170137: "Order volume decimal too long.",
    170140: "Order value exceeded lower limit.",
    170141: "Duplicate clientOrderId.",
    170142: "Order has been canceled.",
    170210: "New order rejected.",
    170213: "Order does not exist.",
}


def ms(at: datetime) -> str:
    """Return a moment in milliseconds of the epoch, as text."""
    return str((at - _EPOCH) // timedelta(milliseconds=1))


def refuse(code: int, text: str | None = None) -> NoReturn:
    """Raise a refusal; Bybit answers it with status 200."""
    text = _TEXTS[code] if text is None else text
    raise Refusal(200, {"retCode": code, "retMsg": text, "result": {}, "retExtInfo": {}})


def refuse_for(error: ExchangeError) -> NoReturn:
    """Say what the core refused."""
    codes = {
        "TICK_SIZE": 170134,
        "LOT_SIZE": 170137,
        "MIN_QUANTITY": 170136,
        "PARAMETERS": 170136,
        "MAX_QUANTITY": 170135,
        "MARKET_MAX_QUANTITY": 170135,
        "MIN_NOTIONAL": 170140,
    }
    match error:
        case DuplicateClientOrderIdError():
            refuse(170141)
        case InsufficientBalanceError():
            refuse(170131)
        case OrderNotFoundError():
            refuse(170213)
        case InvalidOrderError() if error.code in codes:
            refuse(codes[error.code])
    refuse(170210)


class BybitBase(WireVenue):
    """The account's side of a Bybit venue."""

    name = "bybit"
    order_fields = OrderFields("orderId", "orderLinkId", "cumExecQty", "orderStatus")

    def __init__(
        self, state: VenueState, *, key: str, secret: str, clock: Clock | None, port: int
    ) -> None:
        super().__init__(state, clock=clock, port=port)
        self.key, self.secret = key, secret
        self.secrets = (key, secret)

    def read_call(self, operation: str, request: web.Request, body: str) -> Call:
        """Read a request's parameters from the query or from the JSON body."""
        query = request.raw_path.partition("?")[2]
        parsed = _object(body)
        params = dict(parse_qsl(query, keep_blank_values=True))
        params |= {name: str(value) for name, value in parsed.items()}
        if operation == "open" and {"orderId", "orderLinkId"} & params.keys():
            operation = "get"
        return Call(
            operation=operation,
            method=request.method,
            path=request.path,
            params=params,
            at=self.clock.now(),
            payload=body or query,
            headers={name.upper(): value for name, value in request.headers.items()},
            body=parsed,
            client_order_id=params.get("orderLinkId", ""),
        )

    def admit(self, call: Call) -> None:
        """Check key, signature and time."""
        if call.operation in _PUBLIC:
            return
        key, stamp = (
            call.headers.get("X-BAPI-API-KEY", ""),
            call.headers.get("X-BAPI-TIMESTAMP", ""),
        )
        window = call.headers.get("X-BAPI-RECV-WINDOW", "5000")
        if key != self.key:
            refuse(10003)
        if not stamp.isdigit() or not window.isdigit():
            refuse(10001)
        now = int(ms(self.clock.now()))
        if not now - int(window) <= int(stamp) < now + 1000:
            refuse(10002)
        if not self.is_signed(
            stamp + key + window + call.payload, call.headers.get("X-BAPI-SIGN", "")
        ):
            refuse(10004)

    def is_signed(self, text: str, signature: str) -> bool:
        """Tell whether a signature is right."""
        right = hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return hmac.compare_digest(right, signature.lower())

    def wrap(self, result: Any) -> dict[str, Any]:
        """Return a result in the envelope that all answers have."""
        return {
            "retCode": 0,
            "retMsg": "OK",
            "result": result,
            "retExtInfo": {},
            "time": int(ms(self.clock.now())),
        }

    # --- faults -----------------------------------------------------------------------------------

    def error(self, fault: WireFault) -> Any:
        """Return an error in Bybit's form; without a code nothing, as a gateway answers."""
        if fault.code is None:
            return fault.text or None
        text = fault.text or _TEXTS.get(fault.code, "")
        return {"retCode": fault.code, "retMsg": text, "result": {}, "retExtInfo": {}}

    def rate_limit(self, retry_after: timedelta) -> dict[str, Any]:
        """Return how Bybit refuses an order for its pace."""
        return {"status": 429, "code": 10006, "retry_after": retry_after}

    def not_found(self, call: Call) -> Any:
        """Show an empty list, which is how Bybit says that an order is not there."""
        self.admit(call)
        return self.wrap({"list": [], "nextPageCursor": "", "category": "spot"})

    def order_in(self, payload: Any) -> dict[str, Any] | None:
        """Return the order in an answer; of several, the first."""
        result = payload.get("result") if isinstance(payload, dict) else None
        if isinstance(result, dict) and result.get("list"):
            return self._dict(result["list"][0])
        return self._dict(result)

    @staticmethod
    def _dict(value: Any) -> dict[str, Any] | None:
        return value if isinstance(value, dict) else None


def _object(body: str) -> dict[str, Any]:
    """Return a JSON object, or an empty one for anything else, which then lacks its parameters."""
    try:
        parsed = json.loads(body) if body else {}
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}

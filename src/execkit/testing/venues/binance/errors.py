"""Binance's refusals, with the codes and texts of its own documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from execkit.errors import (
    DuplicateClientOrderIdError,
    ExchangeError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    OrderNotFoundError,
)
from execkit.testing.venues.calls import Refusal

TEXTS: Final = {
    -1000: "An unknown error occurred while processing the request.",
    -1001: "Internal error; unable to process your request. Please try again.",
    -1003: "Way too many requests; IP banned until {until}. "
    "Please use WebSocket Streams for live updates to avoid bans.",
    -1006: "An unexpected response was received from the message bus. Execution status unknown.",
    -1007: "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    -1008: "Server is currently overloaded with other requests. Please try again in a few minutes.",
    -1015: "Too many new orders; current limit is {limit} orders per {span}.",
    -1016: "This service is no longer available.",
    -1020: "This operation is not supported.",
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -1022: "Signature for this request is not valid.",
    -1111: "Parameter '{name}' has too much precision.",
    -1115: "Invalid timeInForce.",
    -1116: "Invalid orderType.",
    -1117: "Invalid side.",
    -1121: "Invalid symbol.",
    -1125: "This listenKey does not exist.",
    -1131: "recvWindow must be less than 60000.",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2014: "API-key format invalid.",
    -2015: "Invalid API-key, IP, or permissions for action.",
    -2018: "Balance is insufficient.",
    -2019: "Margin is insufficient.",
    -2021: "Order would immediately trigger.",
    -2022: "ReduceOnly Order is rejected.",
    -2026: "This OrderType is not supported when reduceOnly.",
    -4003: "Quantity less than or equal to zero.",
    -4005: "Quantity greater than max quantity.",
    -4014: "Price not increased by tick size.",
    -4015: "Client order id is not valid.",
    -4023: "Qty not increased by step size.",
    -4116: "ClientOrderId is duplicated.",
    -4120: "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
    -4131: "The counterparty's best price does not meet the PERCENT_PRICE filter limit.",
    -4164: "Order's notional must be no smaller than {least} (unless you choose reduce only).",
    -5021: "Due to the order could not be filled immediately, the FOK order has been rejected. The order will not be "
    "recorded in the order history",
    -5022: "Due to the order could not be executed as maker, the Post Only order will be rejected. The order will not "
    "be recorded in the order history",
}


def refuse(
    code: int,
    text: str | None = None,
    *,
    status: int = 400,
    headers: Mapping[str, str] | None = None,
    **values: object,
) -> NoReturn:
    """Raise the refusal of that code; *values* fill the gaps of its usual text."""
    text = TEXTS[code].format(**values) if text is None else text
    raise Refusal(status, {"code": code, "msg": text}, headers)


def missing(name: str) -> NoReturn:
    """Refuse for a parameter that is not there."""
    refuse(
        -1102,
        f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.",
        status=400,
    )


def filtered(name: str) -> NoReturn:
    """Refuse for a filter."""
    refuse(-1013, f"Filter failure: {name}")


_FILTERS: Final = {
    "TICK_SIZE": "PRICE_FILTER",
    "LOT_SIZE": "LOT_SIZE",
    "MIN_QUANTITY": "LOT_SIZE",
    "MAX_QUANTITY": "LOT_SIZE",
    "MARKET_MAX_QUANTITY": "MARKET_LOT_SIZE",
    "MIN_NOTIONAL": "NOTIONAL",
    "MAX_NOTIONAL": "NOTIONAL",
}


def spot_refusal(error: ExchangeError) -> NoReturn:
    """Say on spot what the core refused."""
    match error:
        case DuplicateClientOrderIdError():
            refuse(-2010, "Duplicate order sent.")
        case InsufficientBalanceError():
            refuse(-2010, "Account has insufficient balance for requested action.")
        case MarketClosedError():
            refuse(-1013, "Market is closed.")
        case OrderNotFoundError():
            refuse(-2011)
        case InvalidOrderError(code="POST_ONLY"):
            refuse(-2010, "Order would immediately match and take.")
        case InvalidOrderError(code="PARAMETERS"):
            refuse(-1013, "Invalid quantity.")
        case InvalidOrderError() if error.code in _FILTERS:
            filtered(_FILTERS[error.code])
    refuse(-2010, "This action is disabled on this account.")


def futures_refusal(error: ExchangeError, least: object) -> NoReturn:
    """Say on USD-M futures what the core refused; *least* is the smallest notional."""
    match error:
        case DuplicateClientOrderIdError():
            refuse(-4116)
        case InsufficientBalanceError():
            refuse(-2019)
        case MarketClosedError():
            refuse(-4140, "Invalid symbol status for opening position.")
        case OrderNotFoundError():
            refuse(-2011)
    match getattr(error, "code", None):
        case "POST_ONLY":
            refuse(-5022)
        case "REDUCE_ONLY":
            refuse(-2022)
        case "TICK_SIZE":
            refuse(-4014)
        case "LOT_SIZE":
            refuse(-4023)
        case "MAX_QUANTITY" | "MARKET_MAX_QUANTITY" | "MAX_NOTIONAL":
            refuse(-4005)
        case "MIN_NOTIONAL":
            refuse(-4164, least=least)
    refuse(-4003)

"""Alpaca's own client, imported without the complaints of its own imports."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from alpaca.common.exceptions import APIError
    from alpaca.trading import requests
    from alpaca.trading.client import TradingClient
    from alpaca.trading.enums import (
        OrderClass,
        OrderSide,
        OrderStatus,
        QueryOrderStatus,
        TimeInForce,
    )
    from alpaca.trading.stream import TradingStream

__all__ = [
    "APIError",
    "OrderClass",
    "OrderSide",
    "OrderStatus",
    "QueryOrderStatus",
    "TimeInForce",
    "TradingClient",
    "TradingStream",
    "requests",
]

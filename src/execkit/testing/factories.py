"""Builders of valid values, so that a test names only what it is about. Numbers may be given as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from execkit.model.market import BarData, Quote, Timeframe
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.numbers import positive

Number = Decimal | int | str

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""When the bars begin, and where virtual clocks stand at first."""

SYMBOL: Final = "BTC/USDT"


def make_request(
    client_order_id: str = "order-1",
    *,
    symbol: str = SYMBOL,
    side: Side = Side.BUY,
    quantity: Number = 1,
    limit: Number | None = None,
    stop: Number | None = None,
    **changes: Any,
) -> OrderRequest:
    """Return a request whose type follows from the prices: market, limit, stop or stop-limit."""
    types = {
        (False, False): OrderType.MARKET,
        (True, False): OrderType.LIMIT,
        (False, True): OrderType.STOP,
        (True, True): OrderType.STOP_LIMIT,
    }
    return OrderRequest(
        client_order_id=client_order_id,
        symbol=symbol,
        side=side,
        type=types[limit is not None, stop is not None],
        quantity=positive("quantity", quantity),
        limit_price=None if limit is None else positive("limit", limit),
        stop_price=None if stop is None else positive("stop", stop),
        **changes,
    )


def make_bar(
    number: int,
    open: Number,
    high: Number,
    low: Number,
    close: Number,
    volume: Number = 1000,
    *,
    symbol: str = SYMBOL,
    timeframe: Timeframe = Timeframe.M1,
) -> BarData:
    """Return the bar that opens *number* bar lengths after `START`."""
    close_time = START + (number + 1) * timeframe.duration
    prices = (Decimal(open), Decimal(high), Decimal(low), Decimal(close))
    return BarData(symbol, timeframe, close_time, *prices, Decimal(volume))


def make_quote(
    bid: Number,
    ask: Number,
    *,
    symbol: str = SYMBOL,
    seconds: float = 0,
    last: Number | None = None,
    bid_size: Number | None = None,
    ask_size: Number | None = None,
) -> Quote:
    """Return a quote, *seconds* after `START`."""
    last, bid_size, ask_size = (
        None if value is None else Decimal(value) for value in (last, bid_size, ask_size)
    )
    at = START + timedelta(seconds=seconds)
    return Quote(symbol, Decimal(bid), Decimal(ask), at, last, bid_size, ask_size)

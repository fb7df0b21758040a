"""Market data as Alpaca writes it: quotes, trades, bars, and the terms of an asset."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

from execkit.errors import ConfigurationError
from execkit.exchanges.alpaca.decode import CRYPTO, EQUITY, MAKER_FEE, TAKER_FEE
from execkit.exchanges.alpaca.requests import NINE_PLACES, SHARE, tick_of
from execkit.exchanges.alpaca.values import BadAnswerError, figure, flag, moment
from execkit.exchanges.ccxt.values import mapping, text
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.numbers import ONE, ZERO

WORDS: Final = {
    Timeframe.M1: "1Min",
    Timeframe.M5: "5Min",
    Timeframe.M15: "15Min",
    Timeframe.M30: "30Min",
    Timeframe.H1: "1Hour",
    Timeframe.H4: "4Hour",
    Timeframe.D1: "1Day",
}
_LEAST_COST: Final = Decimal(10)
"""USD that a crypto order must be worth; a stock order one."""
_DOLLARS: Final = ("USD", "USDC", "USDT")
_DOLLAR: Final = ONE


def read_asset(body: Any, *, fractional: bool, price: Decimal | None) -> Instrument:
    """Return the rules of an asset; *price* decides on a stock's price step, without one it is a cent."""
    row = mapping(body, "the asset")
    symbol, kind = text(row, "symbol"), text(row, "class")
    tradeable = flag(row, "tradable") and row.get("status") == "active"
    try:
        if kind == CRYPTO:
            base, slash, quote = symbol.partition("/")
            if not slash:
                raise BadAnswerError("a crypto asset without a quote currency")
            return Instrument(
                symbol=symbol,
                base=base,
                quote=quote,
                tick_size=figure(row, "price_increment"),
                lot_size=figure(row, "min_trade_increment"),
                min_quantity=figure(row, "min_order_size"),
                min_notional=_LEAST_COST if quote in _DOLLARS else ZERO,
                maker_fee=MAKER_FEE,
                taker_fee=TAKER_FEE,
                fee_in_base=True,
                stop_limit_only=True,
                lists=False,
                tradeable=tradeable,
            )
        if kind != EQUITY:
            raise BadAnswerError("an asset of a class that is not traded here")
        in_parts = fractional and flag(row, "fractionable")
        return Instrument(
            symbol=symbol,
            base=symbol,
            quote="USD",
            tick_size=tick_of(_DOLLAR if price is None else price),
            lot_size=NINE_PLACES if in_parts else SHARE,
            min_quantity=ZERO if in_parts else SHARE,
            min_notional=_DOLLAR,
            list_lot_size=SHARE,
            tradeable=tradeable,
        )
    except ConfigurationError as error:
        raise BadAnswerError(f"the asset's rules are impossible: {error}") from None


def read_snapshot(body: Any, symbol: str) -> Quote:
    """Return the quote of a snapshot, with the last trade."""
    row = mapping(body, "the snapshot")
    trade = row.get("latestTrade")
    last = figure(mapping(trade, "the trade"), "p") if trade is not None else None
    return read_quote(row.get("latestQuote"), symbol, last=last)


def last_price(body: Any) -> Decimal:
    """Return the last traded price of a snapshot."""
    return figure(mapping(mapping(body, "the snapshot").get("latestTrade"), "the trade"), "p")


def read_quote(body: Any, symbol: str, *, last: Decimal | None = None) -> Quote:
    """Return a quote; one without two sides, as outside the session, raises `BadAnswerError`."""
    row = mapping(body, "the quote")
    bid, ask = figure(row, "bp"), figure(row, "ap")
    if not bid or not ask:
        raise BadAnswerError("the quote has one side only, as outside the session")
    quote = Quote(
        symbol,
        bid,
        ask,
        moment(row, "t"),
        last=last or None,
        bid_size=figure(row, "bs"),
        ask_size=figure(row, "as"),
    )
    return _checked(quote)


def read_trade(body: Any, symbol: str) -> Trade:
    """Return a public trade."""
    row = mapping(body, "the trade")
    return _checked(Trade(symbol, figure(row, "p"), figure(row, "s"), moment(row, "t")))


def read_bar(
    body: Any, symbol: str, timeframe: Timeframe, length: timedelta | None = None
) -> BarData:
    """Return a bar. Alpaca names its beginning; *length* is where it ends, if not after its timeframe."""
    row = mapping(body, "the bar")
    begins = moment(row, "t")
    bar = BarData(
        symbol,
        timeframe,
        begins + (timeframe.duration if length is None else length),
        figure(row, "o"),
        figure(row, "h"),
        figure(row, "l"),
        figure(row, "c"),
        figure(row, "v"),
    )
    return _checked(bar)


_Data = TypeVar("_Data", Quote, Trade, BarData)


def _checked(value: _Data) -> _Data:
    try:
        return value.checked()
    except ConfigurationError as error:
        raise BadAnswerError(f"impossible market data: {error}") from None


def of_symbol(body: Any, name: str, symbol: str) -> Mapping[str, Any]:
    """Return what an answer for several symbols says of one."""
    return mapping(mapping(mapping(body).get(name), name).get(symbol), f"{name} of the symbol")

"""Binance's markets: filters become an instrument's rules, and the rest of them a check before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import attrs

from execkit.errors import (
    ConfigurationError,
    InvalidOrderError,
    MarketClosedError,
    QuantityTooLargeError,
)
from execkit.exchanges.ccxt.values import BadAnswerError, amount, mapping, rows, text
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.numbers import ZERO, plain

_FEES: Final = {
    "spot": (Decimal("0.001"), Decimal("0.001")),
    "usdm": (Decimal("0.0002"), Decimal("0.0005")),
}
"""(maker, taker) of an ordinary account; the account's own come with `with_fees` on spot."""

_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)


@attrs.frozen(kw_only=True)
class Market:
    """One market: the rules that every venue has, and Binance's own."""

    instrument: Instrument
    min_price: Decimal = ZERO
    max_price: Decimal | None = None
    market_lot: Decimal | None = None
    market_min: Decimal = ZERO
    bid_band: tuple[Decimal, Decimal] | None = None
    """A buy's limit lies between these multiples of the reference price."""
    ask_band: tuple[Decimal, Decimal] | None = None
    trailing_bips: tuple[Decimal, Decimal] | None = None

    @property
    def id(self) -> str:
        """Binance's own name of the market."""
        return self.instrument.venue_symbol


def markets_of(body: Any, kind: str) -> Iterator[Market]:
    """Return the markets of an `exchangeInfo` that can be traded as *kind*; others are left out."""
    for row in rows(mapping(body).get("symbols"), "symbols"):
        try:
            if kind == "spot":
                if row.get("isSpotTradingAllowed") is not False:
                    yield _market(row, kind)
            elif row.get("contractType") == "PERPETUAL":
                yield _market(row, kind)
        except (BadAnswerError, ConfigurationError):
            continue  # a market with rules that make no sense, or a name that is not plain text, is not traded


def _market(row: Mapping[str, Any], kind: str) -> Market:
    base, quote = text(row, "baseAsset"), text(row, "quoteAsset")
    symbol = f"{base}/{quote}" if kind == "spot" else f"{base}/{quote}:{text(row, 'marginAsset')}"
    filters = {text(each, "filterType"): each for each in rows(row.get("filters"), "filters")}
    prices, lots = filters.get("PRICE_FILTER", {}), filters.get("LOT_SIZE", {})
    market_lots = filters.get("MARKET_LOT_SIZE", {})
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    maker, taker = _FEES[kind]
    instrument = Instrument(
        symbol=symbol,
        base=base,
        quote=quote,
        tick_size=_of(prices, "tickSize") or Decimal("1e-8"),
        lot_size=_of(lots, "stepSize") or Decimal("1e-8"),
        min_quantity=_of(lots, "minQty"),
        max_quantity=_of(lots, "maxQty") or None,
        market_max_quantity=_of(market_lots, "maxQty") or None,
        min_notional=_of(notional, "minNotional") or _of(notional, "notional"),
        max_notional=_of(notional, "maxNotional") or None,
        maker_fee=maker,
        taker_fee=taker,
        fee_in_base=kind == "spot",
        tradeable=row.get("status") == "TRADING",
        venue_symbol=text(row, "symbol"),
    )
    sides = filters.get("PERCENT_PRICE_BY_SIDE")
    both = filters.get("PERCENT_PRICE")
    trailing = filters.get("TRAILING_DELTA")
    return Market(
        instrument=instrument,
        min_price=_of(prices, "minPrice"),
        max_price=_of(prices, "maxPrice") or None,
        market_lot=_of(market_lots, "stepSize") or None,
        market_min=_of(market_lots, "minQty"),
        bid_band=_band(sides, "bidMultiplier") or _band(both, "multiplier"),
        ask_band=_band(sides, "askMultiplier") or _band(both, "multiplier"),
        trailing_bips=None
        if trailing is None
        else (
            max(_of(trailing, "minTrailingAboveDelta"), _of(trailing, "minTrailingBelowDelta")),
            min(_of(trailing, "maxTrailingAboveDelta"), _of(trailing, "maxTrailingBelowDelta")),
        ),
    )


def _of(row: Mapping[str, Any], name: str) -> Decimal:
    return amount(row, name) if name in row else ZERO


def _band(row: Mapping[str, Any] | None, name: str) -> tuple[Decimal, Decimal] | None:
    if row is None:
        return None
    down, up = _of(row, f"{name}Down"), _of(row, f"{name}Up")
    return (down, up) if up > ZERO else None


def with_fees(market: Market, maker: Decimal, taker: Decimal) -> Market:
    """Return the market with the account's own fees."""
    return attrs.evolve(
        market, instrument=attrs.evolve(market.instrument, maker_fee=maker, taker_fee=taker)
    )


def check(market: Market, request: OrderRequest, reference: Decimal | None) -> None:
    """Raise `InvalidOrderError`, naming field and fix, for an order that Binance would refuse by a filter.

    *reference* is a recent price, where one is known; the bands around it hold for entries only, because
    Binance takes an average of its own and a reduction must never be kept back by an estimate.
    """
    rules = market.instrument
    if not rules.tradeable:
        raise MarketClosedError(f"symbol: {rules.symbol} is not open for trading at Binance now")
    for field, price in (("limit_price", request.limit_price), ("stop_price", request.stop_price)):
        if price is not None:
            _check_price(market, field, price)
    _check_quantity(market, request)
    _check_notional(rules, request)
    band = market.bid_band if request.side is Side.BUY else market.ask_band
    limit = request.limit_price
    if None in (band, reference, limit) or request.reduce_only or request.type in _STOPS:
        return
    assert band is not None
    assert reference is not None
    assert limit is not None
    low, high = reference * band[0], reference * band[1]
    if not low <= limit <= high:
        raise InvalidOrderError(
            f"limit_price: {plain(limit)} is outside {_short(low)} to {_short(high)}, "
            f"what {rules.symbol} allows a {request.side} around {_short(reference)} (PERCENT_PRICE_BY_SIDE)"
        )


def _check_price(market: Market, field: str, price: Decimal) -> None:
    rules = market.instrument
    if not rules.on_tick(price):
        raise InvalidOrderError(
            f"{field}: {plain(price)} is no multiple of the tick size {plain(rules.tick_size)} of {rules.symbol}; "
            f"use {plain(rules.round_price_down(price))} or {plain(rules.round_price_up(price))}"
        )
    if price < max(market.min_price, rules.tick_size) or (
        market.max_price is not None and price > market.max_price
    ):
        most = "" if market.max_price is None else f" and at most {plain(market.max_price)}"
        raise InvalidOrderError(
            f"{field}: {plain(price)} must be at least {plain(max(market.min_price, rules.tick_size))}{most}"
            f" for {rules.symbol} (PRICE_FILTER)"
        )


def _check_quantity(market: Market, request: OrderRequest) -> None:
    rules, quantity = market.instrument, request.quantity
    is_market = request.type is OrderType.MARKET
    lot = rules.lot_size
    if is_market and market.market_lot is not None:
        lot = max(lot, market.market_lot)
    if not rules.on_lot(quantity) or (lot != rules.lot_size and quantity % lot != ZERO):
        raise InvalidOrderError(
            f"quantity: {plain(quantity)} is no multiple of the lot size {plain(lot)} of {rules.symbol}; "
            "round down with instrument.round_quantity()"
        )
    least = max(rules.min_quantity, lot, market.market_min if is_market else ZERO)
    if quantity < least:
        raise InvalidOrderError(
            f"quantity: {plain(quantity)} is below the least, {plain(least)}, of {rules.symbol} (LOT_SIZE)"
        )
    limits = (rules.max_quantity, rules.market_max_quantity if is_market else None)
    most = min((limit for limit in limits if limit is not None), default=None)
    if most is not None and quantity > most:
        raise QuantityTooLargeError(
            f"quantity: {plain(quantity)} is above {plain(most)}, the most that {rules.symbol} takes in one order",
            allowed=most,
        )


def _check_notional(rules: Instrument, request: OrderRequest) -> None:
    price = request.limit_price or request.stop_price
    if price is None or request.reduce_only:
        return
    notional = request.quantity * price
    if notional < rules.min_notional:
        raise InvalidOrderError(
            f"quantity: {plain(request.quantity)} at {plain(price)} is worth {plain(notional)} {rules.quote}, "
            f"the least for {rules.symbol} is {plain(rules.min_notional)} (NOTIONAL); "
            f"use {plain(rules.smallest_quantity(price))} or more"
        )
    if rules.max_notional is not None and notional > rules.max_notional:
        raise QuantityTooLargeError(
            f"quantity: worth {plain(notional)} {rules.quote}, the most for {rules.symbol} "
            f"is {plain(rules.max_notional)} (NOTIONAL)",
            allowed=rules.round_quantity(rules.max_notional / price),
        )


def _short(value: Decimal) -> str:
    return plain(value.quantize(Decimal("1e-8"))) if abs(value) < 10**9 else plain(value)

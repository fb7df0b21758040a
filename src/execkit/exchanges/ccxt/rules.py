"""Checks against a market's rules before anything is sent; each error names the field and the fix."""

from __future__ import annotations

from decimal import Decimal

from execkit.errors import InvalidOrderError, MarketClosedError, QuantityTooLargeError
from execkit.exchanges.ccxt.values import BadAnswerError, OtherOrderError
from execkit.model.instrument import Instrument
from execkit.model.order import OrderReport, OrderRequest, OrderState, OrderType, Side
from execkit.numbers import ZERO, is_multiple, plain


def check_rules(
    rules: Instrument,
    request: OrderRequest,
    *,
    min_price: Decimal = ZERO,
    max_price: Decimal | None = None,
    market_lot: Decimal | None = None,
    market_min: Decimal = ZERO,
) -> None:
    """Raise `InvalidOrderError` for an order that the venue would refuse by the rules it states.

    A closed market is an entry's reason only: whether a reduction can be had is for the venue to say.
    """
    if not rules.tradeable and not reduces(request):
        raise MarketClosedError(f"symbol: {rules.symbol} is not open for trading now")
    for field, price in (("limit_price", request.limit_price), ("stop_price", request.stop_price)):
        if price is not None:
            _check_price(rules, field, price, max(min_price, rules.tick_size), max_price)
    is_market = request.type is OrderType.MARKET
    lot = max(rules.lot_size, market_lot or ZERO) if is_market else rules.lot_size
    _check_quantity(rules, request, lot, market_min if is_market else ZERO)
    _check_notional(rules, request)


def compare(report: OrderReport, request: OrderRequest) -> None:
    """Raise `BadAnswerError` when an answer is not about the order that was sent, or says nothing of it."""
    for name in ("client_order_id", "symbol", "side", "type"):
        if getattr(report, name) != getattr(request, name):
            raise OtherOrderError(f"the answer has another {name}")
    if report.quantity != request.quantity:
        raise BadAnswerError("the answer has another quantity")
    if report.status is OrderState.IN_DOUBT:
        raise BadAnswerError(f"the answer has the unknown status {report.raw_status!r}")


def reduces(request: OrderRequest) -> bool:
    """Tell whether an order can only make a position smaller; on a spot market each sale does."""
    return request.reduce_only or (":" not in request.symbol and request.side is Side.SELL)


def _check_price(
    rules: Instrument, field: str, price: Decimal, least: Decimal, most: Decimal | None
) -> None:
    if not rules.on_tick(price):
        raise InvalidOrderError(
            f"{field}: {plain(price)} is no multiple of the tick size {plain(rules.tick_size)} of {rules.symbol}; "
            f"use {plain(rules.round_price_down(price))} or {plain(rules.round_price_up(price))}"
        )
    if price < least or (most is not None and price > most):
        bound = "" if most is None else f" and at most {plain(most)}"
        raise InvalidOrderError(
            f"{field}: {plain(price)} must be at least {plain(least)}{bound} for {rules.symbol}"
        )


def _check_quantity(
    rules: Instrument, request: OrderRequest, lot: Decimal, market_min: Decimal
) -> None:
    quantity = request.quantity
    if not (is_multiple(quantity, rules.lot_size) and is_multiple(quantity, lot)):
        raise InvalidOrderError(
            f"quantity: {plain(quantity)} is no multiple of the lot size {plain(lot)} of {rules.symbol}; "
            "round down with instrument.round_quantity()"
        )
    least = max(rules.min_quantity, lot, market_min)
    if quantity < least:
        raise InvalidOrderError(
            f"quantity: {plain(quantity)} is below {plain(least)}, the least of {rules.symbol}"
        )
    limits = [rules.max_quantity]
    if request.type is OrderType.MARKET:
        limits.append(rules.market_max_quantity)
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
            f"the least for {rules.symbol} is {plain(rules.min_notional)}; "
            f"use {plain(rules.smallest_quantity(price))} or more"
        )
    if rules.max_notional is not None and notional > rules.max_notional:
        raise QuantityTooLargeError(
            f"quantity: worth {plain(notional)} {rules.quote}, the most for {rules.symbol} "
            f"is {plain(rules.max_notional)}",
            allowed=rules.round_quantity(rules.max_notional / price),
        )

"""From Binance's words to ours: orders, executions, and the events of the user-data stream.

Everything here is strict: what is missing, is no plain number or contradicts itself raises `BadAnswerError`. A status
that is not in the table is IN_DOUBT, with Binance's word kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from execkit.exchanges.ccxt.values import (
    BadAnswerError,
    amount,
    clean,
    identifier,
    mapping,
    moment,
    number,
    price,
    rows,
    text,
)
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side
from execkit.numbers import ZERO

SymbolOf = Callable[[str], str]
"""Turns Binance's name of a market into ours; raises `BadAnswerError` for one that is not traded here."""

STATUSES: Final = {
    "NEW": OrderState.ACCEPTED,
    "PENDING_NEW": OrderState.HELD,
    "PARTIALLY_FILLED": OrderState.PARTIALLY_FILLED,
    "PENDING_CANCEL": OrderState.PENDING_CANCEL,
    "FILLED": OrderState.FILLED,
    "CANCELED": OrderState.CANCELLED,
    "REJECTED": OrderState.REJECTED,
    "EXPIRED": OrderState.EXPIRED,
    "EXPIRED_IN_MATCH": OrderState.EXPIRED,
}
ALGO_STATUSES: Final = {
    "NEW": OrderState.ACCEPTED,
    "TRIGGERING": OrderState.ACCEPTED,
    "TRIGGERED": OrderState.ACCEPTED,
    "CANCELED": OrderState.CANCELLED,
    "REJECTED": OrderState.REJECTED,
    "EXPIRED": OrderState.EXPIRED,
}
"""FINISHED is not here: how it ended is told by the order that it became."""

TYPES: Final = {
    "MARKET": OrderType.MARKET,
    "LIMIT": OrderType.LIMIT,
    "LIMIT_MAKER": OrderType.LIMIT,
    "STOP_LOSS": OrderType.STOP,
    "STOP_LOSS_LIMIT": OrderType.STOP_LIMIT,
    "TAKE_PROFIT_LIMIT": OrderType.STOP_LIMIT,
    "STOP_MARKET": OrderType.STOP,
    "TAKE_PROFIT_MARKET": OrderType.STOP,
    "STOP": OrderType.STOP_LIMIT,
    "TRAILING_STOP_MARKET": OrderType.TRAILING_STOP,
}

ALGO: Final = "A"
"""First letter of the venue order id of a conditional order: those are counted apart from orders."""

_SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL}
_MOST_FILLS: Final = 1000


def order_type(word: str, kind: str, row: Mapping[str, Any]) -> OrderType:
    """Return our order type; what `TAKE_PROFIT` means depends on the market."""
    if word == "TAKE_PROFIT":
        return OrderType.STOP if kind == "spot" else OrderType.STOP_LIMIT
    found = TYPES.get(word)
    if found is None:
        raise BadAnswerError(f"type {clean(word, 30)!r} is unknown")
    if found is OrderType.STOP and row.get("trailingDelta") not in (None, 0, -1):
        return OrderType.TRAILING_STOP
    return found


def side_of(row: Mapping[str, Any], name: str) -> Side:
    """Return the side."""
    found = _SIDES.get(text(row, name))
    if found is None:
        raise BadAnswerError("side is neither BUY nor SELL")
    return found


def read_order(
    body: Any, kind: str, symbol_of: SymbolOf, *, of_cancel: bool = False
) -> OrderReport:
    """Return the report of an order as REST gives it, for *kind* `spot` or `usdm`.

    *of_cancel*: the answer to a cancel, whose `clientOrderId` names the cancel itself on spot.
    """
    row = mapping(body)
    own_id = row.get("origClientOrderId") if of_cancel else None
    client_id = own_id or row.get("clientOrderId")
    if not isinstance(client_id, str) or not client_id:
        raise BadAnswerError("clientOrderId is missing")
    venue_id = identifier(row, "orderId")
    symbol = symbol_of(text(row, "symbol"))
    side = side_of(row, "side")
    word = text(row, "type")
    if kind == "usdm" and isinstance(row.get("origType"), str):
        word = row["origType"]
    filled = amount(row, "executedQty")
    quantity = ordered(row, "origQty", "closePosition", filled)
    status = text(row, "status")
    at = _first_moment(row, "updateTime", "transactTime", "workingTime", "time")
    fills = _fills(row, client_id, venue_id, symbol, side, at)
    return _report(
        client_order_id=client_id,
        venue_order_id=venue_id,
        symbol=symbol,
        side=side,
        type=order_type(word, kind, row),
        quantity=quantity,
        raw_status=status,
        filled=filled,
        average_price=average(row, filled),
        limit_price=price(row, "price"),
        stop_price=price(row, "stopPrice"),
        fills=fills,
        updated_at=at,
    )


def _report(*, raw_status: str, **values: Any) -> OrderReport:
    status = STATUSES.get(raw_status, OrderState.IN_DOUBT)
    filled, quantity = values["filled"], values["quantity"]
    if filled > quantity:
        raise BadAnswerError("more is executed than was ordered")
    if status is OrderState.FILLED and filled != quantity:
        raise BadAnswerError("a filled order is not executed whole")
    executed = sum((fill.quantity for fill in values["fills"]), ZERO)
    if executed > filled:
        raise BadAnswerError("the executions add up to more than is executed")
    return OrderReport(status=status, raw_status=clean(raw_status, 40), **values)


def ordered(row: Mapping[str, Any], name: str, flag: str, filled: Decimal = ZERO) -> Decimal:
    """Return an order's quantity: zero only where *flag* says that it closes whatever the position is by then.

    execkit sends no such orders; they are others', placed e.g. with the position's stop and target in Binance's app.
    """
    quantity = amount(row, name)
    if row.get(flag) in (True, "true"):
        return max(quantity, filled)
    if quantity <= ZERO:
        raise BadAnswerError("the quantity is zero")
    return quantity


def average(row: Mapping[str, Any], filled: Decimal) -> Decimal | None:
    """Return the average price of what is executed, stated or from its total."""
    if filled == ZERO:
        return None
    for name in ("avgPrice", "ap"):
        if row.get(name) not in (None, "", "0"):
            stated = amount(row, name)
            if stated > ZERO:
                return stated
    for name in ("cummulativeQuoteQty", "cumQuote", "Z"):
        if name in row:
            total = number(row, name)
            # Old orders say -1: not known.
            return total / filled if total > ZERO else None
    return None


def _fills(
    row: Mapping[str, Any],
    client_id: str,
    venue_id: str,
    symbol: str,
    side: Side,
    at: datetime | None,
) -> tuple[Fill, ...]:
    """Return the executions that came with the answer to an order that was executed at once."""
    found = row.get("fills")
    if found in (None, []) or at is None:
        return ()
    each_row = rows(found, "fills")
    if len(each_row) > _MOST_FILLS:
        raise BadAnswerError("too many executions")
    return tuple(
        _fill(
            each,
            trade_id=identifier(each, "tradeId"),
            client_order_id=client_id,
            venue_order_id=venue_id,
            symbol=symbol,
            side=side,
            at=at,
            quantity=amount(each, "qty"),
            price=amount(each, "price"),
            fee="commission",
            fee_asset="commissionAsset",
            maker=False,
        )
        for each in each_row
    )


def _fill(row: Mapping[str, Any], *, fee: str, fee_asset: str, **values: Any) -> Fill:
    paid = number(row, fee) if row.get(fee) not in (None, "") else ZERO
    asset = row.get(fee_asset)
    if paid and (not isinstance(asset, str) or not asset):
        raise BadAnswerError("a fee is paid in no asset")
    if values["quantity"] <= ZERO or values["price"] <= ZERO:
        raise BadAnswerError("an execution of nothing, or for nothing")
    name = clean(asset, 20) if isinstance(asset, str) else ""
    return Fill(fee=paid, fee_asset=name, **values)


def read_trade(
    body: Any, kind: str, symbol_of: SymbolOf, client_id_of: Callable[[str], str]
) -> Fill:
    """Return an execution of `myTrades` or `userTrades`; Binance does not name our id in it."""
    row = mapping(body)
    venue_id = identifier(row, "orderId")
    side = side_of(row, "side") if kind == "usdm" else _side_of_flag(row, "isBuyer")
    maker = row.get("isMaker", row.get("maker"))
    return _fill(
        row,
        trade_id=identifier(row, "id"),
        client_order_id=client_id_of(venue_id),
        venue_order_id=venue_id,
        symbol=symbol_of(text(row, "symbol")),
        side=side,
        quantity=amount(row, "qty"),
        price=amount(row, "price"),
        at=moment(row, "time"),
        fee="commission",
        fee_asset="commissionAsset",
        maker=maker if isinstance(maker, bool) else None,
    )


def _side_of_flag(row: Mapping[str, Any], name: str) -> Side:
    flag = row.get(name)
    if not isinstance(flag, bool):
        raise BadAnswerError(f"{name} is missing")
    return Side.BUY if flag else Side.SELL


def read_algo(body: Any, symbol_of: SymbolOf) -> tuple[OrderReport, str | None]:
    """Return the report of a conditional order of the algo endpoint, and the id of the order that it became."""
    row = mapping(body)
    word = text(row, "algoStatus")
    became = row.get("actualOrderId")
    actual = identifier(row, "actualOrderId") if became not in (None, "", 0, "0") else None
    report = OrderReport(
        client_order_id=text(row, "clientAlgoId"),
        venue_order_id=ALGO + identifier(row, "algoId"),
        symbol=symbol_of(text(row, "symbol")),
        side=side_of(row, "side"),
        type=order_type(text(row, "orderType"), "usdm", row),
        quantity=ordered(row, "quantity", "closePosition"),
        status=ALGO_STATUSES.get(word, OrderState.IN_DOUBT),
        limit_price=price(row, "price"),
        stop_price=price(row, "triggerPrice"),
        updated_at=_first_moment(row, "updateTime", "createTime"),
        raw_status=clean(word, 40),
    )
    return report, actual


def _first_moment(row: Mapping[str, Any], *names: str) -> datetime | None:
    for name in names:
        if row.get(name) not in (None, 0, -1):
            return moment(row, name)
    return None

"""From Alpaca's words to ours: orders, executions, and the frames of the `trade_updates` stream.

Strict: what is missing, is no plain number or contradicts itself raises `BadAnswerError`. A status that is not in the
table is IN_DOUBT, with Alpaca's word kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

import attrs
import msgspec

from execkit.exchanges.alpaca.values import (
    BadAnswerError,
    clean,
    client_id,
    maybe_id,
    maybe_moment,
    moment,
    order_id,
)
from execkit.exchanges.ccxt.values import amount, identifier, mapping, price, rows, text
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side
from execkit.numbers import MONEY, ZERO, plain, round_up

CRYPTO: Final = "crypto"
EQUITY: Final = "us_equity"

REPLACED: Final = "replaced"
"""Not a state of an order here: it goes on under another id of the venue's."""

REJECTED: Final = "rejected"

STATUSES: Final = {
    "new": OrderState.ACCEPTED,
    "accepted": OrderState.ACCEPTED,
    "pending_new": OrderState.ACCEPTED,
    "accepted_for_bidding": OrderState.ACCEPTED,
    "partially_filled": OrderState.PARTIALLY_FILLED,
    "pending_replace": OrderState.ACCEPTED,
    "stopped": OrderState.ACCEPTED,  # its price is guaranteed, its execution is still to come
    "held": OrderState.HELD,
    "suspended": OrderState.HELD,
    "pending_review": OrderState.HELD,
    "done_for_day": OrderState.HELD,
    "calculated": OrderState.HELD,  # done for the day, its settlement is being computed
    "pending_cancel": OrderState.PENDING_CANCEL,
    "filled": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "expired": OrderState.EXPIRED,
    "rejected": OrderState.REJECTED,
}
_TYPES: Final = {kind.value: kind for kind in OrderType}
_OPTION: Final = re.compile(r"[A-Z0-9]{1,6}\d{6}[CP]\d{8}", re.ASCII)
_LISTS: Final = ("bracket", "oco", "oto")
_SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL, "sell_short": Side.SELL}
_QUOTES: Final = ("USDT", "USDC", "USD", "BTC")
_FILLS: Final = ("fill", "partial_fill")

MAKER_FEE: Final = Decimal("0.0015")
TAKER_FEE: Final = Decimal("0.0025")
"""Crypto fees of the lowest tier, the highest that there are; stocks are free of commission."""
_COIN_STEP: Final = Decimal("1e-9")
_UNDONE: Final = ("trade_bust", "trade_correct")


def symbol_of(row: Mapping[str, Any]) -> str:
    """Return our symbol: `AAPL`, or `BTC/USD` for crypto, which positions call `BTCUSD`."""
    symbol = text(row, "symbol")
    if row.get("asset_class") != CRYPTO or "/" in symbol:
        return symbol
    for quote in _QUOTES:
        if symbol.endswith(quote) and symbol != quote:
            return f"{symbol.removesuffix(quote)}/{quote}"
    return symbol


@attrs.frozen(kw_only=True)
class OrderRow:
    """One order as Alpaca shows it. A change gives it a new id: *replaces* and *replaced_by* link them."""

    order_id: str
    client_id: str
    replaces: str | None
    replaced_by: str | None
    raw_status: str
    report: OrderReport
    """With the ids of this row."""
    submitted_at: datetime | None
    is_listed: bool = False
    """It is part of a bracket, an OCO or an OTO."""
    legs: tuple[OrderRow, ...] = ()

    @property
    def is_refused_change(self) -> bool:
        """Tell whether this is a change that the venue refused after all: what it was to replace may live on."""
        return self.raw_status == REJECTED and self.replaces is not None

    def as_order(self, client_order_id: str, venue_order_id: str) -> OrderReport:
        """Return the report under the names by which the order is known."""
        return msgspec.structs.replace(
            self.report, client_order_id=client_order_id, venue_order_id=venue_order_id
        )


def is_tradeable_here(row: Mapping[str, Any]) -> bool:
    """Tell whether an order or position is of a class that this adapter trades; options are not."""
    known = row.get("asset_class") in (EQUITY, CRYPTO, None)
    return known and row.get("order_class") != "mleg"


def is_option(row: Mapping[str, Any]) -> bool:
    """Tell whether an activity, which states no class, is about an option: AAPL240315C00150000."""
    return _OPTION.fullmatch(str(row.get("symbol"))) is not None


def read_order(body: Any) -> OrderRow:
    """Return an order with its legs."""
    row = mapping(body, "the order")
    venue_id, own_id = order_id(row, "id"), client_id(row)
    side = _SIDES.get(text(row, "side"))
    if side is None:
        raise BadAnswerError("side is neither buy nor sell")
    kind = _TYPES.get(str(row.get("type") or row.get("order_type")))
    if kind is None:
        raise BadAnswerError(f"type {clean(row.get('type'), 30)!r} is unknown")
    filled = ZERO if row.get("filled_qty") is None else amount(row, "filled_qty")
    quantity = _quantity(row, filled)
    word = text(row, "status")
    limit, stop = price(row, "limit_price"), price(row, "stop_price")
    report = OrderReport(
        client_order_id=own_id,
        venue_order_id=venue_id,
        symbol=symbol_of(row),
        side=side,
        type=kind,
        quantity=quantity,
        status=_status(word, quantity, filled),
        filled=filled,
        average_price=price(row, "filled_avg_price") if filled else None,
        limit_price=limit,
        stop_price=stop,
        updated_at=maybe_moment(row, "updated_at"),
        raw_status=clean(word, 40),
    )
    legs = row.get("legs")
    return OrderRow(
        order_id=venue_id,
        client_id=own_id,
        replaces=maybe_id(row, "replaces"),
        replaced_by=maybe_id(row, "replaced_by"),
        raw_status=word,
        report=report,
        submitted_at=maybe_moment(row, "submitted_at"),
        is_listed=row.get("order_class") in _LISTS,
        legs=tuple(read_order(leg) for leg in rows(legs, "legs")) if legs else (),
    )


def _quantity(row: Mapping[str, Any], filled: Decimal) -> Decimal:
    """Return the quantity; an order over an amount of money has one only as far as it is executed or limited."""
    if row.get("qty") is not None:
        quantity = amount(row, "qty")
        if quantity == ZERO:
            raise BadAnswerError("the quantity is zero")
        return quantity
    notional, limit = amount(row, "notional"), price(row, "limit_price")
    if limit is None or row.get("status") == "filled":
        return filled
    return max(filled, MONEY.divide(notional, limit).quantize(Decimal("1e-9"), ROUND_DOWN, MONEY))


def _status(word: str, quantity: Decimal, filled: Decimal) -> OrderState:
    if filled > quantity:
        raise BadAnswerError("more is executed than was ordered")
    status = STATUSES.get(word, OrderState.IN_DOUBT)
    if status is OrderState.FILLED and filled != quantity:
        raise BadAnswerError("a filled order is not executed whole")
    if status in (OrderState.ACCEPTED, OrderState.HELD) and filled > ZERO:
        return OrderState.FILLED if filled == quantity else OrderState.PARTIALLY_FILLED
    return status


def trade_id(venue_order_id: str, executed: Decimal) -> str:
    """Return the id of an execution: its order, and what was executed of it by then.

    The stream and the list of activities each have ids of their own for one execution; this they both tell.
    """
    return f"{venue_order_id}:{plain(executed)}"


def read_activity(body: Any) -> Fill:
    """Return an execution of the list of activities; our client order id is not in it."""
    row = mapping(body, "an activity")
    wire_id = order_id(row, "order_id")
    return _fill(
        trade_id=trade_id(wire_id, amount(row, "cum_qty")),
        client_order_id="",
        venue_order_id=wire_id,
        symbol=symbol_of({**row, "asset_class": _class_of(row)}),
        side=_side(row),
        quantity=amount(row, "qty"),
        price=amount(row, "price"),
        at=moment(row, "transaction_time"),
    )


def _class_of(row: Mapping[str, Any]) -> str:
    """Return the class of an activity, which states none: only crypto is spelled with a slash, or without it by USD."""
    symbol = text(row, "symbol")
    return CRYPTO if len(symbol) >= 6 and symbol.endswith(_QUOTES) else EQUITY


def _side(row: Mapping[str, Any]) -> Side:
    side = _SIDES.get(text(row, "side"))
    if side is None:
        raise BadAnswerError("side is neither buy nor sell")
    return side


def _fill(**values: Any) -> Fill:
    if values["quantity"] <= ZERO or values["price"] <= ZERO:
        raise BadAnswerError("an execution of nothing, or for nothing")
    fee, asset = fee_of(values["symbol"], values["side"], values["quantity"], values["price"])
    return Fill(**values, fee=fee, fee_asset=asset)


def fee_of(symbol: str, side: Side, quantity: Decimal, price: Decimal) -> tuple[Decimal, str]:
    """Return the fee of an execution, and the asset that pays it.

    Alpaca takes the fee of a crypto order from what it brings, and tells of it nowhere before the end of the day. So it
    is reckoned here, at the highest rate: a stop for what is then held is never refused for being too large, as one for
    the executed quantity always is. What was charged less shows when positions are compared with the venue. A buyer
    has been seen to get one step less than the rate leaves, so one more is taken off.
    """
    base, slash, quote = symbol.partition("/")
    if not slash:
        return ZERO, ""
    if side is Side.SELL:
        return MONEY.multiply(MONEY.multiply(quantity, price), TAKER_FEE), quote
    charged = MONEY.add(round_up(MONEY.multiply(quantity, TAKER_FEE), _COIN_STEP), _COIN_STEP)
    return min(charged, quantity), base


@attrs.frozen
class Update:
    """One frame of the stream: an order, and its execution where there is one."""

    order: OrderRow
    fill: Fill | None
    at: datetime | None
    undone: str = ""
    """The venue's word for an execution that it corrects or takes back."""


def read_update(body: Any) -> Update:
    """Return the data of a `trade_updates` frame."""
    row = mapping(body, "the update")
    event = text(row, "event")
    order = read_order(row.get("order"))
    at = maybe_moment(row, "timestamp") or maybe_moment(row, "at")
    fill = None
    if event in _FILLS:
        quantity, executed = amount(row, "qty"), order.report.filled
        if quantity > executed:
            raise BadAnswerError("an execution is larger than all that was executed")
        identifier(row, "execution_id")
        if at is None:
            raise BadAnswerError("an execution has no time")
        fill = _fill(
            trade_id=trade_id(order.order_id, executed),
            client_order_id=order.client_id,
            venue_order_id=order.order_id,
            symbol=order.report.symbol,
            side=order.report.side,
            quantity=quantity,
            price=amount(row, "price"),
            at=at,
        )
    return Update(order, fill, at, event if event in _UNDONE else "")

"""The user-data stream's events as reports and fills.

A frame that cannot be read raises `BadAnswerError`, and the stream is opened anew: what it said is then asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from execkit.exchanges.binance.decode import (
    ALGO,
    ALGO_STATUSES,
    STATUSES,
    SymbolOf,
    average,
    order_type,
    ordered,
    side_of,
)
from execkit.exchanges.ccxt.values import (
    BadAnswerError,
    amount,
    clean,
    identifier,
    mapping,
    moment,
    number,
    price,
    text,
)
from execkit.model.order import Fill, OrderReport, OrderState, OrderType
from execkit.numbers import ZERO

ORDER_EVENTS: Final = frozenset({"executionReport", "ORDER_TRADE_UPDATE", "ALGO_UPDATE"})
ENDINGS: Final = frozenset({"eventStreamTerminated", "listenKeyExpired", "serverShutdown"})
"""Events after which nothing more comes on this connection."""

CONDITIONAL_WORDS: Final = frozenset(
    {"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"}
)
"""Types that futures take at the algo endpoint."""

VenueIdOf = Callable[[str, str, str], str | None]
"""Turns (client id, order id, type) into the venue id that an order is known by, None where that has to be asked."""


def read_event(
    message: Any, symbol_of: SymbolOf, venue_id_of: VenueIdOf
) -> list[OrderReport | Fill] | None:
    """Return what an event says, or None where only the venue's REST answers can tell what it is about."""
    row = mapping(message, "the event")
    event = text(row, "e")
    if event == "executionReport":
        return _order(row, row, "spot", symbol_of, venue_id_of)
    if event == "ORDER_TRADE_UPDATE":
        return _order(mapping(row.get("o"), "o"), row, "usdm", symbol_of, venue_id_of)
    if event == "ALGO_UPDATE":
        return _algo(mapping(row.get("o"), "o"), row, symbol_of)
    raise BadAnswerError(f"event {clean(event, 30)!r} is unknown")


def _order(
    row: Mapping[str, Any],
    outer: Mapping[str, Any],
    kind: str,
    symbol_of: SymbolOf,
    venue_id_of: VenueIdOf,
) -> list[OrderReport | Fill] | None:
    # After a cancel on spot `c` names the cancel, and `C` the order.
    original = row.get("C")
    client_id = original if isinstance(original, str) and original else text(row, "c")
    word = text(row, "o")
    if kind == "usdm" and isinstance(row.get("ot"), str):
        word = row["ot"]
    venue_id = venue_id_of(client_id, identifier(row, "i"), word)
    if venue_id is None:
        return None
    status = text(row, "X")
    filled = amount(row, "z")
    quantity = ordered(row, "q", "cp", filled)
    fills = _fills(row, client_id, venue_id, symbol_of)
    report = OrderReport(
        client_order_id=client_id,
        venue_order_id=venue_id,
        symbol=symbol_of(text(row, "s")),
        side=side_of(row, "S"),
        type=order_type(word, kind, {"trailingDelta": row.get("d")}),
        quantity=quantity,
        status=STATUSES.get(status, OrderState.IN_DOUBT),
        filled=filled,
        average_price=average(row, filled),
        limit_price=price(row, "p"),
        stop_price=price(row, "P" if kind == "spot" else "sp"),
        fills=fills,
        updated_at=moment(row if row.get("T") else outer, "T"),
        reason=_reason(row),
        raw_status=clean(status, 40),
    )
    _check(report)
    return [report]


def _reason(row: Mapping[str, Any]) -> str:
    reason = row.get("r")
    return clean(reason) if isinstance(reason, str) and reason != "NONE" else ""


def _fills(
    row: Mapping[str, Any], client_id: str, venue_id: str, symbol_of: SymbolOf
) -> tuple[Fill, ...]:
    """Return the execution that an event of type TRADE tells of."""
    if text(row, "x") not in ("TRADE", "CALCULATED"):
        return ()
    fee = number(row, "n") if row.get("n") not in (None, "") else ZERO
    asset = row.get("N")
    if fee and (not isinstance(asset, str) or not asset):
        raise BadAnswerError("a fee is paid in no asset")
    quantity, paid = amount(row, "l"), amount(row, "L")
    if quantity <= ZERO or paid <= ZERO:
        raise BadAnswerError("an execution of nothing, or for nothing")
    maker = row.get("m")
    return (
        Fill(
            trade_id=identifier(row, "t"),
            client_order_id=client_id,
            venue_order_id=venue_id,
            symbol=symbol_of(text(row, "s")),
            side=side_of(row, "S"),
            quantity=quantity,
            price=paid,
            at=moment(row, "T"),
            fee=fee,
            fee_asset=clean(asset, 20) if isinstance(asset, str) else "",
            maker=maker if isinstance(maker, bool) else None,
        ),
    )


def _algo(
    row: Mapping[str, Any], outer: Mapping[str, Any], symbol_of: SymbolOf
) -> list[OrderReport | Fill] | None:
    word = text(row, "X")
    if word == "FINISHED":
        return []  # how it ended is told by the order that it became
    report = OrderReport(
        client_order_id=text(row, "caid"),
        venue_order_id=ALGO + identifier(row, "aid"),
        symbol=symbol_of(text(row, "s")),
        side=side_of(row, "S"),
        type=order_type(text(row, "o"), "usdm", row),
        quantity=ordered(row, "q", "cp"),
        status=ALGO_STATUSES.get(word, OrderState.IN_DOUBT),
        limit_price=_limit(row),
        stop_price=price(row, "tp"),
        updated_at=moment(outer, "T"),
        reason=clean(row.get("rm") or ""),
        raw_status=clean(word, 40),
    )
    _check(report)
    return [report]


def _limit(row: Mapping[str, Any]) -> Any:
    found = order_type(text(row, "o"), "usdm", row)
    return price(row, "p") if found is OrderType.STOP_LIMIT else None


def became(message: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return (client id, venue id, id of the order that it became) of a conditional order's event, if it has one."""
    row = message.get("o")
    if not isinstance(row, Mapping) or message.get("e") != "ALGO_UPDATE":
        return None
    venue_id = ALGO + identifier(row, "aid")
    actual = row.get("ai")
    return (
        text(row, "caid"),
        venue_id,
        identifier(row, "ai") if actual not in (None, "", 0, "0") else "",
    )


def _check(report: OrderReport) -> None:
    if report.filled > report.quantity:
        raise BadAnswerError("the quantities contradict each other")
    if report.status is OrderState.FILLED and report.filled != report.quantity:
        raise BadAnswerError("a filled order is not executed whole")
    if sum((fill.quantity for fill in report.fills), ZERO) > report.filled:
        raise BadAnswerError("an execution is larger than all that is executed")

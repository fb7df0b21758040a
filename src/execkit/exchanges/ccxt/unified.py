"""From ccxt's unified structures to ours. They hold the venue's own digits as text, because `number = str`.

Strict as all decoding here: an order without an id, a number that is none, or a contradiction is `BadAnswerError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

import structlog

from execkit.errors import ConfigurationError
from execkit.exchanges.ccxt.values import (
    BadAnswerError,
    clean,
    exact,
    identifier,
    mapping,
    moment,
    rows,
    text,
)
from execkit.ids import is_ours
from execkit.model.account import Balance, VenuePosition
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderState, OrderType, Side
from execkit.numbers import MONEY, ONE, ZERO

log = structlog.get_logger("execkit")

T = TypeVar("T")

_STATUSES: Final = {
    "open": OrderState.ACCEPTED,
    "closed": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "canceling": OrderState.PENDING_CANCEL,
    "expired": OrderState.EXPIRED,
    "rejected": OrderState.REJECTED,
}
_ENDED: Final = frozenset({"closed", "canceled", "expired"})
_SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL}
_SMALLEST: Final = Decimal("1e-8")
_DECIMAL_PLACES: Final = 2
_TICK_SIZE: Final = 4
_LINEAR: Final = ("swap",)


def read_market(row: Mapping[str, Any], kind: str, mode: int) -> tuple[Instrument, Decimal] | None:
    """Return the rules of a market of *kind* and the size of its contract, or None for another kind."""
    wanted = row.get("spot") is True if kind == "spot" else row.get("swap") is True
    if not wanted or (kind != "spot" and row.get("linear") is not True):
        return None
    try:
        size = _number(row.get("contractSize")) or ONE
        precision, limits = row.get("precision") or {}, row.get("limits") or {}
        amounts, costs = limits.get("amount") or {}, limits.get("cost") or {}
        of_market = limits.get("market") or {}
        quantity = _times(size)
        return (
            Instrument(
                symbol=text(row, "symbol"),
                base=text(row, "base"),
                quote=text(row, "quote"),
                tick_size=_step(precision.get("price"), mode),
                lot_size=MONEY.multiply(_step(precision.get("amount"), mode), size),
                min_quantity=quantity(amounts.get("min")) or ZERO,
                max_quantity=quantity(amounts.get("max")),
                market_max_quantity=quantity(of_market.get("max")),
                min_notional=_number(costs.get("min")) or ZERO,
                max_notional=_number(costs.get("max")),
                maker_fee=_number(row.get("maker")) or ZERO,
                taker_fee=_number(row.get("taker")) or ZERO,
                fee_in_base=kind == "spot",
                tradeable=row.get("active") is not False,
                venue_symbol=str(row.get("id") or ""),
            ),
            size,
        )
    except (BadAnswerError, ConfigurationError):
        return None  # rules that make no sense, or a name that is not plain text: not traded


def _times(size: Decimal) -> Callable[[Any], Decimal | None]:
    def scaled(value: Any) -> Decimal | None:
        found = _number(value)
        return None if found is None else MONEY.multiply(found, size)

    return scaled


def _number(value: Any) -> Decimal | None:
    """Return a number of ccxt's own tables, which may be written with an exponent; zero counts as none."""
    if value in (None, "") or isinstance(value, bool):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise BadAnswerError("a rule of the market is no number") from None
    if not found.is_finite():
        raise BadAnswerError("a rule of the market is no number")
    return found or None


def _step(value: Any, mode: int) -> Decimal:
    """Return a step from ccxt's precision; unknown where the venue counts significant digits."""
    found = _number(value)
    if found is None:
        return ONE if mode == _DECIMAL_PLACES and value is not None else _SMALLEST
    if mode == _TICK_SIZE:
        return found
    return Decimal(1).scaleb(-int(found)) if mode == _DECIMAL_PLACES else _SMALLEST


def read_each(
    venue: str, body: object, read: Callable[[Mapping[str, Any]], T], name: str = "clientOrderId"
) -> list[T]:
    """Read a list of orders row by row; *name* is where a row has its client order id.

    One of ours that cannot be read raises `BadAnswerError`. Another one is left out and logged: what somebody else has
    placed in the account must not hide our own orders from us.
    """
    found = []
    for row in rows(body):
        try:
            found.append(read(row))
        except BadAnswerError as error:
            client_id = row.get(name)
            if isinstance(client_id, str) and is_ours(client_id):
                raise
            log.warning("order.unreadable", venue=venue, id=clean(client_id), error=str(error))
    return found


def is_whole(row: Mapping[str, Any]) -> bool:
    """Tell whether an answer describes an order; some venues acknowledge with the ids only."""
    return all(row.get(name) is not None for name in ("status", "side", "amount", "symbol", "type"))


def read_order(body: Any, size_of: Callable[[str], Decimal]) -> OrderReport:
    """Return the report of an order; *size_of* is the size of a market's contract."""
    row = mapping(body, "the order")
    symbol = text(row, "symbol")
    size = size_of(symbol)
    quantity = MONEY.multiply(_amount(row, "amount"), size)
    filled = MONEY.multiply(_amount(row, "filled") if row.get("filled") is not None else ZERO, size)
    if quantity <= ZERO or filled > quantity:
        raise BadAnswerError("the quantities contradict each other")
    word = text(row, "status")
    if row.get("filled") is None and word in _ENDED:
        raise BadAnswerError("the order has ended, and how much of it was executed is missing")
    stop = _price(row, "triggerPrice") or _price(row, "stopPrice")
    kind = _type(text(row, "type"), stop)
    side = _SIDES.get(text(row, "side"))
    if side is None:
        raise BadAnswerError("side is neither buy nor sell")
    client_id = row.get("clientOrderId")
    return OrderReport(
        client_order_id=client_id if isinstance(client_id, str) else "",
        venue_order_id=identifier(row, "id"),
        symbol=symbol,
        side=side,
        type=kind,
        quantity=quantity,
        status=_status(word, quantity, filled),
        filled=filled,
        average_price=_price(row, "average") if filled else None,
        limit_price=_price(row, "price")
        if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT)
        else None,
        stop_price=stop,
        updated_at=next(
            (moment(row, n) for n in ("lastUpdateTimestamp", "timestamp") if row.get(n)), None
        ),
        raw_status=clean(word, 40),
    )


def _status(word: str, quantity: Decimal, filled: Decimal) -> OrderState:
    found = _STATUSES.get(word, OrderState.IN_DOUBT)
    if found is OrderState.ACCEPTED and filled > ZERO:
        return OrderState.PARTIALLY_FILLED if filled < quantity else OrderState.FILLED
    if found is OrderState.FILLED and filled < quantity:
        return OrderState.CANCELLED  # ended, with a part executed or nothing
    return found


def _type(word: str, stop: Decimal | None) -> OrderType:
    lower = word.lower()
    if lower not in ("market", "limit"):
        raise BadAnswerError(f"type {clean(word, 30)!r} is unknown")
    if lower == "market":
        return OrderType.MARKET if stop is None else OrderType.STOP
    return OrderType.LIMIT if stop is None else OrderType.STOP_LIMIT


def read_fill(
    body: Any, size_of: Callable[[str], Decimal], client_id_of: Callable[[str], str]
) -> Fill:
    """Return an execution."""
    row = mapping(body, "the execution")
    symbol = text(row, "symbol")
    side = _SIDES.get(text(row, "side"))
    venue_id = identifier(row, "order")
    quantity, price = MONEY.multiply(_amount(row, "amount"), size_of(symbol)), _amount(row, "price")
    if side is None or quantity <= ZERO or price <= ZERO:
        raise BadAnswerError("an execution of nothing, or for nothing")
    fee, asset = _fee(row)
    return Fill(
        trade_id=identifier(row, "id"),
        client_order_id=client_id_of(venue_id),
        venue_order_id=venue_id,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=price,
        at=moment(row, "timestamp"),
        fee=fee,
        fee_asset=asset,
        maker={"maker": True, "taker": False}.get(str(row.get("takerOrMaker"))),
    )


def _fee(row: Mapping[str, Any]) -> tuple[Decimal, str]:
    """Return what was paid; of several assets the base, as what is paid in it is not held."""
    listed = row.get("fees")
    paid: dict[str, Decimal] = {}
    for stated in listed if isinstance(listed, list) and listed else [row.get("fee")]:
        if not isinstance(stated, Mapping) or stated.get("cost") is None:
            continue
        fee, asset = exact(stated["cost"], "fee"), stated.get("currency")
        if fee and (not isinstance(asset, str) or not asset):
            raise BadAnswerError("a fee is paid in no asset")
        name = clean(asset or "", 20)
        paid[name] = paid.get(name, ZERO) + fee
    if not paid:
        return ZERO, ""
    base = text(row, "symbol").partition("/")[0]
    asset = base if base in paid else next(iter(paid))
    if len(paid) > 1:
        log.warning("fill.fees_in_several_assets", counted=asset, assets=sorted(paid))
    return paid[asset], asset


def read_quote(body: Any, now: Any) -> Quote | None:
    """Return the quote of a ticker, or None where it has no bid or no ask."""
    row = mapping(body, "the ticker")
    bid, ask = _price(row, "bid"), _price(row, "ask")
    if bid is None or ask is None:
        return None
    if bid > ask:
        raise BadAnswerError("the bid is above the ask")
    at = moment(row, "timestamp") if row.get("timestamp") else now
    return Quote(text(row, "symbol"), bid, ask, at, last=_price(row, "last"))


def read_balances(body: Any) -> dict[str, Balance]:
    """Return all holdings that are not zero."""
    row = mapping(body, "the balances")
    totals, free = mapping(row.get("total"), "total"), mapping(row.get("free"), "free")
    found = {}
    for asset, value in totals.items():
        if value is None:
            continue
        total = exact(value, "a balance")
        left = exact(free[asset], "a balance") if free.get(asset) is not None else ZERO
        if total:
            found[asset] = Balance(asset, total, min(left, total))
    return found


def market_of(
    asset: str, listed: Collection[str], quotes: Iterable[str], preferred: Iterable[str] = ()
) -> str | None:
    """Return the market under which a held asset is shown, None where it has none.

    Never by what was looked at or ordered before: the same holding must not change its name.
    """
    usual = (f"{asset}/{quote}" for quote in quotes)
    named = (symbol for symbol in preferred if symbol.startswith(f"{asset}/"))
    found = next((symbol for symbol in (*named, *usual) if symbol in listed), None)
    return found or min((each for each in listed if each.startswith(f"{asset}/")), default=None)


def read_position(body: Any, size_of: Callable[[str], Decimal]) -> VenuePosition | None:
    """Return a net position, or None where it is flat."""
    row = mapping(body, "the position")
    if row.get("contracts") in (None, ""):
        return None
    symbol = text(row, "symbol")
    quantity = MONEY.multiply(abs(exact(row["contracts"], "contracts")), size_of(symbol))
    if not quantity:
        return None
    side = text(row, "side")
    if side not in ("long", "short"):
        raise BadAnswerError("the position is neither long nor short")
    return VenuePosition(
        symbol, quantity if side == "long" else -quantity, _price(row, "entryPrice") or ZERO
    )


def _amount(row: Mapping[str, Any], name: str) -> Decimal:
    value = exact(row.get(name), name)
    if value < ZERO:
        raise BadAnswerError(f"{name} is negative")
    return value


def _price(row: Mapping[str, Any], name: str) -> Decimal | None:
    return None if row.get(name) in (None, "") else _amount(row, name) or None

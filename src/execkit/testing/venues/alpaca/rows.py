"""How Alpaca writes orders, executions, positions, assets and the account: numbers as text, times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from execkit.model.market import BarData, Quote
from execkit.model.order import Fill, OrderState, Side
from execkit.numbers import ZERO, plain
from execkit.testing.venues.alpaca.state import AlpacaState, Asset, WireOrder

ACCOUNT_ID: Final = "6f4c6f1e-4b7b-4c62-9c0f-7a1d2f3b4c5d"

_WORDS: Final = {
    OrderState.ACCEPTED: "new",
    OrderState.PARTIALLY_FILLED: "partially_filled",
    OrderState.FILLED: "filled",
    OrderState.CANCELLED: "canceled",
    OrderState.EXPIRED: "expired",
    OrderState.REJECTED: "rejected",
}


def stamp(at: datetime | None) -> str | None:
    """Write a time as Alpaca does, with nanoseconds."""
    if at is None:
        return None
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}000Z"


def text(value: Decimal | None) -> str | None:
    """Write a number as text."""
    return None if value is None else plain(value)


def status_word(state: AlpacaState, order: WireOrder) -> str:
    """Return an order's status in Alpaca's word."""
    if order.replaced_by is not None:
        return "replaced"
    core = state.core_order(order)
    if core is None:
        return order.status or "held"
    if not core.is_open:
        if core.status is OrderState.EXPIRED and core.is_immediate:
            return "canceled"
        return _WORDS[core.status]
    if order.status is not None:
        return order.status
    if core.status is OrderState.ACCEPTED:
        if order.is_queued:
            return "accepted"
        if order.shows_held and not core.triggered:
            return "held"
    return _WORDS[core.status]


def order_row(
    state: AlpacaState,
    order: WireOrder,
    *,
    executed: Decimal | None = None,
    nested: bool = True,
) -> dict[str, Any]:
    """Write an order; *executed* is how much of it there was at the time that is told of."""
    core = state.core_order(order)
    filled, average = order.filled_before, order.average_before
    limit, stop = order.request.limit_price, order.request.stop_price
    quantity = order.request.quantity
    if core is not None and order.replaced_by is None:
        filled = core.filled
        average = core.report().average_price
        limit, stop, quantity = (
            core.request.limit_price,
            core.request.stop_price,
            core.request.quantity,
        )
    word = status_word(state, order)
    if executed is not None and executed < filled:
        filled, word = executed, "partially_filled"
    at = order.updated_at if core is None else max(order.updated_at, core.updated_at)
    asset = state.assets[order.request.symbol]
    kind = order.request.type.value
    legs = [order_row(state, state.orders[leg], nested=False) for leg in order.legs]
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": stamp(order.created_at),
        "updated_at": stamp(at),
        "submitted_at": stamp(order.created_at),
        "filled_at": stamp(at) if word == "filled" else None,
        "expired_at": stamp(at) if word == "expired" else None,
        "canceled_at": stamp(at) if word == "canceled" else None,
        "failed_at": stamp(at) if word == "rejected" else None,
        "replaced_at": stamp(at) if word == "replaced" else None,
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": asset.id,
        "symbol": asset.symbol,
        "asset_class": asset.asset_class,
        "notional": text(order.notional),
        "qty": None if order.notional is not None else text(quantity),
        "filled_qty": plain(filled),
        "filled_avg_price": text(average) if filled else None,
        "order_class": "" if order.order_class == "simple" else order.order_class,
        "order_type": kind,
        "type": kind,
        "side": order.request.side.value,
        "time_in_force": order.request.time_in_force.value,
        "limit_price": text(limit),
        "stop_price": text(stop),
        "status": word,
        "extended_hours": order.request.extended_hours,
        "legs": legs if nested and legs else None,
        "trail_percent": text(order.request.trail_percent),
        "trail_price": text(order.request.trail_amount),
        "hwm": text(order.high_water),
    }


def activity_row(state: AlpacaState, fill: Fill) -> dict[str, Any]:
    """Write an execution in the list of activities."""
    known = state.executions[fill.trade_id]
    order = state.orders[known.order_id]
    whole = known.executed >= order.request.quantity
    return {
        "activity_type": "FILL",
        "id": f"{fill.at:%Y%m%d%H%M%S}{fill.at.microsecond // 1000:03d}::{int(fill.trade_id):012d}",
        "cum_qty": plain(known.executed),
        "leaves_qty": plain(max(order.request.quantity - known.executed, ZERO)),
        "price": plain(fill.price),
        "qty": plain(fill.quantity),
        "side": fill.side.value,
        "symbol": fill.symbol,
        "transaction_time": stamp(fill.at),
        "order_id": known.order_id,
        "type": "fill" if whole else "partial_fill",
        "order_status": "filled" if whole else "partially_filled",
    }


def asset_row(asset: Asset, *, halted: bool) -> dict[str, Any]:
    """Write an asset."""
    row: dict[str, Any] = {
        "id": asset.id,
        "class": asset.asset_class,
        "exchange": "CRYPTO" if asset.is_crypto else "NASDAQ",
        "symbol": asset.symbol,
        "name": asset.symbol,
        "status": "active",
        "tradable": asset.tradable and not halted,
        "marginable": not asset.is_crypto,
        "shortable": asset.shortable,
        "easy_to_borrow": asset.shortable,
        "fractionable": asset.fractionable,
    }
    if asset.is_crypto:
        row |= {
            "min_order_size": text(asset.min_size),
            "min_trade_increment": text(asset.trade_increment),
            "price_increment": text(asset.price_increment),
        }
    return row


def position_row(
    state: AlpacaState, symbol: str, quantity: Decimal, average: Decimal
) -> dict[str, Any]:
    """Write a position."""
    asset = state.assets[symbol]
    quote = state.core.quote(symbol)
    price = quote.last or quote.bid
    is_long = quantity > ZERO
    held = state.held_for(symbol, Side.SELL if is_long else Side.BUY)
    return {
        "asset_id": asset.id,
        "symbol": symbol.replace("/", ""),
        "exchange": "CRYPTO" if asset.is_crypto else "NASDAQ",
        "asset_class": asset.asset_class,
        "asset_marginable": not asset.is_crypto,
        "qty": plain(quantity),
        "qty_available": plain(abs(quantity) - held if is_long else quantity + held),
        "avg_entry_price": plain(average),
        "side": "long" if is_long else "short",
        "market_value": plain(quantity * price),
        "cost_basis": plain(quantity * average),
        "unrealized_pl": plain(quantity * (price - average)),
        "unrealized_plpc": "0",
        "unrealized_intraday_pl": "0",
        "unrealized_intraday_plpc": "0",
        "current_price": plain(price),
        "lastday_price": plain(price),
        "change_today": "0",
    }


def account_row(state: AlpacaState) -> dict[str, Any]:
    """Write the account."""
    cash = state.core.balances()["USD"]
    equity = state.equity()
    return {
        "id": ACCOUNT_ID,
        "account_number": "PA3TEST00001",
        "status": state.status,
        "crypto_status": "ACTIVE",
        "currency": "USD",
        "buying_power": plain(cash.free),
        "regt_buying_power": plain(cash.free),
        "daytrading_buying_power": "0",
        "non_marginable_buying_power": plain(cash.free),
        "cash": plain(cash.total),
        "accrued_fees": "0",
        "portfolio_value": plain(equity),
        "pattern_day_trader": False,
        "trading_blocked": state.trading_blocked,
        "transfers_blocked": False,
        "account_blocked": state.account_blocked,
        "created_at": "2024-01-02T15:00:00Z",
        "trade_suspended_by_user": state.suspended_by_user,
        "multiplier": "1",
        "shorting_enabled": state.shorting,
        "equity": plain(equity),
        "last_equity": plain(equity),
        "long_market_value": "0",
        "short_market_value": "0",
        "initial_margin": "0",
        "maintenance_margin": "0",
        "last_maintenance_margin": "0",
        "sma": "0",
        "daytrade_count": len(state.day_trades),
    }


def quote_row(quote: Quote) -> dict[str, Any]:
    """Write a quote of market data, whose numbers are JSON's own."""
    return {
        "t": stamp(quote.at),
        "bp": number(quote.bid),
        "bs": number(quote.bid_size or Decimal(100)),
        "ap": number(quote.ask),
        "as": number(quote.ask_size or Decimal(100)),
    }


def trade_row(price: Decimal, size: Decimal, at: datetime) -> dict[str, Any]:
    """Write a public trade."""
    return {"t": stamp(at), "p": number(price), "s": number(size)}


def bar_row(bar: BarData) -> dict[str, Any]:
    """Write a bar, by its beginning."""
    return {
        "t": stamp(bar.open_time),
        "o": number(bar.open),
        "h": number(bar.high),
        "l": number(bar.low),
        "c": number(bar.close),
        "v": number(bar.volume),
        "n": 1,
        "vw": number(bar.close),
    }


def number(value: Decimal) -> float:
    """Return a number as JSON has it; what it reads is the shortest text of it."""
    return float(value)

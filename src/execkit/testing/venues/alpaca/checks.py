"""What Alpaca looks at before it takes a well-written order: account, asset, position, other orders, day trades."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Final

from execkit.errors import ExchangeUnavailableError
from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.numbers import ONE, ZERO, is_multiple, plain
from execkit.testing.venues.alpaca.errors import forbidden, refuse, short_of, unprocessable
from execkit.testing.venues.alpaca.reading import Wanted
from execkit.testing.venues.alpaca.rows import status_word
from execkit.testing.venues.alpaca.state import AlpacaState, WireOrder

_PDT_EQUITY: Final = Decimal(25_000)
_PDT_TRADES: Final = 3
_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)
_REPLACEABLE: Final = ("new", "partially_filled", "held")
_CENT: Final = Decimal("0.01")


def check_account(state: AlpacaState) -> None:
    """Refuse everything to an account that may not trade."""
    if state.account_blocked or state.status != "ACTIVE":
        forbidden("account is not authorized to trade")
    if state.trading_blocked:
        forbidden("trading is blocked for this account")
    if state.suspended_by_user:
        forbidden("trade suspended by user")


def check_order(state: AlpacaState, wanted: Wanted, *, today: date) -> None:
    """Raise the refusal of an order that this account cannot place now."""
    _check_asset(state, wanted.request.symbol)
    _check_cost(state, wanted)
    _check_legs(state, wanted)
    check_position(state, wanted)
    _check_wash(state, wanted)
    _check_day_trading(state, wanted.request, today)


def _check_asset(state: AlpacaState, symbol: str) -> None:
    if not state.assets[symbol].tradable or symbol in state.core.halted:
        unprocessable(f"asset {symbol} is not tradable")


def _price_of(state: AlpacaState, request: OrderRequest) -> Decimal | None:
    """Return what an order is reckoned to be executed at."""
    if request.limit_price is not None:
        return request.limit_price
    try:
        quote = state.core.quote(request.symbol)
    except ExchangeUnavailableError:
        return None
    return quote.ask if request.side is Side.BUY else quote.bid


def _check_cost(state: AlpacaState, wanted: Wanted) -> None:
    """Refuse an order that is worth too little."""
    request, price = wanted.request, _price_of(state, wanted.request)
    least = 10 if state.assets[request.symbol].is_crypto else 1
    cost = wanted.notional or (None if price is None else request.quantity * price)
    if cost is not None and cost < least:
        forbidden(f"cost basis must be >= minimal amount of order {least}")


def _check_legs(state: AlpacaState, wanted: Wanted) -> None:
    """Refuse a list whose exits are on the wrong side of where it begins."""
    if not wanted.has_legs:
        return
    is_oco = wanted.order_class == "oco"
    base = None if is_oco else wanted.request.limit_price
    if base is None:
        try:
            quote = state.core.quote(wanted.request.symbol)
        except ExchangeUnavailableError:
            return
        base = quote.last or quote.bid
    sells = (wanted.request.side is Side.BUY) is not is_oco
    for name, price, above in (
        ("take_profit.limit_price", wanted.target, sells),
        ("stop_loss.stop_price", wanted.stop, not sells),
    ):
        if price is None or (price >= base + _CENT if above else price <= base - _CENT):
            continue
        rule = ">= base_price + 0.01" if above else "<= base_price - 0.01"
        refuse(422, 42210000, f"{name} must be {rule}", base_price=plain(base))


def check_position(state: AlpacaState, wanted: Wanted) -> None:
    """Refuse to sell more than is held and free, or short what may not be."""
    request = wanted.request
    asset = state.assets[request.symbol]
    base = request.symbol.partition("/")[0]
    held = state.position(request.symbol) * -request.side.sign
    if held > ZERO:
        blocked = state.held_for(request.symbol, request.side)
        if request.quantity <= held - blocked:
            return
        if asset.is_crypto:
            short_of(base, request.quantity, held - blocked, held)
        orders = state.core.open.get(request.symbol, {})
        forbidden(
            f"insufficient qty available for order (requested: {plain(request.quantity)}, "
            f"available: {plain(held - blocked)})",
            available=plain(held - blocked),
            existing_qty=plain(held),
            held_for_orders=plain(blocked),
            related_orders=[state.live[each].id for each in orders],
            symbol=request.symbol,
        )
    if request.side is Side.BUY:
        return
    if asset.is_crypto or wanted.order_class == "oco":
        short_of(base, request.quantity, ZERO, ZERO)
    if not state.shorting or not asset.shortable:
        unprocessable(f'asset "{request.symbol}" cannot be sold short')
    if not is_multiple(request.quantity, ONE):
        unprocessable("fractional orders cannot be sold short")


def check_change(state: AlpacaState, order: WireOrder, terms: Mapping[str, Decimal]) -> VenueOrder:
    """Return the core's order that may be given other terms; raise the refusal of one that may not."""
    core, word = state.core_order(order), status_word(state, order)
    if word not in _REPLACEABLE:
        unprocessable(f"cannot replace order in {word} status")
    if core is None:
        unprocessable("order chain not fully replaced")
    if all(getattr(core.request, name) == value for name, value in terms.items()):
        unprocessable("order parameters are not changed")
    if terms.get("quantity", core.request.quantity) <= core.filled:
        unprocessable("qty must be > filled_qty")
    return core


def _check_wash(state: AlpacaState, wanted: Wanted) -> None:
    """Refuse an order that could meet one of the same account."""
    request = wanted.request
    for entered in state.core.open.get(request.symbol, {}).values():
        other = state.live[entered.venue_order_id]
        if entered.request.side is request.side or wanted.order_class == "oco":
            continue
        limit, rests = request.limit_price, entered.limit
        is_buy = request.side is Side.BUY
        meets = limit is None or rests is None or (limit >= rests if is_buy else limit <= rests)
        stops = request.type in _STOPS or other.request.type in _STOPS
        if meets or stops:
            refuse(
                403,
                40310000,
                "potential wash trade detected. use complex orders",
                existing_order_id=other.id,
                reject_reason="opposite side market/stop order exists",
            )


def _check_day_trading(state: AlpacaState, request: OrderRequest, today: date) -> None:
    """Refuse the fourth day trade in five days of an account below 25,000 USD."""
    if len(state.day_trades) < _PDT_TRADES or state.equity() >= _PDT_EQUITY:
        return
    opened = state.opened_on.get(request.symbol)
    if opened == today and state.position(request.symbol) * request.side.sign < ZERO:
        refuse(403, 40310100, "trade denied due to pattern day trading protection")

"""What a request to place an order says, and what is wrong with it before anything else is looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

import attrs

from execkit.errors import ExchangeUnavailableError
from execkit.model.order import OrderRequest, OrderType, Side, TimeInForce
from execkit.numbers import ONE, ZERO, is_multiple, plain
from execkit.testing.venues.alpaca.errors import invalid, unprocessable
from execkit.testing.venues.alpaca.state import AlpacaState, Asset

_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,18})?", re.ASCII)
_SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL}
_TIMES: Final = {"day", "gtc", "ioc", "fok"}
_CLASSES: Final = ("simple", "bracket", "oco", "oto")
_NEEDS: Final = {
    OrderType.LIMIT: ("limit_price",),
    OrderType.STOP: ("stop_price",),
    OrderType.STOP_LIMIT: ("stop_price", "limit_price"),
}
_NINE: Final = Decimal("1e-9")
_CENT: Final = Decimal("0.01")


@attrs.frozen
class Wanted:
    """An order as it was asked for."""

    request: OrderRequest
    order_class: str
    notional: Decimal | None
    target: Decimal | None
    """Limit price of the take-profit leg."""
    stop: Decimal | None
    stop_limit: Decimal | None

    @property
    def has_legs(self) -> bool:
        """Tell whether other orders depend on it."""
        return self.order_class != "simple"


def number(body: Mapping[str, Any], name: str) -> Decimal | None:
    """Return a number above zero that may be missing; Alpaca takes text and JSON numbers."""
    value = body.get(name)
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else plain(Decimal(str(value)))
    if isinstance(value, bool) or not _NUMBER.fullmatch(text):
        invalid(f"invalid {name}")
    if not Decimal(text):
        invalid(f"{name} must be > 0")
    return Decimal(text)


def read_body(body: Any, state: AlpacaState, client_order_id: str) -> Wanted:
    """Return what a body asks for; raise the refusal of the first thing that is wrong with it."""
    if not isinstance(body, dict):
        invalid("request body format is invalid")
    symbol = body.get("symbol")
    if not symbol:
        invalid("symbol is required")
    asset = asset_of(state, str(symbol))
    side = _SIDES.get(str(body.get("side")))
    if side is None:
        invalid("side must be buy or sell")
    kind = next((each for each in OrderType if each.value == body.get("type")), None)
    if kind is None:
        invalid("invalid order type")
    if body.get("time_in_force") not in _TIMES:
        invalid("invalid time_in_force")
    order_class = body.get("order_class") or "simple"
    if order_class not in _CLASSES:
        invalid("invalid order_class")
    tif = TimeInForce(body["time_in_force"])
    target, stop, stop_limit = _legs(body, order_class)
    limit = number(body, "limit_price")
    if order_class == "oco":
        limit = target
    quantity, notional = number(body, "qty"), number(body, "notional")
    if (quantity is None) is (notional is None):
        invalid(
            "qty or notional is required"
            if quantity is None
            else "only one of qty or notional is accepted"
        )
    if quantity is None:
        quantity = _of_notional(state, asset, side, notional or ZERO)
    if notional is not None and not is_multiple(notional, _CENT):
        invalid("notional value must be limited to 2 decimal places")
    request = OrderRequest(
        client_order_id=client_order_id,
        symbol=asset.symbol,
        side=side,
        type=kind,
        quantity=quantity,
        limit_price=limit,
        stop_price=number(body, "stop_price"),
        time_in_force=tif,
        trail_amount=number(body, "trail_price"),
        trail_percent=number(body, "trail_percent"),
        extended_hours=body.get("extended_hours") is True,
    )
    wanted = Wanted(request, order_class, notional, target, stop, stop_limit)
    _check_shape(request)
    (_check_crypto if asset.is_crypto else _check_stock)(wanted, asset)
    return wanted


def asset_of(state: AlpacaState, symbol: str) -> Asset:
    """Return an asset, or refuse for one that is not listed."""
    asset = state.assets.get(symbol)
    if asset is None:
        unprocessable(f'asset "{symbol}" not found')
    return asset


def _legs(
    body: Mapping[str, Any], order_class: str
) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
    profit, loss = body.get("take_profit") or {}, body.get("stop_loss") or {}
    if not isinstance(profit, dict) or not isinstance(loss, dict):
        invalid("take_profit and stop_loss must be objects")
    target = number(profit, "limit_price")
    stop, limit = number(loss, "stop_price"), number(loss, "limit_price")
    if order_class in ("bracket", "oco") and (target is None or stop is None):
        invalid(f"{order_class} orders require take_profit.limit_price and stop_loss.stop_price")
    if order_class == "oto" and (target is None) is (stop is None):
        invalid("oto orders require either take_profit.limit_price or stop_loss.stop_price")
    return target, stop, limit


def _of_notional(state: AlpacaState, asset: Asset, side: Side, notional: Decimal) -> Decimal:
    try:
        quote = state.core.quote(asset.symbol)
    except ExchangeUnavailableError:
        unprocessable("notional orders need a price")
    price = quote.ask if side is Side.BUY else quote.bid
    quantity = (notional / price).quantize(_NINE, ROUND_DOWN)
    if not quantity:
        unprocessable("notional value must be at least 1")
    return quantity


def _check_shape(request: OrderRequest) -> None:
    for name in _NEEDS.get(request.type, ()):
        if getattr(request, name) is None:
            invalid(f"{request.type.value} orders require {name.replace('_', ' ')}")
    if request.type is OrderType.MARKET and request.limit_price is not None:
        invalid("market orders require no limit price")
    trails = (request.trail_amount, request.trail_percent)
    if request.type is OrderType.TRAILING_STOP and trails.count(None) != 1:
        invalid("trailing_stop orders require exactly one of trail_price or trail_percent")


def _check_crypto(wanted: Wanted, asset: Asset) -> None:
    request = wanted.request
    if request.type not in (OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT):
        unprocessable("invalid order type for crypto order")
    if request.time_in_force not in (TimeInForce.GTC, TimeInForce.IOC):
        unprocessable("invalid crypto time_in_force")
    if wanted.has_legs:
        unprocessable("crypto orders not allowed for advanced order_class")
    if asset.min_size is not None and request.quantity < asset.min_size:
        unprocessable(f"minimal qty of order {plain(asset.min_size)}")
    if asset.trade_increment and not is_multiple(request.quantity, asset.trade_increment):
        unprocessable(f"qty must be a multiple of {plain(asset.trade_increment)}")
    for price in (request.limit_price, request.stop_price):
        if (
            price is not None
            and asset.price_increment
            and not is_multiple(price, asset.price_increment)
        ):
            unprocessable(f"invalid price {plain(price)}")


def _check_stock(wanted: Wanted, asset: Asset) -> None:
    request = wanted.request
    if request.extended_hours and (
        request.type is not OrderType.LIMIT
        or request.time_in_force not in (TimeInForce.DAY, TimeInForce.GTC)
    ):
        unprocessable("extended hours order must be DAY or GTC limit orders")
    prices = {
        "limit_price": request.limit_price,
        "stop_price": request.stop_price,
        "take_profit.limit_price": wanted.target,
        "stop_loss.stop_price": wanted.stop,
        "stop_loss.limit_price": wanted.stop_limit,
    }
    for name, price in prices.items():
        check_penny(name, price)
    if wanted.has_legs:
        _check_legs(wanted)
    if is_multiple(request.quantity, ONE):
        return
    if not asset.fractionable:
        unprocessable(f'asset "{asset.symbol}" is not fractionable')
    if not is_multiple(request.quantity, _NINE):
        unprocessable("qty has more than 9 decimal places")
    if request.time_in_force is not TimeInForce.DAY:
        unprocessable("fractional orders must be DAY orders")
    if request.type is OrderType.TRAILING_STOP or wanted.has_legs:
        unprocessable("fractional orders must be simple orders")


def check_penny(name: str, price: Decimal | None) -> None:
    """Refuse a price of more decimals than a stock's price may have."""
    if price is None:
        return
    if not is_multiple(price, Decimal("0.01") if price >= ONE else Decimal("0.0001")):
        unprocessable(
            f"invalid {name} {plain(price)}. sub-penny increment does not fulfill minimum pricing criteria"
        )


def _check_legs(wanted: Wanted) -> None:
    request = wanted.request
    if request.time_in_force not in (TimeInForce.DAY, TimeInForce.GTC):
        unprocessable(f"{wanted.order_class} orders must be DAY or GTC")
    sells = (request.side is Side.BUY) is not (wanted.order_class == "oco")
    if wanted.target is not None and wanted.stop is not None:
        right = wanted.target > wanted.stop if sells else wanted.target < wanted.stop
        if not right:
            unprocessable(
                f"take_profit.limit_price must be {'>' if sells else '<'} stop_loss.stop_price"
            )

"""How orders are written in requests to Binance spot: which parameters each type must and may have."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest, OrderType, Side, TimeInForce
from execkit.numbers import ZERO
from execkit.testing.venues.binance.base import BinanceBase
from execkit.testing.venues.binance.errors import missing, refuse
from execkit.testing.venues.binance.params import Params, check_precision, unwanted
from execkit.testing.venues.binance.words import SPOT_TYPES

_NEEDS: Final = {
    "LIMIT": ("timeInForce", "quantity", "price"),
    "LIMIT_MAKER": ("quantity", "price"),
    "MARKET": (),
    "STOP_LOSS": ("quantity",),
    "STOP_LOSS_LIMIT": ("timeInForce", "quantity", "price"),
    "TAKE_PROFIT": ("quantity",),
    "TAKE_PROFIT_LIMIT": ("timeInForce", "quantity", "price"),
}
_PASSED_OVER: Final = ("strategyId", "strategyType", "newOrderRespType", "selfTradePreventionMode")


class Wanted(msgspec.Struct, frozen=True):
    """An order as a request describes it."""

    request: OrderRequest
    word: str
    trailing_delta: int | None = None
    quote_quantity: Decimal = ZERO

    @property
    def stop_above(self) -> bool | None:
        """On which side of its stop it triggers: a take-profit where a stop does not."""
        is_target = self.word in ("TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
        return self.request.side is Side.SELL if is_target else None

    @property
    def default_answer(self) -> str:
        """How much the answer says if the request does not care."""
        return "FULL" if self.word in ("MARKET", "LIMIT") else "ACK"


class SpotReader:
    """Reads orders from parameters."""

    def __init__(self, venue: BinanceBase) -> None:
        self.venue = venue

    def read(self, params: Params, prefix: str = "") -> Wanted:
        """Read an order from parameters; those of a list have a *prefix*."""

        def name(plain: str) -> str:
            return prefix + plain[0].upper() + plain[1:] if prefix else plain

        instrument = params.instrument()
        side = params.side(name("side"))
        return self.read_terms(params, instrument, side, name)

    def read_terms(
        self,
        params: Params,
        instrument: Instrument,
        side: Side,
        name: Callable[[str], str],
        *,
        quantity: Decimal | None = None,
        default_type: str | None = None,
    ) -> Wanted:
        """Read what kind of order it is, at which prices."""
        word = params.word(name("type"), SPOT_TYPES, -1116, default_type)
        amount = params.number(name("quantity")) if quantity is None else quantity
        quote_quantity = params.number("quoteOrderQty") if name("type") == "type" else None
        price, stop = params.number(name("price")), params.number(name("stopPrice"))
        delta = params.integer(name("trailingDelta"))
        for needed in _NEEDS[word]:
            if needed == "quantity" and quantity is not None:
                continue
            if name(needed) not in params:
                missing(name(needed))
        for field, value in (("quantity", amount), ("price", price), ("stopPrice", stop)):
            check_precision(name(field), value, 8)
        if word in ("MARKET", "STOP_LOSS", "TAKE_PROFIT") and price is not None:
            unwanted(name("price"))
        is_conditional = SPOT_TYPES[word] in (OrderType.STOP, OrderType.STOP_LIMIT)
        if is_conditional and stop is None and delta is None:
            missing(name("stopPrice"))
        if delta is not None and (word != "STOP_LOSS" or stop is not None):
            # Trailing take-profits, trailing limits and activation prices are not played here.
            refuse(-1020)
        if not is_conditional and stop is not None:
            unwanted(name("stopPrice"))
        if word == "MARKET" and (amount is None) is (quote_quantity is None):
            if amount is None:
                missing("quantity")
            unwanted("quoteOrderQty")
        tif = TimeInForce.GTC
        if "timeInForce" in _NEEDS[word]:
            tif = params.time_in_force(name("timeInForce"))
        elif name("timeInForce") in params:
            unwanted(name("timeInForce"))
        params.ignore(*_PASSED_OVER, *(name(each) for each in _PASSED_OVER), name("icebergQty"))
        client_id = params.client_id(
            "newClientOrderId" if name("type") == "type" else name("clientOrderId")
        )
        request = OrderRequest(
            client_order_id=client_id or self.venue.new_client_id(),
            symbol=instrument.symbol,
            side=side,
            type=SPOT_TYPES[word] if delta is None else OrderType.TRAILING_STOP,
            quantity=self._quantity(instrument, side, amount, quote_quantity),
            limit_price=price,
            stop_price=stop,
            trail_percent=None if delta is None else Decimal(delta) / 100,
            time_in_force=tif,
            post_only=word == "LIMIT_MAKER",
        )
        return Wanted(request, word, delta, quote_quantity or ZERO)

    def _quantity(
        self,
        instrument: Instrument,
        side: Side,
        amount: Decimal | None,
        quote_quantity: Decimal | None,
    ) -> Decimal:
        """Return the quantity, which a market order may state in units of quote."""
        if amount is not None or quote_quantity is None:
            return amount or ZERO
        quote = self.venue.core.quote(instrument.symbol)
        price = quote.ask if side is Side.BUY else quote.bid
        return instrument.round_quantity(quote_quantity / price)

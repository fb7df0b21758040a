"""Binance's markets: filters become an instrument's rules, and the rest of them a check before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import attrs

from execkit.errors import ConfigurationError, InvalidOrderError
from execkit.exchanges.ccxt.rules import check_rules
from execkit.exchanges.ccxt.values import BadAnswerError, amount, mapping, rows, text
from execkit.model.instrument import Instrument
from execkit.model.order import OrderRequest, OrderType, Side
from execkit.numbers import ZERO, is_multiple, plain

_FEES: Final = {
    "spot": (Decimal("0.001"), Decimal("0.001")),
    "usdm": (Decimal("0.0002"), Decimal("0.0005")),
}
"""(maker, taker) of an ordinary account; the account's own come with `with_fees` on spot."""

_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)


_CALLBACK_BIPS: Final = (Decimal(10), Decimal(1000))
"""Futures take a `callbackRate` of 0.1 to 10 per cent."""

Band = tuple[Decimal, Decimal | None]


@attrs.frozen(kw_only=True)
class Market:
    """One market: the rules that every venue has, and Binance's own."""

    instrument: Instrument
    min_price: Decimal = ZERO
    max_price: Decimal | None = None
    market_lot: Decimal | None = None
    market_min: Decimal = ZERO
    bid_band: Band | None = None
    """A buy's limit lies between these multiples of the reference price."""
    ask_band: Band | None = None
    trailing_bips: tuple[Decimal, Decimal] | None = None
    """The least and the most distance of a trailing stop, in hundredths of a per cent."""
    trailing_step: Decimal | None = None
    """In per cent; None: any."""

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
    bid_band, ask_band = _bands(filters, kind)
    trailing = filters.get("TRAILING_DELTA")
    return Market(
        instrument=instrument,
        min_price=_of(prices, "minPrice"),
        max_price=_of(prices, "maxPrice") or None,
        market_lot=_of(market_lots, "stepSize") or None,
        market_min=_of(market_lots, "minQty"),
        bid_band=bid_band,
        ask_band=ask_band,
        trailing_step=Decimal("0.01") if kind == "spot" else None,
        trailing_bips=_CALLBACK_BIPS
        if kind != "spot"
        else None
        if trailing is None
        else (
            max(_of(trailing, "minTrailingAboveDelta"), _of(trailing, "minTrailingBelowDelta")),
            min(_of(trailing, "maxTrailingAboveDelta"), _of(trailing, "maxTrailingBelowDelta")),
        ),
    )


def _of(row: Mapping[str, Any], name: str) -> Decimal:
    return amount(row, name) if name in row else ZERO


def _bands(filters: Mapping[str, Mapping[str, Any]], kind: str) -> tuple[Band | None, Band | None]:
    """Return between which multiples of the reference price a buy's and a sell's limit may lie."""
    sides, both = filters.get("PERCENT_PRICE_BY_SIDE"), filters.get("PERCENT_PRICE")
    if sides is not None:
        return _band(sides, "bidMultiplier"), _band(sides, "askMultiplier")
    found = None if both is None else _band(both, "multiplier")
    if found is None or kind == "spot":
        return found, found
    # Futures bound only the side that would trade through the market.
    return (ZERO, found[1]), (found[0], None)


def _band(row: Mapping[str, Any], name: str) -> Band | None:
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
    check_rules(
        rules,
        request,
        min_price=market.min_price,
        max_price=market.max_price,
        market_lot=market.market_lot,
        market_min=market.market_min,
    )
    band = market.bid_band if request.side is Side.BUY else market.ask_band
    limit = request.limit_price
    if request.trail_percent is not None and market.trailing_bips is not None:
        _check_trail(market, request.trail_percent)
    if None in (band, reference, limit) or request.reduce_only or request.type in _STOPS:
        return
    assert band is not None
    assert reference is not None
    assert limit is not None
    low = reference * band[0]
    high = None if band[1] is None else reference * band[1]
    if limit < low or (high is not None and limit > high):
        most = "" if high is None else f" to {_short(high)}"
        raise InvalidOrderError(
            f"limit_price: {plain(limit)} is outside {_short(low)}{most}, what {rules.symbol} allows "
            f"a {request.side} around {_short(reference)} (PERCENT_PRICE)"
        )


def _check_trail(market: Market, percent: Decimal) -> None:
    """Raise `InvalidOrderError` for a distance that Binance has no way to write, or does not take."""
    assert market.trailing_bips is not None
    least, most = (bips / 100 for bips in market.trailing_bips)
    step = market.trailing_step
    if not least <= percent <= most or (step is not None and not is_multiple(percent, step)):
        steps = "" if step is None else f", in steps of {plain(step)}"
        raise InvalidOrderError(
            f"trail_percent: {plain(percent)} must be at least {plain(least)} and at most {plain(most)}{steps} "
            f"for {market.instrument.symbol}"
        )


def _short(value: Decimal) -> str:
    return plain(value.quantize(Decimal("1e-8"))) if abs(value) < 10**9 else plain(value)

"""The rules of symbols as Binance's `exchangeInfo` states them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from execkit.exchanges.matching import MatchingCore
from execkit.model.instrument import Instrument
from execkit.numbers import plain
from execkit.testing.venues.binance.limits import Rules
from execkit.testing.venues.binance.words import eight, short

_MOST: Final = Decimal(1_000_000)
_MOST_NOTIONAL: Final = Decimal(9_000_000)


FUTURES_BAND: Final = (Decimal("0.95"), Decimal("1.05"))
"""A sell's limit is at least, a buy's at most so much of the mark price."""


def places(step: Decimal) -> int:
    """Return how many places a step has."""
    _, _, fraction = plain(step).partition(".")
    return len(fraction)


def spot_instrument(symbol: str, **changes: Any) -> Instrument:
    """Return the rules of a spot symbol, by default those that BTC/USDT has."""
    base, _, quote = symbol.partition("/")
    rules: dict[str, Any] = {
        "min_quantity": Decimal("0.00001"),
        "max_quantity": Decimal(9_000),
        "market_max_quantity": Decimal(120),
        "min_notional": Decimal(5),
        "max_notional": _MOST_NOTIONAL,
        "maker_fee": Decimal("0.001"),
        "taker_fee": Decimal("0.001"),
        "fee_in_base": True,
        "venue_symbol": base + quote,
    }
    return Instrument.default(symbol, **(rules | changes))


def futures_instrument(symbol: str, **changes: Any) -> Instrument:
    """Return the rules of a USD-M perpetual, by default much like those of BTC/USDT:USDT."""
    base, _, quote = symbol.partition(":")[0].partition("/")
    rules: dict[str, Any] = {
        "tick_size": Decimal("0.1"),
        "lot_size": Decimal("0.001"),
        "min_quantity": Decimal("0.001"),
        "max_quantity": Decimal(1_000),
        "market_max_quantity": Decimal(120),
        "min_notional": Decimal(100),
        "maker_fee": Decimal("0.0002"),
        "taker_fee": Decimal("0.0005"),
        "venue_symbol": base + quote,
    }
    return Instrument.default(symbol, **(rules | changes))


def spot_symbols(core: MatchingCore, rules: Rules) -> list[dict[str, Any]]:
    """Return the symbols of a spot venue."""
    return [_spot(core, each, rules) for each in core.instruments.values()]


def _spot(core: MatchingCore, each: Instrument, rules: Rules) -> dict[str, Any]:
    is_open = each.tradeable and each.symbol not in core.halted
    return {
        "symbol": each.venue_symbol,
        "status": "TRADING" if is_open else "HALT",
        "baseAsset": each.base,
        "baseAssetPrecision": 8,
        "quoteAsset": each.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": [
            *("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"),
            *("TAKE_PROFIT", "TAKE_PROFIT_LIMIT"),
        ],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            _price_filter(each),
            _lot("LOT_SIZE", each, each.max_quantity),
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            _lot("MARKET_LOT_SIZE", each, each.market_max_quantity or each.max_quantity)
            | {"minQty": eight(None), "stepSize": eight(None)},
            {
                "filterType": "TRAILING_DELTA",
                "minTrailingAboveDelta": 10,
                "maxTrailingAboveDelta": 2000,
                "minTrailingBelowDelta": 10,
                "maxTrailingBelowDelta": 2000,
            },
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": plain(rules.bid_up),
                "bidMultiplierDown": plain(rules.bid_down),
                "askMultiplierUp": plain(rules.ask_up),
                "askMultiplierDown": plain(rules.ask_down),
                "avgPriceMins": 5,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": eight(each.min_notional),
                "applyMinToMarket": True,
                "maxNotional": eight(each.max_notional or _MOST_NOTIONAL),
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": rules.max_orders},
            {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": 20},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": rules.max_conditional},
            {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": 10},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def futures_symbols(core: MatchingCore, rules: Rules) -> list[dict[str, Any]]:
    """Return the symbols of a USD-M venue."""
    return [_perpetual(core, each, rules) for each in core.instruments.values()]


def _perpetual(core: MatchingCore, each: Instrument, rules: Rules) -> dict[str, Any]:
    is_open = each.tradeable and each.symbol not in core.halted
    return {
        "symbol": each.venue_symbol,
        "pair": each.venue_symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": 1_569_398_400_000,
        "status": "TRADING" if is_open else "PENDING_TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": each.base,
        "quoteAsset": each.quote,
        "marginAsset": each.quote,
        "pricePrecision": places(each.tick_size),
        "quantityPrecision": places(each.lot_size),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10_000,
        "filters": [
            _price_filter(each, short),
            _lot("LOT_SIZE", each, each.max_quantity, short),
            _lot("MARKET_LOT_SIZE", each, each.market_max_quantity or each.max_quantity, short),
            {"filterType": "MAX_NUM_ORDERS", "limit": rules.max_orders},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": plain(each.min_notional)},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierDown": plain(FUTURES_BAND[0]),
                "multiplierUp": plain(FUTURES_BAND[1]),
                "multiplierDecimal": "4",
            },
        ],
        "orderTypes": [
            *("LIMIT", "MARKET", "STOP", "STOP_MARKET"),
            *("TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"),
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


def _price_filter(each: Instrument, number: Callable[[Decimal], str] = eight) -> dict[str, Any]:
    return {
        "filterType": "PRICE_FILTER",
        "minPrice": number(each.tick_size),
        "maxPrice": number(_MOST),
        "tickSize": number(each.tick_size),
    }


def _lot(
    name: str,
    each: Instrument,
    most: Decimal | None,
    number: Callable[[Decimal], str] = eight,
) -> dict[str, Any]:
    return {
        "filterType": name,
        "minQty": number(max(each.min_quantity, each.lot_size)),
        "maxQty": number(most or _MOST),
        "stepSize": number(each.lot_size),
    }

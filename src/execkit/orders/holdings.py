"""How a venue's positions differ from ours: by symbol, or by asset where a venue shows what is held of each asset.

A spot account holds coins, not positions: which of the asset's markets a venue's client names says nothing. There the
totals are compared, and ours keep the names that they have. A stock is an asset by itself, also one that is called like
a coin: BTC is a fund, BTC/USD the coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Final

from execkit.model.capabilities import Capabilities
from execkit.numbers import ZERO

_LAGS_AT_MOST: Final = timedelta(seconds=60)


def differences(
    theirs: Mapping[str, Decimal], ours: Mapping[str, Decimal], *, by_asset: bool
) -> dict[str, Decimal]:
    """Return how much more of each symbol the venue has than we."""
    stated = _named_as_ours(theirs, ours) if by_asset else theirs
    found = {
        symbol: stated.get(symbol, ZERO) - ours.get(symbol, ZERO)
        for symbol in sorted(stated.keys() | ours.keys())
    }
    return {symbol: difference for symbol, difference in found.items() if difference}


def of_one_asset(symbol: str, known: Iterable[str], *, by_asset: bool) -> set[str]:
    """Return the symbols whose orders may explain a difference in *symbol*."""
    asset = _asset_of(symbol)
    return {symbol} | {each for each in known if by_asset and _asset_of(each) == asset}


def _asset_of(symbol: str) -> tuple[str, str]:
    """Return the name of an asset, and a mark for one that is traded in pairs."""
    base, slash, _ = symbol.partition("/")
    return base, slash


def _named_as_ours(
    theirs: Mapping[str, Decimal], ours: Mapping[str, Decimal]
) -> dict[str, Decimal]:
    """Return the venue's holdings under our own symbols, the largest first; what is beyond them goes to that one.

    An asset of which we hold nothing keeps the symbol that the venue's client named.
    """
    mine: dict[tuple[str, str], list[str]] = {}
    for symbol in sorted(ours, key=lambda each: (-abs(ours[each]), each)):
        mine.setdefault(_asset_of(symbol), []).append(symbol)
    left = dict.fromkeys(mine, ZERO)
    found = {}
    for symbol, quantity in theirs.items():
        asset = _asset_of(symbol)
        if asset in left:
            left[asset] += quantity
        else:
            found[symbol] = quantity
    for asset, symbols in mine.items():
        for symbol in symbols:
            found[symbol] = min(ours[symbol], max(left[asset], ZERO))
            left[asset] -= found[symbol]
        found[symbols[0]] += left[asset]
    return found


def is_less(ours: Decimal, difference: Decimal) -> bool:
    """Tell whether with a difference less of a position is held, or something on the other side."""
    return ours != ZERO and (ours > ZERO) is (difference < ZERO)


def lag_of(capabilities: Capabilities) -> timedelta:
    """Return for how long after a fill the position may be of before it: a minute, unless the venue states less."""
    window = capabilities.absence_window
    return _LAGS_AT_MOST if window is None else min(window, _LAGS_AT_MOST)

"""How a venue's positions differ from ours: by symbol, or by asset where a venue shows what is held of each asset.

A spot account holds coins, not positions: which of the asset's markets a venue's client names says nothing. There the
totals are compared, and ours keep the names that they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from execkit.numbers import ZERO
from execkit.orders.executions import split_symbol


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
    base, _ = split_symbol(symbol)
    return {symbol} | {each for each in known if by_asset and split_symbol(each)[0] == base}


def _named_as_ours(
    theirs: Mapping[str, Decimal], ours: Mapping[str, Decimal]
) -> dict[str, Decimal]:
    """Return the venue's holdings under our own symbols, the largest first; what is beyond them goes to that one.

    An asset of which we hold nothing keeps the symbol that the venue's client named.
    """
    mine: dict[str, list[str]] = {}
    for symbol in sorted(ours, key=lambda each: (-abs(ours[each]), each)):
        mine.setdefault(split_symbol(symbol)[0], []).append(symbol)
    left = dict.fromkeys(mine, ZERO)
    found = {}
    for symbol, quantity in theirs.items():
        base, _ = split_symbol(symbol)
        if base in left:
            left[base] += quantity
        else:
            found[symbol] = quantity
    for base, symbols in mine.items():
        for symbol in symbols:
            found[symbol] = min(ours[symbol], max(left[base], ZERO))
            left[base] -= found[symbol]
        found[symbols[0]] += left[base]
    return found

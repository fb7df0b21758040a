"""What holdings are worth, as far as prices are known."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from execkit.numbers import MONEY, ONE, ZERO
from execkit.orders.executions import split_symbol
from execkit.orders.positions import PositionBook


def worth(
    amounts: Mapping[str, Decimal],
    currency: str,
    marks: Mapping[str, Decimal],
    positions: PositionBook,
) -> Decimal:
    """Return the value of amounts by asset, in *currency*, at the last marks, else at what was paid.

    What has no known price counts as nothing.
    """
    total = ZERO
    for asset, amount in amounts.items():
        if asset == currency:
            total += amount
        elif amount:
            total += MONEY.multiply(amount, _price_of(asset, currency, marks, positions))
    return total


def _price_of(
    asset: str, currency: str, marks: Mapping[str, Decimal], positions: PositionBook
) -> Decimal:
    """Return what one unit of an asset is worth; zero where nobody knows."""

    def known(symbol: str) -> Decimal:
        return marks.get(symbol) or positions.average_price(symbol) or ZERO

    price = known(f"{asset}/{currency}") or known(asset)
    if price:
        return price
    # A market may be called BTC/USDT:USDT or SAP/EUR:IBIS, and be quoted in another currency.
    for symbol in positions.open:
        base, quote = split_symbol(symbol)
        if base == asset:
            rate = ONE if quote == currency else known(f"{quote}/{currency}")
            return MONEY.multiply(known(symbol), rate)
    return ZERO

"""What is checked of an account before the first order: the clock, the key's rights, the position mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from execkit.errors import AuthenticationError, ConfigurationError
from execkit.exchanges.ccxt.values import BadAnswerError, amount, mapping, number, rows, text
from execkit.model.account import Balance, VenuePosition
from execkit.numbers import MONEY, ZERO

CASH: Final = frozenset(
    {
        "USDT",
        "USDC",
        "FDUSD",
        "TUSD",
        "BUSD",
        "DAI",
        "USDP",
        "USD1",
        "EUR",
        "GBP",
        "USD",
        "TRY",
        "BRL",
    }
)
"""Assets that are money here, not positions, although some of them have a market of their own."""


def check_rights(restrictions: Any, kind: str) -> None:
    """Raise `AuthenticationError` for a key that may withdraw, or may not trade."""
    row = mapping(restrictions)
    if row.get("enableWithdrawals") is not False:
        raise AuthenticationError(
            "api_key: this key may withdraw money; make one without that right "
            "(API Management: switch 'Enable Withdrawals' off) and use it instead",
            venue="binance",
        )
    name, label = (
        ("enableSpotAndMarginTrading", "Enable Spot & Margin Trading")
        if kind == "spot"
        else ("enableFutures", "Enable Futures")
    )
    if row.get(name) is not True:
        raise AuthenticationError(
            f"api_key: this key has no right to trade; switch '{label}' on in API Management",
            venue="binance",
        )


def has_fixed_address(restrictions: Any) -> bool:
    """Tell whether the key works from listed addresses only."""
    return mapping(restrictions).get("ipRestrict") is True


def check_can_trade(account: Any) -> None:
    """Raise `AuthenticationError` for an account that says it may not trade."""
    if mapping(account).get("canTrade") is False:
        raise AuthenticationError(
            "api_key: this key or its account has no right to trade; "
            "switch trading on in Binance's API Management",
            venue="binance",
        )


def check_one_way(answer: Any) -> None:
    """Raise `ConfigurationError` for an account that holds long and short of one symbol at once."""
    if mapping(answer).get("dualSidePosition") is True:
        raise ConfigurationError(
            "account: its position mode is hedge; execkit keeps one net position per symbol, "
            "so switch the account to one-way mode (Futures preferences: Position Mode)"
        )


def spot_balances(account: Any) -> dict[str, Balance]:
    """Return what a spot account holds."""
    found = {}
    for row in rows(mapping(account).get("balances"), "balances"):
        free, locked = amount(row, "free"), amount(row, "locked")
        asset = text(row, "asset")
        if asset in found:
            raise BadAnswerError("an asset stands twice")
        found[asset] = Balance(asset, free + locked, free)
    return {asset: balance for asset, balance in found.items() if balance.total}


def spot_fees(account: Any) -> tuple[Decimal, Decimal] | None:
    """Return (maker, taker) of a spot account, as fractions."""
    rates = mapping(account).get("commissionRates")
    if not isinstance(rates, Mapping):
        return None
    return number(rates, "maker"), number(rates, "taker")


def net_positions(answer: Any) -> Iterator[tuple[str, Decimal, Decimal]]:
    """Yield (Binance's symbol, quantity, entry price) of each open futures position."""
    for row in rows(answer):
        quantity = number(row, "positionAmt")
        if row.get("positionSide", "BOTH") != "BOTH" and quantity:
            check_one_way({"dualSidePosition": True})
        if quantity:
            yield text(row, "symbol"), quantity, amount(row, "entryPrice")


def futures_balances(account: Any, positions: list[VenuePosition]) -> dict[str, Balance]:
    """Return a futures account's money as if positions had been paid for in full.

    A futures wallet does not move when a position is opened. execkit's books count a position at its price and take
    what it cost from the cash, so the same is done here; the sum of both is then the account's equity.
    """
    found = {}
    for row in rows(mapping(account).get("assets"), "assets"):
        asset = text(row, "asset")
        wallet = number(row, "walletBalance")
        paid = sum(
            (MONEY.multiply(p.quantity, p.average_price) for p in positions if _settles(p, asset)),
            ZERO,
        )
        total = MONEY.subtract(wallet, paid)
        free = min(max(number(row, "availableBalance"), ZERO), max(total, ZERO))
        if wallet or paid:
            found[asset] = Balance(asset, total, min(free, total))
    return found


def _settles(position: VenuePosition, asset: str) -> bool:
    return position.symbol.endswith(f":{asset}")

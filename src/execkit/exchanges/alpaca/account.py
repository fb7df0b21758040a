"""What is checked of an account before the first order, and its money and positions."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import attrs

from execkit.errors import AuthenticationError
from execkit.exchanges.alpaca.codes import VENUE
from execkit.exchanges.alpaca.decode import is_tradeable_here, symbol_of
from execkit.exchanges.alpaca.values import BadAnswerError, clean
from execkit.exchanges.ccxt.values import amount, mapping, number, rows, text
from execkit.model.account import Balance, VenuePosition
from execkit.numbers import ZERO

_BLOCKS: Final = {
    "trading_blocked": "trading is blocked for this account; ask Alpaca's support why",
    "account_blocked": "this account is blocked; ask Alpaca's support why",
    "trade_suspended_by_user": "trading is suspended in the account's settings; switch 'suspend trade' off there",
}


@attrs.frozen
class AccountState:
    """What the account says of itself."""

    currency: str
    cash: Decimal
    free: Decimal
    """What can be bought for without borrowing."""
    buying_power: Decimal
    equity: Decimal
    short_selling: bool
    day_trades: int

    def __str__(self) -> str:
        return (
            f"buying_power={self.buying_power}, cash={self.cash}, equity={self.equity}, "
            f"daytrade_count={self.day_trades}"
        )


def read_account(body: Any) -> AccountState:
    """Return the account."""
    row = mapping(body, "the account")
    cash = number(row, "cash")
    unborrowed = row.get("non_marginable_buying_power")
    free = (
        number(row, "buying_power")
        if unborrowed is None
        else number(row, "non_marginable_buying_power")
    )
    trades = row.get("daytrade_count")
    return AccountState(
        currency=clean(row.get("currency") or "USD", 10),
        cash=cash,
        free=min(max(free, ZERO), cash),
        buying_power=number(row, "buying_power"),
        equity=number(row, "equity"),
        short_selling=row.get("shorting_enabled") is True,
        day_trades=trades if isinstance(trades, int) and not isinstance(trades, bool) else 0,
    )


def check_rights(body: Any) -> None:
    """Raise `AuthenticationError` for an account that may not trade, naming what to do."""
    row = mapping(body, "the account")
    status = text(row, "status")
    if status != "ACTIVE":
        raise AuthenticationError(
            f"{VENUE}: the account is {clean(status, 40)}, not ACTIVE; finish its set-up at Alpaca first",
            venue=VENUE,
        )
    for name, problem in _BLOCKS.items():
        if row.get(name) is True:
            raise AuthenticationError(f"{VENUE}: {problem} ({name})", venue=VENUE)


@attrs.frozen
class Held:
    """One position, with what of it is not held for orders."""

    position: VenuePosition
    free: Decimal


def read_positions(body: Any) -> list[Held]:
    """Return the positions in stocks and crypto."""
    return [_held(row) for row in rows(body, "the positions") if is_tradeable_here(row)]


def _held(row: Any) -> Held:
    quantity = number(row, "qty")
    side = text(row, "side")
    if side not in ("long", "short"):
        raise BadAnswerError("a position is neither long nor short")
    # Shorts are written as negative quantities; the side says it once more.
    quantity = abs(quantity) if side == "long" else -abs(quantity)
    free = quantity
    if row.get("qty_available") is not None and quantity > ZERO:
        free = min(amount(row, "qty_available"), quantity)
    position = VenuePosition(symbol_of(row), quantity, amount(row, "avg_entry_price"))
    return Held(position, free)


def balances_of(account: AccountState, held: list[Held]) -> dict[str, Balance]:
    """Return the cash, and what is held of each asset; of a stock and a coin of one name, as BTC, the coin."""
    found = {account.currency: Balance(account.currency, account.cash, account.free)}
    for each in sorted(held, key=lambda each: "/" in each.position.symbol):
        base = each.position.symbol.partition("/")[0]
        found[base] = Balance(base, each.position.quantity, each.free)
    return found

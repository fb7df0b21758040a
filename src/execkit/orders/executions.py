"""Executions as the positions see them: what a fill changes, and which change from outside it explains."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from execkit.model.order import Fill, Side
from execkit.model.position import Target
from execkit.numbers import MONEY, ZERO
from execkit.orders.day_trades import DayTrades

_UNDO: Final = "undo-"

OUTSIDE: Final = "outside-"
"""How the trade id of a change from outside begins that an execution can explain."""


class Origin(msgspec.Struct, frozen=True):
    """What the order behind a fill says about the position it may open."""

    signal_id: str = ""
    strength: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    targets: tuple[Target, ...] = ()
    lot_size: Decimal = ZERO
    """Lot size of its market when it was sent; zero: not known."""
    slice_of: str = ""
    """Parent order that the order was a slice of."""


Key = tuple[datetime, str, str]
"""Venue time, trade id and side: where an execution stands among all of its symbol."""


def key_of(fill: Fill) -> Key:
    """Return the key of a fill; of a trade with oneself the two sides share time and id."""
    return (fill.at, fill.trade_id, fill.side.value)


class Execution(msgspec.Struct, frozen=True):
    """A fill as the positions see it."""

    fill: Fill
    origin: Origin

    @property
    def key(self) -> Key:
        """Where it stands; see `key_of`."""
        return key_of(self.fill)


def split_symbol(symbol: str) -> tuple[str, str]:
    """Return (base, quote) of a symbol; an equity such as `AAPL` is quoted in USD."""
    base, slash, quote = symbol.partition("/")
    return (base, quote.partition(":")[0]) if slash else (symbol, "USD")


def net_effect(fill: Fill) -> tuple[Decimal, Decimal]:
    """Return (signed change of the position, cost of the fee in quote units) of a fill."""
    change = fill.quantity if fill.side is Side.BUY else -fill.quantity
    if fill.fee:
        base, quote = split_symbol(fill.symbol)
        if fill.fee_asset == base:
            return MONEY.subtract(change, fill.fee), MONEY.multiply(fill.fee, fill.price)
        if fill.fee_asset in (quote, ""):
            return change, fill.fee
    return change, ZERO


def outside_fill(
    symbol: str, quantity: Decimal, price: Decimal, at: datetime, seen_at: datetime | None
) -> Fill:
    """Return a change from outside as a fill without a fee at *seen_at*; see `PositionBook.adjust`."""
    return Fill(
        trade_id=f"{OUTSIDE if seen_at else 'external-'}{at.isoformat()}",
        client_order_id="",
        venue_order_id="",
        symbol=symbol,
        side=Side.BUY if quantity > ZERO else Side.SELL,
        quantity=abs(quantity),
        price=price,
        at=seen_at or at,
    )


def is_undone_by(last: Execution | None, quantity: Decimal) -> bool:
    """Tell whether the last execution is a change from outside that another one of *quantity* makes good."""
    if last is None or not last.fill.trade_id.startswith(OUTSIDE):
        return False
    return net_effect(last.fill)[0] == -quantity


def was_before(
    executions: Iterable[Execution], ours: Decimal, shown: Decimal, since: datetime
) -> bool:
    """Tell whether *shown* was held before the last executions, those of *since* and later, that make up *ours*.

    A change from outside is no execution that an answer could be older than: it was made of an answer.
    """
    for execution in reversed(tuple(executions)):
        fill = execution.fill
        if fill.at < since or fill.trade_id.startswith(OUTSIDE):
            return False
        ours = MONEY.subtract(ours, net_effect(fill)[0])
        if ours == shown:
            return True
    return False


def opposite(fill: Fill, at: datetime) -> Fill:
    """Return what takes back the effect of a fill, as of *at*."""
    return msgspec.structs.replace(
        fill, trade_id=f"{_UNDO}{fill.trade_id}", side=fill.side.opposite, fee=-fill.fee, at=at
    )


def add_to(counted: DayTrades, execution: Execution) -> None:
    """Count an execution's part in day trades; what takes back an old one changes what is held, and is no trade."""
    change, _ = net_effect(execution.fill)
    if execution.fill.trade_id.startswith(_UNDO):
        counted.held = MONEY.add(counted.held, change)
    else:
        counted.add(change, execution.fill.at)


def take_back(window: list[Execution], fill: Fill) -> bool:
    """Take a fill out of the first outside change that holds it; return False when there is none.

    It was executed before the venue was looked at, in that direction, and is no larger than what was taken over.
    """
    if fill.trade_id.startswith(OUTSIDE) or not window or fill.at > window[-1].fill.at:
        return False
    change, _ = net_effect(fill)
    for place, execution in enumerate(window):
        outside = execution.fill
        if not outside.trade_id.startswith(OUTSIDE) or fill.at > outside.at:
            continue
        if outside.side is fill.side and abs(change) <= outside.quantity:
            rest = MONEY.subtract(outside.quantity, abs(change))
            kept = msgspec.structs.replace(outside, quantity=rest)
            window[place : place + 1] = [Execution(kept, execution.origin)] if rest else []
            return True
    return False

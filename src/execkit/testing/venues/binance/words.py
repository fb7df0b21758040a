"""How Binance writes numbers, times and the words for orders, and what an order says beyond what the core knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import attrs

from execkit.exchanges.venue_orders import VenueOrder
from execkit.model.order import OrderReport, OrderRequest, OrderState, OrderType, TimeInForce
from execkit.numbers import HUNDRED, plain, round_down, round_up
from execkit.testing.venues.binance.core import BinanceCore
from execkit.testing.venues.ledger import VenueState

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def ms(at: datetime) -> int:
    """Return a moment in milliseconds of the epoch."""
    return (at - _EPOCH) // _MILLISECOND


def from_ms(value: int) -> datetime:
    """Return the moment of a number of milliseconds."""
    return _EPOCH + value * _MILLISECOND


def eight(value: Decimal | None) -> str:
    """Write a number with eight places, as spot does."""
    return f"{value or Decimal(0):.8f}"


def short(value: Decimal | None) -> str:
    """Write a number without needless zeros, as futures do."""
    return plain(value or Decimal(0))


STATUS: Final = {
    OrderState.ACCEPTED: "NEW",
    OrderState.HELD: "PENDING_NEW",
    OrderState.PARTIALLY_FILLED: "PARTIALLY_FILLED",
    OrderState.FILLED: "FILLED",
    OrderState.CANCELLED: "CANCELED",
    OrderState.EXPIRED: "EXPIRED",
    OrderState.REJECTED: "REJECTED",
}

SPOT_TYPES: Final = {
    "LIMIT": OrderType.LIMIT,
    "LIMIT_MAKER": OrderType.LIMIT,
    "MARKET": OrderType.MARKET,
    "STOP_LOSS": OrderType.STOP,
    "STOP_LOSS_LIMIT": OrderType.STOP_LIMIT,
    "TAKE_PROFIT": OrderType.STOP,
    "TAKE_PROFIT_LIMIT": OrderType.STOP_LIMIT,
}
_SPOT_WORDS: Final = {
    OrderType.LIMIT: "LIMIT",
    OrderType.MARKET: "MARKET",
    OrderType.STOP: "STOP_LOSS",
    OrderType.STOP_LIMIT: "STOP_LOSS_LIMIT",
    OrderType.TRAILING_STOP: "STOP_LOSS",
}


def futures_word(request: OrderRequest) -> str:
    """Return what futures call the type of an order."""
    words = {OrderType.STOP: "STOP_MARKET", OrderType.STOP_LIMIT: "STOP"}
    return words.get(request.type, request.type.value.upper())


def spot_word(request: OrderRequest) -> str:
    """Return what spot calls the type of an order."""
    return "LIMIT_MAKER" if request.post_only else _SPOT_WORDS[request.type]


@attrs.define(kw_only=True)
class Notes:
    """What Binance says of an order and the core does not know."""

    word: str
    """Its type, in Binance's word."""
    time_in_force: str = "GTC"
    created_at: datetime
    list_id: int = -1
    quote_quantity: Decimal = Decimal(0)
    cancel_id: str | None = None
    """The client order id of the cancel that ended it."""
    status: str | None = None
    """Its status, where Binance has a word that the core has not."""
    expiry_reason: int | None = None
    trailing_delta: int | None = None
    position_side: str = "BOTH"
    announced: bool = False
    """The stream has told of it."""


@attrs.define
class ListRecord:
    """An order list: OCO, OTO or OTOCO."""

    list_id: int
    client_id: str
    contingency: str
    symbol: str
    orders: list[str]
    """Venue ids, the working order first."""
    created_at: datetime
    is_done: bool = False


@attrs.define(kw_only=True)
class Algo:
    """A conditional order on futures, before and after it became an order."""

    algo_id: int
    client_id: str
    word: str
    symbol: str
    is_buy: bool
    quantity: Decimal
    trigger: Decimal | None
    price: Decimal | None
    time_in_force: str
    reduce_only: bool
    closes_position: bool
    callback_rate: Decimal | None
    activation: Decimal | None
    created_at: datetime
    updated_at: datetime
    status: str = "NEW"
    order_id: str = ""
    """The core's id of the order that it became."""
    triggered_at: datetime | None = None
    reason: str = ""
    level: Decimal | None = None
    """Present trigger of a trailing stop."""

    def follow(self, last: Decimal, tick_size: Decimal) -> None:
        """Let a trailing stop keep its distance from the best price since it was activated."""
        if self.callback_rate is None:
            return
        if self.activation is not None:
            if (last > self.activation) if self.is_buy else (last < self.activation):
                return
            self.activation = None
        distance = last * self.callback_rate / HUNDRED
        if self.is_buy:
            level = round_up(last + distance, tick_size)
            self.level = level if self.level is None else min(level, self.level)
        else:
            level = round_down(last - distance, tick_size)
            self.level = level if self.level is None else max(level, self.level)

    def is_hit(self, last: Decimal) -> bool:
        """Tell whether the last price triggers it."""
        level = self.trigger if self.callback_rate is None else self.level
        if level is None:
            return False
        is_target = self.word.startswith("TAKE_PROFIT")
        return last >= level if self.is_buy is not is_target else last <= level


class BinanceState(VenueState):
    """Orders, with what Binance says of them; *word_of* names the type of one that came past the protocol."""

    core: BinanceCore

    def __init__(self, core: BinanceCore, word_of: Callable[[OrderRequest], str]) -> None:
        super().__init__(core)
        self._word_of = word_of
        self.notes_of: dict[str, Notes] = {}
        """By the core's order id."""
        self.lists: dict[int, ListRecord] = {}
        self.algos: dict[int, Algo] = {}
        """Conditional orders on futures."""

    def notes(self, order: VenueOrder) -> Notes:
        """Return what is known of an order beyond the core; made up for one that came past the protocol."""
        found = self.notes_of.get(order.venue_order_id)
        if found is None:
            found = self.notes_of[order.venue_order_id] = Notes(
                word=self._word_of(order.request),
                time_in_force=tif_word(order.request),
                created_at=order.updated_at,
            )
        return found


def tif_word(request: OrderRequest) -> str:
    """Return what Binance calls a time in force; it has no DAY."""
    return {TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK", TimeInForce.GTD: "GTD"}.get(
        request.time_in_force, "GTC"
    )


def status_word(order: VenueOrder, notes: Notes) -> str:
    """Return an order's status in Binance's word."""
    if notes.status is not None:
        return notes.status
    if order.status is OrderState.CANCELLED and order.reason:
        # Without a reason somebody cancelled it; with one the venue ended it.
        return "EXPIRED"
    return STATUS[order.status]


def reported_status(report: OrderReport, order: VenueOrder, notes: Notes) -> str:
    """Return the status that an order had when it was reported; by now it may have another."""
    if order.status is report.status and order.filled == report.filled:
        return status_word(order, notes)
    return STATUS[report.status]

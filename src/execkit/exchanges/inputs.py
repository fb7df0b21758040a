"""Everything that can change a simulated venue, as values: what a ledger keeps and replays."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from execkit.errors import ExchangeError
from execkit.exchanges.matching import MatchingCore
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Trade
from execkit.model.order import OrderList, OrderRequest, OrderUpdate


class _Input(msgspec.Struct, frozen=True, tag_field="do"):
    """Base of all inputs."""


class Place(_Input, frozen=True, tag="place"):
    """An order arrives."""

    request: OrderRequest
    at: datetime

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.place(self.request, self.at)


class PlaceList(_Input, frozen=True, tag="place_list"):
    """Orders that depend on each other arrive."""

    orders: OrderList
    at: datetime

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.place_list(self.orders, self.at)


class Cancel(_Input, frozen=True, tag="cancel"):
    """A cancel arrives."""

    symbol: str
    client_order_id: str
    at: datetime
    venue_order_id: str | None = None

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.cancel(
            self.symbol, self.client_order_id, self.at, venue_order_id=self.venue_order_id
        )


class Amend(_Input, frozen=True, tag="amend"):
    """A change of a resting order arrives."""

    symbol: str
    client_order_id: str
    at: datetime
    venue_order_id: str | None = None
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.amend(
            self.symbol,
            self.client_order_id,
            self.at,
            venue_order_id=self.venue_order_id,
            quantity=self.quantity,
            limit_price=self.limit_price,
            stop_price=self.stop_price,
        )


class FeedBar(_Input, frozen=True, tag="bar"):
    """A bar has finished."""

    bar: BarData

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.on_bar(self.bar)


class FeedQuote(_Input, frozen=True, tag="quote"):
    """The market shows a new quote."""

    quote: Quote

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.on_quote(self.quote)


class FeedTrade(_Input, frozen=True, tag="trade"):
    """The market has traded."""

    trade: Trade

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.on_trade(self.trade)


class AdvanceTime(_Input, frozen=True, tag="time"):
    """Orders reach the end of their time in force."""

    at: datetime

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        return core.on_time(self.at)


class ListSymbol(_Input, frozen=True, tag="list"):
    """A symbol becomes tradeable, or its rules change."""

    instrument: Instrument

    def apply(self, core: MatchingCore) -> list[OrderUpdate]:
        """Change *core*; return what became of its orders."""
        core.add_instrument(self.instrument)
        return []


Input = (
    Place | PlaceList | Cancel | Amend | FeedBar | FeedQuote | FeedTrade | AdvanceTime | ListSymbol
)


def replay(core: MatchingCore, step: Input) -> None:
    """Apply an input once more; one that was refused is refused again, which is no error now."""
    try:
        step.apply(core)
    except ExchangeError:
        return

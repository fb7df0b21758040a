"""The contract between execkit and a venue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Self

import msgspec

from execkit.errors import UnsupportedFeatureError
from execkit.ids import is_ours
from execkit.model.account import Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import Fill, OrderList, OrderReport, OrderRequest, OrderUpdate


class MarketPhase(StrEnum):
    """Part of a market's day."""

    REGULAR = "regular"
    PRE = "pre"
    """Before the regular session; takes orders that allow extended hours."""
    AFTER = "after"
    """After the regular session; takes orders that allow extended hours."""
    CLOSED = "closed"
    HALTED = "halted"


class MarketStatus(msgspec.Struct, frozen=True):
    """Whether a market takes orders now, and when it opens next if not.

    *is_open* speaks of the regular session; *phase* is refined to match when it is not given.
    """

    is_open: bool
    next_open: datetime | None = None
    reason: str = ""
    phase: MarketPhase | None = None
    next_close: datetime | None = None
    """End of the regular session that is open now, or of the next one."""

    def __post_init__(self) -> None:
        if self.phase is None:
            phase = MarketPhase.REGULAR if self.is_open else MarketPhase.CLOSED
            msgspec.structs.force_setattr(self, "phase", phase)


class ExchangeAdapter(ABC):
    """One account at one venue.

    ======================  ========  ==========================================================
    method                  required  when it fails
    ======================  ========  ==========================================================
    `place_order`           yes       see below; *only* the gateway calls it
    `cancel_order`          yes       `OrderNotFoundError`: it may have been filled
    `get_order`             yes       `OrderNotFoundError` only when the venue said so
    `open_orders`           yes       raise; an error is never an empty list
    `fills_since`           yes       raise; an error is never an empty list
    `balances`              yes       raise
    `positions`             yes       raise; an error is never "flat"
    `ticker`                yes       raise
    `instrument`            yes       `InvalidOrderError` for an unknown symbol
    `capabilities`          yes       -
    `amend_order`           no        `UnsupportedFeatureError`
    `reserve`               no        never; default: nothing is reserved
    `place_list`            no        like `place_order`; *only* the gateway calls it
    `order_updates`         no        end or raise: the engine reconnects and resyncs
    `watch_quotes`          no        end or raise: the engine falls back to `ticker`
    `watch_trades`          no        end or raise
    `watch_bars`            no        end or raise
    `bars`                  no        raise; an error is never an empty list
    `market_status`         no        default: open
    `dead_man`              no        raise: the engine tries again
    `connect`, `close`      no        default: nothing
    `connect_data`          no        default: `connect`
    ======================  ========  ==========================================================

    What `place_order` raises decides whether money is at risk, so it must be exact:

    - `NotSentError` only when not one byte left;
    - `OrderRejectedError` and its kinds, `RateLimitError`, `AuthenticationError` only when the venue
      definitely refused;
    - everything else (time-out, lost connection, 5xx, an answer that cannot be parsed or names another
      order) is `OrderStatusUnknownError`. An adapter may let such errors pass as they are: the gateway
      treats every unknown exception as unknown.

    An adapter never repeats a request by itself, and every call ends within a time limit.
    """

    name: str = "exchange"
    """Short name; part of the account id and of messages."""

    rules_version: int = 0
    """Counts up when the rules of a symbol were found changed, so that those who keep them ask `instrument` again."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the venue can do."""

    @property
    def account(self) -> str:
        """Identifies the account; client order ids and the journal are bound to it. No secret."""
        return self.name

    async def connect(self) -> None:
        """Open connections and load instruments. Called once, before anything else."""

    async def connect_data(self) -> None:
        """Open only what public market data needs, without a key: instruments, quotes, trades and bars.

        Called instead of `connect` where the venue merely tells prices, as in paper trading.
        """
        await self.connect()

    async def close(self) -> None:
        """Close everything; safe to call twice."""

    def use_storage(self, path: Path) -> None:
        """Offer a path for state that the adapter itself must keep; called before `connect`.

        Real venues keep their own state and ignore it.
        """

    @abstractmethod
    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol."""

    def reserve(self, request: OrderRequest, earlier: str = "") -> str:
        """Return the venue's own number under which *request* will be sent; "" where the venue gives it itself.

        The gateway journals it before the first send, and hands it back as *earlier* before each further one, so that
        the venue takes a repetition for the same order also after a restart. It sends nothing.
        """
        return ""

    @abstractmethod
    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Send one order, once."""

    @abstractmethod
    async def cancel_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Ask to cancel one order; the venue's own id is used where it is known."""

    async def amend_order(
        self,
        symbol: str,
        *,
        client_order_id: str,
        venue_order_id: str | None = None,
        quantity: Decimal | None = None,
        limit_price: Decimal | None = None,
        stop_price: Decimal | None = None,
    ) -> OrderReport:
        """Change a resting order in place; None leaves a value as it is."""
        raise UnsupportedFeatureError(
            f"{self.name} cannot amend orders; cancel and place a new one"
        )

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Send several orders as one that the venue keeps together, once; one report each, in their order.

        It raises only when none of them was taken for certain (see `place_order`) or nothing is known of any;
        otherwise each leg's report says what is known of it, IN_DOUBT included.
        """
        raise UnsupportedFeatureError(f"{self.name} has no lists of orders")

    @abstractmethod
    async def get_order(
        self, symbol: str, *, client_order_id: str, venue_order_id: str | None = None
    ) -> OrderReport:
        """Return one order, open or closed, with its fills where the venue gives them."""

    @abstractmethod
    async def open_orders(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Return every open order of the account, also those that are not ours."""

    @abstractmethod
    async def fills_since(self, since: datetime, symbol: str | None = None) -> Sequence[Fill]:
        """Return the executions at or after *since*, oldest first."""

    @abstractmethod
    async def balances(self) -> dict[str, Balance]:
        """Return all holdings by asset."""

    @abstractmethod
    async def positions(self) -> Sequence[VenuePosition]:
        """Return all net positions; on a spot venue the holdings of base assets."""

    @abstractmethod
    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote."""

    async def market_status(self, symbol: str) -> MarketStatus:
        """Tell whether the market of a symbol takes orders now."""
        return MarketStatus(is_open=True)

    async def dead_man(self, symbol: str, within: timedelta | None) -> None:
        """Have the venue cancel every order of a symbol unless this is called again *within* so long; None: never.

        Only where `Capabilities.dead_man` says so. Each call replaces the one before.
        """
        raise UnsupportedFeatureError(f"{self.name} has no dead man's switch")

    async def cancel_all(self, symbol: str | None = None) -> Sequence[OrderReport]:
        """Cancel every open order of ours, one by one; orders of others are left alone."""
        return [
            await self.cancel_order(
                order.symbol,
                client_order_id=order.client_order_id,
                venue_order_id=order.venue_order_id,
            )
            for order in await self.open_orders(symbol)
            if is_ours(order.client_order_id)
        ]

    def order_updates(self) -> AsyncIterator[OrderUpdate]:
        """Yield order reports and fills as they happen.

        The subscription starts with the call, before the first item is awaited, so nothing between is lost.
        """
        raise UnsupportedFeatureError(f"{self.name} has no order-update stream")

    def watch_quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield quotes of the symbols as they change."""
        raise UnsupportedFeatureError(f"{self.name} has no quote stream")

    def watch_trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield public trades of the symbols as they happen."""
        raise UnsupportedFeatureError(f"{self.name} has no trade stream")

    def watch_bars(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield bars of the symbols when they are finished, never before; each names its end, exclusive.

        A bar that comes a second time is a late correction.
        """
        raise UnsupportedFeatureError(f"{self.name} has no bar stream")

    async def bars(
        self, symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime | None = None
    ) -> Sequence[BarData]:
        """Return the finished bars that close after *since* and not after *until*, oldest first."""
        raise UnsupportedFeatureError(f"{self.name} has no history of bars")

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(account={self.account!r})"

"""Trading without a venue: orders are matched against live or recorded prices, and the account survives restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import msgspec
import structlog

from execkit.clock import Clock
from execkit.errors import (
    ConfigurationError,
    ExchangeError,
    JournalCorruptedError,
    NotSentError,
    UnsupportedFeatureError,
)
from execkit.exchanges.base import ExchangeAdapter, MarketStatus
from execkit.exchanges.factory import ExchangeFactory
from execkit.exchanges.inputs import Input, ListSymbol, replay
from execkit.exchanges.matching import MatchingCore
from execkit.exchanges.paper_feed import PaperFeed
from execkit.exchanges.paper_ledger import Durability, PaperLedger
from execkit.exchanges.simulated import FEE, SimulatedExchange
from execkit.exchanges.snapshots import restore, snapshot
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import OrderList, OrderReport, OrderRequest
from execkit.numbers import ZERO, plain

log = structlog.get_logger("execkit")


class PaperExchange(SimulatedExchange):
    """The default venue of a fresh install; `SimulatedExchange` lists the arguments it shares with the mock.

    Feed it with `feed_bar`, `feed_quote` or `feed_trade`. A market order is executed at once where a price is
    live; after a bar it waits for the next one. The fill model is in `execkit.exchanges.fills`.

    With *storage* (or the path that the engine offers) the account is kept in a file of its own, mode 0600, and is
    loaded by `connect`: what the file says wins over *balances*, and *prices* only fill in what has no price yet.
    *durability* `process` survives kill -9, `power` syncs the disk with each order and each price.

    With *feed*, the adapter of a real venue or its name (and then *feed_options*), prices, rules, bars and the market's
    hours are those of that venue, live. Only its public data is used: nothing is ordered there and no key is needed.
    """

    def __init__(
        self,
        *,
        balances: Mapping[str, Decimal],
        prices: Mapping[str, Decimal] | None = None,
        instruments: Iterable[Instrument] | None = None,
        spread_bps: Decimal = ZERO,
        maker_fee: Decimal = FEE,
        taker_fee: Decimal = FEE,
        allow_short: bool = False,
        clock: Clock | None = None,
        name: str = "paper",
        account: str | None = None,
        native_oco: bool = False,
        storage: Path | str | None = None,
        durability: Durability = "process",
        feed: ExchangeAdapter | str | None = None,
        feed_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            balances=balances,
            prices=prices,
            instruments=instruments,
            spread_bps=spread_bps,
            maker_fee=maker_fee,
            taker_fee=taker_fee,
            allow_short=allow_short,
            clock=clock,
            name=name,
            account=account,
            native_oco=native_oco,
        )
        if durability not in ("process", "power"):
            raise ConfigurationError(f"durability: {durability!r} is neither 'process' nor 'power'")
        self._storage = None if storage is None else Path(storage)
        self._durability: Durability = durability
        self._ledger: PaperLedger | None = None
        self._feed: PaperFeed | None = None
        self._changed_rules = 0
        if isinstance(feed, str):
            feed = ExchangeFactory().create_feed(feed, **(feed_options or {}))
        elif feed_options:
            raise ConfigurationError(
                "feed_options: they belong to a feed that is given by its name"
            )
        if feed is not None:
            if not isinstance(feed, ExchangeAdapter):
                raise ConfigurationError(
                    f"feed: {feed!r} is neither an ExchangeAdapter nor the name of one"
                )
            self._feed = PaperFeed(feed, self.feed_quote, self.clock)

    def __repr__(self) -> str:
        if self._feed is None:
            return super().__repr__()
        source = self._feed.source
        where = getattr(source, "environment", None)
        prices = f"{source.name} ({where})" if where else source.name
        return f"PaperExchange(account={self.account!r}, prices of {prices})"

    @property
    def capabilities(self) -> Capabilities:
        """What the matching core can, and the market data of the feed."""
        if self._feed is None:
            return self._capabilities
        of_feed = self._feed.source.capabilities
        return attrs.evolve(
            self._capabilities,
            trade_stream=of_feed.trade_stream,
            bar_stream=of_feed.bar_stream,
            bar_history=of_feed.bar_history,
            always_open=of_feed.always_open,
            extended_hours=False,
        )

    def use_storage(self, path: Path) -> None:
        """Keep the account in *path*, unless the constructor named a file."""
        if self._ledger is not None:
            raise ConfigurationError(
                "storage: the paper exchange is connected; set it before connect()"
            )
        self._storage = self._storage or path

    async def connect(self) -> None:
        """Load the account from its file, take the sole right to write it, and open the feed."""
        await super().connect()
        self._load()
        if self._feed is not None:
            await self._feed.start()
            for symbol in dict.fromkeys(
                (*self.core.open, *(p.symbol for p in self.core.positions()))
            ):
                await self._list(self._feed, symbol)

    def _load(self) -> None:
        if self._storage is None or self._ledger is not None:
            return
        ledger = PaperLedger(self._storage, account=self.account, durability=self._durability)
        try:
            kept = ledger.load()
            if kept is not None:
                self.core = self._resumed(ledger.path, *kept)
            ledger.compact(snapshot(self.core))
        except BaseException:
            ledger.close()
            raise
        self._ledger = ledger

    def _resumed(self, path: Path, state: bytes, steps: list[Input]) -> MatchingCore:
        """Return the account as the file has it, under the settings of this object from now on."""
        settings = self.core
        try:
            core = restore(state)
        except (msgspec.DecodeError, KeyError) as error:
            raise JournalCorruptedError(f"{path}, line 2: {error}") from error
        for step in steps:
            replay(core, step)
        core.spread_bps = settings.spread_bps
        core.set_allow_short(allow=settings.account.allow_short)
        for instrument in self._instruments.values():
            core.add_instrument(instrument)
        for symbol, price in self._prices.items():
            if symbol not in core.books:
                core.set_price(symbol, price)
        log.debug(
            "paper.ledger_resumed",
            path=str(path),
            inputs=len(steps),
            balances={asset: plain(total) for asset, total in core.account.totals.items()},
        )
        return core

    async def close(self) -> None:
        """End all streams, the feed too, and give up the file."""
        if self._feed is not None:
            await self._feed.stop()
        await super().close()
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _do(self, step: Input) -> None:
        # Written before it is answered: an order that nobody heard of must never have been accepted.
        if self._ledger is not None:
            self._ledger.append(step)
        elif self._storage is not None:
            raise ConfigurationError(
                f"storage: {self._storage} is not open; call connect() or use `async with` first"
            )
        super()._do(step)
        if self._ledger is not None and self._ledger.is_large:
            try:
                self._ledger.compact(snapshot(self.core))
            except OSError as error:
                # The old file stands and goes on growing; nothing is lost but room.
                log.warning("paper.compacting_failed", path=str(self._storage), error=str(error))

    # --- live prices ------------------------------------------------------------------------------

    @property
    def rules_version(self) -> int:  # type: ignore[override] # only read from outside
        """Counts up when rules of the feed's venue were found changed, here or there."""
        return self._changed_rules + (0 if self._feed is None else self._feed.source.rules_version)

    async def instrument(self, symbol: str) -> Instrument:
        """Return the rules of a symbol; those of the feed's venue, as they are now, where there is one."""
        if self._feed is not None:
            await self._list(self._feed, symbol)
        return await super().instrument(symbol)

    async def _list(self, feed: PaperFeed, symbol: str) -> None:
        if feed.rules(symbol) is None:
            rules = await feed.fetch_rules(symbol)
            if not rules.maker_fee and not rules.taker_fee:
                # A venue that does not tell its fees is not one without fees.
                rules = attrs.evolve(rules, maker_fee=self._maker_fee, taker_fee=self._taker_fee)
            known = self.core.instruments.get(symbol)
            if known != rules:
                self._do(ListSymbol(rules))
                self._changed_rules += known is not None
        await feed.follow(symbol)

    async def place_order(self, request: OrderRequest) -> OrderReport:
        """Take one order; what a live price allows is executed before the answer."""
        await self._refresh(request.symbol)
        return await super().place_order(request)

    async def place_list(self, orders: OrderList) -> Sequence[OrderReport]:
        """Take several orders that depend on each other, for all or none."""
        await self._refresh(orders.orders[0].symbol)
        return await super().place_list(orders)

    async def _refresh(self, symbol: str) -> None:
        if self._feed is None:
            return
        try:
            await self._list(self._feed, symbol)
            await self._feed.fresh(symbol)
        except (ExchangeError, TimeoutError, OSError) as error:
            raise NotSentError(f"{symbol} has no live price: {error}") from error

    async def ticker(self, symbol: str) -> Quote:
        """Return the current quote; of a feed's with the time it has there."""
        if self._feed is None:
            return await super().ticker(symbol)
        return await self._feed.fresh(symbol)

    async def market_status(self, symbol: str) -> MarketStatus:
        """Tell whether the market takes orders, here and at the feed's venue."""
        here = await super().market_status(symbol)
        if self._feed is None or symbol in self.core.halted:
            return here
        there = await self._feed.source.market_status(symbol)
        if there.is_open and not here.is_open:
            await self._list(self._feed, symbol)  # it did not trade when its rules were asked for
        return there

    def watch_trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield public trades of the feed's venue."""
        return self._data.watch_trades(symbols)

    def watch_bars(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield finished bars of the feed's venue."""
        return self._data.watch_bars(symbols, timeframe)

    async def bars(
        self, symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime | None = None
    ) -> Sequence[BarData]:
        """Return finished bars of the feed's venue."""
        return await self._data.bars(symbol, timeframe, since=since, until=until)

    @property
    def _data(self) -> ExchangeAdapter:
        if self._feed is None:
            raise UnsupportedFeatureError(
                f"{self.name} has no market data of its own; give it a feed"
            )
        return self._feed.source

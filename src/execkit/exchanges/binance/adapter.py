"""Binance: spot and USD-M futures. ccxt signs, names endpoints and carries streams; every answer is read here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from execkit.errors import ExchangeUnavailableError
from execkit.exchanges.base import MarketStatus
from execkit.exchanges.binance import account
from execkit.exchanges.binance.core import NO_ZEROS
from execkit.exchanges.binance.data import first_open, read_bar, read_ticker
from execkit.exchanges.binance.orders import BinanceOrders
from execkit.exchanges.ccxt.values import BadAnswerError, mapping, milliseconds
from execkit.model.account import Balance, VenuePosition
from execkit.model.market import BarData, Quote, Timeframe, Trade

_MOST_BARS: Final = 1000
_STATUS_LASTS: Final = 10.0


class BinanceAdapter(BinanceOrders):
    """One account at Binance, spot or USD-M futures.

    Args:
        api_key: Key; by default `BINANCE_API_KEY` of the environment.
        secret: Its secret; by default `BINANCE_API_SECRET`.
        market: `spot`, or `usdm` for perpetual futures with USDT or USDC as margin.
        sandbox: `testnet`, `demo`, or True for the one that the market has; the default unless *live* is set.
        live: Real money; has to be spelled out.
        data_only: For prices only: no key is read or kept, nothing can be ordered, and where no sandbox is named
            the prices are the live venue's.
        rest_url: Another server, e.g. a proxy or a venue on this machine; scheme and host only.
        stream_url: The same for the WebSockets.
        own_proxy: Both addresses are a proxy of yours that leads to the sandbox; this machine's need no word.
        symbols: Markets whose executions are fetched although nothing of them is held or open; a held asset is shown
            in its market among them.
        timeout: Limit of one request.
        absence_window: How long after a send Binance may not show an order that it has.
        max_clock_skew: Difference of the clocks from which `connect` refuses.
        clock, rng: Injected time and chance.
        account: Name of the account, where the journal is to outlive a change of keys.
        options: Options of ccxt.

    Sources: Binance's documents of the spot and USD-M futures APIs.
    """

    # -- the account -------------------------------------------------------------------------------------

    async def balances(self) -> dict[str, Balance]:
        """Return all holdings; on futures as if open positions had been paid for (see `futures_balances`)."""

        async def load() -> dict[str, Balance]:
            if self._spot:
                return account.spot_balances(await self._api.private("account", NO_ZEROS))
            body = await self._api.private("account", version="3")
            return account.futures_balances(body, await self._positions())

        found = await self._ask(load())
        if self._spot:
            self._hold(found)
        return found

    async def positions(self) -> Sequence[VenuePosition]:
        """Return net positions; on spot each held asset that is no money, in one of its markets."""
        if not self._spot:
            return await self._ask(self._positions())
        balances = await self.balances()
        return [
            VenuePosition(symbol, balances[self._book[symbol].instrument.base].total)
            for symbol in self._symbols_held()
        ]

    async def _positions(self) -> list[VenuePosition]:
        answer = await self._api.private("positionRisk", version="3")
        found = []
        for market_id, quantity, price in account.net_positions(answer):
            if market_id in self._symbols:
                found.append(VenuePosition(self._symbols[market_id], quantity, price))
            else:
                self._outside.tell(market_id, "position")
        return found

    async def dead_man(self, symbol: str, within: timedelta | None) -> None:
        """Start or end the countdown after which Binance cancels every order of a symbol; futures only.

        It spares no order, also not those of others. Conditional orders have a service of their own, so do not count on
        a stop surviving it, nor on its end.
        """
        if self._spot:
            await super().dead_man(symbol, within)
        countdown = 0 if within is None else within // timedelta(milliseconds=1)
        params = {"symbol": self._market(symbol).id, "countdownTime": str(countdown)}
        await self._ask(self._api.private("countdownCancelAll", params, method="POST"))

    # -- the market --------------------------------------------------------------------------------------

    async def ticker(self, symbol: str) -> Quote:
        """Return the best bid and ask; Binance states no time for them, so it is ours."""
        market_id = self._market(symbol).id

        async def load() -> Quote | None:
            body = mapping(await self._api.public("ticker/bookTicker", {"symbol": market_id}))
            return read_ticker(body, self._symbol_of, self.clock.now())

        quote = await self._ask(load())
        if quote is None:
            raise ExchangeUnavailableError(
                f"binance: {symbol} has no bid or no ask now", venue="binance"
            )
        self._quotes[symbol] = quote
        return quote

    async def market_status(self, symbol: str) -> MarketStatus:
        """Tell whether a symbol is open for trading; it and its rules are asked for anew after ten seconds."""
        market_id = self._market(symbol).id
        now = asyncio.get_running_loop().time()
        known = self._status.get(market_id)
        is_old = known is not None and now - known[0] > _STATUS_LASTS
        if known is None or (is_old and not self._weight.left()):
            await self._renew(market_id)
        is_open = self._status[market_id][1]
        return MarketStatus(is_open=is_open, reason="" if is_open else f"{symbol} is halted")

    def watch_quotes(self, symbols: Sequence[str]) -> AsyncIterator[Quote]:
        """Yield best bids and asks as they change."""
        return self._noted(self._feeds.quotes(self._ids(symbols), self._symbol_of))

    async def _noted(self, quotes: AsyncIterator[Quote]) -> AsyncIterator[Quote]:
        async for quote in quotes:
            self._quotes[quote.symbol] = quote
            yield quote

    def watch_trades(self, symbols: Sequence[str]) -> AsyncIterator[Trade]:
        """Yield public trades."""
        return self._feeds.trades(self._ids(symbols), self._symbol_of)

    def watch_bars(self, symbols: Sequence[str], timeframe: Timeframe) -> AsyncIterator[BarData]:
        """Yield bars when Binance marks them as closed."""
        return self._feeds.bars(self._ids(symbols), timeframe, self._symbol_of)

    def _ids(self, symbols: Sequence[str]) -> list[str]:
        return [self._market(symbol).id for symbol in symbols]

    async def bars(
        self, symbol: str, timeframe: Timeframe, *, since: datetime, until: datetime | None = None
    ) -> Sequence[BarData]:
        """Return finished bars, fetched a thousand at a time."""
        market_id = self._market(symbol).id
        end = min(self.clock.now() if until is None else until, self.clock.now())
        found: list[BarData] = []
        start = first_open(since, timeframe)
        while start <= milliseconds(end):
            params = {
                "symbol": market_id,
                "interval": timeframe.value,
                "startTime": start,
                "limit": _MOST_BARS,
            }

            async def load(params: dict[str, Any] = params) -> list[BarData]:
                page = await self._api.public("klines", params)
                if not isinstance(page, list):
                    raise BadAnswerError("the bars are no list")
                return [read_bar(row, symbol, timeframe) for row in page]

            page = await self._ask(load())
            found += page
            if len(page) < _MOST_BARS:
                break
            start = milliseconds(page[-1].close_time)
        return [bar for bar in found if since < bar.close_time <= end]


BinanceCCXTAdapter = BinanceAdapter

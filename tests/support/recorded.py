"""A venue whose market data is recorded: bars come when they close, and its history has what has closed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import attrs

from execkit.exchanges.paper import PaperExchange

_INSTANT = timedelta(microseconds=1)


class RecordedVenue(PaperExchange):
    """A paper exchange on recorded bars of one timeframe, played by a virtual clock.

    *delay* is how long after its close a bar comes. With *trades* it streams those instead, each at its own time.
    """

    def __init__(self, clock, bars=(), *, trades=(), delay=0.0, executes=False, **options):
        super().__init__(balances=options.pop("balances", {"USDT": 10_000}), clock=clock, **options)
        self.recorded = list(bars)
        self.trades = list(trades)
        self.delay = timedelta(seconds=delay)
        self.executes = executes
        self.breaks_at = []
        self.asked = 0
        self.live = asyncio.Event()

    @property
    def capabilities(self):
        return attrs.evolve(
            self._capabilities,
            bar_stream=not self.trades,
            trade_stream=bool(self.trades),
            bar_history=True,
        )

    async def watch_bars(self, symbols, timeframe):
        self.live.set()
        opened = self.clock.now()
        for bar in self.recorded:
            if bar.close_time <= opened - self.delay or bar.symbol not in symbols:
                continue
            if self.executes:
                await self.clock.sleep_until(bar.close_time - _INSTANT)
                self.feed_bar(bar)
            await self.clock.sleep_until(bar.close_time + self.delay)
            if self.breaks_at and self.clock.now() >= self.breaks_at[0]:
                self.breaks_at.pop(0)
                raise ConnectionError("the stream broke")
            yield bar
        await asyncio.Event().wait()

    async def watch_trades(self, symbols):
        opened = self.clock.now()
        for trade in self.trades:
            if trade.at < opened:
                continue
            await self.clock.sleep_until(trade.at + self.delay)
            if self.breaks_at and self.clock.now() >= self.breaks_at[0]:
                self.breaks_at.pop(0)
                raise ConnectionError("the stream broke")
            yield trade
        await asyncio.Event().wait()

    async def bars(self, symbol, timeframe, *, since, until=None):
        self.asked += 1
        now = self.clock.now()
        return [
            bar
            for bar in self.recorded
            if (bar.symbol, bar.timeframe) == (symbol, timeframe) and since < bar.close_time <= now
        ]

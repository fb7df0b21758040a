"""Watches prices for open positions: takes them out at their targets, part by part, and moves stops after the price."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from execkit.bars.cache import BarHistory
from execkit.functions.measures import atr_growth
from execkit.market import MarketHours
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe
from execkit.model.order import OrderRole
from execkit.model.position import Position
from execkit.model.records import StopMoved
from execkit.numbers import plain
from execkit.orders.recorder import Recorder
from execkit.protection.closing import Closer
from execkit.protection.leaving import TargetTaker
from execkit.protection.plan import Plan, Step, stop_types
from execkit.protection.policy import ProtectionPolicy, moved_stop, widened_stop
from execkit.protection.prices import Range, Touch, is_left_behind

_HELD_HERE: Final = "the price has come to the stop that is held here"


class PriceWatcher:
    """The keeper's eyes.

    *turn_of* gives the turn of an exit, *check* has a symbol's protection brought in line, *stop_out* closes its
    position for a reason in place of a stop at a level, and *report* gets each task that has ended. A target is held
    here and not at the venue, because on most venues a stop and a target cannot both rest; a stop only where the venue
    takes none.
    """

    def __init__(
        self,
        recorder: Recorder,
        closer: Closer,
        policy: ProtectionPolicy,
        instrument_of: Callable[[str], Awaitable[Instrument]],
        market: MarketHours,
        *,
        turn_of: Callable[[str], AbstractAsyncContextManager[None]],
        check: Callable[[str], None],
        stop_out: Callable[[str, str, Decimal | None], Awaitable[bool]],
        report: Callable[[str, asyncio.Task[None]], None],
    ) -> None:
        self._recorder = recorder
        self._book = recorder.book
        self._policy = policy
        self._instrument_of = instrument_of
        self._market = market
        self._check = check
        self._taker = TargetTaker(closer, turn_of=turn_of, check=check)
        self._stop_out = stop_out
        self._capabilities = closer.gateway.adapter.capabilities
        self._report = report
        self._rules: dict[str, Instrument] = {}
        self._stopped = False
        self.bars_of: Callable[[str, Timeframe], BarHistory] = lambda _symbol, _frame: BarHistory()
        """Finished bars, for a policy that looks at them; set by who has them."""
        self._grown: dict[str, tuple[tuple[str, datetime], Decimal | None]] = {}
        """Growth of the ATR since the entry, by symbol, with the position and the bar that it is of."""
        self.tasks: dict[str, asyncio.Task[None]] = {}
        """What is under way, by symbol."""
        self._waiting: dict[str, dict[type, Quote | BarData]] = {}
        self._stopped_out: dict[str, str] = {}
        """Positions whose held stop was reached, by symbol."""

    def stop(self) -> None:
        """Look no more; what is under way goes on until it is cancelled."""
        self._stopped = True

    def on_quote(self, quote: Quote) -> None:
        """Look whether the price at which a position would be closed asks for something."""
        symbol = quote.symbol
        position = self._book.positions.open.get(symbol)
        if position is None or self._stopped or self._is_busy(symbol, quote):
            return
        price = quote.bid if position.is_long else quote.ask
        rules = self._rules.get(symbol)
        if rules is None or self._is_news(position, Range(price, price, price), rules):
            self._begin(symbol, self.on_price(symbol, price, price))

    def on_bar(self, bar: BarData) -> None:
        """Look at the prices of a finished bar beside everything else, so that no market waits for another's exit."""
        symbol = bar.symbol
        if self._stopped or self._book.position(symbol) is None or self._is_busy(symbol, bar):
            return
        look = self.on_price(symbol, bar.low, bar.high, bar.close, since=bar.open_time)
        self._begin(symbol, look)

    def _is_busy(self, symbol: str, news: Quote | BarData) -> bool:
        """Tell whether something is under way for a symbol; then the newest quote and bar are looked at after it."""
        if symbol not in self.tasks:
            return False
        self._waiting.setdefault(symbol, {})[type(news)] = news
        return True

    def _begin(self, symbol: str, look: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(look)
        self.tasks[symbol] = task
        task.add_done_callback(lambda done: self._done(symbol, done))

    def _is_news(self, position: Position, prices: Range, rules: Instrument) -> bool:
        return (
            self._taker.due(position, prices, rules) is not None
            or self._moved(position, prices.last, rules) is not None
            or self._is_left_behind(position)
            or self._is_stopped_out(position, prices)
        )

    def _is_left_behind(self, position: Position) -> bool:
        touch = Touch.of(self._book, position.symbol)
        orders = self._book.orders.open_reductions(position.symbol)
        stops = (order for order in orders if order.role is OrderRole.STOP)
        return touch is not None and any(is_left_behind(position, each, touch) for each in stops)

    def _is_stopped_out(self, position: Position, prices: Range) -> bool:
        if stop_types(self._capabilities, self._rules.get(position.symbol)):
            return False
        return prices.reaches_stop(position)

    def stopped_out(self, plan: Plan, position: Position | None) -> Plan:
        """Return what to do instead of holding a stop here that the price had come to, wherever the price is by now."""
        if plan.step is not Step.HOLD or position is None:
            return plan
        if self._stopped_out.get(position.symbol) != position.position_id:
            return plan
        return Plan(
            Step.FLATTEN, quantity=plan.quantity, stop_price=plan.stop_price, reason=_HELD_HERE
        )

    def _done(self, symbol: str, task: asyncio.Task[None]) -> None:
        self.tasks.pop(symbol, None)
        self._report(symbol, task)
        for news in self._waiting.pop(symbol, {}).values():
            if isinstance(news, Quote):
                self.on_quote(news)
            else:
                self.on_bar(news)

    async def on_price(
        self,
        symbol: str,
        low: Decimal,
        high: Decimal,
        last: Decimal | None = None,
        *,
        since: datetime | None = None,
    ) -> None:
        """Act on a price range: close what a target asks for, then let the stop follow *last*, its end.

        The extremes of a bar came in an order that nobody knows, so the stop follows only where the price is now. Those
        of a range that began, *since*, before a level was set may be from then; see `Range`. While the market is
        closed nothing is done: its quotes are nobody's offers, and nothing that would follow could be executed.
        """
        position = self._book.position(symbol)
        if position is None:
            return
        rules = self._rules.get(symbol)
        if rules is None:
            rules = self._rules[symbol] = await self._instrument_of(symbol)
        if last is None:
            last = low if position.is_long else high
        prices = Range(low, high, last, since)
        if not self._is_news(position, prices, rules) or not await self._is_open(symbol):
            return
        position = self._book.position(symbol)
        if position is None:
            return  # it was closed meanwhile
        if self._is_stopped_out(position, prices):
            self._stopped_out[symbol] = position.position_id
            # Before a target: which of the two a bar has touched first nobody knows.
            await self._stop_out(symbol, _HELD_HERE, position.stop_loss)
            return
        if self._is_left_behind(position):
            self._check(symbol)
        if self._taker.due(position, prices, rules) is not None:
            await self._taker.take(symbol, prices, rules)
        position = self._book.position(symbol)
        if position is not None:
            self._follow(position, last, rules)

    async def _is_open(self, symbol: str) -> bool:
        status = await self._market.status(symbol)
        return status is None or status.is_open

    def _follow(self, position: Position, price: Decimal, rules: Instrument) -> None:
        moved = self._moved(position, price, rules)
        if moved is None:
            return
        stop, reason = moved
        self._recorder.record(
            StopMoved(
                symbol=position.symbol,
                position_id=position.position_id,
                stop_loss=stop,
                take_profit=position.take_profit,
                reason=reason,
            )
        )

    def _moved(
        self, position: Position, price: Decimal, rules: Instrument
    ) -> tuple[Decimal, str] | None:
        """Return where the stop goes, and why; None: it stays."""
        policy = self._policy
        stop = moved_stop(policy, position, price, rules)
        if stop is not None:
            return stop, f"the price has come to {plain(price)}"
        if policy.widen_on_atr is None or position.stop_loss != position.initial_stop:
            return None
        growth = self._growth(position, policy.widen_on_atr)
        stop = widened_stop(policy, position, price, growth, rules)
        return None if stop is None else (stop, "the ATR is twice that at the entry")

    def _growth(self, position: Position, timeframe: Timeframe) -> Decimal | None:
        """Return how the ATR has grown since the entry, reckoned once a bar."""
        history = self.bars_of(position.symbol, timeframe)
        if not history:
            return None
        key = (position.position_id, history[-1].close_time)
        known = self._grown.get(position.symbol)
        if known is None or known[0] != key:
            known = self._grown[position.symbol] = key, atr_growth(history, position.opened_at)
        return known[1]

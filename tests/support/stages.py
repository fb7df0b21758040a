"""The same play on several stages: a venue on the wire, the exchange that an engine gets, and one way to move both.

All of them share one clock, which a test sets: what takes a minute in the play takes a moment here.
"""

import contextlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tests.support import alpaca, binance, ibkr

from execkit import clockwatch
from execkit.bars import detector
from execkit.clock import Clock
from execkit.exchanges.paper import PaperExchange
from execkit.model.market import BarData, Timeframe
from execkit.testing.venues.alpaca import AlpacaVenue
from execkit.testing.venues.alpaca.rows import bar_row
from execkit.testing.venues.binance import BinanceVenue
from execkit.testing.venues.faults import Mishap
from execkit.testing.venues.tws.server import WireTws

OPEN = datetime(2024, 3, 12, 15, 0, tzinfo=UTC)
"""A Tuesday in New York, late morning: stocks and coins both trade."""
FIRST = Decimal(200)
"""What everything costs at first, so that one plan's levels mean the same everywhere."""
CASH = Decimal(100_000)


class SetClock(Clock):
    """The machine's clock, put to another time; it runs on from there."""

    def __init__(self, at=OPEN):
        self.set(at)

    def set(self, at):
        self.offset = at - datetime.now(UTC)

    def now(self):
        return datetime.now(UTC) + self.offset


def let_clock_be_set(monkeypatch):
    """Let detectors look at the clock all the time, and nobody take it for a jump: that has tests of its own."""
    monkeypatch.setattr(detector, "_HEARTBEAT", 0.005)
    for module, name in ((detector, "_STEP"), (clockwatch, "_JUMP")):
        monkeypatch.setattr(module, name, timedelta(days=1))


class Stage:
    """One venue with two symbols. *make* returns what an engine trades on, `exchange`: another one after a restart."""

    def __init__(self, name, symbols, venue, make):
        self.clock = venue.clock
        self.name = name
        self.symbol, self.other = symbols
        self.venue = venue
        self.make = make
        self.exchange = make()

    async def move(self, price):
        """Trade the market at a price."""
        await self.venue.move_price(self.symbol, price)

    async def move_other(self, price):
        """Trade the market of the other symbol at a price."""
        await self.venue.move_price(self.other, price)

    async def end_minute(self, price, close_time):
        """Trade at a price just before the end of a minute, and again after it, which ends the minute's bar."""
        self.clock.set(close_time - timedelta(seconds=0.5))
        await self.move(price)
        self.clock.set(close_time + timedelta(seconds=0.05))
        await self.move(price)

    def accepted(self, client_order_id):
        """Return how many orders of this id the venue took."""
        return self.venue.accepted(client_order_id)

    def taken(self):
        """Return how many orders the venue took."""
        return len(self.venue.accepts)

    def orders_sent(self):
        """Return how many requests at the venue were to change something."""
        return sum(call.method != "GET" for call in self.venue.requests)

    @property
    def core(self):
        """Return where the engine's orders are matched."""
        return self.venue.core

    def held(self):
        """Return the position that the venue has."""
        positions = self.core.positions()
        return next((p.quantity for p in positions if p.symbol == self.symbol), Decimal(0))

    def resting(self):
        """Return the orders that are open there."""
        return list(self.core.open.get(self.symbol, {}).values())

    def go_down(self):
        """Refuse every request and break every stream."""
        self.venue.go_dark()

    def come_back(self):
        """End that."""
        self.venue.heal()

    def go_down_at_next_order(self):
        """Take one more order, and be gone before anybody hears of it."""
        self.venue.fail_next("place", Mishap.DROP_ANSWER)
        self.venue.fail_next("read", Mishap.DROP_REQUEST, times=10_000)
        self.venue.fail_next("stream", Mishap.LOSE, times=100)


class AlpacaStage(Stage):
    """Alpaca's venue shows the bars that it is told to show."""

    async def end_minute(self, price, close_time):
        before = self.venue.core.quote(self.symbol).bid
        await super().end_minute(price, close_time)
        low, high = sorted((before, price))
        bar = BarData(self.symbol, Timeframe.M1, close_time, before, high, low, price, Decimal(5))
        self.venue.bars.setdefault((self.symbol, "1Min"), []).append(bar_row(bar))
        self.venue.show_bar(bar)


class IbkrStage(Stage):
    async def move(self, price):
        self.venue.move_price(self.symbol, price)

    async def move_other(self, price):
        self.venue.move_price(self.other, price)

    def accepted(self, client_order_id):
        return self.venue.taken(client_order_id)

    def taken(self):
        return sum(each.taken for each in self.venue.received)

    def orders_sent(self):
        """Return how many messages were to place, cancel or change an order."""
        return self.venue.messages[3] + self.venue.messages[4]

    def go_down(self):
        self.venue.is_down = True
        self.venue.cut()

    def come_back(self):
        self.venue.is_down = False

    def go_down_at_next_order(self):
        self.venue.is_down = True
        self.venue.fault("place", Mishap.DROP_ANSWER, reached=True)


@contextlib.asynccontextmanager
async def binance_stage(clock, market="spot", **options):
    end = {"spot": "", "usdm": ":USDT"}[market]
    symbol, other = f"BTC/USDT{end}", f"ETH/USDT{end}"
    kind = {"market": market, "clock": clock, "balances": {"USDT": CASH}}
    async with BinanceVenue(prices={symbol: FIRST, other: FIRST}, **kind) as venue:
        # A request that is on its way when the clock is set is not too old when it arrives.
        settings = {"clock": clock, "options": {"recvWindow": 60_000}} | options
        yield Stage(
            "binance", (symbol, other), venue, lambda: binance.adapter_of(venue, **settings)
        )


@contextlib.asynccontextmanager
async def alpaca_stage(clock, **options):
    async with AlpacaVenue(clock=clock, prices={"AAPL": FIRST, "MSFT": FIRST}, cash=CASH) as venue:
        yield AlpacaStage(
            "alpaca", ("AAPL", "MSFT"), venue, lambda: alpaca.adapter_of(venue, **options)
        )


@contextlib.asynccontextmanager
async def ibkr_stage(clock, **options):
    async with WireTws(
        clock=clock, prices={"AAPL": FIRST, "MSFT": FIRST}, balances={"USD": CASH}
    ) as venue:
        # Long enough for a busy machine: here lines are cut, and nothing hangs.
        settings = dict.fromkeys(
            ("read_timeout", "order_timeout", "heartbeat"), timedelta(seconds=5)
        ) | {"absence_window": timedelta(seconds=0.2)}
        settings = {"clock": clock, **settings, **options}
        yield IbkrStage("ibkr", ("AAPL", "MSFT"), venue, lambda: ibkr.adapter_of(venue, **settings))


VENUES = {"binance": binance_stage, "alpaca": alpaca_stage, "ibkr": ibkr_stage}


class PaperStage:
    """Paper money on another stage's live prices."""

    name = "paper"

    def __init__(self, stage):
        self.stage = stage
        cash = "USDT" if stage.symbol.endswith("USDT") else "USD"
        self.exchange = PaperExchange(balances={cash: CASH}, feed=stage.exchange, clock=stage.clock)

    @property
    def core(self):
        return self.exchange.core

    def __getattr__(self, name):
        return getattr(self.stage, name)

    held, resting = Stage.held, Stage.resting


@contextlib.asynccontextmanager
async def paper_stage(clock, feed, **options):
    async with VENUES[feed](clock, **options) as stage:
        yield PaperStage(stage)

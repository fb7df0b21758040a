"""One life of a position at each venue on the wire: what is asked of the engine, and what then stands at the venue.

Tests that `on` marks make up the page `docs/reference/what-runs-where.md`.
"""

import asyncio
import contextlib
import functools
import inspect
import itertools
import random
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import attrs
import pytest
from tests.support.stages import VENUES, SetClock

from execkit.engine import ExecutionEngine
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.order import OrderState, OrderType, Side
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.pipeline import ExecutionPipeline
from execkit.testing.venues.faults import Mishap

D = Decimal
FOUR = {
    "binance": VENUES["binance"],
    "usdm": functools.partial(VENUES["binance"], market="usdm"),
    "alpaca": VENUES["alpaca"],
    "ibkr": VENUES["ibkr"],
}
"""Binance twice, because its two markets have hardly an order in common."""
NATIVE_OCO = ("binance", "alpaca", "ibkr")
NEW_YORK = ZoneInfo("America/New_York")
STOP, TARGET = D(197), D(210)
"""Of an entry at 200, so that one R is three."""

SHOWN = {}
"""The marked tests by module and name, with the venues on which each runs, and why not on the others."""


def on(*venues, **reasons):
    """Run a test on all four venues, or on these; *reasons* say of each other one why it is left out."""
    chosen = venues or tuple(name for name in FOUR if name not in reasons)
    assert set(chosen) | set(reasons) == set(FOUR), "say of each venue why it is left out"

    def mark(test):
        SHOWN[test.__module__, test.__name__] = (inspect.getdoc(test), chosen, reasons)
        return pytest.mark.parametrize("name", chosen)(test)

    return mark


def chain(
    *, before=(), guards=(), limits=None, sizing=None, stop=None, executor=None, waits=2, **risk
):
    """Return the standard chain with short waits; *before* stand before the risk handler, *guards* after it."""
    settings = {"base_delay": 0.02, "max_retries": 1, "doubt_timeout": 0.5} | (executor or {})
    return ExecutionPipeline(
        [
            ValidationHandler(),
            *before,
            RiskManagementHandler(limits, sizing=sizing, stop=stop, **risk),
            *guards,
            OrderExecutorHandler(**settings),
            ReconciliationHandler(max_wait_time=waits, poll_interval=0.05),
        ]
    )


class Life:
    """An engine on a stage. *make_chain* makes the chain, for each of its processes anew."""

    def __init__(self, name, stage, make_chain, settings):
        self.name = name
        self.stage = stage
        self.venue = stage.venue
        self.symbol = stage.symbol
        self._make_chain = make_chain
        self._settings = settings
        self._numbers = itertools.count(1)

    # -- its processes -----------------------------------------------------------------------------------

    async def start(self, **changes):
        """Start a process, with another adapter than the one before."""
        settings = {"journal": None, "store": False, "control": False, "rng": random.Random(1)}
        self.engine = ExecutionEngine(
            self.stage.exchange,
            clock=self.stage.clock,
            pipeline=self._make_chain(),
            durability="process",
            **(settings | self._settings | changes),
        )
        await self.engine.start()

    async def restart(self, **changes):
        """End the process and start another one on the same journal."""
        await self.engine.stop()
        self.stage.exchange = self.stage.make()
        await self.start(**changes)

    # -- what is asked of the engine ---------------------------------------------------------------------

    def signal(self, side=Side.BUY, **changes):
        values = {"symbol": self.symbol, "confluence": 4, "signal_id": f"s{next(self._numbers)}"}
        return TradingSignal(side=side, **(values | changes))

    async def submit(self, side=Side.BUY, **changes):
        return await self.engine.submit(self.signal(side, **changes))

    async def enter(self, quantity=10, **changes):
        """Buy at the market, and wait until what was bought is protected."""
        values = {"stop_loss": STOP, "take_profit": TARGET} | changes
        result = await self.submit(quantity=D(quantity), **values)
        assert result.outcome is Outcome.FILLED, result
        await self.until(self.is_protected, f"protected: {result}")
        return result

    async def leave(self):
        """Close the position at the market, and wait until nothing is left."""
        result = await self.submit(Side.SELL)
        assert result.outcome is Outcome.FILLED, result
        await self.until(self.is_flat, "flat")
        return result

    async def until(self, condition, what, seconds=20):
        """Wait until something is so, at the venue or in the books."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            told = what() if callable(what) else what
            alarms = [f"{a.code}: {a.text}" for a in self.engine.book.alarms]
            raise AssertionError(
                f"{self.name}: never {told}; at the venue {self.held()} and {self.standing()}; {alarms}"
            ) from None

    # -- what the venue has ------------------------------------------------------------------------------

    def held(self):
        return self.stage.held()

    def standing(self):
        """Return (side, what is left, stop price, limit price) of all orders that are open there."""
        if self.name == "ibkr":
            return [
                (order.sent.action.lower(), order.remaining, *_prices(order.sent))
                for order in self.venue.orders.by_perm.values()
                if order.is_open
            ]
        found = [
            (o.request.side.value, o.remaining, o.request.stop_price, o.request.limit_price)
            for o in self.stage.resting()
        ]
        if self.name == "usdm":
            found += [
                ("buy" if a.is_buy else "sell", a.quantity, a.trigger, a.price)
                for a in self.venue.state.algos.values()
                if a.status == "NEW"
            ]
        return found

    def stops(self):
        """Return (what is left, trigger) of the stops that sell."""
        return [(q, stop) for side, q, stop, _ in self.standing() if side == "sell" and stop]

    def targets(self):
        """Return (what is left, limit) of the limits that sell."""
        found = self.standing()
        return [(q, limit) for side, q, stop, limit in found if side == "sell" and not stop]

    def entries(self):
        """Return (what is left, limit) of the orders that buy."""
        return [(q, limit) for side, q, _, limit in self.standing() if side == "buy"]

    def executed(self, side):
        """Return what each order on a side has executed there, in the order of arrival."""
        orders = self.stage.core.orders.values()
        return [o.filled for o in orders if o.request.side is side and o.filled]

    def is_protected(self):
        """Tell whether the venue has a stop for all that it holds, and the books say the same."""
        whole = self.whole(self.held())
        return (
            whole > 0
            and [quantity for quantity, _ in self.stops()] == [whole]
            and self.held() == self.engine.book.positions.quantity(self.symbol)
            and self.engine.book.working_stop(self.symbol) is not None
        )

    def is_flat(self):
        """Tell whether the venue has no whole lot and no order any more, and the books say the same."""
        held = self.held(), self.engine.book.positions.quantity(self.symbol)
        live = [o for o in self.engine.orders.active.values() if o.state.may_be_live]
        return not any(map(self.whole, held)) and not self.standing() and not live

    def whole(self, quantity):
        """Return a quantity without the dust that fees in kind leave."""
        rules = self.engine._rules.known(self.symbol)
        return quantity if rules is None else rules.round_quantity(quantity)

    @property
    def tick(self):
        return self.engine._rules.known(self.symbol).tick_size

    def alarms(self):
        return [alarm.code for alarm in self.engine.book.alarms]

    # -- what the venue and its owner do -----------------------------------------------------------------

    def fail(self, on, kind, **details):
        strike = self.venue.fault if self.name == "ibkr" else self.venue.fail_next
        return strike(on, kind, **details)

    def refuse(self, times, kind=None):
        """Refuse the next *times* orders, of a type where it is stated, for their terms."""
        return self.fail(
            "place" if self.name != "binance" else "any",
            Mishap.ERROR,
            times=times,
            only=functools.partial(_is_order, self.name, kind),
            **_REFUSALS[self.name],
        )

    async def move(self, price):
        """Trade the market at a price, and wait until the engine has seen it."""
        await self.stage.move(price)
        quotes = self.engine.desk.quotes
        if self.symbol in quotes._wanted:
            await self.until(lambda: quotes.last(self.symbol).bid == price, f"a quote of {price}")

    async def fill(self, quantity, price, *, side=Side.BUY, target=False):
        """Execute a part of the order that rests on a side, or of the target there, at its price."""
        order = next(
            o
            for o in self.stage.resting()
            if o.request.side is side and not (target and o.request.stop_price)
        )
        if self.name == "ibkr":
            now = self.stage.clock.now()
            key = order.request.client_order_id
            self.venue.orders.apply(
                self.stage.core.execute(key, D(quantity), D(price), now, maker=True)
            )
        else:
            await self.venue.fill(order.request.client_order_id, D(quantity), D(price))

    @contextlib.contextmanager
    def no_news(self):
        """Lose what the account's stream would tell meanwhile."""
        lost = self.fail("stream", Mishap.LOSE, times=1_000)
        try:
            yield
        finally:
            self.venue.faults.waiting.remove(lost)

    def cancel_stops(self):
        """Cancel at the venue what protects, as its owner does on the venue's own page."""
        now = self.stage.clock.now()
        if self.name == "ibkr":
            for order in [o for o in self.venue.orders.by_perm.values() if o.is_open]:
                if order.is_open:  # else it went with the other one of its group
                    self.venue.orders.end(order, "Cancelled", "by hand")
            return
        if self.name == "usdm":
            for algo in self.venue.state.algos.values():
                if algo.status == "NEW":
                    self.venue.side.algos._become(algo, "CANCELED")
        for order in self.stage.resting():
            if order.is_open:
                key = order.request.client_order_id
                self.venue.do(
                    functools.partial(
                        self.stage.core.end, key, OrderState.CANCELLED, "by hand", now
                    )
                )

    def shut(self, *, is_shut=True):
        """Close the market of the symbol, or open it: a session where there are some, else a halt."""
        if self.name == "alpaca":
            self.venue.hours.is_shut = is_shut
        else:
            self.stage.core.set_halted(self.symbol, halted=is_shut)
        self.forget_hours()

    def forget_hours(self):
        """Have the engine ask anew, as it does after some seconds."""
        if self.name == "alpaca":
            self.stage.exchange._markets._status = None
        self.engine.desk.market._known.clear()

    def close_early(self):
        """Let the session of today end at half past eleven in New York, as on a half day; return when that is."""
        day = self.stage.clock.now().astimezone(NEW_YORK)
        end = day.replace(hour=11, minute=30, second=0, microsecond=0)
        if self.name == "alpaca":
            self.venue.hours.early[day.date()] = end.time()
        else:
            session = f"{day:%Y%m%d}:0930-{day:%Y%m%d}:1130"
            hours = {"time_zone": "US/Eastern", "trading_hours": session, "liquid_hours": session}
            for symbol, listing in self.venue.listings.items():
                self.venue.listings[symbol] = attrs.evolve(listing, **hours)
        return end


_REFUSALS = {
    "binance": {"status": 400, "code": -2010, "text": "Stop price would trigger immediately."},
    "usdm": {"status": 400, "code": -2021, "text": "Order would immediately trigger."},
    "alpaca": {"status": 422, "code": 42210000, "text": "stop price is too close to the market"},
    "ibkr": {"code": 201, "text": "Order rejected - reason:the price is too close to the market"},
}


def _is_order(name, kind, call):
    """Tell whether a request is to place an order, of a type where one is wanted."""
    if name == "ibkr":
        word = call.order_type
    elif name == "alpaca":
        word = "stop" if call.body.get("order_class") == "oco" else call.body.get("type")
    else:
        if call.operation not in ("place", "place_list"):
            return False
        word = "STOP" if call.operation == "place_list" else call.params.get("type")
    return kind is None or word in _WORDS[kind]


_WORDS = {
    OrderType.STOP: ("STP", "stop", "STOP_LOSS", "STOP_MARKET", "STOP"),
    OrderType.STOP_LIMIT: ("STP LMT", "stop_limit", "STOP_LOSS_LIMIT"),
}


def _prices(sent):
    """Return trigger and limit of an order at TWS."""
    stop = sent.aux if sent.order_type in ("STP", "STP LMT") else None
    return stop, sent.limit if sent.order_type in ("LMT", "STP LMT") else None


@contextlib.asynccontextmanager
async def living(name, *, make_chain=chain, clock=None, adapter=None, **settings):
    """Yield a life at a venue; *adapter* and *settings* are options of its adapter and of its engine."""
    async with FOUR[name](clock or SetClock(), **(adapter or {})) as stage:
        life = Life(name, stage, make_chain, settings)
        await life.start()
        try:
            yield life
        finally:
            await life.engine.stop()


def seconds(count):
    return timedelta(seconds=count)

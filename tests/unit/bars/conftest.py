"""A desk that runs plans on bars against a real book, and fills every order at the close, at once and whole."""

from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.bars.cache import MarketDataCache
from execkit.bars.runner import BarRunner
from execkit.clock import ManualClock
from execkit.functions.builtin import standard_registry
from execkit.model.account import AccountView
from execkit.model.market import BarData, Timeframe
from execkit.model.order import Fill, OrderRequest, OrderRole, OrderType, Side
from execkit.model.records import BarClosed, Filled, Intent, SignalResult, Source
from execkit.model.result import Outcome
from execkit.orders.book import Book
from execkit.plans import TradePlan

START = ManualClock().now()
SYMBOL = "BTC/USDT"


def make_bar(
    minute, close=100, *, high=None, low=None, volume=1, symbol=SYMBOL, timeframe=Timeframe.M1
):
    """Return a bar that closes *minute* minutes after 2024-01-01."""
    close = Decimal(str(close))
    high = close if high is None else Decimal(str(high))
    low = close if low is None else Decimal(str(low))
    at = START + timedelta(minutes=minute)
    return BarData(symbol, timeframe, at, close, high, low, close, Decimal(str(volume)))


class BarDesk:
    """Stands for the engine: submits are filled at the last close."""

    def __init__(self, book=None):
        self.book = book or Book()
        self.clock = ManualClock()
        self.records = []
        self.submitted = []
        self.price = Decimal(100)
        self.fills = True
        self.error = None
        self.log = []

    def runner(self, *plans, registry=None, **options):
        """Return a runner of *plans* wired to this desk."""
        return BarRunner(
            registry=registry or standard_registry(clock=self.clock),
            plans=plans,
            cache=MarketDataCache(),
            book=self.book,
            submit=self.submit,
            record=self.record,
            account=lambda: AccountView("USDT", Decimal(10_000), Decimal(10_000), Decimal(0)),
            clock=self.clock,
            **options,
        )

    def record(self, record):
        """Do what the recorder does."""
        self.log.append(type(record).__name__)
        self.book.apply(record, self.clock.now())
        self.records.append(record)

    async def submit(self, signal):
        """Fill the signal at once, unless told otherwise."""
        self.log.append("submit")
        self.submitted.append(signal)
        if self.error is not None:
            raise self.error
        if self.fills:
            self.fill(signal)
        self.record(
            SignalResult(
                signal_id=signal.signal_id,
                signal_digest=signal.digest,
                symbol=signal.symbol,
                side=signal.side,
                outcome=Outcome.FILLED if self.fills else Outcome.WORKING,
            )
        )

    def fill(self, signal):
        """Execute a signal: one unit for an entry, the whole position for an exit."""
        position = self.book.position(signal.symbol)
        quantity = abs(position.quantity) if signal.reduce_only else Decimal(1)
        number = f"o{len(self.records)}"
        request = OrderRequest(
            client_order_id=number,
            symbol=signal.symbol,
            side=signal.side,
            type=OrderType.MARKET,
            quantity=quantity,
        )
        role = OrderRole.EXIT if signal.reduce_only else OrderRole.ENTRY
        self.record(
            Intent(
                request=request,
                payload_hash="",
                role=role,
                parent=signal.signal_id,
                signal_id=signal.signal_id,
                signal_digest=signal.digest,
                stop_loss=signal.stop_loss,
                take_profit=signal.take_profit,
            )
        )
        self._execute(signal.symbol, signal.side, quantity, number)

    def stop_out(self, symbol=SYMBOL):
        """Close the position as its stop would."""
        position = self.book.position(symbol)
        side = Side.SELL if position.is_long else Side.BUY
        self._execute(symbol, side, abs(position.quantity), f"stop{len(self.records)}")

    def _execute(self, symbol, side, quantity, number):
        fill = Fill(
            trade_id=number,
            client_order_id=number,
            venue_order_id=number,
            symbol=symbol,
            side=side,
            quantity=quantity,
            price=self.price,
            at=self.clock.now(),
        )
        self.record(Filled(fill=fill, source=Source.ACK))

    async def feed(self, runner, *bars):
        """Give bars to the runner, each at the moment of its close."""
        for bar in bars:
            self.clock.set(bar.close_time)
            self.price = bar.close
            await runner.on_bar(bar)

    @property
    def closes(self):
        """The bars that were recorded."""
        return [record for record in self.records if isinstance(record, BarClosed)]

    @property
    def decisions(self):
        """All decisions as (function, action or "skipped", reasoning)."""
        return [
            (d.function, "skipped" if d.skipped else d.action, d.reasoning)
            for close in self.closes
            for d in close.decisions
        ]


@pytest.fixture
def desk():
    """A desk with an empty book."""
    return BarDesk()


@pytest.fixture(scope="session")
def bar():
    """`make_bar`."""
    return make_bar


@pytest.fixture(scope="session")
def plan():
    """A function that builds plans from (function, timeframe, parameters) triples."""

    def build(entry, exit=(), **values):
        rules = [
            [{"function": f, "timeframe": t, "parameters": p} for f, t, p in part]
            for part in (entry, exit)
        ]
        return TradePlan(
            **({"name": "p", "symbol": SYMBOL, "entry": rules[0], "exit": rules[1]} | values)
        )

    return build

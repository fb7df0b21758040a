"""A desk without an engine, and tickets as the engine makes them, for tests of single handlers."""

from decimal import Decimal
from types import SimpleNamespace

import attrs
import pytest

from execkit.bars.cache import MarketDataCache
from execkit.clock import ManualClock
from execkit.model.account import AccountView
from execkit.model.capabilities import Capabilities
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderRequest, OrderRole, OrderType, Side, TimeInForce
from execkit.model.records import Alarm, BalancesSeen, EquityMarked, Filled, Intent, Source
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO
from execkit.orders.book import Book
from execkit.protection.policy import ProtectionPolicy
from execkit.risk.ledger import RiskLedger
from execkit.virtual_time import run_virtual


@attrs.define
class Desk:
    """The services that the two handlers use, over a real book and a real ledger."""

    clock: ManualClock = attrs.field(factory=ManualClock)
    book: Book = attrs.field(factory=Book)
    ledger: RiskLedger = attrs.field(factory=RiskLedger)
    adapter: SimpleNamespace = attrs.field(
        factory=lambda: SimpleNamespace(name="paper", capabilities=Capabilities(short_selling=True))
    )
    bars: MarketDataCache = attrs.field(factory=MarketDataCache)
    policy: ProtectionPolicy = attrs.field(factory=ProtectionPolicy)
    moved: Decimal = ZERO
    """How far the price has moved lately, in percent."""
    records: list = attrs.field(factory=list)

    @property
    def quotes(self):
        return self

    def moved_pct(self, _symbol, _within):
        return self.moved

    @property
    def recorder(self):
        return self

    def record(self, record):
        self.records.append(record)
        self.book.apply(record, self.clock.now())
        if isinstance(record, Intent):
            self.ledger.on_order(self.book.orders[record.request.client_order_id])
        elif isinstance(record, Filled):
            self.ledger.on_order(self.book.orders[record.fill.client_order_id])

    def alarm(self, code, text):
        self.record(Alarm(code=code, text=text))

    def fund(self, amount, asset="USDT"):
        totals = self.book.cash | {asset: Decimal(amount)}
        self.record(BalancesSeen(totals=totals, source=Source.RECOVERY))

    def mark_equity(self, equity, *, opens_session=False):
        self.record(EquityMarked(equity=Decimal(equity), opens_session=opens_session))

    def intend(self, order_id, symbol="BTC/USDT", side=Side.BUY, quantity="1", **changes):
        """Put an entry on its way, as the gateway does."""
        terms = {"signal_id": order_id, "expected_price": Decimal(100), **changes}
        request = OrderRequest(
            client_order_id=order_id,
            symbol=symbol,
            side=side,
            type=OrderType.MARKET,
            quantity=Decimal(quantity),
        )
        self.record(
            Intent(
                request=request,
                payload_hash="",
                role=OrderRole.ENTRY,
                parent=terms["signal_id"],
                **terms,
            )
        )

    def fill(self, order_id, quantity, price=100, trade=None):
        order = self.book.orders[order_id]
        self.record(
            Filled(
                fill=Fill(
                    trade_id=trade or f"{order_id}-{len(self.records)}",
                    client_order_id=order_id,
                    venue_order_id="",
                    symbol=order.symbol,
                    side=order.side,
                    quantity=Decimal(quantity),
                    price=Decimal(price),
                    at=self.clock.now(),
                ),
                source=Source.STREAM,
            )
        )

    def hold(self, symbol="BTC/USDT", quantity="1", price=100, **changes):
        """Open a position; a negative quantity is short."""
        amount = Decimal(quantity)
        side = Side.BUY if amount > ZERO else Side.SELL
        order_id = f"o{len(self.records)}"
        self.intend(order_id, symbol, side, str(abs(amount)), **changes)
        self.fill(order_id, abs(amount), price)

    def quote(self, symbol="BTC/USDT", bid="99.9", ask="100.1"):
        return Quote(symbol, Decimal(bid), Decimal(ask), self.clock.now())


@pytest.fixture(scope="session")
def make_desk():
    """Return a maker of desks with 10,000 USDT."""

    def make(**changes):
        desk = Desk(**changes)
        desk.fund(10_000)
        return desk

    return make


@pytest.fixture
def desk(make_desk):
    """Return a desk with 10,000 USDT."""
    return make_desk()


@pytest.fixture(scope="session")
def make_ticket():
    """Return a maker of tickets: a market buy of BTC/USDT at 99.9 / 100.1 unless told otherwise."""

    def make(desk, *, quote=None, instrument=None, role=None, equity=None, side=Side.BUY, **signal):
        signal.setdefault("symbol", "BTC/USDT")
        signal.setdefault("signal_id", "s1")
        wish = TradingSignal(side=side, **signal)
        instrument = instrument or Instrument.default(wish.symbol)
        position = desk.book.position(wish.symbol)
        if role is None:
            against = position is not None and position.is_long is (side is Side.SELL)
            role = OrderRole.EXIT if wish.reduce_only or against else OrderRole.ENTRY
        cash = desk.book.cash.get("USDT", ZERO)
        worth = desk.book.equity("USDT") if equity is None else Decimal(equity)
        return OrderTicket(
            signal=wish,
            signal_id=wish.signal_id,
            instrument=instrument,
            quote=quote or desk.quote(wish.symbol),
            account=AccountView("USDT", worth, cash, desk.ledger.reserved_cash),
            position=position,
            role=role,
            side=side,
            type=wish.order_type,
            quantity=wish.quantity,
            limit_price=wish.limit_price,
            stop_price=wish.stop_price,
            time_in_force=wish.time_in_force or TimeInForce.GTC,
            stop_loss=wish.stop_loss,
            take_profit=wish.take_profit,
            created_at=desk.clock.now(),
        )

    return make


@attrs.define
class Verdict:
    """What a handler did: its result, and the ticket it passed on (None: it stopped)."""

    result: object
    passed: OrderTicket | None

    @property
    def denial(self):
        return self.result.denial


@pytest.fixture(scope="session")
def judge():
    """Return a function that sends one ticket through one handler."""

    def run(handler, desk, ticket):
        passed = []

        async def call_next(changed):
            passed.append(changed)
            return changed.result(Outcome.WORKING)

        async def main(_clock):
            return await handler(ticket, call_next)

        handler.bind(desk)
        result = run_virtual(main)
        return Verdict(result, passed[0] if passed else None)

    return run

"""Feeds mutated answers, reports and fills to the gateway: the core's own line of defence behind every adapter."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import structlog

from execkit.clock import ManualClock
from execkit.errors import JournalCorruptedError
from execkit.events import EventBus
from execkit.journal.base import MemoryJournal
from execkit.journal.fold import fold
from execkit.journal.lines import decode_entry, encode
from execkit.model.account import AccountView
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import Fill, OrderReport, OrderRequest, OrderState, OrderType, Side
from execkit.model.records import Source
from execkit.model.signal import TradingSignal
from execkit.orders.book import Book
from execkit.orders.commands import Entry
from execkit.orders.gateway import OrderGateway
from execkit.orders.manager import ManagedOrder
from execkit.orders.recorder import Recorder
from execkit.signals import make_ticket
from execkit.testing.fuzz import FuzzResult, mutated_value
from execkit.testing.mock import MockExchange

_SYMBOL: Final = "BTC/USDT"
_PRICE: Final = Decimal(42_000)
_PROVEN: Final = frozenset(OrderState) - {
    OrderState.NEW,
    OrderState.SUBMITTED,
    OrderState.IN_DOUBT,
    OrderState.FAILED,
    OrderState.REJECTED,
}
"""States that say: the venue has it."""


class _Answering(MockExchange):
    """Gives one prepared answer, whatever it is."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(
            clock=clock,
            balances={"USDT": _PRICE * 10, "BTC": Decimal(10)},
            prices={_SYMBOL: _PRICE},
        )
        self.change: Any = None

    async def place_order(self, request: OrderRequest) -> OrderReport:
        answer: OrderReport = self.change(await super().place_order(request))
        return answer


class GatewayFuzz:
    """One gateway over one fresh book, with an order to be answered wrongly."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.clock = ManualClock()
        self.journal = MemoryJournal("mock")
        self.adapter = _Answering(self.clock)
        self.recorder = Recorder(self.journal, Book(), self.clock, EventBus())
        self.gateway = OrderGateway(self.adapter, self.recorder)

    async def place(self, change: Any) -> ManagedOrder | None:
        """Send an order whose answer is changed by *change*."""
        kind = self.rng.choice((OrderType.MARKET, OrderType.LIMIT))
        limit = _PRICE * self.rng.choice((Decimal("0.9"), Decimal("1.1")))
        signal = TradingSignal(
            symbol=_SYMBOL,
            side=self.rng.choice((Side.BUY, Side.SELL)),
            quantity=Decimal("0.01"),
            limit_price=limit if kind is OrderType.LIMIT else None,
            signal_id="fuzz",
        )
        ticket = make_ticket(
            signal,
            "fuzz",
            instrument=Instrument.default(_SYMBOL),
            quote=Quote(_SYMBOL, _PRICE, _PRICE, self.clock.now()),
            account=AccountView("USDT", _PRICE, _PRICE, Decimal(0)),
            position=None,
            now=self.clock.now(),
        )
        self.adapter.change = change
        sent = await self.gateway.send(Entry(ticket, unchecked=True))
        return sent.order

    def problem(self) -> str | None:
        """Return what is wrong with the books after the mutation, or None."""
        book = self.recorder.book
        for order in book.orders.active.values():
            if order.state in _PROVEN and not order.venue_order_id:
                return f"{order.state} without a venue order id"
            if order.state is OrderState.SUBMITTED:
                return "left in flight although it was answered"
        for entry in self.journal.entries:
            if decode_entry(encode(entry)) != entry:
                return f"the journal does not give back {entry.record!r}"
        try:
            again = fold(self.journal.entries)
        except JournalCorruptedError as error:
            return f"the journal does not replay: {error}"
        if again.state_hash() != book.state_hash():
            return "the journal replays to another state"
        return None


def fuzz_gateway(rng: random.Random, count: int = 20_000) -> FuzzResult:
    """Answer orders wrongly, and tell wrong things of right ones by stream; return what became of them.

    A violation is any error that reaches the caller, an order that counts as the venue's without an id, one that is
    left in flight, and a journal that does not encode or replay to the same state.
    """
    result = FuzzResult()
    asyncio.run(_run(rng, count, result))
    return result


async def _run(rng: random.Random, count: int, result: FuzzResult) -> None:
    for _ in range(count):
        fuzz = GatewayFuzz(rng)
        mutations: list[object] = []
        result.mutations += 1

        def mutate(value: Any, kept: list[object] = mutations) -> Any:
            kept.append(mutated_value(value, rng))
            return kept[-1]

        try:
            with structlog.testing.capture_logs():
                if rng.random() < 0.5:
                    order = await fuzz.place(mutate)
                else:
                    order = await fuzz.place(lambda report: report)
                    await _stream(fuzz, mutate)
            problem = fuzz.problem()
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            result.blame(f"{type(error).__name__}: {error}", mutations)
            continue
        if problem is not None:
            result.blame(problem, mutations)
        elif order is not None:
            result.outcomes[str(order.state)] += 1


async def _stream(fuzz: GatewayFuzz, mutate: Any) -> None:
    report = next(iter(fuzz.adapter.core.orders.values())).report()
    fills = await fuzz.adapter.fills_since(fuzz.clock.now() - timedelta(days=1))
    if fills and fuzz.rng.random() < 0.5:
        fill: Fill = mutate(fills[0])
        fuzz.gateway.intake.take_fill(fill, Source.STREAM)
    else:
        await fuzz.gateway.absorb(mutate(report), Source.STREAM)

"""Rule-based state machines for a user's own chain, functions and adapters: subclass one and give it to pytest.

    class MyChain(PipelineMachine):
        def make_pipeline(self):
            return ExecutionPipeline([...])

    TestMyChain = MyChain.TestCase

Hypothesis then looks for a sequence of steps that breaks an invariant, and prints the shortest one it can find. All
of it runs under virtual time.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.ids import random_id
from execkit.journal.base import MemoryJournal
from execkit.journal.fold import fold
from execkit.model.denial import DenialCode
from execkit.model.order import OrderEvent, OrderRole, OrderState, OrderType, Side
from execkit.model.records import OrderChanged, TradingState
from execkit.model.result import ExecutionResult
from execkit.model.signal import TradingSignal
from execkit.numbers import ZERO
from execkit.orders.manager import ManagedOrder
from execkit.pipeline import ExecutionPipeline
from execkit.testing import strategies as xk
from execkit.testing.adapter_machine import AdapterMachine
from execkit.testing.faults import FaultScript
from execkit.testing.function_machine import FunctionMachine
from execkit.testing.machine import Machine
from execkit.testing.mock import MockExchange

HEAL: Final = timedelta(seconds=180)
"""How long after the last fault everything must have come to rest."""

_NOT_FOR_EXITS: Final = frozenset(
    {
        DenialCode.REFUSED_BY_HANDLER,
        DenialCode.HANDLER_FAILED,
        DenialCode.SIGNAL_TOO_WEAK,
        DenialCode.CONFLUENCE_TOO_LOW,
        DenialCode.SPREAD_TOO_WIDE,
        DenialCode.PENDING_ORDER_EXISTS,
        DenialCode.POSITION_EXISTS,
        DenialCode.TOO_MANY_POSITIONS,
        DenialCode.POSITION_TOO_LARGE,
        DenialCode.EXPOSURE_TOO_LARGE,
        DenialCode.NOT_ENOUGH_BUYING_POWER,
        DenialCode.DAILY_LOSS_REACHED,
        DenialCode.TRADING_REDUCING,
        DenialCode.TRADING_HALTED,
        DenialCode.SYMBOL_BLOCKED,
        DenialCode.NOT_STAMPED,
        DenialCode.CIRCUIT_OPEN,
        DenialCode.NOT_CONFIRMED,
    }
)
"""Reasons that may hold up an entry, never the way out of a position."""


class PipelineMachine(Machine):
    """Submits signals to a chain over a mock venue that fails by script.

    No exit is ever refused by a limit or a handler. After every step: no order is filled beyond its quantity, no
    client order id is accepted twice, nothing is sent that the journal does not know, the journal folds to the state
    in memory, and the position is within *max_notional*. In the end the venue heals: then nothing is in doubt, the
    books are the venue's, and each position that asked for a stop has one.
    """

    symbol = "BTC/USDT"
    price = Decimal(42_000)
    max_notional: Decimal | None = None
    """Largest value of position and open entries of the symbol, in quote units; None: not checked."""

    def make_pipeline(self) -> ExecutionPipeline:
        """Return the chain to test; the standard one by default."""
        return standard_pipeline()

    def make_exchange(self) -> MockExchange:
        """Return the venue; 1,000,000 USDT by default."""
        return MockExchange(
            prices={self.symbol: self.price}, clock=self.time.clock, rng=random.Random(0)
        )

    @initialize(script=xk.fault_scripts())
    def start(self, script: FaultScript) -> None:
        """Start an engine over a venue that is well, and let things go wrong from then on."""
        self.exchange = self.make_exchange()
        self.journal = MemoryJournal(self.exchange.account)
        self.rng = random.Random(0)
        self.signals: list[TradingSignal] = []
        self._start_engine()
        self.exchange.connection.script = script

    def _start_engine(self) -> None:
        self.engine = ExecutionEngine(
            self.exchange,
            journal=self.journal,
            pipeline=self.make_pipeline(),
            clock=self.time.clock,
            rng=self.rng,
        )
        self.wait(self.engine.start())

    # -- steps -----------------------------------------------------------------------------------------

    @rule(side=st.sampled_from(Side), protected=st.booleans())
    def submit(self, side: Side, protected: bool) -> None:
        """Submit a signal at the market, with levels of its own or those of the chain."""
        self._submit(self._new_signal(side, protected=protected))

    @rule(side=st.sampled_from(Side), strength=st.integers(0, 100), ticks=st.integers(-500, 500))
    def submit_limit(self, side: Side, strength: int, ticks: int) -> None:
        """Submit a signal with a limit on either side of the market, at times a weak one."""
        self._submit(self._new_signal(side, strength=strength, limit_price=self._mid() + ticks))

    def _new_signal(self, side: Side, *, protected: bool = False, **terms: Any) -> TradingSignal:
        mid = self._mid()
        away = (mid / 50).quantize(Decimal(1)) * side.sign
        signal = TradingSignal(
            symbol=self.symbol,
            side=side,
            confluence=5,
            stop_loss=mid - away if protected else None,
            take_profit=mid + 3 * away if protected else None,
            signal_id=random_id(self.rng),
            **terms,
        )
        self.signals.append(signal)
        return signal

    @precondition(lambda self: bool(self.signals))
    @rule(number=st.integers(0, 99))
    def submit_again(self, number: int) -> None:
        """Submit a signal that came before: it must stay one order."""
        self._submit(self.signals[number % len(self.signals)])

    def _submit(self, signal: TradingSignal) -> None:
        held = self.engine.book.positions.quantity(self.symbol)
        known = signal.signal_id in self.engine.book.signals
        result = self.wait(self.engine.submit(signal))
        if not known and held * signal.side.sign < ZERO:
            code = None if result.denial is None else result.denial.code
            assert code not in _NOT_FOR_EXITS, (
                f"an exit was refused, the position of {held} stays open:\n{result}"
            )
        self.on_result(signal, result)

    def on_result(self, signal: TradingSignal, result: ExecutionResult) -> None:
        """Override for checks of your own on what a signal led to."""

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 61.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Wait; what is due meanwhile is done."""
        self.time.advance(seconds)

    @rule(percent=st.integers(-3, 3))
    def move_price(self, percent: int) -> None:
        """Move the market, so that resting orders and stops execute."""
        self.wait(self._move((self._mid() * (100 + percent) / 100).quantize(Decimal(1))))

    async def _move(self, price: Decimal) -> None:
        self.exchange.set_price(self.symbol, price)
        await asyncio.sleep(0.01)

    @rule()
    def cancel_all(self) -> None:
        """Cancel what rests; protection stays."""
        self.wait(self.engine.cancel_all(halt=False))

    @rule()
    def restart(self) -> None:
        """Stop the engine and start another one on the same journal."""
        self.wait(self.engine.stop())
        script, self.exchange.connection.script = self.exchange.connection.script, FaultScript()
        self._start_engine()
        self.exchange.connection.script = script

    def _mid(self) -> Decimal:
        return self.exchange.core.quote(self.symbol).mid

    # -- what must hold --------------------------------------------------------------------------------

    @invariant()
    def no_order_is_filled_beyond_its_quantity(self) -> None:
        """A fill counts once (I2, I6)."""
        for order in self._orders():
            assert order.filled <= order.quantity, f"overfilled: {order!r}"

    @invariant()
    def no_client_order_id_is_accepted_twice(self) -> None:
        """A repetition is sent only after proof that the first never arrived (I1, I11)."""
        submits: dict[str, int] = {}
        for record in (entry.record for entry in self.journal.entries):
            if isinstance(record, OrderChanged) and record.event is OrderEvent.SUBMIT:
                submits[record.client_order_id] = submits.get(record.client_order_id, 0) + 1
        for received in self.exchange.received:
            name = received.client_order_id
            assert self.exchange.accepted(name) <= 1, f"{name} was accepted twice"
            sends = self.exchange.sends(name)
            assert sends <= submits.get(name, 0), f"{name} was sent {sends} times, recorded fewer"

    @invariant()
    def the_journal_folds_to_the_state_in_memory(self) -> None:
        """What is not in the journal is lost at a restart (I16)."""
        assert fold(self.journal.entries).state_hash() == self.engine.book.state_hash()

    @invariant()
    def limits_hold(self) -> None:
        """Position and open entries together stay within the limit (I9)."""
        if self.max_notional is None:
            return
        held = abs(self.engine.book.positions.quantity(self.symbol))
        asked = sum((o.remaining for o in self._orders() if _may_add(o)), ZERO)
        worth = (held + asked) * self._mid()
        assert worth <= self.max_notional, f"exposure {worth} is above {self.max_notional}"

    def _orders(self) -> list[ManagedOrder]:
        return list(self.engine.orders.active.values())

    def at_the_end(self) -> None:
        """Heal the venue, give the engine time, and compare (I4, I12, I19)."""
        if not hasattr(self, "engine"):
            return
        self.exchange.connection.script = FaultScript()
        self.time.advance(HEAL)
        doubtful = [o for o in self._orders() if o.state is OrderState.IN_DOUBT]
        assert not doubtful, f"still in doubt after {HEAL}: {doubtful}"
        ours = self.engine.book.positions.quantity(self.symbol)
        venue = {p.symbol: p.quantity for p in self.exchange.core.positions()}
        assert ours == venue.get(self.symbol, ZERO), f"ours {ours}, the venue's {venue}"
        self._check_protection(ours)
        self.wait(self.engine.stop())

    def _check_protection(self, held: Decimal) -> None:
        position = self.engine.positions.get(self.symbol)
        if position is None or position.stop_loss is None or not held:
            return
        if self.engine.trading_state is TradingState.HALTED:
            return  # a person was called
        # What closes at the market holds what a stop would have to hold; an exit that rests does not.
        covered = sum((o.remaining for o in self._orders() if _guards(o)), ZERO)
        lot = self.exchange.core.instrument(self.symbol).lot_size
        assert abs(held) - covered < lot, f"of {held} only {covered} is protected"


def _guards(order: ManagedOrder) -> bool:
    return order.role.is_reduction and order.type in (OrderType.STOP, OrderType.MARKET)


def _may_add(order: ManagedOrder) -> bool:
    return order.role is OrderRole.ENTRY and order.state.may_be_live


__all__ = ["AdapterMachine", "FunctionMachine", "PipelineMachine"]

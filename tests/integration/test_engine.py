"""The engine with the whole chain over the mock exchange, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from execkit.engine import ExecutionEngine
from execkit.errors import (
    ConfigurationError,
    ExchangeError,
    ExecKitError,
    InsufficientBalanceError,
    MarketClosedError,
    MarketOrderRefusedError,
    QuantityTooLargeError,
    SignalConflictError,
)
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.journal.base import MemoryJournal
from execkit.journal.fold import fold
from execkit.model.capabilities import Capabilities
from execkit.model.denial import DenialCode
from execkit.model.events import (
    Event,
    OrderFilled,
    PositionClosed,
    PositionOpened,
    SignalDenied,
    SlippageAlert,
)
from execkit.model.market import Quote
from execkit.model.order import OrderRole, OrderState, OrderType, Side, TimeInForce
from execkit.model.records import SignalQueued, TradingState
from execkit.model.result import ExecutionResult, Outcome
from execkit.model.signal import TradingSignal
from execkit.model.ticket import OrderTicket
from execkit.pipeline import ExecutionPipeline, Next, handler
from execkit.risk.limits import RiskLimits
from execkit.risk.sizing import FixedQuantity
from execkit.testing import Fault, FaultScript, MockExchange
from execkit.virtual_time import DEFAULT_START, VirtualClock, run_virtual

BTC = "BTC/USDT"
D = Decimal


def chain(limits: RiskLimits | None = None, **executor: Any) -> ExecutionPipeline:
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(limits or RiskLimits()),
            OrderExecutorHandler(**executor),
            ReconciliationHandler(),
        ]
    )


def buy(**changes: Any) -> TradingSignal:
    options: dict[str, Any] = {
        "symbol": BTC,
        "side": Side.BUY,
        "strength": 80,
        "confluence": 4,
        "stop_loss": D(41_500),
        "take_profit": D(43_000),
    }
    return TradingSignal(**(options | changes))


def sell(**changes: Any) -> TradingSignal:
    return TradingSignal(**({"symbol": BTC, "side": Side.SELL, "confluence": 4} | changes))


Body = Callable[[ExecutionEngine, MockExchange, VirtualClock], Awaitable[Any]]


def play(
    body: Body,
    *faults: Fault,
    journal: MemoryJournal | None = None,
    pipeline: ExecutionPipeline | None = None,
    fold_at_end: bool = True,
    **mock: Any,
) -> Any:
    """Run *body* with an engine over a mock exchange, and check that the journal folds to what memory holds."""

    async def main(clock: VirtualClock) -> Any:
        venue = MockExchange(script=FaultScript(faults), clock=clock, **mock)
        kept = journal or MemoryJournal(venue.account)
        engine = ExecutionEngine(
            venue,
            journal=kept,
            pipeline=pipeline or chain(),
            clock=clock,
            rng=random.Random(7),
            currency="USDT",
        )
        async with engine:
            answer = await body(engine, venue, clock)
            book = engine.book
        if fold_at_end:
            assert fold(kept.entries).state_hash() == book.state_hash()
        return answer

    return run_virtual(main)


def test_signal_is_filled_protected_and_explained() -> None:
    """A buy becomes one order, one position and one stop of its size, and the result says why."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy())
        await engine.desk.keeper.idle()
        assert result.outcome is Outcome.FILLED
        assert [entry.handler for entry in result.trace] == [
            "ValidationHandler",
            "RiskManagementHandler",
            "OrderExecutorHandler",
            "ReconciliationHandler",
        ]
        # 2 % of 1,000,000 at 42,000, rounded down to the lot of 0.00001.
        assert result.filled == D("0.47619")
        position = engine.positions[BTC]
        stop = engine.book.working_stop(BTC)
        assert stop is not None
        assert (stop.state, stop.quantity, stop.stop_price) == (
            OrderState.ACCEPTED,
            position.quantity,
            D(41_500),
        )
        assert len(venue.received) == 2
        assert "RiskManagementHandler" in str(result)

    play(body)


def test_same_signal_twice_is_one_order() -> None:
    """The same id and content gives the same result, at once, later and while the first is under way."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        signal = buy(signal_id="one")
        both = await asyncio.gather(engine.submit(signal), engine.submit(buy(signal_id="one")))
        later = await engine.submit(buy(signal_id="one", stop_loss=D("41500.0")))
        assert [r.client_order_ids for r in (*both, later)] == [both[0].client_order_ids] * 3
        assert later.outcome is Outcome.FILLED
        assert later.filled == both[0].filled
        assert sum(r.client_order_id == both[0].client_order_ids[0] for r in venue.received) == 1
        with pytest.raises(SignalConflictError, match="'one' came before"):
            await engine.submit(buy(signal_id="one", strength=81))

    play(body)


def test_same_object_twice_is_the_same_signal() -> None:
    """A signal without an id gets one at its first submit and keeps it."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        signal = buy()
        first = await engine.submit(signal)
        second = await engine.submit(signal)
        assert first.signal_id == second.signal_id
        assert first.client_order_ids == second.client_order_ids

    play(body)


def test_fifty_signals_at_one_moment_pass_no_limit_together() -> None:
    """Limits count what is reserved: of 50 simultaneous entries only three positions come about."""
    symbols = [f"C{n}/USDT" for n in range(50)]

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        results = await asyncio.gather(
            *(engine.submit(buy(symbol=s, stop_loss=D(99), take_profit=D(103))) for s in symbols)
        )
        filled = [r for r in results if r.outcome is Outcome.FILLED]
        denied = [r for r in results if r.outcome is Outcome.DENIED]
        assert len(filled) == 3
        assert len(denied) == 47
        assert {r.denial.code for r in denied if r.denial} == {DenialCode.TOO_MANY_POSITIONS}
        assert len(engine.positions) == 3

    play(body, prices=dict.fromkeys(symbols, D(100)))


def test_sell_closes_the_long_and_takes_the_stop_away() -> None:
    """A SELL against a long is an exit of the whole position; afterwards nothing rests."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        events: list[Event] = []
        engine.events.subscribe((PositionOpened, PositionClosed), events.append)
        await engine.submit(buy())
        await engine.desk.keeper.idle()
        venue.set_price(BTC, D(42_100))
        result = await engine.submit(sell())
        await engine.desk.keeper.idle()
        assert result.outcome is Outcome.FILLED
        assert engine.positions == {}
        assert not engine.orders.active
        assert await venue.open_orders() == []
        await engine.events.idle()
        assert [type(event) for event in events] == [PositionOpened, PositionClosed]
        closed = engine.book.positions.closed[-1]
        quantity, fee = D("0.47619"), D("0.001")
        expected = quantity * 100 - quantity * 42_000 * fee - quantity * 42_100 * fee
        assert closed.realised_pnl == expected

    play(body)


def test_sell_when_flat_is_denied_without_allow_short() -> None:
    """Flat, a SELL would open a short; that is off by default."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        denied: list[Event] = []
        engine.events.subscribe(SignalDenied, denied.append)
        result = await engine.submit(sell(stop_loss=D(42_500), take_profit=D(41_000)))
        await engine.events.idle()
        assert result.denial is not None
        assert result.denial.code is DenialCode.SHORT_NOT_ALLOWED
        assert venue.received == []
        assert len(denied) == 1

    play(body)


def test_timeout_after_acceptance_is_looked_up_and_never_sent_again() -> None:
    """The venue has the order though its answer was lost: it is found by its id; one send in all."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy())
        assert result.outcome is Outcome.FILLED
        assert venue.sends(result.client_order_ids[-1]) == 1
        assert len(result.client_order_ids) == 1

    play(body, Fault(on="place", kind="timeout", nth=1, reached=True))


def test_lost_market_order_is_not_resent_while_absence_can_be_overtaken() -> None:
    """A market order that the venue does not show stays in doubt within its absence window; nothing is resent."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy())
        assert result.outcome is Outcome.IN_DOUBT
        assert venue.received == []
        order = result.order
        second = await engine.submit(buy())
        assert second.denial is not None
        assert second.denial.code in (DenialCode.PENDING_ORDER_EXISTS, DenialCode.SYMBOL_BLOCKED)
        await asyncio.sleep(120)
        assert order.state is OrderState.PRESUMED_ABSENT
        assert venue.received == []

    play(
        body,
        Fault(on="place", kind="lost", nth=1, reached=False),
        capabilities=Capabilities(absence_window=timedelta(seconds=60), reduce_only=True),
    )


def test_rate_limit_is_waited_out() -> None:
    """A 429 with Retry-After is retried after it, under the next revision; the account pays once."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        result = await engine.submit(buy())
        assert result.outcome is Outcome.FILLED
        assert loop.time() - start >= 5
        assert len(result.client_order_ids) == 1
        entries = [r for r in venue.received if r.accepted]
        assert len({r.client_order_id for r in entries}) == len(entries)
        assert engine.positions[BTC].quantity == D("0.47619")

    play(
        body,
        Fault(on="place", kind="rate_limit", nth=1, retry_after=timedelta(seconds=5)),
    )


def test_unsent_order_keeps_its_id_and_gives_up_after_four_sends() -> None:
    """NotSent is retried with the same id, four sends at most; then the signal is refused."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy())
        assert result.denial is not None
        assert result.denial.code is DenialCode.VENUE_UNAVAILABLE
        [order] = engine.orders.values()
        assert (order.state, order.attempts) == (OrderState.FAILED, 4)

    play(body, Fault(on="place", kind="not_sent"))


def test_insufficient_funds_shrink_the_order() -> None:
    """The order is made as small as the venue allows, and the trace says so."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy(quantity=D("0.4")))
        assert result.outcome is Outcome.FILLED
        assert result.filled == D("0.25")
        assert len(result.client_order_ids) == 2
        assert engine.orders[result.client_order_ids[0]].state is OrderState.REJECTED

    play(
        body,
        Fault(
            on="place",
            kind="error",
            nth=1,
            error=InsufficientBalanceError("no money", available=D("0.25")),
        ),
    )


@pytest.mark.parametrize(("allowed", "sent"), [("0.3", "0.3"), (None, "0.2"), ("0.9", "0.39999")])
def test_a_quantity_that_is_too_large_shrinks(allowed: str | None, sent: str) -> None:
    """To what the venue takes in one order, else to half; and always by a lot at least."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy(quantity=D("0.4")))
        assert result.outcome is Outcome.FILLED
        assert result.filled == D(sent)

    error = QuantityTooLargeError("LOT_SIZE", allowed=None if allowed is None else D(allowed))
    play(body, Fault(on="place", kind="error", nth=1, error=error))


def test_refused_market_order_becomes_a_limit_through_the_touch() -> None:
    """A market order the venue does not take is sent as limit 0.2 % through the touch, IOC."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy())
        assert result.outcome is Outcome.FILLED
        request = engine.orders[result.client_order_ids[-1]].request
        assert request.type is OrderType.LIMIT
        assert request.limit_price == D("42084.00")
        assert request.time_in_force is TimeInForce.IOC

    play(body, Fault(on="place", kind="error", nth=1, error=MarketOrderRefusedError("no")))


def test_closed_market_queues_the_signal_until_it_opens() -> None:
    """A closed market queues; the queue is journalled and drained when the market opens."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy(signal_id="q"))
        assert result.outcome is Outcome.QUEUED
        assert list(engine.book.queued) == ["q"]
        await asyncio.sleep(70)
        assert engine.book.queued == {}
        assert engine.positions[BTC].quantity == D("0.47619")
        told = engine.book.signals["q"].result
        assert told is not None
        assert told.outcome is Outcome.FILLED

    play(body, Fault(on="place", kind="error", nth=1, error=MarketClosedError("closed")))


def test_queued_signal_survives_a_stop_while_it_is_being_sent_again() -> None:
    """A signal told QUEUED leaves the queue with its intent or result only: a stop in between loses nothing."""

    @handler
    async def slow(ticket: OrderTicket, call_next: Next) -> ExecutionResult:
        if ticket.created_at > DEFAULT_START + timedelta(seconds=30):
            await asyncio.sleep(30)
        return await call_next(ticket)

    pipeline = chain().insert(slow, before=OrderExecutorHandler)

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        assert (await engine.submit(buy(signal_id="q"))).outcome is Outcome.QUEUED
        await asyncio.sleep(65)
        await engine.stop(drain=5)
        assert list(engine.book.queued) == ["q"]

    fault = Fault(on="place", kind="error", nth=1, error=MarketClosedError("closed"))
    play(body, fault, pipeline=pipeline)


def test_cancel_all_empties_the_queue() -> None:
    """What waits for the open is cancelled too, and who asks again is told so."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.submit(buy(signal_id="q"))
        await engine.cancel_all()
        assert engine.book.queued == {}
        await asyncio.sleep(120)
        assert len(venue.received) == 1
        assert (await engine.submit(buy(signal_id="q"))).outcome is Outcome.CANCELLED

    play(body, Fault(on="place", kind="error", nth=1, error=MarketClosedError("closed")))


def test_signal_whose_order_has_left_memory_is_not_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed orders are forgotten after a while; that an order existed is not."""
    monkeypatch.setattr("execkit.orders.manager.KEEP_CLOSED", 2)

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        tell = engine._tell

        async def interrupted(_result: ExecutionResult, _digest: str) -> ExecutionResult:
            raise asyncio.CancelledError

        engine._tell = interrupted  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await engine.submit(buy(signal_id="one"))
        engine._tell = tell  # type: ignore[method-assign]
        await engine.flatten(halt=False)
        await engine.desk.keeper.idle()
        for _ in range(2):
            await engine.submit(buy())
            await engine.flatten(halt=False)
            await engine.desk.keeper.idle()
        assert engine.orders.revisions("one") == []
        entries = [r for r in venue.received if r.request.side is Side.BUY]
        again = await engine.submit(buy(signal_id="one"))
        assert again.denial is not None
        assert again.denial.code is DenialCode.DUPLICATE_SIGNAL
        assert len([r for r in venue.received if r.request.side is Side.BUY]) == len(entries) == 3

    play(body)


def test_resting_limit_order_returns_working_and_times_out() -> None:
    """A passive limit order is WORKING; without an explicit time in force it is cancelled after 60 s."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(
            buy(limit_price=D(41_900), stop_loss=D(41_500), take_profit=D(43_000))
        )
        assert result.outcome is Outcome.WORKING
        await asyncio.sleep(59)
        assert not result.order.is_closed
        await asyncio.wait_for(result.order.done(), 5)
        assert result.order.state is OrderState.CANCELLED
        assert await venue.open_orders() == []

    play(body)


def test_explicit_time_in_force_has_no_time_out() -> None:
    """GTC by the caller means until cancelled."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy(limit_price=D(41_900), time_in_force=TimeInForce.GTC))
        await asyncio.sleep(300)
        assert result.order.state is OrderState.ACCEPTED
        cancelled = await engine.cancel_all()
        assert cancelled == [result.order]
        assert result.order.state is OrderState.CANCELLED

    play(body)


def test_flatten_closes_everything() -> None:
    """Flatten cancels entries, takes stops away and closes positions."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.submit(buy())
        await engine.submit(
            buy(symbol="ETH/USDT", limit_price=D(2_000), stop_loss=D(1_970), take_profit=D(2_100))
        )
        await engine.desk.keeper.idle()
        assert await engine.flatten()
        await engine.desk.keeper.idle()
        assert engine.positions == {}
        assert await venue.open_orders() == []

    play(body, prices={BTC: D(42_000), "ETH/USDT": D(2_050)})


def test_halt_stops_entries_lets_exits_pass_and_survives_a_restart() -> None:
    """After a halt no entry leaves, exits do, and only an explicit resume clears it."""
    journal = MemoryJournal("mock")
    shared: dict[str, Any] = {}

    async def first(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.submit(buy())
        await engine.halt("enough for today")
        shared["core"] = venue.core
        result = await engine.submit(
            buy(symbol="ETH/USDT", stop_loss=D(1_990), take_profit=D(2_100))
        )
        assert result.denial is not None
        assert result.denial.code is DenialCode.TRADING_HALTED
        assert (await engine.submit(sell())).outcome is Outcome.FILLED

    async def second(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        assert engine.trading_state is TradingState.HALTED
        assert engine.can_open(BTC)[1].startswith("trading is halted: enough")
        await engine.resume()
        assert engine.trading_state is TradingState.ACTIVE

    prices = {BTC: D(42_000), "ETH/USDT": D(2_000)}
    play(first, journal=journal, prices=prices)
    play(second, journal=journal, prices=prices)


def test_failing_and_slow_subscribers_hurt_nobody() -> None:
    """A subscriber that raises or blocks does not delay the order or the other subscribers."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        seen: list[Event] = []
        never = asyncio.Event()

        def broken(_event: Event) -> None:
            raise RuntimeError("subscriber")

        async def slow(_event: Event) -> None:
            await never.wait()

        engine.events.subscribe(OrderFilled, broken)
        engine.events.subscribe(OrderFilled, slow)
        engine.events.subscribe(OrderFilled, seen.append)
        result = await engine.submit(buy())
        await asyncio.sleep(0)
        assert result.outcome is Outcome.FILLED
        assert len(seen) == 1
        never.set()

    play(body)


def test_slippage_raises_an_alert() -> None:
    """A fill 1.5 % worse than the arrival mid alerts and marks the result; the position stays."""

    async def body(engine: ExecutionEngine, venue: MockExchange, clock: VirtualClock) -> None:
        alerts: list[SlippageAlert] = []
        engine.events.subscribe(SlippageAlert, alerts.append)
        await asyncio.sleep(1)
        engine.desk.quotes.see(Quote(BTC, D(41_380), D(41_380), clock.now() + timedelta(seconds=1)))
        result = await engine.submit(buy(stop_loss=D(41_000), quantity=D("0.1")))
        await engine.events.idle()
        assert result.outcome is Outcome.FILLED
        assert [round(alert.slippage_pct, 4) for alert in alerts] == [D("1.4983")]
        assert "beyond the maximum of 1" in result.alerts[0]
        assert engine.positions[BTC].quantity == D("0.1")
        assert venue.received

    play(body)


def test_partial_fill_is_protected_at_its_size_and_follows() -> None:
    """Each filled part has a stop of its size; the rest filling later makes it grow."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        result = await engine.submit(buy(quantity=D("0.4")))
        await engine.desk.keeper.idle()
        sizes = [engine.book.working_stop(BTC).quantity]  # type: ignore[union-attr]
        await asyncio.sleep(40)
        await engine.desk.keeper.idle()
        sizes.append(engine.book.working_stop(BTC).quantity)  # type: ignore[union-attr]
        assert result.order.filled == D("0.4")
        assert sizes == [D("0.1"), D("0.4")]

    play(
        body,
        Fault(
            on="place",
            kind="partial",
            nth=1,
            fraction=D("0.25"),
            after=timedelta(seconds=30),
        ),
    )


def test_refused_stop_flattens_and_says_so() -> None:
    """When no stop can be placed the position is closed within the limit, and an alarm tells."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.submit(buy())
        await asyncio.sleep(15)
        await engine.desk.keeper.idle()
        assert engine.positions == {}
        assert "UNPROTECTED" in {alarm.code for alarm in engine.book.alarms}
        roles = [order.role for order in engine.orders.values()]
        assert roles.count(OrderRole.FLATTEN) == 1

    play(
        body,
        Fault(
            on="place",
            kind="error",
            error=InsufficientBalanceError("held"),
            only=lambda request: request.type is OrderType.STOP,
        ),
    )


def test_base_fee_makes_the_stop_smaller() -> None:
    """With the fee taken in base the stop covers what is owned, on the lot."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.submit(buy(quantity=D("0.4")))
        await engine.desk.keeper.idle()
        stop = engine.book.working_stop(BTC)
        assert stop is not None
        assert engine.positions[BTC].quantity == D("0.3996")
        assert stop.quantity == D("0.3996")
        assert (await venue.balances())["BTC"].total == D("0.3996")

    from execkit.model.instrument import Instrument

    instrument = Instrument.default(
        BTC, fee_in_base=True, taker_fee=D("0.001"), maker_fee=D("0.001")
    )
    play(body, instruments=[instrument])


def test_stopping_waits_for_the_stop_on_its_way() -> None:
    """Leaving right after the fill leaves no naked position: the protective stop rests at the venue."""

    async def main(clock: VirtualClock) -> None:
        venue = MockExchange(clock=clock, latency=timedelta(milliseconds=50))
        async with ExecutionEngine(venue, journal=None, clock=clock, currency="USDT") as engine:
            result = await engine.submit(buy())
        [stop] = venue.core.open_orders(None)
        assert result.outcome is Outcome.FILLED
        assert (stop.type, stop.quantity) == (OrderType.STOP, result.filled)
        assert engine.book.working_stop(BTC) is not None

    run_virtual(main)


def test_stopping_says_what_it_leaves_unprotected() -> None:
    """When protection does not come about in the time to drain, an alarm names the symbol."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.submit(buy())
        await engine.stop(drain=0.5)
        assert [a.symbol for a in engine.book.alarms if a.code == "STOPPED_UNPROTECTED"] == [BTC]

    play(
        body,
        Fault(on="place", kind="not_sent", only=lambda request: request.type is OrderType.STOP),
    )


def test_hanging_subscriber_does_not_hold_up_the_stop() -> None:
    """An observer that never returns is cut off after the time to drain."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        async def never(_event: Event) -> None:
            await asyncio.Event().wait()

        engine.events.subscribe(OrderFilled, never)
        await engine.submit(buy())
        began = asyncio.get_running_loop().time()
        await engine.stop(drain=2)
        assert asyncio.get_running_loop().time() - began < 5

    play(body)


def test_resting_limit_exit_is_held_as_the_target() -> None:
    """A limit exit above the market never takes the stop's place; the touch closes the position."""

    async def body(engine: ExecutionEngine, venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.submit(buy())
        await engine.desk.keeper.idle()
        result = await engine.submit(sell(limit_price=D(42_300)))
        assert result.outcome is Outcome.WORKING
        assert "held as the target at 42300" in result.reason
        stop = engine.book.working_stop(BTC)
        assert stop is not None
        assert stop.quantity == engine.positions[BTC].quantity
        part = await engine.submit(sell(limit_price=D(42_300), quantity=D("0.1")))
        assert part.denial is not None
        assert part.denial.code is DenialCode.ORDER_TYPE_UNSUPPORTED
        venue.set_price(BTC, D(42_300))
        await asyncio.sleep(1)
        await engine.desk.keeper.idle()
        assert engine.positions == {}
        assert await venue.open_orders() == []

    play(body)


def test_strategy_preset_asks_for_strength() -> None:
    """`RiskLimits.strategy()` denies what is weaker than 70, whatever validation lets pass."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        weak = await engine.submit(buy(strength=69, take_profit=D(43_100)))
        assert weak.denial is not None
        assert str(weak.denial) == "SIGNAL_TOO_WEAK: strength=69, limit=70"
        strong = await engine.submit(buy(strength=70, take_profit=D(43_100)))
        assert strong.outcome is Outcome.FILLED

    play(body, pipeline=chain(RiskLimits.strategy()))


def test_stream_of_signals_is_followed() -> None:
    """Each signal of a stream is submitted; one in conflict raises an alarm and stops nothing."""

    async def stream() -> AsyncIterator[TradingSignal]:
        yield buy(signal_id="a")
        yield buy(signal_id="a", strength=81)
        yield buy(symbol="ETH/USDT", signal_id="b", stop_loss=D(1_990), take_profit=D(2_100))

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        await engine.follow(stream())
        await asyncio.sleep(1)
        assert set(engine.positions) == {BTC, "ETH/USDT"}
        assert [alarm.code for alarm in engine.book.alarms] == ["TASK_FAILED"]

    play(body, prices={BTC: D(42_000), "ETH/USDT": D(2_000)})


def test_blind_start_is_refused() -> None:
    """An engine that cannot read the venue does not start."""

    async def body(*_: Any) -> None:
        raise AssertionError("not reached")

    with pytest.raises(ExchangeError):
        play(body, Fault(on="open", kind="server_error", nth=1))


def test_bad_calls_name_the_fix() -> None:
    """Wrong arguments and a stopped engine are refused in words."""
    with pytest.raises(ConfigurationError, match="exchange: "):
        ExecutionEngine("binance", journal=None)  # type: ignore[arg-type]

    async def main(clock: VirtualClock) -> None:
        engine = ExecutionEngine(MockExchange(clock=clock), journal=None, clock=clock)
        with pytest.raises(ExecKitError, match="not running"):
            await engine.submit(buy())
        async with engine:
            with pytest.raises(ConfigurationError, match="not a TradingSignal"):
                await engine.submit("buy")  # type: ignore[arg-type]

    run_virtual(main)


def test_fixed_quantity_sizing() -> None:
    """A sizing method of the caller decides the quantity."""
    pipeline = ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(D("0.1"))),
            OrderExecutorHandler(),
            ReconciliationHandler(),
        ]
    )

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        assert (await engine.submit(buy())).filled == D("0.1")

    play(body, pipeline=pipeline)


def test_queue_record_keeps_the_whole_signal() -> None:
    """What is queued can be decoded into the same signal after a restart."""

    async def body(engine: ExecutionEngine, _venue: MockExchange, _clock: VirtualClock) -> None:
        signal = buy(signal_id="q", max_age=timedelta(hours=1))
        await engine.submit(signal)
        queued = engine.book.queued["q"]
        assert isinstance(queued, SignalQueued)
        again = engine.parts.decode_signal(queued)
        assert again.digest == signal.digest == queued.signal_digest
        assert again.max_age == timedelta(hours=1)

    play(body, Fault(on="place", kind="error", error=MarketClosedError("closed")))

"""What becomes of an order whose outcome is unknown; each test pins a row of docs/explanation/unknown-outcomes.md."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit import (
    Capabilities,
    DenialCode,
    DuplicateClientOrderIdError,
    ExecutionEngine,
    MemoryJournal,
    OrderState,
    Outcome,
    Side,
    TradingSignal,
    TradingState,
    run_virtual,
)
from execkit.testing import Fault, FaultScript, MockExchange

BTC = "BTC/USDT"
PATIENT = Capabilities(absence_window=timedelta(seconds=60), reduce_only=True, amend=True)
NEVER = Capabilities(absence_window=None, reduce_only=True, amend=True)


def buy(**changes):
    options = {"symbol": BTC, "side": Side.BUY, "stop_loss": Decimal(41_500), "signal_id": "buy"}
    return TradingSignal(**(options | changes))


def play(body, *faults, journal=None, **mock):
    """Run `body(engine, venue)` with the faults striking entries."""

    async def main(clock):
        venue = MockExchange(script=FaultScript(faults), clock=clock, **mock)
        async with ExecutionEngine(
            venue,
            journal=journal or MemoryJournal("mock"),
            clock=clock,
            rng=random.Random(1),
            currency="USDT",
        ) as engine:
            await body(engine, venue)
            await asyncio.sleep(1)

    run_virtual(main)


def entries(venue):
    return [received for received in venue.received if not received.request.reduce_only]


ARRIVED = {
    "time-out": {"kind": "timeout", "takes": timedelta(seconds=3)},
    "connection lost": {"kind": "lost"},
    "Python's own error": {"kind": "lost", "raw": True},
    "server error": {"kind": "server_error"},
    "never an answer": {"kind": "hang"},
}


@pytest.mark.parametrize("what", ARRIVED.values(), ids=ARRIVED)
def test_an_order_that_arrived_is_found_and_not_sent_again(what):
    """No answer came, and the venue has the order: it is looked up by its id and its fills count."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert (result.outcome, len(entries(venue))) == (Outcome.FILLED, 1)
        assert engine.positions[BTC].quantity == result.filled

    play(body, Fault(on="place", nth=1, reached=True, **what))


@pytest.mark.parametrize("what", ARRIVED.values(), ids=ARRIVED)
def test_an_order_that_provably_did_not_arrive_is_sent_again_under_its_id(what):
    """The venue's "I do not have it" is final here, so the same order goes out once more."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert result.outcome is Outcome.FILLED
        assert [r.client_order_id for r in entries(venue)] == list(result.client_order_ids)

    play(body, Fault(on="place", nth=1, reached=False, **what))


@pytest.mark.parametrize(
    "spoil", ["no_id", "unknown_status", "other_quantity", "overfilled", "not_a_number"]
)
def test_an_answer_that_cannot_be_true_is_no_answer(spoil):
    """The order is looked up; the spoiled figures count nowhere."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert (result.outcome, len(entries(venue))) == (Outcome.FILLED, 1)
        assert result.filled == result.requested
        assert engine.trading_state is TradingState.ACTIVE

    play(body, Fault(on="place", kind="malformed", nth=1, spoil=spoil))


@pytest.mark.parametrize("spoil", ["other_client_id", "other_symbol", "other_side"])
def test_an_answer_about_another_order_halts_trading(spoil):
    """The order is looked up, and nothing is added until a person has looked."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert (result.outcome, len(entries(venue))) == (Outcome.FILLED, 1)
        assert engine.trading_state is TradingState.HALTED
        again = await engine.submit(buy(symbol="ETH/USDT", signal_id="b", stop_loss=None))
        assert again.denial.code is DenialCode.TRADING_HALTED

    prices = {BTC: Decimal(42_000), "ETH/USDT": Decimal(2_500)}
    play(body, Fault(on="place", kind="malformed", nth=1, spoil=spoil), prices=prices)


def test_a_duplicate_id_is_looked_up():
    """An earlier try may have arrived: the refusal of the second says nothing about the first."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert result.outcome is Outcome.FILLED
        (client_order_id,) = result.client_order_ids
        assert venue.accepted(client_order_id) == 1

    error = DuplicateClientOrderIdError("used before")
    play(body, Fault(on="place", kind="error", nth=1, error=error))


def test_a_market_order_is_not_sent_again_while_its_absence_can_be_overtaken():
    """In doubt until the venue's window is over, then presumed absent and watched; one send in all."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert result.outcome is Outcome.IN_DOUBT
        await asyncio.sleep(90)
        assert result.order.state is OrderState.PRESUMED_ABSENT
        assert entries(venue) == []

    play(body, Fault(on="place", kind="lost", nth=1, reached=False), capabilities=PATIENT)


def test_a_resting_order_is_sent_again_once_it_is_proven_absent():
    """A limit order cannot execute twice unseen, so when the window is over it goes out again, byte for byte."""

    async def body(engine, venue):
        result = await engine.submit(buy(limit_price=Decimal(41_900)))
        assert result.outcome is Outcome.WORKING
        assert [r.client_order_id for r in entries(venue)] == list(result.client_order_ids)

    quick = Capabilities(absence_window=timedelta(seconds=5), reduce_only=True)
    play(body, Fault(on="place", kind="lost", nth=1, reached=False), capabilities=quick)


def test_an_order_that_shows_up_late_is_taken_back():
    """Presumed absent, then executed after all: its fills count, its position is protected, and an alarm tells."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert result.outcome is Outcome.IN_DOUBT
        await asyncio.sleep(90)
        assert result.order.state is OrderState.PRESUMED_ABSENT
        await asyncio.sleep(120)
        assert result.order.state is OrderState.FILLED
        assert engine.positions[BTC].stop_order_id is not None
        assert {"LATE_SIGHT", "LATE_FILL"} & {alarm.code for alarm in engine.book.alarms}

    late = Fault(on="place", kind="lost", nth=1, reached=True, arrives_after=timedelta(seconds=150))
    play(body, late, capabilities=PATIENT)


def test_without_proof_an_order_stays_in_doubt_and_blocks_its_symbol():
    """It counts in every limit, its symbol takes no entry, others do, and asking goes on."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert result.outcome is Outcome.IN_DOUBT
        await asyncio.sleep(3_600)
        assert result.order.state is OrderState.IN_DOUBT
        again = await engine.submit(buy(signal_id="again"))
        assert again.denial.code in (DenialCode.SYMBOL_BLOCKED, DenialCode.PENDING_ORDER_EXISTS)
        assert engine.account.reserved >= result.requested * 42_000
        other = await engine.submit(buy(symbol="ETH/USDT", signal_id="eth", stop_loss=None))
        assert other.outcome is Outcome.FILLED

    prices = {BTC: Decimal(42_000), "ETH/USDT": Decimal(2_500)}
    lost = Fault(on="place", kind="lost", nth=1, reached=False)
    play(body, lost, capabilities=NEVER, prices=prices)


def test_a_failed_query_is_no_proof_of_absence():
    """While the venue cannot be asked the order stays in doubt; once it can, it is found."""

    async def body(engine, venue):
        result = await engine.submit(buy())
        assert result.outcome is Outcome.IN_DOUBT
        await asyncio.sleep(60)
        assert result.order.state is OrderState.FILLED
        assert len(entries(venue)) == 1

    blind = (timedelta(0), timedelta(seconds=30))
    lost = Fault(on="place", kind="lost", nth=1, reached=True)
    no_stream = Fault(on="stream", kind="lose", window=blind)
    play(
        body,
        lost,
        no_stream,
        *(
            Fault(on=on, kind="server_error", window=(timedelta(microseconds=1), blind[1]))
            for on in ("get", "open", "fills")
        ),
        latency=timedelta(milliseconds=10),
    )


def test_a_cancel_of_an_order_that_was_filled_is_no_failure():
    """ "Not found" on cancel may well mean filled; the order is looked up."""

    async def body(engine, venue):
        working = await engine.submit(buy(limit_price=Decimal(41_000), stop_loss=Decimal(40_500)))
        assert working.outcome is Outcome.WORKING
        venue.connection.script = FaultScript([Fault(on="stream", kind="lose")])
        venue.execute(working.order.client_order_id)
        await engine.cancel(working.order)
        await working.order.done()
        assert working.order.state is OrderState.FILLED
        assert engine.positions[BTC].quantity == working.requested

    play(body)


@pytest.mark.parametrize("reached", [True, False])
def test_a_cancel_without_an_answer_is_asked_about_until_it_is_proven(reached):
    """Whether the venue got it or not, in the end the order is cancelled and nothing of it is live."""

    async def body(engine, venue):
        working = await engine.submit(buy(limit_price=Decimal(41_000), stop_loss=Decimal(40_500)))
        await engine.cancel(working.order)
        await asyncio.sleep(10)
        assert working.order.state is OrderState.CANCELLED
        assert await venue.open_orders() == []

    play(body, Fault(on="cancel", kind="timeout", nth=1, reached=reached))


def test_a_caller_who_gives_up_leaves_an_order_that_is_followed():
    """A cancelled task decides nothing: bytes may have left, so the order is looked up and protected."""

    async def body(engine, venue):
        task = asyncio.ensure_future(engine.submit(buy()))
        await asyncio.sleep(3.5)  # the quote took two seconds; the answer is under way
        assert len(entries(venue)) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(30)
        assert len(entries(venue)) == 1
        assert engine.positions[BTC].stop_order_id is not None
        again = await engine.submit(buy())
        assert again.outcome is Outcome.FILLED
        assert len(entries(venue)) == 1

    play(body, latency=timedelta(seconds=1))


@pytest.mark.parametrize("arrived", [True, False])
def test_a_process_that_died_while_sending_asks_at_its_next_start(arrived):
    """The journal has the intent; the venue says whether the order came to be, and nobody else does."""
    journal = MemoryJournal("mock")
    kept = []

    async def first(engine, venue):
        venue.connection.script = FaultScript([Fault(on="place", kind="hang", reached=arrived)])
        task = asyncio.ensure_future(engine.submit(buy()))
        await asyncio.sleep(0.1)
        # What was durable at the moment of the kill; whatever the engine does from here on is lost.
        kept.extend(journal.entries)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(first, journal=journal)
    after = MemoryJournal("mock")
    after.entries.extend(kept)

    async def main(clock):
        venue = MockExchange(clock=clock)
        if arrived:
            intent = next(e.record for e in kept if type(e.record).__name__ == "Intent")
            await venue.place_order(intent.request)
        async with ExecutionEngine(venue, journal=after, clock=clock, currency="USDT") as engine:
            await asyncio.sleep(5)
            assert bool(engine.positions) is arrived
            result = await engine.submit(buy())
            assert result.outcome is Outcome.FILLED
            assert len(entries(venue)) == 1

    run_virtual(main)

"""Breakers around reads and market data: quick refusals for entries, and never one for what is held."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import attrs
import pytest

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import (
    ExchangeUnavailableError,
    OrderNotFoundError,
    OrderRejectedError,
    RateLimitError,
    UnsupportedFeatureError,
)
from execkit.exchanges.base import MarketStatus
from execkit.guarded import GuardedAsk
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.model.denial import DenialCode
from execkit.model.order import Side
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.risk.breaker import Circuit
from execkit.testing import Fault, FaultScript, MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
D = Decimal


class Venue:
    """Answers or fails as told, and counts what it is asked."""

    def __init__(self):
        self.asked = []
        self.fails = None
        self.held = set()
        self.told = []
        self.passes = 1
        self.guarded = GuardedAsk(
            "reads",
            self.ask,
            is_held=self.held.__contains__,
            alarm=lambda code, text: self.told.append((code, text)),
            passes=lambda: self.passes,
        )

    async def ask(self, query, timeout, symbol):
        async with asyncio.timeout(timeout):
            return await query(symbol)

    async def query(self, symbol):
        self.asked.append(symbol)
        if self.fails == "hangs":
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails
        return symbol.lower()

    async def read(self, symbol=BTC):
        return await self.guarded(self.query, 5.0, symbol)

    async def fail(self, times, error=None):
        self.fails = error or ConnectionError("no route")
        for _ in range(times):
            with pytest.raises(type(self.fails)):
                await self.read()


def play(body):
    async def main(_clock):
        await body(Venue())

    run_virtual(main)


def test_a_comparison_that_succeeds_lets_it_try_at_once():
    """The venue is back: an entry does not wait for the rest of the pause; a trial that fails waits anew."""

    async def body(venue):
        await venue.fail(5)
        with pytest.raises(ExchangeUnavailableError, match="no reads are asked for 30 s"):
            await venue.read()
        venue.passes += 1
        with pytest.raises(ConnectionError):
            await venue.read()
        with pytest.raises(ExchangeUnavailableError, match="no reads are asked for 30 s: 6"):
            await venue.read()
        venue.passes += 1
        venue.fails = None
        assert await venue.read() == "btc/usdt"
        assert venue.guarded.breaker.state is Circuit.CLOSED

    play(body)


def test_five_failures_in_a_row_open_it_and_one_success_closes_it():
    """Four and a success are nothing; then half a minute of silence, one trial, and all is well again."""

    async def body(venue):
        await venue.fail(4)
        venue.fails = None
        assert await venue.read() == "btc/usdt"
        await venue.fail(5)
        seen = len(venue.asked)
        with pytest.raises(
            ExchangeUnavailableError, match="no reads are asked for 30 s: 5 failures"
        ):
            await venue.read()
        await asyncio.sleep(29.9)
        with pytest.raises(ExchangeUnavailableError, match="no reads are asked for 0 s"):
            await venue.read()
        assert len(venue.asked) == seen
        await asyncio.sleep(0.1)
        venue.fails = None
        assert await venue.read() == "btc/usdt"
        assert venue.guarded.breaker.state is Circuit.CLOSED
        assert [code for code, _ in venue.told] == ["CIRCUIT_OPEN"]
        assert venue.told[0][1] == (
            "5 reads in a row failed, the last one: ConnectionError('no route'); entries wait"
        )

    play(body)


def test_a_trial_that_fails_opens_it_again_without_news():
    """A person knows already."""

    async def body(venue):
        await venue.fail(5)
        await asyncio.sleep(30)
        await venue.fail(1, TimeoutError())
        with pytest.raises(ExchangeUnavailableError, match="for 30 s: 6 failures"):
            await venue.read()
        assert len(venue.told) == 1

    play(body)


@pytest.mark.parametrize(
    "nothing",
    [
        UnsupportedFeatureError("no hours"),
        RateLimitError("slower", retry_after=timedelta(seconds=1)),
    ],
)
def test_what_may_have_reached_nobody_is_neither_success_nor_failure(nothing):
    """A venue's pause is kept here: nothing was asked. A trial that comes to that is made once more."""

    async def body(venue):
        await venue.fail(4)
        await venue.fail(3, nothing)
        assert venue.guarded.breaker.state is Circuit.CLOSED
        await venue.fail(1)
        assert venue.guarded.breaker.state is Circuit.OPEN
        venue.passes += 1
        await venue.fail(2, nothing)
        venue.fails = None
        assert await venue.read() == "btc/usdt"

    play(body)


@pytest.mark.parametrize(
    "answer",
    [
        OrderRejectedError("unknown symbol"),
        OrderNotFoundError("none"),
    ],
)
def test_a_refusal_is_an_answer(answer):
    """One wrong symbol must not keep the others waiting."""

    async def body(venue):
        await venue.fail(4)
        await venue.fail(1, answer)
        await venue.fail(4)
        assert venue.guarded.breaker.state is Circuit.CLOSED
        assert venue.told == []

    play(body)


def test_what_is_held_is_asked_all_the_same():
    """Open or not; and when that works, so does the rest."""

    async def body(venue):
        await venue.fail(5)
        venue.held.add(ETH)
        with pytest.raises(ConnectionError):
            await venue.read(ETH)
        with pytest.raises(ExchangeUnavailableError):
            await venue.read(BTC)
        venue.fails = None
        assert await venue.read(ETH) == "eth/usdt"
        assert await venue.read(BTC) == "btc/usdt"

    play(body)


@pytest.mark.parametrize("held", [False, True])
def test_a_trial_that_is_called_off_says_nothing(held):
    """Whoever asks next is the trial."""

    async def body(venue):
        await venue.fail(5)
        await asyncio.sleep(30)
        venue.fails = "hangs"
        if held:
            venue.held.add(BTC)
        asking = asyncio.ensure_future(venue.read())
        await asyncio.sleep(1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        venue.held.clear()
        venue.fails = None
        assert await venue.read() == "btc/usdt"

    play(body)


# -- in an engine ------------------------------------------------------------------------------------------


class Sessions(MockExchange):
    """A mock whose reads fail when told to."""

    is_down = False
    asked = 0

    @property
    def capabilities(self):
        return attrs.evolve(super().capabilities, quote_stream=False)

    async def market_status(self, symbol):
        self.asked += 1
        return MarketStatus(is_open=True)

    async def instrument(self, symbol):
        if self.is_down:
            self.asked += 1
            raise ConnectionError("no route")
        return await super().instrument(symbol)


def signal(symbol, **changes):
    price = {BTC: 42_000, ETH: 2_500}.get(symbol, 1)
    return TradingSignal(
        **{
            "symbol": symbol,
            "side": Side.BUY,
            "confluence": 4,
            "quantity": D(200) / price // D("0.001") * D("0.001"),
            **changes,
        }
    )


def trade(body):
    async def main(clock):
        venue = Sessions(
            clock=clock, prices={BTC: D(42_000), ETH: D(2_500)}, balances={"USDT": D(100_000)}
        )
        chain = standard_pipeline().insert(MarketHoursHandler(), before="OrderExecutorHandler")
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            await body(engine, venue)

    run_virtual(main)


def test_entries_are_refused_at_once_while_reads_fail_and_exits_pass():
    """The rules of a symbol cannot be had; what is held is closed all the same."""

    async def body(engine, venue):
        assert (await engine.submit(signal(BTC))).outcome is Outcome.FILLED
        venue.is_down = True
        for _ in range(6):
            denied = await engine.submit(signal(ETH))
            assert denied.denial.code is DenialCode.VENUE_UNAVAILABLE
        assert "no reads are asked for" in denied.reason
        out = await engine.submit(signal(BTC, side=Side.SELL, quantity=None))
        assert out.outcome is Outcome.FILLED
        venue.is_down = False
        await asyncio.sleep(31)
        assert (await engine.submit(signal(ETH))).outcome is Outcome.FILLED

    trade(body)


def test_prices_have_a_breaker_of_their_own():
    """No quote can be fetched: entries are refused at once; orders and reads go on, and so do exits."""

    async def body(engine, venue):
        assert (await engine.submit(signal(BTC))).outcome is Outcome.FILLED
        script = FaultScript([Fault(on="ticker", kind="server_error")])
        venue.connection.script = script
        await asyncio.sleep(6)
        for _ in range(6):
            denied = await engine.submit(signal(ETH))
            assert denied.denial.code is DenialCode.QUOTE_STALE
        assert [alarm.text[:29] for alarm in engine.book.alarms] == [
            "5 prices in a row failed, the"
        ]
        assert engine.desk.reads.breaker.state is Circuit.CLOSED
        out = await engine.submit(signal(BTC, side=Side.SELL, quantity=None))
        assert out.outcome is Outcome.FILLED
        venue.connection.script = FaultScript()
        denied = await engine.submit(signal(ETH))
        assert denied.denial.code is DenialCode.QUOTE_STALE, "it is not asked for yet"
        await asyncio.sleep(31)
        assert (await engine.submit(signal(ETH))).outcome is Outcome.FILLED

    trade(body)

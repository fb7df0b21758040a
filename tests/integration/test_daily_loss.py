"""The day's loss limit over what is realised and what is not, across restarts and midnight, in virtual time."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from execkit.engine import ExecutionEngine
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.journal.base import MemoryJournal
from execkit.model.denial import DenialCode
from execkit.model.market import Quote
from execkit.model.order import Side
from execkit.model.records import TradingState
from execkit.model.signal import TradingSignal
from execkit.pipeline import ExecutionPipeline
from execkit.risk.limits import RiskLimits
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH = "BTC/USDT", "ETH/USDT"
D = Decimal
LIMIT = D(75)
BEFORE_MIDNIGHT = datetime(2024, 3, 12, 23, 30, tzinfo=UTC)


class Days:
    """One account that lives on while the processes that trade it come and go."""

    def __init__(self, clock):
        self.clock = clock
        self.venue = MockExchange(
            clock=clock,
            prices={BTC: D(42_000), ETH: D(2_500)},
            balances={"USDT": D(100_000)},
            taker_fee=D(0),
            maker_fee=D(0),
        )
        self.journal = MemoryJournal()
        self.engine = None

    async def start(self):
        limits = RiskLimits.engine(daily_loss_amount=LIMIT)
        chain = [ValidationHandler(), RiskManagementHandler(limits)]
        chain += [OrderExecutorHandler(), ReconciliationHandler()]
        self.engine = ExecutionEngine(
            self.venue, journal=self.journal, clock=self.clock, pipeline=ExecutionPipeline(chain)
        )
        await self.engine.start()

    async def restart(self):
        await self.engine.stop()
        again = MemoryJournal()
        for kept in self.journal.entries:
            again.append(kept.record, kept.at)
        self.journal = again
        await self.start()

    async def submit(self, symbol=BTC, side=Side.BUY, quantity="0.1"):
        values = {"confluence": 4, "quantity": D(quantity)}
        if symbol == BTC and side is Side.BUY:
            values["stop_loss"] = D("0.9801") * self.venue.core.quote(BTC).mid
        result = await self.engine.submit(TradingSignal(symbol=symbol, side=side, **values))
        await self.engine.desk.keeper.idle()
        return result

    async def move(self, price):
        quote = Quote(BTC, D(price), D(price), self.clock.now(), last=D(price))
        self.venue.feed_quote(quote)
        await self.clock.sleep_until(self.clock.now() + timedelta(seconds=2))

    async def until(self, at):
        await self.clock.sleep_until(at)

    async def is_denied(self):
        """Tell whether the limit keeps an entry of another symbol out."""
        result = await self.submit(ETH, quantity="0.1")
        return result.denial is not None and result.denial.code is DenialCode.DAILY_LOSS_REACHED


def play(body):
    async def main(clock):
        days = Days(clock)
        await days.start()
        try:
            await body(days)
        finally:
            await days.engine.stop()

    run_virtual(main, start=BEFORE_MIDNIGHT)


async def lose_forty(days):
    """Realise a loss of 40: 0.1 BTC, 400 lower."""
    price = days.venue.core.quote(BTC).mid
    assert (await days.submit()).filled == D("0.1")
    await days.move(price - 400)
    assert (await days.submit(side=Side.SELL)).filled == D("0.1")


def test_what_is_not_realised_counts_and_the_state_outlives_the_process():
    """An open loss trips the limit; then only reductions leave, also after a restart and when the price is back."""

    async def body(days):
        await days.submit()
        await days.move(41_240)
        assert await days.is_denied()
        assert days.engine.trading_state is TradingState.REDUCING
        await days.restart()
        assert days.engine.trading_state is TradingState.REDUCING
        await days.move(42_000)
        denied = await days.submit(ETH, quantity="0.1")
        assert denied.denial.code is DenialCode.TRADING_REDUCING
        assert (await days.submit(side=Side.SELL)).filled == D("0.1")

    play(body)


@pytest.mark.parametrize("restart", [False, True])
def test_realised_and_open_losses_add_up_over_a_restart(restart):
    """40 that were lost by one process and 40 that the next one holds are more than 75."""

    async def body(days):
        await lose_forty(days)
        if restart:
            await days.restart()
        assert (await days.submit()).filled == D("0.1")
        await days.move(41_260)
        assert not await days.is_denied()
        await days.move(41_200)
        await days.submit(ETH, Side.SELL, "0.1")
        assert await days.is_denied()

    play(body)


@pytest.mark.parametrize("restart", [False, True])
def test_midnight_does_not_forgive(restart):
    """Before midnight 40, after it 40: each day stays below the limit, the last 24 hours do not."""

    async def body(days):
        await lose_forty(days)
        await days.until(datetime(2024, 3, 13, 0, 20, tzinfo=UTC))
        if restart:
            await days.restart()
        assert any(mark.opens_session for mark in list(days.engine.book.equity_marks)[1:])
        await days.move(41_600)
        assert (await days.submit()).filled == D("0.1")
        await days.move(41_200)
        assert await days.is_denied()
        assert days.engine.trading_state is TradingState.REDUCING
        await days.submit(side=Side.SELL)
        # A day later the first loss is of the past; a person releases the state.
        await days.until(datetime(2024, 3, 14, 0, 0, tzinfo=UTC))
        await days.restart()
        await days.engine.resume()
        assert not await days.is_denied()

    play(body)

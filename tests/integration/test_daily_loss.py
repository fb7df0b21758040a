"""The day's loss limit over what is realised and what is not, across restarts and midnight, in virtual time."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from execkit.engine import ExecutionEngine
from execkit.errors import ExchangeUnavailableError
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.journal.base import MemoryJournal
from execkit.loss_watch import LossWatch
from execkit.model.denial import DenialCode
from execkit.model.events import SystemError, TradingStateSet  # noqa: A004 - promised name
from execkit.model.market import Quote
from execkit.model.order import OrderRole, Side
from execkit.model.records import BalancesSeen, Source, TradingState
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
        return result.denial is not None and result.denial.code in (
            DenialCode.DAILY_LOSS_REACHED,
            DenialCode.TRADING_REDUCING,
        )

    async def transfer(self, **amounts):
        """Pay in or out at the venue, and let the engine compare often enough to believe it."""
        for asset, amount in amounts.items():
            self.venue.core.deposit(asset, D(amount))
        for _ in range(3):
            await self.clock.sleep_until(self.clock.now() + timedelta(seconds=4))
            await self.engine.desk.reconciler.run()

    @property
    def state(self):
        return self.engine.trading_state

    @property
    def alarms(self):
        return [alarm for alarm in self.engine.book.alarms if alarm.code == "DAILY_LOSS"]


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
        assert days.state is TradingState.REDUCING
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
        assert days.state is TradingState.ACTIVE
        await days.move(41_200)
        assert days.state is TradingState.REDUCING
        assert await days.is_denied()
        await days.submit(side=Side.SELL)
        # A day later the first loss is of the past; a person releases the state.
        await days.until(datetime(2024, 3, 14, 0, 0, tzinfo=UTC))
        await days.restart()
        await days.engine.resume()
        assert not await days.is_denied()

    play(body)


# -- when it is noticed ------------------------------------------------------------------------------------


def test_a_price_that_takes_the_limit_is_told_at_once():
    """No entry is needed to find out: the state, one alarm and both events come with the price."""

    async def body(days):
        told = []
        days.engine.events.subscribe(SystemError, lambda event: told.append(event.code))
        days.engine.events.subscribe(TradingStateSet, lambda event: told.append(event.state))
        await days.submit()
        await days.move(41_251)
        assert days.state is TradingState.ACTIVE, "a loss of 74.9"
        await days.move(41_250)
        assert days.state is TradingState.REDUCING
        await days.move(41_000)
        await days.move(42_000)
        assert [alarm.text for alarm in days.alarms] == [
            "daily loss 75 reached the limit 75: only reductions leave until it is released"
        ]
        assert told == ["reducing", "DAILY_LOSS"]

    play(body)


def test_a_price_of_something_else_is_not_looked_at():
    """Only what is held can lose: a quote of another symbol costs no look."""

    async def body(days):
        looks = []
        watch = LossWatch(days.engine.desk, "USDT", ())
        watch._look_soon = lambda: looks.append(1)
        await days.submit()
        seen = len(looks)
        watch.on_quote(Quote(ETH, D(1), D(1), days.clock.now()))
        assert len(looks) == seen
        watch.on_quote(Quote(BTC, D(1), D(1), days.clock.now()))
        assert len(looks) == seen + 1

    play(body)


def test_without_a_price_of_what_is_held_nothing_is_looked_at():
    """A gain of days, valued at what was paid, would look like today's loss: after a restart that has no quotes yet."""

    async def body(days):
        await days.submit()
        await days.move(46_000)
        days.engine.parts.upkeep.mark_equity()
        await days.engine.stop()
        again = MemoryJournal()
        for kept in days.journal.entries:
            again.append(kept.record, kept.at)
        days.journal = again
        answers = days.venue.ticker

        async def blind(symbol):
            raise ExchangeUnavailableError("blind")

        days.venue.ticker = blind
        await days.start()
        await days.clock.sleep_until(days.clock.now() + timedelta(seconds=2))
        assert days.engine.trading_state is TradingState.ACTIVE
        days.venue.ticker = answers
        await days.move(45_900)
        await days.clock.sleep_until(days.clock.now() + timedelta(seconds=2))
        assert days.engine.trading_state is TradingState.ACTIVE

    play(body)


def test_nothing_is_looked_at_after_the_end():
    """A look that was to come is called off; until then it would have found the loss of 20."""

    async def body(days):
        await days.submit()
        handler = RiskManagementHandler(RiskLimits(daily_loss_amount=D(20)))
        for stops in (True, False):
            watch = LossWatch(days.engine.desk, "USDT", [handler])
            watch.start(days.engine.parts.upkeep.spawn)
            days.engine.book.marks[BTC] = D(41_800)
            watch.on_quote(days.venue.core.quote(BTC))
            if stops:
                await watch.stop()
            await days.until(days.clock.now() + timedelta(milliseconds=1))
            assert days.state is (TradingState.ACTIVE if stops else TradingState.REDUCING)
            days.engine.book.marks[BTC] = D(42_000)

    play(body)


def test_a_fill_that_takes_the_limit_is_told_at_once():
    """The market stands where it was; the exit is executed far below it."""

    async def body(days):
        await days.submit()
        (order,) = (o for o in days.engine.orders.values() if o.role is OrderRole.ENTRY)
        late = order.fills[0]
        corrected = replace(late, trade_id="worse", price=D(42_800), replaces=late.trade_id)
        days.engine.desk.gateway.intake.take_fill(corrected, Source.STREAM, is_listed=True)
        await days.until(days.clock.now() + timedelta(milliseconds=1))
        assert days.state is TradingState.REDUCING

    play(body)


def test_a_trade_by_hand_that_takes_the_limit_is_told_when_it_is_seen():
    """Somebody sold at the venue far below the market: holdings moved both ways, so it is a loss, no transfer."""

    async def body(days):
        await days.submit()
        await days.transfer(BTC="-0.1", USDT="4120")
        assert days.state is TradingState.REDUCING
        (seen,) = [r for r in records(days, BalancesSeen) if r.source is Source.RECONCILE]
        assert seen.transferred is None

    play(body)


def test_a_state_that_is_released_too_early_comes_back():
    """The loss is still there, so is the limit; each release is answered."""

    async def body(days):
        await days.submit()
        await days.move(41_200)
        await days.engine.resume()
        await days.until(days.clock.now() + timedelta(seconds=1))
        assert days.state is TradingState.REDUCING
        assert len(days.alarms) == 2

    play(body)


@pytest.mark.parametrize("lost", [74, 75])
def test_a_start_looks_at_what_was_lost_meanwhile(lost):
    """The price went while no process ran; the next one tells before anything is asked of it."""

    async def body(days):
        await days.submit()
        await days.engine.stop()
        price = D(42_000) - 10 * lost
        days.venue.feed_quote(Quote(BTC, price, price, days.clock.now(), last=price))
        await days.restart()
        await days.until(days.clock.now() + timedelta(milliseconds=1))
        assert days.state is (TradingState.ACTIVE if lost < LIMIT else TradingState.REDUCING)

    play(body)


# -- what is paid in and out -------------------------------------------------------------------------------


def records(days, kind):
    return [kept.record for kept in days.journal.entries if isinstance(kept.record, kind)]


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
@pytest.mark.parametrize("paid", ["-50000", "50000"], ids=["out", "in"])
@pytest.mark.parametrize("midnight", [False, True], ids=["same day", "over midnight"])
def test_a_transfer_is_neither_loss_nor_gain(paid, restart, midnight):
    """Paid out, nothing trips; paid in, no loss is hidden: the limit is reached at the same price as without."""

    async def body(days):
        await days.submit()
        await days.move(41_500)
        await days.transfer(USDT=paid)
        assert days.engine.account.equity == D(100_000) - 50 + D(paid)
        assert [r.transferred for r in records(days, BalancesSeen)][1:] == [D(paid)]
        if midnight:
            await days.until(datetime(2024, 3, 13, 0, 20, tzinfo=UTC))
            assert any(mark.opens_session for mark in list(days.engine.book.equity_marks)[1:])
        if restart:
            await days.restart()
        await days.move(41_251)
        assert days.state is TradingState.ACTIVE, days.alarms
        await days.move(41_250)
        assert days.state is TradingState.REDUCING

    play(body)


def test_what_was_paid_out_while_nothing_ran_is_no_loss():
    """Found by the comparison at the start; of the same process's loss nothing is forgotten."""

    async def body(days):
        await lose_forty(days)
        await days.engine.stop()
        days.venue.core.deposit("USDT", D(-10_000))
        await days.restart()
        assert days.state is TradingState.ACTIVE
        (_, seen) = records(days, BalancesSeen)
        assert (seen.source, seen.transferred) == (Source.RECOVERY, D(-10_000))
        await lose_forty(days)
        await days.until(days.clock.now() + timedelta(milliseconds=1))
        assert days.state is TradingState.REDUCING

    play(body)


def test_coins_that_are_paid_in_count_at_their_price():
    """A tenth of a bitcoin comes and goes: no gain that would hide a loss, and no loss."""

    async def body(days):
        await days.move(41_000)
        await days.transfer(BTC="0.1")
        assert days.engine.account.equity == 104_100
        assert records(days, BalancesSeen)[-1].transferred == 4_100
        await days.move(40_260)
        assert days.state is TradingState.ACTIVE, "lost 74 since it came"
        await days.transfer(BTC="-0.1")
        assert records(days, BalancesSeen)[-1].transferred == D("-4026")
        assert days.state is TradingState.ACTIVE

    play(body)


def test_the_first_sight_of_an_account_is_no_transfer():
    """There is nothing yet that it could be measured against."""

    async def body(days):
        (seen,) = records(days, BalancesSeen)
        assert (seen.totals, seen.transferred) == ({"USDT": D(100_000)}, None)

    play(body)

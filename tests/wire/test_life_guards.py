"""What keeps entries from leaving, at each venue on the wire: nothing arrives there, and every reduction does."""

import asyncio
import os
import signal
from datetime import timedelta
from decimal import Decimal

from tests.support.life import chain, living, on

from execkit.handlers.breaker import CircuitBreakerHandler
from execkit.handlers.confirmation import ConfirmationHandler
from execkit.handlers.throttle import RateLimitHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.denial import DenialCode
from execkit.model.order import Side
from execkit.model.records import TradingState, TradingStateChanged
from execkit.model.result import Outcome
from execkit.orders.waiting import Throttle
from execkit.pipeline import ExecutionPipeline
from execkit.risk.limits import RiskLimits

D = Decimal
HOUR = timedelta(hours=1)


async def shut(life, code, **entry):
    """See that an entry in another symbol is kept here for this reason, and that a part of the position can be sold."""
    taken = life.stage.taken()
    denied = await life.submit(symbol=life.stage.other, quantity=D(1), **entry)
    assert denied.outcome is Outcome.DENIED, denied
    assert denied.denial.code is code, denied
    assert life.stage.taken() == taken
    await reduce(life)


async def reduce(life):
    """Sell a part, and see what is left protected."""
    before = life.held()
    sold = await life.submit(Side.SELL, quantity=D(1))
    assert sold.outcome is Outcome.FILLED, sold
    await life.until(lambda: life.is_protected() and life.held() == before - 1, "reduced")


async def opens(life):
    """See that the same entry gets through, and close it again."""
    result = await life.submit(symbol=life.stage.other, quantity=D(1))
    assert result.outcome is Outcome.FILLED, result
    assert await life.engine.close_position(life.stage.other)
    await life.until(
        lambda: life.engine.book.positions.quantity(life.stage.other) < D("0.1"), "closed"
    )


@on()
async def test_switches(name, tmp_path):
    """Halted, reducing, the kill switch by file and by signal: until a person resumes, also across a restart."""
    journal = tmp_path / "orders.db"
    async with living(name, journal=journal, halt_on_signal=True) as life:
        await life.enter()
        await life.engine.halt("by hand")
        await life.restart()
        await shut(life, DenialCode.TRADING_HALTED)
        await life.engine.resume()
        recorder = life.engine.desk.recorder
        reducing = TradingStateChanged(state=TradingState.REDUCING, cause="slowly", actor="test")
        recorder.record(reducing)
        await shut(life, DenialCode.TRADING_REDUCING)
        await life.engine.resume()
        switch = tmp_path / "orders.db.halt"
        switch.touch()
        await shut(life, DenialCode.TRADING_HALTED)
        switch.unlink()
        await life.engine.resume()
        os.kill(os.getpid(), signal.SIGUSR1)
        await life.until(
            lambda: life.engine.trading_state is TradingState.HALTED, "halted by signal"
        )
        await shut(life, DenialCode.TRADING_HALTED)
        await life.engine.resume()
        await opens(life)


@on()
async def test_limits(name, tmp_path):
    """Price collar per order and over time, a correlation group, day trades, daily loss, and the venue's own rate."""
    limits = RiskLimits(
        groups={"alike": _PAIRS[name]},
        max_group_pct=D(4),
        max_day_trades=2,
        day_trades_free_above=D(10_000_000),
        daily_loss_amount=D(15),
    )
    validation = ValidationHandler(max_move_pct=D("1.5"))

    def make_chain():
        handlers = list(chain(limits=limits).handlers)
        handlers[0] = validation
        return ExecutionPipeline(handlers)

    async with living(name, journal=tmp_path / "orders.db", make_chain=make_chain) as life:
        await life.enter()
        await shut(life, DenialCode.PRICE_OUTSIDE_COLLAR, limit_price=D(230))
        other = {"quantity": D(15), "symbol": life.stage.other}
        taken = life.stage.taken()
        denied = await life.submit(**other)
        assert (denied.outcome, denied.denial.code) == (Outcome.DENIED, DenialCode.GROUP_TOO_LARGE)
        assert life.stage.taken() == taken
        gateway = life.engine.desk.gateway
        gateway.throttle, gateway._longest_pause = Throttle((100, HOUR)), 0.05
        gateway.throttle._sent.extend([asyncio.get_running_loop().time()] * 80)
        await shut(life, DenialCode.THROTTLED)
        gateway.throttle = Throttle(None)
        await life.stage.move_other(D(204))
        await life.until(
            lambda: life.engine.desk.quotes.last(life.stage.other).bid == 204, "a quote"
        )
        await shut(life, DenialCode.PRICE_MOVED)
        validation.max_move_pct = None
        await opens(life)
        await shut(life, DenialCode.DAY_TRADES_REACHED)
        await life.move(D("197.1"))
        await life.until(lambda: life.engine.trading_state is TradingState.REDUCING, "reducing")
        assert [a.code for a in life.engine.book.alarms if a.code == "DAILY_LOSS"] == ["DAILY_LOSS"]
        await shut(life, DenialCode.TRADING_REDUCING)
        await life.restart()
        assert life.engine.trading_state is TradingState.REDUCING
        await reduce(life)


_STOCKS = ("AAPL", "MSFT")
_PAIRS = {
    "binance": ("BTC/USDT", "ETH/USDT"),
    "usdm": ("BTC/USDT:USDT", "ETH/USDT:USDT"),
    "alpaca": _STOCKS,
    "ibkr": _STOCKS,
}


@on()
async def test_handlers(name):
    """A circuit breaker, a pace of entries and a person who is asked: none of them holds a reduction up."""
    asked, answer = [], [True]

    async def ask(ticket):
        asked.append(ticket.side)
        return answer[0]

    breaker = CircuitBreakerHandler(failures=2, open_for=HOUR)
    pace = RateLimitHandler(4, HOUR, max_wait=timedelta(0))
    guards = (breaker, ConfirmationHandler(ask))
    async with living(name, make_chain=lambda: chain(before=(pace,), guards=guards)) as life:
        await life.enter()
        answer[0] = False
        await shut(life, DenialCode.NOT_CONFIRMED)
        answer[0] = True
        life.refuse(2)
        for _ in range(2):
            failed = await life.submit(symbol=life.stage.other, quantity=D(1))
            assert failed.outcome is Outcome.REJECTED, failed
        assert life.alarms() == ["CIRCUIT_OPEN"]
        await shut(life, DenialCode.THROTTLED)
        pace._turns.clear()
        await shut(life, DenialCode.CIRCUIT_OPEN)
        assert asked == [Side.BUY] * 4, "a reduction asks nobody"

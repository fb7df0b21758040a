"""`can_open` says what the gateway and the limits of the chain would say of an entry."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import RateLimitError
from execkit.handlers.risk import RiskManagementHandler
from execkit.model.market import Quote
from execkit.model.order import Side
from execkit.model.records import SymbolBlocked
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Twap
from execkit.risk.limits import RiskLimits
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

BTC, ETH, SOL = "BTC/USDT", "ETH/USDT", "SOL/USDT"
D = Decimal
PRICES = {BTC: D(40_000), ETH: D(2_500), SOL: D(100)}


def buy(symbol=BTC, quantity="0.01", **changes):
    values = {"side": Side.BUY, "confluence": 4, "quantity": D(quantity), "symbol": symbol}
    return TradingSignal(**(values | changes))


def lived(body, **limits):
    async def main(clock):
        venue = MockExchange(clock=clock, prices=PRICES, balances={"USDT": D(100_000)})
        risk = RiskManagementHandler(RiskLimits(**limits))
        chain = standard_pipeline().replace("RiskManagementHandler", risk)
        async with ExecutionEngine(venue, journal=None, clock=clock, pipeline=chain) as engine:
            assert engine.can_open(BTC) == (True, "")
            await body(engine, clock)

    run_virtual(main)


async def refuses(engine, symbol, text):
    """The answer is no for this reason, and an entry is denied."""
    can, why = engine.can_open(symbol)
    assert (can, text in why) == (False, True), why
    assert (await engine.submit(buy(symbol))).denial is not None


def test_the_file_that_halts(tmp_path):
    """The gateway looks for it before each entry, and so it is asked here."""

    async def body(engine, _clock):
        engine.desk.gateway.halt_file = tmp_path / "halt"
        (tmp_path / "halt").touch()
        await refuses(engine, BTC, "halt exists")
        (tmp_path / "halt").unlink()
        assert engine.can_open(BTC) == (True, "")

    lived(body)


def test_a_journal_that_cannot_commit_and_a_venue_that_wants_a_pause():
    """No commit, no send; and what would wait for longer than half a minute is denied."""

    async def body(engine, _clock):
        engine.desk.recorder.journal.is_healthy = False
        await refuses(engine, BTC, "the journal cannot commit")
        engine.desk.recorder.journal.is_healthy = True
        pause = RateLimitError("ban", retry_after=timedelta(seconds=60))
        engine.desk.gateway.pace.note(pause)
        await refuses(engine, BTC, "VENUE_UNAVAILABLE")

    lived(body)


def test_what_the_book_says_first():
    """A halt with its cause, a venue that could not be read, and a symbol that is blocked."""

    async def body(engine, _clock):
        await engine.halt("tried")
        await refuses(engine, BTC, "trading is halted: tried")
        await engine.resume()
        engine.desk.reconciler.is_blind = True
        await refuses(engine, BTC, "the venue could not be read")
        engine.desk.reconciler.is_blind = False
        block = SymbolBlocked(symbol=BTC, blocked=True, cause="a test")
        engine.desk.recorder.record(block)
        await refuses(engine, BTC, "BTC/USDT is blocked: a test")
        assert engine.can_open(ETH) == (True, "")

    lived(body)


def test_an_order_in_slices_that_is_under_way():
    """Between two slices no order rests, and the parent's reservation holds all the same."""

    async def body(engine, _clock):
        slices = Twap(duration=timedelta(hours=1), slices=4)
        await engine.submit(buy(quantity="0.04", slicing=slices))
        for _ in range(20):
            await asyncio.sleep(1)
        assert not engine.book.orders.open_entries(BTC)
        await refuses(engine, BTC, "under way")

    lived(body)


@pytest.mark.parametrize("most", [1, 2])
def test_all_positions_are_used(most):
    """As many as the chain's limits let be, and no more."""

    async def body(engine, _clock):
        for symbol in (BTC, ETH)[:most]:
            assert engine.can_open(symbol) == (True, "")
            assert (await engine.submit(buy(symbol))).filled
        await refuses(engine, SOL, "TOO_MANY_POSITIONS")

    lived(body, max_concurrent_positions=most)


def test_more_of_a_position_where_scaling_in_is_on():
    """Of a winner, and as often as the limits say; without it a position is a no."""

    async def add(engine, clock):
        assert (await engine.submit(buy(stop_loss=D(39_600)))).filled
        await refuses(engine, BTC, "gain=")
        venue = engine.desk.adapter
        venue.feed_quote(Quote(BTC, D(40_500), D(40_501), clock.now(), last=D(40_500)))
        await asyncio.sleep(6)
        await engine.desk.quotes.get(BTC)
        assert engine.can_open(BTC) == (True, "")
        assert (await engine.submit(buy(stop_loss=D(40_100)))).filled

    async def refuse(engine, _clock):
        assert (await engine.submit(buy())).filled
        await refuses(engine, BTC, "POSITION_EXISTS")

    lived(add, scale_in=True)
    lived(refuse)

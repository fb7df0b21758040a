"""Paper trading on the live data of each venue on the wire: a closed bar fires, the fill is on paper, no order leaves.

From Python and from the command line, which runs in a thread of its own, because it makes a loop of its own.
"""

import asyncio
import random
import threading
from datetime import timedelta
from decimal import Decimal

import pytest
import structlog
from click.testing import CliRunner
from tests.support.alpaca import adapter_of as alpaca_adapter
from tests.support.stages import OPEN, VENUES, SetClock, let_clock_be_set, paper_stage

from execkit.bars.live import LiveOptions
from execkit.cli import main
from execkit.clock import SystemClock
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError, ExchangeUnavailableError
from execkit.exchanges.paper import PaperExchange
from execkit.model.events import PositionOpened
from execkit.plans import TradePlan

D = Decimal
CLOSE = OPEN + timedelta(minutes=1)
PRICE = D(206)
PLAN = """
name: breakout
symbol: BTC/USDT
entry: [{function: close_above, timeframe: 1m, parameters: {threshold_price: 205}}]
risk: {sizing: {method: fixed_quantity, value: 2}}
"""


@pytest.fixture(autouse=True)
def quick_minutes(monkeypatch):
    let_clock_be_set(monkeypatch)


@pytest.fixture
def plan_file(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


@pytest.mark.parametrize("feed", VENUES)
async def test_a_plan_trades_on_the_venues_bars_and_prices(feed, plan_file):
    """The position costs the venue's ask, its stop rests on paper, and the venue has seen no order."""
    clock = SetClock()
    async with paper_stage(clock, feed) as stage:
        plan = TradePlan.load(plan_file).model_copy(update={"symbol": stage.symbol})
        engine = ExecutionEngine(
            stage.exchange,
            journal=None,
            plans=[plan],
            pipeline=plan.pipeline(),
            live=LiveOptions(),
            clock=clock,
            rng=random.Random(1),
        )
        opened = asyncio.Event()
        engine.events.subscribe(PositionOpened, lambda _event: opened.set())
        async with engine:
            await stage.end_minute(PRICE, CLOSE)
            async with asyncio.timeout(30):
                await opened.wait()
            await engine.desk.keeper.idle()
            position = engine.positions[stage.symbol]
            assert position.average_price == stage.venue.core.quote(stage.symbol).ask
            assert engine.book.working_stop(stage.symbol).remaining == stage.held() > 0
            assert engine.book.fired == {(stage.symbol, "1m"): CLOSE}
        assert stage.orders_sent() == 0


@pytest.fixture
def command_line(monkeypatch):
    """Let the command end when it has a position and its stop, instead of by Ctrl-C; return what tells that it runs."""
    ready = threading.Event()

    async def until_opened(engine, _seconds):
        opened = asyncio.Event()
        engine.events.subscribe(PositionOpened, lambda _event: opened.set())
        async with engine:
            ready.set()
            async with asyncio.timeout(60):
                await opened.wait()
            await engine.desk.keeper.idle()

    monkeypatch.setattr("execkit.cli.live._until_the_end", until_opened)
    yield ready
    structlog.reset_defaults()  # it configures logging, which outlives the test


OPTIONS = {
    "binance": lambda venue: [f"rest_url={venue.rest_url}", f"stream_url={venue.stream_url}"],
    "alpaca": lambda venue: [
        f"rest_url={venue.rest_url}",
        f"stream_url={venue.stream_url}",
        f"api_key={venue.key}",
        f"secret={venue.secret}",
    ],
    "ibkr": lambda venue: [f"port={venue.port}"],
}


@pytest.mark.parametrize("venue", VENUES)
async def test_the_command_line_trades_on_paper(venue, plan_file, monkeypatch, command_line):
    """`execkit paper --venue …` with nothing but the venue's address, and its key where data needs one."""
    clock = SetClock()
    monkeypatch.setattr(SystemClock, "now", lambda _self: clock.now())
    async with VENUES[venue](clock) as stage:
        options = [part for text in OPTIONS[venue](stage.venue) for part in ("--option", text)]
        command = ["paper", "--venue", venue, "--plan", str(plan_file), "--symbol", stage.symbol]
        running = asyncio.create_task(
            asyncio.to_thread(CliRunner().invoke, main, [*command, *options])
        )
        while not running.done() and not command_line.is_set():
            await asyncio.sleep(0.02)
        await stage.end_minute(PRICE, CLOSE)
        done = await running
        assert done.exit_code == 0, done.output
        assert f"breakout on {stage.symbol}" in done.output
        ask = stage.venue.core.quote(stage.symbol).ask.normalize()
        assert f"filled @ {ask}" in done.output
        assert stage.orders_sent() == 0


async def test_alpacas_data_needs_a_key_even_on_paper(monkeypatch):
    """It is said before anything is asked, with the names of the variables."""
    for name in ("ALPACA_API_KEY", "ALPACA_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    async with VENUES["alpaca"](SetClock()) as stage:
        feed = alpaca_adapter(stage.venue, api_key=None, secret=None)
        paper = PaperExchange(balances={"USD": D(1000)}, feed=feed, clock=stage.clock)
        with pytest.raises(ConfigurationError, match="ALPACA_API_KEY"):
            await paper.connect()
        await paper.close()
        assert stage.venue.requests == []


async def test_ibkrs_data_needs_the_gateway():
    """Without one the error says what to start."""
    async with VENUES["ibkr"](SetClock()) as stage:
        feed = stage.exchange
    paper = PaperExchange(balances={"USD": D(1000)}, feed=feed, clock=stage.clock)
    with pytest.raises(ExchangeUnavailableError, match="start TWS or the gateway"):
        await paper.connect()
    await paper.close()

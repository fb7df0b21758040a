"""What a configuration file adds to the standard chain and to an engine does what it says when the engine runs."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from aiohttp import web

from execkit.assembly import options_of
from execkit.config import Config
from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError, InvalidOrderError
from execkit.exchanges.factory import ExchangeFactory
from execkit.model.denial import DenialCode
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.notify.notifier import VARIABLE
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal
PLAIN = "exchange: {name: mock}\nstore: false\ncontrol: false\njournal: {durability: process}\n"


@pytest.fixture
def load(tmp_path):
    """A function that writes a file and loads it."""

    def write(text):
        path = tmp_path / "execkit.yaml"
        path.write_text(PLAIN + text)
        return Config.load(path, {})

    return write


def buy(signal_id, **changes):
    values = {"symbol": BTC, "side": Side.BUY, "confluence": 4, "quantity": D("0.02")}
    return TradingSignal(**(values | changes), signal_id=signal_id)


def mocks():
    factory = ExchangeFactory()
    factory.register("mock", lambda: MockExchange(prices={BTC: D(42_000)}))
    return factory


def lived(config, body):
    """Run *body* with the engine that a file describes, under virtual time."""
    options = options_of(config, mocks())

    async def main(clock):
        virtual = {"exchange": MockExchange(prices={BTC: D(42_000)}, clock=clock), "clock": clock}
        async with ExecutionEngine(**(options | virtual | {"functions": None})) as engine:
            await body(engine)

    run_virtual(main)


def names(config):
    return [type(link).__name__ for link in config.pipeline()]


STANDARD = [
    "ValidationHandler",
    "RiskManagementHandler",
    "OrderExecutorHandler",
    "ReconciliationHandler",
]


def test_guards_are_off_until_they_are_stated(load):
    """No file has them by accident; `{}` takes the defaults, each where it counts what would be sent."""
    assert names(load("")) == STANDARD
    assert names(load("breaker: null\nmarket_hours:\n")) == STANDARD
    full = load("market_hours: {}\nrate_limit: {count: 10}\nbreaker: {}\nconfirmation: {}\n")
    assert names(full) == [
        "MarketHoursHandler",
        *STANDARD[:2],
        "RateLimitHandler",
        "CircuitBreakerHandler",
        "ConfirmationHandler",
        *STANDARD[2:],
    ]
    hours, _, _, rate, breaker, asking, *_ = full.pipeline()
    assert (hours.queue_when_closed, hours.cancel_at_close) == (True, True)
    assert (rate.count, rate.per, rate.max_wait) == (10, 1.0, 30.0)
    assert (breaker.breaker.failures, breaker.breaker.open_for) == (5, 30.0)
    assert (asking.timeout, asking.always) == (10.0, True)
    stated = load(
        "market_hours: {queue_when_closed: false, cancel_at_close: false}\n"
        "confirmation: {timeout: 3s, always: false}\nrate_limit: {count: 1, per: 2s, max_wait: null}"
    )
    hours, _, _, rate, asking, *_ = stated.pipeline()
    assert (hours.queue_when_closed, hours.cancel_at_close) == (False, False)
    assert (rate.per, rate.max_wait) == (2.0, None)
    assert (asking.timeout, asking.always) == (3.0, False)


def test_a_stated_breaker_opens(load):
    """After two refusals in a row nothing is sent for as long as it says, then one is tried."""

    async def body(engine):
        refusing = Fault(on=Operation.PLACE, kind=FaultKind.ERROR, error=InvalidOrderError("no"))
        script, engine.desk.adapter.connection.script = (
            engine.desk.adapter.connection.script,
            FaultScript([refusing]),
        )
        for number in range(2):
            assert (await engine.submit(buy(f"s{number}"))).outcome.value == "rejected"
        assert (await engine.submit(buy("s3"))).denial.code is DenialCode.CIRCUIT_OPEN
        engine.desk.adapter.connection.script = script
        await asyncio.sleep(7)
        assert (await engine.submit(buy("s4"))).filled

    lived(load("breaker: {failures: 2, open_for: 6s}\n"), body)


def test_a_stated_rate_holds(load):
    """The second entry of a second does not wait, because the file says so."""

    async def body(engine):
        assert (await engine.submit(buy("s1"))).filled
        await engine.close_position(BTC)
        await engine.resume()
        assert (await engine.submit(buy("s2"))).denial.code is DenialCode.THROTTLED
        await asyncio.sleep(10)
        assert (await engine.submit(buy("s3"))).filled

    lived(load("rate_limit: {count: 1, per: 10s, max_wait: 0s}\n"), body)


def test_a_stated_file_halts(load, tmp_path):
    """A relative path starts at the configuration file, and the one beside the journal counts no more."""

    async def body(engine):
        (tmp_path / "orders.db.halt").touch()
        assert (await engine.submit(buy("s1"))).filled
        (tmp_path / "stop").touch()
        await engine.close_position(BTC)
        assert (await engine.submit(buy("s2"))).denial.code is DenialCode.TRADING_HALTED

    lived(load("halt_file: stop\n"), body)


async def test_stated_messages_are_sent_while_the_engine_lives(load, monkeypatch):
    """Over a real socket, to the address in the environment, from the start to what comes at the end."""
    bodies = []

    async def take(request):
        bodies.append((await request.json())["title"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    config = load("notify: {least: info}\n")
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=VARIABLE):
        ExecutionEngine.from_config(config, exchanges=mocks())
    monkeypatch.setenv(VARIABLE, f"json://127.0.0.1:{port}/hook")
    engine = ExecutionEngine.from_config(config, exchanges=mocks())
    try:
        async with engine:
            assert (await engine.submit(buy("s1"))).filled
            engine.desk.recorder.alarm("AT_THE_END", "told too")
    finally:
        await runner.cleanup()
    assert {"execkit: entry filled", "execkit: Position opened", "execkit: AT_THE_END"} <= set(
        bodies
    )
    assert not engine.events.is_used


def test_the_addresses_in_the_environment_change_no_setting(load, tmp_path):
    """Their variable begins like those that may override a key, and is none of them."""
    load("notify: {}\n")
    config = Config.load(tmp_path / "execkit.yaml", {VARIABLE: "json://127.0.0.1/x"})
    assert config.notify.least == "warning"
    with pytest.raises(ConfigurationError, match="EXECKIT_NOTIFY_MOST: the environment may not"):
        Config.load(tmp_path / "execkit.yaml", {"EXECKIT_NOTIFY_MOST": "5"})


async def test_what_tells_ends_with_a_start_that_fails(load):
    """Nobody is told for ever of an engine that never ran."""
    life = []

    class Telling:
        async def __aenter__(self):
            life.append("in")

        async def __aexit__(self, *exc):
            life.append("out")

    class Down(MockExchange):
        async def connect(self):
            life.append("connect")
            raise OSError("down")

    engine = ExecutionEngine(Down(), journal=None, notify=lambda _bus: Telling())
    with pytest.raises(OSError, match="down"):
        await engine.start()
    assert life == ["in", "connect", "out"]


def test_days_that_no_calendar_knew(load):
    """A day of mourning and an early close count where the calendar's other days stay as they are."""
    config = load(
        "live:\n  calendar: XNYS\n  corrections:\n    XNYS:\n      closed: [2025-01-09]\n      sessions:\n"
        '        - {day: 2025-03-05, open: "2025-03-05T09:30-05:00", close: 2025-03-05T13:00-05:00}\n'
    )
    hours = config.live.build().hours()("AAPL")

    def opened(*at):
        return hours.is_open(datetime(*at, tzinfo=UTC))

    assert [opened(2025, 1, day, 15) for day in (8, 9, 10)] == [True, False, True]
    assert [opened(2025, 3, 5, hour) for hour in (15, 17, 18, 19)] == [True, True, False, False]
    assert opened(2025, 3, 6, 19)
    assert hours.session_after(datetime(2025, 1, 9, tzinfo=UTC)).day.isoformat() == "2025-01-10"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("breaker: {failures: 0}", r"yaml:5: breaker.failures: 0 "),
        ("breaker: {open_for: 0s}", "breaker.open_for"),
        ("breaker: {fails: 3}", "did you mean 'failures'"),
        ("breaker: true", "breaker: "),
        ("rate_limit: {}", "rate_limit.count: "),
        ("rate_limit: {count: 1.5}", "rate_limit.count: "),
        ("confirmation: {timeout: soon}", "confirmation.timeout: "),
        ("market_hours: {queue_when_closed: 1}", "market_hours.queue_when_closed: "),
        ("notify: {least: loud}", "notify.least: "),
        ("notify: {urls: [x]}", "notify.urls: unknown key"),
        ("live: {corrections: {NOPE: {}}}", "'NOPE' is unknown; use the ISO 10383"),
        (
            "live: {corrections: {XNYS: {closed: [soon]}}}",
            "'soon' is no day; write it as 2025-01-09",
        ),
        (
            "live: {corrections: {XNYS: {sessions: [{day: 2025-03-05, open: 2025-03-05T09:30, close: x}]}}}",
            "is no moment with its offset; write it as",
        ),
        (
            "live: {corrections: {XNYS: {sessions: [*day]}}}".replace(
                "*day", "{day: 2025-03-05, open: 2025-03-05T09:30Z, close: 2025-03-05T09:00Z}"
            ),
            "must be after open",
        ),
    ],
)
def test_wrong_values_are_named_with_the_fix(load, text, told):
    """Before anything is connected."""
    with pytest.raises(ConfigurationError) as refused:
        load(text)
    assert told in str(refused.value)

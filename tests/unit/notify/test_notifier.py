"""Messages to a person: through the real Apprise to a server on loopback, and paced under virtual time."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from pydantic import SecretStr

from execkit.engine import ExecutionEngine
from execkit.errors import ConfigurationError
from execkit.events import EventBus
from execkit.model.events import (
    OrderFailed,
    OrderInDoubt,
    ProtectionFailed,
    ReconcileMismatch,
    SignalDenied,
    SlippageAlert,
    SystemError,  # noqa: A004 - promised name
    TradingSignalGenerated,
    TradingStateSet,
)
from execkit.model.order import OrderRole, Side
from execkit.model.signal import TradingSignal
from execkit.notify.messages import LONGEST, Message, Severity, message_of
from execkit.notify.notifier import VARIABLE, Notifier
from execkit.testing import MockExchange
from execkit.virtual_time import run_virtual

AT = datetime(2024, 1, 1, tzinfo=UTC)
D = Decimal
BTC = "BTC/USDT"


def of_order(kind, **details):
    return kind(
        at=AT,
        client_order_id="xk1",
        symbol=BTC,
        side=Side.BUY,
        role=OrderRole.ENTRY,
        quantity=D("0.1"),
        **details,
    )


@pytest.mark.parametrize(
    ("event", "severity", "title", "text"),
    [
        (
            of_order(OrderFailed, reason="no funds"),
            Severity.ERROR,
            "Order rejected",
            "entry buy 0.1 BTC/USDT: no funds",
        ),
        (
            of_order(OrderInDoubt, reason="time-out"),
            Severity.ERROR,
            "Order in doubt",
            "entry buy 0.1 BTC/USDT: time-out",
        ),
        (
            SignalDenied(at=AT, symbol=BTC, reason="R"),
            Severity.WARNING,
            "Signal denied",
            f"{BTC}: R",
        ),
        (
            ProtectionFailed(at=AT, symbol=BTC, reason="refused"),
            Severity.CRITICAL,
            "Position unprotected",
            "BTC/USDT: refused; it is being flattened",
        ),
        (
            SlippageAlert(at=AT, symbol=BTC, client_order_id="xk1", slippage_pct=D("0.61239")),
            Severity.WARNING,
            "Slippage",
            "BTC/USDT: 0.6124 %",
        ),
        (
            SlippageAlert(
                at=AT,
                symbol=BTC,
                client_order_id="xk1",
                slippage_pct=D(2),
                role=OrderRole.STOP,
                side=Side.SELL,
                quantity=D(1),
                expected_price=D(95),
                average_price=D("93.1"),
            ),
            Severity.WARNING,
            "Slippage",
            "BTC/USDT: 2 %, stop sell 1 at 93.1 instead of 95",
        ),
        (
            ReconcileMismatch(at=AT, symbol=BTC, ours="1", venue="2"),
            Severity.ERROR,
            "Books and venue differ",
            "BTC/USDT: ours 1, the venue's 2",
        ),
        (
            TradingStateSet(at=AT, state="halted", cause="key"),
            Severity.CRITICAL,
            "Trading is halted",
            "key",
        ),
        (
            TradingStateSet(at=AT, state="reducing", cause="loss"),
            Severity.WARNING,
            "Trading is reducing",
            "loss",
        ),
        (SystemError(at=AT, code="UNPROTECTED", text="t"), Severity.CRITICAL, "UNPROTECTED", "t"),
        *(
            (SystemError(at=AT, code=code, text="t"), Severity.CRITICAL, code, "t")
            for code in (
                "JOURNAL_UNAVAILABLE",
                "TASK_FAILED",
                "BLIND",
                "CLOSED_IN_PART",
                "DAILY_LOSS",
            )
        ),
        (SystemError(at=AT, code="IN_DOUBT", text="t"), Severity.ERROR, "IN_DOUBT", "t"),
    ],
)
def test_each_event_has_its_urgency_and_words(event, severity, title, text):
    """What a person must know at once is critical."""
    assert message_of(event) == Message(severity, title, text)


def test_what_a_venue_says_is_data():
    """No line breaks or escape sequences, and not endless; everyday events are no message."""
    said = message_of(
        SystemError(at=AT, code="X", text="a\r\nexeckit: all is well\x1b[2J" + "x" * 900)
    )
    assert said.text.startswith("a execkit: all is well [2J")
    assert len(said.text) == LONGEST
    signal = TradingSignal(symbol=BTC, side=Side.BUY)
    assert message_of(TradingSignalGenerated(at=AT, signal=signal)) is None
    noted = SystemError(at=AT, code="SLIPPAGE", text="told as a SlippageAlert")
    assert message_of(noted) is None


class Service:
    """What a chat service is for Apprise: an HTTP server."""

    def __init__(self):
        self.bodies = []
        self.status = 200

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"json://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/hook?token=Hunter2"
        return self

    async def __aexit__(self, *exc):
        await self._runner.cleanup()

    async def _take(self, request):
        self.bodies.append(await request.json())
        return web.Response(status=self.status)


@pytest.fixture(autouse=True)
def quiet_apprise():
    logging.getLogger("apprise").setLevel(logging.CRITICAL)


async def test_a_running_engine_tells_what_happened():
    """Over a real socket, when the fill is durable; less urgent things are left out."""
    async with Service() as service:
        engine = ExecutionEngine(MockExchange(), journal=None)
        async with Notifier(engine.events, [SecretStr(service.url)], least=Severity.INFO), engine:
            await engine.submit(TradingSignal(symbol=BTC, side=Side.BUY, confluence=4))
            await engine.submit(TradingSignal(symbol=BTC, side=Side.BUY, confluence=1))
        titles = [body["title"] for body in service.bodies]
        assert titles[:2] == ["execkit: entry filled", "execkit: Position opened"]
        assert "execkit: Signal denied" in titles
        denied = service.bodies[titles.index("execkit: Signal denied")]
        assert denied["type"] == "warning"
        assert "CONFLUENCE_TOO_LOW" in denied["message"]


async def test_addresses_come_from_the_environment(monkeypatch):
    """They hold tokens, so that is where they belong."""
    async with Service() as service:
        monkeypatch.setenv(VARIABLE, service.url)
        bus = EventBus()
        async with Notifier(bus):
            bus.publish(SystemError(at=AT, code="C", text="text"))
        assert [body["message"] for body in service.bodies] == ["text"]


async def test_a_service_that_refuses_costs_only_its_message(capsys):
    """It is counted and logged, without the address."""
    async with Service() as service:
        service.status = 500
        bus = EventBus()
        async with Notifier(bus, [service.url]) as notifier:
            bus.publish(SystemError(at=AT, code="C", text="text"))
        assert notifier.failures == 1
    assert "Hunter2" not in "".join(capsys.readouterr())


class Fake:
    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.told = []

    async def async_notify(self, *, title, body, notify_type):
        await asyncio.sleep(self.seconds)
        self.told.append((title, body))
        return True


def notifier_with(fake, **options):
    notifier = Notifier(EventBus(), ["json://127.0.0.1/"], **options)
    notifier._service = fake
    return notifier


def alarm(code, text):
    return SystemError(at=AT, code=code, text=str(text))


def test_a_storm_becomes_a_few_messages_and_a_count():
    """Critical ones pass all the same; after the window the next one says how many were held back."""

    async def main(_clock):
        fake = Fake()
        async with notifier_with(fake, most=2) as notifier:
            for n in range(5):
                notifier.take(alarm("C", n))
            await asyncio.sleep(0.1)
            notifier.take(TradingStateSet(at=AT, state="halted", cause="stop"))
            await asyncio.sleep(0.1)
            assert [body for _, body in fake.told] == ["0 (and 3 more messages)", "1", "stop"]
            await asyncio.sleep(61)
            notifier.take(alarm("C", "later"))
        assert fake.told[-1][1] == "later"

    run_virtual(main)


def test_a_critical_message_is_lost_in_no_storm():
    """Whatever else came in the same step, it is told at once, though the service hangs with the first message."""

    async def main(_clock):
        fake = Fake()
        loop = asyncio.get_running_loop()
        tried = []

        async def hang(*, title, body, notify_type):
            tried.append((loop.time() - began, body))
            await asyncio.sleep(3600)

        fake.async_notify = hang
        async with notifier_with(fake) as notifier:
            bus = notifier._events
            began = loop.time()
            bus.publish(alarm("C", "before"))
            await asyncio.sleep(1)
            bus.publish(alarm("UNPROTECTED", "first"))
            for n in range(1_100):
                bus.publish(alarm("C", n) if n % 2 else SignalDenied(at=AT, symbol=BTC, reason="R"))
            bus.publish(alarm("UNPROTECTED", "last"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert tried == [
                (0, "before"),
                (1, "first (and 1081 more messages)"),
                (1, "last"),
            ]
            began = loop.time()
        assert loop.time() - began <= 10

    run_virtual(main)


def test_a_storm_of_critical_messages_is_told_whole():
    """Twenty are on their way at once, and none is dropped."""

    async def main(_clock):
        fake, most = Fake(seconds=0.01), []
        send = fake.async_notify
        flying = set()

        async def counted(**what):
            flying.add(what["body"])
            most.append(len(flying))
            answer = await send(**what)
            flying.discard(what["body"])
            return answer

        fake.async_notify = counted
        async with notifier_with(fake) as notifier:
            for n in range(1_100):
                notifier._events.publish(alarm("BLIND", n))
        assert sorted(int(body) for _, body in fake.told) == list(range(1_100))
        assert max(most) == 20
        assert notifier.failures == 0

    run_virtual(main)


def test_a_long_line_of_others_drops_its_oldest_and_says_so():
    """Behind a service that hangs a hundred wait; what was dropped is counted in the next message."""

    async def main(_clock):
        fake = Fake(seconds=9)
        async with notifier_with(fake, most=200) as notifier:
            for n in range(103):
                notifier.take(alarm("C", n))
            await asyncio.sleep(9 * 3)
        assert [body for _, body in fake.told][:2] == ["3 (and 3 more messages)", "4"]

    run_virtual(main)


def test_the_next_message_finds_the_place_of_the_last_one_free():
    """A message that comes in the very step in which the one before has gone waits for no third."""

    async def main(_clock):
        fake = Fake()
        async with notifier_with(fake) as notifier:
            for n in range(10):
                notifier.take(alarm("C", n))
                while len(fake.told) <= n:
                    await asyncio.sleep(0)
        assert len(fake.told) == 10

    run_virtual(main)


def test_a_service_that_hangs_is_left_behind():
    """Its message is lost after ten seconds, and leaving does not wait longer than that."""

    async def main(_clock):
        fake = Fake(seconds=3600)
        notifier = notifier_with(fake)
        loop = asyncio.get_running_loop()
        async with notifier:
            notifier._events.publish(SystemError(at=AT, code="C", text="1"))
            await asyncio.sleep(11)
            assert notifier.failures == 1
            notifier._events.publish(SystemError(at=AT, code="C", text="2"))
            notifier._events.publish(SystemError(at=AT, code="C", text="3"))
            began = loop.time()
        assert loop.time() - began <= 10
        assert fake.told == []

    run_virtual(main)


@pytest.mark.parametrize(
    ("urls", "options", "text"),
    [
        ([], {}, "urls: there are none"),
        (["nosuchthing://Hunter2"], {}, "number 1 is no address"),
        (["json://127.0.0.1"], {"most": 0}, "most: 0"),
        (None, {}, VARIABLE),
    ],
)
def test_impossible_options_are_refused_without_telling_secrets(monkeypatch, urls, options, text):
    """An address may hold a token, so it is named by its place."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=text) as refused:
        Notifier(EventBus(), urls, **options)
    assert "Hunter2" not in str(refused.value)


def test_the_window_is_the_callers():
    """Two in a second instead of twenty in a minute."""

    async def main(_clock):
        fake = Fake()
        notifier = notifier_with(fake, most=1, per=timedelta(seconds=1))
        for n in range(3):
            notifier.take(alarm("C", n))
            await asyncio.sleep(1)
        assert len(fake.told) == 3

    run_virtual(main)

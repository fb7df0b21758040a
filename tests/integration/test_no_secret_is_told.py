"""What a handler, a function or a venue raises reaches denial, journal, log and message without the secrets in it."""

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from aiohttp import ClientResponseError, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from execkit.assembly import standard_pipeline
from execkit.engine import ExecutionEngine
from execkit.errors import AuthenticationError, InvalidOrderError, OrderStatusUnknownError
from execkit.model.events import Event, SystemError  # noqa: A004 - promised name
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.notify.messages import message_of
from execkit.pipeline import handler
from execkit.redaction import keep_secret
from execkit.testing import Fault, FaultKind, FaultScript, MockExchange, Operation
from execkit.testing.canary import SecretsCanary
from execkit.virtual_time import run_virtual

BTC = "BTC/USDT"
D = Decimal
FAILING = {
    BTC: InvalidOrderError,
    "ETH/USDT": OrderStatusUnknownError,
    "SOL/USDT": AuthenticationError,
}
TOKEN = "123456789:AAExyz0123456789abcdefghijklmnop"


def buy(signal_id, symbol=BTC):
    return TradingSignal(
        symbol=symbol, side=Side.BUY, confluence=4, quantity=D("0.02"), signal_id=signal_id
    )


def of_a_bot():
    """Return what aiohttp raises when a chat service refuses: the address is in it, and the token in that."""
    url = URL(f"https://api.telegram.org/bot{TOKEN}/sendMessage?chat_id=1")
    request = RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict()), url)
    return ClientResponseError(request, (), status=404, message=f"Not Found: {url}")


@pytest.mark.parametrize("told", ["known", "by its form"])
def test_nothing_of_an_error_gives_a_secret_away(tmp_path, told):
    """The canary: from a handler and from the venue to everything that is written, journalled, logged or sent."""
    canary = SecretsCanary(random.Random(5))
    canary._spellings["bot"] = [("plain", TOKEN.encode()), ("cut", TOKEN[10:].encode())]
    secrets = list(canary.secrets.values()) if told == "known" else []
    keep_secret(*secrets)

    def error(kind):
        if told == "by its form":
            return kind(str(of_a_bot()))
        return kind(f"GET https://x.test/?sign={secrets[5]} {secrets!r} {' '.join(secrets)}")

    @handler
    async def asks_a_bot(ticket, call_next):
        if ticket.signal_id == "denied":
            raise error(ValueError) if told == "known" else of_a_bot()
        result = await call_next(ticket)
        if ticket.signal_id == "alerted":
            raise error(ValueError)
        return result

    async def main(clock):
        venue = MockExchange(prices=dict.fromkeys(FAILING, D(42_000)), clock=clock)
        chain = standard_pipeline().insert(asks_a_bot, before="OrderExecutorHandler")
        path = tmp_path / "orders.db"
        seen = []
        engine = ExecutionEngine(venue, journal=path, store=False, clock=clock, pipeline=chain)
        engine.events.subscribe(Event, seen.append)
        async with engine:
            results = [await engine.submit(buy("denied")), await engine.submit(buy("alerted"))]
            assert results[0].denial.code.value == "HANDLER_FAILED"
            assert results[1].filled
            assert await engine.close_position(BTC)
            for symbol, kind in FAILING.items():
                failing = Fault(on=Operation.PLACE, kind=FaultKind.ERROR, error=error(kind), nth=1)
                venue.connection.script = FaultScript([failing])
                results.append(await engine.submit(buy(kind.__name__, symbol)))
            for _ in range(3):
                reading = Fault(on=Operation.OPEN, kind=FaultKind.ERROR, error=error(OSError))
                venue.connection.script = FaultScript([reading])
                await engine.desk.reconciler.try_run()
            engine.desk.recorder.alarm("TASK_FAILED", f"a task: {error(KeyError)!r}")
            engine.parts.upkeep.spawn(fail(error(RuntimeError)), "user's task")
            await asyncio.sleep(1)
        assert {type(event).__name__ for event in seen} >= {
            "SignalDenied",
            "OrderFailed",
            "SystemError",
            "TradingStateSet",
        }
        for result in results:
            canary.see("a result", result)
        for event in seen:
            canary.see("an event", event)
            canary.see("a message", message_of(event))
        canary.scan(tmp_path)

    with canary.watch():
        run_virtual(main)
    assert canary.bytes_scanned > 20_000
    canary.check()


async def fail(error):
    raise error


def test_the_words_of_a_message_are_redacted_whoever_made_the_event():
    """An event of your own goes out through the same door."""
    event = SystemError(at=datetime(2024, 1, 1, tzinfo=UTC), code="MINE", text=f"bot{TOKEN}")
    assert message_of(event).text == "***"

"""No secret reaches a log, an error, a repr or a file, in any spelling; and a leak is found."""

import asyncio
import base64
import logging
import random
import sys
from datetime import timedelta
from decimal import Decimal
from urllib.parse import quote

import pytest
import structlog

from execkit.engine import ExecutionEngine
from execkit.errors import (
    AuthenticationError,
    ExchangeUnavailableError,
    ExecKitError,
    InsufficientBalanceError,
    InvalidOrderError,
    OrderStatusUnknownError,
)
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.testing.canary import NAMES, SecretsCanary, run_under_canary
from execkit.testing.contract import AdapterContract
from execkit.testing.faults import SPOILS, Fault, FaultKind, FaultScript, Operation
from execkit.testing.mock import MockExchange


class Signed(MockExchange):
    """Holds secrets as an adapter for a real venue does; nothing of them shows."""

    def __init__(self, secrets, **settings):
        super().__init__(**settings)
        self._sign = lambda: dict(secrets)


class Leaky(Signed):
    """Its client library puts the signed URL into errors, as ccxt does for GET."""

    async def get_order(self, symbol, **ids):
        try:
            return await super().get_order(symbol, **ids)
        except Exception as error:
            url = f"https://venue.test/order?signature={self._sign()['signature']}"
            raise ExchangeUnavailableError(f"GET {url} failed") from error

    async def place_order(self, request):
        try:
            return await super().place_order(request)
        except OrderStatusUnknownError as error:
            password = quote(self._sign()["account_password"], safe="")
            raise OrderStatusUnknownError(f"{error}: user:{password}") from error


def canary():
    return SecretsCanary(random.Random(7))


# -- the canary itself ---------------------------------------------------------------------------------


def test_twelve_different_secrets_are_planted():
    """Each kind has its own text, and a seed repeats them."""
    planted = canary()
    assert len(set(planted.secrets.values())) == len(NAMES) == 12
    assert planted.secrets == canary().secrets
    assert not any(secret in repr(planted) for secret in planted.secrets.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "spell",
    [
        lambda s: s,
        lambda s: s.encode().hex(),
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.b64encode(b"user:" + s.encode()).decode(),
        lambda s: base64.urlsafe_b64encode(b"x" + s.encode() + b"yz").decode(),
        lambda s: quote(s, safe=""),
        repr,
    ],
)
def test_every_spelling_is_found(name, spell):
    """Raw, hex, base64 wherever it begins, URL-encoded and escaped; the report never says the secret."""
    planted = canary()
    secret = planted.secrets[name].splitlines()[-2 if name == "private_key" else 0]
    planted.look("a line", f"before {spell(secret)} after")
    assert planted.leaks
    assert all(leak.startswith(name) and secret not in leak for leak in planted.leaks)
    with pytest.raises(AssertionError, match=f"{name} .* in a line"):
        planted.check()


def test_other_text_is_no_leak():
    """What is not a secret does not alarm, and scanning nothing proves nothing."""
    planted = canary()
    with pytest.raises(AssertionError, match="nothing was scanned"):
        planted.check()
    planted.look("a line", "the quick brown fox" * 100)
    planted.check()


def test_logs_and_prints_are_watched():
    """Standard logging, structlog, prints and their tracebacks all go through the canary."""
    planted = canary()
    secrets = planted.secrets
    with planted.watch():
        logging.getLogger("urllib3").debug("GET /?key=%s", secrets["api_key"])
        structlog.get_logger("execkit").info("sent", headers={"X": secrets["bearer_token"]})
        print(secrets["passphrase"])
        print(secrets["listen_key"], file=sys.stderr)
        try:
            raise ValueError(secrets["session_cookie"])
        except ValueError:
            structlog.get_logger("execkit").exception("failed")
    # structlog's console renderer prints local variables too, so there is more to find.
    found = {leak.split()[0] for leak in planted.leaks}
    assert found >= {"api_key", "bearer_token", "passphrase", "listen_key", "session_cookie"}


def test_files_and_errors_are_scanned(tmp_path):
    """Files, their names, and an error with its causes and attributes."""
    planted = canary()
    secrets = planted.secrets
    (tmp_path / "a.log").write_bytes(b"\x00" + secrets["api_key"].encode())
    (tmp_path / f"{secrets['webhook_token']}.txt").touch()
    planted.scan(tmp_path)
    try:
        try:
            raise KeyError(secrets["one_time_seed"])
        except KeyError as error:
            raise AuthenticationError("no", raw=secrets["api_secret"]) from error
    except AuthenticationError as error:
        planted.see("the error", error)
    found = {leak.split()[0] for leak in planted.leaks}
    assert found == {"api_key", "webhook_token", "one_time_seed", "api_secret"}


# -- the library under it ------------------------------------------------------------------------------


def scripts():
    """Every fault, one at a time, where it hurts most."""
    refusals = (
        AuthenticationError("the key was revoked"),
        InvalidOrderError("LOT_SIZE"),
        InsufficientBalanceError("no money"),
    )
    yield FaultScript()
    for kind in (FaultKind.TIMEOUT, FaultKind.LOST, FaultKind.SERVER_ERROR):
        for reached in (False, True):
            yield FaultScript([Fault(on=Operation.PLACE, kind=kind, nth=1, reached=reached)])
    yield FaultScript([Fault(on=Operation.PLACE, kind=FaultKind.NOT_SENT, nth=1)])
    yield FaultScript(
        [Fault(on=Operation.PLACE, kind=FaultKind.RATE_LIMIT, nth=1, retry_after=timedelta(0))]
    )
    for error in refusals:
        yield FaultScript([Fault(on=Operation.PLACE, kind=FaultKind.ERROR, nth=1, error=error)])
    for spoil in SPOILS:
        yield FaultScript([Fault(on=Operation.PLACE, kind=FaultKind.MALFORMED, nth=1, spoil=spoil)])
    yield FaultScript(
        [Fault(on=each, kind=FaultKind.SERVER_ERROR) for each in (Operation.GET, Operation.FILLS)]
    )
    yield FaultScript([Fault(on=Operation.STREAM, kind=FaultKind.BREAK, nth=1)])


async def trade(kind, planted, folder, script):
    """Run an engine through one script; everything that a person could see is shown to the canary."""
    exchange = kind(planted.secrets, script=script)
    planted.tap(exchange)
    engine = ExecutionEngine(exchange, journal=folder / "orders.db", durability="process")
    planted.see("exchange", exchange)
    try:
        async with engine:
            planted.see("engine", engine)
            signal = TradingSignal(
                symbol="BTC/USDT",
                side=Side.BUY,
                quantity=Decimal("0.01"),
                confluence=4,
                signal_id="s1",
            )
            async with asyncio.timeout(2):
                planted.see("result", await engine.submit(signal))
            for order in engine.orders:
                planted.see("order", order)
            planted.see("positions", dict(engine.positions))
    except (ExecKitError, TimeoutError) as error:
        planted.see("error", error)
    planted.scan(folder)


@pytest.mark.parametrize("number", range(len(list(scripts()))))
async def test_no_error_path_of_the_engine_writes_a_secret(number, tmp_path):
    """Journal, store, logs, errors, reprs: every byte is scanned, on every kind of failure."""
    planted = canary()
    with planted.watch():
        await trade(Signed, planted, tmp_path, list(scripts())[number])
    planted.check()
    assert planted.bytes_scanned > 1_000


async def test_a_leaking_adapter_is_found_wherever_it_leaks(tmp_path):
    """What an adapter puts into an error reaches the journal: so the canary finds it in the file."""
    planted = canary()
    script = FaultScript([Fault(on=Operation.PLACE, kind=FaultKind.TIMEOUT, nth=1)])
    with planted.watch():
        await trade(Leaky, planted, tmp_path, script)
    text = "\n".join(planted.leaks)
    assert "account_password (URL-encoded) in repr of error of place_order" in text
    assert "in file orders.db" in text
    assert "signature (plain) in traceback of error of get_order" in text


@pytest.mark.parametrize(("kind", "leaks"), [(Signed, False), (Leaky, True)])
def test_adapters_join_through_the_contract(kind, leaks):
    """All cases of the contract run under the canary: each error path of an adapter is taken."""

    class Contract(AdapterContract):
        virtual_time = True

        async def make_adapter(self):
            return kind(self.secrets, clock=self.clock)

    planted = run_under_canary(Contract(), random.Random(7))
    assert bool(planted.leaks) is leaks
    assert planted.bytes_scanned > 100_000


async def test_what_an_adapter_streams_is_seen():
    """The text that a venue gives with an update is searched too, and so is the error that ends a stream."""
    planted = canary()

    class Streaming(MockExchange):
        async def order_updates(self):
            yield f"rejected: key {planted.secrets['api_key']}"
            raise ExchangeUnavailableError(f"closed: {planted.secrets['listen_key']}")

    exchange = Streaming()
    planted.tap(exchange)
    with pytest.raises(ExchangeUnavailableError):
        async for _ in exchange.order_updates():
            pass
    assert {leak.split()[0] for leak in planted.leaks} == {"api_key", "listen_key"}

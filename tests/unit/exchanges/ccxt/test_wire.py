"""The way to the network: pinned hosts, one send, and what a frame of a stream may be."""

import asyncio
import json

import pytest

from execkit.exchanges.ccxt.adapter import CCXTAdapter
from execkit.exchanges.ccxt.dialect import Dialect, RefusedError, UnsentError
from execkit.exchanges.ccxt.hosts import is_loopback
from execkit.exchanges.ccxt.wire import ccxt_class, sending


def adapter(**options):
    return CCXTAdapter("bybit", api_key="key-of-mine", secret="secret-of-mine", **options)


async def test_only_pinned_hosts_are_spoken_to():
    """A request or a socket elsewhere does not leave, whoever asked for it."""
    made = adapter()
    made._client.http = object()
    with pytest.raises(UnsentError, match="no host of this venue"):
        await made._client.fetch("https://evil.example/v5/order/create?sign=abc", "POST")
    with pytest.raises(UnsentError):
        made._client.client("wss://evil.example/private")
    made._client.http = None


async def test_nothing_leaves_before_connect():
    """The error says what to call."""
    with sending() as sent, pytest.raises(UnsentError, match="connect"):
        await adapter()._client.fetch("https://api-testnet.bybit.com/v5")
    assert sent == [0]


def test_hosts_are_those_of_the_environment():
    """The testnet's adapter cannot reach the live venue, and the other way round."""
    sandbox, live = adapter()._client.hosts, adapter(live=True)._client.hosts
    assert any("testnet" in host for host in sandbox)
    assert not any("testnet" in host for host in live)
    assert not sandbox & live


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1", False),
    ],
)
def test_what_is_this_machine(host, wanted):
    """Only loopback is."""
    assert is_loopback(host) is wanted


class Socket:
    """What the client hands frames to."""

    decompressBinary = True

    def __init__(self):
        self.taken = []
        self.errors = []

    def on_message_callback(self, _socket, message):
        self.taken.append(message)

    def on_error(self, error):
        self.errors.append(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"a": 1.5}', {"a": "1.5"}),
        (b'{"a": 1.5}', {"a": "1.5"}),
        ("[1]", [1]),
        ("pong", "pong"),
        (b"pong", "pong"),
        ("", ""),
    ],
)
def test_frames(data, message):
    """JSON is read exactly, everything else is passed on as it is."""
    socket = Socket()
    adapter()._client._frame(socket, data)
    assert socket.taken == [message]


@pytest.mark.parametrize("data", ['{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, b"\xff\xfe"])
def test_frames_that_end_the_connection(data):
    """A frame that cannot be read is never dropped in silence: the stream is opened anew."""
    socket = Socket()
    adapter()._client._frame(socket, data)
    assert socket.taken == []
    assert len(socket.errors) == 1


def test_a_handler_that_fails_ends_the_connection():
    """Whatever goes wrong with a frame, the stream is not left deaf."""
    socket = Socket()
    socket.on_message_callback = lambda _socket, _message: {}["missing"]
    adapter()._client._frame(socket, "{}")
    assert len(socket.errors) == 1


def test_ccxt_does_nothing_behind_our_back():
    """No retries, no throttle, no environment; silence of a socket is noticed within a minute."""
    client = adapter()._client
    assert client.enableRateLimit is False
    assert client.options.get("maxRetriesOnFailure", 0) == 0
    assert client.aiohttp_trust_env is False
    assert client.streaming["keepAlive"] * client.streaming["maxPingPongMisses"] <= 60_000
    assert client.number is str


def test_an_answer_inside_a_server_error_proves_nothing():
    """A code on the list counts with 4xx and 200 only."""
    from execkit.errors import InvalidOrderError

    dialect = Dialect(meanings={"1": InvalidOrderError})
    assert dialect.meaning(RefusedError(400, "1", "")) is InvalidOrderError
    for status in (500, 502, 503, 408):
        assert dialect.meaning(RefusedError(status, "1", "")) is None


def test_clients_know_their_streams():
    """A venue with streams gets the client that has them."""
    assert ccxt_class("bybit").__module__.startswith("ccxt.pro")
    assert ccxt_class("bit2c").__module__.startswith("ccxt.async_support")


def test_secrets_do_not_show():
    """Neither in the adapter's repr nor in that of what it holds."""
    made = adapter()
    shown = f"{made!r} {made.account} {vars(made)!r}"
    assert "of-mine" not in shown
    assert json.dumps(made.account)
    assert asyncio.iscoroutinefunction(made.place_order)

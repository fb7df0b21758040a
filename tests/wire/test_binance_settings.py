"""Settings and inputs that cannot work: each is told by field and fix, before any order has left."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.binance import adapter_of, on_the_wire, order

from execkit.clock import SystemClock
from execkit.errors import AuthenticationError, ConfigurationError, InvalidOrderError
from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.exchanges.ccxt.adapter import CCXTAdapter
from execkit.model.order import OrderType, Side
from execkit.testing.venues.binance import KEY, SECRET, BinanceVenue

LIVE = {"live": True}


async def refused(kind, *, venue_options=None, **options):
    """Connect, and return the text of what that raises; no order may have come in."""
    async with BinanceVenue(**(venue_options or {})) as venue:
        adapter = adapter_of(venue, **options)
        try:
            with pytest.raises(kind) as raised:
                await adapter.connect()
        finally:
            await adapter.close()
        assert venue.posts() == []
        return str(raised.value)


async def test_no_key(monkeypatch):
    """A missing key is told with the names of the variables that would be read."""
    monkeypatch.delenv("BINANCE_API_KEY", raising=False)
    text = await refused(ConfigurationError, api_key=None)
    assert "api_key" in text
    assert "BINANCE_API_KEY" in text


async def test_keys_come_from_the_environment(monkeypatch):
    """Keys that are not given are read from the environment."""
    monkeypatch.setenv("BINANCE_API_KEY", KEY)
    monkeypatch.setenv("BINANCE_API_SECRET", SECRET)
    async with on_the_wire(api_key=None, secret=None) as (_venue, adapter):
        assert await adapter.balances()


@pytest.mark.parametrize("wrong", [{"api_key": "x" * 64}, {"api_key": "short"}, {"secret": "no"}])
async def test_wrong_key(wrong):
    """A key that Binance does not know, or whose secret does not fit, is refused by name."""
    text = await refused(AuthenticationError, **wrong)
    assert "api_key: Binance (testnet, spot) refuses this key" in text
    assert "a key of the live venue does not work here" in text
    assert not any(value in text for value in wrong.values() if len(value) > 10)


async def test_no_secret(monkeypatch):
    """A key without its secret is told before anything is asked for."""
    monkeypatch.delenv("BINANCE_API_SECRET", raising=False)
    async with BinanceVenue() as venue:
        adapter = adapter_of(venue, secret=None)
        with pytest.raises(ConfigurationError) as raised:
            await adapter.connect()
        await adapter.close()
        assert "pass secret=, or set BINANCE_API_SECRET" in str(raised.value)
        assert KEY not in str(raised.value)
        assert venue.requests == []


async def test_key_of_the_testnet_at_the_live_venue():
    """The same the other way round."""
    text = await refused(AuthenticationError, api_key="t" * 64, **LIVE)
    assert "a key of the testnet or the demo does not work here" in text


async def test_key_without_the_right_to_trade():
    """It is refused at the start, not at the first order."""
    rights = {"permissions": {"enableSpotAndMarginTrading": False}}
    text = await refused(AuthenticationError, venue_options=rights, **LIVE)
    assert "api_key" in text
    assert "Enable Spot & Margin Trading" in text


async def test_key_that_may_withdraw():
    """A key that can take the money away is never used."""
    rights = {"permissions": {"enableWithdrawals": True}}
    text = await refused(AuthenticationError, venue_options=rights, **LIVE)
    assert "may withdraw" in text
    assert "make one without that right" in text


class Ahead:
    def __init__(self, seconds):
        self.by = timedelta(seconds=seconds)

    def now(self):
        return SystemClock().now() + self.by


@pytest.mark.parametrize("seconds", [2, -2])
async def test_clock_two_seconds_off(seconds):
    """Orders would be refused or late: the start says how far it is off, which way, and what to do."""
    text = await refused(ConfigurationError, clock=Ahead(seconds))
    assert text.startswith("clock: this machine's clock is 2.0 s")
    assert ("ahead of" if seconds > 0 else "behind") in text
    assert "NTP" in text


async def test_clock_a_little_off_is_made_up_for():
    """Requests are stamped by Binance's time."""
    async with on_the_wire(clock=Ahead(0.8)) as (_venue, adapter):
        assert adapter._client.options["timeDifference"] == pytest.approx(800, abs=200)
        assert await adapter.place_order(order())


@pytest.mark.parametrize(
    ("symbol", "words"),
    [
        ("BTCUSDT", "did you mean BTC/USDT"),
        ("BTC/USD", "did you mean BTC/USDT"),
        ("btc/usdt", "did you mean BTC/USDT"),
        ("BTC/USDT:USDT", "is a perpetual future, this adapter trades spot; use 'BTC/USDT'"),
        ("NOSUCH/THING", "is not listed for spot at testnet"),
        ("BTC/USDT\r\nX", "is not listed"),
    ],
)
async def test_unknown_symbol(symbol, words):
    """A symbol that is not listed is told with those that look like it; a future's on spot with the right one."""
    async with on_the_wire() as (venue, adapter):
        with pytest.raises(InvalidOrderError, match="symbol: ") as raised:
            await adapter.instrument(symbol)
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)
        with pytest.raises(InvalidOrderError):
            await adapter.place_order(order(symbol=symbol))
        assert venue.posts() == []


async def test_spot_symbol_on_futures():
    """The symbol of the future is named."""
    options = {"market": "usdm", "prices": {"BTC/USDT:USDT": Decimal(42_000)}}
    async with on_the_wire(venue_options=options, market="usdm") as (venue, adapter):
        with pytest.raises(InvalidOrderError, match=r"is a spot market.*use 'BTC/USDT:USDT'"):
            await adapter.place_order(order())
        assert venue.calls("place") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"limit_price": Decimal("40000.005")},
            "limit_price: 40000.005 is no multiple of the tick size 0.01",
        ),
        ({"quantity": Decimal("0.0100001")}, "quantity: 0.0100001 is no multiple of the lot size"),
        ({"quantity": Decimal("0.00001")}, "the least for BTC/USDT is 5"),
        ({"quantity": Decimal(100_000)}, "quantity: 100000 is above"),
        ({"limit_price": Decimal(1_000_000)}, "limit_price: 1000000 is outside"),
        (
            {"type": OrderType.TRAILING_STOP, "limit_price": None, "trail_amount": Decimal(5)},
            "trail_amount",
        ),
        ({"time_in_force": "gtd"}, "time in force"),
    ],
)
async def test_order_against_the_rules(changes, words):
    """What a filter forbids is refused by field and fix, and nothing is sent."""
    async with on_the_wire() as (venue, adapter):
        await adapter.ticker("BTC/USDT")
        with pytest.raises(InvalidOrderError) as raised:
            await adapter.place_order(order(**changes))
        assert words in str(raised.value)
        assert venue.posts() == []


async def test_a_reduction_is_not_held_back_by_an_estimate():
    """The bands around the price are Binance's to judge where a position is to be closed."""
    async with on_the_wire() as (venue, adapter):
        await adapter.ticker("BTC/USDT")
        request = order(side=Side.SELL, limit_price=Decimal(1_000_000), reduce_only=True)
        with pytest.raises(InvalidOrderError, match="code"):
            await adapter.place_order(request)
        assert len(venue.calls("place")) == 1


WRONG = [
    ({"market": "swap"}, "market: 'swap' is unknown; use one of spot, usdm"),
    ({"sandbox": "paper"}, "sandbox: 'paper' is unknown"),
    ({"sandbox": False}, "live: orders with real money at binance need live=True"),
    ({"sandbox": True, "live": True}, "contradict each other"),
    (
        {"rest_url": "https://api.binance.com", "stream_url": "wss://stream.binance.com"},
        "rest_url: api.binance.com is the live venue, but the settings say testnet",
    ),
    (
        {
            "rest_url": "https://testnet.binance.vision",
            "stream_url": "wss://x.example",
            "live": True,
        },
        "rest_url: testnet.binance.vision is a sandbox, but the settings say live",
    ),
    ({"rest_url": "http://example.com", "stream_url": "wss://example.com"}, "keys in the clear"),
    ({"rest_url": "ftp://127.0.0.1", "stream_url": "ws://127.0.0.1"}, "is no https address"),
    (
        {"rest_url": "http://u:p@127.0.0.1", "stream_url": "ws://127.0.0.1"},
        "no user, password or query",
    ),
    ({"rest_url": "http://127.0.0.1:1"}, "stream_url: give both"),
    *(
        (
            {"rest_url": f"https://{host}", "stream_url": "ws://127.0.0.1", **proxy},
            f"rest_url: {host.rstrip('.')} is the live venue, but the settings say testnet",
        )
        for host in ("api.binance.com.", "api2.binance.com", "api-gcp.binance.com", "binance.com")
        for proxy in ({}, {"own_proxy": True})
    ),
    (
        {"rest_url": "https://proxy.example", "stream_url": "wss://proxy.example"},
        "rest_url: proxy.example is no testnet host of the venue; pass own_proxy=True",
    ),
    (
        {"rest_url": "https://testnet.binance.vision.", "stream_url": "ws://[::1]", "live": True},
        "rest_url: testnet.binance.vision is a sandbox",
    ),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_settings_that_contradict(options, words):
    """They are refused when the adapter is made."""
    with pytest.raises(ConfigurationError) as raised:
        BinanceAdapter(KEY, SECRET, **options)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {
            "rest_url": "https://proxy.example",
            "stream_url": "wss://proxy.example",
            "own_proxy": True,
        },
        {"rest_url": "https://proxy.example", "stream_url": "wss://proxy.example", "live": True},
        {"rest_url": "http://127.0.0.1:1", "stream_url": "ws://localhost:1"},
        {
            "rest_url": "https://testnet.binance.vision",
            "stream_url": "wss://stream.testnet.binance.vision",
        },
        {
            "rest_url": "https://demo-api.binance.com",
            "stream_url": "wss://demo-stream.binance.com",
            "sandbox": "demo",
        },
    ],
)
def test_addresses_that_are_taken(options):
    """The venue's sandboxes and this machine under sandbox settings, and what is spelled out."""
    adapter = BinanceAdapter(KEY, SECRET, **options)
    assert "api.binance.com" not in adapter._client.hosts


def test_unknown_exchange():
    """An id that ccxt does not know is told with those that look like it."""
    with pytest.raises(ConfigurationError, match=r"did you mean .*bybit"):
        CCXTAdapter("bybitt")


def test_exchange_without_a_sandbox():
    """An exchange that has no sandbox needs live=True, or addresses of one."""
    with pytest.raises(ConfigurationError, match="has no testnet environment"):
        CCXTAdapter("kraken")


def test_code_that_the_user_vouches_for():
    """A kind that does not exist is refused."""
    with pytest.raises(ConfigurationError, match="refusals"):
        CCXTAdapter("bybit", refusals={"1": "maybe"})


def test_the_account_is_named_without_the_key():
    """The same key gives the same account; a name of one's own outlives the key."""
    first, again = (BinanceAdapter("k" * 64, "s", rng=random.Random(1)) for _ in range(2))
    assert first.account == again.account
    assert "kkk" not in first.account
    assert BinanceAdapter("other", "s", account="main").account == "binance-spot-testnet-main"
    assert BinanceAdapter("k" * 64, "s", live=True).account != first.account


async def test_an_adapter_for_data_orders_nothing(monkeypatch):
    """It shows no key, though the environment has one, and an order on it is refused before anything leaves."""
    monkeypatch.setenv("BINANCE_API_KEY", KEY)
    monkeypatch.setenv("BINANCE_API_SECRET", SECRET)
    async with BinanceVenue() as venue:
        adapter = adapter_of(venue, api_key=None, secret=None, data_only=True)
        try:
            await adapter.connect_data()
            assert (await adapter.ticker("BTC/USDT")).bid > 0
            with pytest.raises(AuthenticationError):
                await adapter.place_order(order())
        finally:
            await adapter.close()
        assert venue.posts() == []
        assert not any(KEY in str(request) for request in venue.requests)

"""An adapter that is used for its prices only: whose they are, and what it must not hold."""

from decimal import Decimal

import pytest

from execkit import ExchangeFactory, PaperExchange
from execkit.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("BINANCE_API_KEY", "k" * 64)
    monkeypatch.setenv("BINANCE_API_SECRET", "s" * 64)
    monkeypatch.setenv("BYBIT_API_KEY", "k" * 18)
    monkeypatch.setenv("BYBIT_API_SECRET", "s" * 36)


@pytest.mark.parametrize(
    ("name", "options", "host"),
    [
        ("binance", {}, "api.binance.com"),
        ("binance", {"market": "usdm"}, "fapi.binance.com"),
        ("ccxt", {"exchange_id": "bybit"}, "api.bybit.com"),
    ],
)
async def test_a_feed_has_the_live_venues_prices_and_no_key(name, options, host):
    """A sandbox's prices are nobody's; nothing that could sign is in memory, though the environment has it."""
    feed = ExchangeFactory().create_feed(name, **options)
    assert feed.environment == "live"
    assert host in feed._client.hosts
    assert not any((feed._client.apiKey, feed._client.secret, feed._client.password))
    with pytest.raises(ConfigurationError, match="data_only"):
        await feed.connect()


@pytest.mark.parametrize("sandbox", [True, "testnet", "demo"])
def test_a_sandbox_that_is_named_stays(sandbox):
    """Who asks for a sandbox's prices gets them."""
    feed = ExchangeFactory().create_feed("binance", sandbox=sandbox)
    assert feed.environment in ("testnet", "demo")
    assert "api.binance.com" not in feed._client.hosts


def test_the_paper_exchange_says_whose_prices_it_has():
    """It is the live venue's by default, and the name of the account does not say so."""
    paper = PaperExchange(balances={"USDT": Decimal(10_000)}, feed="binance")
    assert "prices of binance (live)" in repr(paper)

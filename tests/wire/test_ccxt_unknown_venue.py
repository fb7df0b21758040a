"""An exchange whose error codes nobody has listed: a refusal proves nothing, unless the user vouches for its code."""

import contextlib
import json
from decimal import Decimal

import pytest
from aiohttp import web
from tests.support.binance import order

from execkit.errors import (
    AuthenticationError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.ccxt.adapter import CCXTAdapter
from execkit.exchanges.ccxt.dialect import UnansweredError
from execkit.exchanges.ccxt.unified import read_market

MARKET = {
    "id": "XBTUSDT",
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "baseId": "XBT",
    "quoteId": "USDT",
    "altname": "XBTUSDT",
    "type": "spot",
    "spot": True,
    "active": True,
    "precision": {"amount": "0.00001", "price": "0.1"},
    "limits": {"amount": {"min": "0.0001"}},
}


class Answers:
    """A server that gives every request the next answer, and keeps what was asked."""

    def __init__(self):
        self.next = []
        self.asked = []

    async def serve(self, request):
        self.asked.append((request.method, request.path))
        status, body, headers = self.next.pop(0)
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)


@contextlib.asynccontextmanager
async def kraken(**options):
    answers = Answers()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answers.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    adapter = CCXTAdapter(
        "kraken",
        api_key="k" * 56,
        secret="c2VjcmV0",
        rest_url=f"http://127.0.0.1:{port}",
        stream_url=f"ws://127.0.0.1:{port}",
        **options,
    )
    client = adapter._client
    client.set_markets([client.safe_market_structure(MARKET)])
    rules, size = read_market(MARKET, "spot", 4)
    adapter._instruments["BTC/USDT"], adapter._sizes["BTC/USDT"] = rules, size
    adapter._load_markets = _nothing
    await adapter.connect_data()
    try:
        yield answers, adapter
    finally:
        await adapter.close()
        await runner.cleanup()


async def _nothing():
    return None


REFUSED = {"error": ["EOrder:Insufficient funds"]}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((200, REFUSED, {}), OrderStatusUnknownError),
        ((400, {"error": ["EGeneral:Invalid arguments"]}, {}), OrderStatusUnknownError),
        ((200, {"error": ["EAPI:Invalid key"]}, {}), OrderStatusUnknownError),
        ((500, "<html>", {}), OrderStatusUnknownError),
        ((200, "<html>", {}), OrderStatusUnknownError),
        ((200, {"error": [], "result": {}}, {}), OrderStatusUnknownError),
        ((307, "", {"Location": "http://127.0.0.1:1/elsewhere"}), OrderStatusUnknownError),
        ((429, {"error": ["EAPI:Rate limit exceeded"]}, {"Retry-After": "3"}), RateLimitError),
    ],
)
async def test_a_refusal_proves_nothing(answer, kind):
    """Whatever class ccxt makes of it: only an HTTP 429 is definite. One POST each, and no redirect is followed."""
    async with kraken() as (answers, adapter):
        answers.next = [answer]
        with pytest.raises(kind) as raised:
            await adapter.place_order(order())
        assert type(raised.value) is kind
        assert len(answers.asked) == 1
        assert answers.asked[0][0] == "POST"


async def test_a_code_that_the_user_vouches_for():
    """Then it is what the user says."""
    vouched = {"EOrder:Insufficient funds": "insufficient_balance"}
    async with kraken(refusals=vouched) as (answers, adapter):
        answers.next = [(200, REFUSED, {})]
        with pytest.raises(InsufficientBalanceError) as raised:
            await adapter.place_order(order())
        assert raised.value.code == "EOrder:Insufficient funds"


async def test_a_refused_key_on_a_question():
    """A question costs nothing, so there ccxt is believed."""
    async with kraken() as (answers, adapter):
        answers.next = [(200, {"error": ["EAPI:Invalid key"]}, {})]
        with pytest.raises(AuthenticationError, match="api_key: kraken"):
            await adapter.balances()
        answers.next = [(502, "<html>", {})]
        with pytest.raises(ExchangeUnavailableError):
            await adapter.balances()


async def test_numbers_go_out_as_they_are():
    """No float and no rounding on the way out."""
    async with kraken() as (answers, adapter):
        sent = []
        fetch = adapter._client.fetch

        async def noting(url, method="GET", headers=None, body=None):
            sent.append(body)
            return await fetch(url, method, headers, body)

        adapter._client.fetch = noting
        answers.next = [(200, REFUSED, {})]
        with pytest.raises(OrderStatusUnknownError):
            await adapter.place_order(
                order(limit_price=Decimal("40000.1"), quantity=Decimal("0.01001"))
            )
        assert "volume=0.01001" in sent[0]
        assert "price=40000.1" in sent[0]


async def test_a_socket_follows_no_redirect():
    """A stream is opened where it was asked for or not at all."""
    async with kraken() as (answers, adapter):
        answers.next = [(307, "", {"Location": "/elsewhere"})]
        address = str(adapter._client.urls["api"]["ws"]["public"])
        with pytest.raises(UnansweredError):
            await adapter._client.session.ws_connect(address)
        assert len(answers.asked) == 1

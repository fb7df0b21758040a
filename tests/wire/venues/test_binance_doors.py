"""Who is let in, and what is refused: signatures, the clock, the limits of pace, filters and parameters."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import aiohttp
import ccxt.async_support as errors
import pytest
from tests.support.ccxt_wire import client_of

from execkit.clock import ManualClock
from execkit.testing.venues.binance import BinanceVenue, Rules

SYMBOL = "BTC/USDT"

# The worked example of Binance's own documentation.
DOC_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
DOC_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
DOC_PAYLOAD = (
    "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC"
    "&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
)
DOC_SIGNATURE = "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"


async def post(venue, body, key):
    async with aiohttp.ClientSession() as session:
        headers = {"X-MBX-APIKEY": key, "Content-Type": "application/x-www-form-urlencoded"}
        async with session.post(
            f"{venue.rest_url}/api/v3/order", data=body, headers=headers
        ) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers


async def test_documented_signature_is_accepted():
    """The example of the venue's documentation passes unchanged; any other signature does not."""
    at = datetime.fromtimestamp(1499827319.559, UTC)
    venue = BinanceVenue(
        prices={"LTC/BTC": Decimal("0.1")},
        balances={"BTC": Decimal(1)},
        key=DOC_KEY,
        secret=DOC_SECRET,
        clock=ManualClock(at),
    )
    async with venue:
        for signature, code in ((DOC_SIGNATURE, -1013), (DOC_SIGNATURE[::-1], -1022)):
            _, answer, _ = await post(venue, f"{DOC_PAYLOAD}&signature={signature}", DOC_KEY)
            # Its price and quantity do not pass the filters here, which are looked at after the signature.
            assert answer["code"] == code


async def test_query_and_body_are_signed_together():
    """What is signed is the query followed by the body; the signature may stand in either."""
    at = datetime(2024, 1, 1, tzinfo=UTC)
    async with BinanceVenue(clock=ManualClock(at)) as venue:
        query = "symbol=BTCUSDT&side=BUY&type=MARKET"
        body = f"quantity=0.001&timestamp={int(at.timestamp() * 1000)}"
        right = hmac.new(venue.secret.encode(), (query + body).encode(), hashlib.sha256).hexdigest()
        async with aiohttp.ClientSession() as session:
            url = f"{venue.rest_url}/api/v3/order?{query}&signature={right}"
            headers = {
                "X-MBX-APIKEY": venue.key,
                "Content-Type": "application/x-www-form-urlencoded",
            }
            async with session.post(url, data=body, headers=headers) as answer:
                assert (await answer.json())["status"] == "FILLED"


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [("k" * 64, None, "-2015"), ("short", None, "-2014"), (None, "wrong", "-1022")],
)
async def test_wrong_credentials(venue, key, secret, code):
    """An unknown key, a malformed one and a wrong secret are told apart, and nothing is taken."""
    async with client_of(venue, key=key, secret=secret) as ccxt:
        with pytest.raises(errors.AuthenticationError, match=code):
            await ccxt.create_order(SYMBOL, "market", "buy", "0.001")
    assert venue.accepts == []


async def test_key_without_the_right_to_trade():
    """It reads, and may not trade; what it may is told at one place."""
    async with (
        BinanceVenue(permissions={"enableSpotAndMarginTrading": False}) as venue,
        client_of(venue) as ccxt,
    ):
        assert (await ccxt.sapi_get_account_apirestrictions())["enableWithdrawals"] is False
        assert (await ccxt.fetch_balance())["info"]["canTrade"] is False
        with pytest.raises(errors.BaseError, match="-2015"):
            await ccxt.create_order(SYMBOL, "market", "buy", "0.001")


@pytest.mark.parametrize(
    ("skew", "text"),
    [(2, "1000ms ahead"), (-11, "outside of the recvWindow"), (0.5, None), (-9, None)],
)
async def test_clock(venue, ccxt, skew, text):
    """A second ahead is too far, behind the receive window too."""
    ccxt.options["timeDifference"] = -skew * 1000
    if text is None:
        await ccxt.fetch_balance()
        return
    with pytest.raises(errors.InvalidNonce, match=text):
        await ccxt.fetch_balance()


async def test_weight_and_ban():
    """Use is told with every answer; too much of it is 429, and going on all the same a ban."""
    clock = ManualClock()
    made = BinanceVenue(rules=Rules(weight_per_minute=30), clock=clock)
    async with made as venue, aiohttp.ClientSession() as session:

        async def ping():
            async with session.get(f"{venue.rest_url}/api/v3/exchangeInfo") as answer:
                used = answer.headers.get("X-MBX-USED-WEIGHT-1M")
                return answer.status, answer.headers.get("Retry-After"), used

        seen = [await ping() for _ in range(6)]
        assert seen[0] == (200, None, "20")
        assert [status for status, _, _ in seen] == [200, 429, 429, 429, 418, 418]
        assert (seen[1][1], seen[4][1]) == ("60", "120")
        clock.advance(timedelta(seconds=121))
        assert (await ping())[0] == 200


async def test_order_count():
    """More orders than allowed in ten seconds are refused; the next window takes them again."""
    clock = ManualClock()
    async with (
        BinanceVenue(rules=Rules(orders_per_10s=2), clock=clock) as venue,
        client_of(venue) as ccxt,
    ):
        ccxt.nonce = lambda: int(clock.now().timestamp() * 1000)
        for _ in range(2):
            await ccxt.create_order(SYMBOL, "market", "buy", "0.001")
        with pytest.raises(errors.DDoSProtection, match="current limit is 2 orders per 10 SECOND"):
            await ccxt.create_order(SYMBOL, "market", "buy", "0.001")
        assert ccxt.last_response_headers["Retry-After"] == "10"
        clock.advance(timedelta(seconds=10))
        await ccxt.create_order(SYMBOL, "market", "buy", "0.001")
    assert len(venue.accepts) == 3


LIMIT = {
    "type": "LIMIT",
    "side": "BUY",
    "timeInForce": "GTC",
    "quantity": "0.001",
    "price": "40000",
}
MARKET = {"type": "MARKET", "side": "BUY", "quantity": "0.001"}
STOP = {"type": "STOP_LOSS", "side": "BUY", "quantity": "0.001", "stopPrice": "43000"}


@pytest.mark.parametrize(
    ("order", "code", "text"),
    [
        (LIMIT | {"price": "40000.001"}, -1013, "PRICE_FILTER"),
        (LIMIT | {"quantity": "0.000001"}, -1013, "LOT_SIZE"),
        (LIMIT | {"quantity": "10000"}, -1013, "LOT_SIZE"),
        (LIMIT | {"quantity": "0.0001"}, -1013, "NOTIONAL"),
        (LIMIT | {"price": "300000"}, -1013, "PERCENT_PRICE_BY_SIDE"),
        (LIMIT | {"price": "100"}, -1013, "PERCENT_PRICE_BY_SIDE"),
        (MARKET | {"quantity": "121"}, -1013, "MARKET_LOT_SIZE"),
        (LIMIT | {"quantity": "0"}, -1013, "Invalid quantity"),
        (LIMIT | {"price": "4E4"}, -1100, "price"),
        (LIMIT | {"quantity": "-1"}, -1100, "quantity"),
        (LIMIT | {"newClientOrderId": "a b"}, -1100, "newClientOrderId"),
        (LIMIT | {"newClientOrderId": "x" * 37}, -1100, "newClientOrderId"),
        (LIMIT | {"price": ""}, -1102, "price"),
        (LIMIT | {"side": ""}, -1102, "side"),
        (STOP | {"stopPrice": ""}, -1102, "stopPrice"),
        (LIMIT | {"clientOrderId": "x"}, -1104, "Not all sent parameters were read"),
        (MARKET | {"price": "1"}, -1106, "price"),
        (LIMIT | {"quantity": "0.0000000001"}, -1111, "quantity"),
        (LIMIT | {"timeInForce": "DAY"}, -1115, "timeInForce"),
        (LIMIT | {"type": "BEST"}, -1116, "orderType"),
        (LIMIT | {"side": "LONG"}, -1117, "side"),
        (LIMIT | {"symbol": "NOSUCH"}, -1121, "Invalid symbol"),
        (LIMIT | {"quantity": "5"}, -2010, "insufficient balance"),
        (
            MARKET | {"type": "LIMIT_MAKER", "price": "42500"},
            -2010,
            "immediately match",
        ),
        (STOP | {"stopPrice": "41000"}, -2010, "trigger immediately"),
        (STOP | {"trailingDelta": "5", "stopPrice": ""}, -1013, "TRAILING_DELTA"),
    ],
)
async def test_what_spot_refuses(venue, ccxt, order, code, text):
    """Each with the venue's code and words, and nothing is taken."""
    with pytest.raises(errors.BaseError) as caught:
        await ccxt.private_post_order({"symbol": "BTCUSDT"} | order)
    assert text in str(caught.value)
    (call,) = venue.posts("/api/v3/order")
    assert (call.status, venue.accepts) == (400, [])
    # ccxt leaves the code out where it knows the text.
    assert str(code) in str(caught.value) or code in (-2010, -1013, -1100)


async def test_numbers_of_orders():
    """No more open orders than allowed, and fewer of those that wait for a price."""
    async with (
        BinanceVenue(rules=Rules(max_orders=3, max_conditional=1)) as venue,
        client_of(venue) as ccxt,
    ):
        stop = ("BTC/USDT", "market", "buy", "0.001", None, {"stopLossPrice": 43_000})
        await ccxt.create_order(*stop)
        with pytest.raises(errors.BaseError, match="MAX_NUM_ALGO_ORDERS"):
            await ccxt.create_order(*stop)
        for _ in range(2):
            await ccxt.create_order(SYMBOL, "limit", "buy", "0.001", 40_000)
        with pytest.raises(errors.BaseError, match="MAX_NUM_ORDERS"):
            await ccxt.create_order(SYMBOL, "limit", "buy", "0.001", 40_000)


async def test_halted_market(venue, ccxt):
    """Its rules say so, and orders are refused."""
    venue.halt(SYMBOL)
    with pytest.raises(errors.MarketClosed):
        await ccxt.create_order(SYMBOL, "market", "buy", "0.001")
    info = await ccxt.public_get_exchangeinfo()
    assert info["symbols"][0]["status"] == "HALT"


async def test_unknown_orders_and_paths(venue, ccxt):
    """A look-up and a cancel of what is not there have codes of their own; unknown pages are no JSON."""
    with pytest.raises(errors.OrderNotFound, match="-2013"):
        await ccxt.fetch_order("7", SYMBOL)
    with pytest.raises(errors.OrderNotFound, match="Unknown order"):
        await ccxt.cancel_order("7", SYMBOL)
    with pytest.raises(errors.ExchangeNotAvailable, match="404"):
        await ccxt.sapi_get_system_status()

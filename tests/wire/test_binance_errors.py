"""What each of Binance's answers to an order means, and that one call sends one request, whatever came back."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.binance import on_the_wire, order

from execkit.errors import (
    AuthenticationError,
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    MarketOrderRefusedError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    QuantityTooLargeError,
    RateLimitError,
)
from execkit.model.order import OrderType
from execkit.testing.venues.faults import Mishap

UNKNOWN = OrderStatusUnknownError
ANSWERS = [
    # clocks and pace: definitely not accepted
    (400, -1021, "Timestamp for this request is outside of the recvWindow.", RateLimitError),
    (429, -1003, "Too many requests.", RateLimitError),
    (429, -1015, "Too many new orders.", RateLimitError),
    (418, -1003, "Way too many requests; IP banned until 1.", RateLimitError),
    (418, None, "", RateLimitError),
    (400, -1015, "Too many new orders.", RateLimitError),
    (400, -1003, "Too many requests.", RateLimitError),
    # refused for what it is
    (400, -2010, "Duplicate order sent.", DuplicateClientOrderIdError),
    (
        400,
        -2010,
        "Account has insufficient balance for requested action.",
        InsufficientBalanceError,
    ),
    (400, -2010, "Order would immediately match and take.", InvalidOrderError),
    (400, -2010, "Stop price would trigger immediately.", InvalidOrderError),
    (400, -2010, "Market is closed.", MarketClosedError),
    (400, -1013, "Market is closed.", MarketClosedError),
    (400, -2010, "This action is disabled on this account.", AuthenticationError),
    (400, -2010, "Market orders are not supported for this symbol.", MarketOrderRefusedError),
    (400, -2010, "A reason that nobody has heard of.", OrderRejectedError),
    (400, -1013, "Filter failure: PRICE_FILTER", InvalidOrderError),
    (400, -1013, "Filter failure: LOT_SIZE", InvalidOrderError),
    (400, -1013, "Filter failure: MARKET_LOT_SIZE", QuantityTooLargeError),
    (400, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE", InvalidOrderError),
    (400, -1013, "Filter failure: PERCENT_PRICE", InvalidOrderError),
    (400, -1013, "Filter failure: NOTIONAL", InvalidOrderError),
    (400, -1013, "Filter failure: MIN_NOTIONAL", InvalidOrderError),
    (400, -1100, "Illegal characters found in a parameter.", InvalidOrderError),
    (400, -1102, "Mandatory parameter was not sent.", InvalidOrderError),
    (400, -1104, "Not all sent parameters were read.", InvalidOrderError),
    (400, -1111, "Precision is over the maximum defined for this asset.", InvalidOrderError),
    (400, -1121, "Invalid symbol.", InvalidOrderError),
    (400, -1022, "Signature for this request is not valid.", AuthenticationError),
    (401, -2014, "API-key format invalid.", AuthenticationError),
    (401, -2015, "Invalid API-key, IP, or permissions for action.", AuthenticationError),
    # proves nothing
    (503, -1000, "An unknown error occurred while processing the request.", UNKNOWN),
    (500, -1001, "Internal error.", UNKNOWN),
    (500, -1006, "An unexpected response was received.", UNKNOWN),
    (400, -1006, "An unexpected response was received.", UNKNOWN),
    (408, -1007, "Timeout waiting for response from backend server.", UNKNOWN),
    (504, -1007, "Timeout waiting for response from backend server.", UNKNOWN),
    (400, -1007, "Timeout waiting for response from backend server.", UNKNOWN),
    (503, -1008, "Server is currently overloaded.", UNKNOWN),
    (400, -1016, "This service is no longer available.", UNKNOWN),
    (409, -2021, "Order cancel-replace partially failed.", UNKNOWN),
    (400, -2022, "Order cancel-replace failed.", UNKNOWN),
    (400, -9999, "A code that nobody has heard of.", UNKNOWN),
    (400, -2011, "Unknown order sent.", OrderNotFoundError),
    (503, None, "Service Unavailable", UNKNOWN),
    (403, None, "Forbidden", UNKNOWN),
    (404, None, "Not Found", UNKNOWN),
    (502, None, "Bad Gateway", UNKNOWN),
    (302, None, "Found", UNKNOWN),
    (503, -1021, "Timestamp for this request is outside of the recvWindow.", UNKNOWN),
    (503, -2010, "Account has insufficient balance for requested action.", UNKNOWN),
]

FUTURES = [
    (400, -2018, "Balance is insufficient.", InsufficientBalanceError),
    (400, -2019, "Margin is insufficient.", InsufficientBalanceError),
    (400, -2021, "Order would immediately trigger.", InvalidOrderError),
    (400, -2022, "ReduceOnly Order is rejected.", InvalidOrderError),
    (400, -4005, "Quantity greater than max quantity.", QuantityTooLargeError),
    (400, -4014, "Price not increased by tick size.", InvalidOrderError),
    (400, -4116, "ClientOrderId is duplicated.", DuplicateClientOrderIdError),
    (400, -4131, "PERCENT_PRICE filter limit.", InvalidOrderError),
    (400, -4140, "Invalid symbol status for opening position.", MarketClosedError),
    (400, -4164, "Order's notional must be no smaller.", InvalidOrderError),
    (400, -5021, "FOK order has been rejected.", OrderRejectedError),
    (400, -5022, "Post Only order will be rejected.", InvalidOrderError),
    (400, -2010, "NEW_ORDER_REJECTED", OrderRejectedError),
    (503, -1008, "Request throttled by system-level protection.", UNKNOWN),
    (400, -9999, "A code that nobody has heard of.", UNKNOWN),
]


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"), ANSWERS, ids=[f"{s}{c}-{t[:24]}" for s, c, t, _ in ANSWERS]
)
async def test_spot_answer(status, code, text, kind):
    """Each answer is exactly the error that it proves, after one POST."""
    await _answer("spot", status, code, text, kind)


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"), FUTURES, ids=[f"{s}{c}-{t[:24]}" for s, c, t, _ in FUTURES]
)
async def test_futures_answer(status, code, text, kind):
    """The same for USD-M futures, whose codes differ."""
    await _answer("usdm", status, code, text, kind)


async def _answer(market, status, code, text, kind):
    symbol = "BTC/USDT" if market == "spot" else "BTC/USDT:USDT"
    options = {"market": market, "prices": {symbol: Decimal(42_000)}}
    async with on_the_wire(venue_options=options, market=market) as (venue, adapter):
        venue.fail_next("place", Mishap.ERROR, status=status, code=code, text=text)
        request = order(symbol=symbol)
        with pytest.raises(kind) as raised:
            await adapter.place_order(request)
        assert type(raised.value) is kind
        assert raised.value.outcome_known is kind.outcome_known
        assert len(venue.calls("place")) == venue.sends(request.client_order_id) == 1


LOST = [
    (Mishap.DROP_REQUEST, {}, UNKNOWN),
    (Mishap.DROP_ANSWER, {}, UNKNOWN),
    (Mishap.CUT_BODY, {}, UNKNOWN),
    (Mishap.HANG, {"reached": True}, UNKNOWN),
    (Mishap.HANG, {"reached": False}, UNKNOWN),
    (Mishap.HTML, {"status": 200, "reached": True}, UNKNOWN),
    (Mishap.HTML, {"status": 403}, UNKNOWN),
    (Mishap.HTML, {"status": 502}, UNKNOWN),
    (Mishap.EMPTY, {}, UNKNOWN),
    (Mishap.CUT_JSON, {}, UNKNOWN),
    (Mishap.LIST, {}, UNKNOWN),
    (Mishap.NULL, {}, UNKNOWN),
    (Mishap.NAN, {}, UNKNOWN),
    (Mishap.NO_ID, {}, UNKNOWN),
    (Mishap.OTHER_ORDER, {}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"executedQty": "-5"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"executedQty": "1e400"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"executedQty": "99"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"origQty": "0.02"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"symbol": "ETHUSDT"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"side": "SELL"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"type": "MARKET"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"status": "PENDING_REVIEW"}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"orderId": True}}, UNKNOWN),
    (Mishap.CHANGE, {"changes": {"clientOrderId": None}}, UNKNOWN),
]


@pytest.mark.parametrize(("kind", "details", "error"), LOST, ids=[f"{k}-{d}" for k, d, _ in LOST])
async def test_what_is_no_answer_is_unknown(kind, details, error):
    """An answer that is lost, unreadable or about something else is unknown, after one POST."""
    async with on_the_wire() as (venue, adapter):
        adapter._client.limit = 0.2
        venue.fail_next("place", kind, **details)
        request = order()
        with pytest.raises(error) as raised:
            await adapter.place_order(request)
        assert not raised.value.outcome_known
        assert venue.sends(request.client_order_id) == 1


async def test_no_connection_is_not_sent():
    """When nobody listens, not one byte has left."""
    async with on_the_wire() as (venue, adapter):
        await venue.close()
        await asyncio.sleep(0)  # the closed connections are seen as such
        with pytest.raises(NotSentError):
            await adapter.place_order(order())
        with pytest.raises(ExchangeUnavailableError):
            await adapter.ticker("BTC/USDT")


async def test_retry_after_is_told_and_a_ban_is_kept():
    """After 418 nothing leaves until the ban has ended, not even a question."""
    async with on_the_wire() as (venue, adapter):
        pause = timedelta(seconds=30)
        venue.fail_next("place", Mishap.ERROR, status=418, code=-1003, retry_after=pause)
        with pytest.raises(RateLimitError) as raised:
            await adapter.place_order(order())
        assert raised.value.retry_after == pause
        seen = len(venue.requests)
        with pytest.raises(RateLimitError) as raised:
            await adapter.get_order("BTC/USDT", client_order_id="xk")
        assert timedelta(seconds=25) < raised.value.retry_after <= pause
        assert len(venue.requests) == seen


async def test_the_end_of_a_ban_is_read_from_its_text():
    """Binance names the end of a ban in milliseconds, also without a header."""
    async with on_the_wire() as (venue, adapter):
        end = int((venue.clock.now() + timedelta(minutes=5)).timestamp() * 1000)
        text = f"Way too many requests; IP banned until {end}. Please use WebSocket Streams."
        venue.fail_next("place", Mishap.ERROR, status=418, code=-1003, text=text)
        with pytest.raises(RateLimitError) as raised:
            await adapter.place_order(order())
        assert timedelta(minutes=4) < raised.value.retry_after <= timedelta(minutes=5)


async def test_a_refusal_of_the_clock_compares_the_clocks():
    """-1021 is no acceptance; the clocks are compared at once, so the next try is stamped right."""
    async with on_the_wire() as (venue, adapter):
        adapter._client.options["timeDifference"] = 30_000
        asked = len(venue.calls(path="/api/v3/time"))
        with pytest.raises(RateLimitError, match="clocks differ") as raised:
            await adapter.place_order(order())
        assert (raised.value.retryable, raised.value.outcome_known) == (True, True)
        assert len(venue.calls(path="/api/v3/time")) == asked + 1
        report = await adapter.place_order(order())
        assert report.client_order_id == order().client_order_id


async def test_used_weight_is_read():
    """Binance's own count of what this address has used is kept, from the headers of the last answer."""
    async with on_the_wire() as (_venue, adapter):
        await adapter.ticker("BTC/USDT")
        assert adapter.used_weight["x-mbx-used-weight-1m"] > 0


async def test_a_filled_order_is_found_by_its_executions():
    """Executions carry our id although Binance does not name it, also for orders of an earlier process."""
    async with on_the_wire() as (venue, adapter):
        request = order(type=OrderType.MARKET, limit_price=None)
        await adapter.place_order(request)
        adapter._client_ids.clear()
        fills = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1), "BTC/USDT")
        assert {fill.client_order_id for fill in fills} == {request.client_order_id}

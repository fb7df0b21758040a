"""Alpaca's answers, each with its class and with what was sent; and input that is refused with the fix."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.support.alpaca import KEY, TradingClock, adapter_of, on_the_wire, venue_on_the_wire

from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
    DuplicateClientOrderIdError,
    ExchangeError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.alpaca.adapter import AlpacaAdapter
from execkit.model.order import ListKind, OrderRequest, OrderState, OrderType, Side, TimeInForce
from execkit.testing.venues.alpaca import Asset
from execkit.testing.venues.faults import Mishap

D = Decimal
COUNT = iter(range(1, 100_000))


def order(**changes):
    values = {
        "client_order_id": f"xk{next(COUNT):024d}",
        "symbol": "AAPL",
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "quantity": D(10),
        "limit_price": D(140),
    }
    return OrderRequest(**(values | changes))


def market(**changes):
    return order(type=OrderType.MARKET, limit_price=None, **changes)


async def refused(adapter, request):
    with pytest.raises(ExchangeError) as caught:
        await adapter.place_order(request)
    return caught.value


PLACE = [
    (403, 40310000, "insufficient buying power", InsufficientBalanceError),
    (403, 40310000, "insufficient day trading buying power", InsufficientBalanceError),
    (
        403,
        40310000,
        "insufficient qty available for order (requested: 10, available: 0)",
        InsufficientBalanceError,
    ),
    (403, 40310000, "potential wash trade detected. use complex orders", OrderRejectedError),
    (403, 40310000, "trade denied due to pattern day trading protection", OrderRejectedError),
    (403, 40310100, "trade denied due to pattern day trading protection", OrderRejectedError),
    (403, 40310000, "account is not authorized to trade", AuthenticationError),
    (403, 40310000, "trading is blocked for this account", AuthenticationError),
    (403, 40310000, "cost basis must be >= minimal amount of order 1", InvalidOrderError),
    (403, 40310000, "something new", OrderRejectedError),
    (422, 40010001, "qty is required", InvalidOrderError),
    (422, 40010001, "client_order_id must be unique", DuplicateClientOrderIdError),
    (400, 40010001, "client_order_id must be unique", DuplicateClientOrderIdError),
    (
        422,
        42210000,
        "invalid limit_price 1.005. sub-penny increment does not fulfill minimum pricing criteria",
        InvalidOrderError,
    ),
    (422, 42210000, "asset AAPL is not tradable", MarketClosedError),
    (422, 42210000, 'asset "AAPL" cannot be sold short', InvalidOrderError),
    (422, 42210000, 'asset "AAPL" is not fractionable', InvalidOrderError),
    (404, 40410000, "asset not found", InvalidOrderError),
    (401, 40110000, "request is not authorized", AuthenticationError),
    (429, 42910000, "rate limit exceeded", RateLimitError),
    (429, None, "too many requests.", RateLimitError),
]
UNPROVEN = [
    (500, 50010000, "internal server error occurred"),
    (500, 40310000, "insufficient buying power"),
    (500, 40310100, "trade denied due to pattern day trading protection"),
    (403, None, "trade denied due to pattern day trading protection"),
    (502, None, "bad gateway"),
    (503, None, "service unavailable"),
    (504, None, "gateway timeout"),
    (403, None, "forbidden"),
    (422, 42299999, "a code that nobody knows"),
    (418, 40310000, "insufficient buying power"),
    (408, None, "request timeout"),
]


@pytest.mark.parametrize(("status", "code", "text", "kind"), PLACE)
async def test_a_definite_refusal_has_its_class(status, code, text, kind):
    """One request was sent, no order was taken, and the words and the code are kept."""
    async with on_the_wire() as (venue, adapter):
        venue.fail_next("place", Mishap.ERROR, status=status, code=code, text=text)
        request = order()
        error = await refused(adapter, request)
        assert type(error) is kind
        assert text in str(error)
        assert error.code == (None if code is None else str(code))
        assert (venue.sends(request.client_order_id), len(venue.posts())) == (1, 1)
        assert venue.accepts == []


@pytest.mark.parametrize("reached", [False, True])
@pytest.mark.parametrize(("status", "code", "text"), UNPROVEN)
async def test_what_is_not_on_the_list_proves_nothing(status, code, text, reached):
    """Whatever a server error or an unknown pair of status and code says: the order may be there."""
    async with on_the_wire() as (venue, adapter):
        venue.fail_next("place", Mishap.ERROR, status=status, code=code, text=text, reached=reached)
        request = order()
        error = await refused(adapter, request)
        assert type(error) is OrderStatusUnknownError
        assert len(venue.posts()) == 1
        assert venue.accepted(request.client_order_id) == reached


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        (Mishap.DROP_REQUEST, {}),
        (Mishap.DROP_ANSWER, {}),
        (Mishap.CUT_BODY, {}),
        (Mishap.HANG, {"reached": True}),
        (Mishap.HTML, {"status": 200, "reached": True}),
        (Mishap.HTML, {"status": 403}),
        (Mishap.HTML, {"status": 429}),
        (Mishap.EMPTY, {}),
        (Mishap.CUT_JSON, {}),
        (Mishap.LIST, {}),
        (Mishap.NULL, {}),
        (Mishap.NAN, {}),
        (Mishap.NO_ID, {}),
        (Mishap.OTHER_ORDER, {}),
        (Mishap.CHANGE, {"changes": {"symbol": "MSFT"}}),
        (Mishap.CHANGE, {"changes": {"filled_qty": "1e400"}}),
        (Mishap.CHANGE, {"changes": {"filled_qty": "-5"}}),
        (Mishap.CHANGE, {"changes": {"filled_qty": "11"}}),
        (Mishap.CHANGE, {"changes": {"qty": "\uff11\uff10"}}),
        (Mishap.CHANGE, {"changes": {"side": "both"}}),
    ],
)
async def test_a_bad_answer_proves_nothing(kind, details):
    """A lost, cut, empty or foreign answer is unknown; the order is found by its id, and sent once."""
    async with on_the_wire() as (venue, adapter):
        await adapter.instrument("AAPL")
        venue.fail_next("place", kind, **details)
        if kind is Mishap.HANG:
            adapter._wire._limit = 0.2
        request = order()
        error = await refused(adapter, request)
        assert type(error) is OrderStatusUnknownError
        assert venue.sends(request.client_order_id) == 1
        if venue.accepted(request.client_order_id):
            found = await adapter.get_order("AAPL", client_order_id=request.client_order_id)
            assert found.client_order_id == request.client_order_id


async def test_an_unknown_status_is_in_doubt():
    """An answer with a word that nobody knows is no acceptance."""
    async with on_the_wire() as (venue, adapter):
        venue.fail_next("place", Mishap.CHANGE, changes={"status": "levitating"})
        report = await adapter.place_order(order())
        assert (report.status, report.raw_status) == (OrderState.IN_DOUBT, "levitating")


@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [
        ("Retry-After", "7", 7),
        ("X-Ratelimit-Reset", "1710255612", 12),
        ("X-Ratelimit-Reset", "1710255500", 0),
        ("X-Ratelimit-Reset", "1710255600000000", None),
        ("X-Ratelimit-Reset", "9999999999", 300),
        ("Retry-After", "soon", None),
    ],
)
def test_the_pause_is_the_venues(header, value, seconds):
    """`Retry-After` in seconds, else the moment of `X-Ratelimit-Reset`; nonsense is no pause at all."""
    from execkit.exchanges.alpaca.codes import retry_after

    now = datetime(2024, 3, 12, 15, 0, tzinfo=UTC)
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert retry_after({header: value}, now) == expected


async def test_reads_and_cancels_have_their_classes():
    """Not found is said by the venue; a failed read is unavailable, and a cancel that fails proves nothing."""
    async with on_the_wire() as (venue, adapter):
        placed = await adapter.place_order(order())
        ids = {
            "client_order_id": placed.client_order_id,
            "venue_order_id": placed.venue_order_id,
        }
        venue.fail_next("get", Mishap.ERROR, status=404, code=40410000, text="order not found")
        with pytest.raises(OrderNotFoundError):
            await adapter.get_order("AAPL", **ids)
        venue.fail_next("get", Mishap.ERROR, status=404)
        with pytest.raises(ExchangeUnavailableError):
            await adapter.get_order("AAPL", **ids)
        venue.fail_next("get", Mishap.ERROR, status=401, code=40110000)
        with pytest.raises(AuthenticationError):
            await adapter.get_order("AAPL", **ids)
        venue.fail_next("cancel", Mishap.ERROR, status=500)
        with pytest.raises(OrderStatusUnknownError):
            await adapter.cancel_order("AAPL", **ids)
        text = 'order is already in "filled" state'
        venue.fail_next("cancel", Mishap.ERROR, status=422, code=42210000, text=text)
        with pytest.raises(OrderNotFoundError):
            await adapter.cancel_order("AAPL", **ids)
        assert len(venue.calls("cancel")) == 2


async def test_no_connection_is_not_sent():
    """When nobody listens not one byte has left."""
    async with on_the_wire() as (venue, adapter):
        await adapter.instrument("AAPL")
        await venue.close()
        error = await refused(adapter, order())
        assert type(error) is NotSentError
        with pytest.raises(ExchangeUnavailableError):
            await adapter.positions()


# -- money and day trades, with the account's numbers --------------------------------------------------------


async def test_buying_power_is_adjustable_with_the_numbers():
    """What the account could pay for stands in the message, and how many shares that is."""
    async with on_the_wire() as (_venue, adapter):
        error = await refused(adapter, order(quantity=D(1000), limit_price=D(140)))
        assert type(error) is InsufficientBalanceError
        assert error.available == D(714)
        assert "buying_power=100000" in str(error)
        assert "cost_basis=140000" in str(error)
        await adapter.place_order(order(quantity=error.available, limit_price=D(140)))


async def test_what_is_held_for_orders_is_adjustable_with_the_numbers():
    """A second exit is refused with what is left of the position."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(market(quantity=D(10)))
        await venue.until(lambda: venue.state.position("AAPL") == 10)
        stop = order(
            side=Side.SELL,
            type=OrderType.STOP,
            limit_price=None,
            stop_price=D(130),
            quantity=D(6),
        )
        await adapter.place_order(stop)
        error = await refused(adapter, market(side=Side.SELL, quantity=D(10)))
        assert type(error) is InsufficientBalanceError
        assert error.available == D(4)
        for number in ("available=4", "existing_qty=10", "held_for_orders=6"):
            assert number in str(error)
        balance = (await adapter.balances())["AAPL"]
        assert (balance.total, balance.free) == (D(10), D(4))


async def test_a_day_trade_too_many_is_final_with_the_numbers():
    """A refusal for pattern day trading names the account's equity and its day trades, and is not tried again."""
    async with on_the_wire(cash=D(20_000)) as (venue, adapter):
        venue.set_day_trades(3)
        await adapter.place_order(market())
        await venue.until(lambda: venue.state.position("AAPL") == 10)
        error = await refused(adapter, market(side=Side.SELL))
        assert type(error) is OrderRejectedError
        assert "daytrade_count=3" in str(error)
        assert "equity=19999.9" in str(error)
        assert not error.retryable


async def test_a_wash_trade_is_final():
    """An order that could meet one of the same account is refused, with what to do instead."""
    async with on_the_wire() as (_venue, adapter):
        await adapter.place_order(order(limit_price=D(149)))
        error = await refused(adapter, order(side=Side.SELL, limit_price=D("148.99")))
        assert type(error) is OrderRejectedError
        assert "bracket or OCO" in str(error)


# -- input that cannot work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (order(limit_price=D("140.005")), "sub-penny"),
        (order(quantity=D("1.5")), "fractional=True"),
        (order(quantity=D(0)), "above zero"),
        (order(quantity=D("NaN")), "above zero"),
        (order(time_in_force=TimeInForce.GTD), "gtc or day"),
        (order(post_only=True), "leave it out"),
        (market(extended_hours=True, time_in_force=TimeInForce.DAY), "only limit orders"),
        (order(extended_hours=True, time_in_force=TimeInForce.IOC), "only limit orders"),
        (order(type=OrderType.STOP, stop_price=D(130)), "takes none"),
        (order(type=OrderType.STOP, limit_price=None), "needs one"),
        (order(type=OrderType.TRAILING_STOP, limit_price=None), "exactly one"),
        (market(trail_amount=D(1)), "exactly one"),
        (
            order(
                type=OrderType.STOP,
                limit_price=None,
                stop_price=D(160),
                time_in_force=TimeInForce.IOC,
            ),
            "day or gtc",
        ),
        (order(symbol="BTC/USD", time_in_force=TimeInForce.DAY), "gtc or ioc"),
        (order(symbol="BTC/USD", quantity=D("0.00001")), "minimum"),
        (order(symbol="BTC/USD", extended_hours=True), "around the clock"),
        (
            order(
                symbol="BTC/USD",
                type=OrderType.TRAILING_STOP,
                limit_price=None,
                trail_percent=D(1),
            ),
            "no trailing stops",
        ),
        (order(symbol="NOPE"), "not listed"),
        (order(symbol="BTCUSD", quantity=D(1)), "'BTC/USD'"),
        (order(symbol="aapl"), "written AAPL"),
        (order(symbol=".."), "not listed"),
        (order(symbol="A/../../account"), "not listed"),
    ],
)
async def test_what_cannot_work_is_not_sent(request_, words):
    """A clear refusal that names the field and the fix; nothing reaches the venue's orders."""
    async with on_the_wire() as (venue, adapter):
        error = await refused(adapter, request_)
        assert isinstance(error, InvalidOrderError)
        assert words in str(error)
        assert venue.posts() == []


@pytest.mark.parametrize(
    ("asset", "request_", "words", "kind"),
    [
        (Asset.stock("AAPL", tradable=False), order(), "not tradable", MarketClosedError),
        (
            Asset.stock("AAPL", shortable=False),
            order(side=Side.SELL, limit_price=D(160)),
            "sold short",
            InvalidOrderError,
        ),
        (
            Asset.stock("AAPL", fractionable=False),
            market(quantity=D("1.5"), time_in_force=TimeInForce.DAY),
            "whole number of shares",
            InvalidOrderError,
        ),
    ],
)
async def test_what_an_asset_does_not_take(asset, request_, words, kind):
    """Refused by the venue or here, with the fix; no order comes of it."""
    options = {"assets": [asset], "prices": {"AAPL": D(150)}}
    async with on_the_wire(**options, adapter={"fractional": True}) as (venue, adapter):
        error = await refused(adapter, request_)
        assert type(error) is kind
        assert words in str(error)
        assert venue.accepts == []
        assert len(venue.posts()) <= 1


async def test_a_fraction_of_a_share():
    """Nine decimals, for the day; what protects one is sent for the day too, and the rest is refused."""
    async with on_the_wire(adapter={"fractional": True}) as (venue, adapter):
        rules = await adapter.instrument("AAPL")
        assert (rules.lot_size, rules.min_notional) == (D("1e-9"), D(1))
        takes_list = partial(adapter.capabilities.takes_list, ListKind.OCO, rules)
        assert [takes_list(D(each)) for each in ("2", "2.5")] == [True, False]
        part = D("0.123456789")
        error = await refused(adapter, order(quantity=part))
        assert "use day instead of gtc" in str(error)
        error = await refused(adapter, market(quantity=D("0.1234567891")))
        assert "nine decimals" in str(error)
        assert venue.posts() == []
        await adapter.place_order(market(quantity=part))
        assert venue.posts()[-1].body["time_in_force"] == "day"
        await venue.until(lambda: venue.state.position("AAPL") == part)
        stop = {"type": OrderType.STOP, "limit_price": None, "stop_price": D(130)}
        protects = order(side=Side.SELL, quantity=part, reduce_only=True, **stop)
        assert (await adapter.place_order(protects)).status is OrderState.ACCEPTED
        assert venue.posts()[-1].body["time_in_force"] == "day"


async def test_a_stock_that_came_above_a_dollar_is_traded_in_cents():
    """E11: the order that shows it is refused here with the fix, and whoever keeps rules asks for them anew."""
    async with on_the_wire(prices={"PENY": D("0.95")}) as (venue, adapter):
        assert (await adapter.instrument("PENY")).tick_size == D("0.0001")
        await adapter.place_order(order(symbol="PENY", limit_price=D("0.9001")))
        version = adapter.rules_version
        error = await refused(adapter, order(symbol="PENY", limit_price=D("1.0005")))
        assert "use multiples of 0.01" in str(error)
        assert adapter.rules_version == version + 1
        assert (await adapter.instrument("PENY")).tick_size == D("0.01")
        assert len(venue.posts()) == 1


async def test_a_market_that_was_closed_is_asked_for_anew():
    """An asset that was not tradable at the start is, as soon as the venue says so."""
    async with on_the_wire() as (venue, adapter):
        venue.state.assets["AAPL"].tradable = False
        assert not (await adapter.instrument("AAPL")).tradeable
        venue.state.assets["AAPL"].tradable = True
        assert (await adapter.instrument("AAPL")).tradeable
        asked = len(venue.calls("asset"))
        await adapter.instrument("AAPL")
        assert len(venue.calls("asset")) == asked


# -- settings and accounts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"paper": False}, "live=True"),
        ({"feed": "opra"}, "iex"),
        ({"rest_url": "http://example.com", "stream_url": "ws://example.com"}, "in the clear"),
        ({"rest_url": "https://example.com"}, "stream_url"),
        (
            {"rest_url": "https://api.alpaca.markets", "stream_url": "wss://api.alpaca.markets"},
            "live venue",
        ),
        (
            {
                "live": True,
                "rest_url": "https://paper-api.alpaca.markets",
                "stream_url": "wss://paper-api.alpaca.markets",
            },
            "leave live=True out",
        ),
        (
            {"rest_url": "https://u:p@example.com", "stream_url": "wss://example.com"},
            "no user, password",
        ),
        ({"timeout": timedelta(0)}, "above zero"),
    ],
)
def test_settings_that_cannot_work(options, words):
    """Refused when the adapter is made, naming the setting and the fix."""
    with pytest.raises(ConfigurationError, match=words):
        AlpacaAdapter(api_key="k", secret="s", **options)


async def test_keys_come_from_the_environment(monkeypatch):
    """Without arguments ALPACA_API_KEY and ALPACA_API_SECRET are used; without any key nothing is asked."""
    async with venue_on_the_wire() as venue:
        monkeypatch.delenv("ALPACA_API_KEY", raising=False)
        bare = adapter_of(venue, api_key=None, secret=None)
        with pytest.raises(ConfigurationError, match="ALPACA_API_KEY"):
            await bare.connect()
        monkeypatch.setenv("ALPACA_API_KEY", venue.key)
        monkeypatch.setenv("ALPACA_API_SECRET", venue.secret)
        adapter = adapter_of(venue, api_key=None, secret=None)
        await adapter.connect()
        await adapter.close()
        assert KEY not in f"{adapter!r} {adapter.account} {vars(adapter)!r}"


async def test_a_wrong_key_is_said_at_once():
    """Connecting fails with what to check, and leaves nothing open."""
    async with venue_on_the_wire() as venue:
        adapter = adapter_of(venue, secret="wrong")
        with pytest.raises(AuthenticationError, match="keys of paper and live differ"):
            await adapter.connect()
        assert venue.sockets == []


@pytest.mark.parametrize(("status", "text"), [(401, "unauthorized."), (403, "forbidden.")])
async def test_a_key_that_the_gate_turns_away_is_said_at_once(status, text):
    """Such an answer has no code; for an order it would prove nothing, of a question it is believed."""
    async with venue_on_the_wire() as venue:
        venue.fail_next("account", Mishap.ERROR, status=status, text=text)
        with pytest.raises(AuthenticationError, match="keys of paper and live differ"):
            await adapter_of(venue).connect()
        assert venue.posts() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trading_blocked": True}, "trading is blocked"),
        ({"account_blocked": True}, "account is blocked"),
        ({"suspended_by_user": True}, "suspend trade"),
        ({"status": "SUBMITTED"}, "not ACTIVE"),
    ],
)
async def test_an_account_that_may_not_trade_is_said_at_once(change, words):
    """Before any order, naming what to do."""
    async with venue_on_the_wire() as venue:
        for name, value in change.items():
            setattr(venue.state, name, value)
        with pytest.raises(AuthenticationError, match=words):
            await adapter_of(venue).connect()
        assert venue.posts() == []


async def test_an_account_that_is_blocked_later_halts():
    """A refusal of the account itself is an AuthenticationError, which halts trading."""
    async with on_the_wire() as (venue, adapter):
        venue.state.trading_blocked = True
        assert type(await refused(adapter, order())) is AuthenticationError
        assert venue.accepts == []


async def test_a_symbol_is_no_path():
    """What is no symbol reaches no address, whatever is asked about it."""
    async with on_the_wire() as (venue, adapter):
        before = len(venue.requests)
        for ask in (
            adapter.instrument,
            adapter.ticker,
            adapter.market_status,
            adapter.close_position,
        ):
            with pytest.raises(InvalidOrderError):
                await ask("../account")
        assert len(venue.requests) == before


async def test_redirects_are_not_followed():
    """An answer that sends elsewhere is no answer, and the keys go nowhere."""
    async with on_the_wire() as (venue, adapter):
        venue.fail_next("positions", Mishap.ERROR, status=302)
        with pytest.raises(ExchangeUnavailableError):
            await adapter.positions()
        assert len(venue.calls("positions")) == 1


async def test_a_stream_that_sends_elsewhere_gets_no_keys():
    """S11: the WebSocket follows no redirect either, because the first thing that it says is the key."""
    seen = []

    async def elsewhere(request):
        seen.append(str(request.url))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        seen.extend([message.data async for message in socket])
        return socket

    async def redirect(request):
        raise web.HTTPTemporaryRedirect(str(request.url.with_path("/elsewhere")))

    app = web.Application()
    app.router.add_get("/stream", redirect)
    app.router.add_get("/elsewhere", elsewhere)
    server = TestServer(app)
    await server.start_server()
    async with venue_on_the_wire() as venue:
        adapter = adapter_of(venue, stream_url=str(server.make_url("")).replace("http", "ws"))
        try:
            with pytest.raises(ExchangeUnavailableError):
                await adapter.connect()
        finally:
            await server.close()
    assert seen == []


async def test_outside_the_hours_orders_wait():
    """A market order after the close is accepted and waits; it is executed when the market opens."""
    clock = TradingClock(datetime(2024, 3, 12, 22, 0, tzinfo=UTC))
    async with on_the_wire(clock=clock) as (venue, adapter):
        request = market(time_in_force=TimeInForce.DAY)
        await adapter.place_order(request)
        found = await adapter.get_order("AAPL", client_order_id=request.client_order_id)
        assert (found.status, found.raw_status) == (OrderState.ACCEPTED, "accepted")
        clock.set(datetime(2024, 3, 13, 13, 31, tzinfo=UTC))
        await venue.move_price("AAPL", D(151))
        found = await adapter.get_order("AAPL", client_order_id=request.client_order_id)
        assert found.status is OrderState.FILLED

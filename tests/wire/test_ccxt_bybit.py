"""The adapter for every exchange of ccxt, on Bybit on the wire: outcomes, streams, data, and an engine on it."""

import asyncio
import contextlib
import random
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.binance import order

from execkit.clock import SystemClock
from execkit.engine import ExecutionEngine
from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
    DuplicateClientOrderIdError,
    ExchangeUnavailableError,
    InsufficientBalanceError,
    InvalidOrderError,
    OrderStatusUnknownError,
    RateLimitError,
)
from execkit.exchanges.ccxt.adapter import CCXTAdapter
from execkit.exchanges.ccxt.values import milliseconds
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.market import Timeframe
from execkit.model.order import OrderState, OrderType, Side, StreamGap
from execkit.model.signal import TradingSignal
from execkit.pipeline import ExecutionPipeline
from execkit.risk.sizing import FixedQuantity
from execkit.testing.venues.bybit import KEY, SECRET, BybitVenue
from execkit.testing.venues.faults import Mishap

BTC = "BTC/USDT"


def adapter_of(venue, **options):
    settings = {"api_key": KEY, "secret": SECRET, "absence_window": timedelta(seconds=0.15)}
    settings |= {"rest_url": venue.rest_url, "stream_url": venue.stream_url}
    return CCXTAdapter("bybit", **(settings | options))


@contextlib.asynccontextmanager
async def on_the_wire(**options):
    async with BybitVenue() as venue:
        adapter = adapter_of(venue, **options)
        try:
            await adapter.connect()
            yield venue, adapter
        finally:
            await adapter.close()


REFUSALS = [
    (170131, "Insufficient balance.", InsufficientBalanceError),
    (170134, "Order price has too many decimals.", InvalidOrderError),
    (170141, "Duplicate clientOrderId", DuplicateClientOrderIdError),
    (10003, "API key is invalid.", AuthenticationError),
    (10006, "Too many visits!", RateLimitError),
    (10002, "invalid request, please check your server timestamp", RateLimitError),
    (99999, "A code that nobody has heard of.", OrderStatusUnknownError),
]


@pytest.mark.parametrize(("code", "text", "kind"), REFUSALS, ids=[str(c) for c, _, _ in REFUSALS])
async def test_answer(code, text, kind):
    """A refusal is believed by its code only; every other one is unknown. One call sends one request."""
    async with on_the_wire() as (venue, adapter):
        venue.fail_next("place", Mishap.ERROR, status=200, code=code, text=text)
        with pytest.raises(kind) as raised:
            await adapter.place_order(order())
        assert type(raised.value) is kind
        assert venue.sends(order().client_order_id) == 1


async def test_codes_that_the_user_vouches_for():
    """A user who knows a code can say what it means."""
    async with on_the_wire(refusals={"99999": "rejected"}) as (venue, adapter):
        venue.fail_next("place", Mishap.ERROR, status=200, code=99999, text="no")
        with pytest.raises(Exception, match="no") as raised:
            await adapter.place_order(order())
        assert type(raised.value).__name__ == "OrderRejectedError"


async def test_an_order_that_is_acknowledged_by_its_id_is_read_back():
    """Bybit answers with ids only; what the order is, and whether it lives, is asked for before it counts."""
    async with on_the_wire() as (venue, adapter):
        report = await adapter.place_order(order())
        assert (report.status, report.quantity) == (OrderState.ACCEPTED, Decimal("0.01"))
        assert len(venue.calls("place")) == 1


READ_BACK = [
    (Mishap.ERROR, {"status": 500}),
    (Mishap.ERROR, {"status": 429, "code": 10006}),
    (Mishap.ERROR, {"status": 401, "code": 10003}),
    (Mishap.DROP_REQUEST, {}),
    (Mishap.CUT_JSON, {}),
]


@pytest.mark.parametrize(("kind", "details"), READ_BACK, ids=str)
async def test_what_fails_after_an_acknowledgement_is_no_refusal(kind, details):
    """The order has been taken: however reading it back fails, its outcome is unknown."""
    async with on_the_wire() as (venue, adapter):
        venue.fail_next("read", kind, times=9, **details)
        with pytest.raises(OrderStatusUnknownError):
            await adapter.place_order(order())
        assert venue.accepted(order().client_order_id) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit_price": Decimal("40000.0001")}, "limit_price"),
        ({"quantity": Decimal("0.0000001")}, "quantity"),
        ({"symbol": "BTC/USDT:USDT"}, "is a perpetual future"),
        ({"type": OrderType.TRAILING_STOP, "limit_price": None}, "order type"),
    ],
)
async def test_order_against_the_rules(changes, words):
    """What the market's rules forbid is refused by field, and nothing is sent."""
    async with on_the_wire() as (venue, adapter):
        with pytest.raises(InvalidOrderError, match=words):
            await adapter.place_order(order(**changes))
        assert venue.calls("place") == []


async def test_wrong_key():
    """A key that is not known is told at the start."""
    async with BybitVenue() as venue:
        adapter = adapter_of(venue, api_key="wrong")
        with pytest.raises(AuthenticationError):
            await adapter.connect()
        await adapter.close()
        assert venue.calls("place") == []


class Ahead:
    def now(self):
        return SystemClock().now() + timedelta(seconds=2)


async def test_clock_two_seconds_off():
    """It is told at the start, as on Binance."""
    async with BybitVenue() as venue:
        adapter = adapter_of(venue, clock=Ahead())
        with pytest.raises(ConfigurationError, match=r"clock: .* 2.0 s ahead of bybit's"):
            await adapter.connect()
        await adapter.close()


RIGHTS = [
    ({"permissions": {"Wallet": ["AccountTransfer", "Withdraw"]}}, "may withdraw"),
    ({"permissions": {"Spot": ["SpotTrade"]}, "readOnly": 1}, "may only read"),
    ({"permissions": None}, "does not tell"),
]


@pytest.mark.parametrize(("rights", "words"), RIGHTS, ids=[w for _, w in RIGHTS])
async def test_rights_of_a_key(rights, words):
    """A key that may withdraw, may not trade, or of which nobody knows, is refused at the start."""
    venue = BybitVenue()
    venue._key = lambda _call: venue.wrap({"readOnly": 0} | rights)
    async with venue:
        adapter = adapter_of(venue)
        with pytest.raises(AuthenticationError, match=words):
            await adapter.connect()
        await adapter.close()
        assert venue.calls("place") == []


async def test_market_data():
    """Quotes, trades and bars come through ccxt's streams and history."""
    async with on_the_wire() as (venue, adapter):
        assert (await adapter.ticker(BTC)).bid > 0
        bars = await adapter.bars(BTC, Timeframe.M1, since=venue.clock.now() - timedelta(hours=1))
        assert all(bar.timeframe is Timeframe.M1 for bar in bars)


async def test_a_holding_keeps_its_name():
    """What was asked for before does not decide in which market a held coin is shown."""
    async with BybitVenue(prices={BTC: Decimal(42_000), "BTC/USDC": Decimal(42_000)}) as venue:
        adapter = adapter_of(venue)
        try:
            await adapter.connect()
            await adapter.ticker("BTC/USDC")
            await adapter.place_order(order(type=OrderType.MARKET, limit_price=None))
            (held,) = await adapter.positions()
            assert held.symbol == BTC
            assert adapter.capabilities.positions_are_holdings
        finally:
            await adapter.close()


async def test_executions_over_many_pages(monkeypatch):
    """Bybit lists the newest first and a week at most: none is lost, however many and however old."""
    monkeypatch.setattr("execkit.exchanges.ccxt.orders._PAGE", 3)
    async with on_the_wire() as (venue, adapter):
        for number in range(1, 9):
            await adapter.place_order(order(number, type=OrderType.MARKET, limit_price=None))
        wanted = {order(number).client_order_id for number in range(1, 9)}
        for age in (timedelta(minutes=1), timedelta(days=20)):
            fills = await adapter.fills_since(venue.clock.now() - age)
            assert {fill.client_order_id for fill in fills} == wanted
        monkeypatch.setattr("execkit.exchanges.ccxt.orders._MOST_PAGES", 2)
        with pytest.raises(ExchangeUnavailableError, match="more than 2 pages"):
            await adapter.fills_since(venue.clock.now() - timedelta(minutes=1))


@pytest.mark.parametrize("newest_first", [True, False])
async def test_executions_of_a_venue_without_a_cursor(newest_first, monkeypatch):
    """Pages are found from both ends, whichever end a full page shows; one instant of more than a page is told."""
    monkeypatch.setattr("execkit.exchanges.ccxt.orders._PAGE", 3)
    now = milliseconds(SystemClock().now())

    def row(number, at):
        trade = {"id": str(number), "order": "1", "symbol": BTC, "side": "buy", "timestamp": at}
        return trade | {"amount": "1", "price": "2"}

    def listing(trades):
        async def fetch_my_trades(_symbol, since, limit, params):
            until = params.get("until", now)
            found = [each for each in trades if since <= each["timestamp"] <= until]
            return found[-limit:] if newest_first else found[:limit]

        return fetch_my_trades

    async with on_the_wire() as (venue, adapter):
        since = venue.clock.now() - timedelta(minutes=1)
        many = [row(number, now - 100 + number) for number in range(20)]
        monkeypatch.setattr(adapter._client, "fetch_my_trades", listing(many))
        assert len(await adapter.fills_since(since)) == 20
        same = [row(number, now - 100) for number in range(4)]
        monkeypatch.setattr(adapter._client, "fetch_my_trades", listing(same))
        with pytest.raises(ExchangeUnavailableError, match="at one time"):
            await adapter.fills_since(since)


FAULTS = [
    [],
    [("place", Mishap.DROP_REQUEST, {})],
    [("place", Mishap.DROP_ANSWER, {})],
    [("place", Mishap.CUT_BODY, {})],
    [("place", Mishap.HTML, {"status": 200, "reached": True})],
    [("place", Mishap.ERROR, {"status": 500, "reached": True})],
    [("place", Mishap.EMPTY, {})],
    [("place", Mishap.NO_ID, {})],
    [("place", Mishap.OTHER_ORDER, {})],
    [("place", Mishap.DROP_ANSWER, {}), ("stream", Mishap.CUT, {})],
    [("place", Mishap.DROP_ANSWER, {}), ("get", Mishap.NOT_FOUND, {})],
    [("stream", Mishap.LOSE, {})],
    [("stream", Mishap.DUPLICATE, {})],
    [("stream", Mishap.CUT, {})],
]


@pytest.mark.parametrize("faults", FAULTS, ids=str)
async def test_signal_to_position(faults):
    """One signal is one order at most, nothing stays in doubt, and both sides hold the same."""
    chain = ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(Decimal("0.01"))),
            OrderExecutorHandler(base_delay=0.02, doubt_timeout=1.5),
            ReconciliationHandler(max_wait_time=0.3, poll_interval=0.1),
        ]
    )
    async with BybitVenue() as venue:
        engine = ExecutionEngine(
            adapter_of(venue), journal=None, pipeline=chain, rng=random.Random(1), store=False
        )
        async with engine:
            for on, kind, details in faults:
                venue.fail_next(on, kind, **details)
            await engine.submit(
                TradingSignal(signal_id="s", symbol=BTC, side=Side.BUY, strength=80, confluence=4)
            )
            venue.heal()
            async with asyncio.timeout(20):
                while engine.book.orders.in_doubt or not await engine.desk.reconciler.try_run():
                    await asyncio.sleep(0.05)
            await engine.desk.keeper.idle()
            orders = [engine.book.orders[key] for key in engine.book.orders]
            assert max(venue.accepted(each.client_order_id) for each in orders) <= 1
            ours = engine.book.positions.quantity(BTC)
            assert ours == venue.core.account.totals.get("BTC", Decimal(0))


async def test_the_stream_comes_back():
    """After a cut it is opened anew, and the gap is told."""
    async with on_the_wire() as (venue, adapter):
        stream = adapter.order_updates()
        venue.cut_streams()
        async with asyncio.timeout(5):
            assert isinstance(await anext(stream), StreamGap)
        assert adapter._orders.reconnects == 1


async def test_a_market_buy_that_would_state_a_cost_is_not_sent():
    """Such a client asks for a price and buys for an amount of money; our orders are quantities."""
    asks = {"createOrder": {"createMarketBuyOrderRequiresPrice": True}}
    buy = {"type": OrderType.MARKET, "limit_price": None}
    async with on_the_wire(options=asks) as (venue, adapter):
        with pytest.raises(InvalidOrderError, match="no market buys by quantity; use a limit"):
            await adapter.place_order(order(**buy))
        assert venue.calls("place") == []
        await adapter.place_order(order())
        assert len(venue.calls("place")) == 1

"""The account's stream and the market's, through ccxt.pro and as raw frames; what can be wrong with single events."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

import aiohttp
import ccxt.async_support as errors
import pytest

from execkit.model.market import BarData, Timeframe, Trade

SYMBOL = "BTC/USDT"


class Events:
    """Everything that the account's stream tells ccxt, before ccxt makes something of it."""

    def __init__(self, ccxt):
        self.seen = []
        inner = ccxt.handle_message

        def keep(client, message):
            event = message.get("event", message)
            if "e" in event:
                self.seen.append(event)
            inner(client, message)

        ccxt.handle_message = keep

    def orders(self):
        return [(e["x"], e["X"], e["z"]) for e in self.seen if e["e"] == "executionReport"]


@asynccontextmanager
async def listening(venue, ccxt):
    events = Events(ccxt)
    watching = asyncio.create_task(ccxt.watch_orders())
    await venue.until(lambda: bool(venue.listeners()))
    yield events
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def place(ccxt, name="mine"):
    return ccxt.create_order(SYMBOL, "limit", "buy", "0.001", 40_000, {"newClientOrderId": name})


async def test_life_of_an_order(venue, ccxt):
    """New, executed in parts, cancelled: one event each, with fee and maker flag, and balances after each."""
    async with listening(venue, ccxt) as events:
        await place(ccxt)
        await venue.fill("mine", Decimal("0.0004"))
        await ccxt.cancel_order("1", SYMBOL)
        await until(lambda: len(events.seen) == 6)
    assert events.orders() == [
        ("NEW", "NEW", "0.00000000"),
        ("TRADE", "PARTIALLY_FILLED", "0.00040000"),
        ("CANCELED", "CANCELED", "0.00040000"),
    ]
    trade, cancel = events.seen[2], events.seen[4]
    assert (trade["l"], trade["L"], trade["n"], trade["N"], trade["m"]) == (
        "0.00040000",
        "40000.00000000",
        "0.00000040",
        "BTC",
        True,
    )
    # A cancel names itself, and the order that it ended in another field.
    assert (trade["c"], cancel["C"]) == ("mine", "mine")
    assert cancel["c"] != "mine"
    assert {e["e"] for e in events.seen[1::2]} == {"outboundAccountPosition"}


async def test_lists_are_told(venue, ccxt):
    """A list begins and ends; what waits is new before it works."""
    async with listening(venue, ccxt) as events:
        await ccxt.request(
            "orderList/oto",
            ["private"],
            "POST",
            {
                "symbol": "BTCUSDT",
                "workingType": "LIMIT",
                "workingSide": "BUY",
                "workingPrice": "41000",
                "workingQuantity": "0.002",
                "workingTimeInForce": "GTC",
                "pendingType": "LIMIT_MAKER",
                "pendingSide": "SELL",
                "pendingPrice": "43000",
                "pendingQuantity": "0.001",
            },
        )
        await venue.move_price(SYMBOL, Decimal(40_900))
        await venue.move_price(SYMBOL, Decimal(43_100))
        await until(lambda: sum(e["e"] == "listStatus" for e in events.seen) == 2)
    assert [(x, status) for x, status, _ in events.orders()] == [
        ("NEW", "NEW"),
        ("NEW", "PENDING_NEW"),
        ("TRADE", "FILLED"),
        ("NEW", "NEW"),
        ("TRADE", "FILLED"),
    ]
    assert [e["l"] for e in events.seen if e["e"] == "listStatus"] == ["EXEC_STARTED", "ALL_DONE"]


async def test_expiry_reason(venue, ccxt):
    """An order that the venue ended says why, in a word of its own for self-trades."""
    async with listening(venue, ccxt) as events:
        venue.fail_next("place", "expire_in_match")
        await place(ccxt)
        await until(lambda: len(events.orders()) == 2)
    assert events.orders()[1][:2] == ("TRADE_PREVENTION", "EXPIRED_IN_MATCH")
    assert [e.get("eR") for e in events.seen if e["e"] == "executionReport"] == [None, 1]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("lose", ["b", "c"]),
        ("duplicate", ["a", "a", "b", "c"]),
        ("reorder", ["b", "a", "c"]),
        ("late", ["b", "c", "a"]),
    ],
)
async def test_single_event_goes_wrong(venue, ccxt, kind, names):
    """Lost, doubled, behind its successor, or late; balances stay out of the way here."""
    venue.side.account._tell_balances = lambda *_: None
    gate = asyncio.Event()
    async with listening(venue, ccxt) as events:
        venue.fail_next("stream", kind, until=gate)
        for name in "abc":
            await place(ccxt, name)
        await until(lambda: [e["c"] for e in events.seen][-1:] == ["c"])
        gate.set()
        await until(lambda: len(events.seen) == len(names))
    assert [e["c"] for e in events.seen] == names


async def test_cut_and_resubscribe(venue, ccxt):
    """The event is lost with the line; the next subscription works."""
    watching = asyncio.create_task(ccxt.watch_orders())
    await venue.until(lambda: bool(venue.listeners()))
    venue.fail_next("stream", "cut")
    await place(ccxt)
    with pytest.raises(errors.NetworkError):
        await watching
    async with listening(venue, ccxt) as events:
        await place(ccxt, "next")
        await until(lambda: len(events.orders()) == 1)


async def test_terminated_subscription_keeps_the_line(venue, ccxt):
    """The venue says that nothing more comes; the connection stays up and silent."""
    async with listening(venue, ccxt) as events:
        venue.fail_next("stream", "terminate")
        await place(ccxt)
        await until(lambda: bool(events.seen))
        await place(ccxt, "next")
        assert [e["e"] for e in events.seen] == ["eventStreamTerminated"]
        assert (len(venue.sockets), venue.listeners()) == (1, [])


async def test_silent_stream(venue, ccxt):
    """The line is up and everything on it is lost."""
    async with listening(venue, ccxt) as events:
        venue.fail_next("stream", "lose", times=1000)
        await place(ccxt)
        assert (events.seen, len(venue.listeners())) == ([], 1)


async def test_stream_needs_a_right_signature(venue):
    """A wrong one is refused on the WebSocket too, and nobody listens."""
    stamp = str(int(venue.clock.now().timestamp() * 1000))
    params = {"apiKey": venue.key, "timestamp": stamp, "signature": "0" * 64}
    request = {"id": "1", "method": "userDataStream.subscribe.signature", "params": params}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{venue.stream_url}/ws-api/v3") as socket,
    ):
        await socket.send_json(request)
        answer = await socket.receive_json()
    assert (answer["status"], answer["error"]["code"]) == (400, -1022)
    assert venue.listeners() == []


# -- the market --------------------------------------------------------------------------------------


@asynccontextmanager
async def subscribed(venue, *topics):
    """Yield a function that gives the next frame of a public stream."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{venue.stream_url}/ws") as socket,
    ):
        await socket.send_json({"method": "SUBSCRIBE", "params": topics, "id": 1})
        assert (await socket.receive_json())["result"] is None

        async def following():
            async with asyncio.timeout(5):
                return json.loads((await socket.receive()).data)

        yield following


async def test_quotes_and_trades(venue, ccxt):
    """The touch is shown at once and when it moves; so are trades."""
    async with subscribed(venue, "btcusdt@bookTicker", "btcusdt@trade") as following:
        assert (await following())["b"] == "42000.00000000"
        await venue.move_price(SYMBOL, Decimal(42_100))
        assert (await following())["a"] == "42100.01000000"
        assert (await following())["p"] == "42100.00000000"
        now = venue.clock.now()
        await venue.trade(Trade(SYMBOL, Decimal(42_050), Decimal(3), now))
        assert (await following())["q"] == "3.00000000"
    assert (await ccxt.fetch_ticker(SYMBOL))["last"] == 42_050


async def test_ccxt_reads_the_market(venue, ccxt):
    """Its own watchers of tops of books, trades and bars work unchanged."""
    assert (await ccxt.watch_bids_asks([SYMBOL]))[SYMBOL]["ask"] == 42_000.01
    for watch in (ccxt.watch_trades(SYMBOL), ccxt.watch_ohlcv(SYMBOL, "1m")):
        task = asyncio.create_task(watch)
        before = len(venue.sockets)
        await venue.until(lambda before=before: len(venue.sockets) > before)
        await venue.until(lambda: len(venue.sockets[-1].topics) == 1)
        await venue.move_price(SYMBOL, Decimal(42_100))
        assert await task


async def test_bars(venue, ccxt):
    """A forming bar is not closed; a finished one is, and stands in the history."""
    closes = datetime(2024, 1, 1, 0, 1, tzinfo=UTC)
    prices = [Decimal(p) for p in (41_000, 41_100, 40_900, 41_050)]
    bar = BarData(SYMBOL, Timeframe.M1, closes, *prices, Decimal(5))
    async with subscribed(venue, "btcusdt@kline_1m") as following:
        await venue.bar(bar, is_closed=False)
        await venue.bar(bar)
        seen = [(await following())["k"] for _ in range(2)]
    assert [k["x"] for k in seen] == [False, True]
    assert seen[1]["t"] == 1704067200000
    assert seen[1]["T"] == 1704067259999
    rows = await ccxt.fetch_ohlcv(SYMBOL, "1m", 1704067200000, 1)
    assert rows == [[1704067200000, 41_000, 41_100, 40_900, 41_050, 5]]

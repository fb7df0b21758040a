"""The endpoints that no other test visits, and market data over REST: an answer of the right shape from each."""

import asyncio
import json

import aiohttp
import ccxt.async_support as errors
import pytest

SPOT, PERP = "BTC/USDT", "BTC/USDT:USDT"


async def test_spot_tour(venue, ccxt):
    """Rules, times, tickers, books, limits, lists, fees and rights on spot."""
    assert await ccxt.public_get_ping() == {}
    assert abs(await ccxt.fetch_time() - venue.clock.now().timestamp() * 1000) < 5_000
    for answer in (
        await ccxt.fetch_ticker(SPOT),
        (await ccxt.fetch_tickers([SPOT]))[SPOT],
        (await ccxt.fetch_bids_asks([SPOT]))[SPOT],
    ):
        assert (answer["bid"], answer["ask"]) == (42_000, 42_000.01)
    assert (await ccxt.public_get_ticker_price({"symbol": "BTCUSDT"}))["price"] == "42000.00000000"
    assert len(await ccxt.public_get_ticker_price()) == 1
    assert (await ccxt.fetch_order_book(SPOT))["bids"] == [[42_000, 10]]
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001"}
    assert await ccxt.private_post_order_test(order) == {}
    assert venue.accepts == []
    await ccxt.create_order(SPOT, "limit", "buy", "0.001", 40_000, {"newOrderRespType": "ACK"})
    assert [row["count"] for row in await ccxt.private_get_ratelimit_order()] == [1, 1]
    assert await ccxt.private_get_openorderlist() == []
    assert await ccxt.private_get_allorderlist() == []
    with pytest.raises(errors.BaseError, match="-2018"):
        await ccxt.private_get_orderlist({"orderListId": "1"})
    assert (await ccxt.fetch_trading_fee(SPOT))["taker"] == 0.001
    fees = await ccxt.request("account/commission", ["private"], "GET", {"symbol": "BTCUSDT"})
    assert fees["discount"]["discountAsset"] == "BNB"
    assert await ccxt.fetch_my_trades(SPOT, None, None, {"orderId": "1"}) == []
    assert len(await ccxt.fetch_orders(SPOT, 1, 5)) == 1
    with pytest.raises(errors.BaseError, match="-1120"):
        await ccxt.public_get_klines({"symbol": "BTCUSDT", "interval": "7m"})


async def test_websocket_api(venue):
    """It tells the time, ends a subscription, and refuses what it does not know."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{venue.stream_url}/ws-api/v3") as socket,
    ):
        answers = {}
        for method in ("ping", "time", "userDataStream.unsubscribe", "no.such"):
            await socket.send_json({"id": method, "method": method})
            answers[method] = (await socket.receive_json())["status"]
    assert list(answers.values()) == [200, 200, 200, 400]


async def test_public_streams_by_address(venue):
    """Topics may stand in the address; combined streams name the topic of each frame."""
    async with aiohttp.ClientSession() as session:
        url = f"{venue.stream_url}/stream?streams=btcusdt@trade"
        async with session.ws_connect(url) as socket:
            await venue.until(lambda: bool(venue.sockets and venue.sockets[0].topics))
            await venue.move_price(SPOT, venue.core.quote(SPOT).bid)
            frame = await socket.receive_json()
            assert frame["stream"] == "btcusdt@trade"
            for method, answer in (
                ("LIST_SUBSCRIPTIONS", {"result": ["btcusdt@trade"], "id": 1}),
                ("UNSUBSCRIBE", {"result": None, "id": 1}),
                (
                    "NONSENSE",
                    {"error": {"code": 2, "msg": "Invalid request: unknown variant"}, "id": 1},
                ),
            ):
                await socket.send_str(
                    json.dumps({"method": method, "params": ["btcusdt@trade"], "id": 1})
                )
                assert await socket.receive_json() == answer


async def test_futures_tour(usdm, perp):
    """Rules, tickers, histories, brackets, fees and rights on futures."""
    assert (await perp.fetch_ticker(PERP))["last"] == 42_000
    assert (await perp.fetch_ohlcv(PERP, "1h"))[0][4] == 42_000
    market = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    assert await perp.fapiprivate_post_order_test(market) == {}
    await perp.create_order(PERP, "market", "buy", "0.01")
    (trade,) = await perp.fetch_my_trades(PERP)
    assert trade["fee"] == {"currency": "USDT", "cost": pytest.approx(0.2100005)}
    with pytest.raises(errors.BaseError, match="-4166"):
        await perp.fapiprivate_get_usertrades(
            {"symbol": "BTCUSDT", "startTime": "1", "endTime": "10000000000"}
        )
    assert [o["status"] for o in await perp.fetch_orders(PERP)] == ["closed"]
    with pytest.raises(errors.OrderNotFound):
        await perp.fetch_open_order("1", PERP)
    order = await perp.create_order(PERP, "limit", "buy", "0.01", 41_000)
    assert (await perp.fetch_open_order(order["id"], PERP))["status"] == "open"
    await perp.fapiprivate_post_countdowncancelall({"symbol": "BTCUSDT", "countdownTime": "1000"})
    await perp.create_order(PERP, "market", "buy", "0.01", None, {"triggerPrice": 43_000})
    await perp.cancel_all_orders(PERP)
    await perp.cancel_all_orders(PERP, {"trigger": True})
    assert await perp.fetch_open_orders(PERP) == []
    assert await perp.fetch_open_orders(PERP, params={"trigger": True}) == []
    assert (await perp.fetch_leverage_tiers([PERP]))[PERP][0]["maxLeverage"] == 125
    assert (await perp.fetch_trading_fee(PERP))["maker"] == 0.0002
    (row,) = await perp.fapiprivatev3_get_balance()
    assert row["asset"] == "USDT"
    assert (await perp.sapi_get_account_apirestrictions())["enableFutures"] is True
    for call in (perp.cancel_order, perp.fetch_order):
        with pytest.raises(errors.OrderNotFound):
            await call("99", PERP)
    await perp.fapiprivate_post_listenkey()
    await perp.fapiprivate_delete_listenkey()


async def test_bybit_tour(bybit, byccxt):
    """Time, tickers, bars, fees and cancels of all on Bybit; foreign symbols are refused."""
    assert await byccxt.fetch_time() > 0
    assert (await byccxt.fetch_ticker(SPOT))["ask"] == 42_000.01
    assert (await byccxt.fetch_ohlcv(SPOT, "1m"))[0][4] == 42_000
    for price in (40_000, 41_000):
        await byccxt.create_order(SPOT, "limit", "buy", 0.01, price)
    assert len(await byccxt.cancel_all_orders(SPOT)) == 2
    bars = asyncio.create_task(byccxt.watch_ohlcv(SPOT, "1m"))
    await bybit.until(lambda: any("kline.1.BTCUSDT" in s.topics for s in bybit.sockets))
    await bybit.move_price(SPOT, bybit.core.quote(SPOT).ask)
    assert (await bars)[0][4] == 42_000.01
    request = {
        "category": "spot",
        "symbol": "NOSUCH",
        "side": "Buy",
        "orderType": "Market",
        "qty": "1",
    }
    with pytest.raises(errors.InvalidOrder, match="170121"):
        await byccxt.private_post_v5_order_create(request)
    with pytest.raises(errors.BadRequest):
        await byccxt.public_get_v5_market_kline(
            {"category": "spot", "symbol": "BTCUSDT", "interval": "7"}
        )

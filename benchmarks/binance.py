"""P5: a signal through the whole chain and the Binance adapter, over a bare `create_order` of ccxt to the same server.

    python benchmarks/binance.py [--rounds 15]

The server is the wire-level Binance in a process of its own; its answer to an order is ready-made, so that what is
compared is the clients. Both are measured in turn, order by order, in one run. Ours includes validation, risk, the
journalled intent (safe against kill -9) and reading the answer. `acknowledged` is when the answer has been read, which
is what `create_order` gives; `returned` is when `submit` hands back its result, with the fill booked and journalled,
and while the stop for the new position is already being sent on the same loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import ccxt.async_support
import structlog
from aiohttp import web
from orders import percentile

from execkit.engine import ExecutionEngine
from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.order import OrderReport, OrderRequest, OrderType, Side
from execkit.model.signal import TradingSignal
from execkit.orders.waiting import Throttle
from execkit.pipeline import ExecutionPipeline
from execkit.risk.limits import RiskLimits
from execkit.testing.venues.binance import KEY, SECRET, BinanceVenue

WARM = 5
SYMBOLS = [f"S{number}/USDT" for number in range(25)]


class Timed(BinanceAdapter):
    """Notes when the answer to the last entry had been read."""

    answered = 0

    async def place_order(self, request: OrderRequest) -> OrderReport:
        report = await super().place_order(request)
        if request.type is OrderType.MARKET:
            self.answered = time.perf_counter_ns()
        return report


class QuickVenue(BinanceVenue):
    """Takes any order at once, without looking: a market order is executed, every other one rests."""

    count = 0

    def _http(self, operation: str, handler: Any) -> Any:
        if operation != "place":
            return super()._http(operation, handler)

        async def place(request: web.Request) -> web.Response:
            return web.Response(
                body=self._answer(dict(parse_qsl(await request.text()))),
                headers={"Content-Type": "application/json;charset=UTF-8"},
            )

        return place

    def _answer(self, asked: dict[str, str]) -> bytes:
        self.count += 1
        now = int(time.time() * 1000)
        is_market = asked["type"] == "MARKET"
        quantity = asked["quantity"]
        answer = {
            "symbol": asked["symbol"],
            "orderId": 10_000_000 + self.count,
            "orderListId": -1,
            "clientOrderId": asked["newClientOrderId"],
            "transactTime": now,
            "price": asked.get("price", "0.00000000"),
            "stopPrice": asked.get("stopPrice", "0.00000000"),
            "origQty": quantity,
            "executedQty": quantity if is_market else "0.00000000",
            "cummulativeQuoteQty": f"{Decimal(quantity) * 100}" if is_market else "0.00000000",
            "status": "FILLED" if is_market else "NEW",
            "timeInForce": "GTC",
            "type": asked["type"],
            "side": asked["side"],
            "workingTime": now,
            "fills": [],
        }
        if is_market:
            fill = {
                "price": "100.00",
                "qty": quantity,
                "commission": "0",
                "commissionAsset": "USDT",
            }
            answer["fills"] = [fill | {"tradeId": self.count}]
        return json.dumps(answer).encode()


async def serve() -> None:
    prices = {symbol: Decimal(100) for symbol in SYMBOLS}
    async with QuickVenue(prices=prices, balances={"USDT": Decimal(100_000_000)}) as venue:
        print(venue.port, flush=True)
        await asyncio.Event().wait()


@contextlib.contextmanager
def server() -> Iterator[int]:
    """Yield the port of a server in another process."""
    command = [sys.executable, __file__, "--serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def bare_client(port: int) -> Any:
    """Return ccxt as its documents show it, but for the address and the throttle."""
    client = ccxt.async_support.binance(
        {
            "apiKey": KEY,
            "secret": SECRET,
            "enableRateLimit": False,
            "options": {
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
                "fetchMargins": False,
            },
        }
    )
    client.urls["api"] |= dict.fromkeys(("public", "private"), f"http://127.0.0.1:{port}/api/v3")
    return client


def chain() -> ExecutionPipeline:
    limits = RiskLimits(max_concurrent_positions=100_000, max_exposure_pct=Decimal(100))
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(limits),
            OrderExecutorHandler(),
            ReconciliationHandler(verify_fill=False),
        ]
    )


async def measure(port: int, rounds: int, folder: str) -> dict[str, list[float]]:
    """Measure in rounds of an engine each, so that an account holds as many positions as a person's may."""
    bare = bare_client(port)
    times: dict[str, list[float]] = {"ccxt": [], "acknowledged": [], "returned": []}
    try:
        await bare.load_markets()
        for number in range(rounds):
            adapter = Timed(
                KEY,
                SECRET,
                rest_url=f"http://127.0.0.1:{port}",
                stream_url=f"ws://127.0.0.1:{port}",
            )
            engine = ExecutionEngine(
                adapter,
                journal=Path(folder) / f"journal{number}.db",
                durability="process",
                pipeline=chain(),
                store=False,
            )
            async with engine:
                engine.desk.gateway.throttle = Throttle(
                    None
                )  # the work is measured, not the wait for a turn
                for symbol in SYMBOLS:
                    engine.desk.quotes.want(symbol)  # or each new one would open a stream meanwhile
                await asyncio.sleep(0.2)
                one = await one_round(engine, bare, f"r{number}-")
            for name, values in one.items():
                times[name] += values
    finally:
        await bare.close()
    return times


async def one_round(engine: ExecutionEngine, bare: Any, prefix: str) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"ccxt": [], "acknowledged": [], "returned": []}
    for number, symbol in enumerate(SYMBOLS):
        engine.desk.quotes.see(await engine.desk.adapter.ticker(symbol))
        signal = TradingSignal(
            symbol=symbol,
            side=Side.BUY,
            strength=80,
            confluence=4,
            quantity=Decimal("0.10000"),
            stop_loss=Decimal(99),
        )
        start = time.perf_counter_ns()
        params = {"newClientOrderId": f"{prefix}{number}"}
        await bare.create_order(symbol, "market", "buy", 0.1, None, params)
        between = time.perf_counter_ns()
        result = await engine.submit(signal)
        end = time.perf_counter_ns()
        if not result.filled:
            raise SystemExit(str(result))
        await engine.desk.keeper.idle()
        if number >= WARM:
            times["ccxt"].append((between - start) / 1e6)
            times["acknowledged"].append((engine.desk.adapter.answered - between) / 1e6)
            times["returned"].append((end - between) / 1e6)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if options.serve:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())
        return
    with tempfile.TemporaryDirectory() as folder, server() as port:
        times = asyncio.run(measure(port, options.rounds, folder))
    for name, values in times.items():
        print(
            f"{name:12} p50 {percentile(values, 0.5):.2f} ms, p99 {percentile(values, 0.99):.2f} ms"
        )
    bare = percentile(times["ccxt"], 0.5)
    for name in ("acknowledged", "returned"):
        ratio = percentile(times[name], 0.5) / bare
        print(f"P5 whole chain, {name}, / bare create_order: {ratio:.2f}x p50 (goal <= 1.25x)")


if __name__ == "__main__":
    main()

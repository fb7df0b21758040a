"""Everything out at two venues with 200 open orders, while one of them answers nothing: time to flat, and what is left.

    python benchmarks/emergency.py [--orders 200] [--within 5]

The venues are the wire-level Binance and Alpaca. Each holds a position with its stop and half of the orders. All of
Alpaca's answers stay out, its client gives up after two seconds, and `emergency.flatten` returns after --within; then
Alpaca answers again, and what was begun goes on. The venues' own rates hold: Alpaca takes 200 commands a minute,
cancels included and answered or not, so that most of its time to flat is the wait for the next window; Binance
counts no cancel.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog

from execkit import emergency
from execkit.clock import Clock
from execkit.engine import ExecutionEngine
from execkit.exchanges.alpaca.adapter import AlpacaAdapter
from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.orders.commands import Entry
from execkit.orders.waiting import Throttle
from execkit.signals import make_ticket
from execkit.testing.venues import alpaca, binance
from execkit.testing.venues.binance.limits import Rules
from execkit.testing.venues.faults import Mishap

PRICE = Decimal(200)
AWAY = Decimal(170)
ABSENCE = timedelta(seconds=1)
"""Shorter than a real venue's, so that the wait for proof of absence is not all that is measured."""


class TradingDay(Clock):
    """The machine's clock on a day on which stocks are traded."""

    def __init__(self) -> None:
        self._offset = datetime(2024, 3, 12, 15, 0, tzinfo=UTC) - datetime.now(UTC)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset


def signal(symbol: str, **changes: Any) -> TradingSignal:
    return TradingSignal(
        symbol=symbol, side=Side.BUY, strength=80, confluence=4, quantity=Decimal(1), **changes
    )


async def load(engine: ExecutionEngine, symbol: str, other: str, count: int) -> None:
    """Open a position with its stop, and entries below the market in another symbol, past the chain."""
    desk = engine.desk
    instrument = await engine.instrument(other)
    quote = await desk.quotes.get(other)
    assert quote is not None
    kept, desk.gateway.throttle = desk.gateway.throttle, Throttle(None)
    result = await engine.submit(signal(symbol))
    if not result.filled:
        raise SystemExit(str(result))
    await desk.keeper.idle()
    for number in range(count):
        one = signal(other, limit_price=AWAY, signal_id=f"rest-{number}")
        ticket = make_ticket(
            one,
            f"rest-{number}",
            instrument=instrument,
            quote=quote,
            account=engine.account,
            position=None,
            now=desk.clock.now(),
        )
        sent = await desk.gateway.send(Entry(ticket, unchecked=True))
        if sent.denial is not None or sent.error is not None:
            raise SystemExit(str(sent))
    desk.gateway.throttle = kept  # unused so far: these orders are taken as placed long ago


@contextlib.asynccontextmanager
async def world(folder: Path, orders: int) -> AsyncIterator[list[tuple[Any, ExecutionEngine]]]:
    clock = TradingDay()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first = await enter(
            binance.BinanceVenue(
                prices={"BTC/USDT": PRICE, "ETH/USDT": PRICE},
                rules=Rules(orders_per_10s=10_000),
                clock=clock,
            )
        )
        second = await enter(alpaca.AlpacaVenue(prices={"AAPL": PRICE, "MSFT": PRICE}, clock=clock))
        adapters = (
            BinanceAdapter(
                binance.KEY,
                binance.SECRET,
                rest_url=first.rest_url,
                stream_url=first.stream_url,
                clock=clock,
                absence_window=ABSENCE,
            ),
            AlpacaAdapter(
                api_key=alpaca.KEY,
                secret=alpaca.SECRET,
                rest_url=second.rest_url,
                stream_url=second.stream_url,
                clock=clock,
                absence_window=ABSENCE,
                timeout=timedelta(seconds=2),
            ),
        )
        engines = [
            await enter(
                ExecutionEngine(
                    each,
                    journal=folder / f"{each.name}.db",
                    durability="process",
                    clock=clock,
                    store=False,
                )
            )
            for each in adapters
        ]
        await load(engines[0], "BTC/USDT", "ETH/USDT", orders // 2)
        await load(engines[1], "AAPL", "MSFT", orders - orders // 2)
        yield list(zip((first, second), engines, strict=True))


def is_flat(venue: Any) -> bool:
    """Ask the venue itself; dust of fees is no position."""
    held = [each for each in venue.core.positions() if abs(each.quantity) >= Decimal("0.01")]
    return not held and not any(venue.core.open.values())


async def flat_after(venue: Any, start: float) -> float:
    await venue.until(lambda: is_flat(venue), limit=300)
    return time.perf_counter() - start


async def measure(folder: Path, orders: int, within: float) -> None:
    async with world(folder, orders) as ((good, one), (bad, two)):
        count = len(one.orders.active) + len(two.orders.active)
        print(f"{count} open orders and 2 positions at two venues; alpaca answers nothing")
        bad.fail_next("any", Mishap.HANG, times=1_000_000)
        start = time.perf_counter()
        first_flat = asyncio.ensure_future(flat_after(good, start))
        left = await emergency.flatten((one, two), within=timedelta(seconds=within))
        print(f"emergency.flatten returned after {time.perf_counter() - start:.2f} s")
        print(f"  binance flat after {await first_flat:.2f} s")
        for each in left:
            print(
                f"  {each.account}: {len(each.orders)} orders and {len(each.positions)} positions left"
                f"{': ' + each.error if each.error else ''}"
            )
        bad.heal()
        healed = time.perf_counter()
        print(f"  alpaca flat {await flat_after(bad, healed):.2f} s after it answers again")
        async with asyncio.timeout(60):
            while one.orders.active or two.orders.active:  # noqa: ASYNC110 - two books, no event of both
                await asyncio.sleep(0.05)  # the news of the last cancels is on its way
        left_now = len(one.orders.active), len(two.orders.active)
        print(f"  orders left in the end: {sum(left_now)}; at the venues: ", end="")
        print(sum(len(side) for venue in (good, bad) for side in venue.core.open.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--within", type=float, default=5.0)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options.orders, options.within))


if __name__ == "__main__":
    main()

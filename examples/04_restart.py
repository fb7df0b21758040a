"""A restart: the journal knows what we did, the venue what happened meanwhile, and the engine brings them together.

The same signal submitted again is the same order. A stop that was executed while nobody looked is found at the start.
"""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

from execkit import ExecutionEngine, PaperExchange, Quote, Side, TradingSignal

JOURNAL = "restart.db"  # the paper exchange keeps its account beside it, in restart.db.paper


def venue(**options):
    prices = {"BTC/USDT": Decimal(42_000)}
    return PaperExchange(balances={"USDT": Decimal(10_000)}, prices=prices, **options)


def signal():
    return TradingSignal(
        symbol="BTC/USDT", side=Side.BUY, stop_loss=Decimal(41_500), signal_id="breakout-17"
    )


async def main():
    async with ExecutionEngine(venue(), journal=JOURNAL) as engine:
        first = await engine.submit(signal())
        print("first process:", first.outcome, first.client_order_ids)
        await engine.desk.keeper.idle()

    async with ExecutionEngine(venue(), journal=JOURNAL) as engine:
        again = await engine.submit(signal())
        print("second process:", again.outcome, again.client_order_ids)
        print("knows:", *engine.positions.values())
        assert again.client_order_ids == first.client_order_ids

    # Nobody runs. The price falls, and the venue executes the stop that rests there.
    async with venue(storage=f"{JOURNAL}.paper") as alone:
        price = Decimal(41_400)
        alone.feed_quote(Quote("BTC/USDT", price, price, datetime.now(UTC)))

    async with ExecutionEngine(venue(), journal=JOURNAL) as engine:
        print("third process:", dict(engine.positions) or "flat")
        print("found:", engine.book.positions.closed[-1].realised_pnl, "USDT")
        assert not engine.positions


asyncio.run(main())

"""A signal becomes an order on the paper exchange, a protected position, and an exit.

The result says why each handler did what it did. The stop-loss rests at the venue as soon as the entry is filled, and
goes away with the position.
"""

import asyncio
from decimal import Decimal

from execkit import (
    ExecutionEngine,
    OrderFilled,
    PaperExchange,
    PositionClosed,
    Side,
    TradingSignal,
)


async def main():
    exchange = PaperExchange(
        balances={"USDT": Decimal(10_000)}, prices={"BTC/USDT": Decimal(42_000)}
    )
    async with ExecutionEngine(exchange, journal="orders.db") as engine:
        engine.events.subscribe(
            OrderFilled, lambda event: print(f"* {event.role} filled at {event.average_price}")
        )
        engine.events.subscribe(
            PositionClosed, lambda event: print(f"* closed, P&L {event.position.realised_pnl}")
        )

        entry = TradingSignal(symbol="BTC/USDT", side=Side.BUY, stop_loss=Decimal(41_500))
        print(await engine.submit(entry))

        await engine.desk.keeper.idle()  # the stop is placed beside the result, not before it
        for order in engine.orders.values():
            print(order)

        # A sell against a long position closes it; without a quantity it takes the whole of it.
        print(await engine.submit(TradingSignal(symbol="BTC/USDT", side=Side.SELL)))
        print("positions:", dict(engine.positions))


asyncio.run(main())

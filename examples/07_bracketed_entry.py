"""A bracketed entry: the fill gets a stop and a target at once, and one of the two ends the trade.

Where the venue keeps the two together they rest as one list; elsewhere the stop rests, and the target is watched.
"""

from datetime import timedelta
from decimal import Decimal

from execkit import (
    ExecutionEngine,
    PaperExchange,
    Quote,
    Side,
    TradingSignal,
    VirtualClock,
    run_virtual,
)


async def trade(clock: VirtualClock, *, native_oco: bool) -> None:
    exchange = PaperExchange(
        balances={"USDT": Decimal(10_000)},
        prices={"BTC/USDT": Decimal(42_000)},
        clock=clock,
        native_oco=native_oco,
    )
    async with ExecutionEngine(exchange, journal=None, clock=clock) as engine:
        await engine.submit(
            TradingSignal(
                symbol="BTC/USDT",
                side=Side.BUY,
                confluence=4,
                stop_loss=Decimal(41_500),
                take_profit=Decimal(43_000),
            )
        )
        await engine.desk.keeper.idle()
        for order in engine.orders.active.values():
            price = order.stop_price or order.limit_price
            print(f"rests: {order.role} {order.remaining} at {price}")
        price = Decimal(43_010)
        exchange.feed_quote(Quote("BTC/USDT", price, price, clock.now()))
        await clock.sleep_until(clock.now() + timedelta(seconds=2))
        print("left:", list(engine.orders.active), dict(engine.positions))
        print("gain:", round(engine.book.positions.closed[-1].realised_pnl, 2), "USDT\n")


async def main(clock: VirtualClock) -> None:
    for native_oco in (False, True):
        print("kept together by the venue" if native_oco else "kept together by execkit")
        await trade(clock, native_oco=native_oco)


if __name__ == "__main__":
    run_virtual(main)

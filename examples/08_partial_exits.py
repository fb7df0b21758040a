"""Partial exits: half of the position leaves at a gain of once the risk, half at twice, and in between it cannot lose.

R is the distance from the entry price to the first stop. From 1 R on the stop stands at the entry price.
"""

from datetime import timedelta
from decimal import Decimal

from execkit import (
    HALF_AND_HALF,
    ExecutionEngine,
    PaperExchange,
    ProtectionPolicy,
    Quote,
    Side,
    TradingSignal,
    VirtualClock,
    run_virtual,
)


async def main(clock: VirtualClock) -> None:
    exchange = PaperExchange(
        balances={"USDT": Decimal(10_000)}, prices={"BTC/USDT": Decimal(42_000)}, clock=clock
    )
    policy = ProtectionPolicy(targets=HALF_AND_HALF, break_even_after_r=Decimal(1))
    async with ExecutionEngine(exchange, journal=None, clock=clock, protection=policy) as engine:
        await engine.submit(
            TradingSignal(symbol="BTC/USDT", side=Side.BUY, confluence=4, stop_loss=Decimal(41_500))
        )
        for each in engine.positions["BTC/USDT"].targets:
            print(f"target: {each.share:%} of it at {each.price}")
        for price in map(Decimal, (42_300, 42_500, 42_800, 43_000)):
            exchange.feed_quote(Quote("BTC/USDT", price, price, clock.now()))
            await clock.sleep_until(clock.now() + timedelta(seconds=2))
            position = engine.positions.get("BTC/USDT")
            if position is None:
                print(f"{price}: flat")
            else:
                stop = engine.book.working_stop("BTC/USDT")
                print(f"{price}: {position.quantity} left, its stop at {stop.stop_price}")
        print("gain:", round(engine.book.positions.closed[-1].realised_pnl, 2), "USDT")


if __name__ == "__main__":
    run_virtual(main)

"""Work an order that is too large to send at once: ten slices over ten minutes, through the whole chain.

Time is virtual here, so the ten minutes pass in a moment.
"""

from datetime import timedelta
from decimal import Decimal

from execkit import (
    ExecutionEngine,
    PaperExchange,
    Side,
    TradingSignal,
    Twap,
    VirtualClock,
    run_virtual,
)


async def main(clock: VirtualClock) -> None:
    exchange = PaperExchange(
        balances={"USDT": Decimal(100_000)}, prices={"BTC/USDT": Decimal(42_000)}, clock=clock
    )
    async with ExecutionEngine(exchange, journal=None, clock=clock) as engine:
        result = await engine.submit(
            TradingSignal(
                symbol="BTC/USDT",
                side=Side.BUY,
                quantity=Decimal("0.1"),
                confluence=4,
                slicing=Twap(duration=timedelta(minutes=10), slices=10),
            )
        )
        print(result)
        for _ in range(5):
            await clock.sleep_until(clock.now() + timedelta(minutes=2))
            position = engine.positions["BTC/USDT"]
            stop = engine.book.working_stop("BTC/USDT")
            print(f"{clock.now():%H:%M} {position} protected {stop.remaining}")
        for parent in engine.book.parents.live or [engine.book.parents.get(result.signal_id)]:
            print(f"{parent.filled} of {parent.record.quantity}: {parent.ended}")


if __name__ == "__main__":
    run_virtual(main)

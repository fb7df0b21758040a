"""A sizing method of your own: less money on a wide stop, and half of it on a weak signal.

The method says what it wants. The limits of `RiskLimits` and the lot of the instrument come afterwards.
"""

from decimal import Decimal

from execkit import (
    ExecutionEngine,
    ExecutionPipeline,
    OrderExecutorHandler,
    PaperExchange,
    ReconciliationHandler,
    RiskLimits,
    RiskManagementHandler,
    Side,
    SizingInputs,
    TradingSignal,
    ValidationHandler,
    VirtualClock,
    run_virtual,
)


def half_when_weak(inputs: SizingInputs) -> Decimal:
    """Risk 0.05 % of the equity between entry and stop; half of that below a strength of 60."""
    share = Decimal("0.0005") if inputs.strength >= 60 else Decimal("0.00025")
    return inputs.equity * share / inputs.stop_distance


async def main(clock: VirtualClock) -> None:
    sized = RiskManagementHandler(RiskLimits(), sizing=half_when_weak)
    chain = [ValidationHandler(), sized]
    pipeline = ExecutionPipeline([*chain, OrderExecutorHandler(), ReconciliationHandler()])
    for strength, stop in ((80, 41_500), (50, 41_500), (80, 41_200)):
        exchange = PaperExchange(
            balances={"USDT": Decimal(10_000)}, prices={"BTC/USDT": Decimal(42_000)}, clock=clock
        )
        async with ExecutionEngine(
            exchange, journal=None, pipeline=pipeline, clock=clock
        ) as engine:
            signal = TradingSignal(
                symbol="BTC/USDT",
                side=Side.BUY,
                confluence=4,
                strength=strength,
                stop_loss=Decimal(stop),
            )
            result = await engine.submit(signal)
            print(
                f"strength {strength}, stop at {stop}: {result.outcome} {result.filled} BTC",
                result.denial or "",
            )


if __name__ == "__main__":
    run_virtual(main)

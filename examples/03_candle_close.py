"""A function that is asked at each close of a bar, driven by a trade plan, on recorded bars.

The same plan runs live: give `functions=` and `plans=` to an engine and its bars to `engine.on_bar`.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import execkit as xk

registry = xk.ExecutionFunctionRegistry()


class BreakoutParams(xk.FunctionParams):
    bars: int


@registry.register("breakout", timeframes=("1m", "5m"))
class Breakout(xk.ExecutionFunctionBase[BreakoutParams]):
    """Enter long when a bar closes above the highest high of the bars before it."""

    async def evaluate(self, context):
        before = context.history[-self.params.bars - 1 : -1]
        if len(before) < self.params.bars or context.bar.close <= max(b.high for b in before):
            return xk.ExecutionSignal.none("no new high")
        return xk.ExecutionSignal(action="enter_long", confidence=0.8, reasoning="a new high")


PLAN = xk.TradePlan(
    name="demo",
    symbol="BTC/USDT",
    entry=[{"function": "breakout", "timeframe": "5m", "parameters": {"bars": 6}}],
    exit=[{"function": "trailing_stop", "timeframe": "1m", "parameters": {"trail_percentage": 1}}],
)


def bars():
    """Yield eight hours of one-minute bars that swing by 2 % every two hours."""
    at, last = datetime(2024, 1, 1, tzinfo=UTC), Decimal(42_900)
    for minute in range(480):
        price, at = Decimal(42_000 + abs(60 - minute % 120) * 15), at + timedelta(minutes=1)
        high, low = max(last, price), min(last, price)
        yield xk.BarData("BTC/USDT", xk.Timeframe.M1, at, last, high, low, price, Decimal(100))
        last = price


def venue(clock):
    return xk.PaperExchange(balances={"USDT": Decimal(10_000)}, clock=clock)


result = xk.replay([PLAN], bars(), functions=registry, exchange=venue)
for trade in result.book.positions.closed:
    print(f"{trade.opened_at:%H:%M} to {trade.closed_at:%H:%M}: {trade.realised_pnl:+.2f} USDT")
print(f"{result.bars} bars, trace hash {result.trace_hash}")

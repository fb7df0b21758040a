"""Handlers of your own: a class with options and a plain function, put into the standard chain.

A handler sees the ticket on its way to the venue. It returns a denial to stop it, or passes it on, perhaps changed.
"""

import asyncio
from decimal import Decimal

import execkit as xk


class MaxSpread:
    """Deny entries while the bid-ask spread is too wide."""

    place = "before"  # of the executor; the pipeline checks it when it is built

    def __init__(self, limit_bps):
        self.limit_bps = limit_bps

    async def __call__(self, ticket, call_next):
        if not ticket.is_reduction and ticket.quote.spread_bps > self.limit_bps:
            spread = ticket.quote.spread_bps
            return ticket.deny(
                xk.DenialCode.SPREAD_TOO_WIDE, spread_bps=spread, limit=self.limit_bps
            )
        return await call_next(ticket)


@xk.handler
async def tag(ticket, call_next):
    """Leave a remark in the trace."""
    return await call_next(ticket.note("seen by tag"))


async def main():
    chain = [xk.ValidationHandler(), xk.RiskManagementHandler(), xk.OrderExecutorHandler()]
    pipeline = xk.ExecutionPipeline([*chain, xk.ReconciliationHandler()])
    pipeline = pipeline.insert(MaxSpread(Decimal(5)), after=xk.ValidationHandler)
    pipeline = pipeline.insert(tag, before=MaxSpread)
    print(pipeline)
    for spread in (2, 20):
        prices = {"BTC/USDT": Decimal(42_000)}
        exchange = xk.PaperExchange(
            balances={"USDT": Decimal(10_000)}, prices=prices, spread_bps=Decimal(spread)
        )
        async with xk.ExecutionEngine(exchange, journal=None, pipeline=pipeline) as engine:
            print(await engine.submit(xk.TradingSignal(symbol="BTC/USDT", side=xk.Side.BUY)))


asyncio.run(main())

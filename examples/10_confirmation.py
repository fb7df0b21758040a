"""A person says yes or no before an entry is sent: at the terminal, or through a function of your own.

Silence is no, after ten seconds. Exits, stops and everything else that makes a position smaller are never asked about.
"""

import asyncio
import sys
from decimal import Decimal

from execkit import (
    ConfirmationHandler,
    ExecutionEngine,
    ExecutionPipeline,
    OrderExecutorHandler,
    PaperExchange,
    ReconciliationHandler,
    RiskManagementHandler,
    Side,
    TradingSignal,
    ValidationHandler,
)


async def small_ones_only(ticket):
    """Answer for a person who is not there, as a chat bot or a web page could: the ticket has its final size."""
    cost = ticket.quantity * ticket.reference_price
    print(f"{ticket.side} {ticket.quantity} {ticket.symbol}, about {cost} USDT?")
    await asyncio.sleep(0.1)
    return cost < 300


def chain():
    # At a terminal it asks there: `y`, the question's number and Enter is yes. ConfirmationHandler() alone does that.
    ask = None if sys.stdin.isatty() else small_ones_only
    # Right before the executor, where quantity and prices are final.
    return ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(),
            ConfirmationHandler(ask),
            OrderExecutorHandler(),
            ReconciliationHandler(),
        ]
    )


async def main():
    prices = {"BTC/USDT": Decimal(42_000), "ETH/USDT": Decimal(2_500)}
    exchange = PaperExchange(balances={"USDT": Decimal(10_000)}, prices=prices)
    async with ExecutionEngine(exchange, journal=None, pipeline=chain()) as engine:
        for symbol, quantity in (("BTC/USDT", "0.01"), ("ETH/USDT", "0.1")):
            signal = TradingSignal(symbol=symbol, side=Side.BUY, quantity=Decimal(quantity))
            print(await engine.submit(signal))
        for symbol in list(engine.positions):
            await engine.close_position(symbol)  # nobody is asked


asyncio.run(main())

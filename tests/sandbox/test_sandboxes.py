"""The adapter contract, and one small trade by a whole engine, at the sandboxes of Binance, Alpaca and IBKR.

Nobody can make these venues fail or move their prices, so the cases that need that are skipped; they run against the
venues on the wire. Orders are as small as the rules allow, and what is bought is sold again.
"""

import asyncio
import os
from datetime import timedelta
from decimal import Decimal

import pytest

from execkit.engine import ExecutionEngine
from execkit.exchanges.alpaca.adapter import AlpacaAdapter
from execkit.exchanges.binance.adapter import BinanceAdapter
from execkit.exchanges.ibkr.adapter import IBKRAdapter
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.validation import ValidationHandler
from execkit.model.order import OrderState, Side
from execkit.model.result import Outcome
from execkit.model.signal import TradingSignal
from execkit.numbers import round_up
from execkit.pipeline import ExecutionPipeline
from execkit.risk.sizing import FixedQuantity
from execkit.testing.contract import AdapterContract

PREFIX = "EXECKIT_SANDBOX_"


def at_binance():
    return BinanceAdapter(
        os.environ[f"{PREFIX}BINANCE_KEY"],
        os.environ[f"{PREFIX}BINANCE_SECRET"],
        sandbox=True,
        market=os.environ.get(f"{PREFIX}BINANCE_MARKET", "usdm"),
    )


def at_alpaca():
    return AlpacaAdapter(
        api_key=os.environ[f"{PREFIX}ALPACA_KEY"],
        secret=os.environ[f"{PREFIX}ALPACA_SECRET"],
        paper=True,
    )


def at_ibkr():
    # The adapter refuses the ports and the accounts of real money.
    return IBKRAdapter(
        host=os.environ.get(f"{PREFIX}IBKR_HOST", "127.0.0.1"),
        port=int(os.environ[f"{PREFIX}IBKR_PORT"]),
        client_id=int(os.environ.get(f"{PREFIX}IBKR_CLIENT_ID", "77")),
        delayed_data=True,
    )


MAKERS = {"binance": at_binance, "alpaca": at_alpaca, "ibkr": at_ibkr}


def symbol_of(venue, usual):
    return os.environ.get(f"{PREFIX}{venue.upper()}_SYMBOL", usual)


async def smallest(exchange, symbol):
    """Return a quantity a little above the least that can be bought; skip where the trade would not be our own."""
    status = await exchange.market_status(symbol)
    if not status.is_open:
        pytest.skip(f"{symbol} is closed: {status.reason or status.phase}")
    held = {position.symbol: position.quantity for position in await exchange.positions()}
    if held.get(symbol):
        # It would be sold with what the test buys.
        pytest.skip(f"the account holds {held[symbol]} {symbol}; name another symbol, or sell it")
    rules, quote = await exchange.instrument(symbol), await exchange.ticker(symbol)
    return round_up(rules.smallest_quantity(quote.bid) * Decimal("1.1"), rules.lot_size)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("venue", "usual"),
    [
        pytest.param("binance", "BTC/USDT:USDT", marks=pytest.mark.sandbox("binance")),
        pytest.param("alpaca", "AAPL", marks=pytest.mark.sandbox("alpaca")),
        pytest.param("ibkr", "AAPL", marks=pytest.mark.sandbox("ibkr")),
    ],
)
async def test_one_small_trade(venue, usual, tmp_path):
    """In, protected by a stop that rests at the venue, out: nothing is left open, in doubt, or unexplained."""
    symbol, exchange = symbol_of(venue, usual), MAKERS[venue]()
    async with exchange:
        quantity = await smallest(exchange, symbol)
    chain = ExecutionPipeline(
        [
            ValidationHandler(),
            RiskManagementHandler(sizing=FixedQuantity(quantity)),
            OrderExecutorHandler(),
            ReconciliationHandler(max_wait_time=30),
        ]
    )
    engine = ExecutionEngine(
        exchange,
        journal=tmp_path / "sandbox.db",
        pipeline=chain,
        reconcile_every=timedelta(seconds=10),
    )

    def signal(name, side):
        return TradingSignal(signal_id=name, symbol=symbol, side=side, strength=80, confluence=4)

    async with engine:
        try:
            bought = await engine.submit(signal("in", Side.BUY))
            assert bought.outcome is Outcome.FILLED, bought
            async with asyncio.timeout(30):
                while engine.book.working_stop(symbol) is None:
                    await asyncio.sleep(0.1)
            sold = await engine.submit(signal("out", Side.SELL))
            assert sold.outcome is Outcome.FILLED, sold
            assert await engine.desk.reconciler.try_run()
            assert not engine.book.orders.in_doubt
            ours = engine.book.orders.values()
            assert all(order.state is not OrderState.SUBMITTED for order in ours)
            assert not any(True for _ in engine.book.orders.open_reductions(symbol))
        finally:
            # Whatever went wrong: nothing of this test stays at the venue.
            await engine.flatten(symbol)


@pytest.mark.sandbox("binance")
@pytest.mark.timeout(300)
class TestBinance(AdapterContract):
    symbol = symbol_of("binance", "BTC/USDT:USDT")
    patience = 20.0

    async def make_adapter(self):
        return at_binance()


@pytest.mark.sandbox("alpaca")
@pytest.mark.timeout(300)
class TestAlpaca(AdapterContract):
    symbol = symbol_of("alpaca", "AAPL")
    patience = 30.0

    async def make_adapter(self):
        return at_alpaca()


@pytest.mark.sandbox("ibkr")
@pytest.mark.timeout(300)
class TestIBKR(AdapterContract):
    symbol = symbol_of("ibkr", "AAPL")
    patience = 30.0

    async def make_adapter(self):
        return at_ibkr()


del AdapterContract

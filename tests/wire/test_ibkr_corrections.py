"""Executions that change twice: a late commission, a restart, and a correction that names the first of three ids."""

import asyncio
import random
from decimal import Decimal

from tests.support.ibkr import AAPL, adapter_of

from execkit.engine import ExecutionEngine
from execkit.model.order import Side
from execkit.model.signal import TradingSignal
from execkit.testing.venues.tws.server import WireTws

D = Decimal


async def test_a_correction_after_a_late_commission_and_a_restart(tmp_path):
    """Ten shares, their commission a moment later, a restart, and a correction to six: six were bought (B12, B15)."""
    async with WireTws(balances={"USD": D(1_000_000)}) as venue:

        def engine():
            adapter = adapter_of(venue)
            adapter._pace.limit = 1000
            return ExecutionEngine(
                adapter, journal=tmp_path / "orders.db", rng=random.Random(1), store=False
            )

        venue.commission_delay = 0.15
        async with engine() as first:
            await first.submit(
                TradingSignal(symbol=AAPL, side=Side.BUY, quantity=D(10), confluence=4)
            )
            async with asyncio.timeout(20):
                while not first.positions[AAPL].fees:
                    await asyncio.sleep(0.01)
        venue.commission_delay = 0.0
        [entry] = [e for e in venue.orders.executions if e.order.sent.action == "BUY"]
        venue.orders.correct(entry, D(6))
        async with engine() as second:
            for _ in range(3):
                await second.desk.reconciler.try_run()
            [order] = [o for o in second.orders.values() if o.role.value == "entry"]
            assert order.filled == 6
            assert sum(f.quantity for f in order.trades.values()) == 6

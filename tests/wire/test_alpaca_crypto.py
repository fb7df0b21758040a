"""Crypto at Alpaca: fees that nobody tells of, stops that are stop-limits, and balances in two assets."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.support.alpaca import adapter_of, on_the_wire, venue_on_the_wire

from execkit.engine import ExecutionEngine
from execkit.errors import InsufficientBalanceError, InvalidOrderError
from execkit.model.order import ListKind, OrderRequest, OrderRole, OrderType, Side
from execkit.model.signal import TradingSignal

D = Decimal
BTC = "BTC/USD"
COUNT = iter(range(1, 100_000))


def order(**changes):
    values = {
        "client_order_id": f"xk{next(COUNT):024d}",
        "symbol": BTC,
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "quantity": D("0.1"),
    }
    return OrderRequest(**(values | changes))


async def until(condition, what):
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never: {what()}") from None


async def test_a_buyer_gets_less_than_was_executed():
    """D4: the fee is taken from what was bought; stream and history say it alike, and that much can be sold."""
    async with on_the_wire() as (venue, adapter):
        updates = adapter.order_updates()
        await adapter.place_order(order())
        fill = None
        async for update in updates:
            if hasattr(update, "trade_id"):
                fill = update
                break
        # 0.25 % of 0.1, and one step of nine decimals
        assert (fill.quantity, fill.fee, fill.fee_asset) == (D("0.1"), D("0.000250001"), "BTC")
        assert await adapter.fills_since(venue.clock.now() - timedelta(minutes=1)) == [fill]
        [held] = await adapter.positions()
        assert held.quantity == fill.quantity - fill.fee == D("0.099749999")
        with pytest.raises(InsufficientBalanceError) as caught:
            await adapter.place_order(order(side=Side.SELL))
        assert caught.value.available == held.quantity
        await adapter.place_order(order(side=Side.SELL, quantity=held.quantity))
        [_, sold] = await adapter.fills_since(venue.clock.now() - timedelta(minutes=1))
        assert (sold.fee, sold.fee_asset) == (D("0.099749999") * 60_000 * D("0.0025"), "USD")
        assert venue.state.position(BTC) == 0


async def test_too_few_dollars_are_no_quantity():
    """N15: what Alpaca calls available is an amount of USD for a buyer; the error states the quantity that passes."""
    async with on_the_wire(cash=D(3000)) as (_venue, adapter):
        with pytest.raises(InsufficientBalanceError) as caught:
            await adapter.place_order(order(type=OrderType.LIMIT, limit_price=D(60_000)))
        assert "insufficient balance for USD (requested: 6000, available: 3000)" in str(
            caught.value
        )
        assert caught.value.available == D("0.05")
        rest = order(type=OrderType.LIMIT, limit_price=D(60_000), quantity=caught.value.available)
        await adapter.place_order(rest)


async def test_an_order_worth_too_little_is_refused_with_the_least():
    """40310000 for less than 10 USD: no key trouble, no adjustment, and the fix is named."""
    async with on_the_wire() as (venue, adapter):
        rules = await adapter.instrument(BTC)
        assert rules.min_notional == 10
        assert not adapter.capabilities.takes_list(ListKind.OCO, rules, D(1))
        with pytest.raises(InvalidOrderError, match="the least is 1 USD of a stock and 10 USD"):
            await adapter.place_order(order(quantity=D("0.0001")))
        assert len(venue.posts()) == 1
        assert venue.accepts == []


async def test_a_plain_stop_is_refused_with_the_fix():
    """Alpaca has stop-limits only for crypto; nothing is sent that is something else than what was asked for."""
    async with on_the_wire() as (venue, adapter):
        with pytest.raises(InvalidOrderError, match="stop-limit order with a limit_price"):
            await adapter.place_order(
                order(side=Side.SELL, type=OrderType.STOP, stop_price=D(58_000))
            )
        assert venue.posts() == []


@pytest.mark.parametrize("limit", [57_500, 55_100])
async def test_a_stop_limit_stays_what_it_is(limit):
    """Whatever its limit, it is told as it was sent, also to another process."""
    async with on_the_wire() as (venue, adapter):
        await adapter.place_order(order())
        await venue.until(lambda: venue.state.position(BTC) > 0)
        kind = {"type": OrderType.STOP_LIMIT, "stop_price": D(58_000), "limit_price": D(limit)}
        request = order(side=Side.SELL, quantity=D("0.09"), **kind)
        placed = await adapter.place_order(request)
        other = adapter_of(venue)
        await other.connect()
        try:
            found = await other.get_order(BTC, client_order_id=request.client_order_id)
        finally:
            await other.close()
        for told in (placed, found):
            assert (told.type, told.stop_price, told.limit_price) == tuple(kind.values())


async def test_a_stop_limit_that_the_price_jumps_over_is_escalated():
    """D4 D8: the stop covers what is held; left behind by a gap it is cancelled and the rest goes to the market."""
    async with venue_on_the_wire() as venue:
        engine = ExecutionEngine(
            adapter_of(venue), journal=None, clock=venue.clock, rng=random.Random(1), store=False
        )
        async with engine:
            await engine.submit(
                TradingSignal(
                    symbol=BTC,
                    side=Side.BUY,
                    quantity=D("0.05"),
                    confluence=4,
                    stop_loss=D(59_000),
                    take_profit=D(62_000),
                )
            )
            stops = venue.core.open[BTC]
            await until(lambda: stops, lambda: engine.book.alarms)
            [stop] = [each.request for each in stops.values()]
            held = D("0.049874999")
            assert (stop.quantity, stop.stop_price, stop.limit_price) == (held, 59_000, 58_410)
            await until(
                lambda: any(f"q:{BTC}" in s.topics for s in venue.sockets), lambda: venue.sockets
            )
            await venue.move_price(BTC, D(57_000))
            await until(lambda: not venue.state.position(BTC), lambda: engine.book.alarms)
            await until(lambda: not engine.positions, lambda: engine.positions)
            sold = [o for o in engine.orders.values() if o.role is OrderRole.FLATTEN]
            assert [(o.type, o.filled) for o in sold] == [(OrderType.MARKET, held)]
            assert engine.book.positions.quantity(BTC) == 0
            assert not venue.core.open[BTC]
            [alarm, slippage] = engine.book.alarms
            assert "the price 57000 has passed the limit 58410 of its stop" in alarm.text
            assert slippage.text == (
                f"{BTC}: the flatten sold {held} of {held} at 57000, 3.3898 % worse than 59000"
            )

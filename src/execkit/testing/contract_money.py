"""Conformance cases 300-499: executions, money, and what a venue refuses."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec

from execkit.errors import (
    InsufficientBalanceError,
    InvalidOrderError,
    MarketClosedError,
    OrderRejectedError,
    RateLimitError,
)
from execkit.model.order import OrderReport, OrderRequest, OrderState, OrderType, Side
from execkit.numbers import ZERO
from execkit.testing.bench import Bench
from execkit.testing.rules import case
from execkit.testing.verdict import CaseSkipped, check, fail

# -- executions and money ------------------------------------------------------------------------------


@case(types=(OrderType.LIMIT,), control=("fill",))
async def ac300_partial_fill(bench: Bench) -> None:
    """A part executed is reported as such, then the order goes on to its end."""
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    half = bench.instrument.round_quantity(request.quantity / 2)
    await bench.control.fill(request.client_order_id, half)
    seen = await bench.reach(request, OrderState.PARTIALLY_FILLED, report.venue_order_id)
    check(seen.filled == half, f"filled {seen.filled}, executed {half}")
    await bench.control.fill(request.client_order_id, request.quantity - half)
    seen = await bench.reach(request, OrderState.FILLED, report.venue_order_id)
    check(seen.filled == request.quantity, f"filled {seen.filled} of {request.quantity}")


@case(types=(OrderType.MARKET,))
async def ac310_fills_since(bench: Bench) -> None:
    """`fills_since` gives every execution of an order once, oldest first, with unique trade ids."""
    since = bench.clock.now() - timedelta(minutes=1)
    first, second = await bench.bought(), await bench.bought()

    async def complete() -> bool:
        return await executed(first) == first.filled and await executed(second) == second.filled

    async def executed(order: OrderReport) -> Decimal:
        fills = await bench.adapter.fills_since(since, bench.symbol)
        mine = (f.quantity for f in fills if f.venue_order_id == order.venue_order_id)
        return sum(mine, ZERO)

    await bench.eventually(complete, lambda: "the fills add up to both orders")
    fills = await bench.adapter.fills_since(since, bench.symbol)
    ids = [fill.trade_id for fill in fills]
    check(all(ids) and len(set(ids)) == len(ids), f"trade ids are not unique: {ids}")
    times = [fill.at for fill in fills]
    check(times == sorted(times), "the fills are not in order of time")
    later = await bench.adapter.fills_since(bench.clock.now() + timedelta(days=1), bench.symbol)
    check(not later, f"{len(later)} fills are said to be from tomorrow")


@case(types=(OrderType.MARKET,))
async def ac320_fees(bench: Bench) -> None:
    """A fee names its asset, and fills name the order, the market and the side."""
    order = await bench.bought()
    since = bench.clock.now() - timedelta(minutes=1)
    fills = [
        fill
        for fill in await bench.adapter.fills_since(since, bench.symbol)
        if fill.venue_order_id == order.venue_order_id
    ]
    check(fills, "the order's fills are listed")
    for fill in fills:
        check(not fill.fee or fill.fee_asset, f"fee {fill.fee} of no asset in {fill}")
        check(
            fill.symbol == bench.symbol and fill.side is Side.BUY, f"wrong market or side: {fill}"
        )


@case(types=(OrderType.MARKET,))
async def ac330_balances_follow_fills(bench: Bench) -> None:
    """What is bought shows in balances or positions, less the fee where it is paid in it."""
    base = bench.instrument.base
    before = await _held(bench)
    order = await bench.bought()
    since = bench.clock.now() - timedelta(minutes=1)

    async def booked() -> bool:
        fills = await bench.adapter.fills_since(since, bench.symbol)
        mine = [f for f in fills if f.venue_order_id == order.venue_order_id]
        fee = sum((f.fee for f in mine if f.fee_asset == base), ZERO)
        return await _held(bench) - before == order.filled - fee

    await bench.eventually(booked, lambda: f"{order.filled} more {base} is held, less its fee")
    for balance in (await bench.adapter.balances()).values():
        check(balance.free <= balance.total, f"more is free than there is: {balance}")


async def _held(bench: Bench) -> Decimal:
    for position in await bench.adapter.positions():
        if position.symbol == bench.symbol:
            return position.quantity
    return ZERO


@case(types=(OrderType.LIMIT,))
async def ac340_resting_order_locks_money(bench: Bench) -> None:
    """What a resting order needs is not free for another one."""
    quote = bench.instrument.quote
    before = (await bench.adapter.balances()).get(quote)
    check(before is not None, f"the account holds no {quote}")
    await bench.place(await bench.request(OrderType.LIMIT))

    async def locked() -> bool:
        after = (await bench.adapter.balances()).get(quote)
        return before is not None and after is not None and after.free < before.free

    await bench.eventually(locked, lambda: f"less {quote} is free than before")


# -- refusals ------------------------------------------------------------------------------------------


async def _refused(bench: Bench, request: OrderRequest, kind: type[OrderRejectedError]) -> None:
    attempt = await bench.attempt(request)
    check(isinstance(attempt.error, kind), f"expected {kind.__name__}, got {attempt}")
    found = await bench.find(request)
    live = found is not None and found.status.may_be_live
    check(not live, f"the order was refused and is at the venue all the same: {found}")


@case(types=(OrderType.LIMIT,))
async def ac400_price_off_tick(bench: Bench) -> None:
    """A price between two ticks is an InvalidOrderError."""
    request = await bench.request(OrderType.LIMIT)
    assert request.limit_price is not None
    price = request.limit_price + bench.instrument.tick_size / 2
    await _refused(bench, msgspec.structs.replace(request, limit_price=price), InvalidOrderError)


@case(types=(OrderType.LIMIT,))
async def ac410_quantity_off_lot(bench: Bench) -> None:
    """A quantity between two lots is an InvalidOrderError."""
    request = await bench.request(OrderType.LIMIT)
    quantity = request.quantity + bench.instrument.lot_size / 2
    await _refused(bench, msgspec.structs.replace(request, quantity=quantity), InvalidOrderError)


@case(types=(OrderType.LIMIT,))
async def ac420_quantity_below_minimum(bench: Bench) -> None:
    """A quantity of nothing, or less than the least, is an InvalidOrderError."""
    request = await bench.request(OrderType.LIMIT)
    rules = bench.instrument
    least = rules.smallest_quantity(request.limit_price or rules.tick_size)
    quantity = max(least - rules.lot_size, ZERO)
    await _refused(bench, msgspec.structs.replace(request, quantity=quantity), InvalidOrderError)


@case(types=(OrderType.LIMIT,))
async def ac430_insufficient_balance(bench: Bench) -> None:
    """An order that the account cannot pay is an InsufficientBalanceError."""
    request = await bench.request(OrderType.LIMIT)
    balance = (await bench.adapter.balances()).get(bench.instrument.quote)
    price = request.limit_price or bench.instrument.tick_size
    money = ZERO if balance is None else balance.free
    quantity = bench.instrument.round_quantity(money / price * 2) + request.quantity
    most = bench.instrument.max_quantity
    if most is not None and quantity > most:
        raise CaseSkipped("the account can pay for the largest order there is")
    await _refused(
        bench, msgspec.structs.replace(request, quantity=quantity), InsufficientBalanceError
    )


@case(types=(OrderType.LIMIT,), control=("close_market",))
async def ac440_market_closed(bench: Bench) -> None:
    """A closed market says so, and an order for it is a MarketClosedError."""
    request = await bench.request(OrderType.LIMIT)
    await bench.control.close_market(bench.symbol)
    status = await bench.adapter.market_status(bench.symbol)
    check(not status.is_open, "market_status still says open")
    await _refused(bench, request, MarketClosedError)


@case(types=(OrderType.LIMIT,), control=("rate_limit",))
async def ac450_rate_limit(bench: Bench) -> None:
    """A refusal for the pace is a RateLimitError with the venue's Retry-After, and nothing was placed."""
    request = await bench.request(OrderType.LIMIT)
    await bench.control.rate_limit(timedelta(seconds=7))
    attempt = await bench.attempt(request)
    if not isinstance(attempt.error, RateLimitError):
        fail(f"expected RateLimitError, got {attempt}")
    waits = attempt.error.retry_after
    check(waits == timedelta(seconds=7), f"retry_after is {waits}, the venue said 7 s")
    check(await bench.find(request) is None, "the order is at the venue all the same")

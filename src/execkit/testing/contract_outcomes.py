"""Conformance cases 500-799: unknown outcomes, streams, reductions, and what no value may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal

from execkit.errors import ExchangeError, OrderNotFoundError
from execkit.model.order import OrderReport, OrderState, OrderType, Side, StreamGap
from execkit.numbers import ZERO
from execkit.testing.bench import Bench
from execkit.testing.rules import case, faults_in
from execkit.testing.verdict import check, fail

# -- when the outcome is not known ---------------------------------------------------------------------


@case(types=(OrderType.LIMIT,), control=("drop_answer",))
async def ac500_answer_lost(bench: Bench) -> None:
    """A lost answer leaves the outcome unknown, and the order can be found afterwards."""
    request = await bench.request(OrderType.LIMIT)
    await bench.control.drop_answer()
    attempt = await bench.attempt(request)
    check(attempt.kind == "unknown", f"the venue may have the order, the adapter says {attempt}")

    async def there() -> bool:
        return await bench.find(request) is not None

    await bench.eventually(there, lambda: "the order shows by its client id")


@case(types=(OrderType.LIMIT,), control=("drop_request",))
async def ac510_request_lost(bench: Bench) -> None:
    """A lost request is unknown or provably unsent, and the venue does not know the order."""
    request = await bench.request(OrderType.LIMIT)
    await bench.control.drop_request()
    attempt = await bench.attempt(request)
    check(attempt.kind in ("unknown", "unsent"), f"nobody answered, the adapter says {attempt}")
    check(await bench.find(request) is None, "the order is at the venue")


@case(types=(OrderType.LIMIT,), control=("garble_answer",))
async def ac520_malformed_answer(bench: Bench) -> None:
    """An answer that cannot be read is never success and never refusal."""
    request = await bench.request(OrderType.LIMIT)
    await bench.control.garble_answer()
    attempt = await bench.attempt(request)
    check(attempt.kind == "unknown", f"the answer was unreadable, the adapter says {attempt}")


@case(types=(OrderType.LIMIT,), control=("swap_answer",))
async def ac530_answer_of_another_order(bench: Bench) -> None:
    """An answer about another order is never success and never refusal."""
    request = await bench.request(OrderType.LIMIT)
    await bench.control.swap_answer()
    attempt = await bench.attempt(request)
    check(attempt.kind == "unknown", f"it was another order's answer, the adapter says {attempt}")


@case(types=(OrderType.LIMIT,), control=("unknown_status",))
async def ac540_unknown_status(bench: Bench) -> None:
    """A status that the adapter does not know is IN_DOUBT with the venue's word, or an error."""
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    await bench.control.unknown_status()
    try:
        seen = await bench.get(request, report.venue_order_id)
    except OrderNotFoundError as error:
        fail(f"the order exists: {error!r}")
    except ExchangeError:
        return
    check(seen.status is OrderState.IN_DOUBT, f"an unknown status was read as {seen.status}")
    check(seen.raw_status, "raw_status keeps the venue's word")


@case(types=(OrderType.LIMIT,), control=("sends",))
async def ac550_one_send_per_attempt(bench: Bench) -> None:
    """One call sends one request."""
    request = await bench.request(OrderType.LIMIT)
    await bench.place(request)
    sends = await bench.control.sends(request.client_order_id)
    check(sends == 1, f"the venue got {sends} requests for one call")


@case(types=(OrderType.LIMIT,), control=("sends", "drop_answer"))
async def ac560_no_hidden_retry(bench: Bench) -> None:
    """An adapter does not repeat a request by itself, whatever happened to the first."""
    request = await bench.request(OrderType.LIMIT)
    await bench.control.drop_answer()
    await bench.attempt(request)
    sends = await bench.control.sends(request.client_order_id)
    check(sends == 1, f"the venue got {sends} requests for one call")


@case(types=(OrderType.LIMIT,), control=("fail_read",))
async def ac570_failed_read_is_no_answer(bench: Bench) -> None:
    """A read that fails raises; it is never empty, flat or OrderNotFoundError."""
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    adapter = bench.adapter
    since = bench.started_at
    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "get_order": lambda: bench.get(request, report.venue_order_id),
        "open_orders": lambda: adapter.open_orders(bench.symbol),
        "fills_since": lambda: adapter.fills_since(since, bench.symbol),
        "balances": adapter.balances,
        "positions": adapter.positions,
        "ticker": lambda: adapter.ticker(bench.symbol),
    }
    for name, read in reads.items():
        await bench.control.fail_read()
        try:
            answer = await read()
        except OrderNotFoundError as error:
            fail(f"{name}: a server error was read as {error!r}")
        except Exception:  # noqa: BLE001, S112 - every error but that is right
            continue
        fail(f"{name}: a server error was read as {answer!r}")


# -- streams -------------------------------------------------------------------------------------------


@case(needs=("order_stream",), types=(OrderType.LIMIT,))
async def ac600_stream_tells_acknowledgement(bench: Bench) -> None:
    """The stream reports a new order; it listens from the call on, not from the first item."""
    updates = bench.watch()
    request = await bench.request(OrderType.LIMIT)
    await bench.place(request)
    await bench.eventually(
        lambda: bool(updates.reports(request)), lambda: f"the order shows: {updates.seen}"
    )
    problem = bench.problem(request, updates.reports(request)[0])
    check(problem is None, f"the update {problem}")


@case(needs=("order_stream",), types=(OrderType.MARKET,))
async def ac610_stream_tells_fills(bench: Bench) -> None:
    """The stream delivers every execution of an order."""
    updates = bench.watch()
    request = await bench.request(OrderType.MARKET)
    await bench.place(request)

    def complete() -> bool:
        return sum((f.quantity for f in updates.fills(request)), ZERO) == request.quantity

    await bench.eventually(complete, lambda: f"the fills add up: {updates.seen}")


@case(needs=("order_stream",), types=(OrderType.LIMIT,))
async def ac620_stream_tells_cancel(bench: Bench) -> None:
    """The stream reports the end of a cancelled order."""
    updates = bench.watch()
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    await bench.cancel(request, report.venue_order_id)

    def ended() -> bool:
        return any(r.status is OrderState.CANCELLED for r in updates.reports(request))

    await bench.eventually(ended, lambda: f"the cancel shows: {updates.seen}")


@case(needs=("order_stream",), types=(OrderType.LIMIT,), control=("cut_stream",))
async def ac630_stream_loss_shows(bench: Bench) -> None:
    """A broken stream ends, raises or tells of a gap; a new one works, and reads fill the hole."""
    updates = bench.watch()
    await bench.control.cut_stream()
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)

    def noticed() -> bool:
        gap = any(isinstance(update, StreamGap) for update in updates.seen)
        return gap or updates.broken is not None or bool(updates.reports(request))

    await bench.eventually(noticed, lambda: "the loss shows")
    seen = await bench.get(request, report.venue_order_id)
    check(seen.status.may_be_live, f"the order is {seen.status}")
    again = bench.watch()
    await bench.cancel(request, report.venue_order_id)
    await bench.eventually(lambda: bool(again.reports(request)), lambda: "the new stream delivers")


@case(needs=("quote_stream",))
async def ac640_quote_stream(bench: Bench) -> None:
    """The quote stream delivers quotes of the symbols that were asked for."""
    async with asyncio.timeout(bench.patience):
        async for quote in bench.adapter.watch_quotes([bench.symbol]):
            check(quote.symbol == bench.symbol, f"a quote of {quote.symbol}")
            quote.checked()
            return
    fail("the stream ended without a quote")


# -- stops and reductions ------------------------------------------------------------------------------


@case(types=(OrderType.STOP, OrderType.MARKET), control=("move_price",))
async def ac650_stop_triggers(bench: Bench) -> None:
    """A stop order is executed once its price has traded."""
    bought = await bench.bought()
    quantity = await bench.owned(bought.filled)
    request = await bench.request(OrderType.STOP, Side.SELL, quantity=quantity)
    report = await bench.place(request)
    assert request.stop_price is not None
    await bench.control.move_price(bench.symbol, request.stop_price)
    done = await bench.reach(request, OrderState.FILLED, report.venue_order_id)
    check(done.filled == quantity, f"filled {done.filled} of {quantity}")


@case(needs=("reduce_only",), types=(OrderType.MARKET,))
async def ac660_reduce_only_never_flips(bench: Bench) -> None:
    """A reduce-only order larger than the position does not turn it around."""
    bought = await bench.bought()
    held = await _position(bench)
    quantity = bench.instrument.round_quantity(held) + bought.quantity
    request = await bench.request(OrderType.MARKET, Side.SELL, quantity=quantity, reduce_only=True)
    await bench.attempt(request)
    left = await _position(bench)
    check(left >= ZERO, f"a long of {held} became {left}")


@case(needs=("reduce_only",), types=(OrderType.LIMIT,))
async def ac670_reduce_only_never_opens(bench: Bench) -> None:
    """A reduce-only buy without a short opens nothing."""
    held = await _position(bench)
    request = await bench.request(
        OrderType.LIMIT, Side.BUY, away=Decimal("-0.01"), reduce_only=True
    )
    await bench.attempt(request)
    grown = await _position(bench)
    check(grown <= max(held, ZERO), f"the position grew from {held} to {grown}")


async def _position(bench: Bench) -> Decimal:
    positions = await bench.adapter.positions()
    return sum((p.quantity for p in positions if p.symbol == bench.symbol), ZERO)


# -- values, secrets, life -----------------------------------------------------------------------------


@case(types=(OrderType.MARKET, OrderType.LIMIT))
async def ac700_exact_values(bench: Bench) -> None:
    """No value holds a float, an infinite number or a time that is not aware UTC."""
    bought = await bench.bought()
    rests = await bench.place(await bench.request(OrderType.LIMIT))
    since = bench.started_at - timedelta(minutes=1)
    adapter = bench.adapter
    values: list[object] = [
        bought,
        rests,
        adapter.capabilities,
        bench.instrument,
        await adapter.open_orders(),
        await adapter.fills_since(since),
        await adapter.balances(),
        await adapter.positions(),
        await adapter.ticker(bench.symbol),
        await adapter.market_status(bench.symbol),
    ]
    found = [text for value in values for text in faults_in(value)]
    check(not found, "; ".join(found))


@case()
async def ac710_quote_is_sane(bench: Bench) -> None:
    """The current quote has a bid above zero that is not above the ask."""
    quote = await bench.adapter.ticker(bench.symbol)
    check(quote.symbol == bench.symbol, f"a quote of {quote.symbol!r}")
    quote.checked()


@case()
async def ac720_account_is_stable(bench: Bench) -> None:
    """The account id is the same at every look, because ids and the journal are bound to it."""
    first = bench.adapter.account
    check(bool(first), "the account id is empty")
    check(bench.adapter.account == first, "the account id changes")


@case(control=("secrets",))
async def ac730_no_secret_shows(bench: Bench) -> None:
    """No secret shows in repr, account id, attributes' repr or the text of an error."""
    adapter = bench.adapter
    texts = {"repr": repr(adapter), "str": str(adapter), "account": adapter.account}
    texts["attributes"] = repr(getattr(adapter, "__dict__", {}))
    try:
        await adapter.get_order(bench.symbol, client_order_id=bench.new_id())
    except Exception as error:  # noqa: BLE001 - any error's text must be clean
        texts["error"] = f"{error!r} {error.__cause__!r}"
    for where, text in texts.items():
        for secret in bench.control.secrets:
            check(secret not in text, f"a secret shows in {where}")


@case()
async def ac740_close_twice(bench: Bench) -> None:
    """Closing a second time does nothing."""
    await bench.adapter.close()
    await bench.adapter.close()


@case(types=(OrderType.LIMIT,))
async def ac750_many_at_once(bench: Bench) -> None:
    """Several orders at once do not mix up their answers."""
    requests = [await bench.request(OrderType.LIMIT) for _ in range(5)]
    reports: list[OrderReport] = await asyncio.gather(*(bench.place(each) for each in requests))
    ids = {report.venue_order_id for report in reports}
    check(len(ids) == len(requests), f"{len(requests)} orders have the venue ids {sorted(ids)}")

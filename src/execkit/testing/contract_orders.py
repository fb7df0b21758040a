"""Conformance cases 010-299: rules, and the life of an order."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from execkit.errors import (
    DuplicateClientOrderIdError,
    InvalidOrderError,
    OrderNotFoundError,
    OrderRejectedError,
)
from execkit.model.order import OrderReport, OrderRequest, OrderState, OrderType, TimeInForce
from execkit.numbers import ZERO
from execkit.testing.bench import Bench
from execkit.testing.rules import case, faults_in
from execkit.testing.verdict import check, fail

_RESTING = (OrderState.ACCEPTED, OrderState.HELD)
_GONE = (OrderState.CANCELLED, OrderState.EXPIRED)


# -- rules of the instrument ---------------------------------------------------------------------------


@case()
async def ac010_instrument_rules(bench: Bench) -> None:
    """The instrument's rules are complete, exact and above zero."""
    rules = bench.instrument
    check(rules.symbol == bench.symbol, f"symbol is {rules.symbol!r}, asked for {bench.symbol!r}")
    check(bool(rules.base) and bool(rules.quote), "base and quote must be named")
    check(rules.tradeable, f"{bench.symbol} is not tradeable; choose another symbol for the test")
    check(not faults_in(rules), "; ".join(faults_in(rules)))


@case()
async def ac020_unknown_symbol(bench: Bench) -> None:
    """A symbol that the venue does not list is an InvalidOrderError."""
    try:
        rules = await bench.adapter.instrument("NOSUCH/THING")
    except InvalidOrderError:
        return
    fail(f"NOSUCH/THING has the rules {rules}")


@case()
async def ac030_capabilities(bench: Bench) -> None:
    """The capabilities name at least one order type and time in force, and room for our ids."""
    can = bench.adapter.capabilities
    check(can.order_types, "no order type at all")
    check(can.times_in_force, "no time in force at all")
    needed = len(bench.new_id())
    check(can.client_id_length >= needed, f"client ids have {needed} characters; re-encode them")


@case(needs=("always_open",))
async def ac040_market_status(bench: Bench) -> None:
    """A market without sessions is open."""
    status = await bench.adapter.market_status(bench.symbol)
    check(status.is_open, f"always_open is set, but the market is closed: {status.reason}")


# -- placing -------------------------------------------------------------------------------------------


@case(types=(OrderType.MARKET,))
async def ac100_market_order(bench: Bench) -> None:
    """A market order is executed whole, and its fills add up to it."""
    request = await bench.request(OrderType.MARKET)
    report = await bench.place(request)
    done = await bench.reach(request, OrderState.FILLED, report.venue_order_id)
    check(done.filled == request.quantity, f"filled {done.filled} of {request.quantity}")
    check(done.average_price is not None, "a filled order has an average price")


@case(types=(OrderType.LIMIT,))
async def ac110_limit_order_rests(bench: Bench) -> None:
    """A limit order away from the market rests, and the answer repeats its terms."""
    await _rests(bench, await bench.request(OrderType.LIMIT))


@case(types=(OrderType.STOP,))
async def ac120_stop_order_rests(bench: Bench) -> None:
    """A stop order waits for its price."""
    await _rests(bench, await bench.request(OrderType.STOP))


@case(types=(OrderType.STOP_LIMIT,))
async def ac130_stop_limit_order_rests(bench: Bench) -> None:
    """A stop-limit order waits for its price."""
    await _rests(bench, await bench.request(OrderType.STOP_LIMIT))


async def _rests(bench: Bench, request: OrderRequest) -> None:
    report = await bench.place(request)
    check(report.client_order_id == request.client_order_id, "the answer repeats the client id")
    for name in ("type", "limit_price", "stop_price"):
        asked, told = getattr(request, name), getattr(report, name)
        check(told == asked, f"{name} is {told}, asked for {asked}")
    seen = await bench.get(request, report.venue_order_id)
    check(seen.status in _RESTING, f"the order does not rest: it is {seen.status}")
    check(seen.filled == ZERO, f"{seen.filled} is filled")


@case(types=(OrderType.LIMIT,), times=(TimeInForce.IOC,))
async def ac140_ioc_never_rests(bench: Bench) -> None:
    """An IOC order that cannot be executed at once ends."""
    await _ends_unfilled(bench, TimeInForce.IOC)


@case(types=(OrderType.LIMIT,), times=(TimeInForce.FOK,))
async def ac150_fok_never_rests(bench: Bench) -> None:
    """A FOK order that cannot be executed whole at once ends."""
    await _ends_unfilled(bench, TimeInForce.FOK)


async def _ends_unfilled(bench: Bench, time_in_force: TimeInForce) -> None:
    request = await bench.request(OrderType.LIMIT, time_in_force=time_in_force)
    attempt = await bench.attempt(request)
    if attempt.kind == "refused":
        return
    check(attempt.report is not None, f"neither taken nor refused: {attempt}")

    async def ended() -> bool:
        found = await bench.find(request)
        return found is None or found.status in _GONE

    await bench.eventually(ended, lambda: f"the {time_in_force} order has ended")


@case(types=(OrderType.LIMIT,))
async def ac160_echo_names_the_order(bench: Bench) -> None:
    """Answer, look-up and list of open orders name the same order by both ids."""
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    check(report.venue_order_id, "the answer names the venue's own id")
    for where, seen in (
        ("look-up", await bench.get(request, report.venue_order_id)),
        ("open orders", await _among_open(bench, request)),
    ):
        problem = bench.problem(request, seen)
        check(problem is None, f"{where}: the report {problem}")
        check(
            seen.venue_order_id == report.venue_order_id,
            f"{where}: venue id {seen.venue_order_id!r}, the answer said {report.venue_order_id!r}",
        )


async def _among_open(bench: Bench, request: OrderRequest) -> OrderReport:
    found: list[OrderReport] = []

    async def there() -> bool:
        orders = await bench.adapter.open_orders(bench.symbol)
        found[:] = [o for o in orders if o.client_order_id == request.client_order_id]
        return bool(found)

    await bench.eventually(there, lambda: "the order is among the open ones")
    return found[0]


# -- looking up, cancelling, amending ------------------------------------------------------------------


@case(needs=("lookup_by_client_id",), types=(OrderType.LIMIT,))
async def ac200_lookup_open_by_client_id(bench: Bench) -> None:
    """An open order is found by our id alone."""
    request = await bench.request(OrderType.LIMIT)
    await bench.place(request)
    seen = await bench.get(request)
    check(seen.status in _RESTING, f"it is {seen.status}")


@case(needs=("lookup_by_client_id",), types=(OrderType.LIMIT,))
async def ac210_lookup_closed_by_client_id(bench: Bench) -> None:
    """A closed order is found by our id alone, with how it ended."""
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    await bench.cancel(request, report.venue_order_id)
    await bench.reach(request, OrderState.CANCELLED)


@case(types=(OrderType.LIMIT,))
async def ac220_cancel(bench: Bench) -> None:
    """A cancelled order is closed and no longer among the open ones."""
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    answer = await bench.cancel(request, report.venue_order_id)
    known = (OrderState.CANCELLED, OrderState.PENDING_CANCEL)
    check(answer.status in known, f"the answer to the cancel says {answer.status}")
    await bench.reach(request, OrderState.CANCELLED, report.venue_order_id)
    left = [o.client_order_id for o in await bench.adapter.open_orders(bench.symbol)]
    check(request.client_order_id not in left, "the cancelled order is still among the open ones")


@case(types=(OrderType.MARKET,))
async def ac230_cancel_of_filled_order(bench: Bench) -> None:
    """The cancel of a filled order is OrderNotFoundError or reports FILLED, never CANCELLED."""
    request = await bench.request(OrderType.MARKET)
    report = await bench.place(request)
    await bench.reach(request, OrderState.FILLED, report.venue_order_id)
    try:
        answer = await bench.cancel(request, report.venue_order_id)
    except OrderNotFoundError:
        return
    check(answer.status is OrderState.FILLED, f"the answer says {answer.status}")


@case()
async def ac240_unknown_order(bench: Bench) -> None:
    """An order that was never placed is OrderNotFoundError, for look-up and cancel."""
    request = await bench.request()
    calls = [bench.cancel]
    if bench.adapter.capabilities.lookup_by_client_id:
        calls.append(bench.get)
    for call in calls:
        try:
            answer = await call(request)
        except OrderNotFoundError:
            continue
        fail(f"{call.__name__}: an order that does not exist is {answer}")


@case(types=(OrderType.LIMIT,))
async def ac250_duplicate_client_id(bench: Bench) -> None:
    """A client id that is live does not make a second order, and the error says: look it up."""
    request = await bench.request(OrderType.LIMIT)
    await bench.place(request)
    attempt = await bench.attempt(request)
    if attempt.kind == "refused":
        fail(f"a duplicate is no plain refusal, the first may have arrived: {attempt.error!r}")
    if attempt.error is not None and isinstance(attempt.error, OrderRejectedError):
        check(
            isinstance(attempt.error, DuplicateClientOrderIdError), f"it raised {attempt.error!r}"
        )
    orders = await bench.adapter.open_orders(bench.symbol)
    mine = [o for o in orders if o.client_order_id == request.client_order_id]
    check(len(mine) == 1, f"{len(mine)} open orders have the same client id")


@case(needs=("amend",), types=(OrderType.LIMIT,))
async def ac260_amend(bench: Bench) -> None:
    """An amended order rests on with its new quantity and price."""
    request = await bench.request(OrderType.LIMIT)
    report = await bench.place(request)
    quantity = bench.instrument.round_quantity(request.quantity * Decimal("0.75"))
    assert request.limit_price is not None
    price = request.limit_price + bench.instrument.tick_size
    await bench.adapter.amend_order(
        request.symbol,
        client_order_id=request.client_order_id,
        venue_order_id=report.venue_order_id,
        quantity=quantity,
        limit_price=price,
    )

    async def amended() -> bool:
        seen = await bench.find(request)
        return seen is not None and (seen.quantity, seen.limit_price) == (quantity, price)

    await bench.eventually(amended, lambda: f"the order has quantity {quantity} at {price}")


@case(types=(OrderType.LIMIT,), control=("foreign_order",))
async def ac270_foreign_orders(bench: Bench) -> None:
    """Orders of others are listed, and `cancel_all` leaves them alone."""
    request = await bench.request(OrderType.LIMIT)
    await bench.place(request)
    foreign = msgspec.structs.replace(request, client_order_id=f"manual-{bench.new_id()[2:12]}")
    await bench.control.foreign_order(foreign)
    await _among_open(bench, foreign)
    await bench.adapter.cancel_all(bench.symbol)
    left = [o.client_order_id for o in await bench.adapter.open_orders(bench.symbol)]
    check(foreign.client_order_id in left, "cancel_all has cancelled somebody else's order")
    check(request.client_order_id not in left, "cancel_all has left an order of ours")

"""From a signal to a ticket, and from a result to what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from execkit.errors import ExchangeError
from execkit.handlers.desk import Desk
from execkit.model.account import AccountView
from execkit.model.denial import Denial, DenialCode
from execkit.model.instrument import Instrument
from execkit.model.market import Quote
from execkit.model.order import OrderRole, Side, TimeInForce
from execkit.model.position import Position
from execkit.model.records import SignalQueued, SignalResult
from execkit.model.result import ExecutionResult, HandlerTrace, Outcome
from execkit.model.signal import TradingSignal
from execkit.model.ticket import OrderTicket
from execkit.numbers import MONEY, ZERO
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder
from execkit.orders.outcomes import Executed


def role_of(signal: TradingSignal, position: Position | None) -> OrderRole:
    """Return what a signal means: against an open position it closes, else it opens."""
    if signal.reduce_only:
        return OrderRole.EXIT
    if position is not None and position.quantity:
        against = position.is_long is (signal.side is Side.SELL)
        return OrderRole.EXIT if against else OrderRole.ENTRY
    return OrderRole.ENTRY


def role_at_open(
    queued: SignalQueued, role: OrderRole, position: Position | None
) -> OrderRole | Denial:
    """Return what a signal means that has waited in the queue: what it meant then, whatever has become of the position.

    An exit closes the position that it was made for and opens none; an entry closes none. *role* is what the signal
    would mean now, and means where a journal does not say what it meant.
    """
    if queued.role is None:
        return role
    if not queued.role.is_reduction:
        if role.is_reduction:
            return Denial.of(DenialCode.POSITION_EXISTS, symbol=queued.symbol)
    elif position is None or position.position_id != queued.position_id:
        return Denial.of(
            DenialCode.NO_POSITION_TO_REDUCE, symbol=queued.symbol, was_for=queued.position_id
        )
    return queued.role


async def first_ticket(
    desk: Desk,
    signal: TradingSignal,
    signal_id: str,
    instrument: Instrument,
    account: Callable[[], AccountView],
) -> OrderTicket | Denial:
    """Return the ticket that starts a signal's way through the chain, with a fresh quote, or why there is none.

    Raises `ExchangeError` when no price at all is known for a reduction.
    """
    symbol = signal.symbol
    quote = desk.quotes.fresh(symbol) or await desk.quotes.get(symbol)
    now, position, queued = (
        desk.clock.now(),
        desk.book.position(symbol),
        desk.book.queued.get(signal_id),
    )
    role = role_of(signal, position)
    if queued is not None:
        meant = role_at_open(queued, role, position)
        if isinstance(meant, Denial):
            return meant
        role = meant
    if role is OrderRole.ENTRY:
        if desk.reconciler.is_blind:
            return Denial.of(DenialCode.NOT_RECONCILED, reason="the venue could not be read")
        if quote is None:
            last = desk.quotes.last(symbol)
            return Denial.of(
                DenialCode.QUOTE_STALE, age="none" if last is None else str(now - last.at)
            )
    elif signal.entry_only:
        return Denial.of(DenialCode.POSITION_EXISTS, symbol=symbol)
    elif quote is None:
        # A reduction goes on with the best price there is.
        quote = desk.quotes.last(symbol) or assumed_quote(
            signal, position, desk.book.mark(symbol), now
        )
    return make_ticket(
        signal,
        signal_id,
        instrument=instrument,
        quote=quote,
        account=account(),
        position=position,
        role=role,
        now=now,
    )


def make_ticket(
    signal: TradingSignal,
    signal_id: str,
    *,
    instrument: Instrument,
    quote: Quote,
    account: AccountView,
    position: Position | None,
    now: datetime,
    role: OrderRole | None = None,
) -> OrderTicket:
    """Return the ticket of a signal; without *role* it means what it means against this position."""
    return OrderTicket(
        signal=signal,
        signal_id=signal_id,
        instrument=instrument,
        quote=quote,
        account=account,
        position=position,
        role=role_of(signal, position) if role is None else role,
        side=signal.side,
        type=signal.order_type,
        quantity=signal.quantity,
        limit_price=signal.limit_price,
        stop_price=signal.stop_price,
        time_in_force=signal.time_in_force or TimeInForce.GTC,
        stop_loss=signal.stop_loss,
        take_profit=signal.take_profit,
        extended_hours=signal.extended_hours,
        created_at=now,
    )


def assumed_quote(
    signal: TradingSignal, position: Position | None, mark: Decimal | None, now: datetime
) -> Quote:
    """Return the best guess at a price for a reduction that must go on without a quote.

    Raises `ExchangeError` when no price of the symbol is known at all.
    """
    average = position.average_price if position is not None else None
    price = mark or average or signal.limit_price or signal.stop_price
    if not price:
        raise ExchangeError(f"no price of {signal.symbol} is known at all")
    return Quote(signal.symbol, price, price, now)


def denied(signal: TradingSignal, signal_id: str, denial: Denial, now: datetime) -> ExecutionResult:
    """Return the result of a signal that was refused before there was a ticket."""
    return ExecutionResult(
        signal_id=signal_id,
        symbol=signal.symbol,
        side=signal.side,
        outcome=Outcome.DENIED,
        created_at=now,
        denial=denial,
        reason=str(denial),
        requested=signal.quantity,
        trace=(HandlerTrace("ExecutionEngine", "denied", str(denial)),),
    )


def to_record(result: ExecutionResult, digest: str) -> SignalResult:
    """Return what the journal keeps of a result: everything but measured durations."""
    return SignalResult(
        signal_id=result.signal_id,
        signal_digest=digest,
        symbol=result.symbol,
        side=result.side,
        outcome=result.outcome,
        denial=result.denial,
        reason=result.reason,
        client_order_ids=result.client_order_ids,
        requested=result.requested,
        filled=result.filled,
        average_price=result.average_price,
        expected_price=result.expected_price,
        created_at=result.created_at,
        alerts=result.alerts,
        verdicts=tuple((entry.handler, entry.verdict, entry.reason) for entry in result.trace),
    )


def from_record(record: SignalResult, book: Book, now: datetime) -> ExecutionResult:
    """Return the result that was given before, with its order where that is still in memory."""
    orders = [book.orders[i] for i in record.client_order_ids if i in book.orders]
    order = orders[-1] if orders else None
    return ExecutionResult(
        signal_id=record.signal_id,
        symbol=record.symbol,
        side=record.side,
        outcome=record.outcome,
        created_at=record.created_at or now,
        denial=record.denial,
        reason=record.reason,
        order=order,
        client_order_ids=record.client_order_ids,
        requested=record.requested,
        filled=record.filled or ZERO,
        average_price=record.average_price,
        expected_price=record.expected_price,
        fills=() if order is None else order.fills,
        alerts=record.alerts,
        trace=tuple(HandlerTrace(*verdict) for verdict in record.verdicts),
    )


def from_orders(
    signal: TradingSignal, signal_id: str, orders: list[ManagedOrder]
) -> ExecutionResult:
    """Return the result that the orders of a signal amount to, when nobody was told of it before a restart.

    An exit may have been taken apart, so its orders count together, against what all of it was for.
    """
    order = orders[-1]
    if order.role.is_reduction:
        done = Executed.of(orders, order.intent.part_of or orders[0].quantity)
    else:
        done = Executed.of([order])
    return ExecutionResult(
        signal_id=signal_id,
        symbol=signal.symbol,
        side=signal.side,
        outcome=done.outcome,
        created_at=orders[0].created_at,
        reason=order.reason,
        order=order,
        client_order_ids=tuple(each.client_order_id for each in orders),
        requested=done.requested,
        filled=done.filled,
        average_price=done.average_price,
        expected_price=order.expected_price,
        fills=done.fills,
        trace=(HandlerTrace("ExecutionEngine", "recovered", "sent before the restart"),),
    )


def from_slices(
    signal: TradingSignal, signal_id: str, book: Book, now: datetime
) -> ExecutionResult | None:
    """Return what became of an order in slices, when nobody was told of it before a restart; None: begin it."""
    parent = book.parents.get(signal_id)
    if parent is None or not parent.children:
        return None
    orders = [book.orders[key] for key in parent.children if key in book.orders]
    if parent.ended is None:
        outcome, reason = Outcome.WORKING, "worked in slices since before the restart"
    elif parent.filled:
        outcome = Outcome.PARTIALLY_FILLED if parent.left else Outcome.FILLED
        reason = parent.ended
    else:
        outcome, reason = Outcome.CANCELLED, parent.ended
    known = sum((order.filled for order in orders), ZERO)
    value = sum((MONEY.multiply(o.filled, o.average_price or ZERO) for o in orders), ZERO)
    return ExecutionResult(
        signal_id=signal_id,
        symbol=signal.symbol,
        side=signal.side,
        outcome=outcome,
        created_at=orders[0].created_at if orders else now,
        reason=reason,
        client_order_ids=tuple(parent.children),
        requested=parent.record.quantity,
        filled=parent.filled,
        average_price=MONEY.divide(value, known) if known and known == parent.filled else None,
        expected_price=parent.record.price or None,
        trace=(HandlerTrace("ExecutionEngine", "recovered", reason),),
    )

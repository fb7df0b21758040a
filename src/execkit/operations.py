"""What a person does to a running engine: halt, cancel everything, flatten, settle. Reductions are never held up."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec.structs import replace

from execkit.errors import ExecKitError, InvalidTransitionError
from execkit.handlers.desk import Desk
from execkit.model.order import OrderEvent, OrderRole, OrderState
from execkit.model.records import (
    OperatorActed,
    Source,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.model.result import Outcome
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder

VERDICTS: Final = {
    OrderState.PRESUMED_ABSENT: OrderEvent.ABSENT,
    OrderState.CANCELLED: OrderEvent.CANCEL,
    OrderState.REJECTED: OrderEvent.REJECT,
    OrderState.EXPIRED: OrderEvent.EXPIRE,
}
"""What a person may say became of an order; executions only the venue can prove."""


PROTECTIVE: Final = frozenset({OrderRole.STOP, OrderRole.TARGET})
"""Roles that `cancel_all` spares: a venue that keeps a stop and a target together ends both with one."""


def can_open(desk: Desk, symbol: str) -> tuple[bool, str]:
    """Tell whether an entry in *symbol* could be sent now, and if not, why."""
    book = desk.book
    if book.trading_state is not TradingState.ACTIVE:
        cause = "" if book.state_record is None else book.state_record.cause
        return False, f"trading is {book.trading_state}: {cause}"
    if desk.reconciler.is_blind:
        return False, "the venue could not be read"
    if symbol in book.blocked:
        return False, f"{symbol} is blocked: {book.blocked[symbol]}"
    if symbol in book.positions.open:
        return False, f"a position in {symbol} is open"
    if book.orders.open_entries(symbol):
        return False, f"an entry in {symbol} is under way"
    return True, ""


async def cancel_all(
    desk: Desk, symbol: str | None, *, include_protection: bool
) -> list[ManagedOrder]:
    """Cancel open orders of ours all at once; return those that were asked to end."""
    take_from_queue(desk, symbol, "cancel-all")
    desk.slicer.end_all(symbol, "cancel-all")
    orders = [
        order
        for order in list(desk.book.orders.active.values())
        if (symbol is None or order.symbol == symbol)
        and (include_protection or order.role not in PROTECTIVE)
    ]
    await asyncio.gather(
        *(desk.gateway.cancel(order, "cancel-all") for order in orders), return_exceptions=True
    )
    await desk.recorder.settle()
    return orders


async def flatten(desk: Desk, symbol: str | None) -> bool:
    """Cancel entries, then close positions at the market; return whether every closing order is out."""
    take_from_queue(desk, symbol, "flatten")
    desk.slicer.end_all(symbol, "flatten")
    entries = [
        order
        for order in list(desk.book.orders.active.values())
        if order.role is OrderRole.ENTRY and (symbol is None or order.symbol == symbol)
    ]
    await asyncio.gather(
        *(desk.keeper.closer.cancel_and_confirm(order, "flatten") for order in entries),
        return_exceptions=True,
    )
    symbols = [s for s in list(desk.book.positions.open) if symbol is None or s == symbol]
    done = await asyncio.gather(
        *(desk.keeper.flatten(s, "flatten") for s in symbols), return_exceptions=True
    )
    await desk.recorder.settle()
    return all(answer is True for answer in done)


def take_from_queue(desk: Desk, symbol: str | None, reason: str) -> None:
    """End the signals that wait for their market to open; who asks again is told that they were cancelled."""
    for queued in [q for q in desk.book.queued.values() if symbol in (None, q.symbol)]:
        known = desk.book.signals.get(queued.signal_id)
        told = None if known is None else known.result
        if (
            told is None
        ):  # its chain has not ended yet, or never did: nobody was told that it is queued
            desk.recorder.record(replace(queued, queued=False))
        else:
            desk.recorder.record(replace(told, outcome=Outcome.CANCELLED, reason=reason))


async def resume(desk: Desk, *, actor: str, symbol: str | None) -> None:
    """Release the trading state and the blocked symbols, or one of these; raise `ExecKitError` while the file halts."""
    recorder = desk.recorder
    if symbol is None and desk.gateway.is_switched_off:
        raise ExecKitError(f"the file {desk.gateway.halt_file} still halts; remove it first")
    if symbol is None and desk.book.trading_state is not TradingState.ACTIVE:
        recorder.record(
            TradingStateChanged(state=TradingState.ACTIVE, cause="released", actor=actor)
        )
    for blocked in [s for s in desk.book.blocked if symbol in (None, s)]:
        recorder.record(SymbolBlocked(symbol=blocked, blocked=False, cause=f"released by {actor}"))
    await recorder.settle()


def unprotected(book: Book) -> list[str]:
    """Return the symbols whose position has a stop price and no stop that may be live."""
    return [
        symbol
        for symbol, position in book.positions.open.items()
        if position.stop_loss is not None and book.working_stop(symbol) is None
    ]


async def close_position(desk: Desk, symbol: str, *, actor: str) -> bool:
    """Close the position of one symbol; raise `ExecKitError` when there is none."""
    if symbol not in desk.book.positions.open and not desk.book.orders.open_entries(symbol):
        held = ", ".join(sorted(desk.book.positions.open)) or "none"
        raise ExecKitError(f"symbol: there is nothing to close in {symbol!r}; open are {held}")
    note(desk, "close", actor, symbol=symbol)
    return await flatten(desk, symbol)


async def resolve(desk: Desk, order: ManagedOrder, as_: OrderState, *, actor: str) -> ManagedOrder:
    """Settle an order in doubt by hand; see `ByHand.resolve`."""
    if as_ not in VERDICTS:
        raise ExecKitError(f"as: {as_} cannot be said by hand; use {', '.join(VERDICTS)}")
    key = order.client_order_id
    if order.state not in (OrderState.IN_DOUBT, OrderState.PENDING_CANCEL):
        raise ExecKitError(
            f"order: {key} is {order.state}, not in doubt; there is nothing to settle"
        )
    await desk.resolver.look(order)
    if order.state not in (OrderState.IN_DOUBT, OrderState.PENDING_CANCEL):
        await desk.recorder.settle()
        raise ExecKitError(f"order: the venue shows that {key} is {order.state}; that counts")
    note(desk, "resolve", actor, order=key, as_=str(as_))
    try:
        desk.recorder.record(order.record_of(VERDICTS[as_], Source.OPERATOR, f"settled by {actor}"))
    except InvalidTransitionError as error:
        raise ExecKitError(f"as: {error}") from error
    await desk.recorder.settle()
    return order


def note(desk: Desk, command: str, actor: str, **arguments: str | bool) -> None:
    """Leave in the journal who asked for what."""
    desk.recorder.record(OperatorActed(command=command, actor=actor, arguments=arguments))

"""What a person does to a running engine: halt, cancel everything, flatten, settle. Reductions are never held up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from execkit.errors import ExecKitError, InvalidTransitionError
from execkit.handlers.desk import Desk
from execkit.handlers.risk import RiskManagementHandler
from execkit.model.order import OrderEvent, OrderRole, OrderState, Side
from execkit.model.records import (
    OperatorActed,
    Source,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.numbers import ZERO
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder
from execkit.taking_out import Flattened, take_from_queue, take_out

VERDICTS: Final = {
    OrderState.PRESUMED_ABSENT: OrderEvent.ABSENT,
    OrderState.CANCELLED: OrderEvent.CANCEL,
    OrderState.REJECTED: OrderEvent.REJECT,
    OrderState.EXPIRED: OrderEvent.EXPIRE,
}
"""What a person may say became of an order; executions only the venue can prove."""


PROTECTIVE: Final = frozenset({OrderRole.STOP, OrderRole.TARGET})
"""Roles that `cancel_all` spares: no position is left without its stop, and a venue that keeps a stop and a target
together ends both with one."""


def can_open(desk: Desk, symbol: str, chain: Iterable[object], equity: Decimal) -> tuple[bool, str]:
    """Tell whether the gateway and the limits of *chain* would let an entry in *symbol* out now, and if not, why.

    To a position it would be one that adds to it, else a purchase; of what size it may be nothing is said.
    """
    book = desk.book
    if book.trading_state is not TradingState.ACTIVE:
        cause = "" if book.state_record is None else book.state_record.cause
        return False, f"trading is {book.trading_state}: {cause}"
    if desk.reconciler.is_blind:
        return False, "the venue could not be read"
    if symbol in book.blocked:
        return False, f"{symbol} is blocked: {book.blocked[symbol]}"
    if book.orders.open_entries(symbol) or desk.ledger.is_pending(symbol, besides=""):
        return False, f"an entry in {symbol} is under way"
    denial = desk.gateway.shut()
    position = book.positions.open.get(symbol)
    side = Side.SELL if position is not None and not position.is_long else Side.BUY
    for link in chain:
        if denial is None and isinstance(link, RiskManagementHandler):
            mid = book.mark(symbol) or (ZERO if position is None else position.average_price)
            denial = link.check_symbol(desk, symbol, side, mid)
            denial = denial or link.check_days(desk, symbol, equity)
    return denial is None, str(denial or "")


async def cancel_all(
    desk: Desk, symbol: str | None, *, actor: str, halt: bool = True
) -> list[ManagedOrder]:
    """Cancel open orders of ours all at once, but no stops; return those that were asked to end."""
    note(desk, "cancel-all", actor, **_given(symbol, halt=halt))
    if halt:
        stop_entries(desk, symbol, "cancel-all", actor)
    take_from_queue(desk, symbol, "cancel-all")
    desk.slicer.end_all(symbol, "cancel-all")
    orders = [
        order
        for order in list(desk.book.orders.active.values())
        if symbol in (None, order.symbol) and order.role not in PROTECTIVE
    ]
    await asyncio.gather(
        *(desk.gateway.cancel(order, "cancel-all") for order in orders), return_exceptions=True
    )
    await desk.recorder.try_settle()
    return orders


async def flatten(desk: Desk, symbol: str | None, *, actor: str, halt: bool = True) -> Flattened:
    """Cancel entries and close positions at the market, each symbol by itself; return what is left of each."""
    note(desk, "flatten", actor, **_given(symbol, halt=halt))
    if halt:
        stop_entries(desk, symbol, "flatten", actor)
    return await take_out(desk, symbol, "flatten")


def stop_entries(desk: Desk, symbol: str | None, command: str, actor: str) -> None:
    """Let nothing be entered until a person resumes: in one symbol, or at all.

    What is taken out by hand would else be bought again by the next signal.
    """
    if symbol is None:
        desk.gateway.halt(f"{command} by {actor}", actor=actor)
    elif symbol not in desk.book.blocked:
        cause = f"{command} by {actor}"
        desk.recorder.record(SymbolBlocked(symbol=symbol, blocked=True, cause=cause))


def _given(symbol: str | None, *, halt: bool) -> dict[str, str | bool]:
    return {"halt": halt} if symbol is None else {"symbol": symbol, "halt": halt}


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


def resting_entries(book: Book) -> int:
    """Return how many entries may still be executed; a halt lets nothing leave, and takes nothing back."""
    active = book.orders.active.values()
    return sum(each.role is OrderRole.ENTRY and each.state.may_be_live for each in active)


async def close_position(desk: Desk, symbol: str, *, actor: str) -> Flattened:
    """Close the position of one symbol, and let it be entered again; raise `ExecKitError` when there is none."""
    book = desk.book
    under_way = (
        *book.orders.open_entries(symbol),
        *(parent for parent in book.parents.live if parent.record.symbol == symbol),
        *(queued for queued in book.queued.values() if queued.symbol == symbol),
    )
    if symbol not in book.positions.open and not under_way:
        held = ", ".join(sorted(desk.book.positions.open)) or "none"
        raise ExecKitError(f"symbol: there is nothing to close in {symbol!r}; open are {held}")
    note(desk, "close", actor, symbol=symbol)
    return await take_out(desk, symbol, "close")


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

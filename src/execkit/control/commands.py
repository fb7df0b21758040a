"""What the engine does for each command that comes through the control socket."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from execkit import operations
from execkit.control.protocol import Request
from execkit.errors import ExecKitError
from execkit.handlers.desk import Desk
from execkit.model.order import OrderState
from execkit.numbers import plain
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder
from execkit.protection.closing import is_gone
from execkit.taking_out import Flattened

_NOT_NAKED: Final = (
    "include_protection: stops are not cancelled, no position is left without one; `flatten` closes positions and "
    "takes their stops away, `close` those of one symbol"
)


async def obey(desk: Desk, request: Request) -> Any:
    """Do what a request over the control socket asks for, and return what came of it."""
    given = dict(request.arguments)
    symbol = given.get("symbol") or None
    if symbol is not None and not isinstance(symbol, str):
        raise ExecKitError(f"symbol: {symbol!r} is not a symbol")
    match request.command:
        case "status":
            return status(desk)
        case "orders":
            return [_order_view(order) for order in desk.book.orders.active.values()]
        case "positions":
            return [_position_view(desk, each) for each in sorted(desk.book.open_positions())]
        case "resolve":
            return await _resolve_by_name(desk, request)
        case "close":
            done = await operations.close_position(desk, symbol or "", actor=request.actor)
            return _done_view(done) | state_view(desk.book)
        case "cancel-all":
            if given.get("include_protection"):
                raise ExecKitError(_NOT_NAKED)
            asked = await operations.cancel_all(
                desk, symbol, actor=request.actor, halt=given.get("halt") is not False
            )
            left = [order.client_order_id for order in asked if not is_gone(order)]
            views = [_order_view(order) for order in asked]
            return {"orders": views, "not_proven_gone": left} | state_view(desk.book)
        case "flatten":
            done = await operations.flatten(
                desk, symbol, actor=request.actor, halt=given.get("halt") is not False
            )
            return _done_view(done) | state_view(desk.book)
    operations.note(desk, request.command, request.actor, **given)
    match request.command:
        case "halt":
            desk.gateway.halt(str(given.get("cause") or "by hand"), actor=request.actor)
            await desk.recorder.settle()
        case "resume":
            await operations.resume(desk, actor=request.actor, symbol=symbol)
    return status(desk)


def _done_view(done: Flattened) -> dict[str, Any]:
    return {"flat": list(done.flat), "left": dict(done.left)}


def state_view(book: Book) -> dict[str, Any]:
    """Return what may be entered from now on."""
    record = book.state_record
    return {
        "trading_state": str(book.trading_state),
        "cause": "" if record is None else record.cause,
        "blocked": dict(book.blocked),
        "resting_entries": operations.resting_entries(book),
    }


async def _resolve_by_name(desk: Desk, request: Request) -> dict[str, str]:
    key, as_ = str(request.arguments.get("order")), str(request.arguments.get("as"))
    order = desk.book.orders.get(key)
    if order is None:
        doubtful = ", ".join(desk.book.orders.in_doubt) or "none"
        raise ExecKitError(f"order: {key!r} is unknown; in doubt are {doubtful}")
    if as_ not in list(OrderState):
        raise ExecKitError(f"as: {as_!r} is no state; use {', '.join(operations.VERDICTS)}")
    return _order_view(await operations.resolve(desk, order, OrderState(as_), actor=request.actor))


def status(desk: Desk) -> dict[str, Any]:
    """Return what a person wants to know first."""
    book = desk.book
    return {
        "account": desk.recorder.journal.account,
        **state_view(desk.book),
        "blind": desk.reconciler.is_blind,
        "positions": len(book.positions.open),
        "open_orders": len(book.orders.active),
        "in_doubt": sorted(book.orders.in_doubt),
        "unprotected": operations.unprotected(book),
        "journal_healthy": desk.recorder.journal.is_healthy,
        "last_alarms": [f"{alarm.code}: {alarm.text}" for alarm in list(book.alarms)[-5:]],
    }


def _order_view(order: ManagedOrder) -> dict[str, str]:
    return {
        "client_order_id": order.client_order_id,
        "venue_order_id": order.venue_order_id or "",
        "symbol": order.symbol,
        "role": str(order.role),
        "side": str(order.side),
        "type": str(order.request.type),
        "quantity": plain(order.quantity),
        "filled": plain(order.filled),
        "limit_price": "" if order.limit_price is None else plain(order.limit_price),
        "stop_price": "" if order.stop_price is None else plain(order.stop_price),
        "state": str(order.state),
        "reason": order.reason,
    }


def _position_view(desk: Desk, symbol: str) -> dict[str, str]:
    position = desk.book.open_positions()[symbol]
    stop = desk.book.working_stop(symbol)
    return {
        "symbol": symbol,
        "position_id": position.position_id,
        "quantity": plain(position.quantity),
        "average_price": "" if not position.average_price else plain(position.average_price),
        "mark": _plain_or_empty(desk.book.mark(symbol)),
        "stop_loss": _plain_or_empty(position.stop_loss),
        "take_profit": _plain_or_empty(position.take_profit),
        "stop_order": "" if stop is None else stop.client_order_id,
        "opened_at": "" if position.opened_at is None else position.opened_at.isoformat(),
    }


def _plain_or_empty(number: Decimal | None) -> str:
    return "" if number is None else plain(number)

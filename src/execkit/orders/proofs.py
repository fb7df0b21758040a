"""Proofs that a command may leave, and the intents that are journalled for it. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from execkit.ids import client_order_id
from execkit.model.capabilities import Capabilities
from execkit.model.denial import Denial, DenialCode
from execkit.model.order import OrderRequest, OrderRole, Side
from execkit.model.records import Intent, TradingState
from execkit.model.ticket import OrderTicket
from execkit.numbers import ZERO
from execkit.orders.book import Book
from execkit.orders.commands import Entry, Reduction
from execkit.orders.manager import ManagedOrder
from execkit.orders.parents import OUTLIVED
from execkit.risk.checks import check_order

HARD_COLLAR_PCT: Final = Decimal(20)
"""Distance from the quote's mid, in percent, at which no entry leaves; the handlers' own collars are tighter."""


def deny_entry(
    entry: Entry, book: Book, capabilities: Capabilities, *, sending: ManagedOrder | None = None
) -> Denial | None:
    """Return why an entry may not leave now, or None. *sending* is its order, where there is one already."""
    ticket = entry.ticket
    denial = deny_exposure(book, ticket.symbol, ticket.signal_id)
    if denial is not None:
        return denial
    for order in book.orders.revisions(ticket.signal_id):
        if order.cancel_asked:
            return Denial.of(DenialCode.CANCELLED, order=order.client_order_id)
        if order is not sending and order.state.may_be_live:
            return Denial.of(DenialCode.PENDING_ORDER_EXISTS, order=order.client_order_id)
    too_much = deny_slice(ticket, book, "" if sending is None else sending.client_order_id)
    if too_much is not None:
        return too_much
    if ticket.quantity is None or not (entry.unchecked or ticket.is_covered):
        return Denial.of(DenialCode.NOT_STAMPED, symbol=ticket.symbol)
    illegal = check_order(
        ticket,
        ticket.instrument,
        ticket.quote,
        capabilities,
        collar_pct=HARD_COLLAR_PCT,
        is_reduction=False,
    )
    if illegal is not None:
        return illegal
    open_now = len(book.orders.active) + len(book.foreign)
    if capabilities.max_open_orders is not None and open_now >= capabilities.max_open_orders:
        return Denial.of(
            DenialCode.VENUE_UNAVAILABLE, open_orders=open_now, limit=capabilities.max_open_orders
        )
    return None


def deny_exposure(book: Book, symbol: str, parent: str) -> Denial | None:
    """Return why nothing that adds exposure in a symbol may leave now, or None; *parent*'s own doubts do not count."""
    state = book.trading_state
    if state is TradingState.HALTED:
        return Denial.of(DenialCode.TRADING_HALTED, cause=_cause(book))
    if state is TradingState.REDUCING:
        return Denial.of(DenialCode.TRADING_REDUCING, cause=_cause(book))
    if symbol in book.blocked:
        return Denial.of(DenialCode.SYMBOL_BLOCKED, symbol=symbol, cause=book.blocked[symbol])
    for order in book.orders.in_doubt.values():
        if order.symbol == symbol and order.parent != parent:
            return Denial.of(
                DenialCode.SYMBOL_BLOCKED, symbol=symbol, in_doubt=order.client_order_id
            )
    return None


def deny_slice(ticket: OrderTicket, book: Book, besides: str) -> Denial | None:
    """Return why a slice may not leave, or None: all slices together never exceed their parent."""
    return _deny_part(ticket.signal.slice_of, ticket.quantity or ZERO, book, besides)


def _deny_part(name: str | None, quantity: Decimal, book: Book, besides: str) -> Denial | None:
    if name is None:
        return None
    parent = book.parents.get(name)
    if parent is None or parent.ended is not None:
        why = "unknown" if parent is None else parent.ended
        return Denial.of(DenialCode.PARENT_EXCEEDED, parent=name, ended=why)
    if parent.is_outlived(book.positions.open.get(parent.record.symbol)):
        return Denial.of(DenialCode.PARENT_EXCEEDED, parent=name, ended=OUTLIVED)
    sent = parent.committed(besides)
    if sent + quantity > parent.record.quantity:
        return Denial.of(
            DenialCode.PARENT_EXCEEDED,
            parent=name,
            sent=sent,
            slice=quantity,
            limit=parent.record.quantity,
        )
    return None


def _cause(book: Book) -> str:
    return "" if book.state_record is None else book.state_record.cause


def reducible(book: Book, symbol: str, side: Side, *, replaces: tuple[str, ...] = ()) -> Decimal:
    """Return how much of a symbol's position an order on *side* can still close without flipping it.

    Every reduction that may be live counts in full, except those named in *replaces*; of a list that the venue keeps
    together, only the largest, because the execution of one ends the others.
    """
    held = book.positions.quantity(symbol)
    if held == ZERO or (held > ZERO) is (side is Side.BUY):
        return ZERO
    claimed: dict[str, Decimal] = {}
    for order in book.orders.open_reductions(symbol):
        if order.side is side and order.client_order_id not in replaces:
            group = order.intent.list_id or order.client_order_id
            claimed[group] = max(claimed.get(group, ZERO), order.remaining_at_most)
    return max(abs(held) - sum(claimed.values(), ZERO), ZERO)


def deny_reduction(command: Reduction, order: ManagedOrder, book: Book) -> Denial | None:
    """Return why an intended reduction may not leave any more, or None.

    The position may have shrunk meanwhile, or the order that it is a slice of may have come to its end.
    """
    if order.cancel_asked:
        return Denial.of(DenialCode.CANCELLED, order=order.client_order_id)
    besides = (*command.replaces, order.client_order_id)
    if order.intent.list_id is not None:
        reductions = book.orders.open_reductions(order.symbol)
        legs = (o for o in reductions if o.intent.list_id == order.intent.list_id)
        besides = (*besides, *(leg.client_order_id for leg in legs))
    allowed = reducible(book, order.symbol, order.side, replaces=besides)
    if order.remaining > allowed:
        return Denial.of(
            DenialCode.NO_POSITION_TO_REDUCE,
            symbol=order.symbol,
            asked=order.remaining,
            reducible=allowed,
        )
    return _deny_part(command.slice_of, order.quantity, book, order.client_order_id)


def fit_reduction(command: Reduction, book: Book) -> Reduction | Denial:
    """Return the reduction, made small enough never to flip the position, or why nothing is left of it."""
    instrument = command.instrument
    allowed = reducible(book, instrument.symbol, command.side, replaces=command.replaces)
    quantity = instrument.round_quantity(min(command.quantity, allowed))
    if quantity <= ZERO or quantity < instrument.min_quantity:
        return Denial.of(
            DenialCode.NO_POSITION_TO_REDUCE,
            symbol=instrument.symbol,
            asked=command.quantity,
            reducible=allowed,
        )
    return command if quantity == command.quantity else replace(command, quantity=quantity)


def entry_intent(entry: Entry, account: str, book: Book) -> Intent:
    """Return the intent of an entry; its client order id is derived from the signal and the revision."""
    ticket = entry.ticket
    signal_id = ticket.signal_id
    revision = book.next_revision(signal_id, OrderRole.ENTRY)
    request = OrderRequest(
        client_order_id=client_order_id(account, signal_id, OrderRole.ENTRY, revision=revision),
        symbol=ticket.instrument.symbol,
        side=ticket.side,
        type=ticket.type,
        quantity=ticket.quantity or ZERO,
        limit_price=ticket.limit_price,
        stop_price=ticket.stop_price,
        time_in_force=ticket.time_in_force,
        post_only=ticket.signal.post_only,
        extended_hours=ticket.extended_hours,
    )
    stamp = ticket.stamp
    return Intent(
        request=request,
        payload_hash=request.payload_hash,
        role=OrderRole.ENTRY,
        parent=signal_id,
        revision=revision,
        signal_id=signal_id,
        signal_digest=ticket.signal.digest,
        reservation_id=None if stamp is None else stamp.reservation_id,
        worst_price=None if stamp is None else stamp.worst_price,
        expected_price=ticket.arrival_mid,
        stop_loss=ticket.stop_loss,
        take_profit=ticket.take_profit,
        targets=ticket.targets,
        strength=ticket.signal.strength,
        timeout_at=entry.timeout_at,
        slice_of=ticket.signal.slice_of,
        lot_size=ticket.instrument.lot_size,
    )


def reduction_intent(command: Reduction, account: str, book: Book) -> Intent:
    """Return the intent of a reduction; revisions count up per parent and role."""
    revision = book.next_revision(command.parent, command.role)
    request = OrderRequest(
        client_order_id=client_order_id(account, command.parent, command.role, revision=revision),
        symbol=command.instrument.symbol,
        side=command.side,
        type=command.type,
        quantity=command.quantity,
        limit_price=command.limit_price,
        stop_price=command.stop_price,
        time_in_force=command.time_in_force,
        reduce_only=True,
    )
    return Intent(
        request=request,
        payload_hash=request.payload_hash,
        role=command.role,
        parent=command.parent,
        revision=revision,
        signal_id=command.signal_id,
        signal_digest=command.signal_digest,
        position_id=command.position_id,
        expected_price=command.expected_price,
        slice_of=command.slice_of,
        lot_size=command.instrument.lot_size,
        part_of=command.part_of,
    )


def list_intents(commands: tuple[Reduction, ...], account: str, book: Book) -> list[Intent]:
    """Return the intents of reductions that go out as one list, with a name for it that is legal wherever an id is."""
    first = commands[0]
    revision = book.next_revision(first.parent, first.role)
    list_id = client_order_id(account, first.parent, first.role, leg=1, revision=revision)
    intents = (reduction_intent(each, account, book) for each in commands)
    return [replace(intent, list_id=list_id) for intent in intents]

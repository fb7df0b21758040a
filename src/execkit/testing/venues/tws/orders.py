"""The orders of the wire-level TWS: families, OCA groups and trailing stops around the shared matching core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import attrs

from execkit.clock import Clock
from execkit.errors import ExchangeError, InsufficientBalanceError, InvalidOrderError
from execkit.exchanges.matching import MatchingCore
from execkit.model.order import (
    Fill,
    OrderReport,
    OrderRequest,
    OrderState,
    OrderType,
    OrderUpdate,
    Side,
    TimeInForce,
)
from execkit.numbers import ZERO, plain, round_down, round_up
from execkit.testing.venues.tws.listing import Listing
from execkit.testing.venues.tws.messages import Executed, TwsOrder
from execkit.testing.venues.tws.refusals import TIMES, TYPES, Refused, check
from execkit.testing.venues.tws.wire import SentOrder

_ENDED: Final = {
    OrderState.FILLED: "Filled",
    OrderState.CANCELLED: "Cancelled",
    OrderState.EXPIRED: "Cancelled",
    OrderState.REJECTED: "Inactive",
}


class TwsOrders:
    """All orders and executions of the account.

    *on_change* is called with an order that changed, *on_warning* with an order, a code and a text, *on_execution*
    with every execution, in the order in which they happen.
    """

    def __init__(
        self,
        core: MatchingCore,
        clock: Clock,
        *,
        on_change: Callable[[TwsOrder], None],
        on_warning: Callable[[TwsOrder, int, str], None],
        on_execution: Callable[[Executed], None],
    ) -> None:
        self.core = core
        self.clock = clock
        self._on_change = on_change
        self._on_warning = on_warning
        self._on_execution = on_execution
        self.by_id: dict[tuple[int, int], TwsOrder] = {}
        """By client id and order id."""
        self.by_perm: dict[str, TwsOrder] = {}
        self.executions: list[Executed] = []
        self.preset_day = False
        """An order preset turns every order into a DAY order (code 10349)."""
        self.match_at_once = True
        self._next_perm = 1_000_001

    # -- what clients ask ------------------------------------------------------------------------------

    def place(self, client_id: int, sent: SentOrder, listing: Listing) -> TwsOrder:
        """Take an order, or a change of one that has the same id; raise `Refused`."""
        known = self.by_id.get((client_id, sent.order_id))
        if known is not None:
            return self._modify(known, sent)
        if any(c == client_id and i > sent.order_id for c, i in self.by_id):
            raise Refused(103, "Duplicate order id")
        check(sent, listing)
        if sent.parent_id and (client_id, sent.parent_id) not in self.by_id:
            raise Refused(135, f"Can't find order with id = {sent.parent_id}")
        order = TwsOrder(
            sent=sent,
            listing=listing,
            client_id=client_id,
            perm_id=self._next_perm,
            tif=sent.tif or "DAY",
        )
        self._next_perm += 1
        self.by_id[client_id, sent.order_id] = order
        self.by_perm[order.key] = order
        if sent.transmit:
            for member in self._family(order):
                # The execution of the parent may have released its children already.
                if member.status == "PendingSubmit":
                    self._release(member)
        return order

    def cancel(self, client_id: int, order_id: int) -> TwsOrder:
        """End an order; raise `Refused` when there is none such, or it has ended."""
        order = self.by_id.get((client_id, order_id))
        if order is None:
            raise Refused(10147, f"OrderId {order_id} that needs to be cancelled is not found.")
        if not order.is_open:
            state = order.status
            raise Refused(
                10148,
                f"OrderId {order_id} that needs to be cancelled cannot be cancelled, state: {state}.",
            )
        self.end(order, "Cancelled")
        return order

    def end(self, order: TwsOrder, status: str, reason: str = "") -> None:
        """End an open order whatever the market says, and its children with it."""
        if order.in_core and status != "Filled":
            at = self.clock.now()
            state = OrderState.REJECTED if status == "Inactive" else OrderState.CANCELLED
            self.apply(self.core.end(order.key, state, reason, at))
        else:
            self._set(order, status, reason)

    def _modify(self, order: TwsOrder, sent: SentOrder) -> TwsOrder:
        if order.status == "Filled":
            raise Refused(104, "Cannot modify a filled order.")
        if not order.is_open:
            raise Refused(103, "Duplicate order id")
        old = order.sent
        if (sent.action, sent.order_type, sent.account) != (
            old.action,
            old.order_type,
            old.account,
        ):
            raise Refused(105, "Order being modified does not match original order")
        check(sent, order.listing)
        changed = _terms(sent) != _terms(old)
        order.sent = attrs.evolve(sent, ref=old.ref)
        if not (order.in_core and changed):
            self._on_change(order)
            return order
        stop = sent.aux if old.order_type in ("STP", "STP LMT") else None
        if old.order_type == "TRAIL":
            stop = order.stop = sent.trail_stop or self._trailed(order, None)
        try:
            out = self._asking(
                lambda: self.core.amend(
                    order.listing.symbol,
                    order.key,
                    self.clock.now(),
                    quantity=sent.quantity * order.listing.units,
                    limit_price=sent.limit if old.order_type in ("LMT", "STP LMT") else None,
                    stop_price=stop,
                )
            )
        except Refused:
            order.sent = old
            raise
        self._on_change(order)
        self.apply(out)
        return order

    def _family(self, order: TwsOrder) -> list[TwsOrder]:
        head = order.sent.parent_id or order.sent.order_id
        return [
            other
            for (client, key), other in self.by_id.items()
            if client == order.client_id and head in (key, other.sent.parent_id)
        ]

    # -- the life of an order --------------------------------------------------------------------------

    def _release(self, order: TwsOrder) -> None:
        """Let an order that was transmitted into the market, or hold it until its parent is executed."""
        parent = self.by_id.get((order.client_id, order.sent.parent_id))
        if parent is not None and parent.status != "Filled":
            order.why_held = "child"
            self._set(order, "PreSubmitted")
            return
        if not order.sent.tif or (self.preset_day and order.tif != "DAY"):
            order.tif = "DAY"
            text = "Order TIF was set to DAY based on order preset."
            self._on_warning(order, 10349, text)
        if order.sent.outside_rth and order.sent.order_type in ("MKT", "STP"):
            text = "Order Event Warning: Attribute 'Outside Regular Trading Hours' is ignored."
            self._on_warning(order, 2109, text)
        if order.listing.symbol in self.core.halted:
            self._set(order, "PreSubmitted")
            text = "Order Message: your order will not be placed at the exchange until the market opens."
            self._on_warning(order, 399, text)
            return
        order.why_held = ""
        self._enter(order)

    def _enter(self, order: TwsOrder) -> None:
        sent, units = order.sent, order.listing.units
        kind = TYPES[sent.order_type]
        if sent.order_type == "TRAIL":
            order.stop = sent.trail_stop or self._trailed(order, None)
        stop = order.stop if sent.order_type == "TRAIL" else sent.aux
        tif = TimeInForce(TIMES[order.tif])
        request = OrderRequest(
            client_order_id=order.key,
            symbol=order.listing.symbol,
            side=Side.BUY if sent.action == "BUY" else Side.SELL,
            type=kind,
            quantity=sent.quantity * units,
            limit_price=sent.limit if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None,
            stop_price=stop if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None,
            time_in_force=tif,
            expire_at=_moment(sent.good_till) if tif is TimeInForce.GTD else None,
        )
        try:
            out = self._asking(
                lambda: self.core.place(request, self.clock.now(), match=self.match_at_once)
            )
        except Refused:
            del self.by_id[order.client_id, sent.order_id]
            raise
        order.in_core = True
        waits = kind in (OrderType.STOP, OrderType.STOP_LIMIT)
        self._set(order, "PreSubmitted" if waits else "Submitted")
        self.apply(out)

    def _asking(self, ask: Callable[[], list[OrderUpdate]]) -> list[OrderUpdate]:
        """Ask the core; its refusals become codes of TWS."""
        try:
            return ask()
        except InsufficientBalanceError as error:
            text = (
                "Order rejected - reason:YOUR ORDER IS NOT ACCEPTED. IN ORDER TO OBTAIN THE DESIRED POSITION YOUR "
                f"EQUITY WITH LOAN VALUE MUST EXCEED THE INITIAL MARGIN ({error})"
            )
            raise Refused(201, text) from error
        except InvalidOrderError as error:
            codes = {"TICK_SIZE": 110, "LOT_SIZE": 10243, "MIN_QUANTITY": 434, "SYMBOL": 200}
            raise Refused(
                codes.get(error.code or "", 201), f"Order rejected - reason:{error}"
            ) from error
        except ExchangeError as error:
            raise Refused(201, f"Order rejected - reason:{error}") from error

    def apply(self, updates: Iterable[OrderUpdate]) -> None:
        """Take in what became of orders in the core."""
        for update in updates:
            if isinstance(update, Fill):
                self._executed(self.by_perm[update.client_order_id], update)
            elif isinstance(update, OrderReport):
                order = self.by_perm[update.client_order_id]
                if update.status in _ENDED:
                    self._set(order, _ENDED[update.status], update.reason)

    def _executed(self, order: TwsOrder, fill: Fill) -> None:
        quantity = fill.quantity / order.listing.units
        order.filled += quantity
        order.notional += quantity * fill.price
        order.last_price = fill.price
        executed = Executed(
            exec_id=f"0000e0d5.{int(fill.trade_id):08x}.01.01",
            order=order,
            fill=fill,
            quantity=quantity,
            price=fill.price,
            cumulated=order.filled,
            at=fill.at.astimezone(UTC).strftime("%Y%m%d-%H:%M:%S"),
        )
        self.executions.append(executed)
        self._on_execution(executed)
        if order.is_open and order.remaining:
            self._set(order, "Submitted")
        self._reduce_group(order, quantity)

    def correct(self, executed: Executed, quantity: Decimal) -> Executed:
        """Replace an execution by one with the last part of its id counted up."""
        head, _, last = executed.exec_id.rpartition(".")
        order = executed.order
        order.filled += quantity - executed.quantity
        order.notional += (quantity - executed.quantity) * executed.price
        new = attrs.evolve(
            executed,
            exec_id=f"{head}.{int(last) + 1:02d}",
            quantity=quantity,
            cumulated=order.filled,
        )
        self.executions[self.executions.index(executed)] = new
        self._on_execution(new)
        return new

    def _reduce_group(self, order: TwsOrder, quantity: Decimal) -> None:
        """An execution in an OCA group cancels the others (type 1), or makes them smaller (2 and 3)."""
        for other in list(self.by_perm.values()):
            if not other.is_open or not _is_in_one_group(order, other):
                continue
            left = other.sent.quantity - quantity
            if other.sent.oca_type not in (2, 3) or left <= other.filled:
                self.end(other, "Cancelled")
            else:
                self._modify(other, attrs.evolve(other.sent, quantity=left))

    def _set(self, order: TwsOrder, status: str, reason: str = "") -> None:
        order.status, order.reason = status, reason or order.reason
        self._on_change(order)
        if order.is_open:
            return
        now = self.clock.now().astimezone(UTC)
        order.completed_at = now.strftime("%Y%m%d-%H:%M:%S")
        for child in self._family(order):
            if child.sent.parent_id != order.sent.order_id or not child.is_open:
                continue
            if status == "Filled":
                self._release(child)
            else:
                self.end(child, "Cancelled")

    # -- prices ----------------------------------------------------------------------------------------

    def trail(self) -> None:
        """Move the trailing stops after the prices have moved."""
        for order in [o for o in self.by_perm.values() if o.in_core and o.is_open]:
            if order.sent.order_type != "TRAIL":
                continue
            stop = self._trailed(order, order.stop)
            if stop != order.stop:
                order.stop = stop
                symbol, at = order.listing.symbol, self.clock.now()
                self.apply(self.core.amend(symbol, order.key, at, stop_price=stop))

    def _trailed(self, order: TwsOrder, before: Decimal | None) -> Decimal:
        quote = self.core.quote(order.listing.symbol)
        sells = order.sent.action == "SELL"
        price = quote.bid if sells else quote.ask
        percent = order.sent.trail_percent
        gap = price * percent / 100 if percent else order.sent.aux or ZERO
        tick = order.listing.increment_at(price)
        stop = round_down(price - gap, tick) if sells else round_up(price + gap, tick)
        if before is None:
            return stop
        return max(before, stop) if sells else min(before, stop)

    def find(self, ref: str) -> TwsOrder:
        """Return the latest order with an orderRef."""
        return next(o for o in reversed(list(self.by_perm.values())) if o.sent.ref == ref)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{o.sent.ref} {o.status} {plain(o.filled)}" for o in self.by_perm.values()
        )
        return f"TwsOrders({shown})"


def _is_in_one_group(order: TwsOrder, other: TwsOrder) -> bool:
    """Tell whether two orders share an OCA group; the children of one parent do without asking for it."""
    if other is order or other.client_id != order.client_id:
        return False
    mine, its = order.sent, other.sent
    if mine.oca_group or its.oca_group:
        return mine.oca_group == its.oca_group
    return mine.parent_id == its.parent_id != 0


def _terms(sent: SentOrder) -> tuple[Decimal | None, ...]:
    return (sent.quantity, sent.limit, sent.aux, sent.trail_stop, sent.trail_percent)


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)

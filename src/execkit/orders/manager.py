"""Orders in memory: the fold of the journal's order records, with the indexes that the rest asks."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from execkit.errors import InvalidTransitionError
from execkit.model.order import (
    Fill,
    OrderEvent,
    OrderRequest,
    OrderRole,
    OrderState,
    OrderType,
    Side,
)
from execkit.model.records import CommandSent, Filled, Intent, OrderChanged, Source
from execkit.numbers import MONEY, ZERO, plain
from execkit.orders.states import next_state
from execkit.orders.terms import KEEP, Terms

KEEP_CLOSED: Final = 1000
"""Closed orders kept in memory; the store has all."""

_ERRORS: Final = frozenset(
    {OrderEvent.LOSE, OrderEvent.UNSENT, OrderEvent.REJECT, OrderEvent.FAIL, OrderEvent.ABSENT}
)


class ManagedOrder(msgspec.Struct, eq=False, omit_defaults=True):
    """One order and its life. Read-only for everybody but the fold.

    Quantities are in base units, prices and *average_price* in quote units, times aware UTC.
    """

    intent: Intent
    created_at: datetime
    updated_at: datetime
    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    state: OrderState = OrderState.NEW
    venue_order_id: str | None = None
    trades: dict[str, Fill] = {}
    filled: Decimal = ZERO
    filled_notional: Decimal = ZERO
    attempts: int = 0
    """How often it was sent."""
    reason: str = ""
    """Last thing the venue or a failure said of it."""
    errors: tuple[str, ...] = ()
    """Last 20 failures."""
    cancel_asked: bool = False
    """Somebody wants it gone; the wish stays until it is."""
    asked: CommandSent | None = None
    """The change that was asked for last and is not yet answered."""
    former_terms: tuple[Terms, ...] = ()  # those that its last changes ended, oldest first
    sent_at: datetime | None = None
    accepted_at: datetime | None = None
    first_fill_at: datetime | None = None
    closed_at: datetime | None = None
    venue_at: datetime | None = None
    """Latest venue time known; older news does not override."""
    done_hook: Any = None
    """How `done` waits; set by the gateway, not part of the state."""

    @classmethod
    def of(cls, intent: Intent, at: datetime) -> ManagedOrder:
        """Return the order that an intent creates."""
        request = intent.request
        return cls(intent, at, at, request.quantity, request.limit_price, request.stop_price)

    @property
    def request(self) -> OrderRequest:
        """What the venue was first asked for."""
        return self.intent.request

    @property
    def client_order_id(self) -> str:
        """Our id, unique for ever."""
        return self.intent.request.client_order_id

    @property
    def symbol(self) -> str:
        """The instrument's symbol."""
        return self.intent.request.symbol

    @property
    def side(self) -> Side:
        """Buy or sell."""
        return self.intent.request.side

    @property
    def type(self) -> OrderType:
        """Market, limit, stop or stop-limit."""
        return self.intent.request.type

    @property
    def role(self) -> OrderRole:
        """What the order is for."""
        return self.intent.role

    @property
    def parent(self) -> str:
        """What all revisions share."""
        return self.intent.parent

    @property
    def revision(self) -> int:
        """Number of the revision, from zero."""
        return self.intent.revision

    @property
    def signal_id(self) -> str | None:
        """The signal that caused it."""
        return self.intent.signal_id

    @property
    def position_id(self) -> str | None:
        """The position it protects or closes."""
        return self.intent.position_id

    @property
    def reservation_id(self) -> str | None:
        """The risk reservation it draws on."""
        return self.intent.reservation_id

    @property
    def worst_price(self) -> Decimal | None:
        """Price that bounds its cost, also after a change that was made or may have been."""
        asked = None if self.asked is None else self.asked.limit_price
        prices = (self.intent.worst_price, self.limit_price, asked)
        return max((price for price in prices if price is not None), default=None)

    @property
    def expected_price(self) -> Decimal | None:
        """Mid at arrival, what slippage is measured against."""
        return self.intent.expected_price

    @property
    def remaining(self) -> Decimal:
        """What can still be executed, were it live."""
        return max(self.quantity - self.filled, ZERO)

    @property
    def quantity_at_most(self) -> Decimal:
        """The quantity, or the larger one that was asked for last and may have been taken."""
        asked = self.asked.quantity if self.asked is not None else None
        return self.quantity if asked is None else max(asked, self.quantity)

    @property
    def remaining_at_most(self) -> Decimal:
        """What can still be executed at worst; see `quantity_at_most`."""
        return max(self.quantity_at_most - self.filled, ZERO)

    @property
    def average_price(self) -> Decimal | None:
        """Mean price of its fills, or None without one."""
        return self.filled_notional / self.filled if self.filled else None

    @property
    def fills(self) -> tuple[Fill, ...]:
        """Its executions, oldest first."""
        return tuple(sorted(self.trades.values(), key=lambda fill: (fill.at, fill.trade_id)))

    @property
    def is_closed(self) -> bool:
        """Tell whether nothing more can be executed of it."""
        return self.state.is_closed

    @property
    def exposure_quantity(self) -> Decimal:
        """What may still be executed: the remainder while it may be live, else zero."""
        return self.remaining if self.state.may_be_live else ZERO

    async def done(self) -> ManagedOrder:
        """Wait until the order is closed, and return it."""
        if not self.state.is_closed and self.done_hook is not None:
            await self.done_hook(self)
        return self

    def record_of(
        self, event: OrderEvent, source: Source, reason: str = "", code: str | None = None
    ) -> OrderChanged:
        """Return the record that says what happened to this order; writing it is the recorder's."""
        key = self.client_order_id
        return OrderChanged(
            client_order_id=key, event=event, source=source, reason=reason, code=code
        )

    def change(self, record: OrderChanged | CommandSent, at: datetime) -> None:
        """Apply an event or a command; raise `InvalidTransitionError`, changing nothing, when it cannot happen."""
        if isinstance(record, CommandSent):  # what is asked; the venue will show what is done
            self.asked = record if record.command == "amend" else self.asked
            self.cancel_asked = self.cancel_asked or record.command == "cancel"
            return
        event = record.event
        self._enter(next_state(self.state, event, filled_part=self.filled > ZERO), at)
        if record.venue_order_id:
            self.venue_order_id = record.venue_order_id
        self.venue_at = max(filter(None, (self.venue_at, record.venue_at)), default=None)
        if record.reason:
            self.reason = record.reason
        if event is OrderEvent.SUBMIT:
            self.attempts += 1
            self.sent_at = at
            self.reason = ""
        elif event is OrderEvent.ACCEPT and self.accepted_at is None:
            self.accepted_at = at
        elif event is OrderEvent.ASK_CANCEL:
            self.cancel_asked = True
        elif event is OrderEvent.AMEND:
            former = Terms(self.quantity, self.limit_price, self.stop_price)
            self.former_terms = (*self.former_terms, former)[-KEEP:]
            self.quantity = record.quantity or self.quantity
            self.limit_price = record.limit_price or self.limit_price
            self.stop_price = record.stop_price or self.stop_price
        elif event in _ERRORS:
            self.errors = (*self.errors, record.reason or event.value)[-20:]
        if event in (OrderEvent.AMEND, OrderEvent.REFUSE_AMEND):
            self.asked = None
            if self.filled >= self.quantity:  # executed whole while the answer was on its way
                self._enter(next_state(self.state, OrderEvent.FILL), at)

    def execute(self, fill: Fill, at: datetime) -> None:
        """Apply one fill that is new, or that corrects another."""
        if fill.replaces is not None:
            old = self.trades.pop(fill.replaces, None)
            if old is not None:
                self.filled = MONEY.subtract(self.filled, old.quantity)
                self.filled_notional = MONEY.subtract(self.filled_notional, old.notional)
        if fill.quantity:
            self.trades[fill.trade_id] = fill
            self.filled = MONEY.add(self.filled, fill.quantity)
            self.filled_notional = MONEY.add(self.filled_notional, fill.notional)
        self.venue_order_id = self.venue_order_id or fill.venue_order_id or None
        self.first_fill_at = self.first_fill_at or at
        if fill.quantity:
            most = self.quantity_at_most
            if self.quantity < self.filled <= most:
                self.quantity = most  # only the change that was asked for allows so much
            event = OrderEvent.FILL if self.filled >= most else OrderEvent.FILL_PART
            self._enter(next_state(self.state, event), at)

    def _enter(self, state: OrderState, at: datetime) -> None:
        self.updated_at = at
        if state is not self.state:
            self.state = state
            if state.is_closed:
                self.closed_at = at

    def __repr__(self) -> str:
        price = "" if self.limit_price is None else f" limit {plain(self.limit_price)}"
        stop = "" if self.stop_price is None else f" stop {plain(self.stop_price)}"
        return (
            f"<{self.client_order_id} {self.role} {self.side} {plain(self.quantity)} {self.symbol}{price}{stop} "
            f"{self.state}, filled {plain(self.filled)}>"
        )


class OrderManager(Mapping[str, ManagedOrder]):
    """All orders in memory by client order id: every open one, and the last 1000 closed ones."""

    def __init__(self) -> None:
        self._orders: dict[str, ManagedOrder] = {}
        self._by_venue_id: dict[str, str] = {}
        self._by_parent: dict[str, list[str]] = {}
        self._entries: dict[str, dict[str, ManagedOrder]] = {}
        self._reductions: dict[str, dict[str, ManagedOrder]] = {}
        self._closed: deque[str] = deque()
        self.active: dict[str, ManagedOrder] = {}
        """Orders that are not closed, the presumed absent ones included."""
        self.in_doubt: dict[str, ManagedOrder] = {}
        """Orders whose outcome is unknown."""
        self.counts: Counter[str] = Counter()
        """How many orders entered each state so far."""

    def __getitem__(self, client_order_id: str) -> ManagedOrder:
        return self._orders[client_order_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._orders)

    def __len__(self) -> int:
        return len(self._orders)

    def by_venue_id(self, venue_order_id: str) -> ManagedOrder | None:
        """Return the order that the venue knows under this id."""
        return self._orders.get(self._by_venue_id.get(venue_order_id, ""))

    def find(self, client_order_id: str, venue_order_id: str | None = None) -> ManagedOrder | None:
        """Return an order by either id."""
        return self._orders.get(client_order_id) or self.by_venue_id(venue_order_id or "")

    def revisions(self, parent: str) -> list[ManagedOrder]:
        """Return the orders of one parent that are in memory, oldest first."""
        return [self._orders[i] for i in self._by_parent.get(parent, ())]

    def open_entries(self, symbol: str) -> list[ManagedOrder]:
        """Return the entries of a symbol that may still be executed."""
        row = self._entries.get(symbol)
        return [order for order in row.values() if order.state.may_be_live] if row else []

    def open_reductions(self, symbol: str) -> list[ManagedOrder]:
        """Return the exits, stops and targets of a symbol that may still be executed."""
        row = self._reductions.get(symbol)
        return [order for order in row.values() if order.state.may_be_live] if row else []

    def apply(
        self, record: Intent | OrderChanged | CommandSent | Filled, at: datetime
    ) -> ManagedOrder | None:
        """Apply one record and return its order, or None when the order is not in memory.

        Raises `InvalidTransitionError` for an impossible event; nothing is changed then.
        """
        if isinstance(record, Intent):
            return self._add(ManagedOrder.of(record, at))
        if isinstance(record, Filled):
            fill = record.fill
            order = self.find(fill.client_order_id, fill.venue_order_id)
            if order is None:
                return None
            before = order.state
            order.execute(fill, at)
        else:
            order = self._orders.get(record.client_order_id)
            if order is None:
                return None
            before = order.state
            order.change(record, at)
        if order.venue_order_id:
            self._by_venue_id[order.venue_order_id] = order.client_order_id
        if order.state is not before:
            self._moved(order, before)
        return order

    def _add(self, order: ManagedOrder) -> ManagedOrder:
        if order.client_order_id in self._orders:
            raise InvalidTransitionError(f"order {order.client_order_id} is intended twice")
        self._register(order)
        self.counts[order.state.value] += 1
        return order

    def _register(self, order: ManagedOrder) -> None:
        key = order.client_order_id
        self._orders[key] = order
        self._by_parent.setdefault(order.parent, []).append(key)
        if order.venue_order_id:
            self._by_venue_id[order.venue_order_id] = key
        if not order.is_closed:
            self.active[key] = order
            rows = self._reductions if order.role.is_reduction else self._entries
            rows.setdefault(order.symbol, {})[key] = order
        if order.state is OrderState.IN_DOUBT:
            self.in_doubt[key] = order

    def _moved(self, order: ManagedOrder, before: OrderState) -> None:
        self.counts[order.state.value] += 1
        if before is OrderState.IN_DOUBT:
            self.in_doubt.pop(order.client_order_id, None)
        if order.state is OrderState.IN_DOUBT:
            self.in_doubt[order.client_order_id] = order
        elif order.state.is_closed:
            self._close(order)

    def _close(self, order: ManagedOrder) -> None:
        key = order.client_order_id
        self.active.pop(key, None)
        rows = self._reductions if order.role.is_reduction else self._entries
        rows[order.symbol].pop(key, None)
        self._closed.append(key)
        while len(self._closed) > KEEP_CLOSED:
            self._forget(self._closed.popleft())

    def _forget(self, key: str) -> None:
        order = self._orders.pop(key)
        if order.venue_order_id:
            self._by_venue_id.pop(order.venue_order_id, None)
        siblings = self._by_parent[order.parent]
        siblings.remove(key)
        if not siblings:
            del self._by_parent[order.parent]

    def export(self) -> tuple[list[ManagedOrder], list[str]]:
        """Return copies without hooks, oldest first, and the ids of the closed ones in the order of their end."""
        rows = [msgspec.structs.replace(order, done_hook=None) for order in self._orders.values()]
        return rows, list(self._closed)

    def restore(self, rows: list[ManagedOrder], closed: list[str], counts: dict[str, int]) -> None:
        """Take over what `export` gave."""
        for order in rows:
            self._register(order)
        self._closed.extend(closed)
        self.counts = Counter(counts)

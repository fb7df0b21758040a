"""The recorder: the one way in which state changes.

A record is applied to the book and put into the journal in the same step, so the two cannot differ; then those who
keep derived sums are told by direct calls. Events for observers wait until the journal has committed what they tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from msgspec.structs import replace

from execkit.clock import Clock
from execkit.errors import InvalidTransitionError, JournalCommitError, JournalError
from execkit.events import EventBus
from execkit.journal.base import Journal
from execkit.model.events import (
    Event,
    OrderCancelled,
    OrderFailed,
    OrderFilled,
    OrderInDoubt,
    OrderPartiallyFilled,
    OrderPlaced,
    PositionChanged,
    PositionClosed,
    PositionOpened,
    SystemError,  # noqa: A004 - promised name
    TradingStateSet,
)
from execkit.model.order import OrderEvent
from execkit.model.position import Position, PositionState
from execkit.model.records import (
    Alarm,
    CommandSent,
    Filled,
    Intent,
    OrderChanged,
    Record,
    TradingStateChanged,
)
from execkit.numbers import ZERO
from execkit.orders.book import Book
from execkit.orders.manager import ManagedOrder
from execkit.redaction import redacted

Listener = Callable[[Record, ManagedOrder | None], None]

log = structlog.get_logger("execkit")


class Recorder:
    """Applies, journals and announces records."""

    def __init__(self, journal: Journal, book: Book, clock: Clock, bus: EventBus) -> None:
        self.journal = journal
        self.book = book
        self.clock = clock
        self.bus = bus
        self._listeners: list[Listener] = []
        self._pending: deque[tuple[int, Event]] = deque()
        self._has_failed = False
        self.anomaly_hook: Callable[[str, str], None] = _ignore

    def listen(self, listener: Listener) -> None:
        """Call *listener*, synchronously and before anything else happens, for each record."""
        self._listeners.append(listener)

    def record(self, record: Record) -> bool:
        """Apply and journal one record; return whether it could be applied.

        An impossible transition changes nothing: it is recorded as an alarm, and the venue will be asked.
        """
        at = self.clock.now()
        book = self.book
        before = None
        if isinstance(record, Filled):
            if book.knows_fill(record.fill):
                return False
            before = book.positions.open.get(record.fill.symbol)
        try:
            book.apply(record, at)
        except InvalidTransitionError as error:
            self._anomaly(record, str(error))
            return False
        seq = self.journal.append(record, at)
        order = self._order_of(record)
        if self.bus.is_used:
            # Before a listener records something in its turn: observers are told in the order of the records.
            self._announce(record, order, before, at, seq)
        for listener in self._listeners:
            listener(record, order)
        return True

    def alarm(self, code: str, text: str, *, symbol: str = "", client_order_id: str = "") -> None:
        """Record something that a person has to know, and log it; secrets in the text are taken out."""
        text = redacted(text)
        log.error("alarm", code=code, text=text, symbol=symbol, client_order_id=client_order_id)
        self.record(Alarm(code=code, text=text, symbol=symbol, client_order_id=client_order_id))

    async def settle(self) -> None:
        """Make everything recorded so far durable, then tell the observers.

        Raises `JournalCommitError` when it cannot be made durable; the observers are told nothing then.
        """
        try:
            await self.journal.commit()
        except JournalCommitError as error:
            self._tell_alarms(str(error))
            raise
        pending = self._pending
        while pending and pending[0][0] <= self.journal.committed_seq:
            self.bus.publish(pending.popleft()[1])

    def _tell_alarms(self, reason: str) -> None:
        """Tell a person what cannot be made durable any more: for an alarm that is no reason to wait."""
        if not self._has_failed:
            self._has_failed = True
            log.error("journal.unavailable", error=reason)
            self.bus.publish(
                SystemError(at=self.clock.now(), code="JOURNAL_UNAVAILABLE", text=reason)
            )
        kept = [(seq, event) for seq, event in self._pending if not isinstance(event, SystemError)]
        for _, event in self._pending:
            if isinstance(event, SystemError):
                self.bus.publish(event)
        self._pending = deque(kept)

    async def try_settle(self) -> bool:
        """Do as `settle`, where what was done stands anyway; return False when it is not durable."""
        try:
            await self.settle()
        except JournalCommitError as error:
            log.warning("journal.unavailable", error=str(error))
            return False
        return True

    def keep_apart(self, record: Intent | CommandSent) -> bool:
        """Keep a record past a journal that cannot commit; return False when not even that is possible."""
        try:
            self.journal.emergency(record, self.clock.now())
        except JournalError as error:
            log.warning("journal.no_emergency", error=str(error))
            return False
        return True

    def _order_of(self, record: Record) -> ManagedOrder | None:
        orders = self.book.orders
        if isinstance(record, OrderChanged):
            return orders.get(record.client_order_id)
        if isinstance(record, Intent):
            return orders[record.request.client_order_id]
        if isinstance(record, Filled):
            return orders.find(record.fill.client_order_id, record.fill.venue_order_id)
        return None

    def _anomaly(self, record: Record, text: str) -> None:
        key = getattr(record, "client_order_id", "")
        order = self.book.orders.get(key)
        symbol = "" if order is None else order.symbol
        log.warning("order.impossible_event", client_order_id=key, text=text)
        self.record(Alarm(code="IMPOSSIBLE_EVENT", text=text, symbol=symbol, client_order_id=key))
        self.anomaly_hook(symbol, key)

    # -- events ----------------------------------------------------------------------------------------

    def _announce(
        self,
        record: Record,
        order: ManagedOrder | None,
        before: Position | None,
        at: datetime,
        seq: int,
    ) -> None:
        if isinstance(record, Filled):
            if order is not None:
                self._queue(seq, _fill_event(record, order, at))
            self._queue_position(record, before, at, seq)
        elif isinstance(record, OrderChanged) and order is not None:
            event = _order_event(record, order, at)
            if event is not None:
                self._queue(seq, event)
        elif isinstance(record, Alarm):
            self._queue(
                seq, SystemError(at=at, code=record.code, text=record.text, symbol=record.symbol)
            )
        elif isinstance(record, TradingStateChanged):
            self._queue(seq, TradingStateSet(at=at, state=record.state.value, cause=record.cause))

    def _queue(self, seq: int, event: Event) -> None:
        if self.journal.is_healthy:
            self._pending.append((seq, event))
        elif isinstance(event, SystemError):
            self.bus.publish(event)

    def announce(self, event: Event) -> None:
        """Announce an event that no record makes by itself, after what was recorded before it is durable."""
        if self.bus.is_used:
            self._queue(self.journal.last_seq, event)

    def _queue_position(
        self, record: Filled, before: Position | None, at: datetime, seq: int
    ) -> None:
        positions = self.book.positions
        after = positions.open.get(record.fill.symbol)
        if before is not None and (after is None or after.position_id != before.position_id):
            # A corrected fill may have undone the position altogether; then it is told as it last was.
            undone = replace(before, quantity=ZERO, state=PositionState.CLOSED, closed_at=at)
            ended = (p for p in reversed(positions.closed) if p.position_id == before.position_id)
            closed = next(ended, undone)
            self._queue(seq, PositionClosed(at=at, signal_id=closed.signal_id, position=closed))
        if after is not None:
            kind = (
                PositionOpened
                if before is None or before.position_id != after.position_id
                else PositionChanged
            )
            self._queue(seq, kind(at=at, signal_id=after.signal_id, position=after))


def _ignore(_symbol: str, _client_order_id: str) -> None:
    return None


def _fill_event(record: Filled, order: ManagedOrder, at: datetime) -> Event:
    fill = record.fill
    common = _common(order, at)
    if order.filled >= order.quantity:
        return OrderFilled(**common, fill=fill, average_price=order.average_price or fill.price)
    return OrderPartiallyFilled(**common, fill=fill, filled=order.filled)


def _common(order: ManagedOrder, at: datetime) -> dict[str, Any]:
    return {
        "at": at,
        "signal_id": order.signal_id or "",
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side,
        "role": order.role,
        "quantity": order.quantity,
    }


def _order_event(record: OrderChanged, order: ManagedOrder, at: datetime) -> Event | None:
    common = _common(order, at)
    match record.event:
        case OrderEvent.ACCEPT:
            return OrderPlaced(**common, venue_order_id=order.venue_order_id or "")
        case OrderEvent.REJECT | OrderEvent.FAIL:
            return OrderFailed(**common, reason=record.reason)
        case OrderEvent.CANCEL | OrderEvent.EXPIRE:
            return OrderCancelled(**common, filled=order.filled, reason=record.reason)
        case OrderEvent.LOSE:
            return OrderInDoubt(**common, reason=record.reason)
        case _:
            return None

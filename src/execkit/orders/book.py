"""The book: all state there is, as the fold of the journal.

Memory and journal agree because both are made by the same call: whoever changes something appends a record, and
`apply` is the only way in. What is not made of records (marks, foreign orders) is here for reading together with
the rest, and is left out of snapshot and hash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Final

import msgspec

from execkit.model.account import AccountView
from execkit.model.market import Quote, Timeframe
from execkit.model.order import Fill, OrderReport, OrderRole, Side
from execkit.model.position import Position, PositionState
from execkit.model.records import (
    Alarm,
    BalancesSeen,
    BarClosed,
    CommandSent,
    EquityMarked,
    ExternalChange,
    Filled,
    Intent,
    OrderChanged,
    ParentEnded,
    ParentOrder,
    PlanChanged,
    Record,
    SignalQueued,
    SignalResult,
    StopMoved,
    SymbolBlocked,
    TradingState,
    TradingStateChanged,
)
from execkit.model.result import Outcome
from execkit.numbers import MONEY, ZERO
from execkit.orders.book_state import (
    EquityMark,
    SignalEntry,
    Snapshot,
    pending_entry,
    rebased,
)
from execkit.orders.executions import Origin, net_effect, split_symbol
from execkit.orders.manager import ManagedOrder, OrderManager
from execkit.orders.parents import ParentBook
from execkit.orders.positions import PositionBook
from execkit.orders.worth import worth

KEEP_SIGNALS: Final = 100_000
"""Signal ids remembered, so that a repetition is recognised."""
KEEP_RESULTS: Final = 1_000
"""Signals whose full result is remembered."""
KEEP_POSITIONS: Final = 1000
"""Positions of a symbol of whose orders the revisions are remembered."""
KEEP_ALARMS: Final = 200
_MARKS_FOR: Final = timedelta(hours=25)


class Book:
    """Orders, positions, cash, signals and restrictions of one account."""

    def __init__(self) -> None:
        self.orders = OrderManager()
        self.parents = ParentBook()
        """Orders that are worked in slices."""
        self.positions = PositionBook()
        self.cash: dict[str, Decimal] = {}
        """Total holdings by asset; short selling makes a base asset negative."""
        self.signals: dict[str, SignalEntry] = {}
        self.queued: dict[str, SignalQueued] = {}
        """Signals that wait for the market to open."""
        self.state_record: TradingStateChanged | None = None
        self.blocked: dict[str, str] = {}
        """Symbols closed for entries, with the cause."""
        self.equity_marks: deque[EquityMark] = deque()
        self.fired: dict[tuple[str, str], datetime] = {}
        """Last close of (symbol, timeframe) whose functions were asked."""
        self.plans: dict[str, PlanChanged] = {}
        self.owed: dict[str, str] = {}
        """Signals that a bar made and whose result nobody was told yet, by id, as JSON."""
        self.alarms: deque[Alarm] = deque(maxlen=KEEP_ALARMS)
        self.revisions: dict[str, int] = {}
        """Next revision by "parent/role"; client order ids come from it."""
        self.last_at: datetime | None = None
        self.marks: dict[str, Decimal] = {}
        """Last known price by symbol; not journalled."""
        self.quotes: dict[str, tuple[Quote, Decimal]] = {}
        """Last quote by symbol, and the mark that it gave; not journalled."""
        self.foreign: dict[str, OrderReport] = {}
        """Open venue orders that are not ours, by venue order id; not journalled."""
        self._results: deque[str] = deque()

    @property
    def trading_state(self) -> TradingState:
        """What may be sent at all."""
        return TradingState.ACTIVE if self.state_record is None else self.state_record.state

    def mark(self, symbol: str) -> Decimal | None:
        """Return the last known price of a symbol."""
        return self.marks.get(symbol)

    def see_quote(self, quote: Quote) -> None:
        """Remember the price of a quote."""
        symbol, mark = quote.symbol, quote.mark(self.marks.get(quote.symbol))
        self.marks[symbol], self.quotes[symbol] = mark, (quote, mark)

    def position(self, symbol: str) -> Position | None:
        """Return the open position of a symbol with its mark, or None when flat: less than a lot is."""
        position = self.positions.open.get(symbol)
        if position is None:
            return None
        exits = any(
            order.role in (OrderRole.EXIT, OrderRole.FLATTEN)
            for order in self.orders.open_reductions(symbol)
        )
        stop = self.working_stop(symbol)
        return msgspec.structs.replace(
            position,
            mark=self.marks.get(symbol),
            state=PositionState.PENDING_EXIT if exits else PositionState.OPEN,
            stop_order_id=None if stop is None else stop.client_order_id,
        )

    def working_stop(self, symbol: str) -> ManagedOrder | None:
        """Return the protective stop of a symbol that may be live, the newest if there are two."""
        stops = [o for o in self.orders.open_reductions(symbol) if o.role is OrderRole.STOP]
        return stops[-1] if stops else None

    def open_positions(self) -> dict[str, Position]:
        """Return all open positions, and one PENDING_ENTRY for each symbol whose entry has no fill yet."""
        found = {symbol: self.position(symbol) for symbol in self.positions.open}
        shown = {symbol: position for symbol, position in found.items() if position is not None}
        for order in self.orders.active.values():
            is_entry = order.role is OrderRole.ENTRY and order.state.may_be_live
            if is_entry and order.symbol not in shown:
                shown[order.symbol] = pending_entry(order, self.marks.get(order.symbol))
        return shown

    def equity(self, currency: str) -> Decimal:
        """Return all holdings valued at the last marks (else at the entry price), in *currency*."""
        return self.worth(self.cash, currency)

    def worth(self, amounts: Mapping[str, Decimal], currency: str) -> Decimal:
        """Return the value of amounts by asset; see `worth`."""
        return worth(amounts, currency, self.marks, self.positions)

    def account(self, currency: str, reserved: Decimal) -> AccountView:
        """Return the account as risk checks see it."""
        return AccountView(currency, self.equity(currency), self.cash.get(currency, ZERO), reserved)

    def knows_fill(self, fill: Fill) -> bool:
        """Tell whether this execution was applied already."""
        order = self.orders.find(fill.client_order_id, fill.venue_order_id)
        if order is not None and fill.trade_id in order.trades:
            return True
        return self.positions.knows(fill.symbol, fill.trade_id, fill.side)

    def next_revision(self, parent: str, role: OrderRole) -> int:
        """Return the number of the next revision of a parent's orders in a role."""
        return self.revisions.get(f"{parent}/{role}", 0)

    # -- the fold --------------------------------------------------------------------------------------

    def apply(self, record: Record, at: datetime) -> None:
        """Apply one record. Raises `InvalidTransitionError`, changing nothing, for an impossible event."""
        self.last_at = at
        match record:
            case Filled():
                self._fill(record, at)
            case OrderChanged() | CommandSent():
                self.orders.apply(record, at)
                self._slice(record.client_order_id)
            case Intent():
                self._intend(record, at)
            case BarClosed():
                self._bar(record)
            case SignalResult():
                self._result(record)
            case SignalQueued():
                self.owed.pop(record.signal_id, None)
                if record.queued:
                    self.queued[record.signal_id] = record
                else:
                    self.queued.pop(record.signal_id, None)
            case BalancesSeen():
                self.cash = dict(record.totals)
                if record.transferred:
                    self.equity_marks = rebased(self.equity_marks, record.transferred)
            case ExternalChange():
                self.positions.adjust(
                    record.symbol,
                    record.quantity,
                    record.price,
                    at,
                    record.seen_at,
                    lot_size=record.lot_size or ZERO,
                    restores=record.restores,
                )
            case EquityMarked():
                self.equity_marks.append(EquityMark(at, record.equity, record.opens_session))
                while self.equity_marks and at - self.equity_marks[0].at > _MARKS_FOR:
                    self.equity_marks.popleft()
            case TradingStateChanged():
                self.state_record = record
            case SymbolBlocked():
                if record.blocked:
                    self.blocked[record.symbol] = record.cause
                else:
                    self.blocked.pop(record.symbol, None)
            case StopMoved():
                self.positions.set_levels(record, at)
            case PlanChanged():
                self.plans[record.plan] = record
            case Alarm():
                self.alarms.append(record)
            case ParentOrder() | ParentEnded():
                self.queued.pop(record.parent_id, None)
                self.parents.apply(record, self.positions.open)
            case _:
                pass  # registrations are evidence only

    def _intend(self, record: Intent, at: datetime) -> None:
        known = self.orders.get(record.request.client_order_id)
        if known is not None and known.intent == record:
            return  # kept twice: in the journal, and in the emergency file when its commit failed
        self.orders.apply(record, at)
        self._slice(record.request.client_order_id)
        key = f"{record.parent}/{record.role}"
        self.revisions[key] = max(self.revisions.get(key, 0), record.revision + 1)
        if record.parent == record.position_id:
            self._forget_position(record.parent)
        if record.signal_id is not None and record.signal_digest is not None:
            self.queued.pop(record.signal_id, None)
            self._signal(record.signal_id, record.signal_digest)

    def _forget_position(self, newest: str) -> None:
        """Forget the revisions of a position that has long been closed; a new one never gets its id."""
        symbol, _, number = newest.rpartition("#")
        if number.isdecimal():
            for role in OrderRole:
                old = f"{symbol}#{int(number) - KEEP_POSITIONS}/{role}"
                self.revisions.pop(old, None)

    def _slice(self, client_order_id: str) -> None:
        order = self.orders.get(client_order_id)
        if order is not None and order.intent.slice_of is not None:
            self.parents.on_order(order, self.positions.open)

    def _signal(self, signal_id: str, digest: str) -> SignalEntry:
        entry = self.signals.get(signal_id)
        if entry is None:
            entry = self.signals[signal_id] = SignalEntry(digest)
            if len(self.signals) > KEEP_SIGNALS:
                oldest = next(iter(self.signals))
                del self.signals[oldest]
                self.revisions.pop(f"{oldest}/{OrderRole.ENTRY}", None)
                self.revisions.pop(f"{oldest}/{OrderRole.EXIT}", None)
        return entry

    def _result(self, record: SignalResult) -> None:
        # Not before: a kill between intent and send leaves an order that nobody would send.
        self.owed.pop(record.signal_id, None)
        if record.outcome is not Outcome.QUEUED:
            self.queued.pop(record.signal_id, None)
        entry = self._signal(record.signal_id, record.signal_digest)
        if entry.result is None:
            self._results.append(record.signal_id)
        entry.told = True
        entry.result = record
        if len(self._results) > KEEP_RESULTS:
            old = self.signals.get(self._results.popleft())
            if old is not None:
                old.result = None

    def _fill(self, record: Filled, at: datetime) -> None:
        fill = record.fill
        if self.knows_fill(fill):
            return
        order = self.orders.find(fill.client_order_id, fill.venue_order_id)
        origin = Origin()
        replaced = None
        if order is not None:
            replaced = order.trades.get(fill.replaces or "")
            intent = order.intent
            origin = Origin(
                intent.signal_id or "",
                intent.strength,
                intent.stop_loss,
                intent.take_profit,
                intent.targets,
                intent.lot_size or ZERO,
                intent.slice_of or "",
            )
            self.orders.apply(record, at)
        was_outside = self.positions.apply(fill, origin, replaced)
        if order is not None:
            self._slice(order.client_order_id)
        if was_outside:
            return  # the holdings were taken over from the venue with the position
        if replaced is not None:
            self._book_cash(replaced, -1)
        if fill.quantity:
            self._book_cash(fill, 1)

    def _book_cash(self, fill: Fill, direction: int) -> None:
        base, quote = split_symbol(fill.symbol)
        change, _ = net_effect(fill)
        add, take = (MONEY.add, MONEY.subtract)[::direction]
        cash = self.cash
        cash[base] = add(cash.get(base, ZERO), change)
        pay = take if fill.side is Side.BUY else add
        cash[quote] = pay(cash.get(quote, ZERO), fill.notional)
        if fill.fee and fill.fee_asset != base:
            asset = fill.fee_asset or quote
            cash[asset] = take(cash.get(asset, ZERO), fill.fee)

    def _bar(self, record: BarClosed) -> None:
        key = (record.symbol, record.timeframe)
        last = self.fired.get(key)
        if last is None or record.close_time > last:
            self.fired[key] = record.close_time
        self.owed.update(record.signals)
        position = self.positions.open.get(record.symbol)
        began = record.close_time - Timeframe(record.timeframe).duration
        # A bar that began before the position may have its extreme from then.
        if position is not None and began >= position.opened_at:
            self.positions.see_bar(record.symbol, record.high, record.low)

    def snapshot(self) -> bytes:
        """Return the whole state, so that a start need not read the whole history."""
        rows, closed = self.orders.export()
        return _encoder.encode(
            Snapshot(
                orders=rows,
                closed=closed,
                counts=self.orders.counts,
                positions=self.positions.export(),
                cash=self.cash,
                signals=list(self.signals.items()),
                results=list(self._results),
                queued=list(self.queued.values()),
                trading_state=self.state_record,
                blocked=self.blocked,
                equity_marks=list(self.equity_marks),
                fired=[(symbol, frame, at) for (symbol, frame), at in self.fired.items()],
                plans=self.plans,
                owed=list(self.owed.items()),
                alarms=list(self.alarms),
                revisions=self.revisions,
                last_at=self.last_at,
                parents=self.parents.export(),
            )
        )

    @classmethod
    def restore(cls, data: bytes) -> Book:
        """Return the book that `snapshot` was taken of."""
        shot = _decoder.decode(data)
        book = cls()
        book.orders.restore(shot.orders, shot.closed, shot.counts)
        book.positions.restore(shot.positions)
        book.cash = shot.cash
        book.signals = dict(shot.signals)
        book.queued = {queued.signal_id: queued for queued in shot.queued}
        book.state_record = shot.trading_state
        book.blocked = shot.blocked
        book.equity_marks.extend(shot.equity_marks)
        book.fired = {(symbol, frame): at for symbol, frame, at in shot.fired}
        book.plans = shot.plans
        book.owed = dict(shot.owed)
        book.alarms.extend(shot.alarms)
        book.revisions = shot.revisions
        book.last_at = shot.last_at
        book.parents.restore(shot.parents)
        book._results.extend(shot.results)
        return book

    def state_hash(self) -> str:
        """Return a digest of the state; equal histories give equal digests."""
        return blake2b(self.snapshot(), digest_size=16).hexdigest()


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Snapshot)

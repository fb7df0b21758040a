"""What happened, from a journal: orders, fills, trades, refusals and the money they made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from execkit.model.denial import Denial
from execkit.model.order import Fill, OrderRole, Side
from execkit.model.position import Position
from execkit.model.records import (
    Alarm,
    BarClosed,
    Entry,
    EquityMarked,
    Filled,
    Intent,
    SignalResult,
)
from execkit.model.result import Outcome
from execkit.numbers import MONEY, ZERO, plain
from execkit.orders.book import Book
from execkit.orders.executions import split_symbol
from execkit.orders.manager import ManagedOrder


class Refusal(msgspec.Struct, frozen=True):
    """A signal that execkit denied."""

    at: datetime
    signal_id: str
    symbol: str
    side: Side
    denial: Denial


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """A position from flat to flat. Prices are means over its fills; *pnl* is after fees, in quote units."""

    symbol: str
    side: Side
    quantity: Decimal
    entry_price: Decimal
    exit_price: Decimal
    opened_at: datetime
    closed_at: datetime
    ended_by: OrderRole | None
    """Role of the last order; None when something outside closed it."""
    pnl: Decimal
    fees: dict[str, Decimal]


class _Way(msgspec.Struct):
    """Fills of an open position, by direction."""

    side: Side
    bought: Decimal = ZERO
    bought_for: Decimal = ZERO
    sold: Decimal = ZERO
    sold_for: Decimal = ZERO

    def add(self, fill: Fill, *, sign: int = 1) -> None:
        """Count a fill, or with *sign* -1 count it no more."""
        if fill.side is Side.BUY:
            self.bought += sign * fill.quantity
            self.bought_for += sign * fill.notional
        else:
            self.sold += sign * fill.quantity
            self.sold_for += sign * fill.notional


class Summary:
    """Adds up a journal's entries; make it with `of`."""

    def __init__(self) -> None:
        self.book = Book()
        self.orders: list[ManagedOrder] = []
        self.fills: list[tuple[Fill, ManagedOrder | None]] = []
        self.refusals: list[Refusal] = []
        self.trades: list[Trade] = []
        self.alarms: list[tuple[datetime, Alarm]] = []
        self.opening_equity: Decimal | None = None
        self.began_at: datetime | None = None
        self._ways: dict[str, _Way] = {}

    @classmethod
    def of(cls, entries: Iterable[Entry], *, marks: Mapping[str, Decimal] | None = None) -> Summary:
        """Return the summary of a whole journal, with open positions valued at *marks*, else at the last bars."""
        summary = cls()
        for entry in entries:
            summary.add(entry)
        summary.book.marks.update(marks or {})
        return summary

    def add(self, entry: Entry) -> None:
        """Take in the next entry."""
        book, record = self.book, entry.record
        if self.began_at is None:
            self.began_at = entry.at
        if isinstance(record, Filled):
            self._fill(record.fill, entry.at, record)
            return
        book.apply(record, entry.at)
        if isinstance(record, Intent):
            self.orders.append(book.orders[record.request.client_order_id])
        elif isinstance(record, SignalResult):
            if record.outcome is Outcome.DENIED and record.denial is not None:
                self.refusals.append(
                    Refusal(entry.at, record.signal_id, record.symbol, record.side, record.denial)
                )
        elif isinstance(record, BarClosed):
            book.marks[record.symbol] = record.close
        elif isinstance(record, EquityMarked):
            if self.opening_equity is None:
                self.opening_equity = record.equity
        elif isinstance(record, Alarm):
            self.alarms.append((entry.at, record))

    def _fill(self, fill: Fill, at: datetime, record: Filled) -> None:
        book, symbol = self.book, fill.symbol
        order = book.orders.find(fill.client_order_id, fill.venue_order_id)
        was_open = symbol in book.positions.open
        known = book.positions.closed[-1] if book.positions.closed else None
        book.apply(record, at)
        wrong = self._replaced(fill)
        self.fills.append((fill, order))
        if not was_open and wrong is None:
            self._ways[symbol] = _Way(fill.side)
        way = self._ways.setdefault(symbol, _Way(fill.side))
        way.add(fill)
        if wrong is not None:
            way.add(wrong, sign=-1)
        last = book.positions.closed[-1] if book.positions.closed else None
        if last is not None and last is not known:
            self.trades.append(_trade(last, way, order))
            # What went through zero has opened the next position already.
            self._ways[symbol] = _Way(fill.side)

    def _replaced(self, fill: Fill) -> Fill | None:
        """Take out the execution that a correction replaces, and return it; None where it is none."""
        if fill.replaces is None:
            return None
        for number, (known, _) in enumerate(self.fills):
            if (known.symbol, known.trade_id, known.side) == (
                fill.symbol,
                fill.replaces,
                fill.side,
            ):
                del self.fills[number]
                return known
        return None

    # -- money -----------------------------------------------------------------------------------------

    @property
    def realised(self) -> dict[str, Decimal]:
        """Gain of everything closed, after fees, by quote asset."""
        total: dict[str, Decimal] = {}
        for trade in self.trades:
            _add(total, split_symbol(trade.symbol)[1], trade.pnl)
        for position in self.book.positions.open.values():
            _add(total, split_symbol(position.symbol)[1], position.realised_pnl)
        return total

    @property
    def unrealised(self) -> dict[str, Decimal]:
        """Gain of everything open at the last known prices, by quote asset."""
        total: dict[str, Decimal] = {}
        for position in self.positions:
            _add(total, split_symbol(position.symbol)[1], position.unrealised_pnl)
        return total

    @property
    def fees(self) -> dict[str, Decimal]:
        """Fees paid, by asset."""
        total: dict[str, Decimal] = {}
        for fill, _ in self.fills:
            if fill.fee:
                _add(total, fill.fee_asset, fill.fee)
        return total

    @property
    def positions(self) -> list[Position]:
        """What is open now."""
        return [
            position
            for position in map(self.book.position, self.book.positions.open)
            if position is not None
        ]

    def equity(self, currency: str) -> Decimal:
        """Return all holdings at the last known prices, in *currency*."""
        return self.book.equity(currency)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values: numbers as text without exponent, times in ISO 8601."""
        return {
            "orders": [_order(order) for order in self.orders],
            "fills": [_fill(fill, order) for fill, order in self.fills],
            "denials": [
                {
                    "at": refusal.at.isoformat(),
                    "signal_id": refusal.signal_id,
                    "symbol": refusal.symbol,
                    "side": refusal.side.value,
                    "code": refusal.denial.code.value,
                    **refusal.denial.context,
                    "text": str(refusal.denial),
                }
                for refusal in self.refusals
            ],
            "trades": [_trade_row(trade) for trade in self.trades],
            "positions": [
                {
                    "symbol": position.symbol,
                    "quantity": plain(position.quantity),
                    "average_price": plain(position.average_price),
                    "stop_loss": _text(position.stop_loss),
                    "take_profit": _text(position.take_profit),
                    "unrealised_pnl": plain(position.unrealised_pnl),
                }
                for position in self.positions
            ],
            "pnl": {
                "realised": _texts(self.realised),
                "unrealised": _texts(self.unrealised),
                "fees": _texts(self.fees),
                "trades": len(self.trades),
                "won": sum(1 for trade in self.trades if trade.pnl > ZERO),
            },
            "alarms": [
                {"at": at.isoformat(), "code": alarm.code, "text": alarm.text}
                for at, alarm in self.alarms
            ],
        }


def _trade(position: Position, way: _Way, order: ManagedOrder | None) -> Trade:
    buys = way.side is Side.BUY
    quantity, paid = (way.sold, way.sold_for) if buys else (way.bought, way.bought_for)
    return Trade(
        symbol=position.symbol,
        side=way.side,
        quantity=position.peak_quantity,
        entry_price=position.average_price,
        exit_price=MONEY.divide(paid, quantity) if quantity else position.average_price,
        opened_at=position.opened_at,
        closed_at=position.closed_at or position.opened_at,
        ended_by=None if order is None else order.role,
        pnl=position.realised_pnl,
        fees=position.fees,
    )


def _add(total: dict[str, Decimal], asset: str, amount: Decimal) -> None:
    total[asset] = MONEY.add(total.get(asset, ZERO), amount)


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _texts(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {asset: plain(amount) for asset, amount in sorted(amounts.items())}


def _order(order: ManagedOrder) -> dict[str, Any]:
    return {
        "client_order_id": order.client_order_id,
        "venue_order_id": order.venue_order_id,
        "signal_id": order.signal_id,
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.type.value,
        "role": order.role.value,
        "quantity": plain(order.quantity),
        "limit_price": _text(order.limit_price),
        "stop_price": _text(order.stop_price),
        "state": order.state.value,
        "filled": plain(order.filled),
        "average_price": _text(order.average_price),
        "created_at": order.created_at.isoformat(),
        "closed_at": None if order.closed_at is None else order.closed_at.isoformat(),
        "reason": order.reason,
    }


def _fill(fill: Fill, order: ManagedOrder | None) -> dict[str, Any]:
    return {
        "trade_id": fill.trade_id,
        "client_order_id": fill.client_order_id,
        "symbol": fill.symbol,
        "side": fill.side.value,
        "role": None if order is None else order.role.value,
        "quantity": plain(fill.quantity),
        "price": plain(fill.price),
        "fee": plain(fill.fee),
        "fee_asset": fill.fee_asset,
        "at": fill.at.isoformat(),
    }


def _trade_row(trade: Trade) -> dict[str, Any]:
    return {
        "symbol": trade.symbol,
        "side": trade.side.value,
        "quantity": plain(trade.quantity),
        "entry_price": plain(trade.entry_price),
        "exit_price": plain(trade.exit_price),
        "opened_at": trade.opened_at.isoformat(),
        "closed_at": trade.closed_at.isoformat(),
        "ended_by": None if trade.ended_by is None else trade.ended_by.value,
        "pnl": plain(trade.pnl),
        "fees": _texts(trade.fees),
    }

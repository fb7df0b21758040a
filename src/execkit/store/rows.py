"""Rows of the store as values: what a record, an order or a position looks like in columns."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec
from sqlalchemy import Table

from execkit.model.position import Position
from execkit.model.records import (
    Alarm,
    BarClosed,
    CommandSent,
    Entry,
    Filled,
    Intent,
    OrderChanged,
    PlanChanged,
    SignalResult,
    TradingStateChanged,
)
from execkit.numbers import plain
from execkit.orders.manager import ManagedOrder
from execkit.store import schema

Row = dict[str, Any]

_PLAIN_TABLES = {
    Alarm: schema.alarms,
    PlanChanged: schema.plan_changes,
    TradingStateChanged: schema.trading_states,
}
"""Tables whose columns are the record's fields."""


def record_rows(entry: Entry, order: ManagedOrder | None) -> Iterator[tuple[Table, Row]]:
    """Return the rows that a record adds; *order* is the one it is about, as it stands after it."""
    seq, at, record = entry.seq, entry.at, entry.record
    state = None if order is None else order.state
    match record:
        case Intent():
            yield _row(
                schema.order_events,
                record.request,
                seq=seq,
                at=at,
                event="intent",
                state=state,
                reason="",
            )
        case OrderChanged():
            yield _row(schema.order_events, record, seq=seq, at=at, state=state)
        case CommandSent():
            event = f"send_{record.command}"
            yield _row(schema.order_events, record, seq=seq, at=at, event=event, state=state)
        case Filled():
            fill = record.fill
            client_order_id = fill.client_order_id if order is None else order.client_order_id
            yield _row(
                schema.fills,
                fill,
                seq=seq,
                client_order_id=client_order_id,
                source=record.source,
                counts=bool(fill.quantity),
            )
            yield _row(
                schema.order_events,
                seq=seq,
                at=at,
                client_order_id=client_order_id,
                event="fill",
                state=state,
                source=record.source,
                venue_order_id=fill.venue_order_id,
                venue_at=fill.at,
                reason="",
                quantity=fill.quantity,
                price=fill.price,
            )
        case SignalResult():
            denial = record.denial
            yield _row(
                schema.results,
                record,
                seq=seq,
                at=at,
                denial_code=None if denial is None else denial.code,
                denial_context=None if denial is None else denial.context,
            )
            for place, (handler, verdict, reason) in enumerate(record.verdicts):
                yield _row(
                    schema.verdicts,
                    seq=seq,
                    place=place,
                    handler=handler,
                    verdict=verdict,
                    reason=reason,
                )
        case BarClosed():
            for place, decision in enumerate(record.decisions):
                yield _row(schema.evaluations, decision, record, seq=seq, place=place, at=at)
        case Alarm() | PlanChanged() | TradingStateChanged():
            yield _row(_PLAIN_TABLES[type(record)], record, seq=seq, at=at)
        case _:
            body = msgspec.to_builtins(record)
            kind = body.pop("kind")
            yield _row(schema.other_records, seq=seq, at=at, kind=kind, body=body)


def order_row(order: ManagedOrder) -> Row:
    """Return an order as it stands now."""
    return _row(schema.orders, order, order.intent, order.request)[1]


def position_row(position: Position) -> Row:
    """Return a position as it stands now."""
    fees = {asset: plain(fee) for asset, fee in position.fees.items()}
    number = position_number(position)
    return _row(schema.positions, position, number=number, fees=fees)[1]


def position_number(position: Position) -> int:
    """Return which of its symbol's positions it is, from 1."""
    return int(position.position_id.rpartition("#")[2])


_MISSING = object()


def _row(table: Table, *sources: object, **given: object) -> tuple[Table, Row]:
    """Fill every column of a table: from *given*, else from the first source that has the attribute."""
    row: Row = {}
    for column in table.columns.keys():  # noqa: SIM118 - columns are iterated as objects
        value = given.get(column, _MISSING)
        for source in sources:
            if value is not _MISSING:
                break
            value = getattr(source, column, _MISSING)
        if value is _MISSING:
            value = None
        elif isinstance(value, Enum):
            value = value.value
        elif isinstance(value, tuple):
            value = list(value)
        row[column] = value
    return table, row
